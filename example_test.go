package truenorth_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/truenorth-dev/truenorth"
)

// A checkout is asked for in the product's own transaction, and its URL awaited after the commit.
func ExampleClient_CreateCheckoutTx() { //nolint:testableexamples // its output is a URL of Polar's
	sell := func(ctx context.Context, pool *pgxpool.Pool, client *truenorth.Client, product uuid.UUID, userID, orderID string) (string, error) {
		var request uuid.UUID
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// The product's own rows go into the same transaction.
			var err error
			request, err = client.CreateCheckoutTx(ctx, tx, truenorth.CheckoutParams{
				Products:           []uuid.UUID{product},
				ExternalCustomerID: userID,
			}, truenorth.WithKey(orderID))
			return err
		})
		if err != nil {
			return "", err
		}
		return client.AwaitURL(ctx, request)
	}
	_ = sell
}

// A request that is over has no URL to give: the error tells why.
func ExampleClient_AwaitURL() { //nolint:testableexamples // its output is a URL of Polar's
	redirect := func(ctx context.Context, client *truenorth.Client, request uuid.UUID) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		url, err := client.AwaitURL(ctx, request)
		if over, ok := errors.AsType[*truenorth.CheckoutError](err); ok && over.State == "succeeded" {
			return "/thanks", nil // paid already, in another tab
		}
		return url, err
	}
	_ = redirect
}

// Whoever paid before signing up is linked in the transaction that signs them up.
func ExampleClient_LinkUserTx() { //nolint:testableexamples // it needs a database
	signUp := func(ctx context.Context, pool *pgxpool.Pool, client *truenorth.Client, userID, email string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into users (id, email) values ($1, $2)", userID, email); err != nil {
				return err
			}
			_, err := client.LinkUserTx(ctx, tx, userID)
			return err
		})
	}
	_ = signUp
}

// An app acts on a change and stores the cursor in one transaction: then each change has its effect once.
func ExampleClient_Changes() { //nolint:testableexamples // it needs a database, and never ends
	follow := func(ctx context.Context, pool *pgxpool.Pool, client *truenorth.Client) error {
		var cursor int64
		if err := pool.QueryRow(ctx, "select id from feed_cursor").Scan(&cursor); err != nil {
			return err
		}
		for change, err := range client.Changes(ctx, cursor) {
			if err != nil {
				return err
			}
			err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if change.Kind == truenorth.ChangeAccessLost && change.Access == truenorth.AccessSubscription {
					if _, err := tx.Exec(ctx, "update projects set archived = true where owner = $1", change.LocalUserID); err != nil {
						return err
					}
				}
				_, err := tx.Exec(ctx, "update feed_cursor set id = $1", change.ID)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	_ = follow
}

// An app with a River client of its own inserts the job itself, with a second client that only inserts.
func ExampleNewCreateCheckoutArgs() { //nolint:testableexamples // its output is a random id
	enqueue := func(ctx context.Context, pool *pgxpool.Pool, tx pgx.Tx, product uuid.UUID) (uuid.UUID, error) {
		client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: "polar"})
		if err != nil {
			return uuid.Nil, err
		}
		args, err := truenorth.NewCreateCheckoutArgs(truenorth.CheckoutParams{Products: []uuid.UUID{product}})
		if err != nil {
			return uuid.Nil, err
		}
		_, err = client.InsertTx(ctx, tx, args, nil)
		return args.RequestID, err
	}
	_ = enqueue
}

// A job that was inserted without a RequestID makes a request whose id follows from the job's.
func ExampleRequestIDOfJob() {
	fmt.Println(truenorth.RequestIDOfJob(42))
	// Output:
	// f1834c82-344c-5394-a20a-c43896584601
}

// What cannot be right is refused before anything is written, each field by its path.
func ExampleCheckoutParams_JSON() {
	product := uuid.MustParse("5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01")
	_, err := truenorth.CheckoutParams{
		Products: []uuid.UUID{product},
		Prices:   truenorth.Prices{product: {truenorth.FixedPrice{PriceAmount: 25, Currency: "usd"}}},
		Metadata: truenorth.Values{"campaign": ""},
	}.JSON()
	if bad, ok := errors.AsType[*truenorth.ParamsError](err); ok {
		for _, field := range bad.Fields {
			fmt.Println(field.Path)
		}
	}
	// Output:
	// prices.5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01[0].price_amount
	// metadata.campaign
}
