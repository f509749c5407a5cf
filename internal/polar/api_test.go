package polar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

const (
	testToken = "polar_oat_do_not_show"
	testDate  = "Sat, 22 Aug 2026 09:00:00 GMT"
)

// reply is what the test server answers with.
type reply struct {
	status int // 0: 200
	header map[string]string
	body   string
}

// testServer answers one request after another with the replies, the last one
// for ever, and keeps what it was asked.
type testServer struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func newTestServer(t *testing.T, replies ...reply) *testServer {
	t.Helper()
	server := &testServer{}
	server.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading a request: %v", err)
		}
		server.mu.Lock()
		answer := replies[min(len(server.requests), len(replies)-1)]
		server.requests = append(server.requests, r)
		server.bodies = append(server.bodies, string(body))
		server.mu.Unlock()
		w.Header().Set("Date", testDate)
		for name, value := range answer.header {
			w.Header().Set(name, value)
		}
		if answer.status != 0 {
			w.WriteHeader(answer.status)
		}
		_, _ = io.WriteString(w, answer.body)
	}))
	t.Cleanup(server.Close)
	return server
}

func (s *testServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func newTestAPI(t *testing.T, baseURL string, config Config) *API {
	t.Helper()
	config.BaseURL, config.Token = baseURL+"/v1", testToken
	api, err := New(config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	api.pauseFunc = func(int) time.Duration { return 0 }
	return api
}

// wantAPIError returns err as an *APIError that shows no secret.
func wantAPIError(t *testing.T, err error) *APIError {
	t.Helper()
	apiErr, ok := errors.AsType[*APIError](err)
	if !ok {
		t.Fatalf("error %v (%T), want an *APIError", err, err)
	}
	if text := fmt.Sprintf("%v %+v", err, apiErr); strings.Contains(text, testToken) {
		t.Errorf("the error shows the token: %s", text)
	}
	return apiErr
}

func customerJSON(externalID string) string {
	quoted, _ := json.Marshal(externalID)
	return `{"id":"` + testID + `","organization_id":"` + testOtherID + `","external_id":` + string(quoted) + `,"created_at":"` + testChangeAt + `","modified_at":null}`
}

func page(maxPage int, items ...string) string {
	return fmt.Sprintf(`{"items":[%s],"pagination":{"total_count":%d,"max_page":%d}}`, strings.Join(items, ","), len(items), maxPage)
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"no token":        {Config{}, "POLAR_ACCESS_TOKEN is empty"},
		"blank token":     {Config{Token: " \n"}, "POLAR_ACCESS_TOKEN is empty"},
		"broken token":    {Config{Token: testToken + "\nx"}, "POLAR_ACCESS_TOKEN holds"},
		"no scheme":       {Config{Token: testToken, BaseURL: "api.polar.sh/v1"}, "POLAR_API_URL"},
		"no host":         {Config{Token: testToken, BaseURL: "https:///v1"}, "POLAR_API_URL"},
		"another scheme":  {Config{Token: testToken, BaseURL: "ftp://api.polar.sh/v1"}, "POLAR_API_URL"},
		"not a URL":       {Config{Token: testToken, BaseURL: "https://user:hidden@[::1"}, "POLAR_API_URL"},
		"user in the URL": {Config{Token: testToken, BaseURL: "https://user:hidden@api.polar.sh/v1"}, "POLAR_API_URL"},
		"query":           {Config{Token: testToken, BaseURL: "https://api.polar.sh/v1?a=b"}, "POLAR_API_URL"},
		"broken version":  {Config{Token: testToken, Version: "2026 10"}, "POLAR_VERSION"},
		"time-out":        {Config{Token: testToken, Timeout: -1}, "time-out"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("New: %v, want an error with %q", err, test.want)
			}
			if strings.Contains(err.Error(), testToken) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestRequestsCarryTokenVersionAndParameters(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{body: page(1)})
	api := newTestAPI(t, server.URL+"/", Config{UserAgent: "truenorth/1.2", Version: "2027-01"})
	api.base.Path = "/v1"
	got, err := api.ListCheckouts(t.Context(), CheckoutFilter{
		Status: []CheckoutStatus{CheckoutStatusOpen, CheckoutStatusConfirmed}, CustomerID: uuid.MustParse(testID),
		Sorting: "-created_at", Page: 2, Limit: 1000,
	})
	if err != nil || len(got.Items) != 0 || got.MaxPage != 1 || got.ReadAt.Format(http.TimeFormat) != testDate {
		t.Errorf("ListCheckouts: %+v, %v", got, err)
	}
	request := server.requests[0]
	for name, want := range map[string]string{
		"Authorization": "Bearer " + testToken, "Polar-Version": "2027-01", "Accept": "application/json", "User-Agent": "truenorth/1.2",
	} {
		if request.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, request.Header.Get(name), want)
		}
	}
	const want = "customer_id=" + testID + "&limit=100&page=2&sorting=-created_at&status=open&status=confirmed"
	if request.URL.Path != "/v1/checkouts/" || request.URL.RawQuery != want {
		t.Errorf("GET %s, want /v1/checkouts/?%s", request.URL, want)
	}
}

