package polarfake_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// monthlyBuyer is a fake with one subscription to the monthly product, which comes with a benefit.
func monthlyBuyer(t *testing.T) (b *testBundle, id string) {
	t.Helper()

	b = setup(t)
	return b, b.subscribed(polarfake.MonthlyProductID, "buyer@example.com", "").text("id")
}

func TestSubscriptionLivesThroughEverything(t *testing.T) {
	t.Parallel()

	b, id := monthlyBuyer(t)
	now := func() document { return b.object("subscription", id) }
	granted := func() bool { return b.only("benefit_grant")["is_granted"] == true }
	start := now()
	if !granted() {
		t.Fatal("the purchase granted nothing")
	}

	b.tells(func() { b.must(b.CycleSubscription(id)) },
		"subscription.updated", "subscription.cycled", "order.created", "order.updated", "order.paid", "benefit_grant.cycled")
	if now().text("current_period_start") != start.text("current_period_end") || now().text("current_period_end") <= start.text("current_period_end") {
		t.Errorf("the period did not roll over: %v", now())
	}
	orders := b.expect(http.StatusOK, http.MethodGet, "/v1/orders/?subscription_id="+id+"&sorting=created_at", "").items()
	if len(orders) != 2 || orders[1].text("billing_reason") != "subscription_cycle" || orders[1].text("status") != "paid" ||
		orders[0].text("billing_reason") != "subscription_create" {
		t.Errorf("orders %v", orders)
	}

	b.tells(func() { b.must(b.CancelSubscription(id)) }, "subscription.updated", "subscription.canceled")
	if s := now(); s["cancel_at_period_end"] != true || s.text("status") != "active" || s.text("ends_at") != s.text("current_period_end") || !granted() {
		t.Errorf("canceled %v", s)
	}
	wantAPIError(t, b.CancelSubscription(id), http.StatusForbidden, "AlreadyCanceledSubscription")
	b.tells(func() { b.must(b.UncancelSubscription(id)) }, "subscription.updated", "subscription.uncanceled")
	if s := now(); s["cancel_at_period_end"] != false || s["ends_at"] != nil || s["canceled_at"] != nil {
		t.Errorf("uncanceled %v", s)
	}
	wantAPIError(t, b.UncancelSubscription(id), http.StatusBadRequest, "BadRequest")

	b.tells(func() { b.must(b.FailRenewal(id)) }, "subscription.updated", "subscription.cycled", "order.created", "order.updated",
		"subscription.updated", "subscription.past_due", "benefit_grant.revoked")
	if s := now(); s.text("status") != "past_due" || s["past_due_at"] == nil || granted() {
		t.Errorf("past due %v", s)
	}
	due := b.object("order", pendingOrder(b))
	if due["paid"] != false || due["next_payment_attempt_at"] == nil || due["modified_at"] == nil {
		t.Errorf("order %v", due)
	}
	b.tells(func() { b.must(b.PayOrder(due.text("id"))) }, "order.updated", "order.paid",
		"subscription.updated", "subscription.active", "benefit_grant.created")
	if s := now(); s.text("status") != "active" || s["past_due_at"] != nil || !granted() || len(b.Grants()) != 1 {
		t.Errorf("recovered %v", s)
	}
	wantAPIError(t, b.PayOrder(due.text("id")), http.StatusConflict, "OrderNotPending")

	b.tells(func() { b.must(b.PauseSubscription(id)) }, "subscription.updated", "subscription.paused", "benefit_grant.revoked")
	if s := now(); s.text("status") != "paused" || s["paused_at"] == nil || granted() {
		t.Errorf("paused %v", s)
	}
	wantAPIError(t, b.PauseSubscription(id), http.StatusForbidden, "InactiveSubscription")
	b.tells(func() { b.must(b.ResumeSubscription(id)) }, "subscription.updated", "subscription.resumed", "benefit_grant.created",
		"order.created", "order.updated", "order.paid")
	if s := now(); s.text("status") != "active" || s["paused_at"] != nil || !granted() {
		t.Errorf("resumed %v", s)
	}
	wantAPIError(t, b.ResumeSubscription(id), http.StatusForbidden, "InactiveSubscription")

	b.tells(func() { b.must(b.MigrateSubscription(id, "stripe", "sub_1")) }, "subscription.updated", "subscription.migrated")
	b.tells(func() { b.must(b.RevokeSubscription(id)) }, "subscription.updated", "subscription.canceled", "subscription.revoked",
		"benefit_grant.revoked")
	if s := now(); s.text("status") != "canceled" || s["ended_at"] == nil || s["ends_at"] == nil || granted() {
		t.Errorf("revoked %v", s)
	}
	grant := b.only("benefit_grant")
	if grant["granted_at"] != nil || grant["revoked_at"] == nil || grant["is_revoked"] != true {
		t.Errorf("grant %v", grant)
	}
	wantAPIError(t, b.RevokeSubscription(id), http.StatusForbidden, "AlreadyCanceledSubscription")
	wantAPIError(t, b.CycleSubscription(id), http.StatusForbidden, "InactiveSubscription")
	wantAPIError(t, b.UncancelSubscription(id), http.StatusGone, "ResourceUnavailable")
	b.idle()
	if state := b.lastOf("customer.state_changed"); len(state.list("active_subscriptions"))+len(state.list("granted_benefits")) != 0 {
		t.Errorf("the last state still shows access: %v", state)
	}
}

