package store_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// Of every case, each row of user_access as: user, kind, object, via, status, and when it ends where it does.
func TestUserAccessGivesWhatIsTheUsersNowAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ seed, want string }{
		"a subscription of the linked customer": {`
			user ada
			customer c1 external_id=ada
			link c1 user=ada
			subscription s1 customer_id=c1`, `
			ada subscription s1 link active`},
		"each status": {`
			user ada
			customer c1
			link c1 user=ada
			subscription active customer_id=c1 status=active
			subscription trialing customer_id=c1 status=trialing trial_end=+5d
			subscription incomplete customer_id=c1 status=incomplete
			subscription incomplete_expired customer_id=c1 status=incomplete_expired
			subscription canceled customer_id=c1 status=canceled ended_at=-1d
			subscription paused customer_id=c1 status=paused
			subscription unheard_of customer_id=c1 status=unheard_of`, `
			ada subscription active link active
			ada subscription trialing link trialing`},
		"canceled but paid until": {`
			user ada
			customer c1
			link c1 user=ada
			subscription ends customer_id=c1 cancel_at_period_end=true ends_at=+3d current_period_end=+3d
			subscription period_ends customer_id=c1 cancel_at_period_end=true current_period_end=+2d
			subscription pauses customer_id=c1 pause_at_period_end=true current_period_end=+4d
			subscription trial_ends customer_id=c1 status=trialing cancel_at_period_end=true ends_at=+1d`, `
			ada subscription ends link active +72h
			ada subscription pauses link active +96h
			ada subscription period_ends link active +48h
			ada subscription trial_ends link trialing +24h`},
		"canceled and over, though nobody has said so": {`
			user ada
			customer c1
			link c1 user=ada
			benefit b1
			subscription s1 customer_id=c1 cancel_at_period_end=true ends_at=-1m
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1`, ``},
		"renewed late: what nobody has canceled goes on": {`
			user ada
			customer c1
			link c1 user=ada
			subscription s1 customer_id=c1 current_period_end=-2h`, `
			ada subscription s1 link active`},
		"overdue, in the grace of seven days and beyond": {`
			organization o1
			user ada
			customer c1
			link c1 user=ada
			subscription within customer_id=c1 status=past_due past_due_at=-6d
			subscription beyond customer_id=c1 status=past_due past_due_at=-8d
			subscription unpaid customer_id=c1 status=unpaid past_due_at=-1d
			subscription ends_before customer_id=c1 status=past_due past_due_at=-1d ends_at=+2d
			subscription no_time customer_id=c1 status=past_due`, `
			ada subscription ends_before link past_due +48h
			ada subscription unpaid link unpaid +144h
			ada subscription within link past_due +24h`},
		"overdue where no grace is known: the benefits say": {`
			user ada
			customer c1
			link c1 user=ada
			benefit b1
			subscription s1 customer_id=c1 status=past_due past_due_at=-1m
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1`, `
			ada benefit g1 link granted`},
		"what was bought once, by the status of its order": {`
			user ada
			customer c1
			link c1 user=ada
			order paid customer_id=c1
			order partially_refunded customer_id=c1 status=partially_refunded refunded_amount=100
			order refunded customer_id=c1 status=refunded refunded_amount=1900
			order void customer_id=c1 status=void paid=false
			order pending customer_id=c1 status=pending paid=false
			order draft customer_id=c1 status=draft paid=false
			order paid_in_name_only customer_id=c1 status=paid paid=false`, `
			ada product paid link paid
			ada product partially_refunded link partially_refunded`},
		"refunded in part, its benefits revoked": {`
			user ada
			customer c1
			link c1 user=ada
			order kept customer_id=c1 status=partially_refunded
			refund r1 order_id=kept customer_id=c1 amount=100
			refund r2 order_id=kept customer_id=c1 amount=100 revoke_benefits=true status=failed
			order revoked customer_id=c1 status=partially_refunded
			refund r3 order_id=revoked customer_id=c1 amount=100 revoke_benefits=true`, `
			ada product kept link partially_refunded`},
		"an order of a subscription is no product by itself": {`
			user ada
			customer c1
			link c1 user=ada
			subscription s1 customer_id=c1 status=canceled ended_at=-1h
			order o1 customer_id=c1 subscription_id=s1 billing_reason=subscription_create`, ``},
		"benefits granted, revoked, failed, and of a benefit that is no more": {`
			user ada
			customer c1
			link c1 user=ada
			benefit b1
			benefit gone is_deleted=true
			benefit_grant granted customer_id=c1 benefit_id=b1
			benefit_grant revoked customer_id=c1 benefit_id=b1 is_granted=false is_revoked=true revoked_at=-1h
			benefit_grant both customer_id=c1 benefit_id=b1 is_revoked=true
			benefit_grant failed customer_id=c1 benefit_id=b1 is_granted=false granted_at=null
			benefit_grant of_gone customer_id=c1 benefit_id=gone
			benefit_grant deleted customer_id=c1 benefit_id=b1 deleted=true
			benefit_grant of_unknown customer_id=c1 benefit_id=not_mirrored`, `
			ada benefit granted link granted
			ada benefit of_unknown link granted`},
		"a benefit ends with its canceled subscription": {`
			user ada
			customer c1
			link c1 user=ada
			benefit b1
			subscription s1 customer_id=c1 cancel_at_period_end=true ends_at=+3d
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1`, `
			ada benefit g1 link granted +72h
			ada subscription s1 link active +72h`},

		"bought in ada's own checkout, put on grace's customer by an e-mail address": {`
			user ada
			user grace
			customer c1 external_id=grace
			link c1 user=grace
			member m1 customer_id=c1 external_id=grace role=owner
			benefit b1
			request k1 user=ada
			subscription s1 customer_id=c1 checkout_id=k1
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1 member_id=m1
			request k2 user=ada
			order o2 customer_id=c1 checkout_id=k2
			benefit_grant g2 customer_id=c1 order_id=o2 benefit_id=b1 member_id=m1
			order o3 customer_id=c1
			benefit_grant g3 customer_id=c1 order_id=o3 benefit_id=b1 member_id=m1`, `
			ada benefit g1 checkout granted
			ada benefit g2 checkout granted
			ada product o2 checkout paid
			ada subscription s1 checkout active
			grace benefit g3 link granted
			grace product o3 link paid`},
		"the same, with a customer who is nobody's": {`
			user ada
			customer c1
			benefit b1
			request k1 user=ada
			subscription s1 customer_id=c1 checkout_id=k1
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1`, `
			ada benefit g1 checkout granted
			ada subscription s1 checkout active`},
		"the buyer of the checkout is deleted: the link decides": {`
			user ada deleted_at=-1h
			user grace
			customer c1 external_id=grace
			link c1 user=grace
			benefit b1
			request k1 user=ada
			subscription s1 customer_id=c1 checkout_id=k1
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1`, `
			grace benefit g1 link granted
			grace subscription s1 link active`},
		"a checkout for the user whose customer it is": {`
			user ada
			customer c1 external_id=ada
			link c1 user=ada
			member m1 customer_id=c1 external_id=ada role=owner
			benefit b1
			request k1 user=ada
			subscription s1 customer_id=c1 checkout_id=k1
			benefit_grant g1 customer_id=c1 subscription_id=s1 benefit_id=b1 member_id=m1`, `
			ada benefit g1 checkout granted
			ada subscription s1 checkout active`},
		"an open checkout gives nothing, nor does a confirmed one": {`
			user ada
			customer c1 external_id=ada
			link c1 user=ada
			request k1 user=ada state=open expires_at=+1d
			checkout k1 status=open external_customer_id=ada
			request k2 user=ada state=confirmed expires_at=+1d
			checkout k2 status=confirmed customer_id=c1`, ``},

		"a deleted user": {`
			user ada deleted_at=-1h
			customer c1 external_id=ada
			link c1 user=ada
			member m1 customer_id=c1 external_id=ada role=owner
			benefit b1
			subscription s1 customer_id=c1
			order o1 customer_id=c1
			benefit_grant g1 customer_id=c1 benefit_id=b1 member_id=m1`, ``},
		"a deleted customer, also in the user's own checkout": {`
			user ada
			customer c1 external_id=ada deleted=true
			link c1 user=ada
			member m1 customer_id=c1 external_id=ada role=owner
			benefit b1
			request k1 user=ada
			subscription s1 customer_id=c1 checkout_id=k1
			order o1 customer_id=c1
			benefit_grant g1 customer_id=c1 benefit_id=b1 member_id=m1`, ``},
		"a deleted subscription, order and seat": {`
			user ada
			customer c1
			link c1 user=ada
			member m1 customer_id=c1 external_id=ada
			subscription s1 customer_id=c1 deleted=true
			order o1 customer_id=c1 deleted=true
			subscription s2 customer_id=c1 seats=3
			customer_seat t1 customer_id=c1 subscription_id=s2 member_id=m1 deleted=true
			subscription s3 customer_id=c1 seats=3 deleted=true
			customer_seat t2 customer_id=c1 subscription_id=s3 member_id=m1`, ``},
		"an id that went from one customer to another": {`
			user ada
			customer old external_id=ada deleted=true
			subscription s1 customer_id=old
			customer new external_id=ada
			link new user=ada
			subscription s2 customer_id=new`, `
			ada subscription s2 link active`},
		"two customers of one user": {`
			user ada
			customer c1 external_id=ada
			customer c2
			link c1 user=ada
			link c2 user=ada basis=manual
			subscription s1 customer_id=c1
			order o2 customer_id=c2`, `
			ada product o2 link paid
			ada subscription s1 link active`},
		"somebody else's, and nobody's": {`
			user ada
			user grace
			customer c1 external_id=ada email=ada@example.com
			customer c2 email=ada@example.com
			link c1 user=grace basis=manual
			subscription s1 customer_id=c1
			subscription s2 customer_id=c2`, `
			grace subscription s1 link active`},

		"seats claimed, pending and revoked; the buyer holds none": {`
			user boss
			user ada
			user grace
			user linus
			customer team type=team external_id=boss
			link team user=boss
			member owner customer_id=team external_id=boss role=owner
			member m1 customer_id=team external_id=ada
			member m2 customer_id=team external_id=grace
			member m3 customer_id=team external_id=linus
			benefit b1
			subscription s1 customer_id=team seats=5
			customer_seat t1 customer_id=team subscription_id=s1 member_id=m1
			benefit_grant g1 customer_id=team subscription_id=s1 benefit_id=b1 member_id=m1
			customer_seat t2 customer_id=team subscription_id=s1 member_id=m2 status=pending claimed_at=null
			customer_seat t3 customer_id=team subscription_id=s1 member_id=m3 status=revoked revoked_at=-1h
			benefit_grant g3 customer_id=team subscription_id=s1 benefit_id=b1 member_id=m3 is_granted=false is_revoked=true`, `
			ada benefit g1 member granted
			ada subscription s1 seat active`},
		"the buyer holds a seat: as owner with an id, and as owner known by the link alone": {`
			user boss
			user lead
			customer team type=team external_id=boss
			link team user=boss
			member owner customer_id=team external_id=boss role=owner
			subscription s1 customer_id=team seats=5
			customer_seat t1 customer_id=team subscription_id=s1 member_id=owner
			customer crew type=team
			link crew user=lead basis=manual
			member captain customer_id=crew role=owner
			benefit b1
			order o1 customer_id=crew seats=2
			customer_seat t2 customer_id=crew order_id=o1 member_id=captain
			benefit_grant g2 customer_id=crew order_id=o1 benefit_id=b1 member_id=captain`, `
			boss subscription s1 seat active
			lead benefit g2 link granted
			lead product o1 seat paid`},
		"a seat of a subscription that is over, overdue beyond grace, or refunded": {`
			user ada
			customer team type=team
			member m1 customer_id=team external_id=ada
			subscription s1 customer_id=team seats=2 status=canceled ended_at=-1h
			customer_seat t1 customer_id=team subscription_id=s1 member_id=m1
			subscription s2 customer_id=team seats=2 status=past_due past_due_at=-1h
			customer_seat t2 customer_id=team subscription_id=s2 member_id=m1
			order o3 customer_id=team seats=2 status=refunded
			customer_seat t3 customer_id=team order_id=o3 member_id=m1
			subscription s4 customer_id=team seats=2 cancel_at_period_end=true ends_at=+1d
			customer_seat t4 customer_id=team subscription_id=s4 member_id=m1`, `
			ada subscription s4 seat active +24h`},
		"a member of two teams, and a namesake in a third": {`
			user ada
			customer red type=team
			customer blue type=team
			customer green type=team
			member r1 customer_id=red external_id=ada
			member b1 customer_id=blue external_id=ada
			member g1 customer_id=green external_id=Ada
			subscription s_red customer_id=red seats=2
			subscription s_blue customer_id=blue seats=2
			subscription s_green customer_id=green seats=2
			customer_seat t1 customer_id=red subscription_id=s_red member_id=r1
			customer_seat t2 customer_id=blue subscription_id=s_blue member_id=b1
			customer_seat t3 customer_id=green subscription_id=s_green member_id=g1`, `
			ada subscription s_blue seat active
			ada subscription s_red seat active`},
		"a member who left, and a team that was deleted": {`
			user ada
			customer red type=team
			member r1 customer_id=red external_id=ada deleted=true
			subscription s1 customer_id=red seats=2
			customer_seat t1 customer_id=red subscription_id=s1 member_id=r1
			customer blue type=team deleted=true
			member b1 customer_id=blue external_id=ada
			subscription s2 customer_id=blue seats=2
			customer_seat t2 customer_id=blue subscription_id=s2 member_id=b1`, ``},
		"two seats of one subscription are one": {`
			user ada
			customer team type=team
			link team user=ada
			member owner customer_id=team role=owner
			member m1 customer_id=team external_id=ada
			subscription s1 customer_id=team seats=2
			customer_seat t1 customer_id=team subscription_id=s1 member_id=owner
			customer_seat t2 customer_id=team subscription_id=s1 member_id=m1`, `
			ada subscription s1 seat active`},
		"seats of the model before members: the holder is a customer": {`
			user boss
			user ada
			customer team external_id=boss
			link team user=boss
			customer holder external_id=ada
			link holder user=ada
			benefit b1
			subscription s1 customer_id=team seats=2
			customer_seat t1 customer_id=holder subscription_id=s1
			benefit_grant g1 customer_id=holder subscription_id=s1 benefit_id=b1`, `
			ada benefit g1 link granted
			ada subscription s1 seat active`},
		"bought by the seat in ada's own checkout for a team: seats go to who holds them": {`
			user ada
			user grace
			customer team type=team external_id=grace
			link team user=grace
			member owner customer_id=team external_id=grace role=owner
			benefit b1
			request k1 user=ada
			subscription s1 customer_id=team checkout_id=k1 seats=2
			customer_seat t1 customer_id=team subscription_id=s1 member_id=owner
			benefit_grant g1 customer_id=team subscription_id=s1 benefit_id=b1 member_id=owner`, `
			grace benefit g1 link granted
			grace subscription s1 seat active`},
		"a grant to another member of the team is not the owner's": {`
			user boss
			user ada
			customer team type=team external_id=boss
			link team user=boss
			member owner customer_id=team external_id=boss role=owner
			member m1 customer_id=team external_id=ada
			member m2 customer_id=team email=nobody@example.com
			benefit b1
			benefit_grant g1 customer_id=team benefit_id=b1 member_id=m1
			benefit_grant g2 customer_id=team benefit_id=b1 member_id=m2
			benefit_grant g3 customer_id=team benefit_id=b1 member_id=not_mirrored
			benefit_grant g4 customer_id=team benefit_id=b1`, `
			ada benefit g1 member granted
			boss benefit g4 link granted`},
		"the owner's grant where the link names another user than the member": {`
			user ada
			user grace
			customer c1 external_id=ada
			link c1 user=grace basis=manual
			member m1 customer_id=c1 external_id=ada role=owner
			customer c2 external_id=gone
			link c2 user=grace basis=manual
			member m2 customer_id=c2 external_id=gone role=owner
			benefit b1
			benefit_grant g1 customer_id=c1 benefit_id=b1 member_id=m1
			benefit_grant g2 customer_id=c2 benefit_id=b1 member_id=m2`, `
			ada benefit g1 member granted
			grace benefit g2 link granted`},
		"a grant whose member is not mirrored, of a customer who is no team": {`
			user ada
			customer c1 external_id=ada
			link c1 user=ada
			benefit b1
			benefit_grant g1 customer_id=c1 benefit_id=b1 member_id=not_mirrored`, `
			ada benefit g1 link granted`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newSeed(t)
			d.Sow(c.seed)
			got := d.access()
			if diff := cmp.Diff(lines(c.want), got); diff != "" {
				t.Errorf("user_access differs (-want +got):\n%s", diff)
			}
			d.askByUser(got)
		})
	}
}

