package jobs_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// fact is what an event tells of a customer or a checkout, as far as links go by it.
type fact struct {
	Type string
	Data struct {
		ID         uuid.UUID
		CreatedAt  time.Time  `json:"created_at"`
		DeletedAt  *time.Time `json:"deleted_at"`
		ExternalID string     `json:"external_id"`
		Status     string
		CustomerID uuid.UUID `json:"customer_id"`
		Metadata   struct {
			Request uuid.UUID `json:"truenorth_request"`
		}
	}
}

// proves tells, from the facts alone, whether a customer may be linked to a user on a basis.
func (f linkFacts) proves(t *testing.T, customer uuid.UUID, user, basis string) bool {
	t.Helper()
	var of fact
	var checkouts []fact
	for _, e := range f.events {
		var told fact
		if err := json.Unmarshal(e.Body, &told); err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(told.Type, "customer.") && told.Data.ID == customer && of.Data.DeletedAt == nil:
			of = told
		case told.Type == "checkout.updated" && told.Data.CustomerID == customer && told.Data.Status == "succeeded":
			checkouts = append(checkouts, told)
		}
	}
	if of.Data.ID != customer || of.Data.DeletedAt != nil {
		return false
	}
	switch basis {
	case "external_id":
		return of.Data.ExternalID == user
	case "checkout":
		return slices.ContainsFunc(checkouts, func(k fact) bool {
			asked := slices.ContainsFunc(f.requests, func(r request) bool { return r.id == k.Data.Metadata.Request && r.user == user })
			return asked && (f.withCustomer[k.Data.Metadata.Request] == customer || !of.Data.CreatedAt.Before(k.Data.CreatedAt))
		})
	case "manual":
		return len(f.words) > 0
	}
	return false
}

// TestALinkRestsOnStrongEvidenceAndNoneEndsSilently plays random pasts, and judges each link that they leave by the facts, which
// know nothing of how it came about. Then everybody gets the e-mail address of everybody, and a stranger signs up with one: no
// link may come of that.
func TestALinkRestsOnStrongEvidenceAndNoneEndsSilently(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	read := func(sql string) []string {
		t.Helper()
		rows, err := l.store.Pool().Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	type link struct {
		CustomerID  uuid.UUID `json:"customer_id"`
		LocalUserID string    `json:"local_user_id"`
		Basis       string    `json:"basis"`
	}
	bases := map[string]int{}
	for seed := range *signUps {
		facts := randomLinkFacts(t, rand.New(rand.NewPCG(seed, 7)))
		facts.play(l)
		if facts.orphaned {
			l.relink()
		}
		const links = "select to_jsonb(l)::text from polar.customer_link l order by 1"
		before := read(links)
		for _, line := range before {
			var linked link
			if err := json.Unmarshal([]byte(line), &linked); err != nil {
				t.Fatal(err)
			}
			bases[linked.Basis]++
			if !facts.proves(t, linked.CustomerID, linked.LocalUserID, linked.Basis) {
				t.Fatalf("seed %d: nothing proves %s", seed, line)
			}
			if linked.Basis != "manual" && !slices.Contains(facts.users, linked.LocalUserID) {
				t.Fatalf("seed %d: nobody living is linked by %s", seed, line)
			}
		}
		// Each link in force has its one open line of the history, and each that ended says when, by whom and why.
		if wrong := read(`
			select coalesce(h.customer_id, l.customer_id)::text from polar.customer_link l
			  full join (select customer_id, local_user_id, basis from polar.customer_link_history where ended_at is null) h using (customer_id, local_user_id, basis)
			 where l.basis is null or h.customer_id is null
			union all
			select customer_id::text from polar.customer_link_history where ended_at is not null and (end_reason is null or ended_by is null)
			union all
			select customer_id::text from polar.customer_link_history where ended_at is null group by customer_id having count(*) > 1`); len(wrong) > 0 {
			t.Fatalf("seed %d: the history does not tell of %v", seed, wrong)
		}
		if _, err := l.store.Pool().Exec(t.Context(), `
			insert into polar.local_user (id, email) select 'stranger of ' || id, doc ->> 'email' from polar.customer;
			update polar.local_user_row set email = (select doc ->> 'email' from polar.customer order by id limit 1) where email is null`); err != nil {
			t.Fatal(err)
		}
		l.relink()
		if after := read(links); !slices.Equal(after, before) {
			t.Fatalf("seed %d: an e-mail address changed the links from %v to %v", seed, before, after)
		}
	}
	for _, basis := range []string{"external_id", "checkout", "manual"} {
		if bases[basis] == 0 {
			t.Errorf("no link of basis %s came about: the pasts prove nothing of it", basis)
		}
	}
	t.Logf("links judged: %v", bases)
}
