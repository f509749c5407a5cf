package ingest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// personal is an event full of what must not be repeated anywhere.
const personal = `{"type":"customer.created","timestamp":"2026-08-22T09:00:00Z","data":{"id":"ada.lovelace@example.com",` +
	`"email":"ada.lovelace@example.com","name":"Ada Lovelace","external_id":"usr_secret_1337","client_secret":"polar_c_secret",` +
	`"customer_ip_address":"203.0.113.77","billing_address":{"line1":"12 St James Square"},"tax_id":["DE123456789","eu_vat"]}}`

var personalValues = []string{
	"ada.lovelace", "example.com", "Lovelace", "usr_secret_1337", "polar_c_secret", "203.0.113.77", "St James", "DE123456789",
}

// logFields are all that a line about a delivery may have.
var logFields = []string{
	"time", "level", "msg", "method", "status", "took", "bytes", "remote", "webhook_id", "type", "object_id", "reason", "error",
}

func TestEachDeliveryIsLoggedOnceAndTellsNothingPersonal(t *testing.T) {
	t.Parallel()

	healthy := newEdge(t, edgeOptions{secrets: []string{standardSecret, legacySecret, chosenSecret}})
	away := newEdge(t, edgeOptions{events: storetest.Open(t, "postgres://secret_user:secret_password@"+deadAddress(t)+"/none?sslmode=disable")})
	for name, e := range map[string]*edge{"healthy": healthy, "without Postgres": away} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent int
			hidden := slices.Concat(personalValues, []string{
				standardSecret, strings.TrimPrefix(standardSecret, "whsec_"), legacySecret, chosenSecret, "secret_user", "secret_password", "bearer_secret",
			})
			send := func(h http.Header, body string) {
				h.Set("Authorization", "Bearer bearer_secret")
				if signature := h.Get("Webhook-Signature"); len(signature) > 20 {
					hidden = append(hidden, strings.TrimPrefix(signature, "v1,"))
				}
				request := e.request(h, strings.NewReader(body))
				request.URL.RawQuery = "token=query_secret"
				if got := e.send(request); containsAny(got.body, hidden) {
					t.Errorf("answer %d repeats something secret: %s", got.status, got.body)
				}
				sent++
			}
			hidden = append(hidden, "query_secret")
			for _, body := range []string{personal, personal, personal[:100], "[" + personal + "]", "", `{"type":7,"data":"Ada Lovelace"}`, personal + strings.Repeat(" ", maxBody)} {
				send(sign(t, standardSecret, newID(), body, polar.DerivationAuto), body)
			}
			for _, forge := range forgeries {
				h := sign(t, standardSecret, newID(), personal, polar.DerivationAuto)
				forge(h)
				send(h, personal)
			}
			send(http.Header{"Webhook-Id": {"ada.lovelace@example.com"}}, personal)

			lines := e.log.lines(t, sent)
			if len(lines) != sent {
				t.Errorf("%d lines for %d requests", len(lines), sent)
			}
			for _, line := range lines {
				checkLine(t, line)
				if containsAny(line, hidden) {
					t.Errorf("logged %s, with something secret in it", line)
				}
			}
		})
	}
}

func containsAny(text string, values []string) bool {
	return slices.ContainsFunc(values, func(value string) bool { return strings.Contains(text, value) })
}

// checkLine wants one JSON object with known fields.
func checkLine(t *testing.T, line string) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		t.Errorf("logged %q, which is no JSON: %v", line, err)
	}
	for name := range fields {
		if !slices.Contains(logFields, name) {
			t.Errorf("logged a field %s, which is not one of %v: %s", name, logFields, line)
		}
	}
	if fields["msg"] != "delivery" || fields["status"] == nil || fields["took"] == nil || fields["level"] == nil {
		t.Errorf("logged %s, want msg, status, took and level", line)
	}
	return fields
}

