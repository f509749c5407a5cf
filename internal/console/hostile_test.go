package console_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/console"
)

// planted is what would show in a page, and run, were any of it taken for markup, an attribute, a style or a template.
const planted = `"'><img class=planted src=x onerror="window.pwned='img'"><script class=planted>window.pwned='script'</script>` +
	`<a class=planted href="javascript:window.pwned='a'">x</a></textarea></title></style><style class=planted>*{display:none}</style>{{7*7}}` + "`${7*7}`"

// plantedShort is for what a check keeps short.
const plantedShort = `"'><img class=planted src=x onerror="window.pwned='img'">`

// plant writes planted into every text of every table of the schema: what Polar sent, what people said, what went wrong. Ids
// and times stay, so that pages still find what they show; so does what a check holds to a few words. Texts that hold a URL
// get one that is a script. It tells how many columns it changed.
func (w *world) plant() (columns int) {
	w.t.Helper()
	w.exec(`create function public.planted(text text, planted text) returns text language sql as $$
		select case when text ~* '^([0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\d[T ].*|[0-9.]*)$' then text
		            when text ~ '^https?:' then 'javascript:window.pwned=1//' || planted else text || planted end $$`)
	w.exec(`create function public.planted(doc jsonb, planted text) returns jsonb language sql as $$
		select case jsonb_typeof(doc)
		       when 'string' then to_jsonb(public.planted(doc #>> '{}', planted))
		       when 'array' then (select coalesce(jsonb_agg(public.planted(v, planted)), '[]') from jsonb_array_elements(doc) v)
		       when 'object' then (select coalesce(jsonb_object_agg(k, case when k in ('status', 'type') then v else public.planted(v, planted) end), '{}') from jsonb_each(doc) as e (k, v))
		       else doc end $$`)
	rows, err := w.store.Pool().Query(w.t.Context(), `
		select c.table_name, c.column_name, c.data_type
		  from information_schema.columns c
		  join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name and t.table_type = 'BASE TABLE'
		 where c.table_schema = 'polar' and c.data_type in ('text', 'jsonb', 'character varying') and c.is_generated = 'NEVER'
		   and c.column_name not in ('state', 'status', 'version_from') and c.table_name not in ('river_migration', 'checkout_field')
		 order by 1, 2`)
	if err != nil {
		w.t.Fatal(err)
	}
	type column struct{ Table, Name, Type string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		value := fmt.Sprintf("public.planted(%q::text, $1)", c.Name)
		switch {
		case c.Type == "jsonb":
			value = fmt.Sprintf("public.planted(%q, $1)", c.Name)
		case c.Table == "event_log" && c.Name == "body":
			value = "public.planted(body::jsonb, $1)::text"
		case c.Table == "event_log" && c.Name == "type": // the second part of it, by which nothing is chosen
			value = "type || $1"
		}
		update := fmt.Sprintf("update polar.%q set %q = %s where %q is not null", c.Table, c.Name, value, c.Name)
		tag, err := w.store.Pool().Exec(w.t.Context(), update, planted)
		if err != nil {
			tag, err = w.store.Pool().Exec(w.t.Context(), update, plantedShort)
		}
		if err != nil { // a check holds it to a few words
			w.t.Logf("%s.%s stays: %v", c.Table, c.Name, err)
			continue
		}
		if tag.RowsAffected() > 0 {
			columns++
		}
	}
	return columns
}

