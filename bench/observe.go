package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Held is what the programs and the database hold at a moment.
type Held struct {
	Second           float64 `json:"second"`
	IngestRSS        float64 `json:"ingest_rss_mib"`
	WorkerRSS        float64 `json:"worker_rss_mib"`
	IngestGoroutines float64 `json:"ingest_goroutines"`
	WorkerGoroutines float64 `json:"worker_goroutines"`
	Connections      float64 `json:"connections"` // of both programs to Postgres
	DeadTuples       float64 `json:"dead_tuples"` // in all tables of schema polar
	DeadShare        float64 `json:"dead_share"`  // of all tuples there
	JobRows          float64 `json:"job_rows"`    // of River's table, as Postgres estimates them
	JobsMiB          float64 `json:"jobs_mib"`    // of River's table with its indexes
	TotalMiB         float64 `json:"total_mib"`   // of the database
}

// observer looks at an ingest, a worker and their database in even steps.
type observer struct {
	ingest, worker *process
	conn           *pgx.Conn
	began          time.Time
	held           []Held
	stopped        chan error
	cancel         context.CancelFunc
}

// observe begins to look; stop ends it.
func observe(ctx context.Context, ingest, worker *process, url string, step time.Duration) (*observer, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connecting to observe: %w", err)
	}
	w := &observer{ingest: ingest, worker: worker, conn: conn, began: time.Now(), stopped: make(chan error, 1)}
	ctx, w.cancel = context.WithCancel(ctx)
	go func() { w.stopped <- w.run(ctx, step) }()
	return w, nil
}

func (w *observer) run(ctx context.Context, step time.Duration) error {
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		if err := w.look(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

const heldByDatabase = `
select (select count(*) from pg_stat_activity where datname = current_database() and application_name in ('truenorth ingest', 'truenorth worker')),
       coalesce(sum(s.n_dead_tup), 0), coalesce(sum(s.n_dead_tup)::float8 / nullif(sum(s.n_dead_tup + s.n_live_tup), 0), 0),
       coalesce(sum(s.n_live_tup) filter (where s.relname = 'river_job'), 0),
       coalesce(sum(pg_total_relation_size(s.relid)) filter (where s.relname = 'river_job'), 0) / 1048576.0,
       pg_database_size(current_database()) / 1048576.0
  from pg_stat_user_tables s where s.schemaname = 'polar'`

func (w *observer) look(ctx context.Context) error {
	received, err := w.ingest.usage(ctx)
	if err != nil {
		return err
	}
	worked, err := w.worker.usage(ctx)
	if err != nil {
		return err
	}
	h := Held{
		Second: time.Since(w.began).Seconds(), IngestRSS: mib(received.RSS), WorkerRSS: mib(worked.RSS),
		IngestGoroutines: float64(received.Goroutines), WorkerGoroutines: float64(worked.Goroutines),
	}
	if err := w.conn.QueryRow(ctx, heldByDatabase).Scan(&h.Connections, &h.DeadTuples, &h.DeadShare, &h.JobRows, &h.JobsMiB, &h.TotalMiB); err != nil {
		return fmt.Errorf("asking what the database holds: %w", err)
	}
	w.held = append(w.held, h)
	return nil
}

// stop ends the looking and gives all that was seen.
func (w *observer) stop(ctx context.Context) ([]Held, error) {
	w.cancel()
	err := <-w.stopped
	return w.held, errors.Join(err, w.conn.Close(context.WithoutCancel(ctx)))
}

// between are those seen from one second to another.
func between(held []Held, from, to float64) []Held {
	var list []Held
	for _, h := range held {
		if h.Second >= from && h.Second < to {
			list = append(list, h)
		}
	}
	return list
}
