package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// All that this program takes of truenorth's internals is in this file, built as cmd/internal/program builds it: where
// a constructor changes, it changes here.

// route is where deliveries are posted, for every subject.
const route = ingest.Route

// fakeToken is one that the fake Polar takes; it takes any.
const fakeToken = "polar_oat_bench" //nolint:gosec // opens nothing

// migrateProduct brings an empty database to truenorth's newest schema.
func migrateProduct(ctx context.Context, url string) error {
	s, err := store.Open(url, "truenorth bench") //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Migrate(ctx, slog.New(slog.DiscardHandler))
	return err
}

// newIngest is what cmd/ingest serves.
func newIngest(o orders, logger *slog.Logger) (subject, error) {
	verifier, err := polar.NewVerifier([]string{secret})
	if err != nil {
		return subject{}, err
	}
	s, err := store.Open(o.Database, "truenorth ingest")
	if err != nil {
		return subject{}, err
	}
	receiver := ingest.New(s, verifier, logger)
	return subject{server: ingest.Server(receiver.Handler(), logger), end: s.Close}, nil
}

// newRunner is what cmd/worker works with, on the fake Polar and without a limit of calls to it.
func newRunner(o orders, logger *slog.Logger) (*jobs.Runner, *store.Store, error) {
	s, err := store.Open(o.Database, "truenorth worker")
	if err != nil {
		return nil, nil, err
	}
	const byDefault = 15 * time.Second
	runner, err := jobs.New(s, jobs.Config{
		API: polar.Config{
			BaseURL: o.API, Token: fakeToken, Version: "2026-10", UserAgent: "truenorth/bench",
			Logger: logger, Timeout: byDefault,
		},
		RecoveryTime: byDefault, EventRetention: o.Retention, Logger: logger,
	})
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return runner, s, nil
}

// newWorker is what cmd/worker runs, but for its console.
func newWorker(o orders, logger *slog.Logger) (subject, error) {
	runner, s, err := newRunner(o, logger)
	if err != nil {
		return subject{}, err
	}
	return subject{end: s.Close, run: func(ctx context.Context, ready func()) error {
		if err := runner.CheckOrganization(ctx); err != nil {
			return err
		}
		return runner.Run(ctx, ready)
	}}, nil
}

// newSweeper is what `truenorth reconcile customers` does, once for every request to the control port.
func newSweeper(o orders, logger *slog.Logger) (subject, error) {
	runner, s, err := newRunner(o, logger)
	if err != nil {
		return subject{}, err
	}
	sweep := func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		runs, err := runner.Reconcile(r.Context(), jobs.ReconcileOptions{Types: []string{"customer"}, Fresh: true})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		swept := swept{Seconds: time.Since(began).Seconds()}
		for _, run := range runs {
			swept.Seen, swept.Drifted = swept.Seen+run.Seen, swept.Drifted+run.Drifted
		}
		answerJSON(w, swept)
	}
	return subject{end: s.Close, control: map[string]http.HandlerFunc{"POST /sweep": sweep}}, nil
}

// newPruner is the worker's removal of old events, alone, once for every request to the control port. It ends with the request.
func newPruner(o orders, logger *slog.Logger) (subject, error) {
	runner, s, err := newRunner(o, logger)
	if err != nil {
		return subject{}, err
	}
	prune := func(w http.ResponseWriter, r *http.Request) {
		if err := runner.PruneEvents(r.Context()); err != nil && r.Context().Err() == nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	return subject{end: s.Close, control: map[string]http.HandlerFunc{"POST /prune": prune}}, nil
}

// storeProduct stores events with their jobs, as many in each statement as a group commit would hold.
func storeProduct(ctx context.Context, url string, events []event, batch int) error {
	s, err := store.Open(url, "truenorth bench") //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer s.Close()
	return inChunks(ctx, events, batch, func(ctx context.Context, chunk []event) error {
		deliveries := make([]store.Delivery, len(chunk))
		for i, e := range chunk {
			deliveries[i] = store.Delivery{WebhookID: e.webhookID, Type: e.kind, ObjectID: e.objectID, OccurredAt: e.at, Body: e.body}
		}
		_, err := s.InsertEvents(ctx, deliveries, false)
		return err
	})
}

// product is what is asked of truenorth's tables.
var product = tables{
	template: templateProduct,
	events:   "select count(*) from polar.event_log",
	// An event is covered by a job that bears its batch.
	uncovered: `select count(*) from polar.event_log l where not exists (
	              select from polar.river_job j where j.kind = 'apply_events' and (j.args ->> 'batch')::bigint = l.batch)`,
	working: "select exists (select from polar.river_job where kind = 'apply_events' and state in ('available', 'running', 'retryable', 'scheduled'))",
	applied: "select count(*) filter (where state = 'applied'), count(*) filter (where state = 'failed') from polar.event",
}
