package crashpoint_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// clockFile holds by how much a process's clock is off.
type clockFile struct {
	t    *testing.T
	path string
}

func newClockFile(t *testing.T, by time.Duration) clockFile {
	t.Helper()
	c := clockFile{t, filepath.Join(t.TempDir(), "clock")}
	c.step(by)
	return c
}

func (c clockFile) env() string { return "TRUENORTH_CLOCK_FILE=" + c.path }

func (c clockFile) step(by time.Duration) {
	c.t.Helper()
	if err := os.WriteFile(c.path, []byte(by.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func TestIngestWhoseClockIsSteppedRefusesWhatSeemsOldAndTakesItOnceTheClockIsRight(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		by     time.Duration
		reason string
	}{{time.Hour, "too_old"}, {-time.Hour, "too_new"}} {
		t.Run(tt.reason, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{fake: polarfake.Options{RetryScale: 0.1}})
			clock := newClockFile(t, 0)
			w.startIngest(clock.env())
			w.worker.Start()
			w.makeCustomer(`{"email":"first@buyer-example.com"}`)
			w.calm()
			clock.step(tt.by)
			refused := fmt.Sprintf("truenorth_bad_signatures_total{reason=%q}", tt.reason)
			for i := 0; ; i++ { // until the step is seen
				w.makeCustomer(fmt.Sprintf(`{"email":"c%d@buyer-example.com"}`, i))
				metrics, err := w.metrics()
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(metrics, refused) && !strings.Contains(metrics, refused+" 0") {
					break
				}
			}
			clock.step(0)
			w.calm()
			w.keepsItsPromises()
			if events := w.fake.Events(); !slices.ContainsFunc(events, func(e polarfake.Event) bool { return e.Deliveries > 1 }) {
				t.Error("no event was refused")
			}
			for _, e := range w.fake.Events() {
				if e.State != polarfake.EventSucceeded {
					t.Errorf("%s is %s though the clock is right again", e.Type, e.State)
				}
			}
		})
	}
}

// What a worker waits for, by its own clock or by the database's, is over after as long whatever its clock shows.
func TestAWorkerWhoseClockIsAnHourOffWorksAsOthersDo(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		for what, play := range map[string]func(*world){
			"a purchase":                       purchase,
			"a purchase with a call to repeat": purchaseAfterA500,
			"a customer to be asked for":       purchaseWithoutCustomerEvents,
		} {
			t.Run(fmt.Sprintf("%s, %s", by, what), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, worldOptions{})
				w.startIngest()
				w.worker.Start(newClockFile(t, by).env())
				play(w)
				w.calm()
				w.keepsItsPromises()
				w.wantBought()
			})
		}
		t.Run(fmt.Sprintf("%s, a sweep", by), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sweepOptions)
			w.fillPolar()
			w.worker.Start(newClockFile(t, by).env())
			w.inStepWithPolar()
		})
		t.Run(fmt.Sprintf("%s, what another held", by), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{})
			w.startIngest()
			w.worker.Start("TRUENORTH_CRASH_AT=checkout.sent")
			purchase(w)
			if err := w.worker.WaitKilled(within); err != nil {
				t.Fatal(err)
			}
			w.worker.Start(newClockFile(t, by).env())
			w.calm()
			w.keepsItsPromises()
			w.wantBought()
			w.wantCalls(postCheckout, 1)
		})
	}
}

// The clock of one worker, which leads, is stepped while another one, and it, wait for Polar's answer to a call each.
func TestAWorkerWhoseClockIsSteppedTakesNothingFromThoseWhoWork(t *testing.T) {
	t.Parallel()
	const answer = 35 * time.Second // River looks every 30 s for jobs that are stuck
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{worker: []string{"POLAR_TIMEOUT=45s"}})
			w.inject(polarfake.Fault{Kind: polarfake.FaultDelay, Method: http.MethodPost, Path: "/v1/checkouts/", Delay: polarfake.Duration(answer), Count: -1})
			w.startIngest()
			clock := newClockFile(t, 0)
			w.worker.Start(clock.env())
			const requests = 3
			for range requests {
				w.ask(truenorth.CheckoutParams{})
			}
			waittest.Eventually(t, func() error {
				if w.fake.Requests()[postCheckout] < requests {
					return errors.New("the calls have not arrived")
				}
				return nil
			})
			clock.step(by)
			waittest.Within(t, answer+within, func() error {
				open := all[int](w, "select count(*)::int from polar.checkout_request where state = 'open'")[0]
				if open < requests {
					return fmt.Errorf("%d requests are open", open)
				}
				return nil
			})
			w.calm()
			w.oneSessionEach()
			w.wantCalls(postCheckout, requests)
			w.want("jobs taken from who worked them", "select id || ' ' || errors[1]::text from polar.river_job where cardinality(errors) > 0")
		})
	}
}

// An app enqueues by a River of its own, which dates jobs by the app's clock.
func TestACheckoutEnqueuedByAHostWhoseClockIsAheadDoesNotWaitForThatTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.startIngest()
	w.worker.Start()
	job := all[int64](w, fmt.Sprintf(`insert into polar.river_job (kind, args, queue, max_attempts, scheduled_at)
		values ('create_checkout', '{"params": {"products": [%q]}}', 'checkouts', 25, now() + interval '1 hour') returning id`, oneTime))[0]
	waittest.Within(t, within, func() error {
		request, err := w.client.Request(t.Context(), truenorth.RequestIDOfJob(job))
		if err == nil && request.State != "open" {
			err = errors.New("the request is " + request.State)
		}
		return err
	})
}
