package polar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

const (
	testID       = "992fae2a-2a17-4b7a-8d9e-e287cf90131b"
	testOtherID  = "1dbfc517-0bbf-4301-9ba8-555ca42b9737"
	testChangeAt = "2026-08-22T09:00:00.123456Z"
)

func TestSampleDocumentsDecode(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 22, 9, 0, 0, 123456000, time.UTC)
	events := samples(t)
	for name, body := range events {
		_, data, err := ScanEvent(body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		meta, err := DecodeMeta(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(name, "truncated") && meta.CreatedAt != at {
			t.Errorf("%s: created at %v", name, meta.CreatedAt)
		}
		if !bytes.Equal(StorableJSON(data), data) {
			t.Errorf("%s: StorableJSON changes it", name)
		}
	}

	_, data, _ := ScanEvent(events["checkout.created.synthetic.json"])
	checkout, err := DecodeCheckout(data)
	want := Checkout{
		Meta:               Meta{ID: uuid.MustParse(ExampleID), OrganizationID: ExampleID, CreatedAt: at, ModifiedAt: at},
		Status:             CheckoutStatusOpen,
		URL:                "https://polar.sh/checkout/polar_c_SYNTHETIC",
		ExternalCustomerID: "usr_1337",
		ExpiresAt:          at,
		Raw:                data,
	}
	if err != nil || !equalJSON(checkout, want) || !bytes.Equal(checkout.Raw, data) {
		t.Errorf("DecodeCheckout: %+v, %v; want %+v", checkout, err, want)
	}

	_, data, _ = ScanEvent(events["customer.created.synthetic.json"])
	customer, err := DecodeCustomer(data)
	wantCustomer := Customer{
		Meta:       Meta{ID: uuid.MustParse(testID), OrganizationID: testOtherID, CreatedAt: at},
		ExternalID: "usr_1337",
		Email:      "customer@example.com",
		Name:       "John Doe",
		Type:       "individual",
		Raw:        data,
	}
	if err != nil || !equalJSON(customer, wantCustomer) {
		t.Errorf("DecodeCustomer: %+v, %v; want %+v", customer, err, wantCustomer)
	}

	_, data, _ = ScanEvent(events["customer.deleted.synthetic.json"])
	if customer, err := DecodeCustomer(data); err != nil || customer.DeletedAt.IsZero() {
		t.Errorf("DecodeCustomer of a deleted one: %+v, %v", customer, err)
	}
}

// equalJSON compares documents, whose Raw is a slice.
func equalJSON(a, b any) bool {
	aJSON, aErr := json.Marshal(a)
	bJSON, bErr := json.Marshal(b)
	return aErr == nil && bErr == nil && bytes.Equal(aJSON, bJSON)
}

func TestValuesOfUnexpectedTypesReadAsAbsent(t *testing.T) {
	t.Parallel()
	for _, value := range []string{`null`, `true`, `1`, `-1.5`, `[]`, `["x"]`, `{}`, `{"a":1}`, `""`} {
		raw := json.RawMessage(`{"id":"` + testID + `","status":V,"url":V,"customer_id":V,"external_customer_id":V,"expires_at":V,
			"created_at":V,"modified_at":V,"deleted_at":V,"organization_id":V,"metadata":V,"external_id":V,"email":V,"name":V,"type":V}`)
		raw = bytes.ReplaceAll(raw, []byte("V"), []byte(value))
		meta := Meta{ID: uuid.MustParse(testID)}
		if got, err := DecodeCheckout(raw); err != nil || !equalJSON(got, Checkout{Meta: meta, Raw: raw}) {
			t.Errorf("checkout of %s: %+v, %v", value, got, err)
		}
		if got, err := DecodeCustomer(raw); err != nil || !equalJSON(got, Customer{Meta: meta, Raw: raw}) {
			t.Errorf("customer of %s: %+v, %v", value, got, err)
		}
		if got, err := DecodeProduct(raw); err != nil || !equalJSON(got, Product{Meta: meta, Raw: raw}) {
			t.Errorf("product of %s: %+v, %v", value, got, err)
		}
	}
}

func TestDocumentWithoutAnIDIsAnError(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		``:                          "not a JSON object",
		`[]`:                        "not a JSON object",
		`"x"`:                       "not a JSON object",
		`{"id":`:                    "not a JSON object",
		`null`:                      "nothing",
		`{}`:                        "nothing",
		`{"ID":"` + testID + `"}`:   "nothing",
		`{"id":1}`:                  `"1"`,
		`{"id":"cus_1"}`:            "cus_1",
		`{"id":"{` + testID + `}"}`: testID,
		`{"id":"00000000-0000-0000-0000-000000000000"}`:    "0000",
		`{"id":"` + strings.Repeat("secret", 1000) + `"}`:  "secretsecret",
		`{"id":"` + testID + `","id":{"not":"a string"}} `: "not",
	} {
		_, err := DecodeMeta(json.RawMessage(raw))
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("DecodeMeta(%.40s): %v, want an error with %q", raw, err, want)
		}
		if _, err := DecodeCheckout(json.RawMessage(raw)); err == nil || !strings.Contains(err.Error(), "checkout") {
			t.Errorf("DecodeCheckout(%.40s): %v", raw, err)
		}
	}
}

