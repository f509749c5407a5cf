package main

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// runsTruenorth finds the commands in an example, which a shell may pipe, redirect or substitute.
var runsTruenorth = regexp.MustCompile(`truenorth ([^|<>)]*)`)

func TestEveryCommandHasHelpAnExampleThatWorksAndJSON(t *testing.T) {
	t.Parallel()

	known := knownVariables(reflect.TypeFor[cmdconfig.Operator]())
	for _, leaf := range newParser(&commands{}, io.Discard, io.Discard).Model.Leaves(false) {
		name, a := leaf.FullPath(), aboutOf(leaf)
		if leaf.Help == "" || !strings.HasSuffix(leaf.Help, ".") {
			t.Errorf("%s: its one line is %q, want a sentence", name, leaf.Help)
		}
		if (len(a.prints) == 0) == (a.noJSON == "") {
			t.Errorf("%s: it promises %d documents of JSON, and says %q of why there is none", name, len(a.prints), a.noJSON)
		}
		for _, f := range leaf.Flags {
			if f.Help == "" {
				t.Errorf("%s: --%s has no help", name, f.Name)
			}
		}
		for _, p := range leaf.Positional {
			if p.Help == "" {
				t.Errorf("%s: %s has no help", name, p.Summary())
			}
		}
		for _, variable := range regexp.MustCompile(`[A-Z]+(_[A-Z]+)+`).FindAllString(a.needs+" "+a.reads, -1) {
			if !slices.Contains(known, variable) {
				t.Errorf("%s: its help speaks of %s, which no program reads", name, variable)
			}
		}
		own := 0
		for _, e := range a.examples {
			for _, found := range runsTruenorth.FindAllStringSubmatch(e.line, -1) {
				if called := command(t, words(found[1])); called.FullPath() == name {
					own++
				}
			}
		}
		if own == 0 {
			t.Errorf("%s: no example calls it", name)
		}
	}
}

// words splits a command line as a shell does, of what the examples use.
func words(line string) []string {
	var list []string
	for _, w := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(line, -1) {
		list = append(list, strings.Trim(w, "'"))
	}
	return list
}

// knownVariables are those that the configuration reads.
func knownVariables(config reflect.Type) []string {
	known := []string{"POLAR_WEBHOOK_SECRETS"} // a list, which cmdconfig reads by itself
	for f := range config.Fields() {
		if f.Anonymous {
			known = append(known, knownVariables(f.Type)...)
		} else if name := f.Tag.Get("env"); name != "" {
			known = append(known, name)
		}
	}
	return known
}

func TestEveryHelpTellsNeedsExamplesAndExitCodes(t *testing.T) {
	t.Parallel()

	for _, leaf := range newParser(&commands{}, io.Discard, io.Discard).Model.Leaves(false) {
		args := append(strings.Fields(commandName(leaf)), "--help")
		stdout, stderr, code := called(args)
		if offers := strings.Contains(stdout, "--json"); offers != (aboutOf(leaf).noJSON == "") {
			t.Errorf("truenorth %s offers --json: %t", strings.Join(args, " "), offers)
		}
		for _, part := range []string{"Usage: " + leaf.FullPath(), "Examples:", "0 done, 1 failed, 2 wrong usage"} {
			if !strings.Contains(strings.Join(strings.Fields(stdout), " "), part) {
				t.Errorf("truenorth %s does not say %q:\n%s", strings.Join(args, " "), part, stdout)
			}
		}
		if code != exitDone || stderr != "" {
			t.Errorf("truenorth %s ended with %d, and said %q", strings.Join(args, " "), code, stderr)
		}
	}
	if stdout, _, _ := called([]string{"conflicts", "resolve", "--help"}); !strings.Contains(stdout, "resolve (--link | --dismiss) --reason=TEXT <id>") {
		t.Errorf("of two flags one is needed, and it says\n%s", stdout)
	}
	if stdout, _, code := called(nil); code != exitDone || !strings.Contains(stdout, "Exit codes:") {
		t.Errorf("truenorth alone ended with %d, and said\n%s", code, stdout)
	}
}

