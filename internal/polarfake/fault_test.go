package polarfake_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func (b *testBundle) inject(fault polarfake.Fault) {
	b.t.Helper()

	b.must(b.Inject(fault))
}

func TestRequestFaultsAnswerAsPolarMay(t *testing.T) {
	t.Parallel()

	b := setup(t)
	for name, test := range map[string]struct {
		fault  polarfake.Fault
		status int
		body   string
	}{
		"429": {polarfake.Fault{Kind: polarfake.FaultRateLimit, RetryAfter: polarfake.Duration(1500 * time.Millisecond)}, 429, ""},
		"500": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 500}, 500, "<html>"},
		"502": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 502}, 502, "<html>"},
		"401": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 401}, 401, `"Unauthorized"`},
		"403": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 403}, 403, `"NotPermitted"`},
		"404": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 404}, 404, `"ResourceNotFound"`},
		"422": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 422}, 422, `"PolarRequestValidationError"`},
		"Own": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 422, Body: json.RawMessage(`{"error":"Own"}`)}, 422, `{"error":"Own"}`},
	} {
		test.fault.Path = "/v1/products/"
		b.inject(test.fault)
		status, header, body := b.raw(http.MethodGet, "/v1/products/", "", nil)
		if status != test.status || !strings.Contains(string(body), test.body) || (test.body == "" && len(body) > 0) {
			t.Errorf("%s: answered %d %q", name, status, body)
		}
		if status == http.StatusTooManyRequests && header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", header.Get("Retry-After"))
		}
		if status, _, _ := b.raw(http.MethodGet, "/v1/products/", "", nil); status != http.StatusOK {
			t.Errorf("%s struck twice", name)
		}
	}
}

func TestFaultsMatchMethodPathAndCount(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.inject(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 500, Method: http.MethodGet, Path: "/v1/customers/*", Count: 2})
	b.inject(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 503, Path: "/v1/products/", Count: -1})
	get := func(path string) int {
		status, _, _ := b.raw(http.MethodGet, path, "", nil)
		return status
	}
	got := []int{
		get("/v1/customers/"), get("/v1/customers/x"), get("/v1/customers/x"), get("/v1/checkouts/"),
		get("/v1/products/"), get("/v1/products/"), get("/v1/products/"),
	}
	if want := []int{500, 500, 422, 200, 503, 503, 503}; !slices.Equal(got, want) {
		t.Errorf("answered %v, want %v", got, want)
	}
	b.ClearFaults()
	if status := get("/v1/products/"); status != http.StatusOK {
		t.Errorf("answered %d after the faults were cleared", status)
	}
	for _, fault := range []polarfake.Fault{
		{Kind: "flood"}, {Kind: polarfake.FaultStatus}, {Kind: polarfake.FaultHang, Path: "[", Method: "GET"},
	} {
		if b.Inject(fault) == nil {
			t.Errorf("fault %+v was taken", fault)
		}
	}
}

// createWithin posts a checkout and returns the error of the caller, who waits for a moment only.
func (b *testBundle) createWithin(wait time.Duration) error {
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.server.URL+"/v1/checkouts/",
		strings.NewReader(`{"products":["`+polarfake.OneTimeProductID+`"]}`))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer polar_oat_test")
	client := &http.Client{Timeout: wait, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func TestLostAnswersDoOrDoNotDoTheWork(t *testing.T) {
	t.Parallel()

	for kind, created := range map[polarfake.FaultKind]int{
		polarfake.FaultHang: 0, polarfake.FaultReset: 0, polarfake.FaultHangAfter: 1, polarfake.FaultCutAfter: 1,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()

			b := setup(t)
			b.inject(polarfake.Fault{Kind: kind, Method: http.MethodPost})
			wait := patience
			if kind == polarfake.FaultHang || kind == polarfake.FaultHangAfter {
				wait = 2 * time.Second
			}
			if err := b.createWithin(wait); err == nil {
				t.Error("an answer came")
			}
			if n := len(b.Checkouts()); n != created {
				t.Errorf("%d sessions, want %d", n, created)
			}
			if types := b.idle(); count(types, "checkout.created") != created {
				t.Errorf("events %v", types)
			}
			b.must(b.createWithin(patience))
		})
	}
}

func TestDelayedRequestIsServed(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.AnswerDelay = time.Millisecond })
	b.inject(polarfake.Fault{Kind: polarfake.FaultDelay, Delay: polarfake.Duration(20 * time.Millisecond)})
	started := time.Now()
	b.must(b.createWithin(patience))
	if took := time.Since(started); took < 20*time.Millisecond {
		t.Errorf("served after %s", took)
	}
}

