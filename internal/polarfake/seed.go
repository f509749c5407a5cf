package polarfake

import (
	"fmt"
	"time"
)

// SeedCustomers adds n customers and emits nothing, as if they had been there before the endpoint. The i-th, from 0,
// has the external id prefix+i and the e-mail prefix+i@example.com. The ids are returned in that order. They were
// created one after another, a microsecond apart, up to now.
func (f *Fake) SeedCustomers(n int, prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	moments := f.seedMoments(n, lastRank(f.customers.ranking))
	return seed(n, func(i int) string {
		externalID := fmt.Sprintf("%s%d", prefix, i)
		c := f.newCustomer(externalID+"@example.com", moments(i))
		c.ExternalID = &externalID
		f.customers.add(c)
		return c.ID
	})
}

// SeedOrders adds n orders of the one-time product, paid and spread over the customers, and emits nothing. There have
// to be customers.
func (f *Fake) SeedOrders(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	moments, sold := f.seedMoments(n, lastRank(f.sales.orders.ranking)), f.catalog.products.byID[OneTimeProductID]
	return seed(n, func(i int) string {
		amount := sold.Prices[0].charge(priceChoice{})
		o := f.newOrder(f.customers.all[i%len(f.customers.all)], sold, catalogueCurrency, amount, nil, moments(i))
		o.Status, o.Paid = orderPaid, true
		f.sales.orders.add(o)
		return o.ID
	})
}

// SeedSubscriptions adds n subscriptions to the monthly product, active and spread over the customers, and emits
// nothing. There have to be customers.
func (f *Fake) SeedSubscriptions(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	moments, sold := f.seedMoments(n, lastRank(f.sales.subscriptions.ranking)), f.catalog.products.byID[MonthlyProductID]
	return seed(n, func(i int) string {
		s := f.newSubscription(f.customers.all[i%len(f.customers.all)], moments(i))
		s.setProduct(sold, sold.Prices[0], sold.Prices[0].charge(priceChoice{}))
		s.Currency, s.Status, s.StartedAt = catalogueCurrency, subscriptionActive, &s.CreatedAt
		s.startPeriod(s.CreatedAt)
		f.addSubscription(s)
		return s.ID
	})
}

// SeedCheckouts adds n open sessions of the one-time product, for nobody in particular, and emits nothing.
func (f *Fake) SeedCheckouts(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	moments := f.seedMoments(n, lastRank(f.checkouts.ranking))
	return seed(n, func(i int) string {
		body := fields{loc: []any{"body"}, problems: new([]Problem), values: map[string]any{"products": []any{OneTimeProductID}}}
		c, err := f.newCheckout(body, f.readCheckoutParams(body), moments(i))
		if err != nil {
			panic(fmt.Sprintf("polarfake: seeding a checkout: %v", err))
		}
		c.URL = f.publicURL + "/checkout/" + c.ClientSecret
		c.successTemplate = c.URL + "/confirmation"
		c.SuccessURL = c.successTemplate
		f.checkouts.add(c)
		return c.ID
	})
}

func seed(n int, add func(i int) string) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = add(i)
	}
	return ids
}

// seedMoments returns when each of n objects was created: a microsecond apart up to now, and after the last there is.
func (f *Fake) seedMoments(n int, last rank) func(i int) timestamp {
	first := f.now().add(-time.Duration(n) * time.Microsecond)
	if !first.After(last.at) {
		first = timestamp{last.at.Add(time.Microsecond)}
	}
	return func(i int) timestamp { return first.add(time.Duration(i) * time.Microsecond) }
}

func lastRank[T any](objects ranking[T]) rank {
	if len(objects.all) == 0 {
		return rank{}
	}
	return objects.rank(objects.all[len(objects.all)-1])
}
