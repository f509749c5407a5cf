package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestAPinIsFreshForTheWholeOfItsTransactionAndGoesWithIt(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	organization := uuid.New()
	undo := errors.New("a document was refused")
	err := s.InTx(t.Context(), func(tx *store.Tx) error {
		for range 2 { // a page of two documents
			if pinned, fresh, err := tx.PinOrganization(t.Context(), organization); err != nil || pinned != organization || !fresh {
				t.Errorf("pinned %s, fresh %v, %v; want %s, not to be remembered before the commit", pinned, fresh, err, organization)
			}
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	if pinned, err := s.PinnedOrganization(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("pinned to %s, %v, after the rollback", pinned, err)
	}
	for _, wantFresh := range []bool{true, false} {
		if err := s.InTx(t.Context(), func(tx *store.Tx) error {
			_, fresh, err := tx.PinOrganization(t.Context(), organization)
			if fresh != wantFresh {
				t.Errorf("fresh is %v, want %v", fresh, wantFresh)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// begun is a run as StartRun gives it.
func begun(t *testing.T, s *store.Store, request store.RunRequest) (run store.ReconcileRun, over bool) {
	t.Helper()
	run, over, err := s.StartRun(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return run, over
}

func TestAFailedTypeIsTriedOnceInEachAttemptOfItsJob(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	request := store.RunRequest{ObjectType: "customer", Full: true, JobID: 7, Attempt: 1}
	first, over := begun(t, s, request)
	if over {
		t.Fatal("a first run is over")
	}
	if _, err := s.EndRun(t.Context(), first, "the scope is missing", false); err != nil {
		t.Fatal(err)
	}
	if run, over := begun(t, s, request); !over || run.ID != first.ID || run.State != store.RunFailed {
		t.Errorf("the next piece of the same attempt has run %d, %s, over %v; want the failed one", run.ID, run.State, over)
	}
	request.Attempt = 2
	second, over := begun(t, s, request)
	if over || second.ID == first.ID {
		t.Errorf("the second attempt has run %d, over %v; want a new one", second.ID, over)
	}
	if _, err := s.EndRun(t.Context(), second, "", true); err != nil {
		t.Fatal(err)
	}
	if run, over := begun(t, s, store.RunRequest{ObjectType: "customer", Full: true, JobID: 7, Attempt: 3}); !over || run.ID != second.ID {
		t.Errorf("what ended well is begun again: run %d, over %v", run.ID, over)
	}
}

func TestAnInterruptedRunOfTheCommandLineOutlivesAWorkersSweepForAnHour(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	state := func(id int64) string {
		t.Helper()
		run, err := s.GetRun(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return run.State
	}
	interrupted, _ := begun(t, s, store.RunRequest{ObjectType: "customer", Full: true})
	begun(t, s, store.RunRequest{ObjectType: "customer", Full: true, JobID: 7})
	if got := state(interrupted.ID); got != store.RunRunning {
		t.Errorf("a worker's sweep made the interrupted run %s", got)
	}
	if _, err := s.Pool().Exec(context.WithoutCancel(t.Context()), "update polar.reconcile_run set updated_at = now() - $1::interval where id = $2", time.Hour+time.Minute, interrupted.ID); err != nil {
		t.Fatal(err)
	}
	begun(t, s, store.RunRequest{ObjectType: "customer", Full: true, JobID: 8})
	if got := state(interrupted.ID); got != store.RunFailed {
		t.Errorf("after an hour a worker's sweep left the interrupted run %s", got)
	}
}
