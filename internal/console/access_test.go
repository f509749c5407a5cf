package console_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/console"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// newConsole makes a console whose database is never asked.
func newConsole(t *testing.T, config console.Config) http.Handler {
	t.Helper()
	s, err := store.Open("postgres://127.0.0.1:1/none", "console test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	config.Store = s
	c, err := console.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// asset is served to whoever is let in, without the database.
const asset = "/static/console.css"

func TestWithoutPasswordOnlyLoopbackByALoopbackNameIsLetIn(t *testing.T) {
	t.Parallel()
	handler := newConsole(t, console.Config{Logger: quiet})
	for _, c := range []struct {
		name, remote, host string
		header             http.Header
		want               int
	}{
		{"localhost", "127.0.0.1:5000", "localhost", nil, http.StatusOK},
		{"localhost with port", "127.0.0.1:5000", "localhost:8081", nil, http.StatusOK},
		{"any case", "127.0.0.1:5000", "LocalHost:8081", nil, http.StatusOK},
		{"IPv4", "127.0.0.1:5000", "127.0.0.1:8081", nil, http.StatusOK},
		{"IPv6", "[::1]:5000", "[::1]:8081", nil, http.StatusOK},
		{"IPv6 without port", "[::1]:5000", "[::1]", nil, http.StatusOK},
		{"another address of loopback", "127.9.9.9:5000", "localhost", nil, http.StatusOK},
		{"IPv4 within IPv6", "[::ffff:127.0.0.1]:5000", "localhost", nil, http.StatusOK},
		{"client elsewhere", "192.0.2.7:5000", "localhost:8081", nil, http.StatusForbidden},
		{"client elsewhere, IPv6", "[2001:db8::7]:5000", "[::1]:8081", nil, http.StatusForbidden},
		{"client without address", "@", "localhost", nil, http.StatusForbidden},
		{"a stranger's name (DNS rebinding)", "127.0.0.1:5000", "attacker.example", nil, http.StatusForbidden},
		{"a stranger's name with our port", "127.0.0.1:5000", "attacker.example:8081", nil, http.StatusForbidden},
		{"a name that begins like ours", "127.0.0.1:5000", "localhost.attacker.example", nil, http.StatusForbidden},
		{"a name that ends like ours", "127.0.0.1:5000", "attacker.localhost", nil, http.StatusForbidden},
		{"an address as a stranger's name", "127.0.0.1:5000", "127.0.0.1.attacker.example", nil, http.StatusForbidden},
		{"the unspecified address", "127.0.0.1:5000", "0.0.0.0:8081", nil, http.StatusForbidden},
		{"no name", "127.0.0.1:5000", "", nil, http.StatusForbidden},
		{"two ports", "127.0.0.1:5000", "localhost:1:2", nil, http.StatusForbidden},
		{"proxied", "127.0.0.1:5000", "localhost", http.Header{"X-Forwarded-For": {"192.0.2.7"}}, http.StatusForbidden},
		{"proxied, RFC 7239", "127.0.0.1:5000", "localhost", http.Header{"Forwarded": {"for=192.0.2.7"}}, http.StatusForbidden},
		{"a password does not help", "192.0.2.7:5000", "localhost", http.Header{"Authorization": {"Basic Og=="}}, http.StatusForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{asset, "/", "/requests/x", "/nowhere"} {
				if c.want == http.StatusOK && path != asset {
					continue // the others need the database
				}
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r.RemoteAddr, r.Host, r.Header = c.remote, c.host, c.header.Clone()
				if r.Header == nil {
					r.Header = http.Header{}
				}
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, r)
				if answer.Code != c.want {
					t.Errorf("GET %s answers %d, want %d", path, answer.Code, c.want)
				}
			}
		})
	}
}

