package store_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// may runs a statement, and is nil where the role may do that, whatever else is wrong with it.
func may(ctx context.Context, s *store.Store, sql string) error {
	tx, err := s.Pool().Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, sql)
	return err
}

func TestEachRoleDoesItsWorkAndNothingElse(t *testing.T) {
	t.Parallel()
	const checkout = `select polar.create_checkout('{"products": ["11111111-1111-4111-8111-111111111111"]}')`
	owner := storetest.New(t)
	for role, test := range map[string]struct{ allowed, refused []string }{
		store.RoleIngest: {
			allowed: []string{"select webhook_id from polar.event_log", "select nextval('polar.event_batch')"},
			refused: []string{
				"select * from polar.customer", "select body from polar.event_log", "update polar.event_log set body = ''", "select * from polar.checkout_request", "select * from polar.change", "select args from polar.river_job", "select * from polar.api_key", checkout,
				"select polar.link_user('usr_ada')", "update polar.event_log set type = 'x'", "delete from polar.event_log", "insert into polar.customer_link values (gen_random_uuid())",
				"update polar.river_job set state = 'completed'", "create table polar.x ()", "drop table polar.event_log", "truncate polar.event_log",
			},
		},
		store.RoleWorker: {
			allowed: []string{"delete from polar.event_log", "update polar.customer set doc = doc", "select * from polar.api_key", checkout, "select polar.link_user('usr_ada')", "select polar.tell_changes(10, '1 h')"},
			refused: []string{
				"create table polar.x ()", "drop table polar.customer", "truncate polar.event_log", "alter table polar.customer disable trigger all",
				"delete from polar.schema_version", "delete from polar.river_migration", "create schema x", "create role x", "reindex table polar.river_job",
			},
		},
		store.RoleApp: {
			allowed: []string{
				checkout, "select polar.link_user('usr_ada')", "select doc from polar.customer", "select * from polar.checkout_request", "select * from polar.user_access",
				"select * from polar.unlinked_customer", "select * from polar.drift", "select * from polar.local_user",
				"select * from polar.change", "select * from polar.told_access", "select * from polar.change_teller", "listen polar_change",
			},
			refused: []string{
				"select * from polar.event", "select body from polar.event_log", "select * from polar.api_key", "update polar.checkout_request set url = 'x'",
				"delete from polar.river_job", "update polar.river_job set args = '{}'", "insert into polar.customer_link values (gen_random_uuid())",
				"insert into polar.local_user (id) values ('usr_eve')", "update polar.customer set doc = '{}'", "create table polar.x ()",
				"insert into polar.change (kind) values ('linked')", "delete from polar.change", "delete from polar.change_due", "select polar.tell_changes(10, '1 h')",
			},
		},
		store.RoleRead: {
			allowed: []string{
				"select id, email from polar.customer", "select webhook_id, type, state, error from polar.event", "select * from polar.user_access", "select * from polar.unlinked_customer",
				"select id, state from polar.checkout_request", "select * from polar.drift", "select * from polar.customer_link", "select * from polar.change",
			},
			refused: []string{
				"select doc from polar.customer", "select base from polar.customer", "select * from polar.customer", "select body from polar.event", "select body_bytes from polar.event_log",
				"select params from polar.checkout_request", "select url from polar.checkout_request", "select url from polar.checkout", "select * from polar.api_key", "select args from polar.river_job", checkout, "select polar.link_user('usr_ada')",
				"insert into polar.local_user (id) values ('usr_eve')", "delete from polar.drift", "delete from polar.change", "create table polar.x ()",
			},
		},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			s := storetest.As(t, owner, role)
			for _, sql := range test.allowed {
				if err := may(t.Context(), s, sql); err != nil {
					t.Errorf("%s may not do its work: %s: %v", role, sql, err)
				}
			}
			for _, sql := range test.refused {
				const insufficientPrivilege = "42501"
				err := may(t.Context(), s, sql)
				if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != insufficientPrivilege {
					t.Errorf("%s: %s: %v, want it refused for want of rights", role, sql, err)
				}
			}
		})
	}
}

