package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// Verdict is how a person settles a conflict.
type Verdict struct {
	Link bool // the customer is the local user whom the conflict names; otherwise the claim is dismissed
	Also bool // though the user is linked to another customer; a conflict of kind user_claimed says so by itself
}

// Settled tells what settling a conflict did.
type Settled struct {
	ConflictID  int64   `json:"conflict_id"`
	Resolution  string  `json:"resolution"`              // linked or dismissed
	Linked      *Linked `json:"linked,omitempty"`        // of a link
	NowLinkedTo string  `json:"now_linked_to,omitempty"` // the local user that the customer is linked to after all
}

// ResolveConflict settles an open conflict by a person's word: either it makes the link that the conflict is about,
// ending any other of the customer, or the claim is dismissed. Errors: store.ErrNotFound, ErrSettled, ErrNoUser,
// ErrCustomerDeleted, ErrUserLinked, ErrWord; then nothing is changed.
func ResolveConflict(ctx context.Context, s *store.Store, id int64, verdict Verdict, word store.Word) (settled Settled, err error) {
	deed := word.Deed("resolve_conflict", fmt.Sprintf("conflict %d", id), map[string]any{"link": verdict.Link, "also": verdict.Also})
	err = inPersonsTx(ctx, s, deed, func(tx *store.Tx, l *linker) error {
		c, err := tx.GetConflict(ctx, id)
		if err != nil {
			return err
		}
		facts, subject, err := lockSubject(ctx, tx, c.CustomerID, c.LocalUserID)
		if err != nil {
			return err
		}
		if c, err = tx.GetConflict(ctx, id); err != nil {
			return err
		}
		if !c.Open {
			return fmt.Errorf("%w: %d, on %s by %s: %s", ErrSettled, id, c.ResolvedAt.UTC().Format(time.RFC3339), c.ResolvedBy, c.Resolution)
		}
		settled = Settled{ConflictID: id, Resolution: store.ConflictDismissed}
		if verdict.Link {
			settled.Resolution = store.ConflictLinked
			linked, err := l.give(ctx, tx, facts, subject, orderOf(c, verdict), word)
			if err != nil {
				return err
			}
			settled.Linked, settled.NowLinkedTo = &linked, c.LocalUserID
			return nil // the link settles all open conflicts about the two
		}
		if err := tx.ResolveConflicts(ctx, []int64{id}, store.ConflictDismissed, word); err != nil {
			return err
		}
		settled.NowLinkedTo, err = l.settle(ctx, tx, c.CustomerID, "")
		return err
	})
	return settled, err
}

// orderOf is the link that a conflict is about. Who links by a conflict has seen the customer's present link.
func orderOf(c store.Conflict, verdict Verdict) LinkOrder {
	return LinkOrder{
		CustomerID: c.CustomerID, LocalUserID: c.LocalUserID, Replace: true, Also: verdict.Also || c.Kind == conflictUserClaimed,
	}
}

// ConflictFile is all that a person needs to decide a conflict.
type ConflictFile struct {
	Conflict store.Conflict `json:"conflict"`
	store.LinkFile
	Users       []NamedUser `json:"local_users"` // whom the conflict, the customer or its checkouts name
	IfLinked    []string    `json:"if_linked"`   // what settling it so does, a sentence each; nothing once it is settled
	IfDismissed []string    `json:"if_dismissed"`
}

// NamedUser is a local user with the customers it is linked to.
type NamedUser struct {
	store.FiledUser
	Alive     bool        `json:"alive"`
	Customers []uuid.UUID `json:"customers"`
}

// ReadConflict reads a conflict with all that bears on it, and says what settling it either way would do. Errors:
// store.ErrNotFound.
func ReadConflict(ctx context.Context, s *store.Store, id int64) (file ConflictFile, err error) {
	err = s.InTx(ctx, func(tx *store.Tx) error {
		if file.Conflict, err = tx.GetConflict(ctx, id); err != nil {
			return err
		}
		c := file.Conflict
		if file.LinkFile, err = tx.ReadLinkFile(ctx, c.CustomerID); err != nil {
			return err
		}
		file.Conflicts = slices.DeleteFunc(file.Conflicts, func(other store.Conflict) bool { return other.ID == id })
		unlocked := func(context.Context, []string) error { return nil } // a look only
		facts, err := gatherLinkFacts(ctx, tx, unlocked, []uuid.UUID{c.CustomerID}, c.LocalUserID)
		if err != nil {
			return err
		}
		if file.Users, err = namedUsers(ctx, tx, file); err != nil || !c.Open || len(facts.subjects) == 0 {
			return err
		}
		subject := facts.subjects[0]
		linked, err := facts.foresee(ctx, tx, subject, c.LocalUserID)
		file.IfLinked = linked.sentences(c)
		if errors.Is(err, ErrNoUser) || errors.Is(err, ErrCustomerDeleted) {
			file.IfLinked, err = []string{"refused: " + err.Error()}, nil
		}
		file.IfDismissed = facts.ifDismissed(subject, c)
		return err
	})
	return file, err
}

