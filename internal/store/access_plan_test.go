package store_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// populous fills every table that grows with a product's users, with little in each row.
const populous = `
	create function pg_temp.id(name text, n bigint) returns uuid language sql immutable as $$ select md5(name || n)::uuid $$;
	insert into polar.local_user (id) select 'usr_' || n from generate_series(1, 3000) n;
	insert into polar.customer (id, version_from, doc)
		select pg_temp.id('c', n), 'read', jsonb_build_object('external_id', 'usr_' || n, 'type', 'individual') from generate_series(1, 3000) n;
	insert into polar.customer_link (customer_id, local_user_id, basis) select pg_temp.id('c', n), 'usr_' || n, 'external_id' from generate_series(1, 3000) n;
	insert into polar.member (id, version_from, doc)
		select pg_temp.id('m', n), 'read', jsonb_build_object('customer_id', pg_temp.id('c', n % 1500), 'external_id', 'usr_' || n,
		       'role', case when n < 1500 then 'owner' else 'member' end) from generate_series(1, 3000) n;
	insert into polar.checkout_request (id, params, state, checkout_id, url)
		select pg_temp.id('r', n), jsonb_build_object('external_customer_id', 'usr_' || n), 'succeeded', pg_temp.id('k', n), '-' from generate_series(1, 3000) n;
	insert into polar.checkout (id, version_from, doc)
		select pg_temp.id('k', n), 'read', jsonb_build_object('customer_id', pg_temp.id('c', n)) from generate_series(1, 3000) n;
	insert into polar.subscription (id, version_from, doc)
		select pg_temp.id('s', n), 'read', jsonb_build_object('customer_id', pg_temp.id('c', n), 'checkout_id', pg_temp.id('k', n), 'status', 'active') from generate_series(1, 3000) n;
	insert into polar."order" (id, version_from, doc)
		select pg_temp.id('o', n), 'read', jsonb_build_object('customer_id', pg_temp.id('c', n % 2000), 'checkout_id', pg_temp.id('k', n),
		       'subscription_id', case when n % 2 = 0 then pg_temp.id('s', n) end, 'status', 'paid', 'currency', 'eur', 'total_amount', 100) from generate_series(1, 3000) n;
	insert into polar.refund (id, version_from, doc)
		select pg_temp.id('f', n), 'read', jsonb_build_object('order_id', pg_temp.id('o', n), 'status', 'pending') from generate_series(1, 3000) n;
	insert into polar.customer_seat (id, version_from, doc)
		select pg_temp.id('t', n), 'read', jsonb_build_object('customer_id', pg_temp.id('c', n), 'member_id', case when n % 3 > 0 then pg_temp.id('m', n) end,
		       'subscription_id', pg_temp.id('s', n), 'status', 'claimed') from generate_series(1, 3000) n;
	insert into polar.benefit_grant (id, version_from, doc)
		select pg_temp.id('g', n), 'read', jsonb_build_object('customer_id', pg_temp.id('c', n), 'member_id', case when n % 3 > 0 then pg_temp.id('m', n) end,
		       'benefit_id', pg_temp.id('b', 1), case when n % 2 = 0 then 'order_id' else 'subscription_id' end, pg_temp.id(case when n % 2 = 0 then 'o' else 's' end, n), 'is_granted', true)
		  from generate_series(1, 3000) n;
	insert into polar.event_log (webhook_id, type, object_id, occurred_at, batch, body) select n, 'order.paid', pg_temp.id('o', n), now(), n, '{}' from generate_series(1, 10000) n;
	insert into polar.event_outcome (seq, state, applied_at) select seq, 'applied', now() from polar.event_log;`

var readsAll = regexp.MustCompile(`Seq Scan on (\w+|"order")`)

func TestNoAnswerForOneUserReadsAWholeTable(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	conn, err := s.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{populous, "analyze"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		"select * from polar.user_access where local_user_id = 'usr_77'",
		"select * from polar.user_billing where local_user_id = 'usr_77'",
		"select * from polar.user_order where local_user_id = 'usr_77'",
		"select * from polar.user_subscription where local_user_id = 'usr_77'",
		"select * from polar.user_member where local_user_id = 'usr_77'",
		"select * from polar.stuck_checkout where local_user_id = 'usr_77'",
		"select * from polar.event where object_id = '77'",
		"select a.* from (values ('usr_77'), ('usr_78')) u (id) cross join lateral (select * from polar.user_access where local_user_id = u.id offset 0) a",
	} {
		for table := range scans(t, s, sql) {
			t.Errorf("reads all of %s: %s", table, sql)
		}
	}
	if got := scans(t, s, "select local_user_id, kind, until from polar.user_access"); len(got) < 5 {
		t.Errorf("this test sees only %v read for all users, so it would not see what is read for one", got)
	}
}

// scans are the tables that a statement would read from end to end, but for those that stay small.
func scans(t *testing.T, s *store.Store, sql string) map[string]bool {
	t.Helper()
	rows, err := s.Pool().Query(t.Context(), "explain "+sql)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string]bool{}
	for _, m := range readsAll.FindAllStringSubmatch(strings.Join(plan, "\n"), -1) {
		switch m[1] {
		case "organization", "product", "benefit":
		default:
			whole[m[1]] = true
		}
	}
	return whole
}

// Whoever is forgotten is forgotten under locks that keep everybody else from the mirror.
func TestForgettingACustomerReadsNoWholeTableOfTheMirror(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	for _, sql := range []string{populous, "analyze"} {
		if _, err := s.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := s.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), "select polar.forget_customer(md5('c77')::uuid, 'test', 'asked')"); err != nil {
		t.Fatal(err)
	}
	rows, err := tx.Query(t.Context(), "select relname::text from pg_stat_xact_user_tables where schemaname = 'polar' and relname <> 'event_log' and seq_tup_read >= 1000 order by 1")
	if err != nil {
		t.Fatal(err)
	}
	read, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	// The log was read by what filled it. Requests are read before the locks: what was asked for with a customer's id has no index.
	if want := []string{"checkout_request"}; !slices.Equal(read, want) {
		t.Errorf("read from end to end: %v, want %v", read, want)
	}
}
