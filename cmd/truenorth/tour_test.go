package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// tour is one person's way through all commands, on one database and one fake Polar: what is printed on it stands in
// docs/cli.md, and its JSON is compared with what help and document promise, and with the tables.
type tour struct {
	t       *testing.T
	store   *store.Store
	fake    *polarfake.Fake
	environ []string
	parser  *kong.Kong
	samples map[string][]sample // by command
	inJSON  map[string]bool     // the commands whose JSON was looked at
	words   *strings.Replacer
}

// sample is how a command was called, and what it printed.
type sample struct {
	line, printed string
	code          int
}

// shop is the product that the tour is about: it takes every event that is signed, whatever the secret.
type shop struct {
	*httptest.Server
	mu  sync.Mutex
	ids []string // of the events that came
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var event struct{ Type string }
		switch err := json.NewDecoder(r.Body).Decode(&event); {
		case r.Header.Get("Webhook-Signature") == "":
			w.WriteHeader(http.StatusUnauthorized)
			return
		case err != nil || event.Type == "":
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.ids = append(s.ids, r.Header.Get("Webhook-Id"))
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"status":"stored"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

func newTour(t *testing.T) (*tour, *shop) {
	t.Helper()
	fake := polarfake.New(polarfake.Options{Seed: 7})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	shop := newShop(t)
	url := storetest.URL(t)
	return &tour{
		t: t, store: storetest.Open(t, url), fake: fake, parser: newParser(&commands{}, io.Discard, io.Discard),
		samples: map[string][]sample{}, inJSON: map[string]bool{},
		words: strings.NewReplacer(api.URL, "https://api.polar.sh", shop.URL, "https://shop.example"),
		environ: []string{
			"DATABASE_URL=" + url, "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + api.URL + "/v1", "POLAR_RATE_LIMIT=0",
			"POLAR_WEBHOOK_SECRETS=whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "INGEST_PUBLIC_URL=" + shop.URL + "/webhooks/polar",
		},
	}, shop
}

// command is the command that args call. A parser keeps what it parsed, so that each is used once.
func command(t *testing.T, args []string) *kong.Node {
	t.Helper()
	parsed, err := newParser(&commands{}, io.Discard, io.Discard).Parse(args)
	if err != nil {
		t.Fatalf("truenorth %s: %v", strings.Join(args, " "), err)
	}
	return parsed.Selected()
}

func (o *tour) run(want int, args ...string) (stdout, stderr string) {
	o.t.Helper()
	var out, errs bytes.Buffer
	if code := run(args, o.environ, strings.NewReader(`{"type":"order.paid","data":{}}`), &out, &errs); code != want {
		o.t.Fatalf("truenorth %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

// shows runs a command as a person does, for the document. It gives standard output.
func (o *tour) shows(want int, args ...string) string {
	o.t.Helper()
	stdout, stderr := o.run(want, args...)
	shown := slices.Clone(args)
	for i, arg := range shown {
		if strings.ContainsAny(arg, " '*{") {
			shown[i] = "'" + arg + "'"
		}
	}
	name := commandName(command(o.t, args))
	o.samples[name] = append(o.samples[name], sample{o.words.Replace("truenorth " + strings.Join(shown, " ")), o.words.Replace(stdout + stderr), want})
	return stdout
}

// json runs a command with --json, sees that what it prints is one document of a form that is promised.
func (o *tour) json(want int, args ...string) {
	o.t.Helper()
	args = append(args, "--json")
	stdout, stderr := o.run(want, args...)
	for l := range strings.Lines(stderr) {
		if !json.Valid([]byte(l)) {
			o.t.Errorf("truenorth %s: standard error holds %q, which is no JSON", strings.Join(args, " "), l)
		}
	}
	called := command(o.t, args)
	o.inJSON[commandName(called)] = true
	printed := decoded(o.t, stdout)
	var faults []string
	for _, d := range aboutOf(called).prints {
		fault := unlike(stdout, printed, d.value)
		if fault == "" {
			if d.rows != "" {
				o.compareRows(d, printed)
			}
			return
		}
		faults = append(faults, fault)
	}
	o.t.Fatalf("truenorth %s prints\n%s\nwhich is none of the documents that it promises:\n%s", strings.Join(args, " "), stdout, strings.Join(faults, "\n"))
}

func decoded(t *testing.T, text string) any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one document:\n%s", text)
	}
	return v
}

// unlike tells how a document differs from what a type makes of it: by a field more, a field less, or another form.
func unlike(text string, printed, promised any) string {
	target := reflect.New(reflect.TypeOf(promised))
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(target.Interface()); err != nil {
		return fmt.Sprintf("%T: %v", promised, err)
	}
	again, err := json.Marshal(target.Interface())
	if err != nil {
		return fmt.Sprintf("%T: %v", promised, err)
	}
	var same any
	decoder = json.NewDecoder(bytes.NewReader(again))
	decoder.UseNumber()
	if err := decoder.Decode(&same); err != nil {
		return fmt.Sprintf("%T: %v", promised, err)
	}
	if diff := cmp.Diff(printed, same); diff != "" {
		return fmt.Sprintf("%T: %s", promised, diff)
	}
	return ""
}

// compareRows sees that objects are what the table holds, under its columns' names.
func (o *tour) compareRows(d document, printed any) {
	o.t.Helper()
	list, isList := printed.([]any)
	if !isList {
		list = []any{printed}
	}
	for _, item := range list {
		object, ok := item.(map[string]any)
		if !ok {
			o.t.Fatalf("%v is no object", item)
		}
		key := "id"
		if object[key] == nil {
			key = "name"
		}
		var row string
		query := fmt.Sprintf("select to_jsonb(r)::text from %s r where r.%s::text = $1", d.rows, key)
		if err := o.store.Pool().QueryRow(o.t.Context(), query, fmt.Sprint(object[key])).Scan(&row); err != nil {
			o.t.Fatalf("%s of %v in %s: %v", key, object[key], d.rows, err)
		}
		columns, ok := decoded(o.t, row).(map[string]any)
		if !ok {
			o.t.Fatalf("the row is %s", row)
		}
		for field, value := range object {
			if slices.Contains(d.beside, field) {
				continue
			}
			held, isColumn := columns[field]
			if !isColumn {
				o.t.Errorf("%s has no column %s", d.rows, field)
			} else if !sameValue(value, held) {
				o.t.Errorf("%s.%s holds %v, and is printed as %v", d.rows, field, held, value)
			}
		}
	}
}

func sameValue(printed, held any) bool {
	if a, ok := asTime(printed); ok {
		b, ok := asTime(held)
		return ok && a.Equal(b)
	}
	return cmp.Equal(printed, held)
}

func asTime(v any) (time.Time, bool) {
	text, _ := v.(string)
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}

func (o *tour) exec(sql string, args ...any) {
	o.t.Helper()
	if _, err := o.store.Pool().Exec(o.t.Context(), sql, args...); err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
}

// customer puts a customer into the mirror, at a time that is always the same.
func (o *tour) customer(email string) string {
	o.t.Helper()
	id := uuid.NewString()
	o.exec(`insert into polar.customer (id, version_from, doc) values ($1::uuid, 'event', jsonb_build_object(
		'id', $1::text, 'email', $2::text, 'created_at', now() - interval '40 days'))`, id, email)
	return id
}

func (o *tour) conflict(customer, user string) string {
	o.t.Helper()
	var id int64
	err := o.store.Pool().QueryRow(o.t.Context(), `insert into polar.link_conflict (customer_id, local_user_id, kind, detail)
		values ($1, $2, 'email_match', 'the customer is older than the checkout') returning id`, customer, user).Scan(&id)
	if err != nil {
		o.t.Fatal(err)
	}
	return strconv.FormatInt(id, 10)
}

// event stores an event of a customer, as ingest would.
func (o *tour) event(customer, email string) {
	o.t.Helper()
	body := fmt.Sprintf(`{"type":"customer.created","timestamp":"2026-08-22T09:00:00Z","data":{"id":%q,"email":%q,"created_at":"2026-08-22T09:00:00Z"}}`, customer, email)
	envelope, err := polar.ScanEnvelope([]byte(body))
	if err != nil {
		o.t.Fatal(err)
	}
	_, err = o.store.InsertEvents(o.t.Context(), []store.Delivery{{
		WebhookID: uuid.NewString(), Type: envelope.Type, ObjectID: envelope.ObjectID, OccurredAt: envelope.Timestamp, Body: []byte(body),
	}}, false)
	if err != nil {
		o.t.Fatal(err)
	}
}

// guided walks the whole way.
func guided(t *testing.T) *tour {
	t.Helper()
	o, shop := newTour(t)

	o.shows(0, "version")
	o.json(0, "version")
	o.shows(0, "completion", "bash")

	o.json(0, "migrate")
	o.shows(0, "migrate")
	o.exec("create table public.users (id text primary key, email text)")
	o.exec("create index on public.users ((id::text))")
	o.exec("insert into public.users values ('usr_ada', 'ada@example.com'), ('usr_grace', 'grace@example.com')")
	o.shows(0, "users", "map", "--table", "public.users")
	o.json(0, "users", "map", "--table", "public.users")

	o.shows(0, "keys", "create", "shop")
	o.json(0, "keys", "create", "reports")
	o.shows(0, "keys", "revoke", "shop")
	o.shows(0, "keys", "list")
	o.json(0, "keys", "list")
	o.json(0, "keys", "revoke", "reports")

	o.shows(0, "endpoint", "create")
	o.json(0, "endpoint", "create", "--url", shop.URL+"/webhooks/other")
	o.shows(0, "endpoint", "check")
	o.shows(0, "endpoint", "check", "--probe")
	o.json(3, "endpoint", "check", "--url", "https://nowhere.example")
	o.json(0, "endpoint", "rotate", "--finish")
	o.shows(0, "endpoint", "rotate")
	o.shows(0, "endpoint", "rotate", "--finish")
	o.json(0, "endpoint", "rotate")
	o.json(0, "endpoint", "rotate", "--finish")
	o.shows(0, "endpoint", "fill", "--since", "48h")
	o.json(0, "endpoint", "fill")

	known := o.fake.SeedCustomers(2, "usr_")
	if err := o.fake.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.shows(3, "reconcile", "customers", "--dry-run")
	o.json(3, "reconcile", "customers", "--dry-run")
	o.json(0, "reconcile")
	if _, err := o.fake.UpdateCustomer(known[0], `{"name": "Ada"}`); err != nil {
		t.Fatal(err)
	}
	if err := o.fake.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := shop.ids[len(shop.ids)-1]
	o.json(0, "endpoint", "redeliver", sent)
	o.shows(1, "endpoint", "redeliver", sent, uuid.NewString())

	ada, grace := o.customer("ada@corp.example"), o.customer("grace@corp.example")
	first, second := o.conflict(ada, "usr_ada"), o.conflict(grace, "usr_grace")
	o.shows(0, "conflicts", "list")
	o.json(3, "conflicts", "list", "--exit-code")
	o.shows(0, "conflicts", "show", first)
	o.json(0, "conflicts", "show", first)
	o.shows(3, "status", "--exit-code")
	o.json(0, "status")
	o.shows(0, "conflicts", "resolve", first, "--link", "--reason", "she sent the receipt", "--actor", "grace")
	o.json(0, "conflicts", "resolve", second, "--dismiss", "--reason", "somebody typed her address", "--actor", "grace")
	o.json(0, "conflicts", "list", "--all")
	o.shows(0, "unlink", "ada@corp.example", "--reason", "not her card", "--actor", "grace")
	o.shows(0, "link", "ada@corp.example", "usr_ada", "--reason", "it was hers after all", "--actor", "grace")
	o.json(0, "link", "grace@corp.example", "usr_grace", "--reason", "she called", "--actor", "grace")
	o.json(0, "unlink", "grace@corp.example", "--reason", "she called again", "--actor", "grace")

	id := strings.TrimSpace(o.shows(0, "checkout", "create", "--product", polarfake.OneTimeProductID, "--external-customer-id", "usr_ada"))
	o.json(0, "checkout", "create", "--product", polarfake.OneTimeProductID, "--key", "order-4711")
	o.shows(0, "checkout", "get", id)
	o.json(0, "checkout", "get", id)

	for _, c := range []string{ada, grace} {
		o.event(c, "kept@corp.example")
	}
	o.json(0, "replay", "--all", "--dry-run")
	o.shows(0, "replay", "--type", "customer.*")
	o.json(0, "replay", "--all")
	o.shows(0, "replay", "--verify")
	o.json(0, "replay", "--verify")

	o.shows(0, "forget", ada, "--reason", "erasure request 4711", "--actor", "grace")
	o.json(0, "forget", grace)

	event := filepath.Join(t.TempDir(), "event.json")
	o.words = strings.NewReplacer(shop.URL, "https://shop.example", event, "event.json")
	if err := os.WriteFile(event, []byte(`{"type":"order.paid","data":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o.shows(0, "webhook", "sign", event)
	o.json(0, "webhook", "sign", "-")
	o.shows(0, "webhook", "send", event, "--url", shop.URL+"/webhooks/polar")
	o.json(0, "webhook", "send", "-", "--url", shop.URL+"/webhooks/polar")

	o.shows(0, "doctor")
	o.json(0, "doctor")
	return o
}

// serving are the commands that serve until a signal ends them. TestServersSayInJSONWhereTheyAre runs those.
var serving = map[string]served{
	"dev": {
		Console: "http://127.0.0.1:8081/", OpenAPI: "http://127.0.0.1:8081/v1/openapi.json", Webhooks: "http://127.0.0.1:8080/webhooks/polar",
		Polar: "http://127.0.0.1:8082/v1", Secret: "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
		Database: "postgres://postgres:secret@127.0.0.1:54321/truenorth?sslmode=disable",
	},
	"fake-polar": {Polar: "http://127.0.0.1:8082/v1"},
}

func TestTheTourPrintsWhatTheDocumentShowsAndJSONAsTheTablesAre(t *testing.T) {
	t.Parallel()

	o := guided(t)
	for _, leaf := range o.parser.Model.Leaves(true) {
		name := commandName(leaf)
		if _, is := serving[name]; is {
			continue
		}
		if len(o.samples[name]) == 0 {
			t.Errorf("the tour leaves out %s", name)
		}
		if !o.inJSON[name] && aboutOf(leaf).noJSON == "" {
			t.Errorf("the tour leaves out %s --json", name)
		}
	}
	compareDocument(t, writeDocument(o.parser, o.samples))
}

// What differs from run to run has one form in the document.
var always = []struct {
	pattern *regexp.Regexp
	form    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "2026-11-25T12:00:00Z"},
	{regexp.MustCompile(`truenorth_[A-Za-z0-9_-]{43}`), "truenorth_Jd0…"},
	{regexp.MustCompile(`(whsec_|polar_whs_)[A-Za-z0-9+/=_-]{8,}`), "${1}Jd0…"},
	{regexp.MustCompile(`v1,[A-Za-z0-9+/=]{44}`), "v1,K7tn…"},
	{regexp.MustCompile(`webhook-timestamp: \d+`), "webhook-timestamp: 1795608000"},
	{regexp.MustCompile(`\d+(\.\d+)?(µs|ms)\b`), "12ms"},
	{regexp.MustCompile(`\bversion \d+`), "version 12"},
	{regexp.MustCompile(`PostgreSQL [^,]+, user \S+`), "PostgreSQL 17.6, user app"},
	{regexp.MustCompile(`\S+ (owns the tables)`), "app $1"},
	{regexp.MustCompile(`truenorth \S+ \(go[^)]*\)`), "truenorth v0.1.0 (go1.26.0, commit 44d7d45df47d)"},
	{regexp.MustCompile(`-C \S+ truenorth`), "-C /usr/local/bin/truenorth truenorth"},
}

var anyUUID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// settled gives all that differs from run to run its one form; numbered ids stay apart by their numbers.
func settled(text string) string {
	for _, a := range always {
		text = a.pattern.ReplaceAllString(text, a.form)
	}
	seen := map[string]string{}
	return anyUUID.ReplaceAllStringFunc(text, func(id string) string {
		if seen[id] == "" {
			seen[id] = fmt.Sprintf("%08x-0000-4000-8000-%012x", 0xa0000000+len(seen)+1, len(seen)+1)
		}
		return seen[id]
	})
}
