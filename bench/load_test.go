package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func served(t *testing.T, handler http.HandlerFunc, connections int) *load {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	l, err := dial(t.Context(), strings.TrimPrefix(server.URL, "http://"), connections)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

func requestsOf(t *testing.T, n int) []request {
	t.Helper()
	author := newAuthor(700)
	requests, err := author.signed(author.newCustomers(0, n), n)
	if err != nil {
		t.Fatal(err)
	}
	return requests
}

func TestAtAFixedRateAStallIsChargedToAllThatItKeptWaiting(t *testing.T) {
	t.Parallel()

	const stall = 200 * time.Millisecond
	var once sync.Once
	l := served(t, func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { <-time.After(stall) })
		w.WriteHeader(http.StatusAccepted)
	}, 1)
	// All 20 are due within 20 ms, and the first holds the only connection for 200.
	o, err := l.open(t.Context(), requestsOf(t, 20), 1000, hooks{})
	if err != nil {
		t.Fatal(err)
	}
	for i, latency := range o.latencies {
		if least := stall - 20*time.Millisecond; latency < least {
			t.Errorf("delivery %d took %s, want %s at least", i, latency, least)
		}
	}
	if o.acknowledged != 20 || len(o.latencies) != 20 {
		t.Errorf("%d acknowledged with %d latencies, want 20", o.acknowledged, len(o.latencies))
	}
}

func TestARefusalFailsTheRunAndSaysWhy(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"503": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no room", http.StatusServiceUnavailable) }, "503 Service Unavailable: no room"},
		"cut": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := served(t, test.handler, 4).closed(t.Context(), requestsOf(t, 8), 0, hooks{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("posting ended with %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestEachRequestIsPostedOnceAndVerifies(t *testing.T) {
	t.Parallel()

	s, err := newVerifyOnly(orders{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	l := served(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Header.Get("Webhook-Id")]++
		mu.Unlock()
		s.server.Handler.ServeHTTP(w, r)
	}, 8)
	o, err := l.closed(t.Context(), requestsOf(t, 200), 0, hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if o.acknowledged != 200 || len(seen) != 200 {
		t.Errorf("%d acknowledged of %d ids, want 200 of 200", o.acknowledged, len(seen))
	}
}

func TestEventsHaveTheSizeWantedAndAreConsistent(t *testing.T) {
	t.Parallel()

	for _, size := range []int{700, 2000, 8000} {
		for _, e := range newAuthor(size).newCustomers(0, 50) {
			if len(e.body) != size {
				t.Fatalf("a body of %d bytes, want %d: %s", len(e.body), size, e.body)
			}
		}
	}
	events := newAuthor(0).purchases(3 * eventsPerBuyer * 32)
	kinds, ids := map[string]int{}, map[string]bool{}
	for i, e := range events {
		kinds[e.kind]++
		ids[e.objectID] = true
		if i > 0 && !e.at.After(events[i-1].at) {
			t.Fatalf("event %d is of %s, the one before of %s", i, e.at, events[i-1].at)
		}
	}
	if buyers := 3 * 32; kinds["checkout.updated"] != 2*buyers || kinds["order.paid"] != buyers || len(ids) != 4*buyers {
		t.Errorf("%d buyers made events %v of %d objects, want four objects each", buyers, kinds, len(ids))
	}
}
