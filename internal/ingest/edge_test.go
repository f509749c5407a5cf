package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// Secrets of the three forms that Polar's endpoints have had.
const (
	standardSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	legacySecret   = "polar_whs_ovyN6cPrTv56AApvzCaJno08SSmGJmgbWilb33N2JuK"
	chosenSecret   = "merchantChosenSecretThatIsBase64" // so that both derivations give a key
)

const order = `{"type":"order.paid","timestamp":"2026-08-22T09:00:00.123456Z","data":{"id":"992fae2a-2a17-4b7a-8d9e-e287cf90131b"}}`

// edge is ingest as the programs serve it, on a port of its own.
type edge struct {
	t        *testing.T
	store    *store.Store // nil where options.events stands for it
	events   *countingStore
	receiver *ingest.Receiver
	url      string // of the route
	addr     string
	log      *logBuffer
}

type edgeOptions struct {
	secrets []string             // nil: standardSecret
	clock   time.Time            // the verifier's; zero: the real one
	events  ingest.EventStore    // nil: a database of the test's own
	tune    func(*http.Server)   // shortens limits; nil: the production ones
	tracing trace.TracerProvider // nil: nothing is traced
}

func newEdge(t *testing.T, options edgeOptions) *edge {
	t.Helper()
	e := &edge{t: t, log: &logBuffer{}}
	if options.events == nil {
		e.store = storetest.New(t)
		options.events = e.store
	}
	e.events = &countingStore{EventStore: options.events}
	if options.secrets == nil {
		options.secrets = []string{standardSecret}
	}
	verifier, err := polar.NewVerifier(options.secrets)
	if err != nil {
		t.Fatal(err)
	}
	if !options.clock.IsZero() {
		verifier = verifier.WithClock(func() time.Time { return options.clock })
	}
	logger := slog.New(slog.NewJSONHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e.receiver = ingest.New(e.events, verifier, logger, ingest.WithTracing(options.tracing))
	handler := e.receiver.Handler()
	if options.tracing != nil {
		handler = withSpans(options.tracing, handler)
	}
	server := ingest.Server(handler, logger)
	if options.tune != nil {
		options.tune(server)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving ended with %v", err)
		}
	})
	e.addr = listener.Addr().String()
	e.url = "http://" + e.addr + ingest.Route
	return e
}

// countingStore counts what reaches the database.
type countingStore struct {
	ingest.EventStore
	calls atomic.Int64
}

func (c *countingStore) InsertEvents(ctx context.Context, deliveries []store.Delivery, wake bool) (store.Stored, error) {
	c.calls.Add(1)
	return c.EventStore.InsertEvents(ctx, deliveries, wake)
}

func (c *countingStore) Ping(ctx context.Context) error {
	c.calls.Add(1)
	return c.EventStore.Ping(ctx)
}

// discard is a database that always works and keeps nothing.
type discard struct{}

func (discard) InsertEvents(_ context.Context, deliveries []store.Delivery, _ bool) (store.Stored, error) {
	return store.Stored{New: len(deliveries)}, nil
}

func (discard) Ping(context.Context) error { return nil }

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// post sends a delivery signed now with standardSecret.
func (e *edge) post(webhookID, body string) answer {
	e.t.Helper()
	return e.send(e.request(sign(e.t, standardSecret, webhookID, body, polar.DerivationAuto), strings.NewReader(body)))
}

func (e *edge) request(h http.Header, body io.Reader) *http.Request {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, e.url, body)
	if err != nil {
		e.t.Fatal(err)
	}
	request.Header = h
	return request
}

// send performs a request, and checks what holds for every answer: one line of JSON that says little. It may be called
// from any goroutine.
func (e *edge) send(request *http.Request) answer {
	e.t.Helper()
	response, err := http.DefaultTransport.RoundTrip(request) // follows no redirect, as Polar does not
	if err != nil {
		e.t.Error(err)
		return answer{}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		e.t.Error(err)
		return answer{}
	}
	a := answer{status: response.StatusCode, header: response.Header, body: string(body)}
	if request.Method != http.MethodHead {
		checkAnswer(e.t, a)
	}
	return a
}

func checkAnswer(t *testing.T, a answer) {
	t.Helper()
	var fields map[string]string
	if err := json.Unmarshal([]byte(a.body), &fields); err != nil || len(fields) != 1 ||
		strings.Count(a.body, "\n") != 1 || !strings.HasSuffix(a.body, "\n") || len(a.body) > 200 {
		t.Errorf("answer %d has the body %q (%v), want one short line of JSON with one text", a.status, a.body, err)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("answer %d has the Content-Type %q, want application/json", a.status, got)
	}
}

func (a answer) want(t *testing.T, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("answer %d %q, want %d", a.status, a.body, status)
	}
}

func sign(t *testing.T, secret, webhookID, body string, derivation polar.Derivation) http.Header {
	t.Helper()
	return signAt(t, secret, webhookID, body, derivation, time.Now())
}

func signAt(t *testing.T, secret, webhookID, body string, derivation polar.Derivation, at time.Time) http.Header {
	t.Helper()
	h, err := polar.Sign(secret, webhookID, at, []byte(body), derivation)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newID() string { return uuid.NewString() }

// storedEvent is an event as the database holds it.
type storedEvent struct {
	Type     string
	ObjectID *string
	Body     string
	Bytes    []byte
	Jobs     int64 // that carry its batch
}

// wantStored reads the one row of a webhook id.
func (e *edge) wantStored(webhookID string) storedEvent {
	e.t.Helper()
	rows, err := e.store.Pool().Query(e.t.Context(), `
		select l.type, l.object_id, l.body, l.body_bytes,
		       (select count(*) from polar.river_job j where j.kind = 'apply_events' and j.args @> jsonb_build_object('batch', l.batch))
		  from polar.event_log l
		 where l.webhook_id = $1`, webhookID)
	if err != nil {
		e.t.Fatal(err)
	}
	event, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[storedEvent])
	if err != nil {
		e.t.Fatalf("reading the event %s: %v", webhookID, err)
	}
	return event
}

// count reads a number.
func (e *edge) count(sql string, args ...any) int64 {
	e.t.Helper()
	var n int64
	if err := e.store.Pool().QueryRow(e.t.Context(), sql, args...).Scan(&n); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (e *edge) exec(sql string, args ...any) {
	e.t.Helper()
	if _, err := e.store.Pool().Exec(e.t.Context(), sql, args...); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
}

// begin begins a transaction that the end of the test rolls back.
func (e *edge) begin() pgx.Tx {
	e.t.Helper()
	tx, err := e.store.Pool().Begin(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

const (
	countEvents = "select count(*) from polar.event_log"
	countJobs   = "select count(*) from polar.river_job"
)

func (e *edge) wantCount(what string, want int64) {
	e.t.Helper()
	if got := e.count(what); got != want {
		e.t.Errorf("%s is %d, want %d", what, got, want)
	}
}

// logBuffer collects a log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// lines waits until there are n lines; a line is written after its answer.
func (b *logBuffer) lines(t *testing.T, n int) []string {
	t.Helper()
	var lines []string
	waittest.Within(t, 10*time.Second, func() error {
		if lines = strings.SplitAfter(b.String(), "\n"); len(lines) <= n { // the last one is empty
			return fmt.Errorf("%d lines are logged, want %d", len(lines)-1, n)
		}
		return nil
	})
	return lines[:len(lines)-1]
}
