package truenorth_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// refusal is what Postgres said of a statement; nil where it did it.
func refusal(t *testing.T, err error) *pgconn.PgError {
	t.Helper()
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatal(err)
	}
	return refused
}

// try runs a statement that returns one value, in a savepoint of its own.
func try[T any](t *testing.T, tx pgx.Tx, sql string, args ...any) (value T, refused *pgconn.PgError) {
	t.Helper()
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, sql, args...).Scan(&value) })
	return value, refusal(t, err)
}

// storable tells whether Postgres has room for these arguments at all: what has none never reaches a function.
func storable(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) bool {
	t.Helper()
	_, err := pool.Exec(context.Background(), sql, args...)
	refused := refusal(t, err)
	if refused != nil && !strings.HasPrefix(refused.Code, "22") && !strings.HasPrefix(refused.Code, "54") {
		t.Fatal(refused)
	}
	return refused == nil
}

// FuzzCreateCheckout asks by SQL, with anything. Either 22023 says which argument is at fault, or there is a request with
// its job, which the worker's validation judges without a surprise. What the Go client lets pass, Postgres takes.
func FuzzCreateCheckout(f *testing.F) {
	pool := storetest.New(f).Pool()
	const one = `"products":["5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"]`
	for _, params := range []string{
		`{}`, `null`, `[]`, `1`, `"x"`, `{"products":[]}`, `{"products":{}}`, `{"products":[null,1,"x",{}]}`, `{` + one + `}`,
		`{` + one + `,"prices":{"5B1C3A52-6F0E-4C55-9F4C-0A4A3F7D1C01":[{"amount_type":"fixed","price_amount":500}]}}`,
		`{` + one + `,"prices":[]}`, `{` + one + `,"prices":null}`, `{` + one + `,"prices":{"x":[]}}`, `{` + one + `,"gift":1}`,
		`{` + one + `,"metadata":{"a":1e999,"b":"\u0000"},"customer_name":"%s %I\n"}`, `{"products":["a"],"products":[]}`, `{` + one + `,"amount":1.0}`,
		`{` + one + `,"metadata":{"a":"\ud800"},"customer_metadata":{"%":0.1e-20}}`,
	} {
		f.Add([]byte(params), "order-1", true)
	}
	f.Add([]byte(`{`+one+`}`), "", true)
	f.Add([]byte(`{`+one+`}`), strings.Repeat("ü", 256), true)
	f.Add([]byte(`{`+one+`}`), "'; drop table polar.event_log; --\x00\xff", true)
	f.Add([]byte(`{`+one+`}`), "", false)

	f.Fuzz(func(t *testing.T, params []byte, key string, keyed bool) {
		var given *string
		if keyed {
			given = &key
		}
		invalid := truenorth.ValidateParams(params)
		if !storable(t, pool, "select $1::text::jsonb, $2::text", string(params), given) {
			if invalid == nil && storable(t, pool, "select $1::text", given) {
				t.Fatalf("the client lets %q pass, which jsonb has no room for", params)
			}
			return
		}
		ctx := context.Background()
		tx, err := pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }()

		const ask = "select polar.create_checkout($1::text::jsonb, $2)"
		id, refused := try[uuid.UUID](t, tx, ask, string(params), given)
		badKey := keyed && !keyPasses(t, key)
		if refused != nil {
			if refused.Code != "22023" || !strings.HasPrefix(refused.Message, "create_checkout: ") || refused.Hint == "" || len(refused.Message) > 1000 {
				t.Fatalf("refused by %s %q, hint %q", refused.Code, refused.Message, refused.Hint)
			}
			if invalid == nil && !badKey {
				t.Fatalf("the client lets pass what SQL refuses: %s", refused.Message)
			}
			return
		}
		if badKey {
			t.Fatalf("took the key %q, which the client refuses", key)
		}
		wantQueued(t, tx, id, params, given)
		wantJudged(t, tx, id, invalid)

		again, refused := try[uuid.UUID](t, tx, ask, `{"products":["another"]}`, given)
		if refused != nil || keyed != (again == id) {
			t.Fatalf("asked again with the key %v: request %s after %s (%v)", given, again, id, refused)
		}
	})
}

// keyPasses tells whether the client takes a key.
func keyPasses(t *testing.T, key string) bool {
	t.Helper()
	_, err := truenorth.NewCreateCheckoutArgs(truenorth.CheckoutParams{Products: []uuid.UUID{product}}, truenorth.WithKey(key))
	_, ok := errors.AsType[*truenorth.ParamsError](err)
	if err != nil && !ok {
		t.Fatal(err)
	}
	return err == nil
}

