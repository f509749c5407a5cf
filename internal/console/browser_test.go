package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/chromiumtest"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
)

// browsed is a console with something of everything, and a browser that looks at it.
type browsed struct {
	*world

	ctx  context.Context //nolint:containedctx // the browser is its context
	url  string
	pics string // where screenshots go; empty: nowhere

	ada, eve, gone  uuid.UUID // customers: linked, in conflict, deleted
	queued, failed  uuid.UUID // requests
	conflict, drift int64
	event           int64 // failed
}

func newBrowsed(t *testing.T) *browsed {
	t.Helper()
	browser := chromiumtest.Start(t)
	w := newWorld(t, false)
	server := httptest.NewServer(w.handler)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(browser, 3*time.Minute)
	t.Cleanup(cancel)
	b := &browsed{world: w, ctx: ctx, url: server.URL, pics: os.Getenv("TRUENORTH_SCREENSHOTS")}
	b.seed()
	return b
}

func (b *browsed) seed() {
	b.t.Helper()
	b.addUser("usr_ada", "ada@example.com")
	b.addUser("usr_eve", "eve@example.com")
	b.ada, b.eve, b.gone = b.addCustomer("ada@example.com"), b.addCustomer("eve@example.com"), b.addCustomer("gone@example.com")
	b.exec(`update polar.customer set doc = doc || jsonb_build_object('created_at', now() - interval '3 days', 'name', 'A Person')`)
	b.exec(`update polar.customer set deleted_at = now(), tombstone = true where id = $1`, b.gone)
	b.addLink(b.ada, "usr_ada", "checkout")
	b.exec(`insert into polar.customer_link_history (customer_id, local_user_id, basis, linked_at) select customer_id, local_user_id, basis, linked_at from polar.customer_link`)
	b.exec(`insert into polar.link_waiting (customer_id) values ($1)`, b.eve)
	b.addConflict(b.eve, "usr_eve", "the customer is older than the checkout, and was matched by a typed e-mail address")
	b.exec(`insert into polar.product (id, doc, version_from) values ($1, '{"name": "Compass"}', 'event')`, product)
	b.exec(`insert into polar.subscription (id, doc, version_from) values ($1, jsonb_build_object('status', 'active', 'customer_id', $2::text, 'product_id', $3::text,
		'amount', 1500, 'currency', 'usd', 'recurring_interval', 'month', 'created_at', now() - interval '2 days', 'started_at', now() - interval '2 days', 'current_period_end', now() + interval '28 days'), 'event')`,
		uuid.New(), b.ada, product)
	b.exec(`insert into polar."order" (id, doc, version_from) values ($1, jsonb_build_object('status', 'paid', 'paid', true, 'customer_id', $2::text, 'product_id', $3::text,
		'total_amount', 1500, 'currency', 'jpy', 'created_at', now() - interval '2 days'), 'event')`, uuid.New(), b.ada, product)
	for _, state := range []string{"open", "succeeded", "expired", "confirmed"} {
		b.addRequest("usr_ada", state)
	}
	b.queued, _ = b.addRequest("usr_eve", "queued")
	b.failed, _ = b.addRequest("usr_eve", "failed")
	b.exec(`insert into polar.river_job (kind, args, queue, max_attempts, state, attempt) values ('create_checkout', '{}', 'checkouts', 1000, 'retryable', 1)`)
	b.exec(`update polar.checkout_request set job_id = (select max(id) from polar.river_job) where id = $1`, b.queued)
	for n := range 4 {
		b.addEvent("customer.updated", fmt.Sprintf(`{"type": "customer.updated", "timestamp": "2026-11-01T10:0%d:00Z", "data": {"id": %q, "email": "ada@example.com", "name": "Ada SECRET-NAME"}}`, n, b.ada))
	}
	b.addEvent("order.paid", `{"type": "order.paid", "data": {}}`)
	b.exec(`update polar.event_log set object_id = $1 where type = 'customer.updated'`, b.ada.String())
	b.exec(`insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'Polar''s document has no id' from polar.event_log where type = 'order.paid'`)
	b.exec(`insert into polar.event_outcome (seq, state, applied_at) select seq, 'applied', now() from polar.event_log where type <> 'order.paid' and seq < 4`)
	b.exec(`insert into polar.drift (object_type, object_id, field, local, remote, cause) values ('customer', $1, 'external_id', null, 'usr_ada', 'missed_update'), ('customer', $1, 'name', '8 letters', '9 letters', 'missed_update')`, b.ada.String())
	b.exec(`insert into polar.drift (object_type, object_id, field, local, remote, cause, resolved_at, resolution) values ('checkout', $1, 'status', 'open', 'expired', 'endpoint_disabled', now(), 'repaired')`, uuid.NewString())
	b.exec(`insert into polar.endpoint_watch (state, findings) values ('dark', '[{"finding": "disabled", "detail": "Polar has disabled the endpoint.", "advice": "Enable it at Polar."}]')`)
	b.exec(`insert into polar.river_job (kind, args, queue, max_attempts, state, attempt, finalized_at, created_at)
		select 'apply_events', '{}', 'events', 1000, 'completed', 1, now() - n * interval '11 minutes', now() - interval '1 day' from generate_series(1, 120) n`)
	b.exec(`insert into polar.audit (actor, door, action, subject, reason) values ('Grace', 'command line', 'link', $1, 'she called')`, "customer "+b.ada.String())
	row := func(into *int64, sql string) {
		b.t.Helper()
		if err := b.store.Pool().QueryRow(b.t.Context(), sql).Scan(into); err != nil {
			b.t.Fatalf("%s: %v", sql, err)
		}
	}
	row(&b.conflict, `select id from polar.link_conflict`)
	row(&b.drift, `select min(id) from polar.drift`)
	row(&b.event, `select seq from polar.event_log where type = 'order.paid'`)
}

