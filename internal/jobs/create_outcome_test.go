package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

const listCheckouts = "GET /v1/checkouts/"

// onList is a fault of the call that lists sessions.
func onList(kind polarfake.FaultKind) polarfake.Fault {
	return polarfake.Fault{Kind: kind, Method: http.MethodGet, Path: "/v1/checkouts/", Count: -1}
}

// wantCalls checks how often Polar was called.
func (w *world) wantCalls(route string, n int) {
	w.t.Helper()
	if got := w.fake.Requests()[route]; got != n {
		w.t.Errorf("%d calls of %s, want %d", got, route, n)
	}
}

// awaitError waits until a request that goes on shows why its last try failed.
func (w *world) awaitError(id uuid.UUID, words string) {
	w.t.Helper()
	waittest.Eventually(w.t, func() error {
		request, err := w.client.Request(w.t.Context(), id)
		if err == nil && (request.State != store.RequestCreating || !strings.Contains(request.Error, words)) {
			err = fmt.Errorf("the request is %s with error %q, want creating with %q in it", request.State, request.Error, words)
		}
		return err
	})
}

func TestPausesGrowFromASecondToHalfAMinute(t *testing.T) {
	t.Parallel()
	for tries, seconds := range []float64{1, 1, 2, 4, 8, 16, 30, 30} {
		want := time.Duration(seconds * float64(time.Second))
		for range 100 {
			if got := jobs.Backoff(tries); got < want*3/4 || got > want*5/4 {
				t.Fatalf("after %d tries the pause is %s, want %s, give or take a quarter", tries, got, want)
			}
		}
	}
	if got := jobs.Backoff(1_000_000); got > 38*time.Second {
		t.Errorf("after a million tries the pause is %s", got)
	}
}

func TestThePausesBetweenTriesGrow(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var at []time.Time
	w := newWorld(t, worldOptions{offline: true, between: func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				mu.Lock()
				at = append(at, time.Now())
				mu.Unlock()
			}
			fake.ServeHTTP(rw, r)
		})
	}})
	fault := onCheckouts(polarfake.FaultStatus)
	fault.Status, fault.Count = 401, 2
	w.inject(fault)
	w.await(w.ask("usr_ada"), "open")
	mu.Lock()
	defer mu.Unlock()
	if len(at) != 3 {
		t.Fatalf("%d calls, want 3", len(at))
	}
	if first, second := at[1].Sub(at[0]), at[2].Sub(at[1]); first < 700*time.Millisecond || second < 1400*time.Millisecond {
		t.Errorf("the pauses were %s and %s, want about 1 s and 2 s", first, second)
	}
}

func TestWhilePolarCannotBeReachedTheRequestSaysSoAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	addr := machinetest.Address(t)
	back := httptest.NewUnstartedServer(w.fake)
	w.api.URL = "http://" + addr
	w.startWorker()
	id := w.ask("usr_ada")
	w.awaitError(id, "nothing was sent")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = back.Listener.Close()
	back.Listener = listener
	back.Start()
	t.Cleanup(back.Close)
	w.await(id, "open")
	w.wantCalls(postCheckout, 1)
	w.wantCalls(listCheckouts, 0) // nothing was sent, so nothing had to be looked for
}

// answering does what it is asked at the fake, and then answers something else, once.
func answering(status int, body string) func(http.Handler) http.Handler {
	var once sync.Once
	return func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				fake.ServeHTTP(rw, r)
				return
			}
			lost := false
			once.Do(func() {
				lost = true
				fake.ServeHTTP(httptest.NewRecorder(), r)
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, body)
			})
			if !lost {
				fake.ServeHTTP(rw, r)
			}
		})
	}
}

func TestWhateverTheAnswerASessionThatWasMadeIsAdopted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		body   string
	}{
		{"500 of Polar's", 500, `{"error":"InternalServerError","detail":"boom"}`},
		{"502 of a proxy's", 502, `<html>bad gateway</html>`},
		{"504 without a body", 504, ``},
		{"201 that cannot be read", 201, `{"id":`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{offline: true, between: answering(tt.status, tt.body)})
			id := w.ask("usr_ada")
			w.await(id, "open")
			w.wantSessions(1)
			w.wantCalls(postCheckout, 1)
		})
	}
}

func TestTheEventAloneIsEnoughToAdoptASession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	fault := onList(polarfake.FaultStatus)
	fault.Status = 500
	w.inject(fault, onCheckouts(polarfake.FaultCutAfter)) // the list is of no use
	w.await(w.ask("usr_ada"), "open")
	w.wantSessions(1)
	w.wantCalls(postCheckout, 1)
}

func TestACallThatNeverArrivedIsMadeAgainAfterALook(t *testing.T) {
	t.Parallel()
	options := worldOptions{offline: true}
	options.jobs.API.Timeout = 300 * time.Millisecond
	w := newWorld(t, options)
	w.inject(onCheckouts(polarfake.FaultHang))
	id := w.ask("usr_ada")
	w.await(id, "open")
	w.wantSessions(1)
	w.wantCalls(postCheckout, 2)
	w.wantCalls(listCheckouts, 1)
}