func TestWithAPasswordWhoHasItIsLetInFromAnywhere(t *testing.T) {
	t.Parallel()
	handler := newConsole(t, console.Config{Logger: quiet, Password: "pass:wörd"})
	for _, c := range []struct {
		name string
		auth func(*http.Request)
		want int
	}{
		{"right", func(r *http.Request) { r.SetBasicAuth("anyone", "pass:wörd") }, http.StatusOK},
		{"right, no user name", func(r *http.Request) { r.SetBasicAuth("", "pass:wörd") }, http.StatusOK},
		{"none", func(*http.Request) {}, http.StatusUnauthorized},
		{"empty", func(r *http.Request) { r.SetBasicAuth("anyone", "") }, http.StatusUnauthorized},
		{"wrong", func(r *http.Request) { r.SetBasicAuth("anyone", "password") }, http.StatusUnauthorized},
		{"as user name", func(r *http.Request) { r.SetBasicAuth("pass:wörd", "") }, http.StatusUnauthorized},
		{"only its start", func(r *http.Request) { r.SetBasicAuth("anyone", "pass") }, http.StatusUnauthorized},
		{"more than it", func(r *http.Request) { r.SetBasicAuth("anyone", "pass:wörd ") }, http.StatusUnauthorized},
		{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Bearer pass:wörd") }, http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, remote := range []string{"192.0.2.7:5000", "127.0.0.1:5000"} {
				r := httptest.NewRequest(http.MethodGet, asset, nil)
				r.RemoteAddr, r.Host = remote, "console.example"
				c.auth(r)
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, r)
				if answer.Code != c.want {
					t.Errorf("from %s it answers %d, want %d", remote, answer.Code, c.want)
				}
				if challenge := answer.Header().Get("WWW-Authenticate"); (challenge != "") != (c.want == http.StatusUnauthorized) {
					t.Errorf("the challenge is %q", challenge)
				}
				wantNoText(t, answer.Body.String(), "pass:wörd")
			}
		})
	}
}

func TestEveryAnswerBearsTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	crossSite := form(w.filled())
	crossSite.Header.Set("Sec-Fetch-Site", "cross-site")
	stranger := local(http.MethodGet, "/", nil)
	stranger.Host = "attacker.example"
	for status, r := range map[int]*http.Request{
		http.StatusOK:               local(http.MethodGet, "/", nil),
		http.StatusNotFound:         local(http.MethodGet, "/requests/x", nil),
		http.StatusMethodNotAllowed: local(http.MethodDelete, "/", nil),
		http.StatusForbidden:        crossSite,
		-http.StatusForbidden:       stranger,
	} {
		answer := w.do(r)
		if answer.Code != max(status, -status) {
			t.Errorf("%s %s answers %d, want %d", r.Method, r.URL, answer.Code, status)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if got := answer.Header().Get(name); got != want {
				t.Errorf("%d: %s is %q, want %q", answer.Code, name, got, want)
			}
		}
		policy := answer.Header().Get("Content-Security-Policy")
		wantText(t, policy, "default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "style-src 'self'", "script-src 'self'")
		wantNoText(t, policy, "unsafe", "*")
	}
}

func TestAFormIsTakenOnlyFromOurOwnFreshPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	other := newWorld(t, true)
	with := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		name  string
		alter func(*http.Request)
		token string
		want  int
	}{
		{"another site, by Sec-Fetch-Site", with("Sec-Fetch-Site", "cross-site"), w.token("", time.Now()), http.StatusForbidden},
		{"another port of this machine", with("Sec-Fetch-Site", "same-site"), w.token("", time.Now()), http.StatusForbidden},
		{"another site, by Origin", func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "https://attacker.example")
		}, w.token("", time.Now()), http.StatusForbidden},
		{"a hidden origin", func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "null")
		}, w.token("", time.Now()), http.StatusForbidden},
		{"a stranger's name", func(r *http.Request) { r.Host = "attacker.example" }, w.token("", time.Now()), http.StatusForbidden},
		{"no token", nil, "", http.StatusForbidden},
		{"a made-up token", nil, "1790000000.c2lnbmF0dXJl", http.StatusForbidden},
		{"a token of another process", nil, other.token("", time.Now()), http.StatusForbidden},
		{"a token with another time", nil, "9" + w.token("", time.Now()), http.StatusForbidden},
		{"a token of yesterday", nil, w.token("", time.Now().Add(-24*time.Hour)), http.StatusForbidden},
		{"a token in the address alone", func(r *http.Request) { r.URL.RawQuery = "token=" + w.token("", time.Now()) }, "", http.StatusForbidden},
	} {
		values := w.filled()
		values.Set("token", c.token)
		r := form(values)
		if c.alter != nil {
			c.alter(r)
		}
		if answer := w.do(r); answer.Code != c.want {
			t.Errorf("%s: it answers %d, want %d: %s", c.name, answer.Code, c.want, answer.Body)
		}
	}
	if n := w.count(`select count(*) from polar.checkout_request`); n != 0 {
		t.Errorf("%d requests were written", n)
	}
}

