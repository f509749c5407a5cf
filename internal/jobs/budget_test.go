package jobs_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func TestABuyerGoesBeforeASweepThatUsesTheWholeBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, jobs: jobs.Config{RateLimit: 120}})
	w.fake.SeedCustomers(100_000, "usr_")
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan struct{}) // closed once the sweep has used up its share and waits
	swept := make(chan error, 1)
	var once sync.Once
	var last int64 = -1
	go func() {
		_, err := w.sweeper().Reconcile(ctx, jobs.ReconcileOptions{Types: []string{"customer"}, Progress: func(p jobs.Progress) {
			if p.Seen == last && p.Seen > 0 { // the same step again: nothing could be called
				once.Do(func() { close(held) })
			}
			last = p.Seen
		}})
		swept <- err
	}()
	select {
	case <-held:
	case err := <-swept:
		t.Fatalf("the sweep ended without waiting for the budget: %v", err)
	}
	for range 5 {
		id, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}})
		if err != nil {
			t.Fatal(err)
		}
		waitCtx, done := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = w.client.AwaitURL(waitCtx, id)
		done()
		if err != nil {
			t.Fatalf("a buyer waits behind the sweep: %v", err)
		}
	}
	same(t, "tries", all[int32](w, "select distinct attempt from polar.checkout_request"), []int32{1})
	cancel()
	if err := <-swept; !errors.Is(err, context.Canceled) {
		t.Errorf("the sweep was over before the buyers were served: %v", err)
	}
}

func TestA429StopsEveryProcessForAsLongAsPolarSays(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"with a limit": 6000, "without one": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const pause = 2 * time.Second
			var mu sync.Mutex
			var arrivals []time.Time
			var refusedAt time.Time
			w := newWorld(t, worldOptions{offline: true, idle: true, jobs: jobs.Config{RateLimit: limit}, between: func(fake http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					mu.Lock()
					arrivals = append(arrivals, time.Now())
					mu.Unlock()
					recorder := &statusRecorder{ResponseWriter: rw}
					fake.ServeHTTP(recorder, r)
					mu.Lock()
					defer mu.Unlock()
					if recorder.status == http.StatusTooManyRequests {
						refusedAt = time.Now()
					}
				})
			}})
			w.fake.SeedCustomers(3000, "usr_")
			one, other := w.sweeper(), w.sweeper()
			if _, err := one.Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"organization"}}); err != nil { // both have called before
				t.Fatal(err)
			}
			if err := w.fake.Inject(polarfake.Fault{Kind: polarfake.FaultRateLimit, Path: "/v1/customers/", RetryAfter: polarfake.Duration(pause)}); err != nil {
				t.Fatal(err)
			}
			var both sync.WaitGroup
			both.Go(func() {
				if _, err := one.Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer"}}); err != nil {
					t.Error(err)
				}
			})
			both.Go(func() {
				for ctx := t.Context(); ctx.Err() == nil; { // asks all the while, until it is let again after the pause
					err := other.Call(ctx)
					mu.Lock()
					done := !refusedAt.IsZero() && time.Since(refusedAt) > pause
					mu.Unlock()
					if done && err == nil {
						return
					}
				}
			})
			both.Wait()
			mu.Lock()
			defer mu.Unlock()
			if refusedAt.IsZero() {
				t.Fatal("Polar refused nobody")
			}
			for _, at := range arrivals {
				// What is under way when the refusal is read, and the stock of another process, may still arrive.
				if after := at.Sub(refusedAt); after > 500*time.Millisecond && after < pause-50*time.Millisecond {
					t.Errorf("a call arrived %s after Polar said to wait for %s", after, pause)
				}
			}
		})
	}
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter

	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}
