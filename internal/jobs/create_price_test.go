package jobs_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

func TestAdHocPricesOfEveryKindReachPolar(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	monthly, meter := uuid.MustParse(polarfake.MonthlyProductID), uuid.MustParse(polarfake.MeterID)
	tiers := truenorth.Tiers{Type: truenorth.TierTypeGraduated, Tiers: []truenorth.Tier{{Bound: 100, UnitAmount: "2"}, {UnitAmount: "1"}}}
	for _, tt := range []struct {
		product uuid.UUID
		price   truenorth.Price
		kind    string // as Polar's answer names it
	}{
		{oneTime, truenorth.FixedPrice{PriceAmount: 1234}, "fixed"},
		{oneTime, truenorth.FreePrice{}, "fixed"},
		{oneTime, truenorth.CustomPrice{PresetAmount: new(int64(800))}, "custom"},
		{monthly, truenorth.SeatBasedPrice{SeatTiers: truenorth.SeatTiers{Tiers: []truenorth.SeatTier{{MinSeats: 1, PricePerSeat: 300}}}}, "seat_based"},
		{monthly, truenorth.MeteredUnitPrice{MeterID: meter, UnitAmount: "0.25"}, "metered_unit"},
		{monthly, truenorth.MeteredTiersPrice{MeterID: meter, Tiers: tiers}, "metered_tiers"},
		{monthly, truenorth.UnitBasedPrice{Tiers: tiers}, "unit_based"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			other := monthly
			if tt.product == monthly {
				other = oneTime
			}
			request := w.await(w.askFor(truenorth.CheckoutParams{
				Products: []uuid.UUID{tt.product, other},
				Prices:   truenorth.Prices{tt.product: {tt.price}},
			}), "open")
			session := w.session(request.CheckoutID)
			if products, _ := session["products"].([]any); len(products) != 2 {
				t.Errorf("the session has %d products, want 2", len(products))
			}
			prices, _ := session["prices"].(map[string]any)
			list, _ := prices[tt.product.String()].([]any)
			if len(list) != 1 {
				t.Fatalf("the session's prices are %v", prices)
			}
			if price, _ := list[0].(map[string]any); price["amount_type"] != tt.kind || price["source"] != "ad_hoc" {
				t.Errorf("the price is %v", price)
			}
		})
	}
}
