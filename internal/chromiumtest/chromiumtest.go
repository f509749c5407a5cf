// Package chromiumtest gives tests a Chromium.
package chromiumtest

import (
	"context"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
)

// Start starts a Chromium that ends with the test. Where there is none, a person's run skips; CI fails.
func Start(tb testing.TB) context.Context {
	tb.Helper()
	path := machinetest.Program(tb, "chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless-shell")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	tb.Cleanup(cancelAllocator)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	tb.Cleanup(cancelBrowser)
	return browser
}
