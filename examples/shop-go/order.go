package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth"
)

// placeOrder returns the buyer's order of the product, and the request for its checkout. Both are written in one
// transaction, so neither is ever there without the other. A buyer who has an order that can still be paid gets that one.
func (s *shop) placeOrder(ctx context.Context, buyer person) (order, request uuid.UUID, err error) {
	err = inTransaction(ctx, s.pool, "placing an order", func(tx pgx.Tx) error {
		// What can no longer be paid makes room, and so does what was refunded, or, for who is signed in, was paid a while ago:
		// with access nobody comes here, so a subscription has run out. A visitor's purchase waits for the sign-up.
		_, err := tx.Exec(ctx, `
			update orders o set closed_at = now()
			  from polar.checkout_request r
			 where r.id = o.request_id and o.user_id = $1 and o.product_id = $2 and o.closed_at is null
			   and (r.state in ('failed', 'expired')
			        or r.state = 'open' and r.expires_at <= now()
			        or r.state = 'succeeded' and $3 and r.updated_at < now() - $4::interval
			        or exists (select from polar."order" p where p.checkout_id = r.checkout_id and p.status = 'refunded'))`,
			buyer.id, s.product, buyer.isSignedIn(), accessPatience)
		if err != nil {
			return fmt.Errorf("closing orders: %w", err)
		}
		// The update that changes nothing waits for whoever presses the button at the same moment, and gives their order.
		err = tx.QueryRow(ctx, `
			insert into orders (id, user_id, product_id) values ($1, $2, $3)
			on conflict (user_id, product_id) where closed_at is null do update set closed_at = null
			returning id`, uuid.New(), buyer.id, s.product).Scan(&order)
		if err != nil {
			return fmt.Errorf("writing the order: %w", err)
		}
		// The buyer's address is left to Polar's page: here nobody has verified it, and receipts go there.
		request, err = s.client.CreateCheckoutTx(ctx, tx, truenorth.CheckoutParams{
			Products:           []uuid.UUID{s.product},
			ExternalCustomerID: buyer.id,
			SuccessURL:         s.base.JoinPath("orders", order.String()).String(),
			ReturnURL:          s.base.JoinPath("/").String(),
		}, truenorth.WithKey(order.String()))
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update orders set request_id = $2 where id = $1", order, request); err != nil {
			return fmt.Errorf("writing the order's request: %w", err)
		}
		return nil
	})
	return order, request, err
}

// accessPatience is how long after a payment access may take to arrive before something is wrong.
const accessPatience = 5 * time.Minute

// orderStatus is what the tables say of an order.
type orderStatus struct {
	ID         uuid.UUID
	State      string // of its checkout request
	URL        string // where to pay, empty where nobody can any more
	IsRecent   bool   // the state has changed within accessPatience
	IsRefunded bool
	HasAccess  bool // the buyer may use the product
}

// mayChange tells whether it is worth looking again in a moment.
func (o orderStatus) mayChange(buyer person) bool {
	switch {
	case o.HasAccess, o.IsRefunded, o.State == "failed", o.State == "expired":
		return false
	case o.State == "succeeded" && !buyer.isSignedIn(): // it waits for the sign-up
		return false
	}
	return o.IsRecent
}

// errNoOrder is about an order that is not there, or is somebody else's: nobody is told which.
var errNoOrder = errors.New("no such order")

// readOrder reads an order of the buyer's. Errors: errNoOrder.
func (s *shop) readOrder(ctx context.Context, buyer person, id uuid.UUID) (orderStatus, error) {
	rows, err := s.pool.Query(ctx, `
		select o.id, r.state,
		       case when r.state = 'open' and r.expires_at > now() then r.url else '' end,
		       r.updated_at > now() - $3::interval,
		       exists (select from polar."order" p where p.checkout_id = r.checkout_id and p.status = 'refunded'),
		       exists (select from polar.user_access a
		                where a.local_user_id = o.user_id and a.product_id = o.product_id and a.kind <> 'benefit')
		  from orders o join polar.checkout_request r on r.id = o.request_id
		 where o.id = $1 and o.user_id = $2`, id, buyer.id, accessPatience)
	if err != nil {
		return orderStatus{}, fmt.Errorf("reading order %s: %w", id, err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[orderStatus])
	if errors.Is(err, pgx.ErrNoRows) {
		return orderStatus{}, errNoOrder
	}
	if err != nil {
		return orderStatus{}, fmt.Errorf("reading order %s: %w", id, err)
	}
	return found, nil
}

// hasPaid tells whether a visitor has bought what only a sign-up will make theirs.
func (s *shop) hasPaid(ctx context.Context, visitor person) (paid bool, err error) {
	err = s.pool.QueryRow(ctx, `
		select exists (select from orders o join polar.checkout_request r on r.id = o.request_id
		                where o.user_id = $1 and r.state in ('confirmed', 'succeeded'))`, visitor.id).Scan(&paid)
	if err != nil {
		return false, fmt.Errorf("looking for what a visitor has paid: %w", err)
	}
	return paid, nil
}

// access is why somebody may use the product.
type access struct {
	Reason string
	Until  *time.Time // nil: for good
}

// readAccess is the only place that decides who may see what is sold. Nothing is stored of it: a payment, a refund, a
// seat, an end are in polar.user_access when they are, and every row of that is a yes. nil is a no.
func (s *shop) readAccess(ctx context.Context, user person) (*access, error) {
	rows, err := s.pool.Query(ctx, `
		select reason, until from polar.user_access
		 where local_user_id = $1 and product_id = $2 and kind <> 'benefit'
		 order by until desc nulls first limit 1`, user.id, s.product)
	if err != nil {
		return nil, fmt.Errorf("reading what %s may use: %w", user.id, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[access])
	if err != nil {
		return nil, fmt.Errorf("reading what %s may use: %w", user.id, err)
	}
	if len(found) == 0 {
		return nil, nil //nolint:nilnil // no access is an answer, and no failure
	}
	return found[0], nil
}

// offer is the product as Polar has it.
type offer struct {
	Name        string
	Description string
	Amount      *int64 // in the currency's smallest unit; nil where the price is made at the checkout
	Currency    *string
	Interval    *string // month or year; nil: sold once
}

// errNotSold is about a product that truenorth has not heard of, or that is not for sale any more.
var errNotSold = errors.New("the product is not for sale")

// readOffer reads name and price from the mirror, so that the page says what Polar will charge. Errors: errNotSold.
func (s *shop) readOffer(ctx context.Context) (offer, error) {
	rows, err := s.pool.Query(ctx, `
		select p.name, coalesce(p.description, ''), (f.price ->> 'price_amount')::bigint, f.price ->> 'price_currency', p.recurring_interval
		  from polar.product p
		  left join lateral (
		       select price from jsonb_array_elements(p.doc -> 'prices') price
		        where price ->> 'amount_type' = 'fixed' and not (price ->> 'is_archived')::boolean limit 1) f on true
		 where p.id = $1 and p.deleted_at is null and p.is_archived is not true`, s.product)
	if err != nil {
		return offer{}, fmt.Errorf("reading product %s: %w", s.product, err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[offer])
	if errors.Is(err, pgx.ErrNoRows) {
		return offer{}, errNotSold
	}
	if err != nil {
		return offer{}, fmt.Errorf("reading product %s: %w", s.product, err)
	}
	return found, nil
}
