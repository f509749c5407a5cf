package truenorth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/pb33f/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

func remarshal(tb testing.TB, p CheckoutParams) []byte {
	tb.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		tb.Fatalf("encoding again: %v", err)
	}
	return raw
}

// sameMeaning fails unless two documents are equal to Polar: null and "" are
// absent where Polar reads them so, 1.0 is 1, and UUIDs have no case.
func sameMeaning(tb testing.TB, a, b []byte) {
	tb.Helper()
	if diff := cmp.Diff(meaning(tb, a), meaning(tb, b)); diff != "" {
		tb.Errorf("the documents differ (-before +after):\n%s", diff)
	}
}

func meaning(tb testing.TB, raw []byte) any {
	tb.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		tb.Fatal(err)
	}
	return meaningOf(doc)
}

func meaningOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any)
		for name, item := range v {
			if item == nil || item == "" {
				continue
			}
			if id, ok := canonicalUUID(name); ok {
				name = id
			}
			if s, ok := item.(string); ok && name == "unit_amount" {
				item = json.Number(s)
			}
			out[name] = meaningOf(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = meaningOf(item)
		}
		return out
	case json.Number:
		if d, ok := parseDecimal(v.String()); ok {
			return fmt.Sprintf("%t 0.%se%d", d.negative, d.digits, d.point)
		}
		return v.String()
	case string:
		if id, ok := canonicalUUID(v); ok {
			return id
		}
		return v
	default:
		return v
	}
}

func TestCheckoutParamsEncodeUnderPolarsNames(t *testing.T) {
	t.Parallel()
	product := uuid.MustParse(paramsProduct)
	p := CheckoutParams{
		Products: []uuid.UUID{product},
		Prices: Prices{product: {
			FixedPrice{PriceAmount: 0, TaxBehavior: TaxBehaviorExclusive},
			MeteredUnitPrice{MeterID: uuid.MustParse(paramsMeter), UnitAmount: "0.0005", CapAmount: new(int64(0))},
			&SeatBasedPrice{Currency: "eur", SeatTiers: SeatTiers{Tiers: []SeatTier{{MinSeats: 1, PricePerSeat: 900}}}},
			FreePrice{Currency: "gbp"},
			RawPrice(`{"amount_type": "per_moon"}`),
		}},
		ExternalCustomerID: "user_1",
		Metadata:           Values{"plan": "pro", "n": 3, "ok": true},
		Amount:             new(int64(0)),
		AllowTrial:         new(false),
		Seats:              2,
		Extra:              map[string]json.RawMessage{"new_field": json.RawMessage(`{"a": 1}`)},
	}
	got, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"products":["` + paramsProduct + `"],"prices":{"` + paramsProduct + `":[` +
		`{"amount_type":"fixed","price_amount":0,"tax_behavior":"exclusive"},` +
		`{"amount_type":"metered_unit","meter_id":"` + paramsMeter + `","unit_amount":"0.0005","cap_amount":0},` +
		`{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"price_per_seat":900}]},"price_currency":"eur"},` +
		`{"amount_type":"free","price_currency":"gbp"},` +
		`{"amount_type":"per_moon"}]},` +
		`"external_customer_id":"user_1","metadata":{"n":3,"ok":true,"plan":"pro"},"amount":0,"seats":2,"allow_trial":false,"new_field":{"a":1}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCheckoutParamsJSONRefusesWhatIsInvalid(t *testing.T) {
	t.Parallel()
	product := uuid.MustParse(paramsProduct)
	valid := CheckoutParams{Products: []uuid.UUID{product}}
	for name, tt := range map[string]struct {
		change func(p *CheckoutParams)
		want   string
	}{
		"no product":         {func(p *CheckoutParams) { p.Products = nil }, "products must not be null"},
		"negative seats":     {func(p *CheckoutParams) { p.Seats = -1 }, "seats must be from 1 to 10000, is -1"},
		"nil price":          {func(p *CheckoutParams) { p.Prices = Prices{product: {nil}} }, "must be an object, is null"},
		"raw price no JSON":  {func(p *CheckoutParams) { p.Prices = Prices{product: {RawPrice("{")}} }, "encoding checkout params"},
		"metadata of a list": {func(p *CheckoutParams) { p.Metadata = Values{"a": []int{1}} }, "metadata.a must be a string, a number or a boolean, is an array"},
		"metadata NaN":       {func(p *CheckoutParams) { p.Metadata = Values{"a": math.NaN()} }, "encoding checkout params"},
		"extra of a field":   {func(p *CheckoutParams) { p.Extra = map[string]json.RawMessage{"seats": []byte("1")} }, `extra field "seats" has a Go field of its own`},
		"extra old name":     {func(p *CheckoutParams) { p.Extra = map[string]json.RawMessage{"product_id": []byte("1")} }, "product_id is an old name; use products"},
		"external id bytes":  {func(p *CheckoutParams) { p.ExternalCustomerID = "user\xff" }, "external_customer_id is not valid UTF-8"},
		"external id NUL":    {func(p *CheckoutParams) { p.ExternalCustomerID = "user\x00" }, "external_customer_id has a NUL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := valid
			tt.change(&p)
			raw, err := p.JSON()
			if err == nil || !strings.Contains(err.Error(), tt.want) || raw != nil {
				t.Errorf("got %s and %v, want an error with %q", raw, err, tt.want)
			}
		})
	}
}

func TestCheckoutParamsDecodingKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	doc := []byte(checkoutDoc(`"Seats":5`, `"seats":2.0`, `"new":{"a":1.0}`, `"none":null`,
		`"metadata":{"big":12345678901234567890,"f":1.0}`,
		`"prices":{"`+paramsProduct+`":[{"amount_type":"fixed","price_amount":1e3},{"amount_type":"new","x":1.0}]}`))
	var p CheckoutParams
	if err := json.Unmarshal(doc, &p); err != nil {
		t.Fatal(err)
	}
	want := CheckoutParams{
		Products: []uuid.UUID{uuid.MustParse(paramsProduct)},
		Seats:    2,
		Metadata: Values{"big": json.Number("12345678901234567890"), "f": json.Number("1.0")},
		Prices: Prices{uuid.MustParse(paramsProduct): {
			FixedPrice{PriceAmount: 1000}, RawPrice(`{"amount_type":"new","x":1.0}`),
		}},
		Extra: map[string]json.RawMessage{
			"Seats": json.RawMessage("5"), "new": json.RawMessage(`{"a":1.0}`), "none": json.RawMessage("null"),
		},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An HTTP handler that decodes a body and encodes it again must not sell for
// nothing what the body left out.
func TestDecodingDoesNotRepairAnInvalidPrice(t *testing.T) {
	t.Parallel()
	for _, price := range []string{
		`{"amount_type":"fixed"}`,
		`{"amount_type":"fixed","price_amount":null}`,
		`{"amount_type":"fixed","Price_Amount":1000}`,
		`{"amount_type":"fixed","price_amount":1000,"price_amount":0}`,
		`{"amount_type":"fixed","price_amount":1000,"discount":1}`,
		`{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1}]}}`,
		`{"amount_type":"custom","Minimum_Amount":500}`,
		`{"price_amount":1000}`,
		`[]`,
		`null`,
	} {
		doc := pricesDoc(price)
		var p CheckoutParams
		if err := json.Unmarshal([]byte(doc), &p); err != nil {
			t.Errorf("%s: %v", price, err)
			continue
		}
		prices := p.Prices[uuid.MustParse(paramsProduct)]
		if len(prices) != 1 {
			t.Errorf("%s: got %d prices", price, len(prices))
			continue
		}
		if raw, ok := prices[0].(RawPrice); !ok || string(raw) != price {
			t.Errorf("%s: got %#v, want a RawPrice of the same text", price, prices[0])
		}
		if _, err := p.JSON(); err == nil {
			t.Errorf("%s: was refused before, and is valid now", price)
		}
	}
}

func TestRawPriceTellsItsAmountType(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		`{"amount_type":"per_moon"}`: "per_moon", `{}`: "", `[]`: "", `{"amount_type":1}`: "", ``: "",
	} {
		if got := RawPrice(doc).AmountType(); got != want {
			t.Errorf("RawPrice(%s): got %q, want %q", doc, got, want)
		}
	}
}

func TestDecimalDecodesFromStringAndNumber(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]Decimal{`"0.0005"`: "0.0005", `0.50`: "0.50", `3`: "3"} {
		var got Decimal
		if err := json.Unmarshal([]byte(doc), &got); err != nil || got != want {
			t.Errorf("%s: got %q and %v, want %q", doc, got, err, want)
		}
	}
	for _, doc := range []string{`true`, `{}`, `[]`} {
		var got Decimal
		if err := json.Unmarshal([]byte(doc), &got); err == nil {
			t.Errorf("%s decodes as %q", doc, got)
		}
	}
}

