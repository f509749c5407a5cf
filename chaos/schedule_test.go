package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

var everythingPossible = abilities{upgrade: true, serverClocks: true, clocks: true}

func TestASeedGivesTheSameScheduleAndAnotherAnother(t *testing.T) {
	t.Parallel()

	first := generate(7, 10*time.Minute, false, everythingPossible)
	if again := generate(7, 10*time.Minute, false, everythingPossible); !reflect.DeepEqual(first, again) {
		t.Errorf("the same seed gives\n%v\nand\n%v", first, again)
	}
	if other := generate(8, 10*time.Minute, false, everythingPossible); reflect.DeepEqual(first, other) {
		t.Error("another seed gives the same")
	}
}

func TestAScheduleIsReadAsItIsPrinted(t *testing.T) {
	t.Parallel()

	for seed := range uint64(20) {
		s := generate(seed, 20*time.Minute, seed%2 == 0, everythingPossible)
		var text strings.Builder
		s.write(&text)
		read, err := readSchedule(strings.NewReader(text.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, text.String())
		}
		var again strings.Builder
		read.write(&again)
		if text.String() != again.String() || len(read) != len(s) {
			t.Errorf("printed\n%s\nand read as\n%s", text.String(), again.String())
		}
	}
}

func TestALongRunHasEveryKindOfFaultAndAShortOneWhatMattersMost(t *testing.T) {
	t.Parallel()

	for seed := range uint64(20) {
		long := generate(seed, 30*time.Minute, false, everythingPossible)
		for kind := range targetsOf {
			if !long.has(kind) {
				t.Errorf("seed %d: no %s in half an hour", seed, kind)
			}
		}
		if long[0].Kind != faultUpgrade {
			t.Errorf("seed %d begins with %s, not with the upgrade", seed, long[0])
		}
		short := generate(seed, time.Minute, true, everythingPossible.without("upgrade"))
		if !short.has(faultKill, ingestNames...) || !short.has(faultKill, workerNames...) || !short.has(faultLose, thePrimary) || !short.has(faultCut) || !short.has(faultRestart) {
			t.Errorf("seed %d: the short run has %v", seed, short)
		}
		if ends := short.ends(); ends > 100*time.Second {
			t.Errorf("seed %d: the short run takes %s", seed, ends)
		}
	}
}

func (a abilities) without(ability string) abilities {
	if ability == "upgrade" {
		a.upgrade = false
	}
	return a
}

func TestWhatAMachineCannotDoIsInNoSchedule(t *testing.T) {
	t.Parallel()

	for seed := range uint64(5) {
		s := generate(seed, 30*time.Minute, false, abilities{})
		if s.has(faultUpgrade) || s.has(faultStep) {
			t.Errorf("seed %d: %v", seed, s)
		}
		if s := generate(seed, 30*time.Minute, false, abilities{serverClocks: true}); !s.has(faultStep, thePrimary) || s.has(faultStep, programNames...) {
			t.Errorf("seed %d, with clocks of servers alone: %v", seed, s)
		}
	}
}

func TestAScheduleThatCannotBePlayedIsRefusedWithWords(t *testing.T) {
	t.Parallel()

	for text, words := range map[string]string{
		"12s kill":                 "give when, for how long and what",
		"12 5s kill ingest1":       "line 1",
		"12s 5s explode ingest1":   `fault "explode" is not known`,
		"12s 5s kill":              "kill takes 1 targets and has 0",
		"12s 5s kill ingest9":      `kill cannot be done to "ingest9"`,
		"12s 5s cut ingest1":       "cut takes 2 targets",
		"\n# all\n5s 5s step db +": "line 3",
	} {
		if _, err := readSchedule(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want an error with %q", text, err, words)
		}
	}
}

func TestFaultsArePlayedInTheOrderOfTheirTimes(t *testing.T) {
	t.Parallel()

	s, err := readSchedule(strings.NewReader("20s 0s restart everything # last\n\n1s 5s kill ingest1\n"))
	if err != nil || len(s) != 2 || s[0].Kind != faultKill || s[0].Number != 1 || s[1].Number != 2 {
		t.Errorf("read %v and %v", s, err)
	}
}
