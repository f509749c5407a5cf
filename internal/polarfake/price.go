package polarfake

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Polar's bounds of an amount of money, in the currency's minor unit.
const (
	maximumAmount        = 99_999_999
	defaultMinimumAmount = 50
	maximumSeats         = 10_000
)

// minimumAmounts are the least amounts that can be charged, where they are known to differ from the usual 50.
var minimumAmounts = map[string]int64{
	"gbp": 30, "jpy": 50, "krw": 500, "sek": 300, "nok": 300, "dkk": 250, "pln": 200, "huf": 17_500, "czk": 1_500,
	"mxn": 1_000, "hkd": 400, "thb": 1_000, "ron": 200, "aed": 200, "myr": 200,
}

func minimumAmount(currency string) int64 {
	if amount, ok := minimumAmounts[currency]; ok {
		return amount
	}
	return defaultMinimumAmount
}

// price is what a product costs, in one of Polar's kinds.
type price interface {
	common() *priceCommon
	// charge is the amount due for what the buyer chose.
	charge(choice priceChoice) int64
}

// priceChoice is what a buyer settles where the price leaves it open.
type priceChoice struct {
	amount *int64
	seats  *int64
	units  *int64
}

type priceCommon struct {
	CreatedAt   timestamp  `json:"created_at"`
	ModifiedAt  *timestamp `json:"modified_at"`
	ID          string     `json:"id"`
	Source      string     `json:"source"`
	AmountType  string     `json:"amount_type"`
	Currency    string     `json:"price_currency"`
	TaxBehavior *string    `json:"tax_behavior"`
	IsArchived  bool       `json:"is_archived"`
	ProductID   string     `json:"product_id"`
}

func (p *priceCommon) common() *priceCommon { return p }

type fixedPrice struct {
	priceCommon
	Amount int64 `json:"price_amount"`
}

func (p *fixedPrice) charge(priceChoice) int64 { return p.Amount }

type customPrice struct {
	priceCommon
	Minimum int64  `json:"minimum_amount"`
	Maximum *int64 `json:"maximum_amount"`
	Preset  *int64 `json:"preset_amount"`
}

func (p *customPrice) charge(choice priceChoice) int64 {
	switch {
	case choice.amount != nil:
		return *choice.amount
	case p.Preset != nil:
		return *p.Preset
	}
	return p.Minimum
}

type seatPrice struct {
	priceCommon
	Tiers seatTiers `json:"seat_tiers"`
}

type seatTiers struct {
	Type    string     `json:"seat_tier_type"`
	Tiers   []seatTier `json:"tiers"`
	Minimum int64      `json:"minimum_seats"`
	Maximum *int64     `json:"maximum_seats"`
}

type seatTier struct {
	From  int64  `json:"min_seats"`
	To    *int64 `json:"max_seats"`
	Price int64  `json:"price_per_seat"`
}

func (p *seatPrice) charge(choice priceChoice) int64 {
	seats := deref(choice.seats)
	var total int64
	for _, tier := range p.Tiers.Tiers {
		inTier := seats >= tier.From && (tier.To == nil || seats <= *tier.To)
		if p.Tiers.Type == "volume" {
			if inTier {
				return seats * tier.Price
			}
			continue
		}
		if seats < tier.From {
			break
		}
		last := seats
		if tier.To != nil {
			last = min(last, *tier.To)
		}
		total += (last - tier.From + 1) * tier.Price
	}
	return total
}

// unitPrice is newer than the published OpenAPI document.
type unitPrice struct {
	priceCommon
	Tiers   unitTiers                    `json:"tiers"`
	Minimum *int64                       `json:"minimum_units"`
	Label   map[string]map[string]string `json:"unit_label"`
	Maximum *int64                       `json:"maximum_units"`
}

type unitTiers struct {
	Type  string     `json:"type"`
	Tiers []unitTier `json:"tiers"`
}

type unitTier struct {
	Bound *int64 `json:"bound"` // the last unit that the tier covers
	Rate  string `json:"unit_amount"`
}

func (p *unitPrice) charge(choice priceChoice) int64 {
	units := deref(choice.units)
	total := new(big.Rat)
	var from int64
	for _, tier := range p.Tiers.Tiers {
		rate, ok := new(big.Rat).SetString(tier.Rate)
		if !ok {
			return 0
		}
		covers := tier.Bound == nil || units <= *tier.Bound
		count := units
		if p.Tiers.Type == "graduated" {
			if !covers {
				count = *tier.Bound
			}
			count -= from
		} else if !covers {
			continue
		}
		total.Add(total, rate.Mul(rate, big.NewRat(count, 1)))
		if covers {
			break
		}
		from = *tier.Bound
	}
	amount, _ := new(big.Float).SetRat(total).Int64()
	return amount
}

