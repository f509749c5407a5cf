package polarfake_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func TestAPIChecksVersionRouteAndToken(t *testing.T) {
	t.Parallel()

	b := setup(t)
	for name, test := range map[string]struct {
		method, path string
		header       map[string]string
		status       int
		body         string
	}{
		"NoToken":          {http.MethodGet, "/v1/products/", map[string]string{"Authorization": ""}, 401, `{"error":"Unauthorized","detail":"Unauthorized"}`},
		"NoBearer":         {http.MethodGet, "/v1/products/", map[string]string{"Authorization": "Basic eA=="}, 401, `{"error":"Unauthorized","detail":"Unauthorized"}`},
		"UnknownVersion":   {http.MethodGet, "/v1/products/", map[string]string{"Polar-Version": "2025-01"}, 404, `{"detail":"Not Found"}`},
		"MalformedVersion": {http.MethodGet, "/v1/products/", map[string]string{"Polar-Version": "new"}, 404, `{"detail":"Not Found"}`},
		"UnknownPath":      {http.MethodGet, "/v1/nothing", nil, 404, `{"detail":"Not Found"}`},
		"UnknownView":      {http.MethodGet, "/v1/customers/x/friends", nil, 404, `{"detail":"Not Found"}`},
		"UnknownMethod":    {http.MethodPut, "/v1/checkouts/", nil, 405, `{"detail":"Method Not Allowed"}`},
		"UnknownObject":    {http.MethodGet, "/v1/checkouts/3fa85f64-5717-4562-b3fc-2c963f66afa6", nil, 404, `{"error":"ResourceNotFound","detail":"Not found"}`},
		"SlashInID":        {http.MethodGet, "/v1/customers/external/a%2Fb", nil, 404, `{"error":"ResourceNotFound","detail":"Not found"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			status, header, body := b.raw(test.method, test.path, "", test.header)
			if status != test.status || string(body) != test.body {
				t.Errorf("answered %d %s, want %d %s", status, body, test.status, test.body)
			}
			if status == http.StatusUnauthorized && header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		})
	}
}

func TestAPIEchoesVersionAndTellsItsTime(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	clock.advance(-100 * time.Hour)
	b := setup(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	for sent, want := range map[string]string{"2026-04": "2026-04", "2026-10": "2026-10", "2027-01": "2027-01", "": "2026-04"} {
		_, header, _ := b.raw(http.MethodGet, "/v1/products/", "", map[string]string{"Polar-Version": sent})
		if got := header.Get("Polar-Version"); got != want {
			t.Errorf("version %q was echoed as %q, want %q", sent, got, want)
		}
		if got := header.Get("Date"); got != clock.Now().UTC().Format(http.TimeFormat) {
			t.Errorf("Date is %s", got)
		}
	}
}

func TestAPIRedirectsTheOtherSlash(t *testing.T) {
	t.Parallel()

	b := setup(t)
	for path, want := range map[string]string{
		"/v1/checkouts?limit=1": "/v1/checkouts/?limit=1", "/v1/webhooks/endpoints/": "/v1/webhooks/endpoints",
	} {
		status, header, _ := b.raw(http.MethodGet, path, "", nil)
		if status != http.StatusTemporaryRedirect || header.Get("Location") != want {
			t.Errorf("%s answered %d to %q, want 307 to %q", path, status, header.Get("Location"), want)
		}
	}
}

func TestCatalogueIsServed(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) {
		o.Products = []polarfake.Product{{Name: "Added", Amount: 700, Benefit: "A hat"}}
	})
	all := b.expect(http.StatusOK, http.MethodGet, "/v1/products/?limit=100&sorting=created_at", "").items()
	if len(all) != 8 || all[0].text("id") != polarfake.OneTimeProductID || all[7].text("name") != "Added" {
		t.Fatalf("products %v", all)
	}
	for path, want := range map[string]int{
		"/v1/products/?is_recurring=true": 4, "/v1/products/?is_archived=true": 1, "/v1/products/?query=EXPLORER": 2,
		"/v1/products/?sorting=-price_amount": 8, "/v1/products/?sorting=name&sorting=price_amount_type": 8,
		"/v1/products/?organization_id=" + polarfake.OrganizationID: 8, "/v1/benefits/": 4, "/v1/organizations/": 1,
		"/v1/organizations/?slug=nobody": 0, "/v1/refunds/": 0, "/v1/discounts/": 0,
	} {
		if got := len(b.expect(http.StatusOK, http.MethodGet, path, "").items()); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	b.expect(http.StatusOK, http.MethodGet, "/v1/products/"+polarfake.SeatProductID, "")
	b.expect(http.StatusOK, http.MethodGet, "/v1/organizations/"+polarfake.OrganizationID, "")
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/organizations/"+polarfake.SeatProductID, "")
	b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/products/none", "")
}

func TestListsArePaged(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "" })
	ids := b.SeedCustomers(205, "usr_")
	list := func(query string) document {
		return b.expect(http.StatusOK, http.MethodGet, "/v1/customers/?"+query, "")
	}
	first := list("")
	if items := first.items(); len(items) != 10 || items[0].text("id") != ids[204] || items[9].text("id") != ids[195] {
		t.Errorf("the first page is not the ten newest: %v", items)
	}
	if pages := first.object("pagination"); pages["total_count"] != 205.0 || pages["max_page"] != 21.0 {
		t.Errorf("pagination %v", pages)
	}
	if n := len(list("limit=1000").items()); n != 100 {
		t.Errorf("a page of 1000 had %d", n)
	}
	if items := list("sorting=created_at&limit=100&page=3").items(); len(items) != 5 || items[4].text("id") != ids[204] {
		t.Errorf("the last page ascending: %v", items)
	}
	if items := list("limit=100&page=3").items(); len(items) != 5 || items[4].text("id") != ids[0] {
		t.Errorf("the last page descending: %v", items)
	}
	if items := list("page=99").items(); len(items) != 0 {
		t.Errorf("beyond the last page: %v", items)
	}
	if items := list("sorting=-email&sorting=name&limit=1").items(); items[0].text("external_id") != "usr_9" {
		t.Errorf("by e-mail: %v", items)
	}
	for _, query := range []string{"page=0", "limit=0", "limit=x", "sorting=age", "active=perhaps", "organization_id=1"} {
		b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/customers/?"+query, "")
	}
	b.must(b.DeleteCustomer(ids[100]))
	if pages := list("").object("pagination"); pages["total_count"] != 204.0 {
		t.Errorf("after a deletion: %v", pages)
	}
	if items := list("sorting=created_at&limit=100&page=2").items(); items[0].text("id") != ids[101] {
		t.Error("the deletion did not shift the second page")
	}
}

func TestCheckoutFilterByExternalIDJoinsCustomers(t *testing.T) {
	t.Parallel()

	b := setup(t)
	b.customer(`{"email":"known@example.com","external_id":"usr_known"}`)
	linked := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_known"`)
	unlinked := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_new","customer_email":"New@example.com"`)
	list := func(query string) []document {
		return b.expect(http.StatusOK, http.MethodGet, "/v1/checkouts/?"+query, "").items()
	}
	if found := list("external_customer_id=usr_known"); len(found) != 1 || found[0].text("id") != linked.text("id") {
		t.Errorf("of the known customer: %v", found)
	}
	if found := list("external_customer_id=usr_new"); len(found) != 0 {
		t.Errorf("an open session of a customer to be was found: %v", found)
	}
	b.must(b.Pay(unlinked.text("id"), polarfake.PayOptions{}))
	if found := list("external_customer_id=usr_new&external_customer_id=x"); len(found) != 1 {
		t.Errorf("of the created customer: %v", found)
	}
	for query, want := range map[string]int{
		"status=open": 1, "status=open&status=succeeded": 2, "status=failed": 0, "query=NEW@": 1,
		"product_id=" + polarfake.OneTimeProductID: 2, "product_id=" + polarfake.SeatProductID: 0,
		"customer_id=" + linked.text("customer_id"): 1, "organization_id=" + polarfake.SeatProductID: 0,
		"sorting=status": 2, "sorting=-expires_at": 2, "sorting=created_at": 2,
	} {
		if found := list(query); len(found) != want {
			t.Errorf("%s: %d, want %d", query, len(found), want)
		}
	}
	if found := list("sorting=created_at"); found[0].text("id") != linked.text("id") {
		t.Error("ascending does not begin with the oldest")
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/checkouts/?status=paid", "")
	b.idle()
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()

	b := setup(t)
	id := b.checkoutOf(polarfake.OneTimeProductID, "").text("id")
	b.checkoutNow(id)
	b.checkoutNow(id)
	b.must(b.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 502, Method: http.MethodPost}))
	b.raw(http.MethodPost, "/v1/checkouts/", "{}", nil)
	b.raw(http.MethodGet, "/v1/customers/"+id+"/state", "", nil)
	got := b.Requests()
	if got["POST /v1/checkouts/"] != 2 || got["GET /v1/checkouts/{id}"] != 2 || got["GET /v1/customers/{id}/state"] != 1 {
		t.Errorf("requests %v", got)
	}
}

func TestManyCustomersStayFast(t *testing.T) {
	t.Parallel()

	const n = 100_000
	b := setup(t, func(o *polarfake.Options) { o.WebhookURL = "" })
	ids := b.SeedCustomers(n, "usr_")
	started := time.Now()
	for page := 1; page <= n/100; page += 100 {
		path := fmt.Sprintf("/v1/customers/?sorting=created_at&limit=100&page=%d", page)
		status, _, body := b.raw(http.MethodGet, path, "", nil)
		if status != http.StatusOK || !strings.Contains(string(body), ids[(page-1)*100]) {
			t.Fatalf("page %d answered %d", page, status)
		}
	}
	b.customerNow(ids[n/2])
	b.expect(http.StatusOK, http.MethodGet, "/v1/customers/external/usr_99999", "")
	if found := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/?email=USR_7@EXAMPLE.COM", "").items(); len(found) != 1 {
		t.Errorf("by e-mail: %v", found)
	}
	if took := time.Since(started); took > patience {
		t.Errorf("a few reads among %d customers took %s", n, took)
	}
}
