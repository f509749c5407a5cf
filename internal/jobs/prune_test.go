package jobs_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

const (
	day        = 24 * time.Hour
	polarKeeps = 90 * day
)

// prune removes what is older than age, as the worker's job does, and returns what it told the log.
func (w *world) prune(age time.Duration) string {
	w.t.Helper()
	var log bytes.Buffer
	if err := jobs.PruneEvents(w.t.Context(), w.store, slog.New(slog.NewTextHandler(&log, nil)), age); err != nil {
		w.t.Fatalf("pruning: %v", err)
	}
	return log.String()
}

// receive posts an event under an id.
func (w *world) receive(webhookID, body string) {
	w.t.Helper()
	if status := w.post(webhookID, body); status != http.StatusAccepted {
		w.t.Fatalf("ingest answered %d to %s", status, webhookID)
	}
}

// age has events received so long ago.
func (w *world) age(d time.Duration, webhookIDs ...string) {
	w.t.Helper()
	w.exec("update polar.event_log set received_at = now() - $1::interval where webhook_id = any ($2)", d, webhookIDs)
}

// kept lists the events that are there, those without a body in parentheses.
func (w *world) kept() string {
	w.t.Helper()
	return one[string](w, "select coalesce(string_agg(case when body is null then '(' || webhook_id || ')' else webhook_id end, ' ' order by seq), '') from polar.event")
}

// expectSpotless expects that no outcome is left without its event.
func (w *world) expectSpotless() {
	w.t.Helper()
	expect(w.t, "outcomes without an event", one[int64](w, "select count(*) from polar.event_outcome o where not exists (select from polar.event_log l where l.seq = o.seq)"), 0)
}

func someCustomer(name string) string {
	return event("customer.created", 1, customerDoc(uuid.New(), 0, doc{"name": name}))
}

// unreadable is the body of an event that never applies.
func unreadable() string { return event("customer.created", 1, doc{"id": "none"}) }

func TestOldEventsGoAndYoungUndecidedAndTriedOnesStay(t *testing.T) {
	t.Parallel()
	w := offline(t)
	for _, id := range []string{"old", "older", "young"} {
		w.receive(id, someCustomer(id))
	}
	w.receive("failed", unreadable())
	w.receive("failed-again", unreadable())
	w.settle()
	w.stop()
	w.receive("undecided", someCustomer("undecided"))
	w.receive("failed-again", unreadable()) // a redelivery: its job is alive
	w.age(polarKeeps+time.Hour, "old", "older", "failed", "failed-again", "undecided")
	w.age(polarKeeps-time.Hour, "young")
	customers := one[int64](w, "select count(*) from polar.customer")

	said := w.prune(polarKeeps)
	expect(t, "kept", w.kept(), "young failed-again undecided")
	w.expectSpotless()
	if !strings.Contains(said, "events=3 failed_events=1 bodies=0") || !strings.Contains(said, "passed_over=3") { // the young one stood among the old
		t.Errorf("it told the log %q", said)
	}
	expect(t, "customers", one[int64](w, "select count(*) from polar.customer"), customers)
	if said := w.prune(polarKeeps); said != "" {
		t.Errorf("with nothing to do, it told the log %q", said)
	}

	// What was passed over is not forgotten.
	w.startWorker()
	w.settle()
	w.age(polarKeeps+time.Hour, "young")
	w.prune(polarKeeps)
	expect(t, "kept in the end", w.kept(), "")
	w.expectSpotless()
	expect(t, "events passed over", one[int64](w, "select sum(cardinality(left_over)) from polar.event_prune"), 0)

	w.receive("old", event("customer.created", 1, customerDoc(uuid.New(), 0, nil)))
	w.settle()
	expect(t, "an event that nobody knows any more", w.kept(), "old")
}

