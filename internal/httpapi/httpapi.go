// Package httpapi is the door for apps that speak HTTP: it takes checkout requests, gives their URLs, and tells what a user
// may use and what has changed. It is described by the OpenAPI document that it serves.
package httpapi

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Config is what the door needs.
type Config struct {
	Store  *store.Store
	Client *truenorth.Client // waits for URLs and changes
	Logger *slog.Logger
	// ExtraFields are checkout fields newer than this release, which pass validation.
	ExtraFields []string
	// Stopping ends once requests that wait should be answered, as the program is about to stop; nil: never.
	Stopping context.Context //nolint:containedctx // it is the program's
}

const (
	maxBody     = 128 << 10 // params may have 64 KiB
	maxWait     = 30 * time.Second
	queryLimit  = 10 * time.Second
	mostChanges = 500 // of one answer
	retryAfter  = "5" // seconds
)

// document describes the routes, their inputs and their answers: OpenAPI 3.1.
//
//go:embed v1.json
var document []byte

type api struct{ config Config }

// New makes the handler of all routes below /v1/. Every one but the description asks for a bearer key.
func New(config Config) http.Handler {
	if config.Stopping == nil {
		config.Stopping = context.Background()
	}
	a := &api{config}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/openapi.json", a.serve(only(http.MethodGet, a.describe), nobody))
	mux.HandleFunc("/v1/checkout-requests", a.serve(only(http.MethodPost, a.createCheckout), a.keyName))
	mux.HandleFunc("/v1/checkout-requests/{id}", a.serve(only(http.MethodGet, a.getCheckout), a.keyName))
	mux.HandleFunc("/v1/users/{id}/access", a.serve(only(http.MethodGet, a.getAccess), a.keyName))
	mux.HandleFunc("/v1/changes", a.serve(only(http.MethodGet, a.getChanges), a.keyName))
	mux.HandleFunc("/v1/", a.serve(func(http.ResponseWriter, *http.Request) error {
		return &problem{Status: http.StatusNotFound, Kind: "no-such-route", Title: "No such route", Detail: "GET /v1/openapi.json tells which there are"}
	}, a.keyName))
	return mux
}

// handler answers, or tells why not. An error that is no *problem is a fault of ours, or of Postgres.
type handler func(w http.ResponseWriter, r *http.Request) error

// only lets one method pass; GET brings HEAD.
func only(method string, next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == method || method == http.MethodGet && r.Method == http.MethodHead {
			return next(w, r)
		}
		w.Header().Set("Allow", method)
		return &problem{Status: http.StatusMethodNotAllowed, Kind: "method", Title: "This route has another method", Detail: "use " + method}
	}
}

// serve lets in whom who gives a name, and answers with what goes wrong.
func (a *api) serve(next handler, who func(*http.Request) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		answer := &recorded{ResponseWriter: w}
		name, err := who(r)
		if err == nil {
			err = next(answer, r)
		}
		if err != nil {
			a.refuse(answer, r, err)
		}
		a.config.Logger.LogAttrs(r.Context(), slog.LevelInfo, "api request", slog.String("method", r.Method), slog.String("route", r.Pattern),
			slog.String("key", name), slog.Int("status", answer.status), slog.Duration("took", time.Since(began)))
	}
}

// recorded remembers the status of an answer.
type recorded struct {
	http.ResponseWriter

	status int
}

func (w *recorded) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// nobody is who asks for what everybody may see.
func nobody(*http.Request) (string, error) { return "", nil }

// keyName gives the name of the key that a request bears.
func (a *api) keyName(r *http.Request) (string, error) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || len(r.Header.Values("Authorization")) > 1 {
		return "", &problem{
			Status: http.StatusUnauthorized, Kind: "no-key", Title: "A key is needed",
			Detail: "send the header Authorization: Bearer KEY; `truenorth keys create NAME` makes a key",
		}
	}
	// The key is 256 random bits, so its hash is looked up as it is: there is nothing to guess, nor to time.
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	name, live, err := a.config.Store.UseAPIKey(ctx, sha256.Sum256([]byte(strings.TrimSpace(key))))
	if err != nil {
		return "", err
	}
	if !live {
		return "", &problem{
			Status: http.StatusUnauthorized, Kind: "unknown-key", Title: "The key is unknown or revoked",
			Detail: "`truenorth keys list` tells which keys there are",
		}
	}
	return name, nil
}

