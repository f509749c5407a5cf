package cmdconfig_test

import (
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
)

func TestTracesGoWhereOpenTelemetrysVariablesSay(t *testing.T) {
	t.Parallel()

	for environ, want := range map[string]cmdconfig.Collector{
		"":                             {},
		"OTEL_EXPORTER_OTLP_ENDPOINT=": {},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318":                                                                                      {URL: "http://c:4318/v1/traces"},
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://c/otel/":                                                                                    {URL: "https://c/otel/v1/traces"},
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:1/":                                                                                 {URL: "http://c:1/"},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://a:1 OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://b:2/x":                                         {URL: "http://b:2/x"},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4317 OTEL_EXPORTER_OTLP_PROTOCOL=grpc":                                                     {URL: "http://c:4317", GRPC: true},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1 OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf":       {URL: "http://c:1/v1/traces"},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1 OTEL_EXPORTER_OTLP_PROTOCOL=http/json OTEL_TRACES_EXPORTER=otlp OTEL_SDK_DISABLED=false": {URL: "http://c:1/v1/traces"},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1 OTEL_SDK_DISABLED=True":                                                                  {},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1 OTEL_TRACES_EXPORTER=none":                                                               {},
		"OTEL_EXPORTER_OTLP_PROTOCOL=odd OTEL_TRACES_EXPORTER=odd":                                                                       {}, // of somebody else's concern
	} {
		got, err := cmdconfig.ReadIngest(append(strings.Fields(environ), "DATABASE_URL="+databaseURL))
		if err != nil {
			t.Errorf("%s: %v", environ, err)
			continue
		}
		if to, on := got.Collector(); to != want || on != (want.URL != "") {
			t.Errorf("%s: traces go to %+v (%t), want %+v", environ, to, on, want)
		}
	}
}

func TestWhatIsWrongWithTracingIsSaidByItsVariableAndWithoutItsSecrets(t *testing.T) {
	t.Parallel()

	for environ, says := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318":                                     "OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://me:hidden@":                                  "OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://me:hidden@c:port/x":                   "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1 OTEL_EXPORTER_OTLP_PROTOCOL=kafka":       "OTEL_EXPORTER_OTLP_PROTOCOL",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://me:hidden@c:1 OTEL_TRACES_EXPORTER=zipkin":   "OTEL_TRACES_EXPORTER",
		"OTEL_EXPORTER_OTLP_ENDPOINT=unix:///run/collector.sock OTEL_TRACES_EXPORTER=xx": "OTEL_TRACES_EXPORTER",
	} {
		_, err := cmdconfig.ReadWorker(append(strings.Fields(environ), "DATABASE_URL="+databaseURL, "POLAR_ACCESS_TOKEN="+token))
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want an error that names %s and shows no password", environ, err, says)
		}
	}
	shown := cmdconfig.Collector{URL: "http://me:hidden@c:1/v1/traces?key=hidden"}.Redacted()
	if strings.Contains(shown, "hidden") || !strings.Contains(shown, "c:1/v1/traces") {
		t.Errorf("the log shows %s", shown)
	}
}
