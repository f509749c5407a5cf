package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/polartest"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// epoch is when the tests' Polar begins: far enough in the past that every read is newer than every event.
var epoch = time.Date(2026, 8, 22, 9, 0, 0, 0, time.UTC)

type doc = map[string]any

// moment is a time of Polar's, in seconds after epoch.
func moment(seconds float64) string {
	return epoch.Add(time.Duration(seconds * float64(time.Second))).Format("2006-01-02T15:04:05.000000Z07:00")
}

// with is a document with other fields.
func with(base, fields doc) doc {
	result := maps.Clone(base)
	maps.Copy(result, fields)
	return result
}

// customerDoc is a customer that was made at a moment.
func customerDoc(id uuid.UUID, created float64, fields doc) doc {
	return with(doc{
		"id": id, "created_at": moment(created), "modified_at": nil, "metadata": doc{}, "external_id": nil, "email": id.String()[:8] + "@example.com",
		"email_verified": false, "type": "individual", "name": nil, "billing_name": nil, "organization_id": polarfake.OrganizationID, "deleted_at": nil,
	}, fields)
}

// checkoutDoc is a session that was made at a moment.
func checkoutDoc(id uuid.UUID, created float64, fields doc) doc {
	return with(doc{
		"id": id, "created_at": moment(created), "modified_at": nil, "metadata": doc{}, "status": "open", "url": "https://polar.example/" + id.String(),
		"expires_at": "2036-08-22T09:00:00Z", "customer_id": nil, "external_customer_id": nil, "organization_id": polarfake.OrganizationID,
	}, fields)
}

