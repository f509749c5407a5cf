// Command shop-go is a small web shop that sells one product through Polar and truenorth. The README beside it says how
// to run it, and what to look at.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := run(ctx, logger)
	stop()
	if err != nil {
		logger.Error("the shop ended", slog.String("error", err.Error()))
		os.Exit(1)
	}
}

// run serves the shop until ctx ends, and then finishes the requests in flight.
func run(ctx context.Context, logger *slog.Logger) error {
	product, err := uuid.Parse(os.Getenv("PRODUCT_ID"))
	if err != nil {
		return fmt.Errorf("PRODUCT_ID is not the id of a product at Polar: %w", err)
	}
	addr := cmp.Or(os.Getenv("SHOP_ADDR"), "127.0.0.1:3000")
	base, err := url.Parse(cmp.Or(os.Getenv("SHOP_URL"), "http://"+addr))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return errors.New("SHOP_URL is not where browsers find the shop, such as https://shop.example.com")
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer pool.Close()
	if err := createTables(ctx, pool); err != nil {
		return err
	}
	client := truenorth.NewClient(pool)
	defer client.Close()
	s := &shop{pool: pool, client: client, product: product, base: base, logger: logger}

	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("SHOP_ADDR: %w", err)
	}
	// The write time-out leaves room for the wait for a checkout's URL.
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: urlPatience + 10*time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	// What goes on beside the pages stands here. Who has to do something once when access begins, such as to send a
	// mail, adds one more loop: pages only ever ask polar.user_access what is true now, and never hear of a beginning.
	go s.removeOldSessions(ctx)

	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	logger.InfoContext(ctx, "the shop is open", slog.String("url", base.String()))
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), urlPatience+time.Second)
	defer cancel()
	if err := server.Shutdown(stopCtx); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}

//go:embed schema.sql
var schema string

// createTables makes the shop's tables where they are not there yet.
func createTables(ctx context.Context, pool *pgxpool.Pool) error {
	return inTransaction(ctx, pool, "creating the shop's tables", func(tx pgx.Tx) error {
		// "if not exists" alone is no match for two shops that start at the same moment.
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock(hashtext('shop schema'))"); err != nil {
			return fmt.Errorf("waiting for another shop: %w", err)
		}
		if _, err := tx.Exec(ctx, schema); err != nil {
			return fmt.Errorf("running schema.sql: %w", err)
		}
		return nil
	})
}

// inTransaction runs work in one transaction, which commits unless work fails.
func inTransaction(ctx context.Context, pool *pgxpool.Pool, doing string, work func(pgx.Tx) error) error {
	if err := pgx.BeginFunc(ctx, pool, work); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
