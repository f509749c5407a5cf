package polarfake

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The versions of Polar's API that the fake knows, and the one meant when a request names none.
var (
	apiVersions       = []string{"2026-04", "2026-10", "2027-01"}
	defaultAPIVersion = "2026-04"
)

// maxBodySize bounds a request body. Polar's own bound is not known.
const maxBodySize = 4 << 20

// handler answers one API request. It is called under f.mu.
type handler func(*request) (any, error)

// request is an API request whose body has been read.
type request struct {
	*http.Request
	body []byte
}

// ServeHTTP implements [http.Handler]: the API under /v1/, hosted checkout pages under /checkout/, and the control of
// the fake itself under /_fake/.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		f.routes.ServeHTTP(w, r)
		return
	}

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodySize))
	if err != nil {
		http.Error(w, "reading the request body: "+err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	started := time.Now()
	route := f.route(r)
	f.mu.Lock()
	f.requests[cmp.Or(route, r.Method+" "+r.URL.Path)]++
	wait := f.throttle()
	var fault *Fault
	if wait == 0 {
		fault = f.matchFault(r, f.lists[route])
	}
	f.mu.Unlock()
	if wait > 0 {
		f.writeRateLimit(w, wait)
		f.logger.Info("Request met the rate limit", slog.String("request", r.Method+" "+r.URL.Path), slog.Duration("wait", wait))
		return
	}

	recorder := &recorder{header: w.Header(), status: http.StatusOK}
	if fault != nil && fault.before(f, w, r) {
		f.logger.Info("Request met a fault", slog.String("request", r.Method+" "+r.URL.Path), slog.String("fault", string(fault.Kind)))
		return
	}
	f.serveAPI(recorder, r, route)
	if fault != nil && fault.after(f, w, r, recorder) {
		f.logger.Info("Answer met a fault", slog.String("request", r.Method+" "+r.URL.Path),
			slog.Int("status", recorder.status), slog.String("fault", string(fault.Kind)))
		return
	}
	f.sleep(f.options.AnswerDelay)
	w.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
	w.WriteHeader(recorder.status)
	if recorder.body.Len() > 0 {
		_, _ = w.Write(recorder.body.Bytes()) // the caller may be gone
	}
	f.logger.Info("Answered", slog.String("request", r.Method+" "+r.URL.Path), slog.Int("status", recorder.status),
		slog.Duration("took", time.Since(started)))
}

// serveAPI checks what Polar's middleware checks, in its order, and then answers.
func (f *Fake) serveAPI(w http.ResponseWriter, r *http.Request, route string) {
	version := r.Header.Get("Polar-Version")
	if version == "" {
		version = defaultAPIVersion
	}
	if !slices.Contains(apiVersions, version) {
		writeJSON(w, http.StatusNotFound, map[string]string{"detail": "Not Found"})
		return
	}
	w.Header().Set("Polar-Version", version)

	if route == "" {
		f.serveNoRoute(w, r)
		return
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || strings.TrimSpace(token) == "" {
		writeError(w, errUnauthorized())
		return
	}
	f.routes.ServeHTTP(w, r)
}

// route returns the name of the API route that a request is for: its method and path, with placeholders.
func (f *Fake) route(r *http.Request) string {
	_, pattern := f.routes.Handler(r)
	if !strings.HasPrefix(pattern, r.Method+" /v1/") {
		return ""
	}
	if below, isView := strings.CutSuffix(pattern, "{view...}"); isView {
		// What stands below a customer: /v1/customers/{id}/{view...}
		view := strings.SplitN(r.URL.Path, "/", 5)
		switch {
		case len(view) < 5 || !isCustomerView(view[4]):
			return ""
		case view[4] == "state":
			return below + "state"
		}
		return below + "members/{member_id}"
	}
	return strings.ReplaceAll(pattern, "{$}", "")
}

// serveNoRoute answers as Polar's web framework does: another trailing slash is redirected to, and a known path with
// an unknown method is told apart from an unknown path.
func (f *Fake) serveNoRoute(w http.ResponseWriter, r *http.Request) {
	other := r.Clone(r.Context())
	if trimmed, found := strings.CutSuffix(r.URL.Path, "/"); found {
		other.URL.Path = trimmed
	} else {
		other.URL.Path += "/"
	}
	other.URL.RawPath = ""
	if f.route(other) != "" {
		w.Header().Set("Location", other.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if f.route(other) != "" {
			writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"detail": "Method Not Allowed"})
			return
		}
	}
	writeJSON(w, http.StatusNotFound, map[string]string{"detail": "Not Found"})
}

// answer turns a handler into an [http.Handler]. The document is rendered under the lock, as it may share state.
func (f *Fake) answer(status int, handle handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var rendered []byte
		f.mu.Lock()
		document, err := handle(&request{Request: r, body: body})
		if err == nil && status != http.StatusNoContent {
			rendered = encode(document)
		}
		f.mu.Unlock()

		switch {
		case err != nil:
			writeError(w, err)
		case status == http.StatusNoContent:
			w.WriteHeader(status)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write(rendered) // into memory
		}
	})
}

// fields reads the body as a JSON object.
func (r *request) fields() (fields, error) {
	problems := new([]Problem)
	root := fields{loc: []any{"body"}, problems: problems}
	if len(bytes.TrimSpace(r.body)) == 0 {
		root.fail(root.loc, "missing", "Field required", nil, nil)
		return fields{}, errInvalid(*problems)
	}
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		at := decoder.InputOffset()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			at = int64(len(r.body))
		}
		root.fail(root.at(at), "json_invalid", "JSON decode error", map[string]any{},
			map[string]any{"error": err.Error()})
		return fields{}, errInvalid(*problems)
	}
	read, ok := root.checkObject(root.loc, value)
	if !ok {
		return fields{}, errInvalid(*problems)
	}
	return read, nil
}

// err returns a 422 when there is any problem.
func (f fields) err() error {
	if len(*f.problems) > 0 {
		return errInvalid(*f.problems)
	}
	return nil
}

// ruleErr is err for rules that Polar checks after the form of a request.
func (f fields) ruleErr() error {
	if len(*f.problems) > 0 {
		return errRefused(*f.problems)
	}
	return nil
}

// id returns the UUID in the path, in canonical form.
func (r *request) id() (string, error) {
	problems := new([]Problem)
	path := fields{loc: []any{"path"}, problems: problems}
	id, ok := path.checkIdentifier(path.at("id"), r.PathValue("id"))
	if !ok {
		return "", errInvalid(*problems)
	}
	return id, nil
}

// clientIP is the caller's address, which Polar takes for the buyer's unless told otherwise.
func (r *request) clientIP() *string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	return &host
}

// baseURL is the base of hosted checkout pages. The caller holds f.mu.
func (f *Fake) baseURL(r *http.Request) string {
	if f.publicURL != "" {
		return f.publicURL
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return scheme + r.Host
}

// recorder keeps an answer until it is known whether it will be sent.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) Write(part []byte) (int, error) {
	r.body.Write(part) // never fails
	return len(part), nil
}

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) replace(body []byte) {
	r.body.Reset()
	r.body.Write(body) // never fails
}

func writeJSON(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(document)) // the client may be gone
}

func writeError(w http.ResponseWriter, err error) {
	if errors.Is(err, errGatewayTimeout) {
		writePage(w, http.StatusGatewayTimeout)
		return
	}
	var failure *APIError
	if !errors.As(err, &failure) {
		failure = &APIError{Status: http.StatusInternalServerError, Name: "InternalServerError", Detail: err.Error()}
	}
	if failure.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, failure.Status, failure)
}
