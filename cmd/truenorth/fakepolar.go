package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

type fakePolarCommand struct {
	Addr          string        `default:"127.0.0.1:8082" help:"Where to listen; ${default} by default." placeholder:"HOST:PORT"`
	WebhookURL    string        `help:"Where to send events." placeholder:"URL"`
	WebhookSecret string        `help:"Secret that signs them; its form decides how the key is made." placeholder:"SECRET"`
	PublicURL     string        `help:"Base of the checkout pages' URLs; http://ADDR by default." placeholder:"URL"`
	RetryScale    float64       `default:"1" help:"Multiplies the pauses between the tries of a delivery (2-4 s, 4-8 s, ...)."`
	AnswerDelay   time.Duration `help:"Delay of every answer of the API."`
	RateLimit     int           `help:"Requests that are answered within a minute, 429 beyond (Polar: 500); no limit by default." placeholder:"N"`
	BurstLimit    int           `help:"The same within a second." placeholder:"N"`
	Seed          uint64        `help:"Make the ids of objects depend on the requests alone, so that they can be repeated." placeholder:"N"`
}

func (fakePolarCommand) about() about {
	return about{
		text:  "It keeps nothing between runs, and takes any token. It serves until it is told to end (Ctrl-C).",
		reads: "LOG_LEVEL",
		examples: []example{
			{"truenorth fake-polar", ""},
			{"truenorth fake-polar --webhook-url http://127.0.0.1:8080/webhooks/polar --webhook-secret whsec_c2VjcmV0", "and send events to ingest"},
		},
		prints: []document{{when: "once it serves", value: servedFake{}}},
	}
}

// servedFake is where the fake is.
type servedFake struct {
	APIURL string `json:"polar_api_url"`
}

func (c fakePolarCommand) Run(ctx context.Context, e *environment) error {
	logger := program.NewLogger(e.stderr, e.config.Level, "fake-polar")
	if (c.WebhookURL == "") != (c.WebhookSecret == "") {
		return usage("give both, or neither", "--webhook-url and --webhook-secret go together")
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", c.Addr, err)
	}
	return serveFake(ctx, listener, polarfake.Options{
		WebhookURL: c.WebhookURL, WebhookSecret: c.WebhookSecret, PublicURL: c.PublicURL, Logger: logger,
		RetryScale: c.RetryScale, AnswerDelay: c.AnswerDelay, RateLimit: c.RateLimit, BurstLimit: c.BurstLimit, Seed: c.Seed,
	}, func(base string) {
		_ = e.print(servedFake{base + "/v1"}, linef("fake Polar: POLAR_API_URL=%s/v1 (any token)", base)) // it serves all the same
	}, logger)
}

// serveFake serves a fake Polar until ctx ends.
func serveFake(ctx context.Context, listener net.Listener, options polarfake.Options, ready func(base string), logger *slog.Logger) error {
	base := "http://" + listener.Addr().String()
	if options.PublicURL == "" {
		options.PublicURL = base
	}
	fake := polarfake.New(options)
	defer fake.Close()
	server := &http.Server{Handler: fake, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	ready(base)
	select {
	case err := <-failed:
		return fmt.Errorf("serving the fake Polar: %w", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := server.Shutdown(stopCtx); err != nil {
		_ = server.Close() // a fault may keep a request hanging: it is let go
	}
	return nil
}
