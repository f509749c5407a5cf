package polarfake_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// complaints renders the problems of a 422 as "loc: type".
func complaints(answer document) []string {
	var rendered []string
	for _, element := range answer.list("detail") {
		problem := asObject(element)
		var loc []string
		for _, part := range problem.list("loc") {
			loc = append(loc, fmt.Sprint(part))
		}
		rendered = append(rendered, strings.Join(loc, ".")+": "+problem.text("type"))
	}
	slices.Sort(rendered)
	return rendered
}

func TestCheckoutRequestIsValidated(t *testing.T) {
	t.Parallel()

	b := setup(t)
	products := `"products":["` + polarfake.OneTimeProductID + `"]`
	withPrice := func(price string) string {
		return `{` + products + `,"prices":{"` + polarfake.OneTimeProductID + `":[` + price + `]}}`
	}
	price := "body.prices." + polarfake.OneTimeProductID + ".0"
	for name, test := range map[string]struct {
		body string
		want string // complaints, separated by "; "
	}{
		"Empty":                  {``, "body: missing"},
		"NoJSON":                 {`{`, "body.1: json_invalid"},
		"NoObject":               {`[]`, "body: model_attributes_type"},
		"NoProducts":             {`{}`, "body.products: missing"},
		"NullProducts":           {`{"products":null}`, "body.products: list_type"},
		"TooFewProducts":         {`{"products":[]}`, "body.products: too_short"},
		"ProductNoUUID":          {`{"products":["x",3]}`, "body.products.0: uuid_parsing; body.products.1: uuid_type"},
		"ProductTwice":           {`{"products":["` + polarfake.SeatProductID + `","` + polarfake.SeatProductID + `"]}`, "body.products: value_error"},
		"ProductUnknown":         {`{"products":["3fa85f64-5717-4562-b3fc-2c963f66afa6"]}`, "body.products.0: value_error"},
		"ProductArchived":        {`{"products":["` + polarfake.ArchivedProductID + `"]}`, "body.products.0: value_error"},
		"SeveralAtOnce":          {`{"products":[],"customer_email":"x","success_url":"nowhere","locale":"!"}`, "body.customer_email: value_error; body.locale: value_error; body.products: too_short; body.success_url: url_parsing"},
		"EmailSyntax":            {`{` + products + `,"customer_email":"a@b@c"}`, "body.customer_email: value_error"},
		"EmailUndeliverable":     {`{` + products + `,"customer_email":"a@undeliverable.example"}`, "body.customer_email: value_error"},
		"EmailInvalidDomain":     {`{` + products + `,"customer_email":"a@mail.invalid"}`, "body.customer_email: value_error"},
		"NameTooLong":            {`{` + products + `,"customer_name":"` + strings.Repeat("n", 257) + `"}`, "body.customer_name: string_too_long"},
		"ExternalIDNoText":       {`{` + products + `,"external_customer_id":7}`, "body.external_customer_id: string_type"},
		"NUL":                    {`{` + products + `,"external_customer_id":"a\u0000b"}`, "body.external_customer_id: value_error"},
		"CustomerUnknown":        {`{` + products + `,"customer_id":"3fa85f64-5717-4562-b3fc-2c963f66afa6"}`, "body.customer_id: value_error"},
		"CustomerWrongVersion":   {`{` + products + `,"customer_id":"3fa85f64-5717-1562-b3fc-2c963f66afa6"}`, "body.customer_id: uuid_version"},
		"SubscriptionUnknown":    {`{` + products + `,"subscription_id":"3fa85f64-5717-4562-b3fc-2c963f66afa6"}`, "body.subscription_id: value_error"},
		"DiscountUnknown":        {`{` + products + `,"discount_id":"3fa85f64-5717-4562-b3fc-2c963f66afa6"}`, "body.discount_id: value_error"},
		"MetadataEmptyText":      {`{` + products + `,"metadata":{"k":""}}`, "body.metadata.k: string_too_short"},
		"MetadataLongText":       {`{` + products + `,"metadata":{"k":"` + strings.Repeat("v", 501) + `"}}`, "body.metadata.k: string_too_long"},
		"MetadataLongKey":        {`{` + products + `,"metadata":{"` + strings.Repeat("k", 41) + `":1}}`, "body.metadata." + strings.Repeat("k", 41) + ".[key]: string_too_long"},
		"MetadataNested":         {`{` + products + `,"metadata":{"k":{}}}`, "body.metadata.k: string_type"},
		"MetadataTooMany":        {`{` + products + `,"metadata":{` + manyKeys(51) + `}}`, "body.metadata: too_long"},
		"MetadataNull":           {`{` + products + `,"metadata":null}`, "body.metadata: dict_type"},
		"BooleanNull":            {`{` + products + `,"allow_trial":null}`, "body.allow_trial: bool_type"},
		"BooleanWord":            {`{` + products + `,"allow_trial":"perhaps"}`, "body.allow_trial: bool_parsing"},
		"SeatsTooMany":           {`{` + products + `,"seats":10001}`, "body.seats: less_than_equal"},
		"SeatsNone":              {`{` + products + `,"seats":0}`, "body.seats: greater_than_equal"},
		"SeatsFraction":          {`{` + products + `,"seats":1.5}`, "body.seats: int_from_float"},
		"SeatsElsewhere":         {`{` + products + `,"seats":2}`, "body.seats: value_error"},
		"AmountNegative":         {`{` + products + `,"amount":-1}`, "body.amount: greater_than_equal"},
		"AmountBelowMinimum":     {`{"products":["` + polarfake.PayWhatYouWantProductID + `"],"amount":100}`, "body.amount: value_error"},
		"TrialHalf":              {`{` + products + `,"trial_interval":"day"}`, "body: value_error"},
		"TrialInterval":          {`{` + products + `,"trial_interval":"hour","trial_interval_count":1}`, "body.trial_interval: enum"},
		"Currency":               {`{` + products + `,"currency":"xxx"}`, "body.currency: enum"},
		"CurrencyNotOffered":     {`{` + products + `,"currency":"eur"}`, "body.currency: value_error"},
		"URLScheme":              {`{` + products + `,"success_url":"ftp://x.example"}`, "body.success_url: url_scheme"},
		"URLTooLong":             {`{` + products + `,"return_url":"https://x.example/` + strings.Repeat("p", 2083) + `"}`, "body.return_url: url_too_long"},
		"IP":                     {`{` + products + `,"customer_ip_address":"300.1.1.1"}`, "body.customer_ip_address: ip_any_address"},
		"AddressWithoutCountry":  {`{` + products + `,"customer_billing_address":{"city":"Oslo"}}`, "body.customer_billing_address.country: missing"},
		"AddressCountry":         {`{` + products + `,"customer_billing_address":{"country":"XX"}}`, "body.customer_billing_address.country: enum"},
		"TaxIDWithoutCountry":    {`{` + products + `,"customer_tax_id":"FR61954506077"}`, "body.customer_tax_id: value_error"},
		"PricesForeignKey":       {`{` + products + `,"prices":{"` + polarfake.SeatProductID + `":[{"amount_type":"fixed","price_amount":500}]}}`, "body.prices." + polarfake.SeatProductID + ": value_error"},
		"PricesNone":             {`{` + products + `,"prices":{"` + polarfake.OneTimeProductID + `":[]}}`, "body.prices." + polarfake.OneTimeProductID + ": too_short"},
		"PriceWithoutKind":       {withPrice(`{}`), price + ": union_tag_not_found"},
		"PriceUnknownKind":       {withPrice(`{"amount_type":"gift"}`), price + ": union_tag_invalid"},
		"PriceWithoutAmount":     {withPrice(`{"amount_type":"fixed"}`), price + ".price_amount: missing"},
		"PriceBelowMinimum":      {withPrice(`{"amount_type":"fixed","price_amount":49}`), price + ".price_amount: value_error"},
		"PriceAboveMaximum":      {withPrice(`{"amount_type":"fixed","price_amount":100000000}`), price + ".price_amount: value_error"},
		"PriceCustomOrder":       {withPrice(`{"amount_type":"custom","minimum_amount":500,"maximum_amount":400,"preset_amount":450}`), price + ".maximum_amount: value_error; " + price + ".preset_amount: value_error"},
		"PriceSeatsGap":          {withPrice(`{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"max_seats":4,"price_per_seat":100},{"min_seats":6,"price_per_seat":90}]}}`), price + ".seat_tiers.tiers: value_error"},
		"PriceSeatsOpenInMiddle": {withPrice(`{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"price_per_seat":100},{"min_seats":6,"price_per_seat":90}]}}`), price + ".seat_tiers.tiers: value_error"},
		"PriceUnitsUnordered":    {withPrice(`{"amount_type":"unit_based","tiers":{"type":"volume","tiers":[{"bound":5,"unit_amount":"1"},{"bound":4,"unit_amount":1}]}}`), price + ".tiers.tiers.1.bound: value_error"},
		"PriceMeteredOnce":       {withPrice(`{"amount_type":"metered_unit","meter_id":"` + polarfake.MeterID + `","unit_amount":"0.5"}`), price + ": value_error"},
		"PriceMeterUnknown":      {`{"products":["` + polarfake.MonthlyProductID + `"],"prices":{"` + polarfake.MonthlyProductID + `":[{"amount_type":"metered_unit","meter_id":"` + polarfake.SeatProductID + `","unit_amount":0}]}}`, "body.prices." + polarfake.MonthlyProductID + ".0.meter_id: value_error; body.prices." + polarfake.MonthlyProductID + ".0.unit_amount: greater_than"},
		"PricesNotCombinable":    {withPrice(`{"amount_type":"custom"},{"amount_type":"fixed","price_amount":500}`), "body.prices." + polarfake.OneTimeProductID + ": value_error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			status, answer := b.request(http.MethodPost, "/v1/checkouts/", test.body)
			if status != http.StatusUnprocessableEntity {
				t.Fatalf("answered %d %v", status, answer)
			}
			if got := strings.Join(complaints(answer), "; "); got != test.want {
				t.Errorf("complaints\n got %s\nwant %s", got, test.want)
			}
			if !strings.HasSuffix(answer.text("error"), "RequestValidationError") {
				t.Errorf("error %q", answer.text("error"))
			}
		})
	}
}

