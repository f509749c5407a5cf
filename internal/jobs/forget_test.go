package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// person is all that is personal of somebody; the tests look for each of its texts in every column.
type person struct {
	email, name, street, city, ip, phone, taxID, note, secret, company string
}

func newPerson(name string) person {
	id := uuid.NewString()[:8]
	return person{
		email: strings.ToLower(name) + "." + id + "@buyer.example", name: name + " Ö'" + id, street: id + " Street", city: "City" + id, ip: "203.0.113." + strconv.Itoa(100+len(name)),
		phone: "+49-" + id, taxID: "DE" + id, note: "note of " + id, secret: "polar_c_" + id, company: id + " Ltd",
	}
}

func (p person) texts() []string {
	return []string{p.email, p.name, p.street, p.city, p.ip, p.phone, p.taxID, p.note, p.secret, p.company}
}

func (p person) address() doc { return doc{"line1": p.street, "city": p.city, "country": "DE"} }

func (p person) customer(id uuid.UUID, created float64, fields doc) doc {
	return customerDoc(id, created, with(doc{
		"email": p.email, "name": p.name, "billing_name": p.company, "billing_address": p.address(), "tax_id": []any{p.taxID, "eu_vat"},
		"metadata": doc{"phone": p.phone}, "avatar_url": "https://gravatar.example/" + p.email, "phone": p.phone,
	}, fields))
}

func (p person) checkout(id uuid.UUID, created float64, fields doc) doc {
	return checkoutDoc(id, created, with(doc{
		"customer_email": p.email, "customer_name": p.name, "customer_ip_address": p.ip, "customer_billing_address": p.address(),
		"customer_tax_id": p.taxID, "customer_metadata": doc{"phone": p.phone}, "client_secret": p.secret, "url": "https://polar.example/" + p.secret,
		"custom_field_data": doc{"note": p.note}, "amount": 1500, "currency": "usd", "total_amount": 1785,
		"product": doc{"id": oneTime, "name": "The Tool", "description": "Cuts"},
	}, fields))
}

// life is all that Polar says of a person who bought: the bodies of its events, and the ids of its objects.
type life struct {
	who                                                                       person
	customer, abandoned, checkout, order, subscription, refund, grant, member uuid.UUID
	seat, wallet                                                              uuid.UUID
	external                                                                  string
	events                                                                    []string
}

