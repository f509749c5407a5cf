package polarfake

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// State is what the fake tells of itself under GET /_fake/state.
type State struct {
	Customers     int            `json:"customers"` // that are not deleted
	Checkouts     map[string]int `json:"checkouts"` // by status
	Orders        int            `json:"orders"`
	Subscriptions int            `json:"subscriptions"`
	Endpoints     int            `json:"endpoints"`
	Events        map[string]int `json:"events"`     // by state
	Deliveries    int            `json:"deliveries"` // over all events
	Pending       int            `json:"pending"`    // jobs and runs of deliveries under way
	Requests      map[string]int `json:"requests"`   // by method and route
	Faults        []Fault        `json:"faults"`     // that have not struck
}

// State returns counts of what there is and what happened.
func (f *Fake) State() State {
	requests := f.Requests()
	f.mu.Lock()
	defer f.mu.Unlock()

	state := State{
		Customers: len(f.customers.all), Checkouts: make(map[string]int), Orders: len(f.sales.orders.all),
		Subscriptions: len(f.sales.subscriptions.all), Endpoints: len(f.endpoints.all), Events: make(map[string]int),
		Deliveries: len(f.deliveries), Pending: f.pending, Requests: requests, Faults: []Fault{},
	}
	for _, c := range f.checkouts.all {
		state.Checkouts[c.Status]++
	}
	for _, ev := range f.events {
		state.Events[string(ev.state())]++
	}
	for _, fault := range f.faults {
		state.Faults = append(state.Faults, *fault)
	}
	return state
}

// addControlRoutes is the way to the fake's own methods from another process, without a token. What Polar's API can
// write is written through that, not here.
//
//	GET    /_fake/state                         counts of everything, see [State]
//	GET    /_fake/events                        every event recorded, see [Event]
//	GET    /_fake/objects/{type}                the documents of all that exist, by id, see [Fake.Objects]
//	GET    /_fake/objects/{type}/deleted        the ids of those that are gone
//	DELETE /_fake/objects/{type}/{id}           see [Fake.Vanish]
//	POST   /_fake/faults                        a [Fault]
//	DELETE /_fake/faults                        takes back those that have not struck
//	POST   /_fake/seed                          {"customers": 1000, "prefix": "usr_", "orders": 0, "subscriptions": 0, "checkouts": 0}
//	POST   /_fake/expire-overdue                what Polar does every 15 minutes
//	POST   /_fake/checkouts/{id}/{action}       pay, confirm, fail with [PayOptions]; succeed, expire
//	POST   /_fake/orders/{id}/{action}          pay; refund with [RefundOptions]
//	POST   /_fake/refunds/{id}/{action}         succeed, fail, cancel
//	POST   /_fake/subscriptions/{id}/{action}   cycle, fail-renewal, give-up, pause, resume, start, cancel, uncancel, revoke;
//	                                            migrate with {"provider": "stripe", "provider_subscription_id": "sub_1"}
//	POST   /_fake/subscriptions/incomplete      see [Fake.SubscribeIncomplete]
//	POST   /_fake/benefit-grants/{id}/{action}  update, cycle, revoke
//	POST   /_fake/customer-seats/{id}/{action}  claim, revoke
func (f *Fake) addControlRoutes(routes *http.ServeMux) {
	routes.HandleFunc("GET /_fake/state", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, f.State())
	})
	routes.HandleFunc("GET /_fake/events", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, f.Events())
	})
	routes.HandleFunc("POST /_fake/faults", func(w http.ResponseWriter, r *http.Request) {
		var fault Fault
		control(w, r, &fault, func() (any, error) { return fault, f.Inject(fault) })
	})
	routes.HandleFunc("DELETE /_fake/faults", func(w http.ResponseWriter, _ *http.Request) {
		f.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	routes.HandleFunc("POST /_fake/seed", func(w http.ResponseWriter, r *http.Request) {
		var wanted seeds
		control(w, r, &wanted, func() (any, error) { return f.seed(wanted) })
	})
	routes.HandleFunc("POST /_fake/expire-overdue", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]int{"expired": f.ExpireOverdue()})
	})
	routes.HandleFunc("POST /_fake/checkouts/{id}/{action}", f.controlCheckout)
	f.addObjectRoutes(routes)
}

// seeds is how many of each to add.
type seeds struct {
	Customers     int    `json:"customers"`
	Prefix        string `json:"prefix"`
	Orders        int    `json:"orders"`
	Subscriptions int    `json:"subscriptions"`
	Checkouts     int    `json:"checkouts"`
}

func (f *Fake) seed(wanted seeds) (ids []string, err error) {
	ids = f.SeedCustomers(wanted.Customers, wanted.Prefix)
	if wanted.Orders+wanted.Subscriptions > 0 && f.State().Customers == 0 {
		return nil, errors.New("orders and subscriptions need customers: seed some first")
	}
	ids = append(ids, f.SeedOrders(wanted.Orders)...)
	ids = append(ids, f.SeedSubscriptions(wanted.Subscriptions)...)
	return append(ids, f.SeedCheckouts(wanted.Checkouts)...), nil
}

func (f *Fake) controlCheckout(w http.ResponseWriter, r *http.Request) {
	id, action := r.PathValue("id"), r.PathValue("action")
	var options PayOptions
	control(w, r, &options, func() (any, error) {
		var err error
		switch action {
		case "pay":
			err = f.Pay(id, options)
		case "confirm":
			options.Outcome = PaymentPends
			err = f.Pay(id, options)
		case "fail":
			err = f.fail(id, options)
		case "succeed":
			err = f.Succeed(id)
		case "expire":
			err = f.Expire(id)
		default:
			err = fmt.Errorf("action %q is not known, use pay, confirm, succeed, fail or expire", action)
		}
		return f.Checkout(id), err
	})
}

// fail declines a payment that is under way, or confirms first.
func (f *Fake) fail(id string, options PayOptions) error {
	return f.transition(id, func(c *checkout) error {
		if c.Status == statusConfirmed {
			return f.failPayment(c)
		}
		if options.Outcome == PaymentSucceeds {
			options.Outcome = PaymentFailsLater
		}
		return f.pay(c, options)
	})
}

// control reads an optional JSON body into parameters, unless they are nil, acts, and answers with what came of it.
func control(w http.ResponseWriter, r *http.Request, parameters any, act func() (any, error)) {
	if parameters != nil && r.ContentLength != 0 {
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodySize)).Decode(parameters); err != nil {
			writeError(w, &APIError{Status: http.StatusBadRequest, Name: "BadRequest", Detail: "reading the body: " + err.Error()})
			return
		}
	}
	result, err := act()
	if err != nil {
		if _, ok := errors.AsType[*APIError](err); !ok {
			err = &APIError{Status: http.StatusBadRequest, Name: "BadRequest", Detail: err.Error()}
		}
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, result)
}
