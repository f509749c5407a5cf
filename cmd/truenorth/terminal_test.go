package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// seen runs truenorth at a terminal and gives what a person sees of standard output.
func seen(t *testing.T, args []string, environ ...string) string {
	t.Helper()
	person, program, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = person.Close() }()
	screen := make(chan string)
	go func() {
		var text bytes.Buffer
		_, _ = text.ReadFrom(person) // a terminal ends with an error
		screen <- text.String()
	}()
	var stderr bytes.Buffer
	run(args, environ, strings.NewReader(""), program, &stderr)
	if strings.Contains(stderr.String(), "\033") {
		t.Errorf("standard error, which is no terminal, has codes: %q", &stderr)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(<-screen, "\r\n", "\n")
}

func TestColoursAreForTerminalsThatWantThem(t *testing.T) {
	t.Parallel()

	plain, _, _ := called([]string{"doctor"})
	if strings.Contains(plain, "\033") {
		t.Errorf("a pipe gets codes:\n%q", plain)
	}
	coloured := seen(t, []string{"doctor"}, "TERM=xterm")
	if !strings.Contains(coloured, "\033[31mfault\033[0m") || !strings.Contains(coloured, "\033[33mwarning\033[0m") {
		t.Errorf("a terminal gets no colours:\n%q", coloured)
	}
	if bare := withoutCodes(coloured); bare != plain {
		t.Errorf("without its codes a terminal gets\n%s\nwant\n%s", bare, plain)
	}
	for _, environ := range [][]string{{"TERM=dumb"}, {"TERM=xterm", "NO_COLOR=1"}} {
		if got := seen(t, []string{"doctor"}, environ...); got != plain {
			t.Errorf("with %v a terminal gets\n%q\nwant\n%q", environ, got, plain)
		}
	}
	if got := seen(t, []string{"doctor", "--json"}, "TERM=xterm"); strings.Contains(got, "\033") || !strings.HasPrefix(got, "[") {
		t.Errorf("with --json a terminal gets\n%q", got)
	}
	if got := seen(t, []string{"doctor"}, "TERM=xterm", "NO_COLOR="); got != coloured {
		t.Errorf("with an empty NO_COLOR a terminal gets\n%q\nwant colours", got)
	}
}

func withoutCodes(text string) string {
	for _, code := range []string{"\033[31m", "\033[32m", "\033[33m", "\033[39m", "\033[0m"} {
		text = strings.ReplaceAll(text, code, "")
	}
	return text
}

func TestProgressOffATerminalIsALineNowAndThen(t *testing.T) {
	t.Parallel()

	for _, json := range []bool{false, true} {
		var stderr bytes.Buffer
		p := newProgress(&environment{stderr: &stderr, json: json})
		for i := range int64(1000) {
			p.show("replaying", i, 1000)
		}
		p.step("waiting")
		if stderr.Len() > 0 {
			t.Errorf("within the first seconds it says %q", &stderr)
		}
		p.said = time.Now().Add(-linesApart)
		p.show("replaying", 400, 1000)
		p.show("replaying", 401, 1000)
		p.said = time.Now().Add(-linesApart)
		p.show("blanking events", 7, 0)
		p.said = time.Now().Add(-linesApart)
		p.step("waiting for another that reconciles")
		p.close()
		want := []string{"replaying: 400 of 1000", "blanking events: 7", "waiting for another that reconciles ..."}
		if json {
			for i := range want {
				want[i] = fmt.Sprintf("{%q:%q}", "note", want[i])
			}
		}
		if got := strings.Split(strings.TrimSpace(stderr.String()), "\n"); !slices.Equal(got, want) {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}

func TestProgressAtATerminalIsABarThatGoesAway(t *testing.T) {
	t.Parallel()

	person, program, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = person.Close() }()
	screen := make(chan string)
	go func() {
		var text bytes.Buffer
		_, _ = text.ReadFrom(person)
		screen <- text.String()
	}()
	p := newProgress(&environment{stderr: program})
	p.show("replaying", 1, 1000)
	p.show("replaying", 500, 1000)
	p.close()
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-screen; !strings.Contains(got, "replaying") || !strings.HasSuffix(got, "\r\033[K") {
		t.Errorf("the terminal shows %q", got)
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	t.Parallel()

	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if isTerminal(file) || isTerminal(&bytes.Buffer{}) || bool(styleOf(file, []string{"TERM=xterm"}, false)) {
		t.Error("a file gets colours")
	}
}
