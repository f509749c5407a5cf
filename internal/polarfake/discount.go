package polarfake

import (
	"encoding/json"
	"slices"
)

// discount takes something off a price. Which fields its document has depends on its type and duration.
type discount struct {
	discountBase

	products []*product
	sequence int64
}

// discountBase is a discount within an order or a subscription.
type discountBase struct {
	discountMinimal

	CreatedAt                 timestamp  `json:"created_at"`
	ModifiedAt                *timestamp `json:"modified_at"`
	Metadata                  metadata   `json:"metadata"`
	StartsAt                  *timestamp `json:"starts_at"`
	EndsAt                    *timestamp `json:"ends_at"`
	MaxRedemptions            *int64     `json:"max_redemptions"`
	MaxRedemptionsPerCustomer *int64     `json:"max_redemptions_per_customer"`
	RedemptionsCount          int64      `json:"redemptions_count"`
	OrganizationID            string     `json:"organization_id"`
}

// discountMinimal is a discount as a buyer sees it.
type discountMinimal struct {
	ID               string           `json:"id"`
	Name             string           `json:"name"`
	Code             *string          `json:"code"`
	Type             string           `json:"type"`
	Duration         string           `json:"duration"`
	DurationInMonths *int64           `json:"duration_in_months,omitempty"` // repeating ones only
	Amount           *int64           `json:"amount,omitempty"`             // fixed ones only, as the next two
	Currency         *string          `json:"currency,omitempty"`
	Amounts          map[string]int64 `json:"amounts,omitempty"`
	BasisPoints      *int64           `json:"basis_points,omitempty"` // those by percentage only
}

type discountDocument struct {
	discountBase

	Products []orderProduct `json:"products"`
}

const (
	discountFixed      = "fixed"
	discountPercentage = "percentage"
	durationRepeating  = "repeating"
)

func (d *discount) standing() (id string, created rank) {
	return d.ID, rank{at: d.CreatedAt.Time, sequence: d.sequence}
}

func (d *discount) document() discountDocument {
	document := discountDocument{discountBase: d.discountBase, Products: []orderProduct{}}
	for _, p := range d.products {
		document.Products = append(document.Products, p.forOrder())
	}
	return document
}

// base and minimal are the discount within other documents; nil for none.
func (d *discount) base() *discountBase {
	if d == nil {
		return nil
	}
	return &d.discountBase
}

func (d *discount) minimal() *discountMinimal {
	if d == nil {
		return nil
	}
	return &d.discountMinimal
}

// off is what the discount takes from an amount.
func (d *discount) off(amount int64, currency string) int64 {
	switch {
	case d == nil:
		return 0
	case d.Type == discountFixed:
		return min(amount, d.Amounts[currency])
	}
	return (amount*deref(d.BasisPoints) + 5_000) / 10_000
}

// applies reports whether the discount may be used for a product now.
func (d *discount) applies(p *product, now timestamp) bool {
	return (len(d.products) == 0 || slices.Contains(d.products, p)) &&
		(d.StartsAt == nil || !d.StartsAt.After(now.Time)) && (d.EndsAt == nil || d.EndsAt.After(now.Time)) &&
		(d.MaxRedemptions == nil || d.RedemptionsCount < *d.MaxRedemptions)
}

// CreateDiscount does what POST /v1/discounts/ does with the body and returns the document.
func (f *Fake) CreateDiscount(body string) (json.RawMessage, error) {
	return f.call(f.createDiscount, body, nil)
}

// UpdateDiscount does what PATCH /v1/discounts/{id} does with the body and returns the document.
func (f *Fake) UpdateDiscount(id, body string) (json.RawMessage, error) {
	return f.call(f.updateDiscount, body, map[string]string{"id": id})
}

// DeleteDiscount does what DELETE /v1/discounts/{id} does.
func (f *Fake) DeleteDiscount(id string) error {
	_, err := f.call(f.deleteDiscount, "", map[string]string{"id": id})
	return err
}

func (f *Fake) listDiscounts(r *request) (any, error) {
	query := r.query()
	organizations := query.identifiers("organization_id")
	paging := query.paging("created_at", "name", "code", "redemptions_count", "ends_at")
	if err := query.err(); err != nil {
		return nil, err
	}
	search := query.text("query")
	return listing[*discount]{
		all: f.catalog.discounts.all, order: "created_at", render: f.catalog.discounts.render,
		allow: func(d *discount) bool { return organizations.allow(d.OrganizationID) && containsFold(d.Name, search) },
		key: func(d *discount, by string) sortable {
			switch by {
			case "name":
				return byText(d.Name)
			case "code":
				return byOptionalText(d.Code)
			case "redemptions_count":
				return byNumber(d.RedemptionsCount)
			case "ends_at":
				return byOptionalTime(d.EndsAt)
			}
			return byTime(d.CreatedAt)
		},
	}.page(paging), nil
}

