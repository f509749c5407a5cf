package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// leases are those of a worker with the default settings.
var leases = store.Leases{Checkout: 20 * time.Second, Reconcile: 6 * time.Second, Block: 10 * time.Second, Beat: 3 * time.Second}

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
	update polar.change_teller set walked_at = now() + interval '1 hour';
	insert into polar.river_leader (elected_at, expires_at, leader_id) values (now() + interval '1 hour', now() + interval '1 hour', 'dead')`

// wait lists what waits for longer than half a minute.
const wait = `
	select coalesce(string_agg(what, ', ' order by what), 'nothing') from (
		select 'job ' || state as what from polar.river_job where scheduled_at > now() or attempted_at > now()
		union all select 'worker ' || id from polar.worker_process where seen_at > now()
		union all select 'request' from polar.checkout_request where greatest(first_tried_at, posted_at, updated_at) > now() or leased_until > now() + interval '30 seconds'
		union all select 'budget' from polar.api_budget where refilled_at > now() or blocked_until > now() + interval '30 seconds'
		union all select 'reconciler' from polar.reconcile_lease where until > now() + interval '30 seconds'
		union all select 'feed' from polar.change_teller where walked_at > now()
		union all select 'links' from polar.relink where done_at > now()
		union all select 'leader' from polar.river_leader where expires_at > now() + interval '30 seconds') w`

// lookAndMend looks at the clock and mends, as a worker does that has itself seen the clock go back by ownCount.
func lookAndMend(t *testing.T, s *store.Store, ownCount time.Duration) (wentBack time.Duration, mended int64, err error) {
	t.Helper()
	look, err := s.LookAtClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.MendClock(t.Context(), look, ownCount, leases)
}

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
	if got, want := waiting(), "budget, feed, job available, job retryable, job running, job scheduled, leader, links, reconciler, request, worker dead"; got != want {
		t.Fatalf("before, %s wait, want %s", got, want)
	}
	wentBack, mended, err := lookAndMend(t, s, 0)
	if err != nil || wentBack.Round(time.Minute) != time.Hour || mended != 5 {
		t.Errorf("the clock went back by %s and %d were mended (%v), want an hour and 5", wentBack, mended, err)
	}
	if got := waiting(); got != "nothing" {
		t.Errorf("after, these still wait: %s", got)
	}
	if wentBack, mended, err := lookAndMend(t, s, 0); wentBack != 0 || mended != 0 || err != nil {
		t.Errorf("a second look finds %s, mends %d: %v", wentBack, mended, err)
	}
}

func TestAClockThatIsWellChangesNothingThatWaits(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	if _, err := s.Pool().Exec(t.Context(), anHourAhead+"; delete from polar.worker_process where id = 'dead'"); err != nil {
		t.Fatal(err)
	}
	wentBack, mended, err := lookAndMend(t, s, 0)
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

func TestHowLongAgoASessionMayHaveBeenMadeIsKnownAfterAClockHasGoneBack(t *testing.T) {
	t.Parallel()

	const posted = 25 * time.Minute // ago, in truth
	for _, tt := range []struct {
		name                         string
		wentBack, lastSign, ownCount time.Duration // lastSign: ago, in truth
		found                        time.Duration
		want                         time.Duration // that posted seems to be ago
	}{
		{"further than the call is ago", time.Hour, 0, 0, time.Hour, posted},
		{"less far", 20 * time.Minute, 0, 0, 20 * time.Minute, posted},
		{"while no worker could give a sign", time.Hour, 20 * time.Minute, time.Hour, time.Hour, posted},
		{"while none could for longer than that", 20 * time.Minute, 22 * time.Minute, 20 * time.Minute, 20 * time.Minute, posted},
		{"and another worker has mended it", 20 * time.Minute, 20*time.Minute + time.Second, 20 * time.Minute, 20 * time.Minute, posted - 20*time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.New(t)
			_, err := s.Pool().Exec(t.Context(), "insert into polar.worker_process (id, seen_at) values ('living', now() + $1::interval)", tt.wentBack-tt.lastSign)
			if err != nil {
				t.Fatal(err)
			}
			// Tried and called by the clock of before.
			_, err = s.Pool().Exec(t.Context(), `
				insert into polar.checkout_request (id, params, state, first_tried_at, posted_at, updated_at)
				values (gen_random_uuid(), '{}', 'creating', now() + $1::interval, now() + $1::interval, now() + $1::interval)`, tt.wentBack-posted)
			if err != nil {
				t.Fatal(err)
			}
			wentBack, _, err := lookAndMend(t, s, tt.ownCount)
			if err != nil || wentBack.Round(time.Minute) != tt.found {
				t.Errorf("the clock went back by %s (%v), want %s", wentBack, err, tt.found)
			}
			var postedAgo, triedAgo time.Duration
			err = s.Pool().QueryRow(t.Context(), "select now() - posted_at, now() - first_tried_at from polar.checkout_request where state = 'creating'").Scan(&postedAgo, &triedAgo)
			if err != nil || postedAgo.Round(time.Minute) != tt.want || triedAgo < 0 || triedAgo.Round(time.Minute) > posted {
				t.Errorf("it was called %s ago and first tried %s ago (%v), want called %s ago and not tried longer ago than in truth", postedAgo, triedAgo, err, tt.want)
			}
		})
	}
}

func TestWhatNobodyHeldOrBlockedIsNotHeldOrBlockedAfterAClockHasGoneBack(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	_, err := s.Pool().Exec(t.Context(), `
		insert into polar.worker_process (id, seen_at) values ('living', now() + interval '1 hour');
		insert into polar.checkout_request (id, params, updated_at) values (gen_random_uuid(), '{}', now() + interval '1 hour');
		insert into polar.checkout_request (id, params, state, posted_at) values (gen_random_uuid(), '{}', 'creating', now() + interval '1 hour')`)
	if err != nil {
		t.Fatal(err)
	}
	if _, mended, err := lookAndMend(t, s, 0); err != nil || mended != 2 {
		t.Errorf("%d were mended (%v), want 2", mended, err)
	}
	var held, tried, called, blocked int
	err = s.Pool().QueryRow(t.Context(), `
		select count(leased_until), count(first_tried_at), count(posted_at), (select count(blocked_until) from polar.api_budget)
		  from polar.checkout_request`).Scan(&held, &tried, &called, &blocked)
	if err != nil || held != 0 || tried != 0 || called != 1 || blocked != 0 {
		t.Errorf("of 2 requests %d are held, %d tried and %d called, and %d budgets are blocked (%v), want 0, 0, 1 and 0", held, tried, called, blocked, err)
	}
}

func TestARequestThatATryHoldsRightNowIsNotPassedOverWhenAClockHasGoneBack(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	_, err := s.Pool().Exec(t.Context(), `
		insert into polar.worker_process (id, seen_at) values ('living', now() + interval '1 hour');
		insert into polar.checkout_request (id, params, state, posted_at) values (gen_random_uuid(), '{}', 'creating', now() + interval '1 hour')`)
	if err != nil {
		t.Fatal(err)
	}
	mended := make(chan error, 1)
	err = s.InTx(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Pgx().Exec(t.Context(), "update polar.checkout_request set error = 'no answer'"); err != nil {
			return err
		}
		go func() {
			look, err := s.LookAtClock(t.Context())
			if err == nil {
				_, _, err = s.MendClock(t.Context(), look, 0, leases)
			}
			mended <- err
		}()
		waittest.Eventually(t, func() (err error) {
			select {
			case err := <-mended:
				t.Fatalf("the mending did not wait (%v)", err)
			default:
			}
			var waits bool
			err = s.Pool().QueryRow(t.Context(), "select exists (select from pg_locks l where not l.granted and l.pid in (select a.pid from pg_stat_activity a where a.datname = current_database()))").Scan(&waits)
			if err == nil && !waits {
				err = errors.New("nobody waits for the request")
			}
			return err
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-mended; err != nil {
		t.Fatal(err)
	}
	var postedAgo time.Duration
	err = s.Pool().QueryRow(t.Context(), "select now() - posted_at from polar.checkout_request where error = 'no answer'").Scan(&postedAgo)
	if err != nil || postedAgo.Round(time.Minute) != 0 {
		t.Errorf("it was called %s ago (%v), want just now", postedAgo, err)
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
	_, err = s.Pool().Exec(t.Context(), `
		insert into polar.river_job (kind, args, queue, max_attempts, state, scheduled_at, metadata)
		select 'create_checkout', jsonb_build_object('wait', m), 'checkouts', 1000, 'scheduled', now() + interval '1 hour', m::jsonb from unnest(array['{}', '{"snoozes": 2}']) m`)
	if err != nil {
		t.Fatal(err)
	}
	var due int64
	err = s.InTx(t.Context(), func(tx *store.Tx) (err error) {
		due, err = tx.MakeJobsDue(t.Context(), 5*time.Minute, []string{"apply_events", "create_checkout"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := column[string](t, s, `
		select kind || ' ' || state || ' in ' || (args ->> 'wait') from polar.river_job
		 where scheduled_at <= now() group by 1 having count(*) in (1, 12) order by 1`) // in three queues, of four priorities
	want := []string{
		"apply_events available in 1 hour", "apply_events available in 1 minute", "apply_events retryable in 1 hour", "apply_events scheduled in 1 hour",
		`create_checkout scheduled in {"snoozes": 2}`, // and not what an app has scheduled
		"watch_endpoint available in 1 hour", "watch_endpoint available in 1 minute",
	}
	if diff := cmp.Diff(want, rows); diff != "" || due != int64(12*(len(want)-1)+1) {
		t.Errorf("%d jobs were made due (-want +got):\n%s", due, diff)
	}
}
