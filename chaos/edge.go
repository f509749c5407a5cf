package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// webhookRoute is where Polar's endpoint points.
const webhookRoute = "/webhooks/polar"

// edge is the load balancer in front of ingest, as every product with two of them has one. It is where deliveries are observed:
// what it notes is what ingest answered, whatever became of ingest afterwards.
type edge struct {
	host    *host
	history *history
	client  *http.Client
	targets []string // addresses of ingest
	turn    atomic.Uint64

	mu     sync.Mutex
	recent map[string][]string // ids of the objects that events told of last, by type
}

// remembered is how many ids of a type are kept.
const remembered = 100

// learn remembers of which object an event tells.
func (e *edge) learn(body []byte) {
	var event struct {
		Type string `json:"type"`
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &event) != nil || event.Data.ID == "" {
		return
	}
	objectType, _, _ := strings.Cut(event.Type, ".")
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := e.recent[objectType]
	e.recent[objectType] = append(ids[max(0, len(ids)-remembered+1):], event.Data.ID)
}

// lately is one of the objects of a type that events told of lately; empty where there is none.
func (e *edge) lately(random *mathrand.Rand, objectType string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := e.recent[objectType]
	if len(ids) == 0 {
		return ""
	}
	return ids[random.IntN(len(ids))]
}

func newEdge(h *host, targets []string, log *history) *edge {
	return &edge{host: h, history: log, targets: targets, recent: map[string][]string{}, client: &http.Client{
		Timeout: 10 * time.Second, // Polar's patience
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return h.dial(ctx, network, address)
			},
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 20 * time.Second, // below ingest's own
		},
	}}
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.learn(body)
	first := e.turn.Add(1)
	for i := range e.targets {
		at := int(first+uint64(i)) % len(e.targets) //nolint:gosec // a small number
		answer, err := e.forward(r, at, body)
		if err == nil {
			if again := answer.Header.Get("Retry-After"); again != "" {
				w.Header().Set("Retry-After", again)
			}
			w.WriteHeader(answer.StatusCode)
			_, _ = w.Write(answer.body) // the sender may be gone
			return
		}
		if !refusedToConnect(err) {
			break // it may have been taken: whether to send it again is for Polar to say
		}
	}
	w.WriteHeader(http.StatusBadGateway)
}

// answered is an answer that was read.
type answered struct {
	*http.Response
	body []byte
}

// forward sends a delivery to one ingest and notes what it answers.
func (e *edge) forward(r *http.Request, at int, body []byte) (*answered, error) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+e.targets[at]+webhookRoute, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	request.Header = r.Header.Clone()
	request.Header.Del("Connection")
	// A delivery bears its id, so it may go again where a connection that was kept open turns out to be closed. This is how the
	// transport is told; it is not sent.
	request.Header["Idempotency-Key"] = []string{}
	seen := entry{Kind: kindDelivery, Host: ingestNames[at], ID: r.Header.Get("Webhook-Id")}
	began := time.Now()
	response, err := e.client.Do(request) //nolint:gosec // the target is ingest
	var text []byte
	if err == nil {
		text, err = io.ReadAll(response.Body)
		_ = response.Body.Close()
	}
	seen.Took = time.Since(began).Milliseconds()
	switch {
	case r.Context().Err() != nil:
		seen.What = senderLeft
	case err != nil:
		seen.What = plain(err)
	default:
		seen.Status, seen.Told = response.StatusCode, response.Header.Get("Retry-After") != ""
	}
	if seen.ID != "" && body != nil && string(body) != "{}" { // a probe of the endpoint is no delivery
		e.history.note(seen)
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", ingestNames[at], err)
	}
	return &answered{response, text}, nil
}

// senderLeft: Polar's patience was over before there was an answer. It waits for its own connections too.
const senderLeft = "the sender left"

func refusedToConnect(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "dial")
}

// plain is an error's words without the addresses that make each its own.
func plain(err error) string {
	text := err.Error()
	for _, known := range []string{"connection refused", "connection reset", "EOF", "no route to host", "broken pipe"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
		return "timeout"
	}
	return text
}

// forgedPrefix begins the ids of deliveries that nobody may store.
const forgedPrefix = "forged_"

// forger tries to come in without a secret or a key, all the time.
type forger struct {
	r      *run
	random *mathrand.Rand
	sent   int
	client *http.Client
}

