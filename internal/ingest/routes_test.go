package ingest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
)

func TestRoutesAnswerTheirMethodsAlone(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{http.MethodGet, ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{http.MethodHead, ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{http.MethodPut, ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{http.MethodPatch, ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{http.MethodDelete, ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{http.MethodOptions, ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{"post", ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{"BREW", ingest.Route, http.StatusMethodNotAllowed, "POST"},
		{http.MethodPost, "/livez", http.StatusMethodNotAllowed, "GET, HEAD"},
		{http.MethodPost, "/readyz", http.StatusMethodNotAllowed, "GET, HEAD"},
		{http.MethodGet, "/livez", http.StatusOK, ""},
		{http.MethodGet, "/readyz", http.StatusOK, ""},
		{http.MethodHead, "/livez", http.StatusOK, ""},
		{http.MethodHead, "/readyz", http.StatusOK, ""},
		{http.MethodGet, "/", http.StatusNotFound, ""},
		{http.MethodPost, "/", http.StatusNotFound, ""},
		{http.MethodPost, "/webhooks", http.StatusNotFound, ""},
		{http.MethodPost, "/webhooks/", http.StatusNotFound, ""},
		{http.MethodPost, "/webhooks/polar/", http.StatusNotFound, ""},
		{http.MethodPost, "/webhooks/Polar", http.StatusNotFound, ""},
		{http.MethodPost, "//webhooks/polar", http.StatusNotFound, ""},
		{http.MethodGet, "/a/../livez", http.StatusNotFound, ""},
		{http.MethodGet, "/metrics", http.StatusNotFound, ""},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound, ""},
	} {
		request := e.request(http.Header{}, http.NoBody)
		request.Method, request.URL.Path = c.method, c.path
		got := e.send(request)
		if got.status != c.status || got.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, Allow %q", c.method, c.path, got.status, got.header.Get("Allow"), c.status, c.allow)
		}
	}
}

func TestAQueryChangesNothing(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	request := e.request(sign(t, standardSecret, newID(), order, polar.DerivationAuto), strings.NewReader(order))
	request.URL.RawQuery = url.Values{"tenant": {"a;b"}}.Encode() + "&c;d"
	e.send(request).want(t, http.StatusAccepted)
}

func TestManyDeliveriesComeOverOneConnection(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	conn := e.dial()
	good := head(t, sign(t, standardSecret, newID(), order, polar.DerivationAuto), len(order)) + order
	bad := head(t, http.Header{}, len(order)) + order
	conn.write(good + bad + good)
	for i, want := range []string{"202", "401", "202"} {
		if got := conn.status(); got != want {
			t.Errorf("answer %d is %q, want %s", i+1, got, want)
		}
	}
}
