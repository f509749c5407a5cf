package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestTheSQLDoorRefusesWhatCannotBeRightAndNamesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	product := oneTime.String()
	for _, tt := range []struct {
		name, params string
		names        string // what the message must name
	}{
		{"null", `null`, "params"},
		{"array", `[]`, "params"},
		{"scalar", `5`, "params"},
		{"no products", `{}`, "products"},
		{"empty products", `{"products": []}`, "products"},
		{"products no array", `{"products": "` + product + `"}`, "products"},
		{"unknown field", `{"products": ["` + product + `"], "external_customerid": "usr_1"}`, "external_customerid"},
		{"prices no object", `{"products": ["` + product + `"], "prices": []}`, "prices"},
		{"price of another product", `{"products": ["` + product + `"], "prices": {"5b1c3a52-0000-4c55-9f4c-0a4a3f7d1c09": []}}`, "5b1c3a52-0000-4c55-9f4c-0a4a3f7d1c09"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := w.store.Pool().Exec(context.Background(), "select polar.create_checkout($1::jsonb)", tt.params)
			refusal, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || refusal.Code != "22023" || !strings.Contains(refusal.Message, tt.names) || refusal.Hint == "" {
				t.Errorf("got %v, want SQLSTATE 22023 naming %q with a hint", err, tt.names)
			}
		})
	}
	t.Run("key of 256 characters", func(t *testing.T) {
		t.Parallel()
		_, err := w.store.Pool().Exec(context.Background(), "select polar.create_checkout($1::jsonb, $2)", `{"products": ["`+product+`"]}`, strings.Repeat("k", 256))
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != "22023" || !strings.Contains(refusal.Message, "key") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("SQL null", func(t *testing.T) {
		t.Parallel()
		_, err := w.store.Pool().Exec(context.Background(), "select polar.create_checkout(null)")
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != "22023" {
			t.Errorf("got %v", err)
		}
	})
}

func TestRequestAndJobAreThereIfAndOnlyIfTheCallersTransactionCommits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	tx, err := w.store.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	params := truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}}
	if _, err := w.client.CreateCheckoutTx(t.Context(), tx, params); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	const counts = "select (select count(*) from polar.checkout_request) || ' ' || (select count(*) from polar.river_job)"
	if got := one[string](w, counts); got != "0 0" {
		t.Errorf("a transaction rolled back left requests and jobs %s", got)
	}
	err = pgx.BeginFunc(t.Context(), w.store.Pool(), func(tx pgx.Tx) error {
		_, err := w.client.CreateCheckoutTx(t.Context(), tx, params)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := one[string](w, counts); got != "1 1" {
		t.Errorf("a transaction committed left requests and jobs %s", got)
	}
	params.Metadata = truenorth.Values{"empty": ""}
	if _, err := w.client.CreateCheckout(t.Context(), params); err == nil {
		t.Error("bad params were taken")
	} else if bad, ok := errors.AsType[*truenorth.ParamsError](err); !ok || bad.Fields[0].Path != "metadata.empty" {
		t.Errorf("bad params gave %v", err)
	}
	if got := one[string](w, counts); got != "1 1" {
		t.Errorf("bad params left requests and jobs %s", got)
	}
}

func TestTwentyTransactionsWithOneKeyGiveOneRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	ids := make(chan uuid.UUID, 20)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			id, err := w.client.CreateCheckout(context.Background(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, Seats: i + 1}, truenorth.WithKey("order-1"))
			if err != nil {
				t.Error(err)
			}
			ids <- id
		})
	}
	all.Wait()
	first := <-ids
	for range 19 {
		if id := <-ids; id != first {
			t.Errorf("one key gave %s and %s", first, id)
		}
	}
	if got := one[string](w, "select (select count(*) from polar.checkout_request) || ' ' || (select count(*) from polar.river_job)"); got != "1 1" {
		t.Errorf("requests and jobs are %s", got)
	}
}

