package program_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// awayPostgres is a migrated Postgres that does not run yet.
func awayPostgres(t *testing.T) *embeddedpg.Server {
	t.Helper()
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
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	return pg
}

// started runs a program until the test ends or stop is called, and returns its base URL once it listens.
func started(t *testing.T, run func(ctx context.Context, ready func(net.Addr)) error) (base string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addr := make(chan net.Addr, 1)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, func(a net.Addr) { addr <- a }) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the program ended with %v", err)
		}
	}
	select {
	case a := <-addr:
		t.Cleanup(stop)
		return "http://" + a.String(), stop
	case err := <-ended:
		cancel()
		t.Fatalf("the program ended at once: %v", err)
		return "", nil
	}
}

func ask(t *testing.T, method, url string, header http.Header, body string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func wantStatus(t *testing.T, url string, want int) {
	t.Helper()
	if got, body := ask(t, http.MethodGet, url, nil, ""); got != want {
		t.Errorf("GET %s: %d %s, want %d", url, got, body, want)
	}
}

func deliver(t *testing.T, base string) int {
	t.Helper()
	const body = `{"type":"order.paid","data":{"id":"992fae2a-2a17-4b7a-8d9e-e287cf90131b"}}`
	header, err := polar.Sign(secret, "msg_1", time.Now(), []byte(body), polar.DerivationAuto)
	if err != nil {
		t.Fatal(err)
	}
	status, _ := ask(t, http.MethodPost, base+ingest.Route, header, body)
	return status
}

func TestIngestStartedWhilePostgresIsAwayServesOnceItIsThere(t *testing.T) {
	t.Parallel()

	pg := awayPostgres(t)
	config := cmdconfig.Ingest{
		Database: cmdconfig.Database{URL: cmdconfig.Secret(pg.URL())}, WebhookSecrets: []cmdconfig.Secret{secret}, Addr: "127.0.0.1:0",
	}
	base, _ := started(t, func(ctx context.Context, ready func(net.Addr)) error {
		return program.Ingest(ctx, config, slog.New(slog.DiscardHandler), ready)
	})
	wantStatus(t, base+"/livez", http.StatusOK)
	wantStatus(t, base+"/readyz", http.StatusServiceUnavailable)
	if got := deliver(t, base); got != http.StatusServiceUnavailable {
		t.Errorf("a delivery gets %d, want 503", got)
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, base+"/readyz", http.StatusOK)
	if got := deliver(t, base); got != http.StatusAccepted {
		t.Errorf("a delivery gets %d, want 202", got)
	}
}

func TestWorkerStartedWhilePostgresIsAwayWorksOnceItIsThere(t *testing.T) {
	t.Parallel()

	fake := polarfake.New(polarfake.Options{})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	pg := awayPostgres(t)
	config := cmdconfig.Worker{
		Database: cmdconfig.Database{URL: cmdconfig.Secret(pg.URL())}, Addr: "127.0.0.1:0",
		Polar: cmdconfig.Polar{AccessToken: "polar_oat_test", APIURL: api.URL + "/v1", Version: "2026-10"},
	}
	base, stop := started(t, func(ctx context.Context, ready func(net.Addr)) error {
		return program.Worker(ctx, config, nil, slog.New(slog.DiscardHandler), ready)
	})
	wantStatus(t, base+"/livez", http.StatusOK)
	wantStatus(t, base+"/readyz", http.StatusServiceUnavailable)
	wantMetric(t, scrape(t, base), "truenorth_database_up", 0)

	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waittest.Within(t, 20*time.Second, func() error {
		if status, body := ask(t, http.MethodGet, base+"/readyz", nil, ""); status != http.StatusOK {
			return fmt.Errorf("readyz answers %d %s", status, body)
		}
		return nil
	})
	wantStatus(t, base+"/livez", http.StatusOK)
	if status, page := ask(t, http.MethodGet, base+"/", nil, ""); status != http.StatusOK || !strings.Contains(strings.ToLower(page), "<!doctype html") {
		t.Errorf("the console answers %d %.200s, want a page", status, page)
	}
	families := scrape(t, base)
	wantMetric(t, families, "truenorth_database_up", 1)
	wantMetric(t, families, "truenorth_workers_alive", 1)
	for _, name := range []string{
		"truenorth_customers", "truenorth_link_conflicts_open", "truenorth_drift_open", "truenorth_checkout_requests", "go_goroutines",
	} {
		if families[name] == nil {
			t.Errorf("there is no metric %s", name)
		}
	}
	stop()
	if _, err := http.Get(base + "/livez"); err == nil { //nolint:bodyclose // there is no answer
		t.Error("the worker still serves after it stopped")
	}
}

// scrape reads the metrics the way Prometheus does.
func scrape(t *testing.T, base string) map[string]*dto.MetricFamily {
	t.Helper()
	status, text := ask(t, http.MethodGet, base+"/metrics", nil, "")
	if status != http.StatusOK {
		t.Fatalf("metrics answer %d %s", status, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("metrics are not in Prometheus's format: %v", err)
	}
	return families
}

func wantMetric(t *testing.T, families map[string]*dto.MetricFamily, name string, want float64) {
	t.Helper()
	family := families[name]
	if family == nil || len(family.GetMetric()) != 1 || family.GetMetric()[0].GetGauge().GetValue() != want {
		t.Errorf("metric %s is %v, want %v", name, family, want)
	}
}

func TestProgramsRefuseAnAddressInUseAndNameItsVariable(t *testing.T) {
	t.Parallel()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	database := cmdconfig.Database{URL: "postgres://nobody@127.0.0.1:1/none"}
	logger := slog.New(slog.DiscardHandler)
	for _, addr := range []string{taken.Addr().String(), "no address", "127.0.0.1:99999"} {
		err := program.Ingest(t.Context(), cmdconfig.Ingest{Database: database, WebhookSecrets: []cmdconfig.Secret{secret}, Addr: addr}, logger, nil)
		if err == nil || !strings.Contains(err.Error(), "INGEST_ADDR") {
			t.Errorf("ingest on %q: %v, want an error that names INGEST_ADDR", addr, err)
		}
		err = program.Worker(t.Context(), cmdconfig.Worker{
			Database: database, Addr: addr, Polar: cmdconfig.Polar{AccessToken: "x", APIURL: "http://127.0.0.1:1/v1", Version: "2026-10"},
		}, nil, logger, nil)
		if err == nil || !strings.Contains(err.Error(), "WORKER_ADDR") {
			t.Errorf("worker on %q: %v, want an error that names WORKER_ADDR", addr, err)
		}
	}
}

func TestProgramsShowNoPasswordOfADatabaseURLTheyCannotRead(t *testing.T) {
	t.Parallel()

	for _, url := range []string{"postgres://app:pg_password@db:port/app", "postgres://app:pg_pass%zzword@db/app", "password=pg_password port=x"} {
		config := cmdconfig.Ingest{Database: cmdconfig.Database{URL: cmdconfig.Secret(url)}, WebhookSecrets: []cmdconfig.Secret{secret}, Addr: "127.0.0.1:0"}
		err := program.Ingest(t.Context(), config, slog.New(slog.DiscardHandler), nil)
		if err == nil || !strings.Contains(err.Error(), "DATABASE_URL") || strings.Contains(err.Error(), "pg_pass") {
			t.Errorf("with an unreadable URL ingest says %v, want DATABASE_URL named and nothing of it shown", err)
		}
	}
}

func TestIngestStopsInTimeWhateverAClientDoes(t *testing.T) {
	t.Parallel()

	var log lockedBuffer // the handler whose client was cut off may outlive the program's function
	config := cmdconfig.Ingest{
		Database: cmdconfig.Database{URL: "postgres://nobody@127.0.0.1:1/none"}, WebhookSecrets: []cmdconfig.Secret{secret}, Addr: "127.0.0.1:0",
	}
	base, stop := started(t, func(ctx context.Context, ready func(net.Addr)) error {
		return program.Ingest(ctx, config, slog.New(slog.NewJSONHandler(&log, nil)), ready)
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// 100 Continue tells that the body, which never comes, is waited for.
	if _, err := io.WriteString(conn, "POST "+ingest.Route+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("stopping took %s, want at most the 10 s that a container runtime gives", took)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client is not let go")
	}
	if !strings.Contains(log.String(), "still in flight") {
		t.Errorf("logged %s, want a word about the request in flight", log.String())
	}
}

// lockedBuffer takes the log of several goroutines.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
