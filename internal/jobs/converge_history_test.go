package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// action is one thing that happens at Polar or in the product.
type action struct {
	name   string
	weight int
	do     func(s *stage) error
}

// thing is what an action needs of any document.
type thing struct {
	ID         string  `json:"id"`
	Status     string  `json:"status"`
	Email      *string `json:"email"`
	ExternalID *string `json:"external_id"`
	CustomerID *string `json:"customer_id"`
	Type       string  `json:"type"`
	Seats      *int    `json:"seats"`
}

// errNothing means that there is nothing yet to act on.
var errNothing = errors.New("nothing to act on")

// act does one random thing. What Polar refuses happens too: then nothing came of it.
func (s *stage) act() {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	at := s.random.IntN(total)
	for _, a := range actions {
		if at -= a.weight; at < 0 {
			err := a.do(s)
			s.notef("%s: %v", a.name, err)
			return
		}
	}
}

// pick chooses one of the documents that pass.
func (s *stage) pick(documents []json.RawMessage, pass func(thing) bool) (thing, error) {
	var things []thing
	for _, document := range documents {
		var t thing
		if err := json.Unmarshal(document, &t); err != nil {
			return thing{}, err
		}
		if pass == nil || pass(t) {
			things = append(things, t)
		}
	}
	if len(things) == 0 {
		return thing{}, errNothing
	}
	return things[s.random.IntN(len(things))], nil
}

