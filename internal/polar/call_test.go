package polar

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestErrorsAreInPolarsOwnWords(t *testing.T) {
	t.Parallel()
	validation := `{"error":"PolarRequestValidationError","detail":[
		{"type":"value_error","loc":["body","external_id"],"msg":"Customer external ID cannot be updated.","input":"usr_private","ctx":{"a":"usr_private"}},
		{"type":"int","loc":["body","products",0],"msg":"Bad\nnumber.","input":{"x":"usr_private"}}, 7, {"msg":"Alone."}, {"loc":"body"}]}`
	tests := map[string]struct {
		reply reply
		want  APIError
		text  string
		check func(error) bool
	}{
		"sentence": {
			reply{404, nil, `{"error":"ResourceNotFound","detail":"Not found"}`},
			APIError{Status: 404, Code: "ResourceNotFound", Message: "Not found"},
			"GET /v1/checkouts/{id}: status 404 Not Found: ResourceNotFound: Not found", IsNotFound,
		},
		"unknown version": {
			reply{404, nil, `{"detail":"Not Found"}`},
			APIError{Status: 404, Message: "Not Found"},
			"GET /v1/checkouts/{id}: status 404 Not Found: Not Found", IsNotFound,
		},
		"findings": {
			reply{422, nil, validation},
			APIError{
				Status: 422, Code: "PolarRequestValidationError",
				Message: "body.external_id: Customer external ID cannot be updated.; body.products.0: Bad number.; Alone.",
				Fields: []FieldError{
					{[]string{"body", "external_id"}, "Customer external ID cannot be updated.", "value_error"},
					{[]string{"body", "products", "0"}, "Bad number.", "int"},
					{nil, "Alone.", ""},
				},
			},
			"", IsValidation,
		},
		"422 with a sentence": {
			reply{422, nil, `{"error":"CheckoutCustomerExternalIdMismatch","detail":"A customer has it."}`},
			APIError{Status: 422, Code: "CheckoutCustomerExternalIdMismatch", Message: "A customer has it."},
			"", IsValidation,
		},
		"token unknown": {
			reply{401, nil, `{"error":"Unauthorized","detail":"polar ` + testToken + ` unknown"}`},
			APIError{Status: 401, Code: "Unauthorized", Message: "polar [token] unknown"},
			"", IsUnauthorized,
		},
		"scope lacking": {
			reply{403, nil, `{"error":"NotPermitted","detail":[]}`},
			APIError{Status: 403, Code: "NotPermitted"},
			"GET /v1/checkouts/{id}: status 403 Forbidden: NotPermitted", IsForbidden,
		},
		"too many": {
			reply{429, map[string]string{"Retry-After": "7"}, ``},
			APIError{Status: 429, RetryAfter: 7 * time.Second},
			"GET /v1/checkouts/{id}: status 429 Too Many Requests (retry after 7s)", IsRateLimited,
		},
		"too many until a date": {
			reply{429, map[string]string{"Retry-After": "Sat, 22 Aug 2026 09:01:30 GMT"}, ``},
			APIError{Status: 429, RetryAfter: 90 * time.Second},
			"", IsRateLimited,
		},
		"too many, no telling": {
			reply{429, map[string]string{"Retry-After": "soon"}, ``},
			APIError{Status: 429},
			"", IsRateLimited,
		},
		"not JSON": {
			reply{409, nil, "<html>\r\n\t<b>no</b>\x00 " + strings.Repeat("é", 500)},
			APIError{Status: 409, Message: "<html> <b>no</b> " + strings.Repeat("é", 90) + "…"},
			"", nil,
		},
		"other JSON": {
			reply{418, nil, `["a"]`},
			APIError{Status: 418, Message: `["a"]`},
			"", nil,
		},
		"wrong types": {
			reply{400, nil, `{"error":{"a":1},"detail":{"b":2}}`},
			APIError{Status: 400},
			"GET /v1/checkouts/{id}: status 400 Bad Request", nil,
		},
		"redirect": {
			reply{307, map[string]string{"Location": "https://example.com/?secret"}, ``},
			APIError{Status: 307, Message: "redirected, which is not followed: check POLAR_API_URL"},
			"", nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, test.reply)
			_, err := newTestAPI(t, server.URL, Config{}).GetCheckout(t.Context(), uuid.New())
			got := wantAPIError(t, err)
			test.want.Method, test.want.Path = http.MethodGet, "/v1/checkouts/{id}"
			test.want.Date = got.Date
			if date := got.Date.Format(http.TimeFormat); date != cmp.Or(test.reply.header["Date"], testDate) {
				t.Errorf("the error says it came at %s", date)
			}
			if !equalJSON(got, test.want) {
				t.Errorf("error %+v, want %+v", got, test.want)
			}
			if strings.Contains(fmt.Sprintf("%+v %v", got, got), "usr_private") {
				t.Errorf("the error shows what was sent: %+v", got)
			}
			if test.text != "" && err.Error() != test.text {
				t.Errorf("text %q, want %q", err, test.text)
			}
			wrapped := fmt.Errorf("creating checkout: %w", err)
			for _, is := range []func(error) bool{IsNotFound, IsValidation, IsUnauthorized, IsForbidden, IsRateLimited} {
				if is(wrapped) != (test.check != nil && fmt.Sprintf("%p", is) == fmt.Sprintf("%p", test.check)) {
					t.Errorf("a predicate is wrong about %v", err)
				}
			}
			if OutcomeUnknown(wrapped) {
				t.Errorf("OutcomeUnknown(%v), but Polar answered", err)
			}
			if server.count() != 1 {
				t.Errorf("%d requests, want 1", server.count())
			}
		})
	}
}

