package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// shop is the demo's form.
type shop struct {
	Users    []store.LocalUser
	Products []DemoProduct
	Token    string
}

// readDemo adds the form, and the news of the checkout that a buyer comes back from (empty: none does).
func (c *Console) readDemo(ctx context.Context, p *overviewPage, paid string) error {
	users, err := c.config.Store.ListLocalUsers(ctx, listLength)
	if err != nil {
		return err
	}
	p.Shop = &shop{Users: users, Products: c.config.Demo.Products, Token: p.Token}
	checkoutID, err := uuid.Parse(paid)
	if err != nil {
		return nil //nolint:nilerr // nobody comes back from Polar with another address
	}
	purchase, err := c.config.Store.GetPurchase(ctx, checkoutID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		p.Paid = &news{"warn", "No checkout request here belongs to that checkout."}
		return nil
	case err != nil:
		return err
	}
	var waits bool
	p.Paid, waits = tell(purchase, time.Now())
	if waits {
		c.pending(&p.page)
	}
	return nil
}

// tell puts a purchase in words, and says whether there may soon be more to tell.
func tell(p store.Purchase, now time.Time) (told *news, waits bool) {
	// A customer is linked within 30 seconds of its last evidence; after that only a person may change something.
	const patience = 2 * time.Minute
	switch p.State {
	case store.RequestFailed, store.RequestExpired:
		return &news{"warn", "The checkout " + p.State + ", so nothing was bought."}, false
	case store.RequestSucceeded:
	default:
		return &news{"calm", "Welcome back. Waiting for Polar to say that the checkout is paid …"}, now.Sub(p.UpdatedAt) < patience
	}
	linked := p.LinkedUserID != "" && p.LinkedUserID == p.ExternalCustomerID
	switch {
	case linked && p.LinkedBasis == "external_id" && !p.InConflict:
		// The checkout is the stronger basis, and its event may be on its way.
		return &news{"good", fmt.Sprintf("Thank you! Paid, and the customer is linked to %s.", p.ExternalCustomerID)}, now.Sub(p.UpdatedAt) < patience
	case linked:
		return &news{"good", fmt.Sprintf("Thank you! Paid, and the customer is linked to %s.", p.ExternalCustomerID)}, false
	case p.InConflict:
		return &news{"warn", "Paid, but whose customer this is has to be decided by a person: see Conflicts below."}, false
	case p.LinkedUserID != "":
		return &news{"warn", fmt.Sprintf("Paid, by a customer who is linked to %s.", p.LinkedUserID)}, false
	}
	return &news{"good", "Thank you! Paid. The customer is being linked …"}, now.Sub(p.UpdatedAt) < patience
}

// createCheckout asks for a checkout and leads to where it is paid.
func (c *Console) createCheckout(w http.ResponseWriter, r *http.Request) {
	if !visitorOf(r.Context()).Operator {
		c.refuse(w, r, http.StatusForbidden, "The reader's password is for reading only. Come with the operator's.")
		return
	}
	if err := c.readForm(r); err != nil {
		c.fail(w, r, err)
		return
	}
	user := r.PostForm.Get("user")
	product, err := uuid.Parse(r.PostForm.Get("product"))
	if user == "" || err != nil || !slices.ContainsFunc(c.config.Demo.Products, func(p DemoProduct) bool { return p.ID == product }) {
		c.refuse(w, r, http.StatusBadRequest, "Choose a user and a product.")
		return
	}

	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	id, err := c.config.Client.CreateCheckout(ctx, truenorth.CheckoutParams{
		Products: []uuid.UUID{product}, ExternalCustomerID: user, SuccessURL: c.config.Demo.SuccessURL,
	})
	if _, invalid := errors.AsType[*truenorth.ParamsError](err); invalid {
		c.refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	http.Redirect(w, r, c.destination(r.Context(), id), http.StatusSeeOther)
}

// destination is where a request is paid or, failing that, the request's own page, which tells and goes on telling.
func (c *Console) destination(ctx context.Context, id uuid.UUID) string {
	ctx, cancel := context.WithTimeout(ctx, c.awaitURL)
	defer cancel()
	requestPage := "/requests/" + id.String()
	hosted, err := c.config.Client.AwaitURL(ctx, id)
	if err != nil {
		c.config.Logger.WarnContext(ctx, "no URL for a checkout request yet", slog.String("request_id", id.String()), slog.String("error", err.Error()))
		return requestPage
	}
	if !isWebURL(hosted) {
		return requestPage
	}
	return hosted
}