func namedUsers(ctx context.Context, tx *store.Tx, file ConflictFile) ([]NamedUser, error) {
	ids := []string{file.Conflict.LocalUserID, file.Customer.ExternalID, file.Customer.LinkedUserID}
	for _, k := range file.Checkouts {
		ids = append(ids, k.LocalUserID)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	filed, err := tx.ListFiledUsers(ctx, ids)
	if err != nil {
		return nil, err
	}
	linked, err := tx.ListLinkedCustomers(ctx, ids)
	if err != nil {
		return nil, err
	}
	users := make([]NamedUser, len(filed))
	for i, u := range filed {
		users[i] = NamedUser{FiledUser: u, Alive: u.Known && u.DeletedAt == nil, Customers: append([]uuid.UUID{}, linked[u.ID]...)}
	}
	return users, nil
}

// sentences says what a link by a person's word does.
func (l Linked) sentences(c store.Conflict) []string {
	said := []string{fmt.Sprintf("the customer is linked to %q by your word, whatever is heard of it from then on", l.LocalUserID)}
	if l.ReplacedUserID != "" {
		said = append(said, fmt.Sprintf("its link to %q ends, and stays ended", l.ReplacedUserID))
	}
	if len(l.OtherCustomerIDs) > 0 {
		also := ""
		if c.Kind != conflictUserClaimed {
			also = " (refused without --also)"
		}
		said = append(said, fmt.Sprintf("%q keeps %s too%s", l.LocalUserID, joinedIDs(l.OtherCustomerIDs), also))
	}
	switch l.ExternalID {
	case ExternalIDQueued:
		said = append(said, fmt.Sprintf("%q is written to Polar as the customer's external id, for good", l.LocalUserID))
	case ExternalIDBorne:
		said = append(said, "at Polar the customer bears this user's id already")
	case ExternalIDOther:
		said = append(said, "at Polar the customer keeps the external id it bears, which can never be changed")
	case ExternalIDTaken:
		said = append(said, "nothing is written to Polar: another customer bears this user's id")
	}
	return said
}

// ifDismissed says what dismissing a conflict does, by the rule itself.
func (f *linkFacts) ifDismissed(s store.LinkSubject, c store.Conflict) (said []string) {
	then := *f
	conflicts := slices.Clone(f.conflicts[s.CustomerID])
	for i := range conflicts {
		if conflicts[i].ID == c.ID {
			conflicts[i].Open, conflicts[i].Dismissed = false, true
		}
	}
	then.conflicts = map[uuid.UUID][]store.Conflict{s.CustomerID: conflicts}
	switch d := then.decide(s); {
	case d.link != nil && s.LinkedUserID != d.link.LocalUserID:
		said = append(said, fmt.Sprintf("the customer is linked to %q instead, by its own evidence (%s)", d.link.LocalUserID, d.link.Basis))
	case d.end != "":
		said = append(said, fmt.Sprintf("the customer's link to %q ends (%s)", s.LinkedUserID, d.end))
	case s.LinkedUserID != "":
		said = append(said, fmt.Sprintf("the customer stays linked to %q", s.LinkedUserID))
	default:
		said = append(said, "the customer stays unlinked")
	}
	switch c.Kind {
	case conflictEmailMatch:
		said = append(said, fmt.Sprintf("what was bought in %q's own checkout is theirs all the same, through the request", c.LocalUserID),
			fmt.Sprintf("checkouts that %q pays with this customer's e-mail address are not reported again", c.LocalUserID))
	case conflictExternalIDTaken:
		said = append(said, "nothing is written to Polar")
	default:
		said = append(said, fmt.Sprintf("no evidence links the customer to %q again, until a person does", c.LocalUserID))
	}
	return said
}

func joinedIDs(ids []uuid.UUID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, ", ")
}
