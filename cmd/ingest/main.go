// Command ingest receives Polar's webhooks and commits each event with its job before it answers.
package main

import (
	"context"
	"os"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
)

const help = `ingest receives Polar's webhooks: it verifies each delivery, commits the event with
its job in one transaction, and then answers.

Usage: ingest [--help | --version | --healthy]

  DATABASE_URL=postgres://app@db/app POLAR_WEBHOOK_SECRETS_FILE=/run/secrets/polar ingest

It serves until it gets SIGTERM or SIGINT, then finishes what is in flight. Its log
is JSON on standard error. Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage.
--healthy asks the ingest that runs with the same environment whether it lives, for
a container's health check: 0 if so, 1 if not.

Routes:
  POST /webhooks/polar   where Polar's endpoint points
  GET  /livez, /readyz   probes
  GET  /metrics          Prometheus metrics, on INGEST_METRICS_ADDR alone

Environment:
  DATABASE_URL             Postgres (required)
  POLAR_WEBHOOK_SECRETS    secrets of Polar's endpoint, comma separated (required)
  INGEST_ADDR              where to listen (default :8080)
  INGEST_METRICS_ADDR      where to serve metrics, such as 127.0.0.1:9080 (default: nowhere)
  OTEL_EXPORTER_OTLP_ENDPOINT
                           where traces go, such as http://127.0.0.1:4318 (default: nowhere);
                           OpenTelemetry's other variables count too
  LOG_LEVEL                debug, info, warn or error (default info)
Each secret may come from a file instead: DATABASE_URL_FILE, and
POLAR_WEBHOOK_SECRETS_FILE with one secret a line.
`

func main() { os.Exit(program.Main("ingest", help, os.Args[1:], address, run)) }

func address() (string, error) {
	config, err := cmdconfig.ReadIngest(os.Environ())
	return config.Addr, err
}

func run(ctx context.Context) error {
	config, err := cmdconfig.ReadIngest(os.Environ())
	if err != nil {
		return err
	}
	return program.Ingest(ctx, config, program.NewLogger(os.Stderr, config.Level, "ingest"), nil)
}
