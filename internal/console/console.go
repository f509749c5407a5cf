// Package console is the worker's web page: whether users and payments agree, at a glance. In `truenorth dev` it also
// sells something, so that a newcomer sees the whole way from a checkout to a linked customer.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Config is what the console needs.
type Config struct {
	Store  *store.Store
	Client *truenorth.Client // asks for the demo's checkouts; unused without Demo
	Logger *slog.Logger
	// Password opens the console to everybody who has it, by HTTP basic authentication under any user name. Empty: the
	// console answers only clients on loopback that ask for it by a loopback name.
	Password string
	// Demo adds a button that creates a checkout; nil but in `truenorth dev`.
	Demo *Demo
}

// Demo is a shop of one button.
type Demo struct {
	Products   []DemoProduct
	SuccessURL string // where the buyer comes back to; Polar replaces {CHECKOUT_ID}
}

// DemoProduct is something to sell.
type DemoProduct struct {
	ID    uuid.UUID
	Name  string
	Price string // for people; may be empty
}

const (
	listLength   = 50
	queryLimit   = 10 * time.Second
	awaitURL     = 10 * time.Second
	maxBody      = 16 << 10
	formLifetime = 12 * time.Hour
)

// How often a page looks again while something is pending: in the demo somebody is watching.
const (
	demoRefresh = 2
	slowRefresh = 10
)

//go:embed static
var staticFiles embed.FS

//go:embed *.html
var templateFiles embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"ago":    func(t time.Time) string { return ago(time.Now(), t) },
	"count":  count,
	"payURL": func(r store.RecentRequest) string { return payURL(r.State, r.URL, r.ExpiresAt, time.Now()) },
	"short":  func(id uuid.UUID) string { return id.String()[:8] },
	"utc":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"words":  func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") },
}).ParseFS(templateFiles, "*.html"))

type console struct {
	config       Config
	passwordHash [sha256.Size]byte
	forms        formKey
	awaitURL     time.Duration
}

// New makes the console's handler. It serves GET /, GET /requests/{id}, GET /static/..., and POST /demo/checkouts if
// there is a Demo.
func New(config Config) http.Handler {
	return newConsole(config).handler()
}

func newConsole(config Config) *console {
	return &console{config: config, passwordHash: sha256.Sum256([]byte(config.Password)), forms: newFormKey(), awaitURL: awaitURL}
}

func (c *console) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.overview)
	mux.HandleFunc("GET /requests/{id}", c.request)
	// File by file: a file server would list the folder.
	for _, name := range []string{"static/console.css", "static/console.js", "static/icon.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, staticFiles, name) })
	}
	if c.config.Demo != nil {
		mux.HandleFunc("POST /demo/checkouts", c.createCheckout)
	}
	return c.guard(mux)
}

// page is what every page shows; Refresh is in how many seconds it looks again, 0 for not at all.
type page struct {
	Title   string
	Refresh int
}

// pending sets Refresh.
func (c *console) pending(p *page) {
	p.Refresh = slowRefresh
	if c.config.Demo != nil {
		p.Refresh = demoRefresh
	}
}

type overviewPage struct {
	page
	Status    store.Status
	Attention []attention
	Requests  []store.RecentRequest
	Links     []linkRow
	Conflicts []store.Conflict
	Events    []store.RecentEvent
	Shop      *shop // nil but in the demo
	News      *news // what became of the checkout that a buyer comes back from; nil where none does
	Limit     int   // of each list
}

// linkRow is a link with the id of its element: linked-<local user id>.
type linkRow struct {
	store.RecentLink
	ElementID string // empty for all but the newest link of a user: an id is unique within a page
}

