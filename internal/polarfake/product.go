package polarfake

import (
	"encoding/json"
	"slices"
)

// product is something to buy; its exported fields are its document.
type product struct {
	productCommon

	Metadata metadata   `json:"metadata"`
	Prices   []price    `json:"prices"`
	Benefits []*benefit `json:"benefits"`
	Medias   []string   `json:"medias"`
	Fields   []string   `json:"attached_custom_fields"`

	sequence int64
	view     *checkoutProduct // as sessions show it, always as it is now
}

type productCommon struct {
	ID                     string     `json:"id"`
	CreatedAt              timestamp  `json:"created_at"`
	ModifiedAt             *timestamp `json:"modified_at"`
	TrialInterval          *string    `json:"trial_interval"`
	TrialIntervalCount     *int64     `json:"trial_interval_count"`
	Name                   string     `json:"name"`
	Description            *string    `json:"description"`
	Visibility             string     `json:"visibility"`
	RecurringInterval      *string    `json:"recurring_interval"`
	RecurringIntervalCount *int64     `json:"recurring_interval_count"`
	MeterInterval          *string    `json:"meter_interval"`
	MeterIntervalCount     *int64     `json:"meter_interval_count"`
	IsRecurring            bool       `json:"is_recurring"`
	IsArchived             bool       `json:"is_archived"`
	OrganizationID         string     `json:"organization_id"`
}

// orderProduct is a product within an order or a discount.
type orderProduct struct {
	productCommon

	Metadata metadata `json:"metadata"`
}

// checkoutProduct is a product as a buyer may see it.
type checkoutProduct struct {
	productCommon

	Prices   []price          `json:"prices"`
	Benefits []*benefitPublic `json:"benefits"`
	Medias   []string         `json:"medias"`
}

func (p *product) standing() (id string, created rank) {
	return p.ID, rank{at: p.CreatedAt.Time, sequence: p.sequence}
}

func (p *product) forOrder() orderProduct {
	return orderProduct{productCommon: p.productCommon, Metadata: p.Metadata}
}

func (p *product) billingType() string {
	if p.IsRecurring {
		return "recurring"
	}
	return "one_time"
}

// refreshView has the sessions of a product show it as it is now.
func (p *product) refreshView() {
	if p.view == nil {
		p.view = new(checkoutProduct)
	}
	*p.view = checkoutProduct{productCommon: p.productCommon, Prices: p.Prices, Benefits: []*benefitPublic{}, Medias: []string{}}
	for _, benefit := range p.Benefits {
		p.view.Benefits = append(p.view.Benefits, &benefit.benefitPublic)
	}
}

func (f *Fake) newProduct(id, name string, now timestamp) *product {
	return &product{
		productCommon: productCommon{ID: id, CreatedAt: now, Name: name, Visibility: "public", OrganizationID: OrganizationID},
		Metadata:      metadata{}, Prices: []price{}, Benefits: []*benefit{}, Medias: []string{}, Fields: []string{}, sequence: f.next(),
	}
}

// CreateProduct does what POST /v1/products/ does with the body and returns the document.
func (f *Fake) CreateProduct(body string) (json.RawMessage, error) {
	return f.call(f.createProduct, body, nil)
}

// UpdateProduct does what PATCH /v1/products/{id} does with the body, which may archive it, and returns the document.
func (f *Fake) UpdateProduct(id, body string) (json.RawMessage, error) {
	return f.call(f.updateProduct, body, map[string]string{"id": id})
}

// SetProductBenefits does what POST /v1/products/{id}/benefits does, and returns the document. Who has bought the
// product gets what is new, and loses what is not part of it any more.
func (f *Fake) SetProductBenefits(id string, benefitIDs ...string) (json.RawMessage, error) {
	if benefitIDs == nil {
		benefitIDs = []string{}
	}
	body := encode(map[string]any{"benefits": benefitIDs})
	return f.call(f.updateProductBenefits, string(body), map[string]string{"id": id})
}

var productVisibilities = []string{"draft", "private", "public"}

func (f *Fake) listProducts(r *request) (any, error) {
	query := r.query()
	ids, organizations := query.identifiers("id"), query.identifiers("organization_id")
	benefits := query.identifiers("benefit_id")
	archived, recurring := query.boolean("is_archived"), query.boolean("is_recurring")
	visibility, wanted := query.choices("visibility", productVisibilities), query.metadata()
	paging := query.paging("created_at", "name", "price_amount_type", "price_amount")
	if err := query.err(); err != nil {
		return nil, err
	}
	search := query.text("query")

	return listing[*product]{
		all: f.catalog.products.all, order: "created_at", render: f.catalog.products.render,
		allow: func(p *product) bool {
			return ids.allow(p.ID) && organizations.allow(p.OrganizationID) && visibility.allow(p.Visibility) &&
				(archived == nil || *archived == p.IsArchived) && (recurring == nil || *recurring == p.IsRecurring) &&
				(len(benefits) == 0 || slices.ContainsFunc(p.Benefits, func(b *benefit) bool { return benefits.allow(b.ID) })) &&
				containsFold(p.Name, search) && p.Metadata.matches(wanted)
		},
		key: func(p *product, by string) sortable {
			switch {
			case by == "name":
				return byText(p.Name)
			case by == "created_at":
				return byTime(p.CreatedAt)
			case len(p.Prices) == 0:
				return sortable{isNull: true}
			case by == "price_amount_type":
				return byText(p.Prices[0].common().AmountType)
			}
			return byNumber(p.Prices[0].charge(priceChoice{seats: new(int64(1))}))
		},
	}.page(paging), nil
}

