package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// links lists who is linked: "customer's place in ids: user basis".
func (w *world) links(ids ...uuid.UUID) []string {
	w.t.Helper()
	return all[string](w, "select array_position($1::uuid[], customer_id) - 1 || ': ' || local_user_id || ' ' || basis from polar.customer_link order by 1", ids)
}

// openConflicts lists the kinds and users of open conflicts.
func (w *world) openConflicts() []string {
	w.t.Helper()
	return all[string](w, "select kind || ' ' || local_user_id from polar.link_conflict where resolved_at is null order by 1")
}

func (w *world) expectLinks(what string, ids []uuid.UUID, want ...string) {
	w.t.Helper()
	if got := w.links(ids...); !slices.Equal(got, want) {
		w.t.Errorf("%s: links are %q, want %q", what, got, want)
	}
}

func (w *world) expectConflicts(what string, want ...string) {
	w.t.Helper()
	if got := w.openConflicts(); !slices.Equal(got, want) {
		w.t.Errorf("%s: open conflicts are %q, want %q", what, got, want)
	}
}

func (w *world) history() []string {
	w.t.Helper()
	return all[string](w, "select concat_ws(' ', local_user_id, basis, coalesce(end_reason, 'in force')) from polar.customer_link_history order by id")
}

// paid is the events of a request's session that was made at a moment and succeeded with a customer 10 seconds later.
func (w *world) paid(user string, made float64, customer uuid.UUID) string {
	w.t.Helper()
	requestID := uuid.New()
	w.exec(`insert into polar.checkout_request (id, params) values ($1, jsonb_build_object('products', jsonb_build_array(), 'external_customer_id', $2::text))`, requestID, user)
	return event("checkout.updated", made+10, checkoutDoc(uuid.New(), made, doc{
		"status": "succeeded", "customer_id": customer, "external_customer_id": user, "modified_at": moment(made + 10),
		"metadata": doc{"truenorth_request": requestID},
	}))
}

func TestACustomerIsLinkedToTheLiveUserWhoseIDItBearsExactly(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_1", "usr_2", "gone")
	w.exec("update polar.local_user_row set deleted_at = now() where id = 'gone'")
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New(), uuid.New()}
	w.send(event("customer.created", 1, customerDoc(ids[0], 0, doc{"external_id": "usr_1"})),
		event("customer.created", 1, customerDoc(ids[1], 0, doc{"external_id": "Usr_2"})),
		event("customer.created", 1, customerDoc(ids[2], 0, doc{"external_id": ""})),
		event("customer.created", 1, customerDoc(ids[3], 0, doc{"external_id": "gone"})),
		event("customer.created", 1, customerDoc(ids[4], 0, doc{"email": "usr_2@example.com"})))
	w.expectLinks("exact ids only, and never by e-mail", ids, "0: usr_1 external_id")
	w.expectConflicts("no evidence, no conflict")
	reasons := all[string](w, "select array_position($1::uuid[], customer_id) - 1 || ' ' || coalesce(external_id, 'null') || ' ' || reason from polar.unlinked_customer order by 1", ids)
	if want := []string{"1 Usr_2 unknown_user", "2 null no_external_id", "3 gone unknown_user", "4 null no_external_id"}; !slices.Equal(reasons, want) {
		t.Errorf("unlinked customers are %q, want %q", reasons, want)
	}
}

func TestACheckoutOfTheUserLinksTheCustomerAndWritesTheIDToPolarOnce(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_ada")
	// At Polar the customer bears no external id, though the session named one.
	raw, err := w.fake.CreateCustomer(`{"email":"ada@example.com"}`)
	if err != nil {
		t.Fatal(err)
	}
	id := idOfDocument(t, raw)
	made := -time.Since(epoch).Seconds()
	body := w.paid("usr_ada", made, id)
	w.send(event("customer.created", 2, customerDoc(id, 1, nil)), body, body, w.paid("usr_ada", made+1, id))
	waittest.Eventually(t, func() error {
		if got := one[string](w, "select coalesce(external_id, 'null') from polar.customer where id = $1", id); got != "usr_ada" {
			return fmt.Errorf("external id is %s", got)
		}
		return nil
	})
	w.settle()
	w.expectLinks("after the id was written", []uuid.UUID{id}, "0: usr_ada checkout")
	w.expectConflicts("after the id was written")
	expect(t, "writes of the external id", w.fake.Requests()["PATCH /v1/customers/{id}"], 1)
}