func newLife(name string, start float64) *life {
	p := newPerson(name)
	l := &life{who: p, external: "usr_" + uuid.NewString()[:8]}
	for _, id := range []*uuid.UUID{&l.customer, &l.abandoned, &l.checkout, &l.order, &l.subscription, &l.refund, &l.grant, &l.member, &l.seat, &l.wallet} {
		*id = uuid.New()
	}
	at := func(seconds float64) float64 { return start + seconds }
	times := func(id uuid.UUID, seconds float64, fields doc) doc {
		return with(doc{"id": id, "created_at": moment(at(seconds)), "modified_at": nil}, fields)
	}
	customer := p.customer(l.customer, at(3), doc{"external_id": l.external})
	member := times(l.member, 3, doc{"customer_id": l.customer, "email": p.email, "name": p.name, "role": "owner", "external_id": nil})
	ofCustomer := doc{"customer_id": l.customer, "customer": customer, "metadata": doc{"note": p.note}}
	product := doc{"id": oneTime, "name": "The Tool", "description": "Cuts"}
	l.events = []string{
		event("checkout.created", at(0), p.checkout(l.abandoned, at(0), doc{"url": "https://polar.example/" + l.abandoned.String()})),
		event("checkout.created", at(1), p.checkout(l.checkout, at(1), doc{"external_customer_id": l.external})),
		event("checkout.updated", at(2), p.checkout(l.checkout, at(1), doc{"external_customer_id": l.external, "modified_at": moment(at(2))})),
		event("customer.created", at(3), customer),
		event("member.created", at(3), member),
		event("checkout.updated", at(4), p.checkout(l.checkout, at(1), doc{"status": "succeeded", "customer_id": l.customer, "modified_at": moment(at(4)), "external_customer_id": l.external})),
		event("order.paid", at(5), times(l.order, 5, with(ofCustomer, doc{
			"status": "paid", "paid": true, "total_amount": 1785, "currency": "usd", "billing_name": p.company,
			"billing_address": p.address(), "product": product, "description": "The Tool", "checkout_id": l.checkout, "items": []any{doc{"label": "The Tool", "amount": 1500}},
		}))),
		event("subscription.active", at(6), times(l.subscription, 6, with(ofCustomer, doc{"status": "active", "amount": 1500, "currency": "usd", "customer_cancellation_comment": p.note, "product": product}))),
		event("refund.created", at(7), times(l.refund, 7, doc{"customer_id": l.customer, "order_id": l.order, "amount": 300, "currency": "usd", "reason": "customer_request", "metadata": doc{"note": p.note}, "comment": p.note})),
		event("benefit_grant.created", at(8), times(l.grant, 8, with(ofCustomer, doc{"is_granted": true, "properties": doc{"account": p.phone}, "benefit": doc{"id": oneTime, "description": "Forum", "name": "Forum"}, "member": member}))),
		event("customer_seat.assigned", at(9), times(l.seat, 9, doc{"customer_id": l.customer, "member": member, "member_id": l.member, "email": p.email, "customer_email": p.email, "status": "pending", "seat_metadata": doc{"note": p.note}})),
		event("customer.state_changed", at(10), with(customer, doc{
			"modified_at": moment(at(9)), "name": p.name + " II",
			"active_subscriptions": []any{doc{"id": l.subscription, "amount": 1500, "metadata": doc{"note": p.note}, "custom_field_data": doc{"note": p.note}}},
			"granted_benefits":     []any{doc{"id": l.grant, "properties": doc{"account": p.phone}}}, "active_meters": []any{doc{"id": l.wallet, "balance": 2.5}},
		})),
		event("wallet.created", at(11), doc{"id": l.wallet, "holder": doc{"ref": l.customer}, "owner_name": p.name}),
		event("customer.updated", at(12), with(customer, doc{"modified_at": moment(at(12)), "name": "Poison", "billing_name": p.name})),
	}
	return l
}

// traces finds texts in all columns of all tables of schema polar.
func traces(t *testing.T, s *store.Store, texts []string) []string {
	t.Helper()
	rows, err := s.Pool().Query(context.Background(), `
		select c.relname::text, a.attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid
		 where c.relnamespace = 'polar'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped`)
	if err != nil {
		t.Fatal(err)
	}
	type place struct{ Table, Column string }
	places, err := pgx.CollectRows(rows, pgx.RowToStructByPos[place])
	if err != nil || len(places) < 300 {
		t.Fatalf("listing columns: %v, %d found", err, len(places))
	}
	var found []string
	for _, p := range places {
		column := pgx.Identifier{p.Column}.Sanitize()
		var n int64
		// Bytes are looked at as Latin-1, in which every byte is something.
		sql := fmt.Sprintf(`select count(*) from polar.%s t, unnest($1::text[]) as x (text)
			where strpos(case when pg_typeof(t.%[2]s)::text = 'bytea' then encode(t.%[2]s::text::bytea, 'escape') else t.%[2]s::text end, x.text) > 0
			   or strpos(t.%[2]s::text, trim(both '"' from to_jsonb(x.text)::text)) > 0 or strpos(t.%[2]s::text, encode(convert_to(x.text, 'UTF8'), 'hex')) > 0`,
			pgx.Identifier{p.Table}.Sanitize(), column)
		if err := s.Pool().QueryRow(context.Background(), sql, texts).Scan(&n); err != nil {
			t.Fatalf("%s.%s: %v", p.Table, p.Column, err)
		}
		if n > 0 {
			found = append(found, fmt.Sprintf("%s.%s (%d)", p.Table, p.Column, n))
		}
	}
	return found
}

func forget(t *testing.T, s *store.Store, customer uuid.UUID) jobs.Forgotten {
	t.Helper()
	f, err := jobs.Forget(t.Context(), s, customer, store.Word{Actor: "tester", Reason: "asked for it"}, nil)
	if err != nil {
		t.Fatalf("forgetting: %v", err)
	}
	return f
}

