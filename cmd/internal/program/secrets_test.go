package program_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// What a whole run knows and must not tell: secrets nowhere at all, and what is personal in no log, metric, span or answer.
const (
	hiddenKey      = "HIDDENkeyOfTheWebhooksHIDDEN0001" // 32 bytes
	hiddenLegacy   = "polar_whs_HIDDENlegacySecretHIDDEN0002"
	hiddenToken    = "polar_oat_HIDDENaccessTokenHIDDEN0003"
	hiddenOperator = "HIDDENoperatorsPasswordHIDDEN0004"
	hiddenReader   = "HIDDENreadersPasswordHIDDEN0005"
	hiddenAppKey   = "truenorth_HIDDENappKeyHIDDEN0006"
	hiddenHeader   = "HIDDENcollectorsTokenHIDDEN0007"
	hiddenWrong    = "HIDDENguessedPasswordHIDDEN0008"
	personalEmail  = "hidden.person@buyer-example.com"
	personalName   = "Hiddenname Personsname"
	personalIP     = "203.0.113.213"
	personalCity   = "Hiddencityville"
)

// everything is a run of the real programs, and all that comes out of them.
type everything struct {
	t       *testing.T
	dir     string
	store   *store.Store
	fake    *polarfake.Fake
	environ []string
	secrets map[string]string // what may stand nowhere, by its name
	running errgroup.Group    // programs that run beside each other

	mu     sync.Mutex
	output map[string]string // what came out, by where
}

// say keeps what came out of somewhere.
func (e *everything) say(where, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.output[where] += text + "\n"
}

// binary is a real program while it runs.
type binary struct {
	cmd  *exec.Cmd
	base string
	log  lockedBuffer
	done chan struct{} // closed once all that it said was read
}

// start runs a program until it listens.
func (e *everything) start(name string) *binary {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	e.t.Cleanup(cancel)
	b := &binary{cmd: exec.CommandContext(ctx, filepath.Join(e.dir, name)), done: make(chan struct{})}
	b.cmd.Env = e.environ
	stderr, err := b.cmd.StderrPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = b.cmd.Process.Kill() })
	addr := make(chan string, 2)
	go func() {
		defer close(b.done)
		defer close(addr)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			_, _ = b.log.Write(append(lines.Bytes(), '\n'))
			var line struct{ Msg, Addr string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
				select {
				case addr <- line.Addr:
				default: // of metrics
				}
			}
		}
	}()
	first, second := <-addr, ""
	if name == "ingest" {
		second = <-addr // the second one is the receiver's or that of its metrics
	}
	if first == "" {
		e.t.Fatalf("%s ended before it listened: %s", name, b.log.String())
	}
	b.base = "http://" + first
	for _, a := range []string{first, second} {
		if a != "" && !strings.HasSuffix(a, metricsPort(e.environ)) {
			b.base = "http://" + a
		}
	}
	return b
}

// metricsPort is how the address of ingest's metrics ends.
func metricsPort(environ []string) string {
	for _, variable := range environ {
		if value, ok := strings.CutPrefix(variable, "INGEST_METRICS_ADDR="); ok {
			return value[strings.LastIndex(value, ":"):]
		}
	}
	return "none"
}

// dump has a program tell all its goroutines and end, as an operator does with one that hangs, and keeps all that it said.
func (e *everything) dump(name string, b *binary) {
	e.t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		e.t.Fatal(err)
	}
	<-b.done
	_ = b.cmd.Wait()
	if text := b.log.String(); !strings.Contains(text, "SIGQUIT: quit") || strings.Count(text, "goroutine ") < 5 {
		e.t.Errorf("%s dumped no goroutines", name)
	}
	e.say("the log and the dump of "+name, b.log.String())
}

// ask keeps an answer, and gives it.
func (e *everything) ask(where, method, address string, header http.Header, body string) (status int, text string) {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	maps.Copy(request.Header, header)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(response.Body); err != nil {
		e.t.Fatal(err)
	}
	var headers bytes.Buffer
	_ = response.Header.Write(&headers)
	e.say(where, fmt.Sprintf("%d %s%s", response.StatusCode, headers.String(), answer.String()))
	return response.StatusCode, answer.String()
}