// called runs truenorth in an environment of these variables alone.
func called(args []string, environ ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, environ, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

func TestExitCodesFollowOneRule(t *testing.T) {
	t.Parallel()

	away := "DATABASE_URL=postgres://app@127.0.0.1:1/app?connect_timeout=1"
	for _, c := range []struct {
		code    int
		args    string
		environ []string
		says    string
		advises string
	}{
		{exitDone, "version", nil, "", ""},
		{exitDone, "version", []string{"POLAR_TIMEOUT=soon"}, "", ""}, // it reads no environment
		{exitUsage, "nonsense", nil, "unexpected argument nonsense", "truenorth --help"},
		{exitUsage, "status --nonsense", nil, "--nonsense", "truenorth status --help"},
		{exitUsage, "completion ksh", nil, "must be one of", "truenorth completion --help"},
		{exitUsage, "replay", nil, "say which events", "truenorth replay --help"},
		{exitUsage, "reconcile invoices", nil, `"invoices"`, "customers"},
		{exitUsage, "endpoint fill --since 2999-01-01T00:00:00Z", nil, "has not been yet", "past"},
		{exitUsage, "endpoint check --url nowhere", nil, "--url is", "https://shop.example"},
		{exitUsage, "help nonsense", nil, "unexpected argument nonsense", "truenorth --help"},
		{exitUsage, "checkout create", nil, "nothing to sell", "--product"},
		{exitUsage, "checkout create --product foo", nil, `"foo" is no id`, "truenorth checkout create --help"},
		{exitUsage, "checkout create --params []", nil, "must be an object", "nothing was queued"},
		{exitUsage, "checkout create --product " + polarfake.OneTimeProductID + " --email nobody", nil, "customer_email", "nothing was queued"},
		{exitUsage, "checkout get foo", nil, `"foo" is no id`, "5b1c3a52"},
		{exitUsage, "keys create " + strings.Repeat("n", 101), nil, "has 101 characters", "truenorth keys create --help"},
		{exitUsage, "checkout create --params {} --email a@b.example", nil, "--params is the whole document", "or the other flags"},
		{exitUsage, "fake-polar --webhook-url http://127.0.0.1:1", nil, "--webhook-secret", "give both"},
		{exitFailed, "status", nil, "DATABASE_URL is not set", "DATABASE_URL_FILE"},
		{exitFailed, "status", []string{"POLAR_TIMEOUT=soon"}, "POLAR_TIMEOUT", ""},
		{exitFailed, "status", []string{away}, "connection refused", "truenorth doctor"},
		{exitFailed, "status", []string{"DATABASE_URL=postgres://app@no-host.invalid/app"}, "no-host.invalid", "truenorth doctor"},
		{exitFailed, "dev", []string{away}, "DATABASE_URL is set", "a Postgres of its own"},
		{exitFailed, "endpoint check", nil, "POLAR_ACCESS_TOKEN is not set", "POLAR_ACCESS_TOKEN_FILE"},
		{exitFailed, "reconcile", []string{away}, "POLAR_ACCESS_TOKEN is not set", "POLAR_ACCESS_TOKEN_FILE"},
		{exitFailed, "webhook sign /nowhere/event.json --secret whsec_c2VjcmV0", nil, "/nowhere/event.json", ""},
		{exitFailed, "webhook sign -", nil, "no secret", "--secret"},
		{exitFound, "doctor", nil, "", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()

			_, stderr, code := called(strings.Fields(c.args), c.environ...)
			if code != c.code || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, c.advises) {
				t.Errorf("it ended with %d and said %q, want %d, %q and %q", code, stderr, c.code, c.says, c.advises)
			}
			_, stderr, code = called(append(strings.Fields(c.args), "--json"), c.environ...)
			if c.says == "" {
				if code != c.code || stderr != "" {
					t.Errorf("with --json it ended with %d and said %q, want %d and nothing", code, stderr, c.code)
				}
				return
			}
			var told toldFailure
			decoder := json.NewDecoder(strings.NewReader(stderr))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&told); err != nil {
				t.Fatalf("with --json it said %q: %v", stderr, err)
			}
			if code != c.code || told.ExitCode != c.code || !strings.Contains(told.Error, c.says) || !strings.Contains(told.ToDo, c.advises) && !strings.Contains(told.Error, c.advises) {
				t.Errorf("with --json it ended with %d and said %+v", code, told)
			}
		})
	}
}

func TestAnEmptyNameIsNone(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"", " "} {
		if _, stderr, code := called([]string{"keys", "create", name}); code != exitUsage || !strings.Contains(stderr, "the name of the key is empty") {
			t.Errorf("keys create %q ended with %d and said %q", name, code, stderr)
		}
	}
}

func TestHelpIsAWordAndAFlag(t *testing.T) {
	t.Parallel()

	for _, of := range [][]string{nil, {"conflicts"}, {"conflicts", "resolve"}} {
		word, _, code := called(append([]string{"help"}, of...))
		flag, _, _ := called(append(of, "--help"))
		if code != exitDone || word != flag {
			t.Errorf("truenorth help %v ended with %d, and printed\n%s", of, code, word)
		}
	}
}

func TestWhatPrintsNoJSONSaysSo(t *testing.T) {
	t.Parallel()

	stdout, stderr, code := called([]string{"completion", "bash", "--json"})
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "a script for a shell") {
		t.Errorf("it ended with %d, printed %q and said %q", code, stdout, stderr)
	}
}

func TestCommandsWithTextOfTheirOwnAreCommands(t *testing.T) {
	t.Parallel()

	// A group's text is lost without a word if about has another receiver than the one in the tree.
	for _, node := range newParser(&commands{}, io.Discard, io.Discard).Model.Children {
		if node.Type != kong.CommandNode || node.Name == "users" {
			continue
		}
		if node.Detail == "" {
			t.Errorf("%s has nothing to say beyond its one line", node.FullPath())
		}
	}
}