func TestCheckoutCarriesTheStampOfItsRequest(t *testing.T) {
	t.Parallel()
	for metadata, want := range map[string]string{
		`{"truenorth_request":"` + testOtherID + `","x":1}`:                 testOtherID,
		`{"truenorth_request":"1dbfc517\u002d0bbf-4301-9ba8-555ca42b9737"}`: testOtherID,
		`{"truenorth_request":"mine"}`:                                      uuid.Nil.String(),
		`{"truenorth_request":7}`:                                           uuid.Nil.String(),
		`{"Truenorth_Request":"` + testOtherID + `"}`:                       uuid.Nil.String(),
		`[{"truenorth_request":"` + testOtherID + `"}]`:                     uuid.Nil.String(),
	} {
		checkout, err := DecodeCheckout(json.RawMessage(`{"id":"` + testID + `","metadata":` + metadata + `}`))
		if err != nil || checkout.RequestID.String() != want {
			t.Errorf("metadata %s: %v, %v; want %v", metadata, checkout.RequestID, err, want)
		}
	}
}

func TestTextsOfDocumentsAreStorableAndWhole(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 20_000)
	for written, want := range map[string]string{
		`a\u0000b`:      "a\ufffdb",
		`\ud800`:        "\ufffd",
		"\xff":          "\ufffd",
		`\u0020A\u0020`: " A ",
		long:            long,
		`\/` + long:     "/" + long,
	} {
		customer, err := DecodeCustomer(json.RawMessage(`{"id":"` + testID + `","external_id":"` + written + `"}`))
		if err != nil || customer.ExternalID != want {
			t.Errorf("external id %.20q: %.20q, %v; want %.20q", written, customer.ExternalID, err, want)
		}
	}
}

func TestChangedAtFallsBackToCreation(t *testing.T) {
	t.Parallel()
	created, modified := time.Unix(1, 0), time.Unix(2, 0)
	if got := (Meta{CreatedAt: created}).ChangedAt(); got != created {
		t.Errorf("never modified: %v", got)
	}
	if got := (Meta{CreatedAt: created, ModifiedAt: modified}).ChangedAt(); got != modified {
		t.Errorf("modified: %v", got)
	}
}

func TestTerminalStatusesAreThoseThatNeverChange(t *testing.T) {
	t.Parallel()
	for status, want := range map[CheckoutStatus]bool{
		CheckoutStatusOpen: false, CheckoutStatusConfirmed: false, "": false, "paused": false,
		CheckoutStatusSucceeded: true, CheckoutStatusExpired: true, CheckoutStatusFailed: true,
	} {
		if status.Terminal() != want {
			t.Errorf("%q terminal: %v, want %v", status, status.Terminal(), want)
		}
	}
}

func TestEventTypesAreThosePolarPublishes(t *testing.T) {
	t.Parallel()
	types := EventTypes()
	if len(types) != 42 || len(slices.Compact(slices.Sorted(slices.Values(types)))) != 42 {
		t.Errorf("%d types, want 42 different ones", len(types))
	}
	var document struct {
		Webhooks map[string]json.RawMessage
	}
	if err := json.Unmarshal(polartest.Read(t, "openapi.json"), &document); err != nil {
		t.Fatal(err)
	}
	published := append(slices.Collect(maps.Keys(document.Webhooks)), EventSubscriptionMigrated)
	if got, want := slices.Sorted(slices.Values(types)), slices.Sorted(slices.Values(published)); !slices.Equal(got, want) {
		t.Errorf("types %v, want %v", got, want)
	}
}