type meteredPrice struct {
	priceCommon
	Rate    string `json:"unit_amount"`
	Cap     *int64 `json:"cap_amount"`
	MeterID string `json:"meter_id"`
	Meter   meter  `json:"meter"`
}

// charge is nothing at the checkout: usage is billed when the period ends.
func (p *meteredPrice) charge(priceChoice) int64 { return 0 }

// meteredTiersPrice bills usage by tiers; its document follows the official client, as the stored schema lacks it.
type meteredTiersPrice struct {
	priceCommon
	Tiers   unitTiers `json:"tiers"`
	Cap     *int64    `json:"cap_amount"`
	MeterID string    `json:"meter_id"`
	Meter   meter     `json:"meter"`
}

// charge is nothing at the checkout: usage is billed when the period ends.
func (p *meteredTiersPrice) charge(priceChoice) int64 { return 0 }

type meter struct {
	ID               string  `json:"id"`
	Name             string  `json:"name"`
	Unit             string  `json:"unit"`
	CustomLabel      *string `json:"custom_label"`
	CustomMultiplier *int64  `json:"custom_multiplier"`
}

// priceKinds are the kinds of price that a checkout request may bring along.
var priceKinds = []string{"fixed", "custom", "seat_based", "unit_based", "metered_unit", "metered_tiers"}

// readPrice reads one price, as checkout requests bring along. It returns nil after reporting what is wrong.
func (f *Fake) readPrice(given fields, product *product, now timestamp) price {
	catalog := &f.catalog
	before := len(*given.problems)
	kind, isText := given.values["amount_type"].(string)
	if !isText {
		given.fail(given.at(), "union_tag_not_found", "Unable to extract tag using discriminator 'amount_type'",
			given.values, map[string]any{"discriminator": "'amount_type'"})
		return nil
	}
	common := priceCommon{
		CreatedAt: now, ID: f.newID(), Source: "ad_hoc", AmountType: kind, Currency: "usd",
		TaxBehavior: given.choice("tax_behavior", []string{"location", "inclusive", "exclusive"}), ProductID: product.ID,
	}
	if currency := given.choice("price_currency", presentmentCurrencies); currency != nil {
		common.Currency = *currency
	}

	var result price
	switch kind {
	case "fixed":
		result = &fixedPrice{priceCommon: common, Amount: fixedAmount(given, common.Currency)}
	case "free": // removed, yet still understood as nothing to pay
		common.AmountType = "fixed"
		result = &fixedPrice{priceCommon: common}
	case "custom":
		result = customAmounts(given, common)
	case "seat_based":
		result = &seatPrice{priceCommon: common, Tiers: readSeatTiers(given)}
	case "unit_based":
		result = &unitPrice{
			priceCommon: common, Tiers: readUnitTiers(given),
			Minimum: given.integer("minimum_units", 1, 1<<53), Label: readUnitLabel(given),
		}
	case "metered_unit":
		result = readMeteredPrice(given, common, product, catalog)
	case "metered_tiers":
		tiered := &meteredTiersPrice{priceCommon: common, Tiers: readUnitTiers(given)}
		tiered.Cap, tiered.MeterID, tiered.Meter = readMetered(given, product, catalog)
		result = tiered
	default:
		expected := "'" + strings.Join(priceKinds, "', '") + "'"
		given.fail(given.at(), "union_tag_invalid",
			fmt.Sprintf("Input tag '%s' found using 'amount_type' does not match any of the expected tags: %s", kind, expected),
			given.values, map[string]any{"discriminator": "'amount_type'", "tag": kind, "expected_tags": expected})
	}
	if len(*given.problems) > before {
		return nil
	}
	return result
}

func fixedAmount(given fields, currency string) int64 {
	if !given.require("price_amount") {
		return 0
	}
	if _, ok := given.value("price_amount"); !ok {
		given.fail(given.at("price_amount"), "int_type", "Input should be a valid integer", nil, nil)
	}
	amount := given.integer("price_amount", 0, 1<<53)
	if amount != nil {
		checkAmount(given, "price_amount", *amount, currency)
	}
	return deref(amount)
}

