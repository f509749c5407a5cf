package store

import (
	"context"
	"encoding/json"
	"fmt"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceOf is the span that ctx is in, in W3C's form; empty where it is in none.
func traceOf(ctx context.Context) propagation.MapCarrier {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier
}

// noMetadata is what most jobs have.
var noMetadata = json.RawMessage("{}")

// jobMetadata is the metadata of a job that is written within ctx, so that its work goes on in the same trace: in
// otelriver's form.
func jobMetadata(ctx context.Context) json.RawMessage {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return noMetadata
	}
	metadata, err := json.Marshal(traceOf(ctx))
	if err != nil {
		return noMetadata // never: it is a map of strings
	}
	return metadata
}

// carryTrace has the jobs that functions of the schema write in this transaction go on in the trace of ctx, if any.
func (t *Tx) carryTrace(ctx context.Context) error {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	if err := t.q.CheckoutRequestCarryTrace(ctx, t.tx, traceOf(ctx).Get("traceparent")); err != nil {
		return fmt.Errorf("naming the transaction's trace: %w", interpret(err))
	}
	return nil
}

// ListTakenTraces reads the traces, in W3C's form, of the jobs that TakeEvents completed in this transaction.
func (t *Tx) ListTakenTraces(ctx context.Context, worker string) ([]string, error) {
	traces, err := t.q.EventListTakenTraces(ctx, t.tx, worker)
	if err != nil {
		return nil, fmt.Errorf("reading the traces of the events taken: %w", interpret(err))
	}
	return traces, nil
}
