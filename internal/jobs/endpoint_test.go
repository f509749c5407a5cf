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
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

const listEndpoints = "/v1/webhooks/endpoints"

func TestEachFaultOfTheEndpointIsFound(t *testing.T) {
	t.Parallel()
	some := []string{polar.EventOrderPaid, polar.EventCustomerCreated}
	rest := slices.DeleteFunc(polar.EventTypes(), func(eventType string) bool { return slices.Contains(some, eventType) })
	off := func(e *endpointWorld, id uuid.UUID) { e.change(id, polar.EndpointUpdate{Enabled: new(false)}) }
	for name, tt := range map[string]struct {
		set   func(e *endpointWorld)
		want  string
		says  string
		noURL bool // INGEST_PUBLIC_URL is not set
	}{
		"well":                        {func(e *endpointWorld) { e.add(polarfake.Endpoint{}) }, "ok", "", false},
		"well, the only one":          {func(e *endpointWorld) { e.add(polarfake.Endpoint{}) }, "ok", "", true},
		"well, though another is not": {func(e *endpointWorld) { off(e, e.add(polarfake.Endpoint{})); e.add(polarfake.Endpoint{}) }, "ok", "", false},
		"well, though others are bad": {func(e *endpointWorld) {
			e.add(polarfake.Endpoint{})
			off(e, e.add(polarfake.Endpoint{URL: "https://other.example/"}))
		}, "ok", "", false},
		"well, beside a chat's": {func(e *endpointWorld) {
			e.add(polarfake.Endpoint{})
			e.add(polarfake.Endpoint{Format: "slack", URL: "https://slack.example/"})
		}, "ok", "", true},
		"well, two share the events": {func(e *endpointWorld) {
			e.add(polarfake.Endpoint{Events: some})
			e.add(polarfake.Endpoint{Events: rest})
		}, "ok", "", false},
		"well, two at one unnamed URL": {func(e *endpointWorld) { e.add(polarfake.Endpoint{}); e.add(polarfake.Endpoint{}) }, "ok", "", true},
		"disabled":                     {func(e *endpointWorld) { off(e, e.add(polarfake.Endpoint{})) }, "dark disabled", "is disabled", false},
		"disabled, the only one":       {func(e *endpointWorld) { off(e, e.add(polarfake.Endpoint{})) }, "dark disabled", "is disabled", true},
		"wrong format":                 {func(e *endpointWorld) { e.add(polarfake.Endpoint{Format: "discord"}) }, "dark wrong_format", `"discord"`, false},
		"wrong format, disabled":       {func(e *endpointWorld) { off(e, e.add(polarfake.Endpoint{Format: "slack"})) }, "dark disabled wrong_format", `"slack"`, false},
		"events missing":               {func(e *endpointWorld) { e.add(polarfake.Endpoint{Events: rest}) }, "dark events_missing", "customer.created, order.paid", false},
		"events missing, other off":    {func(e *endpointWorld) { e.add(polarfake.Endpoint{Events: some}); off(e, e.add(polarfake.Endpoint{})) }, "dark disabled events_missing", "checkout.created", false},
		"wrong URL": {func(e *endpointWorld) {
			e.add(polarfake.Endpoint{URL: "https://old.example/webhooks/polar?key=hidden"})
		}, "dark missing", "https://old.example/webhooks/polar", false},
		"a slash too many":             {func(e *endpointWorld) { e.add(polarfake.Endpoint{URL: e.url + "/"}) }, "dark missing", "no endpoint", false},
		"none at all":                  {func(*endpointWorld) {}, "dark missing", "endpoint create", false},
		"none, and no URL to look for": {func(*endpointWorld) {}, "dark missing", "endpoint create", true},
		"two, and no URL to choose one": {func(e *endpointWorld) {
			e.add(polarfake.Endpoint{})
			e.add(polarfake.Endpoint{URL: "https://other.example/"})
		}, "unknown ambiguous", "2 endpoints", true},
		"legacy signing": {func(e *endpointWorld) { e.add(polarfake.Endpoint{Scheme: polarfake.SchemeLegacy}) }, "ok legacy_signing", "2026-09-08", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpointWorld(t, jobs.Config{})
			if !tt.noURL {
				e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
			}
			tt.set(e)
			watch := e.look()
			e.want("now", watch, tt.want)
			if shown := fmt.Sprint(watch.Findings); !strings.Contains(shown, tt.says) || strings.Contains(shown, "hidden") || strings.Contains(shown, secret) {
				t.Errorf("findings %s, want %q in them and no secret", shown, tt.says)
			}
			isDark := strings.HasPrefix(tt.want, "dark")
			expect(t, "open outages", len(e.outages()) == 1, isDark)
			expect(t, "sweeps asked for", e.sweepsAsked() == 1, isDark)
			if len(e.log.lines(secret)) > 0 || len(e.log.lines("hidden")) > 0 {
				t.Error("a secret stands in the log")
			}
		})
	}
}

