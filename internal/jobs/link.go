package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// What a link stands on, strongest first after a person's word.
const (
	basisManual     = "manual"
	basisCheckout   = "checkout"
	basisExternalID = "external_id"
)

// Kinds of link_conflict.
const (
	conflictEmailMatch        = "email_match"
	conflictEvidenceDisagrees = "evidence_disagrees"
	conflictUserClaimed       = "user_claimed"
	conflictExternalIDTaken   = "external_id_taken"
)

// itself is who acts where no person does.
const itself = "truenorth"

// linkCustomers brings the links of these customers to what the mirror, the requests and the local users say.
func (r *Runner) linkCustomers(ctx context.Context, tx *store.Tx, customers []uuid.UUID) error {
	// A link that ends may let another customer's claim through, which ends no link: two rounds are enough.
	for range 2 {
		freed, err := r.linkRound(ctx, tx, distinct(customers))
		if err != nil || len(freed) == 0 {
			return err
		}
		if customers, err = tx.ListLinkClaimants(ctx, freed); err != nil {
			return err
		}
	}
	return nil
}

func distinct(ids []uuid.UUID) []uuid.UUID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// linkRound decides each customer by itself and writes all decisions set-wise. It returns the users whose link ended.
func (r *Runner) linkRound(ctx context.Context, tx *store.Tx, customers []uuid.UUID) (freed []string, err error) {
	if len(customers) == 0 {
		return nil, nil
	}
	facts, err := gatherLinkFacts(ctx, tx, customers)
	if err != nil {
		return nil, err
	}
	var (
		put          []store.Link
		ended, based []uuid.UUID
		reasons      []string
		opened       []store.Conflict
		obsolete     []int64
		writeBack    []river.InsertManyParams
	)
	for _, subject := range facts.subjects {
		d := facts.decide(subject)
		if d.end != "" {
			ended, reasons = append(ended, subject.CustomerID), append(reasons, d.end)
			freed = append(freed, subject.LinkedUserID)
		}
		if d.link != nil {
			if d.end == "" && subject.LinkedUserID != "" {
				based = append(based, subject.CustomerID)
			}
			put = append(put, *d.link)
			facts.linked[d.link.LocalUserID] = append(facts.linked[d.link.LocalUserID], subject.CustomerID)
			if d.link.Basis == basisCheckout && subject.ExternalID == "" {
				writeBack = append(writeBack, river.InsertManyParams{Args: WriteExternalIDArgs{CustomerID: subject.CustomerID}})
			}
		}
		opened = append(opened, d.conflicts...)
		obsolete = append(obsolete, d.obsolete...)
	}

	if len(ended) > 0 {
		if err := tx.EndLinks(ctx, ended, reasons, true); err != nil {
			return nil, err
		}
	}
	if len(based) > 0 {
		if err := tx.EndLinks(ctx, based, slices.Repeat([]string{"basis_changed"}, len(based)), false); err != nil {
			return nil, err
		}
	}
	if len(put) > 0 {
		if err := tx.PutLinks(ctx, put, itself); err != nil {
			return nil, err
		}
	}
	if len(obsolete) > 0 {
		if err := tx.ResolveConflicts(ctx, obsolete, "obsolete", itself); err != nil {
			return nil, err
		}
	}
	if len(opened) > 0 {
		if err := tx.InsertConflicts(ctx, opened); err != nil {
			return nil, err
		}
		r.logger.WarnContext(ctx, "links in conflict: a person must decide (truenorth conflicts)", slog.Int("conflicts", len(opened)))
	}
	if len(writeBack) > 0 {
		if _, err := r.client.InsertManyTx(ctx, tx.Pgx(), writeBack); err != nil {
			return nil, fmt.Errorf("enqueueing %d external ids: %w", len(writeBack), err)
		}
	}
	return freed, nil
}

// linkFacts is all that the decision about some customers rests on.
type linkFacts struct {
	subjects  []store.LinkSubject
	evidence  map[uuid.UUID][]store.LinkEvidence
	conflicts map[uuid.UUID][]store.Conflict
	alive     map[string]bool        // local users
	linked    map[string][]uuid.UUID // local user -> customers
}

