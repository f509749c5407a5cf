package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// endpointWorld is a world in which the test says what ingest does, what Polar's endpoints are and when they are looked
// at. No worker runs, so the jobs that are asked for stay where they can be counted.
type endpointWorld struct {
	*world
	url    string // ingest's route
	gate   atomic.Pointer[http.Handler]
	polar  *polar.API
	log    *logBook
	asked  *requestLog
	runner *jobs.Runner
	clock  *fakeClock
}

// newEndpointWorld makes a world without an endpoint, in which Polar tries again at once. Ingest has the secret.
func newEndpointWorld(t *testing.T, config jobs.Config) *endpointWorld {
	t.Helper()
	return newEndpointWorldAt(t, config, 0.0001)
}

func newEndpointWorldAt(t *testing.T, config jobs.Config, retryScale float64) *endpointWorld {
	t.Helper()
	e := &endpointWorld{log: &logBook{}, asked: &requestLog{}, clock: newFakeClock()}
	e.world = newWorld(t, worldOptions{
		offline: true, idle: true, between: e.asked.between,
		fake: polarfake.Options{RetryScale: retryScale, Clock: e.clock.now},
	})
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*e.gate.Load()).ServeHTTP(rw, r) }))
	t.Cleanup(front.Close)
	e.url = front.URL + ingest.Route
	e.ingestHas(secret)
	api, err := polar.New(polar.Config{BaseURL: e.api.URL + "/v1", Token: "polar_oat_test"})
	if err != nil {
		t.Fatal(err)
	}
	e.polar = api
	e.runner = e.newRunner(config)
	return e
}

// newRunner makes a worker that is not started. It waits for nothing between tries.
func (e *endpointWorld) newRunner(config jobs.Config) *jobs.Runner {
	e.t.Helper()
	config.API.BaseURL, config.API.Token, config.API.MaxRetries = e.api.URL+"/v1", "polar_oat_test", -1
	config.Logger = slog.New(slog.NewTextHandler(e.log, nil))
	runner, err := jobs.New(e.store, config)
	if err != nil {
		e.t.Fatal(err)
	}
	return runner
}

// ingestHas restarts ingest with these secrets.
func (e *endpointWorld) ingestHas(secrets ...string) {
	e.t.Helper()
	verifier, err := polar.NewVerifier(secrets)
	if err != nil {
		e.t.Fatal(err)
	}
	// Its clock goes with Polar's, which tests move.
	handler := ingest.New(e.store, verifier.WithClock(e.clock.now), testLogger(e.t)).Handler()
	e.gate.Store(&handler)
}

// ingestIsDown lets a broken proxy stand where ingest should.
func (e *endpointWorld) ingestIsDown() {
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	e.gate.Store(&handler)
}

// add registers an endpoint with ingest's URL and secret, unless the spec says otherwise.
func (e *endpointWorld) add(spec polarfake.Endpoint) uuid.UUID {
	if spec.URL == "" {
		spec.URL = e.url
	}
	if spec.Secret == "" {
		spec.Secret = secret
	}
	return uuid.MustParse(e.fake.AddEndpoint(spec))
}

func (e *endpointWorld) change(id uuid.UUID, update polar.EndpointUpdate) {
	e.t.Helper()
	if _, err := e.polar.UpdateEndpoint(e.t.Context(), id, update); err != nil {
		e.t.Fatal(err)
	}
}

// look looks at the endpoint once.
func (e *endpointWorld) look() store.EndpointWatch {
	e.t.Helper()
	if err := e.runner.LookAtEndpoint(e.t.Context(), 1); err != nil {
		e.t.Fatal(err)
	}
	return e.watch()
}

func (e *endpointWorld) watch() store.EndpointWatch {
	e.t.Helper()
	watch, err := e.store.GetEndpointWatch(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return watch
}

// want compares state and findings with a line such as "dark disabled".
func (e *endpointWorld) want(when string, watch store.EndpointWatch, want string) {
	e.t.Helper()
	words := []string{watch.State}
	for _, f := range watch.Findings {
		words = append(words, f.Finding)
		if f.Detail == "" || f.Advice == "" {
			e.t.Errorf("%s: finding %+v does not say what and what to do", when, f)
		}
	}
	if got := strings.Join(words, " "); got != want {
		e.t.Errorf("%s: endpoint is %q, want %q: %+v", when, got, want, watch.Findings)
	}
}

func (e *endpointWorld) sweepsAsked() int64 {
	e.t.Helper()
	return one[int64](e.world, "select count(*) from polar.river_job where kind = 'reconcile' and (args ->> 'full')::boolean and args -> 'types' = 'null'")
}

// outages lists them as reason and whether they go on.
func (e *endpointWorld) outages() []string {
	e.t.Helper()
	return all[string](e.world, "select reason || case when ended_at is null then ' on' else ' over' end from polar.endpoint_outage order by id")
}

// eventsEach is how many events the fake sends of a new customer.
const eventsEach = 3

// customers makes customers at Polar, and waits until Polar is done with their events.
func (e *endpointWorld) customers(prefix string, n int) {
	e.t.Helper()
	for i := range n {
		if _, err := e.fake.CreateCustomer(fmt.Sprintf(`{"type":"individual","email":"%s%d@buyer-example.com"}`, prefix, i)); err != nil {
			e.t.Fatal(err)
		}
	}
	e.idle()
}

func (e *endpointWorld) idle() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute) // a retry may be as far away
	defer cancel()
	if err := e.fake.WaitIdle(ctx); err != nil {
		e.t.Fatal(err)
	}
}

// disabled tells whether Polar has disabled an endpoint.
func (e *endpointWorld) disabled(id uuid.UUID) bool {
	e.t.Helper()
	endpoint, err := e.polar.GetEndpoint(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return !endpoint.Enabled
}

// logBook is a log that tests read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

// lines are those that have all the words.
func (b *logBook) lines(words ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.text.String()) {
		has := true
		for _, word := range words {
			has = has && strings.Contains(line, word)
		}
		if has {
			found = append(found, line)
		}
	}
	return found
}

// requestLog stands between a worker and Polar, and keeps what is asked.
type requestLog struct {
	mu       sync.Mutex
	requests []*http.Request
	answer   func(w http.ResponseWriter, r *http.Request, fake http.Handler) // nil: the fake answers
}

func (l *requestLog) between(fake http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.requests = append(l.requests, r)
		answer := l.answer
		l.mu.Unlock()
		if answer == nil {
			fake.ServeHTTP(w, r)
			return
		}
		answer(w, r, fake)
	})
}

// answerWith lets the test answer from now on.
func (l *requestLog) answerWith(answer func(w http.ResponseWriter, r *http.Request, fake http.Handler)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

// take returns the requests of a path since the last time, and forgets all.
func (l *requestLog) take(path string) []*http.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*http.Request
	for _, r := range l.requests {
		if r.URL.Path == path {
			found = append(found, r)
		}
	}
	l.requests = nil
	return found
}

// rewrite changes each item of the fake's lists on its way.
func rewrite(change func(item map[string]any)) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
		recorder := httptest.NewRecorder()
		fake.ServeHTTP(recorder, r)
		maps.Copy(w.Header(), recorder.Header())
		var list struct {
			Items      []map[string]any `json:"items"`
			Pagination map[string]any   `json:"pagination"`
		}
		body := recorder.Body.Bytes()
		if json.Unmarshal(body, &list) == nil && list.Items != nil {
			for _, item := range list.Items {
				change(item)
			}
			body, _ = json.Marshal(list)
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(body)
	}
}
