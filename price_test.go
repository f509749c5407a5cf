package truenorth

import (
	"strings"
	"testing"
)

// pricesDoc is a valid document but for the ad-hoc prices of its one product.
func pricesDoc(prices ...string) string {
	return checkoutDoc(`"prices":{"` + paramsProduct + `":[` + strings.Join(prices, ",") + `]}`)
}

// at is the path of a member of the first price.
func at(name string) string { return "prices." + paramsProduct + "[0]." + name }

func TestValidateParamsPrices(t *testing.T) {
	t.Parallel()
	const fixed = `{"amount_type":"fixed","price_amount":1000}`
	upper := strings.ToUpper(paramsProduct)
	runRuleTests(t, []ruleTest{
		{"null", checkoutDoc(`"prices":null`), nil},
		{"empty", checkoutDoc(`"prices":{}`), nil},
		{"key in other letters", checkoutDoc(`"prices":{"` + upper + `":[` + fixed + `]}`), nil},
		{"list", checkoutDoc(`"prices":[]`), []string{"prices must be an object, is an array"}},
		{"no UUID", checkoutDoc(`"prices":{"x":[` + fixed + `]}`), []string{"prices.x is not the UUID of a product"}},
		{"not in products", checkoutDoc(`"prices":{"` + paramsProduct2 + `":[` + fixed + `]}`), []string{"prices." + paramsProduct2 + " has prices, and is not one of products"}},
		{"twice, in other letters", checkoutDoc(`"prices":{"` + paramsProduct + `":[` + fixed + `],"` + upper + `":[` + fixed + `]}`), []string{"prices." + paramsProduct + " names a product a second time"}},
		{"empty list", pricesDoc(), []string{"prices." + paramsProduct + " is empty; at least 1 element is needed"}},
		{"list null", checkoutDoc(`"prices":{"` + paramsProduct + `":null}`), []string{"prices." + paramsProduct + " must be an array, is null"}},
		{"price null", pricesDoc("null"), []string{"prices." + paramsProduct + "[0] must be an object, is null"}},
		{"no amount type", pricesDoc(`{"price_amount":100}`), []string{at("amount_type is required")}},
		{"amount type null", pricesDoc(`{"amount_type":null}`), []string{at("amount_type must be a string, is null")}},
		{"amount type empty", pricesDoc(`{"amount_type":""}`), []string{at("amount_type must not be empty")}},
		{"amount type unknown", pricesDoc(`{"amount_type":"per_moon","price_amount":-1,"x":[{"y":null,"n":1.0}]}`), nil},
		{"unknown field", pricesDoc(`{"amount_type":"fixed","price_amount":100,"amount":1}`), []string{at("amount is not a field that Polar has here")}},
		{"a typo", pricesDoc(`{"amount_type":"fixed","price_amout":100}`), []string{at("price_amount is required"), at("price_amout is not a field that Polar has here; did you mean price_amount?")}},
		{"terms", pricesDoc(
			`{"amount_type":"fixed","price_amount":100,"price_currency":"usd","tax_behavior":"inclusive"}`,
			`{"amount_type":"fixed","price_amount":100,"price_currency":"eur","tax_behavior":"exclusive"}`,
			`{"amount_type":"fixed","price_amount":100,"price_currency":"gbp","tax_behavior":"location"}`,
			`{"amount_type":"fixed","price_amount":100,"price_currency":"sek","tax_behavior":null}`), nil},
		{"terms wrong", pricesDoc(`{"amount_type":"free","price_currency":"EUR","tax_behavior":"maybe"}`), []string{at("price_currency must be a currency"), at("tax_behavior must be one of inclusive, exclusive, location")}},
		{"currency null", pricesDoc(`{"amount_type":"free","price_currency":null}`), []string{at("price_currency must not be null")}},
	})
}

