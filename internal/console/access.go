package console

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// visitor is who asks.
type visitor struct {
	Name     string // as given with the password; empty: they have not said
	Operator bool   // may change things
	Asked    bool   // for a password, and had one
}

type visitorKey struct{}

// visitorOf is who asks by this request, which guard let in.
func visitorOf(ctx context.Context) visitor {
	v, _ := ctx.Value(visitorKey{}).(visitor)
	return v
}

// guard lets in who may look, refuses what another site made a browser send, and sets the headers of every answer.
func (c *Console) guard(next http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.refuse(w, r, http.StatusForbidden, "This was sent by a page of another site, and changes nothing.")
	}))
	next = sameOrigin.Handler(next)

	// The demo's form leads on to Polar's page, and browsers hold the redirect too to what forms may lead to.
	forms := "'self'"
	if c.config.Demo != nil {
		forms += " http: https:"
	}
	policy := "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; font-src 'self'; form-action " + forms +
		"; base-uri 'none'; frame-ancestors 'none'"

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		outer := r
		client, r := c.fromProxy(r)
		var who visitor
		switch {
		case c.config.Password != "":
			var ok bool
			if who, ok = c.admit(w, r, client); !ok {
				return
			}
		case len(c.config.TrustedProxies) > 0 || !isLocal(r, client): // whom a proxy lets in is not for it to say
			http.Error(w, "without CONSOLE_PASSWORD the console answers on loopback only, as localhost, 127.0.0.1 or [::1]", http.StatusForbidden)
			return
		default:
			who.Operator = true
			if cookie, err := r.Cookie(nameCookie); err == nil {
				name, _ := url.PathUnescape(cookie.Value)
				who.Name = cleanName(name)
			}
		}
		inner := r.WithContext(context.WithValue(r.Context(), visitorKey{}, who)) //nolint:contextcheck // it is the request's own
		next.ServeHTTP(w, inner)
		outer.Pattern = inner.Pattern // for who traces: the route
	})
}

// fromProxy tells which client asks. What a trusted proxy says of the client, and of the host that it asked, counts; what
// anybody else says does not. The proxies' own headers are gone from the request afterwards.
func (c *Console) fromProxy(r *http.Request) (client netip.Addr, asked *http.Request) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	client = peer.Addr().Unmap()
	if err != nil || !c.trusts(client) {
		return client, r
	}
	asked = r.Clone(r.Context())
	// Each proxy adds whom it heard from at the end: the last one that is no proxy of ours is the client.
	heard := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	client = netip.Addr{} // nobody in particular, while the proxy does not say
	for _, text := range slices.Backward(heard) {
		text = strings.TrimSpace(text)
		addr, err := netip.ParseAddr(text)
		if withPort, portErr := netip.ParseAddrPort(text); portErr == nil {
			addr, err = withPort.Addr(), nil
		}
		client = addr.Unmap()
		if err != nil || !c.trusts(client) {
			break
		}
	}
	if host := r.Header.Get("X-Forwarded-Host"); host != "" && !strings.ContainsAny(host, ", ") {
		asked.Host = host
	}
	for _, name := range proxyHeaders {
		asked.Header.Del(name)
	}
	return client, asked
}

