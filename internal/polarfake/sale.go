package polarfake

// salesIndex holds what was sold and what came of it.
type salesIndex struct {
	orders        shelf[*order]
	subscriptions shelf[*subscription]
	started       ranking[*subscription] // the same by started_at, as their list is sorted unless told otherwise
	refunds       shelf[*refund]
	grants        shelf[*grant]
	members       shelf[*member]
	seats         shelf[*seat]
}

func newSalesIndex() salesIndex {
	return salesIndex{
		orders:        newShelf(func(o *order) any { return o.document() }),
		subscriptions: newShelf(func(s *subscription) any { return s.document() }),
		started:       ranking[*subscription]{rank: (*subscription).started},
		refunds:       newShelf(func(r *refund) any { return r }),
		grants:        newShelf(func(g *grant) any { return g.document() }),
		members:       newShelf(func(m *member) any { return m }),
		seats:         newShelf(func(s *seat) any { return s.document() }),
	}
}

// salesQuery reads what the lists of sales have in common.
type salesQuery struct {
	organizations, products, discounts, customers, subscriptions, checkouts filter
	externalIDs                                                             filter
	metadata                                                                map[string]filter
}

func (q query) sales() salesQuery {
	return salesQuery{
		organizations: q.identifiers("organization_id"), products: q.identifiers("product_id"),
		discounts: q.identifiers("discount_id"), customers: q.identifiers("customer_id"),
		subscriptions: q.identifiers("subscription_id"), checkouts: q.identifiers("checkout_id"),
		externalIDs: q.texts("external_customer_id"), metadata: q.metadata(),
	}
}

func (q salesQuery) allowOwner(owner *customer) bool {
	return q.organizations.allow(OrganizationID) && q.customers.allow(owner.ID) && q.externalIDs.allowOptional(owner.ExternalID)
}

// sell makes the order, the subscription and the grants of a checkout that succeeded, and tells of them.
func (f *Fake) sell(c *checkout, buyer *customer, now timestamp) {
	sold := f.catalog.soldIn(c)
	var subscribed *subscription
	if sold.IsRecurring {
		subscribed = f.subscribe(c, buyer, sold, now)
	}
	ordered := f.orderOf(c, buyer, sold, subscribed, now)
	f.redeem(c.discount)

	bought := purchase{order: ordered}
	if subscribed != nil {
		if c.SubscriptionID == nil {
			subscribed.tell(f, "subscription.created")
		}
		subscribed.tell(f, "subscription.updated")
		subscribed.tell(f, "subscription.active")
		bought = purchase{subscription: subscribed}
	}
	ordered.tell(f, "order.created")
	ordered.tell(f, "order.paid")
	f.grantAll(bought)
	f.emitStateLater(buyer)
}

func (f *Fake) subscribe(c *checkout, buyer *customer, sold *product, now timestamp) *subscription {
	s, exists := f.sales.subscriptions.byID[deref(c.SubscriptionID)]
	if exists {
		s.ModifiedAt = &now
	} else {
		s = f.newSubscription(buyer, now)
		s.StartedAt = &now
		f.addSubscription(s)
	}
	s.Metadata, s.CustomFieldData = c.Metadata, c.CustomFieldData
	s.setProduct(sold, c.ProductPrice, c.Amount)
	s.Currency, s.Seats, s.Units = c.Currency, c.Seats, c.Units
	s.Status = subscriptionActive
	s.startPeriod(now)
	if c.ActiveTrialInterval != nil {
		end := after(now, *c.ActiveTrialInterval, deref(c.ActiveTrialIntervalCount))
		s.Status, s.TrialStart, s.TrialEnd, s.CurrentPeriodEnd = subscriptionTrialing, &now, &end, end
	}
	s.CheckoutID = &c.ID
	s.setDiscount(c.discount)
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

func (f *Fake) orderOf(c *checkout, buyer *customer, sold *product, subscribed *subscription, now timestamp) *order {
	amount := c.Amount
	if c.ActiveTrialInterval != nil {
		amount = 0
	}
	o := f.newOrder(buyer, sold, c.Currency, amount, c.discount, now)
	o.Status, o.Paid = orderPaid, true
	o.BillingName, o.BillingAddress = firstOf(c.CustomerBillingName, c.CustomerName), c.CustomerBillingAddress
	o.Seats, o.Units, o.CheckoutID = c.Seats, c.Units, &c.ID
	o.Metadata, o.CustomFieldData = c.Metadata, c.CustomFieldData
	o.Items[0].ProductPriceID = c.ProductPriceID
	if subscribed != nil {
		o.setSubscription(subscribed, "subscription_create")
	}
	f.sales.orders.add(o)
	return o
}

func (o *order) setSubscription(s *subscription, reason string) {
	o.SubscriptionID, o.subscription, o.BillingReason = &s.ID, s, reason
}

// revokeEverything ends what a customer who is about to be deleted still has, the members included.
func (f *Fake) revokeEverything(c *customer) {
	for _, s := range c.subscriptions {
		if s.isRunning() || s.Status == subscriptionPastDue {
			f.endSubscription(s, subscriptionCanceled)
		}
	}
	for _, g := range c.grants {
		f.revokeGrant(g)
	}
	for _, s := range c.seats {
		f.revokeSeat(s)
	}
	for _, m := range c.members {
		f.sales.members.retire(m)
		m.ModifiedAt = new(f.now())
		f.emit("member.deleted", m.ID, m)
	}
	c.members = nil
}
