// Package chromiumtest gives tests a Chromium.
package chromiumtest

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

// Start starts a Chromium that ends with the test. Where there is none, a person's run skips; CI fails.
func Start(tb testing.TB) context.Context {
	tb.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless-shell"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			tb.Fatal("no Chromium on this machine: install it (apt install chromium)")
		}
		tb.Skip("no Chromium on this machine, so what a browser does is NOT tested: install it (apt install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	tb.Cleanup(cancelAllocator)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	tb.Cleanup(cancelBrowser)
	return browser
}
