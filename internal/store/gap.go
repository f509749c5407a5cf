package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What became of an event that never arrived, and was found in Polar's list of failed deliveries.
const (
	GapStored      = "stored"      // from the list, as if it had arrived
	GapRedelivered = "redelivered" // Polar was asked to send it again
	GapUnusable    = "unusable"    // Polar has nothing of it that can be read
)

// GapFill is how far that list has been searched.
type GapFill struct {
	FilledUntil *time.Time `json:"filled_until"` // by Polar's clock; nil before the first search that succeeded
	RanAt       time.Time  `json:"ran_at"`       // by the database's clock
	Error       *string    `json:"error"`        // why the last search failed; nil if it did not
}

// GetGapFill reads how far the list has been searched. Errors: ErrNotFound before the first search.
func (s *Store) GetGapFill(ctx context.Context) (GapFill, error) {
	row, err := s.q.GapFillGet(ctx, s.pool)
	if err != nil {
		return GapFill{}, fmt.Errorf("reading how far gaps are filled: %w", interpret(err))
	}
	return GapFill(row), nil
}

// PutGapFill keeps how far the list has been searched, zero for no further, and why it failed, empty if it did not.
func (s *Store) PutGapFill(ctx context.Context, until time.Time, failure string) error {
	if err := s.q.GapFillUpsert(ctx, s.pool, timeOrNil(until), storableText(failure)); err != nil {
		return fmt.Errorf("writing how far gaps are filled: %w", interpret(err))
	}
	return nil
}

// ListUnknownEvents tells which of these events neither arrived nor were dealt with otherwise.
func (s *Store) ListUnknownEvents(ctx context.Context, webhookIDs []string) ([]string, error) {
	unknown, err := s.q.EventListUnknown(ctx, s.pool, webhookIDs)
	if err != nil {
		return nil, fmt.Errorf("looking for %d events: %w", len(webhookIDs), interpret(err))
	}
	return unknown, nil
}

// StoreMissedEvents stores events that never arrived, with the job that applies them, as InsertEvents does, and notes
// where they came from. It returns how many had not arrived by now.
func (s *Store) StoreMissedEvents(ctx context.Context, missed []Delivery) (int, error) {
	// As ingest does, so that the two never wait for each other in a circle.
	slices.SortFunc(missed, func(a, b Delivery) int { return strings.Compare(a.WebhookID, b.WebhookID) })
	ids := make([]string, len(missed))
	for i, d := range missed {
		ids[i] = d.WebhookID
	}
	var stored int64
	err := s.InTx(ctx, func(tx *Tx) error {
		if _, err := insertEvents(ctx, tx.q, tx.tx, missed, false); err != nil {
			return err
		}
		var err error
		if stored, err = tx.q.GapFilledInsertStored(ctx, tx.tx, ids); err != nil {
			return fmt.Errorf("noting that %d events were missed: %w", len(ids), interpret(err))
		}
		return nil
	})
	return int(stored), err
}

// NoteGap keeps what became of an event that is not stored.
func (s *Store) NoteGap(ctx context.Context, webhookID, how string) error {
	if err := s.q.GapFilledInsert(ctx, s.pool, webhookID, how); err != nil {
		return fmt.Errorf("noting that event %s is %s: %w", webhookID, how, interpret(err))
	}
	return nil
}
