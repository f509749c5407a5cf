package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

const (
	database      = "shop"
	webhookSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" //nolint:gosec // of the fake Polar of a run
	accessToken   = "polar_oat_chaos"                                    //nolint:gosec // the fake takes any
)

// Limits of what comes before the first fault and after the last. A machine that builds and tests at the same time is slow.
const (
	startLimitOfRun = 2 * time.Minute
	healLimit       = 90 * time.Second
	quietLimit      = 4 * time.Minute
)

// run is one run, inside of its namespaces.
type run struct {
	options

	plan     schedule
	out      io.Writer
	logger   *slog.Logger
	history  *history
	hosts    map[string]*host
	router   *router
	client   *http.Client // of the app's host
	cluster  *cluster
	fake     *polarfake.Fake
	edge     *edge
	programs map[string]*process // ingest and workers
	load     *load

	mu  sync.Mutex
	all []*process
}

// perform plays the schedule, waits for quiet and gathers the evidence.
func (r *run) perform(ctx context.Context) (e *evidence, err error) {
	if r.history, err = newHistory(filepath.Join(r.dir, historyFile)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.history.close()) }()
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	var watchers sync.WaitGroup
	defer func() {
		r.endAll()
		end()
		watchers.Wait()
	}()
	if err := r.build(background, &watchers); err != nil {
		return nil, err
	}
	if err := r.open(ctx, background, &watchers); err != nil {
		return nil, err
	}
	r.load.start(background)
	forging, endForging := context.WithCancel(background)
	defer endForging()
	forger := newForger(r)
	watchers.Go(func() { every(forging, 400*time.Millisecond, func() { forger.try(forging) }) })
	r.history.mu.Lock()
	r.history.began = time.Now() // the schedule's zero
	r.history.mu.Unlock()

	faultsErr := r.play(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.sayf("the faults are over: everything is to heal by itself")
	endForging()
	if err := r.settle(ctx); err != nil {
		return nil, errors.Join(faultsErr, err)
	}
	e, err = r.collect(ctx)
	if err := errors.Join(faultsErr, err); err != nil {
		return nil, err
	}
	return e, writeJSON(filepath.Join(r.dir, evidenceFile), e)
}

// build makes the hosts and the lines between them.
func (r *run) build(ctx context.Context, watchers *sync.WaitGroup) error {
	r.hosts = map[string]*host{}
	var hosts []*host
	for _, name := range sortedKeys(addresses) {
		h, err := newHost(ctx, name, addresses[name], name == nameApp)
		if err != nil {
			return err
		}
		r.hosts[name] = h
		hosts = append(hosts, h)
	}
	r.router = newRouter(hosts, r.seed)
	watchers.Go(func() { r.router.run(ctx) })
	r.client = &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return nil
}