func TestALongerRetentionKeepsWholeEventsLonger(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.receive("a", someCustomer("a"))
	w.receive("b", someCustomer("b"))
	w.settle()
	w.stop()
	w.age(200*day, "a")
	w.age(99*day, "b")
	w.prune(100 * day)
	expect(t, "kept", w.kept(), "b")
	w.prune(0)
	w.age(1000*day, "b")
	w.prune(0)
	expect(t, "kept without a retention", w.kept(), "b")
}

func TestAShorterRetentionTakesBodiesAndStillKnowsARedelivery(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.New()
	body := event("customer.created", 1, customerDoc(id, 0, doc{"name": "Ada"}))
	w.receive("old", body)
	w.receive("odd", strings.Replace(someCustomer("odd@"), "@", "\xff", 1)) // has body_bytes too
	w.receive("failed", unreadable())
	w.receive("young", someCustomer("young"))
	w.settle()
	w.stop()
	w.receive("undecided", someCustomer("undecided"))
	w.age(8*day, "old", "odd", "failed", "undecided")

	said := w.prune(7 * day)
	expect(t, "kept", w.kept(), "(old) (odd) (failed) young undecided")
	expect(t, "exact bytes", one[int64](w, "select count(body_bytes) from polar.event"), 0)
	if !strings.Contains(said, "events=0 failed_events=0 bodies=3 failed_bodies=1 passed_over=2") { // the undecided one, and the young one before it
		t.Errorf("it told the log %q", said)
	}
	expect(t, "documents that people's SQL reads", one[int64](w, "select count(body::jsonb -> 'data' ->> 'id') from polar.event"), 2)

	w.startWorker()
	w.settle()
	w.prune(7 * day)
	expect(t, "kept, with the outcome there", w.kept(), "(old) (odd) (failed) young (undecided)")
	everything := func() string {
		return one[string](w, `select jsonb_build_array((select jsonb_agg(e order by e.seq) from polar.event_log e), (select jsonb_agg(o order by o.seq) from polar.event_outcome o),
			(select jsonb_agg(c order by c.id) from polar.customer c), (select jsonb_agg(p order by p.what) from polar.event_prune p), (select count(*) from polar.river_job where kind = 'apply_events'))::text`)
	}
	before := everything()
	w.receive("old", body)
	w.receive("old", event("customer.updated", 2, customerDoc(id, 0, doc{"name": "Eve", "modified_at": moment(2)})))
	w.settle()
	expect(t, "everything after redeliveries", everything(), before)

	w.age(polarKeeps+time.Hour, "old", "failed")
	w.prune(7 * day)
	expect(t, "kept after 90 days", w.kept(), "(odd) young (undecided)")
	w.expectSpotless()
}

func TestARedeliveryBringsAFailedEventItsBodyBack(t *testing.T) {
	t.Parallel()
	w := offline(t)
	cure := refusePoison(t, w.store)
	body := event("customer.created", 1, customerDoc(uuid.New(), 0, doc{"name": "Poison"}))
	w.receive("failed", body)
	w.receive("applied", someCustomer("applied"))
	w.settle()
	w.age(8*day, "failed", "applied")
	w.prune(7 * day)
	expect(t, "kept", w.kept(), "(failed) (applied)")

	w.receive("failed", body)
	w.settle()
	expect(t, "the redelivery while the cause is there", one[string](w, "select state || ' after ' || tries || ' ' || (body = $1) from polar.event where webhook_id = 'failed'", body), "failed after 2 true")
	w.prune(7 * day)
	expect(t, "kept, with no job alive", w.kept(), "(failed) (applied)")
	cure()
	w.receive("failed", body)
	w.settle()
	expect(t, "the redelivery once it is gone", one[string](w, "select state || ' after ' || tries || ' ' || (body = $1) from polar.event where webhook_id = 'failed'", body), "applied after 3 true")
	expect(t, "the customer", one[string](w, "select name from polar.customer where name = 'Poison'"), "Poison")
	w.prune(7 * day)
	expect(t, "kept in the end", w.kept(), "(failed) (applied)")
}

