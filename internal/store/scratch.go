package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// scratchPrefix begins the names of scratch schemas; nothing else may be named so.
const scratchPrefix = "polar_verify_"

// Scratch is a schema in which the mirror is built anew from events, beside the real one, to be compared with it.
type Scratch struct {
	store    *Store
	name     string
	tables   []string
	begun    time.Time // by the database's clock
	holder   *pgx.Conn // its lock says that the schema is in use
	snapshot pgx.Tx    // of the moment that is compared; nil until Freeze
}

// CreateScratch makes a schema with empty copies of these tables of the mirror, and of the customers' states. Those
// that dead runs left behind are removed. Drop it.
func (s *Store) CreateScratch(ctx context.Context, tables []string) (*Scratch, error) {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	c := &Scratch{store: s, name: scratchPrefix + hex.EncodeToString(random), tables: tables}
	var err error
	if c.holder, err = pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig.Copy()); err != nil {
		return nil, fmt.Errorf("connecting: %w", interpret(err))
	}
	if err = c.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("making schema %s: %w", c.name, err), c.Drop(ctx))
	}
	return c, nil
}

// lockScratch holds a scratch schema as long as the session lasts.
const lockScratch = "select pg_try_advisory_lock(hashtextextended('polar:verify:' || $1, 0))"

func (c *Scratch) create(ctx context.Context) error {
	rows, err := c.holder.Query(ctx, `select nspname::text from pg_namespace where nspname ~ '^`+scratchPrefix+`[0-9a-f]{16}$'`)
	if err != nil {
		return interpret(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return interpret(err)
	}
	for _, name := range append(names, c.name) {
		var free bool
		if err := c.holder.QueryRow(ctx, lockScratch, name).Scan(&free); err != nil {
			return interpret(err)
		}
		if !free || name == c.name {
			continue // a living run's
		}
		if _, err := c.holder.Exec(ctx, "drop schema if exists "+pgx.Identifier{name}.Sanitize()+" cascade"); err != nil {
			return interpret(err)
		}
	}
	if err := c.holder.QueryRow(ctx, "select clock_timestamp()").Scan(&c.begun); err != nil {
		return interpret(err)
	}
	err = pgx.BeginFunc(ctx, c.holder, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "create schema "+pgx.Identifier{c.name}.Sanitize()); err != nil {
			return err //nolint:wrapcheck // interpreted below
		}
		for _, table := range append([]string{tableState}, c.tables...) {
			// What is lost with a crash is made again; no index but the key is of use here.
			_, err := tx.Exec(ctx, fmt.Sprintf("create unlogged table %s (like %s including defaults including generated including compression, primary key (%s))",
				c.table(table), pgx.Identifier{Schema, table}.Sanitize(), keyOf(table)))
			if err != nil {
				return err //nolint:wrapcheck // interpreted below
			}
		}
		return nil
	})
	return interpret(err)
}

const tableState = "customer_state"

func keyOf(table string) string {
	if table == tableState {
		return "customer_id"
	}
	return "id"
}

func (c *Scratch) table(name string) string { return pgx.Identifier{c.name, name}.Sanitize() }

// Drop removes the schema and all that is in it, also where ctx is over.
func (c *Scratch) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_ = c.holder.Close(ctx) // ends the snapshot, which holds the tables
	if _, err := c.store.pool.Exec(ctx, "drop schema if exists "+pgx.Identifier{c.name}.Sanitize()+" cascade"); err != nil {
		return fmt.Errorf("dropping schema %s (the next run removes it): %w", c.name, interpret(err))
	}
	return nil
}

// InTx runs do in one transaction that writes the mirror of this schema instead of the real one; after Freeze, within
// the snapshot.
func (c *Scratch) InTx(ctx context.Context, do func(tx *Tx) error) error {
	begin := c.store.pool.Begin
	if c.snapshot != nil {
		begin = c.snapshot.Begin
	}
	tx, err := begin(ctx)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", interpret(err))
	}
	err = do(&Tx{tx: tx, q: c.store.q, parts: c.store.parts, mirror: c.name})
	if err != nil {
		rollbackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(rollbackCtx)
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("committing: %w", interpret(err))
	}
	return nil
}

// longestApply is more than any transaction takes that applies events; applied_at is when it began.
const longestApply = 5 * time.Minute

// tableLate lists the events that ListLateEvents gives.
const tableLate = "late_event"

// Freeze takes the snapshot in which the schemas are compared: from now on all that is read is of this one moment.
// Events that were applied since the schema was made may be missing in it; ListLateEvents gives them.
func (c *Scratch) Freeze(ctx context.Context) error {
	tx, err := c.holder.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return fmt.Errorf("taking a snapshot: %w", interpret(err))
	}
	c.snapshot = tx
	if _, err := tx.Exec(ctx, "create unlogged table "+c.table(tableLate)+" (seq bigint primary key)"); err != nil {
		return fmt.Errorf("taking a snapshot: %w", interpret(err))
	}
	_, err = tx.Exec(ctx, "insert into "+c.table(tableLate)+" select o.seq from polar.event_outcome o where o.state = 'applied' and o.applied_at >= $1",
		c.begun.Add(-longestApply))
	if err != nil {
		return fmt.Errorf("looking for events applied meanwhile: %w", interpret(err))
	}
	return nil
}