// open starts everything.
func (r *run) open(ctx, background context.Context, watchers *sync.WaitGroup) error {
	pgBin, err := findPostgres()
	if err != nil {
		return err
	}
	faketime := ""
	if r.plan.has(faultStep, thePrimary, theStandby) {
		faketime = findFaketime()
	}
	if r.cluster, err = newCluster(r, pgBin, faketime); err != nil {
		return err
	}
	r.sayf("starting etcd and two Postgres servers under Patroni")
	if err := r.cluster.start(ctx); err != nil {
		return err
	}
	watchers.Go(func() { r.cluster.watch(background) })
	if err := r.createDatabase(ctx); err != nil {
		return err
	}
	release := r.current()
	if r.plan.has(faultUpgrade) {
		release = r.before()
	}
	// The standby may not have heard of the database yet, and the driver takes its word for it.
	if err := within(ctx, startLimitOfRun, func(ctx context.Context) error { return r.operate(ctx, release, "migrate") }); err != nil {
		return err
	}

	r.fake = polarfake.New(polarfake.Options{
		WebhookURL: r.webhookURL(), WebhookSecret: webhookSecret, PublicURL: "http://" + addresses[namePolar].String(), Seed: r.seed,
		RetryScale: 0.25, FulfillmentWait: time.Second, Parallel: true, Logger: r.logger,
	})
	context.AfterFunc(background, r.fake.Close)
	if err := serveHTTP(background, r.hosts[namePolar], portHTTP, r.fake, r.logger); err != nil {
		return err
	}
	var targets []string
	for _, name := range ingestNames {
		targets = append(targets, r.hosts[name].at(portIngest))
	}
	r.edge = newEdge(r.hosts[nameEdge], targets, r.history)
	if err := serveHTTP(background, r.hosts[nameEdge], portHTTP, r.edge, r.logger); err != nil {
		return err
	}

	r.programs = map[string]*process{}
	for _, name := range ingestNames {
		r.programs[name] = r.newProcess(name, r.hosts[name], []string{release.program("ingest")}, r.environment(name,
			"POLAR_WEBHOOK_SECRETS="+webhookSecret, "INGEST_ADDR="+r.hosts[name].at(portIngest)))
	}
	for _, name := range workerNames {
		r.programs[name] = r.newProcess(name, r.hosts[name], []string{release.program("worker")}, r.environment(name,
			append(r.polarEnvironment(), "WORKER_ADDR="+r.hosts[name].at(portWorker), "RECONCILE_INTERVAL=2m",
				"INGEST_PUBLIC_URL="+r.webhookURL(), "POLAR_REENABLE_ENDPOINT=true")...))
	}
	for _, name := range sortedKeys(r.programs) {
		if err := r.programs[name].start(); err != nil {
			return err
		}
	}
	if r.load, err = newLoad(background, r); err != nil {
		return err
	}
	if err := r.load.prepare(ctx); err != nil {
		return err
	}
	if err := r.awaitReady(ctx, startLimitOfRun); err != nil {
		return err
	}
	watchers.Go(func() { every(background, 2*time.Second, r.weigh) })
	r.sayf("everything runs; the load begins")
	return nil
}

func (r *run) webhookURL() string { return "http://" + addresses[nameEdge].String() + webhookRoute }

// polarEnvironment is what workers and the command line are told of Polar.
func (r *run) polarEnvironment() []string {
	return []string{
		"POLAR_ACCESS_TOKEN=" + accessToken, "POLAR_API_URL=http://" + addresses[namePolar].String() + "/v1", "POLAR_RATE_LIMIT=30000", "POLAR_TIMEOUT=5s",
	}
}

// environment is that of a program on a host.
func (r *run) environment(hostName string, more ...string) []string {
	return append([]string{
		"DATABASE_URL=" + databaseURL(database), clockVariable + "=" + r.clockFile(hostName), "LOG_LEVEL=info", "HOME=/", "PATH=/usr/bin:/bin",
	}, more...)
}

func (r *run) newProcess(name string, h *host, argv, env []string) *process {
	p := &process{name: name, host: h, argv: argv, env: env, log: filepath.Join(r.dir, "logs", name+".log"), ended: func(p *process, why string) {
		r.history.note(entry{Kind: kindEnded, Host: p.name, What: why})
		r.sayf("%s ended by itself: %s", p.name, why)
	}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, p)
	return p
}

// endAll ends every process of the run.
func (r *run) endAll() {
	r.mu.Lock()
	all := slices.Clone(r.all)
	r.mu.Unlock()
	var ends sync.WaitGroup
	for _, p := range all {
		ends.Go(p.kill)
	}
	ends.Wait()
	for _, h := range r.hosts {
		h.killAll()
	}
}

func (r *run) createDatabase(ctx context.Context) error {
	return within(ctx, startLimitOfRun, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, databaseURL("postgres"))
		if err != nil {
			return fmt.Errorf("connecting to Postgres: %w", err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "create database "+database); err != nil && !strings.Contains(err.Error(), "already exists") {
			return fmt.Errorf("creating the database: %w", err)
		}
		return nil
	})
}

// operate runs the command line of a release on the app's host.
func (r *run) operate(ctx context.Context, of release, args ...string) error {
	_, err := r.operateFor(ctx, of, args...)
	return err
}

