package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/mirrorcheck"
)

// sound is the evidence of a small run in which everything went well: an event that was refused, then taken, a paid and a failed
// request, two links, one of which changed its basis, and a fault with a fail-over.
func sound() *evidence {
	seconds := func(s float64) int64 { return int64(s * 1000) }
	paid, failed, checkout, why := "purchase_1", "purchase_2", "k1", "422: the product is archived"
	e := &evidence{
		Plan: schedule{{Number: 1, At: 10 * time.Second, For: 5 * time.Second, Kind: faultKill, Targets: []string{"ingest1"}}},
		Sent: []string{"evt_1", "evt_2", "evt_3"},
		History: []entry{
			{Kind: kindPrimary, Host: "db1", Timeline: 1},
			{At: seconds(1), Kind: kindAsked, Key: paid},
			{At: seconds(2), Kind: kindAcknowledged, Key: paid, Request: "r1"},
			{At: seconds(3), Kind: kindAsked, Key: failed},
			{At: seconds(4), Kind: kindAcknowledged, Key: failed, Request: "r2"},
			{At: seconds(5), Kind: kindDelivery, Host: "ingest1", ID: "evt_1", Status: 202, Took: 12},
			{At: seconds(10), Kind: kindFault, Fault: 1, What: "kill ingest1"},
			{At: seconds(11), Kind: kindDelivery, Host: "ingest1", ID: "evt_2", What: "connection refused", Took: 1},
			{At: seconds(12), Kind: kindDelivery, Host: "ingest2", ID: "evt_2", Status: 503, Told: true, Took: 7000},
			{At: seconds(13), Kind: kindPrimary, Host: "db2", Timeline: 2},
			{At: seconds(13), Kind: kindAlone},
			{At: seconds(14), Kind: kindWhole},
			{At: seconds(15), Kind: kindHealed, Fault: 1, What: "kill ingest1"},
			{At: seconds(16), Kind: kindDelivery, Host: "ingest2", ID: "evt_2", Status: 202, Took: 9},
			{At: seconds(17), Kind: kindDelivery, Host: "ingest1", ID: "evt_2", Status: 202, Took: 9},
			{At: seconds(17), Kind: kindOpened, Key: paid, Took: 300},
			{At: seconds(18), Kind: kindMemory, Host: "ingest1", Bytes: 30 << 20},
			{At: seconds(20), Kind: kindQuiet},
		},
		Events: []storedEvent{{ID: "evt_1", State: "applied"}, {ID: "evt_2", State: "applied"}},
		Requests: []mirrorcheck.Request{
			{ID: "r1", Key: &paid, State: "succeeded", CheckoutID: &checkout}, {ID: "r2", Key: &failed, State: "failed", Error: &why},
		},
		Sessions:  []mirrorcheck.Session{{ID: "k1", Status: "succeeded", Metadata: map[string]any{"truenorth_request": "r1"}}},
		Links:     []link{{"c1", "usr_1", "checkout", "k1"}, {"c2", "usr_2", "external_id", ""}},
		Customers: []customer{{"c1", "usr_1"}, {"c2", "usr_2"}},
		Paid:      []paidCheckout{{"k1", "c1", "usr_1"}},
		LinkHistory: []pastLink{
			{link{"c1", "usr_1", "external_id", ""}, true, "basis_changed"},
			{link{"c1", "usr_1", "checkout", ""}, false, ""},
			{link{"c2", "usr_2", "external_id", ""}, false, ""},
		},
		Told: []string{"r1"},
	}
	for what := range forgeries {
		e.History = append(e.History, entry{At: seconds(19), Kind: kindForged, Host: "ingest1", What: what, Status: 401})
	}
	e.History = append(e.History, entry{At: seconds(19), Kind: kindForged, Host: "worker1", What: "no key", Status: 401})
	return e
}

