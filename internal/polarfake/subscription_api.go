package polarfake

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
)

// Subscribe does what POST /v1/subscriptions/ does with the body, which names a free product and a customer, and
// returns the document.
func (f *Fake) Subscribe(body string) (json.RawMessage, error) {
	return f.call(f.createSubscription, body, nil)
}

// SubscribeIncomplete is [Fake.Subscribe] to any product, with a first payment that is still under way: the
// subscription is incomplete and has no started_at, until [Fake.StartSubscription].
func (f *Fake) SubscribeIncomplete(body string) (json.RawMessage, error) {
	return f.call(func(r *request) (any, error) {
		buyer, sold, given, err := f.readSubscription(r)
		if err != nil {
			return nil, err
		}
		s := f.newSubscriptionTo(buyer, sold, given)
		s.Status = subscriptionIncomplete
		f.addSubscription(s)
		s.tell(f, "subscription.created")
		return s.document(), nil
	}, body, nil)
}

// UpdateSubscription does what PATCH /v1/subscriptions/{id} does with the body and returns the document.
func (f *Fake) UpdateSubscription(id, body string) (json.RawMessage, error) {
	return f.call(f.updateSubscription, body, map[string]string{"id": id})
}

func (f *Fake) newSubscriptionTo(buyer *customer, sold *product, given metadata) *subscription {
	now := f.now()
	s := f.newSubscription(buyer, now)
	charged := sold.Prices[0]
	if _, isSeatBased := charged.(*seatPrice); isSeatBased {
		s.Seats = new(int64(1))
	}
	s.setProduct(sold, charged, charged.charge(priceChoice{seats: s.Seats}))
	s.Currency, s.Metadata = charged.common().Currency, given
	s.startPeriod(now)
	return s
}

// readSubscription reads whom to subscribe to what.
func (f *Fake) readSubscription(r *request) (buyer *customer, sold *product, given metadata, err error) {
	body, err := r.fields()
	if err != nil {
		return nil, nil, nil, err
	}
	body.require("product_id")
	if !body.has("external_customer_id") {
		body.require("customer_id")
	}
	productID, customerID := body.identifier("product_id"), body.identifier("customer_id")
	externalID, given := body.text("external_customer_id", 0, 0), body.metadata("metadata")
	if err := body.err(); err != nil {
		return nil, nil, nil, err
	}
	sold, exists := f.catalog.products.byID[*productID]
	switch {
	case !exists || sold.IsArchived:
		body.failValue(body.at("product_id"), "Product does not exist.", *productID)
	case !sold.IsRecurring || len(sold.Prices) == 0:
		body.failValue(body.at("product_id"), "Product is not a recurring product.", *productID)
	}
	if customerID != nil {
		buyer, exists = f.customers.byID[*customerID]
	} else {
		buyer, exists = f.customers.byExternalID[*externalID]
	}
	if !exists {
		body.failValue(body.at("customer_id"), "Customer does not exist.", firstOf(customerID, externalID))
	}
	return buyer, sold, given, body.ruleErr()
}

func (f *Fake) createSubscription(r *request) (any, error) {
	buyer, sold, given, err := f.readSubscription(r)
	if err != nil {
		return nil, err
	}
	if fixed, isFixed := sold.Prices[0].(*fixedPrice); !isFixed || fixed.Amount > 0 {
		body := fields{loc: []any{"body"}, problems: new([]Problem)}
		body.failValue(body.at("product_id"), "Product is not free. The customer should go through a checkout to create a paid subscription.", sold.ID)
		return nil, body.ruleErr()
	}
	if f.hasActive(buyer) {
		return nil, errAlreadySubscribed()
	}
	now := f.now()
	s := f.newSubscriptionTo(buyer, sold, given)
	s.Status, s.StartedAt = subscriptionActive, &now
	f.addSubscription(s)
	s.tell(f, "subscription.created")
	s.tell(f, "subscription.active")
	o := f.newOrder(buyer, sold, s.Currency, s.Amount, nil, now)
	o.setSubscription(s, "subscription_create")
	o.Metadata = given
	f.sales.orders.add(o)
	o.tell(f, "order.created")
	o.tell(f, "order.paid")
	f.grantAll(purchase{subscription: s})
	f.emitStateLater(buyer)
	return s.document(), nil
}

// updateSubscription does one of the many things that a PATCH can ask for, by the field that tells them apart.
func (f *Fake) updateSubscription(r *request) (any, error) {
	s, err := f.sales.subscriptions.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	var apply func() error
	switch {
	case body.has("revoke"):
		reason, comment := readCancellation(body)
		body.requireTrue("revoke")
		apply = func() error { return f.revokeSubscription(s, reason, comment) }
	case body.has("cancel_at_period_end"):
		reason, comment := readCancellation(body)
		isToEnd := body.boolean("cancel_at_period_end", false)
		apply = func() error {
			if !isToEnd {
				return f.uncancelSubscription(s)
			}
			return f.cancelSubscription(s, reason, comment)
		}
	case body.has("pause_at_period_end"):
		isToPause, resumesAt := body.boolean("pause_at_period_end", false), body.moment("resumes_at")
		if resumesAt != nil && !resumesAt.After(s.CurrentPeriodEnd.Time) {
			body.failValue(body.at("resumes_at"), "Resume date must be after the current period end.", body.values["resumes_at"])
		}
		apply = func() error { return f.schedulePause(s, isToPause, resumesAt) }
	case body.has("resume"):
		body.requireTrue("resume")
		apply = func() error { return f.resumeSubscription(s) }
	case body.has("seats"):
		apply = f.seatsUpdate(body, s)
	case body.has("current_billing_period_end"):
		end := body.moment("current_billing_period_end")
		if end != nil && end.Before(s.CurrentPeriodEnd.Time) {
			body.failValue(body.at("current_billing_period_end"), "New period end is earlier than the current period end",
				body.values["current_billing_period_end"])
		}
		apply = f.ifActive(s, func(timestamp) { s.CurrentPeriodEnd = *end })
	default:
		apply = f.baseUpdate(body, s)
	}
	if err := body.err(); err != nil {
		return nil, err
	}
	if err := apply(); err != nil {
		return nil, err
	}
	return s.document(), nil
}

