package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

var grace = store.Word{Actor: "grace@example.com", Reason: "she showed her invoice"}

func (w *world) link(order jobs.LinkOrder) (jobs.Linked, error) {
	return jobs.LinkCustomer(w.t.Context(), w.store, order, grace)
}

func (w *world) mustLink(customer uuid.UUID, user string) jobs.Linked {
	w.t.Helper()
	linked, err := w.link(jobs.LinkOrder{CustomerID: customer, LocalUserID: user})
	if err != nil {
		w.t.Fatal(err)
	}
	return linked
}

func (w *world) mustUnlink(customer uuid.UUID) jobs.Unlinked {
	w.t.Helper()
	unlinked, err := jobs.UnlinkCustomer(w.t.Context(), w.store, customer, store.Word{Actor: "grace@example.com", Reason: "not hers"})
	if err != nil {
		w.t.Fatal(err)
	}
	return unlinked
}

// told is the whole history: who was linked when, by whom and why.
func (w *world) told() []string {
	w.t.Helper()
	return all[string](w, `select concat_ws(' ', local_user_id, basis, 'by', actor, note, '|', end_reason, 'by ' || ended_by, end_note)
		from polar.customer_link_history order by id`)
}

func (w *world) expectTold(want ...string) {
	w.t.Helper()
	if got := w.told(); !slices.Equal(got, want) {
		w.t.Errorf("the history tells\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// upkeep has a round of links made, as every five seconds.
func (w *world) upkeep() {
	w.t.Helper()
	waittest.Eventually(w.t, func() error { return w.runner.Relink(w.t.Context()) })
}

func TestALinkThatAPersonMadeStaysWhateverIsHeardOfTheCustomer(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a", "usr_b")
	id := uuid.New()
	w.send(event("customer.created", 2, customerDoc(id, 1, nil)))
	w.mustLink(id, "usr_a")
	w.send(event("customer.updated", 10, customerDoc(id, 1, doc{"external_id": "usr_b", "modified_at": moment(10)})), w.paid("usr_b", 0, id))
	w.upkeep()
	w.expectLinks("after evidence for another user", []uuid.UUID{id}, "0: usr_a manual")
	w.expectConflicts("the person has weighed it")
	w.expectTold("usr_a manual by grace@example.com she showed her invoice |")
	if again := w.mustLink(id, "usr_a"); again.Changed {
		t.Errorf("linking the two again changed something: %+v", again)
	}
	w.expectTold("usr_a manual by grace@example.com she showed her invoice |")
}

func TestAPersonLinksTheUserWhoWasCreatedAnewUnderAnotherID(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_old")
	id := uuid.New()
	w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_old"})))
	w.exec("delete from polar.local_user where id = 'usr_old'")
	w.addUser("usr_new")
	w.upkeep()
	w.expectLinks("the user is gone", []uuid.UUID{id})
	expect(t, "reason", one[string](w, "select reason from polar.unlinked_customer where customer_id = $1", id), "unknown_user")

	linked := w.mustLink(id, "usr_new")
	expect(t, "external id", linked.ExternalID, jobs.ExternalIDOther)
	// Polar never changes an external id once set, so the customer bears the old one in all that is heard of it.
	w.send(event("customer.updated", 30, customerDoc(id, 1, doc{"external_id": "usr_old", "email": "other@example.com", "modified_at": moment(30)})),
		event("customer.state_changed", 31, customerDoc(id, 1, doc{"external_id": "usr_old", "modified_at": moment(30), "active_subscriptions": []any{}, "granted_benefits": []any{}, "active_meters": []any{}})))
	w.upkeep()
	w.expectLinks("after events with the old id", []uuid.UUID{id}, "0: usr_new manual")
	w.addUser("usr_old")
	w.upkeep()
	w.send(event("customer.updated", 40, customerDoc(id, 1, doc{"external_id": "usr_old", "modified_at": moment(40)})))
	w.expectLinks("even if the old user comes back", []uuid.UUID{id}, "0: usr_new manual")
	w.expectConflicts("nobody is bothered")
	w.expectTold("usr_old external_id by truenorth | user_deleted by truenorth",
		"usr_new manual by grace@example.com she showed her invoice |")
	expect(t, "writes of an external id", one[int64](w, "select count(*) from polar.river_job where kind = 'write_external_id'"), 0)
}

func TestAUserCreatedAnewUnderTheSameIDIsLinkedByEvidenceAgain(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(w *world, ids []uuid.UUID) []string{
		"external id": func(_ *world, ids []uuid.UUID) []string {
			return []string{event("customer.created", 2, customerDoc(ids[0], 1, doc{"external_id": "usr_1"}))}
		},
		"checkout": func(w *world, ids []uuid.UUID) []string {
			return []string{event("customer.created", 2, customerDoc(ids[0], 1, doc{"external_id": "other"})), w.paid("usr_1", 0, ids[0])}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_1", "usr_2")
			ids := []uuid.UUID{uuid.New()}
			w.send(create(w, ids)...)
			before := w.links(ids...)
			expect(t, "links", len(before), 1)
			w.exec("delete from polar.local_user where id = 'usr_1'")
			w.upkeep()
			w.expectLinks("without its user", ids)
			w.addUser("usr_1")
			w.upkeep()
			w.expectLinks("with its user again", ids, before...)
			reasons := all[string](w, "select coalesce(end_reason, 'in force') from polar.customer_link_history order by id")
			if want := []string{"user_deleted", "in force"}; !slices.Equal(reasons, want) {
				t.Errorf("history is %q, want %q", reasons, want)
			}
		})
	}
}

func TestAUserCreatedAnewIsLinkedAgainAfterAPersonHadLinkedThem(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a", "usr_b")
	id := uuid.New()
	w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_b"})), w.paid("usr_a", 0, id))
	if err := settle(w, one[int64](w, "select id from polar.link_conflict"), true); err != nil {
		t.Fatal(err)
	}
	w.exec("delete from polar.local_user where id = 'usr_a'")
	w.upkeep()
	w.expectLinks("usr_b is not linked, as a person has said that it is another's", []uuid.UUID{id})
	expect(t, "reason", one[string](w, "select reason from polar.unlinked_customer"), "conflict")
	w.addUser("usr_a")
	w.upkeep()
	w.expectLinks("the evidence for usr_a still stands", []uuid.UUID{id}, "0: usr_a checkout")
}

func TestALinkThatAPersonEndedStaysEnded(t *testing.T) {
	t.Parallel()
	for name, evidence := range map[string]func(w *world, id uuid.UUID) []string{
		"external id": func(_ *world, id uuid.UUID) []string {
			return []string{event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_a"}))}
		},
		"checkout": func(w *world, id uuid.UUID) []string {
			return []string{event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "nobody"})), w.paid("usr_a", 0, id)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_a", "usr_b")
			id := uuid.New()
			for range 2 { // a person links it again in between
				w.send(evidence(w, id)...)
				w.mustUnlink(id)
				w.send(evidence(w, id)...)
				w.send(event("customer.updated", 20, customerDoc(id, 1, doc{"external_id": fieldOfCustomer(w, id), "modified_at": moment(20)})))
				w.upkeep()
				if _, err := w.client.LinkUser(t.Context(), "usr_a"); err != nil {
					t.Fatal(err)
				}
				w.settle()
				w.expectLinks("after the same evidence again", []uuid.UUID{id})
				w.expectConflicts("the person knows")
				w.mustLink(id, "usr_a")
				w.expectLinks("a person links it again", []uuid.UUID{id}, "0: usr_a manual")
			}
			// What a person lifted counts no more.
			w.exec("delete from polar.local_user where id = 'usr_a'")
			w.upkeep()
			w.expectLinks("without its user", []uuid.UUID{id})
			w.addUser("usr_a")
			w.upkeep()
			expect(t, "links by evidence", len(w.links(id)), 1)
			expect(t, "dismissals, all lifted", one[int64](w, "select count(*) from polar.link_conflict where kind = 'unlinked' and resolved_by = 'grace@example.com' and note = 'not hers' and lifted_at is not null"), 2)
		})
	}
}

