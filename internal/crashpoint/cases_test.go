package crashpoint_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

const (
	postCheckout  = "POST /v1/checkouts/"
	listCheckouts = "GET /v1/checkouts/"
	patchCustomer = "PATCH /v1/customers/{id}"
)

// crashes are all of them, in the order in which a purchase meets their points.
var crashes = concat(
	// A whole purchase goes on while ingest or the worker dies in the middle of it.
	each(crash{program: "ingest", play: purchase, after: (*world).wantBought},
		"receive.verified", "receive.one_unstored", "receive.one_stored", "receive.unanswered"),
	each(crash{program: "ingest", options: crowdOptions, play: crowd, after: crowdIsThere},
		"receive.many_unstored", "receive.many_stored"),
	each(crash{program: "ingest", before: failedAndBodiless, play: redeliverAll},
		"receive.bodiless"),
	each(crash{play: purchase, after: (*world).wantBought},
		"checkout.taken", "checkout.claimed", "customer.unsent", "customer.sent", "customer.answered", "customer.ensured",
		"checkout.unsent", "checkout.sent", "checkout.answered", "checkout.storing", "checkout.tried",
		"apply.taken", "apply.read", "apply.mirrored", "apply.linked", "apply.settled", "apply.committed", "apply.committed:4",
		"tell.told"),
	each(crash{play: purchase, after: (*world).wantBought},
		"apply.taken apply.part_committed", "apply.taken upkeep.returning", "checkout.claimed upkeep.returning", "checkout.sent checkout.claimed checkout.unsent"),
	// No event tells of the session: it must be looked for.
	each(crash{play: askUnheard, judge: (*world).oneSessionEach, after: openWithOneCall},
		"checkout.sent", "checkout.answered", "checkout.sent adopt.looking", "checkout.sent adopt.looked", "checkout.sent adopt.looked checkout.storing"),
	each(crash{play: askForNothing, judge: (*world).oneSessionEach, after: failedWithPolarsWords}, "checkout.refused"),
	each(crash{play: purchaseAfterA500, after: (*world).wantBought}, "checkout.tried"),

	each(crash{play: purchaseWithoutCustomerEvents, after: boughtWithItsCustomer}, "refresh.read", "refresh.stored"),
	each(crash{before: unheardExpiry, after: requestExpired}, "expiry.due", "expiry.asked"),
	each(crash{before: userAppears, after: linkedByItsID}, "link.due"),
	each(crash{before: userIsToBeLinked, after: linkedByItsID}, "link.asked"),
	each(crash{before: paidByACustomerWithoutID, judge: func(*world) {}, after: idWritten},
		"external_id.unsent", "external_id.sent", "external_id.answered", "external_id.stored"),

	each(crash{options: sweepOptions, before: (*world).fillPolar, after: (*world).inStepWithPolar},
		"sweep.started", "sweep.advanced", "sweep.advanced:3", "sweep.stepped", "sweep.stepped:4", "sweep.unended", "sweep.ended"),
	each(crash{options: sweepOptions, before: vanished, after: (*world).inStepWithPolar}, "sweep.gone"),
	each(crash{options: sweepOptions, before: missedByIngest, after: missedIsThere}, "gaps.found", "gaps.stored"),
	each(crash{options: enableOptions, before: disabled, after: enabledAgain}, "endpoint.looked", "endpoint.enabling", "endpoint.enabled"),
	each(crash{before: someAreOld, after: oldAreGone}, "prune.step", "prune.stepped"),

	each(crash{program: "truenorth", args: []string{"replay", "--all"}, before: mirrorIsLost, after: (*world).wantBought}, "replay.batch"),
	each(crash{
		program: "truenorth", args: []string{"forget", "external:" + user, "--reason", "asked to", "--actor", "a test"},
		before: bought, judge: (*world).appliedWhatWasAcknowledged, after: (*world).wantForgotten,
	}, "forget.rows", "forget.events"),
	each(crash{program: "truenorth", args: []string{"migrate"}, options: worldOptions{empty: true}, judge: func(*world) {}, after: (*world).wantMigrated},
		"migrate.step", "migrate.step:6", "migrate.unroled", "migrate.step:2 migrate.step:3 migrate.step:4"),
)

func concat(lists ...[]crash) (list []crash) {
	for _, l := range lists {
		list = append(list, l...)
	}
	return list
}

