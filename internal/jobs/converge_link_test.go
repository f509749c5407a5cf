package jobs_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// witnessLinks has Postgres write down every change of a link, beside what the product writes into its history.
func (s *stage) witnessLinks() {
	s.t.Helper()
	s.w.exec(`
		create table public.link_witness (id bigint generated always as identity, customer_id uuid, link text);
		create function public.witness_link() returns trigger language plpgsql security definer as $$
		begin
			if tg_op = 'DELETE' then
				insert into public.link_witness (customer_id, link) values (old.customer_id, 'none');
			elsif tg_op = 'INSERT' or (old.local_user_id, old.basis) <> (new.local_user_id, new.basis) then
				insert into public.link_witness (customer_id, link) values (new.customer_id, new.local_user_id || ' by ' || new.basis);
			end if;
			return null;
		end $$;
		create trigger witness after insert or update or delete on polar.customer_link for each row execute function public.witness_link()`)
}

// noLinkChangedInSilence holds what was seen of each customer's links against their history.
func (s *stage) noLinkChangedInSilence() {
	s.t.Helper()
	type told struct {
		Customer uuid.UUID `json:"customer_id"`
		Seen     []string
		History  []string
	}
	for _, text := range all[json.RawMessage](s.w, `
		select jsonb_build_object('customer_id', customer_id, 'seen', coalesce(w.seen, '[]'), 'history', coalesce(h.history, '[]'))
		  from (select customer_id, jsonb_agg(link order by id) as seen from public.link_witness group by 1) w
		  full join (select customer_id, jsonb_agg(local_user_id || ' by ' || basis || coalesce(' until ' || end_reason, '') order by id) as history
		               from polar.customer_link_history group by 1) h using (customer_id)`) {
		var t told
		if err := json.Unmarshal(text, &t); err != nil {
			s.t.Fatal(err)
		}
		// Of a change, the history tells by the reason for which the link before ended; of an end, too.
		var links []string
		for i, seen := range t.Seen {
			switch over := i+1 < len(t.Seen); {
			case seen == "none":
			case over:
				links = append(links, seen+" until …")
			default:
				links = append(links, seen)
			}
		}
		history := slices.Clone(t.History)
		for i, h := range history {
			if link, _, ended := strings.Cut(h, " until "); ended {
				history[i] = link + " until …"
			}
		}
		if !slices.Equal(links, history) {
			s.t.Errorf("links of customer %s were\n%s\nand their history tells\n%s", t.Customer, lines(t.Seen), lines(t.History))
		}
	}
}

// everyLinkHasEvidence asks Polar's own documents, and not the mirror, whether each link may be: the customer bears the user's
// id, or paid in a checkout that was created for the user and is no older than it.
func (s *stage) everyLinkHasEvidence() {
	s.t.Helper()
	type customer struct {
		ExternalID string    `json:"external_id"`
		CreatedAt  time.Time `json:"created_at"`
	}
	type checkout struct {
		Status     string    `json:"status"`
		CustomerID string    `json:"customer_id"`
		CreatedAt  time.Time `json:"created_at"`
		Metadata   struct {
			Request string `json:"truenorth_request"`
		} `json:"metadata"`
	}
	customers, checkouts := objectsOf[customer](s, "customer"), objectsOf[checkout](s, "checkout")
	type link struct {
		CustomerID string   `json:"customer_id"`
		User       string   `json:"local_user_id"`
		Basis      string   `json:"basis"`
		Alive      bool     `json:"alive"`
		Requests   []string `json:"requests"` // that the user's checkouts were asked for by
	}
	for _, text := range all[json.RawMessage](s.w, `
		select to_jsonb(l) || jsonb_build_object(
		           'alive', exists (select from polar.local_user u where u.id = l.local_user_id and u.deleted_at is null),
		           'requests', (select coalesce(jsonb_agg(r.id), '[]') from polar.checkout_request r where r.params->>'external_customer_id' = l.local_user_id))
		  from polar.customer_link l`) {
		var l link
		if err := json.Unmarshal(text, &l); err != nil {
			s.t.Fatal(err)
		}
		c, exists := customers[l.CustomerID]
		borne := exists && c.ExternalID == l.User
		paid := false
		for _, k := range checkouts {
			paid = paid || k.Status == "succeeded" && k.CustomerID == l.CustomerID && slices.Contains(l.Requests, k.Metadata.Request) &&
				(borne || !c.CreatedAt.Before(k.CreatedAt))
		}
		switch {
		case !exists:
			s.t.Errorf("customer %s is linked to %s, and Polar has no such customer", l.CustomerID, l.User)
		case !l.Alive:
			s.t.Errorf("customer %s is linked to %s, who is gone", l.CustomerID, l.User)
		case l.Basis == "external_id" && !borne, l.Basis == "checkout" && !paid:
			s.t.Errorf("customer %s, who bears %q, is linked to %s by %s, for which Polar has no evidence", l.CustomerID, c.ExternalID, l.User, l.Basis)
		case l.Basis != "external_id" && l.Basis != "checkout":
			s.t.Errorf("customer %s is linked by %q, and no person said a word", l.CustomerID, l.Basis)
		}
	}
}

// objectsOf are Polar's objects of a type, by id.
func objectsOf[T any](s *stage, objectType string) map[string]T {
	s.t.Helper()
	objects := map[string]T{}
	for id, document := range s.w.fake.Objects(objectType) {
		var object T
		if err := json.Unmarshal(document, &object); err != nil {
			s.t.Fatal(fmt.Errorf("%s %s: %w", objectType, id, err))
		}
		objects[id] = object
	}
	return objects
}