// fail lets ingest refuse what Polar sends until Polar disables the endpoint.
func (e *endpointWorld) fail(id uuid.UUID) {
	e.t.Helper()
	e.ingestIsDown()
	e.customers("lost", 6)
	if !e.disabled(id) {
		e.t.Fatal("Polar has not disabled the endpoint after ten failed events")
	}
}

func TestAnEndpointThatPolarDisabledIsNoticedAndEnabledAgainOnceIngestAnswers(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url, ReenableEndpoint: true})
	id := e.add(polarfake.Endpoint{})
	e.want("before", e.look(), "ok")
	e.fail(id)

	e.want("while ingest fails", e.look(), "dark disabled unreachable")
	expect(t, "disabled while ingest fails", e.disabled(id), true)
	expect(t, "outages", fmt.Sprint(e.outages()), "[disabled on]")
	expect(t, "sweeps asked for", e.sweepsAsked(), 1)

	e.ingestHas("whsec_" + strings.Repeat("another secret ", 3))
	e.want("while ingest has another secret", e.look(), "dark disabled secret_refused")
	expect(t, "disabled while ingest has another secret", e.disabled(id), true)

	e.exec("update polar.river_job set state = 'completed', finalized_at = now()")
	e.ingestHas(secret)
	e.want("once ingest answers", e.look(), "ok")
	expect(t, "disabled once ingest answers", e.disabled(id), false)
	expect(t, "outages", fmt.Sprint(e.outages()), "[disabled over]")
	expect(t, "sweeps asked for when it is back", e.sweepsAsked(), 2)
	e.clock.advance(time.Minute)
	e.want("a minute later", e.look(), "ok")
	expect(t, "outages, with nothing new", fmt.Sprint(e.outages()), "[disabled over]")
	expect(t, "events stored by probes", one[int64](e.world, "select count(*) from polar.event_log"), 0)

	e.customers("new", 1)
	expect(t, "events that arrive", one[int64](e.world, "select count(*) from polar.event where type = 'customer.created'"), 1)
}

func TestAnEndpointIsEnabledAgainOnlyWhereThatIsAllowed(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	id := e.add(polarfake.Endpoint{})
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	e.want("not allowed", e.look(), "dark disabled")
	expect(t, "disabled", e.disabled(id), true)

	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url, ReenableEndpoint: true})
	if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Method: http.MethodPatch, Status: http.StatusForbidden}); err != nil {
		t.Fatal(err)
	}
	e.want("without the scope", e.look(), "dark disabled")
	if len(e.log.lines("webhooks:write", "WARN")) != 1 {
		t.Error("the log does not say which scope is missing")
	}
}

func TestAnEndpointThatDoesNotStayEnabledIsNotFoughtFor(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url, ReenableEndpoint: true})
	id := e.add(polarfake.Endpoint{})
	off := polar.EndpointUpdate{Enabled: new(false)}
	e.change(id, off)
	e.want("first", e.look(), "ok")
	e.change(id, off)
	watch := e.look()
	e.want("at once again", watch, "dark disabled")
	if detail := watch.Findings[0].Detail; !strings.Contains(detail, "not tried again before") {
		t.Errorf("the state does not say why nothing is done: %q", detail)
	}
	expect(t, "disabled", e.disabled(id), true)
	e.exec("update polar.endpoint_watch set reenabled_at = now() - interval '61 minutes'")
	e.want("an hour later", e.look(), "ok")
	expect(t, "disabled", e.disabled(id), false)
}

