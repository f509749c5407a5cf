package polarfake

import (
	"encoding/json"
	"fmt"
)

// subscription is a running purchase; its exported fields are its document, but for what is looked up to show it.
type subscription struct {
	subscriptionCommon
	CustomFieldData map[string]any `json:"custom_field_data"`
	Units           *int64         `json:"units"`
	Prices          []price        `json:"prices"`
	Product         *product       `json:"product"`
	Discount        *string        `json:"discount"`
	Meters          []string       `json:"meters"`
	PendingUpdate   *string        `json:"pending_update"`

	owner *customer
}

type subscriptionCommon struct {
	CreatedAt                   timestamp  `json:"created_at"`
	ModifiedAt                  *timestamp `json:"modified_at"`
	ID                          string     `json:"id"`
	Metadata                    metadata   `json:"metadata"`
	Amount                      int64      `json:"amount"`
	Currency                    string     `json:"currency"`
	RecurringInterval           string     `json:"recurring_interval"`
	RecurringIntervalCount      int64      `json:"recurring_interval_count"`
	Status                      string     `json:"status"`
	CurrentPeriodStart          timestamp  `json:"current_period_start"`
	CurrentPeriodEnd            timestamp  `json:"current_period_end"`
	CurrentMeterPeriodStart     *timestamp `json:"current_meter_period_start"`
	CurrentMeterPeriodEnd       *timestamp `json:"current_meter_period_end"`
	TrialStart                  *timestamp `json:"trial_start"`
	TrialEnd                    *timestamp `json:"trial_end"`
	CancelAtPeriodEnd           bool       `json:"cancel_at_period_end"`
	CanceledAt                  *timestamp `json:"canceled_at"`
	StartedAt                   *timestamp `json:"started_at"`
	EndsAt                      *timestamp `json:"ends_at"`
	EndedAt                     *timestamp `json:"ended_at"`
	PastDueAt                   *timestamp `json:"past_due_at"`
	PauseAtPeriodEnd            bool       `json:"pause_at_period_end"`
	PausedAt                    *timestamp `json:"paused_at"`
	ResumesAt                   *timestamp `json:"resumes_at"`
	CustomerID                  string     `json:"customer_id"`
	ProductID                   string     `json:"product_id"`
	DiscountID                  *string    `json:"discount_id"`
	CheckoutID                  *string    `json:"checkout_id"`
	Seats                       *int64     `json:"seats"`
	CustomerCancellationReason  *string    `json:"customer_cancellation_reason"`
	CustomerCancellationComment *string    `json:"customer_cancellation_comment"`
}

// subscriptionDocument shows a subscription with its customer as that is now.
type subscriptionDocument struct {
	subscription
	Customer customer `json:"customer"`
}

func (s *subscription) document() subscriptionDocument {
	return subscriptionDocument{subscription: *s, Customer: s.owner.document()}
}

// isRunning reports whether it counts as active in a customer's state.
func (s *subscription) isRunning() bool { return s.Status == "active" || s.Status == "trialing" }

