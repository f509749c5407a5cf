package polarfake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// actions are what can be done to an object of a type, by name.
type actions map[string]func(id string) error

func (f *Fake) addObjectRoutes(routes *http.ServeMux) {
	routes.HandleFunc("GET /_fake/objects/{type}", func(w http.ResponseWriter, r *http.Request) {
		f.controlObjects(w, r, func(objectType string) any { return f.Objects(objectType) })
	})
	routes.HandleFunc("GET /_fake/objects/{type}/deleted", func(w http.ResponseWriter, r *http.Request) {
		f.controlObjects(w, r, func(objectType string) any { return append([]string{}, f.Deleted(objectType)...) })
	})
	routes.HandleFunc("DELETE /_fake/objects/{type}/{id}", func(w http.ResponseWriter, r *http.Request) {
		control(w, r, nil, func() (any, error) { return nil, f.Vanish(r.PathValue("type"), r.PathValue("id")) })
	})

	routes.HandleFunc("POST /_fake/orders/{id}/refund", func(w http.ResponseWriter, r *http.Request) {
		var options RefundOptions
		control(w, r, &options, func() (any, error) { return f.RefundOrder(r.PathValue("id"), options) })
	})
	routes.HandleFunc("POST /_fake/subscriptions/{id}/migrate", func(w http.ResponseWriter, r *http.Request) {
		var from origin
		control(w, r, &from, func() (any, error) {
			id := r.PathValue("id")
			err := f.MigrateSubscription(id, from.Provider, from.ProviderSubscriptionID)
			return f.object("subscription", id), err
		})
	})
	routes.HandleFunc("POST /_fake/subscriptions/incomplete", func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		control(w, r, &body, func() (any, error) { return f.SubscribeIncomplete(string(body)) })
	})
	settle := func(status string) func(string) error {
		return func(id string) error { return f.SettleRefund(id, status) }
	}
	for path, objects := range map[string]struct {
		objectType string
		actions    actions
	}{
		"orders":  {"order", actions{"pay": f.PayOrder}},
		"refunds": {"refund", actions{"succeed": settle(refundSucceeded), "fail": settle(refundFailed), "cancel": settle(refundCanceled)}},
		"subscriptions": {"subscription", actions{
			"cycle": f.CycleSubscription, "fail-renewal": f.FailRenewal, "give-up": f.GiveUpSubscription, "pause": f.PauseSubscription,
			"resume": f.ResumeSubscription, "start": f.StartSubscription, "cancel": f.CancelSubscription,
			"uncancel": f.UncancelSubscription, "revoke": f.RevokeSubscription,
		}},
		"benefit-grants": {"benefit_grant", actions{"update": f.UpdateGrant, "cycle": f.CycleGrant, "revoke": f.RevokeGrant}},
		"customer-seats": {"customer_seat", actions{"claim": f.ClaimSeat, "revoke": f.RevokeSeat}},
	} {
		routes.HandleFunc("POST /_fake/"+path+"/{id}/{action}", func(w http.ResponseWriter, r *http.Request) {
			control(w, r, nil, func() (any, error) { return f.doAction(objects.objectType, objects.actions, r) })
		})
	}
}

// doAction does to an object what the path says, and answers with the document as it is then.
func (f *Fake) doAction(objectType string, known actions, r *http.Request) (any, error) {
	id, name := r.PathValue("id"), r.PathValue("action")
	action, exists := known[name]
	if !exists {
		return nil, fmt.Errorf("action %q is not known, use one of %s", name, strings.Join(sortedKeys(known), ", "))
	}
	if err := action(id); err != nil {
		return nil, err
	}
	return f.object(objectType, id), nil
}

// controlObjects answers for a type of object that exists.
func (f *Fake) controlObjects(w http.ResponseWriter, r *http.Request, answer func(objectType string) any) {
	control(w, r, nil, func() (any, error) {
		objectType := r.PathValue("type")
		if !slices.Contains(ObjectTypes, objectType) {
			return nil, fmt.Errorf("object type %q is not known, use one of %s", objectType, strings.Join(ObjectTypes, ", "))
		}
		return answer(objectType), nil
	})
}