// run runs a program to its end, or for a few seconds, beside others, and keeps what it said.
func (e *everything) run(where string, environ []string, name string, args ...string) {
	e.running.Go(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(e.dir, name), args...)
		cmd.Env = environ
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 15 * time.Second
		out, err := cmd.CombinedOutput()
		e.say(where, fmt.Sprintf("%s%v", out, err))
		return nil
	})
}

func (e *everything) eventually(check func() error) {
	e.t.Helper()
	(&tracedWorld{t: e.t}).eventually(check)
}

// newEverything builds the programs, and gives them secrets by a pattern that can be looked for.
func newEverything(t *testing.T, c *collector) *everything {
	t.Helper()
	e := &everything{t: t, dir: t.TempDir(), output: map[string]string{}}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", e.dir+string(filepath.Separator), "./cmd/ingest", "./cmd/worker", "./cmd/truenorth")
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	pg := awayPostgres(t)
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if e.store, err = store.Open(pg.URL(), "program test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.store.Close)
	e.fake = polarfake.New(polarfake.Options{})
	t.Cleanup(e.fake.Close)
	api := httptest.NewServer(e.fake)
	t.Cleanup(api.Close)
	e.fake.SetPublicURL(api.URL)

	database, err := url.Parse(pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := database.User.Password()
	standard := "whsec_" + base64.StdEncoding.EncodeToString([]byte(hiddenKey))
	e.environ = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + e.dir, "LOG_LEVEL=debug", "GOTRACEBACK=all",
		"DATABASE_URL=" + pg.URL(), "POLAR_WEBHOOK_SECRETS=" + standard + "," + hiddenLegacy, "POLAR_ACCESS_TOKEN=" + hiddenToken, "POLAR_API_URL=" + api.URL + "/v1",
		"CONSOLE_PASSWORD=" + hiddenOperator, "CONSOLE_READER_PASSWORD=" + hiddenReader, "INGEST_ADDR=127.0.0.1:0", "WORKER_ADDR=127.0.0.1:0",
		"INGEST_METRICS_ADDR=" + machinetest.Address(t), "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL, "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20" + hiddenHeader,
		"POLAR_RATE_LIMIT=0",
	}
	if _, err := e.store.InsertAPIKey(t.Context(), "shop", sha256.Sum256([]byte(hiddenAppKey)), store.Word{Actor: "grace"}); err != nil {
		t.Fatal(err)
	}
	e.secrets = map[string]string{
		"the webhook secret": standard, "the webhook secret without its prefix": strings.TrimPrefix(standard, "whsec_"), "the webhook key": hiddenKey,
		"the webhook key in hexadecimal": hex.EncodeToString([]byte(hiddenKey)), "the webhook key as numbers": strings.Trim(fmt.Sprintf("%d", []byte(hiddenKey)), "[]"),
		"the legacy webhook secret": hiddenLegacy, "the access token": hiddenToken, "the operator's password": hiddenOperator, "the reader's password": hiddenReader,
		"the app's key": hiddenAppKey, "the collector's token": hiddenHeader, "the database's password": password, "a password that somebody tried": hiddenWrong,
		"the operator's password as it is sent": base64.StdEncoding.EncodeToString([]byte("Grace:" + hiddenOperator)), "any of the pattern": "HIDDEN0",
	}
	return e
}

// TestAWholeRunTellsNoSecret plays success and failure with the real programs at their most talkative, and looks for every
// secret in all that comes out of them: logs, answers, metrics, spans, dumps of goroutines, the command line, and the database.
func TestAWholeRunTellsNoSecret(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	e := newEverything(t, c)
	receiver, worker := e.start("ingest"), e.start("worker")
	e.eventually(func() error {
		if status, _ := e.ask("probes", http.MethodGet, worker.base+"/readyz", nil, ""); status != http.StatusOK {
			return errors.New("the worker is not ready")
		}
		return nil
	})

	// Success: events signed by each secret, a checkout by HTTP, a page of the console.
	e.deliver(receiver, "msg_1", "whsec_"+base64.StdEncoding.EncodeToString([]byte(hiddenKey)), "customer.created", map[string]any{
		"id": uuid.New(), "created_at": time.Now().UTC(), "email": personalEmail, "name": personalName, "organization_id": polarfake.OrganizationID,
		"billing_address": map[string]any{"country": "NO", "city": personalCity},
	}, "applied")
	e.deliver(receiver, "msg_2", hiddenLegacy, "checkout.created", map[string]any{
		"id": uuid.New(), "created_at": time.Now().UTC(), "status": "open", "client_secret": "polar_c_HIDDEN0009", "url": "https://polar.example/checkout/polar_c_HIDDEN0009",
		"customer_email": personalEmail, "customer_ip_address": personalIP, "organization_id": polarfake.OrganizationID,
	}, "applied")
	app := http.Header{"Authorization": {"Bearer " + hiddenAppKey}, "Content-Type": {"application/json"}}
	ask := func(more string) string {
		return fmt.Sprintf(`{"products":[%q],"external_customer_id":"usr_ada","customer_email":%q,"customer_name":%q,"customer_ip_address":%q%s}`,
			polarfake.OneTimeProductID, personalEmail, personalName, personalIP, more)
	}
	_, made := e.ask("the app's own request", http.MethodPost, worker.base+"/v1/checkout-requests?wait=20s", app, ask(""))
	var request struct{ State, URL string }
	if err := json.Unmarshal([]byte(made), &request); err != nil || request.State != "open" {
		t.Fatalf("the checkout is answered with %s", made)
	}
	clientSecret := request.URL[strings.LastIndex(request.URL, "/")+1:]
	delete(e.output, "the app's own request") // it is told its URL and its params, which is what it asked for
	basic := func(password string) http.Header {
		return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("Grace:"+password))}}
	}
	var pages strings.Builder
	for _, path := range []string{"/", "/customers", "/events", "/checkouts", "/audit", "/jobs/api/jobs"} {
		_, page := e.ask("a page", http.MethodGet, worker.base+path, basic(hiddenReader), "")
		pages.WriteString(page)
	}
	delete(e.output, "a page") // shows people, and where a buyer can pay now, to who has the password; but no secret of ours, below

	// Failure: of who comes, of Polar, of Postgres.
	e.ask("a wrong password", http.MethodGet, worker.base+"/", basic(hiddenWrong), "")
	e.ask("a wrong key", http.MethodGet, worker.base+"/v1/changes", http.Header{"Authorization": {"Bearer " + hiddenWrong}}, "")
	e.ask("a forgery", http.MethodPost, receiver.base+ingest.Route, http.Header{
		"Webhook-Id": {"msg_3"}, "Webhook-Timestamp": {strconv.FormatInt(time.Now().Unix(), 10)}, "Webhook-Signature": {"v1," + hiddenWrong}, "X-Secret": {hiddenToken},
	}, personalEmail)
	e.ask("what is not there", http.MethodGet, worker.base+"/v1/users/"+personalEmail+"/access?key="+hiddenAppKey, app, "")
	e.ask("a field Polar denies", http.MethodPost, worker.base+"/v1/checkout-requests", app, ask(`,"success_url":"no URL"`))
	for name, fault := range map[string]polarfake.Fault{
		"a token that Polar refuses": {Kind: polarfake.FaultStatus, Status: http.StatusUnauthorized, Count: 1},
		"a fault of Polar's":         {Kind: polarfake.FaultStatus, Status: http.StatusBadGateway, Count: 1},
		"a refusal that quotes": {
			Kind: polarfake.FaultStatus, Status: http.StatusUnprocessableEntity, Count: 1,
			Body: json.RawMessage(`{"error":"RequestValidationError","detail":[{"loc":["body","customer_email"],"msg":"is not valid","type":"value_error","input":"` + personalEmail + `"}]}`),
		},
		"a cut": {Kind: polarfake.FaultReset, Count: 1},
	} {
		fault.Method, fault.Path = http.MethodPost, "/v1/checkouts/"
		if err := e.fake.Inject(fault); err != nil {
			t.Fatal(err)
		}
		status, answer := e.ask(name, http.MethodPost, worker.base+"/v1/checkout-requests?wait=3s", app, fmt.Sprintf(`{"products":[%q],"customer_email":%q}`, polarfake.OneTimeProductID, personalEmail))
		if status != http.StatusCreated {
			t.Errorf("%s: answered %d %s", name, status, answer)
		}
		delete(e.output, name) // the app gets back what it gave
	}
	e.exec(`create function public.refuse(name text) returns boolean language plpgsql as $$ begin
	            if name like 'poison%' then raise exception using errcode = '23514', message = 'refusing a name'; end if; return true; end $$`)
	e.exec("alter table polar.customer add constraint refused check (public.refuse(name))")
	e.deliver(receiver, "msg_4", hiddenLegacy, "customer.updated", map[string]any{
		"id": uuid.New(), "created_at": time.Now().UTC(), "email": personalEmail, "name": "poison " + personalName, "organization_id": polarfake.OrganizationID,
	}, "failed")
	e.exec(`insert into polar.river_job (kind, args, queue, max_attempts) values ('create_checkout', '{"request_id": "no id", "params": "` + personalEmail + `"}', 'checkouts', 3), ('no_such_kind', '{}', 'default', 1)`)

	for _, address := range []string{"http://" + strings.TrimPrefix(variable(e.environ, "INGEST_METRICS_ADDR"), "http://"), worker.base, receiver.base} {
		e.ask("metrics", http.MethodGet, address+"/metrics", basic(hiddenReader), "")
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline", "/debug/vars"} {
			if status, _ := e.ask("what Go offers to look inside", http.MethodGet, address+path, basic(hiddenOperator), ""); status == http.StatusOK {
				t.Errorf("%s%s is served", address, path)
			}
		}
	}

	e.running.SetLimit(6)
	// The command line, as an operator uses it when something is wrong.
	for _, args := range [][]string{{"doctor"}, {"status"}, {"status", "--json"}, {"endpoint", "check"}, {"conflicts", "list"}, {"keys", "list"}, {"reconcile", "--dry-run"}, {"checkout", "create", "--params", "{"}, {"migrate"}} {
		e.run("truenorth "+strings.Join(args, " "), e.environ, "truenorth", args...)
	}
	// Programs that cannot start.
	with := func(changes ...string) []string { return append(slices.Clone(e.environ), changes...) }
	away := "postgres://app:" + hiddenWrong + "@127.0.0.1:1/app"
	wrong := strings.Replace(variable(e.environ, "DATABASE_URL"), ":"+e.secrets["the database's password"]+"@", ":"+hiddenWrong+"@", 1)
	for name, environ := range map[string][]string{
		"no database":                      with("DATABASE_URL=" + away),
		"a wrong password of the database": with("DATABASE_URL=" + wrong),
		"a database URL that is none":      with("DATABASE_URL=postgres://app:" + hiddenWrong + "@db:port/x"),
		"a database URL with a bad option": with("DATABASE_URL=postgres://app:" + hiddenWrong + "@127.0.0.1:1/x?sslmode=" + hiddenWrong),
		"a Polar that is none":             with("POLAR_API_URL=://" + hiddenWrong),
		"a secret with a newline":          with("POLAR_WEBHOOK_SECRETS=" + hiddenLegacy + "\nx"),
		"an address in use":                with("INGEST_ADDR="+strings.TrimPrefix(receiver.base, "http://"), "WORKER_ADDR="+strings.TrimPrefix(worker.base, "http://")),
	} {
		for _, program := range []string{"ingest", "worker"} {
			e.run(program+" with "+name, environ, program)
		}
		e.run("truenorth with "+name, environ, "truenorth", "doctor")
	}
	_ = e.running.Wait() // how they end is no matter here
	e.dump("ingest", receiver)
	e.dump("worker", worker)
	c.mu.Lock()
	e.say("spans", string(c.raw))
	c.mu.Unlock()

	for _, known := range []string{"msg_1", "msg_4", "no_such_kind", "goroutine 1", "truenorth_"} {
		if !slices.ContainsFunc(slices.Collect(maps.Values(e.output)), func(text string) bool { return strings.Contains(text, known) }) {
			t.Errorf("nothing tells of %s: this run proves little", known)
		}
	}
	for where, text := range e.output {
		e.wantNone(where, text, e.secrets)
		e.wantNone(where, text, map[string]string{
			"an e-mail address": personalEmail, "a name": personalName, "an address": personalIP, "a city": personalCity, "a client secret": clientSecret,
		})
	}
	e.wantNone("the console", pages.String(), e.secrets)
	stored := e.stored()
	delete(e.secrets, "any of the pattern") // the body of msg_2 holds one
	e.wantNone("the database", stored, e.secrets)
	e.wantNone("the words of what failed", e.failures(), map[string]string{"an e-mail address": personalEmail, "a name": personalName, "a client secret": clientSecret})
}