func TestCanceledSubscriptionEndsWithItsPeriod(t *testing.T) {
	t.Parallel()

	b, id := monthlyBuyer(t)
	b.must(b.CancelSubscription(id))
	b.tells(func() { b.must(b.CycleSubscription(id)) },
		"subscription.updated", "subscription.canceled", "subscription.revoked", "benefit_grant.revoked")
	if s := b.object("subscription", id); s.text("status") != "canceled" || s["ended_at"] == nil || len(b.Orders()) != 1 {
		t.Errorf("subscription %v", s)
	}
}

func TestUnpaidSubscriptionIsGivenUp(t *testing.T) {
	t.Parallel()

	b, id := monthlyBuyer(t)
	wantAPIError(t, b.GiveUpSubscription(id), http.StatusForbidden, "InactiveSubscription")
	b.must(b.FailRenewal(id))
	b.tells(func() { b.must(b.GiveUpSubscription(id)) }, "subscription.updated", "subscription.revoked")
	if s := b.object("subscription", id); s.text("status") != "unpaid" || s["ended_at"] == nil {
		t.Errorf("subscription %v", s)
	}
}

func TestIncompleteSubscriptionStartsLater(t *testing.T) {
	t.Parallel()

	b := setup(t)
	buyer := b.customer(`{"email":"buyer@example.com","external_id":"usr_1"}`).text("id")
	var id string
	b.tells(func() {
		body := `{"product_id":"` + polarfake.MonthlyProductID + `","external_customer_id":"usr_1"}`
		id = b.read(b.SubscribeIncomplete(body)).text("id")
	}, "subscription.created")
	if s := b.object("subscription", id); s["started_at"] != nil || s.text("status") != "incomplete" || s.text("customer_id") != buyer {
		t.Errorf("incomplete %v", s)
	}
	b.tells(func() { b.must(b.StartSubscription(id)) }, "subscription.updated", "subscription.active", "benefit_grant.created")
	if s := b.object("subscription", id); s["started_at"] == nil || s.text("status") != "active" {
		t.Errorf("started %v", s)
	}
	wantAPIError(t, b.StartSubscription(id), http.StatusConflict, "SubscriptionStarted")
}

func TestFreeSubscriptionIsCreatedWithoutACheckout(t *testing.T) {
	t.Parallel()

	b := setup(t)
	buyer := b.customer(`{"email":"buyer@example.com"}`).text("id")
	body := `{"product_id":"` + polarfake.FreeProductID + `","customer_id":"` + buyer + `","metadata":{"k":"v"}}`
	b.tells(func() { b.expect(http.StatusCreated, http.MethodPost, "/v1/subscriptions/", body) },
		"subscription.created", "subscription.active", "order.created", "order.paid")
	b.expect(http.StatusForbidden, http.MethodPost, "/v1/subscriptions/", body)
	for _, refused := range []string{
		`{}`, `{"product_id":"` + polarfake.MonthlyProductID + `","customer_id":"` + buyer + `"}`,
		`{"product_id":"` + polarfake.OneTimeProductID + `","customer_id":"` + buyer + `"}`,
		`{"product_id":"` + buyer + `","external_customer_id":"nobody"}`,
	} {
		b.expect(http.StatusUnprocessableEntity, http.MethodPost, "/v1/subscriptions/", refused)
	}
}