func gatherLinkFacts(ctx context.Context, tx *store.Tx, customers []uuid.UUID) (*linkFacts, error) {
	keys := make([]string, len(customers))
	for i, id := range customers {
		keys[i] = "polar:customer:" + id.String()
	}
	if err := tx.Lock(ctx, keys); err != nil {
		return nil, err
	}
	f := &linkFacts{evidence: map[uuid.UUID][]store.LinkEvidence{}, conflicts: map[uuid.UUID][]store.Conflict{}}
	var err error
	if f.subjects, err = tx.ListLinkSubjects(ctx, customers); err != nil {
		return nil, err
	}
	evidence, err := tx.ListLinkEvidence(ctx, customers)
	if err != nil {
		return nil, err
	}
	conflicts, err := tx.ListConflicts(ctx, customers)
	if err != nil {
		return nil, err
	}

	named := map[string]bool{}
	for _, s := range f.subjects {
		named[s.ExternalID], named[s.LinkedUserID] = true, true
	}
	for _, e := range evidence {
		f.evidence[e.CustomerID] = append(f.evidence[e.CustomerID], e)
		named[e.LocalUserID] = true
	}
	for _, c := range conflicts {
		f.conflicts[c.CustomerID] = append(f.conflicts[c.CustomerID], c)
	}
	delete(named, "")
	if len(named) == 0 {
		f.linked = map[string][]uuid.UUID{}
		return f, nil
	}
	users := make([]string, 0, len(named))
	keys = keys[:0]
	for user := range named {
		users = append(users, user)
		keys = append(keys, "polar:user:"+user)
	}
	// Two customers must not be given to one user by two transactions at once.
	if err := tx.Lock(ctx, keys); err != nil {
		return nil, err
	}
	if f.alive, err = tx.ListAliveUsers(ctx, users); err != nil {
		return nil, err
	}
	f.linked, err = tx.ListLinkedCustomers(ctx, users)
	return f, err
}

// decision is what becomes of one customer's link.
type decision struct {
	end       string      // why the present link ends; empty: it does not
	link      *store.Link // the link to make, or the present one on a stronger basis; nil: none
	conflicts []store.Conflict
	obsolete  []int64 // open conflicts whose cause is gone
}

// decide is the rule of linking: DESIGN's "strongest evidence first, nothing overwritten".
func (f *linkFacts) decide(s store.LinkSubject) decision {
	var d decision
	wanted := map[conflictKey]bool{}
	conflict := func(kind, user string, checkout uuid.UUID, detail string) {
		key := conflictKey{kind, user}
		if wanted[key] {
			return
		}
		wanted[key] = true
		for _, known := range f.conflicts[s.CustomerID] {
			if known.Kind == kind && known.LocalUserID == user {
				return // open already, or settled by a person
			}
		}
		d.conflicts = append(d.conflicts, store.Conflict{CustomerID: s.CustomerID, LocalUserID: user, Kind: kind, CheckoutID: checkout, Detail: detail})
	}
	defer func() {
		for _, known := range f.conflicts[s.CustomerID] {
			// What Polar refused stays until a person looks; all else follows the evidence.
			if known.Open && known.Kind != conflictExternalIDTaken && !wanted[conflictKey{known.Kind, known.LocalUserID}] {
				d.obsolete = append(d.obsolete, known.ID)
			}
		}
	}()

	linked := s.LinkedUserID
	switch {
	case s.Deleted:
		if linked != "" {
			d.end = "customer_deleted"
		}
		return d
	case linked != "" && !f.alive[linked]:
		d.end, linked = "user_deleted", ""
	}

	target, basis, checkout := "", "", uuid.Nil
	var matches []store.LinkEvidence
	disagree := false
	for _, e := range f.evidence[s.CustomerID] {
		switch {
		case !e.ByCustomer && !e.NoOlder:
			matches = append(matches, e)
		case !f.alive[e.LocalUserID]: // waits for its user
		case target == "":
			target, basis, checkout = e.LocalUserID, basisCheckout, e.CheckoutID
		case target != e.LocalUserID:
			disagree = true
			conflict(conflictEvidenceDisagrees, e.LocalUserID, e.CheckoutID, "checkouts of two local users succeeded with this customer")
		}
	}
	if external := s.ExternalID; external != "" && f.alive[external] {
		switch {
		case target == "":
			target, basis = external, basisExternalID
		case target != external:
			disagree = true
			conflict(conflictEvidenceDisagrees, target, checkout, "the customer bears the id of another local user than the one whose checkout succeeded with it")
		}
	}

	switch {
	case target == "" || disagree:
	case linked != "" && linked != target:
		conflict(conflictEvidenceDisagrees, target, checkout, "the customer is linked to another local user than its evidence names")
	case linked != "":
		if s.LinkedBasis == basisExternalID && basis == basisCheckout {
			d.link = &store.Link{CustomerID: s.CustomerID, LocalUserID: target, Basis: basis, CheckoutID: checkout}
		}
	case f.claimedByOther(target, s.CustomerID):
		conflict(conflictUserClaimed, target, checkout, "the local user is linked to another customer")
	default:
		d.link = &store.Link{CustomerID: s.CustomerID, LocalUserID: target, Basis: basis, CheckoutID: checkout}
		linked = target
	}

	for _, m := range matches {
		// An older customer was found by an e-mail that somebody typed: that proves nothing about who typed it.
		if m.LocalUserID != linked {
			conflict(conflictEmailMatch, m.LocalUserID, m.CheckoutID, "the customer is older than the checkout and was matched by a typed e-mail address")
		}
	}
	return d
}

