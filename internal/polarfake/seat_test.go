package polarfake_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// team is a fake with a team that has a subscription to two seats.
func team(t *testing.T, changes ...setupOption) (b *testBundle, customer, subscription string) {
	t.Helper()

	b = setup(t, changes...)
	customer = b.customer(`{"type":"team","name":"Crew","email":"crew@example.com","external_id":"team_1"}`).text("id")
	subscription = b.subscribed(polarfake.SeatProductID, "", `"customer_id":"`+customer+`","seats":2`).text("id")
	return b, customer, subscription
}

func TestSeatIsAssignedClaimedAndRevoked(t *testing.T) {
	t.Parallel()

	b, customer, subscription := team(t)
	assign := func(status int, extra string) document {
		return b.expect(status, http.MethodPost, "/v1/customer-seats", `{"subscription_id":"`+subscription+`"`+extra+`}`)
	}
	if len(b.Grants()) != 0 {
		t.Fatal("the buyer of seats got what a seat gives")
	}
	var one document
	b.tells(func() {
		one = assign(http.StatusOK, `,"email":"one@example.com","external_member_id":"usr_1","metadata":{"desk":1}`)
	}, "member.created", "customer_seat.assigned")
	if one.text("status") != "pending" || one.text("customer_id") != customer || one.text("email") != "one@example.com" ||
		one.object("member").text("external_id") != "usr_1" || one["invitation_token_expires_at"] == nil {
		t.Errorf("assigned %v", one)
	}
	b.tells(func() { b.must(b.ClaimSeat(one.text("id"))) }, "customer_seat.claimed", "benefit_grant.created")
	wantAPIError(t, b.ClaimSeat(one.text("id")), http.StatusBadRequest, "InvalidInvitationToken")
	claimed := b.lastOf("customer_seat.claimed")
	if claimed.text("status") != "claimed" || claimed.object("member").text("external_id") != "usr_1" || claimed["claimed_at"] == nil {
		t.Errorf("claimed %v", claimed)
	}
	if grant := b.only("benefit_grant"); grant.text("member_id") != one.text("member_id") || grant.text("customer_id") != customer ||
		grant.text("subscription_id") != subscription {
		t.Errorf("grant %v", grant)
	}
	b.tells(func() { assign(http.StatusOK, `,"email":"two@example.com","immediate_claim":true`) },
		"member.created", "customer_seat.claimed", "benefit_grant.created")
	if list := b.expect(http.StatusOK, http.MethodGet, "/v1/customer-seats?subscription_id="+subscription, ""); list["available_seats"] != 0.0 ||
		list["total_seats"] != 2.0 || len(list.list("seats")) != 2 {
		t.Errorf("seats %v", list)
	}
	assign(http.StatusBadRequest, `,"email":"three@example.com"`)
	b.expect(http.StatusBadRequest, http.MethodPatch, "/v1/subscriptions/"+subscription, `{"seats":1}`)
	b.expect(http.StatusOK, http.MethodPatch, "/v1/subscriptions/"+subscription, `{"seats":3}`)
	assign(http.StatusBadRequest, `,"email":"ONE@example.com"`)

	b.tells(func() {
		revoked := b.expect(http.StatusOK, http.MethodDelete, "/v1/customer-seats/"+one.text("id"), "")
		if revoked.text("status") != "revoked" || revoked["member_id"] != nil || revoked["email"] != nil || revoked["customer_id"] != nil {
			t.Errorf("revoked %v", revoked)
		}
	}, "customer_seat.revoked", "benefit_grant.revoked")
	b.tells(func() {
		if again := assign(http.StatusOK, `,"external_member_id":"usr_1"`); again.text("id") != one.text("id") || again.text("status") != "pending" {
			t.Errorf("the seat that was free is not used again: %v", again)
		}
	}, "customer_seat.assigned")
	b.tells(func() { b.must(b.ClaimSeat(one.text("id"))) }, "customer_seat.claimed", "benefit_grant.created")
	if len(b.Grants()) != 2 {
		t.Errorf("%d grants, though one was granted anew", len(b.Grants()))
	}
	b.tells(func() { b.must(b.RevokeSubscription(subscription)) }, "subscription.updated", "subscription.canceled", "subscription.revoked",
		"benefit_grant.revoked", "benefit_grant.revoked", "customer_seat.revoked", "customer_seat.revoked")

	for extra, status := range map[string]int{
		"": 400, `,"member_id":"` + customer + `"`: 404, `,"external_member_id":"nobody"`: 404, `,"email":"x"`: 422,
		`,"email":"two@example.com","external_member_id":"usr_1"`: 400,
	} {
		assign(status, extra)
	}
	b.expect(http.StatusBadRequest, http.MethodGet, "/v1/customer-seats", "")
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/customer-seats?order_id="+customer, "")
	b.expect(http.StatusNotFound, http.MethodGet, "/v1/customer-seats?subscription_id="+customer, "")
	b.expect(http.StatusUnprocessableEntity, http.MethodGet, "/v1/customer-seats?subscription_id=x", "")
	b.expect(http.StatusNotFound, http.MethodDelete, "/v1/customer-seats/"+customer, "")
	b.idle()
}

