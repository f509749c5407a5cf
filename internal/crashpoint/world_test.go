package crashpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/testbuild"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// programs are ingest, worker and truenorth as test builds, built once into a folder that TestMain removes.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := storetest.Main(m)
	_ = os.RemoveAll(programs.dir)
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "truenorth-crash-"); programs.err == nil {
			programs.err = testbuild.Build(context.Background(), "../..", programs.dir, "./cmd/ingest", "./cmd/worker", "./cmd/truenorth")
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return filepath.Join(programs.dir, name)
}

const (
	secret   = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	user     = "usr_ada"
	address  = "ada@buyer-example.com"
	recovery = 2 * time.Second // RECOVERY_TIME and POLAR_TIMEOUT, all that takes work up again follows from
	within   = 30 * time.Second
)

var oneTime = uuid.MustParse(polarfake.OneTimeProductID)

// world is all that the product is, as processes, on a database of its own, and a Polar.
type world struct {
	t              *testing.T
	url            string
	store          *store.Store
	client         *truenorth.Client
	fake           *polarfake.Fake
	api            *httptest.Server
	ingest, worker *machinetest.Process
	webhook        string // ingest's URL
	metricsAddr    string // ingest's

	purchases sync.WaitGroup
	removed   []string // events that retention takes, by their ids
}

type worldOptions struct {
	fake     polarfake.Options
	worker   []string // more of its environment
	empty    bool     // the database is not migrated
	endpoint bool     // Polar has none: the test adds it
}

func newWorld(t *testing.T, options worldOptions) *world {
	t.Helper()
	w := &world{t: t}
	database := storetest.URL
	if options.empty {
		database = storetest.EmptyURL
	}
	w.url = withParameter(t, database(t), "pool_max_conns", "8")
	w.store = storetest.Open(t, w.url)
	w.client = truenorth.NewClient(w.store.Pool())
	t.Cleanup(w.client.Close)

	ingestAddr := machinetest.Address(t)
	w.webhook, w.metricsAddr = "http://"+ingestAddr+ingest.Route, machinetest.Address(t)
	if !options.endpoint {
		options.fake.WebhookURL, options.fake.WebhookSecret = w.webhook, secret
	}
	if options.fake.RetryScale == 0 {
		options.fake.RetryScale = 0.02 // ten tries within half a minute
	}
	w.fake = polarfake.New(options.fake)
	t.Cleanup(w.fake.Close)
	w.api = httptest.NewServer(w.fake)
	t.Cleanup(w.api.Close)
	w.fake.SetPublicURL(w.api.URL)

	w.ingest = machinetest.NewProcess(t, []string{"DATABASE_URL=" + w.url, "POLAR_WEBHOOK_SECRETS=" + secret, "INGEST_ADDR=" + ingestAddr, "INGEST_METRICS_ADDR=" + w.metricsAddr}, program(t, "ingest"))
	w.worker = machinetest.NewProcess(t, append([]string{
		"DATABASE_URL=" + w.url, "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + w.api.URL + "/v1", "POLAR_RATE_LIMIT=0",
		"WORKER_ADDR=127.0.0.1:0", "RECONCILE_INTERVAL=0", "RECOVERY_TIME=" + recovery.String(), "POLAR_TIMEOUT=" + recovery.String(),
		"INGEST_PUBLIC_URL=" + w.webhook,
	}, options.worker...), program(t, "worker"))
	return w
}

func withParameter(t *testing.T, databaseURL, name, value string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set(name, value)
	u.RawQuery = query.Encode()
	return u.String()
}

