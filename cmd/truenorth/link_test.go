package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// operator is a person at the command line, with a database of their own.
type operator struct {
	t    *testing.T
	pool *pgxpool.Pool
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	return &operator{t: t, pool: storetest.New(t).Pool()}
}

// run runs truenorth and returns what it printed and its exit code.
func (o *operator) run(args ...string) (stdout, stderr string, code int) {
	o.t.Helper()
	var out, errs bytes.Buffer
	command := exec.CommandContext(o.t.Context(), program(o.t), args...)
	command.Env = append(withoutOurs(os.Environ()), "DATABASE_URL="+o.pool.Config().ConnString())
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		exited, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			o.t.Fatal(err)
		}
		code = exited.ExitCode()
	}
	return out.String(), errs.String(), code
}

// does runs truenorth and expects it to do what it is told, and to say so.
func (o *operator) does(args []string, says ...string) string {
	o.t.Helper()
	stdout, stderr, code := o.run(args...)
	if code != 0 || stderr != "" {
		o.t.Fatalf("truenorth %q exited with %d: %s", args, code, stderr)
	}
	for _, words := range says {
		if !strings.Contains(stdout, words) {
			o.t.Errorf("truenorth %q printed\n%s\nwithout %q", args, stdout, words)
		}
	}
	return stdout
}

// refused runs truenorth and expects an error that says why.
func (o *operator) refused(code int, args []string, says ...string) {
	o.t.Helper()
	stdout, stderr, got := o.run(args...)
	if got != code || stdout != "" {
		o.t.Errorf("truenorth %q exited with %d and printed %q, want %d and nothing", args, got, stdout, code)
	}
	for _, words := range says {
		if !strings.Contains(stderr, words) {
			o.t.Errorf("truenorth %q was refused with %q, without %q", args, stderr, words)
		}
	}
}

func (o *operator) exec(sql string, args ...any) {
	o.t.Helper()
	if _, err := o.pool.Exec(o.t.Context(), sql, args...); err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
}

// rows reads the first column of a query, a line each.
func (o *operator) rows(sql string, args ...any) string {
	o.t.Helper()
	rows, err := o.pool.Query(o.t.Context(), sql, args...)
	if err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(lines, "\n")
}

// customer puts a customer into the mirror.
func (o *operator) customer(email, externalID string) uuid.UUID {
	o.t.Helper()
	id := uuid.New()
	o.exec(`insert into polar.customer (id, version_from, doc) values ($1, 'event', jsonb_strip_nulls(jsonb_build_object(
		'id', $1::uuid, 'email', $2::text, 'external_id', nullif($3::text, ''), 'created_at', '2026-08-01T09:00:00Z')))`, id, email, externalID)
	return id
}

// paid puts a checkout of a user's own into the mirror that succeeded with a customer.
func (o *operator) paid(user string, customer uuid.UUID, at string) uuid.UUID {
	o.t.Helper()
	id, request := uuid.New(), uuid.New()
	o.exec(`insert into polar.checkout_request (id, params) values ($1, jsonb_build_object('external_customer_id', $2::text))`, request, user)
	o.exec(`insert into polar.checkout (id, version_from, doc) values ($1, 'event', jsonb_build_object('id', $1::uuid, 'status', 'succeeded',
		'customer_id', $2::uuid, 'created_at', $3::text, 'metadata', jsonb_build_object('truenorth_request', $4::uuid)))`, id, customer, at, request)
	return id
}

func (o *operator) conflict(customer uuid.UUID, user, kind string, checkout uuid.UUID) string {
	o.t.Helper()
	o.exec(`insert into polar.link_conflict (customer_id, local_user_id, kind, checkout_id, detail) values ($1, $2, $3, $4, 'what disagrees')`,
		customer, user, kind, checkout)
	return o.rows("select max(id)::text from polar.link_conflict")
}

