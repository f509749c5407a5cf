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

// Relink makes upkeep's round of links, whoever else keeps house.
func (r *Runner) Relink(ctx context.Context) error { return r.relink(ctx) }

// WorkLinkCustomers works one link_customers job in place.
func (r *Runner) WorkLinkCustomers(ctx context.Context, args LinkCustomersArgs) error {
	worker := &linkCustomersWorker{runner: r}
	return worker.Work(ctx, &river.Job[LinkCustomersArgs]{JobRow: &rivertype.JobRow{}, Args: args})
}