func manyKeys(n int) string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"k%d":%d`, i, i)
	}
	return strings.Join(keys, ",")
}

func TestCheckoutTakesEveryPriceKind(t *testing.T) {
	t.Parallel()

	b := setup(t)
	for name, test := range map[string]struct {
		product, price, extra string
		amount                float64
	}{
		"Fixed":         {polarfake.OneTimeProductID, `{"amount_type":"fixed","price_amount":1234}`, ``, 1234},
		"Free":          {polarfake.OneTimeProductID, `{"amount_type":"fixed","price_amount":0}`, ``, 0},
		"FreeOldName":   {polarfake.OneTimeProductID, `{"amount_type":"free"}`, ``, 0},
		"Euro":          {polarfake.OneTimeProductID, `{"amount_type":"fixed","price_amount":900,"price_currency":"eur","tax_behavior":"inclusive"}`, `,"currency":"eur"`, 900},
		"CustomPreset":  {polarfake.OneTimeProductID, `{"amount_type":"custom","preset_amount":800}`, ``, 800},
		"CustomChosen":  {polarfake.OneTimeProductID, `{"amount_type":"custom","maximum_amount":5000}`, `,"amount":4000`, 4000},
		"SeatsVolume":   {polarfake.MonthlyProductID, `{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"max_seats":4,"price_per_seat":100},{"min_seats":5,"price_per_seat":90}]}}`, `,"seats":6`, 540},
		"SeatsGraduate": {polarfake.MonthlyProductID, `{"amount_type":"seat_based","seat_tiers":{"seat_tier_type":"graduated","tiers":[{"min_seats":1,"max_seats":4,"price_per_seat":100},{"min_seats":5,"price_per_seat":90}]}}`, `,"seats":6`, 580},
		"Metered":       {polarfake.MonthlyProductID, `{"amount_type":"metered_unit","meter_id":"` + polarfake.MeterID + `","unit_amount":0.25,"cap_amount":500}`, ``, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			created := b.checkoutOf(test.product, `"prices":{"`+test.product+`":[`+test.price+`]}`+test.extra)
			if created["amount"] != test.amount || created["total_amount"] != test.amount {
				t.Errorf("amount %v, want %v", created["amount"], test.amount)
			}
			prices := created.object("prices").list(test.product)
			if len(prices) != 1 || asObject(prices[0]).text("source") != "ad_hoc" {
				t.Errorf("prices %v", prices)
			}
		})
	}
}

// Prices by the unit are newer than the published OpenAPI document.
func TestCheckoutTakesPricesByTheUnit(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "" })
	for kind, want := range map[string]float64{"volume": 14, "graduated": 17} {
		body := `{"products":["` + polarfake.OneTimeProductID + `"],"units":7,"prices":{"` + polarfake.OneTimeProductID +
			`":[{"amount_type":"unit_based","tiers":{"type":"` + kind + `","tiers":[{"bound":3,"unit_amount":"3"},{"unit_amount":2}]}}]}}`
		status, _, answer := b.raw(http.MethodPost, "/v1/checkouts/", body, nil)
		created := decode(t, answer)
		if status != http.StatusCreated || created["amount"] != want || created["units"] != 7.0 {
			t.Errorf("%s answered %d %s, want amount %v", kind, status, answer, want)
		}
	}
}

func TestCheckoutIgnoresWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()

	b := setup(t)
	created := b.checkoutOf(polarfake.OneTimeProductID, `"externalCustomerId":"usr_1","external_custommer_id":"usr_1","expires_at":"2030-01-01T00:00:00Z"`)
	if created["external_customer_id"] != nil {
		t.Errorf("a misspelt name was heard: %v", created)
	}
	old := b.checkoutOf(polarfake.OneTimeProductID, `"customer_external_id":"usr_2"`)
	if old.text("external_customer_id") != "usr_2" || old.text("customer_external_id") != "usr_2" {
		t.Error("the old name of external_customer_id was not heard")
	}
	if empty := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":""`); empty["external_customer_id"] != nil {
		t.Error("an empty external id is not null")
	}
}

func TestCheckoutDocumentSaysWhereToGo(t *testing.T) {
	t.Parallel()

	b := setup(t)
	plain := b.checkoutOf(polarfake.OneTimeProductID, `"metadata":{"a":"x","b":1,"c":1.5,"d":true}`)
	if url := plain.text("url"); url != b.server.URL+"/checkout/"+plain.text("client_secret") {
		t.Errorf("url %s", url)
	}
	if !strings.HasPrefix(plain.text("client_secret"), "polar_c_") || !strings.HasSuffix(plain.text("success_url"), "/confirmation") {
		t.Errorf("checkout %v", plain)
	}
	if m := plain.object("metadata"); m["a"] != "x" || m["b"] != 1.0 || m["c"] != 1.5 || m["d"] != true {
		t.Errorf("metadata %v", m)
	}
	b.SetPublicURL("https://pay.example/")
	placed := b.checkoutOf(polarfake.OneTimeProductID, `"success_url":"https://shop.example/{CHECKOUT_ID}?c={CHECKOUT_ID}"`)
	if want := "https://shop.example/" + placed.text("id") + "?c=" + placed.text("id"); placed.text("success_url") != want {
		t.Errorf("success_url %s, want %s", placed.text("success_url"), want)
	}
	if !strings.HasPrefix(placed.text("url"), "https://pay.example/checkout/") {
		t.Errorf("url %s", placed.text("url"))
	}
}

