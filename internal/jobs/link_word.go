package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// Why a person's word about a link is not taken. Who asked may branch on them; the errors around them name the ids.
var (
	ErrNoUser          = errors.New("no such local user")
	ErrNoCustomer      = errors.New("no such customer in the mirror")
	ErrCustomerDeleted = errors.New("the customer is deleted at Polar")
	ErrCustomerLinked  = errors.New("the customer is linked to another local user")
	ErrUserLinked      = errors.New("the local user is linked to another customer")
	ErrNotLinked       = errors.New("the customer is not linked")
	ErrSettled         = errors.New("the conflict is settled already")
	ErrWord            = errors.New("who decides and why must be said")
)

// What becomes of the local user's id at Polar when a person links.
const (
	ExternalIDQueued = "queued" // it will be written, as the customer bears none
	ExternalIDBorne  = "borne"  // the customer bears it
	ExternalIDOther  = "other"  // the customer bears another one, which Polar never changes
	ExternalIDTaken  = "taken"  // the customer bears none, but another customer bears this one
)

// LinkOrder is a person's word that a customer is a local user.
type LinkOrder struct {
	CustomerID  uuid.UUID
	LocalUserID string
	Also        bool // though the user is linked to other customers: it keeps them
	Replace     bool // though the customer is linked to another user: that link ends
}

// Linked tells what a person's word that a customer is a local user did.
type Linked struct {
	CustomerID       uuid.UUID   `json:"customer_id"`
	LocalUserID      string      `json:"local_user_id"`
	Changed          bool        `json:"changed"`                          // false: a person had linked the two before
	ReplacedUserID   string      `json:"replaced_local_user_id,omitempty"` // whose link ended
	OtherCustomerIDs []uuid.UUID `json:"other_customer_ids,omitempty"`     // that the user has besides
	ExternalID       string      `json:"external_id"`                      // queued, borne, other or taken
	SettledConflicts []int64     `json:"settled_conflicts,omitempty"`
}

// LinkCustomer links a customer to a local user by a person's word. Errors: ErrNoCustomer, ErrCustomerDeleted,
// ErrNoUser, ErrUserLinked, ErrCustomerLinked, ErrWord; then nothing is changed.
func LinkCustomer(ctx context.Context, s *store.Store, order LinkOrder, word store.Word) (linked Linked, err error) {
	deed := word.Deed("link", customerSubject(order.CustomerID), map[string]any{"local_user_id": order.LocalUserID, "also": order.Also, "replace": order.Replace})
	err = inPersonsTx(ctx, s, deed, func(tx *store.Tx, l *linker) error {
		facts, subject, err := lockSubject(ctx, tx, order.CustomerID, order.LocalUserID)
		if err != nil {
			return err
		}
		linked, err = l.give(ctx, tx, facts, subject, order, word)
		return err
	})
	return linked, err
}

// Unlinked tells what a person's word that a customer is not its local user did.
type Unlinked struct {
	CustomerID       uuid.UUID `json:"customer_id"`
	LocalUserID      string    `json:"local_user_id"` // whose link ended
	Basis            string    `json:"basis"`         // it had
	SettledConflicts []int64   `json:"settled_conflicts,omitempty"`
	NowLinkedTo      string    `json:"now_linked_to,omitempty"` // another user whom evidence names too

	OtherCustomerIDs []uuid.UUID `json:"other_customer_ids,omitempty"` // that the user has now, some perhaps since it was free
}

// UnlinkCustomer ends a customer's link by a person's word, for good: the same evidence does not make it again.
// Errors: ErrNoCustomer, ErrNotLinked, ErrWord; then nothing is changed.
func UnlinkCustomer(ctx context.Context, s *store.Store, customer uuid.UUID, word store.Word) (unlinked Unlinked, err error) {
	err = inPersonsTx(ctx, s, word.Deed("unlink", customerSubject(customer), nil), func(tx *store.Tx, l *linker) error {
		facts, subject, err := lockSubject(ctx, tx, customer)
		if err != nil {
			return err
		}
		if subject.LinkedUserID == "" {
			return fmt.Errorf("%w: %s", ErrNotLinked, customer)
		}
		unlinked = Unlinked{CustomerID: customer, LocalUserID: subject.LinkedUserID, Basis: subject.LinkedBasis}
		if err := facts.endByWord(ctx, tx, subject, endUnlinked, word); err != nil {
			return err
		}
		unlinked.SettledConflicts = facts.openAbout(customer, subject.LinkedUserID)
		if err := tx.ResolveConflicts(ctx, unlinked.SettledConflicts, store.ConflictDismissed, word); err != nil {
			return err
		}
		if unlinked.NowLinkedTo, err = l.settle(ctx, tx, customer, subject.LinkedUserID); err != nil {
			return err
		}
		linked, err := tx.ListLinkedCustomers(ctx, []string{subject.LinkedUserID})
		unlinked.OtherCustomerIDs = linked[subject.LinkedUserID]
		return err
	})
	return unlinked, err
}

