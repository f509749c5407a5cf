package polarfake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// The states of a refund.
const (
	refundPending   = "pending"
	refundSucceeded = "succeeded"
	refundFailed    = "failed"
	refundCanceled  = "canceled"
)

var refundReasons = []string{
	"duplicate", "fraudulent", "customer_request", "service_disruption", "satisfaction_guarantee", "other",
}

// refund is money given back; its exported fields are its document.
type refund struct {
	CreatedAt      timestamp  `json:"created_at"`
	ModifiedAt     *timestamp `json:"modified_at"`
	ID             string     `json:"id"`
	Metadata       metadata   `json:"metadata"`
	Status         string     `json:"status"`
	Reason         string     `json:"reason"`
	Amount         int64      `json:"amount"`
	TaxAmount      int64      `json:"tax_amount"`
	Currency       string     `json:"currency"`
	OrganizationID string     `json:"organization_id"`
	OrderID        string     `json:"order_id"`
	SubscriptionID *string    `json:"subscription_id"`
	CustomerID     string     `json:"customer_id"`
	RevokeBenefits bool       `json:"revoke_benefits"`
	Dispute        *string    `json:"dispute"`

	order    *order
	sequence int64
}

func (r *refund) standing() (id string, created rank) {
	return r.ID, rank{at: r.CreatedAt.Time, sequence: r.sequence}
}

// RefundOptions are how an order is refunded.
type RefundOptions struct {
	// Amount in cents; 0 means all that is left.
	Amount int64 `json:"amount"`
	// Reason is one of Polar's; "" means customer_request.
	Reason string `json:"reason"`
	// RevokeBenefits takes back what the order gave. Only one-time purchases can.
	RevokeBenefits bool `json:"revoke_benefits"`
	// Pending leaves the money under way, for [Fake.SettleRefund] to settle.
	Pending bool `json:"pending"`
}

// RefundOrder refunds an order and returns the document of the refund.
func (f *Fake) RefundOrder(orderID string, options RefundOptions) (json.RawMessage, error) {
	var document json.RawMessage
	err := act(f, &f.sales.orders, orderID, func(o *order) error {
		if options.Amount == 0 {
			options.Amount = o.RefundableAmount
		}
		if options.Reason == "" {
			options.Reason = "customer_request"
		}
		created, err := f.refundOrder(o, options, metadata{})
		if err == nil {
			document = encode(created)
		}
		return err
	})
	return document, err
}

// CreateRefund does what POST /v1/refunds/ does with the body and returns the document.
func (f *Fake) CreateRefund(body string) (json.RawMessage, error) {
	return f.call(f.createRefund, body, nil)
}

// SettleRefund makes a refund "succeeded", "failed" or "canceled". One that had succeeded can fail later.
func (f *Fake) SettleRefund(id, status string) error {
	return act(f, &f.sales.refunds, id, func(r *refund) error { return f.settleRefund(r, status) })
}

func (f *Fake) createRefund(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"order_id", "reason", "amount"} {
		body.require(name)
	}
	orderID, reason := body.identifier("order_id"), body.choice("reason", refundReasons)
	amount, given := body.integer("amount", 1, maximumAmount), body.metadata("metadata")
	revoke := body.boolean("revoke_benefits", false)
	body.text("comment", 0, 0)
	if err := body.err(); err != nil {
		return nil, err
	}
	o, exists := f.sales.orders.byID[*orderID]
	if !exists {
		body.failValue(body.at("order_id"), "Order not found", *orderID)
		return nil, body.ruleErr()
	}
	return f.refundOrder(o, RefundOptions{Amount: *amount, Reason: *reason, RevokeBenefits: revoke}, given)
}

