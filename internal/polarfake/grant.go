package polarfake

import (
	"encoding/json"
	"slices"
)

// grant is a benefit that somebody received with a purchase; its exported fields are its document, but for what is
// looked up to show it.
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
	Properties     map[string]any `json:"properties"`

	owner    *customer
	member   *member
	benefit  *benefit
	sequence int64
}

// grantDocument shows a grant with what it refers to as that is now.
type grantDocument struct {
	grant

	Customer customer `json:"customer"`
	Member   *member  `json:"member"`
	Benefit  *benefit `json:"benefit"`
}

// grantEvent is a grant as webhooks show it.
type grantEvent struct {
	grantDocument

	PreviousProperties map[string]any `json:"previous_properties"`
}

func (g *grant) standing() (id string, created rank) {
	return g.ID, rank{at: g.CreatedAt.Time, sequence: g.sequence}
}

func (g *grant) document() grantDocument {
	return grantDocument{grant: *g, Customer: g.owner.document(), Member: g.member, Benefit: g.benefit}
}

func (f *Fake) tellGrant(g *grant, eventType string, previous map[string]any) {
	f.emit(eventType, g.ID, grantEvent{grantDocument: g.document(), PreviousProperties: previous})
	f.emitStateLater(g.owner)
}

// purchase is what grants come from: a subscription, or the order of something sold once.
type purchase struct {
	subscription *subscription
	order        *order
}

func (p purchase) owner() *customer {
	if p.subscription != nil {
		return p.subscription.owner
	}
	return p.order.owner
}

func (p purchase) product() *product {
	if p.subscription != nil {
		return p.subscription.product
	}
	return p.order.product
}

// ids returns the id of the one or of the other.
func (p purchase) ids() (subscriptionID, orderID *string) {
	if p.subscription != nil {
		return &p.subscription.ID, nil
	}
	return nil, &p.order.ID
}

// seatCount is how many seats were bought; nil when it was not sold by the seat.
func (p purchase) seatCount() *int64 {
	if p.subscription != nil {
		return p.subscription.Seats
	}
	return p.order.Seats
}

func (p purchase) isOf(subscriptionID, orderID *string) bool {
	own, ownOrder := p.ids()
	return own != nil && deref(subscriptionID) == *own || ownOrder != nil && deref(orderID) == *ownOrder
}

// grants returns those that came of the purchase.
func (p purchase) grants() []*grant {
	var found []*grant
	for _, g := range p.owner().grants {
		if p.isOf(g.SubscriptionID, g.OrderID) {
			found = append(found, g)
		}
	}
	return found
}

// grantAll gives what a purchase entitles to: to the buyer or, if it was sold by the seat, to those who claimed one.
// What the product does not hold any more is revoked.
func (f *Fake) grantAll(p purchase) {
	if p.seatCount() == nil {
		f.grantTo(p, p.owner().ownerMember())
	} else {
		for _, s := range p.seats() {
			if s.Status == seatClaimed {
				f.grantTo(p, s.member)
			}
		}
	}
	for _, g := range p.grants() {
		if !slices.Contains(p.product().Benefits, g.benefit) {
			f.revokeGrant(g)
		}
	}
}

func (f *Fake) grantTo(p purchase, to *member) {
	had := p.grants()
	for _, b := range p.product().Benefits {
		at := slices.IndexFunc(had, func(g *grant) bool { return g.benefit == b && g.member == to })
		now := f.now()
		var g *grant
		switch {
		case at < 0:
			g = &grant{
				CreatedAt: now, ID: f.newID(), CustomerID: p.owner().ID, BenefitID: b.ID, Properties: map[string]any{},
				owner: p.owner(), member: to, benefit: b, sequence: f.next(),
			}
			g.SubscriptionID, g.OrderID = p.ids()
			if to != nil {
				g.MemberID = &to.ID
			}
			g.owner.grants = append(g.owner.grants, g)
			f.sales.grants.add(g)
		case had[at].IsGranted:
			continue
		default:
			g = had[at]
			g.ModifiedAt = &now
		}
		g.GrantedAt, g.IsGranted, g.RevokedAt, g.IsRevoked = &now, true, nil, false
		f.tellGrant(g, "benefit_grant.created", g.Properties) // also when the same one is granted anew
	}
}

