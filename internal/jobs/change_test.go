package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// follower reads the feed as an app does.
type follower struct {
	w      *world
	news   chan truenorth.Change
	cursor int64
}

func (w *world) follow() *follower {
	w.t.Helper()
	f := &follower{w: w, news: make(chan truenorth.Change, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		for change, err := range w.client.Changes(ctx, 0) {
			if err != nil {
				ended <- err
				return
			}
			f.news <- change
		}
	}()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.t.Errorf("the feed ended with %v, not with its context", err)
		}
	})
	return f
}

// expect waits for so many changes, and wants these, in any order among them.
func (f *follower) expect(what string, want ...string) (changes []truenorth.Change) {
	f.w.t.Helper()
	var got []string
	timeout := time.After(20 * time.Second)
	for range want {
		select {
		case c := <-f.news:
			if c.ID <= f.cursor {
				f.w.t.Errorf("%s: change %d came after %d", what, c.ID, f.cursor)
			}
			f.cursor = c.ID
			line := strings.TrimSpace(fmt.Sprintf("%s %s %s", c.LocalUserID, c.Kind, c.Access))
			if c.Again {
				line += " again"
			}
			if !c.Until.IsZero() && c.Kind == truenorth.ChangeAccessGained {
				line += " until"
			}
			got, changes = append(got, line), append(changes, c)
		case <-timeout:
			f.w.t.Fatalf("%s: told %q, want %q", what, got, want)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.w.t.Fatalf("%s: told %q, want %q", what, got, want)
	}
	return changes
}

// silent wants nothing to be told of all that has been written until now.
func (f *follower) silent(what string) {
	f.w.t.Helper()
	f.w.settle()
	f.w.untilTold()
	if newest := one[int64](f.w, "select coalesce(max(id), 0) from polar.change"); newest != f.cursor {
		f.w.t.Errorf("%s: told %q", what, all[string](f.w, "select to_jsonb(c)::text from polar.change c where c.id > $1", f.cursor))
	}
}

// untilTold waits until nothing is due.
func (w *world) untilTold() {
	w.t.Helper()
	waittest.Eventually(w.t, func() error {
		if n := one[int64](w, "select count(*) from polar.change_due"); n > 0 {
			return fmt.Errorf("%d rows are due", n)
		}
		return nil
	})
}

func idIn(t *testing.T, document json.RawMessage, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return idOf(t, document)
}

func TestTheAppIsToldWhatItsUsersGainAndLose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	feed := w.follow()
	w.addUser("usr_ada", "usr_grace", "usr_linus")

	request, err := w.client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{oneTime}, ExternalCustomerID: "usr_ada"}, truenorth.WithKey("cart 7"))
	if err != nil {
		t.Fatal(err)
	}
	session := w.await(request, "open").CheckoutID
	if err := w.fake.Pay(session.String(), polarfake.PayOptions{Email: "ada@example.com", Name: "Ada", Outcome: polarfake.PaymentSucceeds}); err != nil {
		t.Fatal(err)
	}
	order := uuid.Nil
	for _, c := range feed.expect("paid", "usr_ada linked", "usr_ada checkout_succeeded", "usr_ada access_gained product", "usr_ada access_gained benefit") {
		customer := one[uuid.UUID](w, "select id from polar.customer")
		switch {
		case c.CustomerID != customer:
			t.Errorf("%s is told of customer %s, want %s", c.Kind, c.CustomerID, customer)
		case c.Kind == truenorth.ChangeLinked && c.Reason != "checkout" && c.Reason != "external_id":
			t.Errorf("linked on the basis %q", c.Reason)
		case c.Kind == truenorth.ChangeCheckoutSucceeded && (c.RequestID != request || c.CheckoutID != session || c.Key != "cart 7" || c.ProductID != oneTime):
			t.Errorf("the checkout is told as %+v", c)
		case c.Access == truenorth.AccessProduct:
			if order = c.ObjectID; c.ProductID != oneTime || c.OrderID != order || !strings.HasPrefix(c.Reason, "bought once") {
				t.Errorf("the product is told as %+v", c)
			}
		case c.Access == truenorth.AccessBenefit && (c.BenefitID == uuid.Nil || c.ObjectID == uuid.Nil):
			t.Errorf("the benefit is told as %+v", c)
		}
	}
	if _, err := w.fake.RefundOrder(order.String(), polarfake.RefundOptions{RevokeBenefits: true}); err != nil {
		t.Fatal(err)
	}
	feed.expect("refunded", "usr_ada access_lost product", "usr_ada access_lost benefit")

	customer := w.makeCustomer(`{"email": "grace@example.com", "external_id": "usr_grace"}`)
	feed.expect("a customer with the user's id", "usr_grace linked")
	document, err := w.fake.Subscribe(fmt.Sprintf(`{"customer_id": %q, "product_id": %q}`, customer, polarfake.FreeProductID))
	subscription := idIn(t, document, err)
	feed.expect("subscribed", "usr_grace access_gained subscription")
	for _, turn := range []struct {
		what string
		do   func(id string) error
		want []string
	}{
		{"canceled", w.fake.CancelSubscription, []string{"usr_grace access_gained subscription again until"}},
		{"not canceled after all", w.fake.UncancelSubscription, []string{"usr_grace access_gained subscription again"}},
		{"renewed", w.fake.CycleSubscription, nil},
	} {
		if err := turn.do(subscription); err != nil {
			t.Fatalf("%s: %v", turn.what, err)
		}
		feed.expect(turn.what, turn.want...)
		feed.silent(turn.what)
	}
	w.mustUnlink(uuid.MustParse(customer))
	feed.expect("unlinked", "usr_grace access_lost subscription")
	w.mustLink(uuid.MustParse(customer), "usr_grace")
	feed.expect("linked again", "usr_grace linked", "usr_grace access_gained subscription")
	if err := w.fake.RevokeSubscription(subscription); err != nil {
		t.Fatal(err)
	}
	feed.expect("revoked", "usr_grace access_lost subscription")

	if report := replay(t, w.store, store.Replay{}); report.Events == 0 {
		t.Fatal("nothing was replayed")
	}
	feed.silent("replayed")
	w.noFailures()
}

func TestWhoHoldsASeatIsToldWhenItIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	feed := w.follow()
	w.addUser("usr_boss", "usr_linus")
	request := w.askFor(truenorth.CheckoutParams{Products: []uuid.UUID{uuid.MustParse(polarfake.SeatProductID)}, ExternalCustomerID: "usr_boss"})
	session := w.await(request, "open").CheckoutID
	if err := w.fake.Pay(session.String(), polarfake.PayOptions{Email: "boss@example.com", Name: "Boss", Outcome: polarfake.PaymentSucceeds}); err != nil {
		t.Fatal(err)
	}
	feed.expect("the buyer holds no seat", "usr_boss linked", "usr_boss checkout_succeeded")
	subscription := one[string](w, "select id::text from polar.subscription")
	document, err := w.fake.AssignSeat(fmt.Sprintf(`{"subscription_id": %q, "email": "linus@example.com", "external_member_id": "usr_linus"}`, subscription))
	seat := idIn(t, document, err)
	feed.silent("invited")
	if err := w.fake.ClaimSeat(seat); err != nil {
		t.Fatal(err)
	}
	gained := []string{"usr_linus access_gained subscription"}
	lost := []string{"usr_linus access_lost subscription"}
	w.settle()
	for range one[int64](w, "select count(*) from polar.user_access where kind = 'benefit'") {
		gained, lost = append(gained, "usr_linus access_gained benefit"), append(lost, "usr_linus access_lost benefit")
	}
	feed.expect("claimed", gained...)
	if err := w.fake.RevokeSeat(seat); err != nil {
		t.Fatal(err)
	}
	feed.expect("taken back", lost...)
}

func TestWhatEndsByTheClockAloneIsTold(t *testing.T) {
	t.Parallel()
	w := offline(t)
	feed := w.follow()
	w.addUser("usr_ada")
	customer, end := uuid.New(), time.Now().Add(2*time.Second).UTC()
	w.send(
		event("customer.created", 1, doc{"id": customer, "created_at": moment(1), "external_id": "usr_ada"}),
		event("subscription.updated", 2, doc{
			"id": uuid.New(), "created_at": moment(2), "customer_id": customer, "status": "active", "cancel_at_period_end": true, "current_period_end": end.Format(time.RFC3339Nano),
		}))
	feed.expect("to its end", "usr_ada linked", "usr_ada access_gained subscription until")
	lost := feed.expect("at its end", "usr_ada access_lost subscription")[0]
	if lost.At.Before(end) || lost.At.After(end.Add(5*time.Second)) || lost.Reason != "its end has come" {
		t.Errorf("the end at %s was told at %s: %q", end, lost.At, lost.Reason)
	}
}