func TestCheckoutIsUpdated(t *testing.T) {
	t.Parallel()

	b := setup(t)
	created := b.expect(http.StatusCreated, http.MethodPost, "/v1/checkouts/",
		`{"products":["`+polarfake.PayWhatYouWantProductID+`","`+polarfake.SeatProductID+`"]}`)
	path := "/v1/checkouts/" + created.text("id")
	if created["amount"] != 1000.0 {
		t.Fatalf("amount %v", created["amount"])
	}
	updated := b.expect(http.StatusOK, http.MethodPatch, path, `{"amount":450,"customer_email":"a@example.com",
		"customer_billing_address":{"country":"DE"},"customer_tax_id":"DE 123456789","metadata":{"k":"v"},"success_url":"https://x.example/{CHECKOUT_ID}"}`)
	if updated["amount"] != 450.0 || updated.text("customer_email") != "a@example.com" || updated.object("metadata").text("k") != "v" ||
		updated.text("customer_tax_id") != "DE123456789" || updated["modified_at"] == nil ||
		updated.text("success_url") != "https://x.example/"+created.text("id") {
		t.Errorf("updated %v", updated)
	}
	seats := b.expect(http.StatusOK, http.MethodPatch, path, `{"product_id":"`+polarfake.SeatProductID+`","seats":10}`)
	if seats["amount"] != 6000.0 {
		t.Errorf("ten seats cost %v", seats["amount"])
	}
	for _, body := range []string{
		`{"product_id":"` + polarfake.OneTimeProductID + `"}`, `{"seats":0}`, `{"customer_email":"x"}`,
		`{"discount_id":"` + polarfake.OneTimeProductID + `"}`, `{"trial_interval":"day"}`, `{"currency":"eur"}`,
	} {
		b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path, body)
	}
	if after := b.checkoutNow(created.text("id")); after["seats"] != 10.0 {
		t.Errorf("a refused update changed the session: %v", after)
	}
	b.expect(http.StatusNotFound, http.MethodPatch, "/v1/checkouts/"+polarfake.SeatProductID, `{}`)
	if types := b.idle(); count(types, "checkout.updated") != 2 {
		t.Errorf("events %v", types)
	}
}
