package cmdconfig_test

import (
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
)

// reconcile reads what worker and operator have in common, and expects it to be the same.
func reconcile(t *testing.T, environ ...string) (cmdconfig.Reconcile, error) {
	t.Helper()
	environ = append(environ, "DATABASE_URL="+databaseURL, "POLAR_ACCESS_TOKEN="+token)
	worker, err := cmdconfig.ReadWorker(environ)
	operator, operatorErr := cmdconfig.ReadOperator(environ)
	if worker.Reconcile != operator.Reconcile || (err == nil) != (operatorErr == nil) {
		t.Errorf("of %q the worker reads %+v, %v and the operator %+v, %v", environ, worker.Reconcile, err, operator.Reconcile, operatorErr)
	}
	return worker.Reconcile, err
}

func TestWhatIsReadUnaskedHasDefaults(t *testing.T) {
	t.Parallel()

	for _, environ := range [][]string{nil, {"RECONCILE_INTERVAL=", "INGEST_PUBLIC_URL=", "POLAR_REENABLE_ENDPOINT="}} {
		got, err := reconcile(t, environ...)
		if err != nil || got != (cmdconfig.Reconcile{ReconcileInterval: 15 * time.Minute}) || got.EndpointURL() != "" {
			t.Errorf("with %q: %+v, %v", environ, got, err)
		}
	}
	got, err := reconcile(t, "RECONCILE_INTERVAL=0", "INGEST_PUBLIC_URL=https://shop.example", "POLAR_REENABLE_ENDPOINT=true")
	if err != nil || got.ReconcileInterval != 0 || !got.ReenableEndpoint {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestThePublicURLMayBeABaseOrTheWholeRoute(t *testing.T) {
	t.Parallel()

	for given, want := range map[string]string{
		"https://shop.example":                 "https://shop.example/webhooks/polar",
		"https://shop.example/":                "https://shop.example/webhooks/polar",
		"HTTPS://Shop.example:443":             "https://shop.example/webhooks/polar",
		"https://shop.example/webhooks/polar":  "https://shop.example/webhooks/polar",
		"https://shop.example/webhooks/polar/": "https://shop.example/webhooks/polar/", // ingest has no such route, but a proxy may
		"https://shop.example/hooks":           "https://shop.example/hooks",
		"https://shop.example/?to=ingest":      "https://shop.example/?to=ingest",
		"http://127.0.0.1:8080":                "http://127.0.0.1:8080/webhooks/polar",
	} {
		got, err := reconcile(t, "INGEST_PUBLIC_URL="+given)
		if err != nil || got.EndpointURL() != want {
			t.Errorf("%q is the endpoint %q, %v; want %q", given, got.EndpointURL(), err, want)
		}
	}
}

func TestErrorsNameWhatIsWrongWithIt(t *testing.T) {
	t.Parallel()

	for variable, says := range map[string]string{
		"RECONCILE_INTERVAL=15":                         "give a duration",
		"RECONCILE_INTERVAL=-1m":                        "give a duration",
		"RECONCILE_INTERVAL=1ms":                        "give a duration",
		"POLAR_REENABLE_ENDPOINT=sometimes":             "give true or false",
		"INGEST_PUBLIC_URL=shop.example":                "https://shop.example/webhooks/polar",
		"INGEST_PUBLIC_URL=https://u:pg_password_1@a.b": "https://shop.example/webhooks/polar",
	} {
		name, _, _ := strings.Cut(variable, "=")
		_, err := reconcile(t, variable)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "pg_password_1") {
			t.Errorf("%s: %v, want it to name %s and say %q", variable, err, name, says)
		}
	}
}
