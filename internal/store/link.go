package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Lock holds the given keys until the transaction ends; everyone takes them in the same order.
func (t *Tx) Lock(ctx context.Context, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	if err := t.q.LockKeys(ctx, t.tx, keys); err != nil {
		return fmt.Errorf("locking %d keys: %w", len(keys), interpret(err))
	}
	return nil
}

// LinkSubject is a mirrored customer that may be linked, with its present link.
type LinkSubject struct {
	CustomerID   uuid.UUID
	ExternalID   string // empty where Polar has none
	Deleted      bool
	LinkedUserID string // empty: not linked
	LinkedBasis  string
}

// ListLinkSubjects reads those of the customers that the mirror has.
func (t *Tx) ListLinkSubjects(ctx context.Context, ids []uuid.UUID) ([]LinkSubject, error) {
	rows, err := t.q.LinkSubjectList(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("reading %d customers to link: %w", len(ids), interpret(err))
	}
	subjects := make([]LinkSubject, len(rows))
	for i, r := range rows {
		subjects[i] = LinkSubject{CustomerID: r.ID, ExternalID: r.ExternalID, Deleted: r.Deleted, LinkedUserID: r.LinkedUserID, LinkedBasis: r.LinkedBasis}
	}
	return subjects, nil
}

// LinkEvidence is a succeeded checkout that truenorth created for a local user.
type LinkEvidence struct {
	CustomerID  uuid.UUID
	CheckoutID  uuid.UUID
	LocalUserID string
	ByCustomer  bool // the session was created with this customer
	NoOlder     bool // the customer is no older than the session
}

// ListLinkEvidence reads the succeeded checkouts of these customers that truenorth created, oldest first.
func (t *Tx) ListLinkEvidence(ctx context.Context, ids []uuid.UUID) ([]LinkEvidence, error) {
	rows, err := t.q.LinkEvidenceList(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the checkouts of %d customers: %w", len(ids), interpret(err))
	}
	evidence := make([]LinkEvidence, len(rows))
	for i, r := range rows {
		evidence[i] = LinkEvidence(r)
	}
	return evidence, nil
}

// ListAliveUsers gives those of the local users that exist and are not deleted.
func (t *Tx) ListAliveUsers(ctx context.Context, ids []string) (map[string]bool, error) {
	rows, err := t.q.LocalUserListAlive(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("looking for %d local users: %w", len(ids), interpret(err))
	}
	alive := make(map[string]bool, len(rows))
	for _, id := range rows {
		alive[id] = true
	}
	return alive, nil
}

// ListLinkedCustomers gives the customers linked to each of the local users.
func (t *Tx) ListLinkedCustomers(ctx context.Context, users []string) (map[string][]uuid.UUID, error) {
	rows, err := t.q.CustomerLinkListByUser(ctx, t.tx, users)
	if err != nil {
		return nil, fmt.Errorf("reading the links of %d local users: %w", len(users), interpret(err))
	}
	linked := make(map[string][]uuid.UUID, len(rows))
	for _, r := range rows {
		linked[r.LocalUserID] = append(linked[r.LocalUserID], r.CustomerID)
	}
	return linked, nil
}

// ListLinkClaimants gives the customers that may claim one of these users.
func (t *Tx) ListLinkClaimants(ctx context.Context, users []string) ([]uuid.UUID, error) {
	ids, err := t.q.LinkClaimantList(ctx, t.tx, users)
	if err != nil {
		return nil, fmt.Errorf("looking for claimants of %d local users: %w", len(users), interpret(err))
	}
	return ids, nil
}

// Link is a customer's link to a local user.
type Link struct {
	CustomerID  uuid.UUID
	LocalUserID string
	Basis       string
	CheckoutID  uuid.UUID // the evidence of basis checkout; zero otherwise
}

// PutLinks makes links, or changes the basis of those there are, and opens their history.
func (t *Tx) PutLinks(ctx context.Context, links []Link, actor string) error {
	var up dbsqlc.CustomerLinkUpsertManyParams
	var opened dbsqlc.CustomerLinkHistoryOpenManyParams
	for _, l := range links {
		up.CustomerIds = append(up.CustomerIds, l.CustomerID)
		up.LocalUserIds = append(up.LocalUserIds, l.LocalUserID)
		up.Bases = append(up.Bases, l.Basis)
		up.CheckoutIds = append(up.CheckoutIds, l.CheckoutID)
	}
	opened.Actor, opened.CustomerIds, opened.LocalUserIds, opened.Bases = actor, up.CustomerIds, up.LocalUserIds, up.Bases
	if err := t.q.CustomerLinkUpsertMany(ctx, t.tx, up); err != nil {
		return fmt.Errorf("writing %d links: %w", len(links), interpret(err))
	}
	if err := t.q.CustomerLinkHistoryOpenMany(ctx, t.tx, opened); err != nil {
		return fmt.Errorf("writing the history of %d links: %w", len(links), interpret(err))
	}
	return nil
}

