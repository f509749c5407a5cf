package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/releasetest"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Migrated is what an upgrade of the schema does to what goes on meanwhile.
type Migrated struct {
	Rows     int64      `json:"events"`
	Objects  int64      `json:"objects"`
	Took     float64    `json:"seconds"`
	Steps    []StepTook `json:"steps"`
	Before   Upheld     `json:"before"`
	During   Upheld     `json:"during"`
	Held     LockHeld   `json:"longest_lock"`         // of those that keep writers out, on a table that was there before
	Wait     float64    `json:"longest_lock_wait_ms"` // of a statement of the traffic, for a table
	Waited   string     `json:"longest_lock_wait_of"`
	Bound    float64    `json:"bound_ms"` // of that
	Received int64      `json:"acknowledged"`
}

// StepTook is one step of the schema.
type StepTook struct {
	Version int64   `json:"version"`
	Seconds float64 `json:"seconds"`
}

// Upheld is the traffic of a span of time.
type Upheld struct {
	Deliveries Latency `json:"deliveries"` // from when they were to be sent to the 202, over all tries
	Refused    int64   `json:"deliveries_answered_503"`
	Requests   Latency `json:"checkout_requests"` // an app's transaction
}

// LockHeld is for how long something was locked.
type LockHeld struct {
	Table string  `json:"table"`
	Mode  string  `json:"mode"`
	Held  float64 `json:"held_ms"`
}

const (
	migrateDeliveries = 50 // a second
	migrateRequests   = 5
	lockTimeout       = 2 * time.Second // of migrations
	lockMargin        = time.Second
	lockSample        = 10 * time.Millisecond
	migrator          = "truenorth bench" // application_name of migrateProduct
)

