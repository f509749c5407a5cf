package doccheck_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// What the cookbook's questions come to in the shop of testdata/cookbook.seed: the names of the columns, then the rows.
// Times are told by their distance from now, ids by the names of their objects.
var cookbookAnswers = map[string]string{
	"May this user use that product?": `
		may
		true`,
	"What may this user use, until when, and why?": `
		kind | product_name | benefit_description | status | until | renews_at | reason
		benefit | Icon set | Source files | granted | - | - | benefit granted, through the user's own checkout
		product | Icon set | - | partially_refunded | - | - | bought once, through the user's own checkout
		subscription | Studio | - | trialing | - | +120h | trial, through the customer linked to the user`,
	"Has this user the feature?": `
		has
		true`,
	"What did this user buy?": `
		created_at | product_name | status | total_amount | refunded_amount | currency | via
		-216h | Studio | paid | 0 | 0 | eur | link
		-48h | Icon set | partially_refunded | 5000 | 1000 | usd | checkout`,
	"Who is this user at Polar, and what was paid?": `
		customer_email | link_basis | last_checkout_state | live_subscriptions | orders | paid_totals | refunded_totals | open_refunds
		grace@example.com | checkout | - | 1 | 1 | {} | {} | 0
		hopper@navy.example | - | succeeded | 0 | 1 | {"usd":5000} | {"usd":1000} | 1
		- | - | open | 0 | 0 | {} | {} | 0`,
	"Who paid but is nobody's user?": `
		email | reason | order_id | total_amount | currency
		lost@example.com | no_external_id | o_lost | 2375 | eur
		unknown@example.com | unknown_user | o_unknown | 1000 | usd
		hopper@navy.example | conflict | o_stranger | 2375 | eur`,
	"Which subscriptions end in the next seven days?": `
		local_user_id | product_name | until
		usr_linus | Pro | +72h`,
	"Which trials turn into money in the next seven days?": `
		local_user_id | product_name | renews_at | amount | currency
		usr_grace | Studio | +120h | 19000 | eur`,
	"Who lost a subscription in the last day, with nothing in its place?": `
		local_user_id | product_name | until
		usr_margaret | Pro | -5h`,
	"Whose payment is overdue, and until when do they keep access?": `
		local_user_id | product_name | past_due_at | until
		usr_alan | Pro | -216h | -
		usr_barbara | Pro | -48h | +120h`,
	"What comes in each month, by currency?": `
		currency | subscriptions | monthly
		eur | 4 | 7600
		usd | 2 | 10000`,
	"What was refunded in the last 30 days?": `
		currency | refunds | refunded
		eur | 2 | 2500
		usd | 1 | 1000`,
	"How many seats has each team, and how many are free?": `
		name | seats | claimed | invited | free
		Acme | 4 | 2 | 1 | 1
		Birch | 2 | 0 | 0 | 2`,
	"Who holds the seats of this team?": `
		email | local_user_id | status | claimed_at
		invited@acme.example | - | pending | -
		linus@acme.example | usr_linus | claimed | -696h
		newcomer@acme.example | - | claimed | -480h`,
	"Which teams is this user in?": `
		name | role
		Acme | member
		Birch | billing_manager`,
	"Which checkouts were abandoned in the last seven days?": `
		local_user_id | created_at | total_amount | currency
		usr_alan | -48h | 2375 | eur`,
	"Which checkouts hang, and what is to be done?": `
		local_user_id | state | since | why | what_to_do | error
		usr_alan | failed | -5h | it failed | Read error, correct what it names, and ask for a new checkout; the same key may be used again. | products.0: Product does not exist.
		usr_linus | confirmed | -4h | the buyer pressed pay, and Polar has not said what became of it | Look the session up at Polar: some ways of paying take days. See that events arrive (polar.mirror_lag). | -
		usr_barbara | open | -3h | it should have expired, and Polar has not said so | See that a worker runs, which asks Polar about it, and that events arrive (polar.mirror_lag). | -
		usr_ada | queued | -2h | no worker has taken it up | See that a worker runs (polar.worker_process) and what its log says. | -`,
	"Who would lose what if this customer were deleted?": `
		local_user_id | kind | what | via
		usr_linus | benefit | Early access | member
		usr_linus | subscription | Team plan | seat`,
	"What must a person decide?": `
		kind | local_user_id | email | detail
		email_match | usr_grace | hopper@navy.example | the customer is older than the session`,
	"Is the mirror in step?": `
		waiting | waiting_for | failed | outage_since | drift | longest_uncompared
		1 | 2h | 1 | - | 1 | 3h`,
	"When was each of Polar's lists last compared, and what came of it?": `
		object_type | age | seen | drifted | repaired | full_sweep
		checkout | 3h | 40 | 0 | 0 | true
		customer | 1h | 12 | 1 | 1 | false`,
	"Where does the mirror differ from Polar?": `
		object_type | field | local | remote | cause | age
		checkout | status | open | succeeded | missed_update | 3h`,
	"What happened to this object?": `
		occurred_at | type | state | status
		-48h | checkout.created | applied | open
		-47h | checkout.updated | failed | confirmed
		-47h | checkout.updated | applied | succeeded`,
}

