package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// guard lets in who may look, refuses what another site made a browser send, and sets the headers of every answer.
func (c *console) guard(next http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.refuse(w, r, http.StatusForbidden, "This was sent by a page of another site, and changes nothing.")
	}))
	next = sameOrigin.Handler(next)

	// The form leads on to Polar's page, and browsers hold the redirect too to what forms may lead to.
	forms := "'none'"
	if c.config.Demo != nil {
		forms = "'self' http: https:"
	}
	policy := "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action " + forms +
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
		switch {
		case c.config.Password != "":
			if !c.hasPassword(r) {
				h.Set("WWW-Authenticate", `Basic realm="truenorth", charset="UTF-8"`)
				http.Error(w, "the password of CONSOLE_PASSWORD is needed, under any user name", http.StatusUnauthorized)
				return
			}
		case !isLocal(r):
			http.Error(w, "without CONSOLE_PASSWORD the console answers on loopback only, as localhost, 127.0.0.1 or [::1]", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c *console) hasPassword(r *http.Request) bool {
	_, password, given := r.BasicAuth()
	// Hashes have one length, so the time that the comparison takes tells nothing of the password's either.
	hash := sha256.Sum256([]byte(password))
	if subtle.ConstantTimeCompare(hash[:], c.passwordHash[:]) == 1 {
		return true
	}
	if given {
		c.config.Logger.WarnContext(r.Context(), "wrong console password", slog.String("remote", r.RemoteAddr))
	}
	return false
}

// isLocal tells whether a client on this machine asks, for a name of this machine, and not for somebody else.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false // a proxy on this machine, for a client who may be anywhere
		}
	}
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && client.Addr().Unmap().IsLoopback() && isLoopbackHost(r.Host)
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

// formKey signs the forms of one process. Only who may see a page gets a signed form; another site, which may send
// but not see, gets none.
type formKey [sha256.Size]byte

func newFormKey() formKey {
	var k formKey
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// token is what a form carries in its field "token".
func (k formKey) token(now time.Time) string {
	issued := strconv.FormatInt(now.Unix(), 10)
	return issued + "." + k.sign(issued)
}

// isValid tells whether the token is of this process and not too old.
func (k formKey) isValid(token string, now time.Time) bool {
	issued, signature, _ := strings.Cut(token, ".")
	if !hmac.Equal([]byte(signature), []byte(k.sign(issued))) {
		return false
	}
	seconds, err := strconv.ParseInt(issued, 10, 64)
	return err == nil && now.Sub(time.Unix(seconds, 0)) < formLifetime
}

func (k formKey) sign(text string) string {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