func fieldOfCustomer(w *world, id uuid.UUID) string {
	return one[string](w, "select external_id from polar.customer where id = $1", id)
}

func TestAnEndedLinkIsMadeAgainOnceEvidenceOfAnotherKindComes(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a")
	id := uuid.New()
	w.send(event("customer.created", 2, customerDoc(id, 1, doc{"external_id": "usr_a"})))
	w.mustUnlink(id)
	w.expectLinks("unlinked", []uuid.UUID{id})
	w.send(w.paid("usr_a", 0, id))
	w.expectLinks("the user's own checkout is news", []uuid.UUID{id}, "0: usr_a checkout")
	w.mustUnlink(id)
	w.send(w.paid("usr_a", 0, id))
	w.upkeep()
	w.expectLinks("another checkout is not", []uuid.UUID{id})
}

func TestAnEndedLinkLetsOthersThrough(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a", "usr_b")
	ids := []uuid.UUID{uuid.New(), uuid.New()}
	// The first customer bears usr_a's id, though usr_b's checkout succeeded with it; the second is usr_a's as well.
	w.send(event("customer.created", 2, customerDoc(ids[0], 1, doc{"external_id": "usr_a"}))) // the first to come keeps it
	w.send(w.paid("usr_b", 0, ids[0]))
	w.send(event("customer.created", 2, customerDoc(ids[1], 1, doc{"external_id": "usr_a"})))
	w.expectLinks("before", ids, "0: usr_a external_id")
	w.expectConflicts("before", "evidence_disagrees usr_b", "user_claimed usr_a")
	unlinked := w.mustUnlink(ids[0])
	w.expectLinks("after", ids, "0: usr_b checkout", "1: usr_a external_id")
	w.expectConflicts("after")
	if unlinked.NowLinkedTo != "usr_b" || !slices.Equal(unlinked.OtherCustomerIDs, ids[1:]) {
		t.Errorf("the person is told %+v", unlinked)
	}
}

