package ingest_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polartest"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

type vector struct {
	Label     string `json:"label"`
	Secret    string `json:"secret"`
	WebhookID string `json:"webhook_id"`
	Timestamp string `json:"webhook_timestamp"`
	Body      string `json:"body"`
	Signature string `json:"webhook_signature"`
}

func (v vector) header() http.Header {
	h := http.Header{}
	h.Set("Webhook-Id", v.WebhookID)
	h.Set("Webhook-Timestamp", v.Timestamp)
	h.Set("Webhook-Signature", v.Signature)
	return h
}

func (v vector) time(t *testing.T) time.Time {
	t.Helper()
	seconds, err := strconv.ParseInt(v.Timestamp, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(seconds, 0)
}

// vectors are deliveries that Polar's own client accepts. They are no part of the repository.
func vectors(t *testing.T) []vector {
	t.Helper()
	var all []vector
	if err := json.Unmarshal(polartest.Read(t, "signature-vectors.json"), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("%d signature vectors, want at least 5", len(all))
	}
	return all
}

func TestWhatPolarSignsWithEveryFormOfSecretIsStored(t *testing.T) {
	t.Parallel()

	all := vectors(t)
	secrets := make([]string, len(all))
	for i, v := range all {
		secrets[i] = v.Secret
	}
	for _, v := range all {
		for name, configured := range map[string][]string{"alone": {v.Secret}, "among others": secrets} {
			t.Run(v.Label+" "+name, func(t *testing.T) {
				t.Parallel()
				e := newEdge(t, edgeOptions{secrets: configured, clock: v.time(t)})
				e.send(e.request(v.header(), strings.NewReader(v.Body))).want(t, http.StatusAccepted)
				if got := e.wantStored(v.WebhookID); got.Body != v.Body || got.Jobs != 1 {
					t.Errorf("stored %+v, want the body %q and 1 job", got, v.Body)
				}
			})
		}
	}
}

func TestEverySecretIsTriedWithBothDerivations(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{secrets: []string{standardSecret, legacySecret, chosenSecret}, events: discard{}})
	for _, signer := range []struct {
		secret     string
		derivation polar.Derivation
	}{
		{standardSecret, polar.DerivationStandard},
		{standardSecret, polar.DerivationLegacy},
		{legacySecret, polar.DerivationLegacy},
		{chosenSecret, polar.DerivationStandard},
		{chosenSecret, polar.DerivationLegacy},
	} {
		h := sign(t, signer.secret, newID(), order, signer.derivation)
		if got := e.send(e.request(h, strings.NewReader(order))); got.status != http.StatusAccepted {
			t.Errorf("secret %.9s… with derivation %d: %d, want 202", signer.secret, signer.derivation, got.status)
		}
	}
}

func TestOldAndNewSecretServeWhileOneIsRotated(t *testing.T) {
	t.Parallel()

	post := func(e *edge, secret string) int {
		return e.send(e.request(sign(t, secret, newID(), order, polar.DerivationAuto), strings.NewReader(order))).status
	}
	for _, phase := range []struct {
		secrets  []string
		old, new int
	}{
		{[]string{legacySecret}, http.StatusAccepted, http.StatusUnauthorized},
		{[]string{legacySecret, standardSecret}, http.StatusAccepted, http.StatusAccepted},
		{[]string{standardSecret, legacySecret}, http.StatusAccepted, http.StatusAccepted},
		{[]string{standardSecret}, http.StatusUnauthorized, http.StatusAccepted},
	} {
		e := newEdge(t, edgeOptions{secrets: phase.secrets, events: discard{}})
		if got := post(e, legacySecret); got != phase.old {
			t.Errorf("with %d secrets the old one gets %d, want %d", len(phase.secrets), got, phase.old)
		}
		if got := post(e, standardSecret); got != phase.new {
			t.Errorf("with %d secrets the new one gets %d, want %d", len(phase.secrets), got, phase.new)
		}
	}
}

