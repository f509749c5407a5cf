package polarfake_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func wantAPIError(t *testing.T, err error, status int, name string) {
	t.Helper()

	var failure *polarfake.APIError
	if !errors.As(err, &failure) || failure.Status != status || failure.Name != name {
		t.Fatalf("got error %v, want %d %s", err, status, name)
	}
}

func TestPurchaseGoesFromOpenToSucceeded(t *testing.T) {
	t.Parallel()

	b := setup(t)
	created := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1","metadata":{"truenorth_request":"r1"}`)
	if created.text("status") != "open" || created["customer_id"] != nil || created.text("external_customer_id") != "usr_1" {
		t.Fatalf("created %v", created)
	}
	id := created.text("id")

	b.must(b.Confirm(id, "buyer@example.com"))
	confirmed := b.checkoutNow(id)
	if confirmed.text("status") != "confirmed" || confirmed.text("customer_id") == "" {
		t.Fatalf("confirmed %v", confirmed)
	}
	if len(b.Orders()) != 0 {
		t.Fatal("there is an order before the payment")
	}
	b.must(b.Succeed(id))
	if status := b.checkoutNow(id).text("status"); status != "succeeded" {
		t.Fatalf("status %s", status)
	}
	buyer := b.customerNow(confirmed.text("customer_id"))
	if buyer.text("external_id") != "usr_1" || buyer.text("email") != "buyer@example.com" {
		t.Fatalf("customer %v", buyer)
	}

	types := b.idle()
	for _, wanted := range []string{
		"checkout.created", "member.created", "customer.created", "customer.updated", "customer.state_changed",
		"order.created", "order.paid", "benefit_grant.created",
	} {
		if !slices.Contains(types, wanted) {
			t.Errorf("no %s among %v", wanted, types)
		}
	}
	if n := count(types, "checkout.updated"); n != 3 { // the e-mail typed, confirmed, succeeded
		t.Errorf("%d checkout.updated, want 3", n)
	}
	ordered := b.lastOf("order.paid")
	if ordered.object("metadata").text("truenorth_request") != "r1" || ordered.text("checkout_id") != id ||
		ordered.object("customer").text("external_id") != "usr_1" {
		t.Errorf("order %v", ordered)
	}
	orders := b.expect(http.StatusOK, http.MethodGet, "/v1/orders/?checkout_id="+id, "").items()
	if len(orders) != 1 || orders[0].text("id") != ordered.text("id") {
		t.Errorf("orders of the checkout: %v", orders)
	}
	b.expect(http.StatusOK, http.MethodGet, "/v1/orders/"+ordered.text("id"), "")
	b.expect(http.StatusOK, http.MethodGet, "/v1/benefit-grants/", "")
	b.expect(http.StatusOK, http.MethodGet, "/v1/members/", "")
	wantAPIError(t, b.Succeed(id), http.StatusConflict, "NotConfirmedCheckout")
	wantAPIError(t, b.Confirm(id, ""), http.StatusForbidden, "NotOpenCheckout")
}

func TestSubscriptionGivesAccess(t *testing.T) {
	t.Parallel()

	for name, productID := range map[string]string{
		"Monthly": polarfake.MonthlyProductID, "Seats": polarfake.SeatProductID,
		"Free": polarfake.FreeProductID, "Trial": polarfake.TrialProductID,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setup(t)
			created := b.checkoutOf(productID, "")
			b.must(b.Pay(created.text("id"), polarfake.PayOptions{Email: "buyer@example.com", Name: "Bea Buyer"}))
			buyer := b.checkoutNow(created.text("id")).text("customer_id")
			types := b.idle()
			for _, wanted := range []string{"subscription.created", "subscription.active", "order.paid", "customer.state_changed"} {
				if !slices.Contains(types, wanted) {
					t.Errorf("no %s among %v", wanted, types)
				}
			}
			state := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/"+buyer+"/state", "")
			if active, _ := state["active_subscriptions"].([]any); len(active) != 1 {
				t.Errorf("state %v", state)
			}
			if active, _ := b.lastOf("customer.state_changed")["active_subscriptions"].([]any); len(active) != 1 {
				t.Error("the last customer.state_changed does not show the subscription")
			}
			subscriptions := b.expect(http.StatusOK, http.MethodGet, "/v1/subscriptions/", "").items()
			if len(subscriptions) != 1 || len(b.Subscriptions()) != 1 {
				t.Fatalf("subscriptions %v", subscriptions)
			}
			b.expect(http.StatusOK, http.MethodGet, "/v1/subscriptions/"+subscriptions[0].text("id"), "")
			found := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/?active=true", "").items()
			if len(found) != 1 || found[0].text("name") != "Bea Buyer" {
				t.Errorf("active customers %v", found)
			}

			second := b.checkoutOf(polarfake.MonthlyProductID, `"customer_id":"`+buyer+`"`)
			wantAPIError(t, b.Confirm(second.text("id"), ""), http.StatusForbidden, "AlreadyActiveSubscriptionError")

			b.must(b.DeleteCustomer(buyer))
			types = b.idle()
			for _, wanted := range []string{"subscription.canceled", "subscription.revoked", "customer.deleted"} {
				if !slices.Contains(types, wanted) {
					t.Errorf("no %s among %v", wanted, types)
				}
			}
		})
	}
}

