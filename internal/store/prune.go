package store

import (
	"context"
	"fmt"
	"time"
)

// Pruned is what one step of pruning did.
type Pruned struct {
	Events     int  // that were removed, or lost their bodies
	Failed     int  // of those, whose last try had failed
	PassedOver int  // that have to wait, for an outcome or a job, or are young among old ones
	More       bool // whether the next step may find more
}

// Plus is what this step and the next one did together.
func (p Pruned) Plus(next Pruned) Pruned {
	next.Events += p.Events
	next.Failed += p.Failed
	return next
}

// LockPrune reports whether this transaction is the one that prunes now.
func (t *Tx) LockPrune(ctx context.Context) (bool, error) {
	marks, err := t.q.EventPruneLock(ctx, t.tx)
	if err != nil {
		return false, fmt.Errorf("locking the pruning of events: %w", interpret(err))
	}
	return len(marks) > 0, nil
}

// PruneEvents removes events that were received longer than age ago, at most limit of them, the oldest first. Those
// without an outcome stay, and those that failed and have a live job. LockPrune comes before it.
func (t *Tx) PruneEvents(ctx context.Context, age time.Duration, limit int) (Pruned, error) {
	row, err := t.q.EventPrune(ctx, t.tx, int32(limit), age) //nolint:gosec // a constant of the caller
	if err != nil {
		return Pruned{}, fmt.Errorf("removing old events: %w", interpret(err))
	}
	return Pruned{Events: int(row.Events), Failed: int(row.Failed), PassedOver: int(row.LeftOver), More: row.More}, nil
}

// PruneBodies is PruneEvents that leaves the events and takes their bodies.
func (t *Tx) PruneBodies(ctx context.Context, age time.Duration, limit int) (Pruned, error) {
	row, err := t.q.EventPruneBodies(ctx, t.tx, int32(limit), age) //nolint:gosec // a constant of the caller
	if err != nil {
		return Pruned{}, fmt.Errorf("removing the bodies of old events: %w", interpret(err))
	}
	return Pruned{Events: int(row.Events), Failed: int(row.Failed), PassedOver: int(row.LeftOver), More: row.More}, nil
}

// PruneOutcomes removes at most limit outcomes of events that are gone.
func (t *Tx) PruneOutcomes(ctx context.Context, limit int) (int64, error) {
	n, err := t.q.EventPruneOutcomes(ctx, t.tx, int32(limit)) //nolint:gosec // a constant of the caller
	if err != nil {
		return 0, fmt.Errorf("removing the outcomes of old events: %w", interpret(err))
	}
	return n, nil
}
