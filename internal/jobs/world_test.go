package jobs_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestMain(m *testing.M) {
	code := storetest.Main(m)
	_ = os.RemoveAll(programs.dir)
	os.Exit(code)
}

// secret is one of the standard derivation.
const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// world is a database, ingest, a worker and a fake Polar that sends to ingest: all that the product is, in one process.
type world struct {
	t       testing.TB
	store   *store.Store
	fake    *polarfake.Fake
	api     *httptest.Server // the fake's
	ingest  *httptest.Server
	client  *truenorth.Client
	runner  *jobs.Runner
	stop    func() // stops the worker; safe twice
	options worldOptions
}

type worldOptions struct {
	fake    polarfake.Options
	jobs    jobs.Config
	offline bool               // Polar sends nothing: the test posts by itself
	idle    bool               // no worker is started
	tune    func(*jobs.Runner) // changes a worker before it starts

	between func(fake http.Handler) http.Handler // a proxy on the way from the worker to the fake
}

func newWorld(tb testing.TB, options worldOptions) *world {
	tb.Helper()
	w := &world{t: tb, options: options, store: storetest.New(tb), stop: func() {}}

	verifier, err := polar.NewVerifier([]string{secret})
	if err != nil {
		tb.Fatal(err)
	}
	// Each program has the rights of its role, and no more.
	w.ingest = httptest.NewServer(ingest.New(storetest.As(tb, w.store, store.RoleIngest), verifier, testLogger(tb)).Handler())
	tb.Cleanup(w.ingest.Close)

	if !options.offline {
		options.fake.WebhookURL, options.fake.WebhookSecret = w.ingest.URL+ingest.Route, secret
	}
	if options.fake.RetryScale == 0 {
		options.fake.RetryScale = 0.01
	}
	w.fake = polarfake.New(options.fake)
	tb.Cleanup(w.fake.Close)
	var api http.Handler = w.fake
	if options.between != nil {
		api = options.between(w.fake)
	}
	w.api = httptest.NewServer(api)
	tb.Cleanup(w.api.Close)
	w.fake.SetPublicURL(w.api.URL)

	w.client = truenorth.NewClient(storetest.As(tb, w.store, store.RoleApp).Pool())
	tb.Cleanup(w.client.Close)
	if !options.idle {
		w.startWorker()
	}
	return w
}

// startWorker starts a worker, which the end of the test stops.
func (w *world) startWorker() {
	w.t.Helper()
	config := w.options.jobs
	config.API.BaseURL, config.API.Token = w.api.URL+"/v1", "polar_oat_test"
	config.Logger = testLogger(w.t)
	runner, err := jobs.New(storetest.As(w.t, w.store, store.RoleWorker), config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.runner = runner
	if w.options.tune != nil {
		w.options.tune(runner)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() { done <- runner.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		w.t.Fatalf("the worker ended at once: %v", err)
	}
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the worker ended with %v", err)
		}
	}
	w.t.Cleanup(w.stop)
}

func testLogger(tb testing.TB) *slog.Logger {
	tb.Helper()
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(tb.Output(), nil))
}

// post sends a signed delivery and returns the status of the answer.
func (w *world) post(webhookID string, body string) int {
	w.t.Helper()
	headers, err := polar.Sign(secret, webhookID, time.Now(), []byte(body), polar.DerivationAuto)
	if err != nil {
		w.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.ingest.URL+ingest.Route, stringsReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header = headers
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// addUser makes local users.
func (w *world) addUser(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		w.exec("insert into polar.local_user (id, email) values ($1, $2)", id, id+"@example.com")
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.store.Pool().Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// settle waits until Polar has nothing left to send and no event is without an outcome.
func (w *world) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.fake.WaitIdle(ctx); err != nil {
		w.t.Fatalf("waiting for the fake Polar: %v", err)
	}
	waittest.Eventually(w.t, func() error {
		if n := one[int64](w, "select count(*) from polar.event where state = 'received'"); n > 0 {
			return fmt.Errorf("%d events are not tried yet", n)
		}
		if n := one[int64](w, "select count(*) from polar.river_job where state in ('available', 'running')"); n > 0 {
			return fmt.Errorf("%d jobs are not done yet", n)
		}
		return nil
	})
}

// asAdmin is the world to one who sees what every session does.
func (w *world) asAdmin() *world {
	w.t.Helper()
	admin := *w
	admin.store = storetest.Admin(w.t, w.store)
	return &admin
}

// one reads the only value of a query.
func one[T any](w *world, sql string, args ...any) T {
	w.t.Helper()
	values := all[T](w, sql, args...)
	if len(values) != 1 {
		w.t.Fatalf("%s: %d rows, want 1", sql, len(values))
	}
	return values[0]
}

// all reads the first column of a query.
func all[T any](w *world, sql string, args ...any) []T {
	w.t.Helper()
	rows, err := w.store.Pool().Query(context.Background(), sql, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return values
}

// oneTime is a product of the fake's catalogue.
var oneTime = uuid.MustParse(polarfake.OneTimeProductID)
