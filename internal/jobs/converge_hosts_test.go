package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// hosts are where ingest, worker and Postgres run, and how they fail.
type hosts interface {
	start()
	toggleIngest()
	togglePostgres()
	killWorker()
	restore() // everything runs again
	stop()
}

// relay is the way to Postgres of one program, which can be cut.
type relay struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

// newRelay returns a relay and the URL of the database behind it.
func newRelay(databaseURL string) (*relay, string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return nil, "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	r := &relay{listener: listener, target: u.Host, conns: map[net.Conn]bool{}}
	u.Host = listener.Addr().String()
	query := u.Query()
	query.Set("pool_max_conns", "6") // many stages share one Postgres
	u.RawQuery = query.Encode()
	r.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.done.Go(func() { r.serve(conn) })
		}
	})
	return r, u.String(), nil
}

func (r *relay) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if !r.keep(conn) {
		return
	}
	defer r.forget(conn)
	behind, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer func() { _ = behind.Close() }()
	if !r.keep(behind) {
		return
	}
	defer r.forget(behind)
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(behind, conn); _ = behind.Close() })
	both.Go(func() { _, _ = io.Copy(conn, behind); _ = conn.Close() })
	both.Wait()
}

func (r *relay) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return false
	}
	r.conns[conn] = true
	return true
}

func (r *relay) forget(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
}

// set cuts every connection and refuses others, or lets them through again.
func (r *relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	if !cut {
		return
	}
	for conn := range r.conns {
		_ = conn.Close()
	}
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.set(true)
	r.done.Wait()
}

// relays are ingest and worker in this process, whose ways to Postgres are cut.
type relays struct {
	s          *stage
	url        string
	ingest     *relay
	ingestDown atomic.Bool
	worker     *relay
	killed     func() // ends the worker that runs
	dying      sync.WaitGroup
	cut        bool
}

func newRelays(s *stage) *relays {
	s.t.Helper()
	h := &relays{s: s, url: storetest.URL(s.t)}
	s.w.store = storetest.Open(s.t, h.url)
	return h
}

func (h *relays) start() {
	s := h.s
	s.t.Helper()
	verifier, err := polar.NewVerifier([]string{secret})
	if err != nil {
		s.t.Fatal(err)
	}
	var relayed string
	if h.ingest, relayed, err = newRelay(h.url); err != nil {
		s.t.Fatal(err)
	}
	receiver := ingest.New(storetest.Open(s.t, relayed), verifier, testLogger(s.t)).Handler()
	s.w.ingest = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.ingestDown.Load() {
			w.WriteHeader(http.StatusBadGateway) // as a proxy in front answers for it
			return
		}
		receiver.ServeHTTP(w, r)
	}))
	s.t.Cleanup(s.w.ingest.Close)
	s.w.api = httptest.NewServer(s.startFake(s.w.ingest.URL + ingest.Route))
	s.t.Cleanup(s.w.api.Close)
	s.w.fake.SetPublicURL(s.w.api.URL)
	h.startWorker()
}

// startWorker starts a worker as program.Worker does: it waits for Postgres, and begins again where that goes away first.
func (h *relays) startWorker() {
	s := h.s
	s.t.Helper()
	way, relayed, err := newRelay(h.url)
	if err != nil {
		s.t.Fatal(err)
	}
	way.set(h.cut)
	h.worker = way
	own, err := store.Open(relayed, "converge")
	if err != nil {
		s.t.Fatal(err)
	}
	config := s.w.options.jobs
	config.API.BaseURL, config.API.Token, config.Logger, config.SoftStop = s.w.api.URL+"/v1", "polar_oat_test", testLogger(s.t), 20*time.Millisecond
	runner, err := jobs.New(own, config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if own.WaitReady(ctx, func(error) {}) != nil {
				return
			}
			err := runner.Run(ctx, func() {})
			if ctx.Err() == nil {
				s.t.Logf("the worker ended by itself: %v", err)
			}
			if !errors.Is(err, store.ErrUnavailable) {
				return
			}
		}
	}()
	h.killed = sync.OnceFunc(func() {
		way.set(true) // without a way to Postgres it cannot give anything back
		cancel()
		h.dying.Go(func() {
			<-ended
			go own.Close() // it waits for whoever still asks Postgres
			way.close()
		})
	})
}

