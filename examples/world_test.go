package examples_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// built is the folder with the programs of the repository that these tests run, built by the first that needs them.
var built struct {
	once   sync.Once
	folder string
	err    error
}

func TestMain(m *testing.M) {
	code := storetest.Main(m)
	_ = os.RemoveAll(built.folder)
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	built.once.Do(func() {
		if built.folder, built.err = os.MkdirTemp("", "examples"); built.err != nil {
			return
		}
		command := exec.CommandContext(context.Background(), "go", "build", "-o", built.folder,
			"../cmd/truenorth", "./shop-go", "./product", "./adhocprice")
		if output, err := command.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, output)
		}
	})
	if built.err != nil {
		t.Fatalf("building the programs: %v", built.err)
	}
	return filepath.Join(built.folder, name)
}

// world is what `truenorth dev` starts, on a database of the test's own, and one of the shops beside it, each as a process
// of its own that is set up as its README says.
type world struct {
	t     *testing.T
	store *store.Store // as the server's user, who may read everything
	url   string       // the shop's
	fake  string       // Polar's
}

// shop is one of the shops.
type shop struct {
	name string
	// command is how it is started, and with what besides what all need.
	command func(t *testing.T, databaseURL, door string) (command *exec.Cmd, environ []string)
}

var shops = []shop{
	{"shop-go", func(t *testing.T, _, _ string) (*exec.Cmd, []string) {
		t.Helper()
		return exec.CommandContext(context.Background(), program(t, "shop-go")), nil
	}},
	{"shop-node", func(t *testing.T, databaseURL, door string) (*exec.Cmd, []string) {
		t.Helper()
		needNode(t)
		command := exec.CommandContext(context.Background(), "node", "main.js")
		command.Dir = nodeShop(t)
		key := strings.TrimSpace(truenorth(t, databaseURL, "keys", "create", "shop"))
		return command, []string{"TRUENORTH_URL=" + door, "TRUENORTH_KEY=" + key}
	}},
}

// newWorld starts everything, and returns once the shop sells.
func newWorld(t *testing.T, shop shop) *world {
	t.Helper()
	databaseURL := storetest.URL(t)
	fake, door := startDev(t, databaseURL)
	addr := machinetest.Address(t)
	w := &world{t: t, store: storetest.Admin(t, storetest.Open(t, databaseURL)), fake: fake, url: "http://" + addr}

	command, environ := shop.command(t, databaseURL, door)
	command.Env = append(withoutOurs(os.Environ()), append(environ,
		"DATABASE_URL="+w.asApp(databaseURL), "PRODUCT_ID="+polarfake.OneTimeProductID, "SHOP_ADDR="+addr)...)
	logged := start(t, command, nil)
	t.Cleanup(func() {
		if log := logged(); strings.Contains(log, "failed") {
			t.Errorf("the shop had something to complain about:\n%s", log)
		}
	})
	waittest.Within(t, 30*time.Second, func() error { // the product is there once truenorth has read Polar's list
		response, err := http.Get(w.url)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, logged())
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the shop answers %s\n%s", response.Status, logged())
		}
		return nil
	})
	truenorth(t, databaseURL, "users", "map", "--table", "public.users", "--created-at", "created_at")
	// The view shows what the owner of the schema may read.
	grant := "grant select on public.users to " + w.parsed(databaseURL).User.Username()
	if _, err := w.store.Pool().Exec(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	return w
}

// asApp is the database for a shop that has the rights of polar_app, and owns what it makes in schema public.
func (w *world) asApp(databaseURL string) string {
	w.t.Helper()
	there := one[bool](w, "select to_regrole($1) is not null", store.RoleApp)
	if !there && os.Getenv("CI") != "" {
		w.t.Fatalf("there is no role %s: the tests' Postgres has to let them make roles", store.RoleApp)
	}
	if !there {
		w.t.Logf("there is no role %s: nothing is proved of what a shop may do", store.RoleApp)
		return databaseURL
	}
	if _, err := w.store.Pool().Exec(w.t.Context(), "grant create on schema public to "+store.RoleApp); err != nil {
		w.t.Fatal(err)
	}
	server, database := w.parsed(storetest.ServerURL(w.t)), w.parsed(databaseURL)
	database.User = server.User // who may take any role
	query := database.Query()
	query.Set("options", "-c role="+store.RoleApp)
	database.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return database.String()
}

// in is the world to a test that is part of the one which started it.
func (w *world) in(t *testing.T) *world {
	t.Helper()
	part := *w
	part.t = t
	return &part
}

