package polarfake

import (
	"encoding/json"
	"fmt"
	"slices"
)

// ObjectTypes are the types of object that the API shows, as the part of an event's type before the dot names them.
var ObjectTypes = []string{
	"customer", "checkout", "order", "subscription", "refund", "product", "discount", "benefit", "benefit_grant", "member",
	"customer_seat", "organization",
}

// kind is all the objects of one type.
type kind interface {
	documentsByID() map[string]json.RawMessage
	document(id string) json.RawMessage // nil for none
	deletedIDs() []string
	vanish(id string) bool
}

// kind panics over a type that is not among ObjectTypes: a comparison with nothing would find no difference.
func (f *Fake) kind(objectType string) kind {
	switch objectType {
	case "customer":
		return &f.customers
	case "checkout":
		return &f.checkouts
	case "order":
		return &f.sales.orders
	case "subscription":
		return &f.sales.subscriptions
	case "refund":
		return &f.sales.refunds
	case "product":
		return &f.catalog.products
	case "discount":
		return &f.catalog.discounts
	case "benefit":
		return &f.catalog.benefits
	case "benefit_grant":
		return &f.sales.grants
	case "member":
		return &f.sales.members
	case "customer_seat":
		return &f.sales.seats
	case "organization":
		return theOrganization{f}
	}
	panic(fmt.Sprintf("polarfake: object type %q is not one of %v", objectType, ObjectTypes))
}

// Objects returns the documents of everything of a type that exists now, by id, as a read by id or a list shows them.
// See [ObjectTypes].
func (f *Fake) Objects(objectType string) map[string]json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.kind(objectType).documentsByID()
}

func (f *Fake) object(objectType, id string) json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.kind(objectType).document(id)
}

// Deleted returns the ids of everything of a type that existed once, in the order in which it went.
func (f *Fake) Deleted(objectType string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.kind(objectType).deletedIDs()
}

// Vanish makes an object of any type but an organization one that is gone, and tells nobody: from now on it is in no
// list and cannot be read by id. What refers to it still does.
func (f *Fake) Vanish(objectType, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	if !slices.Contains(ObjectTypes, objectType) {
		return fmt.Errorf("object type %q is not one of %v", objectType, ObjectTypes)
	}
	if !f.kind(objectType).vanish(id) {
		return fmt.Errorf("%s %q: %w", objectType, id, errNotFound())
	}
	return nil
}

// forgetWhatVanishes settles what else knows an object that vanishes.
func (f *Fake) forgetWhatVanishes() {
	f.customers.forget = f.customers.free
	f.checkouts.forget = func(c *checkout) { delete(f.checkouts.bySecret, c.ClientSecret) }
	f.sales.subscriptions.forget = func(s *subscription) {
		f.sales.started.remove(s)
		s.owner.subscriptions = without(s.owner.subscriptions, s)
	}
	f.sales.grants.forget = func(g *grant) { g.owner.grants = without(g.owner.grants, g) }
	f.sales.members.forget = func(m *member) { m.owner.members = without(m.owner.members, m) }
	f.sales.seats.forget = func(s *seat) { s.bought.owner().seats = without(s.bought.owner().seats, s) }
}

func without[T comparable](all []T, one T) []T {
	return slices.DeleteFunc(all, func(other T) bool { return other == one })
}

// theOrganization is the only one of its kind, and stays.
type theOrganization struct{ f *Fake }

func (o theOrganization) documentsByID() map[string]json.RawMessage {
	return map[string]json.RawMessage{OrganizationID: encode(o.f.organizationDocument())}
}

func (o theOrganization) document(id string) json.RawMessage { return o.documentsByID()[id] }

func (theOrganization) deletedIDs() []string { return nil }

func (theOrganization) vanish(string) bool { return false }