func TestUnmarshalRefusesWrongTypes(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{`[]`, `"x"`, `{"products":1}`, `{"seats":"2"}`, `{"metadata":[]}`, `{"prices":{"x":[]}}`} {
		var p CheckoutParams
		if err := json.Unmarshal([]byte(doc), &p); err == nil {
			t.Errorf("%s decodes", doc)
		}
	}
}

func TestParamsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawParams(t, true)
		raw, err := want.JSON()
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		if err := ValidateParams(raw, "new_field"); err != nil {
			t.Fatalf("its own JSON is refused: %v\n%s", err, raw)
		}
		var got CheckoutParams
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("decoding: %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, raw)
		}
	})
}

func TestParamsPassPolarsOwnSchema(t *testing.T) {
	t.Parallel()
	schema := polarCheckoutSchema(t)
	valid := func(raw []byte) error {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		return schema.Validate(doc)
	}
	if err := valid([]byte(`{"products":["x"]}`)); err == nil {
		t.Fatal("the schema takes anything; the test proves nothing")
	}
	rapid.Check(t, func(t *rapid.T) {
		raw, err := drawParams(t, false).JSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(raw); err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
	})
}

// polarCheckoutSchema compiles the schema of a checkout document out of
// Polar's OpenAPI document.
func polarCheckoutSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(polartest.Read(t, "openapi.json")))
	if err != nil {
		t.Fatal(err)
	}
	dropLookaheads(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "uuid4", Validate: func(v any) error {
		if s, ok := v.(string); ok {
			if id, err := uuid.Parse(s); err != nil || id.Version() != 4 {
				return fmt.Errorf("%q is no UUID of version 4", s)
			}
		}
		return nil
	}})
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("openapi.json#/components/schemas/CheckoutCreate")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// dropLookaheads drops the patterns that Go's regexp has no syntax for.
func dropLookaheads(v any) {
	switch v := v.(type) {
	case map[string]any:
		if pattern, ok := v["pattern"].(string); ok && strings.Contains(pattern, "(?") {
			delete(v, "pattern")
		}
		for _, item := range v {
			dropLookaheads(item)
		}
	case []any:
		for _, item := range v {
			dropLookaheads(item)
		}
	}
}