// each is one case for each of these points, or points in turn.
func each(c crash, points ...string) []crash {
	list := make([]crash, len(points))
	for i, p := range points {
		list[i] = c
		list[i].dies = strings.Fields(p)
		list[i].name = strings.Join(list[i].dies, ", then ")
	}
	return list
}

var identified = truenorth.CheckoutParams{CustomerEmail: address}

func purchase(w *world) { w.buy(identified) }

func purchaseAfterA500(w *world) {
	w.inject(polarfake.Fault{Kind: polarfake.FaultStatus, Method: http.MethodPost, Path: "/v1/checkouts/", Status: http.StatusInternalServerError})
	purchase(w)
}

// bought is a purchase with nobody dying, after which the worker is gone.
func bought(w *world) {
	w.startIngest()
	w.worker.Start()
	purchase(w)
	w.calm()
	w.wantBought()
	w.killWorker()
}

// crowd has so many deliveries come while Postgres keeps the first of them that the next ones are stored together.
func crowd(w *world) {
	w.t.Helper()
	ctx := w.t.Context()
	tx, err := w.store.Pool().Begin(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "lock table polar.event_log in exclusive mode"); err != nil {
		w.t.Fatal(err)
	}
	for i := range crowdSize {
		if _, err := w.fake.CreateCustomer(fmt.Sprintf(`{"email":"c%d@buyer-example.com"}`, i)); err != nil {
			w.t.Fatal(err)
		}
	}
	waittest.Eventually(w.t, func() error {
		metrics, err := w.metrics()
		if err == nil && !strings.Contains(metrics, "\ntruenorth_deliveries_waiting ") || strings.Contains(metrics, "\ntruenorth_deliveries_waiting 0") ||
			strings.Contains(metrics, "\ntruenorth_deliveries_waiting 1\n") {
			err = errors.New("too few deliveries wait")
		}
		return err
	})
}

const crowdSize = 12

var crowdOptions = worldOptions{fake: polarfake.Options{Parallel: true}}

func crowdIsThere(w *world) {
	w.want("customers", "select count(*)::text from polar.customer", strconv.Itoa(crowdSize))
}

func (w *world) metrics() (string, error) {
	response, err := http.Get("http://" + w.metricsAddr + "/metrics")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// failedAndBodiless has an event whose last try failed, and whose body is no longer kept.
func failedAndBodiless(w *world) {
	w.startIngest()
	w.worker.Start()
	w.makeCustomer(fmt.Sprintf(`{"email":%q}`, address))
	w.calm()
	w.ingest.Kill()
	w.exec("update polar.event_outcome set state = 'failed', applied_at = null, error = 'so it was'")
	w.exec("update polar.event_log set body = null, body_bytes = null")
	w.killWorker()
}

func redeliverAll(w *world) {
	for _, e := range w.fake.Events() {
		if err := w.fake.Redeliver(e.ID); err != nil {
			w.t.Error(err)
		}
	}
}

func askUnheard(w *world) {
	w.loseEvents("checkout.*")
	w.ask(identified)
}

func openWithOneCall(w *world) {
	w.want("requests", "select state from polar.checkout_request", "open")
	w.wantCalls(postCheckout, 1)
}

func askForNothing(w *world) { w.ask(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.New()}}) }

func failedWithPolarsWords(w *world) {
	w.want("requests", "select state || ' ' || (error like '%product%')::text from polar.checkout_request", "failed true")
}

func purchaseWithoutCustomerEvents(w *world) {
	w.loseEvents("customer.*")
	w.buy(truenorth.CheckoutParams{})
}

func boughtWithItsCustomer(w *world) {
	w.wantBought()
	w.compare("customer")
}