// event is the body of an event that Polar built at a moment.
func event(eventType string, at float64, data doc) string {
	body, err := json.Marshal(doc{"type": eventType, "timestamp": moment(at), "api_version": "2026-10", "data": data})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// send posts events under ids of their own, and waits until they are worked.
func (w *world) send(bodies ...string) {
	w.t.Helper()
	for _, body := range bodies {
		if status := w.post(uuid.NewString(), body); status != http.StatusAccepted {
			w.t.Fatalf("ingest answered %d to %.200s", status, body)
		}
	}
	w.settle()
}

// offline is a world whose events the test posts by itself.
func offline(t *testing.T) *world {
	t.Helper()
	return newWorld(t, worldOptions{offline: true, tune: (*jobs.Runner).AskAtOnce})
}

func (w *world) noFailures() {
	w.t.Helper()
	if failed := all[string](w, "select type || ': ' || error from polar.event where state <> 'applied'"); len(failed) > 0 {
		w.t.Errorf("events that are not applied: %q", failed)
	}
}

func expect[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestSamplesOfAllTypesGiveTheirRows(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(polartest.Path(t, "samples/*.*.synthetic.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d samples of Polar's events: %v", len(files), err)
	}
	for _, order := range []string{"forwards", "backwards"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_1337")
			files := slices.Clone(files)
			if order == "backwards" {
				slices.Reverse(files)
			}
			samples := map[string]string{}
			for _, file := range files {
				body, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !json.Valid(body) {
					continue // cut off, for reading only
				}
				name := strings.TrimSuffix(filepath.Base(file), ".synthetic.json")
				samples[name] = string(body)
				if status := w.post(name, string(body)); status != http.StatusAccepted {
					t.Errorf("%s: answer %d", name, status)
				}
			}
			w.settle()
			w.noFailures()

			const customer, example = "992fae2a-2a17-4b7a-8d9e-e287cf90131b", "3fa85f64-5717-4562-b3fc-2c963f66afa6"
			type row struct{ what, sql, want string }
			for _, r := range []row{
				{
					"customer", "select concat_ws('|', organization_id, external_id, email, name, type, created_at = '2026-08-22T09:00:00.123456Z', coalesce(modified_at::text, 'never'), deleted_at = '2026-08-22T09:00:00.123456Z', tombstone) from polar.customer where id = '" + customer + "'",
					"1dbfc517-0bbf-4301-9ba8-555ca42b9737|usr_1337|customer@example.com|John Doe|individual|t|never|t|t",
				},
				{"customer's document", "select (doc = (select body::jsonb -> 'data' from polar.event where webhook_id = 'customer.deleted'))::text from polar.customer where id = '" + customer + "'", "true"},
				{
					"customer's lists", "select concat_ws('|', active_subscriptions -> 0 ->> 'id', granted_benefits -> 0 ->> 'id', active_meters -> 0 ->> 'balance', doc ? 'active_meters') from polar.customer_state where customer_id = '" + customer + "'",
					"e5149aae-e521-42b9-b24c-abb3d71eea2e|d322132c-a9d0-4e0d-b8d3-d81ad021a3a9|75.0|f",
				},
				{
					"checkout", "select concat_ws('|', status, url, customer_id, organization_id, expires_at is not null, created_at is not null, modified_at is not null, doc = (select body::jsonb -> 'data' from polar.event where webhook_id = 'checkout.updated')) from polar.checkout where id = '" + example + "'",
					"succeeded|https://polar.sh/checkout/polar_c_SYNTHETIC|" + example + "|" + example + "|t|t|t|t",
				},
				{"organization", "select organization_id::text from polar.mirrored_organization", polarfake.OrganizationID},
				{"links", "select count(*)::text from polar.customer_link", "0"},
			} {
				expect(t, r.what, one[string](w, r.sql), r.want)
			}
			for object, table := range map[string]string{
				"benefit_grant.created": "benefit_grant", "customer_seat.assigned": "customer_seat", "member.created": "member",
				"order.paid": `"order"`, "refund.created": "refund", "subscription.active": "subscription",
			} {
				if _, ok := samples[object]; !ok {
					t.Errorf("no sample of %s", object)
					continue
				}
				same := all[bool](w, fmt.Sprintf(`select t.doc = e.body::jsonb -> 'data'
					and t.created_at is not distinct from polar.json_time(e.body::jsonb -> 'data', 'created_at')
					and t.modified_at is not distinct from polar.json_time(e.body::jsonb -> 'data', 'modified_at')
					and to_jsonb(t) ->> 'status' is not distinct from e.body::jsonb -> 'data' ->> 'status'
					and to_jsonb(t) ->> 'customer_id' is not distinct from e.body::jsonb -> 'data' ->> 'customer_id'
					  from polar.%s t, polar.event e, polar.event named
					 where named.webhook_id = $1 and t.id = named.object_id::uuid and e.webhook_id = t.version_webhook_id`, table), object)
				if len(same) != 1 || !same[0] {
					t.Errorf("%s: rows and whether they are as sent: %v, want one true", object, same)
				}
			}
		})
	}
}

func TestTheNewerEventWinsByTimestampThenByModifiedAt(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.New()
	named := func(name string, modified float64) doc {
		return customerDoc(id, 0, doc{"name": name, "modified_at": moment(modified)})
	}
	name := func() string { return one[string](w, "select name from polar.customer where id = $1", id) }
	w.send(event("customer.updated", 10, named("first", 5)))
	w.send(event("customer.updated", 9, named("older by timestamp", 6)))
	expect(t, "name", name(), "first")
	w.send(event("customer.updated", 10, named("older by modified_at", 4)))
	expect(t, "name", name(), "first")
	w.send(event("customer.updated", 10, named("newer by modified_at", 6)))
	expect(t, "name", name(), "newer by modified_at")
	w.send(event("customer.updated", 11, named("newer by timestamp", 3)))
	expect(t, "name", name(), "newer by timestamp")
	expect(t, "origin", one[string](w, "select version_from from polar.customer where id = $1", id), "event")
	expect(t, "calls to Polar", len(w.fake.Requests()), 0)
}

