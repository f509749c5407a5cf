package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// How a document that was read compares with the mirror.
const (
	DiffMissing  = "missing"  // the mirror does not have it
	DiffBuried   = "buried"   // the mirror has a tombstone of it
	DiffColumn   = "differs"  // a column differs
	DiffDocument = "document" // only the rest of the document differs
)

// Difference is one way in which the mirror differs from a document that was read.
type Difference struct {
	ID              uuid.UUID
	State           string // one of the Diff… constants
	Field           string // the column; empty for DiffDocument
	Local, Remote   *string
	LocalChangedAt  time.Time // modified_at, else created_at, of what is stored; zero where unknown
	RemoteChangedAt time.Time // the same of what was read
}

// CompareObjects tells what documents read from Polar differ in from the mirror. Rows that are newer than the read do
// not differ.
func (s *Store) CompareObjects(ctx context.Context, objectType string, objects []Object, readAt time.Time) ([]Difference, error) {
	return compareObjects(ctx, s.q, s.pool, objectType, objects, readAt)
}

// CompareObjects is Store.CompareObjects within the transaction.
func (t *Tx) CompareObjects(ctx context.Context, objectType string, objects []Object, readAt time.Time) ([]Difference, error) {
	return compareObjects(ctx, t.q, t.tx, objectType, objects, readAt)
}

func compareObjects(ctx context.Context, q *dbsqlc.Queries, db dbsqlc.DBTX, objectType string, objects []Object, readAt time.Time) ([]Difference, error) {
	params := dbsqlc.ObjectsCompareParams{ObjectType: objectType, ReadAt: readAt}
	for _, o := range objects {
		params.Ids = append(params.Ids, o.ID)
		params.Docs = append(params.Docs, o.Doc)
	}
	rows, err := q.ObjectsCompare(ctx, db, params)
	if err != nil {
		return nil, fmt.Errorf("comparing %d objects of type %s: %w", len(objects), objectType, interpret(err))
	}
	differences := make([]Difference, len(rows))
	for i, r := range rows {
		d := Difference{ID: r.ID, State: r.State, Field: r.Field, LocalChangedAt: known(r.LocalChangedAt), RemoteChangedAt: known(r.RemoteChangedAt)}
		if !r.LocalNull {
			d.Local = &r.Local
		}
		if !r.RemoteNull {
			d.Remote = &r.Remote
		}
		differences[i] = d
	}
	return differences, nil
}

// known is a time of the database in which the year 1 stands for none.
func known(t time.Time) time.Time {
	if t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// KeyRange is a half-open range of a list's sort key. A zero bound is none.
type KeyRange struct{ From, Until time.Time }

// ListUnseenObjects gives living objects of a range that a run's page does not hold, in the order of their ids, after
// one of them. Without an upper bound, objects without a key are among them.
func (s *Store) ListUnseenObjects(ctx context.Context, objectType, sortKey string, keys KeyRange, seen []uuid.UUID, runID int64, after uuid.UUID, limit int32) ([]uuid.UUID, error) {
	if seen == nil {
		seen = []uuid.UUID{} // null is unequal to nothing
	}
	ids, err := s.q.ObjectsListUnseen(ctx, s.pool, dbsqlc.ObjectsListUnseenParams{
		ObjectType: objectType, SortKey: sortKey, FromKey: orNilTime(keys.From), UntilKey: orNilTime(keys.Until),
		Seen: seen, RunID: runID, AfterID: after, MaxRows: limit,
	})
	if err != nil {
		return nil, fmt.Errorf("looking for objects of type %s that were not seen: %w", objectType, interpret(err))
	}
	return ids, nil
}

// ListUnseenSeats gives living seats of a subscription or an order that its list does not show.
func (s *Store) ListUnseenSeats(ctx context.Context, holder uuid.UUID, seen []uuid.UUID) ([]uuid.UUID, error) {
	if seen == nil {
		seen = []uuid.UUID{}
	}
	ids, err := s.q.CustomerSeatListUnseen(ctx, s.pool, holder, seen)
	if err != nil {
		return nil, fmt.Errorf("looking for seats of %s that were not seen: %w", holder, interpret(err))
	}
	return ids, nil
}

// SeatHolder is a subscription or an order that has seats.
type SeatHolder struct {
	ID      uuid.UUID
	IsOrder bool
}

// ListSeatHolders gives subscriptions and orders that have seats in the order of their ids, after one of them.
func (s *Store) ListSeatHolders(ctx context.Context, after uuid.UUID, limit int32) ([]SeatHolder, error) {
	rows, err := s.q.SeatHolderList(ctx, s.pool, after, limit)
	if err != nil {
		return nil, fmt.Errorf("looking for what has seats: %w", interpret(err))
	}
	holders := make([]SeatHolder, len(rows))
	for i, r := range rows {
		holders[i] = SeatHolder(r)
	}
	return holders, nil
}

// ListUnfinished gives objects of a type that are not over though they are from before a time, in the order of their
// ids, after one of them: checkouts and orders by their creation, subscriptions by the end of their period.
func (s *Store) ListUnfinished(ctx context.Context, objectType string, before time.Time, after uuid.UUID, limit int32) (ids []uuid.UUID, err error) {
	switch objectType {
	case "checkout":
		ids, err = s.q.CheckoutListUnfinishedBefore(ctx, s.pool, dbsqlc.CheckoutListUnfinishedBeforeParams{Before: &before, AfterID: after, MaxRows: limit})
	case "order":
		ids, err = s.q.OrderListUnfinishedBefore(ctx, s.pool, dbsqlc.OrderListUnfinishedBeforeParams{Before: &before, AfterID: after, MaxRows: limit})
	case "subscription":
		ids, err = s.q.SubscriptionListUnfinishedBefore(ctx, s.pool, dbsqlc.SubscriptionListUnfinishedBeforeParams{Before: &before, AfterID: after, MaxRows: limit})
	}
	if err != nil {
		return nil, fmt.Errorf("looking for unfinished objects of type %s: %w", objectType, interpret(err))
	}
	return ids, nil
}

// OldestUnfinishedCheckout is when the oldest session was created that is not over, of those created since; zero: none.
func (s *Store) OldestUnfinishedCheckout(ctx context.Context, since time.Time) (time.Time, error) {
	at, err := s.q.CheckoutOldestUnfinished(ctx, s.pool, &since)
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for the oldest unfinished checkout: %w", interpret(err))
	}
	return known(at), nil
}

