package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/mail"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
)

// shop sells one product.
type shop struct {
	pool    *pgxpool.Pool
	client  *truenorth.Client
	product uuid.UUID
	base    *url.URL // where browsers find the shop
	logger  *slog.Logger
}

// urlPatience is how long a buyer is kept waiting for the address of Polar's page. It takes a fraction of a second, but Polar may be slow.
const urlPatience = 10 * time.Second

//go:embed static
var static embed.FS

func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /static/{file}", http.FileServerFS(static))
	mux.HandleFunc("GET /{$}", s.page(s.showOffer))
	mux.HandleFunc("POST /buy", s.page(s.buy))
	mux.HandleFunc("GET /orders/{id}", s.page(s.showOrder))
	mux.HandleFunc("GET /members", s.page(s.showMembers))
	mux.HandleFunc("GET /sign-up", s.page(s.showSignUp))
	mux.HandleFunc("POST /sign-up", s.page(s.doSignUp))
	mux.HandleFunc("GET /sign-in", s.page(s.showSignIn))
	mux.HandleFunc("POST /sign-in", s.page(s.doSignIn))
	mux.HandleFunc("POST /sign-out", s.page(s.doSignOut))
	return s.guard(mux)
}

// guard sets the headers of every answer, and refuses forms that a page of another site sends: browsers say where a
// form is from, so forms need no token.
func (s *shop) guard(next http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection()
	next = sameOrigin.Handler(next)
	forms := "'self' https:" // the button leads on to Polar's page, and browsers ask the policy about that redirect too
	if s.base.Scheme == "http" {
		forms += " http:" // the fake Polar of `make run`
	}
	policy := "default-src 'none'; style-src 'self'; img-src 'self'; form-action " + forms + "; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		if s.base.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		const longestForm = 16 << 10
		r.Body = http.MaxBytesReader(w, r.Body, longestForm)
		next.ServeHTTP(w, r)
	})
}

// page makes a handler of one that knows who asks, and may fail. What went wrong is for the log; browsers hear only
// that it did.
func (s *shop) page(handle func(http.ResponseWriter, *http.Request, person) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // pages say who is signed in
		who, err := s.identify(w, r)
		if err == nil {
			err = handle(w, r, who)
		}
		if err == nil || r.Context().Err() != nil {
			return
		}
		s.logger.ErrorContext(r.Context(), "a page failed", slog.String("page", r.Pattern), slog.String("error", err.Error()))
		err = s.show(w, http.StatusInternalServerError, "message", view{Title: "Something went wrong", Who: who, Message: "It is our fault, and we have been told. Please try again in a moment."})
		if err != nil {
			http.Error(w, "something went wrong", http.StatusInternalServerError)
		}
	}
}

// view is what the pages are made of; each uses what it needs.
type view struct {
	Title   string
	Who     person
	Refresh int // seconds until the page looks again; 0: never
	Message string
	Email   string // what was typed in a form that is shown again
	Offer   offer
	Order   orderStatus
	Access  *access
}

// IsSignedIn tells which links the head of a page shows.
func (v view) IsSignedIn() bool { return v.Who.isSignedIn() }

// UserEmail is the address of who is signed in.
func (v view) UserEmail() string { return v.Who.email }

//go:embed pages.html
var pageSource string

var pages = template.Must(template.New("").Funcs(template.FuncMap{"money": money, "day": day}).Parse(pageSource))

// show answers with a whole page or none.
func (s *shop) show(w http.ResponseWriter, status int, name string, v view) error {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, v); err != nil {
		return fmt.Errorf("rendering page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // who has gone away misses nothing
	return nil
}

func (s *shop) showOffer(w http.ResponseWriter, r *http.Request, who person) error {
	v := view{Who: who}
	var err error
	v.Offer, err = s.readOffer(r.Context())
	if errors.Is(err, errNotSold) {
		return s.show(w, http.StatusServiceUnavailable, "message", view{
			Title: "Nothing is on sale", Who: who, Refresh: 5, Message: "Please come back in a moment.",
		})
	}
	if err != nil {
		return err
	}
	if v.Access, err = s.readAccess(r.Context(), who); err != nil {
		return err
	}
	v.Title = v.Offer.Name
	return s.show(w, http.StatusOK, "offer", v)
}

// buy leads to Polar's page. Whoever presses twice, or again because the first answer got lost, is led to the same checkout.
func (s *shop) buy(w http.ResponseWriter, r *http.Request, who person) error {
	has, err := s.readAccess(r.Context(), who)
	if err != nil {
		return err
	}
	if has != nil {
		http.Redirect(w, r, "/members", http.StatusSeeOther)
		return nil
	}
	order, request, err := s.placeOrder(r.Context(), who)
	if err != nil {
		return err
	}
	// From here on nothing is lost: the order is written, and its page says how the checkout is getting on.
	ctx, cancel := context.WithTimeout(r.Context(), urlPatience)
	defer cancel()
	address, err := s.client.AwaitURL(ctx, request)
	if err != nil {
		if _, ended := errors.AsType[*truenorth.CheckoutError](err); !ended && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.logger.WarnContext(r.Context(), "no address to pay at", slog.String("order", order.String()), slog.String("error", err.Error()))
		address = "/orders/" + order.String()
	}
	http.Redirect(w, r, address, http.StatusSeeOther)
	return nil
}

// showOrder is where Polar's page leads back to. That somebody comes here proves nothing, whatever the address says: what is
// shown is what the tables say, and only to whose order it is.
func (s *shop) showOrder(w http.ResponseWriter, r *http.Request, who person) error {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return s.showNothing(w, who)
	}
	order, err := s.readOrder(r.Context(), who, id)
	if errors.Is(err, errNoOrder) {
		return s.showNothing(w, who)
	}
	if err != nil {
		return err
	}
	v := view{Title: "Your order", Who: who, Order: order}
	if order.mayChange(who) {
		v.Refresh = 2
	}
	return s.show(w, http.StatusOK, "order", v)
}