// ListAppliedEvents reads the next events after one of them that are applied, in order, a bounded number at a time.
func (c *Scratch) ListAppliedEvents(ctx context.Context, after int64) ([]Event, error) {
	rows, err := c.store.q.EventListApplied(ctx, c.store.pool, dbsqlc.EventListAppliedParams{After: after, MaxRows: replayRows, MaxBytes: replayBytes})
	if err != nil {
		return nil, fmt.Errorf("reading applied events: %w", interpret(err))
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = eventOf(dbsqlc.EventReplayListRow(row))
	}
	return events, nil
}

// ListLateEvents is ListAppliedEvents of what was applied while the schema was being filled, and a little before.
func (c *Scratch) ListLateEvents(ctx context.Context, after int64) ([]Event, error) {
	for {
		late, err := c.snapshot.Query(ctx, "select seq from "+c.table(tableLate)+" where seq > $1 order by seq limit $2", after, replayRows)
		if err != nil {
			return nil, fmt.Errorf("reading events applied meanwhile: %w", interpret(err))
		}
		seqs, err := pgx.CollectRows(late, pgx.RowTo[int64])
		if err != nil || len(seqs) == 0 {
			return nil, interpret(err)
		}
		rows, err := c.store.q.EventListOfSeqs(ctx, c.snapshot, seqs, replayBytes)
		if err != nil {
			return nil, fmt.Errorf("reading events applied meanwhile: %w", interpret(err))
		}
		var events []Event
		for _, row := range rows {
			events = append(events, eventOf(dbsqlc.EventReplayListRow(row)))
		}
		if len(events) > 0 {
			return events, nil
		}
		after = seqs[len(seqs)-1] // an outcome may outlive its event
	}
}

// Kept counts the events that are kept with their bodies, by what became of them.
type Kept struct {
	Applied  int64
	Failed   int64
	Received int64 // not tried yet
	Bodiless int64 // only their ids are kept, whatever became of them
}

// CountKept counts the kept events: of the snapshot, once there is one.
func (c *Scratch) CountKept(ctx context.Context) (Kept, error) {
	var db dbsqlc.DBTX = c.store.pool
	if c.snapshot != nil {
		db = c.snapshot
	}
	row, err := c.store.q.EventCountKept(ctx, db)
	if err != nil {
		return Kept{}, fmt.Errorf("counting events: %w", interpret(err))
	}
	return Kept(row), nil
}

// Comparison is what came of comparing one table with the one rebuilt.
type Comparison struct {
	Table     string
	Equal     int64
	Different int64
	FromReads int64 // not comparable: the newest version came from a read of Polar
	NotKept   int64 // not comparable: the newest version came from an event that is no longer kept
	Lifted    int64 // not comparable: an event deleted it, and a read must have found it alive since
}

// RowDifference is a row that is not what the events make of it.
type RowDifference struct {
	Table  string
	ID     string
	Fields []string // columns that differ; missing, unfounded or outdated where the row as a whole is
}

// Compare compares one table of the mirror with its rebuilt copy, within the snapshot. It gives at most limit of the
// rows that differ.
func (c *Scratch) Compare(ctx context.Context, table string, limit int) (Comparison, []RowDifference, error) {
	comparison := Comparison{Table: table}
	if _, err := c.snapshot.Exec(ctx, "analyze "+c.table(table)); err != nil {
		return comparison, nil, fmt.Errorf("comparing %s: %w", table, interpret(err))
	}
	verdicts := c.verdicts(table)
	rows, err := c.snapshot.Query(ctx, "select verdict, count(*) from ("+verdicts+") v group by verdict")
	if err != nil {
		return comparison, nil, fmt.Errorf("comparing %s: %w", table, interpret(err))
	}
	var verdict string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&verdict, &n}, func() error {
		switch verdict {
		case "equal":
			comparison.Equal = n
		case "from_read":
			comparison.FromReads = n
		case "not_kept":
			comparison.NotKept = n
		case "lifted":
			comparison.Lifted = n
		default:
			comparison.Different += n
		}
		return nil
	})
	if err != nil || comparison.Different == 0 {
		return comparison, nil, interpret(err)
	}
	rows, err = c.snapshot.Query(ctx, `select id::text, case when verdict = 'different' then fields else array[verdict] end
		from (`+verdicts+`) v where verdict not in ('equal', 'from_read', 'not_kept', 'lifted') order by id limit $1`, limit)
	if err != nil {
		return comparison, nil, fmt.Errorf("comparing %s: %w", table, interpret(err))
	}
	differences, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (RowDifference, error) {
		d := RowDifference{Table: table}
		return d, row.Scan(&d.ID, &d.Fields)
	})
	return comparison, differences, interpret(err)
}

