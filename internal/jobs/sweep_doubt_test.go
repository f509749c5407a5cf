package jobs_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// answeredBy is a proxy whose answers to some requests are not the fake's, while it is on.
func answeredBy(on *atomic.Bool, answer func(w http.ResponseWriter, r *http.Request) bool) func(http.Handler) http.Handler {
	return func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if on.Load() {
				w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
				if answer(w, r) {
					return
				}
			}
			fake.ServeHTTP(w, r)
		})
	}
}

func TestASweepThatHasToWaitForItsBudgetLosesNothingOfAStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true, jobs: jobs.Config{RateLimit: 600}})
	ids := w.fake.SeedCustomers(120, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	for _, id := range ids[:90] { // more reads by id than the budget has at once
		if err := w.fake.Vanish("customer", id); err != nil {
			t.Fatal(err)
		}
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	if n := one[int64](w, "select count(*) from polar.customer where deleted_at is null"); n != 30 {
		t.Errorf("%d customers live here, want 30", n)
	}
	if calls := w.fake.Requests()["GET /v1/customers/{id}"]; calls > 95 {
		t.Errorf("%d reads by id for 90 customers: some were made twice", calls)
	}
}

func TestATokenThatSeesNothingOfTheMirroredOrganizationBuriesNobody(t *testing.T) {
	t.Parallel()
	var other atomic.Bool
	w := newWorld(t, worldOptions{offline: true, idle: true, between: answeredBy(&other, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "s/"):
			_, _ = w.Write([]byte(`{"items":[],"pagination":{"total_count":0,"max_page":0}}`))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error":"ResourceNotFound","detail":"Not found"}`))
		}
		return true
	})})
	w.fake.SeedCustomers(40, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	other.Store(true)
	runs, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer"}})
	if err == nil || runs[0].State != store.RunFailed || !strings.Contains(err.Error(), "POLAR_ACCESS_TOKEN") {
		t.Errorf("the run is %s, %v", runs[0].State, err)
	}
	if n := one[int64](w, "select count(*) from polar.customer where deleted_at is null"); n != 40 {
		t.Errorf("%d customers live here, want all 40", n)
	}
}

func TestAListWithoutATotalIsNoWholeList(t *testing.T) {
	t.Parallel()
	var half atomic.Bool
	w := newWorld(t, worldOptions{
		offline: true, idle: true, jobs: jobs.Config{API: polar.Config{MaxRetries: -1}}, tune: (*jobs.Runner).AskAtOnce,
		between: answeredBy(&half, func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/customers/" || r.URL.Query().Get("limit") == "1" {
				return false
			}
			_, _ = w.Write([]byte(`{"items":[],"pagination":{"max_page":0}}`))
			return true
		}),
	})
	w.fake.SeedCustomers(3, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	half.Store(true)
	if _, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer"}}); err == nil {
		t.Error("it passed for a whole one")
	}
}

func TestMostOfATypeIsNotBuriedAtAStrokeUnlessAPersonSaysSo(t *testing.T) {
	t.Parallel()
	var empty atomic.Bool
	w := newWorld(t, worldOptions{offline: true, idle: true, between: answeredBy(&empty, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/members/" {
			return false
		}
		_, _ = w.Write([]byte(`{"items":[],"pagination":{"total_count":0,"max_page":0}}`))
		return true
	})})
	for i := range 30 {
		if _, err := w.fake.CreateCustomer(fmt.Sprintf(`{"email": "member%d@example.com"}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"member"}})
	empty.Store(true)
	_, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"member"}})
	if err == nil || !strings.Contains(err.Error(), "--accept-deletions") {
		t.Errorf("30 of 30 members are gone, and it says %v", err)
	}
	if n := one[int64](w, "select count(*) from polar.member where deleted_at is null"); n != 30 {
		t.Errorf("%d members live here, want all 30", n)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"member"}, AcceptDeletions: true})
	if n := one[int64](w, "select count(*) from polar.member where deleted_at is null"); n != 0 {
		t.Errorf("%d members live here though a person said that they are gone", n)
	}
}

func TestASweepThatLostItsPlaceWritesNothingMore(t *testing.T) {
	t.Parallel()
	var w *world
	pages := 0
	w = newWorld(t, worldOptions{offline: true, idle: true, between: func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/customers/" && r.URL.Query().Get("limit") != "1" {
				if pages++; pages == 3 {
					w.exec("update polar.reconcile_lease set holder = 'another', until = now() + interval '1 minute'")
				}
			}
			fake.ServeHTTP(rw, r)
		})
	}})
	w.fake.SeedCustomers(900, "usr_")
	if _, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer", "member"}}); err == nil {
		t.Error("it did not notice")
	}
	same(t, "runs", all[string](w, "select object_type || ' ' || state from polar.reconcile_run"), []string{"customer running"})
	if n := one[int64](w, "select count(*) from polar.customer"); n > 200 {
		t.Errorf("%d customers were written, want those of the two pages before", n)
	}
	same(t, "the place", all[string](w, "select holder from polar.reconcile_lease"), []string{"another"})
}

func TestWhatADryRunLeftOpenClosesWhenItsEventArrives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, tune: (*jobs.Runner).AskAtOnce})
	ids := w.fake.SeedCustomers(2, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	if err := w.fake.DeleteCustomer(ids[0]); err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}, DryRun: true})
	w.post(uuid.NewString(), fmt.Sprintf(`{"type": "customer.deleted", "timestamp": %q, "data": %s}`, time.Now().UTC().Format(time.RFC3339Nano), w.fake.Customer(ids[0])))
	w.settle()
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	same(t, "the ledger", all[string](w, "select field || ' ' || coalesce(resolution, 'open') from polar.drift where field = 'deleted_at'"), []string{"deleted_at in_step"})
}

func TestADryRunPinsNoOrganizationAndARepairAfterItShowsWhatItRepaired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.fake.SeedCustomers(2, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}, DryRun: true})
	if n := one[int64](w, "select (select count(*) from polar.mirrored_organization) + (select count(*) from polar.customer)"); n != 0 {
		t.Errorf("a dry run wrote %d rows", n)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	same(t, "the ledger", all[string](w, "select run_id || ' ' || field || ' ' || resolution from polar.drift"), []string{"2 id repaired", "2 id repaired"})
}

func TestACheckoutThatPolarDoesNotKnowEndsItsRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	id, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.AwaitURL(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := w.fake.Vanish("checkout", one[string](w, "select id::text from polar.checkout")); err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}})
	same(t, "the request", all[string](w, "select state || ': ' || error from polar.checkout_request"), []string{"failed: Polar has no such checkout any more"})
	same(t, "the ledger", all[string](w, "select cause from polar.drift where field = 'deleted_at'"), []string{"local_only"})
}

func TestAnAbandonedCheckoutHidesNoOtherDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	checkout, err := w.fake.CreateCheckout(`{"products": ["` + polarfake.OneTimeProductID + `"]}`)
	if err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}})
	if err := w.fake.Pay(idOf(t, checkout), polarfake.PayOptions{Email: "ada@example.com", Outcome: polarfake.PaymentFailsLater}); err != nil {
		t.Fatal(err)
	}
	if err := w.fake.Expire(idOf(t, checkout)); err != nil {
		t.Fatal(err)
	}
	drifted, benign := w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}, DryRun: true})
	if drifted == 0 || benign == 0 {
		t.Errorf("%d differences and %d benign ones; want both:\n%s", drifted, benign, lines(w.drift()))
	}
	same(t, "the customer's cause", all[string](w, "select cause from polar.drift where field = 'customer_id'"), []string{"missed_update"})
}
