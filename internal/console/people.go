package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type customersPage struct {
	page
	pager
	Unlinked  bool
	Customers []store.ListedCustomer
}

func (c *Console) customers(ctx context.Context, r *http.Request) (answer, error) {
	query := r.URL.Query()
	p := customersPage{page: c.newPage(r, "Customers", "customers"), Unlinked: query.Get("state") == "unlinked"}
	p.Query = strings.TrimSpace(query.Get("q"))
	at, err := placeOf(query.Get("after"))
	if err != nil {
		return answer{}, err
	}
	switch {
	case p.Query != "":
		p.Customers, err = c.config.Store.FindCustomers(ctx, p.Query, listLength)
	case p.Unlinked:
		p.Customers, err = c.config.Store.ListUnlinkedCustomers(ctx, at, listLength+1)
	default:
		p.Customers, err = c.config.Store.ListCustomers(ctx, at, listLength+1)
	}
	if err != nil {
		return answer{}, err
	}
	p.Customers, p.pager = paged(r, p.Customers, func(c store.ListedCustomer) string { return placeText(store.Place{At: c.At, ID: c.ID}) })
	return answer{"customers.html", p}, nil
}

// pager leads through a list.
type pager struct {
	Next  string // where it goes on; empty: nowhere
	First string // its beginning, where this is a later page
}

// paged leaves what one page shows of a list that was read one longer, and says where it goes on: after the row that place
// names.
func paged[T any](r *http.Request, list []T, place func(T) string) ([]T, pager) {
	var p pager
	query := r.URL.Query()
	query.Del("done")
	query.Del("n")
	if len(list) > listLength {
		list = list[:listLength]
		query.Set("after", place(list[listLength-1]))
		p.Next = r.URL.Path + "?" + query.Encode()
	}
	if r.URL.Query().Has("after") {
		query.Del("after")
		p.First = r.URL.Path + "?" + query.Encode()
	}
	return list, p
}

// placeText is a place as an address carries it.
func placeText(p store.Place) string {
	return strconv.FormatInt(p.At.UnixMicro(), 10) + "_" + p.ID.String()
}

func placeOf(text string) (store.Place, error) {
	if text == "" {
		return store.Place{}, nil
	}
	micros, id, _ := strings.Cut(text, "_")
	n, err := strconv.ParseInt(micros, 10, 64)
	at, idErr := uuid.Parse(id)
	const farthest = 1 << 58 // microseconds: what Postgres can hold
	if err != nil || idErr != nil || n > farthest || n < -farthest/8 {
		return store.Place{}, refused(http.StatusBadRequest, "The address of this page is not whole: go back to the beginning of the list.")
	}
	return store.Place{At: time.UnixMicro(n), ID: at}, nil
}

// numberOf reads where a list by number goes on.
func numberOf(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, refused(http.StatusBadRequest, "The address of this page is not whole: go back to the beginning of the list.")
	}
	return n, nil
}

// idOf reads the id of something in an address.
func idOf(r *http.Request, what string) (uuid.UUID, error) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return uuid.Nil, refused(http.StatusNotFound, "There is no such %s.", what)
	}
	return id, nil
}

// numberIn reads the number of something in an address.
func numberIn(r *http.Request, name, what string) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil {
		return 0, refused(http.StatusNotFound, "There is no such %s.", what)
	}
	return n, nil
}

type usersPage struct {
	page
	pager
	Users []store.ListedUser
	Slow  bool // the search by e-mail address took too long
}

func (c *Console) users(ctx context.Context, r *http.Request) (answer, error) {
	query := r.URL.Query()
	p := usersPage{page: c.newPage(r, "Users", "users")}
	p.Query = strings.TrimSpace(query.Get("q"))
	var err error
	if p.Query != "" {
		p.Users, p.Slow, err = c.config.Store.FindUsers(ctx, p.Query, listLength)
	} else {
		p.Users, err = c.config.Store.ListUsers(ctx, query.Get("after"), listLength+1)
	}
	if err != nil {
		return answer{}, err
	}
	p.Users, p.pager = paged(r, p.Users, func(u store.ListedUser) string { return u.ID })
	return answer{"users.html", p}, nil
}

