package polar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Document is one of Polar's objects of whatever type, as an answer holds it.
type Document struct {
	Meta
	SortKey time.Time // the time by which its list is sorted; zero where it has none
	Status  string    // "" where it has none

	Raw    json.RawMessage // the document itself, byte for byte
	ReadAt time.Time       // by Polar's clock; zero if it did not say
}

// Resource is how Polar's API serves the objects of one type.
type Resource struct {
	Type    string // such as "benefit_grant"; the name of its table too
	Sweep   string // the objects that are compared in one go: this type, and what it hangs off
	SortKey string // the field by which the list can be sorted so that no change moves an object; "" if there is no list
	ByID    bool   // whether one object can be read by its id

	path     string   // of the list, below the base URL
	statuses []string // all that there are, where a list would leave some out unless asked
	scope    string   // of the token, that reading takes
}

// resources are the types of objects that Polar's API serves, in an order in
// which those that others refer to come first. A new type is an entry here and
// a table of its name.
var resources = []Resource{
	{Type: "organization", Sweep: "catalog", path: "/organizations/", SortKey: "created_at", ByID: true, scope: "organizations:read"},
	{Type: "product", Sweep: "catalog", path: "/products/", SortKey: "created_at", ByID: true, scope: "products:read"},
	{Type: "discount", Sweep: "catalog", path: "/discounts/", SortKey: "created_at", ByID: true, scope: "discounts:read"},
	{Type: "benefit", Sweep: "catalog", path: "/benefits/", SortKey: "created_at", ByID: true, scope: "benefits:read"},
	{Type: "customer", Sweep: "customers", path: "/customers/", SortKey: "created_at", ByID: true, scope: "customers:read"},
	{Type: "member", Sweep: "customers", path: "/members/", SortKey: "created_at", scope: "members:read"},
	{
		Type: "checkout", Sweep: "checkouts", path: "/checkouts/", SortKey: "created_at", ByID: true, scope: "checkouts:read",
		statuses: []string{"open", "expired", "confirmed", "succeeded", "failed"},
	},
	{
		// Polar sorts subscriptions by many things, but not by their creation.
		Type: "subscription", Sweep: "subscriptions", path: "/subscriptions/", SortKey: "started_at", ByID: true, scope: "subscriptions:read",
		statuses: []string{"incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"},
	},
	{
		Type: "order", Sweep: "orders", path: "/orders/", SortKey: "created_at", ByID: true, scope: "orders:read",
		statuses: []string{"draft", "pending", "paid", "refunded", "partially_refunded", "void"},
	},
	{Type: "refund", Sweep: "orders", path: "/refunds/", SortKey: "created_at", scope: "refunds:read"},
	{Type: "benefit_grant", Sweep: "subscriptions", path: "/benefit-grants/", SortKey: "created_at", scope: "benefits:read"},
	{Type: "customer_seat", Sweep: "subscriptions", path: "/customer-seats", scope: "customer_seats:read"},
}

// Resources returns how Polar's API serves each type of objects, those that
// others refer to first.
func Resources() []Resource { return slices.Clone(resources) }

// ResourceOf returns how Polar's API serves a type of objects. ok is false
// where it is not known.
func ResourceOf(objectType string) (r Resource, ok bool) {
	at := slices.IndexFunc(resources, func(r Resource) bool { return r.Type == objectType })
	if at < 0 {
		return Resource{}, false
	}
	return resources[at], true
}

// Lists tells whether the list shows objects of this status. Polar may know
// others by now, which only a read by id shows.
func (r Resource) Lists(status string) bool {
	return len(r.statuses) == 0 || slices.Contains(r.statuses, status)
}

// Scope is what the token needs to read these objects.
func (r Resource) Scope() string { return r.scope }

// ListObjects reads a page of all objects of a type that are not deleted,
// whatever their status, in ascending order of the type's SortKey, those
// without one last. page counts from 1; limit is [MaxPageSize] at most.
//
// A page that does not hold what its own total_count says is an error: half an
// answer must not pass for a whole one.
func (a *API) ListObjects(ctx context.Context, r Resource, page, limit int) (Page[Document], error) {
	if r.SortKey == "" {
		return Page[Document]{}, fmt.Errorf("listing objects of type %q: Polar has no list of all of them", r.Type)
	}
	c := a.newCall(http.MethodGet, r.path)
	c.query = pageQuery(page, limit, r.SortKey)
	if len(r.statuses) > 0 {
		c.query["status"] = r.statuses
	}
	return fetchPage(ctx, a, c, r.read)
}

// GetObject reads an object by its id.
func (a *API) GetObject(ctx context.Context, r Resource, id uuid.UUID) (Document, error) {
	if !r.ByID {
		return Document{}, fmt.Errorf("reading %s %s: Polar does not serve these by their id", r.Type, id)
	}
	c := a.newCall(http.MethodGet, r.path+"{id}", id.String())
	return fetch(ctx, a, c, r.read)
}

// SeatHolder is what customer seats belong to: exactly one of the two is set.
type SeatHolder struct {
	SubscriptionID uuid.UUID
	OrderID        uuid.UUID
}

// ListSeats reads the seats of a subscription or an order. readAt is by
// Polar's clock.
func (a *API) ListSeats(ctx context.Context, holder SeatHolder) (seats []Document, readAt time.Time, err error) {
	r, _ := ResourceOf("customer_seat")
	c := a.newCall(http.MethodGet, r.path)
	switch {
	case holder.SubscriptionID != uuid.Nil:
		c.query = url.Values{"subscription_id": {holder.SubscriptionID.String()}}
	case holder.OrderID != uuid.Nil:
		c.query = url.Values{"order_id": {holder.OrderID.String()}}
	default:
		return nil, time.Time{}, errors.New("listing seats: neither a subscription nor an order is given")
	}
	got, err := a.do(ctx, c)
	if err != nil {
		return nil, time.Time{}, err
	}
	var list struct {
		Seats []json.RawMessage `json:"seats"`
	}
	if err := json.Unmarshal(got.body, &list); err != nil || list.Seats == nil {
		return nil, time.Time{}, c.unreadable(got.status, errors.New("the answer is not a list of seats in Polar's form"))
	}
	for i, raw := range list.Seats {
		seat, err := r.read(raw, got.readAt)
		if err != nil {
			return nil, time.Time{}, c.unreadable(got.status, fmt.Errorf("seat %d of %d: %w", i+1, len(list.Seats), err))
		}
		seats = append(seats, seat)
	}
	return seats, got.readAt, nil
}

// read reads an object. raw is kept, not copied.
func (r Resource) read(raw json.RawMessage, readAt time.Time) (Document, error) {
	meta, fields, err := decodeObject(raw)
	if err != nil {
		return Document{}, fmt.Errorf("decoding %s: %w", r.Type, err)
	}
	d := Document{Meta: meta, Status: fields.text("status"), Raw: raw, ReadAt: readAt}
	if r.SortKey != "" {
		d.SortKey = fields.time(r.SortKey)
	}
	return d, nil
}

// IsGone tells whether Polar said that there is no such object: in its own
// words, since an unsupported Polar-Version and a proxy's mistake are a 404 too.
func IsGone(err error) bool {
	apiErr, ok := errors.AsType[*APIError](err)
	return ok && apiErr.Status == http.StatusNotFound && apiErr.Code == "ResourceNotFound"
}
