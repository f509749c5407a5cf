package store_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// accessLaws are queries that find what must not be, whatever the data.
var accessLaws = map[string]string{
	"a row is there twice": `
		select local_user_id || ' ' || kind || ' ' || object_id from polar.user_access
		 group by local_user_id, kind, object_id having count(*) > 1`,
	"a subscription is two users'": `
		select subscription_id::text from polar.user_subscription group by 1 having count(*) > 1`,
	"an order is two users'": `
		select order_id::text from polar.user_order group by 1 having count(*) > 1`,
	"a grant is two users'": `
		select object_id::text from polar.user_access where kind = 'benefit' group by 1 having count(*) > 1`,
	"a member is two users": `
		select member_id::text from polar.user_member group by 1 having count(*) > 1`,
	"a user who is deleted, or no user, has access": `
		select local_user_id from polar.user_access where local_user_id not in (select id from polar.local_user where deleted_at is null)`,
	"something of a deleted customer is in use": `
		select a.object_id::text from polar.user_access a join polar.customer c on c.id = a.customer_id where c.deleted_at is not null`,
	"access is over": `
		select object_id::text from polar.user_access where until <= now()`,
	"user_subscription and user_access disagree": `
		(select u.local_user_id || ' ' || u.via || ' ' || u.subscription_id from polar.user_subscription u
		   left join polar.customer c on c.id = u.customer_id
		  where u.seats is null and u.status in ('active', 'trialing') and (u.until is null or u.until > now()) and c.deleted_at is null)
		except
		select local_user_id || ' ' || via || ' ' || object_id from polar.user_access where kind = 'subscription'`,
	"user_access and user_subscription disagree": `
		select local_user_id || ' ' || via || ' ' || object_id from polar.user_access where kind = 'subscription' and via <> 'seat'
		except
		select local_user_id || ' ' || via || ' ' || subscription_id from polar.user_subscription`,
	"user_order and user_access disagree": `
		(select u.local_user_id || ' ' || u.via || ' ' || u.order_id from polar.user_order u
		   left join polar.customer c on c.id = u.customer_id
		  where u.seats is null and u.subscription_id is null and u.paid and c.deleted_at is null)
		except
		select local_user_id || ' ' || via || ' ' || object_id from polar.user_access where kind = 'product'`,
	"user_access and user_order disagree": `
		select local_user_id || ' ' || via || ' ' || object_id from polar.user_access where kind = 'product' and via <> 'seat'
		except
		select local_user_id || ' ' || via || ' ' || order_id from polar.user_order`,
	"user_billing counts other orders than user_order has": `
		(select local_user_id || ' ' || coalesce(customer_id::text, '-') || ' ' || orders from polar.user_billing where orders > 0)
		except
		select local_user_id || ' ' || coalesce(customer_id::text, '-') || ' ' || count(*) from polar.user_order group by local_user_id, customer_id`,
	"a row of user_billing is there twice": `
		select local_user_id || ' ' || coalesce(customer_id::text, '-') from polar.user_billing group by local_user_id, customer_id having count(*) > 1`,
}

func TestUserAccessHoldsItsLawsWhateverTheData(t *testing.T) {
	t.Parallel()
	for number := range uint64(4) {
		t.Run(fmt.Sprintf("data %d", number), func(t *testing.T) {
			t.Parallel()
			d := newSeed(t)
			lines := anyLines(rand.New(rand.NewPCG(number, 7)))
			d.Sow(lines)
			for law, sql := range accessLaws {
				if broken := column[string](t, d.Store, sql); len(broken) > 0 {
					t.Errorf("%s: %q; of\n%s", law, broken, lines)
				}
			}
			access := d.access()
			if len(access) < 15 {
				t.Errorf("%d rows of access prove little: %q", len(access), access)
			}
			d.askByUser(access)
		})
	}
}

// anyLines is a seed of everything in any state, tied together anyhow.
func anyLines(r *rand.Rand) string {
	var lines strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&lines, format+"\n", args...) }
	pick := func(choices ...string) string { return choices[r.IntN(len(choices))] }
	numbered := func(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, 1+r.IntN(n)) }

	say("organization o1")
	say("benefit b1")
	say("benefit b2 is_deleted=%s", pick("true", "false", "false"))
	for n := range 5 {
		say("user u%d deleted_at=%s", n+1, pick("null", "null", "null", "-1h"))
		say("customer c%d type=%s external_id=%s deleted=%s", n+1, pick("team", "individual"), pick("null", numbered("u", 5)), pick("false", "false", "false", "true"))
	}
	for n := range 4 { // one customer of five is nobody's
		say("link c%d user=%s", n+1, numbered("u", 5))
	}
	for n := range 8 {
		say("request k%d user=%s", n+1, pick(numbered("u", 5), numbered("u", 5), "a_team_of_ours"))
		say("member m%d customer_id=%s external_id=%s role=%s deleted=%s", n+1, numbered("c", 5), pick("null", numbered("u", 5)),
			pick("owner", "member", "billing_manager"), pick("false", "false", "true"))
	}
	checkout := func() string { return pick("null", numbered("k", 8), numbered("k", 8)) }
	// Every third is sold by the seat, and seats are of those alone, as at Polar.
	seats := func(n int) string {
		if n%3 == 0 {
			return "4"
		}
		return "null"
	}
	for n := 1; n <= 60; n++ {
		say("subscription s%d customer_id=%s checkout_id=%s seats=%s status=%s ends_at=%s past_due_at=%s", n, numbered("c", 6), checkout(), seats(n),
			pick("active", "active", "trialing", "past_due", "canceled"), pick("null", "null", "-1h", "+1h"), pick("null", "-1d", "-9d"))
		say("order o%d customer_id=%s checkout_id=%s subscription_id=%s seats=%s status=%s", n, numbered("c", 6), checkout(),
			pick("null", "null", numbered("s", 60)), seats(n), pick("paid", "paid", "partially_refunded", "refunded", "pending"))
	}
	purchase := func(by int) string {
		return fmt.Sprintf("%s%d", pick("subscription_id=s", "order_id=o"), by*(1+r.IntN(60/by)))
	}
	for n := range 40 {
		say("customer_seat t%d customer_id=%s member_id=%s status=%s %s", n, numbered("c", 5), pick("null", numbered("m", 9), numbered("m", 9)),
			pick("claimed", "claimed", "pending", "revoked"), purchase(3))
	}
	for n := range 80 {
		say("benefit_grant g%d customer_id=%s member_id=%s benefit_id=%s is_granted=%s %s", n, numbered("c", 6), pick("null", numbered("m", 9)),
			numbered("b", 3), pick("true", "true", "false"), purchase(1))
	}
	return lines.String()
}
