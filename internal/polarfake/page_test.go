package polarfake_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// press submits the page's form with a button and returns the answer without following it.
func (b *testBundle) press(page, button, email string) (int, http.Header, string) {
	b.t.Helper()

	form := url.Values{"action": {button}, "email": {email}, "name": {"Bea"}}.Encode()
	status, header, body := b.raw(http.MethodPost, page, form, map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
	return status, header, string(body)
}

func pagePath(session document) string { return "/checkout/" + session.text("client_secret") }

func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()

	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
}

func TestBuyerPaysOnThePage(t *testing.T) {
	t.Parallel()

	b := setup(t)
	session := b.checkoutOf(polarfake.OneTimeProductID, `"success_url":"https://shop.example/thanks?c={CHECKOUT_ID}","return_url":"https://shop.example/"`)
	status, header, shown := b.raw(http.MethodGet, pagePath(session), "", nil)
	if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		t.Fatalf("page answered %d %s", status, header.Get("Content-Type"))
	}
	wantAll(t, string(shown), `id="email"`, `id="pay"`, `id="fail"`, `id="expire"`, "Field guide", "49.00 USD", `name="viewport"`,
		"prefers-color-scheme: dark", "https://shop.example/")
	if strings.Contains(string(shown), "<script") {
		t.Error("the page needs a script")
	}
	status, header, body := b.press(pagePath(session), "pay", " buyer@example.com ")
	if want := "https://shop.example/thanks?c=" + session.text("id"); status != http.StatusSeeOther || header.Get("Location") != want {
		t.Errorf("paying answered %d to %q: %s", status, header.Get("Location"), body)
	}
	b.idle()
	_, _, shown = b.raw(http.MethodGet, pagePath(session)+"/confirmation", "", nil)
	wantAll(t, string(shown), `id="confirmation"`)
	if status, _, _ := b.press(pagePath(session), "pay", "buyer@example.com"); status != http.StatusForbidden {
		t.Errorf("paying twice answered %d", status)
	}
}

func TestPageDeclinesAndExpires(t *testing.T) {
	t.Parallel()

	b := setup(t)
	session := b.checkoutOf(polarfake.MonthlyProductID, "")
	status, _, body := b.press(pagePath(session), "fail", "buyer@example.com")
	wantAll(t, body, `role="alert"`, "declined", `id="pay"`, "readonly")
	if status != http.StatusBadRequest || b.checkoutNow(session.text("id")).text("status") != "open" {
		t.Errorf("declining answered %d", status)
	}
	if status, _, _ := b.press(pagePath(session), "dance", ""); status != http.StatusBadRequest {
		t.Errorf("an unknown button answered %d", status)
	}
	if status, _, _ := b.press(pagePath(session), "expire", ""); status != http.StatusGone {
		t.Errorf("letting it expire answered %d", status)
	}
	status, _, shown := b.raw(http.MethodGet, pagePath(session), "", nil)
	wantAll(t, string(shown), `id="expired"`)
	if status != http.StatusGone {
		t.Errorf("the expired page answered %d", status)
	}
	if status, _, _ := b.press(pagePath(session), "pay", "buyer@example.com"); status != http.StatusGone {
		t.Errorf("paying too late answered %d", status)
	}
	if status, _, _ := b.raw(http.MethodGet, "/checkout/polar_c_none", "", nil); status != http.StatusNotFound {
		t.Errorf("an unknown page answered %d", status)
	}
	if status, _, _ := b.press("/checkout/polar_c_none", "pay", ""); status != http.StatusNotFound {
		t.Errorf("an unknown page answered %d", status)
	}
}

func TestPageComplainsAboutTheEmail(t *testing.T) {
	t.Parallel()

	b := setup(t)
	session := b.checkoutOf(polarfake.TrialProductID, "")
	status, _, body := b.press(pagePath(session), "pay", "<script>")
	wantAll(t, body, "must have an @-sign", "2 weeks free, then ")
	if status != http.StatusUnprocessableEntity || strings.Contains(body, "<script>") {
		t.Errorf("answered %d", status)
	}
}

func TestPageSettlesAConfirmedSession(t *testing.T) {
	t.Parallel()

	b := setup(t)
	for button, want := range map[string]string{"pay": "succeeded", "fail": "open"} {
		session := b.checkoutOf(polarfake.OneTimeProductID, "")
		b.must(b.Confirm(session.text("id"), button+"@example.com"))
		_, _, shown := b.raw(http.MethodGet, pagePath(session), "", nil)
		wantAll(t, string(shown), `id="processing"`)
		b.press(pagePath(session), button, "")
		if status := b.checkoutNow(session.text("id")).text("status"); status != want {
			t.Errorf("%s left it %s", button, status)
		}
	}
	b.idle()
}

func TestBuyerWaitsForTheWebhook(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.FulfillmentWait = patience })
	reached, hold := make(chan struct{}), make(chan struct{})
	b.receiver.answering(func(_ int, delivery received) int {
		if strings.Contains(string(delivery.body), `"status":"succeeded"`) && delivery.kind == "checkout.updated" {
			close(reached)
			<-hold
		}
		return http.StatusOK
	})
	session := b.checkoutOf(polarfake.OneTimeProductID, "")
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		form := strings.NewReader(url.Values{"action": {"pay"}, "email": {"buyer@example.com"}}.Encode())
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.server.URL+pagePath(session), form)
		if err != nil {
			t.Errorf("building a request: %v", err)
			return
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Errorf("paying: %v", err)
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}()
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("the webhook did not come")
	}
	select {
	case <-answered:
		t.Error("the buyer was sent on before the webhook was taken")
	default:
	}
	close(hold)
	<-answered
}

func TestBuyerIsSentOnWithoutTheWebhook(t *testing.T) {
	t.Parallel()

	b := setup(t, func(o *polarfake.Options) { o.RetryScale = 1000 })
	b.receiver.answering(func(int, received) int { return http.StatusInternalServerError })
	session := b.checkoutOf(polarfake.OneTimeProductID, "")
	if status, _, _ := b.press(pagePath(session), "pay", "buyer@example.com"); status != http.StatusSeeOther {
		t.Errorf("paying answered %d", status)
	}
}
