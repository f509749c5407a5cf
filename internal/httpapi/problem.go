package httpapi

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// problem is an answer that says what was wrong: application/problem+json (RFC 9457).
type problem struct {
	Kind   string                 `json:"-"`
	Type   string                 `json:"type"`
	Title  string                 `json:"title"`
	Status int                    `json:"status"`
	Detail string                 `json:"detail"`
	Fields []truenorth.FieldError `json:"fields,omitempty"` // of the document, with what is wrong with each
}

func (p *problem) Error() string { return p.Title + ": " + p.Detail }

// typeBase is where each kind of problem is explained.
const typeBase = "https://github.com/truenorth-dev/truenorth/blob/main/docs/http.md#"

func invalidParams(fields []truenorth.FieldError) *problem {
	return &problem{
		Status: http.StatusUnprocessableEntity, Kind: "invalid-params", Title: "The checkout document is not right",
		Detail: (&truenorth.ParamsError{Fields: fields}).Error(), Fields: fields,
	}
}

// refuse answers with what went wrong. Faults of ours are logged, and told in general words.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody waits for the answer any more
	}
	p, ok := errors.AsType[*problem](err)
	refused, isRefused := errors.AsType[*store.RefusedError](err)
	switch {
	case ok:
	case isRefused:
		p = &problem{Status: http.StatusUnprocessableEntity, Kind: "invalid-params", Title: "The checkout document is not right", Detail: refused.Message}
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrDenied):
		p = &problem{Status: http.StatusServiceUnavailable, Kind: "unavailable", Title: "The database does not answer now", Detail: "try again in a moment, with the same Idempotency-Key"}
		w.Header().Set("Retry-After", retryAfter)
	case errors.Is(err, store.ErrOlderSchema):
		p = &problem{Status: http.StatusServiceUnavailable, Kind: "unavailable", Title: "The database is not migrated to this release yet", Detail: "try again once `truenorth migrate` has run"}
		w.Header().Set("Retry-After", retryAfter)
	default:
		p = &problem{Status: http.StatusInternalServerError, Kind: "fault", Title: "Something went wrong here", Detail: "the worker's log says what"}
	}
	if !ok && !isRefused {
		a.config.Logger.ErrorContext(r.Context(), "an api request failed", slog.String("route", r.Pattern), slog.String("error", err.Error()))
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="truenorth"`)
	}
	p.Type = typeBase + p.Kind
	body, err := json.Marshal(p)
	if err != nil {
		w.WriteHeader(p.Status)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