func TestEventFaults(t *testing.T) {
	t.Parallel()

	t.Run("Drop", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		b.inject(polarfake.Fault{Kind: polarfake.FaultEventDrop, EventType: "checkout.*"})
		b.checkoutOf(polarfake.OneTimeProductID, "")
		b.checkoutOf(polarfake.OneTimeProductID, "")
		if types := b.idle(); len(types) != 1 {
			t.Errorf("arrived %v", types)
		}
		if ev := b.Events()[0]; ev.State != polarfake.EventDropped {
			t.Errorf("event %+v", ev)
		}
		b.must(b.Redeliver(b.Events()[0].ID))
		if types := b.idle(); len(types) != 2 {
			t.Errorf("arrived after the redelivery: %v", types)
		}
	})
	t.Run("Duplicate", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		b.inject(polarfake.Fault{Kind: polarfake.FaultEventDuplicate})
		b.checkoutOf(polarfake.OneTimeProductID, "")
		b.idle()
		if all := b.receiver.all(); len(all) != 2 || all[0].id != all[1].id {
			t.Errorf("%d deliveries", len(all))
		}
	})
	t.Run("Reorder", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		b.inject(polarfake.Fault{Kind: polarfake.FaultEventReorder, Delay: polarfake.Duration(patience)})
		first := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
		b.checkoutOf(polarfake.OneTimeProductID, "")
		b.idle()
		if all := b.receiver.all(); len(all) != 2 || decode(t, all[1].body).object("data").text("id") != first {
			t.Error("the first event was not overtaken")
		}
	})
	t.Run("ReorderAlone", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		b.inject(polarfake.Fault{Kind: polarfake.FaultEventReorder, Delay: polarfake.Duration(time.Millisecond)})
		b.checkoutOf(polarfake.OneTimeProductID, "")
		if types := b.idle(); len(types) != 1 {
			t.Errorf("arrived %v", types)
		}
	})
	t.Run("Delay", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		b.inject(polarfake.Fault{Kind: polarfake.FaultEventDelay, Delay: polarfake.Duration(2 * time.Second)})
		first := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
		b.checkoutOf(polarfake.OneTimeProductID, "")
		b.idle()
		if all := b.receiver.all(); len(all) != 2 || decode(t, all[1].body).object("data").text("id") != first {
			t.Error("the delayed event was not overtaken")
		}
	})
}

func TestControlFromAnotherProcess(t *testing.T) {
	t.Parallel()

	b := setup(t)
	control := func(want int, method, path, body string) document {
		t.Helper()
		status, _, answer := b.raw(method, "/_fake/"+path, body, map[string]string{"Authorization": ""})
		if status != want {
			t.Fatalf("%s %s answered %d %s, want %d", method, path, status, answer, want)
		}
		if len(answer) == 0 || answer[0] != '{' {
			return nil
		}
		return decode(t, answer)
	}
	session := func() string { return b.checkoutOf(polarfake.OneTimeProductID, "").text("id") }

	paid := control(200, http.MethodPost, "checkouts/"+session()+"/pay", `{"email":"a@example.com","name":"Ada"}`)
	failed := control(200, http.MethodPost, "checkouts/"+session()+"/fail", `{"email":"b@example.com"}`)
	expired := control(200, http.MethodPost, "checkouts/"+session()+"/expire", "")
	id := session()
	confirmed := control(200, http.MethodPost, "checkouts/"+id+"/confirm", `{"email":"c@example.com"}`)
	if got := []string{paid.text("status"), failed.text("status"), expired.text("status"), confirmed.text("status")}; !slices.Equal(got,
		[]string{"succeeded", "open", "expired", "confirmed"}) {
		t.Errorf("statuses %v", got)
	}
	again := control(200, http.MethodPost, "checkouts/"+id+"/fail", "")
	if again.text("status") != "open" {
		t.Errorf("status %s", again.text("status"))
	}
	control(200, http.MethodPost, "checkouts/"+id+"/confirm", "")
	control(200, http.MethodPost, "checkouts/"+id+"/succeed", "")
	control(400, http.MethodPost, "checkouts/"+id+"/frame", "")
	control(400, http.MethodPost, "checkouts/"+id+"/pay", "{")
	control(404, http.MethodPost, "checkouts/none/pay", "")
	control(400, http.MethodPost, "checkouts/"+session()+"/pay", `{"email":"d@example.com","outcome":"refused"}`)

	control(400, http.MethodPost, "faults", `{"kind":"flood"}`)
	control(400, http.MethodPost, "faults", `{"kind":"delay","delay":"long"}`)
	control(200, http.MethodPost, "faults", `{"kind":"rate_limit","path":"/v1/products/","retry_after":"3s"}`)
	control(200, http.MethodPost, "seed", `{"customers":3,"prefix":"seed_"}`)
	control(200, http.MethodPost, "expire-overdue", "")
	b.idle()
	state := control(200, http.MethodGet, "state", "")
	if faults, _ := state["faults"].([]any); len(faults) != 1 || state["customers"] != 6.0 || state["pending"] != 0.0 ||
		state.object("checkouts")["succeeded"] != 2.0 || state.object("events")["succeeded"] == nil {
		t.Errorf("state %v", state)
	}
	control(200, http.MethodGet, "events", "")
	control(204, http.MethodDelete, "faults", "")
	control(404, http.MethodGet, "nothing", "")
}