func TestTiesOfACheckoutGoToTheStateThatIsFurtherOn(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"open", "expired", "succeeded"}, {"succeeded", "expired", "open"}, {"expired", "succeeded", "open"}} {
		t.Run(strings.Join(order, " "), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			id := uuid.New()
			for _, status := range order {
				w.send(event("checkout.updated", 1, checkoutDoc(id, 0, doc{"status": status})))
			}
			expect(t, "status", one[string](w, "select status from polar.checkout where id = $1", id), "succeeded")
		})
	}
}

func TestADeletionIsFinalForEvents(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.New()
	w.send(event("customer.deleted", 10, customerDoc(id, 0, doc{"deleted_at": moment(10), "external_id": "usr_x"})))
	w.send(event("customer.updated", 99, customerDoc(id, 0, doc{"name": "alive?", "modified_at": moment(98)})),
		event("customer.state_changed", 99, customerDoc(id, 0, doc{"name": "alive?", "active_subscriptions": []any{}})))
	expect(t, "deleted", one[bool](w, "select tombstone and deleted_at is not null and name is null from polar.customer where id = $1", id), true)
	// The same where the deletion arrives last, though it happened first.
	other := uuid.New()
	w.send(event("customer.updated", 99, customerDoc(other, 0, doc{"modified_at": moment(98)})))
	w.send(event("customer.deleted", 10, customerDoc(other, 0, nil)))
	expect(t, "time of deletion, by the event", one[string](w, "select (deleted_at at time zone 'utc')::text from polar.customer where id = $1", other), "2026-08-22 09:00:10")
}

// readBack has Polar asked about an object, as a tie does.
func (w *world) readBack(objectType string, id uuid.UUID) {
	w.t.Helper()
	w.exec(`insert into polar.river_job (kind, args, max_attempts) values ('refresh_object', jsonb_build_object('object_type', $1::text, 'object_id', $2::uuid), 3)`, objectType, id)
	w.settle()
}

func TestOnlyAReadByIDThatShowsItAliveLiftsATombstone(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.MustParse(w.fake.SeedCustomers(1, "usr_")[0])
	w.addUser("usr_0")
	w.send(event("customer.deleted", 10, customerDoc(id, 0, doc{"external_id": "usr_0"})))
	expect(t, "links", one[int64](w, "select count(*) from polar.customer_link"), 0)
	w.readBack("customer", id)
	expect(t, "row", one[string](w, "select concat_ws(' ', tombstone, deleted_at is null, version_from, external_id) from polar.customer where id = $1", id), "f t read usr_0")
	expect(t, "link", one[string](w, "select local_user_id from polar.customer_link where customer_id = $1", id), "usr_0")
	w.send(event("customer.updated", 11, customerDoc(id, 0, doc{"name": "before the read"})))
	expect(t, "name after an older event", one[bool](w, "select name is null from polar.customer where id = $1", id), true)
}

func TestAReadAgainstEventsGoesByModifiedAtThenByPolarsClock(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.MustParse(w.fake.SeedCustomers(1, "usr_")[0])
	created := one[time.Time](w, "select $1::timestamptz", readCreated(t, w, id))
	after := created.Sub(epoch).Seconds()
	// Modified after what the read shows, though the event was built long before the read.
	w.send(event("customer.updated", 10, customerDoc(id, after, doc{"name": "newer", "modified_at": moment(after + 1)})))
	w.readBack("customer", id)
	expect(t, "name after an older read", one[string](w, "select name from polar.customer where id = $1", id), "newer")
	// Now the read shows the later modification.
	if _, err := w.fake.UpdateCustomer(id.String(), `{"name":"as the read has it"}`); err != nil {
		t.Fatal(err)
	}
	w.exec("update polar.customer set version_modified_at = $2 where id = $1", id, created)
	w.readBack("customer", id)
	expect(t, "name after a newer read", one[string](w, "select name || ' ' || version_from from polar.customer where id = $1", id), "as the read has it read")
	// And an event with the same modified_at, built before the read, changes nothing.
	w.send(event("customer.updated", 10, customerDoc(id, after, doc{"name": "older"})))
	expect(t, "name after an older event", one[string](w, "select name from polar.customer where id = $1", id), "as the read has it")
}

