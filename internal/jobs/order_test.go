package jobs_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// history is what Polar sent in the order in which it happened, and what was here before.
type history struct {
	events   []store.Delivery
	requests []request
	users    []string
}

type request struct {
	id   uuid.UUID
	user string
}

// ledger is a database to which histories are applied in this process, without HTTP and without River's fetching.
type ledger struct {
	t      *testing.T
	store  *store.Store
	runner *jobs.Runner
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := openLedger(t)
	l.t = t
	return l
}

// openLedger is a ledger for a fuzz test, whose runs have a t each.
func openLedger(tb testing.TB) *ledger {
	tb.Helper()
	s := storetest.New(tb)
	runner, err := jobs.New(s, jobs.Config{
		API:    polar.Config{BaseURL: "http://127.0.0.1:1/v1", Token: "polar_oat_test"},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &ledger{store: s, runner: runner}
}

// prepare empties the ledger for a history.
func (l *ledger) prepare(h history) {
	l.t.Helper()
	tables := append([]string{
		"event_log", "event_outcome", "river_job", "local_user_row", "checkout_request", "customer_link",
		"customer_link_history", "link_conflict", "customer_state", "drift",
	}, mirrorTables...)
	if _, err := l.store.Pool().Exec(l.t.Context(), "delete from polar."+strings.Join(tables, "; delete from polar.")); err != nil {
		l.t.Fatal(err)
	}
	h.seed(l.t, l.store)
}

// seed writes what was there before the first event.
func (h history) seed(t *testing.T, s *store.Store) {
	t.Helper()
	for _, user := range h.users {
		if _, err := s.Pool().Exec(t.Context(), "insert into polar.local_user (id) values ($1)", user); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range h.requests {
		if _, err := s.Pool().Exec(t.Context(), `insert into polar.checkout_request (id, params)
			values ($1, jsonb_strip_nulls(jsonb_build_object('products', '[]'::jsonb, 'external_customer_id', nullif($2, ''))))`, r.id, r.user); err != nil {
			t.Fatal(err)
		}
	}
}

// apply stores events in batches of random sizes and works each batch, several at once where hands says so: then also
// with what waits beside it.
func (l *ledger) apply(events []store.Delivery, largest, hands int, random *rand.Rand) {
	l.t.Helper()
	var batches []int64
	for len(events) > 0 {
		n := min(1+random.IntN(largest), len(events))
		if _, err := l.store.InsertEvents(l.t.Context(), events[:n], false); err != nil {
			l.t.Fatal(err)
		}
		events = events[n:]
	}
	rows, err := l.store.Pool().Query(l.t.Context(), "select batch from polar.event_log group by batch order by min(seq)")
	if err != nil {
		l.t.Fatal(err)
	}
	for rows.Next() {
		var batch int64
		if err := rows.Scan(&batch); err != nil {
			l.t.Fatal(err)
		}
		batches = append(batches, batch)
	}
	var group errgroup.Group
	group.SetLimit(hands)
	for _, batch := range batches {
		alone := hands == 1 || random.IntN(2) == 0
		group.Go(func() error {
			for {
				// Two transactions may wait for each other in a circle; Postgres ends one, and River tries again.
				if err := l.runner.WorkBatch(context.Background(), batch, alone); !errors.Is(err, store.ErrUnavailable) {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		l.t.Fatal(err)
	}
}

var mirrorTables = []string{
	"customer", "checkout", `"order"`, "subscription", "refund", "product", "discount", "benefit", "benefit_grant",
	"member", "customer_seat", "organization",
}

// outcome lists all rows that must not depend on the order of arrival, without local times and numbers.
func outcome(t *testing.T, s *store.Store) []string {
	t.Helper()
	queries := []string{
		"select 'link', jsonb_build_array(customer_id, local_user_id, basis) from polar.customer_link",
		"select 'conflict', jsonb_build_array(customer_id, local_user_id, kind) from polar.link_conflict where resolved_at is null",
		"select 'state', to_jsonb(t) - 'synced_at' from polar.customer_state t",
		"select 'request', jsonb_build_array(id, state, checkout_id, url, expires_at) from polar.checkout_request",
		"select 'event', jsonb_build_array(webhook_id, state, error) from polar.event",
	}
	for _, table := range mirrorTables {
		queries = append(queries, fmt.Sprintf("select '%s', to_jsonb(t) - 'synced_at' from polar.%s t", strings.Trim(table, `"`), table))
	}
	rows, err := s.Pool().Query(context.Background(), "select name || ' ' || row from ("+strings.Join(queries, " union all ")+") as x (name, row) order by 1")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// sameOutcome fails with the lines that only one side has.
func sameOutcome(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	only := func(a, b []string) string {
		var lines []string
		for _, line := range a {
			if !slices.Contains(b, line) {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	t.Fatalf("%s: the tables differ from those of the in-order run\n--- only here:\n%s\n--- only in order:\n%s", what, only(got, want), only(want, got))
}

// disturb shuffles events, and gives a fifth of them twice.
func disturb(events []store.Delivery, random *rand.Rand) []store.Delivery {
	disturbed := slices.Clone(events)
	for _, e := range events {
		if random.IntN(5) == 0 {
			disturbed = append(disturbed, e)
		}
	}
	random.Shuffle(len(disturbed), func(i, j int) { disturbed[i], disturbed[j] = disturbed[j], disturbed[i] })
	return disturbed
}

// withoutSuperseded loses half of the events after which the same object was told of again: the last one of each kind
// (full document, state, deletion) stays.
func withoutSuperseded(events []store.Delivery, random *rand.Rand) []store.Delivery {
	last := map[string]int{}
	key := func(e store.Delivery) string {
		switch object, action, _ := strings.Cut(e.Type, "."); action {
		case "state_changed", "deleted":
			return e.ObjectID + action
		default:
			return object + e.ObjectID
		}
	}
	for i, e := range events {
		last[key(e)] = i
	}
	var kept []store.Delivery
	for i, e := range events {
		if last[key(e)] == i || random.IntN(2) == 0 {
			kept = append(kept, e)
		}
	}
	return kept
}

func withoutEvents(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.HasPrefix(line, "event ") })
}

// clock goes on by step at each look; with steps of nothing now and then, versions tie.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	random *rand.Rand
	ties   bool
}

func (c *clock) tick() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ties || c.random.IntN(3) == 0 {
		c.now = c.now.Add(time.Millisecond)
	}
	return c.now
}

// playHistory has a fake Polar live through random purchases, failures and deletions.
func playHistory(t *testing.T, random *rand.Rand, steps int, ties bool) history {
	t.Helper()
	c := &clock{now: epoch, random: rand.New(rand.NewPCG(random.Uint64(), 0)), ties: ties}
	fake := polarfake.New(polarfake.Options{
		WebhookURL: "http://127.0.0.1:1", WebhookSecret: secret, PublicURL: "https://polar.example", Clock: c.tick,
		RetryScale: 0.001, AllowMultipleSubscriptions: true,
	})
	defer fake.Close()
	if err := fake.Inject(polarfake.Fault{Kind: polarfake.FaultEventDrop, Count: -1}); err != nil { // only recorded
		t.Fatal(err)
	}

	h := history{}
	people := max(4, steps/15)
	for i := range people {
		h.users = append(h.users, fmt.Sprintf("usr_%d", i))
	}
	products := []string{polarfake.OneTimeProductID, polarfake.MonthlyProductID}
	var open, confirmed, customers []string
	pick := func(ids []string) string { return ids[random.IntN(len(ids))] }
	idOf := func(raw json.RawMessage, err error) string {
		var object struct {
			ID string `json:"id"`
		}
		if err != nil || json.Unmarshal(raw, &object) != nil {
			return "" // refused, as Polar would
		}
		return object.ID
	}
	for range steps {
		switch step := random.IntN(12); {
		case step < 3: // a user, or a guest, goes to a checkout
			r := request{id: uuid.UUID(randomID(random))}
			body := map[string]any{"products": []string{pick(products)}}
			if random.IntN(4) > 0 {
				r.user = pick(h.users)
				body["external_customer_id"] = r.user
			}
			stamped := random.IntN(6) > 0
			if stamped {
				body["metadata"] = map[string]any{"truenorth_request": r.id.String()}
			}
			encoded, _ := json.Marshal(body)
			if id := idOf(fake.CreateCheckout(string(encoded))); id != "" {
				open = append(open, id)
				if stamped {
					h.requests = append(h.requests, r)
				}
			}
		case step < 7 && len(open) > 0:
			id := pick(open)
			outcome := []polarfake.PaymentOutcome{polarfake.PaymentSucceeds, polarfake.PaymentSucceeds, polarfake.PaymentFailsLater, polarfake.PaymentPends}[random.IntN(4)]
			email := fmt.Sprintf("buyer%d@example.com", random.IntN(people+1))
			if fake.Pay(id, polarfake.PayOptions{Email: email, Name: "Buyer", Outcome: outcome}) != nil {
				continue
			}
			customers = append(customers, fieldOf(t, fake.Checkout(id), "customer_id"))
			if outcome == polarfake.PaymentPends {
				confirmed = append(confirmed, id)
			}
		case step == 7 && len(confirmed) > 0:
			_ = fake.Succeed(pick(confirmed))
		case step == 8 && len(open) > 0:
			_ = fake.Expire(pick(open))
		case step == 9: // the product makes a customer by itself, of a user or of nobody yet
			body := fmt.Sprintf(`{"email":"buyer%d@example.com","external_id":%q}`, random.IntN(people+1), pick(h.users))
			if id := idOf(fake.CreateCustomer(body)); id != "" {
				customers = append(customers, id)
			}
		case step == 10 && len(customers) > 0:
			_, _ = fake.UpdateCustomer(pick(customers), fmt.Sprintf(`{"name":"Name %d"}`, random.IntN(100)))
		case step == 11 && len(customers) > 0 && random.IntN(2) == 0:
			_ = fake.DeleteCustomer(pick(customers)) // its external id may come back on another
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := fake.WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
	for _, e := range fake.Events() {
		h.events = append(h.events, deliveryOf(t, e.ID, string(e.Payload)))
	}
	slices.SortStableFunc(h.events, func(a, b store.Delivery) int { return cmp.Compare(a.OccurredAt.UnixNano(), b.OccurredAt.UnixNano()) })
	return h
}

func randomID(random *rand.Rand) [16]byte {
	var id [16]byte
	for i := range id {
		id[i] = byte(random.IntN(256))
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// deliveryOf is what ingest would store of a body.
func deliveryOf(t *testing.T, webhookID, body string) store.Delivery {
	t.Helper()
	envelope, err := polar.ScanEnvelope([]byte(body))
	if err != nil {
		t.Fatalf("scanning %.200s: %v", body, err)
	}
	return store.Delivery{WebhookID: webhookID, Type: envelope.Type, ObjectID: envelope.ObjectID, OccurredAt: envelope.Timestamp, Body: []byte(body)}
}

var histories = flag.Uint64("histories", 2, "random histories that the order of arrival is tried on")

// TestTheOrderOfArrivalChangesNothing plays random histories and applies each in order, shuffled, doubled, with
// superseded versions lost, in batches of all sizes, by one hand and by several at once.
func TestTheOrderOfArrivalChangesNothing(t *testing.T) {
	t.Parallel()
	for _, ties := range []bool{false, true} {
		t.Run(fmt.Sprintf("ties=%t", ties), func(t *testing.T) {
			t.Parallel()
			l := newLedger(t)
			for seed := range *histories {
				random := rand.New(rand.NewPCG(seed, 1))
				h := playHistory(t, random, 60, ties)
				l.prepare(h)
				l.apply(h.events, 1, 1, random)
				want := outcome(t, l.store)
				for permutation := range 3 {
					l.prepare(h)
					l.apply(disturb(h.events, random), []int{3, 10, 1000}[permutation], 1+2*(permutation%2), random)
					sameOutcome(t, fmt.Sprintf("seed %d, permutation %d", seed, permutation), outcome(t, l.store), want)
				}
				if ties {
					continue // which of two versions is superseded is not known
				}
				l.prepare(h)
				l.apply(disturb(withoutSuperseded(h.events, random), random), 5, 1, random)
				sameOutcome(t, fmt.Sprintf("seed %d, superseded lost", seed), withoutEvents(outcome(t, l.store)), withoutEvents(want))
			}
		})
	}
}