func TestAnswerIsTruncated(t *testing.T) {
	t.Parallel()

	b := setup(t)
	_, _, whole := b.raw(http.MethodGet, "/v1/products/", "", nil)
	for length, test := range map[string]struct {
		announced int64 // -1 for none
		isCut     bool  // so that the connection tells
	}{
		"":                           {int64(len(whole) / 2), false},
		polarfake.ContentLengthWhole: {int64(len(whole)), true},
		polarfake.ContentLengthNone:  {-1, false},
	} {
		b.inject(polarfake.Fault{Kind: polarfake.FaultTruncate, ContentLength: length})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.server.URL+"/v1/products/", nil)
		b.must(err)
		request.Header.Set("Authorization", "Bearer x")
		response, err := http.DefaultClient.Do(request)
		b.must(err)
		body, err := io.ReadAll(response.Body)
		b.must(response.Body.Close())
		if response.StatusCode != http.StatusOK || response.ContentLength != test.announced || len(body) != len(whole)/2 {
			t.Errorf("%q: %d, length %d, got %d of %d bytes", length, response.StatusCode, response.ContentLength, len(body), len(whole))
		}
		if isCut := errors.Is(err, io.ErrUnexpectedEOF); isCut != test.isCut {
			t.Errorf("%q: reading ended with %v", length, err)
		}
		if json.Valid(body) {
			t.Errorf("%q: half of the answer is whole JSON", length)
		}
	}
	if b.Inject(polarfake.Fault{Kind: polarfake.FaultTruncate, ContentLength: "long"}) == nil {
		t.Error("an unknown content length was taken")
	}
	b.inject(polarfake.Fault{Kind: polarfake.FaultTruncate, Method: http.MethodPost})
	status, _, body := b.raw(http.MethodPost, "/v1/customers/", `{"email":"ada@example.com"}`, nil)
	if status != http.StatusCreated || json.Valid(body) || len(b.Customers()) != 1 {
		t.Errorf("a write was not done, or told whole: %d %s", status, body)
	}
}

func TestListsLackItems(t *testing.T) {
	t.Parallel()

	b, _, subscription := team(t)
	b.read(b.AssignSeat(`{"subscription_id":"` + subscription + `","email":"one@example.com"}`))
	for _, kind := range []polarfake.FaultKind{polarfake.FaultShortPage, polarfake.FaultEmptyList} {
		b.inject(polarfake.Fault{Kind: kind, Path: "/v1/products/*"}) // which is no list
		b.inject(polarfake.Fault{Kind: kind})
		b.expect(http.StatusOK, http.MethodGet, "/v1/products/"+polarfake.SeatProductID, "")
		list := b.expect(http.StatusOK, http.MethodGet, "/v1/products/?limit=5&sorting=created_at", "")
		items, pages := list.items(), list.object("pagination")
		switch kind {
		case polarfake.FaultShortPage:
			if len(items) != 2 || items[0].text("id") != polarfake.MonthlyProductID || pages["total_count"] != 7.0 {
				t.Errorf("short page %v", list)
			}
		default:
			if len(items) != 0 || pages["total_count"] != 0.0 || pages["max_page"] != 0.0 {
				t.Errorf("empty list %v", list)
			}
		}
		b.ClearFaults()
		b.inject(polarfake.Fault{Kind: kind, Path: "/v1/customer-seats"})
		if seats := b.expect(http.StatusOK, http.MethodGet, "/v1/customer-seats?subscription_id="+subscription, ""); len(seats.list("seats")) != 0 {
			t.Errorf("seats %v", seats)
		}
		b.inject(polarfake.Fault{Kind: kind})
		b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/products/?page=0", "")
	}
	if n := len(b.expect(http.StatusOK, http.MethodGet, "/v1/products/", "").items()); n != 7 {
		t.Errorf("%d products after the faults", n)
	}
}
