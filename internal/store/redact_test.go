package store_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/truenorth-dev/truenorth/internal/polartest"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// canary stands for what a person typed.
const canary = "canary"

// kept are the names under which free text is left alone: ids of the product's own, words and numbers of the trade.
var kept = []string{
	"external_id", "external_customer_id", "currency", "platform_fee_currency", "invoice_number", "receipt_number", "description",
	"label", "reason", "type",
}

// sold are the members that the seller wrote.
var sold = regexp.MustCompile(`\.(product|products|product_price|prices|benefit|benefit_metadata|discount|meter|attached_custom_fields|billing_address_fields)\b`)

// TestNoTextThatPolarKnowsOfAPersonSurvives fills every text of every document that Polar's API describes.
func TestNoTextThatPolarKnowsOfAPersonSurvives(t *testing.T) {
	t.Parallel()
	var api struct {
		Components struct {
			Schemas map[string]map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(polartest.Read(t, "openapi.json"), &api); err != nil {
		t.Fatalf("reading Polar's published API: %v", err)
	}
	s := storetest.New(t)
	tried := 0
	for name, schema := range api.Components.Schemas {
		if !strings.HasPrefix(name, "Webhook") || !strings.HasSuffix(name, "Payload") {
			continue
		}
		properties, _ := schema["properties"].(map[string]any)
		eventType, _ := properties["type"].(map[string]any)["const"].(string)
		if object, _, _ := strings.Cut(eventType, "."); slices.Contains([]string{"product", "discount", "benefit", "organization"}, object) {
			continue
		}
		tried++
		for _, document := range (filler{api.Components.Schemas}).fill(properties["data"], "", 0) {
			encoded, err := json.Marshal(document)
			if err != nil {
				t.Fatal(err)
			}
			var redacted, again string
			if err := s.Pool().QueryRow(t.Context(), "select polar.redacted($1), polar.redacted(polar.redacted($1))", string(encoded)).Scan(&redacted, &again); err != nil {
				t.Fatalf("%s: %v", eventType, err)
			}
			if redacted != again {
				t.Errorf("%s: redacting twice is not redacting once", eventType)
			}
			for path, value := range leaves("", decoded(t, redacted)) {
				last := path[strings.LastIndexAny(path, ".")+1:]
				if text, ok := value.(string); ok && strings.Contains(text, canary) && !sold.MatchString(path) && !slices.Contains(kept, last) {
					t.Errorf("%s: %s survives as %q", eventType, path, text)
				}
			}
			// All that is counted, dated or identified stays; what the seller wrote stays as a whole.
			after := leaves("", decoded(t, redacted))
			for path, value := range leaves("", document) {
				private := regexp.MustCompile(`address\b|tax_id|properties|metadata|custom_field_data|url$`).MatchString(path)
				switch text, isText := value.(string); {
				case sold.MatchString(path), !private && (!isText || text != canary && !strings.HasPrefix(text, canary)):
					if diff := cmp.Diff(value, after[path]); diff != "" {
						t.Errorf("%s: %s changed: %s", eventType, path, diff)
					}
				}
			}
		}
	}
	if tried < 25 {
		t.Errorf("only %d types of events were tried", tried)
	}
}

// filler makes documents of a schema in which every text is a canary.
type filler struct{ schemas map[string]map[string]any }

// fill gives a document for every alternative at the top, and the first that is more than null below.
func (f filler) fill(node any, name string, depth int) []any {
	schema, _ := node.(map[string]any)
	for {
		reference, ok := schema["$ref"].(string)
		if !ok {
			break
		}
		schema = f.schemas[strings.TrimPrefix(reference, "#/components/schemas/")]
	}
	if depth > 12 {
		return []any{nil}
	}
	for _, key := range []string{"anyOf", "oneOf", "allOf"} {
		alternatives, _ := schema[key].([]any)
		var all []any
		for _, alternative := range alternatives {
			if m, _ := alternative.(map[string]any); m["type"] != "null" {
				all = append(all, f.fill(alternative, name, depth+1)...)
			}
		}
		if len(all) > 0 {
			return all
		}
	}
	if constant, ok := schema["const"]; ok {
		return []any{constant}
	}
	if values, ok := schema["enum"].([]any); ok {
		if name == "country" || name == "tax_id" || name == "permission" {
			return []any{canary}
		}
		if name == "status" || strings.Contains(name, "reason") || strings.Contains(name, "interval") || name == "role" || name == "type" ||
			name == "benefit_type" || name == "tax_behavior" || name == "payment_processor" || name == "currency" {
			return []any{values[len(values)-1]} // of a checkout, one that is over
		}
		return []any{fmt.Sprint(canary, " ", name)}
	}
	switch schema["type"] {
	case "object":
		return []any{f.object(schema, depth)}
	case "array":
		list := []any{}
		if prefix, ok := schema["prefixItems"].([]any); ok {
			for _, item := range prefix {
				list = append(list, f.fill(item, name, depth+1)[0])
			}
		} else {
			list = append(list, f.fill(schema["items"], name, depth+1)...)
		}
		return []any{list}
	case "integer", "number":
		return []any{float64(1234)}
	case "boolean":
		return []any{true}
	case "string":
		switch schema["format"] {
		case "uuid", "uuid4":
			return []any{"5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"}
		case "date-time":
			return []any{"2026-08-22T09:00:00.123456Z"}
		}
		return []any{fmt.Sprint(canary, " ", name)}
	}
	return []any{map[string]any{"any": canary}}
}

func (f filler) object(schema map[string]any, depth int) map[string]any {
	document := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		document[name] = f.fill(property, name, depth+1)[0]
	}
	if len(properties) == 0 {
		document["any"] = canary
	}
	return document
}

func decoded(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// leaves lists what is neither object nor array, by its path.
func leaves(path string, value any) map[string]any {
	all := map[string]any{}
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			maps.Copy(all, leaves(path+"."+name, member))
		}
	case []any:
		for i, element := range v {
			maps.Copy(all, leaves(fmt.Sprintf("%s[%d]", path, i), element))
		}
	default:
		all[path] = value
	}
	return all
}

