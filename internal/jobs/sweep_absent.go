package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// lookForUnseen looks at living objects of the mirror in a range that the list does not show. Where Polar serves them
// by id, each is read; elsewhere they are suspects, to be missed once more.
func (s *sweep) lookForUnseen(ctx context.Context, keys store.KeyRange, page sweepCursor) error {
	after := uuid.Nil
	for {
		if !s.deadline.IsZero() && time.Now().After(s.deadline) {
			return errPieceOver
		}
		ids, err := s.runner.store.ListUnseenObjects(ctx, s.run.ObjectType, s.resource.SortKey, keys, page.Recent, s.run.ID, after, readChunk)
		if err != nil || len(ids) == 0 {
			return err
		}
		after = ids[len(ids)-1]
		if s.resource.ByID {
			listed, err := s.readEach(ctx, ids)
			if err != nil {
				return err
			}
			if unlisted := s.unlisted(listed, page.ReadAt.Add(-unsettled)); unlisted == readChunk {
				return fmt.Errorf("the list of type %s lacks at least %d objects that Polar serves by their id, such as %s: its lists are not to be trusted now",
					s.run.ObjectType, unlisted, ids[0])
			}
			continue
		}
		s.cursor.Passes = true
		if err := s.runner.store.InTx(ctx, func(tx *store.Tx) error { return tx.MarkObjects(ctx, s.run.ID, store.MarkSuspect, ids) }); err != nil {
			return err
		}
	}
}

// unlisted counts the objects that a list of this time should have shown.
func (s *sweep) unlisted(living []polar.Document, at time.Time) int {
	n := 0
	for _, d := range living {
		if !d.SortKey.IsZero() && d.SortKey.Before(at) && s.resource.Lists(d.Status) {
			n++
		}
	}
	return n
}

// tail looks at what the mirror has beyond the end of the list: deleted ones, and some that came to be since.
func (s *sweep) tail(ctx context.Context) (done bool, err error) {
	if err := s.lookForUnseen(ctx, store.KeyRange{From: s.cursor.Key}, s.cursor); err != nil {
		return false, err
	}
	next := s.cursor
	next.After = uuid.Nil
	switch {
	case s.resource.SortKey != "" && next.Passes:
		next = sweepCursor{Phase: phaseConfirm, From: next.From, Key: next.From, Total: next.Total, Failed: next.Failed, Why: next.Why, Listed: next.Listed}
		if !next.From.IsZero() {
			if next.Offset, next.Total, err = s.findOffset(ctx, next.From); err != nil {
				return false, err
			}
		}
	case !next.Before.IsZero() && !s.run.Full:
		next.Phase = phaseUnfinished
	default:
		return true, nil
	}
	return false, s.moveTo(ctx, next)
}

// confirmPage takes those that the second sweep does see off the list of suspects.
func (s *sweep) confirmPage(ctx context.Context, next sweepCursor, over bool) error {
	if over {
		next.Phase = phaseBury
	}
	err := s.runner.store.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.UnmarkObjects(ctx, s.run.ID, store.MarkSuspect, next.Recent); err != nil {
			return err
		}
		return s.advanceIn(ctx, tx, next, &store.RunStep{})
	})
	if err == nil {
		s.moved(next, store.RunStep{})
	}
	return err
}

// bury makes tombstones of those whom two complete sweeps in a row have missed.
func (s *sweep) bury(ctx context.Context) (done bool, err error) {
	if s.cursor.After == uuid.Nil {
		if err := s.believe(ctx); err != nil {
			return false, err
		}
	}
	ids, err := s.runner.store.ListMarked(ctx, s.run.ID, store.MarkSuspect, s.cursor.After, polar.MaxPageSize)
	if err != nil || len(ids) == 0 {
		return err == nil, err
	}
	next := s.cursor
	next.After = ids[len(ids)-1]
	step, err := s.buryGone(ctx, ids, s.cursor.ReadAt, func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
		return s.advanceIn(ctx, tx, next, step)
	})
	if err == nil {
		s.moved(next, step)
	}
	return false, err
}

// believe refuses to bury most of a type at a stroke: it is more likely that Polar's lists are wrong. A person may know
// better.
func (s *sweep) believe(ctx context.Context) error {
	missed, living, err := s.runner.store.CountSuspects(ctx, s.run.ID, s.run.ObjectType)
	if err != nil || s.acceptsDeletions || missed < fewMissed || float64(missed) < mostMissed*float64(living) {
		return err
	}
	return fmt.Errorf("the lists of Polar lack %d of the %d living objects of type %s: that is not believed; if they are gone indeed, reconcile with --accept-deletions",
		missed, living, s.run.ObjectType)
}

