package polarfake_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/polartest"
)

func TestSignaturesAreThoseOfTheVectors(t *testing.T) {
	t.Parallel()

	source := polartest.Read(t, "signature-vectors.json")
	var vectors []struct {
		Label     string `json:"label"`
		Secret    string `json:"secret"`
		ID        string `json:"webhook_id"`
		Timestamp string `json:"webhook_timestamp"`
		Body      string `json:"body"`
		Signature string `json:"webhook_signature"`
	}
	if err := json.Unmarshal(source, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("reading the vectors: %d, %v", len(vectors), err)
	}
	for _, vector := range vectors {
		seconds, err := strconv.ParseInt(vector.Timestamp, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, err := polarfake.Sign(vector.Secret, polarfake.SchemeByForm, vector.ID, time.Unix(seconds, 0), []byte(vector.Body))
		if err != nil || got != vector.Signature {
			t.Errorf("%s: signature %s, %v, want %s", vector.Label, got, err, vector.Signature)
		}
	}
	if _, err := polarfake.Sign("whsec_!", polarfake.SchemeStandard, "id", time.Now(), nil); err == nil {
		t.Error("a secret that is no base64 signed the standard way")
	}
}

func TestDeliveryIsSignedAsPolarDoes(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		secret string
		scheme polarfake.SignatureScheme
		verify func() (*standardwebhooks.Webhook, error)
	}{
		"Standard": {standardSecret, polarfake.SchemeByForm, func() (*standardwebhooks.Webhook, error) {
			return standardwebhooks.NewWebhook(standardSecret)
		}},
		"Legacy": {legacySecret, polarfake.SchemeByForm, func() (*standardwebhooks.Webhook, error) {
			return standardwebhooks.NewWebhookRaw([]byte(legacySecret))
		}},
		"LegacyByOverride": {standardSecret, polarfake.SchemeLegacy, func() (*standardwebhooks.Webhook, error) {
			return standardwebhooks.NewWebhookRaw([]byte(standardSecret))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "" })
			b.AddEndpoint(polarfake.Endpoint{URL: b.receiver.server.URL, Secret: test.secret, Scheme: test.scheme})
			id := b.customer(`{"email":"ada@example.com","name":"<Ada> & Söhne"}`).text("id")
			b.idle()
			verifier, err := test.verify()
			if err != nil {
				t.Fatal(err)
			}
			for _, delivery := range b.receiver.all() {
				if err := verifier.Verify(delivery.body, delivery.header); err != nil {
					t.Errorf("%s: %v", delivery.kind, err)
				}
				if got := delivery.header.Get("User-Agent"); got != "polar.sh webhooks" {
					t.Errorf("User-Agent %q", got)
				}
				if got := delivery.header.Get("Content-Type"); got != "application/json" {
					t.Errorf("Content-Type %q", got)
				}
				envelope := decode(t, delivery.body)
				if envelope.text("api_version") != "2026-10" || envelope.text("timestamp") == "" {
					t.Errorf("envelope %v", envelope)
				}
			}
			created := b.receiver.all()[slices.Index(b.receiver.types(), "customer.created")]
			if !strings.Contains(string(created.body), "<Ada> & Söhne") || decode(t, created.body).object("data").text("id") != id {
				t.Errorf("body %s", created.body)
			}
		})
	}
}

