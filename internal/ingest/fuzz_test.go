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

// keptStore works always, and keeps what it got.
type keptStore struct{ kept []store.Delivery }

func (k *keptStore) InsertEvents(_ context.Context, deliveries []store.Delivery, _ bool) (store.Stored, error) {
	k.kept = append(k.kept, deliveries...)
	return store.Stored{New: len(deliveries)}, nil
}

func (k *keptStore) Ping(context.Context) error { return nil }

// FuzzReceive sends anything. Whatever it is, nothing panics, our own fault is never the answer, and only what the
// library holds for signed is taken, byte for byte.
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

	// signer picks the key that signs; beyond the keys, signature is sent as it is.
	f.Add(http.MethodPost, "msg_1", "1795435200", "", uint8(0), []byte(order))
	f.Add(http.MethodPost, "msg_1", "1795435200", "v2,x", uint8(1), []byte(personal))
	f.Add(http.MethodPost, "msg_1", "1795435200", "v1,AAAA", uint8(2), []byte(`{"content":"x","embeds":[]}`))
	f.Add(http.MethodPost, "msg_1", "1795435501", "", uint8(3), []byte(`{}`))
	f.Add(http.MethodPost, "msg 1", "+1795435200", "v1,AAAA", uint8(9), []byte(``))
	f.Add(http.MethodGet, "", "", "", uint8(9), []byte(`[`))
	for _, body := range oddEvents() {
		if len(body) < 1000 {
			f.Add(http.MethodPost, "msg_1", "1795435200", "", uint8(0), []byte(body))
		}
	}

	f.Fuzz(func(t *testing.T, method, id, timestamp, signature string, signer uint8, body []byte) {
		if int(signer) < len(oracles) {
			seconds, err := strconv.ParseInt(timestamp, 10, 64)
			if err == nil {
				signed, err := oracles[signer].Sign(id, time.Unix(seconds, 0), body)
				if err != nil {
					t.Fatal(err)
				}
				signature = strings.TrimSpace(signature + " " + signed)
			}
		}
		request := httptest.NewRequest(http.MethodPost, ingest.Route, bytes.NewReader(body))
		request.Method = method
		request.Header = http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		kept := &keptStore{}
		recorder := httptest.NewRecorder()
		ingest.New(kept, verifier, slog.New(slog.DiscardHandler)).Handler().ServeHTTP(recorder, request)

		genuine := false
		for _, oracle := range oracles {
			genuine = genuine || oracle.VerifyIgnoringTimestamp(body, request.Header) == nil
		}
		if seconds, err := strconv.ParseInt(timestamp, 10, 64); err != nil || max(seconds-now.Unix(), now.Unix()-seconds) > 300 {
			genuine = false
		}
		switch status := recorder.Code; status {
		case http.StatusAccepted:
			if !genuine || method != http.MethodPost {
				t.Errorf("%s took what is not signed", method)
			}
			if len(kept.kept) != 1 || !bytes.Equal(kept.kept[0].Body, body) || kept.kept[0].WebhookID != id || kept.kept[0].Type == "" {
				t.Errorf("kept %+v of the event %q with the body %q", kept.kept, id, body)
			}
		case http.StatusBadRequest:
			if !genuine {
				t.Error("judged the content of what is not signed")
			}
		case http.StatusUnauthorized, http.StatusRequestEntityTooLarge:
		case http.StatusMethodNotAllowed:
			if method == http.MethodPost {
				t.Error("POST is not allowed")
			}
		default:
			t.Errorf("answer %d", status)
		}
		if recorder.Code != http.StatusAccepted && len(kept.kept) != 0 {
			t.Errorf("answer %d, and yet something is kept", recorder.Code)
		}
		checkAnswer(t, answer{status: recorder.Code, header: recorder.Header(), body: recorder.Body.String()})
	})
}
