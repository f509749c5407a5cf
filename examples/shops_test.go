package examples_test

import (
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestTheShops plays what people do in a shop, from the first page to Polar's and back.
func TestTheShops(t *testing.T) {
	t.Parallel()
	for _, shop := range shops {
		t.Run(shop.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shop)
			for _, c := range []struct {
				name string
				test func(w *world)
			}{
				{"who pays may see what is sold", whoPaysMaySeeWhatIsSold},
				{"who does not pay may not", whoDoesNotPayMayNot},
				{"two presses of the button make one checkout", twoPressesMakeOneCheckout},
				{"who paid before signing up has access with the sign-up", whoPaidBeforeSigningUpHasAccess},
				{"a refund takes access away", aRefundTakesAccessAway},
				{"a checkout that ended makes room for another", aCheckoutThatEndedMakesRoom},
				{"forms of other sites change nothing", formsOfOtherSitesChangeNothing},
				{"a session ends where it is kept", aSessionEndsWhereItIsKept},
				{"an account has one address and one password", anAccountHasOneAddressAndOnePassword},
			} {
				t.Run(c.name, func(t *testing.T) { c.test(w.in(t)) })
			}
		})
	}
}

func whoPaysMaySeeWhatIsSold(w *world) {
	ada := w.newBrowser()
	shown := ada.open("/")
	shown.wants(http.StatusOK, "price", "buy")
	if !strings.Contains(shown.text, "49.00 USD") {
		w.t.Errorf("the shop does not show the price that Polar has:\n%s", shown.text)
	}
	if members := ada.open("/members"); members.url.Path != "/sign-in" {
		w.t.Errorf("a visitor who opens the members' page gets to %s", members.url)
	}
	ada.signUp("ada@first-example.com")
	ada.open("/members").wants(http.StatusForbidden, "refused")

	back := ada.pay(ada.buy(), "ada@first-example.com")
	if !strings.HasPrefix(back.url.String(), w.url+"/orders/") {
		w.t.Fatalf("Polar leads back to %s", back.url)
	}
	ada.await(back.url.Path, "paid")
	ada.open("/members").wants(http.StatusOK, "members")
	ada.open("/").wants(http.StatusOK, "owned")
	if again := ada.send("/buy", nil); again.url.Path != "/members" {
		w.t.Errorf("who has it and presses the button gets to %s", again.url)
	}

	// The address of the page says nothing to others, nor that there is such an order.
	w.newBrowser().open(back.url.Path).wants(http.StatusNotFound)
	for _, path := range []string{"/orders/1", "/orders/%00", "/nowhere", "/static/", "/static/none.css"} {
		ada.open(path).wants(http.StatusNotFound)
	}
}

func whoDoesNotPayMayNot(w *world) {
	eve := w.newBrowser()
	userID := eve.signUp("eve@declined-example.com")
	hosted := eve.buy()
	declined := eve.send(hosted.url.String(), url.Values{"action": {"fail"}, "email": {"eve@declined-example.com"}})
	if !declined.has("complaint") {
		w.t.Fatalf("Polar's page says nothing of the declined card:\n%s", declined.text)
	}
	w.settle()
	eve.open("/members").wants(http.StatusForbidden, "refused")

	// Whoever opens the page that Polar leads back to has not paid by that.
	order := "/orders/" + one[string](w, "select id::text from orders where user_id = $1", userID)
	unpaid := eve.open(order + "?status=succeeded")
	unpaid.wants(http.StatusOK, "unpaid")
	if !strings.Contains(unpaid.text, `http-equiv="refresh"`) {
		w.t.Error("the page does not look again by itself")
	}
	if unpaid.link() != hosted.url.String() {
		w.t.Errorf("the order leads on to %s, not to the same checkout %s", unpaid.link(), hosted.url)
	}
	eve.open("/members").wants(http.StatusForbidden, "refused")

	eve.pay(hosted, "eve@declined-example.com")
	paid := eve.await(order, "paid")
	if strings.Contains(paid.text, `http-equiv="refresh"`) {
		w.t.Error("the page looks again where nothing is left to come")
	}
	eve.open("/members").wants(http.StatusOK, "members")
}

func twoPressesMakeOneCheckout(w *world) {
	for _, c := range []struct{ name, email string }{{"a user", "grace@twice-example.com"}, {"a visitor", ""}} {
		b := w.newBrowser()
		b.open("/")
		if c.email != "" {
			b.signUp(c.email)
		}
		const presses = 4
		var led [presses]page
		var group sync.WaitGroup
		for i := range led {
			request := b.form("/buy", nil, "same-origin")
			group.Go(func() { led[i] = b.do(request) })
		}
		group.Wait()
		for _, hosted := range append(led[1:], b.buy()) { // and once more, later
			hosted.wants(http.StatusOK, "pay")
			if hosted.url.String() != led[0].url.String() {
				w.t.Errorf("%s is led to %s and to %s", c.name, led[0].url, hosted.url)
			}
		}
		n := one[int](w, `select count(*) from polar.checkout_request r
			where r.external_customer_id = (select external_customer_id from polar.checkout_request where url = $1)`, led[0].url.String())
		if n != 1 {
			w.t.Errorf("the presses of %s made %d checkouts, want 1", c.name, n)
		}
	}
}