// In the product's own table no trigger of ours sees who is deleted, and of who is linked to nothing no link ends.
func TestAUserDeletedInTheProductsOwnTableIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	w.exec("create table public.users (id text primary key)")
	w.exec("insert into public.users values ('usr_ada')")
	if _, err := w.store.MapLocalUsers(t.Context(), store.MapUsers{Table: "public.users", ID: "id"}, store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	// Bought in the user's own checkout, by a customer who is linked to nobody.
	customer, session := uuid.New(), uuid.New()
	w.exec(`insert into polar.customer (id, doc, version_from) values ($1, '{}', 'event')`, customer)
	w.exec(`insert into polar.checkout_request (id, params, state, checkout_id, url) values (gen_random_uuid(), '{"external_customer_id": "usr_ada"}', 'succeeded', $1, 'https://polar.sh/x')`, session)
	w.exec(`insert into polar."order" (id, doc, version_from) values (gen_random_uuid(), jsonb_build_object('status', 'paid', 'paid', true, 'customer_id', $1::text, 'checkout_id', $2::text), 'event')`, customer, session)
	tell := func() int {
		t.Helper()
		n, _, err := w.store.TellChanges(t.Context(), 100, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	tell()
	expect(t, "told of access", one[string](w, "select string_agg(kind, ' ') from polar.change where access_kind is not null"), "access_gained")
	w.exec("delete from public.users")
	expect(t, "told before somebody looks", tell(), 0)
	if err := w.store.TellGoneUsers(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	expect(t, "told then", tell(), 1)
	expect(t, "why", one[string](w, "select reason from polar.change where kind = 'access_lost'"), "the user is deleted")
}

// Members and buyers who have become users, of whom nothing is written in the mirror, are found in their turn.
func TestTheWalkFindsWhatNoTriggerSees(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true})
	customer, member, subscription := uuid.New(), uuid.New(), uuid.New()
	w.exec("create table public.users (id text primary key)")
	if _, err := w.store.MapLocalUsers(t.Context(), store.MapUsers{Table: "public.users", ID: "id"}, store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	w.exec(`insert into polar.member (id, version_from, doc) values ($1, 'read', jsonb_build_object('customer_id', $2::text, 'external_id', 'usr_late'))`, member, customer)
	w.exec(`insert into polar.subscription (id, version_from, doc) values ($1, 'read', jsonb_build_object('customer_id', $2::text, 'status', 'active', 'seats', 3))`, subscription, customer)
	w.exec(`insert into polar.customer_seat (id, version_from, doc) values ($1, 'read', jsonb_build_object('customer_id', $2::text, 'member_id', $3::text, 'subscription_id', $4::text, 'status', 'claimed'))`,
		uuid.New(), customer, member, subscription)
	tell := func(turns int) (news int) {
		t.Helper()
		for range turns {
			n, _, err := w.store.TellChanges(t.Context(), 100, 0)
			if err != nil {
				t.Fatal(err)
			}
			news += n
		}
		return news
	}
	expect(t, "told before there is a user", tell(4), 0)
	w.exec("insert into public.users values ('usr_late')")
	expect(t, "told in a round of the walk", tell(4), 1)
	w.exec("delete from public.users")
	expect(t, "told in the next", tell(4), 1)
	expect(t, "told in all", strings.Join(all[string](w, "select kind || ' ' || local_user_id from polar.change order by id"), ", "), "access_gained usr_late, access_lost usr_late")
}

// TestAFollowerOutlivesItsConnections takes away the connection that listens, and that which reads the feed.
func TestAFollowerOutlivesItsConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	feed := w.follow()
	admin := w.asAdmin()
	for n := range 3 {
		user := fmt.Sprintf("usr_%d", n)
		w.addUser(user)
		w.send(event("customer.created", 1, customerDoc(uuid.New(), 0, doc{"external_id": user})))
		feed.expect("linked", user+" linked")
		waittest.Eventually(t, func() error {
			if one[int64](admin, `
				select count(pg_terminate_backend(a.pid)) filter (where a.query like 'listen polar_checkout%') from pg_stat_activity a
				 where a.datname = current_database() and a.pid <> pg_backend_pid()
				   and (a.query like 'listen polar_checkout%' or a.query like '%from polar.change_teller t%join polar.change c%')`) == 0 {
				return errors.New("nobody listens")
			}
			return nil
		})
	}
}

func TestAFollowerWhosePoolIsClosedEnds(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	client := truenorth.NewClient(s.Pool())
	client.Close()
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for change, err := range client.Changes(ctx, 0) {
		if err == nil || ctx.Err() != nil {
			t.Errorf("the feed goes on with %+v, %v", change, err)
		}
		break
	}
}

func TestChangesAreKeptForAWeekAtLeastAndAReaderBehindIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{idle: true, offline: true})
	w.exec(`insert into polar.change (kind, local_user_id, customer_id, at)
		select 'linked', 'usr_' || n, gen_random_uuid(), now() - n * interval '1 day' from generate_series(20, 1, -1) n`)
	prune := func(age time.Duration) {
		t.Helper()
		if err := jobs.PruneEvents(t.Context(), w.store, quiet, age); err != nil {
			t.Fatal(err)
		}
	}
	prune(100 * day)
	expect(t, "kept with a long retention", one[int64](w, "select count(*) from polar.change"), 20)
	prune(time.Hour)
	expect(t, "kept with a short retention", one[string](w, "select min(local_user_id) || ' ' || count(*) from polar.change where at > now() - interval '7 days 1 minute'"), "usr_1 6")
	expect(t, "kept in all", one[int64](w, "select count(*) from polar.change"), 6)
	oldest := one[int64](w, "select min(id) from polar.change")
	for change, err := range w.client.Changes(t.Context(), oldest-2) {
		if !errors.Is(err, truenorth.ErrChangesRemoved) {
			t.Errorf("a reader who has missed one is given %+v, %v", change, err)
		}
		break
	}
	for change, err := range w.client.Changes(t.Context(), oldest-1) {
		if err != nil || change.ID != oldest {
			t.Errorf("a reader who has missed none is given %+v, %v", change, err)
		}
		break
	}
	newest, err := w.client.NewestChange(t.Context())
	if err != nil || newest != one[int64](w, "select max(id) from polar.change") {
		t.Errorf("the newest is %d, %v", newest, err)
	}
}