func readCreated(t *testing.T, w *world, id uuid.UUID) string {
	t.Helper()
	var c struct {
		CreatedAt string `json:"created_at"`
	}
	if err := json.Unmarshal(w.fake.Customer(id.String()), &c); err != nil {
		t.Fatal(err)
	}
	return c.CreatedAt
}

func TestAChangedStateUpdatesTheFieldsItCarriesAndKeepsItsListsApart(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.New()
	full := func(at float64, fields doc) string {
		return event("customer.updated", at, customerDoc(id, 0, with(doc{"modified_at": moment(at), "only_in_full": at}, fields)))
	}
	state := func(at float64, fields doc) string {
		return event("customer.state_changed", at, with(customerDoc(id, 0, doc{"modified_at": moment(at)}),
			with(doc{"active_subscriptions": []any{doc{"id": "s"}}, "granted_benefits": []any{}, "active_meters": []any{}}, fields)))
	}
	row := func() string {
		return one[string](w, "select concat_ws(' ', name, doc ->> 'only_in_full', doc ? 'active_subscriptions' or doc ? 'granted_benefits' or doc ? 'active_meters') from polar.customer where id = $1", id)
	}
	w.send(state(10, doc{"name": "state-10"}))
	expect(t, "state before any document", row(), "state-10 f")
	w.send(full(5, doc{"name": "full-5"}))
	expect(t, "an older document fills in what the state does not carry", row(), "state-10 5 f")
	w.send(full(20, doc{"name": "full-20"}))
	expect(t, "a newer document", row(), "full-20 20 f")
	w.send(state(15, doc{"name": "state-15"}))
	expect(t, "an older state", row(), "full-20 20 f")
	w.send(state(30, doc{"name": "state-30", "active_subscriptions": []any{}}))
	expect(t, "a newer state", row(), "state-30 20 f")
	expect(t, "lists of the newest state", one[string](w, "select active_subscriptions::text from polar.customer_state where customer_id = $1", id), "[]")
	w.send(full(25, doc{"name": "full-25"}))
	expect(t, "a document newer than the last, older than the state", row(), "state-30 25 f")
	w.noFailures()
}

func TestATieInAnExposedColumnAsksPolarOnceForTheObject(t *testing.T) {
	t.Parallel()
	for _, batched := range []bool{false, true} {
		t.Run(fmt.Sprintf("in one batch: %t", batched), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{offline: true}) // asks after a while, when all ties are in
			id := uuid.MustParse(w.fake.SeedCustomers(1, "usr_")[0])
			var ties []string
			for i := range 4 {
				ties = append(ties, event("customer.updated", 10, customerDoc(id, 0, doc{"name": fmt.Sprint("tie ", i), "modified_at": moment(9)})))
			}
			if batched {
				w.exec("alter sequence polar.event_batch restart 7")
				w.stop()
				for _, body := range ties {
					w.post(uuid.NewString(), body)
				}
				w.exec("update polar.event_log set batch = 7")
				w.startWorker()
				w.settle()
			} else {
				for _, body := range ties {
					w.send(body)
				}
			}
			expect(t, "jobs that ask", one[int64](w, "select count(*) from polar.river_job where kind = 'refresh_object'"), 1)
			waittest.Eventually(t, func() error {
				if from := one[string](w, "select version_from from polar.customer where id = $1", id); from != "read" {
					return fmt.Errorf("the row is still from an %s", from)
				}
				return nil
			})
			expect(t, "reads of the customer", w.fake.Requests()["GET /v1/customers/{id}"], 1)
			w.send(ties[2])
			expect(t, "jobs that ask, after the same once more", one[int64](w, "select count(*) from polar.river_job where kind = 'refresh_object'"), 1)
		})
	}
}