func TestSeatsAreSoldOnceToo(t *testing.T) {
	t.Parallel()

	const productID = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1cff"
	b := setup(t, func(o *polarfake.Options) {
		o.Products = []polarfake.Product{{ID: productID, Name: "Course", PerSeat: 900, Benefit: "Watch the course"}}
	})
	b.must(b.Pay(b.checkoutOf(productID, `"seats":2`).text("id"), polarfake.PayOptions{Email: "buyer@example.com"}))
	order := b.only("order").text("id")
	taken := b.read(b.AssignSeat(`{"order_id":"` + order + `","email":"one@example.com"}`))
	b.must(b.ClaimSeat(taken.text("id")))
	if grant := b.only("benefit_grant"); grant.text("order_id") != order || grant.text("member_id") != taken.text("member_id") {
		t.Errorf("grant %v", grant)
	}
	if list := b.expect(http.StatusOK, http.MethodGet, "/v1/customer-seats?order_id="+order, ""); list["available_seats"] != 1.0 || len(b.Seats()) != 1 {
		t.Errorf("seats %v", list)
	}
	b.idle()
}

func TestInvitationExpires(t *testing.T) {
	t.Parallel()

	clock := newTestClock()
	b, _, subscription := team(t, func(o *polarfake.Options) { o.Clock = clock.Now })
	taken := b.read(b.AssignSeat(`{"subscription_id":"` + subscription + `","email":"one@example.com"}`))
	clock.advance(25 * time.Hour)
	wantAPIError(t, b.ClaimSeat(taken.text("id")), http.StatusBadRequest, "InvalidInvitationToken")
}

