package truenorth

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Price is an ad-hoc price of one checkout session: one of [FixedPrice],
// [CustomPrice], [FreePrice], [SeatBasedPrice], [MeteredUnitPrice],
// [MeteredTiersPrice] and [UnitBasedPrice]; or [RawPrice], for a kind that is
// newer than this package.
//
// A product has, in each currency, at most one fixed or free price and one
// seat-based price, or else a single custom price; and any number of metered
// ones. Every price has a currency of three lowercase letters ("" is Polar's
// default, usd) and a tax behavior ("" is the organization's default).
type Price interface {
	// AmountType is Polar's name for the kind of price.
	AmountType() string
	isPrice()
}

// Prices are the ad-hoc prices by product id, at least one for each.
type Prices map[uuid.UUID][]Price

// TaxBehavior says whether a price contains the tax.
type TaxBehavior string

// The tax behaviors; TaxBehaviorLocation leaves it to the buyer's location.
const (
	TaxBehaviorInclusive TaxBehavior = "inclusive"
	TaxBehaviorExclusive TaxBehavior = "exclusive"
	TaxBehaviorLocation  TaxBehavior = "location"
)

// FixedPrice is one amount, charged once or every period.
type FixedPrice struct {
	// PriceAmount in the minor unit; 0 is free, anything else is at least the
	// currency's minimum (50 for usd and eur).
	PriceAmount int64       `json:"price_amount"`
	Currency    string      `json:"price_currency,omitempty"`
	TaxBehavior TaxBehavior `json:"tax_behavior,omitempty"`
}

// CustomPrice lets the buyer choose the amount.
type CustomPrice struct {
	// MinimumAmount, nil for Polar's default of 50; 0 allows nothing at all.
	MinimumAmount *int64 `json:"minimum_amount,omitempty"`
	// MaximumAmount, 0 for none.
	MaximumAmount int64 `json:"maximum_amount,omitempty"`
	// PresetAmount is what the page shows at first.
	PresetAmount *int64      `json:"preset_amount,omitempty"`
	Currency     string      `json:"price_currency,omitempty"`
	TaxBehavior  TaxBehavior `json:"tax_behavior,omitempty"`
}

// FreePrice costs nothing. Polar stores it as a FixedPrice of 0.
type FreePrice struct {
	Currency    string      `json:"price_currency,omitempty"`
	TaxBehavior TaxBehavior `json:"tax_behavior,omitempty"`
}

// SeatBasedPrice is charged by the number of seats.
type SeatBasedPrice struct {
	SeatTiers   SeatTiers   `json:"seat_tiers"`
	Currency    string      `json:"price_currency,omitempty"`
	TaxBehavior TaxBehavior `json:"tax_behavior,omitempty"`
}

// SeatTiers are ranges of seats without a gap. The first one's MinSeats is the
// least that can be bought, the last one's MaxSeats the most.
type SeatTiers struct {
	// Type is how the tiers apply, "" for Polar's default, volume.
	Type  TierType   `json:"seat_tier_type,omitempty"`
	Tiers []SeatTier `json:"tiers"`
}

// SeatTier is the price of a seat in a range of seats.
type SeatTier struct {
	MinSeats int `json:"min_seats"`
	// MaxSeats is inclusive; 0 is unlimited, in the last tier only.
	MaxSeats int `json:"max_seats,omitempty"`
	// PricePerSeat in the minor unit, 0 or more.
	PricePerSeat int64 `json:"price_per_seat"`
}

// TierType is how tiers apply to a quantity.
type TierType string

const (
	// TierTypeVolume prices the whole quantity at the rate of the tier that
	// it reaches.
	TierTypeVolume TierType = "volume"
	// TierTypeGraduated prices the part in each tier at that tier's rate.
	TierTypeGraduated TierType = "graduated"
)