func TestAPersonReadsAConflictAndSettlesIt(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.exec("insert into polar.local_user (id, email) values ('usr_alice', 'alice@corp.example'), ('usr_mallory', 'mallory@corp.example')")
	o.exec("insert into polar.local_user (id, deleted_at) values ('usr_gone', now())")
	alice := o.customer("alice@example.com", "usr_alice")
	o.does([]string{"conflicts", "list"}, "no open conflicts")
	o.does([]string{"link", alice.String(), "usr_alice", "--reason", "she wrote", "--actor", "grace"}, "is linked to \"usr_alice\"")
	checkout := o.paid("usr_mallory", alice, "2026-08-20T09:00:00Z")
	id := o.conflict(alice, "usr_mallory", "email_match", checkout)
	gone := o.conflict(alice, "usr_gone", "evidence_disagrees", uuid.Nil)

	o.does([]string{"conflicts", "list"}, id, "email_match", alice.String(), `"usr_mallory"`, "what disagrees")
	shown := o.does([]string{"conflicts", "show", id},
		"conflict "+id+": email_match, about \"usr_mallory\"", alice.String(), "alice@example.com", `"usr_alice" since`, "basis manual", "days ago",
		"mallory@corp.example", checkout.String(), "succeeded", "other conflicts of the customer", "by grace (she wrote)",
		"--link --reason", `its link to "usr_alice" ends, and stays ended`, "keeps the external id it bears",
		"--dismiss --reason", `the customer stays linked to "usr_alice"`)
	if strings.Contains(shown, "--also") {
		t.Errorf("--also is spoken of, though usr_mallory has no other customer:\n%s", shown)
	}
	o.does([]string{"conflicts", "show", gone}, `refused: no such local user: "usr_gone"`, "deleted")

	var file struct {
		Conflict struct {
			CheckoutID uuid.UUID `json:"checkout_id"`
			Open       bool      `json:"open"`
		} `json:"conflict"`
		Customer struct {
			ExternalID  string `json:"external_id"`
			LinkedBasis string `json:"linked_basis"`
		} `json:"customer"`
		Checkouts []struct {
			Proves bool `json:"proves"`
		} `json:"checkouts"`
		Users []struct {
			ID        string      `json:"id"`
			Alive     bool        `json:"alive"`
			Customers []uuid.UUID `json:"customers"`
		} `json:"local_users"`
		IfLinked []string `json:"if_linked"`
	}
	if err := json.Unmarshal([]byte(o.does([]string{"conflicts", "show", id, "--json"})), &file); err != nil {
		t.Fatal(err)
	}
	if !file.Conflict.Open || file.Conflict.CheckoutID != checkout || file.Customer.ExternalID != "usr_alice" || file.Customer.LinkedBasis != "manual" ||
		len(file.Checkouts) != 1 || file.Checkouts[0].Proves || len(file.Users) != 2 || !file.Users[0].Alive || file.Users[0].Customers[0] != alice || len(file.IfLinked) == 0 {
		t.Errorf("the file in JSON is %+v", file)
	}

	o.refused(2, []string{"conflicts", "resolve", id, "--link"}, "--reason")
	o.refused(2, []string{"conflicts", "resolve", id, "--reason", "r"}, "--link", "--dismiss")
	o.refused(2, []string{"conflicts", "list", "--limit", "0"}, "--limit is 0")
	o.refused(1, []string{"conflicts", "resolve", "4711", "--link", "--reason", "r"}, "there is no conflict 4711")
	o.refused(1, []string{"conflicts", "show", "4711"}, "there is no conflict 4711")
	o.refused(1, []string{"conflicts", "resolve", gone, "--link", "--reason", "r"}, "no such local user", `"usr_gone"`)

	o.does([]string{"conflicts", "resolve", id, "--dismiss", "--reason", "not her card", "--actor", "grace"}, "settled by grace: dismissed", `linked to "usr_alice"`)
	o.refused(1, []string{"conflicts", "resolve", id, "--link", "--reason", "r"}, "settled already: "+id, "by grace: dismissed")
	o.does([]string{"conflicts", "show", id}, "by grace: dismissed (not her card)")
	o.does([]string{"conflicts", "list", "--all"}, "dismissed by grace (not her card)")
	var listed []struct {
		Resolution string `json:"resolution"`
		Note       string `json:"note"`
	}
	if err := json.Unmarshal([]byte(o.does([]string{"conflicts", "list", "--all", "--json"})), &listed); err != nil || len(listed) != 2 || listed[1].Note != "not her card" {
		t.Errorf("all conflicts in JSON are %+v, %v", listed, err)
	}
}