func TestARoleThatMayOnlyExecuteTheFunctionsCanAskAndLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	// Its own database's user owns the schema; the application's role owns nothing.
	role := "app_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	config := w.store.Pool().Config()
	admin, err := pgxpool.New(t.Context(), adminURL(t, config.ConnConfig.Database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	for _, sql := range []string{
		"create role " + role,
		"grant usage on schema polar to " + role,
		"grant execute on function polar.create_checkout(jsonb, text), polar.link_user(text) to " + role,
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), fmt.Sprintf("drop owned by %s; drop role %s", role, role))
		if err != nil {
			t.Error(err)
		}
	})
	w.addUser("usr_app")
	w.exec(`insert into polar.customer (id, version_from, doc) values (gen_random_uuid(), 'event', '{"external_id": "usr_app"}')`)
	err = pgx.BeginFunc(t.Context(), admin, func(tx pgx.Tx) error {
		// A search path of its own must not lead the function astray.
		if _, err := tx.Exec(t.Context(), "create schema evil; create function evil.now() returns timestamptz language sql as 'select null::timestamptz'; grant usage on schema evil to "+role); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), "set local search_path = evil, pg_catalog; set local role "+role); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), "select polar.create_checkout($1)", `{"products": ["`+oneTime.String()+`"]}`); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "select polar.link_user('usr_app')")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "link", one[string](w, "select local_user_id || ' ' || basis from polar.customer_link where linked_at is not null"), "usr_app external_id")
	if n := one[int64](w, "select count(*) from polar.checkout_request where created_at is not null"); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	if _, err := admin.Exec(t.Context(), "set role "+role+"; insert into polar.checkout_request (id, params) values (gen_random_uuid(), '{}')"); err == nil {
		t.Error("the role can write the table itself")
	}
}

func TestAJobInsertedByTheAppsOwnRiverClientIsWorked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	insertOnly, err := river.NewClient(riverpgxv5.New(w.store.Pool()), &river.Config{Schema: "polar"})
	if err != nil {
		t.Fatal(err)
	}
	insert := func(args truenorth.CreateCheckoutArgs) int64 {
		t.Helper()
		var job int64
		err := pgx.BeginFunc(t.Context(), w.store.Pool(), func(tx pgx.Tx) error {
			result, err := insertOnly.InsertTx(t.Context(), tx, args, nil)
			if err == nil {
				job = result.Job.ID
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	args, err := truenorth.NewCreateCheckoutArgs(truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}}, truenorth.WithKey("order-1"))
	if err != nil {
		t.Fatal(err)
	}
	insert(args)
	w.await(args.RequestID, "open")

	unnamed := insert(truenorth.CreateCheckoutArgs{Params: args.Params})
	w.await(truenorth.RequestIDOfJob(unnamed), "open")

	again := args
	again.RequestID = uuid.New()
	insert(again)
	w.settle()
	if n := one[int64](w, "select count(*) from polar.checkout_request where key = 'order-1'"); n != 1 {
		t.Errorf("the same key gave %d requests, want 1", n)
	}
	w.wantSessions(2)
}

func TestAJobWrittenByHandNeverLoops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	product := oneTime.String()
	for _, tt := range []struct {
		name, args string
		state      string
		words      string
	}{
		{"params alone, in the default queue", `{"params": {"products": ["` + product + `"]}}`, "open", ""},
		{"nothing", `{}`, "failed", "params"},
		{"params is a number", `{"params": 5}`, "failed", "object"},
		{"unknown field", `{"params": {"products": ["` + product + `"], "colour": "red"}}`, "failed", "colour"},
		{"request_id is no UUID", `{"request_id": "order-7", "params": {"products": ["` + product + `"]}}`, "failed", "UUID"},
		{"request_id is a number", `{"request_id": 7, "params": {"products": ["` + product + `"]}}`, "failed", "UUID"},
		{"key is too long", `{"key": "` + strings.Repeat("k", 300) + `", "params": {"products": ["` + product + `"]}}`, "failed", "key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			job := one[int64](w, "insert into polar.river_job (kind, args) values ('create_checkout', $1::jsonb) returning id", tt.args)
			id := truenorth.RequestIDOfJob(job)
			waittest.Eventually(t, func() error {
				request, err := w.client.Request(t.Context(), id)
				if err == nil && (request.State != tt.state || !strings.Contains(request.Error, tt.words)) {
					err = fmt.Errorf("the request is %s: %q", request.State, request.Error)
				}
				return err
			})
			waittest.Eventually(t, func() error {
				if state := one[string](w, "select state::text from polar.river_job where id = $1", job); state != "completed" {
					return fmt.Errorf("its job is %s", state)
				}
				return nil
			})
		})
	}
}

// adminURL is the server's superuser in one of its databases.
func adminURL(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(storetest.ServerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	return u.String()
}
