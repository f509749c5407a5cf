package truenorth

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// withinTrace has the job that a call of one of the schema's functions writes go on in the trace of ctx, where an app that
// uses OpenTelemetry gives one. The function reads the setting, which is the transaction's alone, by the default of
// polar.river_job.metadata; from is evaluated before what is selected.
func withinTrace(ctx context.Context, sql string, args ...any) (string, []any) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return sql, args
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	args = append(args, carrier.Get("traceparent"))
	return fmt.Sprintf("%s from set_config('polar.traceparent', $%d, true)", sql, len(args)), args
}
