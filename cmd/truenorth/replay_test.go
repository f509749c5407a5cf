package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// desk is a database and a person who runs truenorth on it.
type desk struct {
	t     *testing.T
	store *store.Store
	url   string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	url := storetest.URL(t)
	return &desk{t: t, store: storetest.Open(t, url), url: url}
}

// command is truenorth with DATABASE_URL and nothing else of ours.
func (d *desk) command(args ...string) (command *exec.Cmd, stdout, stderr *bytes.Buffer) {
	d.t.Helper()
	command = exec.CommandContext(context.Background(), program(d.t), args...)
	command.Env = append(withoutOurs(os.Environ()), "DATABASE_URL="+d.url)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	command.Stdout, command.Stderr = stdout, stderr
	return command, stdout, stderr
}

// run expects an exit code, and gives what was printed.
func (d *desk) run(code int, args ...string) (stdout, stderr string) {
	d.t.Helper()
	command, out, errs := d.command(args...)
	if got := exitCode(command.Run()); got != code {
		d.t.Fatalf("truenorth %s ended with %d, want %d\n%s\n%s", strings.Join(args, " "), got, code, out, errs)
	}
	return out.String(), errs.String()
}

func exitCode(err error) int {
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return ended.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func (d *desk) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.store.Pool().Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

func one[T any](d *desk, sql string, args ...any) T {
	d.t.Helper()
	var v T
	if err := d.store.Pool().QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// customer stores an event of a customer, as ingest would, and returns the event's id.
func (d *desk) customer(eventType, id, fields string) (webhookID string) {
	d.t.Helper()
	body := fmt.Sprintf(`{"type":%q,"timestamp":"2026-08-22T09:00:0%d.5Z","data":{"id":%q,"created_at":"2026-08-22T09:00:00Z"%s}}`,
		eventType, one[int64](d, "select count(*) from polar.event_log")%10, id, fields)
	envelope, err := polar.ScanEnvelope([]byte(body))
	if err != nil {
		d.t.Fatal(err)
	}
	webhookID = uuid.NewString()
	_, err = d.store.InsertEvents(d.t.Context(), []store.Delivery{{
		WebhookID: webhookID, Type: envelope.Type, ObjectID: envelope.ObjectID, OccurredAt: envelope.Timestamp, Body: []byte(body),
	}}, false)
	if err != nil {
		d.t.Fatal(err)
	}
	return webhookID
}

func contains(t *testing.T, where, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s says\n%s\nwithout %q", where, text, word)
		}
	}
}

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	return v
}

func TestReplayOnTheCommandLine(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ada, grace := uuid.NewString(), uuid.NewString()
	d.customer("customer.created", ada, `,"name":"Ada"`)
	d.customer("customer.created", grace, `,"name":"Grace"`)
	bad := d.customer("customer.updated", "none", `,"name":"Nobody"`)

	stdout, _ := d.run(0, "replay", "--all", "--dry-run")
	contains(t, "the dry run", stdout, "3 events would be applied again")
	if n := parsed(t, first(d.run(0, "replay", "--type", "customer.c*", "--dry-run", "--json")))["events"]; n != 2.0 {
		t.Errorf("the dry run counts %v, want 2", n)
	}
	if n := one[int64](d, "select count(*) from polar.event_outcome"); n != 0 {
		t.Errorf("the dry run left %d outcomes", n)
	}

	stdout, stderr := d.run(1, "replay", "--all")
	contains(t, "replay", stdout, "2 events applied again", "1 event failed", bad, "customer.updated", "UUID")
	if strings.Contains(stderr, "[") || strings.Contains(stderr, "\r") {
		t.Errorf("a bar is drawn where there is no terminal: %q", stderr)
	}
	if n := one[int64](d, "select count(*) from polar.customer"); n != 2 {
		t.Errorf("%d customers, want 2", n)
	}
	report := parsed(t, first(d.run(1, "replay", "--failed", "--json")))
	failures, _ := report["failures"].([]any)
	if report["events"] != 1.0 || report["failed"] != 1.0 || report["applied"] != 0.0 || report["complete"] != true || len(failures) != 1 {
		t.Errorf("replay of failed events printed %v", report)
	}
	stdout, _ = d.run(0, "replay", "--since", "24h", "--type", "customer.created", "--type", "checkout.*")
	contains(t, "replay", stdout, "2 events applied again")
	stdout, _ = d.run(0, "replay", "--since", "2100-01-01T00:00:00Z")
	contains(t, "replay", stdout, "0 events applied again")
}

func first(stdout, _ string) string { return stdout }

func TestReplayRefusesWhatIsNotClear(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for words, args := range map[string][]string{
		"say which events":            {},
		"--all is all events":         {"--all", "--failed"},
		"give it alone":               {"--verify", "--all"},
		"nor a duration":              {"--since", "yesterday"},
		"unknown flag --everything":   {"--everything"},
		"--verify compares everythin": {"--verify", "--dry-run"},
	} {
		_, stderr := d.run(2, append([]string{"replay"}, args...)...)
		contains(t, "replay "+strings.Join(args, " "), stderr, words)
	}
	command, _, stderr := d.command("replay", "--all")
	command.Env = withoutOurs(os.Environ())
	if code := exitCode(command.Run()); code != 1 || !strings.Contains(stderr.String(), "DATABASE_URL") {
		t.Errorf("without a database it ended with %d: %s", code, stderr)
	}
}

