package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestAKeyIsFreeAgainOnceItsRequestFailedOrExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	states := []string{"queued", "creating", "open", "confirmed", "succeeded", "expired", "failed"}
	for _, state := range states {
		key := truenorth.WithKey("order-" + state)
		id := w.ask("usr_ada", key)
		w.exec(`update polar.checkout_request set state = $2, error = 'a reason', url = 'https://example.com', checkout_id = gen_random_uuid() where id = $1`, id, state)
		free := state == "expired" || state == "failed"
		if again := w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.New()}}, key); (again != id) != free {
			t.Errorf("the key of a request that is %s gave a new one: %t, want %t", state, again != id, free)
		}
	}
}

func TestARequestComesBackWhileAnotherTakesItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	w.stop()
	id := w.ask("usr_ada", truenorth.WithKey("order-1"))
	w.exec("update polar.checkout_request set state = 'failed', error = 'given up' where id = $1", id)
	w.exec("update polar.river_job set state = 'cancelled', finalized_at = now()")

	tx, err := w.store.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	other, err := w.client.CreateCheckoutTx(t.Context(), tx, truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}}, truenorth.WithKey("order-1"))
	if err != nil {
		t.Fatal(err)
	}
	w.startWorker()
	session := uuid.New()
	if status := w.post(uuid.NewString(), checkoutEvent(session, id, "open", time.Now())); status != http.StatusAccepted {
		t.Fatalf("the event got %d", status)
	}
	waittest.Eventually(t, func() error {
		if n := one[int64](w, "select count(*) from pg_locks l join pg_database d on d.oid = coalesce(l.database, d.oid) and d.datname = current_database() where not l.granted"); n == 0 {
			return errors.New("nothing waits for the transaction")
		}
		return nil
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if request := w.await(id, "open"); request.CheckoutID != session || request.Key != "" {
		t.Errorf("it came back with session %s and key %q, want %s and none", request.CheckoutID, request.Key, session)
	}
	if request := w.await(other, "open"); request.Key != "order-1" {
		t.Errorf("the other has key %q", request.Key)
	}
	if failed := all[string](w, "select error from polar.event where state = 'failed'"); len(failed) > 0 {
		t.Errorf("the event failed: %q", failed)
	}
}

func TestATransactionThatAsksTwiceWithOneKeyGetsOneRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	ids := all[uuid.UUID](w, `select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'seats', n), 'order-1') from generate_series(1, 3) n`, oneTime.String())
	if ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("one key gave %v", ids)
	}
	if jobs := one[int64](w, "select count(*) from polar.river_job"); jobs != 1 {
		t.Errorf("%d jobs, want 1", jobs)
	}
}

func TestTenThousandRequestsInOneStatement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	const n = 10_000
	w.exec("create table sale (id bigint primary key, request uuid not null)")
	started := time.Now()
	w.exec(`insert into sale (id, request)
		select i, polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'external_customer_id', 'usr_' || i), 'sale-' || i)
		  from generate_series(1, $2::int) i`, oneTime.String(), n)
	t.Logf("%d requests in %s", n, time.Since(started).Round(time.Millisecond))
	if got := one[int](w, `select count(*)::int from sale s join polar.checkout_request r on r.id = s.request and r.key = 'sale-' || s.id
		join polar.river_job j on j.id = r.job_id and j.args ->> 'request_id' = r.id::text`); got != n {
		t.Errorf("%d requests with their jobs, want %d", got, n)
	}
}

func TestAnExtraFieldIsRefusedUntilTheWorkerIsToldAndAgainOnceItForgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true, jobs: jobs.Config{ExtraFields: []string{"gift_message"}}})
	ask := func() error {
		_, err := w.store.Pool().Exec(t.Context(), `select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'gift_message', 'hello'))`, oneTime.String())
		return err
	}
	refused := func(when string) {
		t.Helper()
		if err, ok := errors.AsType[*pgconn.PgError](ask()); !ok || !strings.Contains(err.Message, "gift_message") || !strings.Contains(err.Hint, "CHECKOUT_EXTRA_FIELDS") {
			t.Errorf("%s it gave %v", when, err)
		}
	}
	refused("before the worker started")
	w.startWorker()
	if err := ask(); err != nil {
		t.Errorf("with a worker that knows the field: %v", err)
	}
	params := truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, Extra: map[string]json.RawMessage{"gift_message": json.RawMessage(`"hello"`)}}
	id := w.askFor(params, truenorth.WithExtraFields("gift_message"))
	w.await(id, "open")
	w.stop()
	w.options.jobs.ExtraFields = nil
	w.startWorker()
	refused("with a worker that does not")
	if known := one[int64](w, "select count(*) from polar.checkout_field where name = 'products'"); known != 1 {
		t.Error("what this release knows was forgotten")
	}
}

func TestAJobWhoseArgsAreNoObjectFailsReadablyAndNeverLoops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	product := oneTime.String()
	for _, tt := range []struct{ name, args, state, words string }{
		{"array", `[]`, "failed", "params"},
		{"number", `5`, "failed", "params"},
		{"text", `"order-7"`, "failed", "params"},
		{"null", `null`, "failed", "params"},
		{"params is an array", `{"params": ["` + product + `"]}`, "failed", "object"},
		{"params is text", `{"params": "{}"}`, "failed", "object"},
		{"params is false", `{"params": false}`, "failed", "object"},
		{"params is null", `{"params": null}`, "failed", "params"},
		{"params is empty", `{"params": {}}`, "failed", "products"},
		{"request_id of a request that is not there", `{"request_id": "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"}`, "failed", "no such request"},
		{"request_id is an object", `{"request_id": {}, "params": {"products": ["` + product + `"]}}`, "failed", "UUID"},
		{"request_id is null", `{"request_id": null, "params": {"products": ["` + product + `"]}}`, "open", ""},
		{"request_id is zero", `{"request_id": "00000000-0000-0000-0000-000000000000", "params": {"products": ["` + product + `"]}}`, "open", ""},
		{"key is a number", `{"key": 7, "params": {"products": ["` + product + `"]}}`, "open", ""},
		{"key is empty", `{"key": "", "params": {"products": ["` + product + `"]}}`, "open", ""},
		{"key is an object", `{"key": {"a": 1}, "params": {"products": ["` + product + `"]}}`, "open", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			job := one[int64](w, "insert into polar.river_job (kind, args) values ('create_checkout', $1::jsonb) returning id", tt.args)
			id := truenorth.RequestIDOfJob(job)
			if strings.HasPrefix(tt.name, "request_id of") {
				id = uuid.MustParse("5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01")
			}
			waittest.Eventually(t, func() error {
				request, err := w.client.Request(t.Context(), id)
				if err == nil && (request.State != tt.state || !strings.Contains(request.Error, tt.words)) {
					err = fmt.Errorf("the request is %s: %q", request.State, request.Error)
				}
				if err != nil {
					return err
				}
				if state := one[string](w, "select state || ' after ' || attempt from polar.river_job where id = $1", job); state != "completed after 1" {
					return fmt.Errorf("its job is %s", state)
				}
				return nil
			})
		})
	}
}
