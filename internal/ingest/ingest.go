// Package ingest receives Polar's webhooks: it verifies a delivery, stores its event with the job that applies it in
// one transaction, and only then answers.
package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Route is where Polar's endpoint points.
const Route = "/webhooks/polar"

// Limits of one delivery. Polar waits 10 seconds for an answer, and a buyer waits with it.
const (
	maxBody        = 1 << 20
	maxHeader      = 32 << 10
	firstRead      = 16 << 10 // most events are smaller
	headerTimeout  = 10 * time.Second
	readTimeout    = 20 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 30 * time.Second // a few bytes of a next request count as idle
	readyTimeout   = 2 * time.Second
	retryAfter     = 5 * time.Second
	wakeAtMostEach = 5 * time.Millisecond
)

// EventStore is where events go.
type EventStore interface {
	// InsertEvents stores deliveries with their job, in one transaction.
	InsertEvents(ctx context.Context, deliveries []store.Delivery, wake bool) (store.Stored, error)
	// Ping tells whether that would work now.
	Ping(ctx context.Context) error
}

// Option changes how a Receiver works.
type Option func(*Receiver)

// WithTracing has the Receiver add to the span that a request is in, and makes a span of every commit. Nil: it does not.
func WithTracing(provider trace.TracerProvider) Option {
	return func(rc *Receiver) {
		if provider != nil {
			rc.committer.tracer = provider.Tracer("github.com/truenorth-dev/truenorth/internal/ingest")
		}
	}
}

// Receiver serves the routes of ingest.
type Receiver struct {
	store     EventStore
	verifier  *polar.Verifier
	logger    *slog.Logger
	committer committer
	metrics   *metrics
}

// New makes a Receiver.
func New(events EventStore, verifier *polar.Verifier, logger *slog.Logger, options ...Option) *Receiver {
	rc := &Receiver{store: events, verifier: verifier, logger: logger, committer: committer{store: events}}
	rc.metrics = newMetrics(rc.committer.waitingNow)
	for _, option := range options {
		option(rc)
	}
	return rc
}

// Handler serves POST /webhooks/polar, GET /livez and GET /readyz. Paths are taken as they are: a ServeMux would
// answer an unclean one with a redirect, which Polar does not follow.
func (rc *Receiver) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch r.URL.Path {
		case Route:
			rc.receiveDelivery(w, r)
		case "/livez", "/readyz":
			switch {
			case !probe:
				w.Header().Set("Allow", "GET, HEAD")
				reply(w, http.StatusMethodNotAllowed, `{"error":"use GET"}`)
			case r.URL.Path == "/readyz":
				rc.ready(w, r)
			default:
				reply(w, http.StatusOK, `{"status":"ok"}`)
			}
		default:
			reply(w, http.StatusNotFound, `{"error":"no such route"}`)
		}
	})
}

// Server is an HTTP server for h with limits that no client can stall.
func Server(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           endAfterChunks(h),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// Panics and a shortage of file descriptors: our own faults. Nothing that a client sends gets here.
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelError),
	}
}

// endAfterChunks ends a connection after a request that came in chunks. One that gives a length beside them is taken without a
// word by net/http, and a proxy that went by the length would see another end of it: whatever follows is in doubt (RFC 9112,
// section 6.1). Polar gives lengths alone, and so do proxies that buffer.
func endAfterChunks(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (rc *Receiver) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := rc.store.Ping(ctx); err != nil {
		rc.logger.WarnContext(ctx, "not ready", slog.String("error", err.Error()))
		reply(w, http.StatusServiceUnavailable, `{"status":"unavailable"}`)
		return
	}
	reply(w, http.StatusOK, `{"status":"ok"}`)
}

// Reasons of verdicts that metrics tell apart.
const (
	reasonSignature = "signature_" // and the SignatureError's
	reasonOverload  = "overload"
)

// verdict is how one delivery ended: what is answered, and what is logged beside it.
type verdict struct {
	status int
	body   string
	reason string // for the log; empty where all went well
	cause  error  // our own fault, for the log only
}

func (rc *Receiver) receiveDelivery(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	var d store.Delivery
	body := takeBuffer()
	defer giveBuffer(body) // by then nobody reads it: a delivery is answered once its commit is certain or has failed
	v := rc.receive(w, r, body, &d)
	switch v.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout:
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
	}
	reply(w, v.status, v.body)
	took := time.Since(started)
	rc.metrics.count(v, took)

	if rc.committer.tracer != nil {
		describe(trace.SpanFromContext(r.Context()), d, v)
	}
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("method", loggable(r.Method)), slog.Int("status", v.status), slog.Duration("took", took),
		slog.Int("bytes", len(d.Body)), slog.String("remote", r.RemoteAddr),
	}
	if d.WebhookID != "" {
		attrs = append(attrs, slog.String("webhook_id", d.WebhookID))
	}
	if d.Type != "" {
		attrs = append(attrs, slog.String("type", loggable(d.Type)), slog.String("object_id", loggable(d.ObjectID)))
	}
	if v.reason != "" {
		attrs = append(attrs, slog.String("reason", v.reason))
	}
	if v.cause != nil {
		level = slog.LevelError
		attrs = append(attrs, slog.String("error", v.cause.Error()))
	}
	rc.logger.LogAttrs(r.Context(), level, "delivery", attrs...)
}

