// Package console is the worker's web page: whether users and payments agree, at a glance.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Config is what the console needs.
type Config struct {
	Store  *store.Store
	Client *truenorth.Client
	Logger *slog.Logger
	// Password opens the console to others than loopback, by basic authentication under any user name. Empty: only
	// clients on loopback, who ask for it by a loopback name.
	Password string
	// Demo adds a button that creates a checkout; nil but in `truenorth dev`.
	Demo *Demo
}

// Demo is a shop of one button.
type Demo struct {
	Products   []DemoProduct
	SuccessURL string // where the buyer comes back to; {CHECKOUT_ID} is replaced
}

// DemoProduct is something to sell.
type DemoProduct struct {
	ID   uuid.UUID
	Name string
}

//go:embed static
var staticFiles embed.FS

//go:embed *.html
var templateFiles embed.FS

const (
	listLength  = 50
	awaitURL    = 10 * time.Second
	queryLimit  = 10 * time.Second
	maxFormSize = 16 << 10
)

type console struct {
	config Config
	pages  *template.Template
	// passwordHash is compared, so that the time it takes tells nothing of the length either.
	passwordHash [sha256.Size]byte
}

// New makes the console's handler.
func New(config Config) http.Handler {
	c := &console{config: config, passwordHash: sha256.Sum256([]byte(config.Password))}
	c.pages = template.Must(template.New("").Funcs(template.FuncMap{"ago": ago}).ParseFS(templateFiles, "*.html"))
	static, err := fs.Sub(staticFiles, "static")
	if err != nil {
		panic(err) // the folder is embedded: our own mistake, seen by any run
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.overview)
	mux.HandleFunc("GET /requests/{id}", c.request)
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	if config.Demo != nil {
		mux.HandleFunc("POST /demo/checkouts", c.createCheckout)
	}
	// Refuses every change that a browser says comes from another site.
	sameOrigin := http.NewCrossOriginProtection()
	return c.guard(sameOrigin.Handler(mux))
}