func TestASoundRunBreaksNoPromise(t *testing.T) {
	t.Parallel()

	v := judge(sound())
	for _, p := range v.Promises {
		if len(p.Broken) > 0 {
			t.Errorf("%s: %q", p.Text, p.Broken)
		}
	}
	if v.broken() || len(v.Promises) != len(promises) {
		t.Errorf("%d promises are judged, broken: %t", len(v.Promises), v.broken())
	}
	n := v.Counts
	if n.Deliveries != 5 || n.Accepted != 3 || n.Distinct != 2 || n.Refused != 1 || n.Unanswered != 1 || n.SlowestMS != 7000 || n.Requests != 2 ||
		n.Failovers != 1 || n.Links != 2 || n.Forged != len(forgeries)+1 || n.PeakMemoryMB["ingest1"] != 30 {
		t.Errorf("counts are %+v", n)
	}
	if len(v.Outages) != 1 {
		t.Fatalf("outages are %+v", v.Outages)
	}
	if o := v.Outages[0]; o.Fault != 1 || o.From != 10 || o.To != 15 || o.Silence != 6 || o.Whole != 4 || o.Back != 2 || o.Pages != 3 || o.Primary != "db2" || o.Changed != 3 {
		t.Errorf("the outage is %+v", o)
	}
}

// change changes the first entry that passes.
func change(t *testing.T, e *evidence, pass func(entry) bool, how func(*entry)) {
	t.Helper()
	at := slices.IndexFunc(e.History, pass)
	if at < 0 {
		t.Fatal("no such entry")
	}
	how(&e.History[at])
}

