package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// Why a link ends, in its history.
const (
	endCustomerDeleted   = "customer_deleted"
	endUserDeleted       = "user_deleted"
	endEvidenceWithdrawn = "evidence_withdrawn"
	endBasisChanged      = "basis_changed" // the link goes on
)

// linkCustomers brings the links of these customers to what the mirror, the requests and the local users say.
func (r *Runner) linkCustomers(ctx context.Context, tx *store.Tx, customers []uuid.UUID) error {
	// A link that ends may let another customer's claim through. Every round but the last ends links, and none that
	// this transaction made.
	for len(customers) > 0 {
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
		if err := tx.EndLinks(ctx, based, slices.Repeat([]string{endBasisChanged}, len(based)), false); err != nil {
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
		keys[i] = customerLock(id)
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
	users := slices.Collect(maps.Keys(named))
	keys = make([]string, len(users))
	for i, user := range users {
		keys[i] = userLock(user)
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

// claim is a local user whom evidence names for a customer.
type claim struct {
	user     string
	basis    string
	checkout uuid.UUID // the evidence of basis checkout
}

// claims lists the live users that evidence names for a customer, each once: the one whose id it bears, which it got
// before any checkout of it succeeded, then those whose checkouts succeeded with it, the first to succeed first.
// matches are the checkouts that prove nothing, since an e-mail that somebody typed led to the customer.
func (f *linkFacts) claims(s store.LinkSubject) (claims []claim, matches []store.LinkEvidence) {
	if f.alive[s.ExternalID] {
		claims = append(claims, claim{user: s.ExternalID, basis: basisExternalID})
	}
	for _, e := range f.evidence[s.CustomerID] {
		at := slices.IndexFunc(claims, func(c claim) bool { return c.user == e.LocalUserID })
		switch {
		case !e.ByCustomer && !e.NoOlder:
			matches = append(matches, e)
		case !f.alive[e.LocalUserID]: // waits for its user
		case at < 0:
			claims = append(claims, claim{user: e.LocalUserID, basis: basisCheckout, checkout: e.CheckoutID})
		case claims[at].basis == basisExternalID:
			claims[at].basis, claims[at].checkout = basisCheckout, e.CheckoutID
		}
	}
	return claims, matches
}

// decide is the rule of linking: DESIGN's "strongest evidence first, nothing overwritten". What it decides follows
// from the facts alone, whatever order they came in, so long as no person had a say.
func (f *linkFacts) decide(s store.LinkSubject) (d decision) {
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
			if known.Open && (known.Kind != conflictExternalIDTaken || s.Deleted) && !wanted[conflictKey{known.Kind, known.LocalUserID}] {
				d.obsolete = append(d.obsolete, known.ID)
			}
		}
	}()

	linked := s.LinkedUserID
	if s.Deleted {
		if linked != "" {
			d.end = endCustomerDeleted
		}
		return d
	}
	claims, matches := f.claims(s)
	named := func(user string) int { return slices.IndexFunc(claims, func(c claim) bool { return c.user == user }) }
	switch {
	case linked == "":
	case !f.alive[linked]:
		d.end, linked = endUserDeleted, ""
	case s.LinkedBasis == basisCheckout && named(linked) < 0 &&
		slices.ContainsFunc(matches, func(m store.LinkEvidence) bool { return m.LocalUserID == linked }):
		d.end, linked = endEvidenceWithdrawn, "" // a guest's checkout came to light that had made the customer before
	}

	chosen := slices.IndexFunc(claims, func(c claim) bool { return !f.dismissed(s.CustomerID, c.user) })
	switch {
	case linked != "":
		chosen = named(linked)
		if chosen >= 0 && s.LinkedBasis == basisExternalID && claims[chosen].basis == basisCheckout {
			d.link = claims[chosen].link(s.CustomerID)
		}
	case chosen < 0:
	case f.claimedByOther(claims[chosen].user, s.CustomerID):
		conflict(conflictUserClaimed, claims[chosen].user, claims[chosen].checkout, "the local user is linked to another customer")
	default:
		linked = claims[chosen].user
		d.link = claims[chosen].link(s.CustomerID)
	}

	// A person who linked the customer has weighed the other claims.
	if linked == "" || s.LinkedBasis != basisManual {
		for i, c := range claims {
			if i != chosen {
				conflict(conflictEvidenceDisagrees, c.user, c.checkout, c.disagreement())
			}
		}
	}
	for _, m := range matches {
		// An older customer was found by an e-mail that somebody typed: that proves nothing about who typed it.
		if m.LocalUserID != linked {
			conflict(conflictEmailMatch, m.LocalUserID, m.CheckoutID, "the customer is older than the checkout, or a guest's, and was matched by a typed e-mail address")
		}
	}
	return d
}

func (c claim) link(customer uuid.UUID) *store.Link {
	return &store.Link{CustomerID: customer, LocalUserID: c.user, Basis: c.basis, CheckoutID: c.checkout}
}

// disagreement says why a claim stands against the link of its customer, or against a stronger claim.
func (c claim) disagreement() string {
	if c.basis == basisExternalID {
		return "the customer bears the id of this local user, but is another one's by its link or its checkouts"
	}
	return "a checkout of this local user succeeded with the customer, which is another one's by its link, its id or an earlier checkout"
}

// dismissed tells whether a person has said that this claim is not to be followed.
func (f *linkFacts) dismissed(customer uuid.UUID, user string) bool {
	return slices.ContainsFunc(f.conflicts[customer], func(c store.Conflict) bool {
		return c.Dismissed && c.LocalUserID == user && (c.Kind == conflictEvidenceDisagrees || c.Kind == conflictUserClaimed)
	})
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
	if held, err := r.stillToWrite(ctx, id, user); err != nil || !held {
		return err
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

// stillToWrite looks at the customer's first sessions at Polar once more: what is written there can never be taken
// back, and the event of a guest's checkout that made the customer may be late or lost.
func (r *Runner) stillToWrite(ctx context.Context, id uuid.UUID, user string) (bool, error) {
	page, err := r.api.ListCheckouts(ctx, polar.CheckoutFilter{CustomerID: id, Sorting: "created_at", Limit: polar.MaxPageSize})
	if err != nil {
		return false, r.later(err)
	}
	versions := make([]*version, len(page.Items))
	for i, k := range page.Items {
		v := checkoutVersion(k)
		versions[i] = &v
	}
	if err := r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyReads(ctx, tx, typeCheckout, versions, false) }); err != nil {
		return false, err
	}
	current, err := r.userToWrite(ctx, id)
	return current == user, err
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
		if err := tx.Lock(ctx, []string{customerLock(c.CustomerID), userLock(c.LocalUserID)}); err != nil {
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
		// The person has weighed the customer's other claims too; typed e-mail addresses are another matter.
		conflicts, err := tx.ListConflicts(ctx, []uuid.UUID{c.CustomerID})
		if err != nil {
			return err
		}
		settled, obsolete := []int64{id}, []int64{}
		for _, other := range conflicts {
			switch {
			case !other.Open || other.ID == id:
			case other.LocalUserID == c.LocalUserID:
				settled = append(settled, other.ID)
			case other.Kind != conflictEmailMatch:
				obsolete = append(obsolete, other.ID)
			}
		}
		if err := tx.ResolveConflicts(ctx, settled, "linked", actor); err != nil {
			return err
		}
		return tx.ResolveConflicts(ctx, obsolete, "obsolete", itself)
	})
}

// Keys of the locks under which links are decided.
func customerLock(id uuid.UUID) string { return "polar:customer:" + id.String() }
func userLock(id string) string        { return "polar:user:" + id }
