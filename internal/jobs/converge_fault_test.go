package jobs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// polarClock is Polar's time: as fast as ours, but hours pass at a stroke.
type polarClock struct {
	mu      sync.Mutex
	started time.Time
	skipped time.Duration
}

func (c *polarClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC).Add(c.skipped + time.Since(c.started))
}

func (c *polarClock) skip(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped += d
}

// recovery is how fast a stage's processes take up again what another left.
const recovery = 600 * time.Millisecond

func newStage(t *testing.T, seed uint64) *stage {
	t.Helper()
	s := &stage{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), clock: &polarClock{started: time.Now()}}
	s.w = &world{t: t, options: worldOptions{jobs: jobs.Config{
		RecoveryTime: recovery, API: polar.Config{Timeout: 400 * time.Millisecond, MaxRetries: 1},
	}}, stop: func() {}}
	if seed%20 == 0 {
		s.hosts = newProcesses(s)
	} else {
		s.hosts = newRelays(s)
	}
	s.w.client = truenorth.NewClient(s.w.store.Pool())
	t.Cleanup(s.w.client.Close)
	for i := range 6 {
		s.users = append(s.users, fmt.Sprintf("usr_%d", i))
	}
	s.w.addUser(s.users...)
	s.hosts.start()
	t.Cleanup(s.hosts.stop)
	return s
}

// startFake starts the fake Polar that sends to this URL.
func (s *stage) startFake(webhookURL string) http.Handler {
	s.w.fake = polarfake.New(polarfake.Options{
		WebhookURL: webhookURL, WebhookSecret: secret, Clock: s.clock.now, SignatureClock: time.Now, Seed: s.seed,
		RetryScale: 1.0 / retrySpeed, DeliveryTimeout: 2 * time.Second, FulfillmentWait: time.Millisecond, ExpiryInterval: time.Hour,
		Parallel: s.seed%2 == 0, AllowMultipleSubscriptions: s.seed%3 == 0, MaxUndatedDeliveries: 10,
	})
	s.t.Cleanup(s.w.fake.Close)
	return s.w.fake
}