func TestMembersAreManaged(t *testing.T) {
	t.Parallel()

	b, customer, subscription := team(t)
	path := "/v1/customers/" + customer + "/members"
	external := "/v1/customers/external/team_1/members"
	var m document
	b.tells(func() {
		m = b.expect(http.StatusCreated, http.MethodPost, path, `{"email":"one@example.com","name":"One","external_id":"usr_1"}`)
	}, "member.created")
	b.tells(func() {
		same := b.expect(http.StatusCreated, http.MethodPost, external, `{"email":"ONE@example.com"}`)
		if same.text("id") != m.text("id") {
			t.Errorf("a second member with the same e-mail: %v", same)
		}
	})
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, path, `{"email":"two@example.com","external_id":"usr_1"}`)
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, path, `{"email":"two@example.com","role":"owner"}`)
	b.expect(http.StatusUnprocessableEntity, http.MethodPost, path, `{}`)
	single := b.customer(`{"email":"single@example.com"}`).text("id")
	b.expect(http.StatusForbidden, http.MethodPost, "/v1/customers/"+single+"/members", `{"email":"two@example.com"}`)

	for _, one := range []string{path + "/" + m.text("id"), external + "/usr_1"} {
		if got := b.expect(http.StatusOK, http.MethodGet, one, ""); got.text("id") != m.text("id") {
			t.Errorf("%s: %v", one, got)
		}
	}
	b.expect(http.StatusNotFound, http.MethodGet, path+"/"+customer, "")
	b.expect(http.StatusNotFound, http.MethodGet, external+"/nobody", "")
	for query, want := range map[string]int{
		"": 3, "customer_id=" + customer: 2, "external_customer_id=team_1": 2, "role=owner": 2, "role=member": 1, "customer_id=x": 0,
	} {
		if got := len(b.expect(http.StatusOK, http.MethodGet, "/v1/members/?"+query, "").items()); got != want {
			t.Errorf("%s: %d members, want %d", query, got, want)
		}
	}

	taken := b.read(b.AssignSeat(`{"subscription_id":"` + subscription + `","member_id":"` + m.text("id") + `"}`)).text("id")
	b.must(b.ClaimSeat(taken))
	b.tells(func() {
		b.expect(http.StatusOK, http.MethodPatch, path+"/"+m.text("id"), `{"email":"first@example.com"}`)
		if seat := b.object("customer_seat", taken); seat.text("email") != "first@example.com" {
			t.Errorf("the seat shows the former e-mail: %v", seat)
		}
	}, "member.updated")
	b.tells(func() { b.expect(http.StatusOK, http.MethodPatch, path+"/"+m.text("id"), `{}`) })
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path+"/"+m.text("id"), `{"email":"crew@example.com"}`)

	// The former owner is demoted, and nobody is told.
	var owner document
	for _, raw := range b.Members() {
		if other := decode(t, raw); other.text("role") == "owner" && other.text("customer_id") == customer {
			owner = other
		}
	}
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, path+"/"+owner.text("id"), `{"role":"member"}`)
	b.expect(http.StatusUnprocessableEntity, http.MethodDelete, path+"/"+owner.text("id"), "")
	b.tells(func() { b.expect(http.StatusOK, http.MethodPatch, external+"/usr_1", `{"role":"owner"}`) }, "member.updated")
	if former := b.object("member", owner.text("id")); former.text("role") != "billing_manager" || former["modified_at"] == nil {
		t.Errorf("former owner %v", former)
	}
	b.expect(http.StatusOK, http.MethodPatch, path+"/"+owner.text("id"), `{"role":"owner"}`)

	b.tells(func() { b.expect(http.StatusNoContent, http.MethodDelete, external+"/usr_1", "") },
		"member.deleted", "customer_seat.revoked", "benefit_grant.revoked")
	b.expect(http.StatusNotFound, http.MethodDelete, path+"/"+m.text("id"), "")
	b.idle()
	if requests := b.Requests(); requests["GET /v1/customers/{id}/members/{member_id}"] != 2 {
		t.Errorf("requests %v", requests)
	}
}

func TestDeletedCustomerTakesEverythingAlong(t *testing.T) {
	t.Parallel()

	b, customer, subscription := team(t)
	b.read(b.AssignSeat(`{"subscription_id":"` + subscription + `","email":"one@example.com","immediate_claim":true}`))
	b.tells(func() { b.must(b.DeleteCustomer(customer)); b.idle() },
		"subscription.updated", "subscription.canceled", "subscription.revoked", "benefit_grant.revoked", "customer_seat.revoked",
		"member.deleted", "member.deleted", "customer.deleted")
	if len(b.Members()) != 0 || len(b.Deleted("member")) != 2 || len(b.Deleted("customer")) != 1 {
		t.Errorf("left: %s", b.Members())
	}
	if deleted := b.lastOf("customer.deleted"); deleted.text("external_id") != "team_1" || deleted["deleted_at"] == nil {
		t.Errorf("customer %v", deleted)
	}
}

func TestOwnerFollowsTheCustomersEmail(t *testing.T) {
	t.Parallel()

	b := setup(t)
	id := b.customer(`{"email":"old@example.com"}`).text("id")
	b.read(b.UpdateCustomer(id, `{"email":"new@example.com"}`))
	if owner := b.only("member"); owner.text("email") != "new@example.com" || owner["modified_at"] == nil {
		t.Errorf("owner %v", owner)
	}
	if types := b.idle(); count(types, "member.updated") != 0 {
		t.Errorf("somebody was told: %v", types)
	}
	b.read(b.UpdateCustomer(id, `{"type":"team"}`))
	b.expect(http.StatusUnprocessableEntity, http.MethodPatch, "/v1/customers/"+id, `{"type":"individual"}`)
}