func TestEveryAnswerOfTheCookbookIsRight(t *testing.T) {
	t.Parallel()
	d := cookbookSeed{storetest.NewSeed(t), t}
	d.sow()
	asked := map[string]bool{}
	for _, b := range readPage(t, "docs/cookbook.md").blocks {
		if b.language != "sql" {
			continue
		}
		want, known := cookbookAnswers[b.heading]
		if !known || asked[b.heading] {
			t.Errorf("%s: %q has an answer in this test: %t, and another statement: %t; want true and false", b.place(), b.heading, known, asked[b.heading])
			continue
		}
		asked[b.heading] = true
		if diff := cmp.Diff(lines(want), d.ask(b.text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", b.heading, diff)
		}
	}
	for question := range cookbookAnswers {
		if !asked[question] {
			t.Errorf("docs/cookbook.md does not ask %q", question)
		}
	}
}

// cookbookSeed is the shop that the cookbook asks about.
type cookbookSeed struct {
	*storetest.Seed

	t *testing.T
}

// sow writes the shop's data, and what truenorth itself would have written beside it.
func (d cookbookSeed) sow() {
	d.t.Helper()
	text, err := os.ReadFile("testdata/cookbook.seed")
	if err != nil {
		d.t.Fatal(err)
	}
	d.Sow(string(text))
	d.Exec("conflict", `insert into polar.link_conflict (customer_id, local_user_id, kind, detail, detected_at) values
		($1, 'usr_grace', 'email_match', 'the customer is older than the session', $2)`, d.ID("c_stranger"), d.Began.Add(-48*time.Hour))
	d.Exec("settled conflict", `insert into polar.link_conflict (customer_id, local_user_id, kind, detail, detected_at, resolved_at, resolution, resolved_by) values
		($1, 'usr_ada', 'user_claimed', 'settled long ago', $2, $2, 'dismissed', 'ops@fjord.example')`, d.ID("c_lost"), d.Began.Add(-99*time.Hour))
	for _, e := range []struct {
		kind, object, status string
		ago                  time.Duration
		outcome              string
	}{
		{"checkout.updated", "k_grace", "succeeded", 47 * time.Hour, "applied"},
		{"checkout.created", "k_grace", "open", 48 * time.Hour, "applied"},
		{"order.paid", "o_grace", "paid", 47 * time.Hour, "applied"},
		{"checkout.updated", "k_grace", "confirmed", 47*time.Hour + time.Minute, "failed"},
		{"customer.updated", "c_lost", "", 2 * time.Hour, ""},
	} {
		d.Exec("event", `with stored as (
			insert into polar.event_log (webhook_id, type, object_id, occurred_at, received_at, batch, body)
			values ($1, $2, $3, $4, $4, 1, jsonb_build_object('type', $2::text, 'data', jsonb_build_object('status', $5::text))::text) returning seq)
			insert into polar.event_outcome (seq, state, applied_at, error)
			select seq, $6, case $6 when 'applied' then $4::timestamptz end, case $6 when 'failed' then 'the customer is not there' end from stored where $6 <> ''`,
			uuid.NewString(), e.kind, d.ID(e.object).String(), d.Began.Add(-e.ago), e.status, e.outcome)
	}
	d.Exec("runs", `insert into polar.reconcile_run (object_type, state, dry_run, started_at, finished_at, seen, drifted, repaired, error, full_sweep, since) values
		('customer', 'finished', false, $1::timestamptz - interval '6 hours', $1::timestamptz - interval '5 hours', 10, 3, 3, null, true, null),
		('customer', 'finished', false, $1::timestamptz - interval '2 hours', $1::timestamptz - interval '1 hour', 12, 1, 1, null, false, null),
		('customer', 'finished', true, $1::timestamptz - interval '1 minute', $1, 12, 9, 0, null, true, null),
		('customer', 'finished', false, $1::timestamptz - interval '1 minute', $1, 2, 0, 0, null, true, $1::timestamptz - interval '1 hour'),
		('checkout', 'finished', false, $1::timestamptz - interval '4 hours', $1::timestamptz - interval '3 hours', 40, 0, 0, null, true, null),
		('checkout', 'failed', false, $1::timestamptz - interval '2 hours', $1::timestamptz - interval '1 hour', 7, 0, 0, 'Polar answered 502', true, null),
		('order', 'running', false, $1::timestamptz - interval '1 hour', null, 7, 0, 0, null, true, null)`, d.Began)
	d.Exec("drift", `insert into polar.drift (object_type, object_id, field, local, remote, cause, detected_at, resolved_at, resolution) values
		('checkout', $2, 'status', 'open', 'succeeded', 'missed_update', $1::timestamptz - interval '3 hours', null, null),
		('checkout', $3, 'status', 'open', 'expired', 'benign_abandoned', $1::timestamptz - interval '2 hours', null, null),
		('customer', $2, 'email', 'a', 'b', 'missed_update', $1::timestamptz - interval '9 hours', $1, 'repaired')`,
		d.Began, d.ID("k_open").String(), d.ID("k_alan").String())
}

// ask runs a statement and tells its answer: a line for the columns and one for each row.
func (d cookbookSeed) ask(sql string) []string {
	d.t.Helper()
	rows, err := d.Pool().Query(d.t.Context(), sql)
	if err != nil {
		d.t.Fatalf("%v:\n%s", err, sql)
	}
	defer rows.Close()
	var names []string
	for _, field := range rows.FieldDescriptions() {
		names = append(names, field.Name)
	}
	answer := []string{strings.Join(names, " | ")}
	told, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		cells := make([]string, len(values))
		for i, value := range values {
			cells[i] = d.tell(value)
		}
		return strings.Join(cells, " | "), err
	})
	if err != nil {
		d.t.Fatalf("%v:\n%s", err, sql)
	}
	return append(answer, told...)
}

func (d cookbookSeed) tell(value any) string {
	switch v := value.(type) {
	case nil:
		return "-"
	case [16]byte:
		return d.Name(v)
	case time.Time:
		return fmt.Sprintf("%+dh", v.Sub(d.Began).Round(time.Hour)/time.Hour)
	case pgtype.Interval:
		return fmt.Sprintf("%dh", int64(v.Days)*24+int64((time.Duration(v.Microseconds)*time.Microsecond).Round(time.Hour)/time.Hour))
	case map[string]any:
		text, err := json.Marshal(v)
		if err != nil {
			d.t.Fatal(err)
		}
		return string(text)
	}
	return fmt.Sprint(value)
}

// lines are the lines of a text that are not empty.
func lines(text string) []string {
	list := []string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}