// checkAmount reports an amount that is neither free nor within what the currency allows.
func checkAmount(given fields, name string, amount int64, currency string) {
	least := minimumAmount(currency)
	switch {
	case amount != 0 && amount < least:
		given.failValue(given.at(name), fmt.Sprintf("Value error, Amount must be 0 or at least %d", least), amount)
	case amount > maximumAmount:
		given.failValue(given.at(name), fmt.Sprintf("Value error, Amount must be at most %d", maximumAmount), amount)
	}
}

func customAmounts(given fields, common priceCommon) *customPrice {
	result := &customPrice{priceCommon: common, Minimum: minimumAmount(common.Currency)}
	if minimum := given.integer("minimum_amount", 0, 1<<53); minimum != nil {
		result.Minimum = *minimum
		checkAmount(given, "minimum_amount", *minimum, common.Currency)
	}
	if result.Maximum = given.integer("maximum_amount", 1, 1<<53); result.Maximum != nil {
		checkAmount(given, "maximum_amount", *result.Maximum, common.Currency)
		if *result.Maximum < result.Minimum {
			given.failValue(given.at("maximum_amount"), "Value error, Maximum amount must be greater than or equal to minimum amount", *result.Maximum)
		}
	}
	if result.Preset = given.integer("preset_amount", 0, 1<<53); result.Preset != nil {
		checkAmount(given, "preset_amount", *result.Preset, common.Currency)
		switch {
		case *result.Preset < result.Minimum:
			given.failValue(given.at("preset_amount"), "Value error, Preset amount must be greater than or equal to minimum amount", *result.Preset)
		case result.Maximum != nil && *result.Preset > *result.Maximum:
			given.failValue(given.at("preset_amount"), "Value error, Preset amount must be less than or equal to maximum amount", *result.Preset)
		}
	}
	return result
}

func readSeatTiers(given fields) seatTiers {
	result := seatTiers{Type: "volume"}
	if !given.require("seat_tiers") {
		return result
	}
	tiers, ok := given.checkObject(given.at("seat_tiers"), given.values["seat_tiers"])
	if !ok {
		return result
	}
	if kind := tiers.choice("seat_tier_type", []string{"volume", "graduated"}); kind != nil {
		result.Type = *kind
	}
	if !tiers.require("tiers") {
		return result
	}
	list, ok := tiers.list("tiers", 1)
	if !ok {
		return result
	}
	before := len(*given.problems)
	for i, element := range list {
		entry, ok := tiers.checkObject(tiers.at("tiers", i), element)
		if !ok || !entry.require("min_seats") || !entry.require("price_per_seat") {
			continue
		}
		result.Tiers = append(result.Tiers, seatTier{
			From:  deref(entry.integer("min_seats", 1, maximumSeats)),
			To:    entry.integer("max_seats", 1, maximumSeats),
			Price: deref(entry.integer("price_per_seat", 0, maximumAmount)),
		})
	}
	if len(*given.problems) > before {
		return result
	}
	slices.SortFunc(result.Tiers, func(a, b seatTier) int { return int(a.From - b.From) })
	for i, tier := range result.Tiers[:len(result.Tiers)-1] {
		if tier.To == nil {
			tiers.failValue(tiers.at("tiers"), "Value error, Only the last tier can have unlimited max_seats", list)
		} else if result.Tiers[i+1].From != *tier.To+1 {
			tiers.failValue(tiers.at("tiers"), "Value error, Tiers must be contiguous, without gap or overlap", list)
		}
	}
	result.Minimum = result.Tiers[0].From
	result.Maximum = result.Tiers[len(result.Tiers)-1].To
	return result
}

func readUnitTiers(given fields) unitTiers {
	var result unitTiers
	if !given.require("tiers") {
		return result
	}
	tiers, ok := given.checkObject(given.at("tiers"), given.values["tiers"])
	if !ok || !tiers.require("type") || !tiers.require("tiers") {
		return result
	}
	result.Type = deref(tiers.choice("type", []string{"volume", "graduated"}))
	list, ok := tiers.list("tiers", 1)
	if !ok {
		return result
	}
	for i, element := range list {
		entry, ok := tiers.checkObject(tiers.at("tiers", i), element)
		if !ok || !entry.require("unit_amount") {
			continue
		}
		tier := unitTier{Bound: entry.integer("bound", 1, 1<<53), Rate: readRate(entry, 0)}
		result.Tiers = append(result.Tiers, tier)
		isLast := i == len(list)-1
		switch {
		case tier.Bound == nil && !isLast:
			entry.failValue(entry.at("bound"), "Value error, Only the last tier can be unbounded", nil)
		case i > 0 && tier.Bound != nil && result.Tiers[len(result.Tiers)-2].Bound != nil &&
			*tier.Bound <= *result.Tiers[len(result.Tiers)-2].Bound:
			entry.failValue(entry.at("bound"), "Value error, Bounds must increase", *tier.Bound)
		}
	}
	return result
}

