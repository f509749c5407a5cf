package truenorth

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	paramsProduct  = "0f7b2b0e-6a0f-4f43-9d0c-0a4d0e3a1c11"
	paramsProduct2 = "a2c5a0fc-5b0d-4f0a-8f61-5f1b6f1f2d22"
	paramsMeter    = "c3d6b1ad-6c1e-4a1b-9a72-6a2c7a2a3e33"
)

// checkoutDoc is a valid document with members added.
func checkoutDoc(members ...string) string {
	return `{"products":["` + paramsProduct + `"]` + strings.Join(append([]string{""}, members...), ",") + `}`
}

// metadataDoc is an object with keys k0 to k(n-1).
func metadataDoc(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"k%d":%d`, i, i)
	}
	return "{" + strings.Join(members, ",") + "}"
}

// faultsOf returns the faults of a document, each as "path message".
func faultsOf(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *ParamsError
	if !errors.As(err, &invalid) {
		t.Fatalf("the error is a %T, want *ParamsError", err)
	}
	if len(invalid.Fields) == 0 {
		t.Fatal("a ParamsError without fields")
	}
	var faults []string
	for _, f := range invalid.Fields {
		if f.Message == "" {
			t.Errorf("no message for %q", f.Path)
		}
		faults = append(faults, strings.TrimSpace(f.Path+" "+f.Message))
	}
	return faults
}

// ruleTest is a document that passes, or the beginnings of its faults.
type ruleTest struct {
	name string
	doc  string
	want []string
}

func runRuleTests(t *testing.T, tests []ruleTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := ValidateParams([]byte(tt.doc))
			got := faultsOf(t, err)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("fault %d is %q, want %q...", i, got[i], want)
				}
			}
			if err == nil {
				var p CheckoutParams
				if err := json.Unmarshal([]byte(tt.doc), &p); err != nil {
					t.Errorf("accepted, but does not decode: %v", err)
				}
				sameMeaning(t, []byte(tt.doc), remarshal(t, p))
			}
		})
	}
}

func TestValidateParamsDocument(t *testing.T) {
	t.Parallel()
	runRuleTests(t, []ruleTest{
		{"only products", checkoutDoc(), nil},
		{"white space around", " \n" + checkoutDoc() + "\t", nil},
		{"nothing", ``, []string{"is not valid JSON"}},
		{"no JSON", `{"products":}`, []string{"is not valid JSON at byte 13"}},
		{"two documents", `{} {}`, []string{"is not valid JSON"}},
		{"array", `[]`, []string{"must be an object, is an array"}},
		{"string", `"x"`, []string{"must be an object, is a string"}},
		{"null", `null`, []string{"must be an object, is null"}},
		{"empty object", `{}`, []string{"products is required"}},
		{"64 KiB", checkoutDoc() + strings.Repeat(" ", maxParamsBytes-len(checkoutDoc())), nil},
		{"over 64 KiB", checkoutDoc() + strings.Repeat(" ", maxParamsBytes), []string{"has 65"}},
		{"too deep", checkoutDoc(`"custom_field_data":` + strings.Repeat("[", 40) + strings.Repeat("]", 40)), []string{"cannot be read: it is nested deeper than 32 levels"}},
		{"very deep", strings.Repeat("[", 20000) + strings.Repeat("]", 20000), []string{"is not valid JSON"}},
		{"deep, but valid to encoding/json", strings.Repeat("[", 9000) + strings.Repeat("]", 9000), []string{"cannot be read"}},
	})
}

func TestValidateParamsNames(t *testing.T) {
	t.Parallel()
	runRuleTests(t, []ruleTest{
		{"unknown", checkoutDoc(`"expires_at":"2026-01-01"`), []string{"expires_at is not a field that we know, and Polar would ignore it without a word"}},
		{"a typo", checkoutDoc(`"external_custmer_id":"u1"`), []string{`external_custmer_id is not a field that we know, and Polar would ignore it without a word; did you mean external_customer_id?`}},
		{"camel case", checkoutDoc(`"successUrl":"https://a.b"`), []string{`successUrl is not a field that we know, and Polar would ignore it without a word; did you mean success_url?`}},
		{"other case", checkoutDoc(`"Seats":1`), []string{`Seats is not a field that we know, and Polar would ignore it without a word; did you mean seats?`}},
		{"old external id", checkoutDoc(`"customer_external_id":"u1"`), []string{"customer_external_id is an old name; use external_customer_id"}},
		{"old product", checkoutDoc(`"product_id":"` + paramsProduct + `"`), []string{"product_id is an old name; use products"}},
		{"old price", checkoutDoc(`"product_price_id":"` + paramsProduct + `"`), []string{"product_price_id is an old name; use products"}},
		{"odd name", checkoutDoc(`"a b":1`), []string{`["a b"] is not a field that we know`}},
		{"duplicate", checkoutDoc(`"seats":1`, `"seats":2`), []string{"seats is given twice"}},
		{"duplicate in another spelling", checkoutDoc(`"seats":1`, `"\u0073eats":2`), []string{"seats is given twice"}},
		{"duplicate below", checkoutDoc(`"metadata":{"a":1,"a":2}`), []string{"metadata.a is given twice"}},
		{"unknown in the address", checkoutDoc(`"customer_billing_address":{"country":"DE","zip":"1"}`), []string{"customer_billing_address.zip is not a field that Polar has here"}},
	})
}

func TestValidateParamsLetsExtraNamesPass(t *testing.T) {
	t.Parallel()
	doc := []byte(checkoutDoc(`"new_thing":{"a":[null,1]}`, `"other":1`))
	if err := ValidateParams(doc, "new_thing", "other"); err != nil {
		t.Error(err)
	}
	if got := faultsOf(t, ValidateParams(doc, "new_thing")); len(got) != 1 || !strings.HasPrefix(got[0], "other is not a field") {
		t.Errorf("got %q, want a fault of other only", got)
	}
	if err := ValidateParams([]byte(checkoutDoc(`"customer_external_id":"u"`)), "customer_external_id"); err == nil {
		t.Error("an old name passed as an extra name")
	}
}

func TestValidateParamsText(t *testing.T) {
	t.Parallel()
	runRuleTests(t, []ruleTest{
		{"escapes", checkoutDoc(`"customer_name":"\"\\\/\n\u00e9"`), nil},
		{"surrogate pair", checkoutDoc(`"customer_name":"\ud83d\ude00"`), nil},
		{"escaped backslash before u0000", checkoutDoc(`"customer_name":"\\u0000"`), nil},
		{"NUL", checkoutDoc(`"customer_name":"a\u0000"`), []string{"customer_name has a NUL character"}},
		{"NUL in a name", checkoutDoc(`"metadata":{"a\u0000":1}`), []string{`metadata["a\x00"] has a NUL character`}},
		{"NUL in an unknown price", checkoutDoc(`"prices":{"` + paramsProduct + `":[{"amount_type":"new","x":"\u0000"}]}`), []string{"prices." + paramsProduct + "[0].x has a NUL character"}},
		{"high surrogate alone", checkoutDoc(`"customer_name":"\ud83d"`), []string{`customer_name has half a surrogate pair (\ud83d)`}},
		{"high surrogate before a letter", checkoutDoc(`"customer_name":"\ud83dx"`), []string{"customer_name has half a surrogate pair"}},
		{"low surrogate alone", checkoutDoc(`"customer_name":"\ude00\ud83d"`), []string{"customer_name has half a surrogate pair"}},
		{"two high surrogates", checkoutDoc(`"customer_name":"\ud83d\ud83d\ude00"`), []string{"customer_name has half a surrogate pair"}},
		{"no UTF-8", checkoutDoc("\"customer_name\":\"\xff\""), []string{"customer_name is not valid UTF-8"}},
	})
}

func TestValidateParamsNumbers(t *testing.T) {
	t.Parallel()
	runRuleTests(t, []ruleTest{
		{"integral float", checkoutDoc(`"seats":3.0`, `"amount":1e2`, `"units":50e-1`), nil},
		{"fraction", checkoutDoc(`"seats":3.5`), []string{"seats must be an integer"}},
		{"string", checkoutDoc(`"seats":"3"`), []string{"seats must be an integer, is a string"}},
		{"boolean", checkoutDoc(`"seats":true`), []string{"seats must be an integer, is a boolean"}},
		{"most of 64 bits", checkoutDoc(`"amount":9223372036854775807`), nil},
		{"over 64 bits", checkoutDoc(`"amount":9223372036854775808`), []string{"amount must be an integer of at most 64 bits"}},
		{"overflow", checkoutDoc(`"amount":1e400`), []string{"amount is a number out of range", "amount must be an integer"}},
		{"overflow in metadata", checkoutDoc(`"metadata":{"a":-1e400}`), []string{"metadata.a is a number out of range"}},
		{"underflow", checkoutDoc(`"metadata":{"a":1e-400}`), []string{"metadata.a is a number out of range"}},
		{"zero with an exponent", checkoutDoc(`"metadata":{"a":0e-400}`), nil},
		{"negative zero", checkoutDoc(`"amount":-0`), nil},
		{"negative zero float", checkoutDoc(`"amount":-0.0`), nil},
		{"long", checkoutDoc(`"metadata":{"a":0.` + strings.Repeat("1", 70) + `}`), []string{"metadata.a is a number of 72 characters"}},
	})
}

func TestValidateParamsProducts(t *testing.T) {
	t.Parallel()
	upper := strings.ToUpper(paramsProduct)
	runRuleTests(t, []ruleTest{
		{"two", `{"products":["` + paramsProduct + `","` + paramsProduct2 + `"]}`, nil},
		{"uppercase", `{"products":["` + upper + `"]}`, nil},
		{"none", `{"products":[]}`, []string{"products is empty; at least 1 element is needed"}},
		{"null", `{"products":null}`, []string{"products must not be null"}},
		{"string", `{"products":"` + paramsProduct + `"}`, []string{"products must be an array, is a string"}},
		{"no UUID", `{"products":["prod_1"]}`, []string{"products[0] is not a UUID"}},
		{"nil UUID", `{"products":["00000000-0000-0000-0000-000000000000"]}`, []string{"products[0] is not a UUID"}},
		{"no hyphens", `{"products":["` + strings.ReplaceAll(paramsProduct, "-", "") + `"]}`, []string{"products[0] is not a UUID"}},
		{"number", `{"products":[1]}`, []string{"products[0] must be a string, is a number"}},
		{"twice", `{"products":["` + paramsProduct + `","` + paramsProduct2 + `","` + paramsProduct + `"]}`, []string{"products[2] is the same product as products[0]"}},
		{"twice, in other letters", `{"products":["` + paramsProduct + `","` + upper + `"]}`, []string{"products[1] is the same product as products[0]"}},
	})
}

func TestValidateParamsCustomer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2001)
	runRuleTests(t, []ruleTest{
		{"all", checkoutDoc(`"external_customer_id":"user 1/ü"`, `"customer_id":"`+paramsMeter+`"`, `"customer_name":"Ann"`, `"customer_email":"ann@example.com"`,
			`"customer_ip_address":"2001:db8::1"`, `"customer_billing_name":"Ann AG"`, `"customer_billing_address":{"country":"DE","line1":"a","line2":null,"postal_code":"1","city":"B","state":"C"}`,
			`"customer_tax_id":"DE123"`, `"is_business_customer":true`), nil},
		{"nulls", checkoutDoc(`"external_customer_id":null`, `"customer_id":null`, `"customer_name":null`, `"customer_email":null`, `"customer_ip_address":null`,
			`"customer_billing_name":null`, `"customer_billing_address":null`, `"customer_tax_id":null`), nil},
		{"empty where Polar takes it as null", checkoutDoc(`"customer_name":""`, `"customer_billing_name":""`, `"customer_tax_id":""`), nil},
		{"external id empty", checkoutDoc(`"external_customer_id":""`), []string{"external_customer_id must not be empty"}},
		{"external id a number", checkoutDoc(`"external_customer_id":7`), []string{"external_customer_id must be a string, is a number"}},
		{"external id of 2000 bytes", checkoutDoc(`"external_customer_id":"` + long[:2000] + `"`), nil},
		{"external id of 2001 bytes", checkoutDoc(`"external_customer_id":"` + long + `"`), []string{"external_customer_id has 2001 bytes; at most 2000"}},
		{"customer id", checkoutDoc(`"customer_id":"cus_1"`), []string{"customer_id is not a UUID"}},
		{"name of 256 characters", checkoutDoc(`"customer_name":"` + strings.Repeat("ü", 256) + `"`), nil},
		{"name of 257 characters", checkoutDoc(`"customer_name":"` + strings.Repeat("ü", 257) + `"`), []string{"customer_name has 257 characters"}},
		{"email without @", checkoutDoc(`"customer_email":"ann"`), []string{"customer_email is not an e-mail address"}},
		{"email without local part", checkoutDoc(`"customer_email":"@example.com"`), []string{"customer_email is not"}},
		{"email without dot", checkoutDoc(`"customer_email":"ann@localhost"`), []string{"customer_email is not"}},
		{"email with a name", checkoutDoc(`"customer_email":"Ann <ann@example.com>"`), []string{"customer_email is not"}},
		{"email with empty label", checkoutDoc(`"customer_email":"ann@example..com"`), []string{"customer_email is not"}},
		{"email empty", checkoutDoc(`"customer_email":""`), []string{"customer_email must not be empty"}},
		{"email international", checkoutDoc(`"customer_email":"jörg+x@bücher.example"`), nil},
		{"IPv4", checkoutDoc(`"customer_ip_address":"192.0.2.1"`), nil},
		{"no IP", checkoutDoc(`"customer_ip_address":"192.0.2.1:80"`), []string{"customer_ip_address is not"}},
		{"IP with a zone", checkoutDoc(`"customer_ip_address":"fe80::1%eth0"`), []string{"customer_ip_address is not"}},
		{"address without country", checkoutDoc(`"customer_billing_address":{"city":"B"}`), []string{"customer_billing_address.country is required"}},
		{"country null", checkoutDoc(`"customer_billing_address":{"country":null}`), []string{"customer_billing_address.country must not be null"}},
		{"country lowercase", checkoutDoc(`"customer_billing_address":{"country":"de"}`), []string{"customer_billing_address.country must be an ISO"}},
		{"country of three letters", checkoutDoc(`"customer_billing_address":{"country":"DEU"}`), []string{"customer_billing_address.country must be an ISO"}},
		{"city a number", checkoutDoc(`"customer_billing_address":{"country":"DE","city":1}`), []string{"customer_billing_address.city must be a string"}},
		{"address a string", checkoutDoc(`"customer_billing_address":"Berlin"`), []string{"customer_billing_address must be an object, is a string"}},
		{"tax id without country", checkoutDoc(`"customer_tax_id":"DE123"`), []string{"customer_tax_id needs customer_billing_address"}},
		{"business null", checkoutDoc(`"is_business_customer":null`), []string{"is_business_customer must not be null"}},
		{"business a string", checkoutDoc(`"is_business_customer":"true"`), []string{"is_business_customer must be a boolean, is a string"}},
	})
}

func TestValidateParamsMetadata(t *testing.T) {
	t.Parallel()
	chars := func(n int) string { return strings.Repeat("é", n) }
	runRuleTests(t, []ruleTest{
		{"scalars", checkoutDoc(`"metadata":{"s":"x","i":1,"f":1.50,"b":false}`, `"customer_metadata":{}`), nil},
		{"49 keys", checkoutDoc(`"metadata":` + metadataDoc(49)), nil},
		{"50 keys", checkoutDoc(`"metadata":` + metadataDoc(50)), []string{"metadata has 50 keys; at most 49 are allowed, since truenorth adds truenorth_request and Polar takes 50"}},
		{"51 keys", checkoutDoc(`"metadata":` + metadataDoc(51)), []string{"metadata has 51 keys; Polar takes at most 50"}},
		{"customer 50 keys", checkoutDoc(`"customer_metadata":` + metadataDoc(50)), nil},
		{"customer 51 keys", checkoutDoc(`"customer_metadata":` + metadataDoc(51)), []string{"customer_metadata has 51 keys"}},
		{"reserved", checkoutDoc(`"metadata":{"truenorth_request":"x"}`), []string{"metadata.truenorth_request is reserved"}},
		{"not reserved in the customer's", checkoutDoc(`"customer_metadata":{"truenorth_request":"x"}`), nil},
		{"key of 40", checkoutDoc(`"metadata":{"` + chars(40) + `":1}`), nil},
		{"key of 41", checkoutDoc(`"metadata":{"` + chars(41) + `":1}`), []string{`metadata["` + chars(41) + `"] has a key of 41 characters`}},
		{"empty key", checkoutDoc(`"metadata":{"":1}`), []string{`metadata[""] has a key of 0 characters`}},
		{"value of 500", checkoutDoc(`"metadata":{"a":"` + chars(500) + `"}`), nil},
		{"value of 501", checkoutDoc(`"metadata":{"a":"` + chars(501) + `"}`), []string{"metadata.a has 501 characters"}},
		{"empty value", checkoutDoc(`"metadata":{"a":""}`), []string{"metadata.a has 0 characters"}},
		{"null value", checkoutDoc(`"metadata":{"a":null}`), []string{"metadata.a must be a string, a number or a boolean, is null"}},
		{"nested", checkoutDoc(`"customer_metadata":{"a":{}}`), []string{"customer_metadata.a must be a string, a number or a boolean, is an object"}},
		{"list", checkoutDoc(`"metadata":[]`), []string{"metadata must be an object, is an array"}},
		{"null", checkoutDoc(`"metadata":null`, `"customer_metadata":null`), []string{"customer_metadata must not be null", "metadata must not be null"}},
		{"custom fields", checkoutDoc(`"custom_field_data":{"a":"","b":null,"c":1,"d":true}`), nil},
		{"custom field nested", checkoutDoc(`"custom_field_data":{"a":[]}`), []string{"custom_field_data.a must be a string, a number, a boolean or null, is an array"}},
		{"custom fields null", checkoutDoc(`"custom_field_data":null`), []string{"custom_field_data must not be null"}},
	})
}

func TestValidateParamsTerms(t *testing.T) {
	t.Parallel()
	url := func(n int) string { return "https://a.example/" + strings.Repeat("x", n-len("https://a.example/")) }
	runRuleTests(t, []ruleTest{
		{"flags", checkoutDoc(`"allow_discount_codes":false`, `"require_billing_address":true`, `"allow_trial":false`), nil},
		{"flag null", checkoutDoc(`"allow_trial":null`), []string{"allow_trial must not be null"}},
		{"flag a number", checkoutDoc(`"allow_discount_codes":0`, `"require_billing_address":1`), []string{"allow_discount_codes must be a boolean", "require_billing_address must be a boolean"}},
		{"ids", checkoutDoc(`"discount_id":"`+paramsMeter+`"`, `"subscription_id":"`+paramsMeter+`"`), nil},
		{"ids wrong", checkoutDoc(`"discount_id":"x"`, `"subscription_id":"y"`), []string{"discount_id is not a UUID", "subscription_id is not a UUID"}},
		{"amount 0", checkoutDoc(`"amount":0`), nil},
		{"amount null", checkoutDoc(`"amount":null`), nil},
		{"amount negative", checkoutDoc(`"amount":-1`), []string{"amount must be at least 0, is -1"}},
		{"seats", checkoutDoc(`"seats":10000`, `"min_seats":1`, `"max_seats":10000`), nil},
		{"seats 0", checkoutDoc(`"seats":0`), []string{"seats must be from 1 to 10000, is 0"}},
		{"seats 10001", checkoutDoc(`"min_seats":10001`), []string{"min_seats must be from 1 to 10000, is 10001"}},
		{"seats below", checkoutDoc(`"seats":1`, `"min_seats":2`), []string{"min_seats must not be more than seats, is 2 against 1"}},
		{"seats above", checkoutDoc(`"seats":3`, `"max_seats":2`), []string{"seats must not be more than max_seats, is 3 against 2"}},
		{"seats crossed", checkoutDoc(`"min_seats":3`, `"max_seats":2`), []string{"min_seats must not be more than max_seats"}},
		{"units", checkoutDoc(`"units":20000`, `"min_units":20000`, `"max_units":20000`), nil},
		{"units 0", checkoutDoc(`"units":0`, `"min_units":0`, `"max_units":0`), []string{"units must be from 1", "min_units must be from 1", "max_units must be from 1"}},
		{"units crossed", checkoutDoc(`"units":2`, `"min_units":3`, `"max_units":1`), []string{"min_units must not be more than max_units", "min_units must not be more than units", "units must not be more than max_units"}},
		{"trial", checkoutDoc(`"trial_interval":"month"`, `"trial_interval_count":1000`), nil},
		{"trial nulls", checkoutDoc(`"trial_interval":null`, `"trial_interval_count":null`), nil},
		{"trial without count", checkoutDoc(`"trial_interval":"day"`), []string{"trial_interval needs trial_interval_count"}},
		{"trial count null", checkoutDoc(`"trial_interval":"day"`, `"trial_interval_count":null`), []string{"trial_interval needs trial_interval_count"}},
		{"trial without interval", checkoutDoc(`"trial_interval_count":1`), []string{"trial_interval_count needs trial_interval"}},
		{"trial unknown", checkoutDoc(`"trial_interval":"quarter"`, `"trial_interval_count":0`), []string{"trial_interval must be one of day, week, month, year", "trial_interval_count must be from 1 to 1000"}},
		{"URLs", checkoutDoc(`"success_url":"https://a.example/ok?checkout_id={CHECKOUT_ID}"`, `"return_url":"http://localhost:3000/back"`), nil},
		{"placeholder in the host", checkoutDoc(`"success_url":"https://{CHECKOUT_ID}.a.example/#{CHECKOUT_ID}"`), nil},
		{"URL relative", checkoutDoc(`"success_url":"/ok"`), []string{"success_url is not an absolute http or https URL"}},
		{"URL of another scheme", checkoutDoc(`"success_url":"javascript:alert(1)"`, `"return_url":"myapp://ok"`), []string{"success_url is not", "return_url is not"}},
		{"URL without host", checkoutDoc(`"success_url":"https:///ok"`), []string{"success_url is not"}},
		{"URL with a space", checkoutDoc(`"success_url":"https://a.example/a b"`), []string{"success_url is not"}},
		{"URL of 2083", checkoutDoc(`"success_url":"` + url(2083) + `"`), nil},
		{"URL of 2084", checkoutDoc(`"return_url":"` + url(2084) + `"`), []string{"return_url has 2084 characters; at most 2083"}},
		{"URL empty", checkoutDoc(`"success_url":""`), []string{"success_url must not be empty"}},
		{"origin", checkoutDoc(`"embed_origin":"https://a.example"`), nil},
		{"origin empty", checkoutDoc(`"embed_origin":""`), []string{"embed_origin must not be empty"}},
		{"locales", checkoutDoc(`"locale":"en-GB-oxendict"`), nil},
		{"locale with underscore", checkoutDoc(`"locale":"en_US"`), []string{"locale must be a BCP 47 language tag"}},
		{"currency", checkoutDoc(`"currency":"jpy"`), nil},
		{"currency uppercase", checkoutDoc(`"currency":"USD"`), []string{"currency must be a currency of three lowercase letters"}},
	})
}

func TestValidateParamsIsStableUnderKeyOrder(t *testing.T) {
	t.Parallel()
	a := ValidateParams([]byte(`{"zzz":1,"seats":0,"metadata":{"b":null,"a":null},"products":[]}`))
	b := ValidateParams([]byte(`{"metadata":{"a":null,"b":null},"products":[],"seats":0,"zzz":1}`))
	if got, want := faultsOf(t, a), faultsOf(t, b); !slices.Equal(got, want) {
		t.Errorf("the order of the keys changes the faults: %q, %q", got, want)
	}
	const want = "invalid checkout params: products is empty; at least 1 element is needed; " +
		"metadata.a must be a string, a number or a boolean, is null; metadata.b must be a string, a number or a boolean, is null; " +
		"seats must be from 1 to 10000, is 0; zzz is not a field that we know, and Polar would ignore it without a word"
	if a.Error() != want {
		t.Errorf("got  %s\nwant %s", a, want)
	}
}

func TestValidateParamsTellsAtMostTwentyFaults(t *testing.T) {
	t.Parallel()
	err := ValidateParams([]byte(`{"products":[` + strings.Repeat("1,", 500) + `1]}`))
	if got := faultsOf(t, err); len(got) != maxFaults {
		t.Errorf("got %d faults", len(got))
	}
}

func TestValidateParamsErrorIsOneLineWithoutPersonalData(t *testing.T) {
	t.Parallel()
	err := ValidateParams([]byte(checkoutDoc(
		`"customer_email":"secret-person"`, `"customer_ip_address":"secret-address"`, `"customer_tax_id":"secret-tax"`,
		`"customer_name":"secret-`+strings.Repeat("x", 300)+`"`, `"external_customer_id":"secret-`+strings.Repeat("x", 2000)+`"`,
		`"success_url":"secret-url"`, `"locale":"secret_locale"`, `"new\nline":1`)))
	if got := len(faultsOf(t, err)); got != 8 {
		t.Errorf("got %d faults, want 8: %v", got, err)
	}
	if text := err.Error(); strings.Contains(text, "secret") || strings.Contains(text, "\n") {
		t.Errorf("the error shows a value, or has two lines: %s", text)
	}
}

func TestCheckoutFieldsAreThoseOfCheckoutParams(t *testing.T) {
	t.Parallel()
	same := func(typ reflect.Type, fields []field, alsoFields ...string) {
		t.Helper()
		var tags, names []string
		for f := range typ.Fields() {
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "-" {
				tags = append(tags, tag)
			}
		}
		tags = append(tags, alsoFields...)
		for _, f := range fields {
			names = append(names, f.name)
		}
		slices.Sort(tags)
		slices.Sort(names)
		if !slices.Equal(tags, names) {
			t.Errorf("%s has %q, the check has %q", typ, tags, names)
		}
	}
	same(reflect.TypeFor[CheckoutParams](), checkoutFields)
	same(reflect.TypeFor[BillingAddress](), addressFields)
	for _, price := range []Price{
		FixedPrice{}, CustomPrice{}, FreePrice{}, SeatBasedPrice{}, MeteredUnitPrice{}, MeteredTiersPrice{}, UnitBasedPrice{},
	} {
		same(reflect.TypeOf(price), priceKinds[price.AmountType()].fields, "amount_type")
	}
	same(reflect.TypeFor[SeatTiers](), seatTiersFields)
	same(reflect.TypeFor[SeatTier](), seatTierFields)
}
