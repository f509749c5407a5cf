package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// What the large database is made of: events of 90 days, and somewhat more that are due to go.
const (
	eventsPerObjects = 48 // events of one buyer, who has six objects: customer, member, checkout, order, subscription, grant
	fillChunk        = 50_000
	bytesPerEvent    = 2400 // of disk, with its share of the mirror, the indexes and the write-ahead log while it is filled
	keptDays         = 90
	oldShare         = 22 // for so many days there is one more, which is older than that
)

// fillFunctions make every id, time and text of a number, so that one database can be filled by several at once. They are
// simple enough to become part of the statements.
const fillFunctions = `
create function bench_id(kind text, n bigint) returns uuid language sql immutable parallel safe
	return md5(kind || n::text)::uuid;
create function bench_note(kind text, n bigint) returns text language sql immutable parallel safe
	return encode(sha512((kind || n::text || 'a')::bytea), 'hex') || encode(sha512((kind || n::text || 'b')::bytea), 'hex')
	    || encode(sha512((kind || n::text || 'c')::bytea), 'hex') || encode(sha512((kind || n::text || 'd')::bytea), 'hex');
create function bench_time(at timestamptz) returns text language sql stable parallel safe
	return to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
create function bench_at(n bigint) returns timestamptz language sql stable parallel safe
	return timestamptz '$NEWEST' - interval '$HOURS hours' * (($EVENTS - n)::float8 / $EVENTS)`

// fillEvents stores the events of a range of seq. Each buyer comes six times in 90 days, with eight events each time.
const fillEvents = `
with event as materialized (
	select v.n, v.buyer, bench_at(v.n) as at,
	       case when v.visit = 0
	            then (array['customer.created', 'checkout.created', 'checkout.updated', 'checkout.updated', 'order.paid', 'subscription.active', 'benefit_grant.created', 'customer.state_changed'])[v.step]
	            else (array['customer.updated', 'member.updated', 'subscription.updated', 'subscription.updated', 'order.updated', 'order.paid', 'benefit_grant.updated', 'customer.state_changed'])[v.step] end as type
	  from (select w.n, w.step, w.visit, case when w.place < w.visit * w.lag then w.place else w.place - w.visit * w.lag end as buyer
	          from (select g.n, 1 + (g.n - 1) % 8 as step, (g.n - 1) / 8 % 6 as visit, least((g.n - 1) / 48, $BUYERS - 1) as place, $BUYERS / 12 as lag
	                  from generate_series($1::bigint, $2::bigint) as g (n)) w) v
), stored as (
	insert into polar.event_log (seq, webhook_id, type, object_id, occurred_at, received_at, batch, body) overriding system value
	select e.n, bench_id('event', e.n)::text, e.type, o.id, e.at - interval '0.8 s', e.at, 1 + (e.n - 1) / 8,
	       '{"type":"' || e.type || '","timestamp":"' || bench_time(e.at) || '","api_version":"2026-10","data":{"id":"' || o.id
	       || '","modified_at":"' || bench_time(e.at) || '","customer_id":"' || bench_id('customer', e.buyer) || '","external_id":"acct_' || e.buyer
	       || '","organization_id":"$ORGANIZATION","metadata":{"note":"' || bench_note('event', e.n) || '"}}}'
	  from event e
	 cross join lateral (select bench_id(split_part(e.type, '.', 1), e.buyer)::text as id) o
)
insert into polar.event_outcome (seq, state, tried_at, applied_at)
select e.n, 'applied', e.at + interval '20 ms', e.at + interval '20 ms' from event e`

