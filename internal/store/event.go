package store

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
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
	New   int      // events not seen before
	Known []string // webhook ids of those seen before
	Again []string // those of them whose last try had failed: they are tried again, where need be with the body that came now
}

// InsertEvents stores deliveries and the River job that applies them in one statement, hence one transaction. Only a
// redelivery of a failed event whose body is no longer kept takes a second one.
// The job goes on in the trace of ctx, if that is in one. wake notifies the workers at once; without it they find the job at
// their next poll. Errors: ErrUnavailable, ErrRefused.
func (s *Store) InsertEvents(ctx context.Context, deliveries []Delivery, wake bool) (Stored, error) {
	return insertEvents(ctx, s.q, s.pool, deliveries, wake)
}

func insertEvents(ctx context.Context, q *dbsqlc.Queries, db dbsqlc.DBTX, deliveries []Delivery, wake bool) (Stored, error) {
	metadata := jobMetadata(ctx)
	if len(deliveries) == 1 {
		d := deliveries[0]
		body, exact := bodyText(d.Body)
		crashpoint.Here("receive.one_unstored")
		n, err := q.EventInsert(ctx, db, dbsqlc.EventInsertParams{
			WebhookID: d.WebhookID, Type: d.Type, ObjectID: d.ObjectID, OccurredAt: storable(d.OccurredAt), Body: body, BodyBytes: exact,
			Metadata: metadata, Notify: wake,
		})
		if err != nil {
			return Stored{}, fmt.Errorf("inserting an event: %w", interpret(err))
		}
		if n == 1 {
			crashpoint.Here("receive.one_stored")
			return Stored{New: 1}, nil
		}
	}
	n := len(deliveries)
	params := dbsqlc.EventInsertManyParams{
		Metadata: metadata, Notify: wake, WebhookIds: make([]string, n), Types: make([]string, n), ObjectIds: make([]string, n),
		OccurredAts: make([]time.Time, n), Bodies: make([]string, n), BodyBytes: make([][]byte, n),
	}
	for i, d := range deliveries {
		params.WebhookIds[i], params.Types[i], params.ObjectIds[i] = d.WebhookID, d.Type, d.ObjectID
		params.OccurredAts[i] = storable(d.OccurredAt)
		params.Bodies[i], params.BodyBytes[i] = bodyText(d.Body)
	}
	crashpoint.Here("receive.many_unstored")
	row, err := q.EventInsertMany(ctx, db, params)
	if err != nil {
		return Stored{}, fmt.Errorf("inserting %d events: %w", len(deliveries), interpret(err))
	}
	crashpoint.Here("receive.many_stored")
	stored := Stored{New: int(row.Stored), Known: row.Known, Again: row.Again}
	// A body may also have gone between that statement's snapshot and its lock.
	if len(row.Bodiless)+len(row.Again) > 0 {
		crashpoint.Here("receive.bodiless")
		restored, err := q.EventRestoreMany(ctx, db, dbsqlc.EventRestoreManyParams{
			WebhookIds: params.WebhookIds, Bodies: params.Bodies, BodyBytes: params.BodyBytes, Notify: wake,
		})
		if err != nil {
			return Stored{}, fmt.Errorf("giving %d events their bodies again: %w", len(row.Bodiless), interpret(err))
		}
		if restored > 0 {
			stored.Again = append(stored.Again, row.Bodiless...)
		}
	}
	return stored, nil
}

// bodyText is a body as text, and its exact bytes where they are no UTF-8. The text shares the body's memory, which
// nobody changes.
func bodyText(body []byte) (text string, exact []byte) {
	if utf8.Valid(body) {
		return unsafe.String(unsafe.SliceData(body), len(body)), []byte{} //nolint:gosec // see above
	}
	return strings.ToValidUTF8(string(body), "\uFFFD"), body
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
	Waited     time.Duration // from its arrival until it was read, by the database's clock
}

// ListEventsByBatch reads the events of a batch that are not applied, and whose bodies are kept.
func (s *Store) ListEventsByBatch(ctx context.Context, batch int64) ([]Event, error) {
	rows, err := s.q.EventListByBatch(ctx, s.pool, batch)
	if err != nil {
		return nil, fmt.Errorf("reading the events of batch %d: %w", batch, interpret(err))
	}
	return eventsOf(rows), nil
}

// TakeEvents reads the events of a batch that are not applied and, where there is room, those of other batches that wait
// for a worker: what waits together is applied together. size is of the batch and most of all, in events, of which a large
// one counts as several. The jobs of the others are completed by this transaction; worker is who works them.
func (t *Tx) TakeEvents(ctx context.Context, batch int64, size int, worker string, most int) ([]Event, error) {
	room := int64(max(most-size, 0))
	rows, err := t.q.EventTakeMany(ctx, t.tx, dbsqlc.EventTakeManyParams{Batch: batch, Worker: worker, Room: room, Jobs: room / 2})
	if err != nil {
		return nil, fmt.Errorf("taking the events of batch %d and what waits beside it: %w", batch, interpret(err))
	}
	return eventsOf(rows), nil
}

// ListEvents reads those of the given events that are not applied, and whose bodies are kept.
func (s *Store) ListEvents(ctx context.Context, seqs []int64) ([]Event, error) {
	rows, err := s.q.EventListBySeq(ctx, s.pool, seqs)
	if err != nil {
		return nil, fmt.Errorf("reading %d events: %w", len(seqs), interpret(err))
	}
	return eventsOf(rows), nil
}

// eventRow is what the queries of events give; sqlc names the type after each query.
type eventRow interface {
	~struct {
		Seq        int64
		WebhookID  string
		Type       string
		OccurredAt *time.Time
		Body       string

		WaitedSeconds float64
	}
}

func eventsOf[R eventRow](rows []R) []Event {
	events := make([]Event, len(rows))
	for i, row := range rows {
		r := dbsqlc.EventListBySeqRow(row)
		events[i] = Event{Seq: r.Seq, WebhookID: r.WebhookID, Type: r.Type, OccurredAt: orZero(r.OccurredAt), Body: r.Body, Waited: time.Duration(r.WaitedSeconds * float64(time.Second))}
	}
	return events
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