func TestVerifyOnTheCommandLine(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ada := uuid.NewString()
	d.customer("customer.created", ada, `,"name":"Ada"`)
	d.run(0, "replay", "--all")
	stdout, stderr := d.run(0, "replay", "--verify")
	contains(t, "verify", stdout, "rebuilt from 1 event", "COMPARED", "customer ")
	if stderr != "" {
		t.Errorf("verify complains: %s", stderr)
	}
	d.exec(`update polar.customer set doc = doc || '{"name": "Eve"}'`)
	stdout, stderr = d.run(3, "replay", "--verify")
	contains(t, "verify", stdout, ada, "doc")
	contains(t, "verify", stderr, "differs")
	report := parsed(t, first(d.run(3, "replay", "--verify", "--json")))
	if got := fmt.Sprint(report["equal"], report["differences"]); got != fmt.Sprintf("false [map[fields:[doc] id:%s table:customer]]", ada) {
		t.Errorf("verify printed %s", got)
	}
	d.exec("drop table polar.customer_state")
	d.run(1, "replay", "--verify")
}

// interrupt presses Ctrl-C once a statement of the command waits for a lock that the test holds.
func (d *desk) interrupt(lock string, args ...string) (code int, stderr string) {
	d.t.Helper()
	tx, err := d.store.Pool().Begin(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(d.t.Context(), lock); err != nil {
		d.t.Fatal(err)
	}
	command, _, errs := d.command(args...)
	if err := command.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	waittest.Within(d.t, 20*time.Second, func() error {
		if one[int64](d, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 0 {
			return errors.New("it does not wait")
		}
		return nil
	})
	if err := command.Process.Signal(syscall.SIGINT); err != nil {
		d.t.Fatal(err)
	}
	select {
	case err := <-ended:
		return exitCode(err), errs.String()
	case <-time.After(20 * time.Second):
		d.t.Fatal("it did not end within 20 s of Ctrl-C")
		return 0, ""
	}
}

func TestCtrlCSaysHowToGoOn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.customer("customer.created", uuid.NewString(), "")
	code, stderr := d.interrupt("lock table polar.customer in access exclusive mode", "replay", "--type", "customer.*", "--since", "2026-01-01T00:00:00Z")
	contains(t, "replay", stderr, "interrupted after 0 of 1 event", "truenorth replay --since 2026-01-01T00:00:00Z --type 'customer.*' --after 0")
	if code != 1 {
		t.Errorf("it ended with %d, want 1", code)
	}
	d.run(0, "replay", "--all")
	code, stderr = d.interrupt("lock table polar.event_log in access exclusive mode", "replay", "--verify")
	contains(t, "verify", stderr, "interrupted")
	if code != 1 {
		t.Errorf("verify ended with %d, want 1", code)
	}
	if n := one[int64](d, "select count(*) from pg_namespace where nspname like 'polar\\_%'"); n != 0 {
		t.Errorf("%d scratch schemas are left", n)
	}
}

func TestForgetOnTheCommandLine(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ada, grace := uuid.NewString(), uuid.NewString()
	d.customer("customer.created", ada, `,"name":"Ada","email":"ada@buyer-example.com","external_id":"usr_ada"`)
	d.customer("customer.created", grace, `,"name":"Grace","email":"grace@buyer-example.com","external_id":"usr_grace"`)
	d.customer("customer.deleted", grace, `,"name":"Grace","email":"grace@buyer-example.com","external_id":"usr_grace"`)
	d.run(0, "replay", "--all")

	stdout, _ := d.run(0, "forget", "external:usr_ada", "--reason", "ticket 7", "--actor", "grace")
	contains(t, "forget", stdout, ada, "event_log", "Polar still has this customer", "anonymize=true")
	if got := one[string](d, "select concat_ws(' ', c.external_id, coalesce(c.email, 'none'), f.actor, f.reason) from polar.customer c join polar.forgotten_customer f on f.customer_id = c.id"); got != "usr_ada none grace ticket 7" {
		t.Errorf("the customer is %q", got)
	}
	report := parsed(t, first(d.run(0, "forget", grace, "--json")))
	blanked, _ := report["blanked"].(map[string]any)
	if report["customer_id"] != grace || report["still_at_polar"] != false || report["deleted_at_polar"] == nil || report["forgotten_before"] != false || blanked["event_log"] != 2.0 {
		t.Errorf("forget printed %v", report)
	}
	if report := parsed(t, first(d.run(0, "forget", grace, "--json"))); report["forgotten_before"] != true {
		t.Errorf("the second time it printed %v", report)
	}
	if n := one[int64](d, "select count(*) from polar.event_log where body ~ '@buyer-example.com|Ada|Grace'"); n != 0 {
		t.Errorf("%d events tell of a person", n)
	}
	d.run(0, "replay", "--verify")

	for _, wrong := range []struct {
		code            int
		customer, words string
	}{
		{1, uuid.NewString(), "nothing is known of customer"},
		{1, "external:usr_nobody", "nothing is known of"},
		{2, "usr_ada", "is no customer's id"},
	} {
		_, stderr := d.run(wrong.code, "forget", wrong.customer)
		contains(t, "forget "+wrong.customer, stderr, wrong.words)
	}
}
