package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// phase is what a sweep does next.
type phase string

const (
	phaseBegin      phase = ""           // find out where the list is to be read from
	phaseList       phase = "list"       // page through it, ascending
	phaseTail       phase = "tail"       // look at what the mirror has beyond its end
	phaseConfirm    phase = "confirm"    // page through it again: who is missed twice is gone
	phaseBury       phase = "bury"       // make tombstones of those
	phaseUnfinished phase = "unfinished" // read what is not over and older than what was listed
	phaseSeats      phase = "seats"      // list the seats of whatever has some
)

// sweepCursor is where a run goes on after a crash. It stays small however long the list is.
type sweepCursor struct {
	Phase  phase       `json:"phase,omitempty"`
	From   time.Time   `json:"from,omitzero"`     // nothing older is looked at
	Offset int         `json:"offset,omitempty"`  // objects of the list that lie behind
	Key    time.Time   `json:"key,omitzero"`      // sort key of the last of them
	Recent []uuid.UUID `json:"recent,omitempty"`  // the last page
	Total  int         `json:"total,omitempty"`   // as Polar said last
	ReadAt time.Time   `json:"read_at,omitzero"`  // of the last page, by Polar's clock
	After  uuid.UUID   `json:"after,omitzero"`    // in the phases that go by id
	Failed int         `json:"failed,omitempty"`  // objects that could not be repaired
	Why    string      `json:"why,omitempty"`     // the first of them
	Listed time.Time   `json:"listed,omitzero"`   // the highest key that was listed in order
	Ties   int         `json:"ties,omitempty"`    // objects that lie behind with just this key
	Before time.Time   `json:"before,omitzero"`   // what is unfinished and older is read by id
	Passes bool        `json:"confirm,omitempty"` // there is somebody to confirm
}

// noKey is the sort key of objects that have none: they come last.
var noKey = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func keyOf(d polar.Document) time.Time {
	if d.SortKey.IsZero() {
		return noKey
	}
	return d.SortKey
}

const (
	readChunk    = 25              // objects read one by one before they are written
	unsettled    = 5 * time.Second // an object so new may be missing in a list that was read just before
	unfinishedBy = 48 * time.Hour  // sessions live for a day: older ones that are not over are few, and read by id
	overlap      = time.Hour       // that a sweep of what is new looks back beyond the last one
	renewalGrace = 15 * time.Minute
	mostTies     = polar.MaxPageSize * 3 / 4 // objects of one key that one page can look at again
	mostMissed   = 0.5                       // of the living, whom two sweeps may miss and be believed
	fewMissed    = 25                        // that are believed in any case
	mostRefused  = 3                         // reads by id that may fail for Polar's own reasons in one chunk
)

// sweep is a run in progress.
type sweep struct {
	runner           *Runner
	run              store.ReconcileRun
	resource         polar.Resource
	cursor           sweepCursor
	holder           string             // of the place of reconciling
	holders          []store.SeatHolder // the next ones, read ahead
	deadline         time.Time
	tell             func(Progress)
	seen             int64
	acceptsDeletions bool // a person says that most objects of a type are gone indeed

	settles bool // something of this type is open in the ledger that may be in step by now
}

// errPieceOver ends a piece of work in the middle of a step that can be gone on with.
var errPieceOver = errors.New("the piece of work is over; the step goes on in the next")