// MeteredUnitPrice is charged by usage, at one rate. For recurring products
// only.
type MeteredUnitPrice struct {
	MeterID uuid.UUID `json:"meter_id"`
	// UnitAmount is more than 0, with at most 5 digits before the point and
	// 12 after it.
	UnitAmount Decimal `json:"unit_amount"`
	// CapAmount is the most that a period costs, nil for no limit.
	CapAmount   *int64      `json:"cap_amount,omitempty"`
	Currency    string      `json:"price_currency,omitempty"`
	TaxBehavior TaxBehavior `json:"tax_behavior,omitempty"`
}

// MeteredTiersPrice is charged by usage, at rates by quantity.
type MeteredTiersPrice struct {
	MeterID uuid.UUID `json:"meter_id"`
	Tiers   Tiers     `json:"tiers"`
	// CapAmount is the most that a period costs, nil for no limit.
	CapAmount   *int64      `json:"cap_amount,omitempty"`
	Currency    string      `json:"price_currency,omitempty"`
	TaxBehavior TaxBehavior `json:"tax_behavior,omitempty"`
}

// UnitBasedPrice is charged by a quantity that the buyer chooses.
type UnitBasedPrice struct {
	// Tiers have whole minor units as their rates.
	Tiers Tiers `json:"tiers"`
	// MinimumUnits is the least that can be bought, nil for 1.
	MinimumUnits *int `json:"minimum_units,omitempty"`
	// UnitLabel names the unit by locale and plural form:
	// {"en": {"=1": "device", "other": "devices"}}.
	UnitLabel   map[string]map[string]string `json:"unit_label,omitzero"`
	Currency    string                       `json:"price_currency,omitempty"`
	TaxBehavior TaxBehavior                  `json:"tax_behavior,omitempty"`
}

// Tiers are rates by quantity, each tier beginning where the one before ends.
type Tiers struct {
	Type  TierType `json:"type"`
	Tiers []Tier   `json:"tiers"`
}

// Tier is the rate up to and including a quantity.
type Tier struct {
	// Bound is 0 for unlimited, in one tier only.
	Bound int64 `json:"bound,omitempty"`
	// UnitAmount is 0 or more, with at most 19 digits before the point and 12
	// after it.
	UnitAmount Decimal `json:"unit_amount"`
}

// RawPrice is a price as Polar's own JSON, for kinds that this package does
// not know. Decoding also keeps as RawPrice a price of a known kind that does
// not pass [ValidateParams]: encoding it again must not repair it.
type RawPrice json.RawMessage

// Decimal is an amount in the minor unit with decimal places, such as
// "0.0005". It encodes as a JSON string, which keeps all digits, and decodes
// from a string or a number.
type Decimal string

// UnmarshalJSON takes a string or a number.
func (d *Decimal) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] != '"' {
		var n json.Number
		if err := json.Unmarshal(data, &n); err != nil {
			return fmt.Errorf("decoding a decimal: %w", err)
		}
		*d = Decimal(n)
		return nil
	}
	if err := json.Unmarshal(data, (*string)(d)); err != nil {
		return fmt.Errorf("decoding a decimal: %w", err)
	}
	return nil
}

// Polar's names of the price kinds.
const (
	amountTypeFixed        = "fixed"
	amountTypeCustom       = "custom"
	amountTypeFree         = "free"
	amountTypeSeatBased    = "seat_based"
	amountTypeMeteredUnit  = "metered_unit"
	amountTypeMeteredTiers = "metered_tiers"
	amountTypeUnitBased    = "unit_based"
)

// AmountType returns "fixed".
func (FixedPrice) AmountType() string { return amountTypeFixed }

// AmountType returns "custom".
func (CustomPrice) AmountType() string { return amountTypeCustom }

// AmountType returns "free".
func (FreePrice) AmountType() string { return amountTypeFree }

// AmountType returns "seat_based".
func (SeatBasedPrice) AmountType() string { return amountTypeSeatBased }

// AmountType returns "metered_unit".
func (MeteredUnitPrice) AmountType() string { return amountTypeMeteredUnit }

