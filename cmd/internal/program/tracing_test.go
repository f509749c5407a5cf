package program_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// What must not be in any span.
const (
	accessToken     = "polar_oat_never_in_a_span"
	consolePassword = "console_never_in_a_span"
	appKey          = "truenorth_never_in_a_span"
	address         = "ada.never.in.a.span@example.com"
	fullName        = "Ada Neverinaspan"
)

// tracedWorld is both programs, on one database and a fake Polar, with a collector for their spans.
type tracedWorld struct {
	t              *testing.T
	store          *store.Store
	fake           *polarfake.Fake
	ingest, worker string
	log            lockedBuffer
	stop           func() // ends both programs, which send their last spans

	mu    sync.Mutex
	calls []http.Header // to Polar
}

func newTracedWorld(t *testing.T, tracing cmdconfig.Tracing) *tracedWorld {
	t.Helper()
	w := &tracedWorld{t: t}
	pg := awayPostgres(t)
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.store, err = store.Open(pg.URL(), "program test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.store.Close)
	w.fake = polarfake.New(polarfake.Options{})
	t.Cleanup(w.fake.Close)
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.calls = append(w.calls, r.Header.Clone())
		w.mu.Unlock()
		w.fake.ServeHTTP(rw, r)
	}))
	t.Cleanup(api.Close)
	w.fake.SetPublicURL(api.URL)

	logger := func(program string) *slog.Logger {
		return slog.New(slog.NewJSONHandler(&w.log, nil)).With(slog.String("program", program))
	}
	database := cmdconfig.Database{URL: cmdconfig.Secret(pg.URL())}
	var stopIngest, stopWorker func()
	w.ingest, stopIngest = started(t, func(ctx context.Context, ready func(net.Addr)) error {
		return program.Ingest(ctx, cmdconfig.Ingest{
			Database: database, WebhookSecrets: []cmdconfig.Secret{secret}, Addr: "127.0.0.1:0", Tracing: tracing,
		}, logger("ingest"), ready)
	})
	none := 0
	w.worker, stopWorker = started(t, func(ctx context.Context, ready func(net.Addr)) error {
		return program.Worker(ctx, cmdconfig.Worker{
			Database: database, Addr: "127.0.0.1:0", ConsolePassword: consolePassword, Tracing: tracing,
			Polar: cmdconfig.Polar{AccessToken: accessToken, APIURL: api.URL + "/v1", Version: "2026-10", RateLimit: &none},
		}, nil, logger("worker"), ready)
	})
	w.stop = func() { stopIngest(); stopWorker() }
	if _, err := w.store.InsertAPIKey(t.Context(), "shop", sha256.Sum256([]byte(appKey)), store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() error {
		if status, body := ask(t, http.MethodGet, w.worker+"/readyz", nil, ""); status != http.StatusOK {
			return fmt.Errorf("readyz answers %d %s", status, body)
		}
		return nil
	})
	return w
}

func (w *tracedWorld) eventually(check func() error) {
	w.t.Helper()
	waittest.Within(w.t, 20*time.Second, check)
}

func (w *tracedWorld) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.store.Pool().Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// deliver posts a signed event, and waits until it is applied, or failed.
func (w *tracedWorld) deliver(webhookID, eventType string, data any, more http.Header, ends string) {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{"type": eventType, "timestamp": time.Now().UTC(), "data": data})
	if err != nil {
		w.t.Fatal(err)
	}
	header, err := polar.Sign(secret, webhookID, time.Now(), body, polar.DerivationAuto)
	if err != nil {
		w.t.Fatal(err)
	}
	maps.Copy(header, more)
	if status, answer := ask(w.t, http.MethodPost, w.ingest+ingest.Route, header, string(body)); status != http.StatusAccepted {
		w.t.Fatalf("ingest answers %d %s", status, answer)
	}
	w.eventually(func() error {
		var state string
		if err := w.store.Pool().QueryRow(w.t.Context(), "select state from polar.event where webhook_id = $1", webhookID).Scan(&state); err != nil {
			return err
		}
		if state != ends {
			return fmt.Errorf("event %s is %s", webhookID, state)
		}
		return nil
	})
}