func (s *shop) showNothing(w http.ResponseWriter, who person) error {
	return s.show(w, http.StatusNotFound, "message", view{
		Title: "Nothing is here", Who: who, Message: "If you look for an order of yours, open it in the browser you ordered with, or sign in.",
	})
}

func (s *shop) showMembers(w http.ResponseWriter, r *http.Request, who person) error {
	if !who.isSignedIn() {
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return nil
	}
	has, err := s.readAccess(r.Context(), who)
	if err != nil {
		return err
	}
	if has == nil {
		return s.show(w, http.StatusForbidden, "refused", view{Title: "For members", Who: who})
	}
	return s.show(w, http.StatusOK, "members", view{Title: "Members", Who: who, Access: has})
}

func (s *shop) showSignUp(w http.ResponseWriter, r *http.Request, who person) error {
	if who.isSignedIn() {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	return s.show(w, http.StatusOK, "sign-up", view{Title: "Create an account", Who: who})
}

func (s *shop) doSignUp(w http.ResponseWriter, r *http.Request, who person) error {
	if who.isSignedIn() {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	email, password := strings.TrimSpace(r.PostFormValue("email")), r.PostFormValue("password")
	again := func(complaint string) error {
		return s.show(w, http.StatusUnprocessableEntity, "sign-up", view{Title: "Create an account", Who: who, Email: email, Message: complaint})
	}
	if address, err := mail.ParseAddress(email); err != nil || address.Address != email || len(email) > 254 {
		return again("This is no e-mail address.")
	}
	const shortest, longest = 10, 200
	if n := utf8.RuneCountInString(password); n < shortest || n > longest {
		return again(fmt.Sprintf("A password has %d to %d characters.", shortest, longest))
	}
	t := newToken() // a new one, so that nobody who knew the old is signed in with it
	switch err := s.signUp(r.Context(), who, email, password, t); {
	case errors.Is(err, errEmailTaken):
		return again("There is an account with this e-mail address. Sign in instead.")
	case err != nil:
		return err
	}
	s.setToken(w, t)
	return s.welcome(w, r, who)
}

// welcome sends who has just signed in to what they have, or to what they may buy.
func (s *shop) welcome(w http.ResponseWriter, r *http.Request, who person) error {
	has, err := s.readAccess(r.Context(), who)
	if err != nil {
		return err
	}
	target := "/"
	if has != nil {
		target = "/members"
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
	return nil
}

func (s *shop) showSignIn(w http.ResponseWriter, r *http.Request, who person) error {
	if who.isSignedIn() {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	return s.show(w, http.StatusOK, "sign-in", view{Title: "Sign in", Who: who})
}

func (s *shop) doSignIn(w http.ResponseWriter, r *http.Request, who person) error {
	if who.isSignedIn() {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	email, t := strings.TrimSpace(r.PostFormValue("email")), newToken()
	again := func(complaint string) error {
		return s.show(w, http.StatusUnprocessableEntity, "sign-in", view{Title: "Sign in", Who: who, Email: email, Message: complaint})
	}
	// With the visitor's token goes the visitor's id, and with that what was bought under it.
	paid, err := s.hasPaid(r.Context(), who)
	if err != nil {
		return err
	}
	if paid {
		return again("You bought something in this browser without an account. Create one to use it; or write to us, and it goes to the account you have.")
	}
	userID, err := s.signIn(r.Context(), email, r.PostFormValue("password"), t)
	if errors.Is(err, errWrongPassword) {
		return again("The e-mail address or the password is wrong.")
	}
	if err != nil {
		return err
	}
	s.setToken(w, t)
	return s.welcome(w, r, person{id: userID, email: email})
}

func (s *shop) doSignOut(w http.ResponseWriter, r *http.Request, _ person) error {
	if err := s.signOut(r); err != nil {
		return err
	}
	s.setToken(w, newToken())
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// wholeCurrencies have no smaller unit.
const wholeCurrencies = " bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf "

// money is an amount in a currency's smallest unit for people.
func money(amount int64, currency string) string {
	if strings.Contains(wholeCurrencies, " "+currency+" ") {
		return fmt.Sprintf("%d %s", amount, strings.ToUpper(currency))
	}
	return fmt.Sprintf("%d.%02d %s", amount/100, amount%100, strings.ToUpper(currency))
}

func day(t time.Time) string { return t.UTC().Format("2 January 2006") }