// ask makes a call to Polar. It waits in place where that, or the budget, asks for no more than waiting: what the step
// has read so far must not be lost for it.
func (s *sweep) ask(ctx context.Context, call func() error) error {
	for {
		err := call()
		wait, ok := waitFor(err)
		if !ok {
			return err
		}
		s.tell(Progress{ObjectType: s.run.ObjectType, Seen: s.seen, Total: int64(s.cursor.Total), WaitFor: wait})
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// list reads a page of the list.
func (s *sweep) list(ctx context.Context, number, limit int) (page polar.Page[polar.Document], err error) {
	err = s.ask(ctx, func() (err error) {
		page, err = s.runner.api.ListObjects(ctx, s.resource, number, limit)
		return err
	})
	return page, err
}

func (r *Runner) newSweep(ctx context.Context, run store.ReconcileRun, holder string) (*sweep, error) {
	resource, ok := polar.ResourceOf(run.ObjectType)
	if !ok {
		return nil, fmt.Errorf("sweeping %s: Polar does not serve it", run.ObjectType)
	}
	s := &sweep{runner: r, run: run, resource: resource, holder: holder, seen: run.Seen, tell: func(Progress) {}}
	if len(run.Cursor) > 0 {
		if err := json.Unmarshal(run.Cursor, &s.cursor); err != nil {
			return nil, fmt.Errorf("sweeping %s: reading where run %d stopped: %w", run.ObjectType, run.ID, err)
		}
	}
	var err error
	s.settles, err = r.store.HasOpenDrift(ctx, run.ObjectType)
	return s, err
}

// unrepaired is why a run that came to its end failed all the same; empty: it did not.
func (s *sweep) unrepaired() string {
	if s.cursor.Failed == 0 {
		return ""
	}
	return fmt.Sprintf("%d objects could not be repaired; the first: %s", s.cursor.Failed, s.cursor.Why)
}

// step does one piece of work and records how far the run is. A step that failed may be tried again.
func (s *sweep) step(ctx context.Context) (done bool, err error) {
	switch s.cursor.Phase {
	case phaseBegin:
		return false, s.begin(ctx)
	case phaseList, phaseConfirm:
		return false, s.listPage(ctx)
	case phaseTail:
		return s.tail(ctx)
	case phaseBury:
		return s.bury(ctx)
	case phaseUnfinished:
		return s.unfinished(ctx)
	case phaseSeats:
		return s.seats(ctx)
	}
	return false, fmt.Errorf("run %d stopped in a phase that this release does not know: %q", s.run.ID, s.cursor.Phase)
}

// advance writes the cursor with what a step adds, in a transaction of its own.
func (s *sweep) advance(ctx context.Context, next sweepCursor, step store.RunStep) error {
	return s.runner.store.InTx(ctx, func(tx *store.Tx) error { return s.advanceIn(ctx, tx, next, &step) })
}

// advanceIn is advance within the transaction of the step's work. The sweep itself moves on when that is committed.
func (s *sweep) advanceIn(ctx context.Context, tx *store.Tx, next sweepCursor, step *store.RunStep) error {
	encoded, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encoding the cursor: %w", err)
	}
	step.Cursor, step.Total, step.ListedUntil = encoded, int64(next.Total), next.Listed
	if err := tx.AdvanceRun(ctx, s.run.ID, s.holder, *step); err != nil {
		return err
	}
	crashpoint.Here("sweep.advanced")
	return nil
}

func (s *sweep) moved(next sweepCursor, step store.RunStep) {
	s.cursor = next
	s.seen += step.Seen
}

// begin finds out from where the list is to be read.
func (s *sweep) begin(ctx context.Context) error {
	next := s.cursor
	if s.resource.SortKey == "" {
		next.Phase = phaseSeats
		return s.moveTo(ctx, next)
	}
	next.Phase = phaseList
	switch {
	case s.run.Since != nil:
		next.From = *s.run.Since
	case !s.run.Full:
		if err := s.beginWithNew(ctx, &next); err != nil {
			return err
		}
	}
	if !next.From.IsZero() {
		offset, total, err := s.findOffset(ctx, next.From)
		if err != nil {
			return err
		}
		next.Offset, next.Key, next.Total = offset, next.From, total
	}
	return s.moveTo(ctx, next)
}

func (s *sweep) moveTo(ctx context.Context, next sweepCursor) error {
	if err := s.advance(ctx, next, store.RunStep{}); err != nil {
		return err
	}
	s.moved(next, store.RunStep{})
	return nil
}

// beginWithNew looks at what came since the last sweep, and at what was not over then.
func (s *sweep) beginWithNew(ctx context.Context, next *sweepCursor) error {
	r := s.runner
	last, err := r.store.LastRun(ctx, s.run.ObjectType, false)
	if errors.Is(err, store.ErrNotFound) || (err == nil && last.ListedUntil == nil) {
		return nil // everything is new
	}
	if err != nil {
		return err
	}
	next.From = last.ListedUntil.Add(-overlap)
	next.Before = next.From
	if s.run.ObjectType == typeCheckout {
		// Those that a buyer may still pay are many, so they are listed; the few that are older are read by id.
		oldest, err := r.store.OldestUnfinishedCheckout(ctx, next.From.Add(-unfinishedBy))
		if err != nil {
			return err
		}
		if !oldest.IsZero() && oldest.Before(next.From) {
			next.From, next.Before = oldest, oldest
		}
	}
	return nil
}

// findOffset is how many objects of the list come before a key, by halving.
func (s *sweep) findOffset(ctx context.Context, key time.Time) (offset, total int, err error) {
	first, err := s.list(ctx, 1, 1)
	if err != nil {
		return 0, 0, err
	}
	if total = first.TotalCount; len(first.Items) == 0 || !keyOf(first.Items[0]).Before(key) {
		return 0, total, nil
	}
	low, high := 1, total // the objects before low come before the key; those from high on do not
	for low < high {
		middle := (low + high) / 2
		page, err := s.list(ctx, middle+1, 1)
		if err != nil {
			return 0, 0, err
		}
		if len(page.Items) > 0 && keyOf(page.Items[0]).Before(key) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, total, nil
}

// window is the page, and its size, that begins a little before offset: Polar counts by pages, and only a page that
// begins with an object seen before proves that none has slid from the next page to the last one.
func window(offset int) (page, limit int) {
	if offset == 0 {
		return 1, polar.MaxPageSize
	}
	page, limit, best := 1, polar.MaxPageSize, offset
	for before := max((offset-1)/polar.MaxPageSize, 0); ; before++ {
		if before == 0 {
			continue
		}
		size := min((offset-1)/before, polar.MaxPageSize)
		if size < polar.MaxPageSize-polar.MaxPageSize/8 {
			break
		}
		if back := offset - before*size; back < best {
			page, limit, best = before+1, size, back
		}
		if best <= 2 {
			break
		}
	}
	if best >= limit { // a short list: its beginning is as near
		return max((offset-1)/polar.MaxPageSize, 0) + 1, polar.MaxPageSize
	}
	return page, limit
}

// listPage reads the next page, compares it, and looks at what the mirror has in its range that it does not show.
func (s *sweep) listPage(ctx context.Context) error {
	// Objects of one key may stand in another order on another page, so all of the last key are looked at again.
	number, limit := window(max(s.cursor.Offset-min(s.cursor.Ties, mostTies), min(s.cursor.Offset, 1)))
	page, err := s.list(ctx, number, limit)
	if err != nil {
		return err
	}
	page.Items = distinctDocuments(page.Items)
	start := (number - 1) * limit
	if start > 0 && !s.joins(page.Items) {
		// Objects before this page were deleted since, so that others slid back to where nobody looks any more.
		s.cursor.Offset = max(s.cursor.Offset-polar.MaxPageSize, 0)
		return nil
	}
	if start == 0 && len(page.Items) == 0 && s.cursor.Total > 0 {
		return fmt.Errorf("a list of %d objects of type %s had none a moment later: Polar's answers are not to be trusted now", s.cursor.Total, s.run.ObjectType)
	}

	next := s.cursor
	next.Total, next.ReadAt, next.Recent = page.TotalCount, page.ReadAt, make([]uuid.UUID, len(page.Items))
	next.Offset = max(s.cursor.Offset, start+len(page.Items))
	var boundary []uuid.UUID
	fresh := int64(0)
	for i, d := range page.Items {
		next.Recent[i] = d.ID
		key := keyOf(d)
		if !slices.Contains(s.cursor.Recent, d.ID) && !key.Before(s.cursor.Key) {
			fresh++
		}
		if key.After(next.Key) {
			next.Key, boundary = key, nil
		}
		if key.Equal(next.Key) {
			boundary = append(boundary, d.ID)
			next.Ties = len(boundary)
		}
		if key.Before(noKey) && key.After(next.Listed) {
			next.Listed = key
		}
	}
	over := start+len(page.Items) >= page.TotalCount
	if s.cursor.Phase == phaseConfirm {
		return s.confirmPage(ctx, next, over)
	}
	if over {
		next.Phase = phaseTail
	}
	if err := s.lookForUnseen(ctx, store.KeyRange{From: s.cursor.Key, Until: next.Key}, next); err != nil {
		return err
	}
	wanted := slices.DeleteFunc(slices.Clone(page.Items), func(d polar.Document) bool { return keyOf(d).Before(s.cursor.From) })
	return s.compare(ctx, wanted, func(ctx context.Context, tx *store.Tx, step *store.RunStep) error {
		step.Seen += fresh
		if next.Key.After(s.cursor.Key) {
			if err := tx.UnmarkObjects(ctx, s.run.ID, store.MarkBoundary, nil); err != nil {
				return err
			}
		}
		if err := tx.MarkObjects(ctx, s.run.ID, store.MarkBoundary, boundary); err != nil {
			return err
		}
		return s.advanceIn(ctx, tx, s.withFailures(next), step)
	}, next)
}

// withFailures carries what could not be repaired, which compare notes while it works.
func (s *sweep) withFailures(next sweepCursor) sweepCursor {
	next.Failed, next.Why, next.Passes = s.cursor.Failed, s.cursor.Why, s.cursor.Passes || next.Passes
	return next
}

// joins tells whether a page begins with what was seen before, so that nothing lies between.
func (s *sweep) joins(items []polar.Document) bool {
	return len(items) > 0 && (slices.Contains(s.cursor.Recent, items[0].ID) || keyOf(items[0]).Before(s.cursor.Key))
}

// fail notes an object that could not be repaired.
func (s *sweep) fail(id uuid.UUID, err error) {
	if s.cursor.Failed++; s.cursor.Why == "" {
		s.cursor.Why = id.String() + ": " + err.Error()
	}
}

// distinctDocuments leaves out what stands twice on a page: objects slide while it is read.
func distinctDocuments(documents []polar.Document) []polar.Document {
	seen := make(map[uuid.UUID]bool, len(documents))
	return slices.DeleteFunc(documents, func(d polar.Document) bool {
		twice := seen[d.ID]
		seen[d.ID] = true
		return twice
	})
}
