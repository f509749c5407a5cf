package jobs_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// buyer is a checkout that names both the user and an e-mail address.
func buyer(user, email string) truenorth.CheckoutParams {
	return truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: user, CustomerEmail: email}
}

// customerOf is the customer that a request's session was made with; empty if without.
func (w *world) customerOf(request truenorth.CheckoutRequest) string {
	w.t.Helper()
	customer, _ := w.session(request.CheckoutID)["customer_id"].(string)
	return customer
}

func (w *world) makeCustomer(body string) string {
	w.t.Helper()
	doc, err := w.fake.CreateCustomer(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return decode[struct{ ID string }](w.t, doc).ID
}

func TestACustomerThatBearsThisVeryExternalIDIsUsedWhateverItsEmail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, user, email string }{
		{"another address", "usr_ada", "ada.new@buyer-example.com"},
		{"the same address", "usr_ada", "ada@buyer-example.com"},
		{"an id that is unsafe in a path", "org/1/usr ada%2F", "ada@buyer-example.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{offline: true}) // the mirror does not know the customer
			customer := w.makeCustomer(fmt.Sprintf(`{"email":"ada@buyer-example.com","external_id":%q}`, tt.user))
			request := w.await(w.askFor(buyer(tt.user, tt.email)), "open")
			if got := w.customerOf(request); got != customer {
				t.Errorf("the session has customer %q, want %s", got, customer)
			}
			if n := len(w.fake.Customers()); n != 1 {
				t.Errorf("Polar has %d customers, want 1", n)
			}
		})
	}
}

func TestAnExternalIDThatDiffersInCaseIsAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	other := w.makeCustomer(`{"email":"ada@buyer-example.com","external_id":"USR_ADA"}`)
	request := w.await(w.askFor(buyer("usr_ada", "ada@buyer-example.com")), "open")
	if got := w.customerOf(request); got != "" {
		t.Errorf("the session has customer %s (USR_ADA is %s), want none", got, other)
	}
	if got := w.session(request.CheckoutID)["external_customer_id"]; got != "usr_ada" {
		t.Errorf("the session is for %v, want usr_ada", got)
	}
}

func TestATokenThatMayNotReadCustomersStillMakesSessionsForThoseTheMirrorKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	customer := w.makeCustomer(`{"email":"ada@buyer-example.com","external_id":"usr_ada"}`)
	w.settle() // its event tells the mirror
	forbidden := polarfake.Fault{Kind: polarfake.FaultStatus, Status: 403, Count: -1}
	for _, path := range []string{"/v1/customers/", "/v1/customers/external/*"} {
		forbidden.Path = path
		w.inject(forbidden)
	}
	request := w.await(w.askFor(buyer("usr_ada", "ada@buyer-example.com")), "open")
	if got := w.customerOf(request); got != customer { // Polar finds it by external_customer_id
		t.Errorf("the session has customer %q, want %s", got, customer)
	}
}

func TestACustomerCallThatTimesOutAfterItsWorkIsNotRepeatedIntoASecondCustomer(t *testing.T) {
	t.Parallel()
	options := worldOptions{offline: true}
	options.jobs.API.Timeout = 500 * time.Millisecond
	w := newWorld(t, options)
	w.inject(polarfake.Fault{Kind: polarfake.FaultHangAfter, Method: http.MethodPost, Path: "/v1/customers/"})
	request := w.await(w.askFor(buyer("usr_ada", "ada@buyer-example.com")), "open")
	if n := len(w.fake.Customers()); n != 1 {
		t.Errorf("Polar has %d customers, want 1", n)
	}
	if w.customerOf(request) == "" {
		t.Error("the session has no customer")
	}
	w.wantSessions(1)
}

func TestTwoRequestsOfANewUserAtOnceShareOneCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	ids := make([]uuid.UUID, 5)
	var asking sync.WaitGroup
	for i := range ids {
		asking.Go(func() {
			var err error
			if ids[i], err = w.client.CreateCheckout(w.t.Context(), buyer("usr_ada", "ada@buyer-example.com")); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	customers := map[string]bool{}
	for _, id := range ids {
		customers[w.customerOf(w.await(id, "open"))] = true
	}
	if n := len(w.fake.Customers()); n != 1 || len(customers) != 1 || customers[""] {
		t.Errorf("Polar has %d customers, the sessions have %v; want one for all", n, customers)
	}
	w.wantSessions(len(ids))
}

func TestACustomerThatTheAppNamesIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	customer := w.makeCustomer(`{"email":"ada@buyer-example.com"}`)
	params := buyer("usr_ada", "")
	params.CustomerID = uuid.MustParse(customer)
	request := w.await(w.askFor(params), "open")
	if got := w.customerOf(request); got != customer {
		t.Errorf("the session has customer %q, want %s", got, customer)
	}
	w.wantCalls(postCustomer, 0)
	if known := one[string](w, "select customer_id::text from polar.checkout_request where id = $1", request.ID); known != customer {
		t.Errorf("the request says customer %s", known)
	}
}