// drawParams draws valid params; without newer only what is in Polar's
// published schema.
func drawParams(t *rapid.T, newer bool) CheckoutParams {
	ids := rapid.Custom(func(t *rapid.T) uuid.UUID {
		var id uuid.UUID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		return id
	})
	word := rapid.StringMatching(`[a-zA-Z0-9 üé😀<>&"'\\/-]{1,40}`)
	maybe := func(name string) bool { return rapid.Bool().Draw(t, name) }
	flag := func(name string) *bool {
		return rapid.SampledFrom([]*bool{nil, new(true), new(false)}).Draw(t, name)
	}
	values := func(name string, most int, scalars ...*rapid.Generator[any]) Values {
		if !maybe(name) {
			return nil
		}
		return rapid.MapOfN(rapid.StringMatching(`[a-z_.é]{1,16}`), rapid.OneOf(scalars...), 0, most).Draw(t, name)
	}
	str := word.AsAny()
	integers := rapid.Map(rapid.Int64(), func(i int64) any { return json.Number(strconv.FormatInt(i, 10)) })
	floats := rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return json.Number(fmt.Sprintf("%.3f", f)) })
	flags := rapid.Bool().AsAny()

	p := CheckoutParams{
		Products:              rapid.SliceOfNDistinct(ids, 1, 4, rapid.ID[uuid.UUID]).Draw(t, "products"),
		IsBusinessCustomer:    flag("business"),
		AllowDiscountCodes:    flag("codes"),
		RequireBillingAddress: flag("require address"),
		AllowTrial:            flag("allow trial"),
		Metadata:              values("metadata", 49, str, integers, floats, flags),
		CustomerMetadata:      values("customer metadata", 50, str, integers, floats, flags),
		CustomFieldData:       values("custom fields", 5, str, integers, flags, rapid.Just[any](nil)),
	}
	if maybe("customer") {
		p.ExternalCustomerID = word.Draw(t, "external id")
		p.CustomerID = ids.Draw(t, "customer id")
		p.CustomerName = word.Draw(t, "name")
		p.CustomerEmail = rapid.StringMatching(`[a-z]{1,9}@[a-z]{1,9}\.example`).Draw(t, "email")
		p.CustomerIPAddress = rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1"}).Draw(t, "ip")
		p.CustomerBillingName = word.Draw(t, "billing name")
	}
	if maybe("address") {
		p.CustomerBillingAddress = &BillingAddress{Country: "DE", City: word.Draw(t, "city"), Line1: word.Draw(t, "line1")}
		p.CustomerTaxID = word.Draw(t, "tax id")
	}
	if maybe("terms") {
		p.DiscountID, p.SubscriptionID = ids.Draw(t, "discount"), ids.Draw(t, "subscription")
		p.Amount = new(rapid.Int64Range(0, 1<<40).Draw(t, "amount"))
		p.TrialInterval = rapid.SampledFrom([]TrialInterval{TrialIntervalDay, TrialIntervalWeek, TrialIntervalMonth, TrialIntervalYear}).Draw(t, "trial")
		p.TrialIntervalCount = rapid.IntRange(1, 1000).Draw(t, "trial count")
		p.MinSeats = rapid.IntRange(1, 10_000).Draw(t, "min seats")
		p.Seats = rapid.IntRange(p.MinSeats, 10_000).Draw(t, "seats")
		p.MaxSeats = rapid.IntRange(p.Seats, 10_000).Draw(t, "max seats")
		p.MinUnits = rapid.IntRange(1, 1<<30).Draw(t, "min units")
		p.Units = rapid.IntRange(p.MinUnits, 1<<30).Draw(t, "units")
		p.MaxUnits = rapid.IntRange(p.Units, 1<<30).Draw(t, "max units")
	}
	if maybe("page") {
		p.SuccessURL = "https://a.example/" + rapid.StringMatching(`[a-z]{0,9}`).Draw(t, "success") + "?id=CHECKOUT_ID"
		p.ReturnURL = "http://localhost:3000/"
		p.EmbedOrigin = "https://a.example"
		p.Locale = rapid.SampledFrom([]string{"en", "pt-BR", "en-GB-oxendict"}).Draw(t, "locale")
		p.Currency = rapid.SampledFrom([]string{"usd", "eur", "jpy"}).Draw(t, "currency")
	}
	if newer && maybe("placeholder") {
		p.SuccessURL = "https://a.example/{CHECKOUT_ID}?id={CHECKOUT_ID}"
	}
	if newer && maybe("extra") {
		p.Extra = map[string]json.RawMessage{"new_field": json.RawMessage(`{"a":[null,1.0]}`)}
	}
	for _, product := range p.Products {
		if maybe("prices") {
			if p.Prices == nil {
				p.Prices = make(Prices)
			}
			p.Prices[product] = drawPrices(t, ids, newer)
		}
	}
	return p
}