// ListLiftable gives those of the objects that are buried here although a list that was read later shows them alive.
// Only for types that Polar does not serve by id.
func (s *Store) ListLiftable(ctx context.Context, objectType string, ids []uuid.UUID, readAt time.Time) ([]uuid.UUID, error) {
	liftable, err := s.q.TombstoneListLiftable(ctx, s.pool, dbsqlc.TombstoneListLiftableParams{Ids: ids, ReadAt: readAt, ObjectType: objectType})
	if err != nil {
		return nil, fmt.Errorf("looking for tombstones of type %s: %w", objectType, interpret(err))
	}
	return liftable, nil
}

// CountSuspects tells how many objects of a type two sweeps of a run have missed, and how many of the type live.
func (s *Store) CountSuspects(ctx context.Context, runID int64, objectType string) (missed, living int64, err error) {
	row, err := s.q.ReconcileSuspectCount(ctx, s.pool, runID, objectType)
	if err != nil {
		return 0, 0, fmt.Errorf("counting those who were missed: %w", interpret(err))
	}
	return row.Missed, row.Living, nil
}

// BuryObjects makes tombstones of objects that are gone at Polar; it returns those that lived until now.
func (t *Tx) BuryObjects(ctx context.Context, objectType string, ids []uuid.UUID, at time.Time) ([]uuid.UUID, error) {
	buried, err := t.q.ObjectsBury(ctx, t.tx, dbsqlc.ObjectsBuryParams{ObjectType: objectType, Ids: ids, BuriedAt: at})
	if err != nil {
		return nil, fmt.Errorf("burying %d objects of type %s: %w", len(ids), objectType, interpret(err))
	}
	return buried, nil
}

// DriftQuestion is an object that differs, and what is known of when it changed at Polar. Zero times are unknown.
type DriftQuestion struct {
	ID          uuid.UUID
	StoredAt    time.Time // Polar's clock for what is stored
	From, Until time.Time // it changed within these
}

// DriftFacts is what tells why an object differs.
type DriftFacts struct {
	Unapplied bool // an event of it that is newer than what is stored is here, but not applied
	Dark      bool // Polar's endpoint was out of order when it changed
}