func (f *Fake) createProduct(r *request) (any, error) {
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	body.require("name")
	body.require("prices")
	now := f.now()
	p := f.newProduct(f.newID(), deref(body.text("name", 3, 64)), now)
	p.Description = body.text("description", 0, 0)
	p.Metadata = body.metadata("metadata")
	p.Visibility = *firstOf(body.choice("visibility", productVisibilities), &p.Visibility)
	p.TrialInterval, p.TrialIntervalCount = readTrial(body)
	p.RecurringInterval = body.choice("recurring_interval", trialIntervals)
	p.RecurringIntervalCount = body.integer("recurring_interval_count", 1, 999)
	if p.RecurringInterval != nil {
		p.IsRecurring, p.RecurringIntervalCount = true, firstOf(p.RecurringIntervalCount, new(int64(1)))
	}
	if value, ok := body.value("prices"); ok {
		p.Prices = f.readProductPrices(body, value, p, now)
	}
	if err := body.err(); err != nil {
		return nil, err
	}

	p.refreshView()
	f.catalog.products.add(p)
	f.emit("product.created", p.ID, p)
	return p, nil
}

// readProductPrices reads new prices, and those that a product has and keeps by their ids.
func (f *Fake) readProductPrices(body fields, value any, p *product, now timestamp) []price {
	list, ok := body.checkList(body.at("prices"), value, 1)
	if !ok {
		return nil
	}
	var prices []price
	for i, element := range list {
		entry, ok := body.checkObject(body.at("prices", i), element)
		if !ok {
			continue
		}
		if id := entry.identifier("id"); id != nil {
			at := slices.IndexFunc(p.Prices, func(kept price) bool { return kept.common().ID == *id })
			if at < 0 {
				body.failValue(entry.at("id"), "Price does not exist.", *id)
				continue
			}
			prices = append(prices, p.Prices[at])
			continue
		}
		if read := f.readPrice(entry, p, now); read != nil {
			read.common().Source = "catalog"
			prices = append(prices, read)
		}
	}
	checkCombination(body, body.at("prices"), prices)
	return prices
}

func (f *Fake) updateProduct(r *request) (any, error) {
	p, err := f.catalog.products.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	now := f.now()
	after := *p
	after.Name = *firstOf(body.text("name", 3, 64), &p.Name)
	if body.has("description") {
		after.Description = body.text("description", 0, 0)
	}
	if body.has("metadata") {
		after.Metadata = body.metadata("metadata")
	}
	after.Visibility = *firstOf(body.choice("visibility", productVisibilities), &p.Visibility)
	after.IsArchived = *firstOf(body.optionalBoolean("is_archived"), &p.IsArchived)
	if body.has("trial_interval") || body.has("trial_interval_count") {
		after.TrialInterval, after.TrialIntervalCount = readTrial(body)
	}
	if value, ok := body.value("prices"); ok {
		after.Prices = f.readProductPrices(body, value, p, now)
	}
	if err := body.err(); err != nil {
		return nil, err
	}

	f.revise(func() any { return p }, &p.ModifiedAt, func() { *p = after })
	p.refreshView()
	f.emit("product.updated", p.ID, p)
	return p, nil
}

func (f *Fake) updateProductBenefits(r *request) (any, error) {
	p, err := f.catalog.products.named(r)
	if err != nil {
		return nil, err
	}
	body, err := r.fields()
	if err != nil {
		return nil, err
	}
	chosen := []*benefit{}
	if body.require("benefits") {
		list, _ := body.list("benefits", 0)
		for i, element := range list {
			id, ok := body.checkIdentifier(body.at("benefits", i), element)
			if !ok {
				continue
			}
			found, exists := f.catalog.benefits.byID[id]
			if !exists {
				body.failValue(body.at("benefits", i), "Benefit does not exist.", id)
				continue
			}
			chosen = append(chosen, found)
		}
	}
	if err := body.err(); err != nil {
		return nil, err
	}

	f.revise(func() any { return p }, &p.ModifiedAt, func() { p.Benefits = chosen })
	p.refreshView()
	f.emit("product.updated", p.ID, p)
	f.regrantProduct(p)
	return p, nil
}
