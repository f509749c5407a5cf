package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

var quiet = slog.New(slog.DiscardHandler)

// replay applies events again and expects that to go well.
func replay(t *testing.T, s *store.Store, r store.Replay) jobs.Replayed {
	t.Helper()
	report, err := jobs.Replay(t.Context(), s, quiet, r, nil)
	if err != nil {
		t.Fatalf("replaying %+v: %v", r, err)
	}
	return report
}

// insert stores events without applying them.
func (l *ledger) insert(bodies ...string) {
	l.t.Helper()
	deliveries := make([]store.Delivery, len(bodies))
	for i, body := range bodies {
		deliveries[i] = deliveryOf(l.t, uuid.NewString(), body)
	}
	if _, err := l.store.InsertEvents(l.t.Context(), deliveries, false); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.store.Pool().Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

func value[T any](t *testing.T, s *store.Store, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := s.Pool().QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// refusePoison has Postgres refuse customers of this name, until the returned function is called.
func refusePoison(t *testing.T, s *store.Store) (cure func()) {
	t.Helper()
	exec := func(sql string) {
		t.Helper()
		if _, err := s.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("alter table polar.customer add constraint customer_poison_check check (name <> 'Poison')")
	return func() { exec("alter table polar.customer drop constraint customer_poison_check") }
}

func TestFailedEventsApplyOnceTheirCauseIsGone(t *testing.T) {
	t.Parallel()
	w := offline(t)
	cure := refusePoison(t, w.store)
	good, bad, hopeless := uuid.New(), uuid.New(), uuid.New()
	for _, body := range []string{
		event("customer.created", 1, customerDoc(good, 1, nil)),
		event("customer.created", 2, customerDoc(bad, 2, doc{"name": "Poison"})),
		event("customer.created", 3, doc{"id": "none", "name": hopeless}),
	} {
		if status := w.post(uuid.NewString(), body); status != http.StatusAccepted {
			t.Fatalf("ingest answered %d", status)
		}
	}
	w.settle()
	w.stop() // no worker is needed
	expect(t, "failed at first", one[int64](w, "select count(*) from polar.event where state = 'failed'"), 2)

	again := replay(t, w.store, store.Replay{Failed: true})
	expect(t, "tried while the cause is there", again.Events, 2)
	expect(t, "failed while the cause is there", again.Failed, 2)
	cure()
	report := replay(t, w.store, store.Replay{Failed: true})
	expect(t, "tried", report.Events, 2)
	expect(t, "failed", report.Failed, 1)
	if len(report.Failures) != 1 || report.Failures[0].Type != "customer.created" || report.Failures[0].WebhookID == "" ||
		!strings.Contains(report.Failures[0].Error, "UUID") {
		t.Errorf("the failures are %+v, want the document without an id and why", report.Failures)
	}
	expect(t, "the customer", one[string](w, "select name from polar.customer where id = $1", bad), "Poison")
	expect(t, "its event", one[string](w, "select state || ' after ' || tries from polar.event where object_id = $1", bad.String()), "applied after 3")
	expect(t, "the hopeless one", one[string](w, "select state || ' after ' || tries from polar.event where object_id = 'none'"), "failed after 3")
	expect(t, "the good one", one[string](w, "select state || ' after ' || tries from polar.event where object_id = $1", good.String()), "applied after 1")
}

func TestReplayingEverythingChangesNothingAlsoWhileWorkersApply(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	random := rand.New(rand.NewPCG(7, 7))
	h := playHistory(t, random, 120, true)
	l.prepare(h)
	replaying := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			_, err := jobs.Replay(context.Background(), l.store, quiet, store.Replay{}, nil)
			select {
			case <-stop:
				replaying <- err
				return
			default:
			}
			if err != nil {
				replaying <- err
				return
			}
		}
	}()
	l.apply(disturb(h.events, random), 5, 3, random)
	close(stop)
	if err := <-replaying; err != nil {
		t.Fatalf("replaying beside workers: %v", err)
	}
	got := outcome(t, l.store)

	l.prepare(h)
	l.apply(h.events, 1, 1, random)
	want := outcome(t, l.store)
	sameOutcome(t, "applied and replayed at once", got, want)
	report := replay(t, l.store, store.Replay{})
	expect(t, "events", report.Events, int64(len(h.events)))
	expect(t, "failed", report.Failed, 0)
	sameOutcome(t, "replayed", outcome(t, l.store), want)
}

func TestAReplayRebuildsAnEmptyMirror(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	random := rand.New(rand.NewPCG(8, 8))
	h := playHistory(t, random, 80, false)
	l.prepare(h)
	l.apply(h.events, 10, 1, random)
	want := outcome(t, l.store)
	l.exec("delete from polar." + strings.Join(append([]string{"customer_state"}, mirrorTables...), "; delete from polar."))
	report := replay(t, l.store, store.Replay{})
	expect(t, "failed", report.Failed, 0)
	sameOutcome(t, "replayed into empty tables", outcome(t, l.store), want)
}

func TestAReplayKeepsToTheEventsAskedFor(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	customer, checkout, odd := uuid.New(), uuid.New(), uuid.New()
	l.insert(event("customer.created", 1, customerDoc(customer, 1, nil)))
	l.insert(event("checkout.created", 2, checkoutDoc(checkout, 2, nil)), event("checkout.updated", 3, checkoutDoc(checkout, 2, doc{"status": "expired"})))
	l.insert(event("checkoutXcreated", 4, checkoutDoc(odd, 4, nil)), event("customer.updated", 5, customerDoc(customer, 1, doc{"name": "Ada"})))
	l.exec("update polar.event_log set received_at = now() - interval '3 hours' where seq <= 2")
	for name, c := range map[string]struct {
		replay store.Replay
		events int64
	}{
		"all":                {store.Replay{}, 5},
		"a type":             {store.Replay{Types: []string{"checkout.*"}}, 2},
		"types":              {store.Replay{Types: []string{"checkout.created", "*.updated"}}, 3},
		"a type nobody sent": {store.Replay{Types: []string{"refund.*", "c%"}}, 0},
		"a time":             {store.Replay{Since: time.Now().Add(-time.Hour)}, 3},
		"a type and a time":  {store.Replay{Since: time.Now().Add(-time.Hour), Types: []string{"checkout.*"}}, 1},
		"a place":            {store.Replay{After: 4}, 1},
		"failed":             {store.Replay{Failed: true}, 0},
	} {
		fits, err := l.store.CountReplay(t.Context(), c.replay)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, name+" counted", fits.Events, c.events)
	}
	expect(t, "nothing was applied by counting", value[int64](t, l.store, "select count(*) from polar.event_outcome"), 0)

	expect(t, "events of checkouts", replay(t, l.store, store.Replay{Types: []string{"checkout.*"}}).Events, 2)
	expect(t, "the checkout", value[string](t, l.store, "select status from polar.checkout where id = $1", checkout), "expired")
	expect(t, "customers", value[int64](t, l.store, "select count(*) from polar.customer"), 0)
	expect(t, "the rest", replay(t, l.store, store.Replay{After: 3}).Events, 2)
	expect(t, "the customer", value[string](t, l.store, "select name from polar.customer where id = $1", customer), "Ada")
}