func TestWhatHasNoBodyIsNeitherReplayedNorVerifiedNorInTheWay(t *testing.T) {
	t.Parallel()
	w := offline(t)
	ada, grace := uuid.New(), uuid.New()
	w.receive("ada", event("customer.created", 1, customerDoc(ada, 1, doc{"name": "Ada"})))
	w.receive("grace", event("customer.created", 1, customerDoc(grace, 1, doc{"name": "Grace"})))
	w.receive("failed", unreadable())
	w.receive("wallet", event("wallet.created", 1, doc{"id": uuid.New(), "holder": ada}))
	w.receive("ada-again", event("customer.updated", 5, customerDoc(ada, 1, doc{"name": "Ada II", "modified_at": moment(5)})))
	w.settle()
	w.stop()
	w.age(8*day, "grace", "failed", "wallet", "ada-again")
	w.prune(7 * day)
	expect(t, "kept", w.kept(), "ada (grace) (failed) (wallet) (ada-again)")
	// A job that was on the way finds nothing to do.
	w.exec(`insert into polar.river_job (kind, args, queue, max_attempts) select 'apply_events', jsonb_build_object('batch', batch), 'events', 1000 from polar.event_log where webhook_id = 'failed'
		union all select 'apply_events', jsonb_build_object('events', jsonb_build_array(seq)), 'events', 1000 from polar.event_log where webhook_id = 'failed'`)
	w.startWorker()
	w.settle()
	w.stop()
	expect(t, "the failed one", one[string](w, "select state || ' after ' || tries from polar.event where webhook_id = 'failed'"), "failed after 1")

	report := replay(t, w.store, store.Replay{})
	expect(t, "replayed", report.Events, 1)
	expect(t, "not kept", report.NotKept, 4)
	expect(t, "failed", report.Failed, 0)
	report = replay(t, w.store, store.Replay{Failed: true})
	expect(t, "failed ones replayed", report.Events, 0)
	expect(t, "failed ones not kept", report.NotKept, 1)
	expect(t, "their outcome", one[string](w, "select state || ' after ' || tries from polar.event where webhook_id = 'failed'"), "failed after 1")
	expect(t, "Ada", one[string](w, "select name from polar.customer where id = $1", ada), "Ada II")

	v := verify(t, w.store)
	if !v.Equal() {
		t.Errorf("not equal: %+v, %+v", v.Differences, v.Refused)
	}
	expect(t, "kept for verification", v.Kept, store.Kept{Applied: 1, Bodiless: 4})
	for _, table := range v.Tables {
		if table.Table == "customer" {
			expect(t, "customers compared", table, store.Comparison{Table: "customer", NotKept: 2})
		}
	}

	done := forget(t, w.store, ada)
	expect(t, "bodies blanked for Ada", done.Blanked["event_log"], 1)
	expect(t, "kept after it", w.kept(), "ada (grace) (failed) (wallet) (ada-again)")
	if found := traces(t, w.store, []string{"Ada"}); len(found) > 0 {
		t.Errorf("Ada is found in %v", found)
	}
}

