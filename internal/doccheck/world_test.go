package doccheck_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestMain(m *testing.M) {
	code := storetest.Main(m)
	_ = os.RemoveAll(programs.dir)
	os.Exit(code)
}

// programs are the three, built once.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

// builtPrograms is the folder of ingest, worker and truenorth.
func builtPrograms(tb testing.TB) string {
	tb.Helper()
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "truenorth-programs-"); programs.err != nil {
			return
		}
		build := exec.CommandContext(context.Background(), "go", "build", "-o", programs.dir+string(filepath.Separator), "./cmd/ingest", "./cmd/worker", "./cmd/truenorth")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("building the programs: %w\n%s", err, out)
		}
	})
	if programs.err != nil {
		tb.Fatal(programs.err)
	}
	return programs.dir
}

// stage is how the world of a page differs from one in which all runs.
type stage struct {
	dev        bool // `make run` makes all that the page needs
	bare       bool // nothing is set up: an empty database, no users, no endpoint at Polar, no program
	noEndpoint bool // Polar has no endpoint yet
}

var stages = map[string]stage{
	"docs/quickstart.md":  {bare: true, dev: true},
	"docs/polar-setup.md": {bare: true},
	"docs/production.md":  {bare: true},
	// Shops bring users of their own.
	"examples/shop-go/README.md":   {bare: true, dev: true},
	"examples/shop-node/README.md": {bare: true, dev: true},
	"docs/endpoint.md":             {noEndpoint: true},
}

