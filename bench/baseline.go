package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The baseline is what most products have, written with care: each delivery in a transaction of its own with a River job,
// each job in a transaction of its own. It keeps an event and one object's newest version, and neither links, nor
// asks Polar, nor logs.

// mirrorTables are the baseline's tables of objects, by the type of event.
var mirrorTables = map[string]string{
	"customer.created": "customer", "customer.state_changed": "customer_state",
	"checkout.created": "checkout", "checkout.updated": "checkout",
	"order.created": "purchase", "order.paid": "purchase",
	"benefit_grant.created": "benefit_grant",
}

// migrateBaseline makes the baseline's tables, and River's, in an empty database.
func migrateBaseline(ctx context.Context, url string) error {
	pool, err := openBaseline(url) //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("making River's migrator: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("making River's tables: %w", err)
	}
	statements := []string{`create table event_log (
		seq bigint generated always as identity primary key, webhook_id text not null unique, type text not null, object_id text,
		occurred_at timestamptz, received_at timestamptz not null default now(), applied_at timestamptz, body text not null)`}
	for _, table := range []string{"customer", "customer_state", "checkout", "purchase", "benefit_grant"} {
		statements = append(statements, "create table "+table+
			" (id uuid primary key, customer_id uuid, status text, version_at timestamptz not null, doc jsonb not null)")
	}
	for _, statement := range statements {
		if _, err := pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("making the baseline's tables: %w", err)
		}
	}
	return nil
}

// openBaseline opens a pool of as many connections as truenorth's has. It connects to nothing yet.
func openBaseline(url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("reading the database's URL: %w", err)
	}
	config.MaxConns = max(config.MaxConns, 16)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("opening the pool: %w", err)
	}
	return pool, nil
}

// baselineBody is what the baseline reads of a delivery.
type baselineBody struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		ID string `json:"id"`
	} `json:"data"`
}

// receiver verifies deliveries with the standard-webhooks library; with a pool it stores them too.
type receiver struct {
	webhook *standardwebhooks.Webhook
	pool    *pgxpool.Pool
	river   *river.Client[pgx.Tx]
}

func newVerifyOnly(orders, *slog.Logger) (subject, error) {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return subject{}, fmt.Errorf("reading the secret: %w", err)
	}
	return subject{server: plainServer(&receiver{webhook: webhook}), end: func() {}}, nil
}

func newBaseline(o orders, _ *slog.Logger) (subject, error) {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return subject{}, fmt.Errorf("reading the secret: %w", err)
	}
	pool, err := openBaseline(o.Database)
	if err != nil {
		return subject{}, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		pool.Close()
		return subject{}, fmt.Errorf("configuring River: %w", err)
	}
	return subject{server: plainServer(&receiver{webhook: webhook, pool: pool, river: client}), end: pool.Close}, nil
}

func plainServer(rc *receiver) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("POST "+route, rc)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "body could not be read", http.StatusBadRequest)
		return
	}
	if err := rc.webhook.Verify(body, r.Header); err != nil {
		http.Error(w, "no valid signature", http.StatusUnauthorized)
		return
	}
	if rc.pool != nil {
		if err := rc.store(r.Context(), r.Header.Get("Webhook-Id"), body); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

func (rc *receiver) store(ctx context.Context, webhookID string, body []byte) error {
	var read baselineBody
	if err := json.Unmarshal(body, &read); err != nil {
		return fmt.Errorf("reading the event: %w", err)
	}
	return inTx(ctx, rc.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `insert into event_log (webhook_id, type, object_id, occurred_at, body) values ($1, $2, $3, $4, $5)
			on conflict (webhook_id) do nothing returning seq`, webhookID, read.Type, read.Data.ID, read.Timestamp, string(body))
		if err != nil {
			return fmt.Errorf("inserting the event: %w", err)
		}
		seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return fmt.Errorf("inserting the event: %w", err)
		}
		if len(seqs) == 0 {
			return nil // a duplicate
		}
		if _, err := rc.river.InsertTx(ctx, tx, applyEventArgs{Event: seqs[0]}, nil); err != nil {
			return fmt.Errorf("inserting the job: %w", err)
		}
		return nil
	})
}

func inTx(ctx context.Context, pool *pgxpool.Pool, do func(pgx.Tx) error) error {
	if err := pgx.BeginFunc(ctx, pool, do); err != nil {
		return fmt.Errorf("in a transaction: %w", err)
	}
	return nil
}

// applyEventArgs are the arguments of the baseline's job.
type applyEventArgs struct {
	Event int64 `json:"event"`
}

// Kind is the job's kind as River stores it.
func (applyEventArgs) Kind() string { return "apply_event" }