func TestPruningKeepsNobodyWaitingButARedeliveryOfWhatGoes(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.receive("old", someCustomer("old"))
	w.settle()
	w.stop()
	w.age(polarKeeps+time.Hour, "old")
	config := w.store.Pool().Config()
	config.ConnConfig.RuntimeParams["lock_timeout"] = "100ms"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	hasty := store.New(pool)

	admin := w.asAdmin()
	redelivered := make(chan int, 1)
	err = w.store.InTx(t.Context(), func(tx *store.Tx) error {
		if locked, err := tx.LockPrune(t.Context()); err != nil || !locked {
			return fmt.Errorf("locked: %v, %w", locked, err)
		}
		pruned, err := tx.PruneEvents(t.Context(), polarKeeps, 1000)
		if err != nil {
			return err
		}
		expect(t, "removed", pruned.Events, 1)
		if _, err := tx.PruneBodies(t.Context(), 7*day, 1000); err != nil {
			return err
		}
		for i := range 20 {
			if _, err := hasty.InsertEvents(t.Context(), []store.Delivery{deliveryOf(t, fmt.Sprint("new-", i), someCustomer("new"))}, true); err != nil {
				t.Errorf("an event that comes meanwhile: %v", err)
			}
		}
		go func() { redelivered <- w.post("old", someCustomer("old")) }()
		waittest.Eventually(t, func() error {
			if n := one[int64](admin, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"); n != 1 {
				return fmt.Errorf("%d sessions wait for a lock", n)
			}
			return nil
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "the redelivery, once it is gone", <-redelivered, http.StatusAccepted)
	expect(t, "events", one[int64](w, "select count(*) from polar.event where state = 'received'"), 21)
}

func TestWhatAWriterHoldsIsPassedOverNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := offline(t)
	for _, id := range []string{"log", "outcome", "free"} {
		w.receive(id, someCustomer(id))
	}
	w.settle()
	w.stop()
	w.age(polarKeeps+time.Hour, "log", "outcome", "free")
	err := w.store.InTx(t.Context(), func(tx *store.Tx) error {
		for _, sql := range []string{
			"update polar.event_log set body = body where webhook_id = 'log'",
			"update polar.event_outcome set tries = tries where seq = (select seq from polar.event_log where webhook_id = 'outcome')",
		} {
			if _, err := tx.Pgx().Exec(t.Context(), sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		w.prune(polarKeeps)
		expect(t, "kept while two are held", w.kept(), "log outcome")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.prune(polarKeeps)
	expect(t, "kept afterwards", w.kept(), "")
}

// crowdOfOld stores many old events with their outcomes.
func (w *world) crowdOfOld(n int) {
	w.t.Helper()
	w.exec(`with l as (insert into polar.event_log (webhook_id, type, object_id, received_at, batch, body)
			select 'old-' || n, 'order.paid', n::text, now() - interval '100 days', 0, '{}' from generate_series(1, $1) n returning seq)
		insert into polar.event_outcome (seq, state, applied_at) select seq, 'applied', now() from l`, n)
	w.exec("analyze polar.event_log, polar.event_outcome")
}

func TestATransactionRemovesNoMoreThanItIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.crowdOfOld(250)
	w.exec("insert into polar.event_log (webhook_id, type, batch, body) values ('young', 'order.paid', 0, '{}')")
	for _, prune := range []func(*store.Tx, context.Context, time.Duration, int) (store.Pruned, error){(*store.Tx).PruneBodies, (*store.Tx).PruneEvents} {
		for step, want := range []store.Pruned{{Events: 100, More: true}, {Events: 100, More: true}, {Events: 50, More: true}, {}} {
			err := w.store.InTx(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.LockPrune(t.Context()); err != nil {
					return err
				}
				got, err := prune(tx, t.Context(), polarKeeps, 100)
				expect(t, fmt.Sprint("step ", step), got, want)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	expect(t, "kept", w.kept(), "young")
	w.expectSpotless()
}

func TestManyThatHaveToWaitAreNotPassedOverForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.crowdOfOld(500)
	w.exec("delete from polar.event_outcome where seq <= (select min(seq) + 299 from polar.event_log)")
	step := func() (pruned store.Pruned) {
		t.Helper()
		err := w.store.InTx(t.Context(), func(tx *store.Tx) (err error) {
			if _, err := tx.LockPrune(t.Context()); err != nil {
				return err
			}
			pruned, err = tx.PruneEvents(t.Context(), polarKeeps, 100)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return pruned
	}
	expect(t, "the first hundred", step(), store.Pruned{PassedOver: 100, More: true})
	expect(t, "with as many to wait for as it remembers", step(), store.Pruned{PassedOver: 100})
	w.exec("insert into polar.event_outcome (seq, state, applied_at) select seq, 'applied', now() from polar.event_log on conflict do nothing")
	w.prune(polarKeeps)
	expect(t, "kept, once they have their outcomes", w.kept(), "")
}

func TestTheWalkBeginsWhereTheLastOneEndedAndReadsNoTableAsAWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.crowdOfOld(20_000)
	w.exec("update polar.event_log set received_at = now() where seq > (select min(seq) + 9999 from polar.event_log)")
	w.exec("analyze polar.event_log")
	// Counters become visible when a session ends, at the latest.
	w.store.Pool().Reset()
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select n_tup_upd from pg_stat_user_tables where relname = 'event_log'"); n != 10_000 {
			return fmt.Errorf("%d updates are counted", n)
		}
		return nil
	})
	scans := func() (table, index int64) {
		return one[int64](w, "select sum(seq_scan) from pg_stat_user_tables where relname in ('event_log', 'event_outcome')"),
			one[int64](w, "select sum(idx_scan) from pg_stat_user_tables where relname in ('event_log', 'event_outcome')")
	}
	config := w.store.Pool().Config()
	config.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan" // the one that knows least
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	tableBefore, indexBefore := scans()
	if err := jobs.PruneEvents(t.Context(), store.New(pool), quiet, polarKeeps-day); err != nil {
		t.Fatal(err)
	}
	pool.Close()
	expect(t, "kept", one[int64](w, "select count(body) from polar.event"), 10_000)
	expect(t, "passed over", one[int64](w, "select sum(cardinality(left_over)) from polar.event_prune"), 0)
	waittest.Eventually(t, func() error {
		if _, index := scans(); index < indexBefore+30 {
			return fmt.Errorf("%d scans of indexes are counted", index-indexBefore)
		}
		return nil
	})
	// The look at what is kept, above, is the only one.
	if table, _ := scans(); table > tableBefore+2 {
		t.Errorf("tables were read as a whole %d times", table-tableBefore)
	}
}

func TestOneWorkerAtATimePrunes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.crowdOfOld(10)
	err := w.store.InTx(t.Context(), func(tx *store.Tx) error {
		if locked, err := tx.LockPrune(t.Context()); err != nil || !locked {
			return fmt.Errorf("locked: %v, %w", locked, err)
		}
		w.prune(polarKeeps)
		expect(t, "events, while another prunes", one[int64](w, "select count(*) from polar.event"), 10)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.prune(polarKeeps)
	expect(t, "events, with the place free", one[int64](w, "select count(*) from polar.event"), 0)
}

func TestAnOutcomeWithoutItsEventGoesToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.crowdOfOld(3)
	w.exec("update polar.event_log set received_at = now() where webhook_id = 'old-3'")
	w.exec("delete from polar.event_log where webhook_id = 'old-1'") // as after a replay that met the pruning
	w.prune(polarKeeps)
	expect(t, "kept", w.kept(), "old-3")
	expect(t, "outcomes", one[int64](w, "select count(*) from polar.event_outcome"), 1)
}

func TestAWorkerPrunesByItselfAndStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true, jobs: jobs.Config{EventRetention: polarKeeps}})
	const events = 60_000
	w.crowdOfOld(events)
	w.startWorker()
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(*) from polar.event_log"); n == events {
			return fmt.Errorf("%d events are there", n)
		}
		return nil
	})
	began := time.Now()
	w.stop()
	if took := time.Since(began); took > 5*time.Second { // less than jobs are given to end by themselves
		t.Errorf("the stop took %s", took)
	}
	if left := one[int64](w, "select count(*) from polar.event_log"); left == 0 {
		t.Error("it stopped only when there was nothing left to remove")
	}
	w.expectSpotless()
	expect(t, "the job", one[string](w, "select state::text from polar.river_job where kind = 'prune_events'"), "completed")
}
