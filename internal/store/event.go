package store

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Delivery is one validly signed webhook.
type Delivery struct {
	WebhookID  string
	Type       string
	ObjectID   string    // data.id; may be empty
	OccurredAt time.Time // the envelope's timestamp; zero where it has none
	Body       []byte    // as received
}

// Stored says what InsertEvents did.
type Stored struct {
	New   int // events not seen before
	Again int // events seen before whose last try had failed: tried again, where need be with the body that came now
}

// InsertEvents stores deliveries and the River job that applies them in one statement, hence one transaction. Only a
// redelivery of a failed event whose body is no longer kept takes a second one.
// wake notifies the workers at once; without it they find the job at their next poll. Errors: ErrUnavailable, ErrRefused.
func (s *Store) InsertEvents(ctx context.Context, deliveries []Delivery, wake bool) (Stored, error) {
	return insertEvents(ctx, s.q, s.pool, deliveries, wake)
}

func insertEvents(ctx context.Context, q *dbsqlc.Queries, db dbsqlc.DBTX, deliveries []Delivery, wake bool) (Stored, error) {
	params := dbsqlc.EventInsertManyParams{Notify: wake}
	for _, d := range deliveries {
		body, exact := string(d.Body), []byte{}
		if !utf8.ValidString(body) {
			body, exact = strings.ToValidUTF8(body, "\uFFFD"), d.Body
		}
		params.WebhookIds = append(params.WebhookIds, d.WebhookID)
		params.Types = append(params.Types, d.Type)
		params.ObjectIds = append(params.ObjectIds, d.ObjectID)
		params.OccurredAts = append(params.OccurredAts, storable(d.OccurredAt))
		params.Bodies = append(params.Bodies, body)
		params.BodyBytes = append(params.BodyBytes, exact)
	}
	row, err := q.EventInsertMany(ctx, db, params)
	if err != nil {
		return Stored{}, fmt.Errorf("inserting events: %w", interpret(err))
	}
	stored := Stored{New: int(row.Stored), Again: int(row.Again)}
	if row.Bodiless > 0 {
		again, err := q.EventRestoreMany(ctx, db, dbsqlc.EventRestoreManyParams{
			WebhookIds: params.WebhookIds, Bodies: params.Bodies, BodyBytes: params.BodyBytes, Notify: wake,
		})
		if err != nil {
			return Stored{}, fmt.Errorf("giving %d events their bodies again: %w", row.Bodiless, interpret(err))
		}
		stored.Again += int(again.Restored)
	}
	return stored, nil
}

// storable keeps a time within what Postgres can hold; what is beyond reads as unknown.
func storable(t time.Time) time.Time {
	if y := t.Year(); y < 1000 || y > 9999 {
		return time.Time{}
	}
	return t.UTC()
}

// storableText makes text that Postgres takes, of a length that a person reads.
func storableText(s string) string {
	const longest = 4000
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

// Event is a stored event.
type Event struct {
	Seq        int64
	WebhookID  string
	Type       string
	OccurredAt time.Time // zero where unknown
	Body       string
}

// ListEventsByBatch reads the events of a batch that are not applied, and whose bodies are kept.
func (s *Store) ListEventsByBatch(ctx context.Context, batch int64) ([]Event, error) {
	rows, err := s.q.EventListByBatch(ctx, s.pool, batch)
	if err != nil {
		return nil, fmt.Errorf("reading the events of batch %d: %w", batch, interpret(err))
	}
	events := make([]Event, len(rows))
	for i, r := range rows {
		events[i] = Event{Seq: r.Seq, WebhookID: r.WebhookID, Type: r.Type, OccurredAt: orZero(r.OccurredAt), Body: r.Body}
	}
	return events, nil
}

// ListEvents reads those of the given events that are not applied, and whose bodies are kept.
func (s *Store) ListEvents(ctx context.Context, seqs []int64) ([]Event, error) {
	rows, err := s.q.EventListBySeq(ctx, s.pool, seqs)
	if err != nil {
		return nil, fmt.Errorf("reading %d events: %w", len(seqs), interpret(err))
	}
	events := make([]Event, len(rows))
	for i, r := range rows {
		events[i] = Event{Seq: r.Seq, WebhookID: r.WebhookID, Type: r.Type, OccurredAt: orZero(r.OccurredAt), Body: r.Body}
	}
	return events, nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// Outcome is what became of an event: applied, or failed with a reason.
type Outcome struct {
	Seq   int64
	Error string // empty: applied
}

// SetOutcomes records what became of events; what was applied stays applied. forgotten tells that there are customers
// of whom no personal data may be kept.
func (t *Tx) SetOutcomes(ctx context.Context, outcomes []Outcome) (forgotten bool, err error) {
	seqs := make([]int64, len(outcomes))
	reasons := make([]string, len(outcomes))
	for i, o := range outcomes {
		seqs[i], reasons[i] = o.Seq, storableText(o.Error)
	}
	forgotten, err = t.q.EventOutcomeUpsertMany(ctx, t.tx, seqs, reasons)
	if err != nil {
		return false, fmt.Errorf("recording the outcome of %d events: %w", len(outcomes), interpret(err))
	}
	return forgotten, nil
}

// Swept is what one pass of SweepEvents saw.
type Swept struct {
	Requeued   int   // events with neither outcome nor live job that got a new job
	Considered int   // events looked at
	Pending    int   // of those, without an outcome
	UpTo       int64 // every event up to this one has an outcome
}

// SweepEvents gives a new job to events older than grace that have neither an outcome nor a live job,
// looking at no more than window events after those already proved.
func (t *Tx) SweepEvents(ctx context.Context, grace time.Duration, window int) (Swept, error) {
	row, err := t.q.EventSweep(ctx, t.tx, grace, int32(window)) //nolint:gosec // a constant of the caller
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping events: %w", interpret(err))
	}
	return Swept{Requeued: int(row.Requeued), Considered: int(row.Considered), Pending: int(row.Pending), UpTo: row.SweptSeq}, nil
}
