package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Beat shows that a worker is alive.
func (s *Store) Beat(ctx context.Context, workerID string) error {
	if err := s.q.WorkerProcessBeat(ctx, s.pool, workerID); err != nil {
		return fmt.Errorf("showing a sign of life: %w", interpret(err))
	}
	return nil
}

// ClockLook is what a look at the database's clock shows.
type ClockLook struct {
	Now       time.Time
	SignAhead time.Duration // by how much the newest sign of life of any worker is later than now; negative: how old it is
}

// LookAtClock looks at the database's clock.
func (s *Store) LookAtClock(ctx context.Context) (ClockLook, error) {
	return lookAtClock(ctx, s.q, s.pool)
}

// LookAtClock looks at the clock of the database that this transaction is in, which may have leapt since it began.
func (t *Tx) LookAtClock(ctx context.Context) (ClockLook, error) { return lookAtClock(ctx, t.q, t.tx) }

func lookAtClock(ctx context.Context, q *dbsqlc.Queries, db dbsqlc.DBTX) (ClockLook, error) {
	row, err := q.ClockLook(ctx, db)
	if err != nil {
		return ClockLook{}, fmt.Errorf("looking at the clock: %w", interpret(err))
	}
	return ClockLook{Now: row.Now, SignAhead: time.Duration(row.SignSecondsAhead * float64(time.Second))}, nil
}

// Leases are how long what is held by the clock lasts at most.
type Leases struct {
	Checkout, Reconcile time.Duration
	Block               time.Duration // of all calls to Polar, after a 429 that does not say
	Beat                time.Duration // between two signs of life of a worker
}

// clockTolerance is how far the clock of another server may be behind, after a fail-over, without anybody caring.
const clockTolerance = 2 * time.Second