// order is a purchase that was charged, if only with nothing.
type order struct {
	ID                   string              `json:"id"`
	CreatedAt            timestamp           `json:"created_at"`
	ModifiedAt           *timestamp          `json:"modified_at"`
	Status               string              `json:"status"`
	Paid                 bool                `json:"paid"`
	SubtotalAmount       int64               `json:"subtotal_amount"`
	DiscountAmount       int64               `json:"discount_amount"`
	NetAmount            int64               `json:"net_amount"`
	TaxAmount            int64               `json:"tax_amount"`
	TotalAmount          int64               `json:"total_amount"`
	AppliedBalanceAmount int64               `json:"applied_balance_amount"`
	DueAmount            int64               `json:"due_amount"`
	RefundedAmount       int64               `json:"refunded_amount"`
	RefundedTaxAmount    int64               `json:"refunded_tax_amount"`
	RefundableAmount     int64               `json:"refundable_amount"`
	RefundableTaxAmount  int64               `json:"refundable_tax_amount"`
	Currency             string              `json:"currency"`
	BillingReason        string              `json:"billing_reason"`
	BillingName          *string             `json:"billing_name"`
	BillingAddress       *address            `json:"billing_address"`
	InvoiceNumber        *string             `json:"invoice_number"`
	IsInvoiceGenerated   bool                `json:"is_invoice_generated"`
	ReceiptNumber        *string             `json:"receipt_number"`
	Seats                *int64              `json:"seats"`
	Units                *int64              `json:"units"`
	CustomerID           string              `json:"customer_id"`
	ProductID            *string             `json:"product_id"`
	DiscountID           *string             `json:"discount_id"`
	SubscriptionID       *string             `json:"subscription_id"`
	CheckoutID           *string             `json:"checkout_id"`
	NextPaymentAttemptAt *timestamp          `json:"next_payment_attempt_at"`
	Metadata             metadata            `json:"metadata"`
	CustomFieldData      map[string]any      `json:"custom_field_data"`
	PlatformFeeAmount    int64               `json:"platform_fee_amount"`
	PlatformFeeCurrency  *string             `json:"platform_fee_currency"`
	Product              orderProduct        `json:"product"`
	Discount             *string             `json:"discount"`
	Subscription         *subscriptionCommon `json:"subscription"`
	Items                []orderItem         `json:"items"`
	Description          string              `json:"description"`

	owner *customer
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

// orderDocument shows an order with its customer as that is now.
type orderDocument struct {
	order
	Customer customer `json:"customer"`
}

func (o *order) document() orderDocument {
	return orderDocument{order: *o, Customer: o.owner.document()}
}

// grant is a benefit that a customer received with a purchase.
type grant struct {
	CreatedAt      timestamp      `json:"created_at"`
	ModifiedAt     *timestamp     `json:"modified_at"`
	ID             string         `json:"id"`
	GrantedAt      *timestamp     `json:"granted_at"`
	IsGranted      bool           `json:"is_granted"`
	RevokedAt      *timestamp     `json:"revoked_at"`
	IsRevoked      bool           `json:"is_revoked"`
	SubscriptionID *string        `json:"subscription_id"`
	OrderID        *string        `json:"order_id"`
	CustomerID     string         `json:"customer_id"`
	MemberID       *string        `json:"member_id"`
	BenefitID      string         `json:"benefit_id"`
	Error          *string        `json:"error"`
	Benefit        benefit        `json:"benefit"`
	Properties     map[string]any `json:"properties"`

	owner *customer
}

// grantDocument shows a grant with its customer as that is now.
type grantDocument struct {
	grant
	Customer           customer       `json:"customer"`
	Member             *member        `json:"member"`
	PreviousProperties map[string]any `json:"previous_properties"`
}

func (g *grant) document() grantDocument {
	return grantDocument{grant: *g, Customer: g.owner.document(), Member: g.owner.owner()}
}

func (c *customer) owner() *member {
	if len(c.members) == 0 {
		return nil
	}
	return c.members[0]
}

// salesIndex holds what was sold, in the order of creation.
type salesIndex struct {
	orders           []*order
	orderByID        map[string]*order
	subscriptions    []*subscription
	subscriptionByID map[string]*subscription
	grants           []*grant
	members          []*member
}

func newSalesIndex() salesIndex {
	return salesIndex{orderByID: make(map[string]*order), subscriptionByID: make(map[string]*subscription)}
}

// Orders returns the documents of all orders, oldest first.
func (f *Fake) Orders() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return documents(show(f.sales.orders, (*order).document))
}

// Subscriptions returns the documents of all subscriptions, oldest first.
func (f *Fake) Subscriptions() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return documents(show(f.sales.subscriptions, (*subscription).document))
}

func show[T, D any](objects []T, document func(T) D) []D {
	shown := make([]D, len(objects))
	for i, object := range objects {
		shown[i] = document(object)
	}
	return shown
}

// sell makes the order, the subscription and the grants of a checkout that succeeded, and tells of them.
func (f *Fake) sell(c *checkout, buyer *customer, now timestamp) {
	sold := f.catalog.byID[*c.ProductID]
	var subscribed *subscription
	reason := "purchase"
	if sold.IsRecurring {
		reason = "subscription_create"
		subscribed = f.subscribe(c, buyer, sold, now)
	}
	ordered := f.order(c, buyer, sold, subscribed, reason, now)

	if subscribed != nil {
		if c.SubscriptionID == nil {
			f.emit("subscription.created", subscribed.ID, subscribed.document())
		}
		f.emit("subscription.updated", subscribed.ID, subscribed.document())
		f.emit("subscription.active", subscribed.ID, subscribed.document())
	}
	f.emit("order.created", ordered.ID, ordered.document())
	f.emit("order.paid", ordered.ID, ordered.document())
	for _, granted := range sold.Benefits {
		g := &grant{
			CreatedAt: now, ID: newID(), GrantedAt: &now, IsGranted: true, CustomerID: buyer.ID, BenefitID: granted.ID,
			Benefit: granted, Properties: map[string]any{}, owner: buyer,
		}
		if owner := buyer.owner(); owner != nil {
			g.MemberID = &owner.ID
		}
		if subscribed != nil {
			g.SubscriptionID = &subscribed.ID
		} else {
			g.OrderID = &ordered.ID
		}
		buyer.grants = append(buyer.grants, g)
		f.sales.grants = append(f.sales.grants, g)
		f.emit("benefit_grant.created", g.ID, g.document())
	}
	f.emitStateLater(buyer)
}

