package ingest_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// withSpans has every request be in a span of its own, as the programs do.
func withSpans(provider trace.TracerProvider, next http.Handler) http.Handler {
	tracer := provider.Tracer("test")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tracer.Start(r.Context(), "request")
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// traced makes a provider that keeps in memory what ended.
func traced(sampler sdktrace.Sampler) (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	ended := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(ended), sdktrace.WithSampler(sampler)), ended
}

// named are the spans of a name.
func named(spans []sdktrace.ReadOnlySpan, name string) []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(spans, func(s sdktrace.ReadOnlySpan) bool { return s.Name() != name })
}

func wantEnded(ended *tracetest.SpanRecorder, n int) error {
	if got := len(ended.Ended()); got != n {
		return fmt.Errorf("%d spans have ended, want %d", got, n)
	}
	return nil
}

func wantWaiting(e *edge, n int) error {
	if got := e.receiver.Waiting(); got != n {
		return fmt.Errorf("%d deliveries wait, want %d", got, n)
	}
	return nil
}

// traceparents are of the jobs, the one of the largest batch last.
func (e *edge) traceparents() []string {
	e.t.Helper()
	var found []string
	const sql = "select array(select coalesce(metadata ->> 'traceparent', metadata::text) from polar.river_job order by (args ->> 'size')::int, id)"
	if err := e.store.Pool().QueryRow(e.t.Context(), sql).Scan(&found); err != nil {
		e.t.Fatal(err)
	}
	return found
}

func traceparentOf(span sdktrace.ReadOnlySpan) string {
	in := span.SpanContext()
	return "00-" + in.TraceID().String() + "-" + in.SpanID().String() + "-01"
}

func TestTheJobOfADeliveryGoesOnInItsTrace(t *testing.T) {
	t.Parallel()

	provider, ended := traced(sdktrace.AlwaysSample())
	e := newEdge(t, edgeOptions{tracing: provider})
	e.post("msg_traced", order).want(t, http.StatusAccepted)
	waittest.Within(t, 20*time.Second, func() error { return wantEnded(ended, 2) })
	requests, commits := named(ended.Ended(), "request"), named(ended.Ended(), "commit")
	if len(requests) != 1 || len(commits) != 1 || commits[0].Parent().SpanID() != requests[0].SpanContext().SpanID() {
		t.Fatalf("there are %d requests and %d commits, want a commit that is part of a request", len(requests), len(commits))
	}
	if got, want := e.traceparents(), []string{traceparentOf(commits[0])}; !slices.Equal(got, want) {
		t.Errorf("the jobs are of %v, want %v", got, want)
	}
	var told []string
	for _, a := range requests[0].Attributes() {
		told = append(told, string(a.Key)+"="+a.Value.AsString())
	}
	want := []string{"truenorth.webhook_id=msg_traced", "truenorth.event.type=order.paid", "truenorth.event.object_id=992fae2a-2a17-4b7a-8d9e-e287cf90131b"}
	if !slices.Equal(told, want) {
		t.Errorf("the request's span tells %q, want %q", told, want)
	}
}

func TestDeliveriesThatCommitTogetherLinkToEachOther(t *testing.T) {
	t.Parallel()

	provider, ended := traced(sdktrace.AlwaysSample())
	s := storetest.New(t)
	g := newGate(s)
	e := newEdge(t, edgeOptions{events: g, tracing: provider})
	e.store = s
	first := g.occupy(e)
	const together = 5
	var all sync.WaitGroup
	for range together {
		all.Go(func() { e.post(newID(), order).want(t, http.StatusAccepted) })
	}
	waittest.Within(t, 20*time.Second, func() error { return wantWaiting(e, together) })
	close(g.open)
	first()
	all.Wait()
	waittest.Within(t, 20*time.Second, func() error { return wantEnded(ended, 2*writers+together+1) })

	commits := slices.DeleteFunc(named(ended.Ended(), "commit"), func(c sdktrace.ReadOnlySpan) bool { return len(c.Links()) == 0 })
	if len(commits) != 1 || len(commits[0].Links()) != together-1 {
		t.Fatalf("%d commits have links, want one, with %d", len(commits), together-1)
	}
	commit := commits[0]
	linked := map[trace.SpanID]bool{}
	for _, link := range commit.Links() {
		linked[link.SpanContext.SpanID()] = true
	}
	for _, r := range named(ended.Ended(), "request") {
		back := slices.ContainsFunc(r.Links(), func(l sdktrace.Link) bool { return l.SpanContext.Equal(commit.SpanContext()) })
		if id := r.SpanContext().SpanID(); linked[id] != back || back && id == commit.Parent().SpanID() {
			t.Errorf("a request is linked to by the commit: %t, and links to it: %t", linked[id], back)
		}
	}
	if got := e.traceparents(); len(got) != writers+1 || got[writers] != traceparentOf(commit) {
		t.Errorf("the jobs are of %v, the last of them not of %s", got, traceparentOf(commit))
	}
}