// AmountType returns "metered_tiers".
func (MeteredTiersPrice) AmountType() string { return amountTypeMeteredTiers }

// AmountType returns "unit_based".
func (UnitBasedPrice) AmountType() string { return amountTypeUnitBased }

// AmountType returns the document's own amount_type, "" if it has none.
func (p RawPrice) AmountType() string {
	var head struct {
		AmountType string `json:"amount_type"`
	}
	if err := json.Unmarshal(p, &head); err != nil {
		return ""
	}
	return head.AmountType
}

func (FixedPrice) isPrice()        {}
func (CustomPrice) isPrice()       {}
func (FreePrice) isPrice()         {}
func (SeatBasedPrice) isPrice()    {}
func (MeteredUnitPrice) isPrice()  {}
func (MeteredTiersPrice) isPrice() {}
func (UnitBasedPrice) isPrice()    {}
func (RawPrice) isPrice()          {}

// MarshalJSON encodes p under its amount_type.
func (p FixedPrice) MarshalJSON() ([]byte, error) {
	type plain FixedPrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON encodes p under its amount_type.
func (p CustomPrice) MarshalJSON() ([]byte, error) {
	type plain CustomPrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON encodes p under its amount_type.
func (p FreePrice) MarshalJSON() ([]byte, error) {
	type plain FreePrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON encodes p under its amount_type.
func (p SeatBasedPrice) MarshalJSON() ([]byte, error) {
	type plain SeatBasedPrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON encodes p under its amount_type.
func (p MeteredUnitPrice) MarshalJSON() ([]byte, error) {
	type plain MeteredUnitPrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON encodes p under its amount_type.
func (p MeteredTiersPrice) MarshalJSON() ([]byte, error) {
	type plain MeteredTiersPrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON encodes p under its amount_type.
func (p UnitBasedPrice) MarshalJSON() ([]byte, error) {
	type plain UnitBasedPrice
	return marshalPrice(p.AmountType(), plain(p))
}

// MarshalJSON returns the document as it is.
func (p RawPrice) MarshalJSON() ([]byte, error) {
	if p == nil {
		return []byte("null"), nil
	}
	return p, nil
}

// marshalPrice encodes a price's fields, a struct, behind its amount_type.
func marshalPrice(amountType string, fields any) ([]byte, error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encoding a %s price: %w", amountType, err)
	}
	out := fmt.Appendf(nil, `{"amount_type":%q`, amountType)
	if len(body) > len("{}") {
		out = append(out, ',')
	}
	return append(out, body[1:]...), nil
}

// UnmarshalJSON decodes every price to the type of its amount_type, or keeps
// it as a [RawPrice].
func (p *Prices) UnmarshalJSON(data []byte) error {
	var byProduct map[uuid.UUID][]json.RawMessage
	if err := json.Unmarshal(data, &byProduct); err != nil {
		return fmt.Errorf("decoding prices: %w", err)
	}
	if byProduct == nil {
		*p = nil
		return nil
	}
	*p = make(Prices, len(byProduct))
	for product, raws := range byProduct {
		prices := make([]Price, len(raws))
		for i, raw := range raws {
			prices[i] = unmarshalPrice(raw)
		}
		(*p)[product] = prices
	}
	return nil
}

// unmarshalPrice never fails: what no type holds exactly is a RawPrice. The
// checks come first because a struct would read a missing or null
// price_amount as 0, and sell for nothing.
func unmarshalPrice(raw json.RawMessage) Price {
	v := &validator{}
	n := v.parse(raw)
	if n == nil || len(v.errs) > 0 {
		return RawPrice(raw)
	}
	checkPrice(v, "price", n)
	kind := priceKinds[n.text("amount_type")]
	if kind == nil || len(v.errs) > 0 ||
		slices.ContainsFunc(n.names, func(name string) bool { return !isField(kind.fields, name) }) {
		return RawPrice(raw)
	}
	price, err := kind.unmarshal(plainIntegers(raw))
	if err != nil {
		return RawPrice(raw)
	}
	return price
}

func unmarshalAs[P Price](raw []byte) (Price, error) {
	var p P
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("decoding a %s price: %w", p.AmountType(), err)
	}
	return p, nil
}

// priceKind is what is known about one amount_type.
type priceKind struct {
	fields []field
	// open lets fields pass that are not in fields.
	open bool
	// rules checks what concerns several fields.
	rules     func(v *validator, path string, n *node)
	unmarshal func(raw []byte) (Price, error)
}

var priceKinds = map[string]*priceKind{
	amountTypeFixed: {
		fields: priceFields(
			field{name: "price_amount", required: true, check: integer(0, maxInt)},
		),
		rules: func(v *validator, path string, n *node) {
			checkPriceAmount(v, path, n, "price_amount")
		},
		unmarshal: unmarshalAs[FixedPrice],
	},
	amountTypeCustom: {
		fields: priceFields(
			field{name: "minimum_amount", check: integer(0, maxInt)},
			field{name: "maximum_amount", nullable: true, check: integer(1, maxInt)},
			field{name: "preset_amount", nullable: true, check: integer(0, maxInt)},
		),
		rules: func(v *validator, path string, n *node) {
			checkPriceAmount(v, path, n, "minimum_amount")
			checkPriceAmount(v, path, n, "maximum_amount")
			checkPriceAmount(v, path, n, "preset_amount")
			checkOrder(v, path, n, "minimum_amount", "maximum_amount")
			checkOrder(v, path, n, "minimum_amount", "preset_amount")
			checkOrder(v, path, n, "preset_amount", "maximum_amount")
		},
		unmarshal: unmarshalAs[CustomPrice],
	},
	amountTypeFree: {
		fields:    priceFields(),
		unmarshal: unmarshalAs[FreePrice],
	},
	amountTypeSeatBased: {
		fields: priceFields(
			field{name: "seat_tiers", required: true, check: checkSeatTiers},
		),
		unmarshal: unmarshalAs[SeatBasedPrice],
	},
	amountTypeMeteredUnit: {
		fields: priceFields(
			field{name: "meter_id", required: true, check: checkUUID},
			field{name: "unit_amount", required: true, check: decimalNumber(decimalLimits{positive: true, whole: 5, places: 12})},
			field{name: "cap_amount", nullable: true, check: integer(0, maxInt32)},
		),
		unmarshal: unmarshalAs[MeteredUnitPrice],
	},
	amountTypeMeteredTiers: {
		fields: priceFields(
			field{name: "meter_id", required: true, check: checkUUID},
			field{name: "tiers", required: true, check: tiers(decimalLimits{whole: 19, places: 12})},
			field{name: "cap_amount", nullable: true, check: integer(0, maxInt32)},
		),
		open:      true, // young at Polar, and in no published schema
		unmarshal: unmarshalAs[MeteredTiersPrice],
	},
	amountTypeUnitBased: {
		fields: priceFields(
			field{name: "tiers", required: true, check: tiers(decimalLimits{whole: 19, places: 0})},
			field{name: "minimum_units", nullable: true, check: integer(0, maxInt)},
			field{name: "unit_label", nullable: true, check: checkUnitLabel},
		),
		rules:     checkMinimumUnits,
		unmarshal: unmarshalAs[UnitBasedPrice],
	},
}

// priceFields adds to a kind's own fields those that all kinds have.
func priceFields(own ...field) []field {
	return append(own,
		field{name: "amount_type", required: true, check: text(0)},
		field{name: "price_currency", check: checkCurrency},
		field{name: "tax_behavior", nullable: true, check: oneOf("inclusive", "exclusive", "location")},
	)
}

// checkPrices is the check of the field prices.
func checkPrices(v *validator, path string, n *node) {
	if !v.is(path, n, kindObject) {
		return
	}
	seen := make(map[string]bool)
	for _, product := range n.names {
		path := member(path, product)
		id, ok := canonicalUUID(product)
		if !ok {
			v.addf(path, "is not the UUID of a product")
			continue
		}
		if seen[id] {
			v.addf(path, "names a product a second time, in other letters")
		}
		seen[id] = true
		nonEmpty(checkPrice)(v, path, n.members[product])
		checkCombination(v, path, n.members[product])
	}
}

// checkPrice checks one price. A kind that is not known passes as it is.
func checkPrice(v *validator, path string, n *node) {
	if !v.is(path, n, kindObject) {
		return
	}
	amountType := n.members["amount_type"]
	if amountType == nil {
		v.addf(member(path, "amount_type"), "is required")
		return
	}
	if !v.is(member(path, "amount_type"), amountType, kindString) {
		return
	}
	kind := priceKinds[amountType.value]
	if kind == nil {
		if amountType.value == "" {
			v.addf(member(path, "amount_type"), "must not be empty")
		}
		return
	}
	v.object(path, n, kind.fields, kind.open)
	if kind.rules != nil {
		kind.rules(v, path, n)
	}
}

// checkCombination applies Polar's rule on which prices go together. A list in
// several currencies is several lists.
func checkCombination(v *validator, path string, n *node) {
	type count struct{ fixed, seatBased, custom int }
	counts := make(map[string]count)
	var currencies []string
	for _, price := range n.items {
		if price.kind != kindObject {
			continue
		}
		currency := priceCurrency(price)
		c := counts[currency]
		if c == (count{}) && !slices.Contains(currencies, currency) {
			currencies = append(currencies, currency)
		}
		switch price.text("amount_type") {
		case amountTypeFixed, amountTypeFree:
			c.fixed++
		case amountTypeSeatBased:
			c.seatBased++
		case amountTypeCustom:
			c.custom++
		}
		counts[currency] = c
	}
	for _, currency := range currencies {
		c := counts[currency]
		if c.fixed > 1 || c.seatBased > 1 || c.custom > 1 || c.custom == 1 && c.fixed+c.seatBased > 0 {
			v.addf(path, "has %d fixed or free, %d seat-based and %d custom prices in one currency; "+
				"Polar takes at most one fixed or free and one seat-based, or a single custom",
				c.fixed, c.seatBased, c.custom)
		}
	}
}

// minimumAmounts and maximumAmounts are Polar's bounds of a price in the minor
// unit. Polar has a minimum for every currency and moves them, so only the two
// that have stayed are here; what is lower than Polar allows, Polar refuses.
// The maxima are where its limit is higher than defaultMaximumAmount.
var (
	minimumAmounts = map[string]int64{"usd": 50, "eur": 50}
	maximumAmounts = map[string]int64{
		"ars": 140_000_000,
		"cdf": 280_000_000,
		"cop": 400_000_000,
		"idr": 1_600_000_000,
		"khr": 400_000_000,
		"lak": 2_100_000_000,
		"mnt": 350_000_000,
		"mwk": 175_000_000,
		"ngn": 155_000_000,
		"tzs": 250_000_000,
		"ugx": 370_000_000,
		"uzs": 1_250_000_000,
	}
)

const defaultMaximumAmount = 99_999_999

func priceCurrency(price *node) string {
	if currency := price.text("price_currency"); currency != "" {
		return currency
	}
	return "usd"
}

// checkPriceAmount holds a field against the bounds of the price's currency.
func checkPriceAmount(v *validator, path string, price *node, name string) {
	amount, ok := price.integer(name)
	if !ok || amount <= 0 {
		return
	}
	currency := priceCurrency(price)
	least := max(minimumAmounts[currency], 1)
	most := int64(defaultMaximumAmount)
	if m, ok := maximumAmounts[currency]; ok {
		most = m
	}
	if amount < least || amount > most {
		v.addf(member(path, name), "must be 0 or from %d to %d in the minor unit of its currency, is %d", least, most, amount)
	}
}

var (
	seatTiersFields = []field{
		{name: "seat_tier_type", check: oneOf("volume", "graduated")},
		{name: "tiers", required: true, check: nonEmpty(checkSeatTier)},
	}
	seatTierFields = []field{
		{name: "min_seats", required: true, check: integer(1, maxInt32)},
		{name: "max_seats", nullable: true, check: integer(1, maxInt32)},
		{name: "price_per_seat", required: true, check: integer(0, maxInt)},
	}
)

func checkSeatTier(v *validator, path string, n *node) {
	v.object(path, n, seatTierFields, false)
	checkOrder(v, path, n, "min_seats", "max_seats")
}

// checkSeatTiers also checks that the tiers are without a gap or an overlap.
// Like Polar it does not mind their order.
func checkSeatTiers(v *validator, path string, n *node) {
	before := len(v.errs)
	v.object(path, n, seatTiersFields, false)
	if len(v.errs) > before || n.kind != kindObject {
		return
	}
	path = member(path, "tiers")
	byMin := slices.SortedStableFunc(slices.Values(n.members["tiers"].items), func(a, b *node) int {
		x, _ := a.integer("min_seats")
		y, _ := b.integer("min_seats")
		return cmp.Compare(x, y)
	})
	for i, tier := range byMin[1:] {
		maxSeats, bounded := byMin[i].integer("max_seats")
		if !bounded {
			v.addf(path, "has a tier without max_seats that is not the last one")
			return
		}
		if minSeats, _ := tier.integer("min_seats"); minSeats != maxSeats+1 {
			v.addf(path, "has a tier that ends at %d seats, and the next one begins at %d", maxSeats, minSeats)
			return
		}
	}
}

// tiers makes the check of the rates that unit-based and tiered metered prices
// have in common.
func tiers(rate decimalLimits) check {
	tierFields := []field{
		{name: "bound", nullable: true, check: integer(1, maxInt)},
		{name: "unit_amount", required: true, check: decimalNumber(rate)},
	}
	tiersFields := []field{
		{name: "type", required: true, check: oneOf("volume", "graduated")},
		{name: "tiers", required: true, check: nonEmpty(func(v *validator, path string, n *node) {
			v.object(path, n, tierFields, false)
		})},
	}
	return func(v *validator, path string, n *node) {
		before := len(v.errs)
		v.object(path, n, tiersFields, false)
		if len(v.errs) > before || n.kind != kindObject {
			return
		}
		seen := make(map[int64]bool)
		for i, tier := range n.members["tiers"].items {
			bound, _ := tier.integer("bound") // 0 is unbounded
			if seen[bound] {
				v.addf(element(member(path, "tiers"), i), "has the same bound as another tier, or is a second one without a bound")
			}
			seen[bound] = true
		}
	}
}

// checkMinimumUnits holds minimum_units against the last tier, if that has an
// end.
func checkMinimumUnits(v *validator, path string, n *node) {
	minimum, ok := n.integer("minimum_units")
	schedule := n.members["tiers"]
	if !ok || schedule == nil || schedule.members["tiers"] == nil {
		return
	}
	var last int64
	for _, tier := range schedule.members["tiers"].items {
		bound, bounded := tier.integer("bound")
		if !bounded {
			return
		}
		last = max(last, bound)
	}
	if minimum > last {
		v.addf(member(path, "minimum_units"), "must not be more than the last tier's bound, is %d against %d", minimum, last)
	}
}

// checkUnitLabel takes an object of locales, each an object of plural forms.
func checkUnitLabel(v *validator, path string, n *node) {
	if !v.is(path, n, kindObject) {
		return
	}
	for _, locale := range n.names {
		path, forms := member(path, locale), n.members[locale]
		if !v.is(path, forms, kindObject) {
			continue
		}
		for _, form := range forms.names {
			v.is(member(path, form), forms.members[form], kindString)
		}
	}
}