func TestEveryWayToBreakAPromiseIsFound(t *testing.T) {
	t.Parallel()

	delivered := func(id string, status int) func(entry) bool {
		return func(seen entry) bool { return seen.Kind == kindDelivery && seen.ID == id && seen.Status == status }
	}
	for name, c := range map[string]struct {
		harm    func(t *testing.T, e *evidence)
		promise int // from 1
		words   string
	}{
		"an acknowledged event is lost": {func(_ *testing.T, e *evidence) { e.Events = e.Events[:1] }, 1, "evt_2 was answered with 202 by ingest2 at 16.0 s, and is not stored"},
		"an acknowledged event hangs":   {func(_ *testing.T, e *evidence) { e.Events[1].State = "received" }, 1, "is received"},
		"an acknowledged event failed":  {func(_ *testing.T, e *evidence) { e.Events[1] = storedEvent{"evt_2", "failed", "why"} }, 1, "is failed: why"},
		"an event is stored twice":      {func(_ *testing.T, e *evidence) { e.Events = append(e.Events, e.Events[0]) }, 1, "stored twice"},
		"an event was never sent":       {func(_ *testing.T, e *evidence) { e.Sent = e.Sent[:1] }, 1, "Polar never sent it"},
		"a payment is told twice":       {func(_ *testing.T, e *evidence) { e.Told = append(e.Told, "r1") }, 1, "told 2 times"},
		"nothing was acknowledged": {func(_ *testing.T, e *evidence) {
			e.History = slices.DeleteFunc(e.History, entry.accepted)
		}, 1, "nothing is proved"},

		"an acknowledged request is lost": {func(_ *testing.T, e *evidence) { e.Requests = e.Requests[:1] }, 2, "request r2 with key purchase_2 was acknowledged at 4.0 s, and is not there"},
		"a request hangs":                 {func(_ *testing.T, e *evidence) { e.Requests[1].State = "creating" }, 2, "hangs: it is creating"},
		"a request has another key":       {func(_ *testing.T, e *evidence) { e.Requests[1].Key = e.Requests[0].Key }, 2, "bears another"},
		"a request is never acknowledged": {func(_ *testing.T, e *evidence) {
			e.History = append(e.History, entry{Kind: kindAsked, Key: "purchase_3"})
		}, 2, "never acknowledged"},
		"a key has two requests": {func(_ *testing.T, e *evidence) {
			twin := e.Requests[0]
			twin.ID = "r3"
			e.Requests = append(e.Requests, twin)
		}, 2, "has 2 live requests"},
		"a request has two live sessions": {func(_ *testing.T, e *evidence) {
			twin := e.Sessions[0]
			twin.ID, twin.Status = "k2", "open"
			e.Sessions = append(e.Sessions, twin)
		}, 2, "request r1 has 2 live sessions"},
		"a request failed in silence": {func(_ *testing.T, e *evidence) { e.Requests[1].Error = nil }, 2, "does not say why"},
		"a session is not known":      {func(_ *testing.T, e *evidence) { e.Requests[0].CheckoutID = nil }, 2, "with session none"},
		"no request was acknowledged": {func(_ *testing.T, e *evidence) {
			e.History = slices.DeleteFunc(e.History, func(seen entry) bool { return seen.Kind == kindAcknowledged || seen.Kind == kindAsked })
		}, 2, "nothing is proved"},

		"the mirror differs":               {func(_ *testing.T, e *evidence) { e.Differences = []string{"customer c1: Polar has it"} }, 3, "customer c1"},
		"a second comparison finds a bit":  {func(_ *testing.T, e *evidence) { e.Second.Drifted = 1 }, 3, "second comparison found 1"},
		"a second comparison finds little": {func(_ *testing.T, e *evidence) { e.Second.Benign = 1 }, 3, "1 benign"},
		"a comparison failed":              {func(_ *testing.T, e *evidence) { e.Second.Failed = "timeout" }, 3, "the second comparison failed: timeout"},
		"it never became quiet": {func(_ *testing.T, e *evidence) {
			e.History = slices.DeleteFunc(e.History, func(seen entry) bool { return seen.Kind == kindQuiet })
		}, 3, "not everything was worked"},

		"a link has another's external id": {func(_ *testing.T, e *evidence) { e.Customers[1].ExternalID = "usr_9" }, 4, `by an external id, which is "usr_9"`},
		"a link has another's checkout":    {func(_ *testing.T, e *evidence) { e.Paid[0].User = "usr_9" }, 4, "which they did not pay"},
		"a link's checkout was not paid":   {func(_ *testing.T, e *evidence) { e.Paid = nil }, 4, "which they did not pay"},
		"a link's customer is gone":        {func(_ *testing.T, e *evidence) { e.Customers = e.Customers[1:] }, 4, "does not exist"},
		"a person is said to have linked":  {func(_ *testing.T, e *evidence) { e.Links[1].Basis = "manual"; e.LinkHistory[2].Basis = "manual" }, 4, "no person did that"},
		"a link was changed silently":      {func(_ *testing.T, e *evidence) { e.LinkHistory[2].User = "usr_9" }, 4, "its history says usr_9"},
		"a basis was changed silently":     {func(_ *testing.T, e *evidence) { e.LinkHistory = e.LinkHistory[2:] }, 4, "its history says  by"},
		"a link went silently":             {func(_ *testing.T, e *evidence) { e.Links = e.Links[:1] }, 4, "in the history, and is not linked"},
		"two links at once":                {func(_ *testing.T, e *evidence) { e.LinkHistory[0].Ended = false }, 4, "had not ended"},
		"a link ended without a reason":    {func(_ *testing.T, e *evidence) { e.LinkHistory[0].Reason = "" }, 4, "without a reason"},
		"nobody is linked":                 {func(_ *testing.T, e *evidence) { e.Links, e.LinkHistory = nil, nil }, 4, "nothing is proved"},

		"a valid delivery is refused for good": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_1", 202), func(seen *entry) { seen.Status = 401 })
		}, 5, "answered a valid delivery with 401"},
		"an error of ours": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_2", 503), func(seen *entry) { seen.Status = 500 })
		}, 5, "answered a valid delivery with 500"},
		"a 503 does not say when": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_2", 503), func(seen *entry) { seen.Told = false })
		}, 5, "without saying when"},
		"an answer comes late": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_2", 503), func(seen *entry) { seen.Took = 9000 })
		}, 5, "took 9000 ms"},
		"no answer from a program that lives": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_2", 0), func(seen *entry) { seen.Host = "ingest2" })
		}, 5, "ingest2 gave no answer"},
		"no answer while the sender waits": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_2", 503), func(seen *entry) { seen.Status, seen.What, seen.Took = 0, senderLeft, 9900 })
		}, 5, "ingest2 gave no answer"},
		"no answer long before the fault": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, delivered("evt_1", 202), func(seen *entry) { seen.Status = 0 })
		}, 5, "ingest1 gave no answer"},
		"a program ended by itself": {func(_ *testing.T, e *evidence) {
			e.History = append(e.History, entry{Kind: kindEnded, Host: "worker1", What: "exit status 2"})
		}, 5, "worker1 ended by itself"},
		"a program holds too much": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, func(seen entry) bool { return seen.Kind == kindMemory }, func(seen *entry) { seen.Bytes = 300 << 20 })
		}, 5, "held 300 MiB"},
		"deliveries do not come back": {func(_ *testing.T, e *evidence) {
			for i := range e.History {
				if e.History[i].accepted() && e.History[i].At > 15_000 {
					e.History[i].At += 60_000
				}
			}
		}, 5, "nothing was acknowledged for 62.0 s"},
		"checkouts do not come back": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, func(seen entry) bool { return seen.Kind == kindOpened }, func(seen *entry) { seen.At += 60_000 })
		}, 5, "no checkout had its page for 63.0 s"},

		"a forgery is taken": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, func(seen entry) bool { return seen.What == "another body" }, func(seen *entry) { seen.Status = 202 })
		}, 6, "answered 202 to a request with another body"},
		"a request without a key is served": {func(t *testing.T, e *evidence) {
			t.Helper()
			change(t, e, func(seen entry) bool { return seen.What == "no key" }, func(seen *entry) { seen.Status = 200 })
		}, 6, "answered 200 to a request with no key"},
		"a forgery is stored": {func(_ *testing.T, e *evidence) { e.Forged = []string{"forged_1"} }, 6, "forged_1 is stored"},
		"nothing was forged": {func(_ *testing.T, e *evidence) {
			e.History = slices.DeleteFunc(e.History, func(seen entry) bool { return seen.Kind == kindForged })
		}, 6, "nothing is proved"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := sound()
			c.harm(t, e)
			v := judge(e)
			broken := v.Promises[c.promise-1].Broken
			if !slices.ContainsFunc(broken, func(why string) bool { return strings.Contains(why, c.words) }) {
				t.Errorf("promise %d is charged with %q, want something with %q", c.promise, broken, c.words)
			}
		})
	}
}

