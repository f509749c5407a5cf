// Package program holds what cmd/ingest, cmd/worker and `truenorth dev` run.
package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/tracing"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// version is set by the linker (-X); without it, the module's own build information counts.
var version string

// Version is the version of this build.
func Version() string { return ReadBuild().Version }

// Build is what a program was made of.
type Build struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`      // empty where it was not built from git
	CommitTime string `json:"commit_time"` // RFC 3339
	Modified   bool   `json:"modified"`    // it holds changes that the commit does not
	Go         string `json:"go_version"`
}

// ReadBuild reads what the compiler noted in this program.
func ReadBuild() Build {
	b := Build{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = cmp.Or(b.Version, info.Main.Version)
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.CommitTime = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	b.Version = cmp.Or(b.Version, "(devel)")
	return b
}

func (b Build) String() string {
	commit := ""
	if b.Commit != "" {
		commit = ", commit " + b.Commit
		if b.Modified {
			commit += " and changes"
		}
	}
	return b.Version + " (" + b.Go + commit + ")"
}

// Main runs a program whose flags are only --help, --version, and --healthy, which asks another process of it, at its address. It
// ends by a signal, and returns the exit code.
func Main(name, help string, args []string, address func() (string, error), run func(ctx context.Context) error) int {
	switch {
	case len(args) == 0:
	case len(args) == 1 && (args[0] == "--version" || args[0] == "-version" || args[0] == "version"):
		fmt.Println(name, ReadBuild())
		return 0
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-help" || args[0] == "-h" || args[0] == "help"):
		fmt.Print(help)
		return 0
	case len(args) == 1 && args[0] == "--healthy":
		run = func(ctx context.Context) error {
			addr, err := address()
			if err != nil {
				return err
			}
			return healthy(ctx, addr)
		}
	default:
		fmt.Fprintf(os.Stderr, "%s: unknown argument %q; it is set up by environment variables, see %s --help\n", name, args[0], name)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// NewLogger makes the JSON log of a program.
func NewLogger(w io.Writer, level slog.Level, name string) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With(slog.String("program", name))
}

// Ingest receives webhooks until ctx ends; then it finishes those in flight. ready, if not nil, gets the address.
func Ingest(ctx context.Context, config cmdconfig.Ingest, logger *slog.Logger, ready func(net.Addr)) error {
	verifier, err := polar.NewVerifier(config.RevealWebhookSecrets())
	if err != nil {
		return err
	}
	tracer, err := tracing.Start(ctx, config.Tracing, "ingest", Version(), logger)
	if err != nil {
		return err
	}
	defer tracer.Stop() //nolint:contextcheck // ctx is over by then
	logger = tracer.Logger(logger)
	s, err := store.Open(config.URL.Reveal(), "truenorth ingest", store.WithTracer(tracer.Statements())) //nolint:contextcheck // it connects to nothing yet
	if err != nil {
		return err
	}
	defer s.Close()
	listener, err := listen(ctx, "INGEST_ADDR", config.Addr)
	if err != nil {
		return err
	}
	receiver := ingest.New(s, verifier, logger, ingest.WithTracing(tracer.Provider()))
	handler := tracer.Webhooks(ingest.Route, receiver.Handler())
	group, ctx := errgroup.WithContext(ctx)
	if config.MetricsAddr != "" {
		metrics, err := listen(ctx, "INGEST_METRICS_ADDR", config.MetricsAddr)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metricsHandler(receiver))
		group.Go(func() error { return serve(ctx, metrics, ingest.Server(mux, logger), logger, nil) })
	}
	group.Go(func() error { return serve(ctx, listener, ingest.Server(handler, logger), logger, ready) })
	return group.Wait()
}

// patience is how long a stop waits for requests in flight: over the 7 seconds that ingest gives Postgres, and within
// the 10 after which container runtimes kill.
const patience = 9 * time.Second

// listen comes before all other work, so that a port in use is an error at once. variable holds addr.
func listen(ctx context.Context, variable, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	return listener, nil
}

// serve ends with ctx, after what is in flight. It closes the listener.
func serve(ctx context.Context, listener net.Listener, server *http.Server, logger *slog.Logger, ready func(net.Addr)) error {
	logger.InfoContext(ctx, "listening", slog.String("addr", listener.Addr().String()), slog.String("version", Version()))
	if ready != nil {
		ready(listener.Addr())
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := server.Shutdown(stopCtx); err != nil {
		// A client that stalls is no reason to stay, nor is it a failure of ours.
		logger.WarnContext(ctx, "stopped with requests still in flight", slog.Duration("after", patience))
		_ = server.Close()
		return nil
	}
	logger.InfoContext(ctx, "stopped")
	return nil
}