// Secrets and names as pages have them, which the world takes over or replaces by its own.
const (
	pageDatabaseURL = "postgres://shop@db.internal:5432/shop"
	pageOtherURL    = "postgres://shop@spare.internal:5432/shop"
	pageShownURL    = "postgres://postgres:secret@127.0.0.1:54321/truenorth?sslmode=disable" // as make run shows it
	pageSecret      = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// world is the machine that a page speaks of.
type world struct {
	t     *testing.T
	home  string // a folder of its own, in which etc/ stands for /etc
	work  string // the working folder: the repository's files, and what the page makes
	stage stage
	fake  *polarfake.Fake

	databaseURL string
	ports       map[string]string // what a page calls an address, and what it is here
	words       []string          // the page's words, each followed by the world's
	services    *services
	kept        int    // how many programs were started that keep running
	devAddress  string // of the fake Polar of make run; empty where that is not to run
}

func newWorld(t *testing.T, name string) *world {
	t.Helper()
	w := &world{t: t, stage: stages[name], ports: map[string]string{}}
	w.home = t.TempDir()
	if err := os.Chmod(w.home, 0o755); err != nil { // a Postgres that the page starts may run as another user
		t.Fatal(err)
	}
	for _, address := range []string{"127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:9080", "127.0.0.1:3000"} {
		w.ports[address] = machinetest.Address(t)
	}
	switch {
	case w.stage.dev: // with a fake Polar of its own
		w.devAddress = w.ports["127.0.0.1:8082"]
	case w.stage.bare: // with the world's
		w.devAddress = machinetest.Address(t)
		fallthrough
	default:
		w.openPolar()
	}
	w.openDatabase()
	w.furnish()
	w.services = &services{world: w, running: map[string]*process{}}
	systemd := httptest.NewServer(w.services)
	t.Cleanup(systemd.Close)
	t.Cleanup(w.services.stopAll)
	w.write("home/systemd", systemd.URL)

	api := "http://" + w.ports["127.0.0.1:8082"]
	w.words = []string{
		pageDatabaseURL, w.databaseURL,
		strings.Replace(pageDatabaseURL, "shop@", "shop_ingest@", 1), w.databaseURL,
		strings.Replace(pageDatabaseURL, "shop@", "shop_worker@", 1), w.databaseURL,
		"https://shop.example", "http://" + w.ports["127.0.0.1:8080"],
		"https://sandbox-api.polar.sh/v1", api + "/v1",
		"https://api.polar.sh/v1", api + "/v1",
		"wait=30s", "wait=1s", // where nothing will come
		"/etc/truenorth", filepath.Join(w.home, "etc/truenorth"),
		"/etc/systemd", filepath.Join(w.home, "etc/systemd"),
		"/usr/local/bin", filepath.Join(w.home, "local/bin"),
	}
	if strings.Contains(readFile(t, name), pageOtherURL) {
		w.words = append(w.words, pageOtherURL, storetest.EmptyURL(t))
	}
	for page, here := range w.ports {
		w.words = append(w.words, page, here)
	}

	if !w.stage.bare {
		w.addUsers()
		w.services.start("truenorth-ingest")
		w.services.start("truenorth-worker")
	}
	return w
}

// here puts what a page says into the world's words.
func (w *world) here(text string) string { return strings.NewReplacer(w.words...).Replace(text) }

// asPage puts what was printed here into the page's words.
func (w *world) asPage(text string) string {
	back := slices.Clone(w.words)
	for i := 0; i < len(back); i += 2 {
		back[i], back[i+1] = back[i+1], back[i]
	}
	return strings.NewReplacer(back...).Replace(text)
}

func (w *world) openDatabase() {
	w.t.Helper()
	if w.stage.bare {
		w.databaseURL = storetest.EmptyURL(w.t)
	} else {
		w.databaseURL = storetest.URL(w.t)
	}
}

func (w *world) addUsers() {
	w.t.Helper()
	err := storetest.Open(w.t, w.databaseURL).AddLocalUsers(w.t.Context(), []store.LocalUser{
		{ID: "usr_ada", Email: "ada@example.com"}, {ID: "usr_grace", Email: "grace@example.com"}, {ID: "usr_mallory", Email: "mallory@example.com"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) openPolar() {
	w.t.Helper()
	options := polarfake.Options{RetryScale: 0.01}
	if !w.stage.bare && !w.stage.noEndpoint {
		options.WebhookURL, options.WebhookSecret = "http://"+w.ports["127.0.0.1:8080"]+"/webhooks/polar", pageSecret
	}
	w.fake = polarfake.New(options)
	w.t.Cleanup(w.fake.Close)
	w.fake.SetPublicURL("http://" + w.ports["127.0.0.1:8082"])
	var lc net.ListenConfig
	listener, err := lc.Listen(w.t.Context(), "tcp", w.ports["127.0.0.1:8082"])
	if err != nil {
		w.t.Fatal(err)
	}
	api := &httptest.Server{Listener: listener, Config: &http.Server{Handler: w.fake, ReadHeaderTimeout: 10 * time.Second}}
	api.Start()
	w.t.Cleanup(api.Close)
}

// commands stand in for what a machine of tests has not, or must not do: see each.
var commands = map[string]string{
	// `make run` is truenorth dev where nothing runs yet; of the other targets it is only seen that they exist.
	"make": `case "${1:-}" in
run) [ -z "$DEV_FAKE_ADDRESS" ] || exec truenorth dev --data "$HOME/data" --fake-addr "$DEV_FAKE_ADDRESS" ;;
build) mkdir -p bin && exec cp "$PROGRAMS"/* bin/ ;;
*) make=$(PATH=/usr/local/bin:/usr/bin:/bin command -v make) && exec "$make" --dry-run -C "$REPOSITORY" "$@" > /dev/null ;;
esac`,
	// The programs are built already.
	"go": `case "${1:-} ${2:-}" in
"run ./cmd/"*) program=${2##*/}; shift 2; exec "$PROGRAMS/$program" "$@" ;;
*) exec "$GO" "$@" ;;
esac`,
	// systemd is the test: it starts and stops the world's programs.
	"systemctl": `verb=$1; shift
for unit in "$@"; do case $unit in -*) ;; *) curl -sS --fail-with-body -X POST "$(cat "$HOME/systemd")/$verb/$unit" ;; esac; done`,
}

// furnish makes the folders of the machine, and what stands in them.
func (w *world) furnish() {
	w.t.Helper()
	w.work = filepath.Join(w.home, "work")
	for _, dir := range []string{"work", "home", "bin", "local/bin", "etc/systemd/system", "etc/truenorth"} {
		if err := os.MkdirAll(filepath.Join(w.home, dir), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, script := range commands {
		w.write("bin/"+name, "#!/usr/bin/env bash\nset -eu\n"+script+"\n")
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		w.t.Fatal(err)
	}
	repository, err := filepath.Abs(root)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name == "examples" { // in which npm writes
			if err := os.CopyFS(filepath.Join(w.work, name), os.DirFS(filepath.Join(repository, name))); err != nil {
				w.t.Fatal(err)
			}
		} else if name != "bin" && (!strings.HasPrefix(name, ".") || name == ".env.example") {
			if err := os.Symlink(filepath.Join(repository, name), filepath.Join(w.work, name)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	if !w.stage.bare {
		for _, of := range []string{"owner", "ingest", "worker"} {
			w.write("etc/truenorth/"+of+"_database_url", w.databaseURL+"\n")
		}
		w.write("etc/truenorth/polar_access_token", "polar_oat_test\n")
		w.write("etc/truenorth/polar_webhook_secrets", pageSecret+"\n")
	}
}

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.home, name), []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// environ is what a page's commands find set: where all is set up, what an operator has, too.
func (w *world) environ() []string {
	repository, err := filepath.Abs(root)
	if err != nil {
		w.t.Fatal(err)
	}
	built := builtPrograms(w.t)
	environ := []string{
		"PATH=" + strings.Join([]string{filepath.Join(w.home, "bin"), filepath.Join(w.home, "local/bin"), built, os.Getenv("PATH")}, ":"),
		"HOME=" + filepath.Join(w.home, "home"), "LANG=C.UTF-8", "TZ=UTC", "USER=grace", "LOGNAME=grace",
		"REPOSITORY=" + repository, "PROGRAMS=" + built, "DEV_FAKE_ADDRESS=" + w.devAddress, "POLAR_RATE_LIMIT=0",
		"GO=" + goProgram(w.t), "GOCACHE=" + goEnv(w.t, "GOCACHE"), "GOMODCACHE=" + goEnv(w.t, "GOMODCACHE"), "GOFLAGS=-buildvcs=false",
		// Where nothing else is said, a page's programs have the addresses of this world.
		"INGEST_ADDR=" + w.ports["127.0.0.1:8080"], "WORKER_ADDR=" + w.ports["127.0.0.1:8081"],
		"SHOP_ADDR=" + w.ports["127.0.0.1:3000"],
	}
	if w.stage.bare {
		return environ
	}
	return append(environ, w.serviceEnviron()...)
}

func (w *world) serviceEnviron() []string {
	return []string{
		"DATABASE_URL=" + w.databaseURL, "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_WEBHOOK_SECRETS=" + pageSecret,
		"POLAR_API_URL=http://" + w.ports["127.0.0.1:8082"] + "/v1", "INGEST_PUBLIC_URL=http://" + w.ports["127.0.0.1:8080"],
	}
}

func goProgram(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// goEnv is a setting of the go command, which a page's own HOME would hide.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// services is the systemd of a world.
type services struct {
	world   *world
	mu      sync.Mutex
	running map[string]*process
}

// ServeHTTP does what the systemctl of the world is asked: POST /verb/unit.
func (s *services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb, unit, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	unit = strings.TrimSuffix(unit, ".service")
	var err error
	switch verb {
	case "daemon-reload":
	case "start", "enable":
		err = s.tryStart(unit)
	case "stop":
		err = s.tryStop(unit)
	case "restart":
		if err = s.tryStop(unit); err == nil {
			err = s.tryStart(unit)
		}
	default:
		err = fmt.Errorf("systemctl %s is not known to the test", verb)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// unitPrograms are the units of deploy/systemd, and what each runs.
var unitPrograms = map[string][]string{
	"truenorth-ingest": {"ingest"}, "truenorth-worker": {"worker"}, "truenorth-migrate": {"truenorth", "migrate"},
}

// databaseFiles hold the URL that each connects by.
var databaseFiles = map[string]string{
	"truenorth-ingest": "ingest_database_url", "truenorth-worker": "worker_database_url", "truenorth-migrate": "owner_database_url",
}

// tryStart starts a unit with the secrets of /etc/truenorth, and waits until it is ready.
func (s *services) tryStart(unit string) error {
	if err := s.launch(unit); err != nil || unit == "truenorth-migrate" {
		return err
	}
	w := s.world
	address := w.ports[map[string]string{"truenorth-ingest": "127.0.0.1:8080", "truenorth-worker": "127.0.0.1:8081"}[unit]]
	s.mu.Lock()
	p := s.running[unit]
	s.mu.Unlock()
	return p.until(func() bool { return isReady("http://" + address + "/readyz") })
}

// launch starts a unit, which need not get ready; of migrate, it waits for the end.
func (s *services) launch(unit string) error {
	command, ok := unitPrograms[unit]
	if !ok {
		return fmt.Errorf("there is no unit %s", unit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[unit] != nil {
		return nil
	}
	w := s.world
	etc := filepath.Join(w.home, "etc/truenorth")
	environ := []string{
		"DATABASE_URL_FILE=" + filepath.Join(etc, databaseFiles[unit]),
		"POLAR_API_URL=http://" + w.ports["127.0.0.1:8082"] + "/v1", "INGEST_PUBLIC_URL=http://" + w.ports["127.0.0.1:8080"], "POLAR_RATE_LIMIT=0",
		"RECONCILE_INTERVAL=0", // what a page has by seed is not at Polar
		"INGEST_ADDR=" + w.ports["127.0.0.1:8080"], "INGEST_METRICS_ADDR=" + w.ports["127.0.0.1:9080"], "WORKER_ADDR=" + w.ports["127.0.0.1:8081"],
	}
	switch unit {
	case "truenorth-ingest":
		environ = append(environ, "POLAR_WEBHOOK_SECRETS_FILE="+filepath.Join(etc, "polar_webhook_secrets"))
	case "truenorth-worker":
		environ = append(environ, "POLAR_ACCESS_TOKEN_FILE="+filepath.Join(etc, "polar_access_token"))
	}
	program := exec.CommandContext(context.Background(), filepath.Join(builtPrograms(w.t), command[0]), command[1:]...)
	program.Env = environ
	p, err := startProcess(program, filepath.Join(w.home, unit+".log"))
	if err != nil {
		return err
	}
	if unit == "truenorth-migrate" {
		return p.wait(time.Minute)
	}
	s.running[unit] = p
	return nil
}

func (s *services) start(unit string) {
	s.world.t.Helper()
	if err := s.tryStart(unit); err != nil {
		s.world.t.Fatalf("starting %s: %v", unit, err)
	}
}

func (s *services) tryStop(unit string) error {
	if _, ok := unitPrograms[unit]; !ok {
		return fmt.Errorf("there is no unit %s", unit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.running[unit]
	delete(s.running, unit)
	if p == nil {
		return nil
	}
	return p.stop()
}

func (s *services) stopAll() {
	for unit := range unitPrograms {
		if err := s.tryStop(unit); err != nil {
			s.world.t.Errorf("stopping %s: %v", unit, err)
		}
	}
}

func isReady(address string) bool {
	response, err := http.Get(address)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// process is a program that keeps running, in a process group of its own.
type process struct {
	command *exec.Cmd
	log     string
	ended   chan struct{}
	err     error // once ended is closed
}

func startProcess(command *exec.Cmd, log string) (*process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command, log: log, ended: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) output() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// until waits for a condition of a process that has to stay.
func (p *process) until(condition func() bool) error {
	deadline := time.After(blockLimit)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if condition() {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %w\n%s", p.command.Path, p.err, p.output())
		case <-deadline:
			return fmt.Errorf("%s did not get so far within %s\n%s", p.command.Path, blockLimit, p.output())
		case <-ticker.C:
		}
	}
}

// wait waits for the end of a process that has to end by itself, and well.
func (p *process) wait(limit time.Duration) error {
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%w\n%s", p.err, p.output())
		}
		return nil
	case <-time.After(limit):
		_ = p.stop()
		return fmt.Errorf("not over within %s\n%s", limit, p.output())
	}
}

// stop ends the process and those that it started, as Ctrl-C would, and waits until all are gone.
func (p *process) stop() error {
	if !p.signal(syscall.SIGTERM) {
		return nil
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-ticker.C {
		if !p.signal(0) {
			<-p.ended
			return nil
		}
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
	return errors.New("it had to be killed\n" + p.output())
}

// signal is sent to all of the group; false: nobody is there.
func (p *process) signal(s syscall.Signal) bool {
	return !errors.Is(syscall.Kill(-p.command.Process.Pid, s), syscall.ESRCH)
}
