package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// States of a reconcile run.
const (
	RunRunning  = "running"
	RunFinished = "finished"
	RunFailed   = "failed"
)

// ReconcileRun is a row of reconcile_run.
type ReconcileRun struct {
	ID          int64           `json:"id"`
	ObjectType  string          `json:"object_type"`
	State       string          `json:"state"`
	DryRun      bool            `json:"dry_run"`
	StartedAt   time.Time       `json:"started_at"`
	FinishedAt  *time.Time      `json:"finished_at"`
	Seen        int64           `json:"seen"`
	Drifted     int64           `json:"drifted"`
	Repaired    int64           `json:"repaired"`
	Error       *string         `json:"error"`
	Full        bool            `json:"full_sweep"`
	Since       *time.Time      `json:"since"`
	Total       *int64          `json:"total"`
	Benign      int64           `json:"benign"`
	Refreshed   int64           `json:"refreshed"`
	ListedUntil *time.Time      `json:"listed_until"`
	Cursor      json.RawMessage `json:"-"`
	JobID       *int64          `json:"-"`
	UpdatedAt   time.Time       `json:"updated_at"`
}

// RunStep is what one step of a run adds to it.
type RunStep struct {
	Seen, Drifted, Repaired, Benign, Refreshed int64

	Cursor      json.RawMessage
	Total       int64     // 0: not known
	ListedUntil time.Time // zero: as before
}

// TakeReconcileLease takes the place of the one that reconciles, across all hosts, for a while. It reports whether it
// was free, or the holder's already.
func (s *Store) TakeReconcileLease(ctx context.Context, holder string, lease time.Duration) (bool, error) {
	_, err := s.q.ReconcileLeaseTake(ctx, s.pool, holder, lease)
	switch err = interpret(err); {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil
	}
	return false, fmt.Errorf("taking the place of reconciling: %w", err)
}

// KeepReconcileLease lengthens the holder's lease. It reports whether the holder still had it.
func (s *Store) KeepReconcileLease(ctx context.Context, holder string, lease time.Duration) (bool, error) {
	n, err := s.q.ReconcileLeaseKeep(ctx, s.pool, lease, holder)
	if err != nil {
		return false, fmt.Errorf("keeping the place of reconciling: %w", interpret(err))
	}
	return n == 1, nil
}

// ReleaseReconcileLease gives the place to whoever waits.
func (s *Store) ReleaseReconcileLease(ctx context.Context, holder string) error {
	if err := s.q.ReconcileLeaseRelease(ctx, s.pool, holder); err != nil {
		return fmt.Errorf("leaving the place of reconciling: %w", interpret(err))
	}
	return nil
}

// RunRequest says what a run is to be.
type RunRequest struct {
	ObjectType string
	DryRun     bool
	Full       bool
	Since      time.Time // zero: everything
	JobID      int64     // 0: of the command line
	Attempt    int       // of the job: what failed in an earlier one is tried again, once in each; 0: never
	Fresh      bool      // begin anew, even if a run of the command line was interrupted
}

// A run of the command line that was interrupted is gone on with, rather than begun anew, for so long after its last
// step, and if it had seen so many objects.
const (
	resumableWithin = time.Hour
	worthResuming   = 1000
)

// StartRun finds the run that a dead process or an earlier piece of the same job left, or begins one; those that
// nobody goes on with are ended. The caller holds the lease. over tells that the job's run had ended already.
func (s *Store) StartRun(ctx context.Context, request RunRequest) (run ReconcileRun, over bool, err error) {
	err = s.InTx(ctx, func(tx *Tx) error {
		var row dbsqlc.PolarReconcileRun
		var begun int64
		var err error
		switch {
		case request.JobID != 0:
			var last dbsqlc.ReconcileRunOfJobRow
			last, err = tx.q.ReconcileRunOfJob(ctx, tx.tx, request.JobID, request.ObjectType)
			row, begun = last.PolarReconcileRun, last.Runs
		case request.Fresh:
			err = ErrNotFound
		default:
			row, err = tx.q.ReconcileRunResumable(ctx, tx.tx, dbsqlc.ReconcileRunResumableParams{
				ObjectType: request.ObjectType, DryRun: request.DryRun, FullSweep: request.Full, Since: orNilTime(request.Since), Within: resumableWithin, Worth: worthResuming,
			})
		}
		err = interpret(err)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		found := err == nil && (row.State != RunFailed || begun >= int64(request.Attempt))
		keep := int64(0)
		if found {
			keep = row.ID
		}
		if err := tx.q.ReconcileRunAbandon(ctx, tx.tx, dbsqlc.ReconcileRunAbandonParams{
			KeepID: keep, ObjectType: request.ObjectType, DryRun: request.DryRun, OfCommandLine: request.JobID == 0, Within: resumableWithin,
		}); err != nil {
			return interpret(err)
		}
		if err := tx.q.ReconcileMarkForget(ctx, tx.tx); err != nil {
			return interpret(err)
		}
		if !found {
			params := dbsqlc.ReconcileRunInsertParams{ObjectType: request.ObjectType, DryRun: request.DryRun, FullSweep: request.Full, Since: orNilTime(request.Since)}
			if request.JobID != 0 {
				params.JobID = &request.JobID
			}
			if row, err = tx.q.ReconcileRunInsert(ctx, tx.tx, params); err != nil {
				return interpret(err)
			}
		}
		run, over = runOf(row), row.State != RunRunning
		return nil
	})
	if err != nil {
		return ReconcileRun{}, false, fmt.Errorf("starting a run for %s: %w", request.ObjectType, err)
	}
	return run, over, nil
}

func orNilTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func runOf(row dbsqlc.PolarReconcileRun) ReconcileRun {
	return ReconcileRun{
		ID: row.ID, ObjectType: row.ObjectType, State: row.State, DryRun: row.DryRun, StartedAt: row.StartedAt, FinishedAt: row.FinishedAt,
		Seen: row.Seen, Drifted: row.Drifted, Repaired: row.Repaired, Error: row.Error, Full: row.FullSweep, Since: row.Since, Total: row.Total,
		Benign: row.Benign, Refreshed: row.Refreshed, ListedUntil: row.ListedUntil, Cursor: row.Cursor, JobID: row.JobID, UpdatedAt: row.UpdatedAt,
	}
}

// ErrLeaseLost tells that another process reconciles by now.
var ErrLeaseLost = errors.New("another process reconciles by now: this one was not heard of for too long")

// AdvanceRun records a step of a run in the transaction of the step's work. Errors: ErrLeaseLost where the holder has
// lost the place, or another has ended the run.
func (t *Tx) AdvanceRun(ctx context.Context, id int64, holder string, step RunStep) error {
	params := dbsqlc.ReconcileRunStepParams{
		Cursor: step.Cursor, Seen: step.Seen, Drifted: step.Drifted, Repaired: step.Repaired, Benign: step.Benign, Refreshed: step.Refreshed,
		ListedUntil: timeOrNil(step.ListedUntil), ID: id, Holder: holder,
	}
	if step.Total > 0 {
		params.Total = &step.Total
	}
	n, err := t.q.ReconcileRunStep(ctx, t.tx, params)
	if err != nil {
		return fmt.Errorf("recording a step of run %d: %w", id, interpret(err))
	}
	if n == 0 {
		return fmt.Errorf("recording a step of run %d: %w", id, ErrLeaseLost)
	}
	return nil
}

// NoteRunError records why a run's last try failed; it goes on.
func (s *Store) NoteRunError(ctx context.Context, id int64, reason string) error {
	if err := s.q.ReconcileRunTried(ctx, s.pool, storableText(reason), id); err != nil {
		return fmt.Errorf("recording the error of run %d: %w", id, interpret(err))
	}
	return nil
}

// EndRun ends a run: finished, or failed where there is a reason. reachedEnd tells that it looked at all there is.
// Errors: ErrNotFound where it is over already.
func (s *Store) EndRun(ctx context.Context, run ReconcileRun, reason string, reachedEnd bool) (ended ReconcileRun, err error) {
	err = s.InTx(ctx, func(tx *Tx) error {
		row, err := tx.q.ReconcileRunEnd(ctx, tx.tx, dbsqlc.ReconcileRunEndParams{ID: run.ID, Error: storableText(reason), ReachedEnd: reachedEnd})
		if err != nil {
			return interpret(err)
		}
		ended = runOf(row)
		if reason == "" && reachedEnd && run.Full && run.Since == nil && !run.DryRun {
			if err := tx.SettleRest(ctx, run.ObjectType, run.ID); err != nil {
				return err
			}
		}
		return interpret(tx.q.ReconcileMarkForget(ctx, tx.tx))
	})
	if err != nil {
		return ReconcileRun{}, fmt.Errorf("ending run %d: %w", run.ID, err)
	}
	return ended, nil
}

