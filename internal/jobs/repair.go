package jobs

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Causes of drift, as far as they can be told.
const (
	causeMissedCreate     = "missed_create"
	causeMissedUpdate     = "missed_update"
	causeMissedDelete     = "missed_delete"
	causeEndpointDisabled = "endpoint_disabled" // it happened while Polar could not send
	causeStaleApply       = "stale_apply"       // the event is here, and not applied
	causeLocalOnly        = "local_only"        // Polar never deletes such objects, yet knows none of this id
	causeAltered          = "altered"           // the same version, with other content
	causeRefused          = "refused"           // Postgres refuses the document
	causeWrongTombstone   = "wrong_tombstone"   // deleted here, alive at Polar
	causeBenignAbandoned  = "benign_abandoned"  // a checkout that its buyer left: Polar does not always tell
	causeDuplicateSession = "duplicate_session" // a second session of one checkout request
)

// record runs in the transaction of a repair, and may add to what the step counts.
type record func(ctx context.Context, tx *store.Tx, step *store.RunStep) error

// compare brings objects of a list into the mirror where they differ, with the drift on record. next is where the
// sweep stands once that is committed. Objects that are buried here though the list shows them are looked at by id,
// where that can be done: only that proves that they live.
func (s *sweep) compare(ctx context.Context, documents []polar.Document, then record, next sweepCursor) error {
	versions := s.versions(documents)
	differences, err := s.runner.store.CompareObjects(ctx, s.run.ObjectType, objectsOf(versions), readTime(versions))
	if err != nil {
		return err
	}
	var buried []uuid.UUID
	for _, d := range differences {
		if d.State == store.DiffBuried {
			buried = append(buried, d.ID)
		}
	}
	if len(buried) > 0 {
		if err := s.lookAtBuried(ctx, buried, versions); err != nil {
			return err
		}
	}
	changed := changedOf(versions, differences, store.DiffBuried)
	step, err := s.repair(ctx, changed, false, func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
		if s.settles {
			if err := tx.SettleDrift(ctx, s.run.ObjectType, inStep(versions, differences)); err != nil {
				return err
			}
		}
		return then(ctx, tx, step)
	})
	if err != nil {
		return err
	}
	s.moved(s.withFailures(next), step)
	return nil
}

// compareByID is compare for objects that were read by their ids.
func (s *sweep) compareByID(ctx context.Context, documents []polar.Document, then record) error {
	versions := s.versions(documents)
	differences, err := s.runner.store.CompareObjects(ctx, s.run.ObjectType, objectsOf(versions), readTime(versions))
	if err != nil {
		return err
	}
	_, err = s.repair(ctx, changedOf(versions, differences, ""), true, then)
	return err
}

func (s *sweep) lookAtBuried(ctx context.Context, buried []uuid.UUID, versions []*version) error {
	if s.resource.ByID {
		_, err := s.readEach(ctx, buried)
		return err
	}
	liftable, err := s.runner.store.ListLiftable(ctx, s.run.ObjectType, buried, versions[0].VersionAt)
	if err != nil || len(liftable) == 0 {
		return err
	}
	living := slices.DeleteFunc(slices.Clone(versions), func(v *version) bool { return !slices.Contains(liftable, v.ID) })
	_, err = s.repair(ctx, living, true, func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
		return s.advanceIn(ctx, tx, s.withFailures(s.cursor), step)
	})
	return err
}

// versions are the documents as the mirror takes them. A read says when it was made to the second; what the list
// shows was so until the end of that second at least, for the purpose of telling which is newer: a true change has
// another modified_at.
func (s *sweep) versions(documents []polar.Document) []*version {
	versions := make([]*version, len(documents))
	for i, d := range documents {
		v := readVersion(d.Meta, d.Raw, d.ReadAt)
		if s.run.ObjectType == typeOrganization {
			v.organization = organizationOf(d.ID.String())
		}
		if s.run.ObjectType == typeCheckout {
			v.checkout, _ = polar.DecodeCheckout(d.Raw) // its id was read from the same document
		}
		versions[i] = &v
	}
	return versions
}

