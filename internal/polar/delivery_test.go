package polar

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestDeliveriesAreListedWithinAPeriodOnly(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{body: page(1)})
	api := newTestAPI(t, server.URL, Config{})
	from := time.Date(2026, 8, 22, 9, 0, 0, 123456789, time.FixedZone("", 7200))
	_, err := api.ListDeliveries(t.Context(), DeliveryFilter{
		From: from, Until: from.Add(time.Hour), Endpoints: []uuid.UUID{uuid.MustParse(testID), uuid.MustParse(testOtherID)}, Succeeded: new(false), Page: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "end_timestamp=2026-08-22T08%3A00%3A00.123456Z&endpoint_id=" + testID + "&endpoint_id=" + testOtherID +
		"&limit=100&page=3&start_timestamp=2026-08-22T07%3A00%3A00.123456Z&succeeded=false"
	if r := server.requests[0]; r.URL.Path != "/v1/webhooks/deliveries" || r.URL.RawQuery != want {
		t.Errorf("GET %s, want /v1/webhooks/deliveries?%s", r.URL, want)
	}
	for name, filter := range map[string]DeliveryFilter{
		"no period":     {},
		"no beginning":  {Until: from},
		"no end":        {From: from},
		"end first":     {From: from, Until: from.Add(-time.Second)},
		"no time at it": {From: from, Until: from},
	} {
		if _, err := api.ListDeliveries(t.Context(), filter); err == nil {
			t.Errorf("%s: listed", name)
		}
	}
	if server.count() != 1 {
		t.Errorf("%d requests, want 1", server.count())
	}
}

func TestDeliveriesBringTheExactBody(t *testing.T) {
	t.Parallel()
	body := "{\"type\": \"order.paid\",  \"data\": {\"a\": 1.50, \"b\": \"\\u0000 \\ud800 ü <>\"}}\n"
	quoted, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	item := func(more, event string) string {
		return `{"id":"` + testID + `","created_at":"` + testChangeAt + `"` + more + `,"webhook_event":{"id":"` + testOtherID + `","type":"order.paid","created_at":"` + testChangeAt + `"` + event + `}}`
	}
	server := newTestServer(t, reply{body: page(1,
		item(`,"succeeded":false,"http_code":503`, `,"succeeded":false,"skipped":false,"is_archived":false,"payload":`+string(quoted)),
		item(`,"succeeded":true,"http_code":202`, `,"succeeded":true,"payload":null,"is_archived":true`),
		item(`,"succeeded":null,"http_code":null`, `,"succeeded":null,"skipped":true`),
	)})
	got, err := newTestAPI(t, server.URL, Config{}).ListDeliveries(t.Context(), DeliveryFilter{From: time.Now(), Until: time.Now().Add(time.Second)})
	if err != nil || len(got.Items) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	failed, succeeded, skipped := got.Items[0], got.Items[1], got.Items[2]
	if string(failed.Event.Payload) != body || failed.Status != 503 || failed.Succeeded || !failed.Event.Exhausted || failed.Event.Succeeded ||
		failed.Event.ID.String() != testOtherID || failed.Event.Type != "order.paid" || failed.Event.CreatedAt.IsZero() || failed.CreatedAt.IsZero() {
		t.Errorf("failed delivery %+v", failed)
	}
	if !succeeded.Succeeded || !succeeded.Event.Succeeded || succeeded.Event.Exhausted || !succeeded.Event.Archived || succeeded.Event.Payload != nil {
		t.Errorf("delivery of an archived event %+v", succeeded)
	}
	if skipped.Status != 0 || skipped.Event.Exhausted || !skipped.Event.Skipped || skipped.Event.Payload != nil {
		t.Errorf("skipped delivery %+v", skipped)
	}
	for _, broken := range []string{`{"id":"` + testID + `"}`, `{"id":"` + testID + `","webhook_event":{"id":7}}`, `null`} {
		server := newTestServer(t, reply{body: page(1, broken)})
		_, err := newTestAPI(t, server.URL, Config{}).ListDeliveries(t.Context(), DeliveryFilter{From: time.Now(), Until: time.Now().Add(time.Second)})
		wantAPIError(t, err)
	}
}

func TestAnEventIsRedeliveredByItsID(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{status: 202, body: "null"}, reply{status: 404, body: `{"error":"ResourceNotFound","detail":"Not found"}`})
	api := newTestAPI(t, server.URL, Config{})
	if err := api.RedeliverEvent(t.Context(), uuid.MustParse(testID)); err != nil {
		t.Error(err)
	}
	if err := api.RedeliverEvent(t.Context(), uuid.MustParse(testID)); !IsNotFound(err) {
		t.Errorf("unknown event: %v", err)
	}
	if r := server.requests[0]; r.Method+" "+r.URL.Path != "POST /v1/webhooks/events/"+testID+"/redeliver" {
		t.Errorf("%s %s", r.Method, r.URL)
	}
}
