package polarfake_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// read decodes the document that a method of the fake returned.
func (b *testBundle) read(raw json.RawMessage, err error) document {
	b.t.Helper()

	b.must(err)
	return decode(b.t, raw)
}

// object returns the document of something that exists.
func (b *testBundle) object(objectType, id string) document {
	b.t.Helper()

	raw, exists := b.Objects(objectType)[id]
	if !exists {
		b.t.Fatalf("there is no %s %s", objectType, id)
	}
	return decode(b.t, raw)
}

// only returns the one object of a type.
func (b *testBundle) only(objectType string) document {
	b.t.Helper()

	all := b.Objects(objectType)
	if len(all) != 1 {
		b.t.Fatalf("there are %d of %s, not one", len(all), objectType)
	}
	for _, raw := range all {
		return decode(b.t, raw)
	}
	return nil
}

// subscribed buys a subscription and returns it.
func (b *testBundle) subscribed(productID, email, extra string) document {
	b.t.Helper()

	before := b.Objects("subscription")
	created := b.checkoutOf(productID, extra)
	b.must(b.Pay(created.text("id"), polarfake.PayOptions{Email: email}))
	for id, raw := range b.Objects("subscription") {
		if _, existed := before[id]; !existed {
			return decode(b.t, raw)
		}
	}
	b.t.Fatal("no subscription came of the checkout")
	return nil
}

// since returns the types of the events recorded after the first n, without customer.state_changed, which comes when
// it likes.
func (b *testBundle) since(n int) []string {
	b.t.Helper()

	var types []string
	for _, ev := range b.Events()[n:] {
		if ev.Type != "customer.state_changed" {
			types = append(types, ev.Type)
		}
	}
	return types
}

// tells plays an action and compares the types of the events that it makes at once, in order.
func (b *testBundle) tells(action func(), want ...string) {
	b.t.Helper()

	b.must(b.WaitIdle(b.context()))
	before := len(b.Events())
	action()
	if diff := cmp.Diff(want, b.since(before)); diff != "" {
		b.t.Errorf("events (-want +got):\n%s", diff)
	}
}

// playEverything makes every type of event happen at least once.
func playEverything(b *testBundle) {
	b.t.Helper()

	// A one-time purchase, with a discount, refunded in two parts, one of which takes its time.
	d := b.read(b.CreateDiscount(`{"type":"percentage","name":"Spring","duration":"once","basis_points":1000,"code":"SPRING"}`))
	once := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1","discount_id":"`+d.text("id")+`"`)
	b.must(b.Pay(once.text("id"), polarfake.PayOptions{Email: "once@example.com"}))
	order := b.only("order")
	b.read(b.RefundOrder(order.text("id"), polarfake.RefundOptions{Amount: 1000}))
	rest := b.read(b.RefundOrder(order.text("id"), polarfake.RefundOptions{Pending: true, RevokeBenefits: true}))
	b.must(b.SettleRefund(rest.text("id"), "succeeded"))
	b.read(b.UpdateDiscount(d.text("id"), `{"name":"Summer"}`))
	b.must(b.DeleteDiscount(d.text("id")))
	b.must(b.Expire(b.checkoutOf(polarfake.OneTimeProductID, "").text("id")))

	// A subscription through everything that can become of it.
	s := b.subscribed(polarfake.MonthlyProductID, "monthly@example.com", "").text("id")
	b.must(b.CycleSubscription(s))
	b.must(b.CancelSubscription(s))
	b.must(b.UncancelSubscription(s))
	b.must(b.PauseSubscription(s))
	b.must(b.ResumeSubscription(s))
	b.must(b.FailRenewal(s))
	b.must(b.PayOrder(pendingOrder(b)))
	b.must(b.MigrateSubscription(s, "stripe", "sub_123"))
	incomplete := b.read(b.SubscribeIncomplete(`{"product_id":"` + polarfake.MonthlyProductID + `","customer_id":"` +
		b.object("subscription", s).text("customer_id") + `"}`))
	b.must(b.RevokeSubscription(s))
	b.must(b.StartSubscription(incomplete.text("id")))

	// A team with seats.
	team := b.customer(`{"type":"team","name":"Crew","email":"crew@example.com","external_id":"team_1"}`).text("id")
	seats := b.subscribed(polarfake.SeatProductID, "", `"customer_id":"`+team+`","seats":3`).text("id")
	taken := b.read(b.AssignSeat(`{"subscription_id":"` + seats + `","email":"one@example.com","external_member_id":"usr_m1"}`))
	b.must(b.ClaimSeat(taken.text("id")))
	b.read(b.AssignSeat(`{"subscription_id":"` + seats + `","email":"two@example.com"}`))
	b.must(b.RevokeSeat(taken.text("id")))
	m := b.read(b.AddMember(team, `{"email":"three@example.com","external_id":"usr_m3"}`)).text("id")
	b.read(b.UpdateMember(team, m, `{"name":"Three","role":"billing_manager"}`))
	b.must(b.DeleteMember(team, m))

	// The catalogue and the organization.
	perk := b.read(b.CreateBenefit(`{"type":"custom","description":"A perk","properties":{"note":"hello"}}`)).text("id")
	p := b.read(b.CreateProduct(`{"name":"Compass","prices":[{"amount_type":"fixed","price_amount":900}]}`)).text("id")
	b.read(b.SetProductBenefits(p, perk))
	b.must(b.Pay(b.checkoutOf(p, "").text("id"), polarfake.PayOptions{Email: "perk@example.com"}))
	b.read(b.UpdateBenefit(perk, `{"type":"custom","properties":{"note":"changed"}}`))
	b.read(b.UpdateProduct(p, `{"is_archived":true}`))
	gone := b.read(b.CreateBenefit(`{"type":"feature_flag","description":"Nothing","properties":{}}`)).text("id")
	b.must(b.DeleteBenefit(gone))
	b.read(b.UpdateOrganization(`{"name":"Truer North"}`))

	// Customers who go, and one who comes back under the same external id.
	leaver := b.customer(`{"email":"leaver@example.com","external_id":"usr_2"}`).text("id")
	b.read(b.UpdateCustomer(leaver, `{"name":"Leaver"}`))
	b.must(b.DeleteCustomer(leaver))
	b.customer(`{"email":"leaver@example.com","external_id":"usr_2"}`)
	b.must(b.AnonymizeCustomer(b.customer(`{"email":"hidden@example.com","name":"Hidden"}`).text("id")))
}

