package store_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// TestWhatIsKnownIsAcknowledgedOnlyOnceASynchronousStandbyHasIt: an event or a key that is known may be known to this server alone, its
// commit having waited in vain. A transaction that writes nothing waits for nobody, and its 2xx would promise what the loss of
// this server takes away.
func TestWhatIsKnownIsAcknowledgedOnlyOnceASynchronousStandbyHasIt(t *testing.T) {
	t.Parallel()

	pg, err := embeddedpg.Start(t.Context(), embeddedpg.Options{})
	if err != nil {
		t.Fatalf("starting a Postgres of the test's own: %v", err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := storetest.Open(t, pg.URL())
	if _, err := s.Migrate(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	setStandbys := func(names string) {
		t.Helper()
		for _, sql := range []string{"alter system set synchronous_standby_names = '" + names + "'", "select pg_reload_conf()"} {
			if _, err := s.Pool().Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		waittest.Eventually(t, func() error {
			var now string
			if err := s.Pool().QueryRow(t.Context(), "select current_setting('synchronous_standby_names')").Scan(&now); err != nil {
				return err
			}
			if now != names {
				return errors.New("the standbys are still " + now)
			}
			return nil
		})
	}
	insert := func(limit time.Duration, ids ...string) (store.Stored, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		var deliveries []store.Delivery
		for _, id := range ids {
			deliveries = append(deliveries, store.Delivery{WebhookID: id, Type: "customer.created", OccurredAt: time.Now(), Body: []byte(`{}`)})
		}
		return s.InsertEvents(ctx, deliveries, false)
	}
	product := uuid.New()
	const enough, inVain = 10 * time.Second, time.Second

	setStandbys("away")
	if _, err := insert(inVain, "evt_1"); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("an event is stored without the standby that it has to be on: %v", err)
	}
	for _, ids := range [][]string{{"evt_1"}, {"evt_1", "evt_1"}} {
		if stored, err := insert(inVain, ids...); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("delivered again as %v without the standby, it is acknowledged: %+v, %v", ids, stored, err)
		}
	}
	client := truenorth.NewClient(s.Pool())
	t.Cleanup(client.Close)
	doors := map[string]func(ctx context.Context) error{
		"by Go": func(ctx context.Context) error {
			_, err := client.CreateCheckout(ctx, truenorth.CheckoutParams{Products: []uuid.UUID{product}}, truenorth.WithKey("purchase_1"))
			return err
		},
		"by HTTP": func(ctx context.Context) error {
			_, _, err := s.AskForCheckout(ctx, []byte(`{"products": ["`+product.String()+`"]}`), "purchase_1")
			return err
		},
	}
	for _, try := range []string{"first", "second"} {
		for name, ask := range doors {
			ctx, cancel := context.WithTimeout(t.Context(), inVain)
			if err := ask(ctx); err == nil {
				t.Errorf("a checkout asked for %s for the %s time, without the standby, is acknowledged", name, try)
			}
			cancel()
		}
	}
	setStandbys("")
	stored, err := insert(enough, "evt_1")
	if err != nil || stored.New != 0 || len(stored.Known) != 1 {
		t.Errorf("delivered again once all is well, it is %+v, %v, want known", stored, err)
	}
}