// readTime is the end of the second in which versions were read.
func readTime(versions []*version) time.Time {
	if len(versions) == 0 || versions[0].VersionAt.IsZero() {
		return time.Time{}
	}
	return endOfSecond(versions[0].VersionAt)
}

func endOfSecond(t time.Time) time.Time {
	return t.Truncate(time.Second).Add(time.Second - time.Microsecond)
}

func changedOf(versions []*version, differences []store.Difference, without string) []*version {
	return slices.DeleteFunc(slices.Clone(versions), func(v *version) bool {
		return !slices.ContainsFunc(differences, func(d store.Difference) bool { return d.ID == v.ID && d.State != without })
	})
}

func inStep(versions []*version, differences []store.Difference) []uuid.UUID {
	var ids []uuid.UUID
	for _, v := range versions {
		if !slices.ContainsFunc(differences, func(d store.Difference) bool { return d.ID == v.ID }) {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// repair writes objects that differ, and the ledger, in one transaction with whatever is to be recorded then. In a dry
// run only the ledger is written. Where Postgres refuses a document, that one stays open in the ledger and the others
// are repaired.
func (s *sweep) repair(ctx context.Context, changed []*version, lift bool, then record) (store.RunStep, error) {
	var step store.RunStep
	err := s.runner.store.InTx(ctx, func(tx *store.Tx) error {
		step = store.RunStep{}
		if len(changed) > 0 {
			if err := s.repairIn(ctx, tx, changed, lift, &step); err != nil {
				return err
			}
		}
		return then(ctx, tx, &step)
	})
	if err == nil || !errors.Is(err, store.ErrRefused) || len(changed) == 0 {
		return step, err
	}
	var sum store.RunStep
	for _, v := range changed {
		one, err := s.repairOne(ctx, v, lift)
		if err != nil {
			return sum, err
		}
		sum.Drifted, sum.Repaired, sum.Benign, sum.Refreshed = sum.Drifted+one.Drifted, sum.Repaired+one.Repaired, sum.Benign+one.Benign, sum.Refreshed+one.Refreshed
	}
	err = s.runner.store.InTx(ctx, func(tx *store.Tx) error { return then(ctx, tx, &sum) })
	return sum, err
}

func (s *sweep) repairOne(ctx context.Context, v *version, lift bool) (store.RunStep, error) {
	var step store.RunStep
	err := s.runner.store.InTx(ctx, func(tx *store.Tx) error {
		step = store.RunStep{}
		return s.repairIn(ctx, tx, []*version{v}, lift, &step)
	})
	if !errors.Is(err, store.ErrRefused) {
		return step, err
	}
	s.fail(v.ID, err)
	step = store.RunStep{Drifted: 1}
	drift := []store.Drift{{ObjectID: v.ID.String(), Field: "id", Cause: causeRefused}}
	return step, s.runner.store.InTx(ctx, func(tx *store.Tx) error {
		return tx.RecordDrift(ctx, s.run.ID, s.run.ObjectType, drift, false)
	})
}

func (s *sweep) repairIn(ctx context.Context, tx *store.Tx, changed []*version, lift bool, step *store.RunStep) error {
	r := s.runner
	admit := func(organization uuid.UUID) error { return r.guard.admit(ctx, tx, organization, "POLAR_ACCESS_TOKEN") }
	if s.run.DryRun {
		admit = func(organization uuid.UUID) error { return r.guard.agrees(ctx, organization, "POLAR_ACCESS_TOKEN") }
	}
	organizations := make([]uuid.UUID, len(changed))
	for i, v := range changed {
		organizations[i] = v.organization
	}
	for _, organization := range distinct(organizations) {
		if err := admit(organization); err != nil {
			return err
		}
	}
	if s.run.ObjectType == typeCustomer || s.run.ObjectType == typeCheckout {
		if err := lockCustomers(ctx, tx, changed); err != nil {
			return err
		}
	}
	// Under the locks: what an event has mended meanwhile is no drift.
	readAt := readTime(changed)
	differences, err := tx.CompareObjects(ctx, s.run.ObjectType, objectsOf(changed), readAt)
	if err != nil || len(differences) == 0 {
		return err
	}
	// The facts are asked for before the rows change.
	facts, err := s.factsAbout(ctx, tx, differences)
	if err != nil {
		return err
	}
	if s.run.DryRun {
		drifts := s.explain(facts, differences, step)
		step.Repaired, step.Refreshed = 0, 0
		return tx.RecordDrift(ctx, s.run.ID, s.run.ObjectType, drifts, false)
	}
	different := changedOf(changed, differences, "")
	objects := objectsOf(different)
	for i := range objects {
		if !lift { // against a tombstone the second's beginning counts
			objects[i].VersionAt = readAt
		}
	}
	mirrored, err := tx.MirrorObjects(ctx, s.run.ObjectType, store.FromRead, objects, lift)
	if err != nil {
		return err
	}
	isWritten := func(id uuid.UUID) bool { return slices.Contains(mirrored.Written, id) }
	different = slices.DeleteFunc(different, func(v *version) bool { return !isWritten(v.ID) })
	if err := r.followReads(ctx, tx, s.run.ObjectType, different); err != nil {
		return err
	}
	// What was not written is as new as what is stored: the next sweep tells.
	differences = slices.DeleteFunc(differences, func(d store.Difference) bool { return !isWritten(d.ID) })
	return tx.RecordDrift(ctx, s.run.ID, s.run.ObjectType, s.explain(facts, differences, step), true)
}

// buryGone makes tombstones of objects that are gone at Polar, with all that follows.
func (s *sweep) buryGone(ctx context.Context, ids []uuid.UUID, at time.Time, then record) (store.RunStep, error) {
	r := s.runner
	var step store.RunStep
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		step = store.RunStep{}
		if s.run.ObjectType == typeCustomer {
			keys := make([]string, len(ids))
			for i, id := range ids {
				keys[i] = customerLock(id)
			}
			if err := tx.Lock(ctx, keys); err != nil {
				return err
			}
		}
		stored, err := tx.ListObjectVersions(ctx, s.run.ObjectType, ids)
		if err != nil {
			return err
		}
		questions := make([]store.DriftQuestion, len(ids))
		for i, id := range ids { // it went at some time since the version that is stored
			questions[i] = store.DriftQuestion{ID: id, StoredAt: stored[id], From: stored[id], Until: at}
		}
		facts, err := tx.ListDriftFacts(ctx, questions)
		if err != nil {
			return err
		}
		buried := ids
		if !s.run.DryRun {
			if buried, err = tx.BuryObjects(ctx, s.run.ObjectType, ids, at); err != nil {
				return err
			}
			switch s.run.ObjectType {
			case typeCustomer:
				err = r.linkCustomers(ctx, tx, buried)
			case typeCheckout:
				err = tx.FollowCheckouts(ctx, buried)
			}
			if err != nil {
				return err
			}
			step.Repaired = int64(len(buried))
		}
		var drifts []store.Drift
		for _, id := range buried {
			drifts = append(drifts, store.Drift{
				ObjectID: id.String(), Field: "deleted_at", Remote: new("gone"), Cause: causeOfAbsence(s.run.ObjectType, facts[id]),
			})
		}
		step.Drifted = int64(len(drifts))
		if err := tx.RecordDrift(ctx, s.run.ID, s.run.ObjectType, drifts, !s.run.DryRun); err != nil {
			return err
		}
		return then(ctx, tx, &step)
	})
	return step, err
}

// causeOfAbsence says why an object lives here that Polar does not have.
func causeOfAbsence(objectType string, facts store.DriftFacts) string {
	switch {
	case facts.Unapplied:
		return causeStaleApply
	case objectType == typeCheckout, objectType == "order", objectType == "subscription", objectType == "refund":
		return causeLocalOnly
	case facts.Dark:
		return causeEndpointDisabled
	}
	return causeMissedDelete
}

// factsAbout gathers what tells why objects differ.
func (s *sweep) factsAbout(ctx context.Context, tx *store.Tx, differences []store.Difference) (map[uuid.UUID]store.DriftFacts, error) {
	var ids []uuid.UUID
	for _, d := range differences {
		ids = append(ids, d.ID)
	}
	ids = distinct(ids)
	stored, err := tx.ListObjectVersions(ctx, s.run.ObjectType, ids)
	if err != nil {
		return nil, err
	}
	questions := make([]store.DriftQuestion, len(ids))
	for i, id := range ids {
		at := slices.IndexFunc(differences, func(d store.Difference) bool { return d.ID == id })
		changed := differences[at].RemoteChangedAt
		questions[i] = store.DriftQuestion{ID: id, StoredAt: stored[id], From: changed, Until: changed}
	}
	return tx.ListDriftFacts(ctx, questions)
}

// explain makes the rows of the ledger out of differences, and counts them.
func (s *sweep) explain(facts map[uuid.UUID]store.DriftFacts, differences []store.Difference, step *store.RunStep) []store.Drift {
	var drifts []store.Drift
	for from := 0; from < len(differences); {
		to := from + 1
		for to < len(differences) && differences[to].ID == differences[from].ID {
			to++
		}
		ofOne := differences[from:to]
		from = to
		if ofOne[0].State == store.DiffDocument {
			step.Refreshed++
			continue
		}
		for _, d := range ofOne {
			cause := causeOf(s.run.ObjectType, d, ofOne, facts[d.ID])
			drifts = append(drifts, store.Drift{
				ObjectID: d.ID.String(), Field: d.Field, Cause: cause,
				Local: shown(s.run.ObjectType, d.Field, d.Local), Remote: shown(s.run.ObjectType, d.Field, d.Remote),
			})
			if cause == causeBenignAbandoned {
				step.Benign++
			} else {
				step.Drifted++
			}
			step.Repaired++
		}
	}
	return drifts
}

// abandoned are the columns that differ when a buyer left: Polar does not always tell of that.
var abandoned = []string{"status", "modified_at", "expires_at"}

// causeOf says why a column differs, from all differences of its object.
func causeOf(objectType string, d store.Difference, ofOne []store.Difference, facts store.DriftFacts) string {
	status := slices.IndexFunc(ofOne, func(d store.Difference) bool { return d.Field == "status" })
	switch {
	case facts.Unapplied:
		return causeStaleApply
	case d.State == store.DiffBuried:
		return causeWrongTombstone
	case objectType == typeCheckout && slices.Contains(abandoned, d.Field) && status >= 0 &&
		is(ofOne[status].Remote, polar.CheckoutStatusExpired) && !is(ofOne[status].Local, polar.CheckoutStatusSucceeded):
		return causeBenignAbandoned
	case d.State == store.DiffColumn && d.LocalChangedAt.Equal(d.RemoteChangedAt):
		return causeAltered
	case facts.Dark:
		return causeEndpointDisabled
	case d.State == store.DiffMissing:
		return causeMissedCreate
	}
	return causeMissedUpdate
}

func is(text *string, status polar.CheckoutStatus) bool {
	return text != nil && *text == string(status)
}

// clearFields are the columns, besides ids, times and amounts, whose values the ledger may hold in clear.
var clearFields = []string{
	"status", "type", "currency", "paid", "billing_reason", "reason", "role", "visibility", "duration", "seats", "locale",
	"recurring_interval", "recurring_interval_count", "cancel_at_period_end", "email_verified", "basis_points",
	"max_redemptions", "redemptions_count", "revoke_benefits", "amount", "is_recurring", "is_archived", "is_deleted",
	"is_granted", "is_revoked", "id",
}

// impersonal are the types of objects that speak of nobody.
var impersonal = []string{typeOrganization, "product", "discount", "benefit"}

// shown is a value as the ledger may hold it: that two personal values differ is worth knowing, what they are is not.
func shown(objectType, field string, value *string) *string {
	if value == nil || slices.Contains(impersonal, objectType) || slices.Contains(clearFields, field) {
		return value
	}
	for _, suffix := range []string{"_id", "_at", "_start", "_end", "_amount"} {
		if strings.HasSuffix(field, suffix) && !strings.Contains(*value, "@") { // some products take addresses for ids
			return value
		}
	}
	return new("hidden, " + strconv.Itoa(utf8.RuneCountInString(*value)) + " characters")
}
