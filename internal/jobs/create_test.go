package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

const (
	postCheckout = "POST /v1/checkouts/"
	postCustomer = "POST /v1/customers/"
)

// ask asks for a checkout of the one-time product.
func (w *world) ask(user string, options ...truenorth.CheckoutOption) uuid.UUID {
	w.t.Helper()
	return w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: user}, options...)
}

func (w *world) askFor(params truenorth.CheckoutParams, options ...truenorth.CheckoutOption) uuid.UUID {
	w.t.Helper()
	id, err := w.client.CreateCheckout(w.t.Context(), params, options...)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// await waits for the state of a request.
func (w *world) await(id uuid.UUID, state string) truenorth.CheckoutRequest {
	w.t.Helper()
	var request truenorth.CheckoutRequest
	waittest.Within(w.t, 45*time.Second, func() error {
		var err error
		if request, err = w.client.Request(w.t.Context(), id); err != nil {
			return err
		}
		if request.State != state {
			return fmt.Errorf("the request is %s (%s), want %s", request.State, request.Error, state)
		}
		return nil
	})
	return request
}

func (w *world) inject(faults ...polarfake.Fault) {
	w.t.Helper()
	for _, fault := range faults {
		if err := w.fake.Inject(fault); err != nil {
			w.t.Fatal(err)
		}
	}
}

// onCheckouts is a fault of the call that creates a session.
func onCheckouts(kind polarfake.FaultKind) polarfake.Fault {
	return polarfake.Fault{Kind: kind, Method: http.MethodPost, Path: "/v1/checkouts/"}
}

// session reads a field of a session at Polar.
func (w *world) session(id uuid.UUID) map[string]any {
	w.t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(w.fake.Checkout(id.String()), &doc); err != nil {
		w.t.Fatalf("session %s: %v", id, err)
	}
	return doc
}

func (w *world) wantSessions(n int) {
	w.t.Helper()
	if got := len(w.fake.Checkouts()); got != n {
		w.t.Errorf("Polar has %d sessions, want %d", got, n)
	}
}

func TestARequestFollowsItsSessionThroughAFailedPaymentToSuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.addUser("usr_ada")
	id := w.askFor(truenorth.CheckoutParams{
		Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada", Metadata: truenorth.Values{"campaign": "autumn", "round": 2},
	})
	request := w.await(id, "open")
	if request.URL == "" || request.ExpiresAt.Before(time.Now()) {
		t.Errorf("open with URL %q until %s", request.URL, request.ExpiresAt)
	}
	metadata, _ := w.session(request.CheckoutID)["metadata"].(map[string]any)
	if metadata["truenorth_request"] != id.String() || metadata["campaign"] != "autumn" || metadata["round"] != float64(2) {
		t.Errorf("the session's metadata is %v", metadata)
	}
	session := request.CheckoutID.String()
	if err := w.fake.Confirm(session, "ada@buyer-example.com"); err != nil {
		t.Fatal(err)
	}
	w.await(id, "confirmed")
	if err := w.fake.FailPayment(session); err != nil {
		t.Fatal(err)
	}
	w.await(id, "open")
	if err := w.fake.Pay(session, polarfake.PayOptions{Email: "ada@buyer-example.com"}); err != nil {
		t.Fatal(err)
	}
	w.await(id, "succeeded")
	if n := w.fake.Requests()[postCheckout]; n != 1 {
		t.Errorf("%d calls created sessions, want 1", n)
	}
}

func TestAnExpiredSessionEndsItsRequestAndFreesTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	id := w.ask("usr_ada", truenorth.WithKey("order-1"))
	request := w.await(id, "open")
	if again := w.ask("usr_ada", truenorth.WithKey("order-1")); again != id {
		t.Errorf("the same key gave request %s while %s is live", again, id)
	}
	if err := w.fake.Expire(request.CheckoutID.String()); err != nil {
		t.Fatal(err)
	}
	w.await(id, "expired")
	if again := w.ask("usr_ada", truenorth.WithKey("order-1")); again == id {
		t.Error("the key still gives the expired request")
	}
}

