package polarfake

import (
	"encoding/json"
	"slices"
	"time"
)

// OrganizationID is the organization that the fake plays, the one of the examples in Polar's documentation.
const OrganizationID = "1dbfc517-0bbf-4301-9ba8-555ca42b9737"

// The products of the built-in catalogue, all in US dollars.
const (
	OneTimeProductID        = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01" // 49.00 once, with a benefit
	MonthlyProductID        = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c02" // 12.00 a month, with a benefit
	PayWhatYouWantProductID = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c03" // 3.00 or more, 10.00 suggested
	SeatProductID           = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c04" // 8.00 a seat and month, from the tenth 6.00
	FreeProductID           = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c05" // nothing, every month
	TrialProductID          = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c06" // 120.00 a year after two weeks of trial
	ArchivedProductID       = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c07" // not for sale any more
	MeterID                 = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c20" // a meter for ad-hoc metered prices
	builtInPriceID          = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1d0"  // and the product's last digit
	builtInOneTimeBenefit   = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1e01"
	builtInMonthlyBenefit   = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1e02"
	catalogueCurrency       = "usd"
	monthly                 = "month"
	yearly                  = "year"
	organizationSlug        = "true-north"
	organizationName        = "True North"
	organizationEmail       = "support@true-north.example"
)

// Product is one to add to the catalogue: fixed when Amount is set or everything is zero (free), pay-what-you-want
// when Minimum or Preset is set, by the seat when PerSeat is set. Amounts are in cents.
type Product struct {
	ID          string // a UUID of version 4; "" generates one
	Name        string
	Description string
	Recurring   string // "day", "week", "month", "year"; "" sells once
	Amount      int64
	Minimum     int64
	Preset      int64
	PerSeat     int64
	Benefit     string // description of a benefit that buying grants; "" grants none
}

