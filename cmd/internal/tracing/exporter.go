package tracing

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// told are the attributes that leave this process, and those of ours, which begin with truenorth. Whatever else a library
// may think of (URLs, addresses, statements, the words of an error) may hold a secret or a person's data, and stays here:
// the log has the words, with the same trace_id.
var told = []attribute.Key{
	"error.type", "exception.type",
	"http.request.method", "http.response.status_code", "http.route", "http.request.body.size", "http.response.body.size",
	"network.protocol.name", "network.protocol.version", "url.scheme",
	"db.system.name", "db.operation.name", "db.operation.batch.size", "db.collection.name", "pgx.rows_affected", "pgx.sql_state",
	"kind", "kinds", "queue", "id", "attempt", "priority", "status", "cancel", "snooze", "snooze.duration", "created_at", "scheduled_at",
	"unique_skipped_as_duplicate_count",
}

// toldOfCalls are told of calls that we make; of those that come, strangers write them.
var toldOfCalls = []attribute.Key{"server.address", "server.port"}

// discreet exports what may be told of spans. Where that fails it drops them, and the log says so now and then: a
// collector that is away is no reason to do anything else, nor to fill the log.
type discreet struct {
	sdktrace.SpanExporter
	logger *slog.Logger

	mu     sync.Mutex
	failed int       // spans, since it was last said
	said   time.Time // when that was; zero while all goes well
}

// ExportSpans never fails.
func (d *discreet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	shown := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, span := range spans {
		shown[i] = toldSpan{span}
	}
	d.note(ctx, len(spans), d.SpanExporter.ExportSpans(ctx, shown))
	return nil
}

// note says that the collector takes no spans: at once, every ten minutes while that lasts, and when it is over.
func (d *discreet) note(ctx context.Context, spans int, err error) {
	const pause = 10 * time.Minute
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		if !d.said.IsZero() {
			d.logger.InfoContext(ctx, "spans are sent again")
			d.said, d.failed = time.Time{}, 0
		}
		return
	}
	d.failed += spans
	if time.Since(d.said) < pause {
		return
	}
	d.logger.WarnContext(ctx, "spans could not be sent, and are dropped; all else goes on", slog.Int("spans", d.failed), slog.String("error", err.Error()))
	d.said, d.failed = time.Now(), 0
}

// toldSpan is what may be told of a span.
type toldSpan struct{ sdktrace.ReadOnlySpan }

func (s toldSpan) Attributes() []attribute.KeyValue {
	return s.told(s.ReadOnlySpan.Attributes())
}

func (s toldSpan) told(all []attribute.KeyValue) []attribute.KeyValue {
	var kept []attribute.KeyValue
	for _, a := range all {
		if slices.Contains(told, a.Key) || strings.HasPrefix(string(a.Key), "truenorth.") ||
			s.SpanKind() == trace.SpanKindClient && slices.Contains(toldOfCalls, a.Key) {
			kept = append(kept, a)
		}
	}
	return kept
}

// Status is without its description, which is an error's words.
func (s toldSpan) Status() sdktrace.Status {
	return sdktrace.Status{Code: s.ReadOnlySpan.Status().Code}
}

func (s toldSpan) Events() []sdktrace.Event {
	events := slices.Clone(s.ReadOnlySpan.Events())
	for i := range events {
		events[i].Attributes = s.told(events[i].Attributes)
	}
	return events
}

// Links are without the one to its own parent, which otelriver makes of every job that goes on in a trace.
func (s toldSpan) Links() []sdktrace.Link {
	links := slices.DeleteFunc(slices.Clone(s.ReadOnlySpan.Links()), func(l sdktrace.Link) bool {
		return l.SpanContext.SpanID() == s.Parent().SpanID()
	})
	for i := range links {
		links[i].Attributes = s.told(links[i].Attributes)
	}
	return links
}