// fillMirror stores the objects of a range of buyers. One in a hundred bears no user's id, one that of nobody; one in ten
// has left a checkout that expired.
var fillMirror = []string{
	`insert into polar.local_user (id, email, created_at)
	select 'acct_' || b, 'acct_' || b || '@example.com', bench_at(b * 48 + 1) - interval '1 hour' from generate_series($1::bigint, $2::bigint) b`,

	fillTable("customer", "customer", `'external_id', case b % 100 when 1 then null when 2 then 'gone_' || b else 'acct_' || b end,
		'email', 'acct_' || b || '@example.com', 'email_verified', true, 'type', 'individual', 'name', 'Ada Lovelace', 'billing_name', null, 'locale', null,
		'avatar_url', 'https://www.gravatar.com/avatar/xxx?d=404'`, ""),

	`insert into polar.customer_state (customer_id, doc, active_subscriptions, granted_benefits, active_meters, version_at, version_modified_at, version_webhook_id)
	select c.id, c.doc - 'metadata', jsonb_build_array(jsonb_build_object('id', bench_id('subscription', b), 'status', 'active')),
	       jsonb_build_array(jsonb_build_object('id', bench_id('benefit_grant', b))), '[]', c.version_at, c.version_modified_at, bench_id('event', b * 48 + 8)::text
	  from generate_series($1::bigint, $2::bigint) b join polar.customer c on c.id = bench_id('customer', b)`,

	fillTable("member", "member", `'customer_id', bench_id('customer', b), 'external_id', case when b % 100 not in (1, 2) then 'acct_' || b end,
		'email', 'acct_' || b || '@example.com', 'name', 'Ada Lovelace', 'role', 'owner'`, ""),

	`insert into polar.checkout_request (id, key, params, state, checkout_id, url, expires_at, first_tried_at, attempt, created_at, updated_at)
	select bench_id('request' || k.left_over, b), case when k.left_over = '' then 'cart_' || b end,
	       jsonb_build_object('products', jsonb_build_array('$PRODUCT')) || case when b % 100 in (1, 2) then '{}' else jsonb_build_object('external_customer_id', 'acct_' || b) end,
	       case when k.left_over = '' then 'succeeded' else 'expired' end, bench_id('checkout' || k.left_over, b), 'https://polar.sh/checkout/polar_c_' || bench_id('secret', b),
	       bench_at(b * 48 + 1) + interval '1 hour', bench_at(b * 48 + 1), 1, bench_at(b * 48 + 1), bench_at(b * 48 + 4)
	  from generate_series($1::bigint, $2::bigint) b cross join unnest(array['', 'left']) as k (left_over) where k.left_over = '' or b % 10 = 0`,

	fillTable("checkout", "checkout", fillCheckout("", "succeeded", "bench_id('customer', b)"), ""),
	fillTable("checkout", "checkoutleft", fillCheckout("left", "expired", "null::uuid"), "b % 10 = 0"),

	fillTable(`"order"`, "order", `'status', 'paid', 'paid', true, 'customer_id', bench_id('customer', b), 'product_id', '$PRODUCT', 'subscription_id', bench_id('subscription', b),
		'checkout_id', bench_id('checkout', b), 'discount_id', null, 'billing_reason', 'subscription_create', 'subtotal_amount', 1000, 'discount_amount', 0,
		'net_amount', 1000, 'tax_amount', 190, 'total_amount', 1190, 'refunded_amount', 0, 'refunded_tax_amount', 0, 'currency', 'usd', 'seats', null`, ""),

	fillTable("subscription", "subscription", `'status', case when b % 20 = 0 then 'canceled' else 'active' end, 'customer_id', bench_id('customer', b), 'product_id', '$PRODUCT',
		'checkout_id', bench_id('checkout', b), 'amount', 1000, 'currency', 'usd', 'recurring_interval', 'month', 'recurring_interval_count', 1,
		'current_period_start', bench_time(now() - interval '10 days'), 'current_period_end', bench_time(now() + interval '20 days'),
		'cancel_at_period_end', false, 'started_at', bench_time(bench_at(b * 48 + 5)), 'seats', null`, ""),

	fillTable("benefit_grant", "benefit_grant", `'customer_id', bench_id('customer', b), 'member_id', bench_id('member', b), 'benefit_id', '$BENEFIT',
		'subscription_id', bench_id('subscription', b), 'order_id', null, 'is_granted', b % 20 <> 0, 'granted_at', bench_time(bench_at(b * 48 + 7)),
		'is_revoked', b % 20 = 0, 'revoked_at', null, 'properties', '{}'::jsonb`, ""),

	fillTable("refund", "refund", `'status', 'succeeded', 'reason', 'customer_request', 'order_id', bench_id('order', b), 'customer_id', bench_id('customer', b),
		'amount', 100, 'tax_amount', 19, 'currency', 'usd', 'revoke_benefits', false`, "b % 50 = 0"),

	`insert into polar.customer_link (customer_id, local_user_id, basis, linked_at, checkout_id)
	select bench_id('customer', b), 'acct_' || b, 'checkout', bench_at(b * 48 + 4), bench_id('checkout', b)
	  from generate_series($1::bigint, $2::bigint) b where b % 100 not in (1, 2)`,

	`insert into polar.customer_link_history (customer_id, local_user_id, basis, linked_at)
	select bench_id('customer', b), 'acct_' || b, 'checkout', bench_at(b * 48 + 4)
	  from generate_series($1::bigint, $2::bigint) b where b % 100 not in (1, 2)`,

	`insert into polar.link_conflict (customer_id, local_user_id, kind, checkout_id, detail, detected_at, resolved_at, resolution, resolved_by)
	select bench_id('customer', b), 'acct_' || b, 'email_match', bench_id('checkout', b), 'an older customer was matched by the address that was typed', bench_at(b * 48 + 4),
	       case when b % 2000 <> 1 then now() end, case when b % 2000 <> 1 then 'dismissed' end, case when b % 2000 <> 1 then 'an operator' end
	  from generate_series($1::bigint, $2::bigint) b where b % 1000 = 1`,

	`insert into polar.drift (object_type, object_id, field, local, remote, cause, detected_at, resolved_at, resolution)
	select 'subscription', bench_id('subscription', b)::text, 'status', 'active', 'canceled', 'lost_event', bench_at(b * 48 + 1),
	       case when b % 5000 <> 0 then bench_at(b * 48 + 2) end, case when b % 5000 <> 0 then 'repaired' end
	  from generate_series($1::bigint, $2::bigint) b where b % 100 = 0`,
}

