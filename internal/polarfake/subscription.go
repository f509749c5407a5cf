package polarfake

import (
	"encoding/json"
	"time"
)

// The states of a subscription.
const (
	subscriptionIncomplete = "incomplete"
	subscriptionTrialing   = "trialing"
	subscriptionActive     = "active"
	subscriptionPastDue    = "past_due"
	subscriptionCanceled   = "canceled"
	subscriptionUnpaid     = "unpaid"
	subscriptionPaused     = "paused"
)

var subscriptionStatuses = []string{
	subscriptionIncomplete, "incomplete_expired", subscriptionTrialing, subscriptionActive, subscriptionPastDue,
	subscriptionCanceled, subscriptionUnpaid, subscriptionPaused,
}

var cancellationReasons = []string{
	"customer_service", "low_quality", "missing_features", "switched_service", "too_complex", "too_expensive", "unused", "other",
}

// subscription is a running purchase; its exported fields are its document, but for what is looked up to show it.
type subscription struct {
	subscriptionCommon

	CustomFieldData map[string]any `json:"custom_field_data"`
	Units           *int64         `json:"units"`
	Prices          []price        `json:"prices"`
	Meters          []string       `json:"meters"`
	PendingUpdate   *string        `json:"pending_update"`

	owner    *customer
	product  *product
	discount *discount
	sequence int64
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

// subscriptionDocument shows a subscription with what it refers to as that is now.
type subscriptionDocument struct {
	subscription

	Customer customer      `json:"customer"`
	Product  *product      `json:"product"`
	Discount *discountBase `json:"discount"`
}

func (s *subscription) standing() (id string, created rank) {
	return s.ID, rank{at: s.CreatedAt.Time, sequence: s.sequence}
}

// started is where it stands by started_at: last while it has not started.
func (s *subscription) started() rank {
	if s.StartedAt == nil {
		return rank{at: time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC), sequence: s.sequence}
	}
	return rank{at: s.StartedAt.Time, sequence: s.sequence}
}

func (s *subscription) document() subscriptionDocument {
	return subscriptionDocument{
		subscription: *s, Customer: s.owner.document(), Product: s.product, Discount: s.discount.base(),
	}
}

// isRunning reports whether it counts as active in a customer's state.
func (s *subscription) isRunning() bool {
	return s.Status == subscriptionActive || s.Status == subscriptionTrialing
}

// isCanceled reports whether it has ended, or will at the end of its period.
func (s *subscription) isCanceled() bool {
	return s.CancelAtPeriodEnd || s.Status == subscriptionCanceled
}

// isRevoked reports whether it gives nothing any more, for good.
func isRevoked(status string) bool {
	return status == subscriptionCanceled || status == subscriptionUnpaid
}

func (f *Fake) newSubscription(buyer *customer, now timestamp) *subscription {
	s := &subscription{owner: buyer, sequence: f.next(), CustomFieldData: map[string]any{}, Meters: []string{}}
	s.CreatedAt, s.ID, s.CustomerID, s.Metadata = now, f.newID(), buyer.ID, metadata{}
	return s
}

func (f *Fake) addSubscription(s *subscription) {
	f.sales.subscriptions.add(s)
	f.sales.started.add(s)
	s.owner.subscriptions = append(s.owner.subscriptions, s)
}

func (s *subscription) setProduct(sold *product, charged price, amount int64) {
	s.ProductID, s.product, s.Prices, s.Amount = sold.ID, sold, []price{charged}, amount
	s.RecurringInterval, s.RecurringIntervalCount = deref(sold.RecurringInterval), deref(sold.RecurringIntervalCount)
}

func (s *subscription) setDiscount(d *discount) {
	s.DiscountID, s.discount = nil, d
	if d != nil {
		s.DiscountID = &d.ID
	}
}

func (s *subscription) startPeriod(start timestamp) {
	s.CurrentPeriodStart, s.CurrentPeriodEnd = start, after(start, s.RecurringInterval, s.RecurringIntervalCount)
}

// tell emits an event of a subscription.
func (s *subscription) tell(f *Fake, eventType string) { f.emit(eventType, s.ID, s.document()) }

// Subscriptions returns the documents of all subscriptions, oldest first.
func (f *Fake) Subscriptions() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.sales.subscriptions.documents()
}

// listSubscriptions answers GET /v1/subscriptions/, which can be sorted by many things, but not by created_at.
func (f *Fake) listSubscriptions(r *request) (any, error) {
	query := r.query()
	sales, statuses := query.sales(), query.choices("status", subscriptionStatuses)
	active, canceling := query.boolean("active"), query.boolean("cancel_at_period_end")
	reasons := query.choices("customer_cancellation_reason", cancellationReasons)
	started := period{query.moment("started_after"), query.moment("started_before")}
	canceled := period{query.moment("canceled_at_after"), query.moment("canceled_at_before")}
	paging := query.paging("started_at", "customer", "status", "current_period_end", "ended_at", "ends_at", "amount", "product", "discount")
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*subscription]{
		all: f.sales.started.all, order: "started_at", render: f.sales.subscriptions.render, key: subscriptionKey,
		allow: func(s *subscription) bool {
			return sales.allowOwner(s.owner) && sales.products.allow(s.ProductID) && sales.discounts.allowOptional(s.DiscountID) &&
				statuses.allow(s.Status) && reasons.allowOptional(s.CustomerCancellationReason) &&
				(active == nil || *active == s.isRunning()) && (canceling == nil || *canceling == s.CancelAtPeriodEnd) &&
				started.allow(s.StartedAt) && canceled.allow(s.CanceledAt) && s.Metadata.matches(sales.metadata)
		},
	}.page(paging), nil
}

// period allows what is between two moments, or all where they are nil.
type period struct{ from, until *time.Time }

func (p period) allow(moment *timestamp) bool {
	if p.from == nil && p.until == nil {
		return true
	}
	return moment != nil && (p.from == nil || !moment.Before(*p.from)) && (p.until == nil || !moment.After(*p.until))
}

func subscriptionKey(s *subscription, by string) sortable {
	switch by {
	case "customer":
		return byOptionalText(firstOf(s.owner.Name, s.owner.Email))
	case "status":
		return byText(s.Status)
	case "current_period_end":
		return byTime(s.CurrentPeriodEnd)
	case "ended_at":
		return byOptionalTime(s.EndedAt)
	case "ends_at":
		return byOptionalTime(s.EndsAt)
	case "amount":
		return byNumber(s.Amount)
	case "product":
		return byText(s.product.Name)
	case "discount":
		return byDiscount(s.discount)
	}
	return byOptionalTime(s.StartedAt)
}
