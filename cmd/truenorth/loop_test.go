package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/truenorth-dev/truenorth/internal/chromiumtest"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// TestABuyerPaysInABrowserAndIsLinked is the whole product as a person meets it: `truenorth dev`, the console's first
// page, the hosted checkout page, and back.
func TestABuyerPaysInABrowserAndIsLinked(t *testing.T) {
	t.Parallel()
	browser := chromiumtest.Start(t)
	data := t.TempDir()
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	dev := startDev(t, data)

	ctx, cancel := context.WithTimeout(browser, time.Minute)
	defer cancel()
	do := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatalf("in the browser: %v\nlog:\n%s", err, dev.log())
		}
	}
	do(chromedp.Navigate(dev.console),
		chromedp.SetValue(chromedp.CSS("select[name=user]"), "usr_ada"),
		chromedp.Click(chromedp.ID("create-checkout")),
		chromedp.WaitVisible(chromedp.ID("pay")))
	hosted, err := chromedp.Run(ctx, chromedp.Location())
	if err != nil || !strings.Contains(hosted, "/checkout/") {
		t.Errorf("the button led to %q (%v), not to the hosted page", hosted, err)
	}
	do(chromedp.SetValue(chromedp.ID("email"), "ada@buyer-example.com"),
		chromedp.Click(chromedp.ID("pay")),
		chromedp.WaitVisible(chromedp.ID("paid-banner")),
		chromedp.WaitVisible(chromedp.ID("linked-usr_ada")))
	// The page looks again by itself until the stronger basis is there.
	waittest.Within(t, 10*time.Second, func() error {
		basis, err := chromedp.Run(ctx, chromedp.AttributeValue(chromedp.ID("linked-usr_ada"), "data-basis"))
		if err == nil && basis.Value != "checkout" {
			err = fmt.Errorf("the link's basis is %q", basis.Value)
		}
		if err != nil {
			do(chromedp.Reload())
		}
		return err
	})

	dev.stop(t)
	again := startDev(t, data) // data is kept between runs
	err = chromedp.Do(ctx, chromedp.Navigate(again.console), chromedp.WaitVisible(chromedp.ID("linked-usr_ada")))
	if err != nil {
		t.Errorf("after a restart the link is gone: %v\nlog:\n%s", err, again.log())
	}
	again.stop(t)
}

// devRun is a running `truenorth dev`.
type devRun struct {
	console string
	command *exec.Cmd
	ended   chan error
	output  *os.File
}

func startDev(t *testing.T, data string) *devRun {
	t.Helper()
	output, err := os.Create(filepath.Join(t.TempDir(), "dev.log"))
	if err != nil {
		t.Fatal(err)
	}
	ports := []string{machinetest.Address(t), machinetest.Address(t), machinetest.Address(t)}
	d := &devRun{ended: make(chan error, 1), output: output}
	d.command = exec.CommandContext(context.Background(), program(t), "dev", "--verbose", "--data", data, "--fake-addr", ports[0])
	d.command.Env = append(withoutOurs(os.Environ()), "INGEST_ADDR="+ports[1], "WORKER_ADDR="+ports[2])
	d.command.Stderr = output
	stdout, err := d.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.command.Process.Kill() })
	printed := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if url := consoleURL.FindStringSubmatch(lines.Text()); url != nil {
				printed <- url[1]
			}
		}
		d.ended <- d.command.Wait()
	}()
	select {
	case d.console = <-printed:
	case err := <-d.ended:
		t.Fatalf("truenorth dev ended at once: %v\n%s", err, d.log())
	case <-time.After(time.Minute):
		t.Fatalf("truenorth dev printed no console URL within a minute\n%s", d.log())
	}
	return d
}

var consoleURL = regexp.MustCompile(`console\s+(http://\S+)`)

// stop presses Ctrl-C and expects a clean end.
func (d *devRun) stop(t *testing.T) {
	t.Helper()
	if err := d.command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			t.Errorf("Ctrl-C ended truenorth dev with %v\n%s", err, d.log())
		}
		if !strings.Contains(d.log(), "stopping ...") {
			t.Errorf("Ctrl-C is not answered:\n%s", d.log())
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("truenorth dev did not end within 30 s of Ctrl-C\n%s", d.log())
	}
}

func (d *devRun) log() string {
	text, _ := os.ReadFile(d.output.Name())
	return string(text)
}

// withoutOurs takes out what would point `truenorth dev` at another database or Polar.
func withoutOurs(environ []string) []string {
	var kept []string
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "POLAR_") && !strings.HasPrefix(name, "DATABASE_URL") {
			kept = append(kept, variable)
		}
	}
	return kept
}

var errNoProgram = errors.New("the program was not built")

// built is the truenorth program, built once by TestMain.
var built string

func program(t *testing.T) string {
	t.Helper()
	if built == "" {
		t.Fatal(errNoProgram)
	}
	return built
}

func TestMain(m *testing.M) { os.Exit(testMain(m, os.Stderr)) }

func testMain(m *testing.M, stderr io.Writer) int {
	time.Local = time.UTC // docs/cli.md shows times of one length
	folder, err := os.MkdirTemp("", "truenorth")
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "truenorth")
	if output, err := exec.CommandContext(context.Background(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(stderr, "building truenorth: %v\n%s", err, output)
		return 1
	}
	built = path
	return storetest.Main(m)
}