// seed is a database with data in it, whose access is asked for.
type seed struct {
	*storetest.Seed

	t *testing.T
}

func newSeed(t *testing.T) *seed {
	t.Helper()
	return &seed{storetest.NewSeed(t), t}
}

// lines are the lines of a text that are not empty.
func lines(text string) []string {
	list := []string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

// access is all of user_access, a line a row.
func (d *seed) access() []string {
	d.t.Helper()
	return d.accessOf("select local_user_id, kind, object_id, via, status, until from polar.user_access")
}

func (d *seed) accessOf(sql string, args ...any) []string {
	d.t.Helper()
	rows, err := d.Pool().Query(context.Background(), sql, args...)
	if err != nil {
		d.t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var (
			user, kind, via, status string
			object                  uuid.UUID
			until                   *time.Time
		)
		err := row.Scan(&user, &kind, &object, &via, &status, &until)
		line := strings.Join([]string{user, kind, d.Name(object), via, status}, " ")
		if until != nil {
			line += " +" + strings.TrimSuffix(until.Sub(d.Began).String(), "0m0s")
		}
		return line, err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// askByUser proves that asking for one user gives what the whole view holds of that user.
func (d *seed) askByUser(all []string) {
	d.t.Helper()
	for _, user := range column[string](d.t, d.Store, "select id from polar.local_user") {
		want := []string{}
		for _, line := range all {
			if strings.HasPrefix(line, user+" ") {
				want = append(want, line)
			}
		}
		got := d.accessOf("select local_user_id, kind, object_id, via, status, until from polar.user_access where local_user_id = $1", user)
		if diff := cmp.Diff(want, got); diff != "" {
			d.t.Errorf("asked for %s, user_access answers otherwise than as a whole (-whole +asked):\n%s", user, diff)
		}
	}
}

func TestUserAccessGoesByTheProductsOwnUsersTable(t *testing.T) {
	t.Parallel()
	d := newSeed(t)
	d.Exec("users", "create table public.accounts (id bigint primary key, gone date); insert into public.accounts values (7, null), (8, '2026-01-01')")
	if _, err := d.MapLocalUsers(t.Context(), store.MapUsers{Table: "accounts", ID: "id", DeletedAt: "gone"}, store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	d.Sow(`
		customer c7 external_id=7
		customer c8
		link c7 user=7
		link c8 user=8
		subscription s7 customer_id=c7
		subscription s8 customer_id=c8`)
	if diff := cmp.Diff([]string{"7 subscription s7 link active"}, d.access()); diff != "" {
		t.Errorf("user_access differs (-want +got):\n%s", diff)
	}
	d.askByUser(d.access())
}
