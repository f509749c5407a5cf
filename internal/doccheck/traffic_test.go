package doccheck_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// units of a world that run all the time, in the order in which docs/upgrade.md restarts them.
var units = []string{"truenorth-worker", "truenorth-ingest"}

// restart puts the programs of a folder in the place of those that run.
func (w *world) restart(programs string) {
	w.t.Helper()
	w.programs = programs
	for _, unit := range units {
		w.stop(unit)
		w.services.start(unit)
	}
}

func (w *world) stop(unit string) {
	w.t.Helper()
	if err := w.services.tryStop(unit); err != nil {
		w.t.Fatalf("stopping %s: %v", unit, err)
	}
}

// must runs the operator's command, which has to end well.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, code := w.truenorth(args...)
	if code != 0 {
		w.t.Fatalf("truenorth %s ends with %d and says\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// traffic is what goes on while a test changes something below it: Polar sends events, and an app asks for checkouts in
// transactions of its own.
type traffic struct {
	world *world
	end   context.CancelFunc
	done  sync.WaitGroup

	mu        sync.Mutex
	customers []string    // whose event was acknowledged
	requests  []uuid.UUID // that were committed
	refused   int         // deliveries that had to be made again
}

// flow begins traffic, which ends with traffic.settle. Its events are of customers of Polar's that the fake has not.
func (w *world) flow() *traffic {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	f := &traffic{world: w, end: cancel}
	pool := storetest.Open(w.t, w.databaseURL).Pool()
	f.done.Go(func() { f.deliver(ctx) })
	f.done.Go(func() { f.ask(ctx, pool) })
	w.t.Cleanup(func() { cancel(); f.done.Wait() })
	return f
}

const trafficPause = 20 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (f *traffic) deliver(ctx context.Context) {
	route := "http://" + f.world.ports["127.0.0.1:8080"] + "/webhooks/polar"
	for ctx.Err() == nil {
		customer, id := uuid.NewString(), uuid.NewString()
		event := `{"type": "customer.created", "timestamp": "2026-11-25T09:00:00Z", "data": {"id": "` + customer + `", "email": "` + customer + `@example.com", "created_at": "2026-11-25T09:00:00Z"}}`
		for { // as Polar would, until it is taken; what was begun is brought to its end
			status, err := send(route, id, event)
			f.mu.Lock()
			taken := err == nil && status == http.StatusAccepted
			if taken {
				f.customers = append(f.customers, customer)
			} else {
				f.refused++
			}
			f.mu.Unlock()
			pause(ctx, trafficPause)
			if taken || ctx.Err() != nil {
				break
			}
		}
	}
}

func send(route, webhookID, body string) (status int, err error) {
	headers, err := polar.Sign(pageSecret, webhookID, time.Now(), []byte(body), polar.DerivationAuto)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, route, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header = headers
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func (f *traffic) ask(ctx context.Context, pool *pgxpool.Pool) {
	for ctx.Err() == nil {
		var id uuid.UUID
		err := pool.QueryRow(ctx, "select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'external_customer_id', 'usr_grace'))",
			polarfake.OneTimeProductID).Scan(&id)
		if err == nil {
			f.mu.Lock()
			f.requests = append(f.requests, id)
			f.mu.Unlock()
		} else if ctx.Err() == nil {
			f.world.t.Errorf("an app's transaction failed: %v", err)
			return
		}
		pause(ctx, 10*trafficPause)
	}
}

// more waits until so much more has been taken, so that a stage of a test has had traffic of its own.
func (f *traffic) more(events, requests int) {
	f.world.t.Helper()
	f.mu.Lock()
	events, requests = events+len(f.customers), requests+len(f.requests)
	f.mu.Unlock()
	waittest.Within(f.world.t, time.Minute, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.customers) < events || len(f.requests) < requests {
			return fmt.Errorf("%d of %d events are taken, and %d of %d checkouts asked for", len(f.customers), events, len(f.requests), requests)
		}
		return nil
	})
}

// settle ends the traffic, and proves that all that was acknowledged is applied, and that each request has one live session.
func (f *traffic) settle() {
	t := f.world.t
	t.Helper()
	f.end()
	f.done.Wait()
	pool := storetest.Open(t, f.world.databaseURL).Pool()
	waittest.Within(t, time.Minute, func() error {
		var lost, waiting, failed int
		err := pool.QueryRow(t.Context(), `
			select (select count(*) from unnest($1::uuid[]) as u (id) where not exists (select from polar.customer c where c.id = u.id)),
			       (select count(*) from unnest($2::uuid[]) as u (id) where not exists (select from polar.checkout_request r where r.id = u.id and r.state = 'open')),
			       (select count(*) from polar.event where state = 'failed')`, f.customers, f.requests).Scan(&lost, &waiting, &failed)
		if err == nil && lost+waiting+failed > 0 {
			err = fmt.Errorf("of %d events that were acknowledged %d are not applied, %d failed; of %d requests %d are not open", len(f.customers), lost, failed, len(f.requests), waiting)
		}
		return err
	})
	sessions := sessionsByRequest(t, f.world.fake)
	for _, id := range f.requests {
		if n := len(sessions[id.String()]); n != 1 {
			t.Errorf("request %s has %d sessions at Polar, want 1", id, n)
		}
	}
	t.Logf("%d events and %d checkouts, %d deliveries made again", len(f.customers), len(f.requests), f.refused)
}

// sessionsByRequest lists the ids of Polar's sessions by the request that they bear.
func sessionsByRequest(t *testing.T, fake *polarfake.Fake) map[string][]string {
	t.Helper()
	sessions := map[string][]string{}
	for _, raw := range fake.Checkouts() {
		var k struct {
			ID       string            `json:"id"`
			Metadata map[string]string `json:"metadata"`
		}
		if err := json.Unmarshal(raw, &k); err != nil {
			t.Fatal(err)
		}
		if request := k.Metadata["truenorth_request"]; request != "" {
			sessions[request] = append(sessions[request], k.ID)
		}
	}
	return sessions
}
