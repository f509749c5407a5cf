package jobs_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

func TestAfterARestoreEachCursorOfTheFeedBeginsAnewOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{idle: true, offline: true})
	w.exec("insert into polar.change (kind, local_user_id, customer_id) select 'linked', 'usr_' || n, gen_random_uuid() from generate_series(1, 3) n")
	ends := func(cursor int64) bool {
		t.Helper()
		for _, err := range w.client.Changes(t.Context(), cursor) {
			return errors.Is(err, truenorth.ErrChangesRemoved)
		}
		return false
	}
	newest := one[int64](w, "select max(id) from polar.change")
	if ends(newest - 1) {
		t.Error("a cursor of a change that is there ends")
	}
	if !ends(newest + 1) { // which nobody was ever given but by a database that is lost
		t.Error("a cursor beyond the newest change goes on")
	}
	if _, err := jobs.Restored(t.Context(), w.store, store.Word{Actor: "tester"}, quiet); err != nil {
		t.Fatal(err)
	}
	for _, cursor := range []int64{0, newest, newest + 1_000_000} {
		if !ends(cursor) {
			t.Errorf("cursor %d of before goes on after the restore", cursor)
		}
	}
	begin, err := w.client.NewestChange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.exec("insert into polar.change (kind, local_user_id, customer_id) values ('linked', 'usr_4', gen_random_uuid())")
	for change, err := range w.client.Changes(t.Context(), begin) {
		if err != nil || change.LocalUserID != "usr_4" {
			t.Errorf("who began anew is given %+v, %v", change, err)
		}
		break
	}
}

func TestAfterARestoreEveryRequestThatWaitsIsLookedForBeforeItIsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{idle: true, offline: true}) // no event tells: Polar's list must be asked
	asked := w.ask("usr_ada")
	w.exec(`insert into polar.river_job (kind, args, queue, max_attempts)
		select 'create_checkout', jsonb_build_object('params', r.params), 'checkouts', 1000 from polar.checkout_request r`)
	enqueued := truenorth.RequestIDOfJob(one[int64](w, "select max(id) from polar.river_job"))
	for _, id := range []uuid.UUID{asked, enqueued} { // made at Polar by the database that is lost
		body := one[string](w, "select (params || jsonb_build_object('metadata', jsonb_build_object('truenorth_request', $1::text)))::text from polar.checkout_request limit 1", id)
		if _, err := w.fake.CreateCheckout(body); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // safe twice
		requests, err := jobs.Restored(t.Context(), w.store, store.Word{Actor: "tester"}, quiet)
		if err != nil || requests != 2 {
			t.Errorf("%d requests wait, %v; want 2", requests, err)
		}
	}
	w.startWorker()
	for _, id := range []uuid.UUID{asked, enqueued} {
		w.await(id, "open")
	}
	w.wantSessions(2)
	w.wantCalls(postCheckout, 0)
}
