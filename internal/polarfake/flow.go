package polarfake

import (
	"fmt"
	"net/http"
)

// PaymentOutcome is how a payment ends.
type PaymentOutcome string

// The outcomes of a payment.
const (
	// PaymentSucceeds is the zero value.
	PaymentSucceeds PaymentOutcome = ""
	// PaymentRefused is refused at once: the confirmation is rolled back, and no customer comes of it.
	PaymentRefused PaymentOutcome = "refused"
	// PaymentFailsLater fails after the confirmation, as 3-D Secure may: the session is open again, and the customer stays.
	PaymentFailsLater PaymentOutcome = "fails_later"
	// PaymentPends leaves the session confirmed, for [Fake.Succeed] or [Fake.FailPayment] to settle.
	PaymentPends PaymentOutcome = "pends"
)

// PayOptions are what a buyer fills in. They change nothing that is locked.
type PayOptions struct {
	Email   string         `json:"email"`
	Name    string         `json:"name"`
	Outcome PaymentOutcome `json:"outcome"`
}

// Pay does what a buyer does on the hosted page: fill it in, confirm, and have the payment end as asked.
func (f *Fake) Pay(checkoutID string, options PayOptions) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	c, err := f.findCheckout(checkoutID)
	if err != nil {
		return err
	}
	return f.pay(c, options)
}

func (f *Fake) pay(c *checkout, options PayOptions) error {
	if err := f.fillIn(c, options); err != nil {
		return err
	}
	if err := f.confirm(c, options.Outcome == PaymentRefused); err != nil {
		return err
	}
	switch options.Outcome {
	case PaymentSucceeds:
		return f.succeed(c)
	case PaymentFailsLater:
		return f.failPayment(c)
	case PaymentPends, PaymentRefused:
		return nil
	}
	return fmt.Errorf("payment outcome %q is not known", options.Outcome)
}

// Confirm fills in the e-mail, unless it is "", and presses pay. The payment itself is still under way.
func (f *Fake) Confirm(checkoutID, email string) error {
	return f.Pay(checkoutID, PayOptions{Email: email, Outcome: PaymentPends})
}

// Succeed settles the payment of a confirmed session.
func (f *Fake) Succeed(checkoutID string) error { return f.transition(checkoutID, f.succeed) }

// FailPayment fails the payment of a confirmed session, which is open again afterwards.
func (f *Fake) FailPayment(checkoutID string) error { return f.transition(checkoutID, f.failPayment) }

// Expire lets an open session expire now and emits checkout.expired.
func (f *Fake) Expire(checkoutID string) error { return f.transition(checkoutID, f.expire) }

// ExpireOverdue does what Polar does every 15 minutes: let open sessions expire whose time is over. It returns how many.
func (f *Fake) ExpireOverdue() int {
	f.mu.Lock()
	defer f.mu.Unlock()

	expired, now := 0, f.now()
	for _, c := range f.checkouts.all {
		if c.Status == statusOpen && !c.ExpiresAt.After(now.Time) {
			c.Status, c.ModifiedAt = statusExpired, &now
			f.emit("checkout.expired", c.ID, c)
			expired++
		}
	}
	return expired
}

func (f *Fake) transition(checkoutID string, move func(*checkout) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	c, err := f.findCheckout(checkoutID)
	if err != nil {
		return err
	}
	return move(c)
}

func (f *Fake) findCheckout(id string) (*checkout, error) {
	c, ok := f.checkouts.byID[id]
	if !ok {
		return nil, fmt.Errorf("checkout %q: %w", id, errNotFound())
	}
	return c, nil
}

// touchCheckout records a change. A change after the session's time makes it expire, and then the sweep, which looks
// for open ones, never emits checkout.expired.
func (f *Fake) touchCheckout(c *checkout) {
	now := f.now()
	c.ModifiedAt = &now
	if c.Status == statusOpen && !c.ExpiresAt.After(now.Time) {
		c.Status = statusExpired
	}
	f.emit("checkout.updated", c.ID, c)
}

// checkUsable reports a session that the buyer cannot pay.
func (f *Fake) checkUsable(c *checkout) error {
	switch {
	case c.Status == statusExpired, c.Status == statusOpen && !c.ExpiresAt.After(f.now().Time):
		return errExpired()
	case c.Status != statusOpen:
		return errNotOpen()
	}
	return nil
}

// fillIn is what the page sends while the buyer types.
func (f *Fake) fillIn(c *checkout, options PayOptions) error {
	if err := f.checkUsable(c); err != nil {
		return err
	}
	changed := false
	if options.Email != "" && c.CustomerID == nil {
		form := fields{values: map[string]any{"customer_email": options.Email}, loc: []any{"body"}, problems: new([]Problem)}
		email := form.email("customer_email")
		if err := form.err(); err != nil {
			return err
		}
		changed = *email != deref(c.CustomerEmail)
		c.CustomerEmail = email
	}
	if options.Name != "" && options.Name != deref(c.CustomerName) {
		c.CustomerName, changed = &options.Name, true
	}
	if changed {
		f.touchCheckout(c)
	}
	return nil
}

