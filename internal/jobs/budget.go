package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// priority says who may still call Polar when little of the budget is left.
type priority int

const (
	prioritySweep priority = iota // lists; the default
	priorityLink                  // single objects that a link waits for
	priorityBuyer                 // a buyer waits
	priorities
)

type priorityKey struct{}

func withPriority(ctx context.Context, p priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// budgetError tells that the budget has nothing left for this caller now. Nothing was sent.
type budgetError struct{ wait time.Duration }

func (e *budgetError) Error() string {
	return fmt.Sprintf("the budget of calls to Polar is used up for %s (POLAR_RATE_LIMIT)", e.wait.Round(time.Millisecond))
}

// budget is the share of Polar's rate limit that all processes draw from, in Postgres. A process takes small blocks,
// so that the row is not written for every call.
type budget struct {
	store  *store.Store
	logger *slog.Logger
	limits store.Budget // zero: no limit

	mu    sync.Mutex
	stock [priorities]int
	until [priorities]time.Time // stock is good until then
}

const (
	stockFor     = 250 * time.Millisecond // so long after a 429 another process may still call
	unlimited    = math.MaxInt32
	longestWait  = 2 * time.Second // that a buyer's call waits in place
	defaultBlock = 10 * time.Second
)

// reserves are the parts of the capacity that each priority must leave for those above it.
var reserves = [priorities]float64{prioritySweep: 0.5, priorityLink: 0.2, priorityBuyer: 0}

var blocks = [priorities]int{prioritySweep: 2, priorityLink: 1, priorityBuyer: 3}

func newBudget(s *store.Store, perMinute int, logger *slog.Logger) *budget {
	b := &budget{store: s, logger: logger}
	if perMinute > 0 {
		// A full bucket and a minute's refill together stay within what Polar allows in any minute.
		b.limits = store.Budget{Capacity: max(float64(perMinute)/5, 5), PerSecond: float64(perMinute) * 0.8 / 60}
	}
	return b
}

// gate lets a call pass, waits a little for a buyer, or fails with a *budgetError.
func (b *budget) gate(ctx context.Context, _ polar.Call) error {
	p, _ := ctx.Value(priorityKey{}).(priority)
	deadline := time.Now().Add(longestWait)
	for {
		if b.takeStock(p) {
			return nil
		}
		wait, err := b.restock(ctx, p)
		if err != nil {
			return err
		}
		if wait == 0 {
			return nil
		}
		wait = max(wait, 20*time.Millisecond)
		if p != priorityBuyer || time.Now().Add(wait).After(deadline) {
			return &budgetError{wait: wait}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// restock takes a block of the budget, of which one call goes to the caller. Where there is none, it says how long to
// wait. Without a limit the stock has no end, but is asked for again as often: a 429 stops everyone all the same.
func (b *budget) restock(ctx context.Context, p priority) (wait time.Duration, err error) {
	if b.limits.PerSecond == 0 {
		if wait, err = b.store.BudgetBlocked(ctx); err != nil || wait > 0 {
			return wait, err
		}
		b.addStock(p, unlimited)
		return 0, nil
	}
	taken, wait, err := b.store.TakeBudget(ctx, b.limits, float64(blocks[p]), reserves[p]*b.limits.Capacity)
	if err != nil || !taken {
		return wait, err
	}
	b.addStock(p, blocks[p]-1)
	return 0, nil
}

func (b *budget) takeStock(p priority) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stock[p] == 0 || time.Now().After(b.until[p]) {
		return false
	}
	b.stock[p]--
	return true
}

func (b *budget) addStock(p priority, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().After(b.until[p]) {
		b.stock[p] = 0
	}
	b.stock[p] = min(b.stock[p]+n, unlimited)
	b.until[p] = time.Now().Add(stockFor)
}

// observe stops everyone for as long as Polar says.
func (b *budget) observe(info polar.ResponseInfo) {
	if info.Status != http.StatusTooManyRequests {
		return
	}
	wait := info.RetryAfter
	if wait <= 0 {
		wait = defaultBlock
	}
	b.mu.Lock()
	b.stock = [priorities]int{}
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b.logger.WarnContext(ctx, "Polar asks to wait", slog.Duration("wait", wait), slog.String("route", info.Route))
	if err := b.store.BlockBudget(ctx, wait); err != nil {
		b.logger.WarnContext(ctx, "telling other processes to wait failed", slog.String("error", err.Error()))
	}
}
