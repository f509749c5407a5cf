package polar

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Where Polar's API is, and the version of it that truenorth is written for.
const (
	ProductionURL  = "https://api.polar.sh/v1"
	SandboxURL     = "https://sandbox-api.polar.sh/v1"
	DefaultVersion = "2026-10"
)

// MaxPageSize is the largest page that Polar serves.
const MaxPageSize = 100

const (
	defaultTimeout    = 15 * time.Second
	defaultMaxRetries = 2
	defaultUserAgent  = "truenorth"
)

// Config says how to reach Polar. Only Token is required.
type Config struct {
	BaseURL string // default [ProductionURL]
	Token   string // an organization access token
	Version string // sent as Polar-Version; default [DefaultVersion]

	HTTPClient *http.Client // default: one of its own; redirects are never followed

	// Around, if set, gives the transport that stands around the one that
	// HTTP requests are made with. CallOf tells it what they are for.
	Around func(http.RoundTripper) http.RoundTripper

	UserAgent string       // default "truenorth"
	Logger    *slog.Logger // default: none

	Timeout    time.Duration // of one HTTP request, its answer included; default 15 s
	MaxRetries int           // of a read that got no answer or a 5xx; default 2, negative for none

	// Gate, if set, is called before every HTTP request, retries included. It
	// waits for the budget; if it returns an error, nothing is sent and the
	// call fails with that error.
	Gate func(context.Context, Call) error

	// OnResponse, if set, is called with every answer before it is decoded.
	OnResponse func(ResponseInfo)
}

// Call is an HTTP request that is about to be made.
type Call struct {
	Method  string
	Route   string // such as "/v1/checkouts/{id}": fit for a metric's label
	Attempt int    // 1 for the first, more for retries
}

type callKey struct{}

// CallOf is the call that a request with this context is made for; its zero
// value, if it is made for none.
func CallOf(ctx context.Context) Call {
	c, _ := ctx.Value(callKey{}).(Call)
	return c
}

// ResponseInfo is what the head of an answer tells.
type ResponseInfo struct {
	Call
	Status     int
	RetryAfter time.Duration // 0 if Polar does not say
	Date       time.Time     // by Polar's clock, to the second; zero if missing
	Duration   time.Duration // from the request to the end of the answer
}

// API is a client of Polar's API. It is safe for concurrent use.
//
// A failed call is an [*APIError]. Reads are tried again, with a short pause,
// when there was no answer or a 5xx; writes never are, as Polar knows no
// idempotency key (see [OutcomeUnknown]). A 429 is never waited for here.
type API struct {
	base       *url.URL
	config     Config
	httpClient *http.Client
	logger     *slog.Logger
	pauseFunc  func(retry int) time.Duration
}

// New returns a client of Polar's API.
func New(config Config) (*API, error) {
	config.BaseURL = cmp.Or(config.BaseURL, ProductionURL)
	config.Version = cmp.Or(config.Version, DefaultVersion)
	config.UserAgent = cmp.Or(config.UserAgent, defaultUserAgent)
	config.Timeout = cmp.Or(config.Timeout, defaultTimeout)
	config.MaxRetries = cmp.Or(config.MaxRetries, defaultMaxRetries)

	config.Token = strings.TrimSpace(config.Token)
	switch {
	case config.Token == "":
		return nil, errors.New("POLAR_ACCESS_TOKEN is empty: create an organization access token in Polar's settings")
	case !isHeaderToken(config.Token):
		return nil, errors.New("POLAR_ACCESS_TOKEN holds white space or characters that no token has")
	case !isHeaderToken(config.Version):
		return nil, fmt.Errorf("POLAR_VERSION is %q: it has to be like %s", config.Version, DefaultVersion)
	case config.Timeout < 0:
		return nil, fmt.Errorf("the time-out of Polar's API is %v: it has to be above zero", config.Timeout)
	}
	base, err := parseBaseURL(config.BaseURL)
	if err != nil {
		return nil, err
	}

	httpClient := &http.Client{}
	if config.HTTPClient != nil {
		*httpClient = *config.HTTPClient
	} else if transport, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = transport.Clone()
		transport.MaxIdleConnsPerHost = 32
		transport.DialContext = revocableDialer(config.Timeout)
		// Of HTTP/2's connections a call that is given up leaves its bytes behind, as other calls share them. What the default
		// transport offers in TLS has to go too, or Polar takes it.
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
		transport.TLSClientConfig = &tls.Config{NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
		httpClient.Transport = transport
	}
	if config.Around != nil {
		httpClient.Transport = config.Around(cmp.Or(httpClient.Transport, http.DefaultTransport))
	}
	// The token goes nowhere but where it was meant for.
	httpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &API{base: base, config: config, httpClient: httpClient, logger: logger, pauseFunc: pause}, nil
}