// disturb makes one random thing go wrong, or ends it.
func (s *stage) disturb() {
	fake := s.w.fake
	inject := func(f polarfake.Fault) {
		if err := fake.Inject(f); err != nil {
			s.t.Errorf("injecting a fault: %v", err)
		}
	}
	event := oneOf(s, "", "customer.*", "checkout.*", "order.*", "subscription.*", "benefit_grant.*", "refund.*", "member.*", "product.*")
	path := oneOf(s, "", "/v1/checkouts/", "/v1/checkouts/*", "/v1/customers/", "/v1/customers/*", "/v1/orders/", "/v1/members/")
	switch what := s.random.IntN(18); what {
	case 0, 1, 2:
		count := 1 + s.random.IntN(6)
		s.notef("FAULT: the next %d events %q are lost", count, event)
		inject(polarfake.Fault{Kind: polarfake.FaultEventDrop, EventType: event, Count: count})
	case 3:
		s.notef("FAULT: events %q come twice", event)
		inject(polarfake.Fault{Kind: polarfake.FaultEventDuplicate, EventType: event, Count: 1 + s.random.IntN(6)})
	case 4:
		s.notef("FAULT: events %q change places", event)
		inject(polarfake.Fault{Kind: polarfake.FaultEventReorder, EventType: event, Count: 1 + s.random.IntN(3), Delay: polarfake.Duration(50 * time.Millisecond)})
	case 5:
		delay := time.Duration(s.random.IntN(400)) * time.Millisecond
		s.notef("FAULT: events %q come %s late, and what passes meanwhile", event, delay)
		inject(polarfake.Fault{Kind: polarfake.FaultEventDelay, EventType: event, Count: 1 + s.random.IntN(3), Delay: polarfake.Duration(delay)})
	case 6, 7:
		kind := oneOf(s, polarfake.FaultStatus, polarfake.FaultReset, polarfake.FaultTruncate, polarfake.FaultShortPage)
		s.notef("FAULT: Polar's API answers %s at %q", kind, path)
		inject(polarfake.Fault{Kind: kind, Status: oneOf(s, 500, 502, 503), Path: path, Count: 1 + s.random.IntN(4)})
		// That all sessions are gone can be seen to be wrong by whoever knows one.
		if s.random.IntN(3) == 0 && one[int64](s.w, "select count(*) from polar.checkout where deleted_at is null") > 0 {
			s.notef("FAULT: Polar's lists at %q are empty", path)
			inject(polarfake.Fault{Kind: polarfake.FaultEmptyList, Path: path, Count: 1 + s.random.IntN(3)})
		}
	case 8, 9:
		kind := oneOf(s, polarfake.FaultCutAfter, polarfake.FaultCutAfter, polarfake.FaultHangAfter)
		method := oneOf(s, "", http.MethodPost)
		twice := s.random.IntN(2) == 0 // the one that nobody may do twice
		if twice {
			path, method = "/v1/checkouts/", http.MethodPost
		}
		s.notef("FAULT: Polar's API does what it is asked at %s %q, and the answer is lost (%s)", method, path, kind)
		inject(polarfake.Fault{Kind: kind, Path: path, Method: method, Count: 1 + s.random.IntN(2)})
		if twice { // nor does an event tell of the session
			inject(polarfake.Fault{Kind: polarfake.FaultEventDrop, EventType: "checkout.*", Count: 2})
			before := fake.Requests()["POST /v1/checkouts/"]
			s.notef("FAULT: the next 2 events %q are lost; the app asks for a checkout: %v", "checkout.*", s.askForCheckout())
			for range 100 { // a worker that is held up for longer meets the fault later, or not at all
				if fake.Requests()["POST /v1/checkouts/"] > before {
					break
				}
				s.pause(10 * time.Millisecond)
			}
		}
	case 10:
		if s.seed%10 == 0 { // a second is the least that Polar asks to wait
			s.notef("FAULT: 429")
			inject(polarfake.Fault{Kind: polarfake.FaultRateLimit, Path: path, RetryAfter: polarfake.Duration(time.Second)})
		}
	case 11:
		s.notef("FAULT: the endpoint is disabled")
		s.setEndpoint(false)
		s.later("the endpoint is enabled", func() { s.setEndpoint(true) })
	case 12, 13:
		s.notef("FAULT: ingest goes down")
		s.hosts.toggleIngest()
		s.later("ingest comes back", s.hosts.toggleIngest)
	case 14:
		s.notef("FAULT: Postgres goes away")
		s.hosts.togglePostgres()
		s.later("Postgres comes back", s.hosts.togglePostgres)
	case 15, 16:
		s.notef("FAULT: a worker is killed")
		s.hosts.killWorker()
	case 17:
		s.notef("a sweep in the midst of it")
		s.sweepAMoment()
	}
}

// later ends a fault a few steps from now. Another of its kind meanwhile only ends it sooner.
func (s *stage) later(what string, do func()) {
	s.ending = append(s.ending, ending{steps: 2 + s.random.IntN(8), what: what, do: do})
}

// ending is a fault that is to end.
type ending struct {
	steps int
	what  string
	do    func()
}

// endSome ends the faults whose time is over.
func (s *stage) endSome(all bool) {
	var later []ending
	for _, e := range s.ending {
		if e.steps--; e.steps > 0 && !all {
			later = append(later, e)
			continue
		}
		s.notef("%s", e.what)
		e.do()
	}
	s.ending = later
}

// sweepAMoment sweeps while all goes wrong, for as long as it lasts. It may fail, but must bury nobody for good.
func (s *stage) sweepAMoment() {
	limit := time.Duration(5+s.random.IntN(500)) * time.Millisecond
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	_, err := s.w.sweeper().Reconcile(ctx, jobs.ReconcileOptions{DryRun: s.random.IntN(4) == 0})
	s.notef("the sweep ended: %v", err)
}

func (s *stage) setEndpoint(enabled bool) {
	s.t.Helper()
	for _, document := range s.w.fake.Endpoints() {
		request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPatch, s.w.api.URL+"/v1/webhooks/endpoints/"+idOf(s.t, document),
			strings.NewReader(fmt.Sprintf(`{"enabled": %v}`, enabled)))
		if err != nil {
			s.t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer polar_oat_test")
		client := &http.Client{Timeout: time.Second} // a fault may meet this request too
		response, err := client.Do(request)
		if err != nil {
			s.notef("setting the endpoint: %v", err)
			continue
		}
		_ = response.Body.Close()
	}
}

// endFaults makes everything work again.
func (s *stage) endFaults() {
	s.notef("the faults end")
	s.w.fake.ClearFaults()
	s.endSome(true)
	s.hosts.restore()
	s.setEndpoint(true)
}
