package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/tracing"
	"github.com/truenorth-dev/truenorth/internal/console"
	"github.com/truenorth-dev/truenorth/internal/httpapi"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Worker works the jobs and serves the console until ctx ends; then it finishes the jobs that run, or gives them
// back. demo is nil but in `truenorth dev`. ready, if not nil, gets the console's address.
func Worker(ctx context.Context, config cmdconfig.Worker, demo *console.Demo, logger *slog.Logger, ready func(net.Addr)) error {
	tracer, err := tracing.Start(ctx, config.Tracing, "worker", Version(), logger)
	if err != nil {
		return err
	}
	defer tracer.Stop() //nolint:contextcheck // ctx is over by then
	logger = tracer.Logger(logger)
	s, err := store.Open(config.URL.Reveal(), "truenorth worker", store.WithTracer(tracer.Statements())) //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer s.Close()
	runner, err := jobs.New(s, jobs.Config{
		API: polar.Config{
			BaseURL: config.APIURL, Token: config.AccessToken.Reveal(), Version: config.Version,
			UserAgent: "truenorth/" + Version(), Logger: logger, Timeout: config.Timeout, Around: tracer.Calls,
		},
		RecoveryTime: config.RecoveryTime,
		RateLimit:    config.RequestsPerMinute(), ExtraFields: config.ExtraFields, Logger: logger,
		ReconcileInterval: config.ReconcileInterval, EndpointURL: config.EndpointURL(), ReenableEndpoint: config.ReenableEndpoint,
		EventRetention: config.EventRetention, Tracing: tracer.Provider(),
	})
	if err != nil {
		return err
	}
	client := truenorth.NewClient(s.Pool())
	defer client.Close()

	var working atomic.Bool
	stopping, stopWaits := context.WithCancel(context.Background()) // requests that wait are answered once the server shuts down
	defer stopWaits()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, `{"status":"ok"}`) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		pingCtx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if !working.Load() || s.Ping(pingCtx) != nil {
			answer(w, http.StatusServiceUnavailable, `{"status":"unavailable"}`)
			return
		}
		answer(w, http.StatusOK, `{"status":"ok"}`)
	})
	mux.Handle("GET /metrics", metricsHandler(&statusCollector{store: s, runner: runner, logger: logger}, runner))
	mux.Handle("/v1/", tracer.Requests(httpapi.New(httpapi.Config{Store: s, Client: client, Logger: logger, ExtraFields: config.ExtraFields, Stopping: stopping})))
	pages, err := console.New(console.Config{
		Store: s, Client: client, Logger: logger, Password: config.ConsolePassword.Reveal(), ReaderPassword: config.ReaderPassword.Reveal(),
		TrustedProxies: config.TrustedProxies, Demo: demo,
	})
	if err != nil {
		return err
	}
	defer pages.Close()
	mux.Handle("/", tracer.Requests(pages))
	server := ingest.Server(mux, logger)
	server.WriteTimeout, server.IdleTimeout = time.Minute, 2*time.Minute // who may come in is known, and may ask for more
	server.RegisterOnShutdown(stopWaits)

	listener, err := listen(ctx, "WORKER_ADDR", config.Addr)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(groupCtx, listener, server, logger, ready) })
	group.Go(func() error {
		for {
			err := s.WaitReady(groupCtx, func(why error) {
				logger.WarnContext(groupCtx, "waiting for Postgres", slog.String("error", why.Error()))
			})
			if err != nil {
				return nil //nolint:nilerr // ctx ended: asked to stop while waiting
			}
			err = checkOrganization(groupCtx, runner, logger)
			if err == nil {
				err = runner.Run(groupCtx, func() { working.Store(true) })
			}
			if groupCtx.Err() != nil && !working.Load() {
				return nil // asked to stop while it started, which nobody saw
			}
			// A Postgres that goes away again before the work begins is waited for again.
			if working.Load() || !errors.Is(err, store.ErrUnavailable) {
				return err
			}
		}
	})
	return group.Wait()
}

// checkOrganization refuses to start with a token of another organization than the mirror's. A Polar that is away
// is no reason to wait: the same is asked again before the first call.
func checkOrganization(ctx context.Context, runner *jobs.Runner, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := runner.CheckOrganization(ctx)
	if _, ok := errors.AsType[*jobs.OtherOrganizationError](err); ok {
		return fmt.Errorf("refusing to start: %w", err)
	}
	if err != nil {
		logger.WarnContext(ctx, "could not ask Polar whose token this is; it is asked again before it is used", slog.String("error", err.Error()))
	}
	return nil
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, body)
}