func whoPaidBeforeSigningUpHasAccess(w *world) {
	linus := w.newBrowser()
	linus.open("/")
	back := linus.pay(linus.buy(), "linus@early-example.com")
	shown := linus.await(back.url.Path, "paid-as-visitor")
	if strings.Contains(shown.text, `http-equiv="refresh"`) {
		w.t.Error("the page looks again, though only the visitor can go on")
	}
	w.settle()
	// The button charges nobody twice.
	if again := linus.send("/buy", nil); again.url.Path != back.url.Path {
		w.t.Errorf("a visitor who has paid and presses the button again gets to %s", again.url)
	}

	// To sign in would leave what was bought behind.
	other := w.newBrowser()
	other.signUp("linus@late-example.com")
	linus.account("/sign-in", "linus@late-example.com", password).wants(http.StatusUnprocessableEntity, "complaint")

	// No waiting: access is there when the sign-up has committed. And not by the address, which Polar was not given.
	linus.account("/sign-up", "other@address-example.com", password).wants(http.StatusOK, "members")
	linus.open(back.url.Path).wants(http.StatusOK, "paid")
	if basis := one[string](w, `select l.basis from polar.customer_link l join users u on u.id = l.local_user_id where u.email = 'other@address-example.com'`); basis == "" {
		w.t.Error("the customer is linked on no basis")
	}
	// Who has the same address at Polar gets nothing by it.
	stranger := w.newBrowser()
	stranger.signUp("linus@early-example.com")
	w.settle()
	stranger.open("/members").wants(http.StatusForbidden, "refused")
}

func aRefundTakesAccessAway(w *world) {
	mary := w.newBrowser()
	userID := mary.signUp("mary@refund-example.com")
	hosted := mary.buy()
	back := mary.pay(hosted, "mary@refund-example.com")
	mary.await(back.url.Path, "paid")
	mary.open("/members").wants(http.StatusOK, "members")

	order := one[string](w, "select order_id::text from polar.user_order where local_user_id = $1", userID)
	w.control("orders/"+order+"/refund", `{"revoke_benefits": true}`)
	mary.await("/members", "refused").wants(http.StatusForbidden)
	mary.await(back.url.Path, "refunded")
	if again := mary.buy(); again.url.String() == hosted.url.String() {
		w.t.Error("who wants it again is led to the checkout that was refunded")
	}
}

func aCheckoutThatEndedMakesRoom(w *world) {
	ivan := w.newBrowser()
	userID := ivan.signUp("ivan@slow-example.com")
	hosted := ivan.buy()
	order := one[string](w, "select id::text from orders where user_id = $1", userID)
	ivan.send(hosted.url.String(), url.Values{"action": {"expire"}})
	ivan.await("/orders/"+order, "ended")
	again := ivan.buy()
	if again.url.String() == hosted.url.String() {
		w.t.Error("the button leads to the checkout that has expired")
	}
	ivan.await(ivan.pay(again, "ivan@slow-example.com").url.Path, "paid")
	if n := one[int](w, "select count(*) from orders where user_id = $1", userID); n != 2 {
		w.t.Errorf("there are %d orders, want one for each checkout", n)
	}
}

func formsOfOtherSitesChangeNothing(w *world) {
	olga := w.newBrowser()
	userID := olga.signUp("olga@forged-example.com")
	for _, path := range []string{"/buy", "/sign-out", "/sign-in", "/sign-up"} {
		for _, site := range []string{"cross-site", "same-site"} {
			olga.do(olga.form(path, url.Values{"email": {"m@forged-example.com"}, "password": {password}}, site)).wants(http.StatusForbidden)
		}
		old := olga.form(path, nil, "")
		old.Header.Del("Sec-Fetch-Site")
		old.Header.Set("Origin", "https://elsewhere.example")
		olga.do(old).wants(http.StatusForbidden)
	}
	olga.open("/").wants(http.StatusOK, "sign-out")
	if n := one[int](w, "select count(*) from orders where user_id = $1", userID); n != 0 {
		w.t.Errorf("%d orders were made", n)
	}
	// No page lies about what it is, nor is shown within another's.
	response, err := olga.http.Get(w.url + "/")
	if err != nil {
		w.t.Fatal(err)
	}
	_ = response.Body.Close()
	for name, want := range map[string]string{
		"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	} {
		if got := response.Header.Get(name); !strings.Contains(got, want) {
			w.t.Errorf("%s is %q, want %q in it", name, got, want)
		}
	}
}