func TestStorableJSONChangesOnlyWhatPostgresRefuses(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("9", 1001)
	for raw, want := range map[string]string{
		`{"a":"\u0000"}`:                  `{"a":"\ufffd"}`,
		`{"\u0000a":1}`:                   `{"\ufffda":1}`,
		`"\\u0000"`:                       `"\\u0000"`,
		`"\\\u0000"`:                      `"\\\ufffd"`,
		`"\ud800"`:                        `"\ufffd"`,
		`"\uDC00x"`:                       `"\ufffdx"`,
		`"\ud800\ud801\udc01"`:            `"\ufffd\ud801\udc01"`,
		`"\ud83d\ude00"`:                  `"\ud83d\ude00"`,
		`"\ud800\n"`:                      `"\ufffd\n"`,
		`"\ud800A"`:                       `"\ufffdA"`,
		`"\uFFFD\ufffd"`:                  `"\uFFFD\ufffd"`,
		"\"\xff\"":                        "\"\ufffd\"",
		"\"\xed\xa0\x80\"":                "\"\ufffd\ufffd\ufffd\"",
		"\"é\ufffd\"":                     "\"é\ufffd\"",
		`[1e999999,-1E+5000,0.1e-2000]`:   `["1e999999","-1E+5000","0.1e-2000"]`,
		`{"a":1e99999999999999999999}`:    `{"a":"1e99999999999999999999"}`,
		`[1.5e-3,1E1000,-0,1e-1000]`:      `[1.5e-3,1E1000,-0,1e-1000]`,
		`["1e999999","-` + digits + `"]`:  `["1e999999","-` + digits + `"]`,
		`[` + digits + `,7]`:              `["` + digits + `",7]`,
		`["\"1e9999",1e9999,"\\",1e9999]`: `["\"1e9999","1e9999","\\","1e9999"]`,
		`{ "b" : [ ] , "a" : null }`:      `{ "b" : [ ] , "a" : null }`,
		``:                                ``,
	} {
		if got := StorableJSON([]byte(raw)); string(got) != want {
			t.Errorf("StorableJSON(%.60q): %.60q, want %.60q", raw, got, want)
		}
	}
}

func TestStorableJSONReturnsTheSameSliceWhenThereIsNothingToDo(t *testing.T) {
	t.Parallel()
	raw := []byte(`{"a":"\u00e9\ud83d\ude00é","b":[1.5e3]}`)
	if got := StorableJSON(raw); &got[0] != &raw[0] {
		t.Error("StorableJSON copied a text that needs no change")
	}
}

// FuzzStorableJSON proves that the result is JSON, fit for jsonb, means the
// same but for what jsonb refuses, and that a second pass changes nothing.
func FuzzStorableJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `"\u0000\ud800\\u0000"`, "\"\xff\xed\xa0\x80é\"", `[1e9999,"1e9999",-0.5]`, `"\`, `"\u12`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		stored := StorableJSON(bytes.Clone(raw))
		if !json.Valid(raw) {
			return // it only may not panic
		}
		if !json.Valid(stored) || !utf8.Valid(stored) {
			t.Fatalf("%q: not storable: %q", raw, stored)
		}
		if again := StorableJSON(stored); !bytes.Equal(again, stored) {
			t.Fatalf("%q: second pass: %q, first: %q", raw, again, stored)
		}
		before, beforeErr := normalJSON(raw)
		after, afterErr := normalJSON(stored)
		if beforeErr == nil && afterErr == nil && before != after {
			t.Fatalf("%q: meaning changed by %q: %s, was %s", raw, stored, after, before)
		}
	})
}

// normalJSON writes a JSON text in one form, numbers as strings of their
// digits and NUL as U+FFFD. It fails for texts that are nested too deeply.
func normalJSON(raw []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "", err
	}
	var collision error
	var normal func(any) any
	normal = func(value any) any {
		switch value := value.(type) {
		case json.Number:
			return value.String()
		case string:
			return strings.ReplaceAll(value, "\x00", "\ufffd")
		case []any:
			for i := range value {
				value[i] = normal(value[i])
			}
			return value
		case map[string]any:
			members := make(map[string]any, len(value)) // fmt prints it in order
			for name, member := range value {
				normalName := fmt.Sprint(normal(name))
				if _, ok := members[normalName]; ok {
					collision = errors.New("two names become one")
				}
				members[normalName] = normal(member)
			}
			return members
		default:
			return value
		}
	}
	return fmt.Sprintf("%q", normal(value)), collision
}

func BenchmarkStorableJSON(b *testing.B) {
	body := polartest.Read(b, "samples/checkout.created.synthetic.json")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		StorableJSON(body)
	}
}

func BenchmarkDecodeCheckout(b *testing.B) {
	_, data, err := ScanEvent(polartest.Read(b, "samples/checkout.created.synthetic.json"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeCheckout(data); err != nil {
			b.Fatal(err)
		}
	}
}