func TestWhoMayWriteUsersNeedsNoRightToTheFeed(t *testing.T) {
	t.Parallel()
	owner := storetest.New(t)
	if _, err := owner.Pool().Exec(t.Context(), "grant insert, update on polar.local_user to polar_app"); err != nil {
		t.Fatal(err)
	}
	app := storetest.As(t, owner, store.RoleApp)
	for _, sql := range []string{"insert into polar.local_user (id) values ('usr_ada')", "update polar.local_user set deleted_at = now()"} {
		if _, err := app.Pool().Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if due := column[string](t, owner, "select what || ' ' || array_to_string(users, ' ') from polar.change_due"); len(due) != 2 {
		t.Errorf("due is %q", due)
	}
}

func TestIngestStoresAllKindsOfDeliveriesWithItsRoleAlone(t *testing.T) {
	t.Parallel()
	owner := storetest.New(t)
	s := storetest.As(t, owner, store.RoleIngest)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	deliveries := make([]store.Delivery, 3)
	for i := range deliveries {
		deliveries[i] = store.Delivery{WebhookID: uuid.NewString(), Type: "customer.created", ObjectID: uuid.NewString(), OccurredAt: time.Now(), Body: []byte(`{"type":"customer.created"}`)}
	}
	if stored, err := s.InsertEvents(t.Context(), deliveries, true); err != nil || stored.New != 3 {
		t.Fatalf("storing: %+v, %v", stored, err)
	}
	if _, err := owner.Pool().Exec(t.Context(), `insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'x' from polar.event_log;
		update polar.event_log set body = null`); err != nil {
		t.Fatal(err)
	}
	if stored, err := s.InsertEvents(t.Context(), deliveries, true); err != nil || len(stored.Again) != 3 {
		t.Errorf("redelivered after their bodies went: %+v, %v", stored, err)
	}
}

func TestReadersSeeNoDocumentNoBodyAndNoKey(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	rows, err := s.Pool().Query(t.Context(), `
		select format('%s.%s', c.relname, a.attname),
		       format_type(a.atttypid, null) in ('json', 'jsonb', 'bytea') or a.attname in ('body', 'url') or c.relname like 'river\_%' and c.relname <> 'river_migration' or c.relname = 'api_key',
		       has_column_privilege($1, c.oid, a.attnum, 'select')
		  from pg_class c
		  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
		 where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')`, store.RoleRead)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var hidden, seen int
	for rows.Next() {
		var column string
		var secret, readable bool
		if err := rows.Scan(&column, &secret, &readable); err != nil {
			t.Fatal(err)
		}
		if secret == readable {
			t.Errorf("%s: readable is %t", column, readable)
		}
		if secret {
			hidden++
		} else {
			seen++
		}
	}
	if err := rows.Err(); err != nil || hidden < 40 || seen < 200 {
		t.Errorf("%d columns are hidden and %d are seen (%v): that cannot be all", hidden, seen, err)
	}
}

func TestRolesAreMadeByWhoMayAndMissedByNobodyElse(t *testing.T) {
	t.Parallel()
	// Roles are the server's, so this needs one of its own.
	server, err := embeddedpg.Start(t.Context(), embeddedpg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin := storetest.Open(t, server.URL())
	for _, sql := range []string{"create role plain login password 'plain'", "create database plain owner plain", "create database one", "create database two"} {
		if _, err := admin.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	open := func(database, user string) *store.Store {
		u, err := url.Parse(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		u.Path = "/" + database
		if user != "" {
			u.User = url.UserPassword(user, user)
		}
		return storetest.Open(t, u.String())
	}
	roles := func() (n int) {
		if err := admin.Pool().QueryRow(t.Context(), "select count(*) from pg_roles where rolname like 'polar\\_%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	var log bytes.Buffer
	plain := open("plain", "plain")
	if _, err := plain.Migrate(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatalf("without CREATEROLE: %v", err)
	}
	if n := roles(); n != 0 || !strings.Contains(log.String(), "CREATEROLE") || !strings.Contains(log.String(), store.RoleIngest) {
		t.Errorf("without CREATEROLE there are %d roles, and the log says %q", n, log.String())
	}
	if err := may(t.Context(), plain, `select polar.create_checkout('{"products": ["11111111-1111-4111-8111-111111111111"]}')`); err != nil {
		t.Errorf("without roles, checkouts cannot be asked for: %v", err)
	}

	var group errgroup.Group
	for _, database := range []string{"one", "two"} {
		s := open(database, "")
		group.Go(func() error {
			_, err := s.Migrate(t.Context(), slog.New(slog.DiscardHandler))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("two databases of one server at once: %v", err)
	}
	if n := roles(); n != 4 {
		t.Errorf("there are %d roles, want 4", n)
	}
	// They are there now, so whoever owns the tables may grant to them.
	log.Reset()
	if _, err := plain.Migrate(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil || strings.Contains(log.String(), "CREATEROLE") {
		t.Errorf("with roles that others made: %v, and the log says %q", err, log.String())
	}
}
