package polarfake

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// The states of an order that the fake gives one.
const (
	orderPending           = "pending"
	orderPaid              = "paid"
	orderRefunded          = "refunded"
	orderPartiallyRefunded = "partially_refunded"
)

var orderStatuses = []string{"draft", orderPending, orderPaid, orderRefunded, orderPartiallyRefunded, "void"}

// order is a purchase, or one period of a subscription; its exported fields are its document, but for what is looked
// up to show it.
type order struct {
	ID                   string         `json:"id"`
	CreatedAt            timestamp      `json:"created_at"`
	ModifiedAt           *timestamp     `json:"modified_at"`
	Status               string         `json:"status"`
	Paid                 bool           `json:"paid"`
	SubtotalAmount       int64          `json:"subtotal_amount"`
	DiscountAmount       int64          `json:"discount_amount"`
	NetAmount            int64          `json:"net_amount"`
	TaxAmount            int64          `json:"tax_amount"`
	TotalAmount          int64          `json:"total_amount"`
	AppliedBalanceAmount int64          `json:"applied_balance_amount"`
	DueAmount            int64          `json:"due_amount"`
	RefundedAmount       int64          `json:"refunded_amount"`
	RefundedTaxAmount    int64          `json:"refunded_tax_amount"`
	RefundableAmount     int64          `json:"refundable_amount"`
	RefundableTaxAmount  int64          `json:"refundable_tax_amount"`
	Currency             string         `json:"currency"`
	BillingReason        string         `json:"billing_reason"`
	BillingName          *string        `json:"billing_name"`
	BillingAddress       *address       `json:"billing_address"`
	InvoiceNumber        *string        `json:"invoice_number"`
	IsInvoiceGenerated   bool           `json:"is_invoice_generated"`
	ReceiptNumber        *string        `json:"receipt_number"`
	Seats                *int64         `json:"seats"`
	Units                *int64         `json:"units"`
	CustomerID           string         `json:"customer_id"`
	ProductID            *string        `json:"product_id"`
	DiscountID           *string        `json:"discount_id"`
	SubscriptionID       *string        `json:"subscription_id"`
	CheckoutID           *string        `json:"checkout_id"`
	NextPaymentAttemptAt *timestamp     `json:"next_payment_attempt_at"`
	Metadata             metadata       `json:"metadata"`
	CustomFieldData      map[string]any `json:"custom_field_data"`
	PlatformFeeAmount    int64          `json:"platform_fee_amount"`
	PlatformFeeCurrency  *string        `json:"platform_fee_currency"`
	Items                []orderItem    `json:"items"`
	Description          string         `json:"description"`

	owner        *customer
	product      *product
	discount     *discount
	subscription *subscription
	sequence     int64
}

type orderItem struct {
	CreatedAt      timestamp  `json:"created_at"`
	ModifiedAt     *timestamp `json:"modified_at"`
	ID             string     `json:"id"`
	Label          string     `json:"label"`
	Amount         int64      `json:"amount"`
	TaxAmount      int64      `json:"tax_amount"`
	Proration      bool       `json:"proration"`
	ProductPriceID *string    `json:"product_price_id"`
}

// orderDocument shows an order with what it refers to as that is now.
type orderDocument struct {
	order

	Customer     customer            `json:"customer"`
	Product      orderProduct        `json:"product"`
	Discount     *discountBase       `json:"discount"`
	Subscription *subscriptionCommon `json:"subscription"`
}

func (o *order) standing() (id string, created rank) {
	return o.ID, rank{at: o.CreatedAt.Time, sequence: o.sequence}
}

func (o *order) document() orderDocument {
	document := orderDocument{
		order: *o, Customer: o.owner.document(), Product: o.product.forOrder(), Discount: o.discount.base(),
	}
	if o.subscription != nil {
		document.Subscription = &o.subscription.subscriptionCommon
	}
	return document
}

// newOrder makes an order over an amount, less what a discount takes off. It is paid unless there is something to pay.
func (f *Fake) newOrder(buyer *customer, sold *product, currency string, amount int64, d *discount, now timestamp) *order {
	f.invoices++
	off := d.off(amount, currency)
	net := amount - off
	o := &order{
		ID: f.newID(), CreatedAt: now, Status: orderPending, SubtotalAmount: amount, DiscountAmount: off, NetAmount: net,
		TotalAmount: net, DueAmount: net, RefundableAmount: net, Currency: currency, BillingReason: "purchase",
		BillingName: firstOf(buyer.BillingName, buyer.Name), BillingAddress: buyer.BillingAddress,
		InvoiceNumber: new(fmt.Sprintf("TRUE-%06d", f.invoices)), CustomerID: buyer.ID, ProductID: &sold.ID,
		Metadata: metadata{}, CustomFieldData: map[string]any{}, Description: sold.Name,
		Items: []orderItem{{CreatedAt: now, ID: f.newID(), Label: sold.Name, Amount: amount}},
		owner: buyer, product: sold, sequence: f.next(),
	}
	if net == 0 {
		o.Status, o.Paid = orderPaid, true
	}
	if d != nil {
		o.DiscountID, o.discount = &d.ID, d
	}
	return o
}