func TestSubscriptionIsPatched(t *testing.T) {
	t.Parallel()

	b, id := monthlyBuyer(t)
	path := "/v1/subscriptions/" + id
	patch := func(body string) document { return b.expect(http.StatusOK, http.MethodPatch, path, body) }
	d := b.read(b.CreateDiscount(`{"type":"fixed","name":"Less","duration":"repeating","duration_in_months":3,"amount":200}`)).text("id")

	if s := patch(`{"metadata":{"k":"v"},"discount_id":"` + d + `"}`); s.object("metadata").text("k") != "v" || s.text("discount_id") != d ||
		s.object("discount").text("name") != "Less" {
		t.Errorf("base %v", s)
	}
	b.must(b.CycleSubscription(id))
	for _, raw := range b.Objects("order") {
		if o := decode(t, raw); o.text("billing_reason") == "subscription_cycle" && (o["discount_amount"] != 200.0 || o["net_amount"] != 1000.0) {
			t.Errorf("the renewal was not discounted: %v", o)
		}
	}
	b.tells(func() { patch(`{"pause_at_period_end":true}`) }, "subscription.updated")
	b.tells(func() { b.must(b.CycleSubscription(id)) }, "subscription.updated", "subscription.paused", "benefit_grant.revoked")
	if s := patch(`{"resume":true}`); s.text("status") != "active" {
		t.Errorf("resumed %v", s)
	}
	end := b.object("subscription", id).text("current_period_end")
	later, err := time.Parse(time.RFC3339Nano, end)
	b.must(err)
	body := `{"current_billing_period_end":"` + later.Add(time.Hour).Format(time.RFC3339Nano) + `"}`
	if s := patch(body); s.text("current_period_end") == end {
		t.Errorf("extended %v", s)
	}
	if s := patch(`{"product_id":"` + polarfake.FreeProductID + `","discount_id":null}`); s["amount"] != 0.0 || s["discount"] != nil {
		t.Errorf("of another product %v", s)
	}
	if b.only("benefit_grant")["is_granted"] != false {
		t.Error("what the former product gave is kept")
	}
	patch(`{"trial_end":"now"}`)
	if s := patch(`{"cancel_at_period_end":true,"customer_cancellation_reason":"unused"}`); s.text("customer_cancellation_reason") != "unused" {
		t.Errorf("canceled %v", s)
	}
	patch(`{"cancel_at_period_end":false}`)
	for body, status := range map[string]int{
		`{"revoke":false}`: 422, `{"resume":"yes"}`: 422, `{"seats":0}`: 422, `{"seats":2}`: 400,
		`{"cancel_at_period_end":true,"customer_cancellation_reason":"bored"}`: 422,
		`{"pause_at_period_end":true,"resumes_at":"2020-01-01T00:00:00Z"}`:     422,
		`{"current_billing_period_end":"2020-01-01T00:00:00Z"}`:                422,
		`{"product_id":"` + polarfake.OneTimeProductID + `"}`:                  422,
		`{"product_id":"` + polarfake.ArchivedProductID + `"}`:                 422,
		`{"product_id":"` + id + `"}`:                                          422,
		`{"discount_id":"` + id + `"}`:                                         422,
	} {
		b.expect(status, http.MethodPatch, path, body)
	}
	if s := b.expect(http.StatusOK, http.MethodDelete, path, ""); s.text("status") != "canceled" {
		t.Errorf("revoked %v", s)
	}
	b.expect(http.StatusForbidden, http.MethodDelete, path, "")
	b.expect(http.StatusForbidden, http.MethodPatch, path, `{"pause_at_period_end":true}`)
	b.idle()
}

func TestOnlyATrueChangeIsDated(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	buyer := b.customer(`{"email":"ada@example.com","name":"Ada"}`)
	product := "/v1/products/" + polarfake.OneTimeProductID
	clock.advance(time.Hour)
	for path, body := range map[string]string{
		"/v1/customers/" + buyer.text("id"): `{"name":"Ada"}`,
		product:                             `{"name":"Field guide"}`,
		"/v1/organizations/" + polarfake.OrganizationID: `{"name":"True North"}`,
	} {
		if same := b.expect(http.StatusOK, http.MethodPatch, path, body); same["modified_at"] != nil {
			t.Errorf("%s says that nothing changed at %v", path, same["modified_at"])
		}
	}
	changed := b.expect(http.StatusOK, http.MethodPatch, product, `{"name":"Guide"}`)
	if at, err := time.Parse(time.RFC3339Nano, changed.text("modified_at")); err != nil || at.Before(clock.Now().Add(-time.Second)) {
		t.Errorf("modified_at %v", changed["modified_at"])
	}
	if types := b.idle(); count(types, "customer.updated") != 1 || count(types, "product.updated") != 2 || count(types, "organization.updated") != 1 {
		t.Errorf("saving without a change was not told of: %v", types)
	}
}
