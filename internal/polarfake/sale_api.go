package polarfake

import "slices"

// salesQuery reads what the lists of sales have in common.
type salesQuery struct {
	organizations, products, customers, subscriptions, checkouts filter
	externalIDs                                                  filter
	metadata                                                     map[string]filter
}

func (q query) sales() salesQuery {
	return salesQuery{
		organizations: q.identifiers("organization_id"), products: q.identifiers("product_id"),
		customers: q.identifiers("customer_id"), subscriptions: q.identifiers("subscription_id"),
		checkouts: q.identifiers("checkout_id"), externalIDs: q.texts("external_customer_id"), metadata: q.metadata(),
	}
}

func (q salesQuery) allowOwner(owner *customer) bool {
	return q.organizations.allow(OrganizationID) && q.customers.allow(owner.ID) && q.externalIDs.allowOptional(owner.ExternalID)
}

var (
	orderStatuses        = []string{"draft", "pending", "paid", "refunded", "partially_refunded", "void"}
	subscriptionStatuses = []string{
		"incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused",
	}
)

func (f *Fake) listOrders(r *request) (any, error) {
	query := r.query()
	sales, statuses := query.sales(), query.choices("status", orderStatuses)
	from, until := query.moment("created_after"), query.moment("created_before")
	paging := query.paging([]string{"created_at", "status", "net_amount", "invoice_number"})
	if err := query.err(); err != nil {
		return nil, err
	}
	var found []orderDocument
	for _, o := range f.sales.orders {
		if sales.allowOwner(o.owner) && sales.products.allowOptional(o.ProductID) && statuses.allow(o.Status) &&
			sales.subscriptions.allowOptional(o.SubscriptionID) && sales.checkouts.allowOptional(o.CheckoutID) &&
			(from == nil || !o.CreatedAt.Before(*from)) && (until == nil || !o.CreatedAt.After(*until)) &&
			o.Metadata.matches(sales.metadata) {
			found = append(found, o.document())
		}
	}
	sortBy(found, paging, func(o orderDocument, by string) any {
		switch by {
		case "status":
			return o.Status
		case "net_amount":
			return o.NetAmount
		case "invoice_number":
			return deref(o.InvoiceNumber)
		}
		return o.CreatedAt.Time
	})
	return listResource(found, paging), nil
}

func (f *Fake) getOrder(r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	found, ok := f.sales.orderByID[id]
	if !ok {
		return nil, errNotFound()
	}
	return found.document(), nil
}

func (f *Fake) listSubscriptions(r *request) (any, error) {
	query := r.query()
	sales, statuses := query.sales(), query.choices("status", subscriptionStatuses)
	active, canceling := query.boolean("active"), query.boolean("cancel_at_period_end")
	paging := query.paging([]string{"started_at", "current_period_end", "amount", "status", "created_at"})
	if err := query.err(); err != nil {
		return nil, err
	}
	if len(query.texts("sorting")) == 0 {
		paging.sorting = []sortKey{{by: "started_at", descending: true}}
	}
	var found []subscriptionDocument
	for _, s := range f.sales.subscriptions {
		if sales.allowOwner(s.owner) && sales.products.allow(s.ProductID) && statuses.allow(s.Status) &&
			(active == nil || *active == s.isRunning()) && (canceling == nil || *canceling == s.CancelAtPeriodEnd) &&
			s.Metadata.matches(sales.metadata) {
			found = append(found, s.document())
		}
	}
	sortBy(found, paging, func(s subscriptionDocument, by string) any {
		switch by {
		case "started_at":
			return deref(s.StartedAt).Time
		case "current_period_end":
			return s.CurrentPeriodEnd.Time
		case "amount":
			return s.Amount
		case "status":
			return s.Status
		}
		return s.CreatedAt.Time
	})
	return listResource(found, paging), nil
}

func (f *Fake) getSubscription(r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	found, ok := f.sales.subscriptionByID[id]
	if !ok {
		return nil, errNotFound()
	}
	return found.document(), nil
}

func (f *Fake) listGrants(r *request) (any, error) {
	query := r.query()
	sales, granted := query.sales(), query.boolean("is_granted")
	paging := query.paging([]string{"created_at", "granted_at", "revoked_at"})
	if err := query.err(); err != nil {
		return nil, err
	}
	var found []grantDocument
	for _, g := range f.sales.grants {
		if sales.allowOwner(g.owner) && (granted == nil || *granted == g.IsGranted) {
			found = append(found, g.document())
		}
	}
	sortBy(found, paging, func(g grantDocument, by string) any {
		switch by {
		case "granted_at":
			return deref(g.GrantedAt).Time
		case "revoked_at":
			return deref(g.RevokedAt).Time
		}
		return g.CreatedAt.Time
	})
	return listResource(found, paging), nil
}

func (f *Fake) listMembers(r *request) (any, error) {
	query := r.query()
	sales, roles := query.sales(), query.choices("role", []string{"owner", "billing_manager", "member"})
	paging := query.paging([]string{"created_at"})
	if err := query.err(); err != nil {
		return nil, err
	}
	var found []*member
	for _, m := range f.sales.members {
		owner := f.customers.byID[m.CustomerID]
		if owner.DeletedAt == nil && sales.allowOwner(owner) && roles.allow(m.Role) {
			found = append(found, m)
		}
	}
	return listResource(found, paging), nil
}

func (f *Fake) listBenefits(r *request) (any, error) {
	query := r.query()
	ids, excluded, kinds := query.identifiers("id"), query.identifiers("exclude_id"), query.texts("type")
	paging := query.paging([]string{"created_at", "description", "type"})
	if err := query.err(); err != nil {
		return nil, err
	}
	search := query.text("query")
	var found []benefit
	for _, p := range f.catalog.products {
		for _, b := range p.Benefits {
			if ids.allow(b.ID) && !slices.Contains(excluded, b.ID) && kinds.allow(b.Type) && containsFold(b.Description, search) {
				found = append(found, b)
			}
		}
	}
	sortBy(found, paging, func(b benefit, by string) any {
		switch by {
		case "description":
			return b.Description
		case "type":
			return b.Type
		}
		return b.CreatedAt.Time
	})
	return listResource(found, paging), nil
}

// listNothing answers for kinds of object that the fake's organization has none of.
func (f *Fake) listNothing(r *request) (any, error) {
	query := r.query()
	paging := query.paging([]string{"created_at", "amount", "name", "redemptions_count"})
	if err := query.err(); err != nil {
		return nil, err
	}
	return listResource([]struct{}{}, paging), nil
}