func (f *Fake) createDiscount(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"type", "name", "duration"} {
		body.require(name)
	}
	d := &discount{discountBase: discountBase{
		discountMinimal: discountMinimal{ID: f.newID(), Currency: new(catalogueCurrency)},
		CreatedAt:       f.now(), Metadata: metadata{}, OrganizationID: OrganizationID,
	}, sequence: f.next()}
	f.readDiscount(body, d)
	switch {
	case d.Type == discountPercentage:
		body.require("basis_points")
	case d.Type == discountFixed && len(d.Amounts) == 0:
		body.require("amount")
	}
	if d.Duration == durationRepeating {
		body.require("duration_in_months")
	}
	if err := body.err(); err != nil {
		return nil, err
	}
	if err := f.checkDiscount(body, d); err != nil {
		return nil, err
	}
	f.catalog.discounts.add(d)
	f.emit("discount.created", d.ID, d.document())
	return d.document(), nil
}

// readDiscount overlays a discount with what a request says.
func (f *Fake) readDiscount(body fields, d *discount) {
	d.Name = *firstOf(body.text("name", 1, 0), &d.Name)
	d.Type = *firstOf(body.choice("type", []string{discountFixed, discountPercentage}), &d.Type)
	d.Duration = *firstOf(body.choice("duration", []string{"once", "forever", durationRepeating}), &d.Duration)
	d.DurationInMonths = firstOf(body.integer("duration_in_months", 1, 999), d.DurationInMonths)
	if d.Duration != durationRepeating {
		d.DurationInMonths = nil
	}
	if body.has("code") {
		d.Code = body.nullableText("code")
	}
	if body.has("metadata") {
		d.Metadata = body.metadata("metadata")
	}
	if body.has("starts_at") {
		d.StartsAt = body.moment("starts_at")
	}
	if body.has("ends_at") {
		d.EndsAt = body.moment("ends_at")
	}
	if body.has("max_redemptions") {
		d.MaxRedemptions = body.integer("max_redemptions", 1, 1<<31-1)
	}
	if body.has("max_redemptions_per_customer") {
		d.MaxRedemptionsPerCustomer = body.integer("max_redemptions_per_customer", 1, 1<<31-1)
	}
	f.readDiscountAmounts(body, d)
	if !body.has("products") {
		return
	}
	d.products = nil
	list, _ := body.values["products"].([]any)
	for i, element := range list {
		id, ok := body.checkIdentifier(body.at("products", i), element)
		if !ok {
			continue
		}
		p, exists := f.catalog.products.byID[id]
		if !exists {
			body.failValue(body.at("products", i), "Product does not exist.", id)
			continue
		}
		d.products = append(d.products, p)
	}
}

func (f *Fake) readDiscountAmounts(body fields, d *discount) {
	const maximum = 999_999_999_999
	if d.Type == discountPercentage {
		d.Amount, d.Currency, d.Amounts = nil, nil, nil
		d.BasisPoints = firstOf(body.integer("basis_points", 1, 10_000), d.BasisPoints)
		return
	}
	d.BasisPoints = nil
	currency := *firstOf(body.choice("currency", presentmentCurrencies), d.Currency, new(catalogueCurrency))
	if given, ok := body.object("amounts"); ok {
		d.Amounts = make(map[string]int64)
		for _, name := range sortedKeys(given.values) {
			if amount := given.integer(name, 0, maximum); amount != nil {
				d.Amounts[name] = *amount
				currency = name
			}
		}
	}
	if amount := body.integer("amount", 0, maximum); amount != nil {
		d.Amounts = map[string]int64{currency: *amount}
	}
	d.Currency, d.Amount = &currency, new(d.Amounts[currency])
}

// checkDiscount reports a code that another discount has.
func (f *Fake) checkDiscount(body fields, d *discount) error {
	for _, other := range f.catalog.discounts.all {
		if d.Code != nil && other.ID != d.ID && deref(other.Code) == *d.Code {
			body.failValue(body.at("code"), "Discount with this code already exists.", *d.Code)
		}
	}
	return body.ruleErr()
}

func (f *Fake) updateDiscount(r *request) (any, error) {
	d, err := f.catalog.discounts.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	after := *d
	f.readDiscount(body, &after)
	if err := body.err(); err != nil {
		return nil, err
	}
	if err := f.checkDiscount(body, &after); err != nil {
		return nil, err
	}
	f.revise(func() any { return d.document() }, &d.ModifiedAt, func() { *d = after })
	f.emit("discount.updated", d.ID, d.document())
	return d.document(), nil
}

func (f *Fake) deleteDiscount(r *request) (any, error) {
	d, err := f.catalog.discounts.named(r)
	if err != nil {
		return nil, err
	}
	d.ModifiedAt = new(f.now())
	f.catalog.discounts.retire(d)
	f.emit("discount.deleted", d.ID, d.document())
	return struct{}{}, nil
}

// redeem counts a use. Polar tells nobody of it: only a read shows the new count.
func (f *Fake) redeem(d *discount) {
	if d != nil {
		d.RedemptionsCount++
		d.ModifiedAt = new(f.now())
	}
}