func TestAnExternalIDThatIsTakenAtPolarIsAConflict(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_ada")
	raw, err := w.fake.CreateCustomer(`{"email":"ada@example.com"}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.fake.CreateCustomer(`{"email":"other@example.com","external_id":"usr_ada"}`); err != nil {
		t.Fatal(err)
	}
	id := idOfDocument(t, raw)
	w.send(event("customer.created", 2, customerDoc(id, 1, nil)), w.paid("usr_ada", 0, id))
	waittest.Eventually(t, func() error {
		if got := w.openConflicts(); !slices.Equal(got, []string{"external_id_taken usr_ada"}) {
			return fmt.Errorf("open conflicts are %q", got)
		}
		return nil
	})
	w.expectLinks("the checkout is the user's all the same", []uuid.UUID{id}, "0: usr_ada checkout")
	w.send(event("customer.updated", 30, customerDoc(id, 1, doc{"modified_at": moment(29)})))
	w.expectConflicts("it stays until a person looks", "external_id_taken usr_ada")
}

func TestACustomerWaitsForItsUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, tune: func(r *jobs.Runner) {
		r.AskAtOnce()
		r.Hurry(100*time.Millisecond, time.Minute, time.Minute)
	}})
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	w.send(event("customer.created", 2, customerDoc(ids[0], 1, doc{"external_id": "usr_late"})),
		event("customer.created", 2, customerDoc(ids[1], 1, nil)), w.paid("usr_later", 0, ids[1]),
		event("customer.created", 2, customerDoc(ids[2], -100, doc{"external_id": "usr_latest"})), w.paid("usr_mallory", 0, ids[2]))
	w.expectLinks("no user yet", ids)
	w.addUser("usr_late", "usr_later", "usr_mallory")
	w.eventuallyLinks(ids, "0: usr_late external_id", "1: usr_later checkout")
	// In a table of the product's own, beside a conflict about somebody else.
	w.exec("create table public.account (number text primary key)")
	w.exec("insert into public.account values ('usr_late'), ('usr_later'), ('usr_latest')")
	if _, err := w.store.MapLocalUsers(t.Context(), store.MapUsers{Table: "account", ID: "number"}, store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	w.eventuallyLinks(ids, "0: usr_late external_id", "1: usr_later checkout", "2: usr_latest external_id")
}

func (w *world) eventuallyLinks(ids []uuid.UUID, want ...string) {
	w.t.Helper()
	waittest.Eventually(w.t, func() error {
		if got := w.links(ids...); !slices.Equal(got, want) {
			return fmt.Errorf("links are %q, want %q", got, want)
		}
		return nil
	})
}

func TestADeletedCustomerEndsItsLinkAndARecycledExternalIDOpensANewOne(t *testing.T) {
	t.Parallel()
	for _, newFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("the new customer arrives first: %t", newFirst), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_1")
			ids := []uuid.UUID{uuid.New(), uuid.New()}
			deleted := event("customer.deleted", 10, customerDoc(ids[0], 0, doc{"external_id": "usr_1", "deleted_at": moment(10)}))
			recycled := event("customer.created", 20, customerDoc(ids[1], 20, doc{"external_id": "usr_1"}))
			w.send(event("customer.created", 1, customerDoc(ids[0], 0, doc{"external_id": "usr_1"})))
			if newFirst {
				w.send(recycled)
				w.expectConflicts("two customers claim one user", "user_claimed usr_1")
				w.expectLinks("nothing is overwritten", ids, "0: usr_1 external_id")
				w.send(deleted)
			} else {
				w.send(deleted)
				w.expectLinks("the customer is gone", ids)
				w.send(recycled)
			}
			w.expectLinks("the new customer", ids, "1: usr_1 external_id")
			w.expectConflicts("the cause is gone")
			if got, want := w.history(), []string{"usr_1 external_id customer_deleted", "usr_1 external_id in force"}; !slices.Equal(got, want) {
				t.Errorf("history is %q, want %q", got, want)
			}
		})
	}
}

func TestADeletedUserEndsTheLink(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"soft": "update polar.local_user set deleted_at = now() where id = 'usr_1'",
		"hard": "delete from polar.local_user where id = 'usr_1'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{offline: true, tune: func(r *jobs.Runner) { r.Hurry(100*time.Millisecond, time.Minute, time.Minute) }})
			w.addUser("usr_1", "usr_2")
			id := uuid.New()
			w.send(event("customer.created", 1, customerDoc(id, 0, doc{"external_id": "usr_1"})))
			w.expectLinks("before", []uuid.UUID{id}, "0: usr_1 external_id")
			w.exec(statement)
			w.eventuallyLinks([]uuid.UUID{id})
			if got, want := w.history(), []string{"usr_1 external_id user_deleted"}; !slices.Equal(got, want) {
				t.Errorf("history is %q, want %q", got, want)
			}
		})
	}
}

func TestWhereEvidenceDisagreesNothingIsOverwritten(t *testing.T) {
	t.Parallel()
	for _, checkoutFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("the checkout arrives first: %t", checkoutFirst), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_a", "usr_b")
			id := uuid.New()
			events := []string{event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_b"})), w.paid("usr_a", 0, id)}
			if checkoutFirst {
				slices.Reverse(events)
			}
			w.send(events[0])
			w.send(events[1])
			w.expectLinks("whatever came first", []uuid.UUID{id}, "0: usr_b external_id")
			w.expectConflicts("whatever came first", "evidence_disagrees usr_a")
			w.send(event("customer.deleted", 50, customerDoc(id, 1, doc{"external_id": "usr_b"})))
			w.expectConflicts("after the customer's end")
		})
	}
}

// settle settles a conflict as grace.
func settle(w *world, conflict int64, link bool) error {
	_, err := jobs.ResolveConflict(w.t.Context(), w.store, conflict, jobs.Verdict{Link: link}, store.Word{Actor: "grace@example.com", Reason: "she called"})
	return err
}

func TestAPersonsWordSettlesAConflictForGood(t *testing.T) {
	t.Parallel()
	for _, link := range []bool{true, false} {
		t.Run(fmt.Sprintf("link: %t", link), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_a", "usr_b")
			id := uuid.New()
			w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_b"})), w.paid("usr_a", 0, id))
			conflict := one[int64](w, "select id from polar.link_conflict where resolved_at is null")
			if err := settle(w, conflict, link); err != nil {
				t.Fatal(err)
			}
			want, resolution, history := "0: usr_b external_id", "dismissed grace@example.com", []string{"usr_b external_id in force"}
			if link {
				want, resolution = "0: usr_a manual", "linked grace@example.com"
				history = []string{"usr_b external_id replaced", "usr_a manual in force"}
			}
			expect(t, "resolution", one[string](w, "select resolution || ' ' || resolved_by from polar.link_conflict where id = $1", conflict), resolution)
			// Whatever is heard of the customer from now on.
			w.send(event("customer.updated", 60, customerDoc(id, 1, doc{"external_id": "usr_b", "modified_at": moment(60)})), w.paid("usr_a", 0, id))
			w.expectLinks("after more of the same evidence", []uuid.UUID{id}, want)
			w.expectConflicts("after more of the same evidence")
			if got := w.history(); !slices.Equal(got, history) {
				t.Errorf("history is %q, want %q", got, history)
			}
			if err := settle(w, conflict, link); !errors.Is(err, jobs.ErrSettled) || !strings.Contains(err.Error(), "grace@example.com") {
				t.Errorf("resolving it again: %v, want ErrSettled, naming who did", err)
			}
		})
	}
}

func TestAConflictCannotBeLinkedToAUserWhoIsGone(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a", "usr_b")
	id := uuid.New()
	w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_b"})), w.paid("usr_a", 0, id))
	w.exec("delete from polar.local_user where id = 'usr_a'")
	err := settle(w, one[int64](w, "select id from polar.link_conflict"), true)
	if !errors.Is(err, jobs.ErrNoUser) {
		t.Errorf("linking: %v, want ErrNoUser", err)
	}
	w.expectLinks("nothing changed", []uuid.UUID{id}, "0: usr_b external_id")
}

func TestAGuestsCheckoutThatComesToLightLateEndsTheLinkThatAStrangersCheckoutMade(t *testing.T) {
	t.Parallel()
	for _, guestFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("the guest's checkout arrives first: %t", guestFirst), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_mallory")
			alice := uuid.New()                                                                                                                      // became a customer as a guest, at 5, after mallory had opened a session at 0
			guest := event("checkout.updated", 6, checkoutDoc(uuid.New(), 4, doc{"status": "open", "customer_id": alice, "modified_at": moment(6)})) // her payment failed
			attack := w.paid("usr_mallory", 0, alice)
			customer := event("customer.created", 5, customerDoc(alice, 5, nil))
			if guestFirst {
				w.send(guest, customer, attack)
			} else {
				w.send(attack, customer)
				w.send(guest)
			}
			w.expectLinks("mallory gets nothing", []uuid.UUID{alice})
			w.expectConflicts("a person hears of it", "email_match usr_mallory")
		})
	}
}

func TestAGuestWhoPaysWithTheAddressOfAUsersCustomerChangesNothing(t *testing.T) {
	t.Parallel()
	for _, guestFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("the guest's checkout arrives first: %t", guestFirst), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_ada")
			id := uuid.New() // made by ada's session of 2; a guest's session of 1 was paid with her address later
			guest := event("checkout.updated", 30, checkoutDoc(uuid.New(), 1, doc{"status": "succeeded", "customer_id": id, "modified_at": moment(30)}))
			customer, paid := event("customer.created", 5, customerDoc(id, 5, doc{"external_id": "usr_ada"})), w.paid("usr_ada", 2, id)
			if guestFirst {
				w.send(guest)
				w.send(paid, customer)
			} else {
				w.send(customer, paid)
				w.send(guest)
			}
			w.expectLinks("ada keeps what is hers", []uuid.UUID{id}, "0: usr_ada checkout")
			w.expectConflicts("and nobody is bothered")
		})
	}
}

func idOfDocument(tb testing.TB, raw []byte) uuid.UUID {
	tb.Helper()
	id, err := uuid.Parse(fieldOf(tb, raw, "id"))
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// attack is a world with alice and mallory; mallory opens sessions and pays on the hosted page with alice's address.
type attack struct{ *world }

func newAttack(t *testing.T) attack {
	t.Helper()
	w := newWorld(t, worldOptions{fake: polarfake.Options{FulfillmentWait: 50 * time.Millisecond}, tune: (*jobs.Runner).AskAtOnce})
	w.addUser("usr_alice", "usr_mallory")
	return attack{w}
}

func (a attack) alice(externalID string) uuid.UUID {
	a.t.Helper()
	body := `{"email":"alice@example.com"}`
	if externalID != "" {
		body = fmt.Sprintf(`{"email":"alice@example.com","external_id":%q}`, externalID)
	}
	raw, err := a.fake.CreateCustomer(body)
	if err != nil {
		a.t.Fatal(err)
	}
	a.settle()
	return idOfDocument(a.t, raw)
}

// open has truenorth make a checkout for a user and returns its URL.
func (a attack) open(params truenorth.CheckoutParams) (request uuid.UUID, url string) {
	a.t.Helper()
	params.Products = []uuid.UUID{oneTime}
	request, err := a.client.CreateCheckout(a.t.Context(), params)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), 10*time.Second)
	defer cancel()
	if url, err = a.client.AwaitURL(ctx, request); err != nil {
		a.t.Fatal(err)
	}
	a.settle()
	return request, url
}

// pay fills in the hosted page's form and presses the button.
func (a attack) pay(page, email string) {
	a.t.Helper()
	noRedirect := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := noRedirect.PostForm(page, url.Values{"action": {"pay"}, "email": {email}, "name": {"Alice"}})
	if err != nil {
		a.t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSeeOther {
		a.t.Fatalf("paying: answer %d", response.StatusCode)
	}
	a.settle()
}

// expectRepelled checks what must be true after every attack.
func (a attack) expectRepelled(request, alice uuid.UUID, links ...string) {
	a.t.Helper()
	a.noFailures()
	a.expectLinks("after the attack", []uuid.UUID{alice}, links...)
	a.expectConflicts("after the attack", "email_match usr_mallory")
	expect(a.t, "writes of an external id", a.fake.Requests()["PATCH /v1/customers/{id}"], 0)
	expect(a.t, "jobs that would write one", one[int64](a.world, "select count(*) from polar.river_job where kind = 'write_external_id'"), 0)
	expect(a.t, "request", one[string](a.world, "select state from polar.checkout_request where id = $1", request), "succeeded")
	expect(a.t, "orders that the request finds", one[int64](a.world, `select count(*) from polar.checkout_request r join polar."order" o on o.checkout_id = r.checkout_id
		where r.id = $1 and r.external_customer_id = 'usr_mallory' and o.paid and o.customer_id = $2`, request, alice), 1)
}

func TestPayingWithAStrangersEMailAddressTakesOverNothing(t *testing.T) {
	t.Parallel()
	byUser := truenorth.CheckoutParams{ExternalCustomerID: "usr_mallory"}
	t.Run("alice's customer bears no id", func(t *testing.T) {
		t.Parallel()
		a := newAttack(t)
		alice := a.alice("")
		request, page := a.open(byUser)
		a.pay(page, "Alice@example.com")
		a.expectRepelled(request, alice)
	})
	t.Run("alice is linked", func(t *testing.T) {
		t.Parallel()
		a := newAttack(t)
		alice := a.alice("usr_alice")
		request, page := a.open(byUser)
		a.pay(page, "alice@example.com")
		a.expectRepelled(request, alice, "0: usr_alice external_id")
	})
	t.Run("alice became a customer as a guest while the session was open", func(t *testing.T) {
		t.Parallel()
		a := newAttack(t)
		request, page := a.open(byUser)
		_, guestPage := a.open(truenorth.CheckoutParams{})
		a.pay(guestPage, "alice@example.com")
		alice := one[uuid.UUID](a.world, "select id from polar.customer")
		a.pay(page, "alice@example.com")
		a.expectRepelled(request, alice)
	})
	t.Run("the request names her address", func(t *testing.T) {
		t.Parallel()
		a := newAttack(t)
		alice := a.alice("")
		request, page := a.open(truenorth.CheckoutParams{ExternalCustomerID: "usr_mallory", CustomerEmail: "alice@example.com"})
		a.pay(page, "")
		a.expectRepelled(request, alice)
	})
}

func TestACustomerThatAnOlderWorkerLeftIsListedAsUnlinked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{idle: true, offline: true})
	left, linked, gone := uuid.New(), uuid.New(), uuid.New()
	for _, id := range []uuid.UUID{left, linked, gone} {
		w.exec(`insert into polar.customer (id, doc, version_from) values ($1, '{}', 'event')`, id)
	}
	w.exec(`insert into polar.customer_link (customer_id, local_user_id, basis) values ($1, 'usr_1', 'manual')`, linked)
	w.exec(`update polar.customer set deleted_at = now() where id = $1`, gone)
	w.startWorker()
	waittest.Eventually(t, func() error {
		if listed := all[uuid.UUID](w, "select customer_id from polar.link_waiting"); !slices.Equal(listed, []uuid.UUID{left}) {
			return fmt.Errorf("listed as unlinked are %v, want %v", listed, left)
		}
		return nil
	})
}
