package polarfake_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// boughtOnce is a fake with one order of the one-time product, over 49.00.
func boughtOnce(t *testing.T) (b *testBundle, order string) {
	t.Helper()

	b = setup(t)
	b.must(b.Pay(b.checkoutOf(polarfake.OneTimeProductID, "").text("id"), polarfake.PayOptions{Email: "buyer@example.com"}))
	return b, b.only("order").text("id")
}

func TestOrderIsRefundedInParts(t *testing.T) {
	t.Parallel()

	b, order := boughtOnce(t)
	create := func(status int, amount int, extra string) document {
		return b.expect(status, http.MethodPost, "/v1/refunds/",
			`{"order_id":"`+order+`","reason":"customer_request","amount":`+strconv.Itoa(amount)+extra+`}`)
	}
	b.tells(func() { create(http.StatusCreated, 900, `,"metadata":{"k":"v"}`) },
		"order.updated", "refund.created", "order.refunded", "refund.updated")
	if o := b.object("order", order); o.text("status") != "partially_refunded" || o["refunded_amount"] != 900.0 ||
		o["refundable_amount"] != 4000.0 || o["modified_at"] == nil || o["paid"] != true {
		t.Errorf("order %v", o)
	}
	create(http.StatusBadRequest, 4001, "")
	create(http.StatusUnprocessableEntity, 0, "")
	b.tells(func() { create(http.StatusCreated, 4000, `,"revoke_benefits":true`) },
		"order.updated", "refund.created", "order.refunded", "refund.updated", "benefit_grant.revoked")
	if o := b.object("order", order); o.text("status") != "refunded" || o["refundable_amount"] != 0.0 {
		t.Errorf("order %v", o)
	}
	create(http.StatusForbidden, 1, "")
	refunds := b.expect(http.StatusOK, http.MethodGet, "/v1/refunds/?sorting=amount&order_id="+order, "").items()
	if len(refunds) != 2 || refunds[0]["amount"] != 900.0 || refunds[0].object("metadata").text("k") != "v" || refunds[1]["revoke_benefits"] != true {
		t.Errorf("refunds %v", refunds)
	}
	b.idle()
}

func TestPendingRefundIsSettledLater(t *testing.T) {
	t.Parallel()

	b, order := boughtOnce(t)
	var id string
	b.tells(func() { id = b.read(b.RefundOrder(order, polarfake.RefundOptions{Pending: true})).text("id") }, "refund.created")
	if o := b.object("order", order); o.text("status") != "paid" || b.only("refund").text("status") != "pending" {
		t.Errorf("order %v", o)
	}
	b.tells(func() { b.must(b.SettleRefund(id, "succeeded")) }, "order.updated", "refund.updated", "order.refunded")
	b.tells(func() { b.must(b.SettleRefund(id, "failed")) }, "order.updated", "refund.updated")
	if o := b.object("order", order); o.text("status") != "paid" || o["refunded_amount"] != 0.0 || b.only("refund").text("status") != "failed" {
		t.Errorf("order after the refund failed: %v", o)
	}
	wantAPIError(t, b.SettleRefund(id, "succeeded"), http.StatusConflict, "RefundSettled")
	if b.SettleRefund(id, "lost") == nil || b.SettleRefund(order, "failed") == nil {
		t.Error("an unknown status or refund was taken")
	}
	b.idle()
}

func TestSomeOrdersCannotBeRefunded(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.must(b.Pay(b.checkoutOf(polarfake.FreeProductID, "").text("id"), polarfake.PayOptions{Email: "free@example.com"}))
	free := b.only("order").text("id")
	_, err := b.RefundOrder(free, polarfake.RefundOptions{})
	wantAPIError(t, err, http.StatusNotFound, "RefundUnknownPayment")
	_, err = b.RefundOrder(free, polarfake.RefundOptions{RevokeBenefits: true})
	wantAPIError(t, err, http.StatusBadRequest, "RevokeSubscriptionBenefitsProhibited")
	for body, want := range map[string]int{
		`{}`: 422, `{"order_id":"` + polarfake.MeterID + `","reason":"other","amount":1}`: 422,
		`{"order_id":"` + free + `","reason":"dispute_prevention","amount":1}`: 422,
	} {
		b.expect(want, http.MethodPost, "/v1/refunds/", body)
	}
}

func TestOrderIsPatched(t *testing.T) {
	t.Parallel()

	b, order := boughtOnce(t)
	b.tells(func() {
		o := b.expect(http.StatusOK, http.MethodPatch, "/v1/orders/"+order, `{"billing_name":"Ada Ltd","billing_address":{"country":"GB"}}`)
		if o.text("billing_name") != "Ada Ltd" || o.object("billing_address").text("country") != "GB" || o["modified_at"] == nil {
			t.Errorf("order %v", o)
		}
	}, "order.updated")
	b.read(b.UpdateOrder(order, `{}`))
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, "/v1/orders/"+order, `{"billing_name":1}`)
}
