package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Forgettable is what is known of a customer that is to be forgotten.
type Forgettable struct {
	DeletedAt   time.Time // zero while it lives at Polar, as far as the mirror knows
	ForgottenAt time.Time // zero where it is not forgotten yet
}

// GetForgettable tells what is known of a customer. Errors: ErrNotFound where nothing names it.
func (s *Store) GetForgettable(ctx context.Context, id uuid.UUID) (Forgettable, error) {
	row, err := s.q.CustomerForgettable(ctx, s.pool, id)
	if err != nil {
		return Forgettable{}, fmt.Errorf("reading customer %s: %w", id, interpret(err))
	}
	if !row.Known {
		return Forgettable{}, fmt.Errorf("reading customer %s: %w", id, ErrNotFound)
	}
	return Forgettable{DeletedAt: orZero(row.DeletedAt), ForgottenAt: orZero(row.ForgottenAt)}, nil
}

// ListCustomersEver gives the customers of the mirror that bear an external id or did when they were deleted.
func (s *Store) ListCustomersEver(ctx context.Context, externalID string) ([]uuid.UUID, error) {
	ids, err := s.q.CustomerListEverByExternalID(ctx, s.pool, &externalID)
	if err != nil {
		return nil, fmt.Errorf("looking for customers by external id: %w", interpret(err))
	}
	return ids, nil
}

// ForgetCustomer takes a customer's personal data out of the mirror and the ledgers, for good, in one transaction, which
// notes who did. It returns how many rows of each table were blanked. The events are BlankEvents' part. Errors:
// ErrUnavailable while writers of the mirror hold what it needs.
func (s *Store) ForgetCustomer(ctx context.Context, id uuid.UUID, word Word) (map[string]int64, error) {
	counts := map[string]int64{}
	err := s.InTx(ctx, func(t *Tx) error {
		// Noted first: once the customer is forgotten, the mirror's writers wait for the commit.
		if err := t.Audit(ctx, word.Deed("forget", "customer "+id.String(), nil)); err != nil {
			return err
		}
		raw, err := t.q.CustomerForget(ctx, t.tx, dbsqlc.CustomerForgetParams{CustomerID: id, Actor: storableText(word.Actor), Reason: storableText(word.Reason)})
		if err != nil {
			return fmt.Errorf("forgetting customer %s: %w", id, interpret(err))
		}
		if err := json.Unmarshal(raw, &counts); err != nil {
			return fmt.Errorf("forgetting customer %s: reading the counts: %w", id, err)
		}
		return nil
	})
	return counts, err
}

// ListForgottenObjects gives the ids of a forgotten customer and of all that the mirror has of it.
func (s *Store) ListForgottenObjects(ctx context.Context, customer uuid.UUID) ([]string, error) {
	ids, err := s.q.ForgottenObjectList(ctx, s.pool, customer)
	if err != nil {
		return nil, fmt.Errorf("listing the objects of customer %s: %w", customer, interpret(err))
	}
	return ids, nil
}

// ListEventsOfObjects reads events of these objects after one of them, in order, a bounded number at a time.
func (t *Tx) ListEventsOfObjects(ctx context.Context, objectIDs []string, after int64) ([]Event, error) {
	rows, err := t.q.EventListByObject(ctx, t.tx, dbsqlc.EventListByObjectParams{ObjectIds: objectIDs, After: after, MaxRows: replayRows, MaxBytes: replayBytes})
	if err != nil {
		return nil, fmt.Errorf("reading the events of %d objects: %w", len(objectIDs), interpret(err))
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = eventOf(dbsqlc.EventReplayListRow(row))
	}
	return events, nil
}

// ListStrayEvents reads events that name a customer though the mirror does not tell: of types without a table, failed,
// or not tried yet. objectIDs are what they speak of.
func (t *Tx) ListStrayEvents(ctx context.Context, customer uuid.UUID, after int64) (events []Event, objectIDs []string, err error) {
	rows, err := t.q.EventListStray(ctx, t.tx, dbsqlc.EventListStrayParams{CustomerID: customer.String(), After: after, MaxRows: replayRows, MaxBytes: replayBytes})
	if err != nil {
		return nil, nil, fmt.Errorf("looking for events that name customer %s: %w", customer, interpret(err))
	}
	for _, row := range rows {
		events = append(events, Event{Seq: row.Seq, WebhookID: row.WebhookID, Type: row.Type, OccurredAt: orZero(row.OccurredAt), Body: row.Body})
		if row.ObjectID != nil {
			objectIDs = append(objectIDs, *row.ObjectID)
		}
	}
	return events, objectIDs, nil
}

// Naming is one customer or checkout that an event names.
type Naming struct {
	Seq int64
	ID  uuid.UUID
}

// ListForgottenEvents tells which events name forgotten customers, or checkouts of theirs.
func (t *Tx) ListForgottenEvents(ctx context.Context, namings []Naming) ([]int64, error) {
	seqs, ids := make([]int64, len(namings)), make([]uuid.UUID, len(namings))
	for i, n := range namings {
		seqs[i], ids[i] = n.Seq, n.ID
	}
	found, err := t.q.ForgottenList(ctx, t.tx, seqs, ids)
	if err != nil {
		return nil, fmt.Errorf("looking for forgotten customers: %w", interpret(err))
	}
	return found, nil
}

// NoteForgottenCheckouts tells which of these checkouts are of forgotten customers, and has all of their versions
// count as such from now on, though they name no customer.
func (t *Tx) NoteForgottenCheckouts(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	found, err := t.q.ForgottenCheckoutNote(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("looking for checkouts of forgotten customers: %w", interpret(err))
	}
	return found, nil
}

// BlankEvents takes the personal data out of events, whose bodies are given as documents that jsonb takes. It returns
// how many were not blank before. Errors: ErrRefused where Postgres cannot hold a document, ErrUnavailable.
func (t *Tx) BlankEvents(ctx context.Context, seqs []int64, docs []json.RawMessage) (int64, error) {
	n, err := t.q.EventBlankMany(ctx, t.tx, seqs, docs)
	if err != nil {
		return 0, fmt.Errorf("blanking %d events: %w", len(seqs), interpret(err))
	}
	return n, nil
}
