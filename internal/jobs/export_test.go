package jobs

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Hurry shortens the times after which work counts as forgotten and workers as dead.
func (r *Runner) Hurry(upkeepEvery, forgottenAfter, deadAfter time.Duration) {
	r.timing.upkeepEvery, r.timing.forgottenAfter, r.timing.deadAfter = upkeepEvery, forgottenAfter, deadAfter
}

// AskAtOnce has Polar asked without waiting for the events that are on the way.
func (r *Runner) AskAtOnce() { r.timing.refreshDelay, r.timing.sweepRetry = 0, 10*time.Millisecond }

// Backoff is the pause after so many tries.
func Backoff(tries int) time.Duration { return newTiming(0, 0).backoff(tries) }

// WorkBatch works one apply_events job in place: alone, or with what waits beside it.
func (r *Runner) WorkBatch(ctx context.Context, batch int64, alone bool) error {
	args := ApplyEventsArgs{Batch: batch}
	if alone {
		args.Size = mostTogether
	}
	worker := &applyEventsWorker{runner: r}
	return worker.Work(ctx, &river.Job[ApplyEventsArgs]{JobRow: &rivertype.JobRow{}, Args: args})
}

// SweepNew sweeps what is new or unfinished of a type, as a periodic job does where a full sweep takes long.
func (r *Runner) SweepNew(ctx context.Context, objectType string) error {
	ctx, lease, err := r.waitForLease(ctx, nil)
	if err != nil {
		return err
	}
	defer lease.release()
	run, _, err := r.store.StartRun(ctx, store.RunRequest{ObjectType: objectType})
	if err != nil {
		return err
	}
	_, _, err = r.sweep(ctx, lease.holder, run, sweepOptions{})
	return err
}

// StepDatabaseClock has the worker see, at its next look, that the clock of Postgres was stepped.
func (r *Runner) StepDatabaseClock(by time.Duration) { r.clock.step(by) }

func (c *databaseClock) step(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = c.seen.Add(-by)
}

// DatabaseClock is a worker's idea of the time of Postgres.
type DatabaseClock struct{ databaseClock }

// Set tells it what Postgres said, and how long that took.
func (c *DatabaseClock) Set(now time.Time, took time.Duration) { c.set(time.Now().Add(-took), now) }

// Age has it as if its last look were so much longer ago.
func (c *DatabaseClock) Age(by time.Duration) { c.seen, c.at = c.seen.Add(-by), c.at.Add(-by) }

// WentBack is by how much Postgres was seen to have gone back.
func (c *DatabaseClock) WentBack() time.Duration { return c.wentBack() }

// HasLeapt tells whether Postgres was seen to have leapt ahead within the last minute.
func (c *DatabaseClock) HasLeapt() bool { return c.hasLeapt(time.Minute) }

// Call makes a call to Polar, as any part of a worker may.
func (r *Runner) Call(ctx context.Context) error {
	_, err := r.api.ListProducts(ctx, 1, 1)
	return err
}

// Relink makes upkeep's round of links, whoever else keeps house.
func (r *Runner) Relink(ctx context.Context) error { return r.relink(ctx) }

// WorkLinkCustomers works one link_customers job in place.
func (r *Runner) WorkLinkCustomers(ctx context.Context, args LinkCustomersArgs) error {
	worker := &linkCustomersWorker{runner: r}
	return worker.Work(ctx, &river.Job[LinkCustomersArgs]{JobRow: &rivertype.JobRow{}, Args: args})
}

// LookAtEndpoint works one watch_endpoint job in place; attempt counts from 1 to 5.
func (r *Runner) LookAtEndpoint(ctx context.Context, attempt int) error {
	worker := &watchEndpointWorker{runner: r}
	return worker.Work(ctx, &river.Job[WatchEndpointArgs]{JobRow: &rivertype.JobRow{Attempt: attempt, MaxAttempts: 5}})
}

// SearchGaps works one fill_gaps job in place; attempt counts from 1 to 5.
func (r *Runner) SearchGaps(ctx context.Context, attempt int) error {
	worker := &fillGapsWorker{runner: r}
	return worker.Work(ctx, &river.Job[FillGapsArgs]{JobRow: &rivertype.JobRow{Attempt: attempt, MaxAttempts: 5}})
}

// ReadLists reads all pages of a type and does nothing with them.
func (r *Runner) ReadLists(ctx context.Context, objectType string) error {
	resource, _ := polar.ResourceOf(objectType)
	for page := 1; ; page++ {
		list, err := r.api.ListObjects(ctx, resource, page, polar.MaxPageSize)
		if err != nil || page >= list.MaxPage {
			return err
		}
	}
}

// PruneEvents works one prune_events job in place, for as long as there is something to remove.
func PruneEvents(ctx context.Context, s *store.Store, logger *slog.Logger, age time.Duration) error {
	r := &Runner{store: s, logger: logger, config: Config{EventRetention: age}}
	return r.pruneEvents(ctx, time.Now().Add(time.Hour))
}

// ApplyRead writes an object as Polar's API showed it: by its id, or in a list, as a sweep does.
func (r *Runner) ApplyRead(ctx context.Context, objectType string, raw json.RawMessage, readAt time.Time, byID bool) error {
	var v version
	if objectType == typeCheckout {
		checkout, err := polar.DecodeCheckout(raw)
		if err != nil {
			return err
		}
		checkout.ReadAt = readAt
		v = checkoutVersion(checkout)
	} else {
		meta, err := polar.DecodeMeta(raw)
		if err != nil {
			return err
		}
		v = readVersion(meta, raw, readAt)
	}
	if !byID {
		v.VersionAt = readTime([]*version{&v})
	}
	return r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyReads(ctx, tx, objectType, []*version{&v}, byID) })
}