func TestRetryAfterIsBoundedAndNeverNegative(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"": 0, "-5": 0, "0": 0, "0.5": 500 * time.Millisecond, "1e99": maxRetryAfter, "NaN": 0, "Inf": maxRetryAfter,
		"Sat, 22 Aug 2026 08:59:59 GMT": 0, "Sat, 22 Aug 2099 09:00:00 GMT": maxRetryAfter,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}, "Date": {testDate}}); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
	if got := retryAfter(http.Header{"Retry-After": {testDate}}); got != 0 {
		t.Errorf("a date without our own to compare with: %v", got)
	}
}

func TestReadsAreTriedAgainAndWritesAreNot(t *testing.T) {
	t.Parallel()
	good := reply{body: customerJSON("a")}
	reads := map[string]struct {
		replies    []reply
		maxRetries int
		want       int // requests
		failed     bool
	}{
		"two 5xx, then well": {[]reply{{status: 500}, {status: 503}, good}, 0, 3, false},
		"5xx for ever":       {[]reply{{status: 502}}, 0, 3, true},
		"more retries":       {[]reply{{status: 502}}, 5, 6, true},
		"no retries":         {[]reply{{status: 502}, good}, -1, 1, true},
		"cut off":            {[]reply{{header: map[string]string{"Content-Length": "9999"}, body: `{"id`}, good}, 0, 2, false},
		"429":                {[]reply{{status: 429, header: map[string]string{"Retry-After": "1"}}, good}, 0, 1, true},
		"404":                {[]reply{{status: 404}, good}, 0, 1, true},
	}
	for name, test := range reads {
		t.Run("read, "+name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, test.replies...)
			api := newTestAPI(t, server.URL, Config{MaxRetries: test.maxRetries, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
			_, err := api.GetCustomer(t.Context(), uuid.New())
			if (err != nil) != test.failed || server.count() != test.want {
				t.Errorf("%d requests, error %v; want %d, failure %v", server.count(), err, test.want, test.failed)
			}
		})
	}
	writes := map[string]func(*API) error{
		"CreateCheckout": func(api *API) error {
			_, err := api.CreateCheckout(t.Context(), json.RawMessage(`{"products":[]}`))
			return err
		},
		"CreateCustomer": func(api *API) error {
			_, err := api.CreateCustomer(t.Context(), CustomerCreate{Email: "a@example.com"})
			return err
		},
		"SetCustomerExternalID": func(api *API) error {
			_, err := api.SetCustomerExternalID(t.Context(), uuid.New(), "a")
			return err
		},
	}
	for name, callFunc := range writes {
		server := newTestServer(t, reply{status: 503, header: map[string]string{"Retry-After": "3"}}, good)
		err := callFunc(newTestAPI(t, server.URL, Config{}))
		if got := wantAPIError(t, err); !OutcomeUnknown(err) || got.RetryAfter != 3*time.Second || server.count() != 1 {
			t.Errorf("%s: %d requests, error %+v", name, server.count(), got)
		}
	}
}