func TestAFormThatIsWrongIsRefusedAndWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	for _, c := range []struct {
		name  string
		alter func(url.Values)
		want  int
	}{
		{"no user", func(v url.Values) { v.Del("user") }, http.StatusBadRequest},
		{"no product", func(v url.Values) { v.Del("product") }, http.StatusBadRequest},
		{"no id of a product", func(v url.Values) { v.Set("product", "compass") }, http.StatusBadRequest},
		{"a product that is not for sale", func(v url.Values) { v.Set("product", "22222222-2222-4222-8222-222222222222") }, http.StatusBadRequest},
		{"too much", func(v url.Values) { v.Set("user", strings.Repeat("u", 65<<10)) }, http.StatusRequestEntityTooLarge},
	} {
		values := w.filled()
		c.alter(values)
		if answer := w.do(form(values)); answer.Code != c.want {
			t.Errorf("%s: it answers %d, want %d: %s", c.name, answer.Code, c.want, answer.Body)
		}
	}
	unreadable := form(nil)
	unreadable.URL.RawQuery = "a=%zz"
	if answer := w.do(unreadable); answer.Code != http.StatusBadRequest {
		t.Errorf("an unreadable form gets %d, want 400", answer.Code)
	}
	if n := w.count(`select count(*) from polar.checkout_request`); n != 0 {
		t.Errorf("%d requests were written", n)
	}
}