func (c *Console) trusts(addr netip.Addr) bool {
	for _, p := range c.config.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

var proxyHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"}

// admit asks for a password, and tells whose it is. Who guesses is made to wait, each address for itself.
func (c *Console) admit(w http.ResponseWriter, r *http.Request, client netip.Addr) (visitor, bool) {
	name, password, given := r.BasicAuth()
	if given && c.guesses.tooMany(client) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many wrong passwords from this address: wait a minute", http.StatusTooManyRequests)
		return visitor{}, false
	}
	// Hashes have one length, so the time that the comparison takes tells nothing of the password's either.
	hash := sha256.Sum256([]byte(password))
	operator := subtle.ConstantTimeCompare(hash[:], c.operatorHash[:]) == 1
	reader := c.config.ReaderPassword != "" && subtle.ConstantTimeCompare(hash[:], c.readerHash[:]) == 1
	if given && (operator || reader) {
		return visitor{Name: cleanName(name), Operator: operator, Asked: true}, true
	}
	if given {
		c.guesses.wrong(client)
		c.config.Logger.WarnContext(r.Context(), "wrong console password", slog.String("client", client.String()))
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="truenorth", charset="UTF-8"`)
	http.Error(w, "the password of CONSOLE_PASSWORD is needed, with your name as the user name", http.StatusUnauthorized)
	return visitor{}, false
}

// guesses counts wrong passwords by address: ten at once, then one each six seconds.
type guesses struct {
	mu sync.Mutex
	by map[netip.Addr]*rate.Limiter
}

const (
	guessesAtOnce  = 10
	guessEvery     = 6 * time.Second
	guessesTracked = 10_000 // addresses: beyond, all is forgotten and begins anew
)

func (g *guesses) tooMany(client netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, known := g.by[guesser(client)]
	return known && l.Tokens() < 1
}

func (g *guesses) wrong(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.by == nil || len(g.by) >= guessesTracked {
		g.by = map[netip.Addr]*rate.Limiter{}
	}
	l, known := g.by[guesser(client)]
	if !known {
		l = rate.NewLimiter(rate.Every(guessEvery), guessesAtOnce)
		g.by[guesser(client)] = l
	}
	l.Allow()
}

// guesser is the address by which guesses are counted: of IPv6, where one client has many, its network's.
func guesser(client netip.Addr) netip.Addr {
	if client.Is6() {
		if network, err := client.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return client
}

// isLocal tells whether a client on this machine asks, for a name of this machine, and not for somebody else.
func isLocal(r *http.Request, client netip.Addr) bool {
	for _, name := range proxyHeaders {
		if r.Header.Get(name) != "" {
			return false // a proxy on this machine, for a client who may be anywhere
		}
	}
	return client.IsLoopback() && isLoopbackHost(r.Host)
}

// isLoopbackHost keeps out names of a stranger's that lead here: with one, a page of the stranger's would be of the
// same site as the console (DNS rebinding).
func isLoopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if bare, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(bare, "]") {
		host = strings.TrimSuffix(bare, "]")
	}
	switch strings.ToLower(host) {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// nameCookie keeps the name that somebody gave who needs no password, so that they give it once.
const nameCookie = "truenorth_name"

// cleanName is a name on one line, and not too long.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name)
	if runes := []rune(strings.TrimSpace(name)); len(runes) > 100 {
		name = string(runes[:100])
	}
	return strings.TrimSpace(name)
}

// formKey signs forms. Only who may see a page gets a signed form; another site, which may send but not see, gets none.
// With a password all workers have the same key, so that a form of one is good for the other.
type formKey [sha256.Size]byte

func newFormKey(password string) formKey {
	var k formKey
	if password != "" {
		mac := hmac.New(sha256.New, []byte(password))
		mac.Write([]byte("forms of truenorth's console"))
		copy(k[:], mac.Sum(nil))
		return k
	}
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// token is what a form for somebody carries in its field "token".
func (k formKey) token(name string, now time.Time) string {
	issued := strconv.FormatInt(now.Unix(), 10)
	return issued + "." + k.sign(issued, name)
}

// isValid tells whether the token is one of these, for this name, and not too old.
func (k formKey) isValid(token, name string, now time.Time) bool {
	issued, signature, _ := strings.Cut(token, ".")
	if !hmac.Equal([]byte(signature), []byte(k.sign(issued, name))) {
		return false
	}
	seconds, err := strconv.ParseInt(issued, 10, 64)
	return err == nil && now.Sub(time.Unix(seconds, 0)) < formLifetime
}

func (k formKey) sign(issued, name string) string {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(issued + "\x00" + name))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
