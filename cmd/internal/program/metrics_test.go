package program_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// deployed are the files that name metrics.
const (
	rulesFile     = "../../../deploy/prometheus/truenorth.rules.yml"
	ruleTestsFile = "../../../deploy/prometheus/truenorth.rules.test.yml"
	dashboardFile = "../../../deploy/grafana/truenorth.json"
	metricsPage   = "../../../docs/metrics.md"
)

// running are both programs on one database, after some deliveries and a sweep. It gives the places of their metrics.
func running(t *testing.T) (ingestMetrics, workerBase string) {
	t.Helper()
	pg := awayPostgres(t)
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(pg.URL(), "program test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metricsAddr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	database := cmdconfig.Database{URL: cmdconfig.Secret(pg.URL())}
	base, _ := started(t, func(ctx context.Context, ready func(net.Addr)) error {
		config := cmdconfig.Ingest{Database: database, WebhookSecrets: []cmdconfig.Secret{secret}, Addr: "127.0.0.1:0", MetricsAddr: metricsAddr}
		return program.Ingest(ctx, config, slog.New(slog.DiscardHandler), ready)
	})
	fake := polarfake.New(polarfake.Options{})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	workerBase, _ = started(t, func(ctx context.Context, ready func(net.Addr)) error {
		limit := 500
		return program.Worker(ctx, cmdconfig.Worker{
			Database: database, Addr: "127.0.0.1:0", Reconcile: cmdconfig.Reconcile{ReconcileInterval: time.Hour},
			Polar: cmdconfig.Polar{AccessToken: "polar_oat_test", APIURL: api.URL + "/v1", Version: "2026-10", RateLimit: &limit},
		}, nil, slog.New(slog.DiscardHandler), ready)
	})
	waittest.Within(t, 20*time.Second, func() error {
		for range 2 {
			if got := deliver(t, base); got != http.StatusAccepted {
				return fmt.Errorf("a delivery gets %d", got)
			}
		}
		return nil
	})
	forged := http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {strconv.FormatInt(time.Now().Unix(), 10)}, "Webhook-Signature": {"v1,AAAA"}}
	if got, text := ask(t, http.MethodPost, base+ingest.Route, forged, "{}"); got != http.StatusUnauthorized {
		t.Fatalf("a forged delivery gets %d %s", got, text)
	}
	if got, text := ask(t, http.MethodGet, base+"/metrics", nil, ""); got != http.StatusNotFound {
		t.Errorf("where the internet comes in, /metrics answers %d %s", got, text)
	}
	// The endpoint is looked at, and lists are swept, by and by.
	waittest.Within(t, 30*time.Second, func() error {
		families := scrape(t, workerBase)
		for _, name := range []string{"truenorth_endpoint_ok", "truenorth_sweep_age_seconds", "truenorth_jobs"} {
			if families[name] == nil {
				return fmt.Errorf("there is no %s yet", name)
			}
		}
		if families["truenorth_apply_lag_seconds"].GetMetric()[0].GetHistogram().GetSampleCount() == 0 {
			return errors.New("nothing is applied yet")
		}
		return nil
	})
	return "http://" + metricsAddr, workerBase
}

func TestMetricsCountWhatHappenedAndAlertsNameOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	ingestBase, workerBase := running(t)
	ours, workers := scrape(t, ingestBase), scrape(t, workerBase)

	for outcome, want := range map[string]float64{"stored": 1, "duplicate": 1, "unauthorized": 1, "rejected": 0, "overload": 0, "unavailable": 0} {
		wantCounter(t, ours["truenorth_deliveries_total"], "outcome", outcome, want)
	}
	for reason, want := range map[string]float64{"no_match": 1, "missing_headers": 0, "malformed": 0, "too_old": 0, "too_new": 0} {
		wantCounter(t, ours["truenorth_bad_signatures_total"], "reason", reason, want)
	}
	if n := ours["truenorth_delivery_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n != 3 {
		t.Errorf("the time of %d deliveries was taken, want 3", n)
	}
	if n := workers["truenorth_apply_lag_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n != 1 {
		t.Errorf("the lag of %d events was taken, want 1", n)
	}
	if left := workers["truenorth_api_budget_left"].GetMetric()[0].GetGauge().GetValue(); left <= 0 || left > 500 {
		t.Errorf("%v calls are left of 500 a minute", left)
	}

	all := maps.Clone(ours)
	maps.Copy(all, workers)
	documented := namesIn(t, metricsPage)
	for name := range all {
		if strings.HasPrefix(name, "truenorth_") && !slices.Contains(documented, name) {
			t.Errorf("docs/metrics.md does not know %s", name)
		}
	}
	for _, file := range []string{rulesFile, dashboardFile, metricsPage} {
		names := namesIn(t, file)
		if len(names) < 10 {
			t.Errorf("%s names only %v", file, names)
		}
		for _, name := range names {
			if all[name] == nil {
				t.Errorf("%s names %s, which no program serves", file, name)
			}
		}
	}
}