// revocableDialer connects so that closing takes back what is not delivered yet. Otherwise the kernel would go on trying after a
// call was given up, and once the network is well again Polar would do minutes later what somebody else has had done meanwhile.
// Of a process that is frozen, and so closes nothing, the kernel itself gives up after timeout, where it can be told to.
func revocableDialer(timeout time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	const patience = 30 * time.Second // as http.DefaultTransport has it
	dialer := &net.Dialer{Timeout: patience, KeepAlive: patience, Control: giveUpAfter(timeout)}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err //nolint:wrapcheck // the transport says where to
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // best effort
		}
		return conn, nil
	}
}

func parseBaseURL(text string) (*url.URL, error) {
	base, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil {
		// The error of net/url quotes the text, which may hold a password.
		return nil, errors.New("POLAR_API_URL is not a URL: it has to be like " + ProductionURL)
	}
	switch {
	case base.Scheme != "https" && base.Scheme != "http", base.Host == "":
		return nil, fmt.Errorf("POLAR_API_URL is %q: it has to be like %s", base.Redacted(), ProductionURL)
	case base.User != nil, base.RawQuery != "", base.Fragment != "":
		return nil, fmt.Errorf("POLAR_API_URL is %q: it may not have a user, a query or a fragment", base.Redacted())
	}
	return base, nil
}

// isHeaderToken tells whether text can stand in a header: visible ASCII only.
func isHeaderToken(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return text != ""
}

// pause is how long to wait before a retry: from 0.2 s, doubled each time up
// to 2 s, a random half of it taken off so that processes do not go in step.
func pause(retry int) time.Duration {
	const first, longest = 200 * time.Millisecond, 2 * time.Second
	full := min(first<<min(retry-1, 10), longest)
	return full/2 + rand.N(full/2+1) //nolint:gosec // jitter is no secret
}

// Page is one page of a list.
type Page[T any] struct {
	Items      []T
	TotalCount int
	MaxPage    int       // the number of the last page; 0 or 1 if there is only one
	ReadAt     time.Time // by Polar's clock; zero if it did not say
}

// CheckoutFilter says which checkout sessions to list.
type CheckoutFilter struct {
	Status     []CheckoutStatus // any of these; empty: all
	CustomerID uuid.UUID        // uuid.Nil: of all customers
	Sorting    string           // a field, with "-" in front for descending; "": Polar's own, "-created_at"
	Page       int              // from 1, which is the default
	Limit      int              // default and maximum: [MaxPageSize]
}

// CustomerFilter says which customers to list.
type CustomerFilter struct {
	Email   string // exactly, but for upper and lower case; "": all
	Query   string // part of name or e-mail, or the beginning of the external id; "": all
	Sorting string // a field, with "-" in front for descending; "": Polar's own, "-created_at"
	Page    int    // from 1, which is the default
	Limit   int    // default and maximum: [MaxPageSize]
}

