package polarfake

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// page is what the hosted checkout shows.
type page struct {
	Status      string
	Products    []pageProduct
	Total       string
	IsFree      bool
	Email       string
	IsLocked    bool // the session has a customer
	Name        string
	Trial       string
	Complaint   string
	ReturnURL   string
	CheckoutID  string
	IsRecurring bool
}

type pageProduct struct {
	Name        string
	Description string
	Price       string
	IsChosen    bool
}

func (f *Fake) addPageRoutes(routes *http.ServeMux) {
	routes.HandleFunc("GET /checkout/{client_secret}", func(w http.ResponseWriter, r *http.Request) {
		f.showPage(w, r, http.StatusOK, "")
	})
	routes.HandleFunc("POST /checkout/{client_secret}", f.actOnPage)
	routes.HandleFunc("GET /checkout/{client_secret}/confirmation", func(w http.ResponseWriter, r *http.Request) {
		f.showPage(w, r, http.StatusOK, "")
	})
}

// showPage renders a session as it is. One that has expired is gone.
func (f *Fake) showPage(w http.ResponseWriter, r *http.Request, status int, complaint string) {
	f.mu.Lock()
	c, ok := f.checkouts.bySecret[r.PathValue("client_secret")]
	if !ok {
		f.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	view := f.view(c)
	if isExpired(f.checkUsable(c)) {
		status, view.Status = http.StatusGone, statusExpired
	}
	f.mu.Unlock()

	view.Complaint = complaint
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := pageTemplate.Execute(w, view); err != nil {
		f.logger.Debug("Rendering the page failed", slog.String("error", err.Error()))
	}
}

func (f *Fake) view(c *checkout) page {
	view := page{
		Status: c.Status, Total: money(c.TotalAmount, c.Currency), IsFree: !c.IsPaymentFormRequired,
		Email: deref(c.CustomerEmail), IsLocked: c.CustomerID != nil, Name: deref(c.CustomerName),
		ReturnURL: deref(c.ReturnURL), CheckoutID: c.ID, IsRecurring: c.Product.IsRecurring,
	}
	if c.ActiveTrialInterval != nil {
		view.Trial = fmt.Sprintf("%d %s%s free, then ", deref(c.ActiveTrialIntervalCount), *c.ActiveTrialInterval,
			plural(int(deref(c.ActiveTrialIntervalCount))))
	}
	for _, offered := range c.Products {
		chosen := c.Prices[offered.ID][0]
		isChosen := offered.ID == *c.ProductID
		amount := chosen.charge(priceChoice{seats: new(int64(1)), units: new(int64(1))})
		if isChosen {
			amount = c.TotalAmount
		}
		text := money(amount, chosen.common().Currency)
		if offered.RecurringInterval != nil {
			text += " / " + *offered.RecurringInterval
		}
		view.Products = append(view.Products, pageProduct{
			Name: offered.Name, Description: deref(offered.Description), Price: text, IsChosen: isChosen,
		})
	}
	return view
}

// zeroDecimalCurrencies have no smaller unit.
const zeroDecimalCurrencies = " bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf "

// money renders an amount of a currency's smallest unit for people.
func money(amount int64, currency string) string {
	if strings.Contains(zeroDecimalCurrencies, " "+currency+" ") {
		return fmt.Sprintf("%d %s", amount, strings.ToUpper(currency))
	}
	return fmt.Sprintf("%d.%02d %s", amount/100, amount%100, strings.ToUpper(currency))
}

// actOnPage does what the pressed button says.
func (f *Fake) actOnPage(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBodySize)
	options := PayOptions{Email: strings.TrimSpace(r.PostFormValue("email")), Name: strings.TrimSpace(r.PostFormValue("name"))}
	f.mu.Lock()
	c, ok := f.checkouts.bySecret[r.PathValue("client_secret")]
	if !ok {
		f.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	action, id := r.PostFormValue("action"), c.ID
	if action == "pay" && c.Status == statusConfirmed {
		action = "succeed"
	}
	f.mu.Unlock()

	var err error
	switch action {
	case "pay":
		err = f.Pay(id, options)
	case "succeed":
		err = f.Succeed(id)
	case "fail":
		if err = f.fail(id, options); err == nil {
			err = errPayment()
		}
	case "expire":
		err = f.Expire(id)
	default:
		err = &APIError{Status: http.StatusBadRequest, Name: "BadRequest", Detail: "The form names no action."}
	}
	if err != nil {
		status, words := complaint(err)
		f.showPage(w, r, status, words)
		return
	}
	if action == "expire" {
		f.showPage(w, r, http.StatusOK, "")
		return
	}
	f.awaitFulfillment(r.Context(), id)
	f.mu.Lock()
	target := c.SuccessURL
	f.mu.Unlock()
	http.Redirect(w, r, target, http.StatusSeeOther)
}

func complaint(err error) (status int, words string) {
	var failure *APIError
	if !errors.As(err, &failure) {
		return http.StatusBadRequest, err.Error()
	}
	words = failure.Detail
	if len(failure.Problems) > 0 {
		words = failure.Problems[0].Msg
	}
	return failure.Status, words
}

// awaitFulfillment keeps the buyer until an endpoint has taken the succeeded checkout, or for 15 s.
func (f *Fake) awaitFulfillment(ctx context.Context, checkoutID string) {
	ctx, cancel := context.WithTimeout(ctx, f.options.FulfillmentWait)
	defer cancel()

	err := f.await(ctx, func() bool {
		for _, ev := range slices.Backward(f.events) {
			if ev.objectID == checkoutID && ev.eventType == "checkout.updated" {
				return ev.state() != EventPending
			}
		}
		return true // nobody listens
	})
	if err != nil {
		f.logger.Info("Buyer sent on before the webhook was taken", slog.String("checkout_id", checkoutID))
	}
}

func isExpired(err error) bool {
	var failure *APIError
	return errors.As(err, &failure) && failure.Status == http.StatusGone
}