// unfinished reads what is not over and older than what was listed: only Polar knows how it ended.
func (s *sweep) unfinished(ctx context.Context) (done bool, err error) {
	before := s.cursor.Before
	if s.run.ObjectType == "subscription" { // unfinished are those whose period is over, by Polar's clock
		before = s.cursor.ReadAt.Add(-renewalGrace)
	}
	ids, err := s.runner.store.ListUnfinished(ctx, s.run.ObjectType, before, s.cursor.After, readChunk)
	if err != nil || len(ids) == 0 {
		return err == nil, err
	}
	if _, err := s.readEach(ctx, ids); err != nil {
		return false, err
	}
	next := s.withFailures(s.cursor)
	next.After = ids[len(ids)-1]
	if err := s.advance(ctx, next, store.RunStep{Seen: int64(len(ids))}); err != nil {
		return false, err
	}
	s.moved(next, store.RunStep{Seen: int64(len(ids))})
	return false, nil
}

// readEach reads objects by their ids, repairs or buries them, and returns those that live.
func (s *sweep) readEach(ctx context.Context, ids []uuid.UUID) (living []polar.Document, err error) {
	var gone []uuid.UUID
	var goneAt time.Time
	refused := 0
	for _, id := range ids {
		var d polar.Document
		err := s.ask(ctx, func() (err error) {
			d, err = s.runner.api.GetObject(ctx, s.resource, id)
			return err
		})
		switch api, _ := errors.AsType[*polar.APIError](err); {
		case err == nil:
			living = append(living, d)
		case polar.IsGone(err):
			gone, goneAt = append(gone, id), api.Date
		case isPassing(err) && ctx.Err() == nil && refused < mostRefused && len(ids) > 1:
			refused++ // one that Polar cannot serve must not keep the others from being looked at
			s.fail(id, err)
		default:
			return nil, err
		}
	}
	record := func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
		return s.advanceIn(ctx, tx, s.withFailures(s.cursor), step)
	}
	if len(living) > 0 {
		if err := s.compareByID(ctx, living, record); err != nil {
			return nil, err
		}
	}
	if len(gone) > 0 {
		crashpoint.Here("sweep.gone")
		_, err = s.buryGone(ctx, gone, goneAt, record)
	}
	return living, err
}

// seats lists the seats of the next subscription or order that has some. Who is missed is asked for once more at once.
func (s *sweep) seats(ctx context.Context) (done bool, err error) {
	if len(s.holders) == 0 {
		if s.holders, err = s.runner.store.ListSeatHolders(ctx, s.cursor.After, polar.MaxPageSize); err != nil || len(s.holders) == 0 {
			return err == nil, err
		}
	}
	holder := s.holders[0]
	list := func() ([]polar.Document, []uuid.UUID, time.Time, error) {
		of := polar.SeatHolder{SubscriptionID: holder.ID}
		if holder.IsOrder {
			of = polar.SeatHolder{OrderID: holder.ID}
		}
		var found []polar.Document
		var readAt time.Time
		err := s.ask(ctx, func() (err error) {
			found, readAt, err = s.runner.api.ListSeats(ctx, of)
			return err
		})
		if api, ok := errors.AsType[*polar.APIError](err); ok && polar.IsGone(err) {
			readAt, err = api.Date, nil // what had the seats is gone, and they are too
		}
		ids := make([]uuid.UUID, len(found))
		for i, d := range found {
			ids[i] = d.ID
		}
		return found, ids, readAt, err
	}
	found, ids, readAt, err := list()
	if err != nil {
		return false, err
	}
	missed, err := s.runner.store.ListUnseenSeats(ctx, holder.ID, ids)
	if err != nil {
		return false, err
	}
	if len(missed) > 0 {
		_, again, at, err := list()
		if err != nil {
			return false, err
		}
		missed = slices.DeleteFunc(missed, func(id uuid.UUID) bool { return slices.Contains(again, id) })
		if !at.IsZero() {
			readAt = at
		}
	}
	if len(missed) > 0 {
		_, err := s.buryGone(ctx, missed, readAt, func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
			return s.advanceIn(ctx, tx, s.cursor, step)
		})
		if err != nil {
			return false, err
		}
	}
	next := s.cursor
	next.After = holder.ID
	err = s.compare(ctx, found, func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
		step.Seen += int64(len(found))
		return s.advanceIn(ctx, tx, s.withFailures(next), step)
	}, next)
	if err == nil {
		s.holders = s.holders[1:]
	}
	return false, err
}