type searchPage struct {
	page
	Customers []store.ListedCustomer
	Users     []store.ListedUser
	Slow      bool
	Requests  []store.ListedRequest
	Events    []store.ListedEvent
}

// search looks everywhere for an id or an e-mail address.
func (c *Console) search(ctx context.Context, r *http.Request) (answer, error) {
	p := searchPage{page: c.newPage(r, "Search", "")}
	p.Query = strings.TrimSpace(r.URL.Query().Get("q"))
	if p.Query == "" {
		return answer{"search.html", p}, nil
	}
	s := c.config.Store
	var err error
	if p.Customers, err = s.FindCustomers(ctx, p.Query, listLength); err != nil {
		return answer{}, err
	}
	if p.Users, p.Slow, err = s.FindUsers(ctx, p.Query, listLength); err != nil {
		return answer{}, err
	}
	if p.Requests, err = s.ListRequests(ctx, store.RequestFilter{Text: p.Query}, store.Place{}, listLength); err != nil {
		return answer{}, err
	}
	p.Events, err = s.ListEventPage(ctx, store.EventFilter{Text: p.Query}, 0, listLength)
	return answer{"search.html", p}, err
}

// userPath is the page of a local user, whose id may be any text.
func userPath(id any) string {
	if p, ok := id.(*string); ok && p != nil {
		id = *p
	}
	return "/user?" + url.Values{"id": {fmt.Sprint(id)}}.Encode()
}

type personPage struct {
	page
	pager
	store.Person
	Heading  string
	Subject  *store.FiledCustomer // the customer that was asked for; nil for a user
	User     *store.FiledUser     // nil: no local user
	UserID   string
	Timeline []moment
}

func (c *Console) customer(ctx context.Context, r *http.Request) (answer, error) {
	id, err := idOf(r, "customer")
	if err != nil {
		return answer{}, err
	}
	return c.person(ctx, r, &id, "")
}

func (c *Console) user(ctx context.Context, r *http.Request) (answer, error) {
	id := r.URL.Query().Get("id")
	if id == "" {
		return answer{}, refused(http.StatusNotFound, "There is no such user.")
	}
	return c.person(ctx, r, nil, id)
}

// person shows a customer or a local user, with all that is the same by its links.
func (c *Console) person(ctx context.Context, r *http.Request, customer *uuid.UUID, user string) (answer, error) {
	section := "users"
	if customer != nil {
		section = "customers"
	}
	p := personPage{page: c.newPage(r, "Person", section)}
	after, err := numberOf(r.URL.Query().Get("after"))
	if err != nil {
		return answer{}, err
	}
	if p.Person, err = c.config.Store.ReadPerson(ctx, customer, user, listLength); err != nil {
		return answer{}, err
	}
	if len(p.Users) > 0 {
		p.User = &p.Users[0]
		user = p.User.ID
	}
	p.Heading, p.UserID = user, user
	ids := make([]uuid.UUID, len(p.Customers))
	for i := range p.Customers {
		ids[i] = p.Customers[i].ID
		if customer != nil && ids[i] == *customer {
			p.Subject = &p.Customers[i]
			p.Heading = cmp.Or(p.Subject.Email, p.Subject.Name, p.Subject.ID.String())
		}
	}
	p.Title = p.Heading + " · truenorth"
	var users []string
	if user != "" {
		users = []string{user}
	}
	events, err := c.config.Store.ListPersonEvents(ctx, ids, users, after, listLength+1)
	if err != nil {
		return answer{}, err
	}
	var until time.Time // what is older is for the next page
	if len(events) > listLength {
		until = events[listLength].At
	}
	events, p.pager = paged(r, events, func(e store.PersonEvent) string { return strconv.FormatInt(e.Seq, 10) })
	p.Timeline = timeline(p.Person, user, events, after > 0, until)
	return answer{"person.html", p}, nil
}

// moment is a line of a timeline.
type moment struct {
	At     time.Time
	Kind   string // link, conflict, checkout, subscription, order, deed or event
	Text   string
	Badge  string // a state
	Link   string // empty: none
	Detail string
}

