package polarfake

import "time"

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
	builtInSeatBenefit      = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1e03"
	OneTimeProductName      = "Field guide"
	MonthlyProductName      = "Explorer"
	catalogueCurrency       = "usd"
	monthly                 = "month"
	yearly                  = "year"
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

// catalog is what the organization sells.
type catalog struct {
	products  shelf[*product]
	benefits  shelf[*benefit]
	discounts shelf[*discount]
	meter     meter
}

// fillCatalog adds the built-in products and those asked for.
func (f *Fake) fillCatalog(added []Product) {
	f.catalog = catalog{
		products:  newShelf(func(p *product) any { return p }),
		benefits:  newShelf(func(b *benefit) any { return b }),
		discounts: newShelf(func(d *discount) any { return d.document() }),
		meter:     meter{ID: MeterID, Name: "API calls", Unit: "scalar"},
	}
	for _, spec := range []Product{
		{ID: OneTimeProductID, Name: OneTimeProductName, Description: "The whole handbook, yours to keep.", Amount: 4900, Benefit: "Download of the field guide"},
		{ID: MonthlyProductID, Name: MonthlyProductName, Description: "Every map, updated each month.", Recurring: monthly, Amount: 1200, Benefit: "Access to every map"},
		{ID: PayWhatYouWantProductID, Name: "Supporter", Description: "Give what it is worth to you.", Minimum: 300, Preset: 1000},
		{ID: SeatProductID, Name: "Expedition team", Description: "Explorer for everybody on your team.", Recurring: monthly, PerSeat: 800, Benefit: "Every map for the team"},
		{ID: FreeProductID, Name: "Day tripper", Description: "One map, for nothing.", Recurring: monthly},
		{ID: TrialProductID, Name: "Explorer, yearly", Description: "A year of maps, two weeks to try.", Recurring: yearly, Amount: 12000},
		{ID: ArchivedProductID, Name: "Paper map", Description: "Sold out.", Amount: 1900},
	} {
		p := f.addProduct(spec, builtInPriceID+spec.ID[len(spec.ID)-1:], builtInBenefits[spec.ID])
		switch spec.ID {
		case TrialProductID:
			p.TrialInterval, p.TrialIntervalCount = new("week"), new(int64(2))
		case ArchivedProductID:
			p.IsArchived = true
		}
	}
	for _, spec := range added {
		f.addProduct(spec, f.newID(), "")
	}
}

// builtInBenefits are the ids of the benefits that come with products of the built-in catalogue.
var builtInBenefits = map[string]string{
	OneTimeProductID: builtInOneTimeBenefit, MonthlyProductID: builtInMonthlyBenefit, SeatProductID: builtInSeatBenefit,
}

func (f *Fake) addProduct(spec Product, priceID, benefitID string) *product {
	if spec.ID == "" {
		spec.ID = f.newID()
	}
	now := f.organization.CreatedAt.add(time.Duration(len(f.catalog.products.all)) * time.Microsecond)
	p := f.newProduct(spec.ID, spec.Name, now)
	if spec.Description != "" {
		p.Description = &spec.Description
	}
	if spec.Recurring != "" {
		p.RecurringInterval, p.RecurringIntervalCount, p.IsRecurring = &spec.Recurring, new(int64(1)), true
	}
	p.Prices = []price{spec.price(priceCommon{
		CreatedAt: now, ID: priceID, Source: "catalog", AmountType: "fixed", Currency: catalogueCurrency, ProductID: spec.ID,
	})}
	if spec.Benefit != "" {
		if benefitID == "" {
			benefitID = f.newID()
		}
		b := f.newBenefit(benefitID, "custom", spec.Benefit, now)
		b.Properties = map[string]any{"note": nil}
		f.catalog.benefits.add(b)
		p.Benefits = append(p.Benefits, b)
	}
	p.refreshView()
	f.catalog.products.add(p)
	return p
}

func (spec Product) price(common priceCommon) price {
	switch {
	case spec.PerSeat > 0:
		common.AmountType = "seat_based"
		return &seatPrice{priceCommon: common, Tiers: seatTiers{
			Type: "volume", Minimum: 1, Tiers: []seatTier{
				{From: 1, To: new(int64(9)), Price: spec.PerSeat},
				{From: 10, Price: spec.PerSeat * 3 / 4},
			},
		}}
	case spec.Minimum > 0 || spec.Preset > 0:
		common.AmountType = "custom"
		custom := &customPrice{priceCommon: common, Minimum: spec.Minimum}
		if spec.Preset > 0 {
			custom.Preset = &spec.Preset
		}
		return custom
	}
	return &fixedPrice{priceCommon: common, Amount: spec.Amount}
}
