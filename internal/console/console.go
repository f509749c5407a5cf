// Package console is the worker's web page: whether users and payments agree, at a glance, and where they do not, the means
// to settle it. In `truenorth dev` it also sells something, so that a newcomer sees the whole way from a checkout to a linked
// customer.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
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
	// Password opens the console to everybody who has it, by HTTP basic authentication; the user name is who they say they are.
	// Empty: the console answers only clients on loopback that ask for it by a loopback name.
	Password string
	// ReaderPassword opens it for reading only. Empty: there are no readers. Without Password it counts for nothing.
	ReaderPassword string
	// TrustedProxies are the proxies whose X-Forwarded-For and X-Forwarded-Host are believed.
	TrustedProxies []netip.Prefix
	// Demo adds a button that creates a checkout; nil but in `truenorth dev`.
	Demo *Demo
}

// Demo is a shop of one button.
type Demo struct {
	Products   []DemoProduct
	SuccessURL string // where the buyer comes back to; Polar replaces {CHECKOUT_ID}
	NoSweeps   bool   // nothing may be compared with this Polar, which has forgotten what it sold
}

// DemoProduct is something to sell.
type DemoProduct struct {
	ID    uuid.UUID
	Name  string
	Price string // for people; may be empty
}

const (
	listLength   = 50
	shortList    = 10 // of the overview
	queryLimit   = 10 * time.Second
	awaitURL     = 10 * time.Second
	maxBody      = 64 << 10
	formLifetime = 12 * time.Hour
)

// How often a page looks again while something is pending: in the demo somebody is watching.
const (
	demoRefresh = 2
	slowRefresh = 10
)

//go:embed static
var staticFiles embed.FS

//go:embed pages/*.html
var templateFiles embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"ago":       func(t time.Time) string { return ago(time.Now(), t) },
	"count":     count,
	"causeSays": causeSays,
	"customer":  func(id fmt.Stringer) string { return "/customers/" + id.String() },
	"duration":  duration,
	"isOpen":    func(d store.LedgerDrift) bool { return d.ResolvedAt == nil },
	"kindSays":  kindSays,
	"money":     money,
	"nav":       newNavLink,
	"payURL":    func(r store.ListedRequest) string { return payURL(r.State, r.URL, r.ExpiresAt, time.Now()) },
	"short":     func(id uuid.UUID) string { return id.String()[:8] },
	"user":      userPath,
	"utc":       func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"value":     value,
	"words":     func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") },
}).ParseFS(templateFiles, "pages/*.html"))

// Console is the handler of all pages.
type Console struct {
	config       Config
	operatorHash [sha256.Size]byte
	readerHash   [sha256.Size]byte
	forms        formKey
	guesses      guesses
	awaitURL     time.Duration
	river        *riverUI
	routes       *routes
	handler      http.Handler
}

// routes is a mux that remembers what it was told.
type routes struct {
	http.ServeMux

	patterns []string
}

func (m *routes) handle(pattern string, handler http.Handler) {
	m.patterns = append(m.patterns, pattern)
	m.Handle(pattern, handler)
}

// New makes the console. It serves GET / and the pages below it, /jobs/... for River UI, and /static/....
func New(config Config) (*Console, error) {
	c := &Console{
		config: config, operatorHash: sha256.Sum256([]byte(config.Password)), readerHash: sha256.Sum256([]byte(config.ReaderPassword)),
		forms: newFormKey(config.Password), awaitURL: awaitURL,
	}
	var err error
	if c.river, err = newRiverUI(c); err != nil {
		return nil, err
	}
	c.routes = c.newRoutes()
	c.handler = c.guard(c.routes)
	return c, nil
}

// ServeHTTP serves one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// Close ends what runs for River UI.
func (c *Console) Close() { c.river.close() }