func (h *relays) toggleIngest() { h.ingestDown.Store(!h.ingestDown.Load()) }

func (h *relays) togglePostgres() {
	h.cut = !h.cut
	h.ingest.set(h.cut)
	h.worker.set(h.cut)
}

func (h *relays) killWorker() {
	h.killed()
	h.startWorker()
}

func (h *relays) restore() {
	h.ingestDown.Store(false)
	h.cut = true
	h.togglePostgres()
}

func (h *relays) stop() {
	h.killed()
	h.dying.Wait()
	h.ingest.close()
}

// processes are ingest, worker and a Postgres of its own as processes, which are killed.
type processes struct {
	s              *stage
	pg             *embeddedpg.Server
	ingest, worker *machinetest.Process
	ingestAddr     string
	ingestDown     bool
}

func newProcesses(s *stage) *processes {
	s.t.Helper()
	h := &processes{s: s}
	var err error
	if h.pg, err = embeddedpg.Start(s.t.Context(), embeddedpg.Options{}); err != nil {
		s.t.Fatalf("starting a Postgres of the seed's own: %v", err)
	}
	s.t.Cleanup(func() {
		if err := h.pg.Stop(); err != nil {
			s.t.Error(err)
		}
	})
	s.w.store = storetest.Open(s.t, h.pg.URL())
	if _, err := s.w.store.Migrate(s.t.Context(), testLogger(s.t)); err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (h *processes) start() {
	s := h.s
	s.t.Helper()
	ingestPath, workerPath := buildPrograms(s.t)
	h.ingestAddr = machinetest.Address(s.t)
	s.w.api = httptest.NewServer(s.startFake("http://" + h.ingestAddr + ingest.Route))
	s.t.Cleanup(s.w.api.Close)
	s.w.fake.SetPublicURL(s.w.api.URL)
	h.ingest = machinetest.NewProcess(s.t, []string{
		"DATABASE_URL=" + h.pg.URL(), "POLAR_WEBHOOK_SECRETS=" + secret, "INGEST_ADDR=" + h.ingestAddr,
	}, ingestPath)
	h.worker = machinetest.NewProcess(s.t, []string{
		"DATABASE_URL=" + h.pg.URL(), "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + s.w.api.URL + "/v1", "POLAR_RATE_LIMIT=0",
		"WORKER_ADDR=127.0.0.1:0", "RECONCILE_INTERVAL=0", "RECOVERY_TIME=" + recovery.String(), "POLAR_TIMEOUT=400ms",
	}, workerPath)
	h.ingest.Start()
	h.worker.Start()
}

func (h *processes) toggleIngest() {
	h.ingest.Kill()
	if h.ingestDown = !h.ingestDown; !h.ingestDown {
		h.ingest.Start()
	}
}

// togglePostgres kills Postgres and, as the history itself needs it, starts it again at once: what was under way is lost.
func (h *processes) togglePostgres() {
	s := h.s
	s.t.Helper()
	if err := h.pg.Kill(); err != nil {
		s.t.Errorf("killing Postgres: %v", err)
	}
	if err := h.pg.Restart(s.t.Context()); err != nil {
		s.t.Fatalf("starting Postgres again: %v", err)
	}
	waittest.Within(s.t, 10*time.Second, func() error {
		if err := s.w.store.Ping(s.t.Context()); err != nil {
			return fmt.Errorf("Postgres is not back: %w", err)
		}
		return nil
	})
}

func (h *processes) killWorker() {
	h.worker.Kill()
	h.worker.Start()
}

func (h *processes) restore() {
	if h.ingestDown {
		h.toggleIngest()
	}
}

func (h *processes) stop() {
	h.ingest.Kill()
	h.worker.Kill()
}
