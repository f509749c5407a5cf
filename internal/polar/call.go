package polar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxResponseLen bounds an answer, in bytes: a page of 100 checkouts has about
// one MiB.
const maxResponseLen = 16 << 20

// call is one call of the API, which may take several HTTP requests.
type call struct {
	method string
	route  string // of the whole path, with names in place of values
	path   string // below the base URL, escaped
	query  url.Values
	body   []byte // JSON; nil: none
}

// newCall returns a call of the route below the base URL, in which the values
// take the places of the names in braces.
func (a *API) newCall(method, route string, values ...string) call {
	path := route
	for _, value := range values {
		before, rest, _ := strings.Cut(path, "{")
		_, after, _ := strings.Cut(rest, "}")
		path = before + url.PathEscape(value) + after
	}
	return call{method: method, route: a.base.Path + route, path: path}
}

// answer is a successful answer.
type answer struct {
	body   []byte
	status int
	readAt time.Time
}

// fetch makes a call that answers with one document.
func fetch[T any](ctx context.Context, a *API, c call, read func(json.RawMessage, time.Time) (T, error)) (T, error) {
	var none T
	got, err := a.do(ctx, c)
	if err != nil {
		return none, err
	}
	document, err := read(got.body, got.readAt)
	if err != nil {
		return none, c.unreadable(got.status, err)
	}
	return document, nil
}

// fetchPage makes a call that answers with a page of documents.
func fetchPage[T any](ctx context.Context, a *API, c call, read func(json.RawMessage, time.Time) (T, error)) (Page[T], error) {
	got, err := a.do(ctx, c)
	if err != nil {
		return Page[T]{}, err
	}
	var list struct {
		Items      []json.RawMessage `json:"items"`
		Pagination struct {
			TotalCount *int `json:"total_count"`
			MaxPage    *int `json:"max_page"`
		} `json:"pagination"`
	}
	// A list that cannot be read must not pass for an empty one.
	if err := json.Unmarshal(got.body, &list); err != nil {
		return Page[T]{}, c.unreadable(got.status, errors.New("the answer is not a list in Polar's form"))
	}
	if list.Items == nil || list.Pagination.MaxPage == nil || list.Pagination.TotalCount == nil {
		return Page[T]{}, c.unreadable(got.status, errors.New("the answer lacks items, pagination.total_count or pagination.max_page"))
	}
	page := Page[T]{
		Items:      make([]T, 0, len(list.Items)),
		TotalCount: *list.Pagination.TotalCount,
		MaxPage:    *list.Pagination.MaxPage,
		ReadAt:     got.readAt,
	}
	if err := checkPage(c.query, len(list.Items), *list.Pagination.TotalCount); err != nil {
		return Page[T]{}, c.unreadable(got.status, err)
	}
	for i, raw := range list.Items {
		item, err := read(raw, got.readAt)
		if err != nil {
			return Page[T]{}, c.unreadable(got.status, fmt.Errorf("item %d of %d: %w", i+1, len(list.Items), err))
		}
		page.Items = append(page.Items, item)
	}
	return page, nil
}

// checkPage tells whether a page holds as many items as its own total says. A page that lacks some must not pass for a whole one.
func checkPage(query url.Values, items, total int) error {
	if !query.Has("page") {
		return nil
	}
	page, _ := strconv.Atoi(query.Get("page"))   // pageQuery wrote it
	limit, _ := strconv.Atoi(query.Get("limit")) // and this
	want := min(limit, max(total-(page-1)*limit, 0))
	if items < want {
		return fmt.Errorf("page %d has %d items where its total_count of %d means %d", page, items, total, want)
	}
	return nil
}

// unreadable is the error of a call that succeeded with an answer that is not
// what it has to be.
func (c call) unreadable(status int, err error) *APIError {
	return &APIError{Method: c.method, Path: c.route, Status: status, Err: err}
}

// do makes the call, and again if it is a read that failed in passing.
func (a *API) do(ctx context.Context, c call) (answer, error) {
	for attempt := 1; ; attempt++ {
		got, apiErr := a.attempt(ctx, c, attempt)
		if apiErr == nil {
			return got, nil
		}
		if c.method != http.MethodGet || attempt > a.config.MaxRetries || !apiErr.passing() || ctx.Err() != nil {
			return answer{}, apiErr
		}
		wait := a.pauseFunc(attempt)
		a.logger.WarnContext(ctx, "Polar's API failed; trying again",
			slog.String("error", apiErr.Error()), slog.Int("attempt", attempt), slog.Duration("wait", wait))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return answer{}, apiErr
		case <-timer.C:
		}
	}
}

