package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// Limits of committing together. Chosen by measurement: more writers make smaller batches, and fewer leave the
// processor idle while Postgres flushes.
const (
	maxWriters      = 2        // transactions at once
	maxBatch        = 256      // deliveries in one
	maxBatchBytes   = 4 << 20  // and their bodies
	maxWaiting      = 1024     // deliveries that wait for a writer
	maxWaitingBytes = 32 << 20 // and their bodies
	maxWait         = 2 * time.Second
	commitTimeout   = 5 * time.Second // with maxWait, under the 8 seconds that an answer may take
)

var (
	errFull = errors.New("too many deliveries wait to be stored")
	errSlow = errors.New("waited too long for the deliveries before")
)

// committer stores deliveries that are in flight together in one transaction. One that comes alone is stored at once;
// those that come while the writers are busy make the next batch.
type committer struct {
	store  EventStore
	tracer trace.Tracer // nil: nothing is traced

	mu       sync.Mutex
	waiting  []*waiter
	bytes    int // of the waiting
	writers  int // at work
	lastWake time.Time
}

// waiter is a delivery and who waits for its commit.
type waiter struct {
	delivery  store.Delivery
	span      trace.Span // of its request; nil where nothing is traced
	since     time.Time
	duplicate bool       // it was stored before
	again     bool       // and failed then, so that it is tried again
	done      chan error // gets one value, when the commit is certain or has failed
}

// commit returns once the delivery is durable. Errors: errFull, errSlow, those of InsertEvents.
func (c *committer) commit(w *waiter) error {
	w.since, w.done = time.Now(), make(chan error, 1)
	c.mu.Lock()
	if len(c.waiting) >= maxWaiting || c.bytes > maxWaitingBytes {
		c.mu.Unlock()
		return errFull
	}
	c.waiting = append(c.waiting, w)
	c.bytes += len(w.delivery.Body)
	if c.writers == maxWriters {
		c.mu.Unlock()
		return <-w.done
	}
	c.writers++
	c.mu.Unlock()
	go c.work()
	return <-w.done
}

// waitingNow is how many deliveries wait for a writer.
func (c *committer) waitingNow() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return float64(len(c.waiting))
}

// work writes batch after batch while any delivery waits.
func (c *committer) work() {
	for {
		c.mu.Lock()
		batch := c.take()
		c.mu.Unlock()
		c.write(batch)
		if !c.mayGoOn() {
			return
		}
	}
}

// mayGoOn ends a writer when nobody waits.
func (c *committer) mayGoOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) > 0 {
		return true
	}
	c.writers--
	return false
}

// take cuts the next batch off the queue. The caller holds c.mu.
func (c *committer) take() []*waiter {
	size, n := 0, 0
	for n < min(len(c.waiting), maxBatch) {
		size += len(c.waiting[n].delivery.Body)
		if n > 0 && size > maxBatchBytes {
			size -= len(c.waiting[n].delivery.Body)
			break
		}
		n++
	}
	batch := slices.Clone(c.waiting[:n])
	c.waiting = slices.Delete(c.waiting, 0, n)
	c.bytes -= size
	return batch
}

// write stores a batch and tells those who wait.
func (c *committer) write(batch []*waiter) {
	batch = slices.DeleteFunc(batch, func(w *waiter) bool {
		if time.Since(w.since) < maxWait {
			return false
		}
		w.done <- errSlow
		return true
	})
	// In one order everywhere, so that two transactions with the same ids never wait for each other in a circle.
	slices.SortStableFunc(batch, func(a, b *waiter) int { return strings.Compare(a.delivery.WebhookID, b.delivery.WebhookID) })
	// Polar hangs up after 10 seconds. What is committed after that is a duplicate later, never a loss.
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	if len(batch) > 0 {
		c.insert(ctx, batch)
	}
}

// insert stores deliveries in one transaction. One that Postgres refuses does not fail its neighbours.
func (c *committer) insert(ctx context.Context, batch []*waiter) {
	_ = store.Isolate(batch, func(batch []*waiter) error {
		ctx, span := c.startSpan(ctx, batch)
		stored, err := c.store.InsertEvents(ctx, distinct(batch), c.mayWake())
		endSpan(span, stored, err)
		if errors.Is(err, store.ErrRefused) {
			return err
		}
		for i, w := range batch {
			id := w.delivery.WebhookID
			w.duplicate = slices.Contains(stored.Known, id) || i > 0 && batch[i-1].delivery.WebhookID == id
			w.again = slices.Contains(stored.Again, id)
			w.done <- err
		}
		return nil // each of the batch has its answer
	}, func(w *waiter, refused error) error {
		w.done <- refused
		return nil
	})
}

// distinct are the deliveries of a sorted batch, each id once.
func distinct(batch []*waiter) []store.Delivery {
	deliveries := make([]store.Delivery, 0, len(batch))
	for i, w := range batch {
		if i == 0 || batch[i-1].delivery.WebhookID != w.delivery.WebhookID {
			deliveries = append(deliveries, w.delivery)
		}
	}
	return deliveries
}

// mayWake limits notifications, each of which takes a lock on the whole Postgres server: what comes in between is
// found by the workers' next poll.
func (c *committer) mayWake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.lastWake) < wakeAtMostEach {
		return false
	}
	c.lastWake = now
	return true
}
