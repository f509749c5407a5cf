package tracing_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/tracing"
)

// grpcCollector keeps the names of the spans that come.
type grpcCollector struct {
	collectorpb.UnimplementedTraceServiceServer

	names chan string
}

func (c *grpcCollector) Export(_ context.Context, request *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	for _, of := range request.GetResourceSpans() {
		for _, scope := range of.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.names <- span.GetName()
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func TestSpansAreSentByGRPCWhereThatIsTheProtocol(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &grpcCollector{names: make(chan string, 10)}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	config := cmdconfig.Tracing{TracingEndpoint: "http://" + listener.Addr().String(), TracingProtocol: "grpc"}
	tracer, err := tracing.Start(t.Context(), config, "test", "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, span := tracer.Provider().Tracer("test").Start(t.Context(), "by gRPC")
	span.End()
	tracer.Stop()
	select {
	case name := <-c.names:
		if name != "by gRPC" {
			t.Errorf("the collector got a span named %s", name)
		}
	default:
		t.Error("the collector got nothing")
	}
}

func TestLogLinesWithinASpanBearItsIDs(t *testing.T) {
	t.Parallel()

	tracer, err := tracing.Start(t.Context(), cmdconfig.Tracing{TracingEndpoint: "http://127.0.0.1:1"}, "test", "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tracer.Stop)
	var log bytes.Buffer
	logger := tracer.Logger(slog.New(slog.NewJSONHandler(&log, nil))).With(slog.String("program", "test"))
	within := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	logger.InfoContext(within, "within")
	logger.InfoContext(t.Context(), "without")
	lines := strings.SplitN(log.String(), "\n", 2)
	if want := `"program":"test","trace_id":"01000000000000000000000000000000","span_id":"0200000000000000"}`; !strings.HasSuffix(lines[0], want) {
		t.Errorf("within a span the log says %s, want it to end with %s", lines[0], want)
	}
	if strings.Contains(lines[1], "trace_id") {
		t.Errorf("without a span the log says %s", lines[1])
	}
}

func TestWithoutACollectorEverythingStaysAsItIs(t *testing.T) {
	t.Parallel()

	tracer, err := tracing.Start(t.Context(), cmdconfig.Tracing{}, "test", "v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	if tracer != nil || tracer.Provider() != nil || tracer.Statements() != nil || tracer.Logger(logger) != logger ||
		tracer.Calls(nil) != nil || tracer.Webhooks("/", nil) != nil || tracer.Requests(nil) != nil {
		t.Error("something is made though nothing is traced")
	}
	tracer.Stop()
}
