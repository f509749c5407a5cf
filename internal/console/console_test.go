package console_test

import (
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/console"
	"github.com/truenorth-dev/truenorth/internal/store"
)

func TestAnEmptyDatabaseGivesAPageThatSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	page := w.page("/")
	wantText(t, page, "No checkout was asked for yet.", "No customer is linked yet.", "No conflict is open.", "No event was received yet.",
		"none yet", "no worker is alive", `<html lang="en">`)
	wantNoText(t, page, "create-checkout", "data-refresh", "http-equiv")
}

func TestNumbersThatAreDearToCountAreRememberedAndSaidToBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	const hint = "Counting takes long here"
	// Counting waits for this, so it takes long.
	tx, err := w.store.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table polar.customer in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	first := make(chan string)
	go func() { first <- w.page("/") }()
	<-time.After(100 * time.Millisecond) // is what is long
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNoText(t, <-first, hint)

	ada := w.addCustomer("ada@example.com")
	w.addConflict(ada, "usr_ada", "an older customer was matched by e-mail")
	wantText(t, w.page("/"), hint, `<dd data-number="customers">0</dd>`, `<dd data-number="open-conflicts">1</dd>`)
}

func TestTheOverviewShowsNumbersAndNewestRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	if err := w.store.Beat(t.Context(), "worker-1"); err != nil {
		t.Fatal(err)
	}
	ada, eve := w.addCustomer("ada@example.com"), w.addCustomer("eve@example.com")
	w.addLink(ada, "usr_ada", "checkout")
	w.addConflict(eve, "usr_eve", "an older customer was matched by e-mail")
	w.addEvent("order.paid", `{}`)
	w.addEvent("customer.updated", `{}`)
	w.exec(`insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'no such thing' from polar.event_log where type = 'customer.updated'`)
	waiting, _ := w.addRequest("usr_ada", "queued")
	failed, _ := w.addRequest("usr_bob", "failed")
	w.addRequest("usr_ada", "succeeded")
	w.addRequest("usr_ada", "open")
	w.addRequest("usr_ada", "open")

	page := w.page("/")
	for name, want := range map[string]int{
		"customers": 2, "linked": 1, "unlinked": 1, "open-conflicts": 1, "requests-waiting": 1, "requests-open": 2,
		"requests-succeeded": 1, "requests-failed": 1, "events-waiting": 1, "events-failed": 1, "workers-alive": 1,
	} {
		wantText(t, page, fmt.Sprintf(`<dd data-number=%q>%d</dd>`, name, want))
	}
	wantText(t, page,
		`<tr id="linked-usr_ada" data-user="usr_ada" data-basis="checkout">`, ada.String(), "ada@example.com",
		"email_match", "an older customer was matched by e-mail", eve.String(),
		"order.paid", "customer.updated", `<span class="badge received">received</span>`, `<span class="badge failed">failed</span>`,
		"/requests/"+waiting.String(), "/requests/"+failed.String(), "Polar refused it",
		`<a href="/conflicts">1 open conflict</a>`, `<a href="/events?state=failed">1 failed event</a>`)
	wantNoText(t, page, "no worker is alive")
}

func TestAllIsInOrderOnlyWherePolarIsKnownToSend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	if err := w.store.Beat(t.Context(), "worker-1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ state, says string }{
		{"ok", "All in order"}, {"dark", "Polar does not send what it should"}, {"unknown", "it cannot be told whether Polar sends"},
	} {
		w.exec("delete from polar.endpoint_watch")
		w.exec(`insert into polar.endpoint_watch (state, findings) values ($1, '[]')`, c.state)
		wantText(t, w.page("/"), c.says)
	}
}

func TestListsGoOnWhereThePageBeforeEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.exec(`insert into polar.checkout_request (id, params, created_at, state, error)
		select gen_random_uuid(), jsonb_build_object('external_customer_id', 'asker_' || n), now() - (n / 3) * interval '1 minute', 'failed', 'why' from generate_series(1, 120) n`)
	w.exec(`insert into polar.customer (id, doc, version_from)
		select gen_random_uuid(), jsonb_build_object('email', 'buyer_' || n || '@example.com', 'created_at', now() - (n / 3) * interval '1 minute'), 'event' from generate_series(1, 120) n`)
	w.exec(`insert into polar.link_waiting (customer_id) select id from polar.customer`)
	w.exec(`insert into polar.local_user (id) select 'user_' || n from generate_series(1, 120) n`)
	w.exec(`insert into polar.event_log (webhook_id, type, batch, body) select 'hook_' || n, 'order.paid', 1, '{}' from generate_series(1, 120) n`)
	w.exec(`insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'why' from polar.event_log`)
	w.exec(`insert into polar.link_conflict (customer_id, local_user_id, kind, detail) select gen_random_uuid(), 'claims_' || n, 'email_match', 'why' from generate_series(1, 120) n`)
	w.exec(`insert into polar.drift (object_type, object_id, field, cause) select 'checkout', 'object_' || n, 'status', 'missed_update' from generate_series(1, 120) n`)
	w.exec(`insert into polar.audit (actor, door, action, subject) select 'Ada', 'console', 'link', 'thing_' || n from generate_series(1, 120) n`)
	next := regexp.MustCompile(`rel="next" href="([^"]*)"`)
	for path, row := range map[string]string{
		"/checkouts": `>(asker_\d+)<`, "/checkouts?state=failed": `>(asker_\d+)<`, "/checkouts?state=stuck": `>(asker_\d+)<`,
		"/customers": `>(buyer_\d+@)`, "/customers?state=unlinked": `>(buyer_\d+@)`, "/users": `>(user_\d+)<`,
		"/events": `<code>(hook_\d+)<`, "/events?type=order.paid": `<code>(hook_\d+)<`, "/events?state=failed": `<code>(hook_\d+)<`, "/events?from=2020-01-01T00:00": `<code>(hook_\d+)<`,
		"/conflicts": `>(claims_\d+)<`, "/conflicts?state=all": `>(claims_\d+)<`,
		"/drift": `<code>(object_\d+)<`, "/drift?cause=missed_update": `<code>(object_\d+)<`, "/drift?state=all": `<code>(object_\d+)<`, "/audit": `>(thing_\d+)<`,
	} {
		seen := map[string]bool{}
		var pages []int
		for at := path; at != ""; {
			page := w.page(at)
			rows := regexp.MustCompile(row).FindAllStringSubmatch(page, -1)
			for _, m := range rows {
				if seen[m[1]] {
					t.Errorf("%s shows %s twice", path, m[1])
				}
				seen[m[1]] = true
			}
			pages = append(pages, len(rows))
			at = ""
			if m := next.FindStringSubmatch(page); m != nil {
				at = html.UnescapeString(m[1])
			}
		}
		if len(seen) != 120 || !slices.Equal(pages, []int{50, 50, 20}) {
			t.Errorf("%s shows %d of 120 rows on pages of %v", path, len(seen), pages)
		}
	}
}

func TestWhatWasBoughtStandsWithItsBuyerWhoeversCustomerPolarPutItOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.addUser("usr_ada", "ada@example.com")
	w.addUser("usr_grace", "grace@example.com")
	ada := w.addCustomer("ada@example.com")
	w.addLink(ada, "usr_ada", "checkout")
	_, checkout := w.addRequest("usr_grace", "succeeded")
	order := uuid.New()
	w.exec(`insert into polar."order" (id, doc, version_from) values ($1, jsonb_build_object('status', 'paid', 'customer_id', $2::text, 'checkout_id', $3::text, 'description', 'Explorer', 'created_at', now()), 'event')`, order, ada, checkout)
	w.exec(`insert into polar.event_log (webhook_id, type, object_id, batch, body) values ('hook', 'order.paid', $1, 1, '{}')`, order.String())

	grace := w.page("/user?id=usr_grace")
	wantText(t, grace, `<th scope="row" data-label="What">Explorer</th>`, "order of Explorer", "order.paid")
	wantNoText(t, grace, "who bought it")
	wantText(t, w.page("/user?id=usr_ada"), "of usr_grace, who bought it", "order of Explorer, which is usr_grace&#39;s, who bought it")
}

func TestAUserWithTwoLinksHasOneElementOfItsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.addLink(uuid.New(), "usr_ada", "manual")
	w.addLink(uuid.New(), "usr_ada", "external_id")
	page := w.page("/")
	if n := strings.Count(page, `id="linked-usr_ada"`); n != 1 {
		t.Errorf("%d elements have the id linked-usr_ada, want 1", n)
	}
	if n := strings.Count(page, `data-user="usr_ada"`); n != 2 {
		t.Errorf("%d rows are of usr_ada, want 2", n)
	}
}

func TestAURLIsShownOnlyWhileSomebodyCanPayThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, state := range []string{"queued", "creating", "open", "confirmed", "succeeded", "expired", "failed"} {
		id, _ := w.addRequest("usr_"+state, state)
		hosted := "https://polar.sh/checkout/polar_c_" + id.String()
		want := state == "open"
		for _, path := range []string{"/", "/requests/" + id.String()} {
			if got := strings.Contains(w.page(path), hosted); got != want {
				t.Errorf("%s: the URL on %s is shown: %t, want %t", state, path, got, want)
			}
		}
	}
	past, _ := w.addRequest("usr_late", "open")
	w.exec(`update polar.checkout_request set expires_at = now() - interval '1 second' where id = $1`, past)
	for _, path := range []string{"/", "/requests/" + past.String()} {
		wantNoText(t, w.page(path), "polar_c_"+past.String())
	}
}

