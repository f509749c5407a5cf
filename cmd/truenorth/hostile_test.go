package main

import (
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// TestNoArgumentBreaksACommandOrTheDatabase gives each command what is hostile in every argument and flag that takes a text.
// It is wrong usage, it fails with a reason of one line, or it is taken for the text that it is.
func TestNoArgumentBreaksACommandOrTheDatabase(t *testing.T) {
	t.Parallel()
	fake := polarfake.New(polarfake.Options{})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	database := storetest.URL(t)
	environ := []string{"DATABASE_URL=" + database, "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + api.URL + "/v1", "POLAR_RATE_LIMIT=0", "POLAR_WEBHOOK_SECRETS=secret"}
	s := storetest.Open(t, database)
	if _, err := s.Pool().Exec(t.Context(), "insert into polar.local_user (id) values ('usr_ada')"); err != nil {
		t.Fatal(err)
	}
	// Those that serve, write files, or talk to what a flag names: a hostile value there is the operator's own order.
	leftOut := []string{"dev", "fake-polar", "completion", "migrate", "webhook send", "users map", "version"}
	tried := 0
	for _, leaf := range newParser(&commands{}, io.Discard, io.Discard).Model.Leaves(true) {
		name := commandName(leaf)
		if slices.Contains(leftOut, name) {
			continue
		}
		for _, value := range []string{
			"'", "'; drop table polar.customer; --", "a\x00b", "\xff", "$1", "%s", "-1", "9223372036854775808", "00000000-0000-0000-0000-00000000000g",
			"\n\x1b[2Jforged\u009b2J\u202e", strings.Repeat("x", 5000), "{}", "../x", "0001-01-01T00:00:00Z", "-infinity",
		} {
			for _, args := range hostileCalls(leaf, value) {
				stdout, stderr, code := called(append(strings.Fields(name), args...), environ...)
				tried++
				if code != exitDone && code != exitFailed && code != exitUsage && code != exitFound {
					t.Errorf("truenorth %s %q ended with %d", name, args, code)
				}
				said := stdout + stderr
				for _, never := range []string{"goroutine ", "syntax error", "SQLSTATE 42", "SQLSTATE XX", "\x1b", "\x00", "\u009b", "\u202e"} {
					if strings.Contains(said, never) {
						t.Errorf("truenorth %s %.200q says %q: %.500q", name, args, never, said)
					}
				}
			}
		}
	}
	if tried < 500 {
		t.Errorf("%d calls were tried, want 500 at least", tried)
	}
	var users int
	if err := s.Pool().QueryRow(t.Context(), "select count(*) from polar.local_user where id = 'usr_ada'").Scan(&users); err != nil || users != 1 {
		t.Errorf("the user is there %d times (%v)", users, err)
	}
}

// hostileCalls puts a value in all places of a command's arguments, and then in each of its flags besides.
func hostileCalls(leaf *kong.Node, value string) [][]string {
	var places []string
	for range leaf.Positional {
		places = append(places, value)
	}
	tail := append([]string{"--"}, places...)
	if len(places) == 0 {
		tail = nil
	}
	required := []string{}
	var optional []*kong.Flag
	for _, f := range leaf.Flags {
		if f.IsBool() || f.Name == "help" {
			continue
		}
		if f.Required || f.Name == "reason" || f.Name == "by" || f.Name == "actor" {
			required = append(required, "--"+f.Name+"="+value)
		} else {
			optional = append(optional, f)
		}
	}
	calls := [][]string{slices.Concat(required, tail)}
	for _, f := range optional {
		calls = append(calls, slices.Concat([]string{"--" + f.Name + "=" + value}, required, tail))
	}
	return calls
}

// TestATerminalTakesNoOrdersOfWhatOthersWrote lists people who are named to move a terminal's cursor, and keeps our own colours.
func TestATerminalTakesNoOrdersOfWhatOthersWrote(t *testing.T) {
	t.Parallel()
	database := storetest.URL(t)
	s := storetest.Open(t, database)
	const name = "usr\x1b]52;c;cm0gLXJm\x07\x1b[2K\r\u009b31m\u202e\x7f"
	if _, err := s.Pool().Exec(t.Context(), `insert into polar.link_conflict (customer_id, local_user_id, kind, detail) values (gen_random_uuid(), $1, 'email_match', $1)`, name); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := called([]string{"conflicts", "list"}, "DATABASE_URL="+database)
	if code != exitDone || !strings.Contains(stdout, "usr\ufffd]52;c;cm0gLXJm\ufffd\ufffd[2K\ufffd\ufffd31m\ufffd\ufffd") || strings.ContainsAny(stdout+stderr, "\x1b\x07\r\u009b\u202e\x7f") {
		t.Errorf("it ended with %d, and shows %q %q", code, stdout, stderr)
	}
	ours := style(true)
	if text := ours.good("well") + ours.none("é\tx\n"); shown(text) != text {
		t.Errorf("our own colours are shown as %q", shown(text))
	}
}

// TestABuyersNameIsNoLineOfAConflictsFile has a buyer whose name says what truenorth would, were it lines of their own.
func TestABuyersNameIsNoLineOfAConflictsFile(t *testing.T) {
	t.Parallel()
	database := storetest.URL(t)
	s := storetest.Open(t, database)
	const forged = "  external id  \"usr_victim\""
	var conflict string
	err := s.Pool().QueryRow(t.Context(), `
		with c as (insert into polar.customer (id, version_from, doc) select id, 'event', jsonb_build_object('id', id, 'name', $1::text, 'email', $1::text)
		             from gen_random_uuid() id returning id)
		insert into polar.link_conflict (customer_id, local_user_id, kind, detail) select id, 'usr_victim', 'email_match', $1::text from c returning id::text`,
		"Mallory\n"+forged+"\n\tlinked\tto usr_victim").Scan(&conflict)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := called([]string{"conflicts", "show", conflict}, "DATABASE_URL="+database)
	if code != exitDone || stderr != "" {
		t.Fatalf("it ended with %d and said %s", code, stderr)
	}
	for line := range strings.Lines(stdout) {
		if said := strings.TrimSpace(line); strings.HasPrefix(said, "external id") && !strings.HasSuffix(said, "none") || strings.HasPrefix(said, "linked") && !strings.HasSuffix(said, "no") {
			t.Errorf("the file says %q, which is the buyer's name:\n%s", said, stdout)
		}
	}
}
