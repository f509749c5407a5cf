package jobs_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
)

const listDeliveries = "/v1/webhooks/deliveries"

// period is what a request for deliveries is bounded by. A request without either end fails the test.
func period(t *testing.T, r *http.Request) (from, until time.Time) {
	t.Helper()
	query := r.URL.Query()
	from, fromErr := time.Parse(time.RFC3339Nano, query.Get("start_timestamp"))
	until, untilErr := time.Parse(time.RFC3339Nano, query.Get("end_timestamp"))
	if err := errors.Join(fromErr, untilErr); err != nil {
		t.Errorf("deliveries are asked for without bounds: %s", r.URL.RawQuery)
	}
	if length := until.Sub(from); length <= 0 || length > 24*time.Hour+2*time.Second {
		t.Errorf("deliveries of %s are asked for at once", length)
	}
	return from, until
}

func (e *endpointWorld) search() {
	e.t.Helper()
	if err := e.runner.SearchGaps(e.t.Context(), 1); err != nil {
		e.t.Fatal(err)
	}
}

func (e *endpointWorld) gaps() store.GapFill {
	e.t.Helper()
	gaps, err := e.store.GetGapFill(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return gaps
}

// filled lists what became of events that never arrived.
func (e *endpointWorld) filled() map[string]int {
	e.t.Helper()
	counts := map[string]int{}
	for _, how := range all[string](e.world, "select how from polar.gap_filled") {
		counts[how]++
	}
	return counts
}

func newGapWorld(t *testing.T) (*endpointWorld, uuid.UUID) {
	t.Helper()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	return e, e.add(polarfake.Endpoint{})
}

func TestEventsThatNeverArrivedAreStoredAsIfTheyHad(t *testing.T) {
	t.Parallel()
	e, id := newGapWorld(t)
	e.customers("early", 1) // these arrive
	e.ingestIsDown()
	e.customers("lost", 8) // Polar tries ten of their events ten times each before it disables the endpoint
	e.clock.advance(time.Minute)
	if !e.disabled(id) {
		t.Fatal("the endpoint is not disabled")
	}
	e.asked.take("")
	e.search()

	requests := e.asked.take(listDeliveries)
	var pages []string
	for _, r := range requests {
		period(t, r)
		query := r.URL.Query()
		pages = append(pages, query.Get("page"))
		if query.Get("succeeded") != "false" || query.Get("endpoint_id") != id.String() || query.Get("limit") != "100" {
			t.Errorf("asked for %s", r.URL.RawQuery)
		}
	}
	if !slices.Contains(pages, "2") {
		t.Errorf("pages %v were read: the failed deliveries fill more than one", pages)
	}
	attempted := map[string]string{}
	for _, ev := range e.fake.Events() {
		if ev.Deliveries > 0 {
			attempted[ev.ID] = string(ev.Payload)
		}
	}
	stored := all[string](e.world, "select webhook_id || ' ' || body from polar.event_log")
	expect(t, "events stored", len(stored), len(attempted))
	for _, line := range stored {
		webhookID, body, _ := strings.Cut(line, " ")
		if attempted[webhookID] != body {
			t.Errorf("event %s has the body %s, want that of its deliveries, byte for byte: %s", webhookID, body, attempted[webhookID])
		}
	}
	expect(t, "events noted as missed", e.filled()[store.GapStored], len(attempted)-eventsEach)
	if until := e.clock.now().Sub(*e.gaps().FilledUntil); until < time.Hour || until > time.Hour+time.Minute {
		t.Errorf("the mark is %s behind Polar's clock, want the hour that is searched again", until)
	}

	e.search()
	expect(t, "events stored by a second search", one[int64](e.world, "select count(*) from polar.event_log"), int64(len(attempted)))
	e.startWorker()
	e.settle()
	expect(t, "events not applied", len(all[string](e.world, "select type from polar.event where state <> 'applied'")), 0)
	if customers := one[int64](e.world, "select count(*) from polar.customer where email like 'lost%'"); customers < 5 {
		t.Errorf("%d of the lost customers are mirrored", customers)
	}
}

func TestASearchGoesOnWhereTheLastOneEnded(t *testing.T) {
	t.Parallel()
	e, _ := newGapWorld(t)
	e.search()
	first := e.asked.take(listDeliveries)
	expect(t, "periods of the first search", len(first), 7) // a week, a day each
	from, _ := period(t, first[0])
	_, until := period(t, first[6])
	if reach := until.Sub(from); reach < 7*24*time.Hour || reach > 7*24*time.Hour+time.Minute {
		t.Errorf("the first search spans %s, want a week", reach)
	}
	for i := range 6 {
		_, end := period(t, first[i])
		if next, _ := period(t, first[i+1]); next.After(end) {
			t.Errorf("between %s and %s nothing is searched", end, next)
		}
	}

	mark := *e.gaps().FilledUntil
	e.clock.advance(30 * time.Minute)
	if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Path: listDeliveries, Status: http.StatusForbidden}); err != nil {
		t.Fatal(err)
	}
	e.search()
	if gaps := e.gaps(); gaps.Error == nil || !strings.Contains(*gaps.Error, "webhooks:read") || !gaps.FilledUntil.Equal(mark) {
		t.Errorf("without the scope: %+v, want it named and the mark where it was, %s", gaps, mark)
	}
	e.search() // with the scope again
	gaps := e.gaps()
	if moved := gaps.FilledUntil.Sub(mark); gaps.Error != nil || moved < 29*time.Minute || moved > 31*time.Minute {
		t.Errorf("half an hour later: %+v, moved by %s", gaps, moved)
	}
	second := e.asked.take(listDeliveries)
	from, _ = period(t, second[len(second)-1])
	if back := mark.Sub(from); back < 0 || back > 2*time.Second {
		t.Errorf("the next search begins %s before the mark, want at it", back)
	}
}