func (f *Fake) subscribe(c *checkout, buyer *customer, sold *product, now timestamp) *subscription {
	s := f.sales.subscriptionByID[deref(c.SubscriptionID)]
	if s == nil {
		s = &subscription{owner: buyer}
		s.CreatedAt, s.ID, s.StartedAt, s.Meters = now, newID(), &now, []string{}
		f.sales.subscriptions = append(f.sales.subscriptions, s)
		f.sales.subscriptionByID[s.ID] = s
		buyer.subscriptions = append(buyer.subscriptions, s)
	} else {
		s.ModifiedAt = &now
	}
	s.Metadata, s.CustomFieldData = c.Metadata, c.CustomFieldData
	s.Amount, s.Currency, s.Seats, s.Units = c.TotalAmount, c.Currency, c.Seats, c.Units
	s.RecurringInterval, s.RecurringIntervalCount = *sold.RecurringInterval, *sold.RecurringIntervalCount
	s.Status, s.CurrentPeriodStart = "active", now
	s.CurrentPeriodEnd = after(now, s.RecurringInterval, s.RecurringIntervalCount)
	if c.ActiveTrialInterval != nil {
		end := after(now, *c.ActiveTrialInterval, deref(c.ActiveTrialIntervalCount))
		s.Status, s.TrialStart, s.TrialEnd, s.CurrentPeriodEnd = "trialing", &now, &end, end
	}
	s.CustomerID, s.ProductID, s.CheckoutID = buyer.ID, sold.ID, &c.ID
	s.Product, s.Prices = sold, []price{c.ProductPrice}
	return s
}

// after returns the end of a period of count intervals.
func after(start timestamp, interval string, count int64) timestamp {
	n := int(count)
	switch interval {
	case "day":
		return timestamp{start.AddDate(0, 0, n)}
	case "week":
		return timestamp{start.AddDate(0, 0, 7*n)}
	case "month":
		return timestamp{start.AddDate(0, n, 0)}
	}
	return timestamp{start.AddDate(n, 0, 0)}
}

func (f *Fake) order(c *checkout, buyer *customer, sold *product, subscribed *subscription, reason string, now timestamp) *order {
	amount := c.TotalAmount
	if c.ActiveTrialInterval != nil {
		amount = 0
	}
	f.sequence++
	number := fmt.Sprintf("TRUE-%06d", f.sequence)
	o := &order{
		ID: newID(), CreatedAt: now, Status: "paid", Paid: true, SubtotalAmount: amount, NetAmount: amount, TotalAmount: amount,
		RefundableAmount: amount, Currency: c.Currency, BillingReason: reason,
		BillingName: firstOf(c.CustomerBillingName, c.CustomerName), BillingAddress: c.CustomerBillingAddress,
		InvoiceNumber: &number, Seats: c.Seats, Units: c.Units, CustomerID: buyer.ID, ProductID: &sold.ID, CheckoutID: &c.ID,
		Metadata: c.Metadata, CustomFieldData: c.CustomFieldData, Product: sold.forOrder(), Description: sold.Name,
		Items: []orderItem{{
			CreatedAt: now, ID: newID(), Label: sold.Name, Amount: amount, ProductPriceID: c.ProductPriceID,
		}},
		owner: buyer,
	}
	if subscribed != nil {
		o.SubscriptionID, o.Subscription = &subscribed.ID, new(subscribed.subscriptionCommon)
	}
	f.sales.orders = append(f.sales.orders, o)
	f.sales.orderByID[o.ID] = o
	return o
}

