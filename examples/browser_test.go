package examples_test

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/truenorth-dev/truenorth/internal/chromiumtest"
)

// TestAPersonBuysInChromium is what cookies, forms and the policy of the pages have to stand: a real browser, which asks the
// policy also about the redirect from the shop's form to Polar's page.
func TestAPersonBuysInChromium(t *testing.T) {
	t.Parallel()
	for _, shop := range shops {
		t.Run(shop.name, func(t *testing.T) {
			t.Parallel()
			browser := chromiumtest.Start(t)
			w := newWorld(t, shop)
			ctx, cancel := context.WithTimeout(browser, time.Minute)
			defer cancel()
			do := func(steps ...chromedp.Action[chromedp.Void]) {
				t.Helper()
				if err := chromedp.Do(ctx, steps...); err != nil {
					where, _ := chromedp.Run(browser, chromedp.Location())
					t.Fatalf("in the browser, at %s: %v", where, err)
				}
			}
			do(chromedp.Navigate(w.url),
				chromedp.Click(chromedp.ID("buy")),
				chromedp.WaitVisible(chromedp.ID("pay")),
				chromedp.SetValue(chromedp.ID("email"), "ada@chromium-example.com"),
				chromedp.Click(chromedp.ID("pay")),
				// Where Polar's word is not there yet, the page looks again by itself until it is.
				chromedp.WaitVisible(chromedp.ID("paid-as-visitor")),
				chromedp.Click(chromedp.CSS("article .button")),
				chromedp.SetValue(chromedp.ID("email"), "ada@chromium-example.com"),
				chromedp.SetValue(chromedp.ID("password"), password),
				chromedp.Click(chromedp.ID("submit")),
				chromedp.WaitVisible(chromedp.ID("members")))
			if where, err := chromedp.Run(ctx, chromedp.Location()); err != nil || where != w.url+"/members" {
				t.Errorf("the sign-up leads to %q (%v)", where, err)
			}
			do(chromedp.Click(chromedp.ID("sign-out")),
				chromedp.WaitVisible(chromedp.ID("buy")))
		})
	}
}
