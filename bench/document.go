package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// event is one of Polar's, with the id of its delivery.
type event struct {
	webhookID string
	kind      string
	objectID  string
	at        time.Time
	body      []byte
}

// eventsPerBuyer is how many events one purchase makes.
const eventsPerBuyer = 8

// author writes events as Polar writes them. Its ids are as random as Polar's, and the same in every run.
type author struct {
	random *rand.Rand
	size   int // of a body in bytes, at least
	now    time.Time
	users  int // those before are others'
}

func newAuthor(size int) *author { return newAuthorOf(size, 0) }

// newAuthorOf is one of several who write into one database: each has ids of its own, and a million users.
func newAuthorOf(size, number int) *author {
	return &author{
		random: rand.New(rand.NewPCG(2026, uint64(10+number))), size: size, users: number * 1_000_000, //nolint:gosec // ids of a benchmark need not be secret
		now: time.Now().Add(-time.Hour).UTC().Truncate(time.Microsecond),
	}
}

func (a *author) id() string {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(a.random.UintN(256)) //nolint:gosec // it fits
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

// tick is the next moment; no two events share one, so that none ties with another.
func (a *author) tick() string {
	a.now = a.now.Add(10 * time.Microsecond)
	return stamp(a.now)
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000000Z") }

// words compress about as well as what people write.
var words = strings.Fields(`north star compass ledger harbour signal meadow copper lantern orbit canvas river summit timber
	velvet willow anchor breeze cinder delta ember falcon glacier hollow island jasper kernel lagoon marble nectar opal prairie`)

// event wraps a document, filled up in its metadata to the size wanted.
func (a *author) event(kind string, data map[string]any) event {
	e := event{webhookID: a.id(), kind: kind, objectID: data["id"].(string), at: a.now} //nolint:forcetypeassert // written below
	metadata := map[string]any{}
	data["metadata"] = metadata
	encode := func() []byte {
		body, err := json.Marshal(map[string]any{"type": kind, "timestamp": stamp(a.now), "api_version": "2026-10", "data": data})
		if err != nil {
			panic(fmt.Sprintf("encoding a %s: %v", kind, err)) // it is made of texts and numbers
		}
		return body
	}
	e.body = encode()
	const field = len(`"note":""`)
	if missing := a.size - len(e.body) - field; missing > 0 {
		var note strings.Builder
		for note.Len() < missing {
			note.WriteString(words[a.random.IntN(len(words))])
			note.WriteByte(' ')
		}
		metadata["note"] = note.String()[:missing]
		e.body = encode()
	}
	return e
}

// customer is the document of the i-th buyer, a user of the product's.
func customer(id, user, at string) map[string]any {
	return map[string]any{
		"id": id, "created_at": at, "modified_at": nil, "external_id": user, "email": user + "@example.com", "email_verified": true,
		"type": "individual", "name": "Ada Lovelace", "billing_name": nil, "billing_address": nil, "tax_id": nil, "locale": nil,
		"organization_id": polarfake.OrganizationID, "default_payment_method_id": nil, "deleted_at": nil,
		"first_user_event_at": nil, "avatar_url": "https://www.gravatar.com/avatar/xxx?d=404",
	}
}

// user is the id of the i-th local user.
func user(i int) string { return fmt.Sprintf("usr_%d", i) }

// newCustomers are events of customers that are new, one for each of the author's users from first on.
func (a *author) newCustomers(first, n int) []event {
	events := make([]event, n)
	for i := range events {
		at := a.tick()
		events[i] = a.event("customer.created", customer(a.id(), user(a.users+first+i), at))
	}
	return events
}

// buyer is one purchase.
type buyer struct {
	user, customer, checkout, secret, order, grant string

	customerSince, checkoutSince, orderSince string
}

// purchases are the events of purchases that go on side by side: those of one buyer are in order, and between them are
// those of others.
func (a *author) purchases(n int) []event {
	const sideBySide = 32
	events := make([]event, 0, n+eventsPerBuyer*sideBySide)
	for first := 0; len(events) < n; first += sideBySide {
		var buyers [sideBySide]buyer
		for i := range buyers {
			buyers[i] = buyer{user: user(a.users + first + i), customer: a.id(), checkout: a.id(), secret: "polar_c_" + a.id(), order: a.id(), grant: a.id()}
		}
		for step := range eventsPerBuyer {
			for i := range buyers {
				events = append(events, a.step(&buyers[i], step))
			}
		}
	}
	return events[:n]
}

func (a *author) step(b *buyer, step int) event {
	at := a.tick()
	switch step {
	case 0:
		b.customerSince = at
		return a.event("customer.created", customer(b.customer, b.user, at))
	case 1:
		b.checkoutSince = at
		return a.event("checkout.created", checkout(b, "open", nil, nil))
	case 2:
		return a.event("checkout.updated", checkout(b, "confirmed", at, nil))
	case 3:
		return a.event("checkout.updated", checkout(b, "succeeded", at, b.customer))
	case 4:
		b.orderSince = at
		return a.event("order.created", order(b, "pending", nil))
	case 5:
		return a.event("order.paid", order(b, "paid", at))
	case 6:
		return a.event("benefit_grant.created", grant(b, at))
	}
	state := customer(b.customer, b.user, b.customerSince)
	state["active_subscriptions"], state["active_meters"] = []any{}, []any{}
	state["granted_benefits"] = []any{map[string]any{
		"id": b.grant, "created_at": at, "modified_at": nil, "granted_at": at, "benefit_id": benefitID, "benefit_type": "custom",
		"benefit_metadata": map[string]any{}, "properties": map[string]any{},
	}}
	return a.event("customer.state_changed", state)
}

const benefitID = "397a17aa-15cf-4cb4-9333-18040203cf98"

func checkout(b *buyer, status string, modified, customerID any) map[string]any {
	return map[string]any{
		"id": b.checkout, "created_at": b.checkoutSince, "modified_at": modified, "custom_field_data": map[string]any{},
		"payment_processor": "stripe", "status": status, "client_secret": b.secret, "url": "https://polar.sh/checkout/" + b.secret,
		"expires_at": "2099-01-01T00:00:00Z", "success_url": "https://shop.example/thanks", "embed_origin": nil,
		"amount": 1000, "discount_amount": 0, "net_amount": 1000, "tax_amount": 190, "total_amount": 1190, "currency": "usd",
		"organization_id": polarfake.OrganizationID, "product_id": polarfake.OneTimeProductID, "discount_id": nil,
		"is_payment_required": true, "customer_id": customerID, "customer_email": b.user + "@example.com", "customer_name": nil,
		"external_customer_id": b.user, "customer_billing_address": map[string]any{"country": "US"},
	}
}

func order(b *buyer, status string, modified any) map[string]any {
	return map[string]any{
		"id": b.order, "created_at": b.orderSince, "modified_at": modified, "status": status, "paid": status == "paid",
		"subtotal_amount": 1000, "discount_amount": 0, "net_amount": 1000, "tax_amount": 190, "total_amount": 1190,
		"refunded_amount": 0, "refunded_tax_amount": 0, "currency": "usd", "billing_reason": "purchase", "billing_name": nil,
		"customer_id": b.customer, "product_id": polarfake.OneTimeProductID, "discount_id": nil, "subscription_id": nil,
		"checkout_id": b.checkout, "custom_field_data": map[string]any{}, "customer": customer(b.customer, b.user, b.customerSince),
	}
}

func grant(b *buyer, at string) map[string]any {
	return map[string]any{
		"id": b.grant, "created_at": at, "modified_at": nil, "granted_at": at, "is_granted": true, "revoked_at": nil,
		"is_revoked": false, "subscription_id": nil, "order_id": b.order, "customer_id": b.customer, "member_id": nil,
		"benefit_id": benefitID, "error": nil, "customer": customer(b.customer, b.user, b.customerSince),
		"properties": map[string]any{},
	}
}
