package main

import (
	"bufio"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestAMinuteOfLoadKeepsAllLimits fails where what `make load` judges does not hold in a short run.
//
//nolint:paralleltest // it measures how long things take: nothing shall run beside it
func TestAMinuteOfLoadKeepsAllLimits(t *testing.T) {
	out := t.TempDir()
	o, err := readEndureOptions([]string{"-short", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r, err := endure(t.Context(), o, t.Output())
	if err != nil {
		t.Error(err) // what is judged is looked at all the same
	}
	if r == nil {
		return
	}
	s, d := r.Saturation, r.Day
	if s == nil || d == nil || len(s.Phases) != 4 || s.Capacity <= 0 {
		t.Fatalf("load came to %+v", r)
	}
	accepted := 0
	for _, p := range s.Phases {
		accepted += p.Accepted
		if p.Accepted == 0 || p.Latency.Count != int64(p.Accepted) || p.Refusals.Count != int64(p.Refused) || len(p.Windows) == 0 || p.IngestRSS.Second <= 0 || p.WorkerRSS.Second <= 0 {
			t.Errorf("%s came to %+v", p.Name, p)
		}
	}
	if s.phase(phaseOverload).Refused == 0 {
		t.Error("three times as much was not too much: nothing was refused")
	}
	if s.Accepted < accepted || s.Stored < s.Accepted {
		t.Errorf("%d were accepted in the phases, %d in all, and %d are stored", accepted, s.Accepted, s.Stored)
	}
	const kinds = 15
	if d.Events < o.events || d.Applied != d.Events || len(d.Kinds) < kinds || d.FirstHour.WorkerRSS <= 0 || d.LastHour.IngestGoroutines <= 0 || len(d.Held) < hours {
		t.Errorf("the day came to %+v", d)
	}
	text, err := os.ReadFile(filepath.Join(out, "load.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{beginLoadMark, "A short run", "| acknowledged and not stored | ≤ 0 events | 0 events | reached |", "| three times as much |", "| `subscription.cycled` |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report has no %q:\n%s", want, text)
		}
	}
}

func TestIDsOfDeliveriesGiveTheirNumberBack(t *testing.T) {
	t.Parallel()

	for _, number := range []uint64{0, 1, 63, 64, deliveriesAtMost - 1} {
		if got, err := numberOf(idOf(number)); err != nil || got != number {
			t.Errorf("%d became %s, and that %d (%v)", number, idOf(number), got, err)
		}
	}
	if _, err := numberOf("msg_1"); err == nil {
		t.Error("an id that was never sent has a number")
	}
}

func TestEachDeliveryOfAStreamVerifiesAndIsNewerThanTheOneBefore(t *testing.T) {
	t.Parallel()

	s, err := newStream(700)
	if err != nil {
		t.Fatal(err)
	}
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	var r request
	last := ""
	for _, number := range []uint64{0, 1, uint64(len(s.events)), uint64(2 * len(s.events))} {
		if err := s.write(number, &r); err != nil {
			t.Fatal(err)
		}
		got, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(r.head) + string(r.body))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := webhook.Verify(body, got.Header); err != nil || string(body) != string(r.body) {
			t.Errorf("delivery %d does not verify: %v", number, err)
		}
		at := string(body[s.times[number%uint64(len(s.events))]:])[:len(stamp(time.Time{}))]
		if at <= last {
			t.Errorf("delivery %d is of %s, and the one before of %s", number, at, last)
		}
		last = at
	}
}

func TestWhatRefusesIsCountedApartAndSlowsNothing(t *testing.T) {
	t.Parallel()

	s, err := newStream(0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	l := served(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch n++; n % 4 {
		case 0:
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable) // without word of when to come again
		case 2:
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}, 1)
	p, err := s.play(t.Context(), "test", l, 200*time.Millisecond, 100)
	if err != nil {
		t.Fatal(err)
	}
	if p.Sent+p.Unsent != 20 || p.Accepted+p.Refused+p.Wrong != p.Sent || p.Accepted == 0 || p.Refused == 0 || p.Wrong < p.Accepted || p.WrongBy == "" {
		t.Errorf("it came to %+v", p)
	}
	acknowledged := 0
	for number := range s.next.Load() {
		if s.acknowledged(number) {
			acknowledged++
		}
	}
	if acknowledged != p.Accepted {
		t.Errorf("%d deliveries count as acknowledged, want %d", acknowledged, p.Accepted)
	}
}

func TestItIsNormalAgainOnceThreeSecondsInARowAre(t *testing.T) {
	t.Parallel()

	good, slow, full, empty := Window{Accepted: 9, P99: 10}, Window{Accepted: 9, P99: 11}, Window{Accepted: 9, Refused: 1, P99: 1}, Window{}
	for name, c := range map[string]struct {
		windows []Window
		want    float64
	}{
		"at once":        {[]Window{good, good, good}, 0},
		"after one":      {[]Window{slow, good, good, good}, 1},
		"not yet":        {[]Window{good, good, full, good, good, good}, 3},
		"nothing passes": {[]Window{empty, empty, empty}, 11},
		"never":          {[]Window{good, good, slow}, 11},
	} {
		if got := recovery(c.windows, 10); got != c.want {
			t.Errorf("%s: normal after %g s, want %g", name, got, c.want)
		}
	}
}

func TestABrokenLimitIsAMissedGoal(t *testing.T) {
	t.Parallel()

	phase := func(name string) Phase {
		return Phase{Name: name, Seconds: 1, Sent: 300, Accepted: 100, Latency: Latency{P99: 1, Max: 2}, IngestRSS: Halves{20, 20}, WorkerRSS: Halves{20, 20}}
	}
	whole := func(change func(*Saturation, *Day)) []Goal {
		s := &Saturation{Capacity: 100, Over: 2000, Phases: []Phase{phase(phaseBefore), phase(phaseSaturated), phase(phaseOverload), phase(phaseAfter)}}
		d := &Day{Events: 1000, Applied: 1000, Sweeps: daySweeps}
		change(s, d)
		return append(s.goals(), d.goals()...)
	}
	missed := func(goals []Goal) (list []string) {
		for _, g := range goals {
			if !g.Reached {
				list = append(list, g.What)
			}
		}
		return list
	}
	if list := missed(whole(func(*Saturation, *Day) {})); len(list) > 0 {
		t.Errorf("nothing is wrong, and missed are %q", list)
	}
	for what, change := range map[string]func(*Saturation, *Day){
		"and not stored":       func(s *Saturation, _ *Day) { s.Lost = 1 },
		"acknowledged and not": func(s *Saturation, _ *Day) { s.Unapplied = 1 },
		"neither a 2xx nor":    func(s *Saturation, _ *Day) { s.Phases[1].Wrong = 1 },
		"no overload":          func(s *Saturation, _ *Day) { s.Phases[2].Sent = 119 },
		"is taken at":          func(s *Saturation, _ *Day) { s.Phases[2].Accepted = 19 },
		"p99 of what":          func(s *Saturation, _ *Day) { s.Phases[2].Latency.P99 = 8001 },
		"the slowest":          func(s *Saturation, _ *Day) { s.Phases[1].Latency.Max = 10_001 },
		"normal again":         func(s *Saturation, _ *Day) { s.RecoveryTook = 11 },
		"memory of ingest":     func(s *Saturation, _ *Day) { s.Phases[2].IngestRSS.Second = 1000 },
		"memory of the worker": func(s *Saturation, _ *Day) { s.Phases[1].WorkerRSS.First = 129 },
		"growth of ingest":     func(s *Saturation, _ *Day) { s.Phases[1].IngestRSS.Second = 100 },
		"day: not applied":     func(_ *Saturation, d *Day) { d.Applied = 999 },
		"otherwise in":         func(_ *Saturation, d *Day) { d.Differing = 1 },
		"were compared":        func(_ *Saturation, d *Day) { d.Sweeps = daySweeps - 1 },
		"growth of the worker": func(_ *Saturation, d *Day) { d.LastHour.WorkerRSS = 30 },
		"day: ingest, in the":  func(_ *Saturation, d *Day) { d.LastHour.IngestGoroutines = 51 },
		"day: to Postgres":     func(_ *Saturation, d *Day) { d.Held = []Held{{Connections: 35}} },
		"dead tuples":          func(_ *Saturation, d *Day) { d.DeadShare = 0.21 },
		"River's table":        func(_ *Saturation, d *Day) { d.JobsMost = 2 },
	} {
		list := missed(whole(change))
		if len(list) == 0 || !strings.Contains(strings.Join(list, "\n"), what) {
			t.Errorf("%s: missed are %q", what, list)
		}
	}
}

func TestTheBusiestHoursAreTenTimesTheQuietest(t *testing.T) {
	t.Parallel()

	if got := busy(0) / busy(0.5); math.Abs(got-busiestOver) > 1e-9 {
		t.Errorf("the busiest moment has %g times what the quietest has", got)
	}
	if busyUntil(0) != 0 || busyUntil(1) != 1 || math.Abs(busyUntil(0.5)-0.5) > 1e-3 {
		t.Errorf("of the day's events %g, %g, %g happened at its beginning, middle and end", busyUntil(0), busyUntil(0.5), busyUntil(1))
	}
}

func TestLoadsThatProveNothingAreRefused(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{{"-for", "1s"}, {"-calm", "5s"}, {"-day", "1s"}, {"-connections", "256"}, {"-events", "1"}, {"-only", "night"}, {"fast"}} {
		var said strings.Builder
		if _, err := readEndureOptions(args, &said); err == nil || said.Len() == 0 {
			t.Errorf("%v: %v, and said %q", args, err, said.String())
		}
	}
	if o, err := readEndureOptions(nil, io.Discard); err != nil || o.out != "../docs" {
		t.Errorf("a whole run would write to %q (%v), want the documentation", o.out, err)
	}
	if o, err := readEndureOptions([]string{"-only", "day"}, io.Discard); err != nil || o.out != "" {
		t.Errorf("a run of one part would write to %q (%v), want a temporary folder", o.out, err)
	}
}