func TestNothingOfAForgottenPersonIsLeftAnywhereAndItStaysSo(t *testing.T) {
	t.Parallel()
	w := offline(t)
	refusePoison(t, w.store)
	ada, grace := newLife("Ada", 0), newLife("Grace", 100)
	w.exec("insert into polar.local_user (id, email) values ($1, $2), ($3, $4)", ada.external, ada.who.email, grace.external, grace.who.email)
	for _, l := range []*life{ada, grace} {
		for _, body := range l.events {
			if status := w.post(uuid.NewString(), body); status != http.StatusAccepted {
				t.Fatalf("ingest answered %d to %.200s", status, body)
			}
		}
		p := l.who
		// Odd bytes, and what jsonb has no room for, in a body that is stored all the same.
		w.post(uuid.NewString(), strings.Replace(event("customer.updated", 2, p.customer(l.customer, 3, doc{"odd": "@"})), "@\"", "\xff\\u0000"+p.email+"\"", 1))
		params := fmt.Sprintf(`{"products":[%q],"external_customer_id":%q,"customer_email":%q,"customer_name":%q,"customer_ip_address":%q,"customer_billing_address":{"country":"DE","line1":%q},"customer_tax_id":%q,"customer_metadata":{"n":%q},"metadata":{"note":%q},"amount":1500}`,
			oneTime, l.external, p.email, p.name, p.ip, p.street, p.taxID, p.note, p.note)
		w.exec(`insert into polar.checkout_request (id, params, state, error) values (gen_random_uuid(), $1::jsonb, 'failed', $2)`, params, "body.customer_email: "+p.email+" is not deliverable")
		w.exec(`insert into polar.river_job (kind, args, queue, max_attempts, state, finalized_at, errors)
			values ('create_checkout', jsonb_build_object('request_id', gen_random_uuid(), 'params', $1::jsonb), 'checkouts', 1000, 'completed', now(), array[jsonb_build_object('at', now(), 'attempt', 1, 'error', $2::text, 'trace', '')])`, params, "refused: "+p.email)
		w.exec(`insert into polar.drift (object_type, object_id, field, local, remote, cause) values
			('customer', $1, 'email', null, $3, 'missed_update'), ('order', $2, 'total_amount', '100', '1785', 'missed_update'), ('checkout', $4, 'status', 'open', 'succeeded', 'missed_update')`,
			l.customer.String(), l.order.String(), p.email, l.checkout.String())
		w.exec(`insert into polar.link_conflict (customer_id, local_user_id, kind, detail) values ($1, 'usr_other', 'external_id_taken', $2)`, l.customer, "Polar refused "+p.email)
	}
	w.settle()
	texts := ada.who.texts()
	if places := traces(t, w.store, texts); len(places) < 20 {
		t.Fatalf("before, Ada is found in %v only: the search is blind", places)
	}
	for _, l := range []*life{ada, grace} {
		w.exec("update polar.event_outcome o set error = error || $2 from polar.event_log e where e.seq = o.seq and o.state = 'failed' and e.object_id = $1", l.customer.String(), l.who.email)
	}
	of := func(l *life) []string {
		return all[string](w, `select x from (
			select to_jsonb(e)::text from polar.event_log e where body like '%' || $1 || '%' or object_id in ($2, $3)
			union all select to_jsonb(c)::text from polar.customer c where id::text = $1
			union all select to_jsonb(c)::text from polar.customer_state c where customer_id::text = $1
			union all select to_jsonb(o)::text from polar."order" o where customer_id::text = $1
			union all select to_jsonb(r)::text from polar.checkout_request r where external_customer_id = $4
			union all select to_jsonb(d)::text from polar.drift d where object_id = $1
			union all select to_jsonb(u)::text from polar.local_user_row u where id = $4) as r (x) order by x`,
			l.customer.String(), l.abandoned.String(), l.checkout.String(), l.external)
	}
	graceBefore := of(grace)
	if len(graceBefore) < 15 {
		t.Fatalf("of Grace there are %d rows only", len(graceBefore))
	}

	done := forget(t, w.store, ada.customer)
	gone := func(when string) {
		t.Helper()
		if places := traces(t, w.store, texts); len(places) > 0 {
			t.Errorf("%s, Ada is found in %v", when, places)
		}
	}
	gone("forgotten")
	for table, n := range map[string]int64{
		"customer": 1, "customer_state": 1, "checkout": 2, "order": 1, "subscription": 1, "refund": 1, "benefit_grant": 1, "member": 1, "customer_seat": 1,
		"checkout_request": 1, "river_job": 1, "drift": 1, "link_conflict": 1, "local_user_row": 1, "event_log": int64(len(ada.events)) + 1,
	} {
		expect(t, "rows blanked of "+table, done.Blanked[table], n)
	}
	if graceAfter := of(grace); !slices.Equal(graceAfter, graceBefore) {
		t.Errorf("Grace's rows changed:\n%s\nwere\n%s", strings.Join(graceAfter, "\n"), strings.Join(graceBefore, "\n"))
	}
	kept := func(when string) {
		t.Helper()
		for sql, want := range map[string]string{
			`select external_id || ' ' || type || ' ' || created_at::text from polar.customer where id = '` + ada.customer.String() + `'`:                                                                       ada.external + " individual 2026-08-22 09:00:03+00",
			`select concat_ws(' ', status, amount, total_amount, currency, customer_id, doc #>> '{product,name}') from polar.checkout where id = '` + ada.checkout.String() + `'`:                               "succeeded 1500 1785 usd " + ada.customer.String() + " The Tool",
			`select concat_ws(' ', status, total_amount, currency, description, checkout_id, doc #>> '{items,0,label}', doc #>> '{items,0,amount}') from polar."order" where id = '` + ada.order.String() + `'`: "paid 1785 usd The Tool " + ada.checkout.String() + " The Tool 1500",
			`select concat_ws(' ', amount, reason, order_id) from polar.refund where id = '` + ada.refund.String() + `'`:                                                                                        "300 customer_request " + ada.order.String(),
			`select concat_ws(' ', active_subscriptions #>> '{0,amount}', active_meters #>> '{0,balance}') from polar.customer_state where customer_id = '` + ada.customer.String() + `'`:                       "1500 2.5",
			`select doc #>> '{benefit,name}' from polar.benefit_grant where id = '` + ada.grant.String() + `'`:                                                                                                  "Forum",
			`select concat_ws(' ', local, remote) from polar.drift where object_id = '` + ada.order.String() + `'`:                                                                                              "100 1785",
			`select concat_ws(' ', local, remote) from polar.drift where object_id = '` + ada.checkout.String() + `'`:                                                                                           "open succeeded",
			`select local_user_id || basis from polar.customer_link where customer_id = '` + ada.customer.String() + `'`:                                                                                        ada.external + "external_id",
			`select concat_ws(' ', params #>> '{products,0}', params ->> 'amount', external_customer_id) from polar.checkout_request where external_customer_id = '` + ada.external + `'`:                       oneTime.String() + " 1500 " + ada.external,
		} {
			expect(t, when+", "+sql, one[string](w, sql), want)
		}
	}
	kept("forgotten")
	verifyEqual(t, w.store)

	again := forget(t, w.store, ada.customer)
	for table, n := range again.Blanked {
		expect(t, "rows blanked a second time of "+table, n, 0)
	}
	expect(t, "it was forgotten before", again.Before, true)

	// Late and doubled events, also of before the buyer was known; a read; a sweep.
	for _, body := range ada.events {
		w.post(uuid.NewString(), body)
	}
	w.send(event("customer.updated", 200, ada.who.customer(ada.customer, 3, doc{"external_id": ada.external, "modified_at": moment(200)})),
		event("order.updated", 201, doc{"id": uuid.New(), "created_at": moment(201), "customer_id": ada.customer, "total_amount": 7, "billing_name": ada.who.name, "customer": doc{"id": ada.customer, "email": ada.who.email}}),
		event("dispute.opened", 202, doc{"id": uuid.New(), "customer": doc{"id": ada.customer}, "words": ada.who.note}))
	gone("after late events")
	verifyEqual(t, w.store)
	fresh := uuid.New()
	err := w.store.InTx(t.Context(), func(tx *store.Tx) error {
		for objectType, d := range map[string]doc{
			"customer": ada.who.customer(ada.customer, 3, doc{"external_id": ada.external, "modified_at": moment(300)}),
			"checkout": ada.who.checkout(ada.checkout, 1, doc{"status": "succeeded", "customer_id": ada.customer, "modified_at": moment(300), "external_customer_id": ada.external}),
			"order":    {"id": fresh, "created_at": moment(300), "customer_id": ada.customer, "total_amount": 9, "billing_name": ada.who.name},
		} {
			id, _ := uuid.Parse(fmt.Sprint(d["id"]))
			if _, err := tx.MirrorObjects(t.Context(), objectType, store.FromRead, []store.Object{{ID: id, Doc: raw(d), VersionAt: parseMoment(300)}}, true); err != nil {
				return err
			}
		}
		return tx.OverlayCustomerStates(t.Context(), []uuid.UUID{ada.customer})
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "the read came in", one[int64](w, `select total_amount from polar."order" where id = $1`, fresh), 9)
	gone("after a sweep")
	// The session that was never paid could be until it expired.
	expect(t, "the URL of an open session", one[string](w, "select url from polar.checkout where id = $1", ada.abandoned), "https://polar.example/"+ada.abandoned.String())
	w.send(event("checkout.expired", 400, ada.who.checkout(ada.abandoned, 0, doc{"status": "expired", "modified_at": moment(400)})))
	expect(t, "the URL of an expired session", one[string](w, "select url from polar.checkout where id = $1", ada.abandoned), "")
	expect(t, "events that have it", one[int64](w, "select count(*) from polar.event_log where strpos(body, $1) > 0", "https://polar.example/"+ada.abandoned.String()), 0)
	gone("after the last event")
	replay(t, w.store, store.Replay{})
	gone("after a replay")
	if v := verify(t, w.store); !v.Equal() {
		t.Errorf("after a sweep and a replay: %q", differences(v))
	}
	if graceAfter := of(grace); !slices.Equal(graceAfter, graceBefore) {
		t.Errorf("in the end Grace's rows changed:\n%s\nwere\n%s", strings.Join(graceAfter, "\n"), strings.Join(graceBefore, "\n"))
	}
}

// TestAForgottenCustomerWhoBuysAgainCanPay goes the whole way with a Polar that still has the customer.
func TestAForgottenCustomerWhoBuysAgainCanPay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.addUser("usr_ada")
	const email, name = "ada.byron@buyer-example.com", "Ada Byron Lovelace"
	buy := func() uuid.UUID {
		t.Helper()
		id := w.ask("usr_ada")
		w.await(id, "open")
		checkout := one[string](w, "select checkout_id::text from polar.checkout_request where id = $1", id)
		if !strings.HasPrefix(one[string](w, "select url from polar.checkout_request where id = $1", id), w.api.URL) {
			t.Errorf("the URL of %s is of no use", id)
		}
		if err := w.fake.Pay(checkout, polarfake.PayOptions{Email: email, Name: name, Outcome: polarfake.PaymentSucceeds}); err != nil {
			t.Fatal(err)
		}
		w.await(id, "succeeded")
		w.settle()
		return id
	}
	buy()
	customer := one[uuid.UUID](w, "select id from polar.customer")
	done := forget(t, w.store, customer)
	expect(t, "deleted at Polar", done.DeletedAt.IsZero(), true)
	w.exec("update polar.local_user_row set email = null")
	texts := []string{email, name}
	if places := traces(t, w.store, texts); len(places) > 0 {
		t.Errorf("forgotten, Ada is found in %v", places)
	}
	again := buy()
	if _, err := w.fake.UpdateCustomer(customer.String(), `{"name":"Ada Byron Lovelace"}`); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if places := traces(t, w.store, texts); len(places) > 0 {
		t.Errorf("after buying again, Ada is found in %v", places)
	}
	expect(t, "orders", one[int64](w, `select count(*) from polar."order" where customer_id = $1 and paid`, customer), 2)
	if over := one[string](w, "select body from polar.event where type = 'checkout.created' and object_id = (select checkout_id::text from polar.checkout_request where id = $1)", again); strings.Contains(over, "/checkout/") {
		t.Errorf("the URL of a session that is over is kept: %s", over)
	}
	w.noFailures()
	verifyNoDifference(t, w.store)
}