func TestValidateParamsFixedAndCustomPrices(t *testing.T) {
	t.Parallel()
	fixed := func(members string) string { return pricesDoc(`{"amount_type":"fixed",` + members + `}`) }
	custom := func(members string) string { return pricesDoc(`{"amount_type":"custom"` + members + `}`) }
	runRuleTests(t, []ruleTest{
		{"free", pricesDoc(`{"amount_type":"free"}`), nil},
		{"free with an amount", pricesDoc(`{"amount_type":"free","price_amount":0}`), []string{at("price_amount is not a field")}},
		{"fixed 0", fixed(`"price_amount":0`), nil},
		{"fixed 50", fixed(`"price_amount":50.0`), nil},
		{"fixed 49", fixed(`"price_amount":49`), []string{at("price_amount must be 0 or from 50 to 99999999 in the minor unit of its currency, is 49")}},
		{"fixed 49 euro cents", fixed(`"price_amount":49,"price_currency":"eur"`), []string{at("price_amount must be 0 or from 50")}},
		{"fixed 40 pence", fixed(`"price_amount":40,"price_currency":"gbp"`), nil},
		{"fixed most", fixed(`"price_amount":99999999`), nil},
		{"fixed too much", fixed(`"price_amount":100000000`), []string{at("price_amount must be 0 or from 50 to 99999999")}},
		{"fixed a million rupiah", fixed(`"price_amount":100000000,"price_currency":"idr"`), nil},
		{"fixed too many rupiah", fixed(`"price_amount":1600000001,"price_currency":"idr"`), []string{at("price_amount must be 0 or from 1 to 1600000000")}},
		{"fixed negative", fixed(`"price_amount":-1`), []string{at("price_amount must be at least 0, is -1")}},
		{"fixed null", fixed(`"price_amount":null`), []string{at("price_amount must not be null")}},
		{"fixed a fraction", fixed(`"price_amount":9.99`), []string{at("price_amount must be an integer")}},
		{"fixed a string", fixed(`"price_amount":"999"`), []string{at("price_amount must be an integer, is a string")}},

		{"custom", custom(``), nil},
		{"custom bounds", custom(`,"minimum_amount":100,"preset_amount":100,"maximum_amount":100`), nil},
		{"custom nothing at all", custom(`,"minimum_amount":0,"preset_amount":0,"maximum_amount":null`), nil},
		{"custom low", custom(`,"minimum_amount":49,"maximum_amount":49,"preset_amount":49`), []string{at("minimum_amount must be 0 or"), at("maximum_amount must be 0 or"), at("preset_amount must be 0 or")}},
		{"custom maximum 0", custom(`,"maximum_amount":0`), []string{at("maximum_amount must be at least 1, is 0")}},
		{"custom maximum too much", custom(`,"maximum_amount":100000000`), []string{at("maximum_amount must be 0 or")}},
		{"custom minimum null", custom(`,"minimum_amount":null`), []string{at("minimum_amount must not be null")}},
		{"custom crossed", custom(`,"minimum_amount":300,"maximum_amount":200`), []string{at("minimum_amount must not be more than maximum_amount, is 300 against 200")}},
		{"custom preset low", custom(`,"minimum_amount":300,"preset_amount":200`), []string{at("minimum_amount must not be more than preset_amount")}},
		{"custom preset high", custom(`,"preset_amount":300,"maximum_amount":200`), []string{at("preset_amount must not be more than maximum_amount")}},
	})
}

func TestValidateParamsSeatBasedPrices(t *testing.T) {
	t.Parallel()
	seats := func(tiers string) string {
		return pricesDoc(`{"amount_type":"seat_based","seat_tiers":{"tiers":[` + tiers + `]}}`)
	}
	runRuleTests(t, []ruleTest{
		{"one tier", seats(`{"min_seats":1,"price_per_seat":0}`), nil},
		{"two tiers", seats(`{"min_seats":1,"max_seats":9,"price_per_seat":500},{"min_seats":10,"max_seats":null,"price_per_seat":400}`), nil},
		{"tiers in another order", seats(`{"min_seats":10,"price_per_seat":400},{"min_seats":1,"max_seats":9,"price_per_seat":500}`), nil},
		{"from 5 to 20", seats(`{"min_seats":5,"max_seats":20,"price_per_seat":500}`), nil},
		{"graduated", pricesDoc(`{"amount_type":"seat_based","seat_tiers":{"seat_tier_type":"graduated","tiers":[{"min_seats":1,"price_per_seat":1}]}}`), nil},
		{"type", pricesDoc(`{"amount_type":"seat_based","seat_tiers":{"seat_tier_type":"flat","tiers":[{"min_seats":1,"price_per_seat":1}]}}`), []string{at("seat_tiers.seat_tier_type must be one of volume, graduated")}},
		{"no tiers", seats(``), []string{at("seat_tiers.tiers is empty")}},
		{"no seat tiers", pricesDoc(`{"amount_type":"seat_based"}`), []string{at("seat_tiers is required")}},
		{"tiers null", pricesDoc(`{"amount_type":"seat_based","seat_tiers":{"tiers":null}}`), []string{at("seat_tiers.tiers must not be null")}},
		{"tier a number", seats(`1`), []string{at("seat_tiers.tiers[0] must be an object, is a number")}},
		{"min 0", seats(`{"min_seats":0,"price_per_seat":1}`), []string{at("seat_tiers.tiers[0].min_seats must be from 1")}},
		{"no price", seats(`{"min_seats":1}`), []string{at("seat_tiers.tiers[0].price_per_seat is required")}},
		{"max below min", seats(`{"min_seats":5,"max_seats":4,"price_per_seat":1}`), []string{at("seat_tiers.tiers[0].min_seats must not be more than max_seats")}},
		{"gap", seats(`{"min_seats":1,"max_seats":9,"price_per_seat":1},{"min_seats":11,"price_per_seat":1}`), []string{at("seat_tiers.tiers has a tier that ends at 9 seats, and the next one begins at 11")}},
		{"overlap", seats(`{"min_seats":1,"max_seats":9,"price_per_seat":1},{"min_seats":9,"price_per_seat":1}`), []string{at("seat_tiers.tiers has a tier that ends at 9 seats, and the next one begins at 9")}},
		{"unbounded first", seats(`{"min_seats":1,"price_per_seat":1},{"min_seats":2,"price_per_seat":1}`), []string{at("seat_tiers.tiers has a tier without max_seats that is not the last one")}},
		{"unknown in a tier", seats(`{"min_seats":1,"price_per_seat":1,"flat_fee":1}`), []string{at("seat_tiers.tiers[0].flat_fee is not a field")}},
	})
}