// variable is the value of a variable.
func variable(environ []string, name string) string {
	for _, v := range environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

func (e *everything) wantNone(where, text string, secrets map[string]string) {
	e.t.Helper()
	for name, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 && secret != "" {
			e.t.Errorf("%s tells %s: %q", where, name, text[max(0, at-200):min(len(text), at+100)])
		}
	}
}

func (e *everything) exec(sql string) {
	e.t.Helper()
	if _, err := e.store.Pool().Exec(e.t.Context(), sql); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
}

// deliver sends a signed event, and waits for how it ends.
func (e *everything) deliver(receiver *binary, webhookID, secret, eventType string, data any, ends string) {
	e.t.Helper()
	body, err := json.Marshal(map[string]any{"type": eventType, "timestamp": time.Now().UTC(), "data": data})
	if err != nil {
		e.t.Fatal(err)
	}
	header, err := polar.Sign(secret, webhookID, time.Now(), body, polar.DerivationAuto)
	if err != nil {
		e.t.Fatal(err)
	}
	if status, answer := e.ask("webhooks", http.MethodPost, receiver.base+ingest.Route, header, string(body)); status != http.StatusAccepted {
		e.t.Fatalf("ingest answers %d %s", status, answer)
	}
	e.eventually(func() error {
		var state string
		if err := e.store.Pool().QueryRow(e.t.Context(), "select state from polar.event where webhook_id = $1", webhookID).Scan(&state); err != nil {
			return err
		}
		if state != ends {
			return fmt.Errorf("event %s is %s", webhookID, state)
		}
		return nil
	})
}

// stored is all that stands in the schema, as text.
func (e *everything) stored() string {
	e.t.Helper()
	return e.texts(`select format('select coalesce(string_agg(t::text, E''\n''), '''') from polar.%I t', table_name)
		from information_schema.tables where table_schema = 'polar' and table_type = 'BASE TABLE'`)
}

// failures are the words of everything that failed.
func (e *everything) failures() string {
	e.t.Helper()
	return e.texts(`select format('select coalesce(string_agg(%I::text, E''\n''), '''') from polar.%I', column_name, table_name)
		from information_schema.columns where table_schema = 'polar' and column_name in ('error', 'errors', 'findings')`)
}

// texts runs the statements that a statement makes, and gives what they give.
func (e *everything) texts(statement string) string {
	e.t.Helper()
	rows, err := e.store.Pool().Query(e.t.Context(), statement)
	if err != nil {
		e.t.Fatal(err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		e.t.Fatal(err)
	}
	var all strings.Builder
	for _, s := range statements {
		var text string
		if err := e.store.Pool().QueryRow(e.t.Context(), s).Scan(&text); err != nil {
			e.t.Fatalf("%s: %v", s, err)
		}
		all.WriteString(text + "\n")
	}
	return all.String()
}