// MendClock makes due what would wait for the time of before, where the database's clock has gone back: by what the signs of life
// show or by ownCount, which is by how much the caller itself has seen it go back. It is to be called before Beat, which writes
// over what tells. wentBack is zero where the clock is well.
func (s *Store) MendClock(ctx context.Context, look ClockLook, ownCount time.Duration, leases Leases) (wentBack time.Duration, mended int64, err error) {
	wentBack = max(look.SignAhead, ownCount)
	if wentBack < clockTolerance {
		return 0, 0, nil
	}
	postedBack := wentBack
	if look.SignAhead < clockTolerance && look.SignAhead > -leases.Beat {
		postedBack = 0 // another worker has been here; left is what was dated by the caller's own count since
	}
	err = s.InTx(ctx, func(t *Tx) error {
		// Before all others: these it waits for, those that follow it passes over where they are locked.
		requests, err := t.q.ClockMendRequests(ctx, t.tx, postedBack, leases.Checkout)
		if err != nil {
			return interpret(err)
		}
		there, err := t.parts.feed.isThere(ctx, t.tx)
		if err != nil {
			return err
		}
		if there {
			if err := t.q.ClockMendFeed(ctx, t.tx); err != nil {
				return interpret(err)
			}
		}
		jobs, err := t.q.ClockMend(ctx, t.tx, leases.Reconcile, leases.Block)
		mended = requests + jobs
		return interpret(err)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("making due what waited for a clock that has gone back: %w", err)
	}
	return wentBack, mended, nil
}

// Leave takes a worker that stops from the list of the living.
func (s *Store) Leave(ctx context.Context, workerID string) error {
	if err := s.q.WorkerProcessForget(ctx, s.pool, workerID); err != nil {
		return fmt.Errorf("taking leave: %w", interpret(err))
	}
	return nil
}

// DropReads takes back the jobs that would read from Polar: for a Polar that has forgotten everything, as a fake one has that was
// started anew. No worker may be alive.
func (s *Store) DropReads(ctx context.Context) error {
	if err := s.q.ReadsDrop(ctx, s.pool); err != nil {
		return fmt.Errorf("taking back jobs that read from Polar: %w", interpret(err))
	}
	return nil
}

// LockUpkeep reports whether this transaction is the one that keeps house now.
func (t *Tx) LockUpkeep(ctx context.Context) (bool, error) {
	locked, err := t.q.UpkeepLock(ctx, t.tx)
	if err != nil {
		return false, fmt.Errorf("locking upkeep: %w", interpret(err))
	}
	return locked, nil
}

// ReturnDeadJobs makes jobs available again that are held by workers without a sign of life for deadAfter.
func (t *Tx) ReturnDeadJobs(ctx context.Context, deadAfter time.Duration) (int64, error) {
	n, err := t.q.RiverJobReturnDead(ctx, t.tx, deadAfter)
	if err != nil {
		return 0, fmt.Errorf("returning the jobs of dead workers: %w", interpret(err))
	}
	return n, nil
}

// MakeJobsDue makes due what a clock that is ahead has put off: all that is available, and jobs of these kinds that would wait
// longer than any of them has a reason to.
func (t *Tx) MakeJobsDue(ctx context.Context, longest time.Duration, kinds []string) (int64, error) {
	n, err := t.q.RiverJobMakeDue(ctx, t.tx, dbsqlc.RiverJobMakeDueParams{
		Longest: longest, Kinds: kinds, Queues: []string{QueueEvents, QueueCheckouts, queueDefault},
	})
	if err != nil {
		return 0, fmt.Errorf("making due what was put off: %w", interpret(err))
	}
	return n, nil
}

// ReturnLostJobs makes jobs available again that a living worker took longer than lostAfter ago, and is not at.
func (s *Store) ReturnLostJobs(ctx context.Context, workerID string, atWork []int64, lostAfter time.Duration) (int64, error) {
	if atWork == nil {
		atWork = []int64{} // null is unequal to nothing
	}
	n, err := s.q.RiverJobReturnLost(ctx, s.pool, dbsqlc.RiverJobReturnLostParams{WorkerID: workerID, AtWork: atWork, LostAfter: lostAfter})
	if err != nil {
		return 0, fmt.Errorf("returning lost jobs: %w", interpret(err))
	}
	return n, nil
}

// Budget is the share of Polar's rate limit that all processes draw from.
type Budget struct {
	PerSecond float64 // requests that become available in a second
	Capacity  float64 // requests that may gather while nobody calls
}

// TakeBudget takes amount requests, if reserve or more are left then. Where they cannot be had, wait says when they may.
func (s *Store) TakeBudget(ctx context.Context, b Budget, amount, reserve float64) (taken bool, wait time.Duration, err error) {
	_, err = s.q.APIBudgetTake(ctx, s.pool, dbsqlc.APIBudgetTakeParams{Capacity: b.Capacity, PerSecond: b.PerSecond, Amount: amount, Reserve: reserve})
	err = interpret(err)
	switch {
	case err == nil:
		return true, 0, nil
	case !errors.Is(err, ErrNotFound):
		return false, 0, fmt.Errorf("taking from the API budget: %w", err)
	}
	row, err := s.q.APIBudgetGet(ctx, s.pool)
	if err != nil {
		return false, 0, fmt.Errorf("reading the API budget: %w", interpret(err))
	}
	missing := reserve + amount - min(b.Capacity, row.Tokens+row.AgeSeconds*b.PerSecond)
	seconds := max(row.BlockedSeconds, missing/b.PerSecond, 0)
	return false, time.Duration(seconds * float64(time.Second)), nil
}

// BudgetLeft is how many calls the budget has left now: none while Polar has told everyone to wait.
func (s *Store) BudgetLeft(ctx context.Context, b Budget) (float64, error) {
	row, err := s.q.APIBudgetGet(ctx, s.pool)
	if err != nil {
		return 0, fmt.Errorf("reading the API budget: %w", interpret(err))
	}
	if row.BlockedSeconds > 0 {
		return 0, nil
	}
	return min(b.Capacity, row.Tokens+row.AgeSeconds*b.PerSecond), nil
}

// BudgetBlocked tells how long Polar has still told everyone to wait; 0: not at all.
func (s *Store) BudgetBlocked(ctx context.Context) (time.Duration, error) {
	row, err := s.q.APIBudgetGet(ctx, s.pool)
	if err != nil {
		return 0, fmt.Errorf("reading the API budget: %w", interpret(err))
	}
	return max(time.Duration(row.BlockedSeconds*float64(time.Second)), 0), nil
}

// BlockBudget stops every process's calls for as long as Polar said.
func (s *Store) BlockBudget(ctx context.Context, wait time.Duration) error {
	if err := s.q.APIBudgetBlock(ctx, s.pool, wait.Seconds()); err != nil {
		return fmt.Errorf("blocking the API budget: %w", interpret(err))
	}
	return nil
}

// QueueDepth is how many jobs of a kind are in a state, and how long the oldest has been due.
type QueueDepth struct {
	Queue         string  `json:"queue"`
	Kind          string  `json:"kind"`
	State         string  `json:"state"`
	Jobs          int64   `json:"jobs"`
	OldestSeconds float64 `json:"oldest_seconds"`
}

// Status is the state of the whole at a glance.
type Status struct {
	Customers         int64            `json:"customers"`
	Linked            int64            `json:"linked"`
	Unlinked          int64            `json:"unlinked"`
	OpenConflicts     int64            `json:"open_conflicts"`
	OpenDrift         int64            `json:"open_drift"`
	RequestsWaiting   int64            `json:"requests_waiting"`
	OldestWaiting     float64          `json:"oldest_request_waiting_seconds"` // of the requests that wait for their session
	RequestsOpen      int64            `json:"requests_open"`
	RequestsSucceeded int64            `json:"requests_succeeded"`
	RequestsFailed    int64            `json:"requests_failed"`
	WorkersAlive      int64            `json:"workers_alive"`
	ChangesDue        int64            `json:"changes_due"`               // rows of change_due, up to 10,000
	OldestChange      float64          `json:"oldest_change_due_seconds"` // for how long the oldest of them waits to be told
	LastEventAt       *time.Time       `json:"last_event_at"`
	OldestEventAt     *time.Time       `json:"oldest_event_at"` // of those that are kept
	Events            map[string]int64 `json:"events"`          // only received and failed are counted, each up to 100,000
	CountedAt         time.Time        `json:"counted_at"`      // customers, links and succeeded requests: a while ago where that takes long
	Remembered        bool             `json:"-"`               // that they were not counted just now
	Queues            []QueueDepth     `json:"queues"`
	LastRuns          []ReconcileRun   `json:"last_runs"` // the newest of each type
	Endpoint          *EndpointWatch   `json:"endpoint"`  // nil before the first look at it
	Gaps              *GapFill         `json:"gaps"`      // nil before the first search for them
}

// mostCounted bounds what is counted of events that are not applied: beyond, how many more there are tells nothing more.
const mostCounted = 100_000

// ReadStatus counts what an operator asks for first.
func (s *Store) ReadStatus(ctx context.Context) (Status, error) {
	began := time.Now()
	counts, countedAt, err := s.counts.get(ctx, func(ctx context.Context) (dbsqlc.StatusCountsRow, error) {
		return s.q.StatusCounts(ctx, s.pool)
	})
	if err != nil {
		return Status{}, fmt.Errorf("counting customers and links: %w", interpret(err))
	}
	open, err := s.q.StatusCountsOpen(ctx, s.pool)
	if err != nil {
		return Status{}, fmt.Errorf("reading the status: %w", interpret(err))
	}
	due, err := s.countChangesDue(ctx)
	if err != nil {
		return Status{}, err
	}
	status := Status{
		Customers: counts.Customers, Linked: counts.Linked, Unlinked: counts.Unlinked, RequestsSucceeded: counts.RequestsSucceeded,
		CountedAt: countedAt, Remembered: countedAt.Before(began),
		OpenConflicts: open.OpenConflicts, OpenDrift: open.OpenDrift,
		RequestsWaiting: open.RequestsWaiting, OldestWaiting: open.OldestWaitingSeconds, RequestsOpen: open.RequestsOpen, RequestsFailed: open.RequestsFailed,
		WorkersAlive: open.WorkersAlive, ChangesDue: due.Changes, OldestChange: due.OldestSeconds, Events: map[string]int64{}, Queues: []QueueDepth{},
	}
	if status.Endpoint, err = optional(s.GetEndpointWatch(ctx)); err != nil {
		return Status{}, err
	}
	if status.Gaps, err = optional(s.GetGapFill(ctx)); err != nil {
		return Status{}, err
	}
	last, err := s.q.EventLastReceivedAt(ctx, s.pool)
	if status.LastEventAt, err = optional(last, interpret(err)); err != nil {
		return Status{}, fmt.Errorf("reading the last event: %w", err)
	}
	oldest, err := s.q.EventOldestReceivedAt(ctx, s.pool)
	if status.OldestEventAt, err = optional(oldest, interpret(err)); err != nil {
		return Status{}, fmt.Errorf("reading the oldest event: %w", err)
	}
	events, err := s.q.EventCountByState(ctx, s.pool, mostCounted)
	if err != nil {
		return Status{}, fmt.Errorf("counting events: %w", interpret(err))
	}
	for _, c := range events {
		status.Events[c.State] = c.Events
	}
	if status.LastRuns, err = s.ListLastRuns(ctx); err != nil {
		return Status{}, err
	}
	depths, err := s.q.QueueDepth(ctx, s.pool)
	if err != nil {
		return Status{}, fmt.Errorf("counting jobs: %w", interpret(err))
	}
	for _, d := range depths {
		status.Queues = append(status.Queues, QueueDepth(d))
	}
	return status, nil
}

func (s *Store) countChangesDue(ctx context.Context) (due dbsqlc.ChangeDueCountRow, err error) {
	if there, err := s.parts.feed.isThere(ctx, s.pool); err != nil || !there {
		return due, err
	}
	if due, err = s.q.ChangeDueCount(ctx, s.pool); err != nil {
		return due, fmt.Errorf("counting changes that are due: %w", interpret(err))
	}
	return due, nil
}
