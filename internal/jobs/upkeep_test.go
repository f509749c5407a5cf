package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// fieldOf reads a top-level string of a document.
func fieldOf(tb testing.TB, raw []byte, name string) string {
	tb.Helper()
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		tb.Fatal(err)
	}
	text, _ := fields[name].(string)
	return text
}

// hurried is a world whose upkeep takes a tenth of a second for what takes it a minute in life.
func hurried(t *testing.T, idle bool) *world {
	t.Helper()
	return newWorld(t, worldOptions{offline: true, idle: idle, tune: func(r *jobs.Runner) {
		r.Hurry(50*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond)
	}})
}

func TestAnEventWhoseJobIsGoneGetsANewOne(t *testing.T) {
	t.Parallel()
	for _, loss := range []string{"delete from polar.river_job", "update polar.river_job set state = 'discarded', finalized_at = now()"} {
		t.Run(loss[:6], func(t *testing.T) {
			t.Parallel()
			w := hurried(t, true)
			for i := range 3 {
				w.post(uuid.NewString(), event("customer.created", float64(i), customerDoc(uuid.New(), 0, nil)))
			}
			w.exec(loss)
			w.startWorker()
			waittest.Eventually(t, func() error {
				if n := one[int64](w, "select count(*) from polar.event where state = 'applied'"); n != 3 {
					return fmt.Errorf("%d events are applied, want 3", n)
				}
				return nil
			})
			waittest.Eventually(t, func() error {
				if swept, last := one[int64](w, "select swept_seq from polar.event_sweep"), one[int64](w, "select max(seq) from polar.event_log"); swept != last {
					return fmt.Errorf("the watermark is at %d, want %d", swept, last)
				}
				return nil
			})
		})
	}
}

func TestAJobThatALivingWorkerTookAndNeverHeardOfIsWorked(t *testing.T) {
	t.Parallel()
	w := hurried(t, false)
	if err := w.runner.Relink(t.Context()); err != nil { // the worker runs
		t.Fatal(err)
	}
	w.exec(`insert into polar.river_job (kind, args, queue, max_attempts, state, attempt, attempted_at, attempted_by)
		values ('refresh_object', '{"object_type": "nothing"}', 'default', 3, 'running', 1, now() - interval '1 minute', array[$1])`, w.runner.ID())
	waittest.Eventually(t, func() error {
		if state := one[string](w, "select state::text from polar.river_job"); state != "cancelled" {
			return fmt.Errorf("the job is %s", state)
		}
		return nil
	})
}

func TestWhatADeadWorkerHeldGoesToAnotherAndWhatALiveOneHoldsStays(t *testing.T) {
	t.Parallel()
	w := hurried(t, true)
	dead, live := uuid.New(), uuid.New()
	hold := func(webhookID string, customer uuid.UUID, worker string) {
		w.post(webhookID, event("customer.created", 1, customerDoc(customer, 0, nil)))
		w.exec(`update polar.river_job set state = 'running', attempt = 1, attempted_at = now() - interval '1 minute', attempted_by = array[$1] where state = 'available'`, worker)
	}
	hold("held-by-the-dead", dead, "dead")
	hold("held-by-the-living", live, "living")
	w.exec("insert into polar.worker_process (id, seen_at) values ('living', now()), ('dead', now() - interval '1 hour')")
	alive, dies := context.WithCancel(t.Context())
	defer dies()
	go func() {
		for alive.Err() == nil {
			_ = w.store.Beat(alive, "living") // far more often than it has to
		}
	}()
	w.startWorker()
	waittest.Eventually(t, func() error {
		if state := one[string](w, "select state from polar.event where webhook_id = 'held-by-the-dead'"); state != "applied" {
			return fmt.Errorf("the dead worker's event is %s", state)
		}
		return nil
	})
	expect(t, "the live worker's event", one[string](w, "select state from polar.event where webhook_id = 'held-by-the-living'"), "received")
	expect(t, "the live worker's job", one[string](w, "select state::text from polar.river_job where attempted_by[1] = 'living'"), "running")
}

func TestACheckoutRequestWhoseJobIsGoneGetsANewOne(t *testing.T) {
	t.Parallel()
	w := hurried(t, true)
	id, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}})
	if err != nil {
		t.Fatal(err)
	}
	w.exec("delete from polar.river_job")
	w.startWorker()
	waittest.Eventually(t, func() error {
		if state := one[string](w, "select state from polar.checkout_request where id = $1", id); state != "open" {
			return fmt.Errorf("the request is %s", state)
		}
		return nil
	})
	expect(t, "sessions at Polar", len(w.fake.Checkouts()), 1)
}