func pendingOrder(b *testBundle) string {
	b.t.Helper()

	for id, raw := range b.Objects("order") {
		if decode(b.t, raw).text("status") == "pending" {
			return id
		}
	}
	b.t.Fatal("no order is pending")
	return ""
}

func TestEveryTypeOfEventHasAnAction(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions = true })
	playEverything(b)
	sent := make(map[string]bool)
	for _, eventType := range b.idle() {
		sent[eventType] = true
	}
	for _, eventType := range polarfake.EventTypes {
		if !sent[eventType] {
			t.Errorf("nothing made an event %s", eventType)
		}
	}
	if api := openAPIOrNil(t); api != nil && len(api.webhook) != len(polarfake.EventTypes)-1 {
		t.Errorf("Polar's document has %d types of event, the fake %d, of which one is newer", len(api.webhook), len(polarfake.EventTypes))
	}
	var migrated document
	for _, ev := range b.Events() {
		if ev.Type == "subscription.migrated" {
			migrated = decode(t, ev.Payload)
		}
	}
	if migrated.text("provider") != "stripe" || migrated.text("provider_subscription_id") != "sub_123" {
		t.Errorf("a migrated subscription does not say from where: %v", migrated)
	}
}

// listPaths are the lists of Polar, by the type of object. The seats have one for each purchase.
var listPaths = map[string]string{
	"customer": "/v1/customers/?sorting=created_at", "checkout": "/v1/checkouts/?sorting=created_at",
	"order": "/v1/orders/?sorting=created_at", "subscription": "/v1/subscriptions/?sorting=started_at",
	"refund": "/v1/refunds/?sorting=created_at", "product": "/v1/products/?sorting=created_at",
	"discount": "/v1/discounts/?sorting=created_at", "benefit": "/v1/benefits/?sorting=created_at",
	"benefit_grant": "/v1/benefit-grants/?sorting=created_at", "member": "/v1/members/?sorting=created_at",
	"organization": "/v1/organizations/?sorting=created_at",
}

// byID are the types that Polar reads by id.
var byID = []string{"customer", "checkout", "order", "subscription", "product", "discount", "benefit", "organization"}

