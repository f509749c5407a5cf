package jobs

import (
	"context"
	"log/slog"
	"time"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
)

const (
	tellEvery = 100 * time.Millisecond
	tellUsers = 200              // compared in one transaction
	walkEvery = 10 * time.Second // so that all of a million users are compared within a day, whatever no trigger saw
	keepFeed  = 7 * 24 * time.Hour
)

// tellChanges keeps the change feed, together with all other workers: one of them tells at a time. It looks rather than be
// notified, as a notification takes a lock of the whole server, which every transaction that applies events would pay for.
func (r *Runner) tellChanges(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(r.tellOnce(ctx))
	}
}

// tellOnce says after how long to look again: others have the database for at least as long as this took.
func (r *Runner) tellOnce(ctx context.Context) time.Duration {
	tellCtx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	began := time.Now()
	told, more, err := r.store.TellChanges(tellCtx, tellUsers, walkEvery)
	if told > 0 {
		crashpoint.Here("tell.told")
	}
	took := time.Since(began)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			r.logger.WarnContext(ctx, "telling changes failed", slog.String("error", err.Error()))
		}
		return r.timing.upkeepEvery
	case more:
		return took
	default:
		return max(tellEvery, took)
	}
}
