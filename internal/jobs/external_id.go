package jobs

import (
	"context"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// writesBack tells whether a link of this basis is good enough to write the user's id to Polar, where it stays for good:
// the user's own checkout, or a person who vouches.
func writesBack(basis string) bool { return basis == basisCheckout || basis == basisManual }

// vouchedExternalIDArgs ask for the same job by a person's word, also while one runs that knew nothing of it.
type vouchedExternalIDArgs WriteExternalIDArgs

// Kind is the job's kind as River stores it.
func (vouchedExternalIDArgs) Kind() string { return WriteExternalIDArgs{}.Kind() }

// InsertOpts lets such jobs stand beside each other: each looks at everything again.
func (vouchedExternalIDArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 2, MaxAttempts: 1000}
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
	crashpoint.Here("external_id.unsent")
	written, err := r.api.SetCustomerExternalID(crashpoint.WhenSent(ctx, "external_id.sent"), id, user)
	switch {
	case polar.IsValidation(err):
		return r.refuseExternalID(ctx, id, user, err.Error())
	case polar.IsNotFound(err):
		return nil
	case err != nil:
		return r.later(err)
	}
	crashpoint.Here("external_id.answered")
	v := customerVersion(written)
	if err := r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyRead(ctx, tx, typeCustomer, &v) }); err != nil {
		return err
	}
	crashpoint.Here("external_id.stored")
	return nil
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
		if len(subjects) == 1 && writesBack(subjects[0].LinkedBasis) && subjects[0].ExternalID == "" && !subjects[0].Deleted {
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
