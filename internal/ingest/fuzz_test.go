package ingest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// fatedStore keeps what it got, or fails as it is told to. It keeps copies: a body is the receiver's again after the answer.
type fatedStore struct {
	fate error
	kept []store.Delivery
}

func (s *fatedStore) InsertEvents(_ context.Context, deliveries []store.Delivery, _ bool) (store.Stored, error) {
	if s.fate != nil {
		return store.Stored{}, s.fate
	}
	for _, d := range deliveries {
		d.Body = bytes.Clone(d.Body)
		s.kept = append(s.kept, d)
	}
	return store.Stored{New: len(deliveries)}, nil
}

func (s *fatedStore) Ping(context.Context) error { return s.fate }

// FuzzReceive sends anything: any method, path, length, headers and body, to a database that works, is away, or refuses.
// Whatever it is, nothing panics; only what the library holds for signed is stored, byte for byte, or answered with more
// than 401; a 2xx is given for what is stored and for nothing else; and each request is one line of the log at most.
func FuzzReceive(f *testing.F) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	verifier, err := polar.NewVerifier([]string{standardSecret, chosenSecret})
	if err != nil {
		f.Fatal(err)
	}
	verifier = verifier.WithClock(func() time.Time { return now })

	var oracles []*standardwebhooks.Webhook
	for _, secret := range []string{standardSecret, chosenSecret} {
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			f.Fatal(err)
		}
		for _, key := range [][]byte{[]byte(secret), decoded} {
			oracle, err := standardwebhooks.NewWebhookRaw(key)
			if err != nil {
				f.Fatal(err)
			}
			oracles = append(oracles, oracle)
		}
	}

	// signer picks the key that signs; beyond the keys, signature is sent as it is. headers are lines of further headers.
	add := func(method, path, id, timestamp, signature string, signer uint8, headers, body string, fate uint8) {
		f.Add(method, path, id, timestamp, signature, signer, headers, int64(len(body)), []byte(body), fate)
	}
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", 0, "", order, 0)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "v2,x", 1, "Content-Type: text/plain\nContent-Encoding: gzip", personal, 0)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "v1,AAAA", 2, "", `{"content":"x","embeds":[]}`, 0)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435501", "", 3, "", `{}`, 0)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", 0, "Webhook-Id: msg_2", order, 0)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", 0, "Webhook-Signature: v1,AAAA\nX-Forwarded-For: 127.0.0.1", order, 0)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", 0, "", order, 1)
	add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", 0, "Traceparent: 00-0-0-0", order, 2)
	add(http.MethodPost, ingest.Route, "msg 1", "+1795435200", "v1,AAAA", 9, "", ``, 0)
	add(http.MethodGet, ingest.Route, "", "", "", 9, "", `[`, 0)
	add(http.MethodGet, "/readyz", "", "", "", 9, "", ``, 1)
	add(http.MethodPost, "/webhooks/../webhooks/polar", "msg_1", "1795435200", "", 0, "", order, 0)
	f.Add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", uint8(0), "", int64(1<<40), []byte(order), uint8(0))
	f.Add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", uint8(0), "", int64(-1), []byte(order), uint8(0))
	for _, body := range oddEvents() {
		if len(body) < 1000 {
			add(http.MethodPost, ingest.Route, "msg_1", "1795435200", "", 0, "", body, 0)
		}
	}

	f.Fuzz(func(t *testing.T, method, path, id, timestamp, signature string, signer uint8, headers string, length int64, body []byte, fate uint8) {
		seconds, timeErr := strconv.ParseInt(timestamp, 10, 64)
		if int(signer) < len(oracles) && timeErr == nil {
			signed, err := oracles[signer].Sign(id, time.Unix(seconds, 0), body)
			if err != nil {
				t.Fatal(err)
			}
			signature = strings.TrimSpace(signature + " " + signed)
		}
		request := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		request.Method, request.URL.Path, request.ContentLength = method, path, length
		request.Header = http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		for line := range strings.SplitSeq(headers, "\n") {
			name, value, _ := strings.Cut(line, ":")
			request.Header.Add(name, strings.TrimSpace(value))
		}
		database := &fatedStore{fate: []error{nil, store.ErrUnavailable, &store.RefusedError{Code: "22P05"}, context.DeadlineExceeded}[fate%4]}
		log := &logBuffer{}
		recorder := httptest.NewRecorder()
		ingest.New(database, verifier, slog.New(slog.NewTextHandler(log, nil))).Handler().ServeHTTP(recorder, request)

		joined := request.Header.Clone() // signatures may stand in several lines, of which the library reads the first
		joined.Set("Webhook-Signature", strings.Join(joined["Webhook-Signature"], " "))
		genuine := method == http.MethodPost && path == ingest.Route && len(request.Header["Webhook-Id"]) == 1 && len(request.Header["Webhook-Timestamp"]) == 1
		signed := false
		for _, oracle := range oracles {
			signed = signed || oracle.VerifyIgnoringTimestamp(body, joined) == nil
		}
		genuine = genuine && signed && timeErr == nil && max(seconds-now.Unix(), now.Unix()-seconds) <= 300
		answer := answer{status: recorder.Code, header: recorder.Header(), body: recorder.Body.String()}
		judge(t, answer, method, path, genuine, database)
		if len(database.kept) == 1 {
			stored := database.kept[0]
			if !bytes.Equal(stored.Body, body) || stored.WebhookID != id || stored.Type == "" {
				t.Errorf("stored %+v of the event %q with the body %q", stored, id, body)
			}
		}
		checkAnswer(t, answer)
		if text := log.String(); strings.Count(text, "\n") > 1 || strings.ContainsAny(text, "\r\x00\x1b") || len(text) > 1200 {
			t.Errorf("logged %q", text)
		}
	})
}

// judge holds an answer against the promises: what is genuine is stored or refused for a reason that its sender can see, and
// what is not leaves no trace.
func judge(t *testing.T, a answer, method, path string, genuine bool, database *fatedStore) {
	t.Helper()
	if stored := len(database.kept) == 1; stored != (path == ingest.Route && a.status == http.StatusAccepted) || len(database.kept) > 1 {
		t.Errorf("answer %d, and %d deliveries are stored", a.status, len(database.kept))
	}
	if path != ingest.Route {
		probe := path == "/livez" || path == "/readyz"
		if !probe && a.status != http.StatusNotFound {
			t.Errorf("%q answers %d", path, a.status)
		}
		return
	}
	switch a.status {
	case http.StatusAccepted:
		if !genuine || database.fate != nil {
			t.Errorf("%s took what is not signed, or not stored", method)
		}
	case http.StatusBadRequest:
		if !genuine {
			t.Error("judged the content of what is not signed")
		}
	case http.StatusServiceUnavailable:
		if !genuine || database.fate == nil || a.header.Get("Retry-After") == "" {
			t.Errorf("503, Retry-After %q, though signed is %t and the database says %v", a.header.Get("Retry-After"), genuine, database.fate)
		}
	case http.StatusUnauthorized, http.StatusRequestEntityTooLarge:
	case http.StatusMethodNotAllowed:
		if method == http.MethodPost {
			t.Error("POST is not allowed")
		}
	default:
		t.Errorf("answer %d", a.status)
	}
}