func TestTheRequestPageShowsItsFieldsAndParams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	id, checkoutID := w.addRequest("usr_ada", "failed")
	w.exec(`update polar.checkout_request set key = 'order-77' where id = $1`, id)
	page := w.page("/requests/" + id.String())
	wantText(t, page, id.String(), checkoutID.String(), "usr_ada", "order-77", "Polar refused it", `<span class="badge failed">failed</span>`,
		html.EscapeString(`"external_customer_id": "usr_ada"`), "{\n  &#34;")
	for _, path := range []string{"/requests/" + uuid.NewString(), "/requests/17", "/requests/%00"} {
		answer := w.do(local(http.MethodGet, path, nil))
		if answer.Code != http.StatusNotFound {
			t.Errorf("GET %s answers %d, want 404", path, answer.Code)
		}
	}
}

// hostile tries to leave text, attributes, addresses and styles.
const hostile = `x"'><script>alert(1)</script><img src=x onerror=alert(2)>`

func TestWhatOthersWroteStaysText(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.addUser(hostile, hostile)
	customer := w.addCustomer(hostile)
	w.addLink(customer, hostile, "checkout")
	w.addConflict(customer, hostile, hostile)
	w.addEvent(hostile, `{}`)
	id, _ := w.addRequest(hostile, "failed")
	w.exec(`update polar.checkout_request set error = $2, key = $2 where id = $1`, id, hostile)
	scheme, checkoutID := w.addRequest(hostile, "open")
	w.exec(`update polar.checkout_request set url = 'javascript:alert(3)' where id = $1`, scheme)
	w.exec(`insert into polar.checkout (id, doc, version_from) values ($1, jsonb_build_object('customer_id', $2::text), 'event')`, checkoutID, customer)
	w.exec(`update polar.checkout_request set state = 'succeeded' where id = $1`, scheme)

	pages := map[string]string{
		"the overview":    w.page("/"),
		"the news":        w.page("/?paid=" + checkoutID.String()),
		"a request":       w.page("/requests/" + id.String()),
		"an open request": w.page("/requests/" + scheme.String()),
		"a hostile query": w.page("/?paid=" + "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"),
	}
	w.exec(`update polar.checkout_request set state = 'open' where id = $1`, scheme)
	pages["an open URL of another scheme"] = w.page("/") + w.page("/requests/"+scheme.String())
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantNoText(t, page, "<script>", "<img src=x", `onerror=alert(2)>`, "javascript:")
			if strings.HasPrefix(name, "a") && strings.HasSuffix(name, "request") || name == "the overview" {
				wantText(t, page, "&lt;script&gt;alert(1)&lt;/script&gt;")
			}
		})
	}
}

func TestNothingThatPolarSentIsShownButWhatTheListsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.addUser("usr_ada", "ada@example.com")
	customer := w.addCustomer("ada@example.com")
	w.addLink(customer, "usr_ada", "checkout")
	w.addEvent("checkout.updated", `{"type":"checkout.updated","data":{"client_secret":"polar_c_SECRET","customer_ip_address":"198.51.100.77"}}`)
	w.exec(`insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'cannot read polar_c_SECRET' from polar.event_log`)
	_, checkoutID := w.addRequest("usr_ada", "succeeded")
	w.exec(`insert into polar.checkout (id, doc, version_from) values ($1, '{"client_secret": "polar_c_SECRET"}', 'event')`, checkoutID)
	for _, path := range []string{"/", "/?paid=" + checkoutID.String()} {
		wantNoText(t, w.page(path), "polar_c_", "client_secret", "SECRET", "198.51.100.77")
	}
}

func TestAPageLooksAgainWhileSomethingIsPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	const script, meta = ` data-refresh="10"`, `<noscript><meta http-equiv="refresh" content="10"></noscript>`
	ended, _ := w.addRequest("usr_ada", "succeeded")
	wantNoText(t, w.page("/")+w.page("/requests/"+ended.String()), script, "http-equiv")

	id, _ := w.addRequest("usr_ada", "queued")
	wantText(t, w.page("/"), script, meta)
	wantText(t, w.page("/requests/"+id.String()), script, meta)
	w.exec(`update polar.checkout_request set state = 'open' where id = $1`, id)
	wantNoText(t, w.page("/")+w.page("/requests/"+id.String()), script, "http-equiv")

	w.addEvent("order.paid", `{}`)
	wantText(t, w.page("/"), script, meta)
}

