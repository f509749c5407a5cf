package console_test

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/console"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// BenchmarkPagesAtScale is every list of the console, its beginning and far behind it, over as many rows as a grown product
// has: TRUENORTH_SCALE million events (default 0.1, of which the memory of any machine holds all), and a tenth of that of customers, users
// and checkout requests. What is looked for is rare: of a thousand customers one is unlinked.
func BenchmarkPagesAtScale(b *testing.B) {
	millions, err := strconv.ParseFloat(os.Getenv("TRUENORTH_SCALE"), 64)
	if err != nil {
		millions = 0.1
	}
	events := int(millions * 1e6)
	people := events / 10
	s := storetest.New(b)
	exec := func(sql string, args ...any) {
		b.Helper()
		if _, err := s.Pool().Exec(b.Context(), sql, args...); err != nil {
			b.Fatalf("%s: %v", sql, err)
		}
	}
	exec(`set synchronous_commit = off`)
	exec(`alter table polar.customer disable trigger user`)
	exec(`alter table polar.customer_link disable trigger user`)
	exec(`alter table polar.checkout_request disable trigger user`)
	exec(`insert into polar.local_user_row (id, email) select 'user_' || n, 'buyer_' || n || '@example.com' from generate_series(1, $1) n`, people)
	exec(`insert into polar.customer (id, doc, version_from) select gen_random_uuid(),
		jsonb_build_object('email', 'buyer_' || n || '@example.com', 'name', 'A buyer', 'external_id', 'user_' || n, 'created_at', now() - n * interval '7 seconds', 'organization_id', gen_random_uuid()), 'event'
		from generate_series(1, $1) n`, people)
	exec(`insert into polar.customer_link (customer_id, local_user_id, basis, linked_at) select id, external_id, 'external_id', created_at from polar.customer where split_part(external_id, '_', 2)::integer % 1000 <> 0`)
	exec(`insert into polar.link_waiting (customer_id, since) select id, created_at from polar.customer where split_part(external_id, '_', 2)::integer % 1000 = 0`)
	exec(`insert into polar.checkout_request (id, params, state, checkout_id, url, expires_at, created_at, updated_at, error, key)
		select gen_random_uuid(), jsonb_build_object('external_customer_id', 'user_' || n), case when n % 1000 = 0 then 'failed' else 'succeeded' end, gen_random_uuid(), 'https://polar.sh/x', now(), now() - n * interval '7 seconds', now() - n * interval '7 seconds',
		       case when n % 1000 = 0 then 'why' end, 'order-' || n from generate_series(1, $1) n`, people)
	exec(`insert into polar.event_log (webhook_id, type, object_id, occurred_at, received_at, batch, body)
		select md5(n::text), case when n % 100000 = 0 then 'refund.created' when n % 3 = 0 then 'order.paid' else 'customer.updated' end, md5((n % $2)::text)::uuid::text, now(), now() - ($1 - n) * interval '0.7 seconds', n,
		       '{"type": "order.paid", "data": {"id": "' || md5((n % $2)::text) || '"}}' from generate_series(1, $1) n`, events, people)
	exec(`insert into polar.event_outcome (seq, state, applied_at, error) select seq, case when seq % 10000 = 0 then 'failed' else 'applied' end, case when seq % 10000 <> 0 then received_at end, case when seq % 10000 = 0 then 'why' end
		from polar.event_log where seq <= $1 - 200`, events)
	exec(`update polar.event_sweep set swept_seq = $1 - 200`, events)
	exec(`insert into polar.link_conflict (customer_id, local_user_id, kind, detail, resolved_at, resolution, resolved_by)
		select gen_random_uuid(), 'user_' || n, 'email_match', 'why', case when n % 1000 > 0 then now() end, case when n % 1000 > 0 then 'dismissed' end, case when n % 1000 > 0 then 'Ada' end from generate_series(1, $1 / 10) n`, people)
	exec(`insert into polar.drift (object_type, object_id, field, cause, resolved_at, resolution)
		select 'checkout', md5(n::text), 'status', 'missed_update', case when n % 1000 > 0 then now() end, case when n % 1000 > 0 then 'repaired' end from generate_series(1, $1 / 10) n`, people)
	exec(`insert into polar.river_job (kind, args, queue, max_attempts, state, attempt, finalized_at)
		select 'apply_events', '{}', 'events', 1000, 'completed', 1, now() - n * interval '0.8 seconds' from generate_series(1, $1 / 10) n`, people)
	exec(`insert into polar.audit (actor, door, action, subject) select 'Ada', 'console', 'link', 'thing ' || n from generate_series(1, $1 / 10) n`, people)
	exec(`vacuum analyze`)

	c, err := console.New(console.Config{Store: s, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	get := func(path string) string {
		answer := httptest.NewRecorder()
		c.ServeHTTP(answer, local(http.MethodGet, path, nil))
		if answer.Code != http.StatusOK {
			b.Fatalf("GET %s answers %d: %s", path, answer.Code, answer.Body)
		}
		return answer.Body.String()
	}
	var customer string
	if err := s.Pool().QueryRow(b.Context(), `select id from polar.customer where external_id = 'user_77'`).Scan(&customer); err != nil {
		b.Fatal(err)
	}
	// Far behind the beginning of a list by time: an address as the list itself makes it, with the time put back.
	far := func(path string) string {
		next := regexp.MustCompile(`rel="next" href="([^"]*)"`).FindStringSubmatch(get(path))
		if next == nil {
			return path
		}
		return regexp.MustCompile(`after=\d{16}`).ReplaceAllStringFunc(html.UnescapeString(next[1]), func(after string) string {
			n, _ := strconv.ParseInt(after[len("after="):], 10, 64)
			return fmt.Sprintf("after=%d", n-int64(people)*7_000_000/2)
		})
	}
	for _, path := range []string{
		"/", "/customers", far("/customers"), "/customers?state=unlinked", far("/customers?state=unlinked"), "/customers?q=buyer_77@example.com",
		"/users", "/users?after=user_5", "/users?q=buyer_77@example.com", "/customers/" + customer, "/user?id=user_77", "/search?q=buyer_77@example.com",
		"/checkouts", far("/checkouts"), "/checkouts?state=failed", far("/checkouts?state=failed"), "/checkouts?state=stuck", "/checkouts?q=user_77",
		"/events", fmt.Sprintf("/events?after=%d", events/2), "/events?type=refund.created", "/events?type=order.paid", "/events?state=failed", "/events?state=failed&type=refund.created",
		"/events?state=received", "/events?from=2026-01-01T00:00&type=refund.created", "/conflicts", "/conflicts?state=all", "/drift", "/drift?cause=missed_update", "/drift?state=all", "/audit",
	} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				get(path)
			}
		})
	}
}