func readCancellation(body fields) (reason, comment *string) {
	return body.choice("customer_cancellation_reason", cancellationReasons), body.text("customer_cancellation_comment", 0, 0)
}

// requireTrue reports a problem unless the value is true.
func (f fields) requireTrue(name string) {
	if f.values[name] != true {
		f.fail(f.at(name), "literal_error", "Input should be True", f.values[name], map[string]any{"expected": "True"})
	}
}

// ifActive makes a change that only a subscription takes which runs and is to go on.
func (f *Fake) ifActive(s *subscription, change func(now timestamp)) func() error {
	return func() error {
		switch {
		case s.isCanceled():
			return errAlreadyCanceled(s)
		case !s.isRunning():
			return errInactive(s)
		}
		f.changeSubscription(s, change)
		return nil
	}
}

func (f *Fake) schedulePause(s *subscription, isToPause bool, resumesAt *timestamp) error {
	return f.ifActive(s, func(timestamp) {
		s.PauseAtPeriodEnd, s.ResumesAt = isToPause, nil
		if isToPause {
			s.ResumesAt = resumesAt
		}
	})()
}

func (f *Fake) seatsUpdate(body fields, s *subscription) func() error {
	seats := body.integer("seats", 1, math.MaxInt32)
	return func() error {
		assigned := int64(0)
		for _, taken := range (purchase{subscription: s}).seats() {
			if taken.Status != seatRevoked {
				assigned++
			}
		}
		switch {
		case s.Seats == nil:
			return &APIError{Status: http.StatusBadRequest, Name: "NotASeatBasedSubscription", Detail: "This subscription does not support seat-based pricing"}
		case seats == nil || *seats < assigned:
			return &APIError{
				Status: http.StatusBadRequest, Name: "SeatsAlreadyAssigned",
				Detail: fmt.Sprintf("Cannot decrease seats to %d. Currently %d seats are assigned. Revoke seats first.", deref(seats), assigned),
			}
		}
		return f.ifActive(s, func(timestamp) { s.Seats, s.Amount = seats, s.Prices[0].charge(priceChoice{seats: seats}) })()
	}
}

// baseUpdate is of the product, the discount, the end of the trial or the metadata.
func (f *Fake) baseUpdate(body fields, s *subscription) func() error {
	productID, discountID, given := body.identifier("product_id"), body.identifier("discount_id"), body.metadata("metadata")
	var trialEnd *timestamp
	if body.values["trial_end"] == "now" {
		trialEnd = new(f.now())
	} else {
		trialEnd = body.moment("trial_end")
	}
	sold, d := s.product, s.discount
	if productID != nil {
		found, exists := f.catalog.products.byID[*productID]
		switch {
		case !exists:
			body.failValue(body.at("product_id"), "Product does not exist.", *productID)
		case found.IsArchived:
			body.failValue(body.at("product_id"), "Product is archived.", *productID)
		case !found.IsRecurring || len(found.Prices) == 0:
			body.failValue(body.at("product_id"), "Product is not recurring.", *productID)
		}
		sold = found
	}
	if body.has("discount_id") {
		d = nil
	}
	if discountID != nil {
		found, exists := f.catalog.discounts.byID[*discountID]
		if !exists {
			body.failValue(body.at("discount_id"), "Discount does not exist.", *discountID)
		}
		d = found
	}
	if sold == s.product && d == s.discount && trialEnd == nil {
		return func() error {
			f.changeSubscription(s, func(timestamp) {
				if body.has("metadata") {
					s.Metadata = given
				}
			})
			return nil
		}
	}
	return f.ifActive(s, func(timestamp) {
		if sold != s.product {
			charged := sold.Prices[0]
			if _, isSeatBased := charged.(*seatPrice); !isSeatBased {
				s.Seats = nil
			} else if s.Seats == nil {
				s.Seats = new(int64(1))
			}
			s.setProduct(sold, charged, charged.charge(priceChoice{seats: s.Seats}))
			s.startPeriod(s.CurrentPeriodStart)
		}
		s.setDiscount(d)
		if body.has("metadata") {
			s.Metadata = given
		}
		if trialEnd != nil {
			s.TrialEnd, s.CurrentPeriodEnd = trialEnd, *trialEnd
			s.Status = subscriptionTrialing
			if !trialEnd.After(f.now().Time) {
				s.Status = subscriptionActive
				s.startPeriod(*trialEnd)
			}
		}
	})
}

func (f *Fake) deleteSubscription(r *request) (any, error) {
	s, err := f.sales.subscriptions.named(r)
	if err != nil {
		return nil, err
	}
	if err := f.revokeSubscription(s, nil, nil); err != nil {
		return nil, err
	}
	return s.document(), nil
}