func TestFreeSubscriptionIsUpgradedInPlace(t *testing.T) {
	t.Parallel()

	b := setup(t)
	free := b.checkoutOf(polarfake.FreeProductID, "")
	b.must(b.Pay(free.text("id"), polarfake.PayOptions{Email: "buyer@example.com"}))
	subscription := b.expect(http.StatusOK, http.MethodGet, "/v1/subscriptions/", "").items()[0]

	upgrade := b.checkoutOf(polarfake.MonthlyProductID, `"subscription_id":"`+subscription.text("id")+`"`)
	if upgrade.text("customer_id") != subscription.text("customer_id") || upgrade.text("customer_email") != "buyer@example.com" {
		t.Fatalf("upgrade %v", upgrade)
	}
	b.must(b.Pay(upgrade.text("id"), polarfake.PayOptions{}))
	after := b.expect(http.StatusOK, http.MethodGet, "/v1/subscriptions/", "").items()
	if len(after) != 1 || after[0].text("product_id") != polarfake.MonthlyProductID {
		t.Errorf("subscriptions after the upgrade: %v", after)
	}
	b.idle()
}

// The branches of what happens at the confirmation, by the numbers of the facts.
func TestConfirmationFindsTheCustomer(t *testing.T) {
	t.Parallel()

	t.Run("0 KnownExternalIDIsLinkedAtOnce", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		known := b.customer(`{"email":"known@example.com","external_id":"usr_1","name":"Known"}`)
		c := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1"`)
		if c.text("customer_id") != known.text("id") || c.text("customer_email") != "known@example.com" ||
			c.text("customer_name") != "Known" {
			t.Errorf("checkout %v", c)
		}
	})
	t.Run("0 ExternalIDIsNotLookedUpAgain", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		c := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1"`)
		b.customer(`{"email":"late@example.com","external_id":"usr_1"}`)
		if b.checkoutNow(c.text("id"))["customer_id"] != nil {
			t.Error("the session was tied to a customer who came later")
		}
	})
	t.Run("1 LinkedCustomerIsUsedWhateverIsTyped", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		known := b.customer(`{"email":"known@example.com","metadata":{"a":"1"}}`)
		c := b.checkoutOf(polarfake.OneTimeProductID, `"customer_id":"`+known.text("id")+`","customer_metadata":{"b":"2"}`)
		b.must(b.Pay(c.text("id"), polarfake.PayOptions{Email: "other@example.com"}))
		after := b.checkoutNow(c.text("id"))
		if after.text("customer_id") != known.text("id") || after.text("customer_email") != "known@example.com" {
			t.Errorf("checkout %v", after)
		}
		if len(b.Customers()) != 1 || len(b.customerNow(known.text("id")).object("metadata")) != 1 {
			t.Error("the customer was not used as it is")
		}
		if types := b.idle(); !slices.Contains(types, "customer.updated") {
			t.Errorf("saving without a change made no event: %v", types)
		}
	})
	t.Run("1 DeletedCustomerIsAConflict", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		known := b.customer(`{"email":"known@example.com"}`)
		c := b.checkoutOf(polarfake.OneTimeProductID, `"customer_id":"`+known.text("id")+`"`)
		b.must(b.DeleteCustomer(known.text("id")))
		wantAPIError(t, b.Confirm(c.text("id"), ""), http.StatusConflict, "CheckoutCustomerDeleted")
		if status := b.checkoutNow(c.text("id")).text("status"); status != "open" {
			t.Errorf("status %s", status)
		}
	})
	t.Run("2 EmailWinsAndTheExternalIDIsDropped", func(t *testing.T) {
		t.Parallel()

		for name, externalID := range map[string]string{"NoneBefore": "", "AnotherBefore": "usr_other"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				b := setup(t)
				known := b.customer(`{"email":"Known@Example.com","external_id":"` + externalID + `","metadata":{"a":"1"}}`)
				c := b.checkoutOf(polarfake.OneTimeProductID,
					`"external_customer_id":"usr_1","customer_metadata":{"b":"2"},"customer_billing_address":{"country":"FR"}`)
				b.must(b.Pay(c.text("id"), polarfake.PayOptions{Email: "kNOWN@example.com", Name: "Typed"}))
				after := b.customerNow(b.checkoutNow(c.text("id")).text("customer_id"))
				if after.text("id") != known.text("id") || after.text("external_id") != externalID {
					t.Errorf("customer %v", after)
				}
				if after.object("metadata").text("a") != "1" || after.object("metadata").text("b") != "2" ||
					after.object("billing_address").text("country") != "FR" || after.text("name") != "Typed" {
					t.Errorf("customer did not take over what was filled in: %v", after)
				}
				if session := b.checkoutNow(c.text("id")); session.text("external_customer_id") != "usr_1" {
					t.Errorf("the session lost its external id: %v", session)
				}
			})
		}
	})
	t.Run("2 NameIsKept", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		known := b.customer(`{"email":"known@example.com","name":"Own"}`)
		c := b.checkoutOf(polarfake.OneTimeProductID, "")
		b.must(b.Pay(c.text("id"), polarfake.PayOptions{Email: "known@example.com", Name: "Typed"}))
		if name := b.customerNow(known.text("id")).text("name"); name != "Own" {
			t.Errorf("name %q", name)
		}
	})
	t.Run("3 ExternalIDOfAnotherIsAMismatch", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		c := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1"`)
		b.customer(`{"email":"other@example.com","external_id":"usr_1"}`)
		wantAPIError(t, b.Confirm(c.text("id"), "buyer@example.com"), http.StatusUnprocessableEntity, "CheckoutCustomerExternalIdMismatch")
		if len(b.Customers()) != 1 {
			t.Error("a customer was created")
		}
	})
	t.Run("4 NewCustomerBearsTheExternalID", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		c := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1","customer_metadata":{"k":true,"n":3}`)
		b.must(b.Confirm(c.text("id"), "new@example.com"))
		created := b.expect(http.StatusOK, http.MethodGet, "/v1/customers/external/usr_1", "")
		if created.text("email") != "new@example.com" || created.object("metadata")["k"] != true || created["modified_at"] == nil {
			t.Errorf("customer %v", created)
		}
		if types := b.idle(); count(types, "customer.created") != 1 || count(types, "customer.updated") != 1 ||
			count(types, "customer.state_changed") != 2 {
			t.Errorf("events %v", types)
		}
	})
	t.Run("WithoutEmailNothingIsConfirmed", func(t *testing.T) {
		t.Parallel()

		b := setup(t)
		c := b.checkoutOf(polarfake.OneTimeProductID, "")
		wantAPIError(t, b.Confirm(c.text("id"), ""), http.StatusUnprocessableEntity, "PolarRequestValidationError")
		wantAPIError(t, b.Confirm(c.text("id"), "nobody"), http.StatusUnprocessableEntity, "RequestValidationError")
	})
}