func TestAnOutageBeginsWhenTheEndpointWasLastSeenToBeWell(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	e.clock.advance(-72 * time.Hour) // Polar's clock is another than ours
	id := e.add(polarfake.Endpoint{})
	e.clock.advance(time.Hour)
	e.look()
	lastOK := e.clock.now()
	e.clock.advance(time.Hour)
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	e.clock.advance(time.Hour)
	e.change(id, polar.EndpointUpdate{Format: polar.FormatRaw}) // Polar's modified_at moves on
	e.look()
	e.clock.advance(time.Hour)
	e.change(id, polar.EndpointUpdate{Enabled: new(true)})
	e.want("after", e.look(), "ok")
	near := func(what string, got, want time.Time) {
		t.Helper()
		if d := got.Sub(want).Abs(); d > 5*time.Second {
			t.Errorf("%s is %s, want %s", what, got, want)
		}
	}
	near("the beginning", one[time.Time](e.world, "select began_at from polar.endpoint_outage"), lastOK)
	near("the end", one[time.Time](e.world, "select ended_at from polar.endpoint_outage"), e.clock.now())

	never := newEndpointWorld(t, jobs.Config{})
	never.runner = never.newRunner(jobs.Config{EndpointURL: never.url})
	never.change(never.add(polarfake.Endpoint{}), polar.EndpointUpdate{Enabled: new(false)})
	made := never.clock.now()
	never.clock.advance(time.Hour)
	never.look()
	near("the beginning, never seen to be well", one[time.Time](never.world, "select began_at from polar.endpoint_outage"), made)
}