// tell emits an event of an order.
func (o *order) tell(f *Fake, eventType string) { f.emit(eventType, o.ID, o.document()) }

// Orders returns the documents of all orders, oldest first.
func (f *Fake) Orders() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.sales.orders.documents()
}

// PayOrder has the payment of a pending order succeed. A subscription that was past due for it is active again.
func (f *Fake) PayOrder(id string) error {
	return act(f, &f.sales.orders, id, f.payOrder)
}

// UpdateOrder does what PATCH /v1/orders/{id} does with the body and returns the document.
func (f *Fake) UpdateOrder(id, body string) (json.RawMessage, error) {
	return f.call(f.updateOrder, body, map[string]string{"id": id})
}

func (f *Fake) payOrder(o *order) error {
	if o.Status != orderPending {
		return &APIError{
			Status: http.StatusConflict, Name: "OrderNotPending",
			Detail: fmt.Sprintf("order %s is %s, not pending", o.ID, o.Status),
		}
	}
	f.settleOrder(o)
	if o.subscription != nil && o.subscription.Status == subscriptionPastDue {
		f.changeSubscription(o.subscription, func(timestamp) {
			o.subscription.Status, o.subscription.PastDueAt = subscriptionActive, nil
		})
	}
	if o.subscription == nil {
		f.grantAll(purchase{order: o})
	}
	return nil
}

// settleOrder records the payment of a pending order.
func (f *Fake) settleOrder(o *order) {
	o.Status, o.Paid, o.NextPaymentAttemptAt, o.ModifiedAt = orderPaid, true, nil, new(f.now())
	o.tell(f, "order.updated")
	o.tell(f, "order.paid")
}

func (f *Fake) updateOrder(r *request) (any, error) {
	o, err := f.sales.orders.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	name, billing := body.text("billing_name", 0, 0), body.address("billing_address")
	if err := body.err(); err != nil {
		return nil, err
	}
	f.revise(func() any { return o.document() }, &o.ModifiedAt, func() {
		if body.has("billing_name") {
			o.BillingName = name
		}
		o.BillingAddress = firstOf(billing, o.BillingAddress)
	})
	o.tell(f, "order.updated")
	return o.document(), nil
}

func (f *Fake) listOrders(r *request) (any, error) {
	query := r.query()
	sales, statuses := query.sales(), query.choices("status", orderStatuses)
	billing := query.choices("product_billing_type", []string{"one_time", "recurring"})
	from, until := query.moment("created_after"), query.moment("created_before")
	paging := query.paging("created_at", "status", "invoice_number", "amount", "net_amount", "customer", "product", "discount", "subscription")
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*order]{
		all: f.sales.orders.all, order: "created_at", render: f.sales.orders.render, key: orderKey,
		allow: func(o *order) bool {
			return sales.allowOwner(o.owner) && sales.products.allowOptional(o.ProductID) && statuses.allow(o.Status) &&
				billing.allow(o.product.billingType()) && sales.discounts.allowOptional(o.DiscountID) &&
				sales.subscriptions.allowOptional(o.SubscriptionID) && sales.checkouts.allowOptional(o.CheckoutID) &&
				(from == nil || !o.CreatedAt.Before(*from)) && (until == nil || !o.CreatedAt.After(*until)) &&
				o.Metadata.matches(sales.metadata)
		},
	}.page(paging), nil
}

func orderKey(o *order, by string) sortable {
	switch by {
	case "status":
		return byText(o.Status)
	case "invoice_number":
		return byOptionalText(o.InvoiceNumber)
	case "amount", "net_amount":
		return byNumber(o.NetAmount)
	case "customer":
		return byOptionalText(firstOf(o.owner.Name, o.owner.Email))
	case "product":
		return byText(o.product.Name)
	case "discount":
		return byDiscount(o.discount)
	case "subscription":
		return byOptionalText(o.SubscriptionID)
	}
	return byTime(o.CreatedAt)
}

func byDiscount(d *discount) sortable {
	if d == nil {
		return sortable{isNull: true}
	}
	return byText(d.Name)
}
