package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func stringsReader(s string) *strings.Reader { return strings.NewReader(s) }

func TestAUserWhoPaysIsLinkedToTheCustomerThatPolarMakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.addUser("usr_ada")
	id, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	url, err := w.client.AwaitURL(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(url, w.api.URL+"/checkout/") {
		t.Errorf("URL %q is not the fake's", url)
	}
	checkout := one[string](w, "select checkout_id::text from polar.checkout_request where id = $1", id)
	if err := w.fake.Pay(checkout, polarfake.PayOptions{Email: "ada@example.com", Name: "Ada"}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	waittest.Eventually(t, func() error {
		got := all[string](w, "select local_user_id || ' ' || basis || ' ' || c.external_id from polar.customer_link join polar.customer c on c.id = customer_id")
		if len(got) != 1 || got[0] != "usr_ada checkout usr_ada" {
			return fmt.Errorf("links are %q", got)
		}
		return nil
	})
	if state := one[string](w, "select state from polar.checkout_request where id = $1", id); state != "succeeded" {
		t.Errorf("request is %s, want succeeded", state)
	}
	if failed := all[string](w, "select type || ': ' || error from polar.event where state = 'failed'"); len(failed) > 0 {
		t.Errorf("failed events: %q", failed)
	}
	if orders := one[int64](w, `select count(*) from polar."order" where checkout_id = $1 and paid`, checkout); orders != 1 {
		t.Errorf("%d paid orders of the checkout, want 1", orders)
	}
}
