package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// ReconcileArgs are the arguments of the job that compares Polar's lists with the mirror.
type ReconcileArgs struct {
	Types []string `json:"types" river:"unique"` // types of objects, such as customer, in this order; none: all
	Full  bool     `json:"full"  river:"unique"` // every page of the lists, not only what is new or unfinished
}

// Kind is the job's kind as River stores it.
func (ReconcileArgs) Kind() string { return "reconcile" }

// InsertOpts keeps one such job per list of types.
func (ReconcileArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 4, MaxAttempts: 1000, UniqueOpts: uniqueWhileAlive}
}

// sweepGroups are the types that one periodic job sweeps, in the order of polar.Resources.
func sweepGroups() [][]string {
	var groups [][]string
	at := map[string]int{}
	for _, r := range polar.Resources() {
		i, ok := at[r.Sweep]
		if !ok {
			i, at[r.Sweep] = len(groups), len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r.Type)
	}
	return groups
}

const (
	sweepPiece    = 20 * time.Second // that one job sweeps before it makes room for others
	leaseAskEvery = 250 * time.Millisecond
	sweepTries    = 3  // in a row at the same step
	fullTries     = 10 // of a job that was asked for
	runsKept      = 30 * 24 * time.Hour
	fullAtLeast   = 24 * time.Hour // between two full sweeps, however long they take
)

type reconcileWorker struct {
	river.WorkerDefaults[ReconcileArgs]
	runner *Runner
}

// Timeout leaves room for a page whose objects are read one by one.
func (w *reconcileWorker) Timeout(*river.Job[ReconcileArgs]) time.Duration { return 5 * time.Minute }

// Work sweeps for a while and goes on where it stopped. A sweep that meets another waits for it.
func (w *reconcileWorker) Work(ctx context.Context, job *river.Job[ReconcileArgs]) error {
	r := w.runner
	types := job.Args.Types
	if len(types) == 0 {
		types = mirrored
	}
	ctx, lease, err := r.takeLease(ctx)
	if err != nil {
		return err
	}
	if lease == nil {
		return river.JobSnooze(time.Second)
	}
	defer lease.release()
	deadline := time.Now().Add(sweepPiece)
	var failed []error
	for _, objectType := range types {
		if !slices.Contains(mirrored, objectType) {
			r.logger.WarnContext(ctx, "objects of this type are not mirrored", slog.String("type", objectType))
			continue
		}
		full := job.Args.Full
		if !full {
			if full, err = r.fullSweepDue(ctx, objectType); err != nil {
				return err
			}
		}
		request := store.RunRequest{ObjectType: objectType, Full: full, JobID: job.ID}
		if job.Args.Full {
			request.Attempt = job.Attempt
		}
		run, over, err := r.store.StartRun(ctx, request)
		if err != nil {
			return err
		}
		if over { // by an earlier piece of this job
			if run.State == store.RunFailed {
				failed = append(failed, fmt.Errorf("%s: %s", objectType, *run.Error))
			}
			continue
		}
		_, again, err := r.sweep(ctx, lease.holder, run, sweepOptions{deadline: deadline})
		switch {
		case ctx.Err() != nil, errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrUnavailable):
			return errors.Join(err, context.Cause(ctx)) // the run waits for the next try
		case err != nil:
			r.logger.ErrorContext(ctx, "sweep failed", slog.String("type", objectType), slog.Int64("run", run.ID), slog.String("error", err.Error()))
			failed = append(failed, fmt.Errorf("%s: %w", objectType, err))
		case again:
			return river.JobSnooze(10 * time.Millisecond)
		}
	}
	// A periodic sweep comes again by itself; one that was asked for, after an outage, is tried again.
	if job.Args.Full && len(failed) > 0 && job.Attempt < fullTries {
		return errors.Join(failed...)
	}
	return r.store.ForgetRuns(ctx, runsKept)
}

// fullSweepDue tells whether every page is to be looked at: always where that takes little of the interval, and once
// a day where it takes long.
func (r *Runner) fullSweepDue(ctx context.Context, objectType string) (bool, error) {
	last, err := r.store.LastRun(ctx, objectType, true)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	took := last.FinishedAt.Sub(last.StartedAt)
	return took < r.config.ReconcileInterval/4 || time.Since(*last.FinishedAt) > fullAtLeast, nil
}

