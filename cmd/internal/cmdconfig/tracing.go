package cmdconfig

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Tracing says where traces go, in OpenTelemetry's own variables. The rest of them its SDK reads by itself.
type Tracing struct {
	TracingEndpoint       string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	TracingTracesEndpoint string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	TracingProtocol       string `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`
	TracingTracesProtocol string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	TracingExporter       string `env:"OTEL_TRACES_EXPORTER"`
	TracingDisabled       string `env:"OTEL_SDK_DISABLED"`
}

// Collector is who takes traces.
type Collector struct {
	URL  string // by HTTP with its path
	GRPC bool   // else it is HTTP
}

// Redacted is the URL without its password and its query.
func (c Collector) Redacted() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return hidden
	}
	u.RawQuery = ""
	return u.Redacted()
}

// The protocols of OTEL_EXPORTER_OTLP_PROTOCOL that are spoken here.
const (
	protocolHTTP = "http/protobuf"
	protocolJSON = "http/json"
	protocolGRPC = "grpc"
)

// Collector is where traces go. Without an endpoint they go nowhere, and none are made.
func (c Tracing) Collector() (to Collector, on bool) {
	if strings.EqualFold(c.TracingDisabled, "true") || c.TracingExporter == "none" {
		return Collector{}, false
	}
	to.GRPC = c.protocol() == protocolGRPC
	switch {
	case c.TracingTracesEndpoint != "":
		to.URL = c.TracingTracesEndpoint
	case c.TracingEndpoint == "":
		return Collector{}, false
	case to.GRPC:
		to.URL = c.TracingEndpoint
	default:
		to.URL = strings.TrimRight(c.TracingEndpoint, "/") + "/v1/traces"
	}
	return to, true
}

func (c Tracing) protocol() string {
	switch {
	case c.TracingTracesProtocol != "":
		return c.TracingTracesProtocol
	case c.TracingProtocol != "":
		return c.TracingProtocol
	}
	return protocolHTTP
}

// CheckTracing says what is wrong with where traces are to go. Commands that trace nothing need not care.
func (c Tracing) CheckTracing() error {
	to, on := c.Collector()
	if !on {
		return nil
	}
	var faults []error
	if c.TracingExporter != "" && c.TracingExporter != "otlp" {
		faults = append(faults, fmt.Errorf("OTEL_TRACES_EXPORTER is %q: give otlp, or none", c.TracingExporter))
	}
	if p := c.protocol(); p != protocolHTTP && p != protocolJSON && p != protocolGRPC {
		name := "OTEL_EXPORTER_OTLP_PROTOCOL"
		if c.TracingTracesProtocol != "" {
			name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
		}
		faults = append(faults, fmt.Errorf("%s is %q: give %s, %s or %s", name, p, protocolHTTP, protocolJSON, protocolGRPC))
	}
	// The text is not shown: it may hold a password.
	if u, err := url.Parse(to.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		name := "OTEL_EXPORTER_OTLP_ENDPOINT"
		if c.TracingTracesEndpoint != "" {
			name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
		}
		faults = append(faults, errors.New(name+" is no URL: give a collector's, such as http://127.0.0.1:4318"))
	}
	return errors.Join(faults...)
}