// revokeAll takes back what came of a purchase.
func (f *Fake) revokeAll(p purchase) {
	for _, g := range p.grants() {
		f.revokeGrant(g)
	}
}

func (f *Fake) revokeGrant(g *grant) {
	if !g.IsGranted {
		return
	}
	now := f.now()
	g.GrantedAt, g.IsGranted, g.RevokedAt, g.IsRevoked, g.ModifiedAt = nil, false, &now, true, &now
	f.tellGrant(g, "benefit_grant.revoked", g.Properties)
}

func (f *Fake) updateGrant(g *grant, properties map[string]any) {
	now, previous := f.now(), g.Properties
	g.Properties, g.GrantedAt, g.ModifiedAt = properties, &now, &now
	f.tellGrant(g, "benefit_grant.updated", previous)
}

func (f *Fake) cycleGrant(g *grant) {
	g.ModifiedAt = new(f.now())
	f.tellGrant(g, "benefit_grant.cycled", g.Properties)
}

// regrantProduct settles anew what those have who bought a product.
func (f *Fake) regrantProduct(sold *product) {
	for _, s := range f.sales.subscriptions.all {
		if s.product == sold && s.isRunning() {
			f.grantAll(purchase{subscription: s})
		}
	}
	for _, o := range f.sales.orders.all {
		if o.product == sold && o.subscription == nil && o.Status == orderPaid {
			f.grantAll(purchase{order: o})
		}
	}
}

// Grants returns the documents of all benefit grants, oldest first.
func (f *Fake) Grants() []json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.sales.grants.documents()
}

// UpdateGrant renews a grant, as Polar does when its benefit has changed.
func (f *Fake) UpdateGrant(id string) error {
	return f.onGrant(id, func(g *grant) { f.updateGrant(g, g.Properties) })
}

// CycleGrant tells that a grant goes on for another period.
func (f *Fake) CycleGrant(id string) error { return f.onGrant(id, f.cycleGrant) }

// RevokeGrant takes a benefit back by itself, as Polar's dashboard can.
func (f *Fake) RevokeGrant(id string) error { return f.onGrant(id, f.revokeGrant) }

func (f *Fake) onGrant(id string, change func(*grant)) error {
	return act(f, &f.sales.grants, id, func(g *grant) error {
		if !g.IsGranted {
			return &APIError{Status: 409, Name: "BenefitGrantRevoked", Detail: "benefit grant " + g.ID + " is revoked"}
		}
		change(g)
		return nil
	})
}

func (f *Fake) listGrants(r *request) (any, error) {
	query := r.query()
	sales, granted := query.sales(), query.boolean("is_granted")
	paging := query.paging("created_at", "granted_at", "revoked_at")
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*grant]{
		all: f.sales.grants.all, order: "created_at", render: f.sales.grants.render,
		allow: func(g *grant) bool { return sales.allowOwner(g.owner) && (granted == nil || *granted == g.IsGranted) },
		key: func(g *grant, by string) sortable {
			switch by {
			case "granted_at":
				return byOptionalTime(g.GrantedAt)
			case "revoked_at":
				return byOptionalTime(g.RevokedAt)
			}
			return byTime(g.CreatedAt)
		},
	}.page(paging), nil
}

// listGrantsOfBenefit answers GET /v1/benefits/{id}/grants.
func (f *Fake) listGrantsOfBenefit(r *request) (any, error) {
	b, err := f.catalog.benefits.named(r)
	if err != nil {
		return nil, err
	}
	query := r.query()
	granted, customers := query.boolean("is_granted"), query.identifiers("customer_id")
	members, paging := query.identifiers("member_id"), query.paging()
	if err := query.err(); err != nil {
		return nil, err
	}
	return listing[*grant]{
		all: f.sales.grants.all, render: f.sales.grants.render,
		allow: func(g *grant) bool {
			return g.benefit == b && (granted == nil || *granted == g.IsGranted) && customers.allow(g.CustomerID) &&
				members.allowOptional(g.MemberID)
		},
	}.page(paging), nil
}
