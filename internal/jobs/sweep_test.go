package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// sweeper makes a runner that sweeps in this process, as the command line does.
func (w *world) sweeper() *jobs.Runner {
	w.t.Helper()
	config := w.options.jobs
	config.API.BaseURL, config.API.Token, config.Logger = w.api.URL+"/v1", "polar_oat_test", testLogger(w.t)
	runner, err := jobs.New(w.store, config)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.options.tune != nil {
		w.options.tune(runner)
	}
	return runner
}

// reconcile sweeps and sums up what was found: drifted, benign.
func (w *world) reconcile(o jobs.ReconcileOptions) (drifted, benign int64) {
	w.t.Helper()
	runs, err := w.sweeper().Reconcile(w.t.Context(), o)
	if err != nil {
		w.t.Fatalf("reconciling: %v", err)
	}
	for _, run := range runs {
		if run.State != store.RunFinished {
			w.t.Errorf("the run for %s is %s", run.ObjectType, run.State)
		}
		drifted, benign = drifted+run.Drifted, benign+run.Benign
	}
	return drifted, benign
}

// drift lists the ledger, a line each.
func (w *world) drift() []string {
	return all[string](w, `select object_type || ' ' || field || ' ' || cause || ' ' || coalesce(resolution, 'open') from polar.drift order by 1`)
}

func same[T comparable](tb testing.TB, what string, got, want []T) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s: got\n%s\nwant\n%s", what, lines(got), lines(want))
	}
}

func lines[T any](values []T) string {
	var b strings.Builder
	for _, v := range values {
		fmt.Fprintln(&b, v)
	}
	return b.String()
}

func idOf(tb testing.TB, document json.RawMessage) string {
	tb.Helper()
	meta, err := polar.DecodeMeta(document)
	if err != nil {
		tb.Fatal(err)
	}
	return meta.ID.String()
}

func TestASweepFindsWhatWasMissedRepairsItAndFindsNothingTheSecondTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.addUser("usr_0", "usr_1")
	ids := w.fake.SeedCustomers(3, "usr_")

	drifted, _ := w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	if drifted != 3 {
		t.Errorf("%d differences, want 3 missed creations", drifted)
	}
	same(t, "linked", all[string](w, "select local_user_id from polar.customer_link order by 1"), []string{"usr_0", "usr_1"})

	if _, err := w.fake.UpdateCustomer(ids[1], `{"name": "Grace Hopper"}`); err != nil {
		t.Fatal(err)
	}
	if err := w.fake.DeleteCustomer(ids[0]); err != nil {
		t.Fatal(err)
	}
	w.exec("delete from polar.drift")
	if drifted, _ = w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}, DryRun: true}); drifted != 3 {
		t.Errorf("the dry run found %d differences, want 3: modified_at, name, deleted_at", drifted)
	}
	same(t, "the ledger of the dry run", w.drift(), []string{
		"customer deleted_at missed_delete open", "customer modified_at missed_update open", "customer name missed_update open",
	})
	same(t, "linked after a dry run", all[string](w, "select local_user_id from polar.customer_link order by 1"), []string{"usr_0", "usr_1"})

	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	same(t, "the ledger", w.drift(), []string{
		"customer deleted_at missed_delete repaired", "customer modified_at missed_update repaired", "customer name missed_update repaired",
	})
	same(t, "the name in the ledger", all[string](w, "select coalesce(local, 'null') || ' | ' || remote from polar.drift where field = 'name'"),
		[]string{"null | hidden, 12 characters"})
	same(t, "the mirror", all[string](w, "select coalesce(name, '-') || ' ' || (deleted_at is not null) from polar.customer order by external_id"),
		[]string{"- true", "Grace Hopper false", "- false"})
	same(t, "links", all[string](w, "select local_user_id || ' ' || coalesce(end_reason, 'linked') from polar.customer_link_history order by 1"),
		[]string{"usr_0 customer_deleted", "usr_1 linked"})
	if drifted, benign := w.reconcile(jobs.ReconcileOptions{}); drifted+benign != one[int64](w, "select count(*) from polar.drift where object_type not in ('customer')") {
		t.Errorf("a sweep of all types found %d and %d", drifted, benign)
	}
	if drifted, benign := w.reconcile(jobs.ReconcileOptions{}); drifted+benign != 0 {
		t.Errorf("the second sweep found %d and %d differences:\n%s", drifted, benign, lines(w.drift()))
	}
	if open := one[int64](w, "select count(*) from polar.drift where resolved_at is null"); open != 0 {
		t.Errorf("%d differences are open", open)
	}
}

