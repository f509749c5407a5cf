package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

const asProgram = "TRUENORTH_TEST_AS_PROGRAM" // set: this test binary is the program

// TestMain lets this test binary be the program too, in a process of its own with an environment of its own.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(storetest.Main(m))
}

// workerCommand is the program with this environment and nothing else.
func workerCommand(t *testing.T, environ []string, args ...string) *exec.Cmd {
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

func runToEnd(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := workerCommand(t, environ, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestArguments(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		arg            string
		code           int
		stdout, stderr string
	}{
		{"--help", 0, "POLAR_ACCESS_TOKEN", ""},
		{"--version", 0, "worker ", ""},
		{"version", 0, "(go1.", ""},
		{"--port", 2, "", "--help"},
		{"serve", 2, "", "--help"},
		{"--healthy", 1, "", "DATABASE_URL"},
	} {
		code, stdout, stderr := runToEnd(t, nil, c.arg)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || (stdout == "") != (c.stdout == "") || (stderr == "") != (c.stderr == "") {
			t.Errorf("worker %s: code %d, %q, %q; want %+v", c.arg, code, stdout, stderr, c)
		}
	}
	_, help, _ := runToEnd(t, nil, "--help")
	for _, variable := range []string{
		"DATABASE_URL", "POLAR_ACCESS_TOKEN", "POLAR_API_URL", "https://api.polar.sh/v1", "https://sandbox-api.polar.sh/v1", "POLAR_VERSION", "2026-10",
		"POLAR_RATE_LIMIT", "500", "100", "RECONCILE_INTERVAL", "15m", "EVENT_RETENTION", "2160h", "INGEST_PUBLIC_URL", "POLAR_REENABLE_ENDPOINT", "WORKER_ADDR", "127.0.0.1:8081", "CONSOLE_PASSWORD", "OTEL_EXPORTER_OTLP_ENDPOINT", "LOG_LEVEL", "DATABASE_URL_FILE", "POLAR_ACCESS_TOKEN_FILE", "CONSOLE_PASSWORD_FILE",
	} {
		if !strings.Contains(help, variable) {
			t.Errorf("the help does not speak of %s", variable)
		}
	}
}

func TestItRefusesToStartWithoutWhatItNeeds(t *testing.T) {
	t.Parallel()

	database, token := "DATABASE_URL=postgres://app:pg_password_1@127.0.0.1:1/app", "POLAR_ACCESS_TOKEN=polar_oat_hidden"
	absent := filepath.Join(t.TempDir(), "absent")
	for name, c := range map[string]struct {
		environ []string
		says    []string
	}{
		"nothing set":         {nil, []string{"DATABASE_URL", "POLAR_ACCESS_TOKEN"}},
		"no token":            {[]string{database}, []string{"POLAR_ACCESS_TOKEN"}},
		"empty token":         {[]string{database, "POLAR_ACCESS_TOKEN="}, []string{"POLAR_ACCESS_TOKEN"}},
		"no database":         {[]string{token}, []string{"DATABASE_URL"}},
		"unreadable database": {[]string{"DATABASE_URL=postgres://app:pg_password_1@db:port/", token}, []string{"DATABASE_URL"}},
		"both forms":          {[]string{database, token, "POLAR_ACCESS_TOKEN_FILE=" + absent}, []string{"POLAR_ACCESS_TOKEN and POLAR_ACCESS_TOKEN_FILE"}},
		"no such file":        {[]string{database, "POLAR_ACCESS_TOKEN_FILE=" + absent}, []string{"POLAR_ACCESS_TOKEN_FILE"}},
		"no number":           {[]string{database, token, "POLAR_RATE_LIMIT=many"}, []string{"POLAR_RATE_LIMIT"}},
		"negative":            {[]string{database, token, "POLAR_RATE_LIMIT=-1"}, []string{"POLAR_RATE_LIMIT"}},
		"no URL":              {[]string{database, token, "POLAR_API_URL=polar"}, []string{"POLAR_API_URL"}},
		"no interval":         {[]string{database, token, "RECONCILE_INTERVAL=often"}, []string{"RECONCILE_INTERVAL"}},
		"no retention":        {[]string{database, token, "EVENT_RETENTION=90d"}, []string{"EVENT_RETENTION", "2160h"}},
		"zero retention":      {[]string{database, token, "EVENT_RETENTION=0"}, []string{"EVENT_RETENTION", "2160h"}},
		"no public URL":       {[]string{database, token, "INGEST_PUBLIC_URL=shop"}, []string{"INGEST_PUBLIC_URL"}},
		"no address":          {[]string{database, token, "WORKER_ADDR=nowhere"}, []string{"WORKER_ADDR"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runToEnd(t, c.environ)
			if code != 1 || !strings.HasPrefix(stderr, "worker: ") || stdout != "" {
				t.Errorf("code %d, %q, %q; want code 1 and standard error alone", code, stdout, stderr)
			}
			for _, word := range c.says {
				if !strings.Contains(stderr, word) {
					t.Errorf("it says %q, want %s in it", stderr, word)
				}
			}
			if strings.Contains(stderr, "goroutine") || strings.Contains(stderr, "panic") {
				t.Errorf("it shows a stack: %q", stderr)
			}
			if strings.Contains(stderr, "hidden") || strings.Contains(stderr, "pg_password") {
				t.Errorf("it shows a secret: %q", stderr)
			}
		})
	}
}

func TestASignalEndsAWorkingWorkerWell(t *testing.T) {
	t.Parallel()

	fake := polarfake.New(polarfake.Options{})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	const token = "polar_oat_hidden"
	cmd := workerCommand(t, []string{
		"DATABASE_URL=" + storetest.URL(t), "POLAR_ACCESS_TOKEN=" + token, "POLAR_API_URL=" + api.URL + "/v1", "WORKER_ADDR=127.0.0.1:0",
		"LOG_LEVEL=debug",
	})
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var addr string
	var worked, signaled, stopped bool
	for log := bufio.NewScanner(stderr); log.Scan(); {
		var line struct{ Msg, Addr string }
		if err := json.Unmarshal(log.Bytes(), &line); err != nil {
			t.Errorf("the program says %q, want lines of JSON: %v", log.Text(), err)
		}
		if strings.Contains(log.Text(), token) {
			t.Errorf("the program shows its token: %s", log.Text())
		}
		switch line.Msg {
		case "listening":
			addr = line.Addr
		case "worker started":
			worked = true
		case "worker stopped":
			stopped = true
		}
		if worked && addr != "" && !signaled {
			signaled = true
			response, err := http.Get("http://" + addr + "/livez")
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !worked || !stopped {
		t.Errorf("the program ended with %v (started %t, stopped %t), want exit code 0 after both", err, worked, stopped)
	}
}
