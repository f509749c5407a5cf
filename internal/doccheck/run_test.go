package doccheck_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pb33f/go-yaml"

	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// most is how many blocks may be left out of the run; each says why in a comment above it.
const most = 4

func TestEveryCommandOfTheDocumentsRuns(t *testing.T) {
	t.Parallel()
	left := 0
	for _, p := range pagesToRun(t) {
		for _, b := range p.blocks {
			if reason, ok := b.noted("not run"); ok {
				left++
				t.Logf("%s is not run: %s", b.place(), reason)
				if reason == "" {
					t.Errorf("%s is not run, and its comment does not say why", b.place())
				}
			}
		}
		if elsewhere[p.name] {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			runPage(t, p)
		})
	}
	if left > most {
		t.Errorf("%d blocks are not run; at most %d should be: a command that no test runs will be wrong one day", left, most)
	}
}

// elsewhere are the pages that are not run here.
var elsewhere = map[string]bool{
	// Asked of a shop of its own, in TestEveryAnswerOfTheCookbookIsRight.
	"docs/cookbook.md": true,
	// Its lines have each a way of their own to be run: TestEveryExampleOfTheCommandsRuns.
	"docs/cli.md": true,
}

// inShell are the languages of blocks that need the whole machine.
var inShell = map[string]bool{"sh": true, "console": true, "http": true}

func runPage(t *testing.T, p page) {
	t.Helper()
	var s shell
	for _, b := range p.blocks {
		if _, ok := b.noted("not run"); ok {
			continue
		}
		if inShell[b.language] || b.language == "sql" {
			s.open(t, p)
		}
		switch b.language {
		case "sh":
			s.run(b)
		case "console":
			s.runSession(b)
		case "http":
			s.request(b)
		case "sql":
			runSQL(t, s.world.databaseURL, b)
		case "go":
			compiles(t, b)
		case "json":
			if !json.Valid([]byte(b.text)) {
				t.Errorf("%s is no JSON", b.place())
			}
		case "yaml":
			var document any
			if err := yaml.Unmarshal([]byte(b.text), &document); err != nil {
				t.Errorf("%s: %v", b.place(), err)
			}
		case "text":
		case "":
			if m := looksLikeCommand.FindString(b.text); m != "" {
				t.Errorf("%s has a command (%s) and no language: it is sh, or console where it shows output", b.place(), strings.TrimSpace(m))
			}
		default:
			t.Errorf("%s is of language %q, of which this test knows nothing", b.place(), b.language)
		}
		if t.Failed() {
			return // what comes after builds on it
		}
	}
}

func needsShell(p page) bool {
	for _, b := range p.blocks {
		if _, ok := b.noted("not run"); inShell[b.language] && !ok {
			return true
		}
	}
	return false
}

var looksLikeCommand = regexp.MustCompile(`(?m)^(\$ .*|(truenorth|curl|psql|make|go|npm|docker|systemctl|export) .*)`)

// shell runs the blocks of a page, one after the other.
type shell struct {
	world *world
	t     *testing.T
}

// open makes the page's machine, or its database alone where that is all it needs. What has happened before the page
// begins is in testdata: docs-linking.sh is run before docs/linking.md.
func (s *shell) open(t *testing.T, p page) {
	t.Helper()
	if s.world != nil {
		return
	}
	s.t = t
	before := filepath.Join("testdata", strings.TrimSuffix(strings.ReplaceAll(p.name, "/", "-"), ".md")+".sh")
	script, err := os.ReadFile(before)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err != nil && !needsShell(p) {
		s.world = &world{t: t, databaseURL: storetest.URL(t)}
		return
	}
	s.world = newWorld(t, p.name)
	s.world.write("state", "cd "+s.world.work+"\n")
	if len(script) > 0 {
		s.run(block{page: "internal/doccheck/" + before, line: 1, language: "sh", text: string(script)})
	}
}

// blockLimit is how long a block may take, on a machine where all else is tested at the same time.
const blockLimit = 3 * time.Minute

// run runs a block, and goes on from where the one before it left off.
func (s *shell) run(b block) (output string) {
	s.t.Helper()
	command := s.command(b)
	if words, ok := b.noted("keeps running, and prints"); ok {
		s.keep(b, command, words)
		return ""
	}
	want := 0
	if code, ok := b.noted("exit code"); ok {
		var err error
		if want, err = strconv.Atoi(code); err != nil {
			s.t.Fatalf("%s: %v", b.place(), err)
		}
	}
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatalf("%s: %v", b.place(), err)
	}
	output = s.world.asPage(out.String())
	if code := command.ProcessState.ExitCode(); code != want {
		s.t.Errorf("%s ended with %d, want %d:\n%s\n--- it printed\n%s", b.place(), code, want, b.text, output)
	}
	return output
}

// command is bash with a block: variables, and the folder, come from the block before and go on to the next.
func (s *shell) command(b block) *exec.Cmd {
	s.t.Helper()
	state := filepath.Join(s.world.home, "state")
	script := "set -eo pipefail; set -a; . " + state + "\n" +
		`trap '{ export -p; printf "cd %q\n" "$PWD"; } > ` + state + "' EXIT\n" + s.world.here(b.text)
	ctx, cancel := context.WithTimeout(s.t.Context(), blockLimit)
	s.t.Cleanup(cancel)
	command := exec.CommandContext(ctx, "bash", "-c", script)
	command.Env, command.Dir = s.world.environ(), s.world.work
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	return command
}