// fillTable stores one object of a type for each buyer, where the condition holds.
func fillTable(table, kind, fields, where string) string {
	if where == "" {
		where = "true"
	}
	return `insert into polar.` + table + ` (id, doc, version_at, version_modified_at, version_from, version_webhook_id)
	select bench_id('` + kind + `', b), jsonb_build_object('id', bench_id('` + kind + `', b), 'organization_id', '$ORGANIZATION',
		'created_at', bench_time(bench_at(b * 48 + 1)), 'modified_at', bench_time(bench_at(b * 48 + 4)), 'metadata', jsonb_build_object('note', bench_note('` + kind + `', b)),
		` + fields + `), bench_at(b * 48 + 4), bench_at(b * 48 + 4), 'event', bench_id('event', b * 48 + 4)::text
	  from generate_series($1::bigint, $2::bigint) b where ` + where
}

func fillCheckout(leftOver, status, customer string) string {
	return `'payment_processor', 'stripe', 'status', '` + status + `', 'client_secret', 'polar_c_' || bench_id('secret', b),
		'url', 'https://polar.sh/checkout/polar_c_' || bench_id('secret', b), 'expires_at', bench_time(bench_at(b * 48 + 1) + interval '1 hour'),
		'success_url', 'https://shop.example/thanks', 'amount', 1000, 'discount_amount', 0, 'net_amount', 1000, 'tax_amount', 190, 'total_amount', 1190,
		'currency', 'usd', 'product_id', '$PRODUCT', 'discount_id', null, 'customer_id', ` + customer + `, 'customer_email', 'acct_' || b || '@example.com',
		'external_customer_id', 'acct_' || b) || jsonb_build_object('metadata', jsonb_build_object('truenorth_request', bench_id('request` + leftOver + `', b), 'note', bench_note('checkout', b))`
}

// fillRest is what there is once: what is sold, runs of the reconciliation, and how far upkeep came.
const fillRest = `
insert into polar.organization (id, doc, version_from) values ('$ORGANIZATION', '{"id": "$ORGANIZATION", "name": "Bench", "slug": "bench"}', 'read') on conflict do nothing;
insert into polar.product (id, doc, version_from) values ('$PRODUCT', '{"id": "$PRODUCT", "name": "Membership", "is_recurring": true}', 'read');
insert into polar.benefit (id, doc, version_from) values ('$BENEFIT', '{"id": "$BENEFIT", "type": "custom", "description": "What members get"}', 'read');
insert into polar.reconcile_run (object_type, state, started_at, finished_at, seen, full_sweep, reached_end)
select t, 'finished', now() - i * interval '1 hour', now() - i * interval '1 hour' + interval '1 minute', 200000, true, true
  from generate_series(500, 1, -1) i, unnest(array['customer', 'checkout', 'order', 'subscription', 'refund', 'member', 'benefit_grant', 'product']) t;
select setval(pg_get_serial_sequence('polar.event_log', 'seq'), $EVENTS), setval('polar.event_batch', 1 + $EVENTS / 8);
update polar.event_sweep set swept_seq = $EVENTS`

