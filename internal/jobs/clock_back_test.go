package jobs_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// TestAWorkerGoesOnWhenTheDatabasesClockHasGoneBack: what an hour's step forward leaves behind when it is taken back, as does a
// fail-over to a server with another clock.
func TestAWorkerGoesOnWhenTheDatabasesClockHasGoneBack(t *testing.T) {
	t.Parallel()

	w := newWorld(t, worldOptions{idle: true})
	w.addUser("usr_1")
	if _, err := w.fake.CreateCustomer(`{"email": "ada@example.com", "external_id": "usr_1"}`); err != nil {
		t.Fatal(err)
	}
	request, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_1"})
	if err != nil {
		t.Fatal(err)
	}
	waittest.Eventually(t, func() error {
		if one[int64](w, "select count(*) from polar.event") == 0 {
			return errors.New("no event has come")
		}
		return nil
	})
	w.exec("update polar.river_job set scheduled_at = now() + interval '1 hour'")
	w.exec("update polar.api_budget set refilled_at = now() + interval '1 hour'")
	w.exec("insert into polar.river_leader (elected_at, expires_at, leader_id) values (now() + interval '1 hour', now() + interval '61 minutes', 'gone')")
	w.exec("insert into polar.worker_process (id, seen_at) values ('gone', now() + interval '1 hour')")

	w.startWorker()
	waittest.Eventually(t, func() error {
		if state := one[string](w, "select state from polar.checkout_request where id = $1", request); state != "open" {
			return errors.New("the request is " + state)
		}
		if one[int64](w, "select count(*) from polar.customer_link") == 0 {
			return errors.New("the customer is not linked")
		}
		return nil
	})
}