// forgeries are header changes that no delivery may survive. tests of the log and of an outage send them too.
var forgeries = map[string]func(h http.Header){
	"no headers":                func(h http.Header) { clear(h) },
	"no id":                     func(h http.Header) { h.Del("Webhook-Id") },
	"empty id":                  func(h http.Header) { h.Set("Webhook-Id", "") },
	"other id":                  func(h http.Header) { h.Set("Webhook-Id", newID()) },
	"two ids":                   func(h http.Header) { h.Add("Webhook-Id", newID()) },
	"id with a space":           func(h http.Header) { h.Set("Webhook-Id", "a b") },
	"long id":                   func(h http.Header) { h.Set("Webhook-Id", strings.Repeat("a", 257)) },
	"no timestamp":              func(h http.Header) { h.Del("Webhook-Timestamp") },
	"two timestamps":            func(h http.Header) { h.Add("Webhook-Timestamp", h.Get("Webhook-Timestamp")) },
	"timestamp with a plus":     func(h http.Header) { h.Set("Webhook-Timestamp", "+"+h.Get("Webhook-Timestamp")) },
	"timestamp with zeros":      func(h http.Header) { h.Set("Webhook-Timestamp", "00"+h.Get("Webhook-Timestamp")) },
	"timestamp with a fraction": func(h http.Header) { h.Set("Webhook-Timestamp", h.Get("Webhook-Timestamp")+".5") },
	"timestamp with letters":    func(h http.Header) { h.Set("Webhook-Timestamp", h.Get("Webhook-Timestamp")+"abc") },
	"timestamp negative":        func(h http.Header) { h.Set("Webhook-Timestamp", "-1") },
	"timestamp in hexadecimal":  func(h http.Header) { h.Set("Webhook-Timestamp", "0x6a8") },
	"timestamp beyond int64":    func(h http.Header) { h.Set("Webhook-Timestamp", "99999999999999999999") },
	"timestamp far ahead":       func(h http.Header) { h.Set("Webhook-Timestamp", "9223372036854775807") },
	"no signature":              func(h http.Header) { h.Del("Webhook-Signature") },
	"empty signature":           func(h http.Header) { h.Set("Webhook-Signature", "") },
	"blank signature":           func(h http.Header) { h.Set("Webhook-Signature", "v1,") },
	"forged signature": func(h http.Header) {
		h.Set("Webhook-Signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	},
	"signature no base64":     func(h http.Header) { h.Set("Webhook-Signature", "v1,!!!!") },
	"version 2":               func(h http.Header) { relabel(h, "v2,") },
	"version 1a":              func(h http.Header) { relabel(h, "v1a,") },
	"no version":              func(h http.Header) { relabel(h, "") },
	"capital version":         func(h http.Header) { relabel(h, "V1,") },
	"signature cut short":     func(h http.Header) { s := h.Get("Webhook-Signature"); h.Set("Webhook-Signature", s[:len(s)-2]) },
	"seventeen signatures":    func(h http.Header) { h.Set("Webhook-Signature", strings.Repeat(h.Get("Webhook-Signature")+" ", 17)) },
	"hundreds of signatures":  func(h http.Header) { h.Set("Webhook-Signature", strings.Repeat("v1,AAAA ", 900)) },
	"signature comma glued":   func(h http.Header) { h.Set("Webhook-Signature", "v1,AAAA,"+h.Get("Webhook-Signature")) },
	"signature of svix alias": func(h http.Header) { h.Set("Svix-Signature", h.Get("Webhook-Signature")); h.Del("Webhook-Signature") },
}

func relabel(h http.Header, version string) {
	h.Set("Webhook-Signature", version+strings.TrimPrefix(h.Get("Webhook-Signature"), "v1,"))
}

func TestWhatPolarDidNotSignGets401AndNeverReachesTheDatabase(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	for name, forge := range forgeries {
		h := sign(t, standardSecret, newID(), order, polar.DerivationAuto)
		forge(h)
		if got := e.send(e.request(h, strings.NewReader(order))); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, got.status)
		}
	}

	h := sign(t, standardSecret, newID(), order, polar.DerivationAuto)
	e.send(e.request(h, strings.NewReader(order+" "))).want(t, http.StatusUnauthorized) // another body
	e.send(e.request(h, http.NoBody)).want(t, http.StatusUnauthorized)
	h = sign(t, legacySecret, newID(), order, polar.DerivationAuto) // another secret
	e.send(e.request(h, strings.NewReader(order))).want(t, http.StatusUnauthorized)

	if n := e.events.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the database, want none", n)
	}
	e.wantCount(countEvents, 0)
	e.wantCount(countJobs, 0)
}