func TestASweepOfAllTypesMakesTheMirrorEqualToPolar(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	for i, product := range []string{polarfake.OneTimeProductID, polarfake.MonthlyProductID, polarfake.SeatProductID} {
		checkout, err := w.fake.CreateCheckout(`{"products": ["` + product + `"]}`)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.fake.Pay(idOf(t, checkout), polarfake.PayOptions{Email: "buyer" + strconv.Itoa(i) + "@example.com"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.fake.CreateCheckout(`{"products": ["` + polarfake.OneTimeProductID + `"]}`); err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{})
	same(t, "rows", all[string](w, `
		select 'customer ' || count(*) from polar.customer union all select 'member ' || count(*) from polar.member
		union all select 'checkout ' || status || ' ' || count(*) from polar.checkout group by status
		union all select 'order ' || status || ' ' || count(*) from polar."order" group by status
		union all select 'subscription ' || status || ' ' || count(*) from polar.subscription group by status
		union all select 'grant ' || count(*) from polar.benefit_grant union all select 'organization ' || count(*) from polar.organization
		order by 1`), []string{
		"checkout open 1", "checkout succeeded 3", "customer 3", "grant 2", "member 3", "order paid 3", "organization 1", "subscription active 2",
	})
	if drifted, benign := w.reconcile(jobs.ReconcileOptions{}); drifted+benign != 0 {
		t.Errorf("the second sweep found %d and %d:\n%s", drifted, benign, lines(w.drift()))
	}
}

func TestAnAbandonedCheckoutIsBenign(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	checkout, err := w.fake.CreateCheckout(`{"products": ["` + polarfake.OneTimeProductID + `"]}`)
	if err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}})
	if err := w.fake.Expire(idOf(t, checkout)); err != nil {
		t.Fatal(err)
	}
	drifted, benign := w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}, DryRun: true})
	if drifted != 0 || benign == 0 {
		t.Errorf("%d and %d benign differences, want benign ones only:\n%s", drifted, benign, lines(w.drift()))
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}})
	if got := one[string](w, "select status from polar.checkout"); got != "expired" {
		t.Errorf("the checkout is %s", got)
	}
}

func TestASweepIsStableWhileObjectsComeAndGo(t *testing.T) {
	t.Parallel()
	// At every page of the list, customers that lie behind are deleted and new ones come.
	var w *world
	var ids []string
	pages := 0
	between := func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			fake.ServeHTTP(rw, r)
			if r.URL.Path != "/v1/customers/" || pages >= 8 {
				return
			}
			pages++
			for range 7 * pages {
				if err := w.fake.DeleteCustomer(ids[0]); err != nil {
					t.Error(err)
				}
				ids = ids[1:]
			}
			w.fake.SeedCustomers(3, fmt.Sprintf("new_%d_", pages))
		})
	}
	w = newWorld(t, worldOptions{offline: true, idle: true, between: between})
	ids = w.fake.SeedCustomers(900, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	if pages < 8 {
		t.Fatalf("only %d pages were read", pages)
	}
	// Every customer that lived all the while was seen in this one sweep.
	missing := 0
	for _, id := range ids {
		if one[int64](w, "select count(*) from polar.customer where id = $1 and deleted_at is null", id) != 1 {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d customers slid past the sweep", missing, len(ids))
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	var here, there []string
	here = all[string](w, "select id::text from polar.customer where deleted_at is null order by 1")
	for _, c := range w.fake.Customers() {
		there = append(there, idOf(t, c))
	}
	slices.Sort(there)
	if !slices.Equal(here, there) {
		t.Errorf("the mirror has %d customers, Polar %d", len(here), len(there))
	}
}

func TestAPolarThatFailsOrAnswersHalfFailsTheRunAndBuriesNobody(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"500": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		},
		"401": func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusUnauthorized); return true },
		"an unknown version": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"detail":"Not Found"}`))
			return true
		},
		"half a page": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(`{"items":[],"pagination":{"total_count":40,"max_page":1}}`))
			return true
		},
		"half a document": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(`{"items":[{"id":"`))
			return true
		},
		"an empty list": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(`{"items":[],"pagination":{"total_count":0,"max_page":0}}`))
			return true
		},
		"not found by id in a proxy's words": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v1/customers/" {
				_, _ = w.Write([]byte(`{"items":[],"pagination":{"total_count":0,"max_page":0}}`))
				return true
			}
			w.WriteHeader(http.StatusNotFound)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broken, later atomic.Bool
			w := newWorld(t, worldOptions{
				fake: polarfake.Options{Clock: func() time.Time {
					if later.Load() {
						return time.Now()
					}
					return time.Now().Add(-time.Hour)
				}},
				offline: true, idle: true, jobs: jobs.Config{API: polar.Config{MaxRetries: -1}}, tune: (*jobs.Runner).AskAtOnce,
				between: func(fake http.Handler) http.Handler {
					return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
						isList := strings.HasPrefix(r.URL.Path, "/v1/customers/") && r.URL.Query().Get("limit") != "1"
						byID := name == "an empty list" && r.URL.Path != "/v1/customers/"
						if broken.Load() && isList && !byID && answer(rw, r) {
							return
						}
						fake.ServeHTTP(rw, r)
					})
				},
			})
			w.fake.SeedCustomers(40, "usr_")
			later.Store(true)
			w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
			broken.Store(true)
			runs, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer"}})
			if err == nil || len(runs) != 1 || runs[0].State != store.RunFailed || runs[0].Error == nil {
				t.Fatalf("the run ended as %+v, %v; want a failed one", runs, err)
			}
			if living := one[int64](w, "select count(*) from polar.customer where deleted_at is null"); living != 40 {
				t.Errorf("%d customers live, want all 40", living)
			}
		})
	}
}