// revokeEverything ends what a customer who is about to be deleted still has.
func (f *Fake) revokeEverything(c *customer, now timestamp) {
	for _, s := range c.subscriptions {
		if !s.isRunning() {
			continue
		}
		s.Status, s.ModifiedAt = "canceled", &now
		s.CanceledAt, s.EndsAt, s.EndedAt = &now, &now, &now
		f.emit("subscription.updated", s.ID, s.document())
		f.emit("subscription.canceled", s.ID, s.document())
		f.emit("subscription.revoked", s.ID, s.document())
	}
	for _, g := range c.grants {
		if !g.IsGranted {
			continue
		}
		g.IsGranted, g.IsRevoked, g.RevokedAt, g.ModifiedAt = false, true, &now, &now
		f.emit("benefit_grant.revoked", g.ID, g.document())
	}
}

// customerState is a customer with what they have access to.
type customerState struct {
	customer
	ActiveSubscriptions []stateSubscription `json:"active_subscriptions"`
	GrantedBenefits     []stateGrant        `json:"granted_benefits"`
	ActiveMeters        []string            `json:"active_meters"`
}

type stateSubscription struct {
	ID                 string         `json:"id"`
	CreatedAt          timestamp      `json:"created_at"`
	ModifiedAt         *timestamp     `json:"modified_at"`
	CustomFieldData    map[string]any `json:"custom_field_data"`
	Metadata           metadata       `json:"metadata"`
	Status             string         `json:"status"`
	Amount             int64          `json:"amount"`
	Currency           string         `json:"currency"`
	RecurringInterval  string         `json:"recurring_interval"`
	CurrentPeriodStart timestamp      `json:"current_period_start"`
	CurrentPeriodEnd   timestamp      `json:"current_period_end"`
	TrialStart         *timestamp     `json:"trial_start"`
	TrialEnd           *timestamp     `json:"trial_end"`
	CancelAtPeriodEnd  bool           `json:"cancel_at_period_end"`
	CanceledAt         *timestamp     `json:"canceled_at"`
	StartedAt          *timestamp     `json:"started_at"`
	EndsAt             *timestamp     `json:"ends_at"`
	ProductID          string         `json:"product_id"`
	PriceID            *string        `json:"price_id"` // deprecated, not in the OpenAPI document
	DiscountID         *string        `json:"discount_id"`
	Meters             []string       `json:"meters"`
}

type stateGrant struct {
	ID              string         `json:"id"`
	CreatedAt       timestamp      `json:"created_at"`
	ModifiedAt      *timestamp     `json:"modified_at"`
	GrantedAt       *timestamp     `json:"granted_at"`
	BenefitID       string         `json:"benefit_id"`
	BenefitType     string         `json:"benefit_type"`
	BenefitMetadata metadata       `json:"benefit_metadata"`
	Properties      map[string]any `json:"properties"`
}

func (c *customer) state() customerState {
	state := customerState{
		customer: c.document(), ActiveSubscriptions: []stateSubscription{}, GrantedBenefits: []stateGrant{}, ActiveMeters: []string{},
	}
	for _, s := range c.subscriptions {
		if !s.isRunning() {
			continue
		}
		state.ActiveSubscriptions = append(state.ActiveSubscriptions, stateSubscription{
			ID: s.ID, CreatedAt: s.CreatedAt, ModifiedAt: s.ModifiedAt, CustomFieldData: s.CustomFieldData,
			Metadata: s.Metadata, Status: s.Status, Amount: s.Amount, Currency: s.Currency,
			RecurringInterval: s.RecurringInterval, CurrentPeriodStart: s.CurrentPeriodStart,
			CurrentPeriodEnd: s.CurrentPeriodEnd, TrialStart: s.TrialStart, TrialEnd: s.TrialEnd,
			CancelAtPeriodEnd: s.CancelAtPeriodEnd, CanceledAt: s.CanceledAt, StartedAt: s.StartedAt, EndsAt: s.EndsAt,
			ProductID: s.ProductID, PriceID: &s.Prices[0].common().ID, DiscountID: s.DiscountID, Meters: []string{},
		})
	}
	for _, g := range c.grants {
		if g.IsGranted {
			state.GrantedBenefits = append(state.GrantedBenefits, stateGrant{
				ID: g.ID, CreatedAt: g.CreatedAt, ModifiedAt: g.ModifiedAt, GrantedAt: g.GrantedAt, BenefitID: g.BenefitID,
				BenefitType: g.Benefit.Type, BenefitMetadata: g.Benefit.Metadata, Properties: g.Properties,
			})
		}
	}
	return state
}

// emitStateLater tells of a changed state, once for changes that come close together.
func (f *Fake) emitStateLater(c *customer) {
	if !c.statePending {
		f.queueCustomerJob(customerJob{customer: c, eventType: "customer.state_changed", debounced: true})
	}
}