func TestTheWatermarkNeverPassesAnEventWithoutOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	sweep := func() (swept store.Swept) {
		t.Helper()
		err := w.store.InTx(t.Context(), func(tx *store.Tx) error {
			var err error
			swept, err = tx.SweepEvents(t.Context(), 45*time.Second, 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return swept
	}
	for i := range 6 {
		w.post(fmt.Sprint("evt-", i), event("customer.created", 1, customerDoc(uuid.New(), 0, nil)))
	}
	first := one[int64](w, "select min(seq) from polar.event_log")
	// 0 is done; 1 is young, though others behind it are not: its transaction took long; 2 is forgotten.
	w.exec("update polar.event_log set received_at = now() - interval '1 hour' where seq <> $1 + 1", first)
	w.exec("insert into polar.event_outcome (seq, state, applied_at) values ($1, 'applied', now()), ($1 + 3, 'applied', now())", first)
	w.exec("delete from polar.river_job where args @> (select jsonb_build_object('batch', batch) from polar.event_log where seq = $1 + 2)", first)
	swept := sweep()
	expect(t, "watermark", swept.UpTo, first)
	expect(t, "new jobs", swept.Requeued, 1)
	expect(t, "events of the new job", one[string](w, "select args::text from polar.river_job order by id desc limit 1"), fmt.Sprintf(`{"events": [%d]}`, first+2))
	expect(t, "new jobs of the second pass", sweep().Requeued, 0)
	w.exec("update polar.event_log set received_at = now() - interval '1 hour'")
	expect(t, "watermark, with the young one grown old", sweep().UpTo, first)
	w.exec("insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'a reason' from polar.event_log where seq > $1 on conflict do nothing", first)
	expect(t, "watermark, with an outcome for all", sweep().UpTo, first+5)
}

func TestOneWorkerOfSeveralKeepsHouse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	done := errors.New("rolled back")
	err := w.store.InTx(t.Context(), func(mine *store.Tx) error {
		// Upkeep of the worker may hold the place for a moment.
		waittest.Eventually(t, func() error {
			locked, err := mine.LockUpkeep(t.Context())
			if err == nil && !locked {
				err = errors.New("another keeps house")
			}
			return err
		})
		w.post("evt", event("customer.created", 1, customerDoc(uuid.New(), 0, nil)))
		w.settle()
		id := uuid.New()
		w.send(event("customer.created", 1, customerDoc(id, 0, doc{"external_id": "usr_late"})))
		w.addUser("usr_late")
		if err := w.runner.Upkeep(t.Context()); err != nil {
			t.Errorf("a worker that finds the place taken: %v, want nothing done", err)
		}
		w.expectLinks("while another keeps house", []uuid.UUID{id})
		return done
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	if err := w.runner.Upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, "links, with the place free", one[int64](w, "select count(*) from polar.customer_link"), 1)
}

func TestLookingForLinksRestsForAsLongAsItIsDear(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	w.stop() // only this test keeps house
	for i, test := range []struct {
		name         string
		ago, took    string
		linkedAtOnce bool
	}{
		{"it was cheap, a moment ago", "0 s", "40 ms", true},
		{"it was dear, a moment ago", "2 s", "400 ms", false},
		{"it was dear, a while ago", "11 s", "400 ms", true},
		{"it was very dear, a while ago", "11 s", "20 s", false},
		{"it was very dear, as long ago as it may rest", "16 s", "20 s", true},
	} {
		user := fmt.Sprintf("usr_%d", i)
		w.exec("insert into polar.customer (id, doc, version_from) values ($1, jsonb_build_object('external_id', $2::text), 'read')", uuid.New(), user)
		w.addUser(user)
		w.exec("update polar.relink set done_at = now() - $1::interval, took = $2::interval", test.ago, test.took)
		if err := w.runner.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, test.name, one[bool](w, "select exists (select from polar.customer_link where local_user_id = $1)", user), test.linkedAtOnce)
		w.exec("delete from polar.customer")
	}
}

func TestAWorkerThatStopsTakesItsLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	expect(t, "workers", one[string](w, "select id from polar.worker_process"), w.runner.ID())
	w.stop()
	expect(t, "workers after the stop", one[int64](w, "select count(*) from polar.worker_process"), 0)
}