func TestDeliveryIsTriedTenTimesWithTheSameIDAndBody(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.receiver.answering(func(int, received) int { return http.StatusInternalServerError })
	id := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	b.idle()
	deliveries := b.receiver.all()
	if len(deliveries) != 10 {
		t.Fatalf("%d deliveries, want 10", len(deliveries))
	}
	for _, delivery := range deliveries[1:] {
		if delivery.id != deliveries[0].id || string(delivery.body) != string(deliveries[0].body) {
			t.Error("a retry bears another id or body")
		}
	}
	ev := b.Events()[0]
	if ev.State != polarfake.EventFailed || ev.Deliveries != 10 || ev.ID != deliveries[0].id || ev.ObjectID != id ||
		string(ev.Payload) != string(deliveries[0].body) {
		t.Errorf("event %+v", ev)
	}
	listed := b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries?succeeded=false&limit=100&http_code_class=5xx", "").items()
	if len(listed) != 10 || listed[0].object("webhook_event").text("id") != ev.ID || listed[0]["http_code"] != 500.0 {
		t.Fatalf("listed %v", listed)
	}
	if n := utf8.RuneCountInString(listed[0].text("response")); n != 2048 {
		t.Errorf("%d characters of the answer were kept", n)
	}
	if payload := listed[0].object("webhook_event").text("payload"); payload != string(deliveries[0].body) {
		t.Errorf("listed payload %s", payload)
	}
	for query, want := range map[string]int{
		"?succeeded=true": 0, "?http_code_class=2xx": 0, "?event_type=checkout.created": 10, "?event_type=order.paid": 0,
		"?query=" + id: 10, "?endpoint_id=" + ev.EndpointID: 10, "?start_timestamp=2999-01-01": 0,
		"?end_timestamp=2999-01-01T00:00:00Z": 10,
	} {
		if got := b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries"+query, ""); got.object("pagination")["total_count"] != float64(want) {
			t.Errorf("%s: %v, want %d", query, got.object("pagination"), want)
		}
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/webhooks/deliveries?start_timestamp=yesterday", "")

	b.receiver.answering(func(int, received) int { return http.StatusBadGateway })
	b.expect(http.StatusAccepted, http.MethodPost, "/v1/webhooks/events/"+ev.ID+"/redeliver", "")
	b.idle()
	if n := len(b.receiver.all()); n != 11 {
		t.Errorf("redelivering an exhausted event made %d deliveries in all, want one more", n)
	}
	b.receiver.answering(nil)
	b.must(b.Redeliver(ev.ID))
	b.idle()
	if got := b.Events()[0]; got.State != polarfake.EventSucceeded || got.Deliveries != 12 {
		t.Errorf("event %+v", got)
	}
	b.must(b.Redeliver(ev.ID))
	b.idle()
	if n := len(b.receiver.all()); n != 13 {
		t.Errorf("redelivering a succeeded event made %d deliveries in all, want 13", n)
	}
	b.expect(http.StatusNotFound, http.MethodPost, "/v1/webhooks/events/"+id+"/redeliver", "")
}

func TestOnlyAnAnswerOf2xxCounts(t *testing.T) {
	t.Parallel()

	b := setup(t)
	statuses := []int{http.StatusFound, http.StatusNotFound, http.StatusTooManyRequests, http.StatusNoContent}
	b.receiver.answering(func(n int, _ received) int { return statuses[n-1] })
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.idle()
	if ev := b.Events()[0]; ev.State != polarfake.EventSucceeded || ev.Deliveries != 4 {
		t.Errorf("event %+v", ev)
	}
}

func TestUnreachableEndpointLeavesNoCode(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "http://127.0.0.1:1" })
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.must(b.WaitIdle(b.context()))
	for _, delivery := range b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries", "").items() {
		if delivery["http_code"] != nil || delivery.text("response") == "" {
			t.Errorf("delivery %v", delivery)
		}
	}
}

func TestSlowEndpointTimesOut(t *testing.T) {
	t.Parallel()

	release := make(chan struct{})
	b := setup(t, func(o *polarfake.Options) { o.DeliveryTimeout = time.Second })
	b.receiver.answering(func(n int, _ received) int {
		if n == 1 {
			<-release
		}
		return http.StatusOK
	})
	b.checkoutOf(polarfake.OneTimeProductID, "")
	_, err := b.WaitEvent(b.context(), func(ev polarfake.Event) bool { return ev.Deliveries > 0 })
	close(release)
	b.must(err)
	b.idle()
	if ev := b.Events()[0]; ev.State != polarfake.EventSucceeded || ev.Deliveries < 2 {
		t.Errorf("event %+v", ev)
	}
}

