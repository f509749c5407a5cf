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
	LinkedBy     uuid.UUID // the checkout that is the evidence of basis checkout; zero otherwise
}

// ListLinkSubjects reads those of the customers that the mirror has.
func (t *Tx) ListLinkSubjects(ctx context.Context, ids []uuid.UUID) ([]LinkSubject, error) {
	rows, err := t.q.LinkSubjectList(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("reading %d customers to link: %w", len(ids), interpret(err))
	}
	subjects := make([]LinkSubject, len(rows))
	for i, r := range rows {
		subjects[i] = LinkSubject{CustomerID: r.ID, ExternalID: r.ExternalID, Deleted: r.Deleted, LinkedUserID: r.LinkedUserID, LinkedBasis: r.LinkedBasis, LinkedBy: r.LinkedCheckoutID}
	}
	return subjects, nil
}

// LinkEvidence is a succeeded checkout that truenorth created for a local user.
type LinkEvidence struct {
	CustomerID  uuid.UUID
	CheckoutID  uuid.UUID
	LocalUserID string
	Proves      bool // that the two are one; otherwise an e-mail address that somebody typed led to the customer
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

// ListBearers gives the living customers of the mirror that bear an external id, compared exactly.
func (t *Tx) ListBearers(ctx context.Context, externalID string) ([]uuid.UUID, error) {
	ids, err := t.q.CustomerListByExternalID(ctx, t.tx, &externalID)
	if err != nil {
		return nil, fmt.Errorf("looking for the customers that bear an external id: %w", interpret(err))
	}
	return ids, nil
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

// Word says who decides, and why: what the history keeps of a decision.
type Word struct {
	Actor  string // truenorth, or a person
	Reason string // in the person's words; empty where the evidence says it
	Door   string // through which the person came; empty: the command line
}

// PutLinks makes links, or changes the basis of those there are, and opens their history.
func (t *Tx) PutLinks(ctx context.Context, links []Link, word Word) error {
	var up dbsqlc.CustomerLinkUpsertManyParams
	var opened dbsqlc.CustomerLinkHistoryOpenManyParams
	for _, l := range links {
		up.CustomerIds = append(up.CustomerIds, l.CustomerID)
		up.LocalUserIds = append(up.LocalUserIds, l.LocalUserID)
		up.Bases = append(up.Bases, l.Basis)
		up.CheckoutIds = append(up.CheckoutIds, l.CheckoutID)
	}
	opened.CustomerIds, opened.LocalUserIds, opened.Bases = up.CustomerIds, up.LocalUserIds, up.Bases
	opened.Actor, opened.Note = word.Actor, storableText(word.Reason)
	if err := t.q.CustomerLinkUpsertMany(ctx, t.tx, up); err != nil {
		return fmt.Errorf("writing %d links: %w", len(links), interpret(err))
	}
	if err := t.q.CustomerLinkHistoryOpenMany(ctx, t.tx, opened); err != nil {
		return fmt.Errorf("writing the history of %d links: %w", len(links), interpret(err))
	}
	return nil
}

// EndLinks ends the history of these customers' links, each for its reason; with remove, the links go too.
func (t *Tx) EndLinks(ctx context.Context, ids []uuid.UUID, reasons []string, word Word, remove bool) error {
	err := t.q.CustomerLinkHistoryEndMany(ctx, t.tx, dbsqlc.CustomerLinkHistoryEndManyParams{
		CustomerIds: ids, Reasons: reasons, EndedBy: word.Actor, EndNote: storableText(word.Reason),
	})
	if err != nil {
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

// PutWaiting has the list of the unlinked hold the first of these customers, and the others not. Where there is no list yet,
// HealWaiting makes good for it.
func (t *Tx) PutWaiting(ctx context.Context, come, gone []uuid.UUID) error {
	if len(come) == 0 && len(gone) == 0 {
		return nil
	}
	if there, err := t.parts.waiting.isThere(ctx, t.tx); err != nil || !there {
		return err
	}
	if err := t.q.LinkWaitingPut(ctx, t.tx, come, gone); err != nil {
		return fmt.Errorf("listing %d customers as unlinked: %w", len(come), interpret(err))
	}
	return nil
}

// HealWaiting lists the customers who are linked to nobody and were never listed, as workers of an older release, which know of no
// list, may have left them. It says whether there is a list yet.
func (s *Store) HealWaiting(ctx context.Context) (there bool, err error) {
	if there, err = s.parts.waiting.isThere(ctx, s.pool); err != nil || !there {
		return there, err
	}
	if _, err := s.q.LinkWaitingHeal(ctx, s.pool); err != nil {
		return there, fmt.Errorf("listing unlinked customers: %w", interpret(err))
	}
	return there, nil
}

// ListWaitingCustomers gives customers for whom evidence names a user who is alive, or free, by now, and of whom that
// was not considered yet.
func (s *Store) ListWaitingCustomers(ctx context.Context, limit int32) (ids []uuid.UUID, err error) {
	if ids, err = s.q.LinkWaitingList(ctx, s.pool, limit); err != nil {
		return nil, fmt.Errorf("looking for customers whose user has appeared: %w", interpret(err))
	}
	return ids, nil
}

// RelinkDue tells whether it is time to look for such customers and for orphaned links again: always where that is quick,
// else once it is times as long ago as it took, and at the latest after atMost.
func (s *Store) RelinkDue(ctx context.Context, times int32, atMost time.Duration) (bool, error) {
	due, err := s.q.RelinkDue(ctx, s.pool, times, atMost)
	if err != nil {
		return false, fmt.Errorf("asking when links were last looked for: %w", interpret(err))
	}
	return due, nil
}

// RelinkDone notes that this was just done, and how long it took.
func (s *Store) RelinkDone(ctx context.Context, took time.Duration) error {
	if err := s.q.RelinkDone(ctx, s.pool, took); err != nil {
		return fmt.Errorf("noting that links were looked for: %w", interpret(err))
	}
	return nil
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