func TestEveryAlertHasItsPageInThePlaybook(t *testing.T) {
	t.Parallel()
	rules, page := readText(t, rulesFile), readText(t, metricsPage)
	alerts := regexp.MustCompile(`(?s)- alert: (\w+)\n\s+expr: ([^\n]+)\n(?:\s+for: (\w+)\n)?\s+labels: \{severity: (\w+)\}\n.*?runbook_url: \S+#([a-z-]+)`).FindAllStringSubmatch(rules, -1)
	if len(alerts) != strings.Count(rules, "- alert:") || len(alerts) < 10 {
		t.Fatalf("%d of %d alerts have a runbook_url", len(alerts), strings.Count(rules, "- alert:"))
	}
	for _, alert := range alerts {
		name, expr, after, severity, heading := alert[1], alert[2], alert[3], alert[4], strings.ReplaceAll(alert[5], "-", " ")
		says := fmt.Sprintf("\n### %s\n\n`%s`, %s, ", heading, name, severity)
		if after == "" {
			says += "at once, of `" + expr + "`."
		} else {
			says += "after " + after + " of `" + expr + "`."
		}
		if !strings.Contains(strings.ToLower(page), strings.ToLower(says)) {
			t.Errorf("docs/metrics.md does not say of %s what the rules do:%s", name, says)
		}
	}
}

// TestPromtoolAcceptsRulesAndMetrics needs Debian's prometheus, or any promtool.
func TestPromtoolAcceptsRulesAndMetrics(t *testing.T) {
	t.Parallel()
	promtool := machinetest.Program(t, "prometheus", "promtool")
	check := func(stdin string, args ...string) {
		t.Helper()
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Stdin = strings.NewReader(stdin)
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	check("", "check", "rules", rulesFile)
	check("", "test", "rules", ruleTestsFile)
	// What the dashboard asks is looked at as if it were rules.
	asked := regexp.MustCompile(`"expr": ("(?:[^"\\\\]|\\\\.)*")`).FindAllStringSubmatch(readText(t, dashboardFile), -1)
	if len(asked) < 10 {
		t.Fatalf("the dashboard asks only %d things", len(asked))
	}
	rules := strings.Builder{}
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, expr := range asked {
		fmt.Fprintf(&rules, "  - {record: asked:%d, expr: %s}\n", i, strings.ReplaceAll(expr[1], "$__rate_interval", "5m"))
	}
	file := filepath.Join(t.TempDir(), "dashboard.rules.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	check("", "check", "rules", file)
	ingestBase, workerBase := running(t)
	for _, base := range []string{ingestBase, workerBase} {
		_, text := ask(t, http.MethodGet, base+"/metrics", nil, "")
		check(text, "check", "metrics")
	}
}

func wantCounter(t *testing.T, family *dto.MetricFamily, label, value string, want float64) {
	t.Helper()
	for _, metric := range family.GetMetric() {
		if metric.GetLabel()[0].GetName() == label && metric.GetLabel()[0].GetValue() == value {
			if got := metric.GetCounter().GetValue(); got != want {
				t.Errorf("%s{%s=%q} is %v, want %v", family.GetName(), label, value, got, want)
			}
			return
		}
	}
	t.Errorf("there is no %s{%s=%q}", family.GetName(), label, value)
}

// namesIn are the metrics of ours that a file names, histograms without the suffixes of their series.
func namesIn(t *testing.T, file string) []string {
	t.Helper()
	names := map[string]bool{}
	for _, name := range regexp.MustCompile(`\btruenorth_[a-z_]+`).FindAllString(readText(t, file), -1) {
		names[strings.TrimSuffix(name, "_bucket")] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