func TestATieInFieldsThatAreNotExposedAsksNobody(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id, checkout := uuid.New(), uuid.New()
	for i := range 3 {
		w.send(event("customer.updated", 10, customerDoc(id, 0, doc{"avatar_url": strconv.Itoa(i), "metadata": doc{"n": i}})),
			event("checkout.updated", 10, checkoutDoc(checkout, 0, doc{"customer_ip_address": strconv.Itoa(i)})))
	}
	expect(t, "jobs that ask", one[int64](w, "select count(*) from polar.river_job where kind = 'refresh_object'"), 0)
}

func TestAPoisonedEventFailsAloneAndItsNeighboursApply(t *testing.T) {
	t.Parallel()
	t.Run("InOneBatch", func(t *testing.T) { poisonedAmongNeighbours(t, true) })
	t.Run("BesideEachOther", func(t *testing.T) { poisonedAmongNeighbours(t, false) })
}

func poisonedAmongNeighbours(t *testing.T, together bool) {
	t.Helper()
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	neighbours := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	bad := func(name, value string) string {
		body := event("customer.updated", 1, customerDoc(uuid.New(), 0, doc{"metadata": "HERE", "name": name}))
		return strings.Replace(body, `"HERE"`, value, 1)
	}
	bodies := map[string]string{
		"neighbour_0":        event("customer.created", 1, customerDoc(neighbours[0], 0, nil)),
		"deep":               bad("deep", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)),
		"refused":            bad("refused", "{}"),
		"neighbour_1":        event("checkout.created", 1, checkoutDoc(neighbours[1], 0, nil)),
		"no_id":              `{"type":"customer.updated","timestamp":"2026-08-22T09:00:00Z","data":{"id":17}}`,
		"no_data":            `{"type":"order.paid","timestamp":"2026-08-22T09:00:00Z"}`,
		"long_number":        bad("long number", strings.Repeat("7", 200_000)),
		"huge_exponent":      bad("huge exponent", "1e999999999"),
		"NUL":                bad(`a\u0000b`, "{}"),
		"lone_surrogate":     bad("HALF", `{"k":"\ud800"}`),
		"invalid_UTF-8":      bad("utf8", "\"\xff\xfe\""),
		"unknown_type":       `{"type":"planet.discovered","data":[1,2]}`,
		"neighbour_2":        event("customer.created", 1, customerDoc(neighbours[2], 0, nil)),
		"unreadable_moments": strings.ReplaceAll(bad("moments", "{}"), moment(0), "yesterday"),
	}
	// Stands for whatever Postgres may refuse of a document.
	w.exec("alter table polar.customer add constraint refused check (name is distinct from 'refused')")
	for id, body := range bodies {
		if status := w.post(id, body); status != http.StatusAccepted {
			t.Errorf("%s: answer %d", id, status)
		}
	}
	if together {
		w.exec("update polar.event_log set batch = (select min(batch) from polar.event_log)") // one batch of all
	}
	w.startWorker()
	w.settle()

	failures := map[string]string{
		"deep": "cannot be mirrored", "refused": "SQLSTATE 23514", "no_id": `no UUID as its id, but "17"`, "no_data": "not a JSON object",
	}
	for id := range bodies {
		state := one[string](w, "select state || coalesce(': ' || error, '') from polar.event where webhook_id = $1", id)
		if want, ok := failures[id]; ok {
			if !strings.HasPrefix(state, "failed: ") || !strings.Contains(state, want) || len(state) > 300 {
				t.Errorf("%s: %q, want a short failure with %q", id, state, want)
			}
		} else if state != "applied" {
			t.Errorf("%s: %q, want applied", id, state)
		}
	}
	expect(t, "neighbours", one[int64](w, "select (select count(*) from polar.customer where id = any ($1)) + (select count(*) from polar.checkout where id = any ($1))", neighbours), 3)
	w.exec("alter table polar.customer drop constraint refused")
	w.post("refused", bodies["refused"])
	w.settle()
	expect(t, "state after its cause is gone and Polar sent it again", one[string](w, "select state from polar.event where webhook_id = 'refused'"), "applied")
	expect(t, "jobs that try again", one[int64](w, "select count(*) from polar.river_job where state not in ('completed')"), 0)
	expect(t, "body kept byte for byte", one[string](w, "select encode(body_bytes, 'hex') from polar.event where webhook_id = 'invalid_UTF-8'"), fmt.Sprintf("%x", bodies["invalid_UTF-8"]))
}

func TestWhatWaitsTogetherIsAppliedTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	id := uuid.New()
	for i := range 20 {
		w.post(fmt.Sprintf("evt_%d", i), event("customer.updated", float64(i), customerDoc(id, float64(i), doc{"name": fmt.Sprintf("name %d", i)})))
	}
	runner, err := jobs.New(w.store, jobs.Config{API: polar.Config{BaseURL: w.api.URL + "/v1", Token: "polar_oat_test"}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := runner.WorkBatch(t.Context(), one[int64](w, "select batch from polar.event_log where webhook_id = 'evt_7'"), false); err != nil {
		t.Fatal(err)
	}
	expect(t, "events applied", one[int64](w, "select count(*) from polar.event where state = 'applied'"), 20)
	expect(t, "name", one[string](w, "select name from polar.customer where id = $1", id), "name 19")
	expect(t, "transactions that wrote outcomes", one[int64](w, "select count(distinct xmin::text) from polar.event_outcome"), 1)
	expect(t, "jobs done with it", one[int64](w, "select count(*) from polar.river_job where state = 'completed' and finalized_at is not null and attempt = 1"), 20)
}

func TestWhatAFrozenWorkerTookIsTakenUpByAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true, jobs: jobs.Config{RecoveryTime: 600 * time.Millisecond}})
	for i := range 6 {
		w.post(fmt.Sprintf("evt_%d", i), event("customer.created", 0, customerDoc(uuid.New(), 0, nil)))
	}
	took, thaw := make(chan error), make(chan struct{})
	frozen := make(chan error, 1)
	go func() {
		frozen <- w.store.InBoundedTx(context.Background(), 600*time.Millisecond, time.Minute, func(tx *store.Tx) error {
			events, err := tx.TakeEvents(context.Background(), -1, 0, "frozen", 512)
			if len(events) != 6 {
				err = errors.Join(err, fmt.Errorf("%d events taken, want 6", len(events)))
			}
			took <- err
			<-thaw
			return nil
		})
	}()
	if err := <-took; err != nil {
		t.Fatal(err)
	}
	w.startWorker()
	w.settle()
	expect(t, "events applied", one[int64](w, "select count(*) from polar.event where state = 'applied'"), 6)
	close(thaw)
	if err := <-frozen; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("what was frozen committed with %v, want ErrUnavailable", err)
	}
}

func TestALoneEventDoesNotLockTheLargeBatchesBehindIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	var events []store.Delivery
	for range 40 {
		events = append(events, store.Delivery{WebhookID: uuid.NewString(), Type: "planet.discovered", Body: []byte(`{"type":"planet.discovered"}`)})
	}
	large := store.Delivery{WebhookID: uuid.NewString(), Type: "planet.discovered", Body: fmt.Appendf(nil, `{"type":"planet.discovered","is":%q}`, strings.Repeat("round ", 20_000))}
	for _, batch := range [][]store.Delivery{events[:1], events[1:20], events[20:], {large}} {
		if _, err := w.store.InsertEvents(t.Context(), batch, false); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "size of the large one", one[int64](w, "select (args ->> 'size')::bigint from polar.river_job order by id desc limit 1"), 7)
	err := w.store.InTx(t.Context(), func(tx *store.Tx) error {
		taken, err := tx.TakeEvents(t.Context(), one[int64](w, "select min(batch) from polar.event_log"), 1, "test", 21)
		expect(t, "events taken with it", len(taken), 20) // its own job waits too, and takes room
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "jobs left", one[int64](w, "select count(*) from polar.river_job where state = 'available'"), 2)
}