// LastRun is the newest run of a type that looked at all there is and repaired; fullOnly: that was a full sweep.
// Errors: ErrNotFound.
func (s *Store) LastRun(ctx context.Context, objectType string, fullOnly bool) (ReconcileRun, error) {
	row, err := s.q.ReconcileRunLastFinished(ctx, s.pool, objectType, fullOnly)
	if err != nil {
		return ReconcileRun{}, fmt.Errorf("looking for the last run for %s: %w", objectType, interpret(err))
	}
	return runOf(row), nil
}

// GetRun reads a run. Errors: ErrNotFound.
func (s *Store) GetRun(ctx context.Context, id int64) (ReconcileRun, error) {
	row, err := s.q.ReconcileRunGet(ctx, s.pool, id)
	if err != nil {
		return ReconcileRun{}, fmt.Errorf("reading run %d: %w", id, interpret(err))
	}
	return runOf(row), nil
}

// ListLastRuns gives the newest run of each type.
func (s *Store) ListLastRuns(ctx context.Context) ([]ReconcileRun, error) {
	rows, err := s.q.ReconcileRunListLast(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("reading the last runs: %w", interpret(err))
	}
	runs := make([]ReconcileRun, len(rows))
	for i, row := range rows {
		runs[i] = runOf(row)
	}
	return runs, nil
}

// ForgetRuns deletes runs that ended longer ago than keep, but for what sweeps still look back to, and drift
// that was resolved as long ago.
func (s *Store) ForgetRuns(ctx context.Context, keep time.Duration) error {
	if err := s.q.ReconcileRunForget(ctx, s.pool, keep); err != nil {
		return fmt.Errorf("deleting old runs: %w", interpret(err))
	}
	return nil
}

// Kinds of marks that a run sets on objects.
const (
	MarkBoundary = "boundary" // seen, and as old as the last object of the last page
	MarkSuspect  = "suspect"  // not seen, and to be missed a second time before it counts as gone
)

// MarkObjects sets marks of a run.
func (t *Tx) MarkObjects(ctx context.Context, runID int64, kind string, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	err := t.q.ReconcileMarkAdd(ctx, t.tx, dbsqlc.ReconcileMarkAddParams{RunID: runID, Kind: kind, ObjectIds: ids})
	if err != nil {
		return fmt.Errorf("marking %d objects: %w", len(ids), interpret(err))
	}
	return nil
}

// UnmarkObjects takes marks of a run away; nil ids: all of the kind.
func (t *Tx) UnmarkObjects(ctx context.Context, runID int64, kind string, ids []uuid.UUID) error {
	var err error
	if ids == nil {
		err = t.q.ReconcileMarkClear(ctx, t.tx, runID, kind)
	} else {
		err = t.q.ReconcileMarkRemove(ctx, t.tx, dbsqlc.ReconcileMarkRemoveParams{RunID: runID, Kind: kind, ObjectIds: ids})
	}
	if err != nil {
		return fmt.Errorf("taking marks away: %w", interpret(err))
	}
	return nil
}

// ListMarked gives marked objects of a run in the order of their ids, after one of them.
func (s *Store) ListMarked(ctx context.Context, runID int64, kind string, after uuid.UUID, limit int32) ([]uuid.UUID, error) {
	ids, err := s.q.ReconcileMarkList(ctx, s.pool, dbsqlc.ReconcileMarkListParams{RunID: runID, Kind: kind, AfterID: after, MaxRows: limit})
	if err != nil {
		return nil, fmt.Errorf("reading marks: %w", interpret(err))
	}
	return ids, nil
}

// ReadSweepAges tells how long ago the last comparison of each type of objects ended well.
func (s *Store) ReadSweepAges(ctx context.Context) (map[string]time.Duration, error) {
	rows, err := s.q.LastReconcileAges(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("reading when sweeps ended: %w", interpret(err))
	}
	ages := make(map[string]time.Duration, len(rows))
	for _, row := range rows {
		ages[row.ObjectType] = time.Duration(row.Seconds * float64(time.Second))
	}
	return ages, nil
}

// ReadSweepEnds tells of each type of objects whether the newest comparison that has ended, of the whole list, ended well.
func (s *Store) ReadSweepEnds(ctx context.Context) (map[string]bool, error) {
	rows, err := s.q.ReconcileRunLastEnded(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("reading how sweeps ended: %w", interpret(err))
	}
	ends := make(map[string]bool, len(rows))
	for _, row := range rows {
		ends[row.ObjectType] = row.State == RunFinished
	}
	return ends, nil
}