// product is what a Polar product knows; its documents are the four views below.
type product struct {
	productCommon
	Metadata metadata  `json:"metadata"`
	Prices   []price   `json:"prices"`
	Benefits []benefit `json:"benefits"`
	Medias   []string  `json:"medias"`
	Fields   []string  `json:"attached_custom_fields"`
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

// orderProduct is a product within an order.
type orderProduct struct {
	productCommon
	Metadata metadata `json:"metadata"`
}

// checkoutProduct is a product as a buyer may see it.
type checkoutProduct struct {
	productCommon
	Prices   []price         `json:"prices"`
	Benefits []benefitPublic `json:"benefits"`
	Medias   []string        `json:"medias"`
}

type benefitPublic struct {
	ID             string     `json:"id"`
	CreatedAt      timestamp  `json:"created_at"`
	ModifiedAt     *timestamp `json:"modified_at"`
	Type           string     `json:"type"`
	Description    string     `json:"description"`
	Selectable     bool       `json:"selectable"`
	Deletable      bool       `json:"deletable"`
	IsDeleted      bool       `json:"is_deleted"`
	OrganizationID string     `json:"organization_id"`
}

type benefit struct {
	benefitPublic
	Metadata               metadata       `json:"metadata"`
	Visibility             string         `json:"visibility"`
	Properties             map[string]any `json:"properties"`
	VisibilityConfigurable bool           `json:"visibility_configurable"`
}

func (p *product) forOrder() orderProduct {
	return orderProduct{productCommon: p.productCommon, Metadata: p.Metadata}
}

func (p *product) forCheckout() *checkoutProduct {
	view := &checkoutProduct{
		productCommon: p.productCommon, Prices: p.Prices, Benefits: []benefitPublic{}, Medias: []string{},
	}
	for _, benefit := range p.Benefits {
		view.Benefits = append(view.Benefits, benefit.benefitPublic)
	}
	return view
}

// catalog is what the organization sells. It does not change.
type catalog struct {
	products []*product // in the order of creation
	byID     map[string]*product
	views    map[string]*checkoutProduct
	meter    meter
}

func newCatalog(now timestamp, added []Product) *catalog {
	c := &catalog{
		byID:  make(map[string]*product),
		views: make(map[string]*checkoutProduct),
		meter: meter{ID: MeterID, Name: "API calls", Unit: "scalar"},
	}
	for _, spec := range []Product{
		{ID: OneTimeProductID, Name: "Field guide", Description: "The whole handbook, yours to keep.", Amount: 4900, Benefit: "Download of the field guide"},
		{ID: MonthlyProductID, Name: "Explorer", Description: "Every map, updated each month.", Recurring: monthly, Amount: 1200, Benefit: "Access to every map"},
		{ID: PayWhatYouWantProductID, Name: "Supporter", Description: "Give what it is worth to you.", Minimum: 300, Preset: 1000},
		{ID: SeatProductID, Name: "Expedition team", Description: "Explorer for everybody on your team.", Recurring: monthly, PerSeat: 800},
		{ID: FreeProductID, Name: "Day tripper", Description: "One map, for nothing.", Recurring: monthly},
		{ID: TrialProductID, Name: "Explorer, yearly", Description: "A year of maps, two weeks to try.", Recurring: yearly, Amount: 12000},
		{ID: ArchivedProductID, Name: "Paper map", Description: "Sold out.", Amount: 1900},
	} {
		c.add(spec, now, builtInPriceID+spec.ID[len(spec.ID)-1:])
	}
	trial := c.byID[TrialProductID]
	trial.TrialInterval, trial.TrialIntervalCount = new("week"), new(int64(2))
	c.byID[ArchivedProductID].IsArchived = true
	c.byID[OneTimeProductID].Benefits[0].ID = builtInOneTimeBenefit
	c.byID[MonthlyProductID].Benefits[0].ID = builtInMonthlyBenefit
	for _, spec := range added {
		c.add(spec, now, newID())
	}
	for _, p := range c.products {
		c.views[p.ID] = p.forCheckout()
	}
	return c
}

func (c *catalog) add(spec Product, now timestamp, priceID string) {
	if spec.ID == "" {
		spec.ID = newID()
	}
	now = now.add(time.Duration(len(c.products)) * time.Microsecond)
	p := &product{
		productCommon: productCommon{
			ID: spec.ID, CreatedAt: now, Name: spec.Name, Visibility: "public", OrganizationID: OrganizationID,
		},
		Metadata: metadata{}, Benefits: []benefit{}, Medias: []string{}, Fields: []string{},
	}
	if spec.Description != "" {
		p.Description = &spec.Description
	}
	if spec.Recurring != "" {
		p.RecurringInterval, p.RecurringIntervalCount, p.IsRecurring = &spec.Recurring, new(int64(1)), true
	}
	common := priceCommon{
		CreatedAt: now, ID: priceID, Source: "catalog", AmountType: "fixed", Currency: catalogueCurrency, ProductID: spec.ID,
	}
	switch {
	case spec.PerSeat > 0:
		common.AmountType = "seat_based"
		p.Prices = []price{&seatPrice{priceCommon: common, Tiers: seatTiers{
			Type: "volume", Minimum: 1, Tiers: []seatTier{
				{From: 1, To: new(int64(9)), Price: spec.PerSeat},
				{From: 10, Price: spec.PerSeat * 3 / 4},
			},
		}}}
	case spec.Minimum > 0 || spec.Preset > 0:
		common.AmountType = "custom"
		custom := &customPrice{priceCommon: common, Minimum: spec.Minimum}
		if spec.Preset > 0 {
			custom.Preset = &spec.Preset
		}
		p.Prices = []price{custom}
	default:
		p.Prices = []price{&fixedPrice{priceCommon: common, Amount: spec.Amount}}
	}
	if spec.Benefit != "" {
		p.Benefits = append(p.Benefits, benefit{
			benefitPublic: benefitPublic{
				ID: newID(), CreatedAt: now, Type: "custom", Description: spec.Benefit,
				Selectable: true, Deletable: true, OrganizationID: OrganizationID,
			},
			Metadata: metadata{}, Visibility: "public", Properties: map[string]any{"note": nil}, VisibilityConfigurable: true,
		})
	}
	c.products = append(c.products, p)
	c.byID[p.ID] = p
}

func (f *Fake) listProducts(r *request) (any, error) {
	query := r.query()
	ids, organizations := query.identifiers("id"), query.identifiers("organization_id")
	benefits := query.identifiers("benefit_id")
	archived, recurring := query.boolean("is_archived"), query.boolean("is_recurring")
	visibility := query.choices("visibility", []string{"draft", "private", "public"})
	paging := query.paging([]string{"created_at", "name", "price_amount_type", "price_amount"})
	if err := query.err(); err != nil {
		return nil, err
	}
	search := query.text("query")

	var found []*product
	for _, p := range f.catalog.products {
		if ids.allow(p.ID) && organizations.allow(p.OrganizationID) && visibility.allow(p.Visibility) &&
			(archived == nil || *archived == p.IsArchived) && (recurring == nil || *recurring == p.IsRecurring) &&
			(len(benefits) == 0 || slices.ContainsFunc(p.Benefits, func(b benefit) bool { return benefits.allow(b.ID) })) &&
			containsFold(p.Name, search) {
			found = append(found, p)
		}
	}
	sortBy(found, paging, func(p *product, by string) any {
		switch by {
		case "name":
			return p.Name
		case "price_amount_type":
			return p.Prices[0].common().AmountType
		case "price_amount":
			return p.Prices[0].charge(priceChoice{seats: new(int64(1))})
		}
		return p.CreatedAt.Time
	})
	return listResource(found, paging), nil
}

func (f *Fake) getProduct(r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	found, ok := f.catalog.byID[id]
	if !ok {
		return nil, errNotFound()
	}
	return found, nil
}

func (f *Fake) listOrganizations(r *request) (any, error) {
	query := r.query()
	paging := query.paging([]string{"created_at", "slug", "name"})
	if err := query.err(); err != nil {
		return nil, err
	}
	var found []json.RawMessage
	if slug := query.text("slug"); slug == "" || slug == organizationSlug {
		found = append(found, encode(f.organization()))
	}
	return listResource(found, paging), nil
}

func (f *Fake) getOrganization(r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	if id != OrganizationID {
		return nil, errNotFound()
	}
	return f.organization(), nil
}

func (f *Fake) organization() map[string]any {
	return map[string]any{
		"id": OrganizationID, "created_at": f.organizedAt, "modified_at": nil, "name": organizationName,
		"slug": organizationSlug, "avatar_url": nil, "proration_behavior": "prorate", "allow_customer_updates": true,
		"email": organizationEmail, "website": nil, "socials": []string{}, "status": "active",
		"details_submitted_at": f.organizedAt, "onboarding_resubmission_requested_at": nil, "sso_enforced": false,
		"default_presentment_currency": catalogueCurrency, "default_tax_behavior": "location",
		"feature_settings": map[string]any{"member_model_enabled": true, "seat_based_pricing_enabled": true},
		"subscription_settings": map[string]any{
			"allow_multiple_subscriptions": f.options.AllowMultipleSubscriptions, "proration_behavior": "prorate",
			"benefit_revocation_grace_period": 0, "prevent_trial_abuse": false, "allow_customer_updates": true,
		},
		"customer_email_settings": map[string]any{
			"order_confirmation": true, "payment_method_expiration_reminder": true, "subscription_cancellation": true,
			"subscription_confirmation": true, "subscription_cycled": true, "subscription_cycled_after_trial": true,
			"subscription_past_due": true, "subscription_paused": true, "subscription_resumed": true,
			"subscription_renewal_reminder": true, "subscription_revoked": true,
			"subscription_trial_conversion_reminder": true, "subscription_uncanceled": true, "subscription_updated": true,
		},
		"customer_portal_settings": map[string]any{
			"usage":        map[string]any{"show": true},
			"subscription": map[string]any{"update_seats": true, "update_plan": true, "pause": false},
			"customer":     map[string]any{"allow_email_change": false},
		},
		"dispute_settings": map[string]any{"auto_accept_below_amount": nil},
		"embed_hosts":      []string{}, "embed_hosts_enforced": false, "country": "US", "account_id": nil, "payout_account_id": nil,
		"capabilities": map[string]any{
			"checkout_payments": true, "subscription_renewals": true, "payouts": true, "refunds": true,
			"api_access": true, "dashboard_access": true,
		},
	}
}