// CustomerCreate is a customer to create.
type CustomerCreate struct {
	Email      string            `json:"email"`
	ExternalID string            `json:"external_id,omitempty"`
	Name       string            `json:"name,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// CreateCheckout creates a checkout session from Polar's own JSON of one.
// After an error, ask [OutcomeUnknown] before doing it again.
func (a *API) CreateCheckout(ctx context.Context, params json.RawMessage) (Checkout, error) {
	if !json.Valid(params) {
		return Checkout{}, errors.New("creating checkout: the parameters are not JSON")
	}
	c := a.newCall(http.MethodPost, "/checkouts/")
	c.body = params
	return fetch(ctx, a, c, readCheckout)
}

// GetCheckout reads a checkout session.
func (a *API) GetCheckout(ctx context.Context, id uuid.UUID) (Checkout, error) {
	c := a.newCall(http.MethodGet, "/checkouts/{id}", id.String())
	return fetch(ctx, a, c, readCheckout)
}

// ListCheckouts reads a page of the checkout sessions.
func (a *API) ListCheckouts(ctx context.Context, filter CheckoutFilter) (Page[Checkout], error) {
	query := pageQuery(filter.Page, filter.Limit, filter.Sorting)
	for _, status := range filter.Status {
		query.Add("status", string(status))
	}
	if filter.CustomerID != uuid.Nil {
		query.Set("customer_id", filter.CustomerID.String())
	}
	c := a.newCall(http.MethodGet, "/checkouts/")
	c.query = query
	return fetchPage(ctx, a, c, readCheckout)
}

// CreateCustomer creates a customer. After an error, ask [OutcomeUnknown]
// before doing it again.
func (a *API) CreateCustomer(ctx context.Context, params CustomerCreate) (Customer, error) {
	body, err := json.Marshal(struct {
		Type string `json:"type"`
		CustomerCreate
	}{"individual", params})
	if err != nil {
		return Customer{}, fmt.Errorf("encoding customer: %w", err)
	}
	c := a.newCall(http.MethodPost, "/customers/")
	c.body = body
	return fetch(ctx, a, c, readCustomer)
}

// GetCustomer reads a customer by Polar's id.
func (a *API) GetCustomer(ctx context.Context, id uuid.UUID) (Customer, error) {
	c := a.newCall(http.MethodGet, "/customers/{id}", id.String())
	return fetch(ctx, a, c, readCustomer)
}

const externalIDRoute = "/customers/external/{external_id}"

// GetCustomerByExternalID reads the customer that bears exactly this external
// id. If there is none, or if the id is empty, the error is an [IsNotFound].
func (a *API) GetCustomerByExternalID(ctx context.Context, externalID string) (Customer, error) {
	switch {
	case externalID == "":
		// To Polar the empty id is none, and a customer without one is not meant.
		return Customer{}, a.notFound(externalIDRoute, "no customer bears the empty external id")
	case !isPathSafe(externalID):
		return a.searchExternalID(ctx, externalID)
	}
	c := a.newCall(http.MethodGet, externalIDRoute, externalID)
	customer, err := fetch(ctx, a, c, readCustomer)
	if err != nil {
		return Customer{}, err
	}
	if customer.ExternalID != externalID {
		return Customer{}, a.notFound(externalIDRoute, "Polar answered with a customer that bears another external id")
	}
	return customer, nil
}

// isPathSafe tells whether an external id, escaped, stays one segment of a
// path on its way through proxies and routers.
func isPathSafe(externalID string) bool {
	const longest = 1000 // bytes; each may take three, and proxies limit the whole
	return externalID != "." && externalID != ".." && len(externalID) <= longest &&
		utf8.ValidString(externalID) &&
		!strings.ContainsFunc(externalID, func(r rune) bool { return r == '/' || unicode.IsControl(r) })
}

// searchExternalID finds a customer by pages of Polar's search, which looks
// for the beginning of the external id among others.
func (a *API) searchExternalID(ctx context.Context, externalID string) (Customer, error) {
	const longest = 100 // runes of the search; the comparison is by the whole id
	query := externalID
	// A backslash may be an escape to the search, so look for what is before it.
	if end := strings.IndexAny(query, "\\\x00"); end >= 0 {
		query = query[:end]
	}
	if runes := []rune(query); len(runes) > longest {
		query = string(runes[:longest])
	}
	for page := 1; ; page++ {
		found, err := a.ListCustomers(ctx, CustomerFilter{Query: query, Sorting: "created_at", Page: page})
		if err != nil {
			return Customer{}, err
		}
		for _, customer := range found.Items {
			if customer.ExternalID == externalID {
				return customer, nil
			}
		}
		if page >= found.MaxPage || len(found.Items) == 0 {
			return Customer{}, a.notFound(externalIDRoute, "the search finds no customer with this external id")
		}
	}
}

func (a *API) notFound(route, message string) *APIError {
	return &APIError{
		Method:  http.MethodGet,
		Path:    a.base.Path + route,
		Status:  http.StatusNotFound,
		Message: message,
	}
}

// ListCustomers reads a page of the customers that are not deleted.
func (a *API) ListCustomers(ctx context.Context, filter CustomerFilter) (Page[Customer], error) {
	query := pageQuery(filter.Page, filter.Limit, filter.Sorting)
	if filter.Email != "" {
		query.Set("email", filter.Email)
	}
	if filter.Query != "" {
		query.Set("query", filter.Query)
	}
	c := a.newCall(http.MethodGet, "/customers/")
	c.query = query
	return fetchPage(ctx, a, c, readCustomer)
}

// SetCustomerExternalID writes the external id of a customer. Polar takes it
// once only: another id afterwards is an [IsValidation], the same one is fine.
func (a *API) SetCustomerExternalID(ctx context.Context, id uuid.UUID, externalID string) (Customer, error) {
	if externalID == "" {
		return Customer{}, fmt.Errorf("setting external id of customer %s: the id is empty", id)
	}
	body, err := json.Marshal(map[string]string{"external_id": externalID})
	if err != nil {
		return Customer{}, fmt.Errorf("encoding external id: %w", err)
	}
	c := a.newCall(http.MethodPatch, "/customers/{id}", id.String())
	c.body = body
	return fetch(ctx, a, c, readCustomer)
}

// ListProducts reads a page of the products, oldest first.
func (a *API) ListProducts(ctx context.Context, page, limit int) (Page[Product], error) {
	query := pageQuery(page, limit, "created_at")
	c := a.newCall(http.MethodGet, "/products/")
	c.query = query
	return fetchPage(ctx, a, c, readProduct)
}

// OrganizationOf returns the id of the organization that the token sees, as
// its first product, customer or checkout has it, and "" if there is none.
// Lists that the token has no scope for are passed over, if any can be read.
func (a *API) OrganizationOf(ctx context.Context) (string, error) {
	lists := []func() (string, error){
		func() (string, error) {
			page, err := a.ListProducts(ctx, 1, 1)
			return firstOrganization(page, func(p Product) string { return p.OrganizationID }), err
		},
		func() (string, error) {
			page, err := a.ListCustomers(ctx, CustomerFilter{Sorting: "created_at", Limit: 1})
			return firstOrganization(page, func(c Customer) string { return c.OrganizationID }), err
		},
		func() (string, error) {
			page, err := a.ListCheckouts(ctx, CheckoutFilter{Sorting: "created_at", Limit: 1})
			return firstOrganization(page, func(c Checkout) string { return c.OrganizationID }), err
		},
	}
	var refused []error
	for _, listFunc := range lists {
		organization, err := listFunc()
		switch {
		case IsForbidden(err):
			refused = append(refused, err)
		case err != nil:
			return "", fmt.Errorf("finding the organization of the token: %w", err)
		case organization != "":
			return organization, nil
		}
	}
	if len(refused) == len(lists) {
		return "", fmt.Errorf("finding the organization of the token: %w", errors.Join(refused...))
	}
	return "", nil
}

func firstOrganization[T any](page Page[T], organization func(T) string) string {
	for _, item := range page.Items {
		if id := organization(item); id != "" {
			return id
		}
	}
	return ""
}

func pageQuery(page, limit int, sorting string) url.Values {
	if limit < 1 || limit > MaxPageSize {
		limit = MaxPageSize
	}
	query := url.Values{
		"page":  {strconv.Itoa(max(page, 1))},
		"limit": {strconv.Itoa(limit)},
	}
	if sorting != "" {
		query.Set("sorting", sorting)
	}
	return query
}

func readCheckout(raw json.RawMessage, readAt time.Time) (Checkout, error) {
	checkout, err := DecodeCheckout(raw)
	checkout.ReadAt = readAt
	return checkout, err
}

func readCustomer(raw json.RawMessage, readAt time.Time) (Customer, error) {
	customer, err := DecodeCustomer(raw)
	customer.ReadAt = readAt
	return customer, err
}

func readProduct(raw json.RawMessage, readAt time.Time) (Product, error) {
	product, err := DecodeProduct(raw)
	product.ReadAt = readAt
	return product, err
}