func (b *browsed) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		where, _ := chromedp.Run(b.ctx, chromedp.Location())
		b.t.Fatalf("in the browser, at %s: %v", where, err)
	}
}

// evaluate runs a script in the page, which may return a promise of a string.
func (b *browsed) evaluate(script string) (text string) {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("in the page, %.60s: %v", script, err)
	}
	return text
}

func (b *browsed) paths() map[string]string {
	return map[string]string{
		"overview": "/", "customers": "/customers", "unlinked": "/customers?state=unlinked", "customer": "/customers/" + b.ada.String(), "stranger": "/customers/" + b.eve.String(),
		"users": "/users", "user": "/user?id=usr_ada", "search": "/search?q=ada@example.com", "nothing": "/search?q=nobody",
		"checkouts": "/checkouts", "stuck": "/checkouts?state=stuck", "request": "/requests/" + b.queued.String(), "failed": "/requests/" + b.failed.String(),
		"events": "/events", "failed-events": "/events?state=failed", "event": fmt.Sprintf("/events/%d", b.event),
		"conflicts": "/conflicts", "conflict": fmt.Sprintf("/conflicts/%d", b.conflict), "drift": "/drift", "all-drift": "/drift?state=all", "one-drift": fmt.Sprintf("/drift/%d", b.drift),
		"audit": "/audit", "message": "/nowhere",
	}
}

// axe is the source of axe-core, from npm.
func axe(t *testing.T) string {
	t.Helper()
	npm := machinetest.Program(t, "npm", "npm")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/axe")); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), npm, "ci", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	source, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

func TestEverybodyCanUseEveryPageOnADeskAndOnAPhone(t *testing.T) {
	t.Parallel()
	source := axe(t)
	b := newBrowsed(t)
	for _, screen := range []struct {
		name          string
		width, height int64
		scheme        string
	}{{"desk", 1280, 900, "light"}, {"phone", 390, 844, "dark"}} {
		for name, path := range b.paths() {
			b.do(chromedp.EmulateViewport(screen.width, screen.height), emulateScheme(screen.scheme), chromedp.Navigate(b.url+path), chromedp.WaitVisible(chromedp.CSS("main")))
			b.shoot(name + "-" + screen.name)
			if wide := b.evaluate(`Promise.resolve(String(document.documentElement.scrollWidth > document.documentElement.clientWidth))`); wide != "false" {
				t.Errorf("%s scrolls sideways on a %s", path, screen.name)
			}
			var found []struct {
				ID     string
				Impact string
				Help   string
				Nodes  []struct{ HTML string }
			}
			b.evaluate(`Promise.resolve((() => {` + source + `; return "";})())`)
			result := b.evaluate(`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`)
			if err := json.Unmarshal([]byte(result), &found); err != nil {
				t.Fatal(err)
			}
			for _, v := range found {
				t.Errorf("%s on a %s: %s (%s): %s: %.300s", path, screen.name, v.ID, v.Impact, v.Help, v.Nodes[0].HTML)
			}
		}
	}
	b.do(chromedp.EmulateViewport(1200, 900), chromedp.Navigate(b.url+"/"), chromedp.WaitVisible(chromedp.CSS("main")))
	b.shoot("overview-narrow-desk")
	if beside := b.evaluate(`Promise.resolve(String(document.querySelector(".find").getBoundingClientRect().top < document.querySelector(".top nav").getBoundingClientRect().bottom))`); beside != "true" {
		t.Error("on a desk of 1200 points the search has no room beside the menu")
	}
}

// emulateScheme makes the browser ask for light or dark pages.
func emulateScheme(scheme string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
		_, err = cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return none, err
	}
}