func TestPagesKeepToTheirPolicyAndAreReadableWithoutSight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.addUser("usr_ada", "")
	w.addLink(w.addCustomer("ada@example.com"), "usr_ada", "manual")
	w.addConflict(w.addCustomer("eve@example.com"), "usr_eve", "why")
	w.addEvent("order.paid", `{}`)
	id, _ := w.addRequest("usr_ada", "queued")
	for _, path := range []string{"/", "/requests/" + id.String()} {
		page := w.page(path)
		if inline := regexp.MustCompile(`(?i)\sstyle=|<style|<script(?: [^>]*)?>[^<]|\son[a-z]+=`).FindString(page); inline != "" {
			t.Errorf("%s has something inline: %q", path, inline)
		}
		if tables, captions := strings.Count(page, "<table"), strings.Count(page, "<caption"); tables != captions {
			t.Errorf("%s has %d tables and %d captions", path, tables, captions)
		}
		if bare := regexp.MustCompile(`<th(?: [^>]*)?>`).FindAllString(page, -1); strings.Count(strings.Join(bare, ""), "scope=") != len(bare) {
			t.Errorf("%s has a heading without scope: %v", path, bare)
		}
		if n := strings.Count(page, "<h1"); n != 1 {
			t.Errorf("%s has %d first headings, want 1", path, n)
		}
		ids := map[string]bool{}
		for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			if ids[m[1]] {
				t.Errorf("%s has two elements with the id %s", path, m[1])
			}
			ids[m[1]] = true
		}
		for _, m := range regexp.MustCompile(`href="(/static/[^"]*)"|src="(/static/[^"]*)"`).FindAllStringSubmatch(page, -1) {
			if answer := w.do(local(http.MethodGet, m[1]+m[2], nil)); answer.Code != http.StatusOK {
				t.Errorf("GET %s answers %d", m[1]+m[2], answer.Code)
			}
		}
	}
}

func TestStaticFilesAreServedOneByOneWithTheirTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for name, want := range map[string]string{"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		answer := w.do(local(http.MethodGet, "/static/"+name, nil))
		if got := answer.Header().Get("Content-Type"); answer.Code != http.StatusOK || !strings.HasPrefix(got, want) {
			t.Errorf("%s comes as %d %s, want 200 %s", name, answer.Code, got, want)
		}
	}
	for _, path := range []string{"/static/", "/static", "/static/overview.html", "/static/..%2foverview.html", "/overview.html", "/demo/checkouts"} {
		if answer := w.do(local(http.MethodGet, path, nil)); answer.Code != http.StatusNotFound {
			t.Errorf("GET %s answers %d, want 404", path, answer.Code)
		}
	}
}

func TestADatabaseThatIsAwayGives503AndTellsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.store.Close()
	for _, r := range []*http.Request{local(http.MethodGet, "/", nil), local(http.MethodGet, "/requests/"+uuid.NewString(), nil)} {
		answer := w.do(r)
		if answer.Code != http.StatusServiceUnavailable {
			t.Errorf("GET %s answers %d, want 503", r.URL, answer.Code)
		}
		wantText(t, answer.Body.String(), "The database does not answer now.")
		wantNoText(t, answer.Body.String(), "pool", "postgres", "54999")
	}
}

func TestTimesAreWordsForAReader(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		before time.Duration
		want   string
	}{
		{0, "just now"},
		{-30 * time.Second, "just now"}, // the database's clock is ahead of ours
		{59 * time.Second, "just now"},
		{time.Minute, "1 min ago"},
		{59*time.Minute + 59*time.Second, "59 min ago"},
		{time.Hour, "1 h ago"},
		{47 * time.Hour, "47 h ago"},
		{48 * time.Hour, "2 days ago"},
		{29 * 24 * time.Hour, "29 days ago"},
		{30 * 24 * time.Hour, "25 Oct 2026"},
		{-time.Minute, "in 1 min"},
		{-25 * time.Hour, "in 25 h"},
	} {
		if got := console.Ago(now, now.Add(-c.before)); got != c.want {
			t.Errorf("%s before is %q, want %q", c.before, got, c.want)
		}
	}
}

func TestNumbersHaveACommaAfterEachThousand(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 12345: "12,345", 1234567: "1,234,567"} {
		if got := console.Count(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func TestAURLEndsWithItsTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	later, earlier := now.Add(time.Second), now.Add(-time.Second)
	for _, c := range []struct {
		state   string
		expires *time.Time
		want    string
	}{
		{store.RequestOpen, &later, "https://polar.sh/u"},
		{store.RequestOpen, &now, ""},
		{store.RequestOpen, &earlier, ""},
		{store.RequestOpen, nil, ""},
		{store.RequestConfirmed, &later, ""},
		{store.RequestSucceeded, &later, ""},
	} {
		if got := console.PayURL(c.state, "https://polar.sh/u", c.expires, now); got != c.want {
			t.Errorf("%s until %v gives %q, want %q", c.state, c.expires, got, c.want)
		}
	}
}
