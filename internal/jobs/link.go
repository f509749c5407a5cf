package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
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
	conflictUnlinked          = "unlinked" // never open: a person ended the link
)

// itself is who acts where no person does.
const itself = "truenorth"

var byItself = store.Word{Actor: itself}

// Why a link ends, in its history.
const (
	endCustomerDeleted   = "customer_deleted"
	endUserDeleted       = "user_deleted"
	endEvidenceWithdrawn = "evidence_withdrawn"
	endBasisChanged      = "basis_changed" // the link goes on
	endUnlinked          = "unlinked"      // by a person
	endReplaced          = "replaced"      // a person linked the customer to another user
)

// linker brings links to what the facts say, in the caller's transaction.
type linker struct {
	client *river.Client[pgx.Tx] // inserts jobs
	logger *slog.Logger
}

func (r *Runner) linkCustomers(ctx context.Context, tx *store.Tx, customers []uuid.UUID) error {
	return (&linker{client: r.client, logger: r.logger}).link(ctx, tx, customers)
}

type linkCustomersWorker struct {
	river.WorkerDefaults[LinkCustomersArgs]
	runner *Runner
}

// Work decides what polar.link_user left undecided. Upkeep would find it too, somewhat later.
func (w *linkCustomersWorker) Work(ctx context.Context, job *river.Job[LinkCustomersArgs]) error {
	return w.runner.store.InTx(ctx, func(tx *store.Tx) error {
		customers, err := tx.ListLinkClaimants(ctx, job.Args.Users)
		if err != nil {
			return err
		}
		if err := w.runner.linkCustomers(ctx, tx, customers); err != nil {
			return err
		}
		crashpoint.Here("link.asked")
		return nil
	})
}

// link brings the links of these customers to what the mirror, the requests and the local users say.
func (l *linker) link(ctx context.Context, tx *store.Tx, customers []uuid.UUID) error {
	// A link that ends may let another customer's claim through. Every round but the last ends links, and none that
	// this transaction made.
	for len(customers) > 0 {
		freed, err := l.round(ctx, tx, distinct(customers))
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

// round decides each customer by itself and writes all decisions set-wise. It returns the users whose link ended.
func (l *linker) round(ctx context.Context, tx *store.Tx, customers []uuid.UUID) (freed []string, err error) {
	if len(customers) == 0 {
		return nil, nil
	}
	facts, err := lockLinkFacts(ctx, tx, customers)
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
		come, gone   []uuid.UUID // on the list of the unlinked
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
		switch {
		case !subject.Deleted && d.link == nil && (subject.LinkedUserID == "" || d.end != ""):
			come = append(come, subject.CustomerID)
		case subject.LinkedUserID == "": // who was linked is not on the list
			gone = append(gone, subject.CustomerID)
		}
		opened = append(opened, d.conflicts...)
		obsolete = append(obsolete, d.obsolete...)
	}

	if len(ended) > 0 {
		if err := tx.EndLinks(ctx, ended, reasons, byItself, true); err != nil {
			return nil, err
		}
	}
	if len(based) > 0 {
		if err := tx.EndLinks(ctx, based, slices.Repeat([]string{endBasisChanged}, len(based)), byItself, false); err != nil {
			return nil, err
		}
	}
	if len(put) > 0 {
		if err := tx.PutLinks(ctx, put, byItself); err != nil {
			return nil, err
		}
	}
	if err := tx.PutWaiting(ctx, come, gone); err != nil {
		return nil, err
	}
	if len(obsolete) > 0 {
		if err := tx.ResolveConflicts(ctx, obsolete, store.ConflictObsolete, byItself); err != nil {
			return nil, err
		}
	}
	if len(opened) > 0 {
		if err := tx.InsertConflicts(ctx, opened); err != nil {
			return nil, err
		}
		l.logger.WarnContext(ctx, "links in conflict: a person must decide (truenorth conflicts)", slog.Int("conflicts", len(opened)))
	}
	if len(writeBack) > 0 {
		if _, err := l.client.InsertManyTx(ctx, tx.Pgx(), writeBack); err != nil {
			return nil, fmt.Errorf("enqueueing %d external ids: %w", len(writeBack), store.Interpret(err))
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

// lockLinkFacts gathers the facts about customers, and about users besides those that evidence names, under the locks
// that every decision is made under. They are held to the end of the transaction.
func lockLinkFacts(ctx context.Context, tx *store.Tx, customers []uuid.UUID, users ...string) (*linkFacts, error) {
	return gatherLinkFacts(ctx, tx, tx.Lock, customers, users...)
}

func gatherLinkFacts(
	ctx context.Context, tx *store.Tx, lock func(context.Context, []string) error, customers []uuid.UUID, users ...string,
) (*linkFacts, error) {
	keys := make([]string, len(customers))
	for i, id := range customers {
		keys[i] = customerLock(id)
	}
	if err := lock(ctx, keys); err != nil {
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
	for _, user := range users {
		named[user] = true
	}
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
	users = slices.Collect(maps.Keys(named))
	keys = make([]string, len(users))
	for i, user := range users {
		keys[i] = userLock(user)
	}
	// Two customers must not be given to one user by two transactions at once.
	if err := lock(ctx, keys); err != nil {
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
		case !e.Proves:
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
				return // open already, or dismissed by a person
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

	chosen := slices.IndexFunc(claims, func(c claim) bool { return !f.dismissed(s.CustomerID, c) })
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
			if i != chosen && !f.dismissed(s.CustomerID, c) {
				conflict(conflictEvidenceDisagrees, c.user, c.checkout, c.disagreement())
			}
		}
	}
	for _, m := range matches {
		// An older customer was found by an e-mail that somebody typed: that proves nothing about who typed it.
		if m.LocalUserID != linked && !f.unlinked(s.CustomerID, m.LocalUserID) {
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

// dismissed tells whether a person has said that this claim is not to be followed. Who ended a link that only an
// external id spoke for has not heard of the checkout that came since.
func (f *linkFacts) dismissed(customer uuid.UUID, c claim) bool {
	return slices.ContainsFunc(f.conflicts[customer], func(k store.Conflict) bool {
		if !k.Dismissed || k.LocalUserID != c.user {
			return false
		}
		switch k.Kind {
		case conflictEvidenceDisagrees, conflictUserClaimed:
			return true
		case conflictUnlinked:
			return c.basis == basisExternalID || k.CheckoutID != uuid.Nil
		}
		return false
	})
}

// unlinked tells whether a person has ended the link between the two.
func (f *linkFacts) unlinked(customer uuid.UUID, user string) bool {
	return slices.ContainsFunc(f.conflicts[customer], func(k store.Conflict) bool {
		return k.Dismissed && k.LocalUserID == user && k.Kind == conflictUnlinked
	})
}

type conflictKey struct{ kind, user string }

func (f *linkFacts) claimedByOther(user string, customer uuid.UUID) bool {
	return slices.ContainsFunc(f.linked[user], func(other uuid.UUID) bool { return other != customer })
}

// Keys of the locks under which links are decided.
func customerLock(id uuid.UUID) string { return "polar:customer:" + id.String() }
func userLock(id string) string        { return "polar:user:" + id }
