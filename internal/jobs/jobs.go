// Package jobs holds truenorth's work: the River jobs, their outcome rule, and the upkeep that proves that nothing
// acknowledged is forgotten.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// ApplyEventsArgs are the arguments of the job that brings stored events into the mirror.
type ApplyEventsArgs struct {
	Batch  int64   `json:"batch,omitempty"`  // the events that bear this number
	Size   int     `json:"size,omitempty"`   // how many they were
	Events []int64 `json:"events,omitempty"` // or these, by event_log.seq
}

// Kind is the job's kind as River stores it.
func (ApplyEventsArgs) Kind() string { return "apply_events" }

// InsertOpts sends the job to the queue of events.
func (ApplyEventsArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: store.QueueEvents, MaxAttempts: 1000}
}

// createCheckoutArgs reads truenorth.CreateCheckoutArgs as leniently as hand-written SQL may have written them.
type createCheckoutArgs struct {
	RequestID json.RawMessage `json:"request_id"`
	Key       json.RawMessage `json:"key"`
	Params    json.RawMessage `json:"params"`
}

func (createCheckoutArgs) Kind() string { return truenorth.KindCreateCheckout }

// RefreshObjectArgs are the arguments of the job that reads one object from Polar.
type RefreshObjectArgs struct {
	ObjectType string    `json:"object_type"` // customer or checkout
	ObjectID   uuid.UUID `json:"object_id"`
}

// Kind is the job's kind as River stores it.
func (RefreshObjectArgs) Kind() string { return "refresh_object" }

// InsertOpts keeps one such job per object.
func (RefreshObjectArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 2, MaxAttempts: 1000, UniqueOpts: uniqueWhileAlive}
}

// WriteExternalIDArgs are the arguments of the job that writes a linked user's id to a Polar customer without one.
type WriteExternalIDArgs struct {
	CustomerID uuid.UUID `json:"customer_id"`
}

// Kind is the job's kind as River stores it.
func (WriteExternalIDArgs) Kind() string { return "write_external_id" }

// InsertOpts keeps one such job per customer.
func (WriteExternalIDArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 2, MaxAttempts: 1000, UniqueOpts: uniqueWhileAlive}
}

// LinkCustomersArgs are the arguments of the job that decides who some customers are. polar.link_user inserts it.
type LinkCustomersArgs struct {
	Users []string `json:"users"` // local users: whoever may claim them is decided
}

// Kind is the job's kind as River stores it.
func (LinkCustomersArgs) Kind() string { return "link_customers" }

// InsertOpts is what polar.link_user writes.
func (LinkCustomersArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 2, MaxAttempts: 1000}
}

// uniqueWhileAlive lets the same work be asked for again once it is over.
var uniqueWhileAlive = river.UniqueOpts{
	ByArgs: true,
	ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable,
		rivertype.JobStateRunning, rivertype.JobStateScheduled,
	},
}

// Config says how to work.
type Config struct {
	API         polar.Config  // Gate and OnResponse are set by New
	RateLimit   int           // requests to Polar a minute for all processes together; 0: no limit
	ExtraFields []string      // top-level checkout fields that pass though this release does not know them
	Logger      *slog.Logger  // required
	Patience    time.Duration // how long a checkout request is tried; 0: 30 minutes
	SoftStop    time.Duration // how long a stop lets running jobs end by themselves; 0: 10 seconds

	RecoveryTime      time.Duration // after which a worker without a sign of life is dead, and in proportion to it all that takes work up again; 0: 15 seconds
	ReconcileInterval time.Duration // between two readings of Polar's lists; 0: only when asked
	EndpointURL       string        // what Polar's endpoint has to have, as polar.EndpointURL gives it; "": not known
	ReenableEndpoint  bool          // whether to enable it again when it is disabled
	EventRetention    time.Duration // after which events go, as far as Polar cannot redeliver them; 0: never

	Tracing trace.TracerProvider // nil: no job is traced
}

const (
	sweepWindow = 10_000
	jobTimeout  = time.Minute
)

