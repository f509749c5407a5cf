package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

const (
	asProgram = "TRUENORTH_TEST_AS_PROGRAM" // set: this test binary is the program
	secret    = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	order     = `{"type":"order.paid","data":{"id":"992fae2a-2a17-4b7a-8d9e-e287cf90131b"}}`
)

// TestMain lets this test binary be the program too, in a process of its own with an environment of its own.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(storetest.Main(m))
}

// ingestCommand is the program with this environment and nothing else.
func ingestCommand(t *testing.T, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append([]string{asProgram + "=1"}, environ...)
	return cmd
}

// result is how the program ended.
type result struct {
	code           int
	stdout, stderr string
}

func runToEnd(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	cmd := ingestCommand(t, environ, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestArgumentsThatAreKnown(t *testing.T) {
	t.Parallel()

	for arg, want := range map[string]string{
		"--help": "POLAR_WEBHOOK_SECRETS", "-h": "POLAR_WEBHOOK_SECRETS", "help": "Routes:", "--version": "ingest ", "version": "(go1.", "-version": "ingest ",
	} {
		if got := runToEnd(t, nil, arg); got.code != 0 || !strings.Contains(got.stdout, want) || got.stderr != "" {
			t.Errorf("ingest %s: %+v, want code 0 and %q on standard output alone", arg, got, want)
		}
	}
	help := runToEnd(t, nil, "--help").stdout
	for _, variable := range []string{"DATABASE_URL", "POLAR_WEBHOOK_SECRETS", "INGEST_ADDR", ":8080", "OTEL_EXPORTER_OTLP_ENDPOINT", "LOG_LEVEL", "DATABASE_URL_FILE", "POLAR_WEBHOOK_SECRETS_FILE", ingest.Route, "/livez", "/readyz"} {
		if !strings.Contains(help, variable) {
			t.Errorf("the help does not speak of %s", variable)
		}
	}
}

func TestArgumentsThatAreUnknownAreWrongUsage(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{{"--port"}, {"serve"}, {"--help", "--version"}, {""}, {"--addr=:80"}} {
		if got := runToEnd(t, nil, args...); got.code != 2 || !strings.Contains(got.stderr, "--help") || got.stdout != "" {
			t.Errorf("ingest %q: %+v, want code 2 and a hint at --help on standard error alone", args, got)
		}
	}
}

func TestItRefusesToStartWithoutWhatItNeeds(t *testing.T) {
	t.Parallel()

	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	database := "DATABASE_URL=postgres://app:pg_password_1@127.0.0.1:1/app"
	for name, c := range map[string]struct {
		environ []string
		says    string
	}{
		"nothing set":                {nil, "DATABASE_URL"},
		"no secrets":                 {[]string{database}, "POLAR_WEBHOOK_SECRETS"},
		"empty secrets":              {[]string{database, "POLAR_WEBHOOK_SECRETS="}, "POLAR_WEBHOOK_SECRETS"},
		"blank secret":               {[]string{database, "POLAR_WEBHOOK_SECRETS= "}, "POLAR_WEBHOOK_SECRETS"},
		"an empty one among them":    {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a,,hidden_b"}, "secret 2 of 3 is empty"},
		"an empty one at the end":    {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a,"}, "secret 2 of 2 is empty"},
		"only commas":                {[]string{database, "POLAR_WEBHOOK_SECRETS=,"}, "POLAR_WEBHOOK_SECRETS"},
		"only the prefix":            {[]string{database, "POLAR_WEBHOOK_SECRETS=whsec_"}, "POLAR_WEBHOOK_SECRETS"},
		"the prefix among others":    {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a,whsec_"}, "secret 2 of 2"},
		"a line break":               {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a\nhidden_b"}, "control character"},
		"an empty file":              {[]string{database, "POLAR_WEBHOOK_SECRETS_FILE=" + empty}, "POLAR_WEBHOOK_SECRETS"},
		"no such file":               {[]string{database, "POLAR_WEBHOOK_SECRETS_FILE=" + empty + "r"}, "POLAR_WEBHOOK_SECRETS_FILE"},
		"both forms":                 {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a", "POLAR_WEBHOOK_SECRETS_FILE=" + empty}, "POLAR_WEBHOOK_SECRETS and POLAR_WEBHOOK_SECRETS_FILE"},
		"no database":                {[]string{"POLAR_WEBHOOK_SECRETS=hidden_a"}, "DATABASE_URL"},
		"an unreadable database":     {[]string{"DATABASE_URL=postgres://app:pg_password_1@db:port/", "POLAR_WEBHOOK_SECRETS=hidden_a"}, "DATABASE_URL"},
		"an address that is none":    {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a", "INGEST_ADDR=nowhere"}, "INGEST_ADDR"},
		"a collector that is no URL": {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a", "OTEL_EXPORTER_OTLP_ENDPOINT=hidden_collector"}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a log level that is none":   {[]string{database, "POLAR_WEBHOOK_SECRETS=hidden_a", "LOG_LEVEL=loud"}, "LOG_LEVEL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runToEnd(t, c.environ)
			if got.code != 1 || !strings.HasPrefix(got.stderr, "ingest: ") || !strings.Contains(got.stderr, c.says) || got.stdout != "" {
				t.Errorf("%+v, want code 1 and %q on standard error alone", got, c.says)
			}
			if strings.Count(got.stderr, "\n") != 1 || strings.Contains(got.stderr, "goroutine") || strings.Contains(got.stderr, "panic") {
				t.Errorf("it says %q, want one line without a stack", got.stderr)
			}
			if strings.Contains(got.stderr, "hidden_") || strings.Contains(got.stderr, "pg_password") {
				t.Errorf("it shows a secret: %q", got.stderr)
			}
		})
	}
}

// process is the program while it serves.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	log  *bufio.Scanner
}

func start(t *testing.T, environ ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: ingestCommand(t, append(environ, "INGEST_ADDR=127.0.0.1:0"))}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	p.log = bufio.NewScanner(stderr)
	for p.log.Scan() {
		var line struct{ Msg, Addr, Program string }
		if err := json.Unmarshal(p.log.Bytes(), &line); err != nil {
			t.Fatalf("the program says %q, want a line of JSON: %v", p.log.Text(), err)
		}
		if line.Msg == "listening" {
			if line.Program != "ingest" {
				t.Errorf("logs as program %q, want ingest", line.Program)
			}
			p.addr = line.Addr
			return p
		}
	}
	t.Fatalf("the program ended before it listened: %v", p.cmd.Wait())
	return nil
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// wantClosed waits until no new client is let in: the stop has begun.
func (p *process) wantClosed() {
	p.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for time.Now().Before(deadline) {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			return
		}
		_ = conn.Close()
		<-ticker.C
	}
	p.t.Fatal("the program still lets clients in")
}

// end waits for the program's end and returns the rest of its log.
func (p *process) end() (log string, err error) {
	var rest strings.Builder
	for p.log.Scan() {
		fmt.Fprintln(&rest, p.log.Text())
	}
	return rest.String(), p.cmd.Wait()
}

// halfDelivery sends a delivery but for the end of its body, of which it returns the rest.
func (p *process) halfDelivery(webhookID string) (conn net.Conn, rest string) {
	p.t.Helper()
	header, err := polar.Sign(secret, webhookID, time.Now(), []byte(order), polar.DerivationAuto)
	if err != nil {
		p.t.Fatal(err)
	}
	header.Set("Content-Length", strconv.Itoa(len(order)))
	header.Set("Expect", "100-continue")
	var head strings.Builder
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: x\r\n", ingest.Route)
	if err := header.Write(&head); err != nil {
		p.t.Fatal(err)
	}
	if conn, err = net.Dial("tcp", p.addr); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head.String()+"\r\n"); err != nil {
		p.t.Fatal(err)
	}
	// The server asks for the body, so it is in the middle of the request.
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	asked := make([]byte, len(goOn))
	if _, err := io.ReadFull(conn, asked); err != nil || string(asked) != goOn {
		p.t.Fatalf("the server says %q (%v), want %q", asked, err, goOn)
	}
	half := len(order) / 2
	if _, err := io.WriteString(conn, order[:half]); err != nil {
		p.t.Fatal(err)
	}
	return conn, order[half:]
}

func TestASignalLetsADeliveryInFlightEndWell(t *testing.T) {
	t.Parallel()

	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			url := storetest.URL(t)
			p := start(t, "DATABASE_URL="+url, "POLAR_WEBHOOK_SECRETS="+secret)
			conn, rest := p.halfDelivery("msg_in_flight")
			p.signal(sig)
			p.wantClosed()
			if _, err := io.WriteString(conn, rest); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("reading the answer: %v", err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusAccepted {
				t.Errorf("the delivery in flight gets %d, want 202", response.StatusCode)
			}
			log, err := p.end()
			if err != nil {
				t.Errorf("the program ended with %v, want exit code 0; it says %s", err, log)
			}
			if !strings.Contains(log, `"msg":"stopped"`) {
				t.Errorf("the program says %s, want a last word", log)
			}
			var events, jobs int
			row := storetest.Open(t, url).Pool().QueryRow(t.Context(), "select (select count(*) from polar.event where webhook_id = 'msg_in_flight'), (select count(*) from polar.river_job)")
			if err := row.Scan(&events, &jobs); err != nil {
				t.Fatal(err)
			}
			if events != 1 || jobs != 1 {
				t.Errorf("%d events with %d jobs are stored, want one of each", events, jobs)
			}
		})
	}
}

func TestASecondSignalEndsTheProgramAtOnce(t *testing.T) {
	t.Parallel()

	p := start(t, "DATABASE_URL=postgres://nobody@127.0.0.1:1/none", "POLAR_WEBHOOK_SECRETS="+secret)
	p.halfDelivery("msg_never_ends")
	p.signal(syscall.SIGTERM)
	p.wantClosed()
	begun := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := p.end()
		ended <- err
	}()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			if took := time.Since(begun); err == nil || took > 5*time.Second {
				t.Errorf("the program ended after %s with %v, want at once and by the signal", took, err)
			}
			return
		case <-ticker.C:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		}
	}
}