func TestASearchThatMustWaitOrFailsLeavesTheMark(t *testing.T) {
	t.Parallel()
	e, _ := newGapWorld(t)
	e.search()
	mark := *e.gaps().FilledUntil
	e.clock.advance(time.Hour)
	for name, tt := range map[string]struct {
		fault   polarfake.Fault
		attempt int
		want    func(error) bool
		noted   bool
	}{
		"asked to wait": {polarfake.Fault{Kind: polarfake.FaultRateLimit, RetryAfter: polarfake.Duration(9 * time.Second)}, 5, func(err error) bool {
			snooze, ok := errors.AsType[*river.JobSnoozeError](err)
			return ok && snooze.Duration == 9*time.Second
		}, false},
		"refused once": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 404}, 1, polar.IsNotFound, false},
		"refused for the last time": {polarfake.Fault{Kind: polarfake.FaultStatus, Status: 404}, 5, func(err error) bool {
			return err == nil
		}, true},
	} {
		tt.fault.Path = listDeliveries
		if err := e.fake.Inject(tt.fault); err != nil {
			t.Fatal(err)
		}
		if err := e.runner.SearchGaps(t.Context(), tt.attempt); !tt.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		gaps := e.gaps()
		if !gaps.FilledUntil.Equal(mark) || (gaps.Error != nil) != tt.noted {
			t.Errorf("%s: %+v, want the mark at %s", name, gaps, mark)
		}
		e.exec("update polar.gap_fill set error = null")
		e.exec("update polar.api_budget set blocked_until = null") // what Polar asked for is for everyone
	}
}

func TestAPeriodThatPolarCannotAnswerForIsHalved(t *testing.T) {
	t.Parallel()
	e, _ := newGapWorld(t)
	e.ingestIsDown()
	e.clock.advance(-50 * time.Hour)
	for i := range 3 { // in three days; too few at a time to disable the endpoint
		e.customers(fmt.Sprint("day", i), 1)
		e.clock.advance(25 * time.Hour)
	}
	e.asked.answerWith(func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
		if r.URL.Path == listDeliveries {
			if from, until := period(t, r); until.Sub(from) > 7*time.Hour {
				w.WriteHeader(http.StatusGatewayTimeout)
				return
			}
		}
		fake.ServeHTTP(w, r)
	})
	var told []int // how many were stored, each time
	gaps, err := e.runner.FillGaps(t.Context(), e.clock.now().Add(-80*time.Hour), func(g jobs.Gaps) { told = append(told, g.Stored) })
	if err != nil || gaps.Stored != 3*eventsEach {
		t.Errorf("%+v, %v; want all %d events stored", gaps, err, 3*eventsEach)
	}
	if len(told) < 2 || !slices.IsSorted(told) || told[len(told)-1] != gaps.Stored {
		t.Errorf("whoever waits is told of %v stored events, in the end there are %d", told, gaps.Stored)
	}
	failed := 0
	for _, r := range e.asked.take(listDeliveries) {
		if from, until := period(t, r); until.Sub(from) > 7*time.Hour {
			failed++
		}
	}
	expect(t, "periods too long", failed, 2) // of 24 and 12 hours

	e.asked.answerWith(func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
		if r.URL.Path == listDeliveries {
			w.WriteHeader(http.StatusGatewayTimeout)
			return
		}
		fake.ServeHTTP(w, r)
	})
	if _, err := e.runner.FillGaps(t.Context(), e.clock.now().Add(-time.Hour), nil); !polar.OutcomeUnknown(err) {
		t.Errorf("a Polar that never answers: %v", err)
	}
	if n := len(e.asked.take(listDeliveries)); n != 3 { // of 60, 30 and 15 minutes
		t.Errorf("a Polar that never answers is asked %d times", n)
	}
}