func customerSubject(id uuid.UUID) string { return "customer " + id.String() }

// CheckWord says what a person left out. Errors: ErrWord.
func CheckWord(word store.Word) error {
	switch {
	case strings.TrimSpace(word.Reason) == "":
		return fmt.Errorf("%w: give a reason, which stands in the history", ErrWord)
	case strings.TrimSpace(word.Actor) == "":
		return fmt.Errorf("%w: give the name of who decides", ErrWord)
	case strings.TrimSpace(word.Actor) == itself:
		return fmt.Errorf("%w: %s is the machine's own name, give a person's", ErrWord, itself)
	}
	return nil
}

// inPersonsTx runs what a person decides in one transaction, and notes it there; again where another one came in its way.
func inPersonsTx(ctx context.Context, s *store.Store, deed store.Deed, do func(*store.Tx, *linker) error) error {
	if err := CheckWord(store.Word{Actor: deed.Actor, Reason: deed.Reason}); err != nil {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	client, err := river.NewClient(riverpgxv5.New(nil), &river.Config{Schema: store.Schema, Logger: logger})
	if err != nil {
		return fmt.Errorf("configuring River: %w", err)
	}
	const patience = 9 * time.Second // a person waits; the pages they ask by give up after ten
	for started := time.Now(); ; {
		began := false
		err := s.InTx(ctx, func(tx *store.Tx) error {
			began = true
			if err := do(tx, &linker{client: client, logger: logger}); err != nil {
				return err
			}
			return tx.Audit(ctx, deed)
		})
		inTheWay := errors.Is(err, store.ErrUnavailable) || errors.Is(err, errMoved)
		if !began || !inTheWay || time.Since(started) > patience {
			return err
		}
		// At different times, so that two who got in each other's way do not do so again.
		select {
		case <-time.After(rand.N(50 * time.Millisecond)): //nolint:gosec // jitter
		case <-ctx.Done():
			return err
		}
	}
}

// lockSubject gathers, under the locks of linking, the facts about one customer and further users. It locks whoever may
// claim the user that the customer is linked to as well: all customers in one go and before any user, as everyone does.
// Errors: ErrNoCustomer; errMoved.
func lockSubject(ctx context.Context, tx *store.Tx, customer uuid.UUID, users ...string) (*linkFacts, store.LinkSubject, error) {
	none := func(err error) (*linkFacts, store.LinkSubject, error) { return nil, store.LinkSubject{}, err }
	glimpsed, err := tx.ListLinkSubjects(ctx, []uuid.UUID{customer})
	if err != nil {
		return none(err)
	}
	if len(glimpsed) == 0 {
		return none(fmt.Errorf("%w: %s; check the id, or wait for its event", ErrNoCustomer, customer))
	}
	customers := []uuid.UUID{customer}
	if linked := glimpsed[0].LinkedUserID; linked != "" {
		claimants, err := tx.ListLinkClaimants(ctx, []string{linked})
		if err != nil {
			return none(err)
		}
		customers = distinct(append(customers, claimants...))
	}
	facts, err := lockLinkFacts(ctx, tx, customers, users...)
	if err != nil {
		return none(err)
	}
	at := slices.IndexFunc(facts.subjects, func(s store.LinkSubject) bool { return s.CustomerID == customer })
	if at < 0 || facts.subjects[at].LinkedUserID != glimpsed[0].LinkedUserID {
		return none(errMoved)
	}
	return facts, facts.subjects[at], nil
}

// errMoved is why a person's decision begins anew: the customer's link was changed before it was locked.
var errMoved = errors.New("the customer's link is being changed")

// foresee tells what linking a customer to a local user by a person's word does. Errors: ErrCustomerDeleted, ErrNoUser.
func (f *linkFacts) foresee(ctx context.Context, tx *store.Tx, s store.LinkSubject, user string) (Linked, error) {
	linked := Linked{CustomerID: s.CustomerID, LocalUserID: user}
	switch {
	case s.Deleted:
		return linked, fmt.Errorf("%w: %s; link the customer that took its place, if there is one", ErrCustomerDeleted, s.CustomerID)
	case !f.alive[user]:
		return linked, fmt.Errorf("%w: %q does not exist in polar.local_user, or is deleted", ErrNoUser, user)
	}
	linked.Changed = s.LinkedUserID != user || s.LinkedBasis != basisManual
	if s.LinkedUserID != user {
		linked.ReplacedUserID = s.LinkedUserID
	}
	for _, other := range f.linked[user] {
		if other != s.CustomerID {
			linked.OtherCustomerIDs = append(linked.OtherCustomerIDs, other)
		}
	}
	switch s.ExternalID {
	case "":
		bearers, err := tx.ListBearers(ctx, user)
		if err != nil {
			return linked, err
		}
		linked.ExternalID = ExternalIDQueued
		if len(bearers) > 0 {
			linked.ExternalID = ExternalIDTaken
		}
	case user:
		linked.ExternalID = ExternalIDBorne
	default:
		linked.ExternalID = ExternalIDOther
	}
	linked.SettledConflicts = f.openAbout(s.CustomerID, user)
	return linked, nil
}

// give links a customer to a local user by a person's word.
func (l *linker) give(ctx context.Context, tx *store.Tx, f *linkFacts, s store.LinkSubject, order LinkOrder, word store.Word) (Linked, error) {
	user := order.LocalUserID
	linked, err := f.foresee(ctx, tx, s, user)
	switch {
	case err != nil:
		return linked, err
	case linked.ReplacedUserID != "" && !order.Replace:
		return linked, fmt.Errorf("%w: %s is linked to %q (%s)", ErrCustomerLinked, s.CustomerID, s.LinkedUserID, s.LinkedBasis)
	case s.LinkedUserID != user && len(linked.OtherCustomerIDs) > 0 && !order.Also:
		return linked, fmt.Errorf("%w: %q is linked to %s", ErrUserLinked, user, linked.OtherCustomerIDs[0])
	}

	if linked.Changed {
		if err := f.put(ctx, tx, s, user, word); err != nil {
			return linked, err
		}
	}
	if err := tx.LiftDismissals(ctx, s.CustomerID, user); err != nil {
		return linked, err
	}
	if err := tx.ResolveConflicts(ctx, linked.SettledConflicts, store.ConflictLinked, word); err != nil {
		return linked, err
	}
	// The person has weighed what Polar refused of another user; the rule does the same with the other claims.
	var refused []int64
	for _, c := range f.conflicts[s.CustomerID] {
		if c.Open && c.Kind == conflictExternalIDTaken && c.LocalUserID != user {
			refused = append(refused, c.ID)
		}
	}
	if err := tx.ResolveConflicts(ctx, refused, store.ConflictObsolete, byItself); err != nil {
		return linked, err
	}
	if linked.ExternalID == ExternalIDQueued {
		if _, err := l.client.InsertTx(ctx, tx.Pgx(), vouchedExternalIDArgs{CustomerID: s.CustomerID}, nil); err != nil {
			return linked, fmt.Errorf("enqueueing the external id: %w", store.Interpret(err))
		}
	}
	_, err = l.settle(ctx, tx, s.CustomerID, linked.ReplacedUserID)
	return linked, err
}

// put writes a person's link in the place of the one that the customer has, if any.
func (f *linkFacts) put(ctx context.Context, tx *store.Tx, s store.LinkSubject, user string, word store.Word) error {
	var err error
	switch s.LinkedUserID {
	case "":
	case user:
		err = tx.EndLinks(ctx, []uuid.UUID{s.CustomerID}, []string{endBasisChanged}, word, false)
	default:
		err = f.endByWord(ctx, tx, s, endReplaced, word)
	}
	if err != nil {
		return err
	}
	return tx.PutLinks(ctx, []store.Link{{CustomerID: s.CustomerID, LocalUserID: user, Basis: basisManual}}, word)
}

// endByWord ends the link of a customer by a person's word, and records that it stays ended.
func (f *linkFacts) endByWord(ctx context.Context, tx *store.Tx, s store.LinkSubject, reason string, word store.Word) error {
	if err := tx.EndLinks(ctx, []uuid.UUID{s.CustomerID}, []string{reason}, word, true); err != nil {
		return err
	}
	// Any checkout between the two was there for the person to see, also one that proves nothing yet.
	weighed := s.LinkedBy
	for _, e := range f.evidence[s.CustomerID] {
		if e.LocalUserID == s.LinkedUserID {
			weighed = e.CheckoutID
		}
	}
	return tx.InsertUnlinked(ctx, store.Conflict{
		CustomerID: s.CustomerID, LocalUserID: s.LinkedUserID, CheckoutID: weighed,
		Detail: "a person ended the link, which was of basis " + s.LinkedBasis,
	}, word)
}

// openAbout lists the open conflicts about a customer and a local user.
func (f *linkFacts) openAbout(customer uuid.UUID, user string) (ids []int64) {
	for _, c := range f.conflicts[customer] {
		if c.Open && c.LocalUserID == user {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// settle lets the rule follow a person's word: about the customer, and about those that claim the user who is free by
// now, if any. It returns the local user that the customer is linked to in the end.
func (l *linker) settle(ctx context.Context, tx *store.Tx, customer uuid.UUID, freed string) (linkedTo string, err error) {
	customers := []uuid.UUID{customer}
	if freed != "" {
		claimants, err := tx.ListLinkClaimants(ctx, []string{freed})
		if err != nil {
			return "", err
		}
		customers = slices.Concat(customers, claimants)
	}
	if err := l.link(ctx, tx, customers); err != nil {
		return "", err
	}
	subjects, err := tx.ListLinkSubjects(ctx, []uuid.UUID{customer})
	if err != nil || len(subjects) == 0 {
		return "", err
	}
	return subjects[0].LinkedUserID, nil
}