type applyEventWorker struct {
	river.WorkerDefaults[applyEventArgs]
	pool    *pgxpool.Pool
	upserts map[string]string
}

// newBaselineWorker works the baseline's jobs. River's defaults would bound it to MaxWorkers / FetchCooldown jobs a second;
// these settings do not.
func newBaselineWorker(o orders, _ *slog.Logger) (subject, error) {
	pool, err := openBaseline(o.Database)
	if err != nil {
		return subject{}, err
	}
	worker := &applyEventWorker{pool: pool, upserts: map[string]string{}}
	for kind, table := range mirrorTables {
		worker.upserts[kind] = fmt.Sprintf(`insert into %[1]s as o (id, customer_id, status, version_at, doc) values ($1, $2, $3, $4, $5)
			on conflict (id) do update set customer_id = excluded.customer_id, status = excluded.status,
			       version_at = excluded.version_at, doc = excluded.doc
			 where o.version_at < excluded.version_at`, table)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Logger: slog.New(slog.DiscardHandler), Workers: workers,
		Queues: map[string]river.QueueConfig{
			river.QueueDefault: {MaxWorkers: 100, FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 200 * time.Millisecond},
		},
	})
	if err != nil {
		pool.Close()
		return subject{}, fmt.Errorf("configuring River: %w", err)
	}
	return subject{end: pool.Close, run: func(ctx context.Context, ready func()) error {
		if err := client.Start(ctx); err != nil {
			return fmt.Errorf("starting River: %w", err)
		}
		ready()
		<-client.Stopped()
		return nil
	}}, nil
}

// Work applies one event.
func (w *applyEventWorker) Work(ctx context.Context, job *river.Job[applyEventArgs]) error {
	return inTx(ctx, w.pool, func(tx pgx.Tx) error {
		var kind, body string
		var at time.Time
		err := tx.QueryRow(ctx, "select type, occurred_at, body from event_log where seq = $1", job.Args.Event).Scan(&kind, &at, &body)
		if err != nil {
			return fmt.Errorf("reading event %d: %w", job.Args.Event, err)
		}
		var read struct {
			Data json.RawMessage `json:"data"`
		}
		var object struct {
			ID         uuid.UUID  `json:"id"`
			CustomerID *uuid.UUID `json:"customer_id"`
			Status     *string    `json:"status"`
		}
		if err := errors.Join(json.Unmarshal([]byte(body), &read), json.Unmarshal(read.Data, &object)); err != nil {
			return fmt.Errorf("reading event %d: %w", job.Args.Event, err)
		}
		upsert, known := w.upserts[kind]
		if !known {
			return fmt.Errorf("event %d is of type %s, for which there is no table", job.Args.Event, kind)
		}
		if _, err := tx.Exec(ctx, upsert, object.ID, object.CustomerID, object.Status, at, string(read.Data)); err != nil {
			return fmt.Errorf("writing the object of event %d: %w", job.Args.Event, err)
		}
		if _, err := tx.Exec(ctx, "update event_log set applied_at = now() where seq = $1", job.Args.Event); err != nil {
			return fmt.Errorf("marking event %d: %w", job.Args.Event, err)
		}
		return nil
	})
}

// storeBaseline stores events with a job each.
func storeBaseline(ctx context.Context, url string, events []event) error {
	pool, err := openBaseline(url) //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer pool.Close()
	return inChunks(ctx, events, 1000, func(ctx context.Context, chunk []event) error {
		var ids, kinds, objects, bodies []string
		var times []time.Time
		for _, e := range chunk {
			ids, kinds, objects = append(ids, e.webhookID), append(kinds, e.kind), append(objects, e.objectID)
			bodies, times = append(bodies, string(e.body)), append(times, e.at)
		}
		_, err := pool.Exec(ctx, `
			with stored as (
			    insert into event_log (webhook_id, type, object_id, occurred_at, body)
			    select unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::timestamptz[]), unnest($5::text[])
			    returning seq
			)
			insert into river_job (kind, args, queue, max_attempts)
			select 'apply_event', jsonb_build_object('event', seq), 'default', 25 from stored order by seq`, ids, kinds, objects, times, bodies)
		if err != nil {
			return fmt.Errorf("storing events for the baseline: %w", err)
		}
		return nil
	})
}

// plain is what is asked of the baseline's tables.
var plain = tables{
	template: templateBaseline,
	events:   "select count(*) from event_log",
	uncovered: `select count(*) from event_log l where not exists (
	              select from river_job j where j.kind = 'apply_event' and (j.args ->> 'event')::bigint = l.seq)`,
	working: "select exists (select from river_job where kind = 'apply_event' and state in ('available', 'running', 'retryable', 'scheduled'))",
	applied: "select count(*) filter (where applied_at is not null), 0 from event_log",
}