func TestAnIngestWhoseClockIsWrongMayNotKnowASignatureAndNoOther(t *testing.T) {
	t.Parallel()

	for host, want := range map[string]bool{"ingest1": false, "ingest2": true} {
		e := sound()
		e.History = append(e.History,
			entry{At: 30_000, Kind: kindFault, Fault: 2, What: "step ingest1 +1h"},
			entry{At: 31_000, Kind: kindDelivery, Host: host, ID: "evt_3", Status: 401},
			entry{At: 40_000, Kind: kindHealed, Fault: 2, What: "step ingest1 +1h"},
			entry{At: 41_000, Kind: kindDelivery, Host: "ingest2", ID: "evt_1", Status: 202},
			entry{At: 41_000, Kind: kindOpened},
		)
		if broken := judge(e).Promises[4].Broken; len(broken) > 0 != want {
			t.Errorf("%s answers 401 while the clock of ingest1 is wrong: %q", host, broken)
		}
	}
}

func TestARunCanBeJudgedAgainFromItsFolder(t *testing.T) {
	t.Parallel()

	dir, e := t.TempDir(), sound()
	h, err := newHistory(filepath.Join(dir, historyFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, seen := range e.History {
		h.note(seen)
	}
	e.History = h.all()
	if err := errors.Join(h.close(), writeJSON(filepath.Join(dir, evidenceFile), e)); err != nil {
		t.Fatal(err)
	}
	read, err := readEvidence(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(judge(read), judge(e)) || !reflect.DeepEqual(read.History, e.History) {
		t.Errorf("read\n%+v\nwritten\n%+v", read, e)
	}
	if err := os.WriteFile(filepath.Join(dir, historyFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readEvidence(dir); err == nil {
		t.Error("half an entry was read")
	}
}