func (c *Console) newRoutes() *routes {
	mux := &routes{}
	for pattern, show := range map[string]func(context.Context, *http.Request) (answer, error){
		"GET /{$}":            c.overview,
		"GET /search":         c.search,
		"GET /customers":      c.customers,
		"GET /customers/{id}": c.customer,
		"GET /users":          c.users,
		"GET /user":           c.user,
		"GET /checkouts":      c.requests,
		"GET /requests/{id}":  c.request,
		"GET /events":         c.events,
		"GET /events/{seq}":   c.event,
		"GET /conflicts":      c.conflicts,
		"GET /conflicts/{id}": c.conflict,
		"GET /drift":          c.drift,
		"GET /drift/{id}":     c.oneDrift,
		"GET /audit":          c.audit,
	} {
		mux.handle(pattern, c.show(show))
	}
	for pattern, do := range map[string]func(context.Context, *http.Request, store.Word) (string, error){
		"POST /customers/{id}/link":    c.link,
		"POST /customers/{id}/unlink":  c.unlink,
		"POST /requests/{id}/retry":    c.retryRequest,
		"POST /requests/{id}/try":      c.tryRequest,
		"POST /events/replay":          c.replay,
		"POST /events/retry":           c.retryFailed,
		"POST /conflicts/{id}/resolve": c.resolveConflict,
		"POST /drift/{id}/resolve":     c.resolveDrift,
		"POST /drift/sweep":            c.sweep,
	} {
		mux.handle(pattern, c.act(do))
	}
	mux.handle("POST /events/{seq}/document", http.HandlerFunc(c.document))
	mux.handle("/jobs/", c.river)
	mux.handle("GET /jobs", http.RedirectHandler("/jobs/", http.StatusSeeOther))
	// File by file: a file server would list the folder.
	for _, name := range []string{"static/console.css", "static/console.js", "static/icon.svg"} {
		mux.handle("GET /"+name, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, staticFiles, name) }))
	}
	if c.config.Demo != nil {
		mux.handle("POST /demo/checkouts", http.HandlerFunc(c.createCheckout))
	}
	mux.handle("/", c.show(c.notFound))
	return mux
}

// page is what every page shows; Refresh is in how many seconds it looks again, 0 for not at all.
type page struct {
	Title   string
	Section string // which of the navigation's links leads here
	Refresh int
	Query   string // what is looked for
	Visitor visitor
	Token   string // for forms; empty for who may not change anything
	News    *news  // nil: none
}

func (c *Console) newPage(r *http.Request, title, section string) page {
	p := page{Title: title + " · truenorth", Section: section, Visitor: visitorOf(r.Context())}
	if p.Visitor.Operator {
		p.Token = c.token(p.Visitor)
	}
	p.News = told(r.URL.Query())
	return p
}

// token is for who has a password bound to the name that came with it; who has none gives a name with each form.
func (c *Console) token(v visitor) string { return c.forms.token(boundName(v), time.Now()) }

func boundName(v visitor) string {
	if v.Asked {
		return v.Name
	}
	return ""
}

// pending sets Refresh.
func (c *Console) pending(p *page) {
	p.Refresh = slowRefresh
	if c.config.Demo != nil {
		p.Refresh = demoRefresh
	}
}

// navLink is a link of the navigation.
type navLink struct {
	Path, Text string
	Here       bool
}

func newNavLink(section, path, text, here string) navLink {
	return navLink{path, text, section == here}
}

// answer is a page to render.
type answer struct {
	template string
	data     any
}

// refusal is what a person is told instead of a page.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func refused(status int, format string, args ...any) error {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

// show answers a request with a page.
func (c *Console) show(read func(context.Context, *http.Request) (answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
		defer cancel()
		a, err := read(ctx, r)
		if err != nil {
			c.fail(w, r, err)
			return
		}
		c.render(w, r, http.StatusOK, a.template, a.data)
	}
}

func (c *Console) notFound(_ context.Context, r *http.Request) (answer, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost {
		return answer{}, refused(http.StatusMethodNotAllowed, "There is nothing here that can be changed so.")
	}
	return answer{}, refused(http.StatusNotFound, "There is no such page.")
}

type messagePage struct {
	page
	Status int
	Text   string
}

// refuse answers with a page that says why.
func (c *Console) refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	c.render(w, r, status, "message.html", messagePage{page: c.newPage(r, http.StatusText(status), ""), Status: status, Text: text})
}

// fail logs what went wrong; the page tells no more than whether to try again. What a person did wrong it tells.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	if told, ok := errors.AsType[*refusal](err); ok {
		c.refuse(w, r, told.status, told.text)
		return
	}
	if r.Context().Err() != nil {
		return // nobody waits for the page any more
	}
	if errors.Is(err, store.ErrNotFound) {
		c.refuse(w, r, http.StatusNotFound, "There is nothing of that name here: it never was, or is no longer kept.")
		return
	}
	c.config.Logger.ErrorContext(r.Context(), "serving the console failed", slog.String("path", r.URL.Path), slog.String("error", err.Error()))
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrDenied) || errors.Is(err, context.DeadlineExceeded) {
		c.refuse(w, r, http.StatusServiceUnavailable, "The database does not answer now. Try again in a moment.")
		return
	}
	if errors.Is(err, store.ErrOlderSchema) {
		c.refuse(w, r, http.StatusServiceUnavailable, "The database is not migrated to this release yet. Nothing was changed; run `truenorth migrate`.")
		return
	}
	c.refuse(w, r, http.StatusInternalServerError, "Something went wrong. The worker's log says what.")
}

// render writes a page as a whole, or none of it.
func (c *Console) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
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