// ReconcileOptions say what to compare.
type ReconcileOptions struct {
	Types  []string // types of objects, in this order; none: all
	DryRun bool     // only look: the ledger gets the differences, the mirror stays as it is
	Fresh  bool     // begin anew, even if a long run was interrupted within the last hour

	AcceptDeletions bool // bury even most of a type, where Polar's lists lack them: a person knows that they are gone

	Since    time.Time      // leave out objects created (subscriptions: started) before; zero: none
	Progress func(Progress) // called at every step; may be nil
}

// Progress is how far Reconcile is.
type Progress struct {
	Waiting    bool          // for another that reconciles
	WaitFor    time.Duration // so long, as Polar or the budget of calls asks; 0: not at all
	ObjectType string
	Seen       int64
	Total      int64 // 0 while not known
}

// ReconcileTypes are the types of objects that Reconcile compares, in its order.
func ReconcileTypes() []string { return slices.Clone(mirrored) }

// Reconcile compares Polar's lists with the mirror and repairs what differs, type by type: every page, and what the
// mirror has beyond them. It waits for whoever else reconciles. The runs are as the database has them at the end; a
// type that fails does not keep the others from being compared. Errors: those of the types that failed, joined.
func (r *Runner) Reconcile(ctx context.Context, o ReconcileOptions) ([]store.ReconcileRun, error) {
	types := o.Types
	if len(types) == 0 {
		types = mirrored
	}
	for _, objectType := range types {
		if !slices.Contains(mirrored, objectType) {
			return nil, fmt.Errorf("objects of type %q are not mirrored; these are: %v", objectType, mirrored)
		}
	}
	ctx, lease, err := r.waitForLease(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	defer lease.release()
	var runs []store.ReconcileRun
	var failed []error
	for _, objectType := range types {
		run, _, err := r.store.StartRun(ctx, store.RunRequest{ObjectType: objectType, DryRun: o.DryRun, Full: o.Since.IsZero(), Since: o.Since, Fresh: o.Fresh})
		if err != nil {
			return runs, err
		}
		ended, _, err := r.sweep(ctx, lease.holder, run, sweepOptions{tell: o.Progress, acceptDeletions: o.AcceptDeletions})
		runs = append(runs, ended)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", objectType, err))
		}
		if ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrLeaseLost) {
			break
		}
	}
	return runs, errors.Join(failed...)
}

// sweepOptions say how to go on with a run.
type sweepOptions struct {
	deadline        time.Time      // of this piece of work; zero: none
	tell            func(Progress) // may be nil
	acceptDeletions bool
}

// sweep goes on with a run until it is over or the deadline has passed: then it goes on again.
func (r *Runner) sweep(ctx context.Context, holder string, run store.ReconcileRun, o sweepOptions) (ended store.ReconcileRun, again bool, err error) {
	fail := func(err error) (store.ReconcileRun, bool, error) {
		ended, endErr := r.store.EndRun(context.WithoutCancel(ctx), run, err.Error(), false)
		if endErr != nil {
			return run, false, errors.Join(err, endErr)
		}
		return ended, false, err
	}
	s, err := r.newSweep(ctx, run, holder)
	if err != nil {
		return run, false, err
	}
	s.deadline, s.acceptsDeletions = o.deadline, o.acceptDeletions
	if o.tell != nil {
		s.tell = o.tell
	}
	failures := 0
	for {
		s.tell(Progress{ObjectType: run.ObjectType, Seen: s.seen, Total: int64(s.cursor.Total)})
		done, err := s.tryStep(ctx)
		switch {
		case err == nil && done:
			return s.end(ctx)
		case err == nil:
			failures = 0
		case errors.Is(err, errPieceOver):
			return run, true, nil
		case ctx.Err() != nil: // the run stays, to be gone on with
			if now, err := r.store.GetRun(context.WithoutCancel(ctx), run.ID); err == nil {
				run = now
			}
			return run, false, context.Cause(ctx)
		case errors.Is(err, store.ErrLeaseLost):
			return run, false, err
		default:
			if failures++; failures >= sweepTries || !isPassing(err) {
				if errors.Is(err, store.ErrUnavailable) {
					return run, false, err
				}
				if polar.IsUnauthorized(err) {
					err = fmt.Errorf("check POLAR_ACCESS_TOKEN and POLAR_API_URL; the sandbox and production have tokens of their own: %w", err)
				}
				if polar.IsForbidden(err) {
					err = fmt.Errorf("the token lacks the scope %s, or may not read this: %w", s.resource.Scope(), err)
				}
				return fail(err)
			}
			if noteErr := r.store.NoteRunError(ctx, run.ID, err.Error()); noteErr != nil {
				return run, false, errors.Join(err, noteErr)
			}
			if err := pause(ctx, time.Duration(failures)*r.timing.sweepRetry); err != nil {
				return run, false, context.Cause(ctx)
			}
		}
		if !o.deadline.IsZero() && time.Now().After(o.deadline) {
			return run, true, nil
		}
	}
}

