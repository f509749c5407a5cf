package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// TellChanges writes to the feed what is due, unless another process is at it. It compares at most maxUsers with what they
// were told, and every walkEvery as many of whom nothing is due. more tells that there is more to do. Errors: ErrOlderSchema.
func (s *Store) TellChanges(ctx context.Context, maxUsers int, walkEvery time.Duration) (told int, more bool, err error) {
	row, err := s.q.ChangesTell(ctx, s.pool, int32(maxUsers), walkEvery) //nolint:gosec // a constant of the caller
	if err != nil {
		return 0, false, fmt.Errorf("telling changes: %w", interpret(err))
	}
	return int(row.Told), row.More, nil
}

// TellGoneUsers has those who were told of an access and are deleted or gone by now compared, at most limit of them.
func (s *Store) TellGoneUsers(ctx context.Context, limit int) error {
	if there, err := s.parts.feed.isThere(ctx, s.pool); err != nil || !there {
		return err
	}
	if err := s.q.ChangeDueOfGoneUsers(ctx, s.pool, int32(limit)); err != nil { //nolint:gosec // a constant of the caller
		return fmt.Errorf("looking for users who are gone: %w", interpret(err))
	}
	return nil
}

// ChangePage is a part of the feed.
type ChangePage struct {
	Changes      json.RawMessage // an array with an object for each row, named as the table's columns
	Last         int64           // id of the last of them; where there is none, the one that was asked after
	RemovedUntil int64           // up to which ids changes are not kept any more
	Newest       int64           // id of the newest there is
}

// ReadChanges gives the next changes after one, at most limit. Errors: ErrOlderSchema.
func (s *Store) ReadChanges(ctx context.Context, after int64, limit int) (ChangePage, error) {
	row, err := s.q.ChangeList(ctx, s.pool, after, int32(limit)) //nolint:gosec // a constant of the caller
	if err != nil {
		return ChangePage{}, fmt.Errorf("reading changes: %w", interpret(err))
	}
	return ChangePage(row), nil
}

// PruneChanges removes changes that were told longer than age ago, at most limit, the oldest first.
func (t *Tx) PruneChanges(ctx context.Context, age time.Duration, limit int) (int64, error) {
	if there, err := t.parts.feed.isThere(ctx, t.tx); err != nil || !there {
		return 0, err
	}
	n, err := t.q.ChangePrune(ctx, t.tx, int32(limit), age) //nolint:gosec // a constant of the caller
	if err != nil {
		return 0, fmt.Errorf("removing old changes: %w", interpret(err))
	}
	return n, nil
}
