package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// The load. One purchase makes about ten events, and what happens besides one or two.
const (
	buyers         = 6
	users          = 400
	purchasePause  = 1500 * time.Millisecond // of one buyer, between two purchases
	happeningPause = 150 * time.Millisecond
	patience       = 45 * time.Second // of a buyer who waits for the page; then it is left
	askAgain       = 500 * time.Millisecond
)

// load is the product's own app with its buyers, and what else happens at Polar.
type load struct {
	r         *run
	pool      *pgxpool.Pool
	asking    atomic.Int64 // keys whose outcome is not known yet
	purchases atomic.Int64
	stopping  atomic.Bool
	done      sync.WaitGroup
}

var products = []string{
	polarfake.OneTimeProductID, polarfake.MonthlyProductID, polarfake.PayWhatYouWantProductID, polarfake.FreeProductID, polarfake.TrialProductID,
}

// newLoad opens the app's pool, with nothing but what the driver does by itself and a limit for each connection and statement.
func newLoad(ctx context.Context, r *run) (*load, error) {
	config, err := pgxpool.ParseConfig(databaseURL(database))
	if err != nil {
		return nil, fmt.Errorf("reading the URL: %w", err)
	}
	config.MaxConns = 2 * buyers
	config.ConnConfig.ConnectTimeout = 2 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the app's pool: %w", err)
	}
	return &load{r: r, pool: pool}, nil
}

// prepare makes the app's own tables and users.
func (l *load) prepare(ctx context.Context) error {
	for _, sql := range []string{
		"create table public.purchase (key text primary key, local_user_id text not null, request uuid not null, at timestamptz not null default now())",
		fmt.Sprintf("insert into polar.local_user (id, email) select 'usr_' || n, 'usr_' || n || '@example.com' from generate_series(1, %d) n", users),
	} {
		if _, err := l.pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// start begins the load, until ctx ends or stop is called.
func (l *load) start(ctx context.Context) {
	for i := range buyers {
		random := rand.New(rand.NewPCG(l.r.seed, uint64(100+i))) //nolint:gosec // no secret
		l.done.Go(func() {
			for n := 0; ctx.Err() == nil && !l.stopping.Load(); n++ {
				l.buy(ctx, random, fmt.Sprintf("purchase_%d_%d", i, n))
				pause(ctx, time.Duration(random.Int64N(2*int64(purchasePause))))
			}
		})
	}
	random := rand.New(rand.NewPCG(l.r.seed, 99)) //nolint:gosec // no secret
	l.done.Go(func() {
		for ctx.Err() == nil && !l.stopping.Load() {
			l.happen(random)
			pause(ctx, time.Duration(random.Int64N(2*int64(happeningPause))))
		}
	})
}

// stop lets what is under way end, and returns when nothing is.
func (l *load) stop() {
	l.stopping.Store(true)
	l.done.Wait()
}

// buy is one purchase: the app asks for a checkout in its own transaction, waits for its page, and the buyer does something there.
func (l *load) buy(ctx context.Context, random *rand.Rand, key string) {
	user := fmt.Sprintf("usr_%d", 1+random.IntN(users))
	params := map[string]any{"products": []string{oneOf(random, products...)}, "external_customer_id": user}
	switch random.IntN(8) {
	case 0, 1:
		params["customer_email"] = user + "@example.com"
	case 2:
		params["products"] = []string{polarfake.ArchivedProductID} // Polar refuses it: the request has to fail, and say why
	}
	l.r.history.note(entry{Kind: kindAsked, Key: key})
	l.asking.Add(1)
	request := l.ask(ctx, key, user, params)
	l.asking.Add(-1)
	if request == "" {
		return // the run is over
	}
	l.r.history.note(entry{Kind: kindAcknowledged, Key: key, Request: request})
	began := time.Now()
	page, known := l.page(ctx, request)
	if known {
		l.r.history.note(entry{Kind: kindOpened, Key: key, Took: time.Since(began).Milliseconds()})
	}
	if page != "" {
		l.visit(ctx, random, page, user)
		l.purchases.Add(1)
	}
}

// ask commits a request, trying with the same key until a commit is known. The run's end alone makes it give up.
func (l *load) ask(ctx context.Context, key, user string, params any) string {
	document, err := json.Marshal(params)
	if err != nil {
		panic(err) // it is made of texts
	}
	for ctx.Err() == nil {
		request, err := l.askOnce(ctx, key, user, document)
		if err == nil {
			return request
		}
		pause(ctx, askAgain)
	}
	return ""
}

// askOnce writes what was bought and asks for the checkout of it, both or neither.
func (l *load) askOnce(ctx context.Context, key, user string, params []byte) (request string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select polar.create_checkout($1, $2)::text", params, key).Scan(&request); err != nil {
			return err //nolint:wrapcheck // whatever it is, it is tried again
		}
		// A try before may be committed though its outcome was not known. Its row is written again, so that this commit is no
		// empty one: an empty commit waits for nobody, and would tell what only the primary knows.
		_, err := tx.Exec(ctx, `insert into public.purchase (key, local_user_id, request) values ($1, $2, $3)
			on conflict (key) do update set request = excluded.request, at = now()`, key, user, request)
		return err //nolint:wrapcheck // whatever it is, it is tried again
	})
	return request, err //nolint:wrapcheck // whatever it is, it is tried again
}