// pays has a customer at Polar pay in a session that was made for a user: the worker then writes the user's id to Polar. It
// gives the session's URL, which holds a secret.
func (w *tracedWorld) pays(more http.Header) (sessionURL string) {
	w.t.Helper()
	const user = "usr_ada"
	w.exec("insert into polar.local_user (id, email) values ($1, $2)", user, address)
	raw, err := w.fake.CreateCustomer(fmt.Sprintf(`{"email":%q,"name":%q}`, address, fullName))
	if err != nil {
		w.t.Fatal(err)
	}
	var customer struct {
		ID uuid.UUID `json:"id"`
	}
	if err := json.Unmarshal(raw, &customer); err != nil {
		w.t.Fatal(err)
	}
	w.deliver("msg_customer_"+user, "customer.created", raw, nil, "applied")
	request, session := uuid.New(), uuid.New()
	w.exec(`insert into polar.checkout_request (id, params) values ($1, jsonb_build_object('products', '[]'::jsonb, 'external_customer_id', $2::text))`, request, user)
	sessionURL = "https://polar.example/checkout/polar_c_never_in_a_span_" + user
	w.deliver("msg_checkout_"+user, "checkout.updated", map[string]any{
		"id": session, "created_at": time.Now().Add(-time.Hour).UTC(), "modified_at": time.Now().UTC(), "status": "succeeded", "url": sessionURL,
		"customer_id": customer.ID, "customer_email": address, "external_customer_id": user, "organization_id": polarfake.OrganizationID,
		"metadata": map[string]any{"truenorth_request": request}, "client_secret": "polar_c_never_in_a_span_" + user,
	}, more, "applied")
	w.eventually(func() error {
		if w.fake.Requests()["PATCH /v1/customers/{id}"] == 0 {
			return errors.New("the user's id is not written to Polar")
		}
		var written int
		return w.store.Pool().QueryRow(w.t.Context(), "select 1 from polar.river_job where kind = 'write_external_id' and state = 'completed'").Scan(&written)
	})
	return sessionURL
}

func TestOneTraceLeadsFromAWebhookToWhatIsWrittenToPolar(t *testing.T) {
	t.Parallel()

	c := newCollector(t)
	w := newTracedWorld(t, cmdconfig.Tracing{TracingEndpoint: c.URL})
	const stranger = "00-11111111111111111111111111111111-2222222222222222-01"
	w.pays(http.Header{"Traceparent": {stranger}, "Baggage": {"who=" + fullName}})
	w.stop()

	writes := c.named("PATCH /v1/customers/{id}")
	if len(writes) != 1 {
		t.Fatalf("there are %d spans of the write to Polar, want 1", len(writes))
	}
	tr := c.trace(writes[0].GetTraceId())
	t.Logf("the trace:\n%s", tr)
	want := []string{
		"PATCH /v1/customers/{id}", "river.work/write_external_id", "river.insert_many", "river.work/apply_events", "commit", "POST " + ingest.Route,
	}
	if got := tr.ancestors(writes[0]); !slices.Equal(got, want) {
		t.Errorf("the write is part of %q, want %q", got, want)
	}
	for name, parent := range map[string]string{
		"EventInsert": "commit", "EventTakeMany": "river.work/apply_events", "CustomerLinkUpsertMany": "river.work/apply_events", "JobInsertFastMany": "river.insert_many",
	} {
		if got := tr.ancestors(tr.one(t, name)); len(got) < 2 || got[1] != parent {
			t.Errorf("the statement %s is part of %q, want %s", name, got, parent)
		}
	}
	webhook, work := tr.one(t, "POST "+ingest.Route), tr.one(t, "river.work/apply_events")
	if webhook.service != "truenorth-ingest" || webhook.GetKind() != tracepb.Span_SPAN_KIND_SERVER || len(webhook.GetParentSpanId()) > 0 {
		t.Errorf("the webhook is %s, of service %s, want a root of kind server, of truenorth-ingest", webhook, webhook.service)
	}
	if got := attribute(webhook.GetAttributes(), "truenorth.webhook_id"); got != "msg_checkout_usr_ada" {
		t.Errorf("the webhook's span tells id %q", got)
	}
	if work.service != "truenorth-worker" || work.GetKind() != tracepb.Span_SPAN_KIND_CONSUMER {
		t.Errorf("the work is %s, of service %s, want one of kind consumer, of truenorth-worker", work, work.service)
	}
	// What a stranger names is linked to, and not joined.
	if links := webhook.GetLinks(); len(links) != 1 || hex.EncodeToString(links[0].GetTraceId()) != strings.Repeat("1", 32) {
		t.Errorf("the webhook links to %v, want the trace that came with it", links)
	}
	for _, s := range c.all() {
		if hex.EncodeToString(s.GetTraceId()) == strings.Repeat("1", 32) {
			t.Errorf("span %s joined a stranger's trace", s.GetName())
		}
	}
	for _, header := range w.calls {
		if header.Get("Traceparent") != "" || header.Get("Baggage") != "" {
			t.Errorf("Polar is told of the trace: %v", header)
		}
	}
	w.expectLogged("delivery", "ingest", webhook.GetTraceId(), webhook.GetSpanId())
	w.expectLogged("events applied", "worker", work.GetTraceId(), work.GetSpanId())
}