func TestItServesWithSecretsFromFilesWhilePostgresIsAway(t *testing.T) {
	t.Parallel()

	folder := t.TempDir()
	secrets, database := filepath.Join(folder, "secrets"), filepath.Join(folder, "database")
	for path, content := range map[string]string{secrets: "merchant-chosen\n" + secret + "\n", database: "postgres://nobody@127.0.0.1:1/none\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "DATABASE_URL_FILE="+database, "POLAR_WEBHOOK_SECRETS_FILE="+secrets)
	for path, want := range map[string]int{"/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable, ingest.Route: http.StatusMethodNotAllowed} {
		response, err := http.Get("http://" + p.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, response.StatusCode, want)
		}
	}
	same := []string{"DATABASE_URL_FILE=" + database, "POLAR_WEBHOOK_SECRETS_FILE=" + secrets}
	if got := runToEnd(t, append(same, "INGEST_ADDR="+p.addr), "--healthy"); got.code != 0 || got.stdout+got.stderr != "" {
		t.Errorf("--healthy: %+v, want code 0 and no word", got)
	}
	if got := runToEnd(t, append(same, "INGEST_ADDR=127.0.0.1:1"), "--healthy"); got.code != 1 || !strings.Contains(got.stderr, "ingest: asking whether it lives") {
		t.Errorf("--healthy where nothing listens: %+v, want code 1 and why", got)
	}
	conn, rest := p.halfDelivery("msg_1")
	if _, err := io.WriteString(conn, rest); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a delivery gets %d, want 503", response.StatusCode)
	}
	p.signal(syscall.SIGTERM)
	if log, err := p.end(); err != nil || strings.Contains(log, secret) {
		t.Errorf("the program ended with %v and says %s", err, log)
	}
}

