package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/console"
	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type devCommand struct {
	Data     string `default:".truenorth" help:"Folder that keeps the database between runs." type:"path" predictor:"folders"`
	FakeAddr string `default:"127.0.0.1:8082" help:"Where the fake Polar listens; ${default} by default." placeholder:"HOST:PORT"`
	Verbose  bool   `short:"v" help:"Log everything."`
}

func (devCommand) about() about {
	return about{
		text: `Without DATABASE_URL it starts a Postgres of its own and keeps its data in --data; without POLAR_ACCESS_TOKEN it starts
a fake Polar. Set them to use yours; with a real Polar, POLAR_WEBHOOK_SECRETS is needed too. It runs until it is told to end (Ctrl-C).`,
		reads:    "all that truenorth reads, INGEST_ADDR, WORKER_ADDR, RECONCILE_INTERVAL, EVENT_RETENTION",
		examples: []example{{"truenorth dev", "nothing is needed"}, {"truenorth dev --verbose", "with the log of all that runs"}},
		prints:   []document{{when: "once all runs", value: served{}}},
	}
}

// served is where everything is.
type served struct {
	Console  string `json:"console_url"`
	OpenAPI  string `json:"openapi_url"`
	Webhooks string `json:"webhook_url"`
	Polar    string `json:"polar_api_url"`
	Secret   string `json:"polar_webhook_secret,omitempty"` // of the fake Polar only
	Database string `json:"database_url,omitempty"`         // of our own server only: another's holds a password
}

func (s served) print(w io.Writer) error {
	return linef(`
  console   %s
  for apps  %s (truenorth keys create NAME makes a key)
  webhooks  %s
  Polar     %s
  database  %s
%s
Open the console, create a checkout, pay, and see the customer linked. Ctrl-C ends everything.`,
		s.Console, s.OpenAPI, s.Webhooks, s.Polar, cmp.Or(s.Database, "as DATABASE_URL says"), s.exports())(w)
}

// exports are the variables that lead other commands to what runs here.
func (s served) exports() string {
	var lines strings.Builder
	export := func(name, value string) { fmt.Fprintf(&lines, "  export %s=%s\n", name, shellQuoted(value)) }
	if s.Database != "" {
		export("DATABASE_URL", s.Database)
	}
	if s.Secret != "" {
		export("POLAR_API_URL", s.Polar)
		export("POLAR_ACCESS_TOKEN", fakeToken)
		export("POLAR_WEBHOOK_SECRETS", s.Secret)
		export("INGEST_PUBLIC_URL", s.Webhooks)
	}
	if lines.Len() == 0 {
		return ""
	}
	return "\nFor the other commands of truenorth, in another terminal:\n\n" + lines.String()
}

// fakeToken is as good as any: the fake Polar takes all.
const fakeToken = "polar_oat_fake" //nolint:gosec // no secret

// Run ends on Ctrl-C, with everything that it started.
func (c devCommand) Run(ctx context.Context, e *environment) error {
	level := slog.LevelWarn
	if c.Verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	if e.json {
		logger = program.NewLogger(e.stderr, level, "dev")
	}
	config := e.config
	if err := config.CheckTracing(); err != nil {
		return err
	}

	if config.URL.Reveal() == "" {
		e.notef("starting Postgres ...")
		pg, err := c.startPostgres(ctx, logger)
		if err != nil {
			return err
		}
		defer func() {
			if err := pg.Stop(); err != nil {
				logger.Error("stopping Postgres failed", slog.String("error", err.Error()))
			}
		}()
		config.URL = cmdconfig.Secret(pg.URL())
	}
	s, err := store.Open(config.URL.Reveal(), "truenorth dev")
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Migrate(ctx, logger); err != nil {
		if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrDenied) {
			return failure(advice(err)+"; without DATABASE_URL, dev starts a Postgres of its own", "DATABASE_URL is set: %w", err)
		}
		return err
	}

	context.AfterFunc(ctx, func() { e.notef("stopping ...") })
	group, ctx := errgroup.WithContext(ctx)
	demo := &console.Demo{}
	ingestURL := "http://" + dialable(config.IngestAddr) + ingest.Route
	isFake := config.AccessToken.Reveal() == ""
	if isFake {
		if err := c.startFake(ctx, group, &config, ingestURL, demo, logger); err != nil {
			return err
		}
		if err := s.AddLocalUsers(ctx, demoUsers); err != nil {
			return err
		}
	} else if err := listProducts(ctx, config, demo); err != nil {
		return err
	}
	demo.SuccessURL = "http://" + dialable(config.WorkerAddr) + "/?paid={CHECKOUT_ID}"

	if isFake {
		// The fake keeps nothing: to a sweep, all that an earlier run left would be gone.
		if status, err := s.ReadStatus(ctx); err != nil {
			return err
		} else if status.Customers > 0 {
			config.ReconcileInterval = 0
			demo.NoSweeps = true
			if err := s.DropReads(ctx); err != nil { // that the earlier run left
				return err
			}
			e.notef("the fake Polar begins empty, so the mirror of an earlier run is not compared with it: buy as a user who has not bought yet, or delete %s to begin anew", c.Data)
		}
	}
	ready := make(chan struct{}, 2)
	group.Go(func() error {
		return program.Ingest(ctx, cmdconfig.Ingest{Database: config.Database, WebhookSecrets: config.WebhookSecrets, Addr: config.IngestAddr, Tracing: config.Tracing},
			logger.With(slog.String("program", "ingest")), func(net.Addr) { ready <- struct{}{} })
	})
	group.Go(func() error {
		return program.Worker(ctx, cmdconfig.Worker{Database: config.Database, Polar: config.Polar, Addr: config.WorkerAddr, ExtraFields: config.ExtraFields, Reconcile: config.Reconcile, Retention: config.Retention, Tracing: config.Tracing},
			demo, logger.With(slog.String("program", "worker")), func(net.Addr) { ready <- struct{}{} })
	})
	group.Go(func() error {
		for range 2 {
			select {
			case <-ready:
			case <-ctx.Done():
				return nil
			}
		}
		console := "http://" + dialable(config.WorkerAddr)
		now := served{
			Console: console + "/", OpenAPI: console + "/v1/openapi.json", Webhooks: ingestURL, Polar: config.APIURL, Database: ownDatabase(config.URL),
		}
		if isFake {
			now.Secret = config.WebhookSecrets[0].Reveal()
		}
		return e.print(now, now.print)
	})
	return group.Wait()
}