func TestFirstDeliveriesKeepTheOrder(t *testing.T) {
	t.Parallel()

	b := setup(t)
	hold := make(chan struct{})
	b.receiver.answering(func(n int, _ received) int {
		if n == 1 {
			<-hold
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	var want []string
	for range 5 {
		want = append(want, b.checkoutOf(polarfake.OneTimeProductID, "").text("id"))
	}
	for _, ev := range b.Events() {
		if ev.Deliveries != 0 {
			t.Error("an event overtook one whose first delivery was under way")
		}
	}
	close(hold)
	b.idle()
	var got []string
	seen := make(map[string]bool)
	for _, delivery := range b.receiver.all() {
		if !seen[delivery.id] {
			got = append(got, decode(t, delivery.body).object("data").text("id"))
		}
		seen[delivery.id] = true
	}
	if !slices.Equal(got, want) {
		t.Errorf("first deliveries %v, want %v", got, want)
	}
}

func TestOldEventDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	hold, reached, arrived := make(chan struct{}), make(chan struct{}), make(chan struct{}, 10)
	b.receiver.answering(func(int, received) int {
		arrived <- struct{}{}
		return http.StatusOK
	})
	slow := newReceiver(t)
	slow.answering(func(int, received) int {
		close(reached)
		<-hold
		return http.StatusOK
	})
	b.expect(http.StatusOK, http.MethodPatch, "/v1/webhooks/endpoints/"+endpointID(t, b), `{"url":"`+slow.server.URL+`"}`)
	first := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	<-reached
	b.expect(http.StatusOK, http.MethodPatch, "/v1/webhooks/endpoints/"+endpointID(t, b), `{"url":"`+b.receiver.server.URL+`"}`)
	clock.advance(2 * time.Minute)
	b.checkoutOf(polarfake.OneTimeProductID, "")
	select {
	case <-arrived:
	case <-time.After(patience):
		t.Error("an event older than a minute held up the next")
	}
	close(hold)
	b.idle()
	if ev := b.Events()[0]; ev.ObjectID != first || ev.State != polarfake.EventSucceeded {
		t.Errorf("event %+v", ev)
	}
}

func endpointID(t *testing.T, b *testBundle) string {
	t.Helper()

	return decode(t, b.Endpoints()[0]).text("id")
}

func TestEndpointIsDisabledAfterTenFailedEvents(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.RetryScale = 0.00001 })
	b.receiver.answering(func(int, received) int { return http.StatusServiceUnavailable })
	isEnabled := func() bool { return decode(t, b.Endpoints()[0])["enabled"] == true }
	for i := range 10 {
		if !isEnabled() {
			t.Fatalf("disabled after %d events", i)
		}
		b.checkoutOf(polarfake.OneTimeProductID, "")
		b.idle()
	}
	if isEnabled() {
		t.Fatal("ten failed events did not disable the endpoint")
	}
	b.checkoutOf(polarfake.OneTimeProductID, "")
	if n := len(b.Events()); n != 10 {
		t.Errorf("%d events, though none is recorded while disabled", n)
	}

	enabled := b.expect(http.StatusOK, http.MethodPatch, "/v1/webhooks/endpoints/"+endpointID(t, b), `{"enabled":true}`)
	if enabled["enabled"] != true {
		t.Errorf("endpoint %v", enabled)
	}
	b.receiver.answering(nil)
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.idle()
	if ev := b.Events()[10]; ev.State != polarfake.EventSucceeded {
		t.Errorf("event %+v", ev)
	}
}

func TestPendingEventsAreSkippedWhenDisabled(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.RetryScale = 1000 })
	b.receiver.answering(func(int, received) int { return http.StatusServiceUnavailable })
	b.checkoutOf(polarfake.OneTimeProductID, "")
	_, err := b.WaitEvent(b.context(), func(ev polarfake.Event) bool { return ev.Deliveries == 1 })
	b.must(err)
	b.expect(http.StatusNoContent, http.MethodDelete, "/v1/webhooks/endpoints/"+endpointID(t, b), "")
	b.idle()
	if ev := b.Events()[0]; ev.State != polarfake.EventSkipped {
		t.Errorf("event %+v", ev)
	}
	wantAPIError(t, b.Redeliver(b.Events()[0].ID), http.StatusNotFound, "ResourceNotFound")
	if n := len(b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries", "").items()); n != 0 {
		t.Errorf("%d deliveries of a deleted endpoint are listed", n)
	}
}

func TestEventsBehindAnotherAreSkippedOneByOneWhenTheMerchantDisables(t *testing.T) {
	t.Parallel()

	b := setup(t)
	hold := make(chan struct{})
	b.receiver.answering(func(int, received) int {
		<-hold
		return http.StatusOK
	})
	for range 4 {
		b.checkoutOf(polarfake.OneTimeProductID, "")
	}
	b.expect(http.StatusOK, http.MethodPatch, "/v1/webhooks/endpoints/"+endpointID(t, b), `{"enabled":false}`)
	close(hold)
	b.idle()
	for i, ev := range b.Events() {
		if want := map[bool]polarfake.EventState{true: polarfake.EventSucceeded, false: polarfake.EventSkipped}[i == 0]; ev.State != want {
			t.Errorf("event %d is %s, want %s", i, ev.State, want)
		}
	}
}

func TestTwoEndpointsGetEventsOfTheirOwn(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.AddEndpoint(polarfake.Endpoint{URL: b.receiver.server.URL, Events: []string{"checkout.created"}, APIVersion: "2026-04"})
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.must(b.Expire(b.checkoutOf(polarfake.OneTimeProductID, "").text("id")))
	b.idle()
	events := b.Events()
	if len(events) != 5 || events[0].ID == events[1].ID || events[0].ObjectID != events[1].ObjectID {
		t.Fatalf("events %+v", events)
	}
	if version := decode(t, events[1].Payload).text("api_version"); version != "2026-04" {
		t.Errorf("api_version %s", version)
	}
}

func TestChatFormatsAreNoEvents(t *testing.T) {
	t.Parallel()

	for format, key := range map[string]string{"discord": "embeds", "slack": "blocks"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()

			b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "" })
			b.AddEndpoint(polarfake.Endpoint{URL: b.receiver.server.URL, Format: format})
			b.checkoutOf(polarfake.OneTimeProductID, "")
			b.idle()
			if body := decode(t, b.receiver.all()[0].body); body[key] == nil || body["type"] != nil {
				t.Errorf("body %v", body)
			}
		})
	}
}

