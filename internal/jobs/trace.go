package jobs

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/riverqueue/rivercontrib/otelriver"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// tracing makes the spans of jobs. Its zero value makes none.
type tracing struct {
	provider trace.TracerProvider
	tracer   trace.Tracer
}

func newTracing(provider trace.TracerProvider) tracing {
	if provider == nil {
		return tracing{}
	}
	return tracing{provider: provider, tracer: provider.Tracer("github.com/truenorth-dev/truenorth/internal/jobs")}
}

// plugins are what River needs for it, in this order: otelriver starts the span of a job within the trace that it finds.
func (t tracing) plugins() []rivertype.Plugin {
	if t.tracer == nil {
		return nil
	}
	return []rivertype.Plugin{
		&goesOn{},
		otelriver.NewMiddleware(&otelriver.MiddlewareConfig{
			EnableTracePropagation: true, EnableWorkSpanJobKindSuffix: true,
			TracerProvider: t.provider, MeterProvider: metricnoop.NewMeterProvider(),
		}),
	}
}

// kindsThatGoOn are the jobs that somebody waits for: their work is part of the trace in which they were asked for. The others,
// which come on time or for long, begin a trace with each try, which links to that.
var kindsThatGoOn = []string{
	ApplyEventsArgs{}.Kind(), truenorth.KindCreateCheckout, RefreshObjectArgs{}.Kind(), WriteExternalIDArgs{}.Kind(), LinkCustomersArgs{}.Kind(),
}

// goesOn puts the work on a job into the trace in which the job was inserted. otelriver by itself only links to it.
type goesOn struct{ river.PluginDefaults }

// Work is River's.
func (*goesOn) Work(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) error {
	if slices.Contains(kindsThatGoOn, job.Kind) {
		ctx = propagation.TraceContext{}.Extract(ctx, insertedIn(job.Metadata))
	}
	return doInner(ctx)
}

// insertedIn is the span in which a job was inserted, by its metadata, in W3C's form; without a value where they name none.
func insertedIn(metadata []byte) propagation.MapCarrier {
	var in struct {
		Traceparent string `json:"traceparent"`
		Tracestate  string `json:"tracestate"`
	}
	if json.Unmarshal(metadata, &in) != nil {
		return nil
	}
	return propagation.MapCarrier{"traceparent": in.Traceparent, "tracestate": in.Tracestate}
}

// taken reads in which traces, in W3C's form, the jobs were inserted that a transaction took with its own.
func (t tracing) taken(ctx context.Context, tx *store.Tx, worker string) ([]string, error) {
	if t.tracer == nil {
		return nil, nil
	}
	return tx.ListTakenTraces(ctx, worker)
}

// applied tells, in each of these traces that is kept, that its events were applied since then by the job of ctx. The two spans
// link to each other.
func (t tracing) applied(ctx context.Context, since time.Time, taken []string) {
	span := trace.SpanFromContext(ctx)
	for _, traceparent := range taken {
		within := propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
		other := trace.SpanContextFromContext(within)
		if !other.IsRemote() || !other.IsSampled() { // not remote: it could not be read
			continue
		}
		_, beside := t.tracer.Start(within, "applied beside another batch",
			trace.WithTimestamp(since), trace.WithLinks(trace.Link{SpanContext: span.SpanContext()}))
		beside.End()
		span.AddLink(trace.Link{SpanContext: other})
	}
}
