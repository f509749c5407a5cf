package polarfake_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// control calls what the fake has beside Polar's API, and returns what came of it.
func (b *testBundle) control(status int, method, path, body string) []byte {
	b.t.Helper()

	got, _, answer := b.raw(method, "/_fake/"+path, body, nil)
	if got != status {
		b.t.Fatalf("%s %s answered %d, want %d: %s", method, path, got, status, answer)
	}
	return answer
}

func TestEverythingCanBeDoneFromAnotherProcess(t *testing.T) {
	t.Parallel()

	b, customer, seats := team(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions = true })
	do := func(path, body string) document {
		return decode(t, b.control(http.StatusOK, http.MethodPost, path, body))
	}
	s := b.subscribed(polarfake.MonthlyProductID, "", `"customer_id":"`+customer+`"`).text("id")
	for _, step := range []struct{ action, status string }{
		{"cycle", "active"},
		{"cancel", "active"},
		{"uncancel", "active"},
		{"pause", "paused"},
		{"resume", "active"},
		{"fail-renewal", "past_due"},
		{"give-up", "unpaid"},
	} {
		if got := do("subscriptions/"+s+"/"+step.action, "").text("status"); got != step.status {
			t.Errorf("%s: %s", step.action, got)
		}
	}
	if paid := do("orders/"+pendingOrder(b)+"/pay", "{}"); paid.text("status") != "paid" {
		t.Errorf("order %v", paid)
	}
	order := b.expect(http.StatusOK, http.MethodGet, "/v1/orders/?limit=1", "").items()[0].text("id")
	for _, settle := range []struct{ action, status string }{{"succeed", "succeeded"}, {"fail", "failed"}, {"cancel", "canceled"}} {
		id := do("orders/"+order+"/refund", `{"amount":100,"pending":true}`).text("id")
		if got := do("refunds/"+id+"/"+settle.action, "").text("status"); got != settle.status {
			t.Errorf("%s: %s", settle.action, got)
		}
	}
	incomplete := do("subscriptions/incomplete", `{"product_id":"`+polarfake.MonthlyProductID+`","customer_id":"`+customer+`"}`).text("id")
	if got := do("subscriptions/"+incomplete+"/start", "").text("status"); got != "active" {
		t.Errorf("started: %s", got)
	}
	do("subscriptions/"+incomplete+"/migrate", `{"provider":"stripe","provider_subscription_id":"sub_1"}`)
	grant := ""
	for id, raw := range b.Objects("benefit_grant") {
		if decode(t, raw)["is_granted"] == true {
			grant = id
		}
	}
	for _, action := range []string{"update", "cycle", "revoke"} {
		do("benefit-grants/"+grant+"/"+action, "")
	}
	seat := b.read(b.AssignSeat(`{"subscription_id":"` + seats + `","email":"one@example.com"}`)).text("id")
	for _, action := range []string{"claim", "revoke"} {
		do("customer-seats/"+seat+"/"+action, "")
	}
	do("subscriptions/"+incomplete+"/revoke", "")

	b.control(http.StatusBadRequest, http.MethodPost, "subscriptions/"+s+"/explode", "")
	b.control(http.StatusNotFound, http.MethodPost, "orders/"+s+"/pay", "")
	b.control(http.StatusNotFound, http.MethodPost, "orders/"+s+"/refund", `{"amount":1}`)
	b.control(http.StatusForbidden, http.MethodPost, "subscriptions/"+s+"/cycle", "")

	var orders map[string]json.RawMessage
	b.must(json.Unmarshal(b.control(http.StatusOK, http.MethodGet, "objects/order", ""), &orders))
	if _, exists := orders[order]; !exists || len(orders) != len(b.Orders()) {
		t.Errorf("%d orders", len(orders))
	}
	b.control(http.StatusOK, http.MethodDelete, "objects/order/"+order, "")
	b.control(http.StatusNotFound, http.MethodDelete, "objects/order/"+order, "")
	b.control(http.StatusBadRequest, http.MethodGet, "objects/invoice", "")
	var gone []string
	b.must(json.Unmarshal(b.control(http.StatusOK, http.MethodGet, "objects/order/deleted", ""), &gone))
	if !slices.Equal(gone, []string{order}) {
		t.Errorf("gone %v", gone)
	}
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/orders/"+order, "")
	b.idle()
}

func TestSeedsOfEveryKind(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.control(http.StatusBadRequest, http.MethodPost, "seed", `{"orders":1}`)
	var ids []string
	b.must(json.Unmarshal(b.control(http.StatusOK, http.MethodPost, "seed", `{"customers":3,"prefix":"u","orders":4,"subscriptions":5,"checkouts":6}`), &ids))
	if len(ids) != 18 || len(b.Customers()) != 3 || len(b.Orders()) != 4 || len(b.Subscriptions()) != 5 || len(b.Checkouts()) != 6 {
		t.Errorf("%d ids, state %+v", len(ids), b.State())
	}
}