// ListDriftFacts gives the facts about objects that differ.
func (t *Tx) ListDriftFacts(ctx context.Context, questions []DriftQuestion) (map[uuid.UUID]DriftFacts, error) {
	var params dbsqlc.DriftFactsListParams
	for _, q := range questions {
		params.Ids = append(params.Ids, q.ID)
		params.StoredAts = append(params.StoredAts, storable(q.StoredAt))
		params.FromAts = append(params.FromAts, storable(q.From))
		params.UntilAts = append(params.UntilAts, storable(q.Until))
	}
	rows, err := t.q.DriftFactsList(ctx, t.tx, params)
	if err != nil {
		return nil, fmt.Errorf("looking for why %d objects differ: %w", len(questions), interpret(err))
	}
	facts := make(map[uuid.UUID]DriftFacts, len(rows))
	for _, r := range rows {
		facts[r.ID] = DriftFacts{Unapplied: r.Unapplied, Dark: r.Dark}
	}
	return facts, nil
}

// ListObjectVersions tells which version of each object is stored, by Polar's clock; zero: not known.
func (t *Tx) ListObjectVersions(ctx context.Context, objectType string, ids []uuid.UUID) (map[uuid.UUID]time.Time, error) {
	rows, err := t.q.ObjectVersionList(ctx, t.tx, objectType, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the versions of %d objects of type %s: %w", len(ids), objectType, interpret(err))
	}
	versions := make(map[uuid.UUID]time.Time, len(rows))
	for _, r := range rows {
		versions[r.ID] = known(r.VersionAt)
	}
	return versions, nil
}

// Drift is a row of drift.
type Drift struct {
	ObjectType string    `json:"object_type"`
	ObjectID   string    `json:"object_id"`
	Field      string    `json:"field"`
	Local      *string   `json:"local"`
	Remote     *string   `json:"remote"`
	Cause      string    `json:"cause"`
	DetectedAt time.Time `json:"detected_at"`
	Resolution *string   `json:"resolution"`
}

// RecordDrift writes differences of objects of one type into the ledger: repaired, or left open.
func (t *Tx) RecordDrift(ctx context.Context, runID int64, objectType string, drifts []Drift, repaired bool) error {
	if len(drifts) == 0 {
		return nil
	}
	params := dbsqlc.DriftRecordManyParams{RunID: runID, ObjectType: objectType, Repaired: repaired}
	for _, d := range drifts {
		params.ObjectIds = append(params.ObjectIds, d.ObjectID)
		params.Fields = append(params.Fields, d.Field)
		params.Locals = append(params.Locals, storableText(orEmpty(d.Local)))
		params.LocalNulls = append(params.LocalNulls, d.Local == nil)
		params.Remotes = append(params.Remotes, storableText(orEmpty(d.Remote)))
		params.RemoteNulls = append(params.RemoteNulls, d.Remote == nil)
		params.Causes = append(params.Causes, d.Cause)
	}
	if err := t.q.DriftRecordMany(ctx, t.tx, params); err != nil {
		return fmt.Errorf("recording %d differences: %w", len(drifts), interpret(err))
	}
	return nil
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// HasOpenDrift tells whether anything of a type is open that a sweep may settle.
func (s *Store) HasOpenDrift(ctx context.Context, objectType string) (bool, error) {
	open, err := s.q.DriftAnyOpen(ctx, s.pool, objectType)
	if err != nil {
		return false, fmt.Errorf("looking for open drift: %w", interpret(err))
	}
	return open, nil
}

// SettleDrift closes what is open of objects that are in step.
func (t *Tx) SettleDrift(ctx context.Context, objectType string, ids []uuid.UUID) error {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	if err := t.q.DriftSettle(ctx, t.tx, objectType, texts); err != nil {
		return fmt.Errorf("settling drift: %w", interpret(err))
	}
	return nil
}

// SettleRest closes what was open of a type before a run that looked at everything, and that it did not find again.
func (t *Tx) SettleRest(ctx context.Context, objectType string, runID int64) error {
	if err := t.q.DriftSettleRest(ctx, t.tx, objectType, runID); err != nil {
		return fmt.Errorf("settling drift: %w", interpret(err))
	}
	return nil
}

// ListDriftOfRun gives the differences that a run recorded.
func (s *Store) ListDriftOfRun(ctx context.Context, runID int64, limit int32) ([]Drift, error) {
	rows, err := s.q.DriftListByRun(ctx, s.pool, runID, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the drift of run %d: %w", runID, interpret(err))
	}
	drifts := make([]Drift, len(rows))
	for i, r := range rows {
		drifts[i] = Drift(r)
	}
	return drifts, nil
}

// CountOpenDrift counts the open differences by cause.
func (s *Store) CountOpenDrift(ctx context.Context) (map[string]int64, error) {
	rows, err := s.q.DriftCountByCause(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("counting open drift: %w", interpret(err))
	}
	counts := make(map[string]int64, len(rows))
	for _, row := range rows {
		counts[row.Cause] = row.Open
	}
	return counts, nil
}