// wantQueued checks that a request stands there as it was asked for, with the one job that works it.
func wantQueued(t *testing.T, tx pgx.Tx, id uuid.UUID, params []byte, key *string) {
	t.Helper()
	found, refused := try[bool](t, tx, `
		select count(*) = 1
		  from polar.checkout_request r
		  join polar.river_job j on j.id = r.job_id and j.kind = 'create_checkout' and j.queue = 'checkouts' and j.state = 'available'
		   and j.args = jsonb_build_object('request_id', r.id, 'key', coalesce(r.key, ''))
		 where r.id = $1 and r.state = 'queued' and r.params = $2::text::jsonb and r.key is not distinct from $3`, id, string(params), key)
	if refused != nil || !found {
		t.Fatalf("request %s does not stand there as it was asked for (%v)", id, refused)
	}
}

// wantJudged checks what the worker will make of a request's params: it finds no fault that SQL looks for, and none that the
// client did not find in the text that was given.
func wantJudged(t *testing.T, tx pgx.Tx, id uuid.UUID, byClient error) {
	t.Helper()
	stored, refused := try[string](t, tx, "select params::text from polar.checkout_request where id = $1", id)
	if refused != nil {
		t.Fatal(refused)
	}
	err := truenorth.ValidateParams([]byte(stored))
	if err == nil {
		var p truenorth.CheckoutParams
		if err := json.Unmarshal([]byte(stored), &p); err != nil {
			t.Fatalf("stored params are valid, and cannot be read: %v\n%s", err, stored)
		}
		return
	}
	if byClient == nil {
		t.Fatalf("the client let pass what the worker refuses: %v\n%s", err, stored)
	}
	faults, ok := errors.AsType[*truenorth.ParamsError](err)
	if !ok {
		t.Fatal(err)
	}
	for _, fault := range faults.Fields {
		if fault.Path == "" && !strings.Contains(fault.Message, "bytes") && !strings.Contains(fault.Message, "nested") ||
			strings.Contains(fault.Message, "is not a field that we know") || fault.Path == "products" || strings.Contains(fault.Message, "is not one of products") {
			t.Fatalf("SQL took what it looks for: %s %s\n%s", fault.Path, fault.Message, stored)
		}
	}
}

// FuzzLinkUser links anybody by SQL. Either 22023 says that the id is none, or the answer tells whether there is a link,
// which there is only between the very same texts.
func FuzzLinkUser(f *testing.F) {
	pool := storetest.New(f).Pool()
	f.Add("", "", true)
	f.Add("usr_1", "usr_1", true)
	f.Add("usr_1", "USR_1", true)
	f.Add("usr_1", "usr_1 ", false)
	f.Add("u\u0308", "\u00fc", true)
	f.Add("'; select pg_sleep(9); --", "'; select pg_sleep(9); --", true)
	f.Add("%s\\\"\n\x1b[2J", "%s\\\"\n\x1b[2J", true)
	f.Add(strings.Repeat("x", 2000), strings.Repeat("x", 2000), true)
	f.Add("a\x00", "\xff", true)
	f.Fuzz(func(t *testing.T, user, external string, signedUp bool) {
		if !storable(t, pool, "select $1::text, $2::text", user, external) {
			return
		}
		ctx := context.Background()
		tx, err := pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }()

		customer := uuid.New()
		_, refused := try[int](t, tx, `
			insert into polar.customer (id, doc, version_from)
			values ($1::text::uuid, jsonb_build_object('id', $1::text, 'external_id', $2::text, 'created_at', now()), 'read') returning 1`, customer.String(), external)
		if refused != nil && refused.Code != "54000" { // no index has room for it
			t.Fatal(refused)
		}
		mirrored := refused == nil
		if signedUp {
			_, refused = try[int](t, tx, "insert into polar.local_user (id) values ($1) returning 1", user)
			if refused != nil && refused.Code != "54000" && (user != "" || !strings.HasPrefix(refused.Code, "23")) {
				t.Fatal(refused)
			}
			signedUp = refused == nil
		}
		linked, refused := try[int](t, tx, "select polar.link_user($1)", user)
		if user == "" {
			if refused == nil || refused.Code != "22023" || !strings.Contains(refused.Message, "id") {
				t.Fatalf("no id gets %v", refused)
			}
			return
		}
		if refused != nil {
			t.Fatalf("refused by %s %q", refused.Code, refused.Message)
		}
		want := 0
		if mirrored && signedUp && user == external {
			want = 1
		}
		if linked != want {
			t.Fatalf("user %q (signed up: %t) and a customer of %q (mirrored: %t): %d links, want %d", user, signedUp, external, mirrored, linked, want)
		}
		links, refused := try[int](t, tx, "select count(*) from polar.customer_link where customer_id = $1 and local_user_id = $2 and basis = 'external_id'", customer, user)
		if refused != nil || links != want {
			t.Fatalf("%d links of %q are written (%v), want %d", links, user, refused, want)
		}
	})
}