func TestTimestampsOffByOverFiveMinutesGet401(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	e := newEdge(t, edgeOptions{clock: now, events: discard{}})
	for offset, want := range map[time.Duration]int{
		0:                            http.StatusAccepted,
		-5 * time.Minute:             http.StatusAccepted,
		5 * time.Minute:              http.StatusAccepted,
		-5*time.Minute - time.Second: http.StatusUnauthorized,
		5*time.Minute + time.Second:  http.StatusUnauthorized,
		-24 * time.Hour:              http.StatusUnauthorized,
		24 * time.Hour:               http.StatusUnauthorized,
	} {
		h := signAt(t, standardSecret, newID(), order, polar.DerivationAuto, now.Add(offset))
		if got := e.send(e.request(h, strings.NewReader(order))); got.status != want {
			t.Errorf("a delivery signed at now%+v gets %d, want %d", offset, got.status, want)
		}
	}
}

func TestOneGoodSignatureAmongSeveralIsEnough(t *testing.T) {
	t.Parallel()

	const bad = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	e := newEdge(t, edgeOptions{events: discard{}})
	for name, rearrange := range map[string]func(h http.Header, good string){
		"good one last":       func(h http.Header, good string) { h.Set("Webhook-Signature", bad+" v2,abc v1a,def "+good) },
		"good one first":      func(h http.Header, good string) { h.Set("Webhook-Signature", good+" "+bad) },
		"last of sixteen":     func(h http.Header, good string) { h.Set("Webhook-Signature", strings.Repeat(bad+" ", 15)+good) },
		"in a second line":    func(h http.Header, good string) { h["Webhook-Signature"] = []string{bad, good} },
		"after an empty line": func(h http.Header, good string) { h["Webhook-Signature"] = []string{"", good} },
		"in lower-case names": func(h http.Header, good string) {
			delete(h, "Webhook-Signature")
			h["webhook-signature"] = []string{good}
		},
		"with spaces around":      func(h http.Header, good string) { h.Set("Webhook-Signature", "  "+bad+"   "+good+"  ") },
		"beside unknown headers":  func(h http.Header, _ string) { h.Set("X-Polar-Triggered", "true") },
		"with an odd media type":  func(h http.Header, _ string) { h.Set("Content-Type", "text/plain") },
		"with cookies and tokens": func(h http.Header, _ string) { h.Set("Authorization", "Bearer x"); h.Set("Cookie", "a=b") },
	} {
		h := sign(t, standardSecret, newID(), order, polar.DerivationAuto)
		rearrange(h, h.Get("Webhook-Signature"))
		if got := e.send(e.request(h, strings.NewReader(order))); got.status != http.StatusAccepted {
			t.Errorf("%s: %d %s, want 202", name, got.status, got.body)
		}
	}
}

func TestForgeriesGet401WhilePostgresIsAway(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: storetest.Open(t, "postgres://nobody@"+deadAddress(t)+"/none?sslmode=disable")})
	for name, forge := range forgeries {
		h := sign(t, standardSecret, newID(), order, polar.DerivationAuto)
		forge(h)
		if got := e.send(e.request(h, strings.NewReader(order))); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, got.status)
		}
	}
	if n := e.events.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the database, want none", n)
	}
}
