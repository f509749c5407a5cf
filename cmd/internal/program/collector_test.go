package program_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes spans as an OpenTelemetry collector does, over HTTP in protobuf.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	raw   []byte // of all requests
	spans []span
}

// span is a span as it arrived.
type span struct {
	*tracepb.Span
	service string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			t.Errorf("the collector got %s %s with %d bytes, want spans", r.Method, r.URL.Path, len(body))
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, body...)
		for _, of := range request.GetResourceSpans() {
			service := attribute(of.GetResource().GetAttributes(), "service.name")
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					c.spans = append(c.spans, span{s, service})
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// attribute is the text of an attribute; empty where there is none.
func attribute(of []*commonpb.KeyValue, key string) string {
	for _, a := range of {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// all are the spans that have arrived.
func (c *collector) all() []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// named are the spans of a name.
func (c *collector) named(name string) []span {
	return slices.DeleteFunc(c.all(), func(s span) bool { return s.GetName() != name })
}

// trace are the spans of one trace.
func (c *collector) trace(id []byte) trace {
	return slices.DeleteFunc(c.all(), func(s span) bool { return string(s.GetTraceId()) != string(id) })
}

type trace []span

// one is the only span of a name.
func (tr trace) one(t *testing.T, name string) span {
	t.Helper()
	found := slices.DeleteFunc(slices.Clone(tr), func(s span) bool { return s.GetName() != name })
	if len(found) != 1 {
		t.Fatalf("the trace has %d spans named %s, want 1:\n%s", len(found), name, tr)
	}
	return found[0]
}

// ancestors are the names of a span and of those that it is part of, the nearest first.
func (tr trace) ancestors(s span) []string {
	names := []string{s.GetName()}
	for _, p := range tr {
		if string(p.GetSpanId()) == string(s.GetParentSpanId()) {
			return append(names, tr.ancestors(p)...)
		}
	}
	return names
}

// String is the trace as a tree.
func (tr trace) String() string {
	var text strings.Builder
	var branch func(parent string, depth int)
	branch = func(parent string, depth int) {
		for _, s := range tr {
			if string(s.GetParentSpanId()) == parent {
				took := time.Duration(s.GetEndTimeUnixNano() - s.GetStartTimeUnixNano())
				fmt.Fprintf(&text, "%s%s  %s  %s\n", strings.Repeat("  ", depth), s.GetName(), s.service, took)
				branch(string(s.GetSpanId()), depth+1)
			}
		}
	}
	slices.SortFunc(tr, func(a, b span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
	roots := map[string]bool{}
	for _, s := range tr {
		if !slices.ContainsFunc(tr, func(p span) bool { return string(p.GetSpanId()) == string(s.GetParentSpanId()) }) && !roots[string(s.GetParentSpanId())] {
			roots[string(s.GetParentSpanId())] = true
			if len(s.GetParentSpanId()) > 0 {
				fmt.Fprintf(&text, "(%s)\n", hex.EncodeToString(s.GetParentSpanId()))
			}
			branch(string(s.GetParentSpanId()), 0)
		}
	}
	return text.String()
}