func (a *api) describe(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(document)
	return nil
}

// createCheckout takes Polar's checkout-create document as it is, or as the column params of a checkout request.
func (a *api) createCheckout(w http.ResponseWriter, r *http.Request) error {
	wait, err := readWait(r)
	if err != nil {
		return err
	}
	params, key, err := readCheckout(w, r)
	if err != nil {
		return err
	}
	if err := truenorth.ValidateParams(params, a.config.ExtraFields...); err != nil {
		if invalid, ok := errors.AsType[*truenorth.ParamsError](err); ok {
			return invalidParams(invalid.Fields)
		}
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	request, isNew, err := a.config.Store.AskForCheckout(ctx, params, key)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if isNew {
		status = http.StatusCreated
	}
	// It is committed, so whatever goes wrong while waiting, the caller learns its id.
	if awaited, err := a.awaited(r.Context(), request, wait); err == nil {
		request = awaited
	} else {
		a.config.Logger.WarnContext(r.Context(), "waiting for a URL failed", slog.String("error", err.Error()))
	}
	w.Header().Set("Location", "/v1/checkout-requests/"+request.ID.String())
	return reply(w, status, request)
}

func (a *api) getCheckout(w http.ResponseWriter, r *http.Request) error {
	none := &problem{
		Status: http.StatusNotFound, Kind: "no-such-request", Title: "No such checkout request",
		Detail: "no committed checkout request has this id",
	}
	wait, err := readWait(r)
	if err != nil {
		return err
	}
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return none
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	request, err := a.config.Store.GetCheckoutRequest(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return none
	}
	if err != nil {
		return err
	}
	if request, err = a.awaited(r.Context(), request, wait); err != nil {
		return err
	}
	return reply(w, http.StatusOK, request)
}

// waiting ends after a while, and when the program is about to stop: then it is answered as matters stand.
func (a *api) waiting(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	stop := context.AfterFunc(a.config.Stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

// awaited waits, if asked to, until a request has its URL or never gets one, and gives it as it is then.
func (a *api) awaited(ctx context.Context, request store.CheckoutRequest, wait time.Duration) (store.CheckoutRequest, error) {
	if wait == 0 || request.State != store.RequestQueued && request.State != store.RequestCreating {
		return request, nil
	}
	waitCtx, cancel := a.waiting(ctx, wait)
	defer cancel()
	_, err := a.config.Client.AwaitURL(waitCtx, request.ID)
	if _, ended := errors.AsType[*truenorth.CheckoutError](err); err != nil && !ended && waitCtx.Err() == nil {
		return store.CheckoutRequest{}, store.Interpret(err)
	}
	ctx, cancelRead := context.WithTimeout(ctx, queryLimit)
	defer cancelRead()
	return a.config.Store.GetCheckoutRequest(ctx, request.ID)
}

// access is what a user may use now.
type access struct {
	LocalUserID string          `json:"local_user_id"`
	Access      json.RawMessage `json:"access"`
}

func (a *api) getAccess(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	id := r.PathValue("id")
	rows, err := a.config.Store.ReadAccess(ctx, id)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrRefused) { // refused: no text that an id could be
		return &problem{Status: http.StatusNotFound, Kind: "no-such-user", Title: "No such user", Detail: "no living row of polar.local_user has this id"}
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, access{id, rows})
}

// changes is a part of the feed, and where it goes on.
type changes struct {
	Changes json.RawMessage `json:"changes"`
	Cursor  int64           `json:"cursor"`
}

// getChanges gives what happened after a cursor; without one, the cursor to begin with.
func (a *api) getChanges(w http.ResponseWriter, r *http.Request) error {
	wait, err := readWait(r)
	if err != nil {
		return err
	}
	text := r.URL.Query().Get("after")
	if text == "" {
		ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
		defer cancel()
		newest, err := a.config.Client.NewestChange(ctx)
		if err != nil {
			return store.Interpret(err)
		}
		return reply(w, http.StatusOK, changes{json.RawMessage("[]"), newest})
	}
	after, err := strconv.ParseInt(text, 10, 64)
	if err != nil || after < 0 {
		return &problem{Status: http.StatusBadRequest, Kind: "cursor", Title: "The cursor is wrong", Detail: "after has to be the cursor of an earlier answer, or 0 for all that is kept"}
	}
	if wait > 0 {
		waitCtx, cancel := a.waiting(r.Context(), wait)
		defer cancel()
		for _, err := range a.config.Client.Changes(waitCtx, after) {
			if err != nil && waitCtx.Err() == nil && !errors.Is(err, truenorth.ErrChangesRemoved) {
				return store.Interpret(err)
			}
			break // there is one, or there will be none in time
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	page, err := a.config.Store.ReadChanges(ctx, after, mostChanges)
	if err != nil {
		return err
	}
	if after < page.RemovedUntil || after > page.Newest {
		return &problem{
			Status: http.StatusGone, Kind: "changes-removed", Title: "Changes after the cursor are not kept any more, or were lost in a restore",
			Detail: "ask for the cursor to go on from (GET /v1/changes without after), then read anew what your users may use",
		}
	}
	return reply(w, http.StatusOK, changes{page.Changes, page.Last})
}

// readWait reads how long to wait.
func readWait(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 || wait > maxWait {
		return 0, &problem{Status: http.StatusBadRequest, Kind: "wait", Title: "The wait is wrong", Detail: "wait has to be a duration from 0s to 30s, such as 10s"}
	}
	return wait, nil
}

// readCheckout reads a checkout-create document and its key. The body may also be a checkout request with the columns params
// and key.
func readCheckout(w http.ResponseWriter, r *http.Request) (params json.RawMessage, key string, err error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, "", &problem{Status: http.StatusUnsupportedMediaType, Kind: "content-type", Title: "The body has to be JSON", Detail: "send the header Content-Type: application/json"}
	}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) > 1 || len(keys) == 1 && keys[0] == "" {
		return nil, "", invalidParams([]truenorth.FieldError{{Path: "key", Message: "is not one text of 1 to 255 characters in the header Idempotency-Key"}})
	}
	if len(keys) == 1 {
		key = keys[0]
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, "", &problem{Status: http.StatusRequestEntityTooLarge, Kind: "too-large", Title: "The body is too large", Detail: "a checkout document has at most 64 KiB"}
	}
	if err != nil {
		return nil, "", &problem{Status: http.StatusBadRequest, Kind: "cut-off", Title: "The body could not be read", Detail: "it ended before its length, or came too slowly"}
	}
	var columns map[string]json.RawMessage
	// What is wrong with a body that is no object, validation says.
	if _ = json.Unmarshal(body, &columns); columns["params"] == nil {
		return body, key, nil
	}
	var wrong []truenorth.FieldError
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		value := columns[name]
		switch name {
		case "params":
		case "key":
			var inBody *string
			if json.Unmarshal(value, &inBody) != nil || inBody != nil && (*inBody == "" || key != "" && *inBody != key) {
				wrong = append(wrong, truenorth.FieldError{Path: "key", Message: "is not one text of 1 to 255 characters, the same as in the header Idempotency-Key if that is there"})
			} else if inBody != nil {
				key = *inBody
			}
		default:
			wrong = append(wrong, truenorth.FieldError{Path: name, Message: "is unknown beside params; key is all that may stand there"})
		}
	}
	if wrong != nil {
		return nil, "", invalidParams(wrong)
	}
	return columns["params"], key, nil
}

// reply writes an answer as JSON.
func reply(w http.ResponseWriter, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err //nolint:wrapcheck // of our own types: cannot be
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}