// expectLogged looks for a line of the log within a span.
func (w *tracedWorld) expectLogged(message, program string, traceID, spanID []byte) {
	w.t.Helper()
	lines := bufio.NewScanner(strings.NewReader(w.log.String()))
	for lines.Scan() {
		var line struct {
			Msg     string `json:"msg"`
			Program string `json:"program"`
			TraceID string `json:"trace_id"`
			SpanID  string `json:"span_id"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			w.t.Fatalf("%q is no line of JSON: %v", lines.Text(), err)
		}
		if line.Msg == message && line.Program == program && line.TraceID == hex.EncodeToString(traceID) && line.SpanID == hex.EncodeToString(spanID) {
			return
		}
	}
	w.t.Errorf("the %s's log has no line %q of span %x", program, message, spanID)
}

func TestOneTraceLeadsFromAnAppsRequestToPolar(t *testing.T) {
	t.Parallel()

	c := newCollector(t)
	w := newTracedWorld(t, cmdconfig.Tracing{TracingEndpoint: c.URL})
	spans := sdktrace.NewTracerProvider() // the app's own
	for name, askFor := range map[string]func(ctx context.Context, traceparent string) error{
		"by HTTP": func(_ context.Context, traceparent string) error {
			status, answer := ask(t, http.MethodPost, w.worker+"/v1/checkout-requests?wait=20s", http.Header{
				"Authorization": {"Bearer " + appKey}, "Content-Type": {"application/json"}, "Traceparent": {traceparent},
			}, fmt.Sprintf(`{"products":[%q],"external_customer_id":"usr_http"}`, polarfake.OneTimeProductID))
			if status != http.StatusCreated {
				return fmt.Errorf("/v1 answers %d %s", status, answer)
			}
			return nil
		},
		"by Go, in the app's own transaction": func(ctx context.Context, _ string) error {
			client := truenorth.NewClient(w.store.Pool())
			defer client.Close()
			tx, err := w.store.Pool().Begin(ctx)
			if err != nil {
				return err
			}
			id, err := client.CreateCheckoutTx(ctx, tx, truenorth.CheckoutParams{Products: []uuid.UUID{uuid.MustParse(polarfake.OneTimeProductID)}})
			if err != nil {
				return err
			}
			if err := tx.Commit(ctx); err != nil {
				return err
			}
			_, err = client.AwaitURL(ctx, id)
			return err
		},
		"by SQL": func(ctx context.Context, traceparent string) error {
			tx, err := w.store.Pool().Begin(ctx)
			if err != nil {
				return err
			}
			var id uuid.UUID
			if _, err := tx.Exec(ctx, "set local polar.traceparent = '"+traceparent+"'"); err != nil {
				return err
			}
			if err := tx.QueryRow(ctx, "select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text)))", polarfake.OneTimeProductID).Scan(&id); err != nil {
				return err
			}
			if err := tx.Commit(ctx); err != nil {
				return err
			}
			client := truenorth.NewClient(w.store.Pool())
			defer client.Close()
			_, err = client.AwaitURL(ctx, id)
			return err
		},
	} {
		ctx, app := spans.Tracer("app").Start(t.Context(), "buy")
		in := app.SpanContext()
		if err := askFor(ctx, fmt.Sprintf("00-%s-%s-01", in.TraceID(), in.SpanID())); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		app.End()
		traceID := in.TraceID()
		t.Cleanup(func() {
			tr := c.trace(traceID[:])
			want := []string{"POST /v1/checkouts/", "river.work/create_checkout"}
			if name == "by HTTP" {
				want = append(want, "POST /v1/checkout-requests")
			}
			if got := tr.ancestors(tr.one(t, "POST /v1/checkouts/")); !slices.Equal(got, want) {
				t.Errorf("%s: the call of Polar is part of %q, want %q:\n%s", name, got, want, tr)
			}
			top := want[len(want)-1]
			if parent := in.SpanID(); !bytes.Equal(tr.one(t, top).GetParentSpanId(), parent[:]) {
				t.Errorf("%s: %s is not part of the app's span:\n%s", name, top, tr)
			}
			t.Logf("%s:\n%s", name, tr)
		})
	}
	w.stop()
}

func TestSpansHoldNothingSecret(t *testing.T) {
	t.Parallel()

	c := newCollector(t)
	w := newTracedWorld(t, cmdconfig.Tracing{TracingEndpoint: c.URL})
	secrets := []string{
		secret, strings.TrimPrefix(secret, "whsec_"), accessToken, consolePassword, appKey, address, fullName, "never", "Traceparent",
		"jsonb_build_array", "insert into", "on conflict", // statements
	}
	secrets = append(secrets, w.pays(nil))

	app := http.Header{"Authorization": {"Bearer " + appKey}, "Content-Type": {"application/json"}}
	checkout := func(header http.Header, more string) (int, string) {
		return ask(t, http.MethodPost, w.worker+"/v1/checkout-requests?wait=20s&secret=never", header,
			fmt.Sprintf(`{"products":[%q],"external_customer_id":"usr_ada","customer_email":%q,"customer_name":%q%s}`, polarfake.OneTimeProductID, address, fullName, more))
	}
	for name, step := range map[string]func() (int, string){
		"a checkout":           func() (int, string) { return checkout(app, "") },
		"a refused field":      func() (int, string) { return checkout(app, `,"never":"x"`) },
		"a field Polar denies": func() (int, string) { return checkout(app, `,"success_url":"never a URL"`) },
		"a wrong key":          func() (int, string) { return checkout(http.Header{"Authorization": {"Bearer never_a_key"}}, "") },
		"a user's access": func() (int, string) {
			return ask(t, http.MethodGet, w.worker+"/v1/users/"+address+"/access", app, "")
		},
		"the console": func() (int, string) {
			return ask(t, http.MethodGet, w.worker+"/?user="+address, http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+consolePassword))}}, "")
		},
		"a page that is not there": func() (int, string) {
			return ask(t, http.MethodGet, w.worker+"/never/"+address, http.Header{"X-Forwarded-For": {"never"}, "User-Agent": {"never"}}, "")
		},
		"a webhook without a signature": func() (int, string) {
			return ask(t, "NEVER", w.ingest+ingest.Route+"?never="+address, http.Header{"Webhook-Id": {"never"}, "User-Agent": {"never"}}, address)
		},
	} {
		if status, answer := step(); status == http.StatusInternalServerError || status == http.StatusNotImplemented {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	// What the database refuses, in words that quote it.
	w.exec(`create function public.refuse(name text) returns boolean language plpgsql as $$ begin
	            if name like 'poison%' then raise exception using errcode = '23514', message = 'refusing ' || name; end if; return true; end $$`)
	w.exec("alter table polar.customer add constraint refused check (public.refuse(name))")
	w.deliver("msg_poison", "customer.updated", map[string]any{
		"id": uuid.New(), "created_at": time.Now().UTC(), "email": address, "name": "poison of " + address, "organization_id": polarfake.OrganizationID,
	}, nil, "failed")
	for _, column := range []string{"url", "doc ->> 'client_secret'", "doc ->> 'customer_email'"} {
		rows, err := w.store.Pool().Query(t.Context(), "select distinct "+column+" from polar.checkout where "+column+" is not null")
		if err != nil {
			t.Fatal(err)
		}
		values, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(values) == 0 {
			t.Fatalf("the run stored no %s: %v", column, err)
		}
		secrets = append(secrets, values...)
	}
	w.stop()

	raw := string(c.raw)
	for _, known := range []string{"msg_checkout_usr_ada", "msg_poison", "POST /v1/checkout-requests", "GET /v1/users/{id}/access", "GET /{$}", "23514"} {
		if !strings.Contains(raw, known) {
			t.Errorf("the spans tell nothing of %s, so they cannot prove much", known)
		}
	}
	for _, hidden := range secrets {
		if at := strings.Index(strings.ToLower(raw), strings.ToLower(hidden)); at >= 0 {
			t.Errorf("the spans hold %q: %q", hidden, raw[max(0, at-100):min(len(raw), at+100)])
		}
	}
}

func TestNothingIsTracedWhereNoCollectorIsNamedOrTracingIsOff(t *testing.T) {
	t.Parallel()

	c := newCollector(t)
	for name, tracing := range map[string]cmdconfig.Tracing{
		"no collector":         {},
		"OTEL_TRACES_EXPORTER": {TracingEndpoint: c.URL, TracingExporter: "none"},
		"OTEL_SDK_DISABLED":    {TracingEndpoint: c.URL, TracingDisabled: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTracedWorld(t, tracing)
			w.pays(nil)
			w.stop()
			if spans := c.all(); len(spans) > 0 {
				t.Errorf("there are %d spans, want none", len(spans))
			}
			if log := w.log.String(); strings.Contains(log, "trace_id") || !strings.Contains(log, "events applied") {
				t.Errorf("the log speaks of traces: %s", log)
			}
			var traced int
			if err := w.store.Pool().QueryRow(t.Context(), "select count(*) from polar.river_job where metadata ? 'traceparent'").Scan(&traced); err != nil || traced > 0 {
				t.Errorf("%d jobs bear a trace (%v), want none", traced, err)
			}
		})
	}
}

func TestACollectorThatIsAwayOrHangsHoldsNothingUp(t *testing.T) {
	t.Parallel()

	let := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-let }))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(let) })
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(refusing.Close)
	for name, endpoint := range map[string]string{"away": "http://127.0.0.1:1", "hangs": hanging.URL, "refuses": refusing.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTracedWorld(t, cmdconfig.Tracing{TracingEndpoint: endpoint})
			w.pays(nil)
			begun := time.Now()
			w.stop()
			if took := time.Since(begun); took > 8*time.Second {
				t.Errorf("stopping both programs took %s, want 2 s each at most for the last spans", took)
			}
			if n := strings.Count(w.log.String(), "could not be sent"); n < 1 || n > 4 {
				t.Errorf("the log speaks %d times of spans that could not be sent, want a word of each program: %s", n, w.log.String())
			}
		})
	}
}
