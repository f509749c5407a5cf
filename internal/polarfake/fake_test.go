package polarfake_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// patience bounds every wait; nothing waits that long unless it is broken.
const patience = 30 * time.Second

// testBundle is a fake behind a listener, and a receiver of its webhooks.
type testBundle struct {
	*polarfake.Fake
	t        *testing.T
	server   *httptest.Server
	receiver *receiver
}

type setupOption func(*polarfake.Options)

// setup starts a fake whose events arrive at the bundle's receiver.
func setup(t *testing.T, changes ...setupOption) *testBundle {
	t.Helper()

	receiver := newReceiver(t)
	options := polarfake.Options{
		WebhookURL: receiver.server.URL, WebhookSecret: standardSecret, RetryScale: 0.0005, FulfillmentWait: 50 * time.Millisecond,
	}
	for _, change := range changes {
		change(&options)
	}
	fake := polarfake.New(options)
	server := httptest.NewServer(fake)
	t.Cleanup(func() {
		fake.Close()
		server.Close()
	})
	return &testBundle{Fake: fake, t: t, server: server, receiver: receiver}
}

const (
	standardSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	legacySecret   = "polar_whs_ovyN6cPrTv56AApvzCaJno08SSmGJmgbWilb33N2JuK"
)

// document is a decoded JSON object.
type document map[string]any

// asObject returns an empty object for everything else.
func asObject(value any) document {
	object, _ := value.(map[string]any)
	return object
}

func (d document) list(name string) []any {
	list, _ := d[name].([]any)
	return list
}

func (d document) text(name string) string {
	text, _ := d[name].(string)
	return text
}

func (d document) object(name string) document {
	return asObject(d[name])
}

func (d document) items() []document {
	items := make([]document, len(d.list("items")))
	for i, element := range d.list("items") {
		items[i] = asObject(element)
	}
	return items
}

func decode(t *testing.T, body []byte) document {
	t.Helper()

	var decoded document
	if err := json.Unmarshal(body, &decoded); err != nil {
		t.Fatalf("decoding %s: %v", body, err)
	}
	return decoded
}

// request sends a request as an API client does and checks the answer against Polar's OpenAPI document.
func (b *testBundle) request(method, path, body string) (int, document) {
	b.t.Helper()

	status, _, answer := b.raw(method, path, body, nil)
	checkAnswer(b.t, method, path, status, answer)
	if len(answer) == 0 || answer[0] != '{' {
		return status, nil
	}
	return status, decode(b.t, answer)
}

// raw sends a request and checks nothing.
func (b *testBundle) raw(method, path, body string, header map[string]string) (int, http.Header, []byte) {
	b.t.Helper()

	request, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatalf("building a request: %v", err)
	}
	request.Header.Set("Authorization", "Bearer polar_oat_test")
	request.Header.Set("Polar-Version", "2026-10")
	request.Header.Set("Content-Type", "application/json")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatalf("reading the answer: %v", err)
	}
	return response.StatusCode, response.Header, answer
}

// expect is request for those who know the status.
func (b *testBundle) expect(status int, method, path, body string) document {
	b.t.Helper()

	got, answer := b.request(method, path, body)
	if got != status {
		b.t.Fatalf("%s %s answered %d, want %d: %v", method, path, got, status, answer)
	}
	return answer
}

// checkoutOf creates a session of a product; extra is put into the body.
func (b *testBundle) checkoutOf(productID, extra string) document {
	b.t.Helper()

	body := `{"products":["` + productID + `"]`
	if extra != "" {
		body += "," + extra
	}
	return b.expect(http.StatusCreated, http.MethodPost, "/v1/checkouts/", body+"}")
}

func (b *testBundle) checkoutNow(id string) document {
	b.t.Helper()

	return b.expect(http.StatusOK, http.MethodGet, "/v1/checkouts/"+id, "")
}

func (b *testBundle) customerNow(id string) document {
	b.t.Helper()

	return b.expect(http.StatusOK, http.MethodGet, "/v1/customers/"+id, "")
}

func (b *testBundle) customer(body string) document {
	b.t.Helper()

	return b.expect(http.StatusCreated, http.MethodPost, "/v1/customers/", body)
}

func (b *testBundle) must(err error) {
	b.t.Helper()

	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *testBundle) context() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

// idle waits until everything was sent and returns the types that arrived, in order.
func (b *testBundle) idle() []string {
	b.t.Helper()

	b.must(b.WaitIdle(b.context()))
	return b.receiver.types()
}

// lastOf returns the data of the newest event of a type.
func (b *testBundle) lastOf(eventType string) document {
	b.t.Helper()

	events := b.Events()
	for _, ev := range slices.Backward(events) {
		if ev.Type == eventType {
			return decode(b.t, ev.Payload).object("data")
		}
	}
	b.t.Fatalf("there is no event %s", eventType)
	return nil
}

// received is one delivery that reached the receiver.
type received struct {
	header http.Header
	body   []byte
	id     string
	kind   string
}

// receiver is an endpoint. It checks every payload against Polar's OpenAPI document.
type receiver struct {
	server *httptest.Server

	mu         sync.Mutex
	deliveries []received
	answer     func(n int, r received) int // decides the status of the n-th delivery, from 1
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()

	r := &receiver{}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return // the fake was closed meanwhile
		}
		delivery := received{header: request.Header, body: body, id: request.Header.Get("Webhook-Id")}
		var envelope struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(body, &envelope) == nil && envelope.Type != "" {
			delivery.kind = envelope.Type
			checkPayload(t, envelope.Type, body)
		}
		r.mu.Lock()
		r.deliveries = append(r.deliveries, delivery)
		status := http.StatusAccepted
		if r.answer != nil {
			status = r.answer(len(r.deliveries), delivery)
		}
		r.mu.Unlock()
		w.WriteHeader(status)
		_, _ = w.Write(bytes.Repeat([]byte("ä"), 3000))
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) answering(answer func(n int, r received) int) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.answer = answer
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()

	return append([]received(nil), r.deliveries...)
}

func (r *receiver) types() []string {
	var types []string
	for _, delivery := range r.all() {
		types = append(types, delivery.kind)
	}
	return types
}

func count(types []string, wanted string) int {
	n := 0
	for _, one := range types {
		if one == wanted {
			n++
		}
	}
	return n
}
