package jobs

import (
	"context"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// Hurry shortens the times after which work counts as forgotten and workers as dead.
func (r *Runner) Hurry(upkeepEvery, forgottenAfter, deadAfter time.Duration) {
	r.timing.upkeepEvery, r.timing.forgottenAfter, r.timing.deadAfter = upkeepEvery, forgottenAfter, deadAfter
}

// AskAtOnce has Polar asked without waiting for the events that are on the way.
func (r *Runner) AskAtOnce() { r.timing.refreshDelay = 0 }

// Backoff is the pause after so many tries.
func Backoff(tries int) time.Duration { return backoff(tries) }

// WorkBatch works one apply_events job in place.
func (r *Runner) WorkBatch(ctx context.Context, batch int64) error {
	worker := &applyEventsWorker{runner: r}
	return worker.Work(ctx, &river.Job[ApplyEventsArgs]{JobRow: &rivertype.JobRow{}, Args: ApplyEventsArgs{Batch: batch}})
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