// Runner works truenorth's jobs in this process.
type Runner struct {
	id     string
	store  *store.Store
	api    *polar.API
	client *river.Client[pgx.Tx]
	config Config
	logger *slog.Logger
	budget *budget
	guard  *guard
	timing timing
	atWork atWork
	clock  databaseClock

	tracing    tracing
	reindexing reindexing
	lag        prometheus.Histogram

	stopping <-chan struct{} // closed once Run is to end; nil where nothing runs
}

// New makes a Runner. It reaches neither Postgres nor Polar yet.
func New(s *store.Store, config Config) (*Runner, error) {
	if config.Patience == 0 {
		config.Patience = 30 * time.Minute
	}
	if config.SoftStop == 0 {
		config.SoftStop = 10 * time.Second
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	r := &Runner{
		id:     fmt.Sprintf("%.60s-%d-%s", hostname, os.Getpid(), uuid.NewString()[:8]),
		store:  s,
		config: config,
		logger: config.Logger,
		timing: newTiming(config.RecoveryTime, config.API.Timeout),
		lag:    newLag(),

		tracing: newTracing(config.Tracing),
	}
	r.budget = newBudget(s, config.RateLimit, config.Logger)
	config.API.Gate = r.budget.gate
	config.API.OnResponse = r.budget.observe
	if r.api, err = polar.New(config.API); err != nil {
		return nil, fmt.Errorf("configuring Polar's API: %w", err)
	}
	r.guard = &guard{api: r.api, store: s}
	if r.client, err = r.newRiver(); err != nil {
		return nil, err
	}
	return r, nil
}

// newRiver makes a client of River, which works once it is started.
func (r *Runner) newRiver() (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &applyEventsWorker{runner: r})
	river.AddWorker(workers, &createCheckoutWorker{runner: r})
	river.AddWorker(workers, &refreshObjectWorker{runner: r})
	river.AddWorker(workers, &writeExternalIDWorker{runner: r})
	river.AddWorker(workers, &reconcileWorker{runner: r})
	river.AddWorker(workers, &linkCustomersWorker{runner: r})
	river.AddWorker(workers, &watchEndpointWorker{runner: r})
	river.AddWorker(workers, &fillGapsWorker{runner: r})
	river.AddWorker(workers, &pruneEventsWorker{runner: r})
	client, err := river.NewClient(riverpgxv5.New(r.store.Pool()), &river.Config{
		ID:           r.id,
		Schema:       store.Schema,
		Logger:       r.logger,
		Workers:      workers,
		Middleware:   []rivertype.Middleware{r.atWork.middleware()},
		Plugins:      r.tracing.plugins(),
		PeriodicJobs: r.periodicJobs(),
		ErrorHandler: &errorHandler{logger: r.logger},
		RetryPolicy:  retryPolicy{timing: r.timing, clock: &r.clock},
		JobTimeout:   jobTimeout,
		Test:         river.TestConfig{Time: &r.clock}, // the only way to give it a clock
		// Only the net: upkeep returns what a dead process held long before. River counts by the leader's own clock here, so
		// it is longer than a clock is wrong: else it takes jobs from those who work them.
		RescueStuckJobsAfter: 24 * time.Hour,
		SoftStopTimeout:      r.config.SoftStop,
		// MaxWorkers / FetchCooldown is a ceiling of jobs a second. A poll finds what was notified too early.
		ReindexerSchedule: &r.reindexing,
		Queues: map[string]river.QueueConfig{
			store.QueueEvents:    {MaxWorkers: 4, FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 100 * time.Millisecond},
			store.QueueCheckouts: {MaxWorkers: 32, FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 100 * time.Millisecond},
			river.QueueDefault:   {MaxWorkers: 8, FetchCooldown: 20 * time.Millisecond, FetchPollInterval: 500 * time.Millisecond},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("configuring River: %w", err)
	}
	return client, nil
}

// reindexing is when River rebuilds its indexes: at midnight, UTC, where this user owns them, and else never.
type reindexing struct{ allowed atomic.Bool }

// Next is when to rebuild them after t.
func (s *reindexing) Next(t time.Time) time.Time {
	if !s.allowed.Load() {
		return river.NeverSchedule().Next(t)
	}
	const daily = 24 * time.Hour
	return t.Add(daily).Truncate(daily)
}

// ID is the worker's id, as in river_job.attempted_by.
func (r *Runner) ID() string { return r.id }

// CheckOrganization asks Polar whose token this is. Errors: *OtherOrganizationError where it is not the organization
// that the database mirrors; others where Polar or Postgres could not be asked.
func (r *Runner) CheckOrganization(ctx context.Context) error {
	return r.guard.check(withPriority(ctx, priorityLink))
}

// Run works until ctx ends; then it finishes the jobs that run, or returns them. ready is called once it works.
func (r *Runner) Run(ctx context.Context, ready func()) error {
	if err := r.store.AllowCheckoutFields(ctx, r.config.ExtraFields); err != nil {
		return err
	}
	if err := r.beat(ctx); err != nil {
		return err
	}
	owns, err := r.store.OwnsRiver(ctx)
	if err != nil {
		return err
	}
	r.reindexing.allowed.Store(owns)
	r.stopping = ctx.Done()
	if err := r.client.Start(ctx); err != nil {
		// A client whose start failed half-way does not fetch even if it is started again.
		fresh, freshErr := r.newRiver()
		if freshErr != nil {
			return errors.Join(err, freshErr)
		}
		r.client = fresh
		return fmt.Errorf("starting River: %w", store.Interpret(err))
	}
	var beside sync.WaitGroup // what runs beside River
	upkeepCtx, stopUpkeep := context.WithCancel(context.WithoutCancel(ctx))
	beside.Go(func() { r.keepHouse(upkeepCtx) })
	beside.Go(func() { r.tellChanges(upkeepCtx) })
	r.logger.InfoContext(ctx, "worker started", slog.String("worker", r.id))
	ready()

	r.waitStopped(ctx) // the jobs that ran are done or given back
	stopUpkeep()
	beside.Wait()
	leaveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := r.store.Leave(leaveCtx, r.id); err != nil {
		r.logger.WarnContext(leaveCtx, "leaving failed; other workers will find out by themselves", slog.String("error", err.Error()))
	}
	r.logger.InfoContext(leaveCtx, "worker stopped", slog.String("worker", r.id))
	return nil
}

// waitStopped waits until River has stopped after ctx ended. Without Postgres it would try for ever to write down how its
// jobs ended; whoever keeps house then finds them.
func (r *Runner) waitStopped(ctx context.Context) {
	select {
	case <-r.client.Stopped():
		return
	case <-ctx.Done():
	}
	timer := time.NewTimer(r.config.SoftStop + r.timing.deadAfter)
	defer timer.Stop()
	select {
	case <-r.client.Stopped():
	case <-timer.C:
		r.logger.WarnContext(context.WithoutCancel(ctx), "stopping without a word from Postgres; other workers take up what this one held")
	}
}

type retryPolicy struct {
	timing timing
	clock  *databaseClock
}

// NextRetry never lets a buyer or an event wait for the minutes and hours of River's default.
func (p retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	return p.clock.Now().Add(p.timing.backoff(len(job.Errors) + 1))
}

type errorHandler struct{ logger *slog.Logger }

func (h *errorHandler) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	level := slog.LevelError
	if errors.Is(err, store.ErrUnavailable) {
		level = slog.LevelWarn
	}
	h.logger.Log(ctx, level, "job failed", slog.String("kind", job.Kind), slog.Int64("job", job.ID), slog.Int("attempt", job.Attempt), slog.String("error", err.Error()))
	return nil
}

func (h *errorHandler) HandlePanic(ctx context.Context, job *rivertype.JobRow, panicVal any, trace string) *river.ErrorHandlerResult {
	h.logger.ErrorContext(ctx, "job panicked", slog.String("kind", job.Kind), slog.Int64("job", job.ID), slog.Any("panic", panicVal), slog.String("trace", trace))
	return nil
}
