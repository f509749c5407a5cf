package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/releasetest"
)

// TestMain lets the subjects be served by the test's own binary, as they are by the program's.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(mainCode(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestSmokeRunMeasuresEveryPartAndLosesNothing runs every part with tiny numbers. The parts themselves fail where what was
// acknowledged, stored, applied, linked or swept does not agree.
func TestSmokeRunMeasuresEveryPartAndLosesNothing(t *testing.T) {
	t.Parallel()

	out := t.TempDir()
	const intro = "# Performance\n\nWritten by hand.\n\n"
	report := filepath.Join(out, "performance.md")
	old := intro + beginMark + "\nold\n" + endMark + "\n\nThe end.\n" + beginLargeMark + "\nold\n" + endLargeMark + "\nAnd more.\n"
	if err := os.WriteFile(report, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	profiles := t.TempDir()
	o, err := readOptions([]string{"-short", "-out", out, "-cpuprofile", profiles}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r, err := run(t.Context(), o, t.Output())
	if err != nil {
		t.Fatal(err)
	}

	if want := len(receivers) * len(o.connections) * len(o.sizes); len(r.Receive) != want {
		t.Errorf("%d cases of receiving, want %d", len(r.Receive), want)
	}
	for _, s := range r.Receive {
		stores := s.Subject != "verify"
		if s.Rate <= 0 || s.Latency.Count == 0 || s.CPU <= 0 || s.Allocs <= 0 || s.PeakRSS <= 0 || s.Rounds != 1 || stores != (s.WALBytes > 0) {
			t.Errorf("receiving came to %+v", s)
		}
	}
	if r.Half == nil || r.Half.Latency.Count == 0 {
		t.Errorf("half of saturation came to %+v", r.Half)
	}
	if len(r.Apply) != 3 || len(r.Both) != 2 || len(r.Sweep) != 2 {
		t.Errorf("there are %d, %d and %d rows of applying, both and sweeps, want 3, 2 and 2", len(r.Apply), len(r.Both), len(r.Sweep))
	}
	for _, s := range r.Apply {
		if s.Events != o.events || s.Rate <= 0 || s.CPU <= 0 || s.PeakRSS <= 0 {
			t.Errorf("applying came to %+v", s)
		}
	}
	for _, s := range r.Both {
		if s.Latency.Count != int64(o.events) || (s.DoneAfter > 0) != (s.Subject == bothAtOnce) {
			t.Errorf("both came to %+v", s)
		}
	}
	if f := r.Flat; f == nil || len(f.Samples) != flatParts || f.Samples[0].Ingest <= 0 || f.Growth["worker"].All < f.Growth["worker"].First || f.Growth["worker"].First <= 0 {
		t.Errorf("watching the memory came to %+v", f)
	}
	if len(r.Linked) != len(o.rates)+1 {
		t.Fatalf("there are %d loads of links, want %d rates and saturation", len(r.Linked), len(o.rates))
	}
	for i, rate := range o.rates {
		if got, want := r.Linked[i].Latency.Count, int64(rate*o.seconds); got != want {
			t.Errorf("%d links at %d/s, want %d", got, rate, want)
		}
	}
	if r.Create == nil || r.Create.Whole.Count != int64(o.checkouts) || r.Create.Bare.P50 < milliseconds(polarAnswer) {
		t.Errorf("creating came to %+v", r.Create)
	}

	checkLarge(t, o, r.Large)
	checkMigrated(t, o, r.Migrated)

	var stored Results
	numbers, err := os.ReadFile(filepath.Join(out, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(numbers, &stored); err != nil || len(stored.Receive) != len(r.Receive) || len(stored.Goals) != len(r.Goals) {
		t.Errorf("performance.json does not hold the results: %v", err)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), intro+beginMark) || !strings.Contains(string(text), endMark+"\n\nThe end.\n"+beginLargeMark) ||
		!strings.HasSuffix(string(text), endLargeMark+"\nAnd more.\n") || strings.Contains(string(text), "old\n") {
		t.Errorf("the report is not the old one with new numbers:\n%s", text)
	}
	for _, want := range []string{"A smoke run", "fsync=on", "| truenorth, receiving and applying | 800 |", "4,800 events"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report has no %q:\n%s", want, text)
		}
	}
	for _, pattern := range []string{filepath.Join(out, "performance", "*.svg"), filepath.Join(out, "performance-large.json"), filepath.Join(out, "performance-plans.md"), filepath.Join(profiles, "receive-*-truenorth.cpu.pprof")} {
		if found, _ := filepath.Glob(pattern); len(found) == 0 {
			t.Errorf("there is no %s", pattern)
		}
	}
}

func TestGoalsAreComputedFromWhatWasMeasured(t *testing.T) {
	t.Parallel()

	results := func(ours float64, p99 float64) *Results {
		return &Results{
			Receive: []Received{
				{Subject: "truenorth", Connections: manyConnections, BodyBytes: usualSize, Rate: ours, PeakRSS: 50},
				{Subject: "baseline", Connections: manyConnections, BodyBytes: usualSize, Rate: 1000},
				{Subject: "verify", Connections: manyConnections, BodyBytes: usualSize, Rate: 8000},
			},
			Half: &AtHalf{Latency: Latency{P99: p99}},
		}
	}
	for _, test := range []struct {
		name    string
		results *Results
		reached map[string]bool // by the goal's beginning
	}{
		{"reached", results(4000, 25), map[string]bool{"receive, 256": true, "receive at half": true, "peak memory of ingest": true}},
		{"missed", results(3999, 25.1), map[string]bool{"receive, 256": false, "receive at half": false, "peak memory of ingest": true}},
		{"not measured", &Results{}, map[string]bool{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			found := goals(test.results)
			if len(found) == 0 != (len(test.reached) == 0) {
				t.Errorf("goals are %v", found)
			}
			for _, g := range found {
				for beginning, reached := range test.reached {
					if strings.HasPrefix(g.What, beginning) && g.Reached != reached {
						t.Errorf("%s: reached is %t with %g", g.What, g.Reached, g.Value)
					}
				}
			}
		})
	}
}

func TestMedianOfPercentilesIsTakenOverRounds(t *testing.T) {
	t.Parallel()

	rounds := []Latency{{Count: 1, P99: 9, Max: 9}, {Count: 2, P99: 2, Max: 40}, {Count: 3, P99: 4, Max: 5}}
	got := medianLatency(rounds, func(l Latency) Latency { return l })
	if got.P99 != 4 || got.Max != 40 || got.Count != 6 {
		t.Errorf("medians are %+v, want a p99 of 4, a maximum of 40 and 6 in all", got)
	}
	if got := medianOf([]float64{4, 1}, func(n float64) float64 { return n }); got != 2.5 {
		t.Errorf("the median of 4 and 1 is %g, want 2.5", got)
	}
}

func TestLatencyAtAFixedRateCountsFromTheIntendedStart(t *testing.T) {
	t.Parallel()

	latencies := []time.Duration{time.Millisecond, 2 * time.Millisecond, 100 * time.Millisecond}
	if got := summarize(latencies); got.P50 != 2 || got.Max < 99.9 || got.Max > 100.1 || got.Count != 3 {
		t.Errorf("summarized as %+v", got)
	}
}

func TestFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{
		{"-only", "everything"}, {"-only", "half"}, {"-rounds", "0"}, {"-connections", "1,x"}, {"-sizes", "-1"}, {"fast"}, {"-duration", "0s"},
	} {
		var said strings.Builder
		if _, err := readOptions(args, &said); err == nil || said.Len() == 0 {
			t.Errorf("%v: %v, and said %q", args, err, said.String())
		}
	}
	if o, err := readOptions([]string{"-only", "apply"}, io.Discard); err != nil || o.out != "" {
		t.Errorf("a run of one part would write to %q (%v), want a temporary folder", o.out, err)
	}
	if o, err := readOptions([]string{"-only", "large"}, io.Discard); err != nil || o.out != "../docs" || !o.onlyLarge() {
		t.Errorf("a run of large, which has a report of its own, would write to %q (%v), want the documentation", o.out, err)
	}
	if o, err := readOptions(nil, io.Discard); err != nil || o.out != "../docs" {
		t.Errorf("a whole run would write to %q (%v), want the documentation", o.out, err)
	}
}

// checkMigrated sees that the migration was crossed with traffic; the run itself fails where somebody waited for too long.
func checkMigrated(t *testing.T, o options, m *Migrated) {
	t.Helper()
	if m == nil {
		if err := releasetest.Build(t.Context(), ".", t.TempDir()); !errors.Is(err, releasetest.ErrNoHistory) {
			t.Errorf("the migration was not measured, and the release before could be built: %v", err)
		}
		return
	}
	if m.Rows != int64(o.migrated) || len(m.Steps) == 0 || m.Took <= 0 || m.Received < m.Before.Deliveries.Count || m.Before.Deliveries.Count == 0 ||
		m.During.Deliveries.Count == 0 || m.Held.Table == "" || m.Wait > m.Bound {
		t.Errorf("migrating came to %+v", m)
	}
}