func TestObjectsAreWhatTheAPIShows(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions = true })
	playEverything(b)
	b.must(b.WaitIdle(b.context()))
	for _, objectType := range polarfake.ObjectTypes {
		want := make(map[string]document)
		for id, raw := range b.Objects(objectType) {
			want[id] = decode(t, raw)
		}
		if len(want) == 0 && objectType != "discount" {
			t.Errorf("the history left no %s", objectType)
		}
		got := make(map[string]document)
		for _, item := range b.listed(objectType) {
			got[item.text("id")] = item
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: the list is not what there is (-objects +list):\n%s", objectType, diff)
		}
		if path, _, _ := strings.Cut(listPaths[objectType], "?"); slices.Contains(byID, objectType) {
			for id, one := range want {
				if diff := cmp.Diff(one, b.expect(http.StatusOK, http.MethodGet, path+id, "")); diff != "" {
					t.Errorf("%s by id (-object +answer):\n%s", objectType, diff)
				}
			}
			for _, id := range b.Deleted(objectType) {
				b.expect(http.StatusNotFound, http.MethodGet, path+id, "")
			}
		}
	}
	for objectType, want := range map[string]int{"customer": 2, "member": 3, "discount": 1, "benefit": 1, "order": 0, "organization": 0} {
		if gone := b.Deleted(objectType); len(gone) != want {
			t.Errorf("%d of %s are gone, want %d", len(gone), objectType, want)
		}
	}
}

// listed returns everything that the lists of a type show, page by page.
func (b *testBundle) listed(objectType string) []document {
	b.t.Helper()

	var items []document
	if objectType == "customer_seat" {
		for _, id := range slices.Sorted(maps.Keys(b.Objects("subscription"))) {
			for _, seat := range b.expect(http.StatusOK, http.MethodGet, "/v1/customer-seats?subscription_id="+id, "").list("seats") {
				items = append(items, asObject(seat))
			}
		}
		return items
	}
	for page := 1; ; page++ {
		path := listPaths[objectType] + "&limit=3&page=" + strconv.Itoa(page)
		answer := b.expect(http.StatusOK, http.MethodGet, path, "")
		items = append(items, answer.items()...)
		if last, _ := answer.object("pagination")["max_page"].(float64); page >= int(last) {
			return items
		}
	}
}

func TestAnUnknownTypeOfObjectIsAMistake(t *testing.T) {
	t.Parallel()

	b := setup(t)
	if err := b.Vanish("invoice", "x"); err == nil {
		t.Error("an invoice vanished")
	}
	defer func() {
		if recover() == nil {
			t.Error("the objects of an unknown type were compared with nothing")
		}
	}()
	b.Objects("invoice")
}

func TestWhatVanishesIsToldToNobody(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.AllowMultipleSubscriptions = true })
	playEverything(b)
	b.must(b.WaitIdle(b.context()))
	events := len(b.Events())
	for _, objectType := range polarfake.ObjectTypes {
		all := slices.Sorted(maps.Keys(b.Objects(objectType)))
		if objectType == "organization" || objectType == "discount" {
			continue
		}
		b.must(b.Vanish(objectType, all[0]))
		if _, exists := b.Objects(objectType)[all[0]]; exists || !slices.Contains(b.Deleted(objectType), all[0]) {
			t.Errorf("the %s is still there", objectType)
		}
		for _, item := range b.listed(objectType) {
			if item.text("id") == all[0] {
				t.Errorf("the %s is still listed", objectType)
			}
		}
		wantAPIError(t, b.Vanish(objectType, all[0]), http.StatusNotFound, "ResourceNotFound")
	}
	wantAPIError(t, b.Vanish("organization", polarfake.OrganizationID), http.StatusNotFound, "ResourceNotFound")
	if n := len(b.Events()); n != events {
		t.Errorf("%d events were made", n-events)
	}
}

func TestSeedMakesHistoriesRepeatable(t *testing.T) {
	t.Parallel()

	play := func(seed uint64) map[string]map[string]json.RawMessage {
		clock := newTestClock()
		b := setup(t, func(o *polarfake.Options) {
			o.Seed, o.Clock, o.PublicURL, o.AllowMultipleSubscriptions = seed, clock.Now, "https://polar.example", true
			o.WebhookURL = ""
		})
		playEverything(b)
		ids := make(map[string]map[string]json.RawMessage)
		for _, objectType := range polarfake.ObjectTypes {
			ids[objectType] = b.Objects(objectType)
			for id := range ids[objectType] {
				ids[objectType][id] = nil // the times differ
			}
		}
		return ids
	}
	first := play(7)
	if diff := cmp.Diff(first, play(7)); diff != "" {
		t.Errorf("the same calls with the same seed made other objects (-first +second):\n%s", diff)
	}
	if cmp.Equal(first, play(8)) {
		t.Error("another seed made the same objects")
	}
	if cmp.Equal(first["order"], play(0)["order"]) {
		t.Error("no seed made the same objects")
	}
}
