// Command worker works truenorth's jobs and serves the console.
package main

import (
	"context"
	"os"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
)

const help = `worker brings Polar's events into the mirror, links customers to local users, creates
checkout sessions and stores their URLs.

Usage: worker [--help | --version | --healthy]

  DATABASE_URL=postgres://app@db/app POLAR_ACCESS_TOKEN_FILE=/run/secrets/token worker

It serves until it gets SIGTERM or SIGINT, then finishes what is in flight. Its log
is JSON on standard error. Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage.
--healthy asks the worker that runs with the same environment whether it lives, for
a container's health check: 0 if so, 1 if not.

Routes:
  GET /                  the console
  /v1/...                for apps, with a key of truenorth keys; GET /v1/openapi.json
                         describes it
  GET /metrics           Prometheus metrics
  GET /livez, /readyz    probes

Environment:
  DATABASE_URL             Postgres (required)
  POLAR_ACCESS_TOKEN       organization access token (required)
  POLAR_API_URL            default https://api.polar.sh/v1
                           (sandbox: https://sandbox-api.polar.sh/v1)
  POLAR_VERSION            sent as Polar-Version (default 2026-10)
  POLAR_RATE_LIMIT         requests a minute for all processes together
                           (default 500, in the sandbox 100; 0: no limit)
  POLAR_TIMEOUT            of one request (default 15s)
  RECOVERY_TIME            without a sign of life, and a worker's work goes to others
                           (default 15s)
  RECONCILE_INTERVAL       how often Polar's lists are read (default 15m; 0: only when
                           asked on the command line)
  EVENT_RETENTION          after how long events are removed (default 2160h, Polar's 90
                           days; less: only their bodies, and the rest after 90 days)
  INGEST_PUBLIC_URL        which of Polar's endpoints is ours, such as
                           https://shop.example/webhooks/polar
  POLAR_REENABLE_ENDPOINT  true: enable it again when Polar has disabled it
  CHECKOUT_EXTRA_FIELDS    checkout fields newer than this release, comma separated
  WORKER_ADDR              where to listen (default 127.0.0.1:8081)
  CONSOLE_PASSWORD         opens the console to others than loopback; the operator's
  CONSOLE_READER_PASSWORD  opens it for reading only
  CONSOLE_TRUSTED_PROXIES  proxies whose X-Forwarded-For and X-Forwarded-Host count,
                           such as 10.0.0.0/8, comma separated
  OTEL_EXPORTER_OTLP_ENDPOINT
                           where traces go, such as http://127.0.0.1:4318 (default: nowhere);
                           OpenTelemetry's other variables count too
  LOG_LEVEL                debug, info, warn or error (default info)
Each secret may come from a file instead: DATABASE_URL_FILE, POLAR_ACCESS_TOKEN_FILE,
CONSOLE_PASSWORD_FILE, CONSOLE_READER_PASSWORD_FILE.
`

func main() { os.Exit(program.Main("worker", help, os.Args[1:], address, run)) }

func address() (string, error) {
	config, err := cmdconfig.ReadWorker(os.Environ())
	return config.Addr, err
}

func run(ctx context.Context) error {
	config, err := cmdconfig.ReadWorker(os.Environ())
	if err != nil {
		return err
	}
	return program.Worker(ctx, config, nil, program.NewLogger(os.Stderr, config.Level, "worker"), nil)
}
