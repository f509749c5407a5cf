package jobs_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// TestAWorkerGoesOnWhenTheDatabasesClockHasGoneBack: what an hour's step forward leaves behind when it is taken back, as does a
// fail-over to a server with another clock.
func TestAWorkerGoesOnWhenTheDatabasesClockHasGoneBack(t *testing.T) {
	t.Parallel()

	w := newWorld(t, worldOptions{idle: true})
	w.addUser("usr_1")
	if _, err := w.fake.CreateCustomer(`{"email": "ada@example.com", "external_id": "usr_1"}`); err != nil {
		t.Fatal(err)
	}
	request, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_1"})
	if err != nil {
		t.Fatal(err)
	}
	waittest.Eventually(t, func() error {
		if one[int64](w, "select count(*) from polar.event") == 0 {
			return errors.New("no event has come")
		}
		return nil
	})
	w.exec("update polar.river_job set scheduled_at = now() + interval '1 hour'")
	w.exec("update polar.api_budget set refilled_at = now() + interval '1 hour'")
	w.exec("insert into polar.river_leader (elected_at, expires_at, leader_id) values (now() + interval '1 hour', now() + interval '61 minutes', 'gone')")
	w.exec("insert into polar.worker_process (id, seen_at) values ('gone', now() + interval '1 hour')")

	w.startWorker()
	waittest.Eventually(t, func() error {
		if state := one[string](w, "select state from polar.checkout_request where id = $1", request); state != "open" {
			return errors.New("the request is " + state)
		}
		if one[int64](w, "select count(*) from polar.customer_link") == 0 {
			return errors.New("the customer is not linked")
		}
		return nil
	})
}

// A session was made 25 minutes ago whose answer was lost, others since; then the clock went back, and Polar is there again.
func TestASessionOfBeforeTheDatabasesClockWentBackIsFound(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{20 * time.Minute, time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			t.Parallel()
			clock := newFakeClock()
			w := newWorld(t, worldOptions{offline: true, idle: true, fake: polarfake.Options{Clock: clock.now}})
			id := w.ask("usr_ada")
			clock.advance(-25 * time.Minute)
			session := w.makeSession(id)
			clock.advance(10 * time.Minute)
			w.makeSession(uuid.New())
			clock.advance(15 * time.Minute)
			w.exec(`update polar.checkout_request set state = 'creating', attempt = 1, first_tried_at = now() + $1, posted_at = now() + $1, updated_at = now() + $1`, step-25*time.Minute)
			w.exec("insert into polar.worker_process (id, seen_at) values ('living', now() + $1)", step)

			w.startWorker()
			w.await(id, "open")
			expect(t, "the session", one[uuid.UUID](w, "select checkout_id from polar.checkout_request where id = $1", id), session)
			w.wantCalls(postCheckout, 0)
		})
	}
}

// Another worker has mended what it found, and its signs of life tell no more that the clock has gone back.
func TestWhatAWorkerDatedBeforeItSawThatTheDatabasesClockHasGoneBackDoesNotWaitForThat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, jobs: jobs.Config{RecoveryTime: time.Second}})
	w.exec(`insert into polar.river_job (kind, args, queue, max_attempts, state, attempted_at, scheduled_at)
		values ('refresh_object', '{"object_type": "nothing"}', 'default', 3, 'retryable', now(), now() + interval '1 hour')`)
	w.runner.StepDatabaseClock(-time.Hour)
	waittest.Eventually(t, func() error {
		if state := one[string](w, "select state::text from polar.river_job"); state != "cancelled" {
			return errors.New("the job is " + state)
		}
		return nil
	})
}

func TestNothingIsTakenFromWhoMaySeemDeadBecauseTheDatabasesClockHasLeaptAhead(t *testing.T) {
	t.Parallel()
	config := jobs.Config{RecoveryTime: 2 * time.Second}
	config.API.Timeout = time.Second
	w := newWorld(t, worldOptions{offline: true, jobs: config})
	w.stop() // only this test keeps house
	const hold = `insert into polar.river_job (kind, args, queue, max_attempts, state, attempt, attempted_at, attempted_by)
		values ('create_checkout', jsonb_build_object('request_id', $2::text), 'checkouts', 1000, 'running', 1, now() - interval '1 hour', array[$1])`
	w.exec("delete from polar.river_job")
	for _, worker := range []string{"living", "dead"} {
		w.exec(hold, worker, uuid.NewString())
		w.exec("insert into polar.worker_process (id, seen_at) values ($1, now() - interval '1 hour')", worker)
	}
	w.exec(`insert into polar.checkout_request (id, params, state, attempt, leased_until, updated_at, created_at)
		values (gen_random_uuid(), '{}', 'creating', 1, now() - interval '1 hour', now() - interval '1 hour', now() - interval '1 hour')`)
	const held = "select coalesce(string_agg(attempted_by[1], ', ' order by id), 'none') from polar.river_job where state = 'running'"
	const requeued = "select count(*) from polar.river_job where attempt = 0"

	w.runner.StepDatabaseClock(time.Hour)
	for range 2 { // the second look shows no leap
		if err := w.runner.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, "jobs held right after the leap", one[string](w, held), "living, dead")
		expect(t, "requests with a new job", one[int64](w, requeued), 0)
	}
	w.exec("update polar.worker_process set seen_at = now() + interval '1 hour' where id = 'living'")
	waittest.Eventually(t, func() error {
		if err := w.runner.Upkeep(t.Context()); err != nil {
			return err
		}
		if got := one[string](w, held); got != "living" {
			return fmt.Errorf("jobs are held by %s", got)
		}
		return nil
	})
	expect(t, "requests with a new job, later", one[int64](w, requeued), 1)
}

func TestTheClockOfPostgresIsTheWorkersFromTheFirstLookOn(t *testing.T) {
	t.Parallel()
	var c jobs.DatabaseClock
	expectOff := func(when string, want time.Duration) {
		t.Helper()
		if off := time.Until(c.Now()); (off - want).Abs() > 300*time.Millisecond {
			t.Errorf("%s, it is off by %s, want %s", when, off, want)
		}
	}
	expectOff("before the first look", 0)
	c.Set(time.Now().Add(600*time.Millisecond), 0) // within what it may be off: all the same, the host's may be stepped from now on
	expectOff("after it", 600*time.Millisecond)

	c.Set(time.Now(), 0)
	expectOff("after a look that shows little else", 600*time.Millisecond)
	c.Set(time.Now().Add(-time.Hour), time.Minute) // another look was later
	expectOff("after an answer that comes late", 600*time.Millisecond)
	c.Age(3 * time.Hour)
	c.Set(time.Now().Add(-time.Hour), 2*time.Hour) // the answer was on the way for long
	expectOff("after an answer that took long", 600*time.Millisecond)
	expect(t, "went back", c.WentBack(), 0)
	expect(t, "has leapt", c.HasLeapt(), false)

	c.Set(time.Now().Add(-time.Hour), 0)
	expectOff("after a step back", -time.Hour)
	expect(t, "went back, after it", c.WentBack().Round(time.Minute), time.Hour)
	expect(t, "has leapt, after it", c.HasLeapt(), false)

	c.Set(time.Now(), 0)
	expectOff("after a leap", 0)
	expect(t, "has leapt, after it", c.HasLeapt(), true)
}
