package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func TestFlagsSayWhatToRunAndWrongOnesAreNamed(t *testing.T) {
	t.Parallel()

	o, err := readOptions([]string{"--seed", "7", "--for", "30m", "--write"}, io.Discard)
	if err != nil || o.seed != 7 || o.length != 30*time.Minute || !o.write || o.short || !strings.HasPrefix(o.root, "/") {
		t.Errorf("%+v, %v", o, err)
	}
	for args, words := range map[string]string{
		"--for 0s":        "-for has to be above zero",
		"--short --write": "-short is no run to publish",
		"now":             `what is "now"?`,
		"--sed 7":         "-sed",
	} {
		var told strings.Builder
		if _, err := readOptions(strings.Fields(args), &told); err == nil || !strings.Contains(told.String(), words) {
			t.Errorf("%s: %v, and told %q, want %q", args, err, told.String(), words)
		}
	}
}

func TestHelpTellsEveryKindOfFault(t *testing.T) {
	t.Parallel()

	var told strings.Builder
	if _, err := readOptions([]string{"--help"}, &told); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	for kind := range targetsOf {
		if !strings.Contains(told.String(), "\n  "+kind+" ") {
			t.Errorf("the help does not tell of %s:\n%s", kind, told.String())
		}
	}
}

func TestARunInsideItsNamespacesIsThatWhichWasAskedFor(t *testing.T) {
	t.Parallel()

	asked, err := readOptions([]string{"--seed", "7", "--for", "30m", "--write", "--dir", "/tmp/run"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := readOptions(asked.inside(), io.Discard)
	if err != nil || inside.seed != 7 || inside.length != 30*time.Minute || !inside.write || inside.dir != "/tmp/run" || inside.schedule != "/tmp/run/schedule" || inside.root != asked.root {
		t.Errorf("%+v, %v", inside, err)
	}
}
