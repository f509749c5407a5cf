// Package store is truenorth's Postgres: the schema polar, and every statement on it. It is the only package
// that sees the driver's errors; those above it branch on ErrNotFound, ErrUnavailable, ErrDenied and ErrRefused.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Schema is the schema that holds all of truenorth, River's tables among it.
const Schema = "polar"

// River's channel of inserted jobs, and the queues that truenorth's jobs go to.
const (
	QueueCheckouts = "checkouts"
	QueueEvents    = "events"
	queueDefault   = "default" // River's, for all else
)

// ChannelCheckout is the channel on which the id of a checkout request is notified once its URL is stored or it failed.
const ChannelCheckout = "polar_checkout"

// Store is a pool of connections to one database.
type Store struct {
	pool   *pgxpool.Pool
	q      *dbsqlc.Queries
	parts  *parts
	counts *remembered[dbsqlc.StatusCountsRow]
	rates  *remembered[Rates]
}

// Option changes how a Store is opened.
type Option func(*pgxpool.Config)

// WithTracer has the driver tell tracer of every statement. Nil: it tells nobody.
func WithTracer(tracer pgx.QueryTracer) Option {
	return func(config *pgxpool.Config) { config.ConnConfig.Tracer = tracer }
}

// Open makes a Store for a connection URL or a libpq keyword string; applicationName shows in pg_stat_activity.
// It does not connect: a program started while Postgres is away waits for it.
func Open(databaseURL, applicationName string, options ...Option) (*Store, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		// The driver's words may hold the password.
		return nil, errors.New("reading DATABASE_URL: not a Postgres connection URL or keyword string")
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = applicationName
	}
	config.MaxConnLifetimeJitter = 5 * time.Minute
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	// A worker works many jobs at once, and upkeep and sweeps hold a connection while they use another.
	if !strings.Contains(databaseURL, "pool_max_conns") {
		config.MaxConns = max(config.MaxConns, 16)
	}
	// Every statement here is short, and compiling one takes longer than running it. It is no parameter of the connection's
	// start, which poolers refuse where they do not know it.
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		encodeArraysAtOnce(conn.TypeMap())
		if _, err := conn.Exec(ctx, "set jit = off"); err != nil {
			return fmt.Errorf("turning off just-in-time compilation: %w", interpret(err))
		}
		return nil
	}
	for _, option := range options {
		option(config)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("opening the pool: %w", interpret(err))
	}
	return New(pool), nil
}

// New makes a Store of a pool that the caller opened; Close closes it.
func New(pool *pgxpool.Pool) *Store {
	return &Store{pool: pool, q: dbsqlc.New(), parts: newParts(), counts: newRemembered[dbsqlc.StatusCountsRow](), rates: newRemembered[Rates]()}
}

// Pool is the pool below, for River.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Close closes the pool, after what runs has ended.
func (s *Store) Close() { s.pool.Close() }

// Ping tells whether Postgres answers and the schema is there. Errors: ErrUnavailable, or what is missing.
func (s *Store) Ping(ctx context.Context) error {
	var migrated bool
	err := s.pool.QueryRow(ctx, "select to_regclass('polar.event_log') is not null").Scan(&migrated)
	if err != nil {
		return fmt.Errorf("asking Postgres: %w", interpret(err))
	}
	if !migrated {
		return errors.New("schema polar is missing: run `truenorth migrate`")
	}
	return nil
}

// WaitReady waits until Ping succeeds, telling onWait once each second why it waits. Errors: only ctx's.
func (s *Store) WaitReady(ctx context.Context, onWait func(error)) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		pingCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.Ping(pingCtx)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		onWait(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Tx is one transaction.
type Tx struct {
	tx     pgx.Tx
	q      *dbsqlc.Queries
	parts  *parts
	mirror string // the schema whose mirror is written: Schema, or a Scratch
	pins   bool   // that it pinned the organization
}

// Pgx is the transaction below, for River's InsertTx.
func (t *Tx) Pgx() pgx.Tx { return t.tx }

// InTx runs do in one transaction: committed if it returns nil, rolled back otherwise. It never nests.
func (s *Store) InTx(ctx context.Context, do func(tx *Tx) error) error {
	return s.inTx(ctx, pgx.TxOptions{}, do)
}

// InBoundedTx is InTx for a transaction that holds what others wait for. Postgres itself ends it where this process, frozen
// or cut off, leaves it idle for longer than idle, or where a statement takes longer than statement.
func (s *Store) InBoundedTx(ctx context.Context, idle, statement time.Duration, do func(tx *Tx) error) error {
	return s.inTx(ctx, pgx.TxOptions{BeginQuery: fmt.Sprintf(
		"begin; set local idle_in_transaction_session_timeout = %d; set local statement_timeout = %d", idle.Milliseconds(), statement.Milliseconds(),
	)}, do)
}

func (s *Store) inTx(ctx context.Context, options pgx.TxOptions, do func(tx *Tx) error) error {
	tx, err := s.pool.BeginTx(ctx, options)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", interpret(err))
	}
	committed := false
	defer func() { // also where do panics
		if committed {
			return
		}
		// ctx may be over by now, and the connection shall go back to the pool clean.
		rollbackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(rollbackCtx)
	}()
	if err := do(&Tx{tx: tx, q: s.q, parts: s.parts, mirror: Schema}); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("committing: %w", interpret(err))
	}
	committed = true
	return nil
}