func TestARedeliveryAfterAFailureRunsTheEventAgain(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.New()
	body := event("customer.created", 1, customerDoc(id, 0, nil))
	w.exec("insert into polar.mirrored_organization (organization_id) values (gen_random_uuid())")
	w.post("evt", body)
	w.settle()
	expect(t, "state", one[string](w, "select state from polar.event"), "failed")
	w.exec("update polar.mirrored_organization set organization_id = $1", polarfake.OrganizationID)
	w.stop() // it has remembered the other one
	w.startWorker()
	w.post("evt", body)
	w.settle()
	expect(t, "state", one[string](w, "select state || ' after tries: ' || tries from polar.event"), "applied after tries: 2")
	w.post("evt", body)
	w.settle()
	expect(t, "tries after a redelivery of what was applied", one[int32](w, "select tries from polar.event"), 2)
}

func TestAnExternalIDOfTenKilobytesIsMirroredAndLinked(t *testing.T) {
	t.Parallel()
	w := offline(t)
	user := strings.Repeat("usr_", 2560)
	w.addUser(user)
	w.send(event("customer.created", 1, customerDoc(uuid.New(), 0, doc{"external_id": user})))
	expect(t, "linked user", one[string](w, "select local_user_id from polar.customer_link"), user)
	w.noFailures()
}

func TestTheFirstDocumentPinsTheOrganizationAndEventsOfAnotherAreParked(t *testing.T) {
	t.Parallel()
	w := offline(t)
	sandbox := uuid.NewString()
	foreign := []string{
		event("customer.created", 1, customerDoc(uuid.New(), 0, doc{"organization_id": sandbox})),
		event("checkout.created", 1, checkoutDoc(uuid.New(), 0, doc{"organization_id": sandbox})),
		event("customer.state_changed", 1, customerDoc(uuid.New(), 0, doc{"organization_id": sandbox})),
		event("organization.updated", 1, doc{"id": sandbox}),
	}
	w.send(event("customer.created", 1, customerDoc(uuid.New(), 0, nil)))
	w.send(foreign...)
	for _, reason := range all[string](w, "select coalesce(error, 'none') from polar.event where seq > (select min(seq) from polar.event)") {
		if !strings.Contains(reason, sandbox) || !strings.Contains(reason, polarfake.OrganizationID) {
			t.Errorf("the error %q does not name both organizations", reason)
		}
	}
	expect(t, "rows", one[string](w, `select concat_ws(' ', (select count(*) from polar.customer), (select count(*) from polar.checkout),
		(select count(*) from polar.customer_state), (select count(*) from polar.organization))`), "1 0 0 0")
}

func TestATokenOfAnotherOrganizationIsRefusedAtTheStartAndBeforeTheFirstCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, tune: (*jobs.Runner).AskAtOnce})
	if err := w.runner.CheckOrganization(t.Context()); err != nil {
		t.Errorf("nothing is mirrored yet: %v", err)
	}
	w.exec("insert into polar.mirrored_organization (organization_id) values (gen_random_uuid())")
	var other *jobs.OtherOrganizationError
	if err := w.runner.CheckOrganization(t.Context()); !errors.As(err, &other) || !strings.Contains(err.Error(), "POLAR_ACCESS_TOKEN") {
		t.Errorf("CheckOrganization: %v, want an OtherOrganizationError that names POLAR_ACCESS_TOKEN", err)
	}
	// Polar was away at the start, so that the worker runs: it asks before it reads.
	id := uuid.MustParse(w.fake.SeedCustomers(1, "usr_")[0])
	w.exec(`insert into polar.river_job (kind, args, max_attempts) values ('refresh_object', jsonb_build_object('object_type', 'customer', 'object_id', $1::uuid), 1)`, id)
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(*) from polar.river_job where state = 'discarded'"); n != 1 {
			return fmt.Errorf("%d jobs ended, want 1", n)
		}
		return nil
	})
	expect(t, "reads of the customer", w.fake.Requests()["GET /v1/customers/{id}"], 0)
	expect(t, "customers", one[int64](w, "select count(*) from polar.customer"), 0)
}