// migrate fills a database of the release before with its own programs at work, then migrates it to this release.
func (b *bench) migrate(ctx context.Context) (err error) {
	bin, err := os.MkdirTemp("", "truenorth-before-bin-")
	if err != nil {
		return fmt.Errorf("making a folder for the release before: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	if err := releasetest.Build(ctx, ".", bin); errors.Is(err, releasetest.ErrNoHistory) {
		b.sayf("migrate: NOT measured: %v", err)
		return nil
	} else if err != nil {
		return err
	}
	db, err := b.postgres.fresh(ctx, tables{template: "template1"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	if out, err := beforeProgram(ctx, bin, "truenorth", db.url, "migrate").CombinedOutput(); err != nil {
		return fmt.Errorf("migrating with the release before: %w\n%s", err, out)
	}
	m := &Migrated{Rows: int64(b.migrated), Bound: milliseconds(lockTimeout + lockMargin)}
	if err := b.fill(ctx, db, b.migrated); err != nil {
		return err
	}
	b.sayf("migrate: filled; vacuum and statistics")
	if err := errors.Join(vacuumed(ctx, db), b.postgres.exec(ctx, "checkpoint")); err != nil {
		return err
	}
	if err := db.read(ctx, `select sum(greatest(c.reltuples, 0))::bigint from pg_class c where c.relnamespace = 'polar'::regnamespace and c.relkind = 'r' and c.relname not in ('event_log', 'event_outcome')`, &m.Objects); err != nil {
		return err
	}
	if err := m.measure(ctx, b, db, bin); err != nil {
		return err
	}
	b.results.Migrated = m
	return m.tell(b)
}

// beforeProgram is a program of the release before.
func beforeProgram(ctx context.Context, bin, name, databaseURL string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	command.Env = append(os.Environ(), "DATABASE_URL="+databaseURL, "LOG_LEVEL=ERROR")
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second
	return command
}

func (m *Migrated) measure(ctx context.Context, b *bench, db *database, bin string) (err error) {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	addr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	running, end := context.WithCancel(ctx)
	var programs sync.WaitGroup
	for name, env := range map[string][]string{
		"ingest": {"INGEST_ADDR=" + addr, "POLAR_WEBHOOK_SECRETS=" + secret},
		"worker": {"WORKER_ADDR=127.0.0.1:0", "POLAR_ACCESS_TOKEN=" + fakeToken, "POLAR_API_URL=" + fake.api, "POLAR_RATE_LIMIT=0", "RECONCILE_INTERVAL=0"},
	} {
		program := beforeProgram(running, bin, name, db.url)
		program.Env = append(program.Env, env...)
		program.Stdout, program.Stderr = io.Discard, io.Discard
		if err := program.Start(); err != nil {
			end()
			return fmt.Errorf("starting %s of the release before: %w", name, err)
		}
		programs.Go(func() { _ = program.Wait() })
	}
	defer func() { end(); programs.Wait() }()
	if err := awaitReady(ctx, addr); err != nil {
		return err
	}

	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return fmt.Errorf("reading the secret: %w", err)
	}
	t := &upheldTraffic{url: "http://" + addr + route, webhook: webhook, events: newAuthor(usualSize)}
	flow, stop := context.WithCancel(ctx)
	group, flow := errgroup.WithContext(flow)
	defer func() { stop(); err = errors.Join(err, group.Wait()) }()
	group.Go(func() error { return t.deliver(flow) })
	group.Go(func() error { return t.ask(flow, db.url) })
	b.sayf("migrate: traffic, for %s", b.calm)
	if err := pauseFor(ctx, b.calm/2); err != nil { // warm
		return err
	}
	t.take()
	if err := pauseFor(ctx, b.calm); err != nil {
		return err
	}
	m.Before = t.take()

	watch, err := watchLocks(ctx, db.url)
	if err != nil {
		return err
	}
	s, err := store.Open(db.url, migrator) //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer s.Close()
	began, step := time.Now(), time.Now()
	_, err = s.MigrateTelling(ctx, slog.New(slog.DiscardHandler), func(next store.Migration) {
		m.endStep(step)
		step = time.Now()
		m.Steps = append(m.Steps, StepTook{Version: next.Version})
		b.sayf("migrate: to version %d", next.Version)
	})
	m.endStep(step)
	m.Took = time.Since(began).Seconds()
	m.Held, m.Wait, m.Waited = watch.end()
	if err := errors.Join(err, watch.err); err != nil {
		return err
	}
	m.During = t.take()
	stop()
	if err := group.Wait(); err != nil {
		return err
	}
	return m.lostNothing(ctx, db, t)
}

func (m *Migrated) endStep(began time.Time) {
	if len(m.Steps) > 0 {
		m.Steps[len(m.Steps)-1].Seconds = time.Since(began).Seconds()
	}
}

// lostNothing fails unless all that was acknowledged is stored, and is applied within a minute.
func (m *Migrated) lostNothing(ctx context.Context, db *database, t *upheldTraffic) error {
	m.Received = t.acknowledged.Load()
	var stored int64
	if err := db.read(ctx, fmt.Sprintf("select count(*) from polar.event_log where seq > %d", m.Rows), &stored); err != nil {
		return err
	}
	if stored < m.Received {
		return fmt.Errorf("%d deliveries were acknowledged, and %d are stored", m.Received, stored)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		var waiting int64
		if err := db.read(ctx, fmt.Sprintf("select count(*) from polar.event_log l left join polar.event_outcome o using (seq) where l.seq > %d and o.state is distinct from 'applied'", m.Rows), &waiting); err != nil {
			return err
		}
		if waiting == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d events are not applied a minute after the migration", waiting)
		}
		if err := pauseFor(ctx, lockSample); err != nil {
			return err
		}
	}
}

// tell prints what was found, and fails where somebody waited for too long.
func (m *Migrated) tell(b *bench) error {
	b.sayf("migrate: %s events and %s rows besides, in %.1f s", count(m.Rows), count(m.Objects), m.Took)
	for _, s := range m.Steps {
		b.sayf("migrate:   version %d: %.2f s", s.Version, s.Seconds)
	}
	for _, u := range []struct {
		when string
		Upheld
	}{{"before", m.Before}, {"during", m.During}} {
		b.sayf("migrate: %s it %d deliveries: p50 %.1f ms, p99 %.1f ms, max %.1f ms (%d answers of 503); %d requests of checkouts: p50 %.1f ms, p99 %.1f ms, max %.1f ms", u.when,
			u.Deliveries.Count, u.Deliveries.P50, u.Deliveries.P99, u.Deliveries.Max, u.Refused, u.Requests.Count, u.Requests.P50, u.Requests.P99, u.Requests.Max)
	}
	b.sayf("migrate: the longest lock: %s on %s for %.0f ms; a statement waited for a table for at most %.0f ms (%s)", m.Held.Mode, m.Held.Table, m.Held.Held, m.Wait, m.Waited)
	if m.Wait > m.Bound {
		return fmt.Errorf("a statement waited %.0f ms for a table, and %.0f ms is the most: %s", m.Wait, m.Bound, m.Waited)
	}
	return nil
}

// upheldTraffic is what goes on: deliveries to ingest, and an app's transactions.
type upheldTraffic struct {
	url          string
	webhook      *standardwebhooks.Webhook
	acknowledged atomic.Int64

	mu         sync.Mutex
	events     *author
	deliveries []time.Duration
	requests   []time.Duration
	refused    int64
}

// take gives what came since it was last called.
func (t *upheldTraffic) take() Upheld {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := Upheld{Deliveries: summarize(t.deliveries), Requests: summarize(t.requests), Refused: t.refused}
	t.deliveries, t.requests, t.refused = nil, nil, 0
	return u
}

// atRate calls do so often a second until ctx ends, each call by itself: one that takes long holds up no other, and is counted from when it was due.
func atRate(ctx context.Context, rate int, do func(due time.Time) error) error {
	group, ctx := errgroup.WithContext(ctx)
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return group.Wait()
		case due := <-ticker.C:
			group.Go(func() error { return do(due) })
		}
	}
}