func (b *browsed) shoot(name string) {
	b.t.Helper()
	if b.pics == "" {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.pics, name+".png"), picture, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestEveryActionWorksInABrowser(t *testing.T) {
	t.Parallel()
	b := newBrowsed(t)
	b.do(chromedp.EmulateViewport(1280, 900))
	open := func(path string) {
		b.t.Helper()
		b.do(chromedp.Navigate(b.url+path), chromedp.WaitVisible(chromedp.CSS("main")))
	}
	// press fills in the form that a button is of, and waits for the word that it is done.
	named := false
	press := func(id, reason, banner string) {
		t.Helper()
		b.evaluate(fmt.Sprintf(`Promise.resolve((() => {
			const form = document.getElementById(%q).closest("form");
			if (%t && form.elements.name) form.elements.name.value = "Grace";
			form.elements.reason.value = %q;
			return "";
		})())`, id, !named, reason))
		named = true // the console remembers
		b.do(chromedp.Click(chromedp.ID(id)), chromedp.WaitVisible(chromedp.CSS("main > .banner[role=status]")))
		if text := b.evaluate(`Promise.resolve(document.querySelector("main > .banner[role=status]").textContent)`); !strings.Contains(text, banner) {
			t.Errorf("after %s the page says %q, want %q", id, text, banner)
		}
	}
	noted := func(action, subject string) {
		t.Helper()
		var n int
		err := b.store.Pool().QueryRow(t.Context(), `select count(*) from polar.audit where actor = 'Grace' and door = 'console' and action = $1 and subject = $2 and reason like 'since %'`, action, subject).Scan(&n)
		if err != nil || n != 1 {
			t.Errorf("%s of %s is noted %d times (%v), want once", action, subject, n, err)
		}
	}

	open("/customers/" + b.ada.String())
	press("unlink", "since it is not hers", "Unlinked")
	noted("unlink", "customer "+b.ada.String())
	open("/customers/" + b.ada.String())
	b.do(chromedp.SetValue(chromedp.CSS("input[name=user]"), "usr_ada"))
	press("link", "since it is hers after all", "Linked")
	if n := b.count(`select count(*) from polar.customer_link where local_user_id = 'usr_ada' and basis = 'manual'`); n != 1 {
		t.Errorf("%d links are by word, want 1", n)
	}

	open(fmt.Sprintf("/conflicts/%d", b.conflict))
	press("resolve-dismiss", "since nobody knows her", "Settled")
	noted("resolve_conflict", fmt.Sprintf("conflict %d", b.conflict))

	open(fmt.Sprintf("/drift/%d", b.drift))
	press("resolve-drift", "since it does not matter", "Settled")
	noted("resolve_drift", fmt.Sprintf("drift %d", b.drift))
	if n := b.count(`select count(*) from polar.open_drift`); n != 0 {
		t.Errorf("%d differences are open, want 0", n)
	}
	open("/drift")
	press("ask-sweep", "since I want to know", "sweep was asked for")
	if n := b.count(`select count(*) from polar.river_job where kind = 'reconcile'`); n != 1 {
		t.Errorf("%d sweeps were asked for, want 1", n)
	}

	open("/requests/" + b.failed.String())
	press("retry-request", "since the card is new", "this is the new request")
	noted("retry_checkout", "checkout_request "+b.failed.String())
	if n := b.count(`select count(*) from polar.checkout_request where external_customer_id = 'usr_eve' and state = 'queued'`); n != 2 {
		t.Errorf("%d requests of hers are queued, want 2", n)
	}
	open("/requests/" + b.queued.String())
	press("try-request", "since she waits", "takes it up now")
	if n := b.count(`select count(*) from polar.river_job where kind = 'create_checkout' and state = 'retryable'`); n != 0 {
		t.Error("the job waits on")
	}

	open("/events?type=customer.updated")
	b.do(chromedp.Click(chromedp.CSS("[data-all=seq]")))
	press("replay-chosen", "since I changed the code", "4 events applied again")
	noted("replay_events", "events")
	open(fmt.Sprintf("/events/%d", b.event))
	press("replay-event", "since I am curious", "1 event failed")
	open("/events?state=failed")
	press("retry-failed", "since it may work", "1 failed event will be tried again")

	open("/events?type=customer.updated")
	b.do(chromedp.Click(chromedp.CSS("tbody th a")), chromedp.WaitVisible(chromedp.ID("show-document")))
	if page := b.evaluate(`Promise.resolve(document.body.textContent)`); strings.Contains(page, "SECRET-NAME") || !strings.Contains(page, b.ada.String()) {
		t.Error("the document is not masked, or not there")
	}
	b.evaluate(`Promise.resolve((document.getElementById("show-document").form.elements.reason.value = "since I have to", ""))`)
	b.do(chromedp.Click(chromedp.ID("show-document")), chromedp.WaitVisible(chromedp.CSS("details[open] pre")))
	if page := b.evaluate(`Promise.resolve(document.body.textContent)`); !strings.Contains(page, "SECRET-NAME") {
		t.Error("the document is not shown whole")
	}

	// River UI, whose changes are noted too.
	b.do(chromedp.Navigate(b.url+"/jobs/jobs"), chromedp.WaitVisible(chromedp.CSS("#root main")))
	b.shoot("jobs-desk")
	answer := b.evaluate(`fetch("/jobs/api/queues/events/pause", {method: "PUT", headers: {"Content-Type": "application/json"}, body: "{}"}).then(a => String(a.status))`)
	var n int
	if err := b.store.Pool().QueryRow(t.Context(), `select count(*) from polar.audit where action = 'jobs' and subject = 'PUT /api/queues/events/pause' and actor = 'Grace'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("pausing a queue, which answered %s, is noted %d times (%v)", answer, n, err)
	}
}
