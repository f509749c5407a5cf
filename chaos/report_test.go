package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAnOutageLastsUntilPostgresIsWholeAgain(t *testing.T) {
	t.Parallel()

	e := &evidence{History: []entry{
		{At: 9_900, Kind: kindDelivery, Status: 202},
		{At: 10_000, Kind: kindFault, Fault: 1, What: "kill postgres@db1"},
		{At: 10_000, Kind: kindHealed, Fault: 1, What: "kill postgres@db1"},
		{At: 10_500, Kind: kindAlone},
		{At: 14_000, Kind: kindPrimary, Host: "db2", Timeline: 2},
		{At: 16_000, Kind: kindWhole},
		{At: 17_000, Kind: kindDelivery, Status: 202},
		{At: 18_000, Kind: kindOpened},
	}}
	list := outages(e)
	if len(list) != 1 {
		t.Fatalf("outages are %+v", list)
	}
	if o := list[0]; o.Silence != 7 || o.Primary != "db2" || o.Changed != 4 || o.Whole != 6 || o.Back != 1 || o.Pages != 2 {
		t.Errorf("the outage is %+v", o)
	}
}

func TestThePageTellsWhatWasKeptAndWhatWasNot(t *testing.T) {
	t.Parallel()

	o := options{dir: t.TempDir(), root: t.TempDir(), write: true}
	if err := os.Mkdir(filepath.Join(o.root, "docs"), 0o750); err != nil {
		t.Fatal(err)
	}
	e := sound()
	e.Run = facts{Date: "2026-09-01", Seed: 7, Asked: 30 * time.Minute, Machine: "a machine"}
	code, err := o.conclude(e)
	if err != nil || code != 0 {
		t.Fatalf("a sound run ends with %d, %v", code, err)
	}
	page := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(o.root, "docs", "chaos.md"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, words := range []string{
		"1. Kept: A 2xx means durable", "6. Kept: Without a valid secret", "Seed 7, 15s of faults, 2026-09-01, on one machine: a machine.",
		"| acknowledged with a 2xx | 3, of 2 events; every one is applied |", "| 1 | 10 s | 15 s | kill ingest1 | 6.0 s | db2, after 3.0 s | 4.0 s | 2.0 s | 3.0 s |",
		`make chaos CHAOS="--seed 7 --for 30m0s"`, "Left out, as this machine or clone lacks what it takes: the rolling upgrade,",
	} {
		if !strings.Contains(page(), words) {
			t.Errorf("the page lacks %q:\n%s", words, page())
		}
	}

	e.Events = e.Events[:1]
	if code, err := o.conclude(e); err != nil || code != exitBroken {
		t.Errorf("a run that lost an event ends with %d, %v", code, err)
	}
	if words := "1. **Broken**, with 1 charges: A 2xx means durable"; !strings.Contains(page(), words) || strings.Contains(page(), "every one is applied") {
		t.Errorf("the page of a run that lost an event lacks %q, or says that all are applied:\n%s", words, page())
	}
}