// receive takes one delivery. d is filled as far as it got; its id, type and object only once the signature is verified.
func (rc *Receiver) receive(rw http.ResponseWriter, r *http.Request, buffer *bytes.Buffer, d *store.Delivery) verdict {
	if r.Method != http.MethodPost {
		return verdict{status: http.StatusMethodNotAllowed, body: `{"error":"use POST"}`, reason: "method"}
	}
	tooLarge := verdict{status: http.StatusRequestEntityTooLarge, body: `{"error":"body over 1 MiB"}`, reason: "too_large"}
	if r.ContentLength > maxBody {
		return tooLarge
	}
	if err := readBody(rw, r, buffer); err != nil {
		var over *http.MaxBytesError
		var netErr net.Error
		switch {
		case errors.As(err, &over):
			return tooLarge
		case errors.As(err, &netErr) && netErr.Timeout():
			return verdict{status: http.StatusRequestTimeout, body: `{"error":"body took too long"}`, reason: "body_timeout"}
		}
		return verdict{status: http.StatusBadRequest, body: `{"error":"body could not be read"}`, reason: "body_cut_off"}
	}
	body := buffer.Bytes()
	d.Body = body
	if err := rc.verifier.Verify(body, r.Header); err != nil {
		v := verdict{status: http.StatusUnauthorized, body: `{"error":"no valid signature"}`, reason: "signature"}
		if signature, ok := errors.AsType[*polar.SignatureError](err); ok {
			v.reason = reasonSignature + signature.Reason
		}
		return v
	}
	d.WebhookID = r.Header.Get("Webhook-Id")
	envelope, err := polar.ScanEnvelope(body)
	if err != nil {
		v := verdict{status: http.StatusBadRequest, body: fmt.Sprintf(`{"error":%s}`, strconv.QuoteToASCII(err.Error())), reason: "envelope"}
		if fault, ok := errors.AsType[*polar.EnvelopeError](err); ok {
			v.reason = "envelope_" + fault.Reason
		}
		return v
	}
	d.Type, d.ObjectID, d.OccurredAt = envelope.Type, envelope.ObjectID, envelope.Timestamp

	crashpoint.Here("receive.verified")
	// Only what is verified takes a place: nobody without the secret can keep Polar out.
	w := waiter{delivery: *d}
	if rc.committer.tracer != nil {
		w.span = trace.SpanFromContext(r.Context())
	}
	if err := rc.committer.commit(&w); err != nil { //nolint:contextcheck // a commit goes on without the client
		if errors.Is(err, errFull) || errors.Is(err, errSlow) {
			return verdict{status: http.StatusServiceUnavailable, body: `{"error":"too many deliveries at once, try again"}`, reason: reasonOverload}
		}
		return verdict{status: http.StatusServiceUnavailable, body: `{"error":"cannot store the event now, try again"}`, reason: "store", cause: err}
	}
	crashpoint.Here("receive.unanswered")
	v := verdict{status: http.StatusAccepted, body: `{"status":"stored"}`}
	switch {
	case w.again:
		v.reason = "duplicate_of_failed"
	case w.duplicate:
		v.reason = "duplicate"
	}
	return v
}

// readBody reads up to the limit. Memory grows with what arrives, not with the length that a client claims.
func readBody(w http.ResponseWriter, r *http.Request, body *bytes.Buffer) error {
	if r.ContentLength > 0 {
		body.Grow(int(min(r.ContentLength, firstRead)) + bytes.MinRead)
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	return err //nolint:wrapcheck // for the caller to tell apart
}

// buffers are for bodies; without them every delivery would leave its body to the garbage collector.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func takeBuffer() *bytes.Buffer {
	buffer, ok := buffers.Get().(*bytes.Buffer)
	if !ok {
		return new(bytes.Buffer)
	}
	buffer.Reset()
	return buffer
}

// giveBuffer keeps a buffer for another delivery, but not the rare large one.
func giveBuffer(buffer *bytes.Buffer) {
	if buffer.Cap() <= firstRead+bytes.MinRead {
		buffers.Put(buffer)
	}
}

// loggable is text of a sender's in a form fit for a log: Polar's types and ids pass, and anything else, which may be
// somebody's name or a forged line, is left out.
func loggable(text string) string {
	const longest = 64
	if len(text) > longest {
		return "[odd]"
	}
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return "[odd]"
		}
	}
	return text
}

// What every answer bears; shared, so never changed.
var (
	jsonType = []string{"application/json"}
	noSniff  = []string{"nosniff"}
)

func reply(w http.ResponseWriter, status int, body string) {
	header := w.Header()
	header["Content-Type"], header["X-Content-Type-Options"] = jsonType, noSniff
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
	_, _ = io.WriteString(w, "\n")
}
