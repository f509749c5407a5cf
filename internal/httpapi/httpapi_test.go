package httpapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/httpapi"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

const (
	product  = "11111111-1111-4111-8111-111111111111"
	document = `{"products":["` + product + `"],"external_customer_id":"usr_ada"}`
	key      = "truenorth_0123456789"
)

// door is the API on a database of its own, with one key. Every answer is held against the document that it serves.
type door struct {
	t        *testing.T
	store    *store.Store
	handler  http.Handler
	log      *bytes.Buffer
	document validator.Validator
}

func newDoor(t *testing.T) *door {
	t.Helper()
	s := storetest.New(t)
	client := truenorth.NewClient(s.Pool())
	t.Cleanup(client.Close)
	d := &door{t: t, store: s, log: &bytes.Buffer{}}
	d.handler = httpapi.New(httpapi.Config{Store: s, Client: client, Logger: slog.New(slog.NewJSONHandler(d.log, nil))})
	d.addKey("shop", key)

	served := httptest.NewRecorder()
	d.handler.ServeHTTP(served, d.request(http.MethodGet, "/v1/openapi.json", ""))
	api, err := libopenapi.NewDocument(served.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(api)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	t.Cleanup(v.Release)
	if valid, errs := v.ValidateDocument(); !valid {
		t.Fatalf("the document served is no OpenAPI 3.1: %v", errs)
	}
	d.document = v
	return d
}

func (d *door) addKey(name, key string) {
	d.t.Helper()
	if added, err := d.store.InsertAPIKey(d.t.Context(), name, sha256.Sum256([]byte(key)), store.Word{Actor: "tester"}); err != nil || !added {
		d.t.Fatalf("adding key %s: %t, %v", name, added, err)
	}
}

func (d *door) request(method, path, body string) *http.Request {
	r := httptest.NewRequestWithContext(d.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (d *door) do(r *http.Request) answer {
	d.t.Helper()
	recorder := httptest.NewRecorder()
	d.handler.ServeHTTP(recorder, r)
	response := recorder.Result()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if described(r) {
		response.Body = io.NopCloser(bytes.NewReader(body))
		if ok, errs := d.document.ValidateHttpResponse(r, response); !ok {
			d.t.Errorf("%s %s is answered with %d %s, which the document does not describe: %v", r.Method, r.URL, recorder.Code, body, errs)
		}
	}
	return answer{recorder.Code, recorder.Header(), body}
}

// described tells whether the document has such a route.
func described(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Path == "/v1/checkout-requests" ||
		r.Method == http.MethodGet && (strings.HasPrefix(r.URL.Path, "/v1/checkout-requests/") || r.URL.Path == "/v1/changes" || strings.HasSuffix(r.URL.Path, "/access"))
}

func (d *door) post(body, idempotencyKey string) answer {
	d.t.Helper()
	r := d.request(http.MethodPost, "/v1/checkout-requests", body)
	if idempotencyKey != "" {
		r.Header.Set("Idempotency-Key", idempotencyKey)
	}
	return d.do(r)
}

func (d *door) get(path string) answer {
	d.t.Helper()
	return d.do(d.request(http.MethodGet, path, ""))
}

// checkout reads an answer that holds a request.
func (a answer) checkout(t *testing.T) (request store.CheckoutRequest) {
	t.Helper()
	if err := json.Unmarshal(a.body, &request); err != nil || request.ID == uuid.Nil {
		t.Fatalf("%d %s is no checkout request: %v", a.status, a.body, err)
	}
	return request
}

// wantProblem wants a refusal of this kind, and gives the fields that it names.
func (a answer) wantProblem(t *testing.T, status int, kind string) (paths []string) {
	t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
		Fields              []truenorth.FieldError
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.status != status || p.Status != status || !strings.HasSuffix(p.Type, "#"+kind) ||
		p.Title == "" || p.Detail == "" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answered %d %v %s, want a problem of status %d and kind %s", a.status, a.header, a.body, status, kind)
	}
	for _, f := range p.Fields {
		paths = append(paths, f.Path)
	}
	return paths
}

func (d *door) count(sql string, args ...any) (n int) {
	d.t.Helper()
	if err := d.store.Pool().QueryRow(d.t.Context(), sql, args...).Scan(&n); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (d *door) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.store.Pool().Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

func TestACheckoutAskedForIsCommittedWithItsJobBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	for name, body := range map[string]string{"Polar's document": document, "the columns of a request": `{"params":` + document + `,"key":"of ` + t.Name() + `"}`} {
		a := d.post(body, "")
		request := a.checkout(t)
		if a.status != http.StatusCreated || a.header.Get("Location") != "/v1/checkout-requests/"+request.ID.String() || request.State != store.RequestQueued {
			t.Errorf("%s: answered %d, Location %q, %s", name, a.status, a.header.Get("Location"), a.body)
		}
		if n := d.count(`select count(*) from polar.checkout_request r join polar.river_job j on j.id = r.job_id
			where r.id = $1 and r.external_customer_id = 'usr_ada' and j.kind = 'create_checkout'`, request.ID); n != 1 {
			t.Errorf("%s: %d requests with a job, want 1", name, n)
		}
		if got := d.get(a.header.Get("Location")); got.status != http.StatusOK || !bytes.Equal(got.body, a.body) {
			t.Errorf("%s: reading it again gives %d %s, not %s", name, got.status, got.body, a.body)
		}
	}
}

func TestTheSameKeyGivesTheSameLiveRequest(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	first := d.post(document, "order 7")
	request := first.checkout(t)
	again := d.post(`{"products":["`+product+`"]}`, "order 7")
	if first.status != http.StatusCreated || again.status != http.StatusOK || again.checkout(t).ID != request.ID {
		t.Errorf("asked twice: %d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	inBody := d.post(`{"params":`+document+`,"key":"order 7"}`, "order 7")
	if inBody.status != http.StatusOK || inBody.checkout(t).ID != request.ID {
		t.Errorf("with the key in the body: %d %s", inBody.status, inBody.body)
	}
	d.exec("update polar.checkout_request set state = 'failed', error = 'Polar refused it' where id = $1", request.ID)
	if fresh := d.post(document, "order 7"); fresh.status != http.StatusCreated || fresh.checkout(t).ID == request.ID {
		t.Errorf("after a failure: %d %s, want a new request", fresh.status, fresh.body)
	}
}

func TestWaitingAnswersAsSoonAsThereIsAURL(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	request := d.post(document, "").checkout(t)
	answers := make(chan answer)
	go func() { answers <- d.get("/v1/checkout-requests/" + request.ID.String() + "?wait=30s") }()
	d.exec(`with opened as (update polar.checkout_request set state = 'open', checkout_id = gen_random_uuid(), url = 'https://polar.sh/checkout/x',
		expires_at = now() + interval '1 hour' where id = $1 returning id) select pg_notify('polar_checkout', id::text) from opened`, request.ID)
	began := time.Now()
	a := <-answers
	if got := a.checkout(t); a.status != http.StatusOK || got.State != store.RequestOpen || got.URL == nil || *got.URL != "https://polar.sh/checkout/x" {
		t.Errorf("answered %d %s", a.status, a.body)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the answer came %s after the URL", took)
	}
}

func TestWaitingEndsWithTheRequestAsItIs(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	a := d.do(d.request(http.MethodPost, "/v1/checkout-requests?wait=50ms", document))
	if got := a.checkout(t); a.status != http.StatusCreated || got.State != store.RequestQueued {
		t.Errorf("nobody works it: answered %d %s", a.status, a.body)
	}
	d.exec("update polar.checkout_request set state = 'failed', error = 'Product does not exist.'")
	a = d.get("/v1/checkout-requests/" + a.checkout(t).ID.String() + "?wait=30s")
	if got := a.checkout(t); a.status != http.StatusOK || got.State != store.RequestFailed || got.Error == nil || *got.Error != "Product does not exist." {
		t.Errorf("it failed: answered %d %s", a.status, a.body)
	}
	for _, wait := range []string{"soon", "-1s", "31s", "10"} {
		d.get("/v1/checkout-requests/"+uuid.NewString()+"?wait="+wait).wantProblem(t, http.StatusBadRequest, "wait")
	}
}

func TestADocumentThatIsWrongIsRefusedFieldByField(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	for body, want := range map[string][]string{
		`{"products":[]}`: {"products"},
		`{"products":["` + product + `"],"colour":"red","seats":-1}`: {"colour", "seats"},
		`{"params":` + document + `,"state":"open","url":"x"}`:       {"state", "url"},
		`{"params":` + document + `,"key":""}`:                       {"key"},
		`{"params":{"products":["x"]}}`:                              {"products[0]"},
		`[]`:                                                         {""},
		`{"params`:                                                   {""},
		`null`:                                                       {""},
	} {
		got := d.post(body, "").wantProblem(t, http.StatusUnprocessableEntity, "invalid-params")
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: the fields named are %q, want %q", body, got, want)
		}
	}
	d.post(document, strings.Repeat("x", 256)).wantProblem(t, http.StatusUnprocessableEntity, "invalid-params")
	d.post(document, "\xff").wantProblem(t, http.StatusUnprocessableEntity, "invalid-params")
	d.post(`{"params":`+document+`,"key":"a"}`, "b").wantProblem(t, http.StatusUnprocessableEntity, "invalid-params")
	d.post(`{"products":["`+product+`"],"metadata":{"x":"`+strings.Repeat("y", 200_000)+`"}}`, "").wantProblem(t, http.StatusRequestEntityTooLarge, "too-large")

	form := d.request(http.MethodPost, "/v1/checkout-requests", document)
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	d.do(form).wantProblem(t, http.StatusUnsupportedMediaType, "content-type")
	twice := d.request(http.MethodPost, "/v1/checkout-requests", document)
	twice.Header["Idempotency-Key"] = []string{"a", "b"}
	d.do(twice).wantProblem(t, http.StatusUnprocessableEntity, "invalid-params")
	if n := d.count("select count(*) from polar.checkout_request"); n != 0 {
		t.Errorf("%d requests were written, want none", n)
	}
}

func TestNobodyComesInWithoutALiveKey(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.addKey("old", "truenorth_old")
	if err := d.store.RevokeAPIKey(t.Context(), "old", store.Word{Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	routes := []*http.Request{
		d.request(http.MethodPost, "/v1/checkout-requests", document),
		d.request(http.MethodGet, "/v1/checkout-requests/"+uuid.NewString(), ""),
		d.request(http.MethodGet, "/v1/users/usr_ada/access", ""),
		d.request(http.MethodGet, "/v1/changes", ""),
		d.request(http.MethodGet, "/v1/else", ""),
	}
	for _, route := range routes {
		for authorization, kind := range map[string]string{
			"": "no-key", "Basic c2hvcDp0cnVlbm9ydGg=": "no-key", key: "no-key",
			"Bearer ": "unknown-key", "Bearer truenorth_old": "unknown-key", "Bearer " + key + "0": "unknown-key", "Bearer shop": "unknown-key",
		} {
			r := route.Clone(t.Context())
			r.Body = io.NopCloser(strings.NewReader(document))
			r.Header.Set("Authorization", authorization)
			a := d.do(r)
			a.wantProblem(t, http.StatusUnauthorized, kind)
			if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s: no WWW-Authenticate tells how to come in", r.URL)
			}
		}
	}
	if n := d.count("select count(*) from polar.checkout_request"); n != 0 {
		t.Errorf("%d requests were written, want none", n)
	}
	if a := d.get("/v1/users/usr_none/access"); a.status == http.StatusUnauthorized {
		t.Errorf("the live key opens nothing: %s", a.body)
	}
	if strings.Contains(d.log.String(), key) || strings.Contains(d.log.String(), "truenorth_old") {
		t.Errorf("a key stands in the log:\n%s", d.log)
	}
	if n := d.count("select count(*) from polar.api_key where name = 'shop' and last_used_at is not null"); n != 1 {
		t.Error("the use of the key is not noted")
	}
}

func TestAccessIsWhatTheViewSays(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	const odd = "usr/ada?#%2F é"
	if err := d.store.AddLocalUsers(t.Context(), []store.LocalUser{{ID: odd}, {ID: "usr_none"}}); err != nil {
		t.Fatal(err)
	}
	customer, subscription := uuid.New(), uuid.New()
	d.exec(`insert into polar.customer (id, doc, version_from) values ($1, '{}', 'event')`, customer)
	d.exec(`insert into polar.customer_link (customer_id, local_user_id, basis) values ($1, $2, 'external_id')`, customer, odd)
	d.exec(`insert into polar.subscription (id, doc, version_from) values ($1, jsonb_build_object('id', $1::uuid, 'customer_id', $2::uuid, 'product_id', $3::text,
		'status', 'active', 'started_at', '2026-01-02T03:04:05Z', 'current_period_end', '2099-01-02T03:04:05Z', 'product', jsonb_build_object('name', 'Compass')), 'event')`,
		subscription, customer, product)

	a := d.get("/v1/users/usr%2Fada%3F%23%252F%20%C3%A9/access")
	var got struct {
		LocalUserID string `json:"local_user_id"`
		Access      []struct {
			Kind        string
			ObjectID    uuid.UUID `json:"object_id"`
			ProductName string    `json:"product_name"`
			StartsAt    time.Time `json:"starts_at"`
			Until       *time.Time
		}
	}
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || got.LocalUserID != odd || len(got.Access) != 1 {
		t.Fatalf("answered %d %s (%v)", a.status, a.body, err)
	}
	if e := got.Access[0]; e.Kind != "subscription" || e.ObjectID != subscription || e.ProductName != "Compass" || e.Until != nil ||
		!e.StartsAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("answered %s", a.body)
	}
	if a := d.get("/v1/users/usr_none/access"); a.status != http.StatusOK || string(bytes.TrimSpace(a.body)) != `{"local_user_id":"usr_none","access":[]}` {
		t.Errorf("a user without anything: %d %s", a.status, a.body)
	}
	for _, id := range []string{"usr_gone", "%00", "%FF"} {
		d.get("/v1/users/"+id+"/access").wantProblem(t, http.StatusNotFound, "no-such-user")
	}
}

// feed reads an answer that holds changes: the kind of each, and the cursor.
func (a answer) feed(t *testing.T) (kinds []string, cursor string) {
	t.Helper()
	var got struct {
		Changes []struct{ Kind string }
		Cursor  *int64
	}
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || got.Cursor == nil || got.Changes == nil {
		t.Fatalf("%d %s holds no changes: %v", a.status, a.body, err)
	}
	for _, c := range got.Changes {
		kinds = append(kinds, c.Kind)
	}
	return kinds, strconv.FormatInt(*got.Cursor, 10)
}

func TestChangesComeInOrderFromTheCursorOn(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	_, begin := d.get("/v1/changes").feed(t)
	if kinds, cursor := d.get("/v1/changes?after=" + begin).feed(t); len(kinds) > 0 || cursor != begin {
		t.Errorf("of nothing %q are told, and the cursor is %s", kinds, cursor)
	}
	d.exec(`insert into polar.change (kind, local_user_id, customer_id, reason) values ('linked', 'usr_ada', gen_random_uuid(), 'external_id')`)
	d.exec(`insert into polar.change (kind, local_user_id, customer_id, access_kind, object_id, product_id, subscription_id, until, again, reason)
		values ('access_gained', 'usr_ada', $1, 'subscription', $1, $1, $1, now(), false, 'trial')`, uuid.New())
	d.exec(`insert into polar.change (kind, customer_id, request_id, checkout_id, key) values ('checkout_succeeded', $1, $1, $1, 'cart 7')`, uuid.New())
	all, end := d.get("/v1/changes?after=" + begin + "&wait=30s").feed(t) // nothing to wait for
	if want := []string{"linked", "access_gained", "checkout_succeeded"}; !slices.Equal(all, want) {
		t.Errorf("told %q, want %q", all, want)
	}
	d.exec("insert into polar.change (kind, local_user_id) select 'access_lost', n::text from generate_series(1, 700) n")
	first, middle := d.get("/v1/changes?after=" + end).feed(t)
	rest, newest := d.get("/v1/changes?after=" + middle).feed(t)
	if len(first) != 500 || len(rest) != 200 {
		t.Errorf("700 changes come as %d and %d", len(first), len(rest))
	}
	if kinds, cursor := d.get("/v1/changes").feed(t); len(kinds) > 0 || cursor != newest {
		t.Errorf("without a cursor %q are told, and the cursor is %s, want %s", kinds, cursor, newest)
	}
	for _, after := range []string{"x", "-1", "1.5", "99999999999999999999"} {
		d.get("/v1/changes?after="+after).wantProblem(t, http.StatusBadRequest, "cursor")
	}
	d.get("/v1/changes?after=0&wait=1m").wantProblem(t, http.StatusBadRequest, "wait")
	d.exec("update polar.change_teller set removed_until = $1::bigint", end)
	d.get("/v1/changes?after="+begin).wantProblem(t, http.StatusGone, "changes-removed")
	if kinds, _ := d.get("/v1/changes?after=" + end).feed(t); len(kinds) != 500 {
		t.Errorf("where nothing is missed, %d changes are told", len(kinds))
	}
}

func TestWaitingForChangesEndsWithTheFirstOrWithTheWait(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	if kinds, cursor := d.get("/v1/changes?after=0&wait=50ms").feed(t); len(kinds) > 0 || cursor != "0" {
		t.Errorf("of nothing %q are told, and the cursor is %s", kinds, cursor)
	}
	answers := make(chan answer)
	go func() { answers <- d.get("/v1/changes?after=0&wait=30s") }()
	for listening := false; !listening; { // it has read, and waits
		if err := d.store.Pool().QueryRow(t.Context(), `
			select count(*) = 2 from pg_stat_activity where datname = current_database() and (query like 'listen polar_checkout%' or query like '%polar.change_teller t%left join polar.change c%')`).Scan(&listening); err != nil {
			t.Fatal(err)
		}
	}
	d.exec(`with told as (insert into polar.change (kind) values ('linked') returning id) select pg_notify('polar_change', id::text) from told`)
	began := time.Now()
	if kinds, _ := (<-answers).feed(t); !slices.Equal(kinds, []string{"linked"}) || time.Since(began) > 20*time.Second {
		t.Errorf("told %q after %s", kinds, time.Since(began))
	}
}

func TestEveryRouteOfTheDocumentIsThereAndNoOther(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(d.get("/v1/openapi.json").body, &document); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for path, methods := range document.Paths {
		paths = append(paths, path)
		for method := range methods {
			r := d.request(strings.ToUpper(method), strings.NewReplacer("{id}", uuid.NewString()).Replace(path), "")
			if path != "/v1/openapi.json" && !described(r) {
				t.Errorf("%s %s is answered without being held against the document", method, path)
			}
			if body := string(d.do(r).body); strings.Contains(body, "no-such-route") {
				t.Errorf("%s %s is in the document, and not there: %s", method, path, body)
			}
		}
	}
	slices.Sort(paths)
	if want := []string{"/v1/changes", "/v1/checkout-requests", "/v1/checkout-requests/{id}", "/v1/openapi.json", "/v1/users/{id}/access"}; !slices.Equal(paths, want) {
		t.Errorf("the document has the routes %q, the handler %q", paths, want)
	}
}

func TestWhoWaitsIsAnsweredWhenTheProgramStops(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	stopping, stop := context.WithCancel(t.Context())
	client := truenorth.NewClient(d.store.Pool())
	t.Cleanup(client.Close)
	d.handler = httpapi.New(httpapi.Config{Store: d.store, Client: client, Logger: slog.New(slog.NewJSONHandler(d.log, nil)), Stopping: stopping})
	answers := make(chan answer)
	go func() { answers <- d.get("/v1/changes?after=0&wait=30s") }()
	began := time.Now()
	stop()
	if kinds, cursor := (<-answers).feed(t); len(kinds) > 0 || cursor != "0" || time.Since(began) > 15*time.Second {
		t.Errorf("told %q up to %s after %s", kinds, cursor, time.Since(began))
	}
}

func TestWhatIsNotThereIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.get("/v1/checkout-requests/"+uuid.NewString()).wantProblem(t, http.StatusNotFound, "no-such-request")
	d.get("/v1/checkout-requests/7").wantProblem(t, http.StatusNotFound, "no-such-request")
	d.get("/v1/nothing").wantProblem(t, http.StatusNotFound, "no-such-route")
	for path, allowed := range map[string]string{"/v1/checkout-requests": "POST", "/v1/checkout-requests/" + uuid.NewString(): "GET", "/v1/users/a/access": "GET", "/v1/changes": "GET"} {
		a := d.do(d.request(http.MethodPut, path, "{}"))
		a.wantProblem(t, http.StatusMethodNotAllowed, "method")
		if a.header.Get("Allow") != allowed {
			t.Errorf("PUT %s: Allow is %q, want %q", path, a.header.Get("Allow"), allowed)
		}
	}
}

// TestNoParameterBreaksTheDoorOrItsLog puts what is hostile into every path, parameter, header and field.
func TestNoParameterBreaksTheDoorOrItsLog(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.post(document, "order 1")
	for _, value := range []string{
		"'", `"`, `\`, "' or 1=1 --", "'; drop table polar.customer; --", "$1", "%", "%s%n", "\x00", "a\x00b", "\xff\xfe", "{}", "-1", "0", "1e309", "NaN",
		"9223372036854775807", "9223372036854775808", "-9223372036854775809", "00000000-0000-0000-0000-00000000000g", "../../v1/changes", "..", "/", "<script>",
		"\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}", "\x1b[31m", strings.Repeat("x", 20_000), "5s", "-1s", "9999999h", "\u2028",
	} {
		escaped := url.PathEscape(value)
		requests := []*http.Request{
			d.request(http.MethodGet, "/v1/checkout-requests/"+escaped, ""),
			d.request(http.MethodGet, "/v1/checkout-requests/"+uuid.NewString()+"?"+url.Values{"wait": {"1ms"}, value: {value}}.Encode(), ""),
			d.request(http.MethodGet, "/v1/users/"+escaped+"/access", ""),
			d.request(http.MethodGet, "/v1/changes?"+url.Values{"after": {value}}.Encode(), ""),
			d.request(http.MethodGet, "/v1/"+escaped, ""),
		}
		if value != "5s" {
			requests = append(requests, d.request(http.MethodGet, "/v1/changes?"+url.Values{"after": {"0"}, "wait": {value}}.Encode(), ""))
		}
		quoted, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{
			value, string(quoted), `{` + string(quoted) + `:1}`, `{"products":[` + string(quoted) + `]}`, `{"products":["` + product + `"],"external_customer_id":` + string(quoted) + `}`,
			`{"params":` + document + `,"key":` + string(quoted) + `}`, `{"params":` + document + `,` + string(quoted) + `:1}`, `{"products":["` + product + `"],"metadata":{` + string(quoted) + `:` + string(quoted) + `}}`,
		} {
			requests = append(requests, d.request(http.MethodPost, "/v1/checkout-requests", body))
		}
		key := d.request(http.MethodPost, "/v1/checkout-requests", document)
		key.Header["Idempotency-Key"] = []string{value}
		stranger := d.request(http.MethodGet, "/v1/changes", "")
		stranger.Header["Authorization"] = []string{"Bearer " + value}
		requests = append(requests, key, stranger)
		for _, r := range requests {
			recorder := httptest.NewRecorder()
			d.handler.ServeHTTP(recorder, r)
			if recorder.Code >= 500 {
				t.Errorf("%s %.200s with %.50q is answered with %d %s", r.Method, r.URL, value, recorder.Code, recorder.Body)
			}
		}
	}
	if n := d.count("select count(*) from polar.checkout_request where key = 'order 1'"); n != 1 {
		t.Errorf("the first request is there %d times", n)
	}
	for line := range strings.Lines(d.log.String()) {
		var fields struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields.Level != "INFO" || fields.Msg != "api request" || strings.ContainsAny(line, "\x00\x1b\r") || len(line) > 500 {
			t.Errorf("logged %.500q (%v)", line, err)
		}
	}
}

func TestWithoutADatabaseTheDoorSaysTryAgain(t *testing.T) {
	t.Parallel()
	s, err := store.Open("postgres://nobody@127.0.0.1:1/nowhere", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := &door{t: t, store: s, log: &bytes.Buffer{}}
	d.handler = httpapi.New(httpapi.Config{Store: s, Client: truenorth.NewClient(s.Pool()), Logger: slog.New(slog.NewJSONHandler(d.log, nil))})
	recorder := httptest.NewRecorder()
	d.handler.ServeHTTP(recorder, d.request(http.MethodPost, "/v1/checkout-requests", document))
	answer{recorder.Code, recorder.Header(), recorder.Body.Bytes()}.wantProblem(t, http.StatusServiceUnavailable, "unavailable")
	if recorder.Header().Get("Retry-After") == "" || !strings.Contains(d.log.String(), "database unavailable") {
		t.Errorf("answered with %v; the log is %s", recorder.Header(), d.log)
	}
}