// keep starts a block whose programs stay until the page is over, or are stopped.
func (s *shell) keep(b block, command *exec.Cmd, words string) *process {
	s.t.Helper()
	detached := exec.CommandContext(context.WithoutCancel(s.t.Context()), command.Args[0], command.Args[1:]...)
	detached.Env, detached.Dir = command.Env, command.Dir
	s.world.kept++
	p, err := startProcess(detached, filepath.Join(s.world.home, fmt.Sprintf("kept-%d.log", s.world.kept)))
	if err != nil {
		s.t.Fatalf("%s: %v", b.place(), err)
	}
	s.t.Cleanup(func() {
		if err := p.stop(); err != nil {
			s.t.Errorf("%s: %v", b.place(), err)
		}
	})
	if err := p.until(func() bool { return strings.Contains(p.output(), words) }); err != nil {
		s.t.Errorf("%s does not print %q: %v", b.place(), words, err)
	}
	for page, shown := range map[string]*regexp.Regexp{pageShownURL: shownURL, pageSecret: shownSecret} {
		if here := shown.FindString(p.output()); here != "" {
			s.world.words = append([]string{page, here}, s.world.words...)
		}
	}
	return p
}

// What make run shows, and is another at each start.
var (
	shownURL    = regexp.MustCompile(`postgres://\S+`)
	shownSecret = regexp.MustCompile(`whsec_[A-Za-z0-9+/=]+`)
)

// runSession runs each "$ " of a block, and compares what it prints.
func (s *shell) runSession(b block) {
	s.t.Helper()
	for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
		text, want, _ := strings.Cut(step, "\n")
		for strings.HasSuffix(text, `\`) { // goes on in the next line
			var more string
			more, want, _ = strings.Cut(want, "\n")
			text += "\n" + more
		}
		one := b
		one.text = text + "\n"
		got := s.run(one)
		// What Polar tells is heard of a moment later, so who only looks may look again, as a reader would.
		for deadline := time.Now().Add(10 * time.Second); !shows(want, got) && onlyLooks.MatchString(text) && time.Now().Before(deadline); {
			got = s.run(one)
		}
		if !shows(want, got) {
			s.t.Errorf("%s: `%s` prints other than the page shows:\n%s\n--- the page has\n%s", b.place(), text, got, want)
		}
	}
}

// onlyLooks are the commands that change nothing.
var onlyLooks = regexp.MustCompile(`^(psql .*"select |truenorth (status|doctor|checkout get|conflicts (list|show)|endpoint check))`)

// Whatever differs from run to run stands for itself.
var changing = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "(id)"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "(time)"},
	{regexp.MustCompile(`whsec_[A-Za-z0-9+/=]+|truenorth_[A-Za-z0-9_-]{43}`), "(secret)"},
	{regexp.MustCompile(`\b\d+ (second|minute|hour|day)s? ago|just now`), "(ago)"},
	{regexp.MustCompile(`[ \t]+`), " "},
}

func simplify(text string) string {
	for _, c := range changing {
		text = c.pattern.ReplaceAllString(text, c.word)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// shows tells whether a program printed what a page shows.
func shows(want, got string) bool {
	want, got = simplify(want), simplify(got)
	if want == "" {
		return true // the page does not care
	}
	pattern := regexp.QuoteMeta(want)
	pattern = regexp.MustCompile(`(?m)^(\\\.\\\.\\\.|…)$`).ReplaceAllString(pattern, `(?s:.*)`)
	pattern = strings.NewReplacer(`\.\.\.`, `.*`, "…", ".*").Replace(pattern)
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(got)
}

// request asks the worker what a block of language http says: a line with the method and the path, headers, a body.
func (s *shell) request(b block) {
	s.t.Helper()
	head, body, _ := strings.Cut(b.text, "\n\n")
	lines := strings.Split(strings.TrimSpace(head), "\n")
	method, path, ok := strings.Cut(lines[0], " ")
	if !ok {
		s.t.Fatalf("%s: %q is no METHOD PATH", b.place(), lines[0])
	}
	path, _, _ = strings.Cut(path, " HTTP/")
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.world.ports["127.0.0.1:8081"]+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatalf("%s: %v", b.place(), err)
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Set(name, strings.TrimSpace(value))
	}
	if r.Header.Get("Authorization") != "" {
		key := s.run(block{page: b.page, line: b.line, text: fmt.Sprintf("truenorth keys create line-%d 2> /dev/null\n", b.line)})
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(key))
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatalf("%s: %v", b.place(), err)
	}
	defer response.Body.Close()
	if answer, _ := io.ReadAll(response.Body); response.StatusCode >= http.StatusBadRequest {
		s.t.Errorf("%s: %s %s", b.place(), response.Status, answer)
	}
}

// runSQL runs a block as psql would: all of its statements in one session.
func runSQL(t *testing.T, databaseURL string, b block) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	results, err := conn.PgConn().Exec(t.Context(), b.text).ReadAll()
	if err != nil {
		t.Errorf("%s: %v:\n%s", b.place(), err, b.text)
	} else if len(results) == 0 {
		t.Errorf("%s has no statement", b.place())
	}
}