func readUnitLabel(given fields) map[string]map[string]string {
	labels, ok := given.object("unit_label")
	if !ok {
		return nil
	}
	result := make(map[string]map[string]string)
	for _, language := range sortedKeys(labels.values) {
		forms, ok := labels.object(language)
		if !ok {
			continue
		}
		result[language] = make(map[string]string)
		for _, form := range sortedKeys(forms.values) {
			result[language][form] = deref(forms.text(form, 1, 0))
		}
	}
	return result
}

// readRate returns a decimal amount as Polar writes it out. A rate below or at the exclusive bound is refused.
func readRate(given fields, atLeast int64) string {
	value := given.values["unit_amount"]
	var text string
	switch number := value.(type) {
	case json.Number:
		text = number.String()
	case string:
		text = strings.TrimSpace(number)
	}
	rate, ok := new(big.Rat).SetString(text)
	if !ok || strings.Contains(text, "/") {
		given.fail(given.at("unit_amount"), "decimal_parsing", "Input should be a valid decimal", value, nil)
		return "0"
	}
	if rate.Cmp(big.NewRat(atLeast, 1)) < 0 {
		given.fail(given.at("unit_amount"), "greater_than_equal",
			fmt.Sprintf("Input should be greater than or equal to %d", atLeast), value, map[string]any{"ge": atLeast})
	}
	if _, decimals, _ := strings.Cut(strings.TrimRight(text, "0"), "."); len(decimals) > 12 {
		given.fail(given.at("unit_amount"), "decimal_max_places", "Decimal input should have no more than 12 decimal places",
			value, map[string]any{"decimal_places": 12})
	}
	return text
}

func readMeteredPrice(given fields, common priceCommon, product *product, catalog *catalog) *meteredPrice {
	result := &meteredPrice{priceCommon: common}
	result.Cap, result.MeterID, result.Meter = readMetered(given, product, catalog)
	if given.require("unit_amount") {
		result.Rate = readRate(given, 0)
		if rate, ok := new(big.Rat).SetString(result.Rate); ok && rate.Sign() == 0 {
			given.fail(given.at("unit_amount"), "greater_than", "Input should be greater than 0",
				given.values["unit_amount"], map[string]any{"gt": 0})
		}
	}
	return result
}

// readMetered reads what both kinds of metered price have.
func readMetered(given fields, product *product, catalog *catalog) (limit *int64, meterID string, found meter) {
	limit = given.integer("cap_amount", 0, 1<<31-1)
	if given.require("meter_id") {
		if id := given.identifier("meter_id"); id != nil {
			meterID, found = *id, catalog.meter
			if *id != catalog.meter.ID {
				given.failValue(given.at("meter_id"), "Meter does not exist.", *id)
			}
		}
	}
	if product.RecurringInterval == nil {
		given.failValue(given.at(), "Metered pricing is not supported on one-time products.", given.values)
	}
	return limit, meterID, found
}

// checkCombination reports prices of one product that Polar does not let stand together: at most one fixed and one
// by seats or units, or a custom one alone, plus any metered ones. Each currency is a set of its own.
func checkCombination(given fields, loc []any, prices []price) {
	counts := make(map[string]map[string]int)
	for _, p := range prices {
		currency := p.common().Currency
		if counts[currency] == nil {
			counts[currency] = make(map[string]int)
		}
		counts[currency][p.common().AmountType]++
	}
	for _, currency := range sortedKeys(counts) {
		count := counts[currency]
		others := count["fixed"] + count["seat_based"] + count["unit_based"]
		quantities := count["seat_based"] + count["unit_based"]
		if count["fixed"] > 1 || quantities > 1 || count["custom"] > 1 || count["custom"] == 1 && others > 0 {
			given.failValue(loc, "Value error, These prices cannot be combined", nil)
		}
	}
}