// needNode skips a person's run where there is no Node; CI fails.
func needNode(t *testing.T) {
	t.Helper()
	machinetest.Program(t, "nodejs", "node")
	machinetest.Program(t, "npm", "npm")
}

// nodeShop is a copy of the shop in Node with its packages, so that tests leave nothing in the repository.
var nodeShop = func() func(t *testing.T) string {
	var once sync.Once
	var folder string
	var err error
	return func(t *testing.T) string {
		t.Helper()
		program(t, "") // makes the folder, which TestMain removes
		once.Do(func() {
			folder = filepath.Join(built.folder, "node")
			if err = copyTracked("shop-node", folder); err != nil {
				return
			}
			install := exec.CommandContext(context.Background(), "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline")
			install.Dir = folder
			var output []byte
			if output, err = install.CombinedOutput(); err != nil {
				err = fmt.Errorf("npm ci: %w\n%s", err, output)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return folder
	}
}()

// copyTracked copies a folder without what npm has put there.
func copyTracked(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, entry := range entries {
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		switch {
		case entry.Name() == "node_modules":
			continue
		case entry.IsDir():
			err = copyTracked(source, target)
		default:
			var content []byte
			if content, err = os.ReadFile(source); err == nil {
				err = os.WriteFile(target, content, 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	fakeLine = regexp.MustCompile(`Polar\s+(http://\S+)/v1`)
	doorLine = regexp.MustCompile(`for apps\s+(http://\S+)/v1/`)
)

// startDev starts `truenorth dev` and returns where it printed the fake Polar and the HTTP door to be.
func startDev(t *testing.T, databaseURL string) (fake, door string) {
	t.Helper()
	ports := []string{machinetest.Address(t), machinetest.Address(t), machinetest.Address(t)}
	command := exec.CommandContext(context.Background(), program(t, "truenorth"), "dev", "--fake-addr", ports[0])
	command.Env = append(withoutOurs(os.Environ()), "DATABASE_URL="+databaseURL, "INGEST_ADDR="+ports[1], "WORKER_ADDR="+ports[2])
	ready := make(chan struct{})
	logged := start(t, command, func(line string) {
		if match := doorLine.FindStringSubmatch(line); match != nil {
			door = match[1]
		}
		if match := fakeLine.FindStringSubmatch(line); match != nil {
			fake = match[1]
			close(ready)
		}
	})
	select {
	case <-ready:
		return fake, door
	case <-time.After(time.Minute):
		t.Fatalf("truenorth dev printed no URLs within a minute:\n%s", logged())
		return "", ""
	}
}

// start runs a process until the test ends, when it has to end well by a SIGTERM. read, if any, gets each line of what it
// prints. logged is what it has printed so far.
func start(t *testing.T, command *exec.Cmd, read func(line string)) (logged func() string) {
	t.Helper()
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = input, input
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = input.Close()
	var mu sync.Mutex
	var log strings.Builder
	ended := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			mu.Lock()
			fmt.Fprintln(&log, lines.Text())
			mu.Unlock()
			if read != nil {
				read(lines.Text())
			}
		}
		_ = output.Close()
		ended <- command.Wait()
	}()
	logged = func() string {
		mu.Lock()
		defer mu.Unlock()
		return log.String()
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s ended with %v:\n%s", filepath.Base(command.Path), err, logged())
			}
		case <-time.After(30 * time.Second):
			_ = command.Process.Kill()
			t.Errorf("%s did not end within 30 s of a SIGTERM:\n%s", filepath.Base(command.Path), logged())
		}
	})
	return logged
}

// truenorth runs a command of the operator's and returns what it prints.
func truenorth(t *testing.T, databaseURL string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), program(t, "truenorth"), args...)
	command.Env = append(withoutOurs(os.Environ()), "DATABASE_URL="+databaseURL)
	output, err := command.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("truenorth %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

// withoutOurs takes out what would point a program at another database or Polar.
func withoutOurs(environ []string) []string {
	var kept []string
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "POLAR_") && !strings.HasPrefix(name, "DATABASE_URL") && !strings.HasPrefix(name, "SHOP_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// settle waits until Polar has nothing left to send and all that it sent is applied: what is not there then will not come.
func (w *world) settle() {
	w.t.Helper()
	waittest.Within(w.t, 20*time.Second, func() error {
		response, err := http.Get(w.fake + "/_fake/events")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		var events []struct{ State string }
		if err := json.NewDecoder(response.Body).Decode(&events); err != nil {
			return err
		}
		for _, event := range events {
			if event.State == string(polarfake.EventPending) {
				return errors.New("Polar has something left to send")
			}
		}
		if n := one[int](w, "select count(*) from polar.event where state = 'received'"); n > 0 {
			return fmt.Errorf("%d events are not applied yet", n)
		}
		return nil
	})
}

// control has the fake do something that a person would do on Polar's own pages.
func (w *world) control(path, body string) {
	w.t.Helper()
	response, err := http.Post(w.fake+"/_fake/"+path, "application/json", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(response.Body)
		w.t.Fatalf("POST %s answers %s: %s", path, response.Status, answer)
	}
}

// one reads the only value of a query.
func one[T any](w *world, sql string, args ...any) T {
	w.t.Helper()
	rows, err := w.store.Pool().Query(w.t.Context(), sql, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// browser is a person's, with cookies.
type browser struct {
	w    *world
	http *http.Client
}

func (w *world) newBrowser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w: w, http: &http.Client{Jar: jar, Timeout: 30 * time.Second}}
}

// page is what a browser shows.
type page struct {
	t      *testing.T
	status int
	url    *url.URL
	text   string
}

func (b *browser) do(request *http.Request) page {
	b.w.t.Helper()
	response, err := b.http.Do(request)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return page{t: b.w.t, status: response.StatusCode, url: response.Request.URL, text: string(text)}
}

// open opens an address, of the shop where it is a path alone.
func (b *browser) open(address string) page {
	b.w.t.Helper()
	request, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodGet, b.absolute(address), nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return b.do(request)
}

// send sends a form as a page of the same site does, and follows to where that leads.
func (b *browser) send(address string, values url.Values) page {
	b.w.t.Helper()
	return b.do(b.form(address, values, "same-origin"))
}

func (b *browser) form(address string, values url.Values, site string) *http.Request {
	b.w.t.Helper()
	request, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodPost, b.absolute(address), strings.NewReader(values.Encode()))
	if err != nil {
		b.w.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Sec-Fetch-Site", site)
	return request
}

func (b *browser) absolute(address string) string {
	if strings.HasPrefix(address, "/") {
		return b.w.url + address
	}
	return address
}

// account fills in the form of a page for accounts.
func (b *browser) account(path, email, password string) page {
	b.w.t.Helper()
	return b.send(path, url.Values{"email": {email}, "password": {password}})
}

// signUp makes an account and returns the user's id.
func (b *browser) signUp(email string) (userID string) {
	b.w.t.Helper()
	b.account("/sign-up", email, password).wants(http.StatusOK, "sign-out")
	return one[string](b.w, "select id from users where email = $1", email)
}

const password = "trust the needle"

// buy presses the shop's button and expects to be led to Polar's page.
func (b *browser) buy() page {
	b.w.t.Helper()
	hosted := b.send("/buy", nil)
	hosted.wants(http.StatusOK, "pay")
	if !strings.HasPrefix(hosted.url.String(), b.w.fake+"/checkout/") {
		b.w.t.Fatalf("the button leads to %s, not to Polar's page", hosted.url)
	}
	return hosted
}

// pay pays on Polar's page and returns the one that Polar leads to.
func (b *browser) pay(hosted page, email string) page {
	b.w.t.Helper()
	return b.send(hosted.url.String(), url.Values{"action": {"pay"}, "email": {email}})
}

// await opens a page again and again until it shows the element.
func (b *browser) await(address, id string) page {
	b.w.t.Helper()
	var shown page
	waittest.Within(b.w.t, 20*time.Second, func() error {
		if shown = b.open(address); !shown.has(id) {
			return fmt.Errorf("%s shows no #%s:\n%s", address, id, shown.text)
		}
		return nil
	})
	return shown
}

// has tells whether an element of the id is on the page.
func (p page) has(id string) bool { return strings.Contains(p.text, `id="`+id+`"`) }

// wants expects a status and elements by their ids.
func (p page) wants(status int, ids ...string) {
	p.t.Helper()
	if p.status != status {
		p.t.Fatalf("%s answers %d, want %d:\n%s", p.url, p.status, status, p.text)
	}
	for _, id := range ids {
		if !p.has(id) {
			p.t.Fatalf("%s shows no #%s:\n%s", p.url, id, p.text)
		}
	}
}

// link is the address of the button-like link on the page.
func (p page) link() string {
	p.t.Helper()
	match := regexp.MustCompile(`class="button" href="([^"]+)"`).FindStringSubmatch(p.text)
	if match == nil {
		p.t.Fatalf("%s has no link to go on by:\n%s", p.url, p.text)
	}
	return match[1]
}

func (w *world) parsed(address string) *url.URL {
	w.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}
