package ingest

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// describe says on the span of a request what the log says of it. Only what is verified is told.
func describe(span trace.Span, d store.Delivery, v verdict) {
	if !span.IsRecording() {
		return
	}
	if d.WebhookID != "" {
		span.SetAttributes(
			attribute.String("truenorth.webhook_id", loggable(d.WebhookID)),
			attribute.String("truenorth.event.type", loggable(d.Type)),
			attribute.String("truenorth.event.object_id", loggable(d.ObjectID)))
	}
	if v.reason != "" {
		span.SetAttributes(attribute.String("truenorth.reason", v.reason))
	}
}

// startSpan begins the span of one transaction, in the trace of one of its deliveries: the first whose trace is kept. The
// spans of the others and this one link to each other. Without a tracer there is none, and ctx is given back as it is.
func (c *committer) startSpan(ctx context.Context, batch []*waiter) (context.Context, trace.Span) {
	if c.tracer == nil {
		return ctx, nil
	}
	parent := batch[0]
	for _, w := range batch {
		if w.span.SpanContext().IsSampled() {
			parent = w
			break
		}
	}
	var links []trace.Link
	for _, w := range batch {
		if other := w.span.SpanContext(); w != parent && other.IsSampled() {
			links = append(links, trace.Link{SpanContext: other})
		}
	}
	ctx, span := c.tracer.Start(trace.ContextWithSpan(ctx, parent.span), "commit",
		trace.WithLinks(links...), trace.WithAttributes(attribute.Int("truenorth.deliveries", len(batch))))
	for _, w := range batch {
		if w != parent {
			w.span.AddLink(trace.Link{SpanContext: span.SpanContext()})
		}
	}
	return ctx, span
}

func endSpan(span trace.Span, stored store.Stored, err error) {
	if span == nil {
		return
	}
	span.SetAttributes(attribute.Int("truenorth.events.new", stored.New))
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