// guard lets in who may look, and sets the headers that every page bears.
func (c *console) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' http: https:; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if c.config.Password != "" {
			_, password, _ := r.BasicAuth()
			given := sha256.Sum256([]byte(password))
			if subtle.ConstantTimeCompare(given[:], c.passwordHash[:]) != 1 {
				h.Set("WWW-Authenticate", `Basic realm="truenorth", charset="UTF-8"`)
				http.Error(w, "a password is needed", http.StatusUnauthorized)
				return
			}
		} else if !fromLoopback(r.RemoteAddr) || !loopbackName(r.Host) {
			http.Error(w, "without CONSOLE_PASSWORD the console answers on loopback only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func fromLoopback(remoteAddr string) bool {
	addr, err := netip.ParseAddrPort(remoteAddr)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}

// loopbackName tells whether the page was asked for by a name of this machine: a name of a stranger's that leads here
// (DNS rebinding) would make a browser talk to us in the stranger's name.
func loopbackName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	switch strings.Trim(name, "[]") {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// head is what the top of a page needs.
type head struct {
	Title   string
	Refresh bool // something is on its way: look again soon, without script too
}

type overviewPage struct {
	Head      head
	Status    store.Status
	Requests  []store.CheckoutRequest
	Links     []store.RecentLink
	Conflicts []store.Conflict
	Events    []store.RecentEvent
	Demo      *Demo
	Users     []store.LocalUser
	Paid      bool
}

func (c *console) overview(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	page := overviewPage{Demo: c.config.Demo, Paid: r.URL.Query().Has("paid")}
	var err error
	read := func(do func() error) {
		if err == nil {
			err = do()
		}
	}
	s := c.config.Store
	read(func() (err error) { page.Status, err = s.ReadStatus(ctx); return })
	read(func() (err error) { page.Requests, err = s.ListRecentRequests(ctx, listLength); return })
	read(func() (err error) { page.Links, err = s.ListRecentLinks(ctx, listLength); return })
	read(func() (err error) { page.Conflicts, err = s.ListOpenConflicts(ctx, listLength); return })
	read(func() (err error) { page.Events, err = s.ListRecentEvents(ctx, listLength); return })
	if page.Demo != nil {
		read(func() (err error) { page.Users, err = s.ListLocalUsers(ctx, listLength); return })
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	page.Head = head{Title: "truenorth", Refresh: page.Status.RequestsWaiting > 0 || page.Status.Events["received"] > 0 || page.awaitsLink(r.URL.Query().Get("paid"))}
	c.render(w, r, "overview.html", page)
}

// awaitsLink tells whether the checkout that a buyer comes back from is not followed by a link yet.
func (p *overviewPage) awaitsLink(checkout string) bool {
	for _, r := range p.Requests {
		if r.CheckoutID == nil || r.CheckoutID.String() != checkout || r.ExternalCustomerID == nil {
			continue
		}
		return !slices.ContainsFunc(p.Links, func(l store.RecentLink) bool { return l.LocalUserID == *r.ExternalCustomerID })
	}
	return false
}

type requestPage struct {
	Head    head
	Request store.CheckoutRequest
	Params  string
}

func (c *console) request(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		http.Error(w, "no such request", http.StatusNotFound)
		return
	}
	request, err := c.config.Store.GetCheckoutRequest(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		http.Error(w, "no such request", http.StatusNotFound)
		return
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	var params bytes.Buffer
	if err := json.Indent(&params, request.Params, "", "  "); err != nil {
		c.fail(w, r, err)
		return
	}
	c.render(w, r, "request.html", requestPage{
		Head:    head{Title: "Checkout request", Refresh: request.State == store.RequestQueued || request.State == store.RequestCreating},
		Request: request, Params: params.String(),
	})
}

// createCheckout asks for a checkout and leads to its page.
func (c *console) createCheckout(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormSize)
	product, err := uuid.Parse(r.PostFormValue("product"))
	if err != nil {
		http.Error(w, "choose a product", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), awaitURL)
	defer cancel()
	id, err := c.config.Client.CreateCheckout(ctx, truenorth.CheckoutParams{
		Products: []uuid.UUID{product}, ExternalCustomerID: r.PostFormValue("user"), SuccessURL: c.config.Demo.SuccessURL,
	})
	if _, bad := errors.AsType[*truenorth.ParamsError](err); bad {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	url, err := c.config.Client.AwaitURL(ctx, id)
	if err != nil {
		// It failed, or takes long: its page tells, and goes on telling.
		c.config.Logger.WarnContext(ctx, "no URL yet", slog.String("request", id.String()), slog.String("error", err.Error()))
		url = "/requests/" + id.String()
	}
	http.Redirect(w, r, url, http.StatusSeeOther)
}

func (c *console) render(w http.ResponseWriter, r *http.Request, name string, data any) {
	var page bytes.Buffer
	if err := c.pages.ExecuteTemplate(&page, name, data); err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = page.WriteTo(w)
}

// fail logs what went wrong; the page tells no more than that.
func (c *console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, words := http.StatusInternalServerError, "something went wrong; the worker's log says what"
	if errors.Is(err, store.ErrUnavailable) {
		status, words = http.StatusServiceUnavailable, "the database does not answer now; try again"
	}
	c.config.Logger.ErrorContext(r.Context(), "console failed", slog.String("path", r.URL.Path), slog.String("error", err.Error()))
	http.Error(w, words, status)
}

// ago is a time as a person reads it.
func ago(t time.Time) string {
	switch d := time.Since(t); {
	case d < 0:
		return "in " + (-d).Round(time.Minute).String()
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return d.Truncate(time.Minute).String() + " ago"
	case d < 48*time.Hour:
		return d.Truncate(time.Hour).String() + " ago"
	}
	return t.Format(time.DateOnly)
}