func TestValidateParamsMeteredAndUnitPrices(t *testing.T) {
	t.Parallel()
	metered := func(members string) string {
		return pricesDoc(`{"amount_type":"metered_unit","meter_id":"` + paramsMeter + `",` + members + `}`)
	}
	meteredTiers := func(members string) string {
		return pricesDoc(`{"amount_type":"metered_tiers","meter_id":"` + paramsMeter + `","tiers":` + members + `}`)
	}
	units := func(members string) string { return pricesDoc(`{"amount_type":"unit_based","tiers":` + members + `}`) }
	const tier = `{"type":"volume","tiers":[{"unit_amount":"5"}]}`
	runRuleTests(t, []ruleTest{
		{"string", metered(`"unit_amount":"0.000000000001"`), nil},
		{"number", metered(`"unit_amount":0.05,"cap_amount":0`), nil},
		{"exponent", metered(`"unit_amount":1e-12,"cap_amount":null`), nil},
		{"most", metered(`"unit_amount":"99999.999999999999"`), nil},
		{"zeros at both ends", metered(`"unit_amount":"000123456e-1"`), nil},
		{"trailing zeros", metered(`"unit_amount":"0.10000000000000000"`), nil},
		{"0", metered(`"unit_amount":"0.0"`), []string{at("unit_amount must be more than 0")}},
		{"negative", metered(`"unit_amount":-1`), []string{at("unit_amount must not be negative")}},
		{"13 places", metered(`"unit_amount":"0.0000000000001"`), []string{at("unit_amount has 13 decimal places; at most 12")}},
		{"6 digits", metered(`"unit_amount":"100000"`), []string{at("unit_amount has 6 digits before the point; at most 5")}},
		{"huge exponent", metered(`"unit_amount":"1e999999999999"`), []string{at("unit_amount must be a decimal number")}},
		{"large exponent", metered(`"unit_amount":"1e999"`), []string{at("unit_amount has 1000 digits before the point")}},
		{"no number", metered(`"unit_amount":"five"`), []string{at("unit_amount must be a decimal number")}},
		{"infinity", metered(`"unit_amount":"Infinity"`), []string{at("unit_amount must be a decimal number")}},
		{"no digits", metered(`"unit_amount":"."`), []string{at("unit_amount must be a decimal number")}},
		{"empty", metered(`"unit_amount":""`), []string{at("unit_amount must be a decimal number")}},
		{"boolean", metered(`"unit_amount":true`), []string{at("unit_amount must be a decimal number, is a boolean")}},
		{"cap negative", metered(`"unit_amount":1,"cap_amount":-1`), []string{at("cap_amount must be from 0 to 2147483647, is -1")}},
		{"cap too high", metered(`"unit_amount":1,"cap_amount":2147483648`), []string{at("cap_amount must be from 0 to 2147483647")}},
		{"no meter", pricesDoc(`{"amount_type":"metered_unit","unit_amount":1}`), []string{at("meter_id is required")}},
		{"meter wrong", pricesDoc(`{"amount_type":"metered_unit","meter_id":"m","unit_amount":1}`), []string{at("meter_id is not a UUID")}},

		{"metered tiers", meteredTiers(`{"type":"graduated","tiers":[{"bound":10,"unit_amount":"0"},{"bound":null,"unit_amount":0.5}]}`), nil},
		{"metered tiers with a newer field", pricesDoc(`{"amount_type":"metered_tiers","meter_id":"` + paramsMeter + `","tiers":` + tier + `,"rounding":"up"}`), nil},
		{"metered tiers without type", meteredTiers(`{"tiers":[{"unit_amount":1}]}`), []string{at("tiers.type is required")}},
		{"metered tiers empty", meteredTiers(`{"type":"volume","tiers":[]}`), []string{at("tiers.tiers is empty")}},
		{"metered tiers same bound", meteredTiers(`{"type":"volume","tiers":[{"bound":10,"unit_amount":1},{"bound":10,"unit_amount":2}]}`), []string{at("tiers.tiers[1] has the same bound")}},
		{"metered tiers two unbounded", meteredTiers(`{"type":"volume","tiers":[{"unit_amount":1},{"bound":null,"unit_amount":2}]}`), []string{at("tiers.tiers[1] has the same bound")}},
		{"metered tiers bound 0", meteredTiers(`{"type":"volume","tiers":[{"bound":0,"unit_amount":1}]}`), []string{at("tiers.tiers[0].bound must be at least 1")}},
		{"metered tiers without meter", pricesDoc(`{"amount_type":"metered_tiers","tiers":` + tier + `}`), []string{at("meter_id is required")}},
		{"metered tiers a list", meteredTiers(`[]`), []string{at("tiers must be an object, is an array")}},

		{"units", units(tier), nil},
		{"units all", units(`{"type":"volume","tiers":[{"bound":10,"unit_amount":500.0}]},"minimum_units":10,"unit_label":{"en":{"=1":"device","other":"devices"}}`), nil},
		{"units label empty", units(tier + `,"unit_label":{},"minimum_units":0`), nil},
		{"units label null", units(tier + `,"unit_label":null,"minimum_units":null`), nil},
		{"units fraction", units(`{"type":"volume","tiers":[{"unit_amount":"0.5"}]}`), []string{at("tiers.tiers[0].unit_amount must be a whole number of minor units")}},
		{"units minimum over the last bound", units(`{"type":"volume","tiers":[{"bound":10,"unit_amount":5}]},"minimum_units":11`), []string{at("minimum_units must not be more than the last tier's bound, is 11 against 10")}},
		{"units label of the wrong form", units(tier + `,"unit_label":{"en":"devices"}`), []string{at("unit_label.en must be an object, is a string")}},
		{"units label of a number", units(tier + `,"unit_label":{"en":{"other":1}}`), []string{at("unit_label.en.other must be a string, is a number")}},
		{"units unknown", units(tier + `,"maximum_units":3`), []string{at("maximum_units is not a field that Polar has here; did you mean minimum_units?")}},
	})
}

