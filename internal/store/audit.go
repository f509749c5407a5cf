package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Doors through which people come.
const (
	DoorConsole     = "console"
	DoorCommandLine = "command line"
)

// Deed is what a person did.
type Deed struct {
	Actor   string         // the name that the person gave
	Door    string         // one of the Door… constants; empty: the command line
	Action  string         // such as resolve_drift
	Subject string         // such as drift 12
	Reason  string         // in the person's words; may be empty
	Detail  map[string]any // what else is to be known; nothing personal
}

// Deed is what a person's word does.
func (w Word) Deed(action, subject string, detail map[string]any) Deed {
	return Deed{Actor: w.Actor, Door: w.Door, Action: action, Subject: subject, Reason: w.Reason, Detail: detail}
}

// AuditedDeed is a row of audit.
type AuditedDeed struct {
	ID      int64
	At      time.Time
	Actor   string
	Door    string
	Action  string
	Subject string
	Reason  string
	Detail  json.RawMessage
}

// Audit notes a deed in the transaction that does it. Errors: ErrOlderSchema, for what nobody notes is not done.
func (t *Tx) Audit(ctx context.Context, deed Deed) error { return audit(ctx, t.q, t.tx, deed) }

// Audit notes a deed that is done elsewhere, before it is done. Errors: ErrOlderSchema.
func (s *Store) Audit(ctx context.Context, deed Deed) error { return audit(ctx, s.q, s.pool, deed) }

func audit(ctx context.Context, q *dbsqlc.Queries, db dbsqlc.DBTX, deed Deed) error {
	detail := []byte("{}")
	if len(deed.Detail) > 0 {
		var err error
		if detail, err = json.Marshal(deed.Detail); err != nil {
			return fmt.Errorf("noting %s of %s: %w", deed.Action, deed.Subject, err)
		}
	}
	err := q.AuditInsert(ctx, db, dbsqlc.AuditInsertParams{
		Actor: storableText(deed.Actor), Door: cmp.Or(deed.Door, DoorCommandLine), Action: deed.Action, Subject: storableText(deed.Subject),
		Reason: storableText(deed.Reason), Detail: detail,
	})
	if err != nil {
		return fmt.Errorf("noting %s of %s: %w", deed.Action, deed.Subject, interpret(err))
	}
	return nil
}

// ListAudit reads a page of what people did, newest first; after is the id of the row before.
func (s *Store) ListAudit(ctx context.Context, after int64, limit int) ([]AuditedDeed, error) {
	deeds, err := each(func(r dbsqlc.AuditPageRow) AuditedDeed { return AuditedDeed(r) })(s.q.AuditPage(ctx, s.pool, before(after), rowLimit(limit)))
	if err != nil {
		return nil, fmt.Errorf("reading what people did: %w", interpret(err))
	}
	return deeds, nil
}

// ListAuditOf reads what people did to any of the subjects, newest first.
func (s *Store) ListAuditOf(ctx context.Context, limit int, subjects ...string) ([]AuditedDeed, error) {
	return listAuditOf(ctx, s.q, s.pool, s.parts, limit, subjects)
}

func listAuditOf(ctx context.Context, q *dbsqlc.Queries, db dbsqlc.DBTX, parts *parts, limit int, subjects []string) ([]AuditedDeed, error) {
	if there, err := parts.audit.isThere(ctx, db); err != nil || !there {
		return nil, err // where nothing could be noted, nothing was
	}
	deeds, err := each(func(r dbsqlc.AuditListOfRow) AuditedDeed { return AuditedDeed(r) })(q.AuditListOf(ctx, db, subjects, rowLimit(limit)))
	if err != nil {
		return nil, fmt.Errorf("reading what people did to %v: %w", subjects, interpret(err))
	}
	return deeds, nil
}