func TestALineTellsWhatBecameOfADelivery(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	id := newID()
	e.post(id, order)
	e.post(id, order)
	e.post(newID(), `{}`)
	h := sign(t, legacySecret, newID(), order, polar.DerivationAuto)
	e.send(e.request(h, strings.NewReader(order)))
	e.exec("alter table polar.river_job add constraint no_jobs check (kind <> 'apply_events') not valid")
	e.post(newID(), order)

	lines := e.log.lines(t, 5)
	for i, want := range []map[string]any{
		{"level": "INFO", "status": 202.0, "webhook_id": id, "type": "order.paid", "object_id": "992fae2a-2a17-4b7a-8d9e-e287cf90131b", "bytes": float64(len(order)), "reason": nil},
		{"level": "INFO", "status": 202.0, "webhook_id": id, "reason": "duplicate"},
		{"level": "INFO", "status": 400.0, "reason": "envelope_no_type"},
		{"level": "INFO", "status": 401.0, "webhook_id": nil, "type": nil, "reason": "signature_no_match"},
		{"level": "ERROR", "status": 503.0, "type": "order.paid", "reason": "store"},
	} {
		got := checkLine(t, lines[i])
		for name, value := range want {
			if got[name] != value {
				t.Errorf("line %d has %s %v, want %v: %s", i+1, name, got[name], value, lines[i])
			}
		}
	}
	if len(lines) != 5 {
		t.Errorf("%d lines for 5 deliveries", len(lines))
	}
}

func TestNobodyForgesALineOfTheLog(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	const forged = `{"level":"ERROR","msg":"forged"}`
	escaped, err := json.Marshal("x\n" + forged)
	if err != nil {
		t.Fatal(err)
	}
	var sent int
	for _, body := range []string{
		`{"type":` + string(escaped) + `,"data":{"id":` + string(escaped) + `}}`,
		`{"type":"a\u001b[31m\u0000\u2028","data":{"id":"b\r\nlevel=ERROR"}}`,
		`{"type":"` + strings.Repeat("a", 100) + `"}`,
	} {
		e.post(newID(), body).want(t, http.StatusAccepted)
		sent++
	}
	for _, id := range []string{`","msg":"forged`, `{"level":"ERROR"}`, `%0aforged`, `\nforged`} {
		e.post(id, order).want(t, http.StatusAccepted)
		sent++
	}
	for _, id := range []string{"a\tb", "a\x7fb", "\xff", "aéb"} {
		h := sign(t, standardSecret, newID(), order, polar.DerivationAuto)
		h["Webhook-Id"] = []string{id}
		conn := e.dial()
		conn.write(head(t, h, len(order)) + order)
		if got := conn.status(); got != "401" && got != "400" {
			t.Errorf("webhook-id %q gets %s, want 401 or net/http's 400", id, got)
		}
		if !strings.Contains(id, "\x7f") { // net/http refuses that one before us
			sent++
		}
	}
	request := e.request(http.Header{}, http.NoBody)
	request.Method = strings.Repeat("FORGED", 100)
	e.send(request).want(t, http.StatusMethodNotAllowed)
	sent++

	lines := e.log.lines(t, sent)
	if len(lines) != sent {
		t.Errorf("%d lines for %d requests", len(lines), sent)
	}
	for _, line := range lines {
		fields := checkLine(t, line)
		if len(line) > 1000 || fields["msg"] != "delivery" {
			t.Errorf("logged %.1000s", line)
		}
		for _, name := range []string{"type", "object_id", "method"} {
			if text, ok := fields[name].(string); ok && (len(text) > 64 || strings.ContainsAny(text, "\n\r\x00\x1b{}\" ")) {
				t.Errorf("logged %s %q, which is not Polar's", name, text)
			}
		}
	}
}

func TestProbesAreNotLoggedWhileAllIsWell(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	e.wantProbes(http.StatusOK)
	e.post(newID(), order).want(t, http.StatusAccepted)
	if lines := e.log.lines(t, 1); len(lines) != 1 || !strings.Contains(lines[0], `"delivery"`) {
		t.Errorf("logged %q, want the delivery alone", lines)
	}
}
