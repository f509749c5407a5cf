package ingest_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// answerLimit is how soon Polar gets its answer whatever Postgres does.
const answerLimit = 8 * time.Second

var errNotWaiting = errors.New("nothing waits for a lock yet")

// deadAddress is one on which nothing listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// wantUnavailable posts an event, and wants a 503 in time.
func (e *edge) wantUnavailable(webhookID string) {
	e.t.Helper()
	started := time.Now()
	got := e.post(webhookID, order)
	if took := time.Since(started); took > answerLimit {
		e.t.Errorf("the answer took %s, want at most %s", took, answerLimit)
	}
	got.want(e.t, http.StatusServiceUnavailable)
	if seconds, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || seconds < 1 {
		e.t.Errorf("Retry-After is %q, want whole seconds", got.header.Get("Retry-After"))
	}
}

func (e *edge) get(path string) answer {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, "http://"+e.addr+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.send(request)
}

// wantProbes checks that the process lives, and whether it is ready.
func (e *edge) wantProbes(ready int) {
	e.t.Helper()
	e.get("/livez").want(e.t, http.StatusOK)
	e.get("/readyz").want(e.t, ready)
}

func TestEventsAreTakenAgainOnceAStoppedPostgresIsBack(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	pg, err := embeddedpg.Start(ctx, embeddedpg.Options{})
	if err != nil {
		t.Fatalf("starting a Postgres of the test's own: %v", err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	s, err := store.Open(pg.URL(), "ingest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Migrate(ctx, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, edgeOptions{events: s})
	e.store = s
	before, during := newID(), newID()
	e.post(before, order).want(t, http.StatusAccepted)
	e.wantProbes(http.StatusOK)

	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		e.wantUnavailable(during)
	}
	e.wantProbes(http.StatusServiceUnavailable)

	if err := pg.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	e.post(during, order).want(t, http.StatusAccepted)
	e.wantProbes(http.StatusOK)
	e.wantStored(before) // what got a 202 survived the crash
	e.wantStored(during)
	e.wantCount(countJobs, 2)
}

func TestPostgresThatNobodyServesGets503(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: storetest.Open(t, "postgres://nobody@"+deadAddress(t)+"/none?sslmode=disable")})
	e.wantUnavailable(newID())
	e.wantProbes(http.StatusServiceUnavailable)
}

func TestPostgresThatHangsGets503InTime(t *testing.T) {
	t.Parallel()
	// As many as are stored at once, one more, which waits for these, and more than the pool has connections.
	for _, deliveries := range []int{writers + 1, 12} {
		t.Run(strconv.Itoa(deliveries), func(t *testing.T) {
			t.Parallel()
			hangingPostgres(t, deliveries)
		})
	}
}

func hangingPostgres(t *testing.T, deliveries int) {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		held.Wait()
	})
	held.Go(func() {
		for {
			conn, err := listener.Accept() // and never answers
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { _ = conn.Close() })
		}
	})
	s, err := store.Open("postgres://nobody@"+listener.Addr().String()+"/none?sslmode=disable", "ingest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	e := newEdge(t, edgeOptions{events: s})
	var all sync.WaitGroup
	for range deliveries {
		all.Go(func() { e.wantUnavailable(newID()) })
	}
	e.wantProbes(http.StatusServiceUnavailable)
	all.Wait()
}

func TestLockedTableGets503InTimeAndNothingIsLost(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	tx := e.begin()
	if _, err := tx.Exec(t.Context(), "lock table polar.event_log"); err != nil {
		t.Fatal(err)
	}
	id := newID()
	e.wantUnavailable(id)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.post(id, order).want(t, http.StatusAccepted)
	e.wantCount(countEvents, 1)
	e.wantCount(countJobs, 1)
}

func TestDatabaseWithoutTheSchemaIsNotReady(t *testing.T) {
	t.Parallel()

	s := storetest.Open(t, storetest.EmptyURL(t))
	e := newEdge(t, edgeOptions{events: s})
	e.wantUnavailable(newID())
	e.wantProbes(http.StatusServiceUnavailable)
	if _, err := s.Migrate(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	e.wantProbes(http.StatusOK)
	e.post(newID(), order).want(t, http.StatusAccepted)
}

func TestReadOnlyPostgresGets503(t *testing.T) {
	t.Parallel()

	// A standby after a failover, to which an old connection still leads.
	u, err := url.Parse(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("default_transaction_read_only", "on")
	u.RawQuery = query.Encode()
	e := newEdge(t, edgeOptions{events: storetest.Open(t, u.String())})
	e.wantUnavailable(newID())
}