func (f *Fake) refundOrder(o *order, options RefundOptions, given metadata) (*refund, error) {
	switch {
	case o.Status == orderRefunded:
		return nil, &APIError{Status: http.StatusForbidden, Name: "RefundedAlready", Detail: "Order is already fully refunded: " + o.ID}
	case options.RevokeBenefits && o.subscription != nil:
		return nil, &APIError{
			Status: http.StatusBadRequest, Name: "RevokeSubscriptionBenefitsProhibited",
			Detail: "Subscription benefits can only be revoked upon cancellation",
		}
	case options.Amount > o.RefundableAmount:
		return nil, &APIError{
			Status: http.StatusBadRequest, Name: "RefundAmountTooHigh",
			Detail: fmt.Sprintf("Refund amount exceeds remaining order balance: %d", o.RefundableAmount),
		}
	case !o.Paid || o.NetAmount == 0:
		return nil, &APIError{
			Status: http.StatusNotFound, Name: "RefundUnknownPayment", Detail: "Refund issued for unknown order: " + o.ID,
		}
	}
	created := &refund{
		CreatedAt: f.now(), ID: f.newID(), Metadata: given, Status: refundPending, Reason: options.Reason, Amount: options.Amount,
		Currency: o.Currency, OrganizationID: OrganizationID, OrderID: o.ID, SubscriptionID: o.SubscriptionID,
		CustomerID: o.CustomerID, RevokeBenefits: options.RevokeBenefits, order: o, sequence: f.next(),
	}
	f.sales.refunds.add(created)
	if !options.Pending {
		created.Status = refundSucceeded
		f.countRefund(created, created.Amount)
	}
	f.emit("refund.created", created.ID, created)
	if !options.Pending {
		o.tell(f, "order.refunded")
		f.emit("refund.updated", created.ID, created) // the payment processor's own notice follows, with nothing new
	}
	if options.RevokeBenefits {
		f.revokeAll(purchase{order: o})
	}
	return created, nil
}

// countRefund books an amount on the order of a refund, or takes it back when it is negative.
func (f *Fake) countRefund(r *refund, amount int64) {
	o := r.order
	o.RefundedAmount += amount
	o.RefundableAmount = o.NetAmount - o.RefundedAmount
	switch o.RefundedAmount {
	case 0:
		o.Status = orderPaid
	case o.NetAmount:
		o.Status = orderRefunded
	default:
		o.Status = orderPartiallyRefunded
	}
	o.ModifiedAt = new(f.now())
	o.tell(f, "order.updated")
}

func (f *Fake) settleRefund(r *refund, status string) error {
	had := r.Status
	allowed := []string{refundSucceeded, refundFailed, refundCanceled}
	if !slices.Contains(allowed, status) {
		return fmt.Errorf("refund status %q is not one of %v", status, allowed)
	}
	if had == status || had == refundFailed || had == refundCanceled {
		return &APIError{
			Status: http.StatusConflict, Name: "RefundSettled", Detail: fmt.Sprintf("refund %s is %s", r.ID, had),
		}
	}
	r.Status, r.ModifiedAt = status, new(f.now())
	switch {
	case status == refundSucceeded:
		f.countRefund(r, r.Amount)
	case had == refundSucceeded:
		f.countRefund(r, -r.Amount)
	}
	f.emit("refund.updated", r.ID, r)
	if status == refundSucceeded {
		r.order.tell(f, "order.refunded")
	}
	return nil
}

func (f *Fake) listRefunds(r *request) (any, error) {
	query := r.query()
	ids, orders, sales := query.identifiers("id"), query.identifiers("order_id"), query.sales()
	succeeded, paging := query.boolean("succeeded"), query.paging("created_at", "amount")
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*refund]{
		all: f.sales.refunds.all, order: "created_at", render: f.sales.refunds.render,
		allow: func(r *refund) bool {
			// Polar asks whether succeeded is true; false filters nothing.
			return ids.allow(r.ID) && orders.allow(r.OrderID) && sales.allowOwner(r.order.owner) &&
				sales.subscriptions.allowOptional(r.SubscriptionID) && (!deref(succeeded) || r.Status == refundSucceeded)
		},
		key: func(r *refund, by string) sortable {
			if by == "amount" {
				return byNumber(r.Amount)
			}
			return byTime(r.CreatedAt)
		},
	}.page(paging), nil
}