func TestA422FailsTheRequestWithPolarsWordsAndIsNeverRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	id := w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.New()}, ExternalCustomerID: "usr_ada"})
	request := w.await(id, "failed")
	if !strings.Contains(request.Error, "422") || !strings.Contains(strings.ToLower(request.Error), "product") {
		t.Errorf("the error does not give Polar's words: %q", request.Error)
	}
	w.settle()
	if n := w.fake.Requests()[postCheckout]; n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestEveryPassingFailureIsTriedAgainAndItsErrorIsSeenMeanwhile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault polarfake.Fault
		words string
	}{
		{"401", polarfake.Fault{Kind: polarfake.FaultStatus, Status: 401}, "401"},
		{"403", polarfake.Fault{Kind: polarfake.FaultStatus, Status: 403}, "403"},
		{"404", polarfake.Fault{Kind: polarfake.FaultStatus, Status: 404}, "404"},
		{"500", polarfake.Fault{Kind: polarfake.FaultStatus, Status: 500}, "500"},
		{"502", polarfake.Fault{Kind: polarfake.FaultStatus, Status: 502}, "502"},
		{"connection reset", polarfake.Fault{Kind: polarfake.FaultReset}, "no answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{})
			tt.fault.Method, tt.fault.Path = http.MethodPost, "/v1/checkouts/"
			w.inject(tt.fault)
			id := w.ask("usr_ada")
			waittest.Eventually(t, func() error {
				request, err := w.client.Request(t.Context(), id)
				if err == nil && !strings.Contains(request.Error, tt.words) {
					err = fmt.Errorf("the error is %q, want %q in it", request.Error, tt.words)
				}
				return err
			})
			if request := w.await(id, "open"); request.Error != "" {
				t.Errorf("the request is open, yet its error is %q", request.Error)
			}
			if n := w.fake.Requests()[postCheckout]; n != 2 {
				t.Errorf("%d calls, want 2", n)
			}
			w.wantSessions(1)
		})
	}
}

func TestA429IsWaitedForByEveryRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{jobs: jobs.Config{RateLimit: 6000}})
	limit := onCheckouts(polarfake.FaultRateLimit)
	limit.RetryAfter = polarfake.Duration(3 * time.Second)
	w.inject(limit)
	started := time.Now()
	first := w.ask("usr_ada")
	waittest.Eventually(t, func() error {
		if blocked := all[bool](w, "select blocked_until > now() from polar.api_budget where blocked_until is not null"); len(blocked) != 1 {
			return errors.New("the budget is not blocked")
		}
		return nil
	})
	second := w.ask("usr_grace")
	w.await(first, "open")
	w.await(second, "open")
	if waited := time.Since(started); waited < 2500*time.Millisecond {
		t.Errorf("both were created after %s, though Polar asked to wait 3 s", waited)
	}
	if n := w.fake.Requests()[postCheckout]; n != 3 {
		t.Errorf("%d calls, want 3: the one refused and one for each request", n)
	}
}

func TestASessionWhoseAnswerWasLostIsAdoptedFromItsEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.inject(onCheckouts(polarfake.FaultCutAfter))
	id := w.ask("usr_ada")
	w.await(id, "open")
	w.settle()
	w.wantSessions(1)
	if n := w.fake.Requests()[postCheckout]; n != 1 {
		t.Errorf("%d calls created sessions, want 1", n)
	}
}

func TestASessionWhoseAnswerWasLostIsAdoptedFromPolarsList(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault polarfake.Fault
	}{
		{"connection cut", onCheckouts(polarfake.FaultCutAfter)},
		{"time-out", onCheckouts(polarfake.FaultHangAfter)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			options := worldOptions{offline: true}
			options.jobs.API.Timeout = 500 * time.Millisecond
			w := newWorld(t, options)
			w.inject(tt.fault)
			id := w.ask("usr_ada")
			w.await(id, "open")
			w.wantSessions(1)
			if n := w.fake.Requests()[postCheckout]; n != 1 {
				t.Errorf("%d calls created sessions, want 1", n)
			}
			if n := w.fake.Requests()["GET /v1/checkouts/"]; n == 0 {
				t.Error("Polar's list was not looked at")
			}
		})
	}
}

func TestARequestThatPatienceGaveUpLooksOnceMoreAndThenFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, jobs: jobs.Config{Patience: 2 * time.Second}})
	fault := onCheckouts(polarfake.FaultStatus)
	fault.Status, fault.Count = 503, -1
	w.inject(fault)
	id := w.ask("usr_ada")
	request := w.await(id, "failed")
	if !strings.Contains(request.Error, "given up") || !strings.Contains(request.Error, "503") {
		t.Errorf("the error is %q", request.Error)
	}
	if n := w.fake.Requests()["GET /v1/checkouts/"]; n == 0 {
		t.Error("there was no last look")
	}
}

func TestARequestGivenUpComesBackWithItsSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := w.ask("usr_ada", truenorth.WithKey("order-1"))
	w.exec("update polar.checkout_request set state = 'failed', error = 'given up' where id = $1", id)
	other := w.ask("usr_ada", truenorth.WithKey("order-1"))
	if other == id {
		t.Fatal("a failed request kept its key")
	}
	w.exec("update polar.river_job set state = 'cancelled', finalized_at = now()")
	session := uuid.New()
	if status := w.post(uuid.NewString(), checkoutEvent(session, id, "open", time.Now())); status != http.StatusAccepted {
		t.Fatalf("the event got %d", status)
	}
	w.startWorker()
	request := w.await(id, "open")
	if request.CheckoutID != session || request.Key != "" {
		t.Errorf("it came back with session %s and key %q, want %s and none: another request bears the key", request.CheckoutID, request.Key, session)
	}
}

// checkoutEvent is a checkout.updated of a session that a request made.
func checkoutEvent(session, request uuid.UUID, status string, created time.Time) string {
	return fmt.Sprintf(`{"type":"checkout.updated","timestamp":%q,"data":{"id":%q,"created_at":%q,"modified_at":null,"status":%q,
		"url":"https://polar.sh/checkout/%s","expires_at":%q,"customer_id":null,"organization_id":%q,"metadata":{"truenorth_request":%q}}}`,
		time.Now().UTC().Format(time.RFC3339Nano), session, created.UTC().Format(time.RFC3339Nano), status, session,
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano), polarfake.OrganizationID, request)
}

func TestASecondSessionIsDriftAndTheOldestIsKeptUntilOneSucceeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	id := w.ask("usr_ada")
	first := w.await(id, "open").CheckoutID
	older, paid := uuid.New(), uuid.New()
	now := time.Now()
	w.post(uuid.NewString(), checkoutEvent(older, id, "open", now.Add(-time.Minute)))
	waittest.Eventually(t, func() error {
		if kept := one[uuid.UUID](w, "select checkout_id from polar.checkout_request where id = $1", id); kept != older {
			return fmt.Errorf("kept session %s, want the oldest, %s", kept, older)
		}
		return nil
	})
	drift := all[string](w, "select object_id || ' ' || local from polar.drift where cause = 'duplicate_session'")
	if len(drift) != 1 || drift[0] != first.String()+" "+older.String() {
		t.Errorf("drift is %q", drift)
	}
	w.post(uuid.NewString(), checkoutEvent(paid, id, "succeeded", now.Add(time.Minute)))
	if request := w.await(id, "succeeded"); request.CheckoutID != paid {
		t.Errorf("the request follows %s, want the session that was paid", request.CheckoutID)
	}

	// Whatever comes of the others later, each is told of once, and only while it may cost somebody money.
	ledger := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		waittest.Eventually(t, func() error {
			rows := all[string](w, "select object_id || ' ' || coalesce(resolution, 'open') from polar.drift where cause = 'duplicate_session' order by 1")
			if !slices.Equal(rows, want) {
				return fmt.Errorf("the ledger has %q, want %q", rows, want)
			}
			return nil
		})
	}
	ledger(first.String()+" open", older.String()+" open")
	w.post(uuid.NewString(), checkoutEvent(first, id, "expired", now))
	ledger(first.String()+" ended", older.String()+" open")
	w.post(uuid.NewString(), checkoutEvent(older, id, "succeeded", now.Add(-time.Minute))) // paid twice
	ledger(first.String()+" ended", older.String()+" ended", paid.String()+" open")
	w.post(uuid.NewString(), checkoutEvent(first, id, "expired", now))
	w.post(uuid.NewString(), checkoutEvent(older, id, "succeeded", now.Add(-time.Minute)))
	waittest.Eventually(t, func() error {
		if left := one[int64](w, "select count(*) from polar.event where state <> 'applied'"); left > 0 {
			return fmt.Errorf("%d events are not applied", left)
		}
		return nil
	})
	ledger(first.String()+" ended", older.String()+" ended", paid.String()+" open")
}