// crowd stores the events of n customers, in batches.
func (l *ledger) crowd(n int) {
	l.t.Helper()
	bodies := make([]string, n)
	for i := range n {
		id := uuid.New()
		bodies[i] = event("customer.created", float64(i), customerDoc(id, float64(i), doc{"external_id": fmt.Sprint("usr_", i)}))
	}
	for batch := range slices.Chunk(bodies, 500) {
		l.insert(batch...)
	}
}

func TestAnInterruptedReplayGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.crowd(2500)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cut, err := jobs.Replay(ctx, l.store, quiet, store.Replay{}, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted replay ended with %v", err)
	}
	if cut.Events == 0 || cut.Events == 2500 || cut.LastSeq == 0 {
		t.Fatalf("an interrupted replay came to %+v, want a part", cut)
	}
	expect(t, "applied", value[int64](t, l.store, "select count(*) from polar.event_outcome where state = 'applied'"), cut.Events)
	expect(t, "applied up to where it says", value[int64](t, l.store, "select max(seq) from polar.event_outcome"), cut.LastSeq)
	rest := replay(t, l.store, store.Replay{After: cut.LastSeq})
	expect(t, "both parts", cut.Events+rest.Events, 2500)
	expect(t, "customers", value[int64](t, l.store, "select count(*) from polar.customer"), 2500)
}

func TestAReplayLeavesWhatFollowsAtPolarToTheWorkers(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	customer, checkout, asked := uuid.New(), uuid.New(), uuid.New()
	history{users: []string{"usr_ada"}, requests: []request{{asked, "usr_ada"}}}.seed(t, l.store)
	l.insert(event("customer.created", 3, customerDoc(customer, 3, nil)),
		event("checkout.updated", 4, checkoutDoc(checkout, 2, doc{"status": "succeeded", "customer_id": customer, "metadata": doc{"truenorth_request": asked}})))
	replay(t, l.store, store.Replay{})
	expect(t, "the link", value[string](t, l.store, "select local_user_id || ' by ' || basis from polar.customer_link where customer_id = $1", customer), "usr_ada by checkout")
	expect(t, "the job that writes the external id", value[int64](t, l.store, "select count(*) from polar.river_job where kind = 'write_external_id' and state = 'available'"), 1)
}