// tryStep makes sure of the token, and makes a step.
func (s *sweep) tryStep(ctx context.Context) (done bool, err error) {
	if err := s.ask(ctx, func() error { return s.runner.guard.prove(ctx) }); err != nil {
		return false, err
	}
	failed, why := s.cursor.Failed, s.cursor.Why
	if done, err = s.step(ctx); err != nil && !errors.Is(err, errPieceOver) {
		s.cursor.Failed, s.cursor.Why = failed, why // the step is made again, and notes them again
	}
	return done, err
}

// end ends a run that came to its end: failed all the same if something could not be repaired.
func (s *sweep) end(ctx context.Context) (ended store.ReconcileRun, again bool, err error) {
	ended, err = s.runner.store.EndRun(ctx, s.run, s.unrepaired(), true)
	if err != nil {
		return s.run, false, err
	}
	s.runner.logger.InfoContext(ctx, "sweep finished", slog.String("type", ended.ObjectType), slog.Int64("run", ended.ID), slog.Bool("full", ended.Full),
		slog.Bool("dry_run", ended.DryRun), slog.Int64("seen", ended.Seen), slog.Int64("drifted", ended.Drifted), slog.Int64("benign", ended.Benign),
		slog.Int64("repaired", ended.Repaired), slog.Int64("refreshed", ended.Refreshed), slog.Duration("took", ended.FinishedAt.Sub(ended.StartedAt)))
	if why := s.unrepaired(); why != "" {
		return ended, false, errors.New(why)
	}
	return ended, false, nil
}

// isPassing tells whether the same step may well succeed in a moment.
func isPassing(err error) bool {
	if api, ok := errors.AsType[*polar.APIError](err); ok {
		return api.Status < 300 || api.Status >= 500
	}
	return errors.Is(err, store.ErrUnavailable)
}

// sweepLease is the place of the one that reconciles, kept until it is released.
type sweepLease struct {
	holder  string
	release func()
}

// takeLease takes the place, and returns a context that ends when it is lost. The lease is nil where another has it.
func (r *Runner) takeLease(ctx context.Context) (context.Context, *sweepLease, error) {
	holder := r.id + " " + uuid.NewString()[:8]
	began := time.Now()
	taken, err := r.store.TakeReconcileLease(ctx, holder, r.timing.leaseFor)
	if err != nil || !taken {
		return ctx, nil, err
	}
	leaseCtx, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		ticker := time.NewTicker(r.timing.leaseEvery)
		defer ticker.Stop()
		good := began
		for {
			select {
			case <-leaseCtx.Done():
				return
			case <-ticker.C:
			}
			asked := time.Now()
			keepCtx, cancelKeep := context.WithTimeout(leaseCtx, r.timing.leaseEvery)
			held, err := r.store.KeepReconcileLease(keepCtx, holder, r.timing.leaseFor)
			cancelKeep()
			switch {
			case err == nil && held:
				good = asked
			case err == nil, time.Since(good)+r.timing.leaseEvery > r.timing.leaseFor: // before it runs out
				cancel(store.ErrLeaseLost)
				return
			}
		}
	}()
	return leaseCtx, &sweepLease{holder: holder, release: func() {
		cancel(nil)
		<-kept
		releaseCtx, cancelRelease := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancelRelease()
		if err := r.store.ReleaseReconcileLease(releaseCtx, holder); err != nil {
			r.logger.WarnContext(releaseCtx, "leaving the place of reconciling failed; it is free in seconds", slog.String("error", err.Error()))
		}
	}}, nil
}

func (r *Runner) waitForLease(ctx context.Context, progress func(Progress)) (context.Context, *sweepLease, error) {
	ticker := time.NewTicker(leaseAskEvery)
	defer ticker.Stop()
	for {
		leaseCtx, l, err := r.takeLease(ctx)
		if err != nil || l != nil {
			return leaseCtx, l, err
		}
		if progress != nil {
			progress(Progress{Waiting: true})
		}
		select {
		case <-ctx.Done():
			return ctx, nil, ctx.Err()
		case <-ticker.C:
		}
	}
}
