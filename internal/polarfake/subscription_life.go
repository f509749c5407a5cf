package polarfake

import (
	"fmt"
	"net/http"
	"slices"
)

// changeSubscription makes a change and tells of it as Polar does: subscription.updated first, then what the caller
// says came about, then what can be seen from the states before and after. What the change does to the buyer's access
// follows.
func (f *Fake) changeSubscription(s *subscription, change func(now timestamp), cameAbout ...string) {
	was, wasRunning, wasCanceled := s.Status, s.isRunning(), s.isCanceled()
	f.revise(func() any { return s.document() }, &s.ModifiedAt, func() { change(f.now()) })

	becameRevoked := isRevoked(s.Status) && !isRevoked(was)
	for _, event := range []struct {
		eventType string
		isDue     bool
	}{
		{"subscription.active", s.isRunning() && !wasRunning && was != subscriptionPaused},
		{"subscription.uncanceled", !s.isCanceled() && wasCanceled},
		{"subscription.past_due", s.Status == subscriptionPastDue && was != subscriptionPastDue},
		{"subscription.canceled", s.isCanceled() && (!wasCanceled || becameRevoked)},
		{"subscription.revoked", becameRevoked},
	} {
		if event.isDue {
			cameAbout = append(cameAbout, event.eventType)
		}
	}
	for _, eventType := range append([]string{"subscription.updated"}, cameAbout...) {
		s.tell(f, eventType)
	}
	f.emitStateLater(s.owner)

	bought := purchase{subscription: s}
	switch {
	case s.isRunning():
		f.grantAll(bought)
	case wasRunning || becameRevoked: // there is no grace period
		f.revokeAll(bought)
	}
	if becameRevoked {
		for _, taken := range bought.seats() {
			f.revokeSeat(taken)
		}
	}
}

func (f *Fake) onSubscription(id string, change func(*subscription) error) error {
	return act(f, &f.sales.subscriptions, id, change)
}

// CancelSubscription has a subscription end with its period.
func (f *Fake) CancelSubscription(id string) error {
	return f.onSubscription(id, func(s *subscription) error { return f.cancelSubscription(s, nil, nil) })
}

// UncancelSubscription takes back that a subscription is to end.
func (f *Fake) UncancelSubscription(id string) error {
	return f.onSubscription(id, f.uncancelSubscription)
}

// RevokeSubscription ends a subscription now.
func (f *Fake) RevokeSubscription(id string) error {
	return f.onSubscription(id, func(s *subscription) error { return f.revokeSubscription(s, nil, nil) })
}

// CycleSubscription does what Polar does when a period is over: a subscription that is to end does, one that is to be
// paused is, and every other is renewed, with an order that is paid.
func (f *Fake) CycleSubscription(id string) error {
	return f.onSubscription(id, func(s *subscription) error { return f.cycleSubscription(s, true) })
}

// FailRenewal is [Fake.CycleSubscription] with a payment that fails: the order stays pending and the subscription is
// past due, until [Fake.PayOrder] or [Fake.GiveUpSubscription].
func (f *Fake) FailRenewal(id string) error {
	return f.onSubscription(id, func(s *subscription) error { return f.cycleSubscription(s, false) })
}

// GiveUpSubscription ends the retries of the payment of a subscription that is past due: it is unpaid, for good.
func (f *Fake) GiveUpSubscription(id string) error {
	return f.onSubscription(id, func(s *subscription) error {
		if s.Status != subscriptionPastDue {
			return errInactive(s)
		}
		f.endSubscription(s, subscriptionUnpaid)
		return nil
	})
}

// PauseSubscription pauses a subscription as if its period were over.
func (f *Fake) PauseSubscription(id string) error {
	return f.onSubscription(id, func(s *subscription) error {
		if !s.isRunning() {
			return errInactive(s)
		}
		f.pauseSubscription(s)
		return nil
	})
}

// ResumeSubscription has a paused subscription go on with a new period, which is paid.
func (f *Fake) ResumeSubscription(id string) error { return f.onSubscription(id, f.resumeSubscription) }

// StartSubscription makes an incomplete subscription active, see [Fake.SubscribeIncomplete].
func (f *Fake) StartSubscription(id string) error {
	return f.onSubscription(id, func(s *subscription) error {
		if s.Status != subscriptionIncomplete {
			return &APIError{
				Status: http.StatusConflict, Name: "SubscriptionStarted", Detail: fmt.Sprintf("subscription %s is %s", s.ID, s.Status),
			}
		}
		f.changeSubscription(s, func(now timestamp) {
			f.sales.started.remove(s)
			s.Status, s.StartedAt = subscriptionActive, &now
			f.sales.started.add(s)
			s.startPeriod(now)
		})
		return nil
	})
}

// MigrateSubscription tells that a subscription was taken over from another provider, where it had another id.
func (f *Fake) MigrateSubscription(id, provider, providerSubscriptionID string) error {
	return f.onSubscription(id, func(s *subscription) error {
		s.tell(f, "subscription.updated")
		f.emitFrom(origin{provider, providerSubscriptionID}, "subscription.migrated", s.ID, s.document())
		f.emitStateLater(s.owner)
		return nil
	})
}