// TestWhatOthersWroteRunsInNoBrowser opens every page in a browser, with something planted in every text that there is.
func TestWhatOthersWroteRunsInNoBrowser(t *testing.T) {
	t.Parallel()
	b := newBrowsed(t)
	if n := b.plant(); n < 35 {
		t.Errorf("planted into %d columns, want 35 at least: what is tested here?", n)
	}
	b.do(func(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
		_, err = cdp.Call(ctx, target, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
			window.violations = [];
			document.addEventListener("securitypolicyviolation", e => violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));
			window.alert = window.confirm = window.prompt = () => { window.pwned = "dialog"; };`})
		return none, err
	})
	paths := b.paths()
	id := url.QueryEscape("usr_ada" + planted)
	paths["user"] = "/user?id=" + id
	paths["search"], paths["nothing"] = "/search?q="+id, "/search?q="+url.QueryEscape(planted)
	paths["hostile message"] = "/" + url.PathEscape(planted)
	paths["events of a type"] = "/events?type=" + url.QueryEscape("customer.updated"+planted)
	paths["a filter"] = "/events?from=" + url.QueryEscape(planted) + "&q=" + url.QueryEscape(planted)
	paths["a cause"] = "/drift?state=all&cause=" + url.QueryEscape(planted)
	paths["news"] = "/?done=" + url.QueryEscape(planted) + "&n=" + url.QueryEscape(planted) + "&paid=" + url.QueryEscape(planted)
	shown := 0
	for name, path := range paths {
		b.do(chromedp.Navigate(b.url+path), chromedp.WaitVisible(chromedp.CSS("main")))
		b.wantClean(name, "style-src 'self';")
		if strings.Contains(b.evaluate(`Promise.resolve(document.documentElement.textContent + [...document.querySelectorAll("input")].map(i => i.value).join(" "))`), "class=planted") {
			shown++
		}
	}
	if shown < len(paths)*3/4 {
		t.Errorf("%d of %d pages show what was planted: the others prove nothing", shown, len(paths))
	}

	// The document of an event, whole.
	b.do(chromedp.Navigate(b.url+fmt.Sprintf("/events/%d", b.event)), chromedp.WaitVisible(chromedp.ID("show-document")))
	b.evaluate(`Promise.resolve((() => { const f = document.getElementById("show-document").form; if (f.elements.name) f.elements.name.value = ` + "`" + `Grace <img class=planted src=x>` + "`" + `; f.elements.reason.value = "<script class=planted>1</script>"; return ""; })())`)
	b.do(chromedp.Click(chromedp.ID("show-document")), chromedp.WaitVisible(chromedp.CSS("details[open] pre")))
	b.wantClean("a whole document", "style-src 'self';")
	b.do(chromedp.Navigate(b.url+"/audit"), chromedp.WaitVisible(chromedp.CSS("main")))
	b.wantClean("the audit trail after it", "style-src 'self';")

	// River UI shows args, errors and queues.
	var job int64
	if err := b.store.Pool().QueryRow(t.Context(), "select min(id) from polar.river_job where kind like 'create_checkout%'").Scan(&job); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/jobs/jobs", fmt.Sprintf("/jobs/jobs/%d", job), "/jobs/queues"} {
		b.do(chromedp.Navigate(b.url+path), chromedp.WaitVisible(chromedp.CSS("#root main")))
		b.wantClean(path, "style-src 'self' 'unsafe-inline';", "script-src eval ") // its own library tries whether it may
	}
}

// wantClean checks that the page in the browser has nothing of what was planted but as text, ran nothing, and is under a
// strict policy. style is what the policy says of styles, own what a page of River UI may have tried by itself, beside the
// scripts that it brings.
func (b *browsed) wantClean(name, style string, own ...string) {
	b.t.Helper()
	scripts := ", script:not([src])"
	if len(own) > 0 {
		scripts = ""
	}
	if found := b.evaluate(`Promise.resolve(JSON.stringify([...document.querySelectorAll(
		".planted, img[src=x], [onerror], [onclick], [onload], iframe, object, embed, base, [href^='javascript:' i], [src^='javascript:' i], [action^='javascript:' i]` + scripts + `")].map(e => e.outerHTML.slice(0, 200))))`); found != "[]" {
		b.t.Errorf("%s: the page has %s", name, found)
	}
	if ran := b.evaluate(`Promise.resolve(String(window.pwned))`); ran != "undefined" {
		b.t.Errorf("%s: %s ran", name, ran)
	}
	if stopped := strings.Split(b.evaluate(`Promise.resolve(window.violations.join("\n"))`), "\n"); slices.ContainsFunc(stopped, func(v string) bool { return v != "" && !slices.Contains(own, v) }) {
		b.t.Errorf("%s: the policy had to stop %q", name, stopped)
	}
	policy := b.evaluate(`fetch(location.href).then(a => a.headers.get("Content-Security-Policy") + ";")`)
	for _, part := range []string{"default-src 'none';", "script-src 'self';", style, "base-uri 'none';", "frame-ancestors 'none';", "form-action 'self';", "connect-src 'self';"} {
		if !strings.Contains(policy, part) {
			b.t.Errorf("%s: the policy %q lacks %q", name, policy, part)
		}
	}
}

// fill puts values in the places of a pattern's names.
func (b *browsed) fill(pattern string) (method, path string) {
	b.t.Helper()
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = "", pattern
	}
	id := ""
	switch {
	case strings.HasPrefix(path, "/customers/"):
		id = b.ada.String()
	case strings.HasPrefix(path, "/requests/"):
		id = b.failed.String()
	case strings.HasPrefix(path, "/conflicts/"):
		id = strconv.FormatInt(b.conflict, 10)
	case strings.HasPrefix(path, "/drift/"):
		id = strconv.FormatInt(b.drift, 10)
	}
	return method, strings.NewReplacer("{id}", id, "{seq}", strconv.FormatInt(b.event, 10), "{$}", "").Replace(path)
}

// digest is a sum over all that stands in the schema.
func (w *world) digest() string {
	w.t.Helper()
	rows, err := w.store.Pool().Query(w.t.Context(), `select format('select %L || coalesce(md5(string_agg(t::text, '''' order by t::text)), '''') from polar.%I t', table_name || ' ', table_name)
		from information_schema.tables where table_schema = 'polar' and table_type = 'BASE TABLE' order by table_name`)
	if err != nil {
		w.t.Fatal(err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	rows, err = w.store.Pool().Query(w.t.Context(), strings.Join(statements, " union all ")+" order by 1")
	if err != nil {
		w.t.Fatal(err)
	}
	sums, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(sums, "\n")
}

// newSeeded is a console with something of everything, without a browser.
func newSeeded(t *testing.T, config console.Config) *browsed {
	t.Helper()
	b := &browsed{world: newWorldWith(t, config)}
	b.seed()
	return b
}

// TestNothingIsChangedByAnotherSite takes every route that there is, and sends to it what a page of another site could make a
// browser send, who has the password or sits at this machine: nothing of it changes anything.
func TestNothingIsChangedByAnotherSite(t *testing.T) {
	t.Parallel()
	for name, password := range map[string]string{"on this machine": "", "with a password": "operators-password"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newSeeded(t, console.Config{Password: password, Demo: &console.Demo{
				Products: []console.DemoProduct{{ID: product, Name: "Compass"}}, SuccessURL: "http://127.0.0.1:8081/?paid={CHECKOUT_ID}",
			}})
			who := ""
			if password != "" {
				who = "Grace"
			}
			before := b.digest()
			send := func(method, path string, values url.Values, headers map[string]string) *httptest.ResponseRecorder {
				r := local(method, path, strings.NewReader(values.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if password != "" {
					r.SetBasicAuth(who, password)
				}
				for name, value := range headers {
					r.Header.Set(name, value)
				}
				return b.world.do(r)
			}
			token := func() string { return b.token(who, time.Now()) }
			full := func(token string) url.Values {
				return url.Values{
					"token": {token}, "name": {"Grace"}, "reason": {"since a stranger wants it"}, "user": {"usr_eve"}, "product": {product.String()},
					"seq": {strconv.FormatInt(b.event, 10)}, "verdict": {"dismiss"}, "type": {"customer"}, "replace": {"true"},
				}
			}
			own := map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8081"}
			forms := 0
			for _, pattern := range b.handler.Patterns() {
				method, path := b.fill(pattern)
				switch method {
				case "":
					continue // River UI, below; and of what is not there, nothing can come
				case http.MethodGet:
					if answer := send(http.MethodPost, path, full(token()), own); answer.Code < 400 && path != "/jobs" { // which leads on to River UI
						t.Errorf("POST %s answers %d", path, answer.Code)
					}
					continue
				}
				forms++
				for how, tt := range map[string]struct {
					values  url.Values
					headers map[string]string
				}{
					"without a token":                        {full(""), own},
					"with a made-up token":                   {full("1795435200.AAAA"), own},
					"with the token of another name":         {full(b.token("Mallory", time.Now())), own},
					"with an old token":                      {full(b.token(who, time.Now().Add(-13*time.Hour))), own},
					"from another site, with a token":        {full(token()), map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}},
					"from a sister site, with a token":       {full(token()), map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9"}},
					"from an old browser on another site":    {full(token()), map[string]string{"Origin": "https://evil.example"}},
					"from a page without an origin":          {full(token()), map[string]string{"Origin": "null"}},
					"from a page that claims to be our host": {full(token()), map[string]string{"Origin": "http://127.0.0.1:8081.evil.example"}},
				} {
					if answer := send(method, path, tt.values, tt.headers); answer.Code != http.StatusForbidden {
						t.Errorf("%s %s %s answers %d, want 403", method, path, how, answer.Code)
					}
				}
				// As an address that is opened, or as the form of another kind.
				for _, other := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch} {
					if answer := send(other, path+"?"+full(token()).Encode(), full(token()), own); answer.Code < 400 && other != http.MethodGet && other != http.MethodHead {
						t.Errorf("%s %s answers %d", other, path, answer.Code)
					}
				}
				r := local(method, path, strings.NewReader(`{"token":"x"}`))
				r.Header.Set("Content-Type", "text/plain") // the kind that needs no leave of ours
				if password != "" {
					r.SetBasicAuth(who, password)
				}
				if answer := b.world.do(r); answer.Code != http.StatusForbidden {
					t.Errorf("%s %s with a text answers %d, want 403", method, path, answer.Code)
				}
			}
			if forms < 11 {
				t.Errorf("%d forms were tried, want 11 at least", forms)
			}
			for _, call := range []string{
				"POST /jobs/api/jobs/cancel", "POST /jobs/api/jobs/delete", "POST /jobs/api/jobs/retry", "PUT /jobs/api/queues/events/pause",
				"PUT /jobs/api/queues/events/resume", "PATCH /jobs/api/queues/events", "DELETE /jobs/api/anything",
			} {
				method, path, _ := strings.Cut(call, " ")
				for how, headers := range map[string]map[string]string{
					"another site": {"Sec-Fetch-Site": "cross-site"}, "a sister site": {"Sec-Fetch-Site": "same-site"}, "an old browser elsewhere": {"Origin": "https://evil.example"},
					"nowhere": {}, "a hidden origin": {"Origin": "null"},
				} {
					if answer := send(method, path, url.Values{"ids": {"1"}}, headers); answer.Code != http.StatusForbidden {
						t.Errorf("%s from %s answers %d, want 403", call, how, answer.Code)
					}
				}
			}
			if after := b.digest(); after != before {
				t.Errorf("something was changed:\n%s\n\n%s", before, after)
			}
			// The same with all that is needed is taken: what was refused above was not refused for something else.
			path := "/customers/" + b.ada.String() + "/unlink"
			if answer := send(http.MethodPost, path, full(token()), own); answer.Code != http.StatusSeeOther {
				t.Errorf("our own form is answered with %d: %s", answer.Code, answer.Body)
			}
		})
	}
}

// TestThereIsNoSessionToFix holds the console to having none: who may come in is decided anew for each request, by a password
// or by where it comes from. The one cookie is a name, which opens nothing.
func TestThereIsNoSessionToFix(t *testing.T) {
	t.Parallel()
	b := newSeeded(t, console.Config{Password: "operators-password", ReaderPassword: "readers-password"})
	for _, cookie := range []string{"truenorth_name=Grace", "session=1", "truenorth_name=" + url.PathEscape("Grace\r\nSet-Cookie: a=b"), "Authorization=Basic " + base64.StdEncoding.EncodeToString([]byte("x:operators-password"))} {
		r := local(http.MethodGet, "/", nil)
		r.Header.Set("Cookie", cookie)
		if answer := b.world.do(r); answer.Code != http.StatusUnauthorized || answer.Header().Get("Set-Cookie") != "" {
			t.Errorf("with the cookie %q it answers %d and sets %q", cookie, answer.Code, answer.Header().Get("Set-Cookie"))
		}
	}
	// A password opens the request that bears it, and not the next one.
	r := local(http.MethodGet, "/", nil)
	r.SetBasicAuth("Grace", "operators-password")
	answer := b.world.do(r)
	if answer.Code != http.StatusOK || answer.Header().Get("Set-Cookie") != "" {
		t.Errorf("with the password it answers %d and sets %q, want 200 and nothing", answer.Code, answer.Header().Get("Set-Cookie"))
	}
	if answer := b.world.do(local(http.MethodGet, "/", nil)); answer.Code != http.StatusUnauthorized {
		t.Errorf("after that, without one: %d", answer.Code)
	}
	// A reader with the token of an operator's form stays a reader; so does one with the name of another's cookie.
	r = local(http.MethodPost, "/customers/"+b.ada.String()+"/unlink", strings.NewReader(url.Values{"token": {b.token("Grace", time.Now())}, "reason": {"why not"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Cookie", "truenorth_name=Grace")
	r.SetBasicAuth("Grace", "readers-password")
	if answer := b.world.do(r); answer.Code != http.StatusForbidden {
		t.Errorf("a reader with an operator's form gets %d, want 403", answer.Code)
	}

	// Without a password: the name in the cookie is one line of text, for the audit trail, and lets in nobody.
	here := newSeeded(t, console.Config{})
	r = local(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", "truenorth_name=Grace")
	r.RemoteAddr = "192.0.2.7:50000"
	if answer := here.world.do(r); answer.Code != http.StatusForbidden {
		t.Errorf("from elsewhere, with a name: %d, want 403", answer.Code)
	}
	r = local(http.MethodPost, "/customers/"+here.ada.String()+"/unlink", strings.NewReader(url.Values{"token": {here.token("", time.Now())}, "name": {"Grace\r\nX-Evil: 1\x00"}, "reason": {"why not"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer = here.world.do(r)
	cookies := answer.Result().Cookies()
	if answer.Code != http.StatusSeeOther || len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteStrictMode || strings.ContainsAny(answer.Header().Get("Set-Cookie"), "\r\n\x00") || answer.Header().Get("X-Evil") != "" {
		t.Errorf("it answers %d and sets %q, want one strict cookie", answer.Code, answer.Header()["Set-Cookie"])
	}
}

// hostileValues are texts that break what trusts them.
var hostileValues = []string{
	"'", "''", `"`, "`", `\`, "' or 1=1 --", "'; drop table polar.customer; --", "$1", "%", "_", "%s%n", "\x00", "a\x00b", "\xff\xfe", "\xc3", "\ud7ff\uffff", "{}", "[]", "{a,b}", "null",
	"-1", "0", "00", "+1", "1e309", "NaN", "Infinity", "-infinity", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1.5", "0x10", "١",
	"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-00000000000g", "0001-01-01T00:00", "9999-12-31T23:59:59Z", "294277-01-01", "2026-13-45T99:99", "infinity",
	"../../etc/passwd", "<script>", "\r\nX-Evil: 1", strings.Repeat("x", 20_000), strings.Repeat("'", 3000), "1,2", "1;2", "2026-01-01T00:00:00Z,x", "a.b.c",
}

// parameters are all names under which the console reads anything from an address or a form, by its source.
func parameters(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := regexp.MustCompile(`(?:Get|PostForm|query|FormValue)(?:\(|\[)"([a-z_]+)"`)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range read.FindAllSubmatch(source, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) < 18 || !slices.Contains(names, "after") {
		t.Fatalf("the source reads %v: the expression above misses some", names)
	}
	return names
}

// TestNoParameterBreaksAPageOrTheDatabase puts what is hostile into every parameter, and every place of every path. Each page
// gets each value in each parameter together and in the cursor, and in some alone, which differ from page to page.
func TestNoParameterBreaksAPageOrTheDatabase(t *testing.T) {
	t.Parallel()
	b := newSeeded(t, console.Config{})
	before := b.digest()
	names := parameters(t)
	see := func(path string) {
		t.Helper()
		r := local(http.MethodGet, "/", nil)
		r.URL, r.RequestURI = &url.URL{}, path
		raw, query, _ := strings.Cut(path, "?")
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = raw, raw, query
		if unescaped, err := url.PathUnescape(raw); err == nil {
			r.URL.Path = unescaped
		}
		answer := b.world.do(r)
		if answer.Code >= 500 || answer.Header().Get("X-Evil") != "" {
			t.Errorf("GET %.300s answers %d: %.300s", path, answer.Code, answer.Body)
		}
	}
	const alone = 3
	for p, pattern := range b.handler.Patterns() {
		method, path := b.fill(pattern)
		if method != http.MethodGet || strings.HasPrefix(path, "/static/") {
			continue
		}
		for v, value := range hostileValues {
			all := url.Values{}
			for n, name := range names {
				all.Set(name, value)
				if (n+v+p)%len(names) < alone {
					see(path + "?" + url.Values{name: {value}}.Encode())
				}
			}
			see(path + "?" + all.Encode())
			see(path + "?state=all&" + url.Values{"after": {value}}.Encode())
			if _, raw, ok := strings.Cut(pattern, "{"); ok && !strings.HasPrefix(raw, "$") {
				see(regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllLiteralString(strings.TrimPrefix(pattern, "GET "), url.PathEscape(value)))
			}
		}
		see(path + "?%zz=%zz&a;b&=&&&")
	}
	if after := b.digest(); after != before {
		t.Errorf("looking changed something:\n%s\n\n%s", before, after)
	}

	// The same in the fields of every form: refused or done as told, never a failure.
	for p, pattern := range b.handler.Patterns() {
		method, path := b.fill(pattern)
		if method != http.MethodPost {
			continue
		}
		for v, value := range hostileValues {
			for n, name := range names {
				if name == "token" || (n+v+p)%len(names) >= alone {
					continue
				}
				values := url.Values{"token": {b.token("", time.Now())}, "name": {"Grace"}, "reason": {"since it is hostile"}, "user": {"usr_ada"}, "verdict": {"dismiss"}, "seq": {strconv.FormatInt(b.event, 10)}}
				values.Set(name, value)
				r := local(http.MethodPost, path, strings.NewReader(values.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if answer := b.world.do(r); answer.Code >= 500 {
					t.Errorf("POST %s with %s=%.100q answers %d: %.300s", path, name, value, answer.Code, answer.Body)
				}
			}
		}
	}
	for _, table := range []string{"customer", "event_log", "checkout_request", "customer_link_history", "audit"} {
		if n := b.count("select count(*) from polar." + table); n == 0 {
			t.Errorf("polar.%s is empty", table)
		}
	}
}