func TestABatchGoesOnInATraceThatIsKept(t *testing.T) {
	t.Parallel()

	// Every third trace is kept.
	provider, ended := traced(&everyThird{})
	s := storetest.New(t)
	g := newGate(s)
	e := newEdge(t, edgeOptions{events: g, tracing: provider})
	e.store = s
	first := g.occupy(e) // the first two
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { e.post(newID(), order).want(t, http.StatusAccepted) })
	}
	waittest.Within(t, 20*time.Second, func() error { return wantWaiting(e, 5) })
	close(g.open)
	first()
	all.Wait()
	waittest.Within(t, 20*time.Second, func() error { return wantEnded(ended, 3) })
	requests, commits := named(ended.Ended(), "request"), named(ended.Ended(), "commit")
	if len(requests) != 2 || len(commits) != 1 || len(commits[0].Links()) != 1 {
		t.Fatalf("%d requests and %d commits are kept, want two of which one is linked to by a commit", len(requests), len(commits))
	}
	got := e.traceparents()
	if got[writers] != traceparentOf(commits[0]) {
		t.Errorf("the batch is of %s, want %s, whose trace is kept", got[writers], traceparentOf(commits[0]))
	}
	for _, unkept := range got[:writers] {
		if len(unkept) != len("00-")+32+1+16+len("-00") || unkept[len(unkept)-2:] != "00" {
			t.Errorf("a job of a trace that is not kept says %s, want that it is not", unkept)
		}
	}
}

// everyThird keeps the third trace, the sixth, and so on, and of a trace all or nothing.
type everyThird struct {
	mu sync.Mutex
	n  int
}

func (e *everyThird) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if parent := trace.SpanContextFromContext(p.ParentContext); parent.IsValid() {
		if parent.IsSampled() {
			return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
		}
		return sdktrace.SamplingResult{Decision: sdktrace.Drop}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	if e.n%3 == 0 {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
	}
	return sdktrace.SamplingResult{Decision: sdktrace.Drop}
}

func (*everyThird) Description() string { return "every third" }

func TestNothingIsMadeWhereNothingIsTraced(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	e := newEdge(t, edgeOptions{events: s})
	e.store = s
	e.post(newID(), order).want(t, http.StatusAccepted)
	if got := e.traceparents(); !slices.Equal(got, []string{"{}"}) {
		t.Errorf("the job's metadata are %v, want none", got)
	}
	if tracer := s.Pool().Config().ConnConfig.Tracer; tracer != nil {
		t.Errorf("the driver tells %T of its statements, want nobody", tracer)
	}
}

// BenchmarkDelivery is what a delivery costs but for the database and the network, without traces and with all of them kept.
func BenchmarkDelivery(b *testing.B) {
	tracing, _ := traced(sdktrace.AlwaysSample())
	for name, provider := range map[string]trace.TracerProvider{"Untraced": nil, "Traced": tracing} {
		b.Run(name, func(b *testing.B) {
			verifier, err := polar.NewVerifier([]string{standardSecret})
			if err != nil {
				b.Fatal(err)
			}
			handler := ingest.New(discard{}, verifier, slog.New(slog.DiscardHandler), ingest.WithTracing(provider)).Handler()
			if provider != nil {
				handler = withSpans(provider, handler)
			}
			header, err := polar.Sign(standardSecret, "msg_1", time.Now(), []byte(order), polar.DerivationAuto)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				request := httptest.NewRequest(http.MethodPost, ingest.Route, bytes.NewReader([]byte(order)))
				request.Header = header
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, request)
				if answer.Code != http.StatusAccepted {
					b.Fatalf("answered %d %s", answer.Code, answer.Body)
				}
			}
		})
	}
}