func (f *Fake) cancelSubscription(s *subscription, reason, comment *string) error {
	if s.EndedAt != nil || s.CancelAtPeriodEnd || !s.isRunning() && s.Status != subscriptionPastDue {
		return errAlreadyCanceled(s)
	}
	f.changeSubscription(s, func(now timestamp) {
		s.CancelAtPeriodEnd, s.CanceledAt, s.EndsAt = true, &now, new(s.CurrentPeriodEnd)
		s.CustomerCancellationReason, s.CustomerCancellationComment = reason, comment
	})
	return nil
}

func (f *Fake) uncancelSubscription(s *subscription) error {
	switch {
	case s.EndedAt != nil:
		return &APIError{Status: http.StatusGone, Name: "ResourceUnavailable", Detail: "Not available"}
	case !s.CancelAtPeriodEnd:
		return &APIError{Status: http.StatusBadRequest, Name: "BadRequest", Detail: "Bad request"}
	}
	f.changeSubscription(s, func(timestamp) {
		s.CancelAtPeriodEnd, s.CanceledAt, s.EndsAt = false, nil, nil
		s.CustomerCancellationReason, s.CustomerCancellationComment = nil, nil
	})
	return nil
}

func (f *Fake) revokeSubscription(s *subscription, reason, comment *string) error {
	if isRevoked(s.Status) || s.Status == subscriptionIncomplete {
		return errAlreadyCanceled(s)
	}
	s.CustomerCancellationReason = firstOf(reason, s.CustomerCancellationReason)
	s.CustomerCancellationComment = firstOf(comment, s.CustomerCancellationComment)
	f.endSubscription(s, subscriptionCanceled)
	return nil
}

func (f *Fake) endSubscription(s *subscription, status string) {
	f.changeSubscription(s, func(now timestamp) {
		s.Status, s.EndedAt = status, &now
		if status == subscriptionCanceled {
			s.CanceledAt, s.EndsAt = firstOf(s.CanceledAt, &now), &now
		}
	})
}

func (f *Fake) pauseSubscription(s *subscription) {
	f.changeSubscription(s, func(now timestamp) {
		s.Status, s.PausedAt, s.PauseAtPeriodEnd = subscriptionPaused, &now, false
	}, "subscription.paused")
}

func (f *Fake) resumeSubscription(s *subscription) error {
	if s.Status != subscriptionPaused {
		return errInactive(s)
	}
	f.changeSubscription(s, func(now timestamp) {
		s.Status, s.PausedAt, s.ResumesAt = subscriptionActive, nil, nil
		s.startPeriod(now)
	}, "subscription.resumed")
	f.settleOrderIfDue(f.billPeriod(s), true)
	return nil
}

func (f *Fake) cycleSubscription(s *subscription, paid bool) error {
	switch {
	case !s.isRunning():
		return errInactive(s)
	case s.CancelAtPeriodEnd:
		f.endSubscription(s, subscriptionCanceled)
		return nil
	case s.PauseAtPeriodEnd:
		f.pauseSubscription(s)
		return nil
	}
	f.changeSubscription(s, func(timestamp) {
		s.Status = subscriptionActive // a trial is over
		s.startPeriod(s.CurrentPeriodEnd)
	}, "subscription.cycled")
	f.settleOrderIfDue(f.billPeriod(s), paid)
	for _, g := range (purchase{subscription: s}).grants() {
		if g.IsGranted {
			f.cycleGrant(g)
		}
	}
	return nil
}

// billPeriod makes the order of a subscription's period.
func (f *Fake) billPeriod(s *subscription) *order {
	applied := s.discount
	if applied != nil && applied.Duration == "once" {
		applied = nil
	}
	o := f.newOrder(s.owner, s.product, s.Currency, s.Amount, applied, f.now())
	o.setSubscription(s, "subscription_cycle")
	o.Seats, o.Units, o.CheckoutID, o.Metadata = s.Seats, s.Units, s.CheckoutID, s.Metadata
	f.sales.orders.add(o)
	o.tell(f, "order.created")
	return o
}

// settleOrderIfDue ends the payment of a new order, one way or the other.
func (f *Fake) settleOrderIfDue(o *order, paid bool) {
	switch {
	case o.Paid: // there was nothing to pay
		o.tell(f, "order.paid")
	case paid:
		f.settleOrder(o)
	default:
		const retryDays = 2
		now := f.now()
		o.NextPaymentAttemptAt, o.ModifiedAt = new(after(now, "day", retryDays)), &now
		o.tell(f, "order.updated")
		f.changeSubscription(o.subscription, func(now timestamp) {
			o.subscription.Status, o.subscription.PastDueAt = subscriptionPastDue, &now
		})
	}
}

func errAlreadyCanceled(s *subscription) *APIError {
	return &APIError{
		Status: http.StatusForbidden, Name: "AlreadyCanceledSubscription",
		Detail: "This subscription is already canceled or will be at the end of the period: " + s.ID,
	}
}

func errInactive(s *subscription) *APIError {
	return &APIError{
		Status: http.StatusForbidden, Name: "InactiveSubscription",
		Detail: fmt.Sprintf("This subscription is not active: %s is %s", s.ID, s.Status),
	}
}

// hasActive reports whether a customer may not subscribe once more.
func (f *Fake) hasActive(c *customer) bool {
	return !f.options.AllowMultipleSubscriptions && slices.ContainsFunc(c.subscriptions, (*subscription).isRunning)
}
