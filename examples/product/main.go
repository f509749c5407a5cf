// Command product prints the URL at which a product is sold: go run ./examples/product PRODUCT_ID
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: product PRODUCT_ID, with DATABASE_URL set")
		os.Exit(2)
	}
	ctx := context.Background()
	pool := must(pgxpool.New(ctx, os.Getenv("DATABASE_URL")))
	client := truenorth.NewClient(pool)
	product := must(uuid.Parse(os.Args[1]))

	id := must(client.CreateCheckout(ctx, truenorth.CheckoutParams{Products: []uuid.UUID{product}}))
	fmt.Println(must(client.AwaitURL(ctx, id)))
}

func must[T any](value T, err error) T {
	if err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error(err.Error())
		os.Exit(1)
	}
	return value
}