func (c *console) overview(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	p, err := c.readOverview(ctx)
	if err == nil && c.config.Demo != nil {
		err = c.readDemo(ctx, &p, r.URL.Query().Get("paid"))
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	c.render(w, r, http.StatusOK, "overview.html", p)
}

func (c *console) readOverview(ctx context.Context) (overviewPage, error) {
	p := overviewPage{page: page{Title: "truenorth"}, Limit: listLength}
	var err error
	if p.Status, err = c.config.Store.ReadStatus(ctx); err != nil {
		return overviewPage{}, err
	}
	if p.Requests, err = c.config.Store.ListRecentRequests(ctx, listLength); err != nil {
		return overviewPage{}, err
	}
	links, err := c.config.Store.ListRecentLinks(ctx, listLength)
	if err != nil {
		return overviewPage{}, err
	}
	if p.Conflicts, err = c.config.Store.ListOpenConflicts(ctx, listLength); err != nil {
		return overviewPage{}, err
	}
	if p.Events, err = c.config.Store.ListRecentEvents(ctx, listLength); err != nil {
		return overviewPage{}, err
	}
	p.Links = linkRows(links)
	p.Attention = needs(p.Status)
	if p.Status.RequestsWaiting > 0 || p.Status.Events["received"] > 0 {
		c.pending(&p.page)
	}
	return p, nil
}

func linkRows(links []store.RecentLink) []linkRow {
	rows := make([]linkRow, len(links))
	seen := map[string]bool{}
	for i, l := range links {
		rows[i].RecentLink = l
		if !seen[l.LocalUserID] {
			rows[i].ElementID = "linked-" + l.LocalUserID
		}
		seen[l.LocalUserID] = true
	}
	return rows
}

// attention is something that a person should look at.
type attention struct {
	Text   string
	Anchor string // the section of the page that shows it
}

// needs lists what does not go away by itself.
func needs(s store.Status) []attention {
	var list []attention
	if s.WorkersAlive == 0 {
		list = append(list, attention{"no worker is alive", "numbers"})
	}
	if n := s.OpenConflicts; n > 0 {
		list = append(list, attention{plural(n, "open conflict"), "conflicts"})
	}
	if n := s.Events["failed"]; n > 0 {
		list = append(list, attention{plural(n, "failed event"), "events"})
	}
	return list
}

type requestPage struct {
	page
	Request store.CheckoutRequest
	PayURL  string // empty once nobody can pay there
	Params  string
}

func (c *console) request(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		c.refuse(w, r, http.StatusNotFound, "There is no such checkout request.")
		return
	}
	request, err := c.config.Store.GetCheckoutRequest(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.refuse(w, r, http.StatusNotFound, "There is no such checkout request.")
		return
	case err != nil:
		c.fail(w, r, err)
		return
	}
	var params bytes.Buffer
	if err := json.Indent(&params, request.Params, "", "  "); err != nil {
		c.fail(w, r, err)
		return
	}
	p := requestPage{page: page{Title: "Checkout request · truenorth"}, Request: request, Params: params.String()}
	if request.URL != nil {
		p.PayURL = payURL(request.State, *request.URL, request.ExpiresAt, time.Now())
	}
	switch request.State {
	case store.RequestQueued, store.RequestCreating, store.RequestConfirmed:
		c.pending(&p.page)
	}
	c.render(w, r, http.StatusOK, "request.html", p)
}

type messagePage struct {
	page
	Status int
	Text   string
}

// refuse answers with a page that says why.
func (c *console) refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	c.render(w, r, status, "message.html", messagePage{page: page{Title: http.StatusText(status) + " · truenorth"}, Status: status, Text: text})
}

// fail logs what went wrong; the page tells no more than whether to try again.
func (c *console) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody waits for the page any more
	}
	c.config.Logger.ErrorContext(r.Context(), "serving the console failed", slog.String("path", r.URL.Path), slog.String("error", err.Error()))
	if errors.Is(err, store.ErrUnavailable) {
		c.refuse(w, r, http.StatusServiceUnavailable, "The database does not answer now. Try again in a moment.")
		return
	}
	c.refuse(w, r, http.StatusInternalServerError, "Something went wrong. The worker's log says what.")
}

// render writes a page as a whole, or none of it.
func (c *console) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name, data); err != nil {
		c.config.Logger.ErrorContext(r.Context(), "rendering a page of the console failed", slog.String("page", name), slog.String("error", err.Error()))
		http.Error(w, "something went wrong; the worker's log says what", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = body.WriteTo(w)
}