func verifyNoDifference(t *testing.T, s *store.Store) {
	t.Helper()
	if v := verify(t, s); !v.Equal() {
		t.Errorf("the mirror differs: %q", differences(v))
	}
}

// TestForgettingWhileEventsComeLeavesNothing forgets in the middle of a stream of the person's events.
func TestForgettingWhileEventsComeLeavesNothing(t *testing.T) {
	t.Parallel()
	w := offline(t)
	ada := newLife("Ada", 0)
	w.send(ada.events[3])
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		for range 8 {
			for _, body := range ada.events[1:] { // not the session that names nobody
				w.post(uuid.NewString(), body)
			}
		}
	}()
	forget(t, w.store, ada.customer)
	<-posted
	w.settle()
	if places := traces(t, w.store, ada.who.texts()); len(places) > 0 {
		t.Errorf("Ada is found in %v", places)
	}
	verifyNoDifference(t, w.store)
}

func TestForgettingTellsWhomItCannotFind(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	one, other := uuid.New(), uuid.New()
	l.insert(event("customer.created", 1, customerDoc(one, 1, doc{"external_id": "usr_1"})), event("customer.created", 2, customerDoc(other, 2, doc{"external_id": "usr_2"})),
		event("customer.deleted", 3, customerDoc(other, 2, doc{"external_id": "usr_1"})))
	replay(t, l.store, store.Replay{})
	if _, err := jobs.Forget(t.Context(), l.store, uuid.New(), store.Word{Actor: "tester"}, nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("forgetting a stranger gave %v", err)
	}
	if _, err := jobs.FindCustomer(t.Context(), l.store, "usr_9"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("finding a stranger gave %v", err)
	}
	_, err := jobs.FindCustomer(t.Context(), l.store, "usr_1")
	if err == nil || !strings.Contains(err.Error(), one.String()) || !strings.Contains(err.Error(), other.String()) {
		t.Errorf("an id that two customers bore gave %v", err)
	}
	expect(t, "forgotten", value[int64](t, l.store, "select count(*) from polar.forgotten_customer"), 0)
	if f := forget(t, l.store, other); f.DeletedAt.IsZero() {
		t.Error("it does not tell that Polar deleted the customer")
	}
}