func TestDocumentsComeWithPolarsClockAndTheirBytes(t *testing.T) {
	t.Parallel()
	body := "{ \"id\": \"" + testID + "\",\n \"status\": \"brand_new\", \"new\": {\"a\": 1.50} }"
	server := newTestServer(t, reply{body: body}, reply{body: body, header: map[string]string{"Date": "yesterday"}})
	api := newTestAPI(t, server.URL, Config{})
	checkout, err := api.GetCheckout(t.Context(), uuid.MustParse(testID))
	if err != nil || checkout.Status != "brand_new" || string(checkout.Raw) != body || checkout.ReadAt.Format(http.TimeFormat) != testDate {
		t.Errorf("GetCheckout: %+v, %v", checkout, err)
	}
	if checkout, err = api.GetCheckout(t.Context(), uuid.MustParse(testID)); err != nil || !checkout.ReadAt.IsZero() {
		t.Errorf("GetCheckout without a Date: %+v, %v", checkout, err)
	}
}

func TestWritesSendTheirParameters(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{status: 201, body: customerJSON("a")})
	api := newTestAPI(t, server.URL, Config{})
	params := `{ "products": ["` + testID + `"], "unknown": 1.0 }`
	if _, err := api.CreateCheckout(t.Context(), json.RawMessage(params)); err != nil {
		t.Error(err)
	}
	if _, err := api.CreateCustomer(t.Context(), CustomerCreate{Email: "a@example.com", ExternalID: "a<b"}); err != nil {
		t.Error(err)
	}
	if _, err := api.SetCustomerExternalID(t.Context(), uuid.MustParse(testID), "a"); err != nil {
		t.Error(err)
	}
	want := []string{params, `{"type":"individual","email":"a@example.com","external_id":"a\u003cb"}`, `{"external_id":"a"}`}
	if !slices.Equal(server.bodies, want) {
		t.Errorf("bodies %q, want %q", server.bodies, want)
	}
	for i, wantLine := range []string{"POST /v1/checkouts/", "POST /v1/customers/", "PATCH /v1/customers/" + testID} {
		if r := server.requests[i]; r.Method+" "+r.URL.Path != wantLine || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s (%s), want %s", r.Method, r.URL, r.Header.Get("Content-Type"), wantLine)
		}
	}
	for _, broken := range []string{"", "{"} {
		if _, err := api.CreateCheckout(t.Context(), json.RawMessage(broken)); err == nil || OutcomeUnknown(err) {
			t.Errorf("CreateCheckout(%q): %v", broken, err)
		}
	}
	if _, err := api.SetCustomerExternalID(t.Context(), uuid.New(), ""); err == nil || OutcomeUnknown(err) {
		t.Errorf("SetCustomerExternalID of nothing: %v", err)
	}
	if server.count() != 3 {
		t.Errorf("%d requests, want 3", server.count())
	}
}

func TestExternalIDsAreEscapedInThePath(t *testing.T) {
	t.Parallel()
	for externalID, want := range map[string]string{
		"usr_1337":   "usr_1337",
		"a b":        "a%20b",
		"a?b#c%d&e+": "a%3Fb%23c%25d&e+",
		"%2F..":      "%252F..",
		`a\b`:        "a%5Cb",
		"é;,{}":      "%C3%A9%3B%2C%7B%7D",
		"...":        "...",
	} {
		server := newTestServer(t, reply{body: customerJSON(externalID)})
		customer, err := newTestAPI(t, server.URL, Config{}).GetCustomerByExternalID(t.Context(), externalID)
		if err != nil || customer.ExternalID != externalID {
			t.Errorf("%q: %+v, %v", externalID, customer, err)
		}
		r := server.requests[0]
		if r.URL.EscapedPath() != "/v1/customers/external/"+want || r.URL.Path != "/v1/customers/external/"+externalID || r.URL.RawQuery != "" {
			t.Errorf("%q: path %q, want it to end in %q", externalID, r.URL.EscapedPath(), want)
		}
	}
}

