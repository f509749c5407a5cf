package ingest_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// writers is how many transactions ingest has open at once.
const writers = 2

// gate holds the first inserts until it is opened, and knows the size of each.
type gate struct {
	ingest.EventStore
	entered chan struct{}
	open    chan struct{}

	mu    sync.Mutex
	sizes []int
}

func newGate(events ingest.EventStore) *gate {
	return &gate{EventStore: events, entered: make(chan struct{}, 4096), open: make(chan struct{})}
}

func (g *gate) InsertEvents(ctx context.Context, deliveries []store.Delivery, wake bool) (store.Stored, error) {
	g.mu.Lock()
	g.sizes = append(g.sizes, len(deliveries))
	g.mu.Unlock()
	g.entered <- struct{}{}
	<-g.open
	return g.EventStore.InsertEvents(ctx, deliveries, wake)
}

// occupy has every writer of e held by a delivery of its own. The returned function waits for their answers.
func (g *gate) occupy(e *edge) (answered func()) {
	e.t.Helper()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() { e.post(newID(), order).want(e.t, http.StatusAccepted) })
		<-g.entered
	}
	return all.Wait
}

// waitFor polls until so many deliveries are on their way and unanswered.
func waitFor(t *testing.T, counter *atomic.Int64, n int64) {
	t.Helper()
	waittest.Within(t, 20*time.Second, func() error {
		if got := counter.Load(); got != n {
			return fmt.Errorf("%d, want %d", got, n)
		}
		return nil
	})
}

func TestDeliveriesInFlightTogetherCommitTogether(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	g := newGate(s)
	e := newEdge(t, edgeOptions{events: g})
	e.store = s
	first := g.occupy(e)
	const together = 40
	again := newID()
	ids := append(slices.Repeat([]string{again}, 3), newID())
	for len(ids) < together {
		ids = append(ids, newID())
	}
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() { e.post(id, order).want(t, http.StatusAccepted) })
	}
	waittest.Within(t, 20*time.Second, func() error {
		if n := e.receiver.Waiting(); n != together {
			return fmt.Errorf("%d deliveries wait, want %d", n, together)
		}
		return nil
	})
	e.wantCount(countEvents, 0)
	close(g.open)
	first()
	all.Wait()
	if want := []int{1, 1, together - 2}; !slices.Equal(g.sizes, want) {
		t.Errorf("inserted in batches of %v, want %v", g.sizes, want)
	}
	e.wantCount(countEvents, writers+together-2)
	e.wantCount(countJobs, writers+1)
	e.wantCount("select count(*) from polar.river_job j where (j.args ->> 'size')::int <> (select count(*) from polar.event_log l where l.batch = (j.args ->> 'batch')::bigint)", 0)
	lines := strings.Join(e.log.lines(t, writers+together), "")
	if n := strings.Count(lines, `"reason":"duplicate"`); n != 2 {
		t.Errorf("%d deliveries are logged as duplicates, want 2", n)
	}
}

func TestALoneDeliveryIsCommittedWithoutWaitingForCompany(t *testing.T) {
	t.Parallel()

	g := newGate(discard{})
	e := newEdge(t, edgeOptions{events: g})
	answered := g.occupy(e) // each is at the store before any other has come
	close(g.open)
	answered()
}

func TestARefusedDeliveryDoesNotFailItsNeighbours(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	g := newGate(s)
	e := newEdge(t, edgeOptions{events: g})
	e.store = s
	e.exec("alter table polar.event_log add constraint refused check (type <> 'planet.refused')") // stands for whatever Postgres may refuse
	first := g.occupy(e)
	statuses := make(chan int, 20)
	var all sync.WaitGroup
	for i := range cap(statuses) {
		body := order
		if i%7 == 3 {
			body = `{"type":"planet.refused"}`
		}
		all.Go(func() { statuses <- e.post(newID(), body).status })
	}
	waittest.Within(t, 20*time.Second, func() error {
		if n := e.receiver.Waiting(); n != cap(statuses) {
			return fmt.Errorf("%d deliveries wait, want %d", n, cap(statuses))
		}
		return nil
	})
	close(g.open)
	first()
	all.Wait()
	close(statuses)
	got := map[int]int{}
	for status := range statuses {
		got[status]++
	}
	if got[http.StatusAccepted] != 17 || got[http.StatusServiceUnavailable] != 3 {
		t.Errorf("answers by status: %v, want 17 of 202 and 3 of 503", got)
	}
	e.wantCount(countEvents, writers+17)
	e.wantCount("select count(*) from polar.event_log l where not exists (select from polar.river_job j where (j.args ->> 'batch')::bigint = l.batch)", 0)
}

func TestMoreDeliveriesThanIngestHoldsGet503AtOnce(t *testing.T) {
	t.Parallel()

	g := newGate(discard{})
	e := newEdge(t, edgeOptions{events: g})
	first := g.occupy(e)
	const places, beyond = 1024, 40
	var refused, accepted atomic.Int64
	var all sync.WaitGroup
	for range places + beyond {
		all.Go(func() {
			switch got := e.post(newID(), order); {
			case got.status == http.StatusAccepted:
				accepted.Add(1)
			case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				t.Errorf("answer %d, want 202, or 503 with Retry-After", got.status)
			}
		})
	}
	waitFor(t, &refused, beyond) // while nothing moves
	close(g.open)
	first()
	all.Wait()
	waitFor(t, &accepted, places)
	e.post(newID(), order).want(t, http.StatusAccepted)
	if most := slices.Max(g.sizes); most > 256 {
		t.Errorf("a batch of %d, want at most 256", most)
	}
}
