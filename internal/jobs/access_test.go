package jobs_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestWhatAUserPaidForIsTheirsToUseUntilPolarTakesItAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.addUser("usr_ada", "usr_grace")
	stranger := w.makeCustomer(`{"email": "grace@example.com", "external_id": "usr_grace"}`)
	w.settle()

	buy := func(user, email, product string, outcome polarfake.PaymentOutcome) {
		t.Helper()
		id := w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.MustParse(product)}, ExternalCustomerID: user})
		w.await(id, "open")
		session := one[string](w, "select checkout_id::text from polar.checkout_request where id = $1", id)
		if err := w.fake.Pay(session, polarfake.PayOptions{Email: email, Name: user, Outcome: outcome}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want ...string) {
		t.Helper()
		w.settle()
		waittest.Eventually(t, func() error {
			got := all[string](w, "select local_user_id || ': ' || kind || ' ' || product_name || ' via ' || via from polar.user_access order by 1")
			if !slices.Equal(got, want) {
				return fmt.Errorf("%s: access is %q, want %q", what, got, want)
			}
			return nil
		})
	}

	buy("usr_ada", "grace@example.com", polarfake.OneTimeProductID, polarfake.PaymentPends)
	expect("pay is pressed, nothing is paid")
	// Polar puts this on Grace's customer, because of the address typed.
	buy("usr_ada", "grace@example.com", polarfake.OneTimeProductID, polarfake.PaymentSucceeds)
	expect("paid with somebody else's e-mail address",
		"usr_ada: benefit Field guide via checkout", "usr_ada: product Field guide via checkout")
	if n := one[int64](w, `select count(*) from polar."order" where customer_id = $1`, stranger); n != 1 {
		t.Fatalf("%d orders are on the other's customer, want 1", n)
	}
	buy("usr_ada", "ada@example.com", polarfake.MonthlyProductID, polarfake.PaymentSucceeds)
	expect("paid with an address of their own",
		"usr_ada: benefit Explorer via checkout", "usr_ada: benefit Field guide via checkout",
		"usr_ada: product Field guide via checkout", "usr_ada: subscription Explorer via checkout")
	if err := w.fake.DeleteCustomer(stranger); err != nil {
		t.Fatal(err)
	}
	expect("the customer it was put on is deleted",
		"usr_ada: benefit Explorer via checkout", "usr_ada: subscription Explorer via checkout")
	w.exec("update polar.local_user set deleted_at = now() where id = 'usr_ada'")
	expect("the user is deleted")
}
