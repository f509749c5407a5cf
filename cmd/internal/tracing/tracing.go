// Package tracing sends what a program does, as OpenTelemetry's spans, to a collector. Where none is named nothing is made, and
// what would be wrapped stays as it is: every method of a nil *Tracing gives back what it got.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
)

// Tracing makes the spans of one program. Nil: none.
type Tracing struct {
	provider *sdktrace.TracerProvider
	logger   *slog.Logger
}

// Start begins to trace where config names a collector. Nobody waits for the collector, then or later: spans that cannot be sent
// are dropped, and the log says so once in a while. program is such as ingest. Call Stop at the end.
func Start(ctx context.Context, config cmdconfig.Tracing, program, version string, logger *slog.Logger) (*Tracing, error) {
	collector, on := config.Collector()
	if !on {
		return nil, nil //nolint:nilnil // nil is a Tracing that does nothing
	}
	exporter, err := newExporter(ctx, collector)
	if err != nil {
		return nil, err
	}
	// Later ones win: what the environment says goes over ours.
	of, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(
			semconv.ServiceName("truenorth-"+program), semconv.ServiceVersion(version), semconv.ServiceInstanceID(uuid.NewString())),
		resource.WithFromEnv())
	if err != nil { // what could be read of it is there
		logger.WarnContext(ctx, "OpenTelemetry does not understand all that it should say of this program", slog.String("error", err.Error()))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(of), sdktrace.WithBatcher(&discreet{SpanExporter: exporter, logger: logger}))
	logger.InfoContext(ctx, "tracing", slog.String("collector", collector.Redacted()))
	return &Tracing{provider: provider, logger: logger}, nil
}

func newExporter(ctx context.Context, collector cmdconfig.Collector) (*otlptrace.Exporter, error) {
	client := otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(collector.URL))
	if collector.GRPC {
		client = otlptracegrpc.NewClient(otlptracegrpc.WithEndpointURL(collector.URL))
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("setting up OpenTelemetry's exporter: %w", err)
	}
	return exporter, nil
}

// Stop sends what has not been sent yet, but does not wait for long.
func (t *Tracing) Stop() {
	if t == nil {
		return
	}
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.logger.WarnContext(ctx, "the last spans could not be sent", slog.String("error", err.Error()))
	}
}

// Provider makes tracers; nil: nothing is traced.
func (t *Tracing) Provider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}

// Logger is logger, but its lines within a span bear that span's trace_id and span_id.
func (t *Tracing) Logger(logger *slog.Logger) *slog.Logger {
	if t == nil {
		return logger
	}
	return slog.New(logHandler{logger.Handler()})
}

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record = record.Clone()
		record.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, record) //nolint:wrapcheck // slog's own affair
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name)}
}