func TestOnlyATrustedProxyIsBelievedWhoAsks(t *testing.T) {
	t.Parallel()
	trusting := newConsole(t, console.Config{Logger: quiet, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")}})
	wary := newConsole(t, console.Config{Logger: quiet})
	for _, c := range []struct {
		handler            http.Handler
		name, remote, host string
		header             http.Header
		want               int
	}{
		{trusting, "a client elsewhere", "127.0.0.1:5000", "localhost", http.Header{"X-Forwarded-For": {"192.0.2.7"}}, http.StatusForbidden},
		{trusting, "a client elsewhere who says that it is here", "127.0.0.1:5000", "localhost", http.Header{"X-Forwarded-For": {"127.0.0.1, 192.0.2.7"}}, http.StatusForbidden},
		{trusting, "through two proxies", "10.0.0.1:5000", "localhost", http.Header{"X-Forwarded-For": {"192.0.2.7, 10.0.0.2"}}, http.StatusForbidden},
		{trusting, "a stranger's name told by the proxy", "127.0.0.1:5000", "localhost", http.Header{"X-Forwarded-Host": {"attacker.example"}}, http.StatusForbidden},
		{trusting, "a client that is no proxy", "192.0.2.9:5000", "localhost", http.Header{"X-Forwarded-For": {"127.0.0.1"}}, http.StatusForbidden},
		{trusting, "a proxy that does not say who asks", "127.0.0.1:5000", "localhost", nil, http.StatusForbidden},
		{trusting, "a proxy that says it in a way nobody reads", "127.0.0.1:5000", "localhost", http.Header{"X-Forwarded-For": {"unknown"}}, http.StatusForbidden},
		{wary, "this machine", "127.0.0.1:5000", "localhost", nil, http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodGet, asset, nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		maps.Copy(r.Header, c.header)
		answer := httptest.NewRecorder()
		c.handler.ServeHTTP(answer, r)
		if answer.Code != c.want {
			t.Errorf("%s: it answers %d, want %d", c.name, answer.Code, c.want)
		}
	}
}

func TestWhoGuessesPasswordsIsMadeToWaitAndNobodyElseIs(t *testing.T) {
	t.Parallel()
	handler := newConsole(t, console.Config{Logger: quiet, Password: "right", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	try := func(client, password string) int {
		r := httptest.NewRequest(http.MethodGet, asset, nil)
		r.RemoteAddr, r.Host = "10.0.0.1:5000", "console.example"
		r.Header.Set("X-Forwarded-For", client)
		r.SetBasicAuth("eve", password)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		return answer.Code
	}
	for n := range 10 {
		if got := try("2001:db8::1", "guess"); got != http.StatusUnauthorized {
			t.Fatalf("guess %d gets %d, want 401", n+1, got)
		}
	}
	if got := try("2001:db8::2", "right"); got != http.StatusTooManyRequests {
		t.Errorf("the guesser's network gets %d after ten guesses, want 429", got)
	}
	if got := try("192.0.2.7", "right"); got != http.StatusOK {
		t.Errorf("somebody else gets %d, want 200", got)
	}
}

func TestAReaderSeesEverythingAndChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, console.Config{Password: "operator", ReaderPassword: "reader"})
	customer := w.addCustomer("ada@example.com")
	w.addUser("usr_ada", "ada@example.com")
	as := func(r *http.Request, password string) *http.Request {
		r.SetBasicAuth("Ada", password)
		return r
	}
	post := func(path, password, token string, values url.Values) *httptest.ResponseRecorder {
		values.Set("token", token)
		r := local(http.MethodPost, path, strings.NewReader(values.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		return w.do(as(r, password))
	}
	link := func() url.Values { return url.Values{"user": {"usr_ada"}, "reason": {"she called"}} }
	path := "/customers/" + customer.String()
	page := w.do(as(local(http.MethodGet, path, nil), "reader"))
	if page.Code != http.StatusOK {
		t.Fatalf("the reader gets %d", page.Code)
	}
	wantText(t, page.Body.String(), "ada@example.com", "reader")
	wantNoText(t, page.Body.String(), `method="post"`, `name="token"`)

	good := w.token("Ada", time.Now())
	if got := post(path+"/link", "reader", good, link()); got.Code != http.StatusForbidden {
		t.Errorf("the reader's link gets %d, want 403", got.Code)
	}
	if got := post(path+"/link", "operator", w.token("Eve", time.Now()), link()); got.Code != http.StatusForbidden {
		t.Errorf("a form made for another name gets %d, want 403", got.Code)
	}
	for _, password := range []string{"reader", "operator"} {
		r := local(http.MethodPut, "/jobs/api/queues/events/pause", nil)
		if password == "reader" {
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		} // an operator's change that no page of ours sends is refused too
		if got := w.do(as(r, password)); got.Code != http.StatusForbidden {
			t.Errorf("pausing a queue as %s gets %d, want 403", password, got.Code)
		}
	}
	if n := w.count("select count(*) from polar.audit"); n != 0 {
		t.Errorf("%d deeds are noted though nothing was done", n)
	}
	if got := post(path+"/link", "operator", good, link()); got.Code != http.StatusSeeOther {
		t.Fatalf("the operator's link gets %d: %s", got.Code, got.Body)
	}
	if n := w.count(`select count(*) from polar.audit where actor = 'Ada' and door = 'console' and action = 'link' and subject = 'customer ` + customer.String() + `' and reason = 'she called'`); n != 1 {
		t.Error("the link is not noted")
	}
}