// verdicts is the statement that judges each row of a table: here (p) against rebuilt (s).
func (c *Scratch) verdicts(table string) string {
	const kept = "exists (select from polar.event_log l where l.webhook_id = %s.version_webhook_id and l.body is not null)"
	p := pgx.Identifier{Schema, table}.Sanitize()
	if table == tableState {
		// Only events write states.
		return fmt.Sprintf(`
			select coalesce(p.customer_id, s.customer_id) as id, v.fields,
			       case when p.customer_id is null then 'missing'
			            when %[3]s then case when s.customer_id is null then 'unfounded' when v.fields = '{}' then 'equal' else 'different' end
			            when polar.is_newer('event', false, s.version_at, s.version_modified_at, 0, s.version_webhook_id,
			                                'event', false, p.version_at, p.version_modified_at, 0, p.version_webhook_id) then 'outdated'
			            else 'not_kept' end as verdict
			  from %[1]s p
			  full join %[2]s s on s.customer_id = p.customer_id
			  left join polar.forgotten_customer f on f.customer_id = s.customer_id
			  cross join lateral (select array_remove(array[
			           case when p.doc is distinct from s.doc and (f is null or p.doc is distinct from polar.redacted(s.doc)) then 'doc' end,
			           case when p.active_subscriptions is distinct from s.active_subscriptions
			                     and (f is null or p.active_subscriptions is distinct from polar.redacted(s.active_subscriptions)) then 'active_subscriptions' end,
			           case when p.granted_benefits is distinct from s.granted_benefits
			                     and (f is null or p.granted_benefits is distinct from polar.redacted(s.granted_benefits)) then 'granted_benefits' end,
			           case when p.active_meters is distinct from s.active_meters then 'active_meters' end,
			           case when p.version_at is distinct from s.version_at then 'version_at' end,
			           case when p.version_modified_at is distinct from s.version_modified_at then 'version_modified_at' end,
			           case when p.version_webhook_id is distinct from s.version_webhook_id then 'version_webhook_id' end], null) as fields) v`,
			p, c.table(table), fmt.Sprintf(kept, "p"))
	}
	keptRow, base, states := fmt.Sprintf(kept, "p"), "", ""
	if table == "customer" {
		// A customer's row is made of two events: of the newest full document, if there is one, and of the newest state.
		keptRow = "(p.version_webhook_id is null and t.customer_id is not null or " + keptRow + ") and (t.customer_id is null or " + fmt.Sprintf(kept, "t") + ")"
		base = "case when p.base is distinct from s.base and not (polar.is_forgotten('customer', s.doc) and p.base is not distinct from polar.redacted(s.base)) then 'base' end,"
		states = "left join polar.customer_state t on t.customer_id = p.id"
	}
	return fmt.Sprintf(`
		select coalesce(p.id, s.id) as id, v.fields,
		       case when p.id is null then 'missing'
		            when s.tombstone and not p.tombstone and p.version_at > s.version_at
		                 and p.version_webhook_id is distinct from s.version_webhook_id then 'lifted'
		            when p.version_from = 'event' and %[3]s
		                 then case when s.id is null then 'unfounded' when v.fields = '{}' then 'equal' else 'different' end
		            when s.id is not null and polar.is_newer(
		                     s.version_from, s.tombstone, s.version_at, s.version_modified_at, polar.tie_rank('%[4]s', s.doc), s.version_webhook_id,
		                     p.version_from, p.tombstone, p.version_at, p.version_modified_at, polar.tie_rank('%[4]s', p.doc), p.version_webhook_id) then 'outdated'
		            when p.version_from = 'read' then 'from_read'
		            else 'not_kept' end as verdict
		  from %[1]s p
		  full join %[2]s s on s.id = p.id
		  %[6]s
		  cross join lateral (select array_remove(array[
		           -- A customer may have been forgotten while the copy was filled.
		           case when p.doc is distinct from s.doc and p.doc is distinct from polar.stored_doc('%[4]s', s.doc) then 'doc' end, %[5]s
		           -- Without a time of its own, a deletion is dated by the clock.
		           case when p.deleted_at is distinct from s.deleted_at and not (p.tombstone and p.version_at is null) then 'deleted_at' end,
		           case when p.tombstone is distinct from s.tombstone then 'tombstone' end,
		           case when p.version_at is distinct from s.version_at then 'version_at' end,
		           case when p.version_modified_at is distinct from s.version_modified_at then 'version_modified_at' end,
		           case when p.version_from is distinct from s.version_from then 'version_from' end,
		           case when p.version_webhook_id is distinct from s.version_webhook_id then 'version_webhook_id' end], null) as fields) v`,
		p, c.table(table), keptRow, table, base, states)
}
