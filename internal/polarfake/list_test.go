package polarfake_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/polartest"
)

// parameter is one that a list takes, by Polar's own document.
type parameter struct {
	name, format, kind string
	choices            []string
}

// parameters returns those of an operation, with what a value has to look like.
func (api *openAPI) parameters(operation document) []parameter {
	var found []parameter
	for _, element := range operation.list("parameters") {
		given := asObject(element)
		if given.text("in") != "query" {
			continue
		}
		p := parameter{name: given.text("name")}
		api.describe(given.object("schema"), &p)
		found = append(found, p)
	}
	return found
}

func (api *openAPI) describe(schema document, p *parameter) {
	if reference := schema.text("$ref"); reference != "" {
		api.describe(api.schemas.object(strings.TrimPrefix(reference, "#/components/schemas/")), p)
		return
	}
	for _, variants := range [][]any{schema.list("anyOf"), {schema["items"]}} {
		for _, variant := range variants {
			if inner := asObject(variant); inner.text("type") != "null" && len(inner) > 0 {
				api.describe(inner, p)
			}
		}
	}
	if kind := schema.text("type"); kind != "" && kind != "array" && kind != "null" {
		p.kind, p.format = kind, schema.text("format")
	}
	for _, choice := range schema.list("enum") {
		if text, ok := choice.(string); ok && !slices.Contains(p.choices, text) {
			p.choices = append(p.choices, text)
		}
	}
}

var everyList = []string{
	"/v1/customers/", "/v1/checkouts/", "/v1/orders/", "/v1/subscriptions/", "/v1/refunds/", "/v1/products/", "/v1/discounts/",
	"/v1/benefits/", "/v1/benefit-grants/", "/v1/members/", "/v1/organizations/", "/v1/webhooks/endpoints", "/v1/webhooks/deliveries",
}

// Each parameter is read, which shows in the refusal of what makes no sense for it.
func TestListsTakePolarsParametersAndNoOtherOrder(t *testing.T) {
	t.Parallel()

	api := openAPIOrNil(t)
	if api == nil {
		t.Skipf("%s is absent, so that the lists were not compared with Polar's OpenAPI document", polartest.Folder())
	}
	b := setup(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions = true })
	playEverything(b)
	b.idle()
	for _, path := range everyList {
		parameters := api.parameters(api.operation["GET "+path])
		if len(parameters) < 2 {
			t.Fatalf("%s takes %v", path, parameters)
		}
		takesSorting := false
		for _, p := range parameters {
			wrong := ""
			switch {
			case len(p.choices) > 0:
				wrong = "nonsense"
				for _, choice := range p.choices {
					b.expect(http.StatusOK, http.MethodGet, path+"?"+p.name+"="+choice, "")
				}
			case p.format == "uuid4", p.format == "date-time", p.kind == "boolean", p.kind == "integer":
				wrong = "nonsense"
			}
			takesSorting = takesSorting || p.name == "sorting"
			if wrong != "" {
				b.expect(http.StatusUnprocessableEntity, http.MethodGet, path+"?"+p.name+"="+wrong, "")
			}
		}
		if !takesSorting {
			b.expect(http.StatusOK, http.MethodGet, path+"?sorting=nonsense", "") // ignored, as everything that is unknown
		}
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/subscriptions/?sorting=created_at", "")
	b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/orders/?sorting=modified_at", "")
}

func TestListsAreFiltered(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions, o.Clock = true, clock.Now })
	playEverything(b)
	b.idle()
	first := clock.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	clock.advance(time.Hour)
	b.must(b.Pay(b.checkoutOf(polarfake.OneTimeProductID, `"metadata":{"k":"v"}`).text("id"), polarfake.PayOptions{Email: "late@example.com"}))
	late := b.expect(http.StatusOK, http.MethodGet, "/v1/orders/?limit=1", "").items()[0]
	lateSubscription := b.subscribed(polarfake.MonthlyProductID, "late@example.com", "")
	b.must(b.CancelSubscription(lateSubscription.text("id")))
	refunded := b.expect(http.StatusOK, http.MethodGet, "/v1/orders/?status=refunded", "").items()[0]

	for path, want := range map[string]int{
		"/v1/orders/?created_after=" + first:                              2,
		"/v1/orders/?metadata[k]=v":                                       1,
		"/v1/orders/?customer_id=" + late.text("customer_id"):             2,
		"/v1/orders/?external_customer_id=usr_1":                          1,
		"/v1/orders/?discount_id=" + refunded.text("discount_id"):         1,
		"/v1/orders/?checkout_id=" + late.text("checkout_id"):             1,
		"/v1/orders/?status=refunded&status=partially_refunded":           1,
		"/v1/subscriptions/?status=canceled":                              1,
		"/v1/subscriptions/?active=true":                                  3,
		"/v1/subscriptions/?cancel_at_period_end=true":                    1,
		"/v1/subscriptions/?canceled_at_after=" + first:                   1,
		"/v1/subscriptions/?started_after=" + first:                       1,
		"/v1/subscriptions/?started_before=" + first + "&active=true":     2,
		"/v1/subscriptions/?customer_cancellation_reason=unused":          0,
		"/v1/refunds/?succeeded=true":                                     2,
		"/v1/refunds/?succeeded=false":                                    2, // which Polar does not take for a filter
		"/v1/refunds/?order_id=" + refunded.text("id"):                    2,
		"/v1/refunds/?external_customer_id=nobody":                        0,
		"/v1/benefits/?type=feature_flag":                                 0,
		"/v1/benefits/?query=PERK":                                        1,
		"/v1/discounts/?query=nothing":                                    0,
		"/v1/benefit-grants/?customer_id=" + late.text("customer_id"):     2,
		"/v1/benefit-grants/?external_customer_id=usr_1&is_granted=false": 1,
		"/v1/products/?metadata[k]=v":                                     0,
		"/v1/webhooks/endpoints?organization_id=" + refunded.text("id"):   0,
	} {
		path, query, _ := strings.Cut(path, "?")
		if got := len(b.expect(http.StatusOK, http.MethodGet, path+"?limit=100&"+strings.ReplaceAll(query, "+", "%2B"), "").items()); got != want {
			t.Errorf("%s?%s: %d, want %d", path, query, got, want)
		}
	}
	for _, billing := range []string{"one_time", "recurring"} {
		for _, o := range b.expect(http.StatusOK, http.MethodGet, "/v1/orders/?limit=100&product_billing_type="+billing, "").items() {
			if o.object("product")["is_recurring"] != (billing == "recurring") {
				t.Errorf("%s: %v", billing, o.object("product"))
			}
		}
	}
}

