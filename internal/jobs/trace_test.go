package jobs_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// traced makes a provider that keeps in memory what ended.
func traced() (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	ended := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(ended)), ended
}

// named are the spans of a name.
func named(ended *tracetest.SpanRecorder, name string) []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(ended.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != name })
}

func TestEveryTraceShowsWhenItsEventsWereAppliedThoughOneJobTakesMany(t *testing.T) {
	t.Parallel()

	provider, ended := traced()
	w := newWorld(t, worldOptions{offline: true, idle: true, jobs: jobs.Config{Tracing: provider}})
	const batches = 40 // more than are worked at a time
	var received []trace.SpanContext
	for i := range batches {
		ctx, span := provider.Tracer("test").Start(t.Context(), "received")
		span.End()
		received = append(received, span.SpanContext())
		body := event("customer.created", 1, customerDoc(uuid.New(), 1, nil))
		if _, err := w.store.InsertEvents(ctx, []store.Delivery{{WebhookID: fmt.Sprintf("msg_%d", i), Type: "customer.created", Body: []byte(body)}}, false); err != nil {
			t.Fatal(err)
		}
	}
	w.startWorker()
	w.settle()
	w.noFailures()
	w.stop()

	works, besides := named(ended, "river.work/apply_events"), named(ended, "applied beside another batch")
	if len(besides) == 0 || len(works)+len(besides) != batches {
		t.Fatalf("%d batches were applied by jobs of their own and %d beside others, want all %d and some beside", len(works), len(besides), batches)
	}
	byID := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	parents := map[trace.SpanID]bool{}
	for _, work := range works {
		byID[work.SpanContext().SpanID()] = work
		parents[work.Parent().SpanID()] = true
	}
	for _, beside := range besides {
		parents[beside.Parent().SpanID()] = true
		work := byID[beside.Links()[0].SpanContext.SpanID()]
		if work == nil || !slices.ContainsFunc(work.Links(), func(l sdktrace.Link) bool { return l.SpanContext.SpanID() == beside.Parent().SpanID() }) {
			t.Errorf("a batch was applied beside %v, which does not link to it", work)
		}
	}
	for _, span := range received {
		if !parents[span.SpanID()] {
			t.Errorf("the trace %s does not show when its event was applied", span.TraceID())
		}
	}
}

func TestWorkThatNobodyWaitsForBeginsATraceOfItsOwn(t *testing.T) {
	t.Parallel()

	provider, ended := traced()
	w := newWorld(t, worldOptions{offline: true, jobs: jobs.Config{Tracing: provider}})
	// As an app does that asks by River, with otelriver.
	_, asked := provider.Tracer("test").Start(t.Context(), "asked")
	asked.End()
	in := asked.SpanContext()
	w.exec(`insert into polar.river_job (kind, args, max_attempts, metadata) values ('reconcile', '{"types": ["product"], "full": true}', 5,
	        jsonb_build_object('traceparent', $1::text))`, fmt.Sprintf("00-%s-%s-01", in.TraceID(), in.SpanID()))
	waittest.Eventually(t, func() error {
		if len(named(ended, "river.work/reconcile")) == 0 {
			return errors.New("nothing was swept")
		}
		return nil
	})
	for _, work := range named(ended, "river.work/reconcile") {
		linked := slices.ContainsFunc(work.Links(), func(l sdktrace.Link) bool { return l.SpanContext.SpanID() == in.SpanID() })
		if work.SpanContext().TraceID() == in.TraceID() || !linked {
			t.Errorf("the sweep is of trace %s and links to %v, want a trace of its own that links to %s", work.SpanContext().TraceID(), work.Links(), in.TraceID())
		}
	}
}

func TestOddMetadataOfAJobAreNoTrace(t *testing.T) {
	t.Parallel()

	provider, ended := traced()
	w := newWorld(t, worldOptions{offline: true, jobs: jobs.Config{Tracing: provider}})
	odd := []string{`{}`, `{"traceparent": 7}`, `{"traceparent": ""}`, `{"traceparent": "00-0-0-01"}`, `{"traceparent": {"a": []}}`, `{"traceparent": "00-` + "zz" + `"}`}
	for _, metadata := range odd {
		w.exec(`insert into polar.river_job (kind, args, max_attempts, metadata) values ('link_customers', '{"users": ["usr_nobody"]}', 5, $1::jsonb)`, metadata)
	}
	w.settle()
	waittest.Eventually(t, func() error {
		if n := len(named(ended, "river.work/link_customers")); n != len(odd) {
			return fmt.Errorf("%d jobs are worked, want %d", n, len(odd))
		}
		return nil
	})
	for _, work := range named(ended, "river.work/link_customers") {
		if work.Parent().IsValid() || !slices.Contains(work.Attributes(), attribute.String("status", "ok")) {
			t.Errorf("a job is part of %v and has %v, want a root that ended well", work.Parent(), work.Attributes())
		}
	}
}

func TestSQLThatNamesNoTraceOrAnOddOneWritesJobsWithoutOne(t *testing.T) {
	t.Parallel()

	w := newWorld(t, worldOptions{offline: true, idle: true})
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for given, want := range map[string]string{
		"": `{}`, "x": `{}`, `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`: `{}`, good: `{"traceparent": "` + good + `"}`,
	} {
		tx, err := storetest.As(t, w.store, store.RoleApp).Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "select set_config('polar.traceparent', $1, true)", given); err != nil {
			t.Fatal(err)
		}
		var id uuid.UUID
		if err := tx.QueryRow(t.Context(), "select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text)))", oneTime.String()).Scan(&id); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := one[string](w, "select metadata::text from polar.river_job where id = (select job_id from polar.checkout_request where id = $1)", id)
		expect(t, "metadata of a job asked for in trace "+given, got, want)
	}
}