func TestRedactingKeepsTheFormOfADocument(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	for name, c := range map[string]struct{ given, want string }{
		"a customer": {
			`{"id": "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01", "external_id": "usr_ada", "email": "ada@example.com", "name": "Ada", "email_verified": true, "metadata": {"vip": "yes"}, "tax_id": ["DE1", "eu_vat"], "type": "individual", "created_at": "2026-08-22T09:00:00Z"}`,
			`{"id": "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01", "external_id": "usr_ada", "email": null, "name": null, "email_verified": true, "metadata": {}, "tax_id": null, "type": "individual", "created_at": "2026-08-22T09:00:00Z"}`,
		},
		"truenorth's own stamp": {
			`{"metadata": {"truenorth_request": "r", "truenorthern": "Ada", "note": "Ada"}, "customer_metadata": null}`,
			`{"metadata": {"truenorth_request": "r"}, "customer_metadata": null}`,
		},
		"a checkout that can be paid": {
			`{"status": "open", "url": "https://polar.sh/c/1", "client_secret": "polar_c_1", "products": [{"name": "Tool"}]}`,
			`{"status": "open", "url": "https://polar.sh/c/1", "client_secret": null, "products": [{"name": "Tool"}]}`,
		},
		"a checkout that is over": {`{"status": "succeeded", "url": "https://polar.sh/c/1"}`, `{"status": "succeeded", "url": ""}`},
		"what nobody knows yet":   {`{"phone": "555", "score": 7, "nick": {"names": ["Ada", 1]}}`, `{"phone": null, "score": 7, "nick": {"names": [null, 1]}}`},
		"no object":               {`["Ada", 1, null]`, `[null, 1, null]`},
		"nothing":                 {`{}`, `{}`},
	} {
		got := column[string](t, s, "select polar.redacted($1)::text", c.given)
		if diff := cmp.Diff(decoded(t, c.want), decoded(t, got[0])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
