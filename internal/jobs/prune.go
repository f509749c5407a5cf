package jobs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// PruneEventsArgs are the arguments of the job that removes old events.
type PruneEventsArgs struct{}

// Kind is the job's kind as River stores it.
func (PruneEventsArgs) Kind() string { return "prune_events" }

// InsertOpts keeps one such job. The next one comes by itself, so this one need not try for long.
func (PruneEventsArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 4, MaxAttempts: 5, UniqueOpts: uniqueWhileAlive}
}

const (
	pruneEvery = 10 * time.Minute
	pruneRows  = 1000             // of a transaction: a redelivery of one of them waits for it
	pruneShift = 20 * time.Second // after which a job makes room for others
)

type pruneEventsWorker struct {
	river.WorkerDefaults[PruneEventsArgs]
	runner *Runner
}

// Work removes what is old. What is left when its time is up is for the next shift.
func (w *pruneEventsWorker) Work(ctx context.Context, _ *river.Job[PruneEventsArgs]) error {
	err := w.runner.pruneEvents(ctx, time.Now().Add(pruneShift))
	if errors.Is(err, errShiftOver) {
		return river.JobSnooze(time.Second)
	}
	return err
}

// PruneEvents removes all that is old now, in one shift however long: the work of the job, for whoever asks.
func (r *Runner) PruneEvents(ctx context.Context) error {
	const noEnd = 365 * 24 * time.Hour
	return r.pruneEvents(ctx, time.Now().Add(noEnd))
}

// pruneRun removes old events, a bounded number at a time.
type pruneRun struct {
	runner *Runner
	ends   time.Time // the shift
	began  time.Time

	events, bodies store.Pruned
}

// pruneEvents removes what EVENT_RETENTION no longer keeps. It ends early where another process is at it, when this
// one stops, and with errShiftOver at the end of the shift.
//
// Polar redelivers for 90 days, and by its id a redelivery is known. So an event's row is never kept for less, and where
// the retention is shorter, the body goes first.
func (r *Runner) pruneEvents(ctx context.Context, ends time.Time) error {
	age := r.config.EventRetention
	if age <= 0 {
		return nil
	}
	p := &pruneRun{runner: r, ends: ends, began: time.Now()}
	defer p.tell(ctx)
	steps := []func(tx *store.Tx) (more bool, err error){
		func(tx *store.Tx) (bool, error) {
			done, err := tx.PruneEvents(ctx, max(age, retention), pruneRows)
			p.events = p.events.Plus(done)
			return done.More, err
		},
		func(tx *store.Tx) (bool, error) {
			n, err := tx.PruneOutcomes(ctx, pruneRows)
			return n == pruneRows, err
		},
		func(tx *store.Tx) (bool, error) {
			n, err := tx.PruneChanges(ctx, max(age, keepFeed), pruneRows)
			return n == pruneRows, err
		},
	}
	if age < retention {
		steps = append(steps, func(tx *store.Tx) (bool, error) {
			done, err := tx.PruneBodies(ctx, age, pruneRows)
			p.bodies = p.bodies.Plus(done)
			return done.More, err
		})
	}
	for _, step := range steps {
		if err := p.repeat(ctx, step); err != nil {
			if errors.Is(err, errPruningElsewhere) || errors.Is(err, errStopping) {
				return nil // the other goes on, or the next job does
			}
			return err
		}
	}
	return nil
}

var (
	errPruningElsewhere = errors.New("another process prunes")
	errStopping         = errors.New("this process stops")
)

// repeat makes a step, in a transaction of its own, until there is no more.
func (p *pruneRun) repeat(ctx context.Context, step func(tx *store.Tx) (more bool, err error)) error {
	for {
		began := time.Now()
		var more bool
		err := p.runner.store.InTx(ctx, func(tx *store.Tx) error {
			locked, err := tx.LockPrune(ctx)
			if err != nil {
				return err
			}
			if !locked {
				return errPruningElsewhere
			}
			more, err = step(tx)
			crashpoint.Here("prune.step")
			return err
		})
		crashpoint.Here("prune.stepped")
		if err != nil || !more {
			return err
		}
		if err := p.rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

// rest leaves the disk to others for as long as the step took.
func (p *pruneRun) rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.runner.stopping:
		return errStopping
	case <-timer.C:
	}
	if time.Now().After(p.ends) {
		return errShiftOver
	}
	return nil
}

// tell tells the log what was done.
func (p *pruneRun) tell(ctx context.Context) {
	if p.events.Events == 0 && p.bodies.Events == 0 {
		return
	}
	p.runner.logger.InfoContext(ctx, "old events removed",
		slog.Int("events", p.events.Events), slog.Int("failed_events", p.events.Failed),
		slog.Int("bodies", p.bodies.Events), slog.Int("failed_bodies", p.bodies.Failed),
		slog.Int("passed_over", p.events.PassedOver+p.bodies.PassedOver), slog.Duration("took", time.Since(p.began)))
}
