package polar

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

// usedPaths are the paths of Polar's API that this package calls.
var usedPaths = []string{
	"/v1/checkouts/",
	"/v1/checkouts/{id}",
	"/v1/customers/",
	"/v1/customers/{id}",
	"/v1/customers/external/{external_id}",
	"/v1/products/",
	"/v1/webhooks/deliveries",
	"/v1/webhooks/endpoints",
	"/v1/webhooks/endpoints/{id}",
	"/v1/webhooks/events/{id}/redeliver",
}

// requestValidator returns a validator of requests by Polar's published API.
// The whole document has over a thousand schemas and takes seconds to compile,
// so it is cut down to what the used paths need.
func requestValidator(t *testing.T) validator.Validator {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal(polartest.Read(t, "openapi.json"), &document); err != nil {
		t.Fatal(err)
	}
	paths, _ := document["paths"].(map[string]any)
	components, _ := document["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)

	keptPaths, keptSchemas := map[string]any{}, map[string]any{}
	var keep func(any)
	keep = func(node any) {
		switch node := node.(type) {
		case []any:
			for _, element := range node {
				keep(element)
			}
		case map[string]any:
			if reference, ok := node["$ref"].(string); ok {
				name := strings.TrimPrefix(reference, "#/components/schemas/")
				if _, seen := keptSchemas[name]; !seen {
					keptSchemas[name] = schemas[name]
					keep(schemas[name])
				}
			}
			delete(node, "discriminator") // its mapping would need schemas of its own
			if pattern, ok := node["pattern"].(string); ok {
				if _, err := regexp.Compile(pattern); err != nil {
					delete(node, "pattern") // it looks ahead, which Go's expressions do not
				}
			}
			for _, value := range node {
				keep(value)
			}
		}
	}
	for _, path := range usedPaths {
		item, ok := paths[path].(map[string]any)
		if !ok {
			t.Fatalf("Polar's API has no path %s", path)
		}
		for _, operation := range item {
			if operation, ok := operation.(map[string]any); ok {
				unwrapLists(operation)
				operation["responses"] = map[string]any{"200": map[string]any{"description": "not looked at"}}
			}
		}
		keep(item)
		keptPaths[path] = item
	}
	components["schemas"] = keptSchemas
	reduced, err := json.Marshal(map[string]any{
		"openapi": document["openapi"], "info": document["info"], "paths": keptPaths, "components": components,
	})
	if err != nil {
		t.Fatal(err)
	}
	api, err := libopenapi.NewDocument(reduced)
	if err != nil {
		t.Fatal(err)
	}
	requests, errs := validator.NewValidator(api)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	t.Cleanup(requests.Release)
	return requests
}

// unwrapLists takes the alternatives off parameters that may be lists: the
// validator does not look into lists among alternatives.
func unwrapLists(operation map[string]any) {
	parameters, _ := operation["parameters"].([]any)
	for _, parameter := range parameters {
		parameter, _ := parameter.(map[string]any)
		schema, _ := parameter["schema"].(map[string]any)
		alternatives, _ := schema["anyOf"].([]any)
		for _, alternative := range alternatives {
			if alternative, ok := alternative.(map[string]any); ok && alternative["type"] == "array" {
				parameter["schema"] = alternative
			}
		}
	}
}

// isUsedPath tells whether path is one of usedPaths, to the last slash, which
// the validator does not heed.
func isUsedPath(path string) bool {
	return slices.ContainsFunc(usedPaths, func(used string) bool {
		want, got := strings.Split(used, "/"), strings.Split(path, "/")
		return slices.EqualFunc(want, got, func(want, got string) bool {
			return want == got || strings.HasPrefix(want, "{") && got != ""
		})
	})
}

func TestEveryRequestIsOneThatPolarPublishes(t *testing.T) {
	t.Parallel()
	requests := requestValidator(t)
	var seen, invalid []string
	check := func(r *http.Request, body []byte) {
		r.Body = io.NopCloser(bytes.NewReader(body))
		seen = append(seen, r.Method+" "+r.URL.Path)
		if !isUsedPath(r.URL.Path) {
			invalid = append(invalid, r.Method+" "+r.URL.String()+": no such path")
		}
		if ok, errs := requests.ValidateHttpRequestSync(r); !ok {
			for _, err := range errs {
				invalid = append(invalid, r.Method+" "+r.URL.String()+" "+string(body)+": "+err.Error())
			}
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		check(r, body)
		document := `{"id":"` + testID + `","external_id":"usr/1337","webhook_event":{"id":"` + testOtherID + `"}}`
		if r.Method == http.MethodGet && slices.ContainsFunc([]string{"/", "/endpoints", "/deliveries"}, func(list string) bool { return strings.HasSuffix(r.URL.Path, list) }) {
			document = `{"items":[` + document + `],"pagination":{"total_count":1,"max_page":1}}`
		}
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusCreated)
		}
		_, _ = io.WriteString(w, document)
	}))
	defer server.Close()
	api, err := New(Config{BaseURL: server.URL + "/v1", Token: testToken})
	if err != nil {
		t.Fatal(err)
	}

	ctx, id := t.Context(), uuid.New()
	// The document is older than this type.
	published := slices.DeleteFunc(EventTypes(), func(eventType string) bool { return eventType == EventSubscriptionMigrated })
	calls := map[string]func() error{
		"CreateCheckout": func() error {
			_, err := api.CreateCheckout(ctx, json.RawMessage(`{"products":["`+id.String()+`"],"external_customer_id":"usr_1337","metadata":{"truenorth_request":"`+id.String()+`"}}`))
			return err
		},
		"GetCheckout":          func() error { _, err := api.GetCheckout(ctx, id); return err },
		"ListCheckouts, plain": func() error { _, err := api.ListCheckouts(ctx, CheckoutFilter{}); return err },
		"ListCheckouts": func() error {
			_, err := api.ListCheckouts(ctx, CheckoutFilter{
				Status:     []CheckoutStatus{CheckoutStatusOpen, CheckoutStatusConfirmed, CheckoutStatusSucceeded, CheckoutStatusExpired, CheckoutStatusFailed},
				CustomerID: id, Sorting: "-created_at", Page: 3, Limit: 50,
			})
			return err
		},
		"CreateCustomer": func() error {
			_, err := api.CreateCustomer(ctx, CustomerCreate{Email: "ada@example.com", ExternalID: "usr_1337", Name: "Ada", Metadata: map[string]string{"a": "b"}})
			return err
		},
		"CreateCustomer, plain":    func() error { _, err := api.CreateCustomer(ctx, CustomerCreate{Email: "ada@example.com"}); return err },
		"GetCustomer":              func() error { _, err := api.GetCustomer(ctx, id); return err },
		"GetCustomerByExternalID":  func() error { _, err := api.GetCustomerByExternalID(ctx, "usr 1337"); return notNotFound(err) },
		"GetCustomerByExternalID/": func() error { _, err := api.GetCustomerByExternalID(ctx, "usr/1337"); return err },
		"ListCustomers": func() error {
			_, err := api.ListCustomers(ctx, CustomerFilter{Email: "ada@example.com", Query: "ada", Sorting: "created_at", Page: 2, Limit: 10})
			return err
		},
		"SetCustomerExternalID": func() error { _, err := api.SetCustomerExternalID(ctx, id, "usr_1337"); return err },
		"ListProducts":          func() error { _, err := api.ListProducts(ctx, 1, 100); return err },
		"OrganizationOf":        func() error { _, err := api.OrganizationOf(ctx); return err },
		"ListEndpoints":         func() error { _, _, err := api.ListEndpoints(ctx); return err },
		"GetEndpoint":           func() error { _, err := api.GetEndpoint(ctx, id); return err },
		"CreateEndpoint": func() error {
			_, err := api.CreateEndpoint(ctx, EndpointCreate{URL: "https://shop.example/webhooks/polar", Name: "truenorth", Events: published})
			return err
		},
		"UpdateEndpoint": func() error {
			_, err := api.UpdateEndpoint(ctx, id, EndpointUpdate{Enabled: new(true), Format: FormatRaw, Events: published})
			return err
		},
		"UpdateEndpoint, one field": func() error { _, err := api.UpdateEndpoint(ctx, id, EndpointUpdate{Enabled: new(true)}); return err },
		"DeleteEndpoint":            func() error { return api.DeleteEndpoint(ctx, id) },
		"ListDeliveries": func() error {
			_, err := api.ListDeliveries(ctx, DeliveryFilter{
				From: time.Now().Add(-time.Hour), Until: time.Now(), Endpoints: []uuid.UUID{id, uuid.New()}, Succeeded: new(false), Page: 2, Limit: 50,
			})
			return err
		},
		"ListDeliveries, plain": func() error {
			_, err := api.ListDeliveries(ctx, DeliveryFilter{From: time.Now().Add(-time.Hour), Until: time.Now()})
			return err
		},
		"RedeliverEvent": func() error { return api.RedeliverEvent(ctx, id) },
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		seen, invalid = nil, nil
		if err := calls[name](); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(seen) == 0 {
			t.Errorf("%s made no request", name)
		}
		for _, request := range invalid {
			t.Errorf("%s: %s", name, request)
		}
	}

	// The check itself has to be able to fail.
	for name, wrong := range map[string]*http.Request{
		"unknown sorting": httptest.NewRequest(http.MethodGet, "/v1/checkouts/?sorting=modified_at", nil),
		"page zero":       httptest.NewRequest(http.MethodGet, "/v1/customers/?page=0", nil),
		"unknown status":  httptest.NewRequest(http.MethodGet, "/v1/checkouts/?status=open&status=paid", nil),
		"no products":     httptest.NewRequest(http.MethodPost, "/v1/checkouts/", strings.NewReader(`{"products":[]}`)),
		"no such event":   httptest.NewRequest(http.MethodPost, "/v1/webhooks/endpoints", strings.NewReader(`{"url":"https://shop.example/","format":"raw","events":["order.lost"]}`)),
		"no format":       httptest.NewRequest(http.MethodPost, "/v1/webhooks/endpoints", strings.NewReader(`{"url":"https://shop.example/","events":["order.paid"]}`)),
		"no deliveries":   httptest.NewRequest(http.MethodGet, "/v1/webhooks/deliveries?limit=0", nil),
		"no e-mail":       httptest.NewRequest(http.MethodPost, "/v1/customers/", strings.NewReader(`{"type":"individual"}`)),
	} {
		wrong.Header.Set("Authorization", "Bearer "+testToken)
		wrong.Header.Set("Content-Type", "application/json")
		if ok, _ := requests.ValidateHttpRequestSync(wrong); ok {
			t.Errorf("%s passes the check of requests", name)
		}
	}
}

// notNotFound is err, unless that says that the customer has another id.
func notNotFound(err error) error {
	if IsNotFound(err) {
		return nil
	}
	return err
}