// confirm ties the session to a customer and starts the payment. When that is refused, nothing has happened.
func (f *Fake) confirm(c *checkout, refused bool) error {
	if err := f.checkUsable(c); err != nil {
		return err
	}
	if c.CustomerID == nil && c.CustomerEmail == nil {
		form := fields{loc: []any{"body"}, problems: new([]Problem)}
		form.fail(form.at("customer_email"), "missing", "Field is required.", nil, nil)
		return errRefused(*form.problems)
	}
	buyer, err := f.findBuyer(c)
	if err != nil {
		return err
	}
	if buyer != nil && f.catalog.soldIn(c).IsRecurring && c.SubscriptionID == nil && f.hasActive(buyer) {
		return errAlreadySubscribed()
	}
	if refused && c.IsPaymentFormRequired {
		return errPayment()
	}

	f.settleBuyer(c, buyer)
	c.Status = statusConfirmed
	if c.TaxAmount == nil {
		c.TaxAmount = new(int64(0))
	}
	if c.IsPaymentFormRequired {
		c.PaymentMethodType = new("card")
	}
	if c.ActiveTrialInterval != nil {
		c.TrialEnd = new(after(f.now(), *c.ActiveTrialInterval, deref(c.ActiveTrialIntervalCount)))
	}
	f.touchCheckout(c)
	return nil
}

// findBuyer returns the customer that a confirmation will be tied to, or nil where one is to be created.
func (f *Fake) findBuyer(c *checkout) (*customer, error) {
	if c.CustomerID != nil {
		buyer, exists := f.customers.byID[*c.CustomerID]
		if !exists {
			return nil, errCustomerDeleted()
		}
		return buyer, nil
	}
	// An e-mail that is known wins. The session's external id is neither compared nor set.
	if buyer := f.customers.findEmail(*c.CustomerEmail); buyer != nil {
		return buyer, nil
	}
	// Possible only if that customer appeared after the session did.
	if c.ExternalCustomerID != nil && f.customers.byExternalID[*c.ExternalCustomerID] != nil {
		return nil, errExternalIDMismatch()
	}
	return nil, nil //nolint:nilnil // no customer yet is an ordinary answer
}

// settleBuyer creates the customer where there is none and passes on what the buyer filled in. One whom the session
// was created with is used as it is, yet saved, which makes an event of its own.
func (f *Fake) settleBuyer(c *checkout, buyer *customer) {
	if c.CustomerID != nil {
		f.emitCustomer(buyer, "customer.updated")
		return
	}
	if buyer == nil {
		buyer = f.newCustomer(*c.CustomerEmail, f.now())
		buyer.ExternalID = c.ExternalCustomerID
		buyer.Locale = c.Locale
		f.customers.add(buyer)
		f.addOwner(buyer, *c.CustomerEmail, c.CustomerName, c.ExternalCustomerID)
		f.emitCustomer(buyer, "customer.created")
	}
	f.revise(func() any { return buyer.document() }, &buyer.ModifiedAt, func() {
		buyer.Metadata = buyer.Metadata.merged(c.CustomerMetadata)
		buyer.BillingName = firstOf(c.CustomerBillingName, c.CustomerName, buyer.BillingName)
		buyer.BillingAddress = firstOf(c.CustomerBillingAddress, buyer.BillingAddress)
		if c.taxID != nil {
			buyer.TaxID = c.taxID
		}
		if deref(buyer.Name) == "" {
			buyer.Name = c.CustomerName
		}
	})
	c.CustomerID = &buyer.ID
	f.emitCustomer(buyer, "customer.updated")
}

func (f *Fake) succeed(c *checkout) error {
	if c.Status != statusConfirmed {
		return notConfirmed(c)
	}
	buyer, _ := f.customers.ever(*c.CustomerID) // who may be deleted since the confirmation
	f.sell(c, buyer, f.now())
	c.Status = statusSucceeded
	f.touchCheckout(c)
	return nil
}

func (f *Fake) failPayment(c *checkout) error {
	if c.Status != statusConfirmed {
		return notConfirmed(c)
	}
	c.Status = statusOpen
	f.touchCheckout(c)
	return nil
}

func (f *Fake) expire(c *checkout) error {
	if c.Status != statusOpen {
		return errNotOpen()
	}
	now := f.now()
	c.Status, c.ModifiedAt = statusExpired, &now
	if c.ExpiresAt.After(now.Time) {
		c.ExpiresAt = now
	}
	f.emit("checkout.expired", c.ID, c)
	return nil
}

func notConfirmed(c *checkout) error {
	return &APIError{
		Status: http.StatusConflict, Name: "NotConfirmedCheckout",
		Detail: fmt.Sprintf("checkout %s is %s, not confirmed", c.ID, c.Status),
	}
}