// deliver posts new events, each until it is taken, as Polar does, though sooner. What was begun is brought to its end.
func (t *upheldTraffic) deliver(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: answerLimit}
	defer client.CloseIdleConnections()
	whole := context.WithoutCancel(ctx)
	return atRate(ctx, migrateDeliveries, func(due time.Time) error {
		t.mu.Lock()
		e := t.events.newCustomers(0, 1)[0]
		t.mu.Unlock()
		for {
			status, err := t.post(whole, client, e)
			switch {
			case err != nil:
				return err
			case status == http.StatusAccepted:
				t.mu.Lock()
				defer t.mu.Unlock()
				t.deliveries = append(t.deliveries, time.Since(due))
				t.acknowledged.Add(1)
				return nil
			case status != http.StatusServiceUnavailable:
				return fmt.Errorf("a delivery is answered %d", status)
			}
			t.mu.Lock()
			t.refused++
			t.mu.Unlock()
			if err := pauseFor(whole, 100*time.Millisecond); err != nil {
				return err
			}
		}
	})
}

func (t *upheldTraffic) post(ctx context.Context, client *http.Client, e event) (status int, err error) {
	now := time.Now()
	signature, err := t.webhook.Sign(e.webhookID, now, e.body)
	if err != nil {
		return 0, fmt.Errorf("signing: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(e.body))
	if err != nil {
		return 0, fmt.Errorf("making a delivery: %w", err)
	}
	request.Header = http.Header{"webhook-id": {e.webhookID}, "webhook-timestamp": {strconv.FormatInt(now.Unix(), 10)}, "webhook-signature": {signature}}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("delivering: %w", err)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, errors.Join(err, response.Body.Close())
}

// ask asks for checkouts as an app does, in a transaction of its own.
func (t *upheldTraffic) ask(ctx context.Context, databaseURL string) error {
	whole := context.WithoutCancel(ctx)
	pool, err := pgxpool.New(whole, databaseURL+"&application_name=shop")
	if err != nil {
		return fmt.Errorf("connecting as a shop: %w", err)
	}
	defer pool.Close()
	return atRate(ctx, migrateRequests, func(due time.Time) error {
		if _, err := pool.Exec(whole, "select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'external_customer_id', 'acct_1'))", polarfake.OneTimeProductID); err != nil {
			return fmt.Errorf("asking for a checkout: %w", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.requests = append(t.requests, time.Since(due))
		return nil
	})
}

// lockWatch looks at who waits for whom.
type lockWatch struct {
	stop func()
	done chan struct{}

	held   LockHeld
	wait   float64
	waited string
	err    error
}

// watchLocks samples Postgres's locks until end. What it sees of a wait or a hold is short of the truth by one sample at most.
func watchLocks(ctx context.Context, databaseURL string) (*lockWatch, error) {
	conn, err := pgx.Connect(ctx, databaseURL+"&application_name=watch")
	if err != nil {
		return nil, fmt.Errorf("connecting to watch locks: %w", err)
	}
	var known []uint32
	if err := conn.QueryRow(ctx, "select array_agg(c.oid) from pg_class c where c.relnamespace = 'polar'::regnamespace and c.relkind = 'r'").Scan(&known); err != nil {
		return nil, errors.Join(fmt.Errorf("listing tables: %w", err), conn.Close(ctx))
	}
	ctx, stop := context.WithCancel(ctx)
	w := &lockWatch{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		since := map[LockHeld]time.Time{}
		for pauseFor(ctx, lockSample) == nil {
			if err := w.sample(ctx, conn, known, since); err != nil && ctx.Err() == nil {
				w.err = err
				return
			}
		}
	}()
	return w, nil
}

func (w *lockWatch) sample(ctx context.Context, conn *pgx.Conn, known []uint32, since map[LockHeld]time.Time) error {
	var waits float64
	var who string
	err := conn.QueryRow(ctx, `
		select extract(epoch from clock_timestamp() - l.waitstart)::float8 * 1000, a.application_name || ': ' || l.mode || ' on ' || l.relation::regclass
		  from pg_locks l join pg_stat_activity a on a.pid = l.pid
		 where not l.granted and l.waitstart is not null and l.locktype = 'relation' and a.datname = current_database() and a.backend_type = 'client backend' and a.application_name <> $1
		 order by l.waitstart limit 1`, migrator).Scan(&waits, &who)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("looking for who waits: %w", err)
	}
	if waits > w.wait {
		w.wait, w.waited = waits, who
	}
	rows, err := conn.Query(ctx, `
		select l.relation::regclass::text, l.mode from pg_locks l join pg_stat_activity a on a.pid = l.pid
		 where l.granted and a.application_name = $1 and l.relation = any ($2::oid[])
		   and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`, migrator, known)
	if err != nil {
		return fmt.Errorf("looking for what is locked: %w", err)
	}
	var locks []LockHeld
	var l LockHeld
	_, err = pgx.ForEachRow(rows, []any{&l.Table, &l.Mode}, func() error {
		locks = append(locks, l)
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for what is locked: %w", err)
	}
	now := time.Now()
	for l := range since {
		if !slices.Contains(locks, l) {
			delete(since, l)
		}
	}
	for _, l := range locks {
		if _, ok := since[l]; !ok {
			since[l] = now
		}
		if held := milliseconds(now.Sub(since[l])); held > w.held.Held || w.held.Table == "" {
			w.held = LockHeld{Table: l.Table, Mode: l.Mode, Held: held}
		}
	}
	return nil
}

func (w *lockWatch) end() (held LockHeld, wait float64, waited string) {
	w.stop()
	<-w.done
	return w.held, w.wait, w.waited
}

func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func freeAddr(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free address: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// awaitReady waits until ingest works.
func awaitReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("asking whether ingest is ready: %w", err)
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pauseFor(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for ingest of the release before: %w", err)
		}
	}
}
