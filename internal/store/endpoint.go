package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// States of Polar's webhook endpoint, as far as it matters here.
const (
	EndpointOK      = "ok"      // every type of event is sent
	EndpointDark    = "dark"    // some or all are not
	EndpointUnknown = "unknown" // it could not be told
)

// EndpointFinding is something that is wrong with Polar's endpoint.
type EndpointFinding struct {
	Finding string `json:"finding"` // one word, a metric's label
	Detail  string `json:"detail"`  // what exactly
	Advice  string `json:"advice"`  // what to do
}

// EndpointWatch is what the last look at Polar's endpoint found.
type EndpointWatch struct {
	State       string            `json:"state"`
	Findings    []EndpointFinding `json:"findings"`     // worst first
	EndpointID  *uuid.UUID        `json:"endpoint_id"`  // nil where none is ours
	CheckedAt   time.Time         `json:"checked_at"`   // by the database's clock, as all but LastOKAt
	Since       time.Time         `json:"since"`        // when the state was first found
	LastOKAt    *time.Time        `json:"last_ok_at"`   // by Polar's clock; nil while it never was
	AlarmedAt   *time.Time        `json:"alarmed_at"`   // nil while the log was never told
	ReenabledAt *time.Time        `json:"reenabled_at"` // nil while it never was
	CatchUp     bool              `json:"catch_up"`     // a full sweep has yet to be asked for
	AgeSeconds  float64           `json:"age_seconds"`  // of the look
}

// Now is the database's clock when this was read.
func (w EndpointWatch) Now() time.Time {
	return w.CheckedAt.Add(time.Duration(w.AgeSeconds * float64(time.Second)))
}

// GetEndpointWatch reads what the last look found. Errors: ErrNotFound before the first.
func (s *Store) GetEndpointWatch(ctx context.Context) (EndpointWatch, error) {
	return readEndpointWatch(s.q.EndpointWatchGet(ctx, s.pool))
}

// LockEndpointWatch reads it to change it in this transaction. Errors: ErrNotFound before the first look.
func (t *Tx) LockEndpointWatch(ctx context.Context) (EndpointWatch, error) {
	if err := t.q.EndpointWatchLock(ctx, t.tx); err != nil {
		return EndpointWatch{}, fmt.Errorf("locking the watch of the endpoint: %w", interpret(err))
	}
	return readEndpointWatch(t.q.EndpointWatchGet(ctx, t.tx))
}

func readEndpointWatch(row dbsqlc.EndpointWatchGetRow, err error) (EndpointWatch, error) {
	if err != nil {
		return EndpointWatch{}, fmt.Errorf("reading the watch of the endpoint: %w", interpret(err))
	}
	w := EndpointWatch{
		State: row.State, EndpointID: row.EndpointID, CheckedAt: row.CheckedAt, Since: row.Since, LastOKAt: row.LastOkAt,
		AlarmedAt: row.AlarmedAt, ReenabledAt: row.ReenabledAt, CatchUp: row.CatchUp, AgeSeconds: row.AgeSeconds,
	}
	if err := json.Unmarshal(row.Findings, &w.Findings); err != nil {
		return EndpointWatch{}, fmt.Errorf("reading the findings of the endpoint: %w", err)
	}
	return w, nil
}

// EndpointLook is one look at Polar's endpoint.
type EndpointLook struct {
	State      string
	Findings   []EndpointFinding
	EndpointID uuid.UUID // uuid.Nil where none is ours
	OKAt       time.Time // by Polar's clock, where it is ok; zero otherwise
	Alarmed    bool      // the log is told now
	CatchUp    bool      // a full sweep has yet to be asked for
}

// PutEndpointLook keeps what a look found.
func (t *Tx) PutEndpointLook(ctx context.Context, look EndpointLook) error {
	if look.Findings == nil {
		look.Findings = []EndpointFinding{}
	}
	findings, err := json.Marshal(look.Findings)
	if err != nil {
		return fmt.Errorf("encoding the findings of the endpoint: %w", err)
	}
	params := dbsqlc.EndpointWatchUpsertParams{State: look.State, Findings: findings, Alarmed: look.Alarmed, CatchUp: look.CatchUp, LastOkAt: timeOrNil(look.OKAt)}
	if look.EndpointID != uuid.Nil {
		params.EndpointID = &look.EndpointID
	}
	if err := t.q.EndpointWatchUpsert(ctx, t.tx, params); err != nil {
		return fmt.Errorf("writing the watch of the endpoint: %w", interpret(err))
	}
	return nil
}

// NoteEndpointReenabled keeps when the endpoint was enabled again, or that was refused.
func (s *Store) NoteEndpointReenabled(ctx context.Context) error {
	if err := s.q.EndpointWatchReenabled(ctx, s.pool); err != nil {
		return fmt.Errorf("noting that the endpoint was enabled again: %w", interpret(err))
	}
	return nil
}

// BeginOutage opens an outage of the endpoint, unless one goes on. It reports whether it did.
func (t *Tx) BeginOutage(ctx context.Context, reason string, beganAt time.Time) (bool, error) {
	return t.insertOutage(ctx, reason, beganAt, nil)
}

// AddOutage records an outage that is over.
func (t *Tx) AddOutage(ctx context.Context, reason string, beganAt, endedAt time.Time) error {
	_, err := t.insertOutage(ctx, reason, beganAt, &endedAt)
	return err
}

func (t *Tx) insertOutage(ctx context.Context, reason string, beganAt time.Time, endedAt *time.Time) (bool, error) {
	n, err := t.q.EndpointOutageInsert(ctx, t.tx, dbsqlc.EndpointOutageInsertParams{Reason: reason, BeganAt: beganAt, EndedAt: endedAt})
	if err != nil {
		return false, fmt.Errorf("recording an outage of the endpoint: %w", interpret(err))
	}
	return n > 0, nil
}

// EndOutage closes the outage that goes on. It reports whether there was one.
func (t *Tx) EndOutage(ctx context.Context, endedAt time.Time) (bool, error) {
	n, err := t.q.EndpointOutageClose(ctx, t.tx, endedAt)
	if err != nil {
		return false, fmt.Errorf("closing the outage of the endpoint: %w", interpret(err))
	}
	return n > 0, nil
}

// timeOrNil is a time that Postgres can hold, nil where there is none.
func timeOrNil(t time.Time) *time.Time {
	return orNilTime(storable(t))
}

// optional makes a nil of what is not there.
func optional[T any](value T, err error) (*T, error) {
	switch {
	case err == nil:
		return &value, nil
	case errors.Is(err, ErrNotFound):
		return nil, nil //nolint:nilnil // not there is an answer
	}
	return nil, err
}