type conflictKey struct{ kind, user string }

func (f *linkFacts) claimedByOther(user string, customer uuid.UUID) bool {
	return slices.ContainsFunc(f.linked[user], func(other uuid.UUID) bool { return other != customer })
}

type writeExternalIDWorker struct {
	river.WorkerDefaults[WriteExternalIDArgs]
	runner *Runner
}

// Work writes the linked user's id to a customer that bears none. Polar takes it once only, so everything is looked at again.
func (w *writeExternalIDWorker) Work(ctx context.Context, job *river.Job[WriteExternalIDArgs]) error {
	r := w.runner
	ctx = withPriority(ctx, priorityLink)
	id := job.Args.CustomerID
	user, err := r.userToWrite(ctx, id)
	if err != nil || user == "" {
		return err
	}
	if err := r.guard.check(ctx); err != nil {
		return r.later(err)
	}
	switch current, err := r.api.GetCustomer(ctx, id); {
	case polar.IsNotFound(err):
		return nil
	case err != nil:
		return r.later(err)
	case current.ExternalID != "":
		return nil // it bears one by now; its event says so
	}
	switch _, err := r.api.GetCustomerByExternalID(ctx, user); {
	case err == nil:
		return r.refuseExternalID(ctx, id, user, "another customer at Polar bears this id")
	case !polar.IsNotFound(err):
		return r.later(err)
	}
	written, err := r.api.SetCustomerExternalID(ctx, id, user)
	switch {
	case polar.IsValidation(err):
		return r.refuseExternalID(ctx, id, user, err.Error())
	case polar.IsNotFound(err):
		return nil
	case err != nil:
		return r.later(err)
	}
	v := customerVersion(written)
	return r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyRead(ctx, tx, typeCustomer, &v) })
}

// userToWrite is the user whose id is still to be written to the customer; empty where there is nothing to do.
func (r *Runner) userToWrite(ctx context.Context, id uuid.UUID) (string, error) {
	user := ""
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		subjects, err := tx.ListLinkSubjects(ctx, []uuid.UUID{id})
		if err != nil {
			return err
		}
		if len(subjects) == 1 && subjects[0].LinkedBasis == basisCheckout && subjects[0].ExternalID == "" && !subjects[0].Deleted {
			user = subjects[0].LinkedUserID
		}
		return nil
	})
	return user, err
}

func (r *Runner) refuseExternalID(ctx context.Context, id uuid.UUID, user, detail string) error {
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		return tx.InsertConflicts(ctx, []store.Conflict{{CustomerID: id, LocalUserID: user, Kind: conflictExternalIDTaken, Detail: detail}})
	})
}

// ErrNoUser is what ResolveConflict answers where the local user to link does not exist.
var ErrNoUser = errors.New("no such local user")

// ResolveConflict settles an open conflict by a person's word: link makes the link that the conflict is about, ending
// any other of the customer; otherwise the conflict is dismissed and everything stays. actor is the person.
// Errors: store.ErrNotFound where no such conflict is open, ErrNoUser.
func ResolveConflict(ctx context.Context, s *store.Store, id int64, link bool, actor string) error {
	return s.InTx(ctx, func(tx *store.Tx) error {
		c, err := tx.GetOpenConflict(ctx, id)
		if err != nil {
			return err
		}
		if !link {
			return tx.ResolveConflicts(ctx, []int64{id}, "dismissed", actor)
		}
		if err := tx.Lock(ctx, []string{"polar:customer:" + c.CustomerID.String()}); err != nil {
			return err
		}
		alive, err := tx.ListAliveUsers(ctx, []string{c.LocalUserID})
		if err != nil {
			return err
		}
		if !alive[c.LocalUserID] {
			return fmt.Errorf("%w: %s", ErrNoUser, c.LocalUserID)
		}
		if err := tx.EndLinks(ctx, []uuid.UUID{c.CustomerID}, []string{"resolved by " + actor}, true); err != nil {
			return err
		}
		if err := tx.PutLinks(ctx, []store.Link{{CustomerID: c.CustomerID, LocalUserID: c.LocalUserID, Basis: basisManual}}, actor); err != nil {
			return err
		}
		return tx.ResolveConflicts(ctx, []int64{id}, "linked", actor)
	})
}