func newForger(r *run) *forger {
	return &forger{
		r: r, random: mathrand.New(mathrand.NewPCG(r.seed, 9)), //nolint:gosec // no secret
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DialContext: r.hosts[nameEdge].dial, MaxIdleConnsPerHost: 8, IdleConnTimeout: 20 * time.Second,
		}},
	}
}

// forgeries are what it sends to ingest: each has one thing that is not right.
var forgeries = map[string]func(id string, now time.Time, body []byte) (http.Header, []byte){
	"no signature": func(id string, now time.Time, body []byte) (http.Header, []byte) {
		headers := signed(webhookSecret, id, now, body)
		headers.Del("Webhook-Signature")
		return headers, body
	},
	"another secret": func(id string, now time.Time, body []byte) (http.Header, []byte) {
		return signed(randomSecret(), id, now, body), body
	},
	"an empty secret": func(id string, now time.Time, body []byte) (http.Header, []byte) {
		return signed("whsec_", id, now, body), body
	},
	"another body": func(id string, now time.Time, body []byte) (http.Header, []byte) {
		return signed(webhookSecret, id, now, body), bytes.Replace(body, []byte("true"), []byte("null"), 1)
	},
	"another id": func(id string, now time.Time, body []byte) (http.Header, []byte) {
		headers := signed(webhookSecret, "evt_"+id, now, body)
		headers.Set("Webhook-Id", id)
		return headers, body
	},
	"an old signature": func(id string, now time.Time, body []byte) (http.Header, []byte) {
		return signed(webhookSecret, id, now.Add(-20*time.Minute), body), body
	},
}

func signed(secret, id string, at time.Time, body []byte) http.Header {
	signature, err := polarfake.Sign(secret, polarfake.SchemeOf(secret), id, at, body)
	if err != nil {
		signature = "v1," + base64.StdEncoding.EncodeToString(make([]byte, 32)) // the library signs with no empty key
	}
	headers := http.Header{"Content-Type": {"application/json"}}
	headers.Set("Webhook-Id", id)
	headers.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	headers.Set("Webhook-Signature", signature)
	return headers
}

func randomSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// try sends one forgery to ingest, or asks a worker without a key.
func (f *forger) try(ctx context.Context) {
	f.sent++
	if f.random.IntN(4) == 0 {
		f.askWithoutKey(ctx)
		return
	}
	names := sortedKeys(forgeries)
	what := names[f.random.IntN(len(names))]
	id := forgedPrefix + strconv.Itoa(f.sent)
	headers, body := forgeries[what](id, time.Now(), fmt.Appendf(nil, `{"type":"customer.updated","timestamp":%q,"forged":true,"data":{"id":"00000000-0000-4000-8000-%012d"}}`,
		time.Now().UTC().Format(time.RFC3339Nano), f.sent))
	name := ingestNames[f.random.IntN(len(ingestNames))]
	f.send(ctx, name, entry{Kind: kindForged, Host: name, ID: id, What: what}, http.MethodPost, "http://"+f.r.hosts[name].at(portIngest)+webhookRoute, headers, body)
}

func (f *forger) askWithoutKey(ctx context.Context) {
	name := workerNames[f.random.IntN(len(workerNames))]
	base := "http://" + f.r.hosts[name].at(portWorker)
	seen := entry{Kind: kindForged, Host: name, What: "no key"}
	if f.random.IntN(2) == 0 {
		f.send(ctx, name, seen, http.MethodGet, base+"/v1/users/usr_1/access", http.Header{}, nil)
		return
	}
	headers := http.Header{"Content-Type": {"application/json"}}
	f.send(ctx, name, seen, http.MethodPost, base+"/v1/checkout-requests", headers,
		fmt.Appendf(nil, `{"key": %q, "params": {"products": [%q]}}`, forgedPrefix+strconv.Itoa(f.sent), polarfake.OneTimeProductID))
}

func (f *forger) send(ctx context.Context, name string, seen entry, method, url string, headers http.Header, body []byte) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		panic(err) // it is written here
	}
	request.Header = headers
	began := time.Now()
	response, err := f.client.Do(request)
	seen.Took = time.Since(began).Milliseconds()
	if err != nil {
		if ctx.Err() == nil {
			seen.Status, seen.Host = 0, name
			f.r.history.note(seen)
		}
		return
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	seen.Status = response.StatusCode
	f.r.history.note(seen)
}

// serveHTTP serves on a host until ctx ends.
func serveHTTP(ctx context.Context, h *host, port int, handler http.Handler, logger *slog.Logger) error {
	listener, err := h.listen(ctx, port)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", h.name, err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }() // until it is closed
	return nil
}
