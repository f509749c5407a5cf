package console_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/console"
)

func TestWithoutDemoThereIsNothingToPost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	if answer := w.do(form(w.filled())); answer.Code != http.StatusNotFound {
		t.Errorf("POST /demo/checkouts answers %d, want 404", answer.Code)
	}
	page := w.page("/?paid=" + uuid.NewString())
	wantNoText(t, page, "create-checkout", "paid-banner")
	policy := w.do(local(http.MethodGet, "/", nil)).Header().Get("Content-Security-Policy")
	wantText(t, policy, "form-action 'self';")
}

func TestTheDemoOffersLivingUsersAndProducts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	wantText(t, w.page("/"), "There is nobody to sell to")

	w.addUser("usr_ada", "ada@example.com")
	w.addUser("usr_gone", "")
	w.exec(`update polar.local_user_row set deleted_at = now() where id = 'usr_gone'`)
	page := w.page("/")
	wantText(t, page, `<option value="usr_ada">usr_ada · ada@example.com</option>`,
		`<option value="`+product.String()+`">Compass · 20.00 USD</option>`, `<button id="create-checkout">`)
	wantNoText(t, page, "usr_gone")
}

var tokenField = regexp.MustCompile(`name="token" value="([^"]+)"`)

func TestTheButtonLeadsToTheHostedPageOfANewCheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.addUser("usr_ada", "ada@example.com")
	token := tokenField.FindStringSubmatch(w.page("/"))
	if token == nil {
		t.Fatal("the form has no token")
	}
	const hosted = "https://polar.sh/checkout/polar_c_1"
	opened := make(chan error, 1)
	go func() { opened <- w.open(t.Context(), hosted) }()
	values := w.filled()
	values.Set("token", token[1])
	values.Set("user", "usr_ada")
	answer := w.do(form(values))
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if got := answer.Header().Get("Location"); answer.Code != http.StatusSeeOther || got != hosted {
		t.Errorf("the button answers %d to %q, want 303 to %s", answer.Code, got, hosted)
	}
	if n := w.count(`select count(*) from polar.checkout_request where external_customer_id = 'usr_ada'
		and params = jsonb_build_object('products', jsonb_build_array('` + product.String() + `'), 'external_customer_id', 'usr_ada',
		                                'success_url', 'http://127.0.0.1:8081/?paid={CHECKOUT_ID}')`); n != 1 {
		t.Errorf("%d requests are as the form asked, want 1", n)
	}
	if n := w.count(`select count(*) from polar.river_job where kind = 'create_checkout'`); n != 1 {
		t.Errorf("%d jobs were enqueued, want 1", n)
	}
}

func TestTheButtonLeadsToTheRequestWhereNobodyCanPay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sql string // what the worker does once the request is there
	}{
		{"it failed", `update polar.checkout_request set state = 'failed', error = 'Polar refused it' where state = 'queued' returning id`},
		{"the URL is no web address", `update polar.checkout_request set state = 'open', checkout_id = gen_random_uuid(), url = 'javascript:alert(1)' where state = 'queued' returning id`},
		{"the URL has no host", `update polar.checkout_request set state = 'open', checkout_id = gen_random_uuid(), url = '/elsewhere' where state = 'queued' returning id`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			// The change happens with the request itself: no worker to wait for.
			w.exec(`create function public.work() returns trigger language plpgsql as $$ begin ` + strings.TrimSuffix(c.sql, "returning id") + `; return null; end $$`)
			w.exec(`create constraint trigger work after insert on polar.checkout_request deferrable initially deferred for each row execute function public.work()`)
			answer := w.do(form(w.filled()))
			location := answer.Header().Get("Location")
			if answer.Code != http.StatusSeeOther || !strings.HasPrefix(location, "/requests/") {
				t.Fatalf("the button answers %d to %q, want 303 to the request's page", answer.Code, location)
			}
			w.page(location)
		})
	}
}

func TestTheButtonDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	client := truenorth.NewClient(w.store.Pool())
	t.Cleanup(client.Close)
	handler, token, err := console.NewWithPatience(console.Config{
		Store: w.store, Client: client, Logger: quiet, Demo: &console.Demo{Products: []console.DemoProduct{{ID: product}}, SuccessURL: "http://127.0.0.1/"},
	}, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	values := w.filled()
	values.Set("token", token("", time.Now()))
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, form(values))
	location := answer.Header().Get("Location")
	if answer.Code != http.StatusSeeOther || !strings.HasPrefix(location, "/requests/") {
		t.Fatalf("without a worker the button answers %d to %q, want 303 to the request's page", answer.Code, location)
	}
	wantText(t, w.page(location), "queued", `data-refresh="2"`)
}

func TestWhoComesBackIsToldWhatTheDatabaseSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	const paid = "Thank you! Paid"
	for _, c := range []struct {
		name, state string
		linkedTo    string
		basis       string
		conflict    bool
		stale       bool // nothing has changed for long
		want        string
		looksAgain  bool
	}{
		{"before Polar's word", "open", "", "", false, false, "Waiting for Polar to say that the checkout is paid", true},
		{"while the payment is processed", "confirmed", "", "", false, false, "Waiting for Polar", true},
		{"when Polar's word never comes", "open", "", "", false, true, "Waiting for Polar", false},
		{"paid, not linked yet", "succeeded", "", "", false, false, paid + ". The customer is being linked", true},
		{"paid, never linked", "succeeded", "", "", false, true, paid + ". The customer is being linked", false},
		{"linked by the weaker basis so far", "succeeded", "usr_ada", "external_id", false, false, paid + ", and the customer is linked to usr_ada.", true},
		{"linked", "succeeded", "usr_ada", "checkout", false, false, paid + ", and the customer is linked to usr_ada.", false},
		{"paid by a stranger's customer", "succeeded", "", "", true, false, "decided by a person", false},
		{"paid by another user", "succeeded", "usr_eve", "external_id", false, false, "Paid, by a customer who is linked to usr_eve.", false},
		{"expired", "expired", "", "", false, false, "The checkout expired", false},
		{"failed", "failed", "", "", false, false, "The checkout failed", false},
	} {
		_, checkoutID := w.addRequest("usr_ada", c.state)
		customer := w.addCustomer("ada@example.com")
		w.exec(`insert into polar.checkout (id, doc, version_from) values ($1, jsonb_build_object('customer_id', $2::text), 'event')`, checkoutID, customer)
		if c.linkedTo != "" {
			w.addLink(customer, c.linkedTo, c.basis)
		}
		if c.conflict {
			w.addConflict(customer, "usr_ada", "why")
		}
		if c.stale {
			w.exec(`update polar.checkout_request set updated_at = now() - interval '10 minutes' where checkout_id = $1`, checkoutID)
		}
		page := w.page("/?paid=" + checkoutID.String())
		if !strings.Contains(page, `<p id="paid-banner"`) || !strings.Contains(page, c.want) {
			t.Errorf("%s: the page does not say %q:\n%s", c.name, c.want, page)
		}
		if got := strings.Contains(page, "data-refresh"); got != c.looksAgain {
			t.Errorf("%s: the page looks again: %t, want %t", c.name, got, c.looksAgain)
		}
	}
}

func TestACheckoutThatIsNotOursIsNotThankedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	page := w.page("/?paid=" + uuid.NewString())
	wantText(t, page, `id="paid-banner"`, "No checkout request here belongs to that checkout.")
	wantNoText(t, page, "Thank you", "data-refresh")
	wantNoText(t, w.page("/?paid=yes"), "paid-banner")
}