func (r *run) operateFor(ctx context.Context, of release, args ...string) ([]byte, error) {
	log, err := os.OpenFile(filepath.Join(r.dir, "logs", "truenorth.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	defer log.Close()
	command := exec.CommandContext(ctx, of.program("truenorth"), args...)
	command.Env = r.environment(nameApp, r.polarEnvironment()...)
	command.Stderr = log
	out, err := command.Output()
	_, _ = fmt.Fprintf(log, "--- truenorth %s: %v\n%s\n", strings.Join(args, " "), err, out)
	if err != nil {
		return out, fmt.Errorf("truenorth %s: %w, see %s", strings.Join(args, " "), err, log.Name())
	}
	return out, nil
}

// awaitReady waits until every program says that it works.
func (r *run) awaitReady(ctx context.Context, limit time.Duration) error {
	return within(ctx, limit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		for _, name := range sortedKeys(r.programs) {
			port := portWorker
			if slices.Contains(ingestNames, name) {
				port = portIngest
			}
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.hosts[name].at(port)+"/readyz", nil)
			if err != nil {
				return fmt.Errorf("asking %s: %w", name, err)
			}
			response, err := r.client.Do(request)
			if err != nil {
				return fmt.Errorf("asking %s whether it is ready: %w", name, err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s is not ready: %s", name, response.Status)
			}
		}
		return nil
	})
}

// weigh notes how much memory each program holds.
func (r *run) weigh() {
	for _, name := range sortedKeys(r.programs) {
		if pid := r.programs[name].pid(); pid > 0 {
			if bytes := residentBytes(pid); bytes > 0 {
				r.history.note(entry{Kind: kindMemory, Host: name, Bytes: bytes})
			}
		}
	}
}

// settle waits until all is well and quiet after the last fault.
func (r *run) settle(ctx context.Context) error {
	if err := r.cluster.awaitWhole(ctx, healLimit); err != nil {
		return fmt.Errorf("after the last fault: %w", err)
	}
	if err := r.awaitReady(ctx, healLimit); err != nil {
		return fmt.Errorf("after the last fault: %w", err)
	}
	r.load.stop()
	r.sayf("the load has ended: %d purchases; waiting for quiet", r.load.purchases.Load())
	if err := r.awaitQuiet(ctx); err != nil {
		r.sayf("NOT QUIET: %v", err) // the judge says what that means
		return nil
	}
	r.history.note(entry{Kind: kindQuiet})
	return nil
}

// awaitQuiet waits until Polar has nothing to send and nothing waits for a worker.
func (r *run) awaitQuiet(ctx context.Context) error {
	idleCtx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	if err := r.fake.WaitIdle(idleCtx); err != nil {
		return err
	}
	calm := 0
	return within(ctx, quietLimit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		rows, err := r.load.pool.Query(ctx, `
			select 'event ' || type || ' ' || state || coalesce(' ' || error, '') from polar.event where state = 'received'
			union all
			select 'job ' || kind || ' ' || state || ' ' || attempt || ' ' || coalesce(errors[1]::text, '') from polar.river_job
			 where state in ('available', 'running', 'retryable') and kind not in ('reconcile')
			union all
			select 'request ' || state || ' ' || coalesce(error, '') from polar.checkout_request where state in ('queued', 'creating')
			limit 5`)
		if err != nil {
			return fmt.Errorf("looking for quiet: %w", err)
		}
		busy, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("looking for quiet: %w", err)
		}
		if len(busy) > 0 {
			calm = 0
			return fmt.Errorf("still busy: %q", busy)
		}
		if calm++; calm < 4 { // upkeep may still be at links
			return errors.New("calm, for a moment")
		}
		return r.fake.WaitIdle(ctx)
	})
}

// reconcile compares the mirror with Polar's lists and tells how much differed.
func (r *run) reconcile(ctx context.Context) (drifted, benign int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := r.operateFor(ctx, r.current(), "reconcile", "--fresh", "--json")
	if err != nil {
		return 0, 0, err
	}
	var runs []struct {
		State   string `json:"state"`
		Drifted int64  `json:"drifted"`
		Benign  int64  `json:"benign"`
	}
	if err := json.Unmarshal(out, &runs); err != nil {
		return 0, 0, fmt.Errorf("reading what reconcile prints: %w", err)
	}
	for _, one := range runs {
		if one.State != "finished" {
			return 0, 0, fmt.Errorf("a comparison is %s", one.State)
		}
		drifted, benign = drifted+one.Drifted, benign+one.Benign
	}
	return drifted, benign, nil
}

// sayf tells what happens.
func (r *run) sayf(format string, args ...any) {
	r.history.mu.Lock()
	began := r.history.began
	r.history.mu.Unlock()
	fmt.Fprintf(r.out, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil { //nolint:gosec // other users read it
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