// passing tells whether the same read may well succeed in a moment.
func (e *APIError) passing() bool {
	if _, ok := errors.AsType[*gateError](e.Err); ok || errors.Is(e.Err, errTooLong) {
		return false
	}
	return e.Status < 300 || e.Status >= 500 // no answer, half an answer, or trouble at Polar
}

// gateError marks the error of [Config.Gate].
type gateError struct{ err error }

func (e *gateError) Error() string { return "waiting for leave to call: " + e.err.Error() }
func (e *gateError) Unwrap() error { return e.err }

var errTooLong = fmt.Errorf("the answer has over %d MiB", maxResponseLen>>20)

// attempt makes one HTTP request.
func (a *API) attempt(ctx context.Context, c call, attempt int) (answer, *APIError) {
	this := Call{Method: c.method, Route: c.route, Attempt: attempt}
	notSent := func(err error) *APIError {
		return &APIError{Method: c.method, Path: c.route, NotSent: true, Err: err}
	}
	if a.config.Gate != nil {
		if err := a.config.Gate(ctx, this); err != nil {
			return answer{}, notSent(&gateError{err})
		}
	}
	if err := ctx.Err(); err != nil {
		return answer{}, notSent(err)
	}

	errTimeout := fmt.Errorf("not done within %v: %w", a.config.Timeout, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, a.config.Timeout, errTimeout)
	defer cancel()
	var connection connectionTrace
	requestCtx := context.WithValue(httptrace.WithClientTrace(ctx, connection.clientTrace()), callKey{}, this)
	request, err := a.newRequest(requestCtx, c)
	if err != nil {
		return answer{}, notSent(err)
	}
	begin := time.Now()
	response, err := a.httpClient.Do(request)
	if err != nil {
		return answer{}, &APIError{
			Method: c.method, Path: c.route,
			NotSent: connection.wasNeverMade(err),
			Err:     transportError(ctx, err),
		}
	}
	defer func() { _ = response.Body.Close() }() // all of it was read, or none of it matters

	body, err := io.ReadAll(io.LimitReader(response.Body, maxResponseLen+1))
	readAt, _ := http.ParseTime(response.Header.Get("Date")) // zero if Polar does not say
	if a.config.OnResponse != nil {
		a.config.OnResponse(ResponseInfo{
			Call:       this,
			Status:     response.StatusCode,
			RetryAfter: retryAfter(response.Header),
			Date:       readAt,
			Duration:   time.Since(begin),
		})
	}
	succeeded := response.StatusCode >= 200 && response.StatusCode < 300
	switch {
	case succeeded && err != nil:
		return answer{}, c.unreadable(response.StatusCode, fmt.Errorf("reading the answer: %w", transportError(ctx, err)))
	case succeeded && len(body) > maxResponseLen:
		return answer{}, c.unreadable(response.StatusCode, errTooLong)
	case !succeeded:
		// A proxy that shows what it was sent would show the token too.
		body = bytes.ReplaceAll(body, []byte(a.config.Token), []byte("[token]"))
		return answer{}, c.answerError(response, body)
	}
	return answer{body: body, status: response.StatusCode, readAt: readAt}, nil
}

func (a *API) newRequest(ctx context.Context, c call) (*http.Request, error) {
	target := a.base.String() + c.path
	if len(c.query) > 0 {
		target += "?" + c.query.Encode()
	}
	var body io.Reader
	if c.body != nil {
		body = bytes.NewReader(c.body)
	}
	request, err := http.NewRequestWithContext(ctx, c.method, target, body)
	if err != nil {
		return nil, errors.New("the request cannot be made of these values") // err would show them
	}
	request.Header.Set("Authorization", "Bearer "+a.config.Token)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Polar-Version", a.config.Version)
	request.Header.Set("User-Agent", a.config.UserAgent)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, nil
}

// transportError takes off what [http.Client] puts around an error: the URL,
// whose values may be personal. Of a context that is over it says why.
func transportError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err
	}
	return err
}

// connectionTrace tells whether a request got a connection. Without one,
// nothing was sent.
type connectionTrace struct {
	asked, got atomic.Bool
}

func (t *connectionTrace) clientTrace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { t.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	}
}

// wasNeverMade tells whether a request that failed with err had no connection.
// A transport that does not take part in tracing is believed only when it says
// that it could not dial.
func (t *connectionTrace) wasNeverMade(err error) bool {
	if t.asked.Load() {
		return !t.got.Load()
	}
	opErr, ok := errors.AsType[*net.OpError](err)
	return ok && opErr.Op == "dial"
}