func TestLinkingByHandIsRefusedWhereItWouldOverwrite(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a", "usr_b", "usr_c", "usr_gone")
	w.exec("update polar.local_user set deleted_at = now() where id = 'usr_gone'")
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	w.send(event("customer.created", 2, customerDoc(ids[0], 1, doc{"external_id": "usr_a"})),
		event("customer.created", 2, customerDoc(ids[1], 1, nil)),
		event("customer.deleted", 9, customerDoc(ids[2], 1, doc{"deleted_at": moment(9)})))
	for name, refused := range map[string]struct {
		order jobs.LinkOrder
		err   error
		names string
	}{
		"unknown customer":   {jobs.LinkOrder{CustomerID: uuid.Nil, LocalUserID: "usr_b"}, jobs.ErrNoCustomer, uuid.Nil.String()},
		"deleted customer":   {jobs.LinkOrder{CustomerID: ids[2], LocalUserID: "usr_b"}, jobs.ErrCustomerDeleted, ids[2].String()},
		"unknown user":       {jobs.LinkOrder{CustomerID: ids[1], LocalUserID: "usr_x"}, jobs.ErrNoUser, `"usr_x"`},
		"deleted user":       {jobs.LinkOrder{CustomerID: ids[1], LocalUserID: "usr_gone"}, jobs.ErrNoUser, `"usr_gone"`},
		"linked customer":    {jobs.LinkOrder{CustomerID: ids[0], LocalUserID: "usr_b", Also: true}, jobs.ErrCustomerLinked, `"usr_a"`},
		"linked user":        {jobs.LinkOrder{CustomerID: ids[1], LocalUserID: "usr_a", Replace: true}, jobs.ErrUserLinked, ids[0].String()},
		"unlinked, unlinked": {},
	} {
		if refused.err == nil {
			if _, err := jobs.UnlinkCustomer(t.Context(), w.store, ids[1], grace); !errors.Is(err, jobs.ErrNotLinked) {
				t.Errorf("%s: %v, want ErrNotLinked", name, err)
			}
			continue
		}
		if _, err := w.link(refused.order); !errors.Is(err, refused.err) || !strings.Contains(err.Error(), refused.names) {
			t.Errorf("%s: %v, want %v that names %s", name, err, refused.err, refused.names)
		}
	}
	for _, word := range []store.Word{{Actor: "grace"}, {Reason: "because"}, {Actor: "truenorth", Reason: "because"}, {Actor: "grace", Reason: " "}} {
		if _, err := jobs.LinkCustomer(t.Context(), w.store, jobs.LinkOrder{CustomerID: ids[1], LocalUserID: "usr_b"}, word); !errors.Is(err, jobs.ErrWord) {
			t.Errorf("by %+v: %v, want ErrWord", word, err)
		}
	}
	w.expectLinks("nothing changed", ids, "0: usr_a external_id")
	w.expectTold("usr_a external_id by truenorth |")

	// With the flags it goes.
	if _, err := w.link(jobs.LinkOrder{CustomerID: ids[1], LocalUserID: "usr_a", Also: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.link(jobs.LinkOrder{CustomerID: ids[0], LocalUserID: "usr_b", Replace: true}); err != nil {
		t.Fatal(err)
	}
	w.send(event("customer.updated", 20, customerDoc(ids[0], 1, doc{"external_id": "usr_a", "modified_at": moment(20)})))
	w.expectLinks("two words later", ids, "0: usr_b manual", "1: usr_a manual")
	w.expectConflicts("two words later")
	w.expectTold("usr_a external_id by truenorth | replaced by grace@example.com she showed her invoice",
		"usr_a manual by grace@example.com she showed her invoice |", "usr_b manual by grace@example.com she showed her invoice |")
	// Who was replaced does not come back by itself.
	w.mustUnlink(ids[0])
	w.upkeep()
	w.expectLinks("nobody takes the place", ids, "1: usr_a manual")
}

func TestAPersonVouchesSoTheIDIsWrittenToPolar(t *testing.T) {
	t.Parallel()
	for _, byConflict := range []bool{false, true} {
		t.Run(fmt.Sprintf("by a conflict: %t", byConflict), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_ada")
			raw, err := w.fake.CreateCustomer(`{"email":"ada@example.com"}`)
			if err != nil {
				t.Fatal(err)
			}
			id := idOfDocument(t, raw)
			made := 100.0 // the customer is older than the session
			w.send(event("customer.created", 2, customerDoc(id, 1, nil)))
			if byConflict {
				w.send(w.paid("usr_ada", made, id))
				w.expectConflicts("an e-mail address proves nothing", "email_match usr_ada")
				if err := settle(w, one[int64](w, "select id from polar.link_conflict"), true); err != nil {
					t.Fatal(err)
				}
			} else if linked := w.mustLink(id, "usr_ada"); linked.ExternalID != jobs.ExternalIDQueued {
				t.Errorf("the person is told %+v", linked)
			}
			waittest.Eventually(t, func() error {
				if got := one[string](w, "select coalesce(external_id, 'null') from polar.customer where id = $1", id); got != "usr_ada" {
					return fmt.Errorf("external id is %s", got)
				}
				return nil
			})
			w.settle()
			w.expectLinks("after the id was written", []uuid.UUID{id}, "0: usr_ada manual")
			w.expectConflicts("after the id was written")
			expect(t, "writes of the external id", w.fake.Requests()["PATCH /v1/customers/{id}"], 1)
			// The id that we wrote is no news to whoever unlinks.
			w.mustUnlink(id)
			if byConflict {
				w.send(w.paid("usr_ada", made, id))
			}
			w.upkeep()
			w.expectLinks("unlinked", []uuid.UUID{id})
			w.expectConflicts("unlinked")
		})
	}
}

func TestAPersonsLinkRespectsAnIDThatIsTaken(t *testing.T) {
	t.Parallel()
	t.Run("as the mirror knows", func(t *testing.T) {
		t.Parallel()
		w := offline(t)
		w.addUser("usr_ada")
		ids := []uuid.UUID{uuid.New(), uuid.New()}
		w.send(event("customer.created", 2, customerDoc(ids[0], 1, nil)), event("customer.created", 2, customerDoc(ids[1], 1, doc{"external_id": "usr_ada"})))
		linked, err := w.link(jobs.LinkOrder{CustomerID: ids[0], LocalUserID: "usr_ada", Also: true})
		if err != nil || linked.ExternalID != jobs.ExternalIDTaken {
			t.Errorf("the person is told %+v, %v", linked, err)
		}
		expect(t, "jobs that would write", one[int64](w, "select count(*) from polar.river_job where kind = 'write_external_id'"), 0)
	})
	t.Run("as only Polar knows", func(t *testing.T) {
		t.Parallel()
		w := offline(t)
		w.addUser("usr_ada")
		raw, err := w.fake.CreateCustomer(`{"email":"ada@example.com"}`)
		if err != nil {
			t.Fatal(err)
		}
		other, err := w.fake.CreateCustomer(`{"email":"other@example.com","external_id":"usr_ada"}`)
		if err != nil {
			t.Fatal(err)
		}
		id := idOfDocument(t, raw)
		w.send(event("customer.created", 2, customerDoc(id, 1, nil)))
		w.mustLink(id, "usr_ada")
		waittest.Eventually(t, func() error {
			if got := w.openConflicts(); !slices.Equal(got, []string{"external_id_taken usr_ada"}) {
				return fmt.Errorf("open conflicts are %q", got)
			}
			return nil
		})
		w.expectLinks("the person's word stands", []uuid.UUID{id}, "0: usr_ada manual")
		expect(t, "writes of the external id", w.fake.Requests()["PATCH /v1/customers/{id}"], 0)
		// The other customer goes, and the person says so.
		if err := w.fake.DeleteCustomer(idOfDocument(t, other).String()); err != nil {
			t.Fatal(err)
		}
		if err := settle(w, one[int64](w, "select id from polar.link_conflict"), true); err != nil {
			t.Fatal(err)
		}
		waittest.Eventually(t, func() error {
			if got := one[string](w, "select coalesce(external_id, 'null') from polar.customer where id = $1", id); got != "usr_ada" {
				return fmt.Errorf("external id is %s", got)
			}
			return nil
		})
		w.expectConflicts("it is written after all")
	})
}

func TestTheLateEventsOfADeletedCustomerDoNotReopenItsLink(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_1")
	ids := []uuid.UUID{uuid.New(), uuid.New()}
	w.send(event("customer.created", 1, customerDoc(ids[0], 0, doc{"external_id": "usr_1"})))
	w.send(event("customer.deleted", 10, customerDoc(ids[0], 0, doc{"external_id": "usr_1", "deleted_at": moment(10)})))
	w.send(event("customer.created", 20, customerDoc(ids[1], 20, doc{"external_id": "usr_1"})))
	w.expectLinks("the id is recycled", ids, "1: usr_1 external_id")
	w.send(event("customer.updated", 9, customerDoc(ids[0], 0, doc{"external_id": "usr_1", "modified_at": moment(9)})),
		event("customer.updated", 30, customerDoc(ids[0], 0, doc{"external_id": "usr_1", "modified_at": moment(30)})), w.paid("usr_1", -1, ids[0]))
	w.upkeep()
	w.expectLinks("after its late events", ids, "1: usr_1 external_id")
	w.expectConflicts("after its late events")
	w.expectTold("usr_1 external_id by truenorth | customer_deleted by truenorth", "usr_1 external_id by truenorth |")
}

func TestTwoCustomersThatBearOneIDInPassingSettleByThemselves(t *testing.T) {
	t.Parallel()
	for gone := range 2 {
		t.Run(fmt.Sprintf("customer %d goes", gone), func(t *testing.T) {
			t.Parallel()
			w := offline(t)
			w.addUser("usr_1")
			ids := []uuid.UUID{uuid.New(), uuid.New()}
			for _, id := range ids {
				w.send(event("customer.created", 1, customerDoc(id, 0, doc{"external_id": "usr_1"})))
			}
			w.expectLinks("the first keeps it", ids, "0: usr_1 external_id")
			w.expectConflicts("a person hears of it", "user_claimed usr_1")
			w.send(event("customer.deleted", 10, customerDoc(ids[gone], 0, doc{"external_id": "usr_1", "deleted_at": moment(10)})))
			w.expectLinks("one is gone", ids, fmt.Sprintf("%d: usr_1 external_id", 1-gone))
			w.expectConflicts("it settled by itself")
		})
	}
}

func TestAnEMailAddressThatChangesMovesNoLink(t *testing.T) {
	t.Parallel()
	w := offline(t)
	w.addUser("usr_a", "usr_b")
	ids := []uuid.UUID{uuid.New(), uuid.New()}
	w.send(event("customer.created", 1, customerDoc(ids[0], 0, doc{"external_id": "usr_a", "email": "usr_a@example.com"})),
		event("customer.created", 1, customerDoc(ids[1], 0, doc{"email": "nobody@example.com"})))
	w.send(event("customer.updated", 10, customerDoc(ids[0], 0, doc{"external_id": "usr_a", "email": "usr_b@example.com", "modified_at": moment(10)})),
		event("customer.updated", 10, customerDoc(ids[1], 0, doc{"email": "usr_a@example.com", "modified_at": moment(10)})))
	w.exec("update polar.local_user set email = 'usr_b@example.com' where id = 'usr_a'")
	w.upkeep()
	w.expectLinks("addresses are only shown", ids, "0: usr_a external_id")
	w.expectConflicts("addresses are only shown")
}

// TestPeopleAndTheWorkerNeverStandInACircle lets people link and unlink while events about the same customers and users
// are worked.
func TestPeopleAndTheWorkerNeverStandInACircle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, tune: func(r *jobs.Runner) { r.Hurry(50*time.Millisecond, time.Minute, time.Minute) }})
	w.addUser("usr_0", "usr_1", "usr_2")
	var ids []uuid.UUID
	var bodies []string
	for i := range 6 {
		ids = append(ids, uuid.New())
		bodies = append(bodies, event("customer.created", 1, customerDoc(ids[i], 0, doc{"external_id": fmt.Sprintf("usr_%d", i%3)})))
	}
	w.send(bodies...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var group errgroup.Group
	for hand := range 4 {
		group.Go(func() error {
			for i := range 15 {
				customer, user := ids[(hand+i)%len(ids)], fmt.Sprintf("usr_%d", (hand*i)%3)
				_, err := jobs.LinkCustomer(ctx, w.store, jobs.LinkOrder{CustomerID: customer, LocalUserID: user, Also: true, Replace: true}, grace)
				if err != nil {
					return err
				}
				if _, err := jobs.UnlinkCustomer(ctx, w.store, customer, grace); err != nil && !errors.Is(err, jobs.ErrNotLinked) {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		for i := range 10 {
			for j, id := range ids {
				at := float64(10 + i)
				w.post(uuid.NewString(), event("customer.updated", at, customerDoc(id, 0, doc{"external_id": fmt.Sprintf("usr_%d", j%3), "modified_at": moment(at)})))
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	w.settle()
	expect(t, "links whose history is not exactly one open row", one[int64](w, `
		select count(*) from (select customer_id, local_user_id, basis from polar.customer_link
			except select customer_id, local_user_id, basis from polar.customer_link_history where ended_at is null) d`), 0)
	expect(t, "open rows of no link", one[int64](w, `
		select count(*) from polar.customer_link_history h where ended_at is null and not exists (select from polar.customer_link l where l.customer_id = h.customer_id)`), 0)
}