func TestAPersonLinksAndUnlinksOnTheCommandLine(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.exec("insert into polar.local_user (id) values ('usr_a'), ('usr_b')")
	first, second := o.customer("Ada@example.com", ""), o.customer("shared@example.com", "old_id")
	third := o.customer("SHARED@example.com", "")
	word := []string{"--reason", "she called", "--actor", "grace"}
	link := func(args ...string) []string { return append(append([]string{"link"}, args...), word...) }

	o.refused(2, []string{"link", first.String(), "usr_a"}, "--reason")
	o.refused(2, link("Ada", "usr_a"), `"Ada" is no customer`)
	o.refused(1, link("external:nobody", "usr_a"), "no living customer", "external id")
	o.refused(1, link("shared@example.com", "usr_a"), "2 customers are meant", second.String(), third.String(), `"old_id"`)
	if _, stderr, _ := o.run(link("shared@example.com", "usr_a")...); strings.Contains(strings.ToLower(stderr), "shared@") {
		t.Errorf("the error holds the address: %s", stderr)
	}
	o.refused(1, link(uuid.NewString(), "usr_a"), "no such customer in the mirror")
	o.refused(1, link(first.String(), "usr_x"), "no such local user", `"usr_x"`)
	o.refused(1, []string{"unlink", first.String(), "--reason", "r"}, "not linked", first.String())
	o.refused(1, []string{"link", first.String(), "usr_a", "--reason", "r", "--actor", "truenorth"}, "the machine's own name")

	o.does(link("ada@EXAMPLE.com", "usr_a"), first.String(), "writes the user's id to Polar")
	if got := o.rows("select args ->> 'customer_id' from polar.river_job where kind = 'write_external_id'"); got != first.String() {
		t.Errorf("the id will be written to %q", got)
	}
	o.refused(1, link("external:old_id", "usr_a"), "the local user is linked to another customer", first.String(), "--also")
	var linked struct {
		Changed bool        `json:"changed"`
		Others  []uuid.UUID `json:"other_customer_ids"`
	}
	if err := json.Unmarshal([]byte(o.does(append(link("external:old_id", "usr_a", "--also"), "--json"))), &linked); err != nil || !linked.Changed || len(linked.Others) != 1 || linked.Others[0] != first {
		t.Errorf("the link in JSON is %+v, %v", linked, err)
	}
	o.refused(1, link("external:old_id", "usr_b"), "the customer is linked to another local user", `"usr_a"`, "--replace")
	o.does(link("external:old_id", "usr_b", "--replace"), `its link to "usr_a" ended`)
	o.does(link("external:old_id", "usr_b"), "already")
	o.does(append([]string{"unlink", second.String()}, word...), `no longer linked to "usr_b" (manual)`)

	// Who was linked when and why, by plain SQL.
	const want = `usr_a manual grace she called
usr_a manual grace she called replaced grace she called
usr_b manual grace she called unlinked grace she called`
	if got := o.rows(`select concat_ws(' ', local_user_id, basis, actor, note, end_reason, ended_by, end_note) from polar.customer_link_history order by id`); got != want {
		t.Errorf("the history tells\n%s\nwant\n%s", got, want)
	}
}