func TestRefusedPaymentRollsTheCustomerBack(t *testing.T) {
	t.Parallel()

	b := setup(t)
	c := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1"`)
	err := b.Pay(c.text("id"), polarfake.PayOptions{Email: "new@example.com", Outcome: polarfake.PaymentRefused})
	wantAPIError(t, err, http.StatusBadRequest, "PaymentError")
	after := b.checkoutNow(c.text("id"))
	if after.text("status") != "open" || after["customer_id"] != nil || len(b.Customers()) != 0 {
		t.Errorf("left behind: %v, %s", after, b.Customers())
	}
	if types := b.idle(); slices.ContainsFunc(types, func(s string) bool { return strings.HasPrefix(s, "customer.") }) {
		t.Errorf("events %v", types)
	}
}

func TestLaterFailureOpensAgainAndKeepsTheCustomer(t *testing.T) {
	t.Parallel()

	b := setup(t)
	c := b.checkoutOf(polarfake.OneTimeProductID, `"external_customer_id":"usr_1"`)
	b.must(b.Pay(c.text("id"), polarfake.PayOptions{Email: "new@example.com", Outcome: polarfake.PaymentFailsLater}))
	after := b.checkoutNow(c.text("id"))
	if after.text("status") != "open" || after.text("customer_id") == "" || len(b.Customers()) != 1 {
		t.Fatalf("after the failure: %v", after)
	}
	var statuses []string
	b.idle()
	for _, ev := range b.Events() {
		if ev.Type == "checkout.updated" {
			statuses = append(statuses, decode(t, ev.Payload).object("data").text("status"))
		}
	}
	if !slices.Equal(statuses, []string{"open", "confirmed", "open"}) {
		t.Errorf("checkout.updated told of %v", statuses)
	}
	b.must(b.Pay(c.text("id"), polarfake.PayOptions{}))
	if status := b.checkoutNow(c.text("id")).text("status"); status != "succeeded" {
		t.Errorf("status %s after the second try", status)
	}
}