// startPostgres gives the server the port that it had the last time, so that who has its URL need not ask for another; where
// that is taken, any.
func (c devCommand) startPostgres(ctx context.Context, logger *slog.Logger) (*embeddedpg.Server, error) {
	options := embeddedpg.Options{DataDir: filepath.Join(c.Data, "postgres"), Durable: true, Logger: logger}
	noted := filepath.Join(c.Data, "postgres.port")
	if text, err := os.ReadFile(noted); err == nil {
		if port, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && portIsFree(ctx, port) {
			options.Port = port
		}
	}
	pg, err := embeddedpg.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(pg.URL()); err == nil {
		if err := os.WriteFile(noted, []byte(u.Port()+"\n"), 0o600); err != nil {
			logger.WarnContext(ctx, "the port of Postgres cannot be noted, and will be another one the next time", slog.String("error", err.Error()))
		}
	}
	return pg, nil
}

func portIsFree(ctx context.Context, port int) bool {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// demoUsers are there so that there is somebody to sell to.
var demoUsers = []store.LocalUser{
	{ID: "usr_ada", Email: "ada@example.com"},
	{ID: "usr_grace", Email: "grace@example.com"},
	{ID: "usr_linus", Email: "linus@example.com"},
}

// startFake starts a fake Polar that sends to our ingest, and points config at it.
func (c devCommand) startFake(ctx context.Context, group *errgroup.Group, config *cmdconfig.Operator, ingestURL string, demo *console.Demo, logger *slog.Logger) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", c.FakeAddr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w (choose another with --fake-addr)", c.FakeAddr, err)
	}
	none := 0
	config.WebhookSecrets = []cmdconfig.Secret{cmdconfig.Secret(secret)}
	config.Polar = cmdconfig.Polar{
		AccessToken: fakeToken, APIURL: "http://" + listener.Addr().String() + "/v1", Version: config.Version, RateLimit: &none,
	}
	config.IngestPublicURL = ingestURL
	demo.Products = demoProducts
	group.Go(func() error {
		return serveFake(ctx, listener, polarfake.Options{WebhookURL: ingestURL, WebhookSecret: secret, Logger: logger.With(slog.String("program", "fake-polar"))},
			func(string) {}, logger)
	})
	return nil
}

var demoProducts = []console.DemoProduct{
	{ID: uuid.MustParse(polarfake.OneTimeProductID), Name: polarfake.OneTimeProductName},
	{ID: uuid.MustParse(polarfake.MonthlyProductID), Name: polarfake.MonthlyProductName},
}

// listProducts offers what the real organization sells.
func listProducts(ctx context.Context, config cmdconfig.Operator, demo *console.Demo) error {
	if len(config.WebhookSecrets) == 0 {
		return failure("set it to the secret of Polar's webhook endpoint", "POLAR_ACCESS_TOKEN is set, so POLAR_WEBHOOK_SECRETS is needed too")
	}
	api, err := polar.New(polar.Config{BaseURL: config.APIURL, Token: config.AccessToken.Reveal(), Version: config.Version, UserAgent: "truenorth/" + program.Version()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	page, err := api.ListProducts(ctx, 1, 50)
	if err != nil {
		return fmt.Errorf("listing Polar's products: %w", err)
	}
	for _, p := range page.Items {
		if !p.Archived {
			demo.Products = append(demo.Products, console.DemoProduct{ID: p.ID, Name: p.Name})
		}
	}
	return nil
}

// dialable is an address to call where one to listen on has no host.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && (host == "" || host == "0.0.0.0" || host == "::") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// ownDatabase is the URL where it is our own throw-away server's; another's holds a password.
func ownDatabase(url cmdconfig.Secret) string {
	if strings.Contains(url.Reveal(), "@127.0.0.1:") {
		return url.Reveal()
	}
	return ""
}