func TestEndpointsAreManaged(t *testing.T) {
	t.Parallel()

	b := setup(t)
	const path = "/v1/webhooks/endpoints"
	created := b.expect(http.StatusCreated, http.MethodPost, path,
		`{"url":"`+b.receiver.server.URL+`","format":"raw","events":["checkout.created"],"name":"mine"}`)
	if created["uses_standard_webhook_signature"] != true || polarfake.SchemeOf(created.text("secret")) != polarfake.SchemeStandard {
		t.Errorf("endpoint %v", created)
	}
	chosen := b.expect(http.StatusCreated, http.MethodPost, path,
		`{"url":"https://x.example","format":"slack","events":[],"api_version":"2027-01","secret":"`+standardSecret+`"}`)
	if chosen["uses_standard_webhook_signature"] != false || chosen.text("api_version") != "2027-01" {
		t.Errorf("endpoint with a chosen secret %v", chosen)
	}
	reset := b.expect(http.StatusOK, http.MethodPatch, path+"/"+chosen.text("id")+"/secret", "")
	if reset["uses_standard_webhook_signature"] != true || reset.text("secret") == standardSecret {
		t.Errorf("after the reset %v", reset)
	}
	changed := b.expect(http.StatusOK, http.MethodPatch, path+"/"+created.text("id"),
		`{"events":["order.paid"],"name":null,"format":"discord","api_version":"2026-04","secret":"`+legacySecret+`"}`)
	if changed["name"] != nil || changed.text("format") != "discord" || changed["uses_standard_webhook_signature"] != false {
		t.Errorf("changed %v", changed)
	}
	b.expect(http.StatusOK, http.MethodGet, path+"/"+created.text("id"), "")
	if n := len(b.expect(http.StatusOK, http.MethodGet, path, "").items()); n != 3 {
		t.Errorf("%d endpoints", n)
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, path, `{"url":"nowhere","format":"fax","events":["x"],"secret":"short"}`)
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, path, `{}`)
	b.expect(http.StatusNotFound, http.MethodGet, path+"/"+polarfake.SeatProductID, "")
}

func TestOldSecretIsDroppedAtOnce(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.receiver.answering(func(n int, _ received) int {
		if n == 1 {
			return http.StatusUnauthorized
		}
		return http.StatusOK
	})
	b.expect(http.StatusOK, http.MethodPatch, "/v1/webhooks/endpoints/"+endpointID(t, b)+"/secret", "")
	secret := decode(t, b.Endpoints()[0]).text("secret")
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.idle()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, delivery := range b.receiver.all() {
		if err := verifier.Verify(delivery.body, delivery.header); err != nil {
			t.Error(err)
		}
	}
}

func TestArchivedEventIsNotSentAgain(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.idle()
	clock.advance(91 * 24 * time.Hour)
	b.must(b.Redeliver(b.Events()[0].ID))
	b.idle()
	if n := len(b.receiver.all()); n != 1 {
		t.Errorf("%d deliveries", n)
	}
	listed := b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries", "").items()
	if ev := listed[0].object("webhook_event"); ev["payload"] != nil || ev["is_archived"] != true {
		t.Errorf("event %v", ev)
	}
}

func TestParallelSendsWithoutTheGuard(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.Parallel = true })
	meet := make(chan struct{})
	arrived := make(chan struct{}, 2)
	slow := newReceiver(t)
	slow.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-meet
		w.WriteHeader(http.StatusOK)
	})
	b.expect(http.StatusOK, http.MethodPatch, "/v1/webhooks/endpoints/"+endpointID(t, b), `{"url":"`+slow.server.URL+`"}`)
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.checkoutOf(polarfake.OneTimeProductID, "")
	for range 2 {
		select {
		case <-arrived:
		case <-time.After(patience):
			t.Error("two events were not under way together")
		}
	}
	close(meet)
	b.idle()
}

func TestWaitsEndWithTheirContextAndTheFake(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.RetryScale = 1000 })
	b.receiver.answering(func(int, received) int { return http.StatusTeapot })
	b.checkoutOf(polarfake.OneTimeProductID, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.WaitIdle(ctx); err == nil {
		t.Error("WaitIdle returned nil, though an event is pending")
	}
	closed := make(chan error, 1)
	go func() {
		_, err := b.WaitEvent(context.WithoutCancel(ctx), func(polarfake.Event) bool { return false })
		closed <- err
	}()
	b.Close()
	select {
	case err := <-closed:
		if err == nil {
			t.Error("WaitEvent found what there is not")
		}
	case <-time.After(patience):
		t.Error("WaitEvent outlived the fake")
	}
}