func TestWhatPolarServesNotByIDIsGoneOnceTwoSweepsMissedIt(t *testing.T) {
	t.Parallel()
	var hide atomic.Int64 // how many more lists of members lack one
	w := newWorld(t, worldOptions{offline: true, idle: true, between: func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/members/" && hide.Add(-1) >= 0 {
				rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
				_, _ = rw.Write([]byte(`{"items":[],"pagination":{"total_count":0,"max_page":0}}`))
				return
			}
			fake.ServeHTTP(rw, r)
		})
	}})
	if _, err := w.fake.CreateCustomer(`{"email": "ada@example.com"}`); err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"member"}})
	hide.Store(1)
	w.reconcile(jobs.ReconcileOptions{Types: []string{"member"}})
	if got := one[int64](w, "select count(*) from polar.member where deleted_at is null"); got != 1 {
		t.Fatal("one list that lacked the member buried it")
	}
	hide.Store(2)
	w.reconcile(jobs.ReconcileOptions{Types: []string{"member"}})
	if got := one[int64](w, "select count(*) from polar.member where deleted_at is null"); got != 0 {
		t.Fatal("two lists in a row lacked the member, and it lives here")
	}
	hide.Store(0)
	waittest.Within(t, 5*time.Second, func() error { // lifted once Polar's clock, which tells seconds, is past the burial
		w.reconcile(jobs.ReconcileOptions{Types: []string{"member"}})
		if got := one[int64](w, "select count(*) from polar.member where deleted_at is null"); got != 1 {
			return errors.New("the member is still buried")
		}
		return nil
	})
}

func TestEveryUnfinishedCheckoutIsComparedByASweepOfWhatIsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	checkout, err := w.fake.CreateCheckout(`{"products": ["` + polarfake.OneTimeProductID + `"]}`)
	if err != nil {
		t.Fatal(err)
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"checkout"}})
	// An old one, of which Polar's list of what is new would never speak again.
	w.exec(`insert into polar.checkout (id, doc, version_from) select $1::uuid, jsonb_set(jsonb_set(doc, '{id}', to_jsonb($1::uuid::text)), '{created_at}', '"2026-01-01T00:00:00Z"'), 'event' from polar.checkout`, uuid.NewString())
	if err := w.fake.Pay(idOf(t, checkout), polarfake.PayOptions{Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	sweeper := w.sweeper()
	if err := sweeper.SweepNew(t.Context(), "checkout"); err != nil {
		t.Fatal(err)
	}
	same(t, "checkouts", all[string](w, "select status || ' ' || (deleted_at is not null) from polar.checkout order by 1"), []string{"open true", "succeeded false"})
	if full := one[bool](w, "select full_sweep from polar.reconcile_run order by id desc limit 1"); full {
		t.Error("it was a full sweep")
	}
	same(t, "causes", all[string](w, "select distinct cause from polar.drift where field in ('status', 'deleted_at') order by 1"), []string{"local_only", "missed_update"})
}

func TestASweepThatIsKilledGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	ctx, kill := context.WithCancel(t.Context())
	pages := 0
	w := newWorld(t, worldOptions{offline: true, idle: true, between: func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/customers/" && r.URL.Query().Get("limit") != "1" {
				if pages++; pages == 21 {
					kill()
				}
			}
			fake.ServeHTTP(rw, r)
		})
	}})
	w.fake.SeedCustomers(3000, "usr_")
	if _, err := w.sweeper().Reconcile(ctx, jobs.ReconcileOptions{Types: []string{"customer"}}); err == nil {
		t.Fatal("it was not stopped")
	}
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	if pages > 40 {
		t.Errorf("%d pages were read of a list of 30: it began anew", pages)
	}
	same(t, "runs", all[string](w, "select state || ' ' || seen || ' ' || drifted from polar.reconcile_run"), []string{"finished 3000 3000"})
}

func TestASweepThatMeetsAnotherWaitsForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.fake.SeedCustomers(3, "usr_")
	if taken, err := w.store.TakeReconcileLease(t.Context(), "another", 30*time.Second); err != nil || !taken {
		t.Fatalf("taking the place: %v, %v", taken, err)
	}
	waiting := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		_, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer"}, Progress: func(p jobs.Progress) {
			if p.Waiting {
				select {
				case waiting <- struct{}{}:
				default:
				}
			}
		}})
		done <- err
	}()
	<-waiting
	if n := one[int64](w, "select count(*) from polar.reconcile_run"); n != 0 {
		t.Errorf("it began %d runs while another had the place", n)
	}
	if err := w.store.ReleaseReconcileLease(t.Context(), "another"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWorkersSweepPeriodically(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, jobs: jobs.Config{ReconcileInterval: time.Second}})
	ids := w.fake.SeedCustomers(3, "usr_")
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(*) from polar.customer where deleted_at is null"); n != 3 {
			return fmt.Errorf("%d customers are mirrored", n)
		}
		return nil
	})
	if err := w.fake.DeleteCustomer(ids[0]); err != nil {
		t.Fatal(err)
	}
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(*) from polar.customer where deleted_at is null"); n != 2 {
			return fmt.Errorf("%d customers live here", n)
		}
		return nil
	})
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(distinct object_type) from polar.reconcile_run where state = 'finished'"); n != int64(len(jobs.ReconcileTypes())) {
			return fmt.Errorf("%d types were swept", n)
		}
		return nil
	})
}

func TestSinceLeavesOutWhatIsOlder(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	clock := &now
	w := newWorld(t, worldOptions{offline: true, idle: true, fake: polarfake.Options{Clock: func() time.Time { return *clock }}})
	w.fake.SeedCustomers(250, "old_")
	now = now.Add(48 * time.Hour)
	w.fake.SeedCustomers(130, "new_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}, Since: now.Add(-time.Hour)})
	same(t, "mirrored", all[string](w, "select left(external_id, 3) || ' ' || count(*) from polar.customer group by left(external_id, 3)"), []string{"new 130"})
	if requests := w.fake.Requests()["GET /v1/customers/"]; requests > 16 {
		t.Errorf("it took %d requests to find 130 of 380", requests)
	}
}

func TestADocumentThatPostgresRefusesStaysOpenAndTheOthersAreRepaired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.fake.SeedCustomers(5, "usr_")
	w.exec("alter table polar.customer add constraint customer_test_check check (external_id <> 'usr_3')")
	runs, err := w.sweeper().Reconcile(t.Context(), jobs.ReconcileOptions{Types: []string{"customer"}})
	if err == nil || runs[0].State != store.RunFailed {
		t.Errorf("the run is %s, %v; want failed, as one is not repaired", runs[0].State, err)
	}
	same(t, "mirrored", all[string](w, "select external_id from polar.customer order by 1"), []string{"usr_0", "usr_1", "usr_2", "usr_4"})
	same(t, "open", all[string](w, "select cause from polar.drift where resolved_at is null"), []string{"refused"})
	w.exec("alter table polar.customer drop constraint customer_test_check")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	if open := one[int64](w, "select count(*) from polar.drift where resolved_at is null"); open != 0 {
		t.Errorf("%d differences are open once all is repaired", open)
	}
}