// unheardExpiry has a session end at Polar without an event, and its time pass here.
func unheardExpiry(w *world) {
	w.t.Helper()
	w.startIngest()
	w.worker.Start()
	w.loseEvents("checkout.*")
	request, err := w.await(w.ask(identified), "open")
	if err == nil {
		err = w.fake.Expire(request.CheckoutID.String())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.calm()
	w.killWorker()
	w.exec("update polar.checkout set synced_at = now() - interval '10 minutes'")
	w.exec("update polar.checkout_request set expires_at = now() - interval '10 minutes'")
}

func requestExpired(w *world) {
	w.want("requests", "select state from polar.checkout_request", "expired")
}

// makeCustomer makes a customer at Polar.
func (w *world) makeCustomer(body string) string {
	w.t.Helper()
	raw, err := w.fake.CreateCustomer(body)
	if err != nil {
		w.t.Fatal(err)
	}
	var customer struct{ ID string }
	if err := json.Unmarshal(raw, &customer); err != nil {
		w.t.Fatal(err)
	}
	return customer.ID
}

// userAppears has a customer wait for its user, who signs up while no worker runs.
func userAppears(w *world) {
	w.startIngest()
	w.worker.Start()
	w.makeCustomer(fmt.Sprintf(`{"email":%q,"external_id":%q}`, address, user))
	w.calm()
	w.killWorker()
	w.exec("insert into polar.local_user (id, email) values ($1, $2)", user, address)
}

func userIsToBeLinked(w *world) {
	userAppears(w)
	w.exec("insert into polar.river_job (kind, args, priority, max_attempts) values ('link_customers', jsonb_build_object('users', jsonb_build_array($1::text)), 2, 1000)", user)
}

func linkedByItsID(w *world) {
	w.want("links", "select local_user_id || ' ' || basis from polar.customer_link", user+" external_id")
}

// paidByACustomerWithoutID has a checkout of the user's succeed with a younger customer, whom Polar gave no external id.
func paidByACustomerWithoutID(w *world) {
	w.t.Helper()
	w.startIngest()
	w.worker.Start()
	w.exec("insert into polar.local_user (id, email) values ($1, $2)", user, address)
	customer := w.makeCustomer(fmt.Sprintf(`{"email":%q}`, address))
	w.calm()
	w.killWorker()
	request, made := uuid.New(), time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	w.exec("insert into polar.checkout_request (id, params) values ($1, jsonb_build_object('products', jsonb_build_array(), 'external_customer_id', $2::text))", request, user)
	w.post(map[string]any{"type": "checkout.updated", "timestamp": time.Now().UTC().Format(time.RFC3339), "data": map[string]any{
		"id": uuid.New(), "created_at": made, "modified_at": time.Now().UTC().Format(time.RFC3339), "metadata": map[string]any{"truenorth_request": request},
		"status": "succeeded", "url": "https://polar.example/", "expires_at": "2036-08-22T09:00:00Z", "customer_id": customer, "external_customer_id": user,
		"organization_id": polarfake.OrganizationID,
	}})
}

// post sends an event as Polar does.
func (w *world) post(event any) {
	w.t.Helper()
	body, err := json.Marshal(event)
	if err != nil {
		w.t.Fatal(err)
	}
	headers, err := polar.Sign(secret, uuid.NewString(), time.Now(), body, polar.DerivationAuto)
	if err != nil {
		w.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.webhook, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header = headers
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		w.t.Fatalf("ingest answered %s", response.Status)
	}
}

func idWritten(w *world) {
	w.want("customers", "select external_id from polar.customer", user)
	w.compare("customer")
	w.want("links", "select local_user_id || ' ' || basis from polar.customer_link", user+" checkout")
	w.want("conflicts", "select kind from polar.link_conflict")
	if n := w.fake.Requests()[patchCustomer]; n > 2 {
		w.t.Errorf("the id was written %d times", n)
	}
}

var sweepOptions = worldOptions{endpoint: true, worker: []string{"RECONCILE_INTERVAL=1h"}}

// fillPolar makes three pages of customers that no event tells of.
func (w *world) fillPolar() { w.fake.SeedCustomers(250, "sweep") }

// vanished has a customer in the mirror that is gone at Polar.
func vanished(w *world) {
	ids := w.fake.SeedCustomers(30, "sweep")
	w.worker.Start()
	w.swept()
	w.killWorker()
	if err := w.fake.Vanish("customer", ids[7]); err != nil {
		w.t.Fatal(err)
	}
}

// swept waits until a sweep of every type is over.
func (w *world) swept() {
	w.t.Helper()
	waittest.Within(w.t, within, func() error {
		n := all[int](w, "select count(distinct object_type)::int from polar.reconcile_run where state = 'finished'")[0]
		if n < len(polarfake.ObjectTypes) {
			return fmt.Errorf("%d types are swept", n)
		}
		return nil
	})
	w.calm()
}

func (w *world) inStepWithPolar() {
	w.t.Helper()
	w.swept()
	for _, objectType := range polarfake.ObjectTypes {
		w.compare(objectType)
	}
	w.want("runs that did not finish", "select object_type || ' ' || state || ' ' || coalesce(error, '') from polar.reconcile_run where state <> 'finished'")
	w.want("differences noted twice", "select object_type || ' ' || object_id || ' ' || field from polar.drift group by object_type, object_id, field having count(*) > 1")
	noted := all[int](w, "select count(*)::int from polar.drift")[0]
	again := w.command("reconcile")
	again.Start()
	if err := again.Wait(within); err != nil {
		w.t.Fatal(err)
	}
	if n := all[int](w, "select count(*)::int from polar.drift")[0]; n != noted || n == 0 {
		w.t.Errorf("%d differences were noted, and %d after another sweep", noted, n)
	}
}

// missedByIngest has Polar give up its deliveries, as ingest was away.
func missedByIngest(w *world) {
	w.fake.AddEndpoint(polarfake.Endpoint{URL: w.webhook, Secret: secret})
	w.makeCustomer(fmt.Sprintf(`{"email":%q}`, address))
	w.givenUp()
}

// givenUp waits until Polar has given up all deliveries.
func (w *world) givenUp() {
	w.t.Helper()
	if err := w.fake.WaitIdle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func missedIsThere(w *world) {
	for _, e := range w.fake.Events() {
		if e.State != polarfake.EventFailed {
			w.t.Errorf("%s %s is %s: it was meant to be given up", e.Type, e.ID, e.State)
		}
		w.want("event "+e.Type, fmt.Sprintf("select state from polar.event where webhook_id = '%s'", e.ID), "applied")
	}
}

var enableOptions = worldOptions{
	endpoint: true, worker: []string{"RECONCILE_INTERVAL=1h", "POLAR_REENABLE_ENDPOINT=true"}, fake: polarfake.Options{RetryScale: 0.0001},
}

// disabled has Polar disable the endpoint after ten failures in a row.
func disabled(w *world) {
	w.fake.AddEndpoint(polarfake.Endpoint{URL: w.webhook, Secret: secret})
	for i := range 12 {
		w.makeCustomer(fmt.Sprintf(`{"email":"c%d@buyer-example.com"}`, i))
		w.givenUp()
	}
	if w.enabled() {
		w.t.Fatal("the endpoint is still enabled")
	}
}

func (w *world) enabled() bool {
	w.t.Helper()
	var endpoint struct{ Enabled bool }
	if err := json.Unmarshal(w.fake.Endpoints()[0], &endpoint); err != nil {
		w.t.Fatal(err)
	}
	return endpoint.Enabled
}

func enabledAgain(w *world) {
	w.want("outages", "select reason || ' ' || (ended_at is not null)::text from polar.endpoint_outage", "disabled true")
	if !w.enabled() {
		w.t.Error("the endpoint is still disabled")
	}
	w.calm() // with the sweep that catches up
	for _, objectType := range polarfake.ObjectTypes {
		w.compare(objectType)
	}
}

// someAreOld makes three events older than they are kept.
func someAreOld(w *world) {
	bought(w)
	w.removed = all[string](w, `update polar.event_log set received_at = now() - interval '91 days'
		where seq in (select seq from polar.event_log order by seq limit 3) returning webhook_id`)
}

func oldAreGone(w *world) {
	w.want("outcomes without their events", "select o.seq::text from polar.event_outcome o where not exists (select from polar.event_log l where l.seq = o.seq)")
}

// mirrorIsLost has all that was bought applied, and the mirror emptied by somebody.
func mirrorIsLost(w *world) {
	bought(w)
	w.exec(`delete from polar.customer`)
	w.exec(`delete from polar.checkout`)
	w.exec(`delete from polar."order"`)
}

func (w *world) wantForgotten() {
	w.want("traces", fmt.Sprintf(`select 'customer' from polar.customer c where c::text like '%%%[1]s%%'
		union all select 'checkout' from polar.checkout k where k::text like '%%%[1]s%%'
		union all select 'event' from polar.event e where e.body::text like '%%%[1]s%%'`, address))
}

// wantMigrated expects the schema that a migration makes which nobody kills.
func (w *world) wantMigrated() {
	w.t.Helper()
	if diff := cmp.Diff(storetest.Describe(w.t, storetest.New(w.t)), storetest.Describe(w.t, w.store)); diff != "" {
		w.t.Errorf("the schema is another (-migrated at once +killed):\n%s", diff)
	}
}