// fill stores so many events and the objects that they speak of.
func (b *bench) fill(ctx context.Context, db *database, rows int) (err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(b.postgres.server.DataDir(), &stat); err != nil {
		return fmt.Errorf("looking for room: %w", err)
	}
	if room := stat.Bavail * uint64(stat.Bsize); room < uint64(rows)*bytesPerEvent { //nolint:gosec // both are above zero
		return fmt.Errorf("%d events take %d GB on a disk that has %d GB left", rows, rows*bytesPerEvent>>30, room>>30)
	}
	buyers := max(rows/eventsPerObjects, 1)
	names := strings.NewReplacer(
		"$EVENTS", strconv.Itoa(rows), "$BUYERS", strconv.Itoa(buyers), "$HOURS", strconv.Itoa(24*(keptDays+keptDays/oldShare)),
		"$NEWEST", stamp(time.Now().UTC().Add(-5*time.Minute)),
		"$ORGANIZATION", polarfake.OrganizationID, "$PRODUCT", polarfake.OneTimeProductID, "$BENEFIT", benefitID)
	if err := db.exec(ctx, names.Replace(fillFunctions)); err != nil {
		return err
	}
	// A crash would end the run anyway: until all is stored, nothing is written twice for its sake.
	if err := b.postgres.whole(ctx, false); err != nil {
		return err
	}
	began := time.Now()
	if err := fillRanges(ctx, db, rows, fillChunk, func(ctx context.Context, conn *pgx.Conn, from, to int) error {
		if from > 0 && from%(20*fillChunk) == 0 {
			b.sayf("large: %s events after %.0f s", count(from), time.Since(began).Seconds())
			if err := execOn(ctx, conn, "checkpoint"); err != nil { // the log takes room until then
				return err
			}
		}
		return execOn(ctx, conn, names.Replace(fillEvents), from+1, to)
	}); err != nil {
		return err
	}
	b.sayf("large: the mirror, after %.0f s", time.Since(began).Seconds())
	if err := fillRanges(ctx, db, buyers, fillChunk/10, func(ctx context.Context, conn *pgx.Conn, from, to int) error {
		for _, sql := range fillMirror {
			if err := execOn(ctx, conn, names.Replace(sql), from, to-1); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := db.exec(ctx, names.Replace(fillRest)); err != nil {
		return err
	}
	return b.postgres.whole(ctx, true)
}

// whole turns on or off that the log holds whole pages after a checkpoint.
func (p *postgres) whole(ctx context.Context, on bool) error {
	value := "off"
	if on {
		value = "default"
	}
	if err := p.exec(ctx, "alter system set full_page_writes = "+value); err != nil {
		return err
	}
	return p.exec(ctx, "select pg_reload_conf()")
}

// fillRanges does something to ranges of numbers below n, on two connections at a time.
func fillRanges(ctx context.Context, db *database, n, size int, do func(ctx context.Context, conn *pgx.Conn, from, to int) error) error {
	const connections = 2
	ranges := make(chan int)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(ranges)
		for from := 0; from < n; from += size {
			select {
			case ranges <- from:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range connections {
		group.Go(func() error {
			conn, err := pgx.Connect(ctx, db.relaxed())
			if err != nil {
				return fmt.Errorf("connecting to fill: %w", err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			for from := range ranges {
				if err := do(ctx, conn, from, min(from+size, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func execOn(ctx context.Context, conn *pgx.Conn, sql string, args ...any) error {
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// vacuumed is what autovacuum would have left: two tables at a time.
func vacuumed(ctx context.Context, db *database) error {
	var tables []string
	if err := db.read(ctx, `select array_agg('polar.' || quote_ident(c.relname) order by c.relpages desc, pg_relation_size(c.oid) desc)
		from pg_class c where c.relnamespace = 'polar'::regnamespace and c.relkind = 'r'`, &tables); err != nil {
		return err
	}
	return fillRanges(ctx, db, len(tables), 1, func(ctx context.Context, conn *pgx.Conn, from, _ int) error {
		return execOn(ctx, conn, "vacuum (analyze) "+tables[from])
	})
}
