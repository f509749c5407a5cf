package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

func decode[T any](tb testing.TB, doc json.RawMessage) T {
	tb.Helper()
	var value T
	if err := json.Unmarshal(doc, &value); err != nil {
		tb.Fatalf("%s: %v", doc, err)
	}
	return value
}

// claim takes a request as a worker's try does.
func (w *world) claim(id uuid.UUID, lease time.Duration) store.Claim {
	w.t.Helper()
	job := one[int64](w, "select job_id from polar.checkout_request where id = $1", id)
	claim, err := w.store.ClaimCheckoutRequest(w.t.Context(), id, job, lease, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return claim
}

// mark says that a claim's call is about to be made, and checks whether the claim still holds.
func (w *world) mark(claim store.Claim, want bool) {
	w.t.Helper()
	held, err := w.store.MarkPosting(w.t.Context(), claim, uuid.Nil, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	if held != want {
		w.t.Errorf("try %d may call: %t, want %t", claim.Attempt, held, want)
	}
}

func TestALateFirstTryCannotTouchTheResultOfTheSecond(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.ask("usr_ada")
	first := w.claim(id, 0) // its lease is over at once
	second := w.claim(id, time.Minute)
	late := func() {
		t.Helper()
		w.mark(first, false)
		if held, err := w.store.RenewClaim(t.Context(), first, time.Minute); err != nil || held {
			t.Errorf("the first try renewed its lease: %t, %v", held, err)
		}
		if err := w.store.FailCheckoutRequest(t.Context(), first, "too late"); err != nil {
			t.Error(err)
		}
		if err := w.store.RetryLater(t.Context(), first, "too late"); err != nil {
			t.Error(err)
		}
	}
	const row = "select row(r.*)::text from polar.checkout_request r where id = $1"
	before := one[string](w, row, id)
	late()
	if after := one[string](w, row, id); after != before {
		t.Errorf("a late first try changed the request from %s to %s", before, after)
	}
	w.mark(second, true)
	if err := w.store.FailCheckoutRequest(t.Context(), second, "the second's reason"); err != nil {
		t.Fatal(err)
	}
	before = one[string](w, row, id)
	late()
	if after := one[string](w, row, id); after != before {
		t.Errorf("a late first try changed the ended request from %s to %s", before, after)
	}
}

func TestATryWhoseLeaseRanOutGoesOnWhileNobodyElseHasTakenTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.ask("usr_ada")
	slow := w.claim(id, 0)
	if held, err := w.store.RenewClaim(t.Context(), slow, 0); err != nil || !held {
		t.Errorf("renewing gave %t, %v", held, err)
	}
	w.mark(slow, true)
	if _, err := w.store.ClaimCheckoutRequest(t.Context(), id, 0, time.Minute, time.Hour); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another took the request while a call is under way: %v", err)
	}
}

func TestThereIsNoSecondCallBeforeTheLeaseOfADeadTryIsOver(t *testing.T) {
	t.Parallel()
	for _, made := range []bool{true, false} {
		t.Run(fmt.Sprintf("session made %t", made), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{offline: true, idle: true})
			id := w.ask("usr_ada")
			const lease = 2 * time.Second
			dead := w.claim(id, lease)
			if held, err := w.store.MarkPosting(t.Context(), dead, uuid.Nil, lease); err != nil || !held {
				t.Fatalf("marking gave %t, %v", held, err)
			}
			marked := time.Now()
			calls := 1
			if made {
				w.makeSession(id)
				calls = 0
			}
			w.startWorker()
			w.await(id, "open")
			if waited := time.Since(marked); waited < lease-100*time.Millisecond {
				t.Errorf("the request was taken after %s, though it was held for %s", waited, lease)
			}
			w.wantSessions(1)
			w.wantCalls(postCheckout, calls)
			w.wantCalls(listCheckouts, 1)
		})
	}
}

func TestTwoWorkersAndTwoHundredRequestsAtOnceGiveOneSessionEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.startWorker()
	const n = 200
	ids := make([]uuid.UUID, n)
	var asking sync.WaitGroup
	for i := range ids {
		asking.Go(func() {
			params := truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: fmt.Sprintf("usr_%d", i)}
			var err error
			if ids[i], err = w.client.CreateCheckout(w.t.Context(), params); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	for _, id := range ids {
		w.await(id, "open")
	}
	w.wantSessions(n)
	w.wantCalls(postCheckout, n)
	if distinct := one[int](w, "select count(distinct checkout_id)::int from polar.checkout_request"); distinct != n {
		t.Errorf("%d requests have %d sessions", n, distinct)
	}
	if users := one[int](w, "select count(*)::int from polar.checkout_request r join polar.checkout c on c.id = r.checkout_id where c.external_customer_id = r.external_customer_id"); users != n {
		t.Errorf("%d requests have a session for their own user, want %d", users, n)
	}
}
