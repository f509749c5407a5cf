package console_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/console"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

var (
	quiet   = slog.New(slog.DiscardHandler)
	product = uuid.MustParse("11111111-1111-4111-8111-111111111111")
)

// world is a console on a database of its own.
type world struct {
	t       *testing.T
	store   *store.Store
	handler *console.Console
	token   func(name string, now time.Time) string
}

// newWorld makes a console; with demo, one that sells.
func newWorld(t *testing.T, demo bool) *world {
	t.Helper()
	config := console.Config{}
	if demo {
		config.Demo = &console.Demo{
			Products:   []console.DemoProduct{{ID: product, Name: "Compass", Price: "20.00 USD"}},
			SuccessURL: "http://127.0.0.1:8081/?paid={CHECKOUT_ID}",
		}
	}
	return newWorldWith(t, config)
}

// newWorldWith makes a console on a database of its own.
func newWorldWith(t *testing.T, config console.Config) *world {
	t.Helper()
	s := storetest.New(t)
	config.Store, config.Logger, config.Client = s, quiet, truenorth.NewClient(s.Pool())
	t.Cleanup(config.Client.Close)
	w := &world{t: t, store: s}
	var err error
	if w.handler, w.token, err = console.NewWithPatience(config, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.handler.Close)
	return w
}

// local is a request as a browser on this machine sends it.
func local(method, path string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, path, body)
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "127.0.0.1:8081"
	return r
}

func (w *world) do(r *http.Request) *httptest.ResponseRecorder {
	w.t.Helper()
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, r.WithContext(w.t.Context()))
	return answer
}

// page gets a page that has to be there.
func (w *world) page(path string) string {
	w.t.Helper()
	answer := w.do(local(http.MethodGet, path, nil))
	if answer.Code != http.StatusOK {
		w.t.Fatalf("GET %s answers %d: %s", path, answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// form is the demo's form as a browser sends it.
func form(values url.Values) *http.Request {
	r := local(http.MethodPost, "/demo/checkouts", strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// filled is a form that is right.
func (w *world) filled() url.Values {
	return url.Values{"token": {w.token("", time.Now())}, "user": {"usr_1"}, "product": {product.String()}}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.store.Pool().Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) count(sql string) (n int) {
	w.t.Helper()
	if err := w.store.Pool().QueryRow(w.t.Context(), sql).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *world) addUser(id, email string) {
	w.t.Helper()
	if err := w.store.AddLocalUsers(w.t.Context(), []store.LocalUser{{ID: id, Email: email}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) addCustomer(email string) uuid.UUID {
	w.t.Helper()
	id := uuid.New()
	w.exec(`insert into polar.customer (id, doc, version_from) values ($1, jsonb_build_object('email', $2::text, 'tax_id', 'SECRET-TAX-ID'), 'event')`, id, email)
	return id
}

func (w *world) addLink(customer uuid.UUID, user, basis string) {
	w.t.Helper()
	w.exec(`insert into polar.customer_link (customer_id, local_user_id, basis) values ($1, $2, $3)`, customer, user, basis)
}

func (w *world) addConflict(customer uuid.UUID, user, detail string) {
	w.t.Helper()
	w.exec(`insert into polar.link_conflict (customer_id, local_user_id, kind, detail) values ($1, $2, 'email_match', $3)`, customer, user, detail)
}

func (w *world) addEvent(eventType, body string) {
	w.t.Helper()
	_, err := w.store.InsertEvents(w.t.Context(), []store.Delivery{{WebhookID: uuid.NewString(), Type: eventType, Body: []byte(body)}}, false)
	if err != nil {
		w.t.Fatal(err)
	}
}

// addRequest adds a request in the state, with a session where the state has one.
func (w *world) addRequest(user, state string) (id, checkoutID uuid.UUID) {
	w.t.Helper()
	id, checkoutID = uuid.New(), uuid.New()
	params := fmt.Sprintf(`{"products": [%q], "external_customer_id": %q}`, product, user)
	var reason *string
	if state == "failed" {
		reason = new("Polar refused it")
	}
	w.exec(`insert into polar.checkout_request (id, params, state, checkout_id, url, expires_at, error) values ($1, $2, $3, $4, $5, now() + interval '1 hour', $6)`,
		id, params, state, checkoutID, "https://polar.sh/checkout/polar_c_"+id.String(), reason)
	return id, checkoutID
}

// open does what the worker does once the only request that waits has its session.
func (w *world) open(ctx context.Context, hosted string) error {
	const sql = `with opened as (
			update polar.checkout_request set state = 'open', checkout_id = gen_random_uuid(), url = $1, expires_at = now() + interval '1 hour'
			 where state = 'queued' returning id)
		select pg_notify('polar_checkout', id::text) from opened`
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		tag, err := w.store.Pool().Exec(ctx, sql, hosted)
		if err != nil || tag.RowsAffected() > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func wantText(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %q:\n%s", text, page)
		}
	}
}

func wantNoText(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(page, text) {
			t.Errorf("the page has %q:\n%s", text, page)
		}
	}
}