// page waits for the URL of a request; empty where it failed. Known is false where the buyer had no more patience.
func (l *load) page(ctx context.Context, request string) (url string, known bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		var state string
		var page *string
		tryCtx, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := l.pool.QueryRow(tryCtx, "select state, url from polar.checkout_request where id = $1", request).Scan(&state, &page)
		cancel()
		switch {
		case err == nil && state == "open" && page != nil:
			return *page, true
		case err == nil && state != "queued" && state != "creating", errors.Is(err, pgx.ErrNoRows):
			return "", true
		}
		pause(ctx, 100*time.Millisecond)
	}
	return "", false
}

// visit is what a buyer does on the page.
func (l *load) visit(ctx context.Context, random *rand.Rand, page, user string) {
	form := url.Values{"email": {user + "@example.com"}, "name": {"Buyer " + user}}
	switch n := random.IntN(20); {
	case n < 2:
		return // leaves without a word
	case n < 4:
		form.Set("action", "fail")
	case n < 5:
		form.Set("action", "expire")
	case n < 6:
		form.Set("email", fmt.Sprintf("usr_%d@example.com", 1+random.IntN(users))) // the address of somebody else
		form.Set("action", "pay")
	default:
		form.Set("action", "pay")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, page, strings.NewReader(form.Encode()))
	if err != nil {
		l.r.sayf("a page has no URL: %q", page)
		return
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := l.r.client.Do(request)
	if err == nil {
		_ = response.Body.Close()
	}
}

// happen is one more thing that happens at Polar. What it refuses happens too: then nothing comes of it.
func (l *load) happen(random *rand.Rand) {
	fake := l.r.fake
	switch random.IntN(12) {
	case 0:
		user := random.IntN(users)
		_, _ = fake.CreateCustomer(fmt.Sprintf(`{"email": "usr_%d@example.com", "external_id": "usr_%d", "name": "Made by hand"}`, user, user))
	case 1, 2, 3, 4:
		l.onOne(random, "customer", func(id string) error {
			_, err := fake.UpdateCustomer(id, oneOf(random, `{"name": "Renamed"}`, `{"name": null}`, fmt.Sprintf(`{"metadata": {"plan": "gold %d"}}`, random.IntN(9))))
			return err
		})
	case 5:
		if random.IntN(4) == 0 {
			l.onOne(random, "customer", fake.DeleteCustomer)
		}
	case 6:
		l.onOne(random, "order", func(id string) error {
			_, err := fake.RefundOrder(id, polarfake.RefundOptions{RevokeBenefits: random.IntN(2) == 0})
			return err
		})
	case 7:
		l.onOne(random, "subscription", fake.CycleSubscription)
	case 8:
		l.onOne(random, "subscription", oneOf(random, fake.CancelSubscription, fake.RevokeSubscription, fake.FailRenewal, fake.PauseSubscription))
	case 9:
		l.onOne(random, "benefit_grant", oneOf(random, fake.UpdateGrant, fake.CycleGrant))
	case 10:
		_, _ = fake.UpdateProduct(oneOf(random, products...), fmt.Sprintf(`{"description": "Version %d"}`, random.IntN(100)))
	case 11:
		_, _ = fake.CreateDiscount(fmt.Sprintf(`{"name": "Sale %d", "type": "percentage", "basis_points": 1000, "duration": "once"}`, random.IntN(1000)))
	}
}

// onOne does something to one of the objects of a type that Polar told of lately, whatever has become of it.
func (l *load) onOne(random *rand.Rand, objectType string, do func(id string) error) {
	if id := l.r.edge.lately(random, objectType); id != "" {
		_ = do(id) // refused: nothing happens
	}
}

// pause waits, or less where ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// every does something again and again until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// within tries until it succeeds, with a limit.
func within(ctx context.Context, limit time.Duration, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, 250*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

func sortedKeys[V any](of map[string]V) []string {
	keys := make([]string, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
