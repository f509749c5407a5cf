package polar

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

func TestEveryResourceIsListedAscendingWithEveryStatusThatPolarKnows(t *testing.T) {
	t.Parallel()
	var api struct {
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Enum []string `json:"enum"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(polartest.Read(t, "openapi.json"), &api); err != nil {
		t.Fatal(err)
	}
	statuses := map[string]string{"checkout": "CheckoutStatus", "order": "OrderStatus", "subscription": "SubscriptionStatus"}
	sortings := map[string]string{
		"organization": "OrganizationSortProperty", "product": "ProductSortProperty", "discount": "DiscountSortProperty",
		"benefit": "BenefitSortProperty", "customer": "CustomerSortProperty", "member": "MemberSortProperty",
		"checkout": "CheckoutSortProperty", "subscription": "SubscriptionSortProperty", "order": "OrderSortProperty",
		"refund": "RefundSortProperty", "benefit_grant": "BenefitGrantSortProperty",
	}
	for _, r := range Resources() {
		if _, ok := api.Paths["/v1"+r.path]["get"]; !ok {
			t.Errorf("%s: Polar has no list %s", r.Type, r.path)
		}
		if _, ok := api.Paths["/v1"+r.path+"{id}"]["get"]; ok != r.ByID {
			t.Errorf("%s: ByID is %v, and Polar's read by id %v", r.Type, r.ByID, ok)
		}
		if name, ok := statuses[r.Type]; ok && !slices.Equal(sorted(r.statuses), sorted(api.Components.Schemas[name].Enum)) {
			t.Errorf("%s: lists ask for %q, Polar knows %q", r.Type, r.statuses, api.Components.Schemas[name].Enum)
		}
		if r.SortKey != "" && !slices.Contains(api.Components.Schemas[sortings[r.Type]].Enum, r.SortKey) {
			t.Errorf("%s: Polar does not sort by %s", r.Type, r.SortKey)
		}
		if get := string(api.Paths["/v1"+r.path]["get"]); !strings.Contains(get, `"`+r.scope+`"`) {
			t.Errorf("%s: Polar does not ask for the scope %s", r.Type, r.scope)
		}
	}
}

func sorted(texts []string) []string {
	texts = slices.Clone(texts)
	slices.Sort(texts)
	return texts
}

func TestListObjectsAsksForAPageInOrderAndReadsItsKey(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	server := newTestServer(t, reply{body: `{"items":[{"id":"` + id.String() + `","created_at":"2026-08-01T00:00:00Z","started_at":"2026-08-02T00:00:00Z"}],
		"pagination":{"total_count":101,"max_page":2}}`})
	subscriptions, ok := ResourceOf("subscription")
	if !ok {
		t.Fatal("subscriptions are not known")
	}
	page, err := newTestAPI(t, server.URL, Config{}).ListObjects(t.Context(), subscriptions, 2, 100)
	if err != nil {
		t.Fatal(err)
	}
	query := server.requests[0].URL.Query()
	if server.requests[0].URL.Path != "/v1/subscriptions/" || query.Get("sorting") != "started_at" || query.Get("page") != "2" ||
		query.Get("limit") != "100" || len(query["status"]) != 8 {
		t.Errorf("it asked %s", server.requests[0].URL)
	}
	if len(page.Items) != 1 || page.Items[0].ID != id || page.Items[0].SortKey.Day() != 2 || page.TotalCount != 101 || page.ReadAt.IsZero() {
		t.Errorf("it read %+v", page)
	}
}

func TestAPageThatLacksItemsIsAnError(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"short":     `{"items":[],"pagination":{"total_count":1,"max_page":1}}`,
		"truncated": `{"items":[{"id":"` + uuid.NewString() + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, reply{body: body})
			customers, _ := ResourceOf("customer")
			if page, err := newTestAPI(t, server.URL, Config{}).ListObjects(t.Context(), customers, 1, 100); err == nil {
				t.Errorf("it passed for %+v", page)
			}
		})
	}
}

func TestListSeatsReadsThemOfASubscriptionOrAnOrder(t *testing.T) {
	t.Parallel()
	id, holder := uuid.New(), uuid.New()
	server := newTestServer(t, reply{body: `{"seats":[{"id":"` + id.String() + `"}],"available_seats":1,"total_seats":2}`})
	api := newTestAPI(t, server.URL, Config{})
	for name, of := range map[string]SeatHolder{"subscription_id": {SubscriptionID: holder}, "order_id": {OrderID: holder}} {
		seats, _, err := api.ListSeats(t.Context(), of)
		if err != nil || len(seats) != 1 || seats[0].ID != id {
			t.Errorf("seats %+v, %v", seats, err)
		}
		if asked := server.requests[server.count()-1].URL; asked.Path != "/v1/customer-seats" || asked.Query().Get(name) != holder.String() {
			t.Errorf("it asked %s", asked)
		}
	}
	if _, _, err := api.ListSeats(t.Context(), SeatHolder{}); err == nil {
		t.Error("seats of nothing were listed")
	}
}

func TestOnlyPolarsOwnWordsSayThatAnObjectIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reply reply
		gone  bool
	}{
		"gone":            {reply{http.StatusNotFound, nil, `{"error":"ResourceNotFound","detail":"Not found"}`}, true},
		"unknown version": {reply{http.StatusNotFound, nil, `{"detail":"Not Found"}`}, false},
		"a proxy's page":  {reply{http.StatusNotFound, nil, `<html>Not Found</html>`}, false},
		"other status":    {reply{http.StatusGone, nil, `{"error":"ResourceNotFound","detail":"Not found"}`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, test.reply)
			customers, _ := ResourceOf("customer")
			_, err := newTestAPI(t, server.URL, Config{}).GetObject(t.Context(), customers, uuid.New())
			if IsGone(err) != test.gone {
				t.Errorf("IsGone(%v) is %v", err, !test.gone)
			}
		})
	}
}