// roundTripFunc is a transport that takes no part in tracing.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestOutcomeIsKnownOnlyWhenNothingWasSentOrPolarRefused(t *testing.T) {
	t.Parallel()
	params := json.RawMessage(`{"products":[]}`)
	create := func(ctx context.Context, api *API) *APIError {
		_, err := api.CreateCheckout(ctx, params)
		return wantAPIError(t, err)
	}

	t.Run("port closed", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, reply{})
		server.Close()
		if err := create(t.Context(), newTestAPI(t, server.URL, Config{})); !err.NotSent || OutcomeUnknown(err) || err.Status != 0 {
			t.Errorf("error %+v", err)
		}
	})
	t.Run("no TLS on the other side", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, reply{})
		api := newTestAPI(t, strings.Replace(server.URL, "http:", "https:", 1), Config{})
		if err := create(t.Context(), api); !err.NotSent || OutcomeUnknown(err) {
			t.Errorf("error %+v", err)
		}
	})
	t.Run("cancelled before", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, reply{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := create(ctx, newTestAPI(t, server.URL, Config{}))
		if !err.NotSent || OutcomeUnknown(err) || !errors.Is(err, context.Canceled) || server.count() != 0 {
			t.Errorf("error %+v, %d requests", err, server.count())
		}
	})
	t.Run("gate closed", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, reply{})
		gateErr := errors.New("the budget is spent")
		api := newTestAPI(t, server.URL, Config{Gate: func(context.Context, Call) error { return gateErr }})
		if err := create(t.Context(), api); !err.NotSent || OutcomeUnknown(err) || !errors.Is(err, gateErr) {
			t.Errorf("error %+v", err)
		}
		if _, err := api.GetCustomer(t.Context(), uuid.New()); !errors.Is(err, gateErr) || server.count() != 0 {
			t.Errorf("error %v, %d requests", err, server.count())
		}
	})
	t.Run("timed out after it was sent", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(release) })
		err := create(t.Context(), newTestAPI(t, server.URL, Config{Timeout: 50 * time.Millisecond}))
		if err.NotSent || !OutcomeUnknown(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %+v", err)
		}
		if want := "POST /v1/checkouts/: no answer: not done within 50ms: context deadline exceeded"; err.Error() != want {
			t.Errorf("text %q, want %q", err, want)
		}
	})
	t.Run("cancelled after it was sent", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel(); <-release }))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(release) })
		err := create(ctx, newTestAPI(t, server.URL, Config{}))
		if err.NotSent || !OutcomeUnknown(err) || !errors.Is(err, context.Canceled) {
			t.Errorf("error %+v", err)
		}
	})
	t.Run("connection cut after it was sent", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		t.Cleanup(server.Close)
		if err := create(t.Context(), newTestAPI(t, server.URL, Config{})); err.NotSent || !OutcomeUnknown(err) {
			t.Errorf("error %+v", err)
		}
	})
	for name, answer := range map[string]reply{
		"5xx":                    {status: 500, body: `{"detail":"Internal"}`},
		"5xx of a proxy":         {status: 524, body: "<html>"},
		"proxy's time-out":       {status: 408},
		"created, not JSON":      {status: 201, body: "<html>"},
		"created, no id":         {status: 201, body: `{"status":"open"}`},
		"created, cut off":       {status: 201, header: map[string]string{"Content-Length": "99"}, body: `{"id":"`},
		"created, not disclosed": {status: 204},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, answer)
			err := create(t.Context(), newTestAPI(t, server.URL, Config{}))
			if err.NotSent || !OutcomeUnknown(err) || err.Status != answer.status || server.count() != 1 {
				t.Errorf("error %+v", err)
			}
		})
	}
	for name, test := range map[string]struct {
		err     error
		notSent bool
	}{
		"a transport without tracing that fails":       {errors.New("fault"), false},
		"a transport without tracing that cannot dial": {&net.OpError{Op: "dial", Err: errors.New("refused")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			httpClient := &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, test.err })}
			err := create(t.Context(), newTestAPI(t, "http://polar.invalid", Config{HTTPClient: httpClient}))
			if err.NotSent != test.notSent || OutcomeUnknown(err) == test.notSent || !errors.Is(err, test.err) {
				t.Errorf("error %+v", err)
			}
		})
	}
	if OutcomeUnknown(nil) || OutcomeUnknown(errors.New("of something else")) {
		t.Error("OutcomeUnknown of an error that is not of a call")
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	other := newTestServer(t, reply{body: customerJSON("a")})
	server := newTestServer(t, reply{status: 302, header: map[string]string{"Location": other.URL}})
	httpClient := &http.Client{}
	_, err := newTestAPI(t, server.URL, Config{HTTPClient: httpClient}).GetCustomer(t.Context(), uuid.New())
	if got := wantAPIError(t, err); got.Status != 302 || other.count() != 0 {
		t.Errorf("error %+v, %d requests to the other host", got, other.count())
	}
	if httpClient.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

func TestErrorsOfTheTransportShowNoValues(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{})
	server.Close()
	var logged bytes.Buffer
	api := newTestAPI(t, server.URL, Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	_, err := api.ListCustomers(t.Context(), CustomerFilter{Email: "ada@example.com"})
	_, otherErr := api.GetCustomerByExternalID(t.Context(), "usr_private")
	for _, text := range []string{wantAPIError(t, err).Error(), wantAPIError(t, otherErr).Error(), logged.String()} {
		if strings.Contains(text, "ada") || strings.Contains(text, "usr_private") || strings.Contains(text, testToken) {
			t.Errorf("shows what it should not: %s", text)
		}
	}
	if !strings.Contains(logged.String(), "trying again") {
		t.Errorf("the retries were not logged: %q", logged.String())
	}
}

func TestGateAndAnswersAreSeenForEveryRequest(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{status: 500, header: map[string]string{"Retry-After": "2"}}, reply{body: customerJSON("a")})
	var calls []Call
	var responses []ResponseInfo
	api := newTestAPI(t, server.URL, Config{
		Gate:       func(_ context.Context, c Call) error { calls = append(calls, c); return nil },
		OnResponse: func(info ResponseInfo) { responses = append(responses, info) },
	})
	if _, err := api.GetCustomerByExternalID(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	const route = "/v1/customers/external/{external_id}"
	wantCalls := []Call{{http.MethodGet, route, 1}, {http.MethodGet, route, 2}}
	if !slices.Equal(calls, wantCalls) {
		t.Errorf("calls %v, want %v", calls, wantCalls)
	}
	date, err := http.ParseTime(testDate)
	if err != nil {
		t.Fatal(err)
	}
	wantResponses := []ResponseInfo{
		{Call: wantCalls[0], Status: 500, RetryAfter: 2 * time.Second, Date: date},
		{Call: wantCalls[1], Status: 200, Date: date},
	}
	for i := range responses {
		if responses[i].Duration <= 0 {
			t.Errorf("answer %d took %v", i+1, responses[i].Duration)
		}
		responses[i].Duration = 0
	}
	if !slices.Equal(responses, wantResponses) {
		t.Errorf("answers %+v, want %+v", responses, wantResponses)
	}
}

func TestAnswerOfAnySizeIsNotReadIntoMemory(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		block := bytes.Repeat([]byte(" "), 1<<20)
		for range maxResponseLen>>20 + 1 {
			if _, err := w.Write(block); err != nil {
				return // the client has seen enough
			}
		}
	}))
	t.Cleanup(server.Close)
	_, err := newTestAPI(t, server.URL, Config{}).ListProducts(t.Context(), 1, 100)
	if wantAPIError(t, err); !strings.Contains(err.Error(), "over 16 MiB") {
		t.Errorf("error %v", err)
	}
}

func TestPauseGrowsAndStaysShort(t *testing.T) {
	t.Parallel()
	for retry, full := range map[int]time.Duration{1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 5: 2 * time.Second, 1000: 2 * time.Second} {
		for range 100 {
			if got := pause(retry); got < full/2 || got > full {
				t.Fatalf("pause %d: %v, want %v to %v", retry, got, full/2, full)
			}
		}
	}
}

func TestWaitForARetryEndsWithTheContext(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{status: 500})
	api := newTestAPI(t, server.URL, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	api.pauseFunc = func(int) time.Duration { cancel(); return time.Hour }
	_, err := api.GetCustomer(ctx, uuid.New())
	if got := wantAPIError(t, err); got.Status != 500 || server.count() != 1 {
		t.Errorf("error %v, %d requests", err, server.count())
	}
}
