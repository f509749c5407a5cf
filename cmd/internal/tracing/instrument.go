package tracing

import (
	"context"
	"net/http"
	"strings"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/polar"
)

// noMetrics: those are Prometheus's.
var noMetrics = metricnoop.NewMeterProvider()

// Statements makes a span of every statement within a span, named as its query. Preparing and connecting are part of the
// statement that needs it. Nil: nothing is traced.
func (t *Tracing) Statements() pgx.QueryTracer {
	if t == nil {
		return nil
	}
	tracer := otelpgx.NewTracer(
		otelpgx.WithTracerProvider(t.provider), otelpgx.WithMeterProvider(noMetrics), otelpgx.WithSpanNameCtxFunc(queryName),
		otelpgx.WithDisableSQLStatementInAttributes(), otelpgx.WithDisableConnectionDetailsInAttributes())
	return struct {
		pgx.QueryTracer
		pgx.BatchTracer
		pgx.CopyFromTracer
	}{tracer, tracer, tracer}
}

// queryName is what sqlc's comment before a statement says; of others it is the operation.
func queryName(ctx context.Context, statement string) string {
	if rest, ok := strings.CutPrefix(statement, "-- name: "); ok {
		name, _, _ := strings.Cut(rest, " ")
		return name
	}
	return strings.TrimSuffix(otelpgx.SQLOperationName(ctx, statement), ";")
}

// Webhooks makes a span of every request of the route, to which the internet comes: the trace that a stranger names is linked
// to, and never joined.
func (t *Tracing) Webhooks(route string, next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	traced := otelhttp.NewHandler(next, route, t.options(otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }))...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != route {
			next.ServeHTTP(w, r)
			return
		}
		r.Pattern = route // names the span
		traced.ServeHTTP(w, r)
	})
}

// Requests makes a span of every request, within the trace that it names, if any. next is a ServeMux, or one lies behind it.
func (t *Tracing) Requests(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return otelhttp.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if _, route, ok := strings.Cut(" "+r.Pattern, " /"); ok { // a pattern may begin with a method
			trace.SpanFromContext(r.Context()).SetAttributes(semconv.HTTPRoute("/" + route))
		}
	}), "", t.options()...)
}

// Calls makes a span of every call of Polar's API, named after its route. Polar is told nothing of it.
func (t *Tracing) Calls(next http.RoundTripper) http.RoundTripper {
	if t == nil {
		return next
	}
	return otelhttp.NewTransport(next, t.options(
		otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator()),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + polar.CallOf(r.Context()).Route }),
	)...)
}

func (t *Tracing) options(more ...otelhttp.Option) []otelhttp.Option {
	return append([]otelhttp.Option{
		otelhttp.WithTracerProvider(t.provider), otelhttp.WithMeterProvider(noMetrics), otelhttp.WithPropagators(propagation.TraceContext{}),
	}, more...)
}