func TestWhatHasNotStartedIsSortedAsPostgresSortsNull(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions = true })
	buyer := b.customer(`{"email":"buyer@example.com"}`).text("id")
	body := `{"product_id":"` + polarfake.MonthlyProductID + `","customer_id":"` + buyer + `"}`
	waiting := b.read(b.SubscribeIncomplete(body)).text("id")
	first := b.subscribed(polarfake.MonthlyProductID, "", `"customer_id":"`+buyer+`"`).text("id")
	second := b.subscribed(polarfake.MonthlyProductID, "", `"customer_id":"`+buyer+`"`).text("id")
	order := func(sorting string) []string {
		var ids []string
		for _, item := range b.expect(http.StatusOK, http.MethodGet, "/v1/subscriptions/?"+sorting, "").items() {
			ids = append(ids, item.text("id"))
		}
		return ids
	}
	for sorting, want := range map[string][]string{
		"sorting=started_at":             {first, second, waiting},
		"sorting=-started_at":            {waiting, second, first},
		"":                               {waiting, second, first},
		"sorting=status&sorting=-amount": {first, second, waiting},
	} {
		if got := order(sorting); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", sorting, got, want)
		}
	}
	b.must(b.RevokeSubscription(second))
	if got := order("sorting=ended_at"); got[0] != second {
		t.Errorf("what has not ended comes first: %v", got)
	}
	if got := order("sorting=-ended_at"); got[2] != second {
		t.Errorf("what has not ended comes last in descending order: %v", got)
	}
	b.must(b.StartSubscription(waiting))
	if got := order("sorting=started_at"); !slices.Equal(got, []string{first, second, waiting}) {
		t.Errorf("after the start: %v", got)
	}
}

func TestListsKeepTheOrderOfAClockThatIsSetBack(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	later := b.customer(`{"email":"later@example.com"}`).text("id")
	clock.advance(-time.Hour)
	earlier := b.customer(`{"email":"earlier@example.com"}`).text("id")
	items := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/?sorting=created_at", "").items()
	if len(items) != 2 || items[0].text("id") != earlier || items[1].text("id") != later {
		t.Errorf("customers %v", items)
	}
	b.must(b.DeleteCustomer(earlier))
	if items := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/", "").items(); len(items) != 1 || items[0].text("id") != later {
		t.Errorf("customers %v", items)
	}
}

func TestSeededObjectsAreAMicrosecondApart(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.SeedCustomers(150, "a_")
	b.SeedCustomers(150, "b_")
	b.SeedOrders(120)
	b.SeedSubscriptions(120)
	b.SeedCheckouts(120)
	for _, list := range []struct{ objectType, field string }{
		{"customer", "created_at"}, {"order", "created_at"}, {"subscription", "started_at"}, {"checkout", "created_at"},
	} {
		var last time.Time
		n := 0
		for page := 1; page <= 3; page++ {
			path, _, _ := strings.Cut(listPaths[list.objectType], "?")
			query := url.Values{"sorting": {list.field}, "limit": {"100"}, "page": {[]string{"1", "2", "3"}[page-1]}}
			for _, item := range b.expect(http.StatusOK, http.MethodGet, path+"?"+query.Encode(), "").items() {
				at, err := time.Parse(time.RFC3339Nano, item.text(list.field))
				if err != nil || !at.After(last) {
					t.Fatalf("%s after %s: %v, %v", list.objectType, last, item.text(list.field), err)
				}
				last = at
				n++
			}
		}
		if n != len(b.Objects(list.objectType)) {
			t.Errorf("%d of %s listed", n, list.objectType)
		}
	}
	if n := len(b.Events()); n != 0 {
		t.Errorf("%d events of what was seeded", n)
	}
	b.must(b.Pay(b.expect(http.StatusOK, http.MethodGet, "/v1/checkouts/?limit=1", "").items()[0].text("id"), polarfake.PayOptions{Email: "late@example.com"}))
	b.idle()
}
