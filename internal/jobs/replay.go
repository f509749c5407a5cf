package jobs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// mostListed bounds what a report lists one by one; the rest is only counted.
const mostListed = 1000

// Replayed says what Replay did.
type Replayed struct {
	Events   int64          // events tried
	Total    int64          // events that fitted when it began
	NotKept  int64          // others that would have fitted, whose bodies are no longer kept
	Failed   int64          // of those tried
	Failures []EventFailure // at most 1000 of the failed ones
	LastSeq  int64          // how far it came: all that fit up to this event_log.seq are done
}

// Replay applies stored events again in this process, as the worker does, in the order in which they came and a bounded
// number at a time. Newest wins, so that events which were applied before, or are being applied now by a worker, do no
// harm. What follows at Polar is left to the workers, as jobs. progress, which may be nil, is told how many of how many are
// done. On an error, and when ctx ends, the report says how far it came.
func Replay(ctx context.Context, s *store.Store, logger *slog.Logger, replay store.Replay, progress func(done, total int64)) (Replayed, error) {
	report := Replayed{LastSeq: replay.After}
	r, err := newReplayer(s, logger)
	if err != nil {
		return report, err
	}
	fits, err := s.CountReplay(ctx, replay)
	if err != nil {
		return report, err
	}
	report.Total, report.NotKept = fits.Events, fits.NotKept
	replay.After = max(replay.After, fits.FirstSeq-1)
	for upTo := fits.LastSeq; replay.After < upTo; { // what comes after is the workers'
		var events []store.Event
		var next int64
		var failed []EventFailure
		err := stubbornly(ctx, func() (err error) {
			if events, next, err = s.ListReplay(ctx, replay, upTo); err == nil && len(events) > 0 {
				failed, err = r.applyEvents(ctx, events)
			}
			return err
		})
		if err != nil {
			return report, err
		}
		crashpoint.Here("replay.batch")
		replay.After, report.LastSeq = next, next
		report.Events += int64(len(events))
		report.Failed += int64(len(failed))
		report.Failures = append(report.Failures, failed[:min(len(failed), mostListed-len(report.Failures))]...)
		if progress != nil {
			progress(report.Events, report.Total)
		}
	}
	return report, nil
}

// stubbornly does again what Postgres cannot do just now: two transactions in each other's way, a failover.
func stubbornly(ctx context.Context, do func() error) error {
	const tries = 5
	for try := 1; ; try++ {
		err := do()
		if !errors.Is(err, store.ErrUnavailable) || try == tries || ctx.Err() != nil {
			return err
		}
		if err := pause(ctx, newTiming(0, 0).backoff(try)); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