// EndLinks ends the history of these customers' links, each with its reason; with remove, the links go too.
func (t *Tx) EndLinks(ctx context.Context, ids []uuid.UUID, reasons []string, remove bool) error {
	if err := t.q.CustomerLinkHistoryEndMany(ctx, t.tx, ids, reasons); err != nil {
		return fmt.Errorf("ending the history of %d links: %w", len(ids), interpret(err))
	}
	if !remove {
		return nil
	}
	if err := t.q.CustomerLinkDeleteMany(ctx, t.tx, ids); err != nil {
		return fmt.Errorf("deleting %d links: %w", len(ids), interpret(err))
	}
	return nil
}

// Conflict is a row of link_conflict.
type Conflict struct {
	ID          int64
	CustomerID  uuid.UUID
	LocalUserID string
	Kind        string
	CheckoutID  uuid.UUID // zero where none took part
	Detail      string
	DetectedAt  time.Time
	Open        bool
	Dismissed   bool // a person said that there is nothing in it
}

// ListConflicts reads the conflicts of these customers that count: open ones, and those that a person settled.
func (t *Tx) ListConflicts(ctx context.Context, ids []uuid.UUID) ([]Conflict, error) {
	rows, err := t.q.LinkConflictList(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the conflicts of %d customers: %w", len(ids), interpret(err))
	}
	conflicts := make([]Conflict, len(rows))
	for i, r := range rows {
		conflicts[i] = Conflict{ID: r.ID, CustomerID: r.CustomerID, LocalUserID: r.LocalUserID, Kind: r.Kind, Open: r.Open, Dismissed: r.Dismissed}
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

// ResolveConflicts closes conflicts that are open.
func (t *Tx) ResolveConflicts(ctx context.Context, ids []int64, resolution, by string) error {
	err := t.q.LinkConflictResolveMany(ctx, t.tx, dbsqlc.LinkConflictResolveManyParams{Ids: ids, Resolution: resolution, ResolvedBy: by})
	if err != nil {
		return fmt.Errorf("resolving %d conflicts: %w", len(ids), interpret(err))
	}
	return nil
}

// ListOpenConflicts reads open conflicts, oldest first.
func (s *Store) ListOpenConflicts(ctx context.Context, limit int) ([]Conflict, error) {
	rows, err := s.q.LinkConflictListOpen(ctx, s.pool, int32(min(limit, 1<<20))) //nolint:gosec // bounded here
	if err != nil {
		return nil, fmt.Errorf("reading open conflicts: %w", interpret(err))
	}
	conflicts := make([]Conflict, len(rows))
	for i, r := range rows {
		conflicts[i] = Conflict{ID: r.ID, CustomerID: r.CustomerID, LocalUserID: r.LocalUserID, Kind: r.Kind, Detail: r.Detail, DetectedAt: r.DetectedAt, Open: true}
	}
	return conflicts, nil
}

// GetOpenConflict reads and locks an open conflict. Errors: ErrNotFound.
func (t *Tx) GetOpenConflict(ctx context.Context, id int64) (Conflict, error) {
	r, err := t.q.LinkConflictGetOpen(ctx, t.tx, id)
	if err != nil {
		return Conflict{}, fmt.Errorf("reading open conflict %d: %w", id, interpret(err))
	}
	return Conflict{ID: r.ID, CustomerID: r.CustomerID, LocalUserID: r.LocalUserID, Kind: r.Kind, Detail: r.Detail, DetectedAt: r.DetectedAt, Open: true}, nil
}

// ListWaitingCustomers gives customers without a link for whom evidence names a user who is alive, and free, by now.
func (s *Store) ListWaitingCustomers(ctx context.Context, limit int32) ([]uuid.UUID, error) {
	ids, err := s.q.LinkWaitingList(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("looking for customers whose user has appeared: %w", interpret(err))
	}
	return ids, nil
}

// ListOrphanedLinks gives customers whose linked user is deleted or gone. While there are no users at all it gives
// none: then it is the users mapping that is wrong, not every link.
func (s *Store) ListOrphanedLinks(ctx context.Context, limit int32) ([]uuid.UUID, error) {
	anyUser, err := s.q.LocalUserAny(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("looking for local users: %w", interpret(err))
	}
	if !anyUser {
		return nil, nil
	}
	ids, err := s.q.LinkOrphanList(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("looking for links to users who are gone: %w", interpret(err))
	}
	return ids, nil
}