// boughtBy names the buyer of what stands with a customer who is another's.
func boughtBy(buyer, user string) string {
	if buyer == "" || buyer == user {
		return ""
	}
	return ", which is " + buyer + "'s, who bought it"
}

// timeline puts what happened in order, newest first. A page that is not the first begins with its first event; one that is not
// the last ends before until, when the next page's first event came.
func timeline(p store.Person, user string, events []store.PersonEvent, isLater bool, until time.Time) []moment {
	var all []moment
	add := func(at *time.Time, m moment) {
		if at == nil {
			return
		}
		m.At = *at
		all = append(all, m)
	}
	for _, h := range p.History {
		add(&h.LinkedAt, moment{Kind: "link", Text: "linked to " + h.LocalUserID + " (" + h.Basis + ") by " + h.Actor, Detail: h.Note})
		add(h.EndedAt, moment{Kind: "link", Text: "link to " + h.LocalUserID + " ended (" + h.EndReason + ") by " + h.EndedBy, Detail: h.EndNote})
	}
	for _, k := range p.Conflicts {
		link := "/conflicts/" + strconv.FormatInt(k.ID, 10)
		add(&k.DetectedAt, moment{Kind: "conflict", Text: "conflict with " + k.LocalUserID + ": " + k.Kind, Link: link, Detail: k.Detail})
		add(k.ResolvedAt, moment{Kind: "conflict", Text: "conflict settled by " + k.ResolvedBy, Badge: k.Resolution, Link: link, Detail: k.Note})
	}
	for _, q := range p.Requests {
		add(&q.CreatedAt, moment{Kind: "checkout", Text: "checkout asked for", Badge: q.State, Link: "/requests/" + q.ID.String(), Detail: q.Error})
	}
	for _, s := range p.Subscriptions {
		add(s.CreatedAt, moment{Kind: "subscription", Text: "subscription to " + cmp.Or(s.ProductName, s.ID.String()) + boughtBy(s.Buyer, user), Badge: s.Status, Detail: money(s.Amount, s.Currency)})
		add(s.EndedAt, moment{Kind: "subscription", Text: "subscription to " + cmp.Or(s.ProductName, s.ID.String()) + " ended"})
	}
	for _, o := range p.Orders {
		add(o.CreatedAt, moment{Kind: "order", Text: "order of " + cmp.Or(o.ProductName, o.ID.String()) + boughtBy(o.Buyer, user), Badge: o.Status, Detail: money(o.TotalAmount, o.Currency)})
	}
	for _, d := range p.Deeds {
		add(&d.At, moment{Kind: "deed", Text: d.Action + " by " + d.Actor + " (" + d.Door + ")", Detail: d.Reason})
	}
	all = slices.DeleteFunc(all, func(m moment) bool {
		if len(events) == 0 {
			return isLater
		}
		return (isLater && m.At.After(events[0].At)) || !m.At.After(until)
	})
	for _, e := range events {
		add(&e.At, moment{Kind: "event", Text: e.Type, Badge: e.State, Link: "/events/" + strconv.FormatInt(e.Seq, 10)})
	}
	slices.SortStableFunc(all, func(a, b moment) int { return b.At.Compare(a.At) })
	return all
}

// link makes a customer a local user's, by the operator's word.
func (c *Console) link(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	id, err := idOf(r, "customer")
	if err != nil {
		return "", err
	}
	_, err = jobs.LinkCustomer(ctx, c.config.Store, jobs.LinkOrder{
		CustomerID: id, LocalUserID: strings.TrimSpace(r.PostForm.Get("user")),
		Also: r.PostForm.Get("also") != "", Replace: r.PostForm.Get("replace") != "",
	}, word)
	return done("/customers/"+id.String(), "linked"), err
}

// unlink ends a customer's link, by the operator's word.
func (c *Console) unlink(ctx context.Context, r *http.Request, word store.Word) (string, error) {
	id, err := idOf(r, "customer")
	if err != nil {
		return "", err
	}
	_, err = jobs.UnlinkCustomer(ctx, c.config.Store, id, word)
	return done("/customers/"+id.String(), "unlinked"), err
}