func TestAnEventWithoutItsBodyIsRedeliveredOnce(t *testing.T) {
	t.Parallel()
	e, _ := newGapWorld(t)
	e.ingestIsDown()
	e.customers("lost", 1)
	e.ingestHas(secret)
	var archived string
	for _, ev := range e.fake.Events() {
		if ev.Type == polar.EventCustomerCreated {
			archived = ev.ID
		}
	}
	e.asked.answerWith(rewrite(func(item map[string]any) {
		if ev, ok := item["webhook_event"].(map[string]any); ok {
			ev["payload"], ev["is_archived"] = nil, ev["id"] == archived
		}
	}))
	for range 2 {
		e.search()
		e.idle()
	}
	var redelivered []string
	for _, r := range e.asked.requests {
		if strings.HasSuffix(r.URL.Path, "/redeliver") {
			redelivered = append(redelivered, r.URL.Path)
		}
	}
	expect(t, "redeliveries", len(redelivered), eventsEach-1)
	expect(t, "what became of them", fmt.Sprint(e.filled()), "map[redelivered:2 unusable:1]")
	expect(t, "events that arrived", one[int64](e.world, "select count(*) from polar.event_log where type <> 'customer.created'"), eventsEach-1)
}

func TestWhatCannotBeRedeliveredNowIsTriedAgain(t *testing.T) {
	t.Parallel()
	e, id := newGapWorld(t)
	e.search()
	mark := *e.gaps().FilledUntil
	e.clock.advance(time.Hour)
	e.ingestIsDown()
	e.customers("lost", 1)
	e.ingestHas(secret)
	e.asked.answerWith(rewrite(func(item map[string]any) {
		if ev, ok := item["webhook_event"].(map[string]any); ok {
			ev["payload"] = nil
		}
	}))
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	e.search()
	e.change(id, polar.EndpointUpdate{Enabled: new(true)})
	if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Method: http.MethodPost, Status: http.StatusForbidden, Count: eventsEach}); err != nil {
		t.Fatal(err)
	}
	e.search()
	if gaps := e.gaps(); !gaps.FilledUntil.Equal(mark) || gaps.Error == nil || !strings.Contains(*gaps.Error, "webhooks:write") {
		t.Errorf("a disabled endpoint and a missing scope: %+v, want the mark at %s", gaps, mark)
	}
	expect(t, "events dealt with", len(e.filled()), 0)
	e.search()
	e.idle()
	expect(t, "events that arrived", one[int64](e.world, "select count(*) from polar.event_log"), eventsEach)
	if gaps := e.gaps(); gaps.Error != nil || !gaps.FilledUntil.After(mark) {
		t.Errorf("in the end: %+v", gaps)
	}
}

func TestChatMessagesAreNotRedelivered(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	e.add(polarfake.Endpoint{Format: "slack"})
	e.customers("lost", 1)
	for range 2 {
		e.search()
	}
	expect(t, "what became of them", fmt.Sprint(e.filled()), "map[unusable:3]")
	expect(t, "lines in the log", len(e.log.lines("Slack message")), eventsEach)
	if n := e.fake.Requests()["POST /v1/webhooks/events/{id}/redeliver"]; n > 0 {
		t.Errorf("redelivered %d times: each failure brings the endpoint nearer to being disabled", n)
	}
}

func TestWithoutAnEndpointOfOursNoGapsAreSearched(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{EndpointURL: "https://shop.example/webhooks/polar"})
	e.add(polarfake.Endpoint{})
	e.search()
	if gaps := e.gaps(); gaps.Error == nil || !strings.Contains(*gaps.Error, "endpoint check") || gaps.FilledUntil != nil {
		t.Errorf("%+v, want an error that says what to do", gaps)
	}
	e.search()
	expect(t, "lines in the log", len(e.log.lines("searching Polar's failed deliveries failed")), 1)
	if _, err := e.runner.FillGaps(t.Context(), time.Time{}, nil); err == nil {
		t.Error("a person who asks is not told")
	}
}

func TestAPersonWhoAsksWaitsInsteadOfFailing(t *testing.T) {
	t.Parallel()
	e, _ := newGapWorld(t)
	for _, path := range []string{listEndpoints, listDeliveries} {
		if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultRateLimit, Path: path, RetryAfter: polarfake.Duration(time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	gaps, err := e.runner.FillGaps(t.Context(), time.Now().Add(-2*time.Hour), nil)
	if err != nil || gaps.Until.Sub(gaps.From).Round(time.Minute) != 2*time.Hour {
		t.Errorf("%+v, %v", gaps, err)
	}
	if _, err := e.store.GetGapFill(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a search of two hours leaves a mark, so that the week before is never searched: %v", err)
	}
	e.search()
	mark := *e.gaps().FilledUntil
	e.clock.advance(3 * time.Hour)
	if gaps, err = e.runner.FillGaps(t.Context(), mark.Add(-200*24*time.Hour), nil); err != nil || gaps.Until.Sub(gaps.From) != 90*24*time.Hour {
		t.Errorf("%+v, %v; want the 90 days that Polar keeps events", gaps, err)
	}
	if moved := e.gaps().FilledUntil.Sub(mark); moved < 3*time.Hour-time.Minute || moved > 3*time.Hour+time.Minute {
		t.Errorf("a search that joins the last one moves the mark by %s, want 3 h", moved)
	}
}
