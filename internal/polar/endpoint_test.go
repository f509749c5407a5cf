package polar

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

const testSecret = "whsec_do_not_show_this_either_0123456789"

func endpointJSON(more string) string {
	return `{"id":"` + testID + `","organization_id":"` + testOtherID + `","created_at":"` + testChangeAt + `","modified_at":null,` +
		`"url":"https://shop.example/webhooks/polar","name":null,"format":"raw","secret":"` + testSecret + `","events":["order.paid","order.new_kind",7],"enabled":true` + more + `}`
}

func TestEndpointsAreReadToTheLastPage(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{body: page(2, endpointJSON(""))}, reply{body: page(2, endpointJSON(`,"uses_standard_webhook_signature":false`))})
	got, readAt, err := newTestAPI(t, server.URL, Config{}).ListEndpoints(t.Context())
	if err != nil || len(got) != 2 || readAt.Format(http.TimeFormat) != testDate {
		t.Fatalf("%+v at %v, %v", got, readAt, err)
	}
	e := got[0]
	if e.ID.String() != testID || e.URL != "https://shop.example/webhooks/polar" || e.Format != FormatRaw || !e.Enabled || e.Name != "" ||
		e.OrganizationID != testOtherID || e.Secret.Reveal() != testSecret || !slices.Equal(e.Events, []string{"order.paid", "order.new_kind", "7"}) {
		t.Errorf("endpoint %+v", e)
	}
	if e.LegacySigning || e.Derivation() != DerivationAuto || !got[1].LegacySigning || got[1].Derivation() != DerivationLegacy {
		t.Error("an endpoint signs the legacy way only where Polar says that it does not sign the standard one")
	}
	for i, want := range []string{"limit=100&page=1", "limit=100&page=2"} {
		if r := server.requests[i]; r.URL.Path != "/v1/webhooks/endpoints" || r.URL.RawQuery != want {
			t.Errorf("GET %s, want /v1/webhooks/endpoints?%s", r.URL, want)
		}
	}
}

func TestSecretsOfEndpointsShowNowhere(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{body: endpointJSON("")}, reply{body: `{"id":7,"secret":"` + testSecret + `"}`})
	api := newTestAPI(t, server.URL, Config{})
	endpoint, err := api.GetEndpoint(t.Context(), uuid.MustParse(testID))
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.GetEndpoint(t.Context(), uuid.MustParse(testID))
	var everything strings.Builder
	everything.WriteString(wantAPIError(t, err).Error())
	for _, value := range []any{endpoint, &endpoint, endpoint.Secret, []Endpoint{endpoint}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%20.5v"} {
			fmt.Fprintf(&everything, verb, value)
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		everything.Write(encoded)
		slog.New(slog.NewTextHandler(&everything, nil)).Info("x", slog.Any("value", value))
	}
	shown := everything.String()
	for _, hidden := range []string{testSecret, fmt.Sprintf("%x", testSecret)} {
		if strings.Contains(shown, hidden) {
			t.Errorf("a secret shows in %s", shown)
		}
	}
	if endpoint.Secret.String() != "[hidden]" {
		t.Errorf("a secret prints as %s", endpoint.Secret)
	}
}

func TestEndpointsAreWritten(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{body: endpointJSON("")})
	api, id := newTestAPI(t, server.URL, Config{}), uuid.MustParse(testID)
	_, createErr := api.CreateEndpoint(t.Context(), EndpointCreate{URL: "https://shop.example/webhooks/polar", Events: []string{"order.paid"}})
	_, enableErr := api.UpdateEndpoint(t.Context(), id, EndpointUpdate{Enabled: new(true)})
	_, changeErr := api.UpdateEndpoint(t.Context(), id, EndpointUpdate{Format: FormatRaw, Events: []string{"order.paid"}})
	if err := errors.Join(createErr, enableErr, changeErr, api.DeleteEndpoint(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	wantBodies := []string{
		`{"url":"https://shop.example/webhooks/polar","format":"raw","events":["order.paid"]}`, `{"enabled":true}`,
		`{"format":"raw","events":["order.paid"]}`, "",
	}
	if !slices.Equal(server.bodies, wantBodies) {
		t.Errorf("bodies %q, want %q", server.bodies, wantBodies)
	}
	one := "/v1/webhooks/endpoints/" + testID
	for i, want := range []string{"POST /v1/webhooks/endpoints", "PATCH " + one, "PATCH " + one, "DELETE " + one} {
		if r := server.requests[i]; r.Method+" "+r.URL.Path != want {
			t.Errorf("%s %s, want %s", r.Method, r.URL.Path, want)
		}
	}
	if _, err := api.CreateEndpoint(t.Context(), EndpointCreate{URL: "https://shop.example/"}); err == nil || server.count() != 4 {
		t.Errorf("an endpoint that is sent nothing: %v, %d requests", err, server.count())
	}
}

func TestEventsThatPolarDoesNotKnowAreLeftOutOfANewEndpoint(t *testing.T) {
	t.Parallel()
	refusal := func(locs ...string) reply {
		var findings []string
		for _, loc := range locs {
			findings = append(findings, `{"loc":`+loc+`,"msg":"Input should be ...","type":"enum"}`)
		}
		return reply{status: 422, body: `{"error":"RequestValidationError","detail":[` + strings.Join(findings, ",") + `]}`}
	}
	params := EndpointCreate{URL: "https://shop.example/", Events: []string{"a", "b", "c"}}
	server := newTestServer(t, refusal(`["body","events",0]`, `["body","events",2]`), reply{status: 201, body: endpointJSON("")})
	if _, err := newTestAPI(t, server.URL, Config{}).CreateEndpoint(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	if want := `{"url":"https://shop.example/","format":"raw","events":["b"]}`; server.bodies[1] != want {
		t.Errorf("the second try was %s, want %s", server.bodies[1], want)
	}
	for name, first := range map[string]reply{
		"another field":   refusal(`["body","events",0]`, `["body","url"]`),
		"the whole list":  refusal(`["body","events"]`),
		"every event":     refusal(`["body","events",0]`, `["body","events",1]`, `["body","events",2]`),
		"no such event":   refusal(`["body","events",3]`),
		"no finding":      refusal(),
		"not permitted":   {status: 403},
		"trouble":         {status: 500},
		"unreadable":      {status: 201, body: "<html>"},
		"a query's event": refusal(`["query","events",0]`),
	} {
		server := newTestServer(t, first, reply{status: 201, body: endpointJSON("")})
		if _, err := newTestAPI(t, server.URL, Config{}).CreateEndpoint(t.Context(), params); err == nil || server.count() != 1 {
			t.Errorf("%s: %v after %d requests, want an error after one", name, err, server.count())
		}
	}
}

func TestEndpointURLsAreComparedInOneForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://shop.example/webhooks/polar":     "https://shop.example/webhooks/polar",
		"HTTPS://Shop.Example:443/webhooks/polar": "https://shop.example/webhooks/polar",
		"http://shop.example:80/A?b=C#d":          "http://shop.example/A?b=C",
		"https://shop.example:8443":               "https://shop.example:8443/",
		"https://shop.example:/x":                 "https://shop.example/x",
		"https://shop.example/webhooks/polar/":    "https://shop.example/webhooks/polar/", // another route
		"http://[::1]:8080/x":                     "http://[::1]:8080/x",
	} {
		if got, err := EndpointURL(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "shop.example/webhooks/polar", "ftp://shop.example/", "https://", "https://:443/", "https://user:hidden@shop.example/", "https://hidden@[::1"} {
		if got, err := EndpointURL(text); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %q, %v; want an error that shows no password", text, got, err)
		}
	}
}
