// Command adhocprice prints the URL at which a product is sold at a price of the moment, in US cents:
// go run ./examples/adhocprice PRODUCT_ID 1500
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: adhocprice PRODUCT_ID CENTS, with DATABASE_URL set")
		os.Exit(2)
	}
	ctx := context.Background()
	pool := must(pgxpool.New(ctx, os.Getenv("DATABASE_URL")))
	client := truenorth.NewClient(pool)
	product, cents := must(uuid.Parse(os.Args[1])), must(strconv.ParseInt(os.Args[2], 10, 64))

	id := must(client.CreateCheckout(ctx, truenorth.CheckoutParams{
		Products: []uuid.UUID{product},
		Prices:   truenorth.Prices{product: {truenorth.FixedPrice{PriceAmount: cents}}},
	}))
	fmt.Println(must(client.AwaitURL(ctx, id)))
}

func must[T any](value T, err error) T {
	if err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error(err.Error())
		os.Exit(1)
	}
	return value
}
