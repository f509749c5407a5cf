package program_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// findings are the values of truenorth_endpoint_finding that are set.
func findings(t *testing.T, base string) []string {
	t.Helper()
	var set []string
	for _, metric := range scrape(t, base)["truenorth_endpoint_finding"].GetMetric() {
		if metric.GetGauge().GetValue() == 1 {
			set = append(set, metric.GetLabel()[0].GetValue())
		}
	}
	return set
}

func TestTheWorkerWatchesTheEndpointOfItsEnvironmentAndTellsInItsMetrics(t *testing.T) {
	t.Parallel()

	pg, err := embeddedpg.Start(t.Context(), embeddedpg.Options{})
	if err != nil {
		t.Fatalf("starting a Postgres of the test's own: %v", err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	s, err := store.Open(pg.URL(), "program test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Migrate(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	fake := polarfake.New(polarfake.Options{WebhookURL: "http://shop.example/webhooks/polar", WebhookSecret: secret})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	none := 0
	config := cmdconfig.Worker{
		Database: cmdconfig.Database{URL: cmdconfig.Secret(pg.URL())}, Addr: "127.0.0.1:0",
		Polar:     cmdconfig.Polar{AccessToken: "x", APIURL: api.URL + "/v1", Version: "2026-10", RateLimit: &none},
		Reconcile: cmdconfig.Reconcile{ReconcileInterval: time.Hour, IngestPublicURL: "https://shop.example"},
	}
	run := func() (string, func()) {
		return started(t, func(ctx context.Context, ready func(net.Addr)) error {
			return program.Worker(ctx, config, nil, slog.New(slog.DiscardHandler), ready)
		})
	}
	looked := func(base string) {
		waittest.Within(t, 20*time.Second, func() error {
			if scrape(t, base)["truenorth_endpoint_ok"] == nil {
				return errors.New("the endpoint is not looked at")
			}
			return nil
		})
	}
	base, stop := run()
	looked(base)
	wantMetric(t, scrape(t, base), "truenorth_endpoint_ok", 0)
	if got := fmt.Sprint(findings(t, base)); got != "[missing]" { // http is not https
		t.Errorf("findings are %s, want [missing]", got)
	}
	stop()

	config.IngestPublicURL = "http://shop.example"
	if _, err := s.Pool().Exec(t.Context(), "delete from polar.endpoint_watch"); err != nil {
		t.Fatal(err)
	}
	base, _ = run()
	looked(base)
	families := scrape(t, base)
	wantMetric(t, families, "truenorth_endpoint_ok", 1)
	if got := findings(t, base); len(got) > 0 || len(families["truenorth_endpoint_finding"].GetMetric()) != 9 {
		t.Errorf("findings are %v of %v, want none of all kinds", got, families["truenorth_endpoint_finding"])
	}
	if age := families["truenorth_endpoint_look_age_seconds"].GetMetric()[0].GetGauge().GetValue(); age < 0 || age > 60 {
		t.Errorf("the look is %v seconds old", age)
	}
}