func aSessionEndsWhereItIsKept(w *world) {
	nina := w.newBrowser()
	nina.open("/")
	visitor := cookieOf(nina)
	nina.signUp("nina@session-example.com")
	session := cookieOf(nina)
	if session.Value == visitor.Value {
		w.t.Error("whoever knew the visitor's cookie is signed in by the sign-up too")
	}
	// The cookie that the visitor had is used up: it does not stand for the user.
	stale := w.newBrowser()
	stale.http.Jar.SetCookies(w.parsed(w.url), []*http.Cookie{visitor})
	if page := stale.open("/"); page.has("sign-out") || cookieOf(stale).Value == visitor.Value {
		w.t.Errorf("the visitor's cookie still opens something:\n%s", page.text)
	}

	nina.send("/sign-out", nil).wants(http.StatusOK, "buy")
	thief := w.newBrowser()
	thief.http.Jar.SetCookies(w.parsed(w.url), []*http.Cookie{session})
	if page := thief.open("/"); page.has("sign-out") {
		w.t.Error("the cookie of a session that was ended still opens it")
	}

	nina.account("/sign-in", "NINA@session-example.com", password).wants(http.StatusOK, "sign-out")
	if _, err := w.store.Pool().Exec(w.t.Context(), "update sessions set expires_at = now() where user_id = (select id from users where email = 'nina@session-example.com')"); err != nil {
		w.t.Fatal(err)
	}
	if page := nina.open("/"); page.has("sign-out") {
		w.t.Error("a session goes on after its end")
	}
	for _, value := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 500)} {
		odd := w.newBrowser()
		odd.http.Jar.SetCookies(w.parsed(w.url), []*http.Cookie{{Name: session.Name, Value: value, Path: "/"}})
		odd.open("/").wants(http.StatusOK, "buy")
	}
}

func anAccountHasOneAddressAndOnePassword(w *world) {
	paul := w.newBrowser()
	for _, c := range []struct{ email, password string }{
		{"", password},
		{"paul", password},
		{"Paul <paul@account-example.com>", password},
		{"paul@account-example.com", "short"},
		{"paul@account-example.com", strings.Repeat("x", 201)},
	} {
		paul.account("/sign-up", c.email, c.password).wants(http.StatusUnprocessableEntity, "complaint")
	}
	userID := paul.signUp("paul@account-example.com")
	if stored := one[string](w, "select password_hash from users where id = $1", userID); !strings.HasPrefix(stored, "pbkdf2-sha256$600000$") {
		w.t.Errorf("the password is kept as %q", stored)
	}
	paul.account("/sign-up", "second@account-example.com", password)
	if n := one[int](w, "select count(*) from users where email = 'second@account-example.com'"); n != 0 {
		w.t.Error("who is signed in has signed up again")
	}

	other := w.newBrowser()
	other.account("/sign-up", "PAUL@account-example.com", password).wants(http.StatusUnprocessableEntity, "complaint")
	other.account("/sign-in", "paul@account-example.com", "trust the compass").wants(http.StatusUnprocessableEntity, "complaint")
	shown := other.account("/sign-in", `"><script>@account-example.com`, password)
	shown.wants(http.StatusUnprocessableEntity, "complaint")
	if strings.Contains(shown.text, "<script>") {
		w.t.Errorf("what was typed is markup:\n%s", shown.text)
	}
	other.account("/sign-in", "paul@account-example.com", password).wants(http.StatusOK, "sign-out")
}

// cookieOf is the only cookie that the shop has given a browser.
func cookieOf(b *browser) *http.Cookie {
	b.w.t.Helper()
	cookies := b.http.Jar.Cookies(b.w.parsed(b.w.url))
	if len(cookies) != 1 {
		b.w.t.Fatalf("the browser has %d cookies of the shop, want 1", len(cookies))
	}
	return cookies[0]
}

func TestTheNodeShopsOwnTestsPass(t *testing.T) {
	t.Parallel()
	needNode(t)
	command := exec.CommandContext(t.Context(), "npm", "test")
	command.Dir = nodeShop(t)
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("npm test: %v\n%s", err, output)
	}
}

// TestBothShopsHaveTheSameTables holds them together, so that either may be started on the other's database.
func TestBothShopsHaveTheSameTablesAndLooks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"schema.sql", "static/shop.css", "static/icon.svg"} {
		inGo, err := os.ReadFile(filepath.Join("shop-go", name))
		if err != nil {
			t.Fatal(err)
		}
		inNode, err := os.ReadFile(filepath.Join("shop-node", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(inGo) != string(inNode) {
			t.Errorf("%s differs between the shops", name)
		}
	}
}

// TestTheLockfileNamesNoRegistry keeps it good wherever npm fetches from.
func TestTheLockfileNamesNoRegistry(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("shop-node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(lock), `"resolved"`) || !strings.Contains(string(lock), `"integrity"`) {
		t.Error("package-lock.json names where packages come from, or not what they are: npm install --package-lock-only, with .npmrc as it is")
	}
}
