package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"riverqueue.com/riverui"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// riverUI is River UI below /jobs, behind the console's rules: readers change nothing, another site neither, and what is
// changed is noted first.
type riverUI struct {
	console *Console
	handler *riverui.Handler
	ctx     context.Context //nolint:containedctx // River UI counts jobs in the background from the first visit on
	cancel  context.CancelFunc
	start   sync.Once
}

const jobsPath = "/jobs"

func newRiverUI(c *Console) (*riverUI, error) {
	// It works no jobs.
	client, err := river.NewClient(riverpgxv5.New(c.config.Store.Pool()), &river.Config{Schema: store.Schema, Logger: c.config.Logger})
	if err != nil {
		return nil, fmt.Errorf("configuring River: %w", err)
	}
	handler, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: riverui.NewEndpoints[pgx.Tx](client, nil), Logger: c.config.Logger, Prefix: jobsPath, JobListHideArgsByDefault: true,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring River UI: %w", err)
	}
	u := &riverUI{console: c, handler: handler}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	return u, nil
}

func (u *riverUI) close() { u.cancel() }

func (u *riverUI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.start.Do(func() { //nolint:contextcheck // what it starts outlives the request
		if err := u.handler.Start(u.ctx); err != nil {
			u.console.config.Logger.ErrorContext(r.Context(), "starting River UI failed", slog.String("error", err.Error()))
		}
	})
	// It takes its styles from its script, too.
	policy := w.Header().Get("Content-Security-Policy")
	w.Header().Set("Content-Security-Policy", strings.Replace(policy, "style-src 'self'", "style-src 'self' 'unsafe-inline'", 1))
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		u.handler.ServeHTTP(w, r)
		return
	}
	who := visitorOf(r.Context())
	switch {
	case !who.Operator:
		http.Error(w, "the reader's password is for reading only", http.StatusForbidden)
		return
	// Its script has no form of ours to carry a token, and every browser tells a script's request where it comes from.
	case r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "":
		http.Error(w, "a change has to come from this console's own pages", http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "that is too much", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	deed := store.Deed{
		Actor: who.Name, Door: store.DoorConsole, Action: "jobs", Subject: r.Method + " " + strings.TrimPrefix(r.URL.Path, jobsPath),
		Detail: map[string]any{},
	}
	switch {
	case deed.Actor == "" && who.Asked:
		http.Error(w, "give your name as the user name: what is changed here stands in the audit trail", http.StatusBadRequest)
		return
	case deed.Actor == "":
		deed.Actor = "someone on this machine"
	}
	if json.Valid(body) {
		deed.Detail["body"] = json.RawMessage(body) // ids of jobs, or what a queue is set to
	}
	if err := u.console.config.Store.Audit(r.Context(), deed); err != nil {
		u.console.config.Logger.ErrorContext(r.Context(), "noting a change of jobs failed, so it was not made", slog.String("error", err.Error()))
		http.Error(w, "the change could not be noted, so it was not made", http.StatusServiceUnavailable)
		return
	}
	answered := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	u.handler.ServeHTTP(answered, r)
	if answered.status >= http.StatusBadRequest {
		deed.Action, deed.Detail = "jobs_refused", map[string]any{"answer": answered.status}
		if err := u.console.config.Store.Audit(context.WithoutCancel(r.Context()), deed); err != nil {
			u.console.config.Logger.ErrorContext(r.Context(), "noting that a change of jobs was refused failed", slog.String("error", err.Error()))
		}
	}
}

type statusWriter struct {
	http.ResponseWriter

	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
