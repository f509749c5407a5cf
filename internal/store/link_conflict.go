package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Conflict is a row of link_conflict.
type Conflict struct {
	ID          int64     `json:"id"`
	CustomerID  uuid.UUID `json:"customer_id"`
	LocalUserID string    `json:"local_user_id"`
	Kind        string    `json:"kind"`
	CheckoutID  uuid.UUID `json:"checkout_id,omitzero"` // zero where none took part
	Detail      string    `json:"detail"`
	DetectedAt  time.Time `json:"detected_at"`
	Open        bool      `json:"open"`
	Dismissed   bool      `json:"-"` // a person said that there is nothing in it, and no person has said otherwise since

	// How it was resolved; nothing while it is open.
	ResolvedAt *time.Time `json:"resolved_at,omitempty"`
	Resolution string     `json:"resolution,omitempty"`
	ResolvedBy string     `json:"resolved_by,omitempty"`
	Note       string     `json:"note,omitempty"`      // in the person's words
	LiftedAt   *time.Time `json:"lifted_at,omitempty"` // when a person linked the two after all
}

func conflictOf(r dbsqlc.LinkConflictGetRow) Conflict {
	return Conflict{
		ID: r.ID, CustomerID: r.CustomerID, LocalUserID: r.LocalUserID, Kind: r.Kind, CheckoutID: r.CheckoutID, Detail: r.Detail,
		DetectedAt: r.DetectedAt, Open: r.ResolvedAt == nil, Dismissed: r.Resolution == ConflictDismissed && r.LiftedAt == nil,
		ResolvedAt: r.ResolvedAt, Resolution: r.Resolution, ResolvedBy: r.ResolvedBy, Note: r.Note, LiftedAt: r.LiftedAt,
	}
}

// How a conflict is resolved.
const (
	ConflictLinked    = "linked"
	ConflictDismissed = "dismissed" // by a person only: the claim is not followed
	ConflictObsolete  = "obsolete"  // its cause is gone
)

// ListConflicts reads the conflicts of these customers that count: open ones, and those that a person has dismissed.
func (t *Tx) ListConflicts(ctx context.Context, ids []uuid.UUID) ([]Conflict, error) {
	rows, err := t.q.LinkConflictList(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the conflicts of %d customers: %w", len(ids), interpret(err))
	}
	conflicts := make([]Conflict, len(rows))
	for i, r := range rows {
		conflicts[i] = Conflict{
			ID: r.ID, CustomerID: r.CustomerID, LocalUserID: r.LocalUserID, Kind: r.Kind, CheckoutID: r.CheckoutID, Open: r.Open, Dismissed: !r.Open,
		}
	}
	return conflicts, nil
}

// InsertConflicts records conflicts; one that is open already stays as it is.
func (t *Tx) InsertConflicts(ctx context.Context, conflicts []Conflict) error {
	var params dbsqlc.LinkConflictInsertManyParams
	for _, c := range conflicts {
		params.CustomerIds = append(params.CustomerIds, c.CustomerID)
		params.LocalUserIds = append(params.LocalUserIds, c.LocalUserID)
		params.Kinds = append(params.Kinds, c.Kind)
		params.CheckoutIds = append(params.CheckoutIds, c.CheckoutID)
		params.Details = append(params.Details, storableText(c.Detail))
	}
	if err := t.q.LinkConflictInsertMany(ctx, t.tx, params); err != nil {
		return fmt.Errorf("recording %d conflicts: %w", len(conflicts), interpret(err))
	}
	return nil
}

// InsertUnlinked records that a person ended the link between the conflict's two, so that it stays ended.
func (t *Tx) InsertUnlinked(ctx context.Context, c Conflict, word Word) error {
	err := t.q.LinkConflictInsertUnlinked(ctx, t.tx, dbsqlc.LinkConflictInsertUnlinkedParams{
		CustomerID: c.CustomerID, LocalUserID: c.LocalUserID, CheckoutID: c.CheckoutID, Detail: c.Detail,
		ResolvedBy: word.Actor, Note: storableText(word.Reason),
	})
	if err != nil {
		return fmt.Errorf("recording that customer %s was unlinked: %w", c.CustomerID, interpret(err))
	}
	return nil
}

// LiftDismissals takes back what people said against a customer's being a local user.
func (t *Tx) LiftDismissals(ctx context.Context, customer uuid.UUID, user string) error {
	if err := t.q.LinkConflictLift(ctx, t.tx, customer, user); err != nil {
		return fmt.Errorf("lifting what was dismissed of customer %s: %w", customer, interpret(err))
	}
	return nil
}

// ResolveConflicts closes conflicts that are open.
func (t *Tx) ResolveConflicts(ctx context.Context, ids []int64, resolution string, word Word) error {
	err := t.q.LinkConflictResolveMany(ctx, t.tx, dbsqlc.LinkConflictResolveManyParams{
		Ids: ids, Resolution: resolution, ResolvedBy: word.Actor, Note: storableText(word.Reason),
	})
	if err != nil {
		return fmt.Errorf("resolving %d conflicts: %w", len(ids), interpret(err))
	}
	return nil
}

// GetConflict reads a conflict, open or not. Errors: ErrNotFound.
func (t *Tx) GetConflict(ctx context.Context, id int64) (Conflict, error) {
	r, err := t.q.LinkConflictGet(ctx, t.tx, id)
	if err != nil {
		return Conflict{}, fmt.Errorf("reading conflict %d: %w", id, interpret(err))
	}
	return conflictOf(r), nil
}

func rowLimit(limit int) int32 { return int32(min(max(limit, 0), 1<<20)) }