func TestASessionPastItsTimeEndsTheRequestByPolarsClockWithoutAnEvent(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	w := newWorld(t, worldOptions{offline: true, fake: polarfake.Options{Clock: clock.now}, tune: func(r *jobs.Runner) {
		r.Hurry(50*time.Millisecond, time.Minute, time.Minute)
		r.AskAtOnce()
	}})
	id := w.ask("usr_ada")
	request := w.await(id, "open")
	pass := func() { // by the local clock
		w.exec("update polar.checkout set synced_at = now() - interval '10 minutes' where id = $1", request.CheckoutID)
		w.exec("update polar.checkout_request set expires_at = now() - interval '10 minutes' where id = $1", id)
	}
	pass()
	waittest.Eventually(t, func() error {
		again, err := w.client.Request(t.Context(), id)
		if err == nil && !again.ExpiresAt.Equal(request.ExpiresAt) {
			err = errors.New("Polar has not been asked")
		}
		return err
	})
	if again, err := w.client.Request(t.Context(), id); err != nil || again.State != "open" {
		t.Errorf("the request is %s (%v) though Polar's clock says that there is time", again.State, err)
	}
	clock.advance(25 * time.Hour) // Polar's session is over, and its sweep is late
	pass()
	w.await(id, "expired")
	if status := w.session(request.CheckoutID)["status"]; status != "open" {
		t.Errorf("Polar's sweep has passed: the session is %v", status)
	}
}

func TestAStopInTheMiddleOfACallGivesTheRequestBackAndMakesNoSecondSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{jobs: jobs.Config{SoftStop: 500 * time.Millisecond}})
	w.inject(onCheckouts(polarfake.FaultHangAfter))
	id := w.ask("usr_ada")
	waittest.Eventually(t, func() error {
		if len(w.fake.Checkouts()) == 0 {
			return errors.New("the call has not arrived")
		}
		return nil
	})
	w.stop()
	if running := one[int64](w, "select count(*) from polar.river_job where state = 'running'"); running > 0 {
		t.Errorf("%d jobs are still running after the stop", running)
	}
	w.startWorker()
	w.await(id, "open")
	w.wantSessions(1)
}

func TestWithUserAndEmailTheCustomerIsMadeFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.addUser("usr_ada")
	params := truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada", CustomerEmail: "ada@buyer-example.com", CustomerName: "Ada"}
	first := w.await(w.askFor(params), "open")
	customer, _ := w.session(first.CheckoutID)["customer_id"].(string)
	if customer == "" {
		t.Fatal("the session has no customer")
	}
	second := w.await(w.askFor(params), "open")
	if again := w.session(second.CheckoutID)["customer_id"]; again != customer {
		t.Errorf("the second session has customer %v, want %s", again, customer)
	}
	if n := len(w.fake.Customers()); n != 1 {
		t.Errorf("Polar has %d customers, want 1", n)
	}
	waittest.Eventually(t, func() error {
		if links := all[string](w, "select local_user_id from polar.customer_link where customer_id = $1", customer); len(links) != 1 || links[0] != "usr_ada" {
			return fmt.Errorf("links are %q", links)
		}
		return nil
	})
}

func TestACustomerFoundByEmailAloneIsNeitherChangedNorUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	doc, err := w.fake.CreateCustomer(`{"email":"alice@buyer-example.com"}`)
	if err != nil {
		t.Fatal(err)
	}
	var alice struct{ ID string }
	if err := json.Unmarshal(doc, &alice); err != nil {
		t.Fatal(err)
	}
	request := w.await(w.askFor(truenorth.CheckoutParams{
		Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_mallory", CustomerEmail: "Alice@buyer-example.com",
	}), "open")
	session := w.session(request.CheckoutID)
	if session["customer_id"] != nil || session["external_customer_id"] != "usr_mallory" {
		t.Errorf("the session has customer %v and external customer %v", session["customer_id"], session["external_customer_id"])
	}
	var now struct {
		ExternalID *string `json:"external_id"`
	}
	if err := json.Unmarshal(w.fake.Customer(alice.ID), &now); err != nil {
		t.Fatal(err)
	}
	if now.ExternalID != nil {
		t.Errorf("alice's customer bears %q", *now.ExternalID)
	}
}

func TestATokenThatMayNotMakeCustomersStillMakesSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.inject(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 403, Method: http.MethodPost, Path: "/v1/customers/", Count: -1})
	request := w.await(w.askFor(truenorth.CheckoutParams{
		Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada", CustomerEmail: "ada@buyer-example.com",
	}), "open")
	if session := w.session(request.CheckoutID); session["external_customer_id"] != "usr_ada" {
		t.Errorf("the session is for %v", session["external_customer_id"])
	}
}

func TestACustomerWhoseAnswerWasLostIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	w.inject(polarfake.Fault{Kind: polarfake.FaultCutAfter, Method: http.MethodPost, Path: "/v1/customers/"})
	request := w.await(w.askFor(truenorth.CheckoutParams{
		Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada", CustomerEmail: "ada@buyer-example.com",
	}), "open")
	if n := len(w.fake.Customers()); n != 1 {
		t.Errorf("Polar has %d customers, want 1", n)
	}
	if w.session(request.CheckoutID)["customer_id"] == nil {
		t.Error("the session has no customer")
	}
	if n := w.fake.Requests()[postCustomer]; n != 2 {
		t.Errorf("%d calls to make customers, want 2: the lost one, and one that Polar refused", n)
	}
}

func TestExtraFieldsPassWhereTheyAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{jobs: jobs.Config{ExtraFields: []string{"gift_message"}}})
	var id uuid.UUID
	row := w.store.Pool().QueryRow(t.Context(), `select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'gift_message', 'hello'))`, oneTime.String())
	if err := row.Scan(&id); err != nil {
		t.Fatal(err)
	}
	w.await(id, "open")
}

func TestAwaitURLComesByNotificationAndWithoutOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := w.client.AwaitURL(ctx, w.ask("usr_ada")); err != nil {
		t.Fatal(err)
	}
	// Whatever listens is cut off again and again: the poll behind it serves.
	admin := w.asAdmin()
	cut, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		pause := time.NewTicker(10 * time.Millisecond)
		defer pause.Stop()
		for cut.Err() == nil {
			<-pause.C
			_, _ = admin.store.Pool().Exec(cut, "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%polar_checkout%' and datname = current_database()")
		}
	}()
	if _, err := w.client.AwaitURL(ctx, w.ask("usr_grace")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.AwaitURL(ctx, uuid.New()); !errors.Is(err, truenorth.ErrRequestNotFound) {
		t.Errorf("an unknown request gives %v", err)
	}
	failed := w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.New()}})
	_, err := w.client.AwaitURL(ctx, failed)
	if ended, ok := errors.AsType[*truenorth.CheckoutError](err); !ok || ended.State != "failed" || ended.Reason == "" {
		t.Errorf("a failed request gives %v", err)
	}
	short, cancelShort := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelShort()
	w.stop()
	if _, err := w.client.AwaitURL(short, w.ask("usr_linus")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with no worker and little time it gives %v", err)
	}
}

func TestClosingAClientEndsItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	admin := w.asAdmin()
	listening := func() int64 {
		return one[int64](admin, "select count(*) from pg_stat_activity where query ilike 'listen%polar_checkout%' and datname = current_database()")
	}
	if _, err := w.client.AwaitURL(t.Context(), w.ask("usr_ada")); err != nil {
		t.Fatal(err)
	}
	waittest.Eventually(t, func() error {
		if n := listening(); n != 1 {
			return fmt.Errorf("%d connections listen, want 1", n)
		}
		return nil
	})
	w.client.Close()
	waittest.Eventually(t, func() error {
		if n := listening(); n != 0 {
			return fmt.Errorf("%d connections listen after Close", n)
		}
		return nil
	})
}

func TestASessionIsRecordedInTheOrderInWhichItsEventsAreApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	customer := w.fake.SeedCustomers(1, "usr_")[0]
	tx, err := w.store.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	// As applying an event does that speaks of the customer and of a session: first the one, then the other.
	if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock(hashtextextended('polar:customer:' || $1::text, 0))", customer); err != nil {
		t.Fatal(err)
	}
	id := w.ask("usr_0") // Polar knows whose it is, and makes the session with the customer
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(*) from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database() where locktype = 'advisory' and not granted"); n == 0 {
			return fmt.Errorf("the new session does not wait for customer %s", customer)
		}
		return nil
	})
	// Sooner than Postgres looks for circles, of which it would end the other side.
	if _, err := tx.Exec(t.Context(), "set local lock_timeout = '300ms'"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "update polar.checkout_request set updated_at = updated_at where id = $1", id); err != nil {
		t.Errorf("the two wait for each other: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await(id, "open")
	w.wantSessions(1)
}
