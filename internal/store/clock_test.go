package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// leases are those of a worker with the default settings.
var leases = store.Leases{Checkout: 20 * time.Second, Reconcile: 6 * time.Second, Block: 10 * time.Second}

// anHourAhead writes what is there when the clock is an hour ahead, and then goes back.
const anHourAhead = `
	insert into polar.worker_process (id, seen_at) values ('living', now()), ('dead', now() + interval '1 hour');
	insert into polar.river_job (kind, args, queue, max_attempts, state, scheduled_at)
		select 'apply_events', '{}', 'events', 1000, s::polar.river_job_state, now() + interval '1 hour' from unnest(array['available', 'retryable', 'scheduled']) s;
	insert into polar.river_job (kind, args, queue, max_attempts, state, attempt, attempted_at, attempted_by)
		values ('apply_events', '{}', 'events', 1000, 'running', 1, now() + interval '1 hour', array['dead']);
	insert into polar.checkout_request (id, params, state, attempt, first_tried_at, posted_at, leased_until, updated_at)
		values (gen_random_uuid(), '{}', 'creating', 1, now() + interval '1 hour', now() + interval '1 hour', now() + interval '61 minutes', now() + interval '1 hour');
	update polar.api_budget set refilled_at = now() + interval '1 hour', blocked_until = now() + interval '1 hour';
	update polar.reconcile_lease set holder = 'dead', until = now() + interval '1 hour';
	update polar.relink set done_at = now() + interval '1 hour';
	insert into polar.river_leader (elected_at, expires_at, leader_id) values (now() + interval '1 hour', now() + interval '1 hour', 'dead')`

// wait lists what waits for longer than half a minute.
const wait = `
	select coalesce(string_agg(what, ', ' order by what), 'nothing') from (
		select 'job ' || state as what from polar.river_job where scheduled_at > now() or attempted_at > now()
		union all select 'worker ' || id from polar.worker_process where seen_at > now()
		union all select 'request' from polar.checkout_request where greatest(first_tried_at, posted_at, updated_at) > now() or leased_until > now() + interval '30 seconds'
		union all select 'budget' from polar.api_budget where refilled_at > now() or blocked_until > now() + interval '30 seconds'
		union all select 'reconciler' from polar.reconcile_lease where until > now() + interval '30 seconds'
		union all select 'links' from polar.relink where done_at > now()
		union all select 'leader' from polar.river_leader where expires_at > now() + interval '30 seconds') w`

func TestNothingWaitsForATimeThatAClockHasGoneBackFrom(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	if _, err := s.Pool().Exec(t.Context(), anHourAhead); err != nil {
		t.Fatal(err)
	}
	waiting := func() (what string) {
		t.Helper()
		if err := s.Pool().QueryRow(t.Context(), wait).Scan(&what); err != nil {
			t.Fatal(err)
		}
		return what
	}
	if got, want := waiting(), "budget, job available, job retryable, job running, job scheduled, leader, links, reconciler, request, worker dead"; got != want {
		t.Fatalf("before, %s wait, want %s", got, want)
	}
	wentBack, mended, err := s.MendClock(t.Context(), leases)
	if err != nil || wentBack.Round(time.Minute) != time.Hour || mended != 5 {
		t.Errorf("the clock went back by %s and %d were mended (%v), want an hour and 5", wentBack, mended, err)
	}
	if got := waiting(); got != "nothing" {
		t.Errorf("after, these still wait: %s", got)
	}
	if wentBack, mended, err := s.MendClock(t.Context(), leases); wentBack != 0 || mended != 0 || err != nil {
		t.Errorf("a second look finds %s, mends %d: %v", wentBack, mended, err)
	}
}

func TestAClockThatIsWellChangesNothingThatWaits(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	if _, err := s.Pool().Exec(t.Context(), anHourAhead+"; delete from polar.worker_process where id = 'dead'"); err != nil {
		t.Fatal(err)
	}
	wentBack, mended, err := s.MendClock(t.Context(), leases)
	if wentBack != 0 || mended != 0 || err != nil {
		t.Errorf("the clock went back by %s and %d were mended (%v), want nothing", wentBack, mended, err)
	}
	var due int
	if err := s.Pool().QueryRow(t.Context(), "select count(*) from polar.river_job where scheduled_at > now()").Scan(&due); err != nil || due != 3 {
		t.Errorf("%d jobs wait for their time (%v), want 3", due, err)
	}
}

func TestABudgetThatWasFilledLaterThanNowMakesNobodyWaitForThat(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	budget := store.Budget{Capacity: 100, PerSecond: 10}
	if _, err := s.Pool().Exec(t.Context(), "update polar.api_budget set tokens = 1, refilled_at = now() + interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	taken, wait, err := s.TakeBudget(t.Context(), budget, 3, 0)
	if err != nil || taken || wait > time.Second {
		t.Errorf("taken: %t, or in %s (%v), want in 200 ms", taken, wait, err)
	}
	if left, err := s.BudgetLeft(t.Context(), budget); err != nil || left != 1 {
		t.Errorf("%v calls are left (%v), want 1", left, err)
	}
	if taken, _, err := s.TakeBudget(t.Context(), budget, 1, 0); err != nil || !taken {
		t.Errorf("what is left could not be taken: %v", err)
	}
}

func TestWhatAClockThatIsAheadPutOffIsMadeDueAndNothingElse(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	_, err := s.Pool().Exec(t.Context(), `
		insert into polar.river_job (kind, args, queue, priority, max_attempts, state, scheduled_at)
		select k, jsonb_build_object('wait', w), q, p, 1000, s::polar.river_job_state, now() + w::interval
		  from unnest(array['apply_events', 'watch_endpoint']) k, unnest(array['events', 'checkouts', 'default']) q, unnest(array['available', 'retryable', 'scheduled']) s, unnest(array['2 seconds', '1 minute', '1 hour']) w, generate_series(1, 4) p`)
	if err != nil {
		t.Fatal(err)
	}
	var due int64
	err = s.InTx(t.Context(), func(tx *store.Tx) (err error) {
		due, err = tx.MakeJobsDue(t.Context(), 5*time.Minute, []string{"apply_events"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := column[string](t, s, `
		select kind || ' ' || state || ' in ' || (args ->> 'wait') from polar.river_job
		 where scheduled_at <= now() group by 1 having count(*) = 12 order by 1`) // in three queues, of four priorities
	want := []string{
		"apply_events available in 1 hour", "apply_events available in 1 minute", "apply_events retryable in 1 hour", "apply_events scheduled in 1 hour",
		"watch_endpoint available in 1 hour", "watch_endpoint available in 1 minute",
	}
	if diff := cmp.Diff(want, rows); diff != "" || due != int64(12*len(want)) {
		t.Errorf("%d jobs were made due (-want +got):\n%s", due, diff)
	}
}
