package polarfake_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func TestRateLimitHoldsOverAnyMinute(t *testing.T) {
	t.Parallel()

	shared, documents := newTestClock(), newTestClock()
	b := setup(t, func(o *polarfake.Options) {
		o.RateLimit, o.SignatureClock, o.Clock = 3, shared.Now, documents.Now
	})
	get := func() (int, string) {
		status, header, body := b.raw(http.MethodGet, "/v1/products/", "", nil)
		if status == http.StatusTooManyRequests && len(body) > 0 {
			t.Errorf("429 says %q", body)
		}
		return status, header.Get("Retry-After")
	}
	pass := func(n int) {
		t.Helper()
		for range n {
			if status, _ := get(); status != http.StatusOK {
				t.Fatalf("answered %d", status)
			}
		}
	}
	block := func(want int) {
		t.Helper()
		if status, wait := get(); status != http.StatusTooManyRequests || wait != strconv.Itoa(want) {
			t.Fatalf("answered %d, Retry-After %q, want 429 and %d", status, wait, want)
		}
	}
	pass(1)
	shared.advance(40 * time.Second)
	pass(2)
	block(20)
	documents.advance(time.Hour) // of which the other side knows nothing
	block(20)
	shared.advance(19500 * time.Millisecond)
	block(1)
	shared.advance(500 * time.Millisecond)
	pass(1)
	block(40)
	if n := b.Requests()["GET /v1/products/"]; n != 8 {
		t.Errorf("%d requests counted", n)
	}
	if status, _, _ := b.raw(http.MethodGet, "/_fake/state", "", nil); status != http.StatusOK {
		t.Errorf("the control of the fake is limited: %d", status)
	}
	b.inject(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 500})
	block(40)
	shared.advance(time.Minute)
	if status, _ := get(); status != http.StatusInternalServerError {
		t.Errorf("a fault met a request that was turned away: %d", status)
	}
}

func TestBurstLimitHoldsOverAnySecond(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.RateLimit, o.BurstLimit, o.Clock = 100, 2, clock.Now })
	var got []int
	for range 4 {
		status, header, _ := b.raw(http.MethodGet, "/v1/products/", "", nil)
		if status == http.StatusTooManyRequests && header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", header.Get("Retry-After"))
		}
		got = append(got, status)
		if len(got) == 3 {
			clock.advance(time.Second)
		}
	}
	if got[0] != 200 || got[1] != 200 || got[2] != 429 || got[3] != 200 {
		t.Errorf("answered %v", got)
	}
}

func TestSignaturesKeepTheSharedTime(t *testing.T) {
	t.Parallel()

	documents := newTestClock()
	documents.advance(-1000 * time.Hour)
	b := setup(t, func(o *polarfake.Options) { o.Clock, o.SignatureClock = documents.Now, time.Now })
	id := b.customer(`{"email":"ada@example.com"}`).text("id")
	b.idle()
	verifier, err := standardwebhooks.NewWebhook(standardSecret)
	b.must(err)
	for _, delivery := range b.receiver.all() {
		if err := verifier.Verify(delivery.body, delivery.header); err != nil {
			t.Errorf("%s: %v", delivery.kind, err)
		}
		sent, err := time.Parse(time.RFC3339Nano, decode(t, delivery.body).text("timestamp"))
		if err != nil || time.Since(sent) < 999*time.Hour {
			t.Errorf("the event is of %s, %v", sent, err)
		}
	}
	created, err := time.Parse(time.RFC3339Nano, b.customerNow(id).text("created_at"))
	if err != nil || time.Since(created) < 999*time.Hour {
		t.Errorf("the customer is of %s, %v", created, err)
	}
	for _, item := range b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries", "").items() {
		if at, err := time.Parse(time.RFC3339Nano, item.text("created_at")); err != nil || time.Since(at) < 999*time.Hour {
			t.Errorf("the delivery is of %s, %v", at, err)
		}
	}
	if _, header, _ := b.raw(http.MethodGet, "/v1/products/", "", nil); header.Get("Date") != documents.Now().UTC().Format(http.TimeFormat) {
		t.Errorf("Date %s", header.Get("Date"))
	}
}

func TestDeliveriesAreListedNewestFirstAndTimeOut(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock, o.MaxUndatedDeliveries = clock.Now, 3 })
	for range 3 {
		clock.advance(time.Minute)
		b.checkoutOf(polarfake.OneTimeProductID, "")
		b.idle()
	}
	items := b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries?sorting=created_at", "").items()
	if len(items) != 3 || items[0].text("created_at") <= items[2].text("created_at") {
		t.Errorf("deliveries %v", items)
	}
	middle := clock.Now().Add(-90 * time.Second).UTC().Format(time.RFC3339)
	clock.advance(time.Minute)
	b.checkoutOf(polarfake.OneTimeProductID, "")
	b.idle()
	end := clock.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	for query, want := range map[string]int{
		"": 504, "?start_timestamp=" + middle: 504, "?end_timestamp=" + end: 504, "?succeeded=false": 504,
		"?start_timestamp=" + middle + "&end_timestamp=" + end: 200,
	} {
		status, header, body := b.raw(http.MethodGet, "/v1/webhooks/deliveries"+query, "", nil)
		if status != want || status == 504 && header.Get("Content-Type") == "application/json" {
			t.Errorf("%s: answered %d %s %s", query, status, header.Get("Content-Type"), body)
		}
	}
	dated := b.expect(http.StatusOK, http.MethodGet, "/v1/webhooks/deliveries?start_timestamp="+middle+"&end_timestamp="+end, "")
	if n := len(dated.items()); n != 3 {
		t.Errorf("%d deliveries between the bounds", n)
	}
}

func TestWhatNobodySubscribesToIsNotRecorded(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "" })
	b.AddEndpoint(polarfake.Endpoint{URL: b.receiver.server.URL, Events: []string{"order.paid"}})
	b.must(b.Pay(b.checkoutOf(polarfake.OneTimeProductID, "").text("id"), polarfake.PayOptions{Email: "buyer@example.com"}))
	if types := b.idle(); len(types) != 1 || types[0] != "order.paid" || len(b.Events()) != 1 {
		t.Errorf("events %v", types)
	}
}