func TestTracesFollowOpenTelemetrysVariables(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		environ []string
		path    string // at which spans come; empty: none do
		says    string
	}{
		"an endpoint":            {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=URL"}, "/v1/traces", "truenorth-ingest"},
		"an endpoint for traces": {[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=URL/spans"}, "/spans", "truenorth-ingest"},
		"a name":                 {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=URL", "OTEL_SERVICE_NAME=shop"}, "/v1/traces", "shop"},
		"attributes":             {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=URL", "OTEL_RESOURCE_ATTRIBUTES=team=payments"}, "/v1/traces", "payments"},
		"a sampler":              {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=URL", "OTEL_TRACES_SAMPLER=always_off"}, "", ""},
		"no exporter":            {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=URL", "OTEL_TRACES_EXPORTER=none"}, "", ""},
		"no SDK":                 {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=URL", "OTEL_SDK_DISABLED=TRUE"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var got []string
			collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				got = append(got, r.URL.Path+" "+string(body))
			}))
			defer collector.Close()
			environ := []string{"DATABASE_URL=postgres://nobody@127.0.0.1:1/none", "POLAR_WEBHOOK_SECRETS=" + secret}
			for _, variable := range c.environ {
				environ = append(environ, strings.Replace(variable, "URL", collector.URL, 1))
			}
			p := start(t, environ...)
			response, err := http.Post("http://"+p.addr+ingest.Route, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			p.signal(syscall.SIGTERM)
			if log, err := p.end(); err != nil {
				t.Fatalf("the program ended with %v: %s", err, log)
			}
			mu.Lock()
			defer mu.Unlock()
			switch all := strings.Join(got, " "); {
			case c.path == "" && len(got) > 0:
				t.Errorf("the collector got %q, want nothing", all)
			case c.path != "" && (len(got) != 1 || !strings.HasPrefix(all, c.path+" ") || !strings.Contains(all, c.says) || !strings.Contains(all, "POST "+ingest.Route)):
				t.Errorf("the collector got %q, want spans at %s that say %s", all, c.path, c.says)
			}
		})
	}
}
