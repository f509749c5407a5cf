// Package examples_test runs the examples as their readers would.
package examples_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestExamplesPrintAURLAtWhichABuyerCanPay(t *testing.T) {
	t.Parallel()
	databaseURL := storetest.URL(t)
	startWorker(t, databaseURL)
	for _, example := range []struct {
		program string
		args    []string
		shows   string
	}{
		{"product", []string{polarfake.OneTimeProductID}, "49.00"},
		{"adhocprice", []string{polarfake.OneTimeProductID, "1234"}, "12.34"},
	} {
		t.Run(example.program, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			command := exec.CommandContext(ctx, program(t, example.program), example.args...)
			command.Env = append(os.Environ(), "DATABASE_URL="+databaseURL)
			output, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSpace(string(output)), nil)
			if err != nil {
				t.Fatalf("it printed %q: %v", output, err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			page, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != http.StatusOK || !strings.Contains(string(page), example.shows) {
				t.Errorf("the page answers %s and does not show %s", response.Status, example.shows)
			}
		})
	}
}

// startWorker works the jobs of a database against a fake Polar until the test ends.
func startWorker(t *testing.T, databaseURL string) {
	t.Helper()
	fake := polarfake.New(polarfake.Options{})
	t.Cleanup(fake.Close)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	fake.SetPublicURL(server.URL)
	runner, err := jobs.New(storetest.Open(t, databaseURL), jobs.Config{
		API: polar.Config{BaseURL: server.URL + "/v1", Token: "polar_oat_test"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx, func() {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
	})
}