func TestAnEndpointSwitchedOffAndOnBetweenTwoLooksIsCaughtUpWith(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	id := e.add(polarfake.Endpoint{})
	step := func() { e.clock.advance(10 * time.Second) }
	step()
	e.look()
	step()
	e.want("untouched", e.look(), "ok")
	expect(t, "outages of an endpoint that nobody touched", len(e.outages()), 0)
	expect(t, "sweeps asked for", e.sweepsAsked(), 0)
	step()
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	e.change(id, polar.EndpointUpdate{Enabled: new(true)})
	step()
	e.want("touched", e.look(), "ok")
	expect(t, "outages", fmt.Sprint(e.outages()), "[edited over]")
	expect(t, "sweeps asked for", e.sweepsAsked(), 1)
	step()
	e.look()
	expect(t, "outages, with nothing new", len(e.outages()), 1)

	// Where another endpoint sends everything all the while, nothing can have been missed.
	step()
	second := e.add(polarfake.Endpoint{})
	step()
	e.look()
	step()
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	if err := e.polar.DeleteEndpoint(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	step()
	watch := e.look()
	e.want("with the second alone", watch, "ok")
	expect(t, "outages", len(e.outages()), 1)
	expect(t, "endpoint", *watch.EndpointID, second)
}

func TestWhereTheTokenMayNotReadEndpointsThatIsTheState(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	e.add(polarfake.Endpoint{})
	e.want("before", e.look(), "ok")
	for status, says := range map[int]string{http.StatusForbidden: "webhooks:read", http.StatusUnauthorized: "POLAR_ACCESS_TOKEN"} {
		if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Path: listEndpoints, Status: status}); err != nil {
			t.Fatal(err)
		}
		watch := e.look()
		e.want(http.StatusText(status), watch, "unknown unreadable")
		if !strings.Contains(watch.Findings[0].Advice, says) {
			t.Errorf("%d: advice %q, want %q in it", status, watch.Findings[0].Advice, says)
		}
	}
	expect(t, "outages", len(e.outages()), 0)
	e.want("after", e.look(), "ok")

	// Polar may be away for a moment; only if it stays away, that is a state.
	if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Path: listEndpoints, Status: http.StatusBadGateway, Count: 2}); err != nil {
		t.Fatal(err)
	}
	if err := e.runner.LookAtEndpoint(t.Context(), 4); err == nil {
		t.Error("the fourth try of five hides that Polar is away")
	}
	e.want("after the fourth", e.watch(), "ok")
	if err := e.runner.LookAtEndpoint(t.Context(), 5); err != nil {
		t.Error(err)
	}
	e.want("after the fifth", e.watch(), "unknown unreadable")

	if err := e.fake.Inject(polarfake.Fault{Kind: polarfake.FaultRateLimit, Path: listEndpoints, RetryAfter: polarfake.Duration(7 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	snooze, ok := errors.AsType[*river.JobSnoozeError](e.runner.LookAtEndpoint(t.Context(), 5))
	if !ok || snooze.Duration != 7*time.Second {
		t.Errorf("asked to wait for 7 s, the job ends with %v", snooze)
	}
}

func TestTheLogIsToldOfEachChangeAndOfWhatStaysWrongFromTimeToTime(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	id := e.add(polarfake.Endpoint{})
	e.look()
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	for range 3 {
		e.look()
	}
	alarms := func() int { return len(e.log.lines("level=ERROR", "findings=disabled", "advice=")) }
	expect(t, "alarms for three looks", alarms(), 1)
	e.exec("update polar.endpoint_watch set alarmed_at = now() - interval '61 minutes'")
	e.look()
	e.look()
	expect(t, "alarms an hour later", alarms(), 2)
	e.change(id, polar.EndpointUpdate{Enabled: new(true), Events: []string{polar.EventOrderPaid}})
	e.look()
	expect(t, "alarms of another finding", len(e.log.lines("level=ERROR", "findings=events_missing")), 1)
	e.change(id, polar.EndpointUpdate{Events: polar.EventTypes()})
	e.look()
	e.look()
	expect(t, "good news", len(e.log.lines("level=INFO", "is well")), 2) // at the first look, and now
	if len(e.log.lines(secret)) > 0 {
		t.Error("a secret stands in the log")
	}
}

func TestASweepAtWorkDoesNotStandInForTheOneThatIsDue(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	id := e.add(polarfake.Endpoint{})
	e.look()
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	expect(t, "due after the first was asked for", e.look().CatchUp, false)
	e.exec("update polar.river_job set state = 'running', attempt = 1, attempted_at = now() where kind = 'reconcile'")
	e.change(id, polar.EndpointUpdate{Enabled: new(true)})
	expect(t, "due while the first is at work", e.look().CatchUp, true)
	expect(t, "sweeps", e.sweepsAsked(), 1)
	e.exec("update polar.river_job set state = 'completed', finalized_at = now() where kind = 'reconcile'")
	expect(t, "due once the first is over", e.look().CatchUp, false)
	expect(t, "sweeps", e.sweepsAsked(), 2)

	// One that waits will do, unless it waits between two pieces of its work.
	e.change(id, polar.EndpointUpdate{Enabled: new(false)})
	expect(t, "due while one waits", e.look().CatchUp, false)
	e.exec(`update polar.river_job set metadata = metadata || '{"snoozes": 1}' where state = 'available'`)
	e.change(id, polar.EndpointUpdate{Enabled: new(true)})
	expect(t, "due while one waits between two pieces", e.look().CatchUp, true)
}

func TestAWorkerLooksAtTheEndpointByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{jobs: jobs.Config{ReconcileInterval: time.Minute}})
	waittest.Eventually(t, func() error {
		watch, err := w.store.GetEndpointWatch(t.Context())
		if err == nil && watch.State != store.EndpointOK {
			err = fmt.Errorf("the endpoint is %s", watch.State)
		}
		return err
	})
	waittest.Eventually(t, func() error {
		gaps, err := w.store.GetGapFill(t.Context())
		if err == nil && gaps.FilledUntil == nil {
			err = errors.New("no gaps were searched")
		}
		return err
	})
	off := newWorld(t, worldOptions{})
	off.post("evt", event("customer.created", 1, customerDoc(uuid.New(), 0, nil)))
	off.settle()
	if n := off.fake.Requests()["GET "+listEndpoints]; n > 0 {
		t.Errorf("with the interval 0 the endpoints were read %d times", n)
	}
}
