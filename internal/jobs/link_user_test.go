package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// signUp writes a user and links them in one transaction, and returns how many customers were linked at once.
func signUp(t *testing.T, s *store.Store, user string, options pgx.TxOptions) (linked int) {
	t.Helper()
	err := pgx.BeginTxFunc(t.Context(), s.Pool(), options, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into polar.local_user (id, email) values ($1, $1 || '@example.com')", user); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), "select polar.link_user($1)", user).Scan(&linked)
	})
	if err != nil {
		t.Fatal(err)
	}
	return linked
}

// linkOutcome lists what became of all links: the links, their history, the open conflicts, and what will be written to Polar.
func linkOutcome(t *testing.T, s *store.Store) []string {
	t.Helper()
	rows, err := s.Pool().Query(t.Context(), `
		select 'link ' || jsonb_build_array(customer_id, local_user_id, basis, checkout_id)::text from polar.customer_link
		union all
		select 'history ' || jsonb_build_array(customer_id, local_user_id, basis, actor, note, end_reason, ended_by)::text from polar.customer_link_history
		union all
		select 'conflict ' || jsonb_build_array(customer_id, local_user_id, kind, checkout_id)::text from polar.link_conflict where resolved_at is null
		union all
		select distinct 'write ' || args::text from polar.river_job where kind = 'write_external_id'
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// linkFacts is a random past, before a user signs up.
type linkFacts struct {
	history
	withCustomer map[uuid.UUID]uuid.UUID // requests whose session was created with a customer
	words        []func(*testing.T, *store.Store)
	orphaned     bool // upkeep has not seen yet that a linked user is gone
}

// randomLinkFacts makes few customers and checkouts that name few users, so that all kinds of agreement and
// disagreement come up.
func randomLinkFacts(t *testing.T, random *rand.Rand) linkFacts {
	t.Helper()
	f := linkFacts{withCustomer: map[uuid.UUID]uuid.UUID{}}
	f.users = []string{"usr_0", "usr_1"}
	pick := func(names ...string) string { return names[random.IntN(len(names))] }
	tell := func(body string) {
		id := uuid.UUID(randomID(random))
		f.events = append(f.events, deliveryOf(t, id.String(), body))
	}
	var customers []uuid.UUID
	for range 1 + random.IntN(3) {
		id := uuid.UUID(randomID(random))
		customers = append(customers, id)
		created := float64(random.IntN(20))
		fields := doc{"external_id": nil}
		if name := pick("", "", "usr_new", "usr_new", "usr_0", "usr_ghost"); name != "" {
			fields["external_id"] = name
		}
		tell(event("customer.created", 30, customerDoc(id, created, fields)))
		if random.IntN(12) == 0 {
			tell(event("customer.deleted", 50, customerDoc(id, created, with(fields, doc{"deleted_at": moment(50)}))))
		}
	}
	for range random.IntN(4) {
		customer := customers[random.IntN(len(customers))]
		made := float64(random.IntN(20))
		fields := doc{"status": pick("succeeded", "succeeded", "succeeded", "open"), "customer_id": customer, "modified_at": moment(made + 20)}
		if user := pick("usr_new", "usr_new", "usr_new", "usr_0", "usr_ghost", ""); user != "" {
			r := request{id: uuid.UUID(randomID(random)), user: user}
			f.requests = append(f.requests, r)
			fields["metadata"] = doc{"truenorth_request": r.id}
			if random.IntN(4) == 0 {
				f.withCustomer[r.id] = customer
			}
		}
		tell(event("checkout.updated", made+20, checkoutDoc(uuid.UUID(randomID(random)), made, fields)))
	}
	if random.IntN(4) == 0 { // a person had a say about a customer
		customer, user := customers[random.IntN(len(customers))], pick("usr_0", "usr_1")
		f.words = append(f.words, func(t *testing.T, s *store.Store) {
			t.Helper()
			_, err := jobs.LinkCustomer(t.Context(), s, jobs.LinkOrder{CustomerID: customer, LocalUserID: user, Also: true, Replace: true}, grace)
			if err != nil && !errors.Is(err, jobs.ErrCustomerDeleted) {
				t.Fatal(err)
			}
		})
		if random.IntN(2) == 0 {
			f.words = append(f.words, func(t *testing.T, s *store.Store) {
				t.Helper()
				if _, err := jobs.UnlinkCustomer(t.Context(), s, customer, grace); err != nil && !errors.Is(err, jobs.ErrNotLinked) {
					t.Fatal(err)
				}
			})
		}
	}
	if random.IntN(4) == 0 { // a person had a say about the user, in a former life of theirs
		customer, unlinked := customers[random.IntN(len(customers))], random.IntN(2) == 0
		f.orphaned = !unlinked && random.IntN(2) == 0
		f.words = append(f.words, func(t *testing.T, s *store.Store) {
			t.Helper()
			add := func(sql string) {
				if _, err := s.Pool().Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			add("insert into polar.local_user (id) values ('usr_new')")
			_, err := jobs.LinkCustomer(t.Context(), s, jobs.LinkOrder{CustomerID: customer, LocalUserID: "usr_new", Also: true, Replace: true}, grace)
			if err != nil && !errors.Is(err, jobs.ErrCustomerDeleted) {
				t.Fatal(err)
			}
			if unlinked {
				if _, err := jobs.UnlinkCustomer(t.Context(), s, customer, grace); err != nil && !errors.Is(err, jobs.ErrNotLinked) {
					t.Fatal(err)
				}
			}
			add("delete from polar.local_user where id = 'usr_new'")
		})
	}
	return f
}

// play brings a ledger to these facts.
func (f linkFacts) play(l *ledger) {
	l.t.Helper()
	l.prepare(f.history)
	for id, customer := range f.withCustomer {
		if _, err := l.store.Pool().Exec(l.t.Context(), "update polar.checkout_request set customer_id = $2 where id = $1", id, customer); err != nil {
			l.t.Fatal(err)
		}
	}
	l.apply(f.events, 100, 1, rand.New(rand.NewPCG(1, 1)))
	for _, say := range f.words {
		say(l.t, l.store)
	}
	if !f.orphaned {
		l.relink()
	}
}

func (l *ledger) relink() {
	l.t.Helper()
	if err := l.runner.Relink(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// workLinkCustomers works what polar.link_user left to the worker.
func (l *ledger) workLinkCustomers() (worked int) {
	l.t.Helper()
	rows, err := l.store.Pool().Query(l.t.Context(), "delete from polar.river_job where kind = 'link_customers' returning args")
	if err != nil {
		l.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
	if err != nil {
		l.t.Fatal(err)
	}
	for _, raw := range all {
		var args jobs.LinkCustomersArgs
		if err := json.Unmarshal(raw, &args); err != nil {
			l.t.Fatal(err)
		}
		if err := l.runner.WorkLinkCustomers(l.t.Context(), args); err != nil {
			l.t.Fatal(err)
		}
	}
	return len(all)
}

var signUps = flag.Uint64("sign-ups", 120, "random pasts that signing up is tried on")

// TestLinkUserDecidesAsTheWorkerDoes has a user sign up after random pasts, once with polar.link_user and once without:
// it must not matter, but for the moment.
func TestLinkUserDecidesAsTheWorkerDoes(t *testing.T) {
	t.Parallel()
	without, called := newLedger(t), newLedger(t)
	var atOnce, later, nothing int
	for seed := range *signUps {
		f := randomLinkFacts(t, rand.New(rand.NewPCG(seed, 7)))
		f.play(without)
		f.play(called)
		before := linkOutcome(t, without.store)
		sameOutcome(t, fmt.Sprintf("seed %d: before the sign-up", seed), linkOutcome(t, called.store), before)

		if _, err := without.store.Pool().Exec(t.Context(), "insert into polar.local_user (id) values ('usr_new')"); err != nil {
			t.Fatal(err)
		}
		without.relink()
		want := linkOutcome(t, without.store)
		without.relink()
		sameOutcome(t, fmt.Sprintf("seed %d: a second round of upkeep", seed), linkOutcome(t, without.store), want)

		if waiting, err := without.store.ListWaitingCustomers(t.Context(), 100); err != nil || len(waiting) > 0 {
			t.Fatalf("seed %d: upkeep would look at %v again for ever, %v", seed, waiting, err)
		}

		linked := signUp(t, called.store, "usr_new", pgx.TxOptions{})
		for _, line := range linkOutcome(t, called.store) {
			if !slices.Contains(want, line) && !slices.Contains(before, line) {
				t.Fatalf("seed %d: link_user decided %s, which the worker does not; it decides\n%s", seed, line, strings.Join(want, "\n"))
			}
		}
		worked := called.workLinkCustomers()
		sameOutcome(t, fmt.Sprintf("seed %d: after the worker's part", seed), linkOutcome(t, called.store), want)
		called.relink()
		sameOutcome(t, fmt.Sprintf("seed %d: after upkeep", seed), linkOutcome(t, called.store), want)
		switch {
		case linked > 0:
			atOnce++
			if worked > 0 {
				t.Errorf("seed %d: linked at once, and left to the worker as well", seed)
			}
		case worked > 0:
			later++
		default:
			nothing++
			sameOutcome(t, fmt.Sprintf("seed %d: nothing names the user", seed), want, before)
		}
	}
	t.Logf("linked at once %d, left to the worker %d, nothing to link %d", atOnce, later, nothing)
	if uint64(atOnce) < *signUps/10 || uint64(later) < *signUps/10 || uint64(nothing) < *signUps/20 {
		t.Errorf("of %d sign-ups %d linked at once, %d were left to the worker, %d had nothing to link: the pasts prove too little", *signUps, atOnce, later, nothing)
	}
}

func TestASignUpLinksInItsOwnTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, tune: (*jobs.Runner).AskAtOnce})
	ids := []uuid.UUID{uuid.New(), uuid.New()}
	w.send(event("customer.created", 2, customerDoc(ids[0], 1, doc{"external_id": "usr_late"})),
		event("customer.created", 2, customerDoc(ids[1], 1, nil)), w.paid("usr_later", 0, ids[1]))
	w.stop() // from here on nobody works
	rolledBack := errors.New("rolled back")
	err := pgx.BeginFunc(t.Context(), w.store.Pool(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into polar.local_user (id) values ('usr_late')"); err != nil {
			return err
		}
		linked, err := w.client.LinkUserTx(t.Context(), tx, "usr_late")
		if err != nil || linked != 1 {
			t.Errorf("linked %d customers, %v", linked, err)
		}
		var seen uuid.UUID
		if err := tx.QueryRow(t.Context(), "select customer_id from polar.customer_link where local_user_id = 'usr_late'").Scan(&seen); err != nil || seen != ids[0] {
			t.Errorf("the transaction sees customer %s, %v", seen, err)
		}
		return rolledBack
	})
	if !errors.Is(err, rolledBack) {
		t.Fatal(err)
	}
	w.expectLinks("nothing of it stays", ids)
	expect(t, "linked by a sign-up", signUp(t, w.store, "usr_late", pgx.TxOptions{}), 1)
	expect(t, "linked by another", signUp(t, w.store, "usr_later", pgx.TxOptions{}), 1)
	w.expectLinks("at once", ids, "0: usr_late external_id", "1: usr_later checkout")
	w.expectTold("usr_late external_id by truenorth |", "usr_later checkout by truenorth |")
	if again, err := w.client.LinkUser(t.Context(), "usr_late"); err != nil || again != 0 {
		t.Errorf("a second call linked %d, %v", again, err)
	}
	writes := all[uuid.UUID](w, "select (args ->> 'customer_id')::uuid from polar.river_job where kind = 'write_external_id' and state = 'available'")
	if !slices.Equal(writes, ids[1:]) {
		t.Errorf("the id will be written to %v, want the customer that bears none", writes)
	}
}

func TestASignUpWritesTheIDToPolarAsTheWorkerWould(t *testing.T) {
	t.Parallel()
	w := offline(t)
	raw, err := w.fake.CreateCustomer(`{"email":"ada@example.com"}`)
	if err != nil {
		t.Fatal(err)
	}
	id := idOfDocument(t, raw)
	w.send(event("customer.created", 2, customerDoc(id, 1, nil)), w.paid("usr_ada", 0, id))
	w.exec("create table public.account (number text primary key)") // the product's own table
	if _, err := w.store.MapLocalUsers(t.Context(), store.MapUsers{Table: "account", ID: "number"}, store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), w.store.Pool(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into public.account values ('usr_ada')"); err != nil {
			return err
		}
		_, err := w.client.LinkUserTx(t.Context(), tx, "usr_ada")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.expectLinks("at once", []uuid.UUID{id}, "0: usr_ada checkout")
	waittest.Eventually(t, func() error {
		if got := one[string](w, "select coalesce(external_id, 'null') from polar.customer where id = $1", id); got != "usr_ada" {
			return fmt.Errorf("external id is %s", got)
		}
		return nil
	})
	w.settle()
	w.noFailures()
	expect(t, "writes of the external id", w.fake.Requests()["PATCH /v1/customers/{id}"], 1)
}

func TestASignUpNeverWaits(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]func(customer uuid.UUID) string{
		"for whoever decides about the customer": func(id uuid.UUID) string { return "polar:customer:" + id.String() },
		"for whoever decides about the user":     func(uuid.UUID) string { return "polar:user:usr_late" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			id := uuid.New()
			w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_late"})))
			release := make(chan struct{})
			held, done := make(chan struct{}), make(chan error, 1)
			go func() {
				done <- w.store.InTx(context.Background(), func(tx *store.Tx) error {
					defer close(held)
					if err := tx.Lock(context.Background(), []string{key(id)}); err != nil {
						return err
					}
					held <- struct{}{}
					<-release
					return nil
				})
			}()
			<-held
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := w.store.Pool().Exec(ctx, "insert into polar.local_user (id) values ('usr_late')"); err != nil {
				t.Fatal(err)
			}
			linked, err := w.client.LinkUser(ctx, "usr_late")
			if err != nil || linked != 0 {
				t.Errorf("linked %d, %v; want it left to the worker", linked, err)
			}
			close(release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			w.eventuallyLinks([]uuid.UUID{id}, "0: usr_late external_id")
		})
	}
}

func TestASignUpUnderAnOldSnapshotIsLeftToTheWorker(t *testing.T) {
	t.Parallel()
	w := offline(t)
	id := uuid.New()
	w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_late"})))
	expect(t, "linked", signUp(t, w.store, "usr_late", pgx.TxOptions{IsoLevel: pgx.Serializable}), 0)
	w.eventuallyLinks([]uuid.UUID{id}, "0: usr_late external_id")
}

func TestASignUpUnderTheIDOfALinkedUserLinksNothingMore(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_1", "usr_2")
	ids := []uuid.UUID{uuid.New(), uuid.New()}
	w.send(event("customer.created", 2, customerDoc(ids[0], 1, nil)))
	w.mustLink(ids[0], "usr_1")
	w.exec("delete from polar.local_user where id = 'usr_1'")
	w.send(event("customer.created", 2, customerDoc(ids[1], 1, doc{"external_id": "usr_1"})))
	w.stop() // before upkeep sees that the user was gone
	w.exec("insert into polar.customer_link (customer_id, local_user_id, basis) values ($1, 'usr_1', 'manual') on conflict do nothing", ids[0])
	expect(t, "linked", signUp(t, w.store, "usr_1", pgx.TxOptions{}), 0)
	w.expectLinks("two customers of one user are a person's to decide", ids, "0: usr_1 manual")
	if err := w.runner.Relink(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.expectConflicts("who hears of it", "user_claimed usr_1")
}

func TestASignUpOfNobodyLinksNothing(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	for _, id := range []string{"''", "null"} {
		_, err := s.Pool().Exec(t.Context(), "select polar.link_user("+id+")")
		if err == nil || !strings.Contains(err.Error(), "link_user: id is null or empty") {
			t.Errorf("link_user(%s): %v", id, err)
		}
	}
	var linked int
	if err := s.Pool().QueryRow(t.Context(), "select polar.link_user('usr_unheard_of')").Scan(&linked); err != nil || linked != 0 {
		t.Errorf("a user whom nothing names: %d, %v", linked, err)
	}
	var left int
	if err := s.Pool().QueryRow(t.Context(), "select count(*) from polar.river_job").Scan(&left); err != nil || left != 0 {
		t.Errorf("it left %d jobs, %v", left, err)
	}
}