func TestExternalIDsUnfitForAPathAreSearchedAndComparedExactly(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2000)
	for externalID, wantQuery := range map[string]string{
		"a/b": "a/b", "/": "/", ".": ".", "..": "..", "a/b\\c": "a/b", "a\nb": "a\nb", long: long[:100],
	} {
		server := newTestServer(t,
			reply{body: page(2, customerJSON(externalID+"x"), customerJSON(strings.ToUpper(externalID+"é")))},
			reply{body: page(2, customerJSON(""), customerJSON(externalID))},
		)
		customer, err := newTestAPI(t, server.URL, Config{}).GetCustomerByExternalID(t.Context(), externalID)
		if err != nil || customer.ExternalID != externalID || server.count() != 2 {
			t.Errorf("%.20q: %+v, %v", externalID, customer, err)
			continue
		}
		query := server.requests[1].URL.Query()
		want := url.Values{"query": {wantQuery}, "page": {"2"}, "limit": {"100"}, "sorting": {"created_at"}}
		if server.requests[1].URL.Path != "/v1/customers/" || query.Encode() != want.Encode() {
			t.Errorf("%.20q: %s, want %v", externalID, server.requests[1].URL, want)
		}
	}
}

func TestUnknownExternalIDsAreNotFound(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		externalID string
		reply      reply
		requests   int
	}{
		"empty":          {"", reply{body: customerJSON("")}, 0},
		"unknown":        {"a", reply{status: 404, body: `{"error":"ResourceNotFound","detail":"Not found"}`}, 1},
		"another's":      {"a", reply{body: customerJSON("A")}, 1},
		"not in search":  {"a/b", reply{body: page(1, customerJSON("a/bc"))}, 1},
		"nothing at all": {"a/b", reply{body: page(0)}, 1},
		"pages for ever": {"a/b", reply{body: page(1000)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, test.reply)
			_, err := newTestAPI(t, server.URL, Config{}).GetCustomerByExternalID(t.Context(), test.externalID)
			if wantAPIError(t, err); !IsNotFound(err) || OutcomeUnknown(err) || server.count() != test.requests {
				t.Errorf("%v, %d requests; want not found after %d", err, server.count(), test.requests)
			}
		})
	}
}

func TestListThatCannotBeReadIsNoEmptyList(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"not JSON":      `<html>`,
		"empty":         ``,
		"null":          `null`,
		"a list":        `[]`,
		"no items":      `{"pagination":{"total_count":0,"max_page":0}}`,
		"items null":    `{"items":null,"pagination":{"total_count":0,"max_page":0}}`,
		"items object":  `{"items":{},"pagination":{"total_count":0,"max_page":0}}`,
		"no pagination": `{"items":[]}`,
		"no last page":  `{"items":[],"pagination":{"total_count":0}}`,
		"item, no id":   page(1, customerJSON("a"), `{"id":"cus_1"}`),
		"item null":     page(1, `null`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, reply{body: body})
			got, err := newTestAPI(t, server.URL, Config{}).ListCustomers(t.Context(), CustomerFilter{})
			if apiErr := wantAPIError(t, err); apiErr.Err == nil || len(got.Items) > 0 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestOrganizationIsThatOfTheFirstThingTheTokenSees(t *testing.T) {
	t.Parallel()
	const none, refused = `{"items":[],"pagination":{"total_count":0,"max_page":0}}`, `{"error":"NotPermitted","detail":"No scope"}`
	for name, test := range map[string]struct {
		replies  []reply
		want     string
		failed   bool
		requests int
	}{
		"a product":            {[]reply{{body: page(1, customerJSON("a"))}}, testOtherID, false, 1},
		"a customer":           {[]reply{{body: none}, {body: page(1, customerJSON("a"))}}, testOtherID, false, 2},
		"a checkout":           {[]reply{{body: none}, {body: none}, {body: page(1, customerJSON("a"))}}, testOtherID, false, 3},
		"nothing":              {[]reply{{body: none}}, "", false, 3},
		"no scope, a checkout": {[]reply{{status: 403, body: refused}, {body: none}, {body: page(1, customerJSON("a"))}}, testOtherID, false, 3},
		"no scope for some":    {[]reply{{status: 403, body: refused}, {body: none}}, "", false, 3},
		"no scope at all":      {[]reply{{status: 403, body: refused}}, "", true, 3},
		"token unknown":        {[]reply{{status: 401}}, "", true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, test.replies...)
			got, err := newTestAPI(t, server.URL, Config{}).OrganizationOf(t.Context())
			if got != test.want || (err != nil) != test.failed || server.count() != test.requests {
				t.Errorf("%q, %v, %d requests; want %q, failure %v, %d", got, err, server.count(), test.want, test.failed, test.requests)
			}
		})
	}
}