// objects are the fake's documents of a type that it has no list of for Go, in one order.
func (s *stage) objects(objectType string) []json.RawMessage {
	byID := s.w.fake.Objects(objectType)
	ids := make([]string, 0, len(byID))
	for id := range byID {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	documents := make([]json.RawMessage, len(ids))
	for i, id := range ids {
		documents[i] = byID[id]
	}
	return documents
}

func oneOf[T any](s *stage, values ...T) T { return values[s.random.IntN(len(values))] }

// email is one of few addresses, so that customers are matched by them.
func (s *stage) email() string { return fmt.Sprintf("person%d@example.com", s.random.IntN(8)) }

func (s *stage) user() string { return s.users[s.random.IntN(len(s.users))] }

var sold = []string{
	polarfake.OneTimeProductID, polarfake.MonthlyProductID, polarfake.PayWhatYouWantProductID, polarfake.SeatProductID,
	polarfake.FreeProductID, polarfake.TrialProductID,
}

func (s *stage) onCustomer(do func(thing) error) error {
	c, err := s.pick(s.w.fake.Customers(), nil)
	if err != nil {
		return err
	}
	return do(c)
}

func (s *stage) onSubscription(do func(string) error, statuses ...string) error {
	c, err := s.pick(s.w.fake.Subscriptions(), func(t thing) bool { return len(statuses) == 0 || slices.Contains(statuses, t.Status) })
	if err != nil {
		return err
	}
	return do(c.ID)
}

func (s *stage) onCheckout(status string, do func(thing) error) error {
	c, err := s.pick(s.w.fake.Checkouts(), func(t thing) bool { return t.Status == status })
	if err != nil {
		return err
	}
	return do(c)
}

// open sells one of everything, so that there is something to act on.
func (s *stage) open() {
	for i, product := range sold {
		seats := ""
		if product == polarfake.SeatProductID {
			seats = `, "seats": 3`
		}
		checkout, err := s.w.fake.CreateCheckout(fmt.Sprintf(`{"products": [%q], "external_customer_id": %q%s}`, product, s.users[i], seats))
		if err != nil {
			s.t.Fatal(err)
		}
		err = s.w.fake.Pay(idOf(s.t, checkout), polarfake.PayOptions{Email: s.email()})
		s.notef("sold %s: %v", product, err)
	}
}

var actions = []action{
	{"a user signs up", 2, func(s *stage) error {
		user := fmt.Sprintf("usr_%d", len(s.users))
		s.users = append(s.users, user)
		s.w.addUser(user)
		return nil
	}},
	{"a user leaves", 1, func(s *stage) error {
		s.w.exec("update polar.local_user_row set deleted_at = now() where id = $1", s.user())
		return nil
	}},
	{"a user comes back", 1, func(s *stage) error {
		s.w.exec("update polar.local_user_row set deleted_at = null where id = $1", s.user())
		return nil
	}},
	{"the app asks for a checkout", 8, (*stage).askForCheckout},
	{"a guest begins a checkout", 2, func(s *stage) error {
		_, err := s.w.fake.CreateCheckout(fmt.Sprintf(`{"products": [%q]}`, oneOf(s, sold...)))
		return err
	}},
	{"a buyer pays", 10, func(s *stage) error {
		return s.onCheckout("open", func(k thing) error {
			return s.w.fake.Pay(k.ID, polarfake.PayOptions{Email: s.email(), Name: oneOf(s, "", "Ada", "Grace")})
		})
	}},
	{"a payment fails", 2, func(s *stage) error {
		return s.onCheckout("open", func(k thing) error {
			return s.w.fake.Pay(k.ID, polarfake.PayOptions{Email: s.email(), Outcome: oneOf(s, polarfake.PaymentRefused, polarfake.PaymentFailsLater, polarfake.PaymentPends)})
		})
	}},
	{"a payment is settled", 2, func(s *stage) error {
		return s.onCheckout("confirmed", func(k thing) error { return oneOf(s, s.w.fake.Succeed, s.w.fake.FailPayment)(k.ID) })
	}},
	{"a checkout expires", 2, func(s *stage) error {
		return s.onCheckout("open", func(k thing) error { return s.w.fake.Expire(k.ID) })
	}},
	{"hours pass", 4, func(s *stage) error {
		// Where a call's outcome is open, spans of our time are held against spans of Polar's.
		if one[int64](s.w, "select count(*) from polar.checkout_request where state in ('queued', 'creating')") > 0 {
			return errNothing
		}
		s.clock.skip(oneOf(s, time.Hour, 3*time.Hour, 25*time.Hour))
		s.w.fake.ExpireOverdue()
		return nil
	}},
	{"a customer is created", 4, func(s *stage) error {
		body := fmt.Sprintf(`{"email": %q}`, s.email())
		if s.random.IntN(2) == 0 {
			body = fmt.Sprintf(`{"email": %q, "external_id": %q, "name": "Made here"}`, s.email(), s.user())
		}
		if s.random.IntN(4) == 0 {
			body = fmt.Sprintf(`{"type": "team", "email": %q, "name": "A team"}`, s.email())
		}
		_, err := s.w.fake.CreateCustomer(body)
		return err
	}},
	{"a customer is edited", 4, func(s *stage) error {
		return s.onCustomer(func(c thing) error {
			body := oneOf(s, `{"name": "Renamed"}`, `{"name": null}`, `{}`, fmt.Sprintf(`{"email": %q}`, s.email()),
				fmt.Sprintf(`{"external_id": %q}`, s.user()), `{"metadata": {"plan": "gold"}}`)
			_, err := s.w.fake.UpdateCustomer(c.ID, body)
			return err
		})
	}},
	{"a customer is deleted", 2, func(s *stage) error {
		return s.onCustomer(func(c thing) error { return s.w.fake.DeleteCustomer(c.ID) })
	}},
	{"an order is refunded", 2, func(s *stage) error {
		o, err := s.pick(s.w.fake.Orders(), func(t thing) bool { return t.Status == "paid" || t.Status == "partially_refunded" })
		if err != nil {
			return err
		}
		_, err = s.w.fake.RefundOrder(o.ID, polarfake.RefundOptions{
			Amount: oneOf[int64](s, 0, 100), RevokeBenefits: s.random.IntN(2) == 0, Pending: s.random.IntN(3) == 0,
		})
		return err
	}},
	{"a refund is settled", 1, func(s *stage) error {
		r, err := s.pick(s.objects("refund"), func(t thing) bool { return t.Status == "pending" })
		if err != nil {
			return err
		}
		return s.w.fake.SettleRefund(r.ID, oneOf(s, "succeeded", "failed", "canceled"))
	}},
	{"a pending order is paid", 1, func(s *stage) error {
		o, err := s.pick(s.w.fake.Orders(), func(t thing) bool { return t.Status == "pending" })
		if err != nil {
			return err
		}
		return s.w.fake.PayOrder(o.ID)
	}},
	{"a subscription is to end", 2, func(s *stage) error { return s.onSubscription(s.w.fake.CancelSubscription) }},
	{"a subscription is to go on", 1, func(s *stage) error { return s.onSubscription(s.w.fake.UncancelSubscription) }},
	{"a subscription ends", 1, func(s *stage) error { return s.onSubscription(s.w.fake.RevokeSubscription) }},
	{"a subscription is renewed", 3, func(s *stage) error { return s.onSubscription(s.w.fake.CycleSubscription) }},
	{"a renewal fails", 1, func(s *stage) error { return s.onSubscription(s.w.fake.FailRenewal) }},
	{"a subscription is given up", 1, func(s *stage) error { return s.onSubscription(s.w.fake.GiveUpSubscription, "past_due") }},
	{"a subscription pauses", 1, func(s *stage) error { return s.onSubscription(s.w.fake.PauseSubscription) }},
	{"a subscription resumes", 1, func(s *stage) error { return s.onSubscription(s.w.fake.ResumeSubscription, "paused") }},
	{"a subscription begins without a checkout", 1, func(s *stage) error {
		return s.onCustomer(func(c thing) error {
			_, err := s.w.fake.SubscribeIncomplete(fmt.Sprintf(`{"product_id": %q, "customer_id": %q}`, polarfake.FreeProductID, c.ID))
			return err
		})
	}},
	{"an incomplete subscription starts", 1, func(s *stage) error {
		return s.onSubscription(s.w.fake.StartSubscription, "incomplete")
	}},
	{"a subscription was migrated", 1, func(s *stage) error {
		return s.onSubscription(func(id string) error { return s.w.fake.MigrateSubscription(id, "stripe", "sub_1") })
	}},
	{"a seat is given", 3, func(s *stage) error {
		p, err := s.pick(s.w.fake.Subscriptions(), func(t thing) bool { return t.Seats != nil })
		if err != nil {
			return err
		}
		_, err = s.w.fake.AssignSeat(fmt.Sprintf(`{"subscription_id": %q, "email": %q, "external_member_id": %q}`, p.ID, s.email(), s.user()))
		return err
	}},
	{"a seat is claimed", 2, func(s *stage) error {
		seat, err := s.pick(s.objects("customer_seat"), func(t thing) bool { return t.Status == "pending" })
		if err != nil {
			return err
		}
		return s.w.fake.ClaimSeat(seat.ID)
	}},
	{"a seat is taken back", 1, func(s *stage) error {
		seat, err := s.pick(s.objects("customer_seat"), nil)
		if err != nil {
			return err
		}
		return s.w.fake.RevokeSeat(seat.ID)
	}},
	{"a member joins", 1, func(s *stage) error {
		return s.onCustomer(func(c thing) error {
			_, err := s.w.fake.AddMember(c.ID, fmt.Sprintf(`{"email": %q, "external_id": %q}`, s.email(), s.user()))
			return err
		})
	}},
	{"a member changes", 1, func(s *stage) error {
		m, err := s.pick(s.objects("member"), nil)
		if err != nil {
			return err
		}
		_, err = s.w.fake.UpdateMember(*m.CustomerID, m.ID, `{"name": "Member"}`)
		return err
	}},
	{"a member leaves", 1, func(s *stage) error {
		m, err := s.pick(s.objects("member"), nil)
		if err != nil {
			return err
		}
		return s.w.fake.DeleteMember(*m.CustomerID, m.ID)
	}},
	{"a grant changes", 1, func(s *stage) error {
		g, err := s.pick(s.objects("benefit_grant"), nil)
		if err != nil {
			return err
		}
		return oneOf(s, s.w.fake.UpdateGrant, s.w.fake.CycleGrant, s.w.fake.RevokeGrant)(g.ID)
	}},
	{"a product changes", 1, func(s *stage) error {
		_, err := s.w.fake.UpdateProduct(oneOf(s, sold...), fmt.Sprintf(`{"description": "Version %d"}`, s.random.IntN(100)))
		return err
	}},
	{"a discount comes", 1, func(s *stage) error {
		_, err := s.w.fake.CreateDiscount(fmt.Sprintf(`{"name": "Sale %d", "type": "percentage", "basis_points": 1000, "duration": "once"}`, s.random.IntN(1000)))
		return err
	}},
	{"a discount changes or goes", 1, func(s *stage) error {
		d, err := s.pick(s.objects("discount"), nil)
		if err != nil {
			return err
		}
		if s.random.IntN(2) == 0 {
			return s.w.fake.DeleteDiscount(d.ID)
		}
		_, err = s.w.fake.UpdateDiscount(d.ID, `{"name": "Last days"}`)
		return err
	}},
	{"a benefit comes", 1, func(s *stage) error {
		_, err := s.w.fake.CreateBenefit(`{"type": "custom", "description": "A thing more", "properties": {}}`)
		return err
	}},
	{"a benefit changes or goes", 1, func(s *stage) error {
		b, err := s.pick(s.objects("benefit"), nil)
		if err != nil {
			return err
		}
		if s.random.IntN(3) == 0 {
			return s.w.fake.DeleteBenefit(b.ID)
		}
		_, err = s.w.fake.UpdateBenefit(b.ID, fmt.Sprintf(`{"type": %q, "description": "A thing, version %d"}`, b.Type, s.random.IntN(100)))
		return err
	}},
	{"the organization changes", 1, func(s *stage) error {
		_, err := s.w.fake.UpdateOrganization(fmt.Sprintf(`{"name": "True North %s"}`, strings.Repeat("I", 1+s.random.IntN(3))))
		return err
	}},
	{"something vanishes without a word", 1, func(s *stage) error {
		// Only what nothing else refers to: Polar's other documents would show it still.
		d, err := s.pick(s.objects("discount"), nil)
		if err != nil {
			return err
		}
		return s.w.fake.Vanish("discount", d.ID)
	}},
}

// askForCheckout is the app's request, which Polar refuses now and then.
func (s *stage) askForCheckout() error {
	params := truenorth.CheckoutParams{Products: []uuid.UUID{uuid.MustParse(oneOf(s, sold...))}, ExternalCustomerID: s.user()}
	if s.random.IntN(3) == 0 {
		params.Products = append(params.Products, uuid.MustParse(polarfake.ArchivedProductID)) // Polar refuses it
	}
	if s.random.IntN(2) == 0 {
		params.CustomerEmail = s.email()
	}
	_, err := s.w.client.CreateCheckout(s.t.Context(), params)
	return err
}