func TestAnUnknownOutcomeStaysUnknownWhateverComesAfter(t *testing.T) {
	t.Parallel()
	options := worldOptions{offline: true}
	options.jobs.API.Timeout = 300 * time.Millisecond
	w := newWorld(t, options)
	refused := onCheckouts(polarfake.FaultStatus)
	refused.Status = 401
	w.inject(onCheckouts(polarfake.FaultHang), refused)
	id := w.ask("usr_ada")
	w.awaitError(id, "401")
	// Only now does Polar end what the first call began.
	session := w.makeSession(id)
	if request := w.await(id, "open"); request.CheckoutID != session {
		t.Errorf("the request has session %s, want the one of its first call, %s", request.CheckoutID, session)
	}
	w.wantSessions(1)
}

// makeSession makes a session at Polar as a call of the request would.
func (w *world) makeSession(request uuid.UUID) uuid.UUID {
	w.t.Helper()
	doc, err := w.fake.CreateCheckout(fmt.Sprintf(`{"products":[%q],"metadata":{"truenorth_request":%q}}`, oneTime, request))
	if err != nil {
		w.t.Fatal(err)
	}
	return decode[struct{ ID uuid.UUID }](w.t, doc).ID
}

func TestWithoutALimitOfOursARequestWaitsAsLongAsPolarSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	limit := onCheckouts(polarfake.FaultRateLimit)
	limit.RetryAfter, limit.Count = polarfake.Duration(2*time.Second), 2
	w.inject(limit)
	started := time.Now()
	id := w.ask("usr_ada")
	w.awaitError(id, "429")
	w.await(id, "open")
	if waited := time.Since(started); waited < 4*time.Second {
		t.Errorf("the request was open after %s, though Polar asked twice to wait 2 s", waited)
	}
	w.wantCalls(postCheckout, 3)
	w.wantCalls(listCheckouts, 0) // what is refused leaves no session
	waittest.Eventually(t, func() error {
		if tries := one[int16](w, "select attempt from polar.river_job"); tries != 1 {
			return fmt.Errorf("waiting used up %d of the job's attempts", tries-1)
		}
		return nil
	})
}

// overdue makes a request whose one call was made an hour ago, with an outcome that nobody knows.
func (w *world) overdue() uuid.UUID {
	w.t.Helper()
	id := w.ask("usr_ada")
	claim := w.claim(id, time.Minute)
	w.mark(claim, true)
	claim.Unresolved = true
	if err := w.store.RetryLater(w.t.Context(), claim, "the call timed out"); err != nil {
		w.t.Fatal(err)
	}
	w.exec("update polar.checkout_request set first_tried_at = now() - interval '1 hour', posted_at = now() - interval '1 hour' where id = $1", id)
	return id
}

func TestTheLastLookAdoptsWhatIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.overdue()
	session := w.makeSession(id)
	w.startWorker()
	if request := w.await(id, "open"); request.CheckoutID != session {
		t.Errorf("the request has session %s, want %s", request.CheckoutID, session)
	}
	w.wantCalls(postCheckout, 0)
}

func TestALastLookThatFindsNothingEndsTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.overdue()
	w.startWorker()
	if request := w.await(id, "failed"); !strings.Contains(request.Error, "given up after 30m0s; the last error: the call timed out") {
		t.Errorf("the error is %q", request.Error)
	}
	w.wantCalls(postCheckout, 0)
	w.wantCalls(listCheckouts, 1)
}

func TestALastLookThatFailsEndsTheRequestAllTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.overdue()
	fault := onList(polarfake.FaultStatus)
	fault.Status = 503
	w.inject(fault)
	w.startWorker()
	if request := w.await(id, "failed"); !strings.Contains(request.Error, "the call timed out") || !strings.Contains(request.Error, "503") {
		t.Errorf("the error is %q", request.Error)
	}
	w.wantCalls(postCheckout, 0)
}

func TestALastLookThatPolarAsksToWaitForIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.overdue()
	session := w.makeSession(id)
	limit := onList(polarfake.FaultRateLimit)
	limit.Count = 1
	w.inject(limit)
	w.startWorker()
	if request := w.await(id, "open"); request.CheckoutID != session {
		t.Errorf("the request has session %s, want %s", request.CheckoutID, session)
	}
}

func TestAStopLetsACallThatIsAnsweredInTimeFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	delay := onCheckouts(polarfake.FaultDelay)
	delay.Delay = polarfake.Duration(500 * time.Millisecond)
	w.inject(delay)
	id := w.ask("usr_ada")
	waittest.Eventually(t, func() error {
		if w.fake.Requests()[postCheckout] == 0 {
			return errors.New("the call has not arrived")
		}
		return nil
	})
	w.stop()
	request, err := w.client.Request(t.Context(), id)
	if err != nil || request.State != store.RequestOpen {
		t.Errorf("after the stop the request is %s (%v), want open", request.State, err)
	}
	w.wantSessions(1)
}

func TestAwaitURLGivesPolarsWordsOfARefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := w.client.AwaitURL(ctx, w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.New()}}))
	refusal, ok := errors.AsType[*truenorth.CheckoutError](err)
	if !ok || refusal.State != store.RequestFailed || !strings.Contains(refusal.Reason, "products") {
		t.Errorf("got %v, want a CheckoutError that names products", err)
	}
}