func TestValidateParamsPriceCombinations(t *testing.T) {
	t.Parallel()
	const (
		fixed   = `{"amount_type":"fixed","price_amount":1000}`
		euro    = `{"amount_type":"fixed","price_amount":1000,"price_currency":"eur"}`
		free    = `{"amount_type":"free"}`
		custom  = `{"amount_type":"custom"}`
		seats   = `{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"price_per_seat":1}]}}`
		metered = `{"amount_type":"metered_unit","meter_id":"` + paramsMeter + `","unit_amount":"1"}`
	)
	fault := []string{"prices." + paramsProduct + " has "}
	runRuleTests(t, []ruleTest{
		{"fixed and seats and metered", pricesDoc(fixed, seats, metered, metered), nil},
		{"custom and metered", pricesDoc(custom, metered), nil},
		{"metered alone", pricesDoc(metered), nil},
		{"two currencies", pricesDoc(fixed, euro), nil},
		{"custom in another currency", pricesDoc(custom, euro), nil},
		{"two fixed", pricesDoc(fixed, fixed), fault},
		{"the default currency and usd", pricesDoc(fixed, `{"amount_type":"fixed","price_amount":1000,"price_currency":"usd"}`), fault},
		{"fixed and free", pricesDoc(fixed, free), fault},
		{"two seats", pricesDoc(seats, seats), fault},
		{"two custom", pricesDoc(custom, custom), fault},
		{"custom and fixed", pricesDoc(custom, fixed), fault},
		{"custom and seats", pricesDoc(seats, custom), fault},
		{"faults in both currencies", pricesDoc(fixed, fixed, euro, euro), append(fault, fault...)},
	})
}