func drawPrices(t *rapid.T, ids *rapid.Generator[uuid.UUID], newer bool) []Price {
	amount := func(name string, least int64) int64 { return rapid.Int64Range(least, 99_999_999).Draw(t, name) }
	tax := rapid.SampledFrom([]TaxBehavior{"", TaxBehaviorInclusive, TaxBehaviorExclusive, TaxBehaviorLocation}).Draw(t, "tax")
	currency := rapid.SampledFrom([]string{"", "usd", "eur", "gbp"}).Draw(t, "currency")
	rate := Decimal(fmt.Sprintf("%d.%d", rapid.IntRange(0, 99_999).Draw(t, "whole"), rapid.IntRange(1, 999_999_999).Draw(t, "fraction")))
	limit := rapid.SampledFrom([]*int64{nil, new(int64(0)), new(int64(5000))}).Draw(t, "cap")
	tierType := rapid.SampledFrom([]TierType{TierTypeVolume, TierTypeGraduated}).Draw(t, "tier type")

	prices := []Price{MeteredUnitPrice{MeterID: ids.Draw(t, "meter"), UnitAmount: rate, CapAmount: limit, Currency: currency, TaxBehavior: tax}}
	switch rapid.IntRange(0, 2).Draw(t, "combination") {
	case 0:
		least := amount("minimum", 50)
		preset := rapid.Int64Range(least, 99_999_999).Draw(t, "preset")
		prices = append(prices, CustomPrice{
			MinimumAmount: &least, PresetAmount: &preset, MaximumAmount: rapid.SampledFrom([]int64{0, preset}).Draw(t, "maximum"),
			Currency: currency, TaxBehavior: tax,
		})
	case 1:
		prices = append(prices, FixedPrice{PriceAmount: rapid.SampledFrom([]int64{0, amount("fixed", 50)}).Draw(t, "price"), Currency: currency, TaxBehavior: tax})
		last := rapid.IntRange(2, 100).Draw(t, "seats")
		prices = append(prices, SeatBasedPrice{
			SeatTiers: SeatTiers{Type: tierType, Tiers: []SeatTier{
				{MinSeats: 1, MaxSeats: last, PricePerSeat: amount("seat", 0)},
				{MinSeats: last + 1, PricePerSeat: amount("seat", 0)},
			}},
			Currency: currency, TaxBehavior: tax,
		})
	}
	if newer {
		schedule := Tiers{Type: tierType, Tiers: []Tier{{Bound: 10, UnitAmount: "5"}, {UnitAmount: "4"}}}
		prices = append(prices,
			MeteredTiersPrice{MeterID: ids.Draw(t, "meter"), Tiers: schedule, CapAmount: limit, Currency: currency, TaxBehavior: tax},
			UnitBasedPrice{
				Tiers: schedule, MinimumUnits: rapid.SampledFrom([]*int{nil, new(3)}).Draw(t, "minimum"),
				UnitLabel: rapid.SampledFrom([]map[string]map[string]string{nil, {}, {"en": {"other": "devices"}}}).Draw(t, "label"),
				Currency:  currency, TaxBehavior: tax,
			},
			FreePrice{Currency: "sek", TaxBehavior: tax},
			RawPrice(`{"amount_type":"per_moon","n":1.0}`),
		)
	}
	return prices
}

func FuzzValidateParams(f *testing.F) {
	for _, doc := range []string{
		`{}`, `null`, checkoutDoc(), checkoutDoc(`"extra":{"a":[1.0,null]}`, `"seats":2e0`, `"metadata":{"a":1.0,"b":"\ud83d\ude00"}`),
		checkoutDoc(`"customer_billing_address":{"country":"DE","city":""}`, `"customer_tax_id":"1"`, `"custom_field_data":{"a":null}`),
		checkoutDoc(`"amount":-0.0`, `"trial_interval":"day"`, `"trial_interval_count":1000e-1`),
		pricesDoc(`{"amount_type":"fixed","price_amount":5e2}`, `{"amount_type":"metered_unit","meter_id":"`+paramsMeter+`","unit_amount":1e-3}`),
		pricesDoc(`{"amount_type":"unit_based","tiers":{"type":"volume","tiers":[{"bound":1.0,"unit_amount":"+05"}]},"unit_label":{"en":{}}}`),
		pricesDoc(`{"amount_type":"metered_tiers","meter_id":"` + paramsMeter + `","tiers":{"type":"volume","tiers":[{"unit_amount":1}]},"Cap_amount":1}`),
		pricesDoc(`{"amount_type":"custom","minimum_amount":0,"preset_amount":null}`, `{"amount_type":"new","x":[[1e2]]}`),
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := ValidateParams(raw, "extra"); err != nil {
			faultsOf(t, err)
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		var p CheckoutParams
		if err := json.Unmarshal(raw, &p); err != nil {
			t.Fatalf("accepted, but does not decode: %v", err)
		}
		again := remarshal(t, p)
		sameMeaning(t, raw, again)
		if err := ValidateParams(again, "extra"); err != nil {
			t.Errorf("refused when encoded again: %v", err)
		}
		var p2 CheckoutParams
		if err := json.Unmarshal(again, &p2); err != nil || !reflect.DeepEqual(remarshal(t, p2), again) {
			t.Errorf("encoding is not stable: %v", err)
		}
	})
}

func BenchmarkValidateParams(b *testing.B) {
	docs := map[string]string{
		"small": checkoutDoc(`"external_customer_id":"user_1"`, `"success_url":"https://a.example/ok?id={CHECKOUT_ID}"`),
		"prices": checkoutDoc(`"external_customer_id":"user_1"`, `"metadata":`+metadataDoc(20),
			`"prices":{"`+paramsProduct+`":[{"amount_type":"fixed","price_amount":1000},{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"price_per_seat":500}]}}]}`),
	}
	for name, doc := range docs {
		b.Run(name, func(b *testing.B) {
			raw := []byte(doc)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := ValidateParams(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