// TestAPersonOfManyEventsIsForgotten has more events than one batch.
func TestAPersonOfManyEventsIsForgotten(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p, id := newPerson("Ada"), uuid.New()
	bodies := make([]string, 2300)
	for i := range bodies {
		bodies[i] = event("customer.updated", float64(i), p.customer(id, 0, doc{"modified_at": moment(float64(i))}))
	}
	l.insert(bodies...)
	replay(t, l.store, store.Replay{})
	var told []int64
	f, err := jobs.Forget(t.Context(), l.store, id, store.Word{Actor: "tester"}, func(n int64) { told = append(told, n) })
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "events", f.Blanked["event_log"], 2300)
	if !slices.IsSorted(told) || len(told) < 3 {
		t.Errorf("progress was told as %v", told)
	}
	if places := traces(t, l.store, p.texts()); len(places) > 0 {
		t.Errorf("found in %v", places)
	}
	verifyEqual(t, l.store)
}

// TestWhatTheMirrorDoesNotTellOfIsBlankedToo forgets a person of whom events failed, or are not tried yet.
func TestWhatTheMirrorDoesNotTellOfIsBlankedToo(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ada := newLife("Ada", 0)
	l.insert(ada.events[3])
	replay(t, l.store, store.Replay{})
	deep := event("order.created", 2, doc{"id": uuid.New(), "customer_id": ada.customer, "billing_name": ada.who.name, "deep": "@"})
	l.insert(strings.Replace(deep, `"@"`, strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000), 1)) // nobody can read it
	report := replay(t, l.store, store.Replay{})
	expect(t, "failed", report.Failed, 1)
	l.insert(ada.events[6], ada.events[10]) // an order and a seat, not tried yet
	l.insert(event("product.updated", 3, doc{"id": oneTime, "name": "The Tool", "note": ada.customer}))
	forget(t, l.store, ada.customer)
	if places := traces(t, l.store, ada.who.texts()); len(places) > 0 {
		t.Errorf("found in %v", places)
	}
	expect(t, "the product's event", value[bool](t, l.store, "select body like '%The Tool%' from polar.event_log where type = 'product.updated'"), true)
	replay(t, l.store, store.Replay{})
	expect(t, "the order", value[int64](t, l.store, `select total_amount from polar."order"`), 1785)
	if places := traces(t, l.store, ada.who.texts()); len(places) > 0 {
		t.Errorf("after they were applied, found in %v", places)
	}
	verifyEqual(t, l.store)
}
