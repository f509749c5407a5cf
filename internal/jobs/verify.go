package jobs

import (
	"context"
	"errors"
	"log/slog"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// Verified says how the mirror compares with what the kept events make of it.
type Verified struct {
	Kept        store.Kept // what is applied was rebuilt; the rest has not reached the mirror either
	Tables      []store.Comparison
	Differences []store.RowDifference // at most 1000 a table
	Refused     []EventFailure        // at most 1000 events that were applied and cannot be any more
	Unbuilt     int64                 // how many of those there are
}

// Equal tells whether every row that can be compared is what the events make of it.
func (v Verified) Equal() bool {
	for _, t := range v.Tables {
		if t.Different > 0 {
			return false
		}
	}
	return v.Unbuilt == 0
}

// Verify rebuilds the mirror in a scratch schema, from all kept events that are applied and with the code and the SQL
// functions that the worker uses, and compares it with the real one. Rows whose newest version came from elsewhere are
// counted.
//
// Workers go on meanwhile. The copy is filled in short transactions; then one snapshot is taken, what was applied in the
// meantime is added within it, and both sides are compared within it. An event and what it does are committed together,
// so the snapshot shows both or neither. progress, which may be nil, is told how many of how many events are done.
func Verify(ctx context.Context, s *store.Store, logger *slog.Logger, progress func(done, total int64)) (verified Verified, err error) {
	scratch, err := s.CreateScratch(ctx, mirrored)
	if err != nil {
		return verified, err
	}
	defer func() { err = errors.Join(err, scratch.Drop(ctx)) }()
	kept, err := scratch.CountKept(ctx)
	if err != nil {
		return verified, err
	}
	b := &rebuild{scratch: scratch, runner: &Runner{store: s, logger: logger}, verified: &verified, unbuilt: map[int64]bool{}}
	var done int64
	told := func(n int) {
		done += int64(n)
		if progress != nil {
			progress(min(done, kept.Applied), kept.Applied)
		}
	}
	if err := b.run(ctx, scratch.ListAppliedEvents, told); err != nil {
		return verified, err
	}
	if err := scratch.Freeze(ctx); err != nil {
		return verified, err
	}
	if err := b.run(ctx, scratch.ListLateEvents, nil); err != nil {
		return verified, err
	}
	if verified.Kept, err = scratch.CountKept(ctx); err != nil {
		return verified, err
	}
	for _, table := range append([]string{"customer_state"}, mirrored...) {
		comparison, differences, err := scratch.Compare(ctx, table, mostListed)
		if err != nil {
			return verified, err
		}
		verified.Tables = append(verified.Tables, comparison)
		verified.Differences = append(verified.Differences, differences...)
	}
	return verified, nil
}

// rebuild fills a scratch schema.
type rebuild struct {
	scratch  *store.Scratch
	runner   *Runner // without River and Polar: nothing follows from a rebuilt mirror
	verified *Verified
	unbuilt  map[int64]bool // event_log.seq of those refused: a late one may be met twice
}

// run applies all events that list gives.
func (b *rebuild) run(ctx context.Context, list func(ctx context.Context, after int64) ([]store.Event, error), told func(int)) error {
	for after := int64(0); ; {
		events, err := list(ctx, after)
		if err != nil || len(events) == 0 {
			return err
		}
		if err := b.apply(ctx, events); err != nil {
			return err
		}
		after = events[len(events)-1].Seq
		if told != nil {
			told(len(events))
		}
	}
}

// apply is applyEvents without what follows: an applied event was admitted, and its links are not the mirror's.
func (b *rebuild) apply(ctx context.Context, events []store.Event) error {
	return store.Isolate(events, func(events []store.Event) error {
		c := decodeEvents(events)
		err := b.scratch.InTx(ctx, func(tx *store.Tx) error {
			for _, objectType := range mirrored {
				if err := b.runner.mirrorChange(ctx, tx, c, objectType); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			b.refused(c.failures())
		}
		return err
	}, func(event store.Event, refused error) error {
		b.refused(refusedChange(event, refused).failures())
		return nil
	})
}

func (b *rebuild) refused(failed []EventFailure) {
	for _, f := range failed {
		if b.unbuilt[f.Seq] {
			continue
		}
		b.unbuilt[f.Seq] = true
		if b.verified.Unbuilt++; b.verified.Unbuilt <= mostListed {
			b.verified.Refused = append(b.verified.Refused, f)
		}
	}
}