func (w *world) startIngest(env ...string) {
	w.t.Helper()
	w.ingest.Start(env...)
	waittest.Eventually(w.t, func() error {
		response, err := http.Get(strings.TrimSuffix(w.webhook, ingest.Route) + "/livez")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
}

// killWorker kills the worker, and has the next one lead at once: River waits for a leader that died.
func (w *world) killWorker() {
	w.t.Helper()
	w.worker.Kill()
	w.exec("delete from polar.river_leader")
}

// command is a run of truenorth.
func (w *world) command(args ...string) *machinetest.Process {
	w.t.Helper()
	env := []string{"DATABASE_URL=" + w.url, "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + w.api.URL + "/v1"}
	return machinetest.NewProcess(w.t, env, program(w.t, "truenorth"), args...)
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.store.Pool().Exec(context.Background(), sql, args...); err != nil {
		w.t.Errorf("%s: %v", sql, err)
	}
}

// all reads the first column of a query.
func all[T any](w *world, sql string, args ...any) []T {
	w.t.Helper()
	rows, err := w.store.Pool().Query(context.Background(), sql, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return values
}

func (w *world) inject(faults ...polarfake.Fault) {
	w.t.Helper()
	for _, fault := range faults {
		if err := w.fake.Inject(fault); err != nil {
			w.t.Fatal(err)
		}
	}
}

// loseEvents has Polar send no events of these types.
func (w *world) loseEvents(pattern string) {
	w.t.Helper()
	w.inject(polarfake.Fault{Kind: polarfake.FaultEventDrop, EventType: pattern, Count: -1})
}

// ask asks for a checkout of the user's.
func (w *world) ask(params truenorth.CheckoutParams) uuid.UUID {
	w.t.Helper()
	params.ExternalCustomerID = user
	if params.Products == nil {
		params.Products = []uuid.UUID{oneTime}
	}
	id, err := w.client.CreateCheckout(context.Background(), params)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// await waits for the state of a request. Errors: it is not reached in time.
func (w *world) await(id uuid.UUID, state string) (request truenorth.CheckoutRequest, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		request, err = w.client.Request(ctx, id)
		if err == nil && request.State == state {
			return request, nil
		}
		select {
		case <-ctx.Done():
			return request, fmt.Errorf("request %s is %s (%s) after %s, want %s", id, request.State, request.Error, within, state)
		case <-ticker.C:
		}
	}
}

// buy has the user ask for a checkout, wait for its URL and pay, beside what the test does: whoever dies meanwhile.
func (w *world) buy(params truenorth.CheckoutParams) {
	w.t.Helper()
	w.exec("insert into polar.local_user (id, email) values ($1, $2) on conflict do nothing", user, address)
	id := w.ask(params)
	w.purchases.Go(func() {
		request, err := w.await(id, "open")
		if err == nil {
			err = w.fake.Pay(request.CheckoutID.String(), polarfake.PayOptions{Email: address})
		}
		if err != nil {
			w.t.Errorf("the purchase: %v", err)
		}
	})
}

// calm waits until nothing is under way.
func (w *world) calm() {
	w.t.Helper()
	w.purchases.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := w.fake.WaitIdle(ctx); err != nil {
		w.t.Fatalf("Polar still sends: %v", err)
	}
	calm := 0
	waittest.Within(w.t, within, func() error {
		busy := all[string](w, `
			select concat_ws(' ', 'event', type, state, error) from polar.event where state = 'received'
			union all
			select concat_ws(' ', 'job', kind, state, attempt, scheduled_at - now(), errors[1]) from polar.river_job
			 where state in ('available', 'running', 'retryable') or state = 'scheduled' and scheduled_at < now() + interval '30 seconds'
			union all
			select concat_ws(' ', 'request', state, error) from polar.checkout_request where state in ('queued', 'creating')
			limit 5`)
		if len(busy) > 0 {
			calm = 0
			return fmt.Errorf("still busy: %q", busy)
		}
		if calm++; calm < 3 {
			return errors.New("calm, for a moment")
		}
		return nil
	})
}

// keepsItsPromises holds what is outside, Polar and the tables, against what was promised.
func (w *world) keepsItsPromises() {
	w.t.Helper()
	w.appliedWhatWasAcknowledged()
	w.oneSessionEach()
	for _, objectType := range []string{"customer", "checkout", "order"} {
		if !w.hears(objectType) {
			continue
		}
		w.compare(objectType)
	}
}

// hears tells whether any event of a type of objects came.
func (w *world) hears(objectType string) bool {
	return slices.ContainsFunc(w.fake.Events(), func(e polarfake.Event) bool {
		return strings.HasPrefix(e.Type, objectType+".") && e.State == polarfake.EventSucceeded
	})
}

// appliedWhatWasAcknowledged: a 2xx means durable, and applied once in its effect.
func (w *world) appliedWhatWasAcknowledged() {
	w.t.Helper()
	states := map[string]string{}
	for _, row := range all[string](w, "select webhook_id || ' ' || state || ' ' || coalesce(error, '') from polar.event") {
		id, state, _ := strings.Cut(row, " ")
		if _, twice := states[id]; twice {
			w.t.Errorf("event %s is stored twice", id)
		}
		states[id] = strings.TrimSpace(state)
	}
	for _, e := range w.fake.Events() {
		switch state, stored := states[e.ID]; {
		case slices.Contains(w.removed, e.ID):
			if stored {
				w.t.Errorf("%s %s is old, and still there", e.Type, e.ID)
			}
		case e.State == polarfake.EventSucceeded && !stored:
			w.t.Errorf("%s %s was acknowledged and is not there", e.Type, e.ID)
		case stored && state != "applied":
			w.t.Errorf("%s %s is %s, want applied", e.Type, e.ID, state)
		}
	}
}

// oneSessionEach: a request ends in exactly one live session at Polar, or has failed and says why.
func (w *world) oneSessionEach() {
	w.t.Helper()
	live := map[string][]string{}
	for _, document := range w.fake.Checkouts() {
		var k struct {
			ID, Status string
			Metadata   map[string]any
		}
		if err := json.Unmarshal(document, &k); err != nil {
			w.t.Fatal(err)
		}
		if request, ok := k.Metadata["truenorth_request"].(string); ok {
			live[request] = append(live[request], k.ID+" "+k.Status)
		}
	}
	for _, row := range all[string](w, "select concat_ws(' ', id, state, coalesce(checkout_id::text, error)) from polar.checkout_request") {
		var id, state, detail string
		if n, _ := fmt.Sscanf(row, "%s %s %s", &id, &state, &detail); n != 3 {
			w.t.Errorf("request %q has neither a session nor a reason", row)
		}
		switch sessions := live[id]; {
		case state == "failed" && len(sessions) == 0:
		case !slices.Equal(sessions, []string{detail + " " + state}):
			w.t.Errorf("request %s is %s (%s), and Polar's sessions of it are %q", id, state, detail, sessions)
		}
	}
}

// compare holds the mirror's objects of a type against Polar's.
func (w *world) compare(objectType string) {
	w.t.Helper()
	here := map[string]json.RawMessage{}
	for _, row := range all[json.RawMessage](w, fmt.Sprintf(`select jsonb_build_object('id', id, 'doc', doc) from polar.%q where deleted_at is null`, objectType)) {
		var o struct {
			ID  string
			Doc json.RawMessage
		}
		if err := json.Unmarshal(row, &o); err != nil {
			w.t.Fatal(err)
		}
		here[o.ID] = o.Doc
	}
	there := w.fake.Objects(objectType)
	if got, want := slices.Sorted(maps.Keys(here)), slices.Sorted(maps.Keys(there)); !slices.Equal(got, want) {
		w.t.Errorf("the mirror has the %ss %v, Polar has %v", objectType, got, want)
		return
	}
	for id, want := range there {
		var a, b any
		if err := errors.Join(json.Unmarshal(here[id], &a), json.Unmarshal(want, &b)); err != nil {
			w.t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			w.t.Errorf("%s %s is\n%s\nhere, and at Polar\n%s", objectType, id, here[id], want)
		}
	}
}

// wantBought expects that the user's purchase is succeeded, theirs, and told of once.
func (w *world) wantBought() {
	w.t.Helper()
	w.want("requests", "select state from polar.checkout_request", "succeeded")
	w.want("links", "select local_user_id from polar.customer_link", user)
	w.want("the feed", "select kind || ' ' || count(*) from polar.change where kind in ('checkout_succeeded', 'linked') group by kind order by 1",
		"checkout_succeeded 1", "linked 1")
}

// want waits until a query gives these.
func (w *world) want(what, sql string, want ...string) {
	w.t.Helper()
	waittest.Within(w.t, within, func() error {
		if got := all[string](w, sql); !slices.Equal(got, want) {
			return fmt.Errorf("%s: %q, want %q", what, got, want)
		}
		return nil
	})
}

func (w *world) wantCalls(route string, n int) {
	w.t.Helper()
	if got := w.fake.Requests()[route]; got != n {
		w.t.Errorf("%d calls of %s, want %d", got, route, n)
	}
}
