package doccheck_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// backup is a way to bring a database back to a moment.
type backup interface {
	begin() // at any time before the moment
	moment()
	restore() (databaseURL string)
}

// dumped is pg_dump.
type dumped struct {
	*world

	file string
}

func (d *dumped) begin() {}

func (d *dumped) moment() {
	d.file = filepath.Join(d.t.TempDir(), "shop.dump")
	mustRun(d.t, machinetest.Program(d.t, "postgresql-client", "pg_dump"), "--format=custom", "--file="+d.file, d.databaseURL)
}

func (d *dumped) restore() string {
	url := storetest.EmptyURL(d.t)
	mustRun(d.t, machinetest.Program(d.t, "postgresql-client", "pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error", "--dbname="+url, d.file)
	return url
}

// archived is a base backup and the log since, which lead to a point in time.
type archived struct {
	*world

	server *embeddedpg.Server
	dir    string // with folders base and log
}

const restorePoint = "before_the_loss"

// newArchived moves the world to a server of its own, which keeps its log.
func newArchived(w *world) *archived {
	w.t.Helper()
	a := &archived{world: w}
	var err error
	if a.dir, err = os.MkdirTemp("", "truenorth-archive-"); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(a.dir) })
	log := filepath.Join(a.dir, "log")
	// The server is another user.
	if err := errors.Join(os.Mkdir(log, 0o777), os.Chmod(log, 0o777), os.Chmod(a.dir, 0o755)); err != nil {
		w.t.Fatal(err)
	}
	a.server, err = embeddedpg.Start(w.t.Context(), embeddedpg.Options{Settings: map[string]string{"archive_mode": "on", "archive_command": "cp %p " + log + "/%f"}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = a.server.Stop() })
	for _, unit := range units {
		w.stop(unit)
	}
	w.connectTo(a.server.URL())
	w.must("migrate")
	w.addUsers()
	w.services.start("truenorth-ingest")
	w.services.start("truenorth-worker")
	return a
}

func (a *archived) begin() {
	mustRun(a.t, machinetest.Program(a.t, "postgresql-client", "pg_basebackup"), "--pgdata="+filepath.Join(a.dir, "base"), "--checkpoint=fast", "--dbname="+a.databaseURL)
}

func (a *archived) moment() {
	a.exec("select pg_create_restore_point('" + restorePoint + "')")
	a.exec("select pg_switch_wal()")
}

func (a *archived) restore() string {
	t := a.t
	if err := a.server.Kill(); err != nil {
		t.Fatal(err)
	}
	cluster, base := filepath.Join(a.server.DataDir(), "cluster"), filepath.Join(a.dir, "base")
	owner, err := os.Stat(cluster)
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("\nrestore_command = 'cp %s/log/%%f %%p'\nrecovery_target_name = '%s'\nrecovery_target_action = 'promote'\n", a.dir, restorePoint)
	conf, err := os.OpenFile(filepath.Join(base, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conf.WriteString(settings)
	if err := errors.Join(err, conf.Close(), os.WriteFile(filepath.Join(base, "recovery.signal"), nil, 0o600), os.RemoveAll(cluster)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "cp", "-r", base, cluster)
	if stat, ok := owner.Sys().(*syscall.Stat_t); ok {
		mustRun(t, "chown", "-R", fmt.Sprintf("%d:%d", stat.Uid, stat.Gid), cluster)
	}
	mustRun(t, "chmod", "-R", "u=rwX,go=", cluster)
	if err := a.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waittest.Eventually(t, func() error {
		recovering := one[bool](a.world, "select pg_is_in_recovery()")
		if recovering {
			return errors.New("the server still recovers")
		}
		return nil
	})
	return a.server.URL()
}

func (w *world) pool() *pgxpool.Pool {
	w.t.Helper()
	return storetest.Open(w.t, w.databaseURL).Pool()
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool().Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// one reads one value.
func one[T any](w *world, sql string, args ...any) (value T) {
	w.t.Helper()
	if err := w.pool().QueryRow(w.t.Context(), sql, args...).Scan(&value); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// until waits until a query gives true.
func (w *world) until(sql string, args ...any) {
	w.t.Helper()
	pool := w.pool()
	waittest.Within(w.t, 3*time.Minute, func() error {
		var is bool
		err := pool.QueryRow(w.t.Context(), sql, args...).Scan(&is)
		if err == nil && !is {
			err = fmt.Errorf("not true: %s %v", sql, args)
		}
		return err
	})
}

// signal sends one to a program that runs.
func (w *world) signal(unit string, s syscall.Signal) {
	w.t.Helper()
	if err := w.services.running[unit].command.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
}

const askFor = "select polar.create_checkout(jsonb_build_object('products', jsonb_build_array($1::text), 'external_customer_id', $2::text))"

func (w *world) ask(user string) uuid.UUID {
	w.t.Helper()
	return one[uuid.UUID](w, askFor, polarfake.OneTimeProductID, user)
}

// pay waits for the session of a request, and pays on its page.
func (w *world) pay(request uuid.UUID, email string) {
	w.t.Helper()
	w.until("select state = 'open' from polar.checkout_request where id = $1", request)
	response, err := http.PostForm(one[string](w, "select url from polar.checkout_request where id = $1", request), map[string][]string{"action": {"pay"}, "email": {email}})
	if err != nil {
		w.t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		w.t.Fatalf("paying is answered %s", response.Status)
	}
}

func idIn(t *testing.T, document []byte, err error) string {
	t.Helper()
	var object struct{ ID string }
	if err := errors.Join(err, json.Unmarshal(document, &object)); err != nil {
		t.Fatal(err)
	}
	return object.ID
}

// TestARestoredDatabaseGetsInStepWithPolarAndNothingIsCreatedTwice takes a backup while all programs run, goes on, loses the
// database, and does what docs/backup.md says, but for the worst: the worker is started before anything is compared.
func TestARestoredDatabaseGetsInStepWithPolarAndNothingIsCreatedTwice(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(w *world) backup{
		"pg_dump":         func(w *world) backup { return &dumped{world: w} },
		"a point in time": func(w *world) backup { return newArchived(w) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "docs/backup.md")
			restored(t, w, of(w))
		})
	}
}

func restored(t *testing.T, w *world, b backup) {
	t.Helper()
	older, err := w.fake.CreateCustomer(`{"email": "older@example.com"}`)
	olderID := idIn(t, older, err)
	leaves, err := w.fake.CreateCustomer(`{"email": "leaves@example.com"}`)
	leavesID := idIn(t, leaves, err)
	w.until("select count(*) = 2 from polar.customer where id = any ($1::uuid[])", []string{olderID, leavesID})
	w.sellsAndApplies("usr_ada")
	early := w.newKey("early")
	flow := w.flow()
	flow.more(10, 2)
	b.begin()

	// At the moment of the backup some requests are queued, asked for in each way, and one is being made: its answer is lost.
	if err := w.fake.Inject(polarfake.Fault{Kind: polarfake.FaultHangAfter, Method: http.MethodPost, Path: "/v1/checkouts/"}); err != nil {
		t.Fatal(err)
	}
	w.ask("usr_ada")
	w.until("select exists (select from polar.checkout_request where state = 'creating' and posted_at is not null)")
	w.signal("truenorth-worker", syscall.SIGSTOP)
	waiting := []uuid.UUID{w.ask("usr_ada"), w.ask("usr_grace"), truenorth.RequestIDOfJob(one[int64](w, `
		insert into polar.river_job (kind, args, queue, max_attempts)
		values ('create_checkout', jsonb_build_object('params', jsonb_build_object('products', jsonb_build_array($1::text), 'external_customer_id', 'usr_ada')), 'checkouts', 1000)
		returning id`, polarfake.OneTimeProductID))}
	b.moment()
	w.signal("truenorth-worker", syscall.SIGCONT)

	// Polar goes on, and so do we, for a while.
	flow.more(10, 2)
	w.pay(waiting[0], "usr_ada@example.com")
	w.until("select count(*) = 3 from polar.checkout_request where id = any ($1::uuid[]) and state in ('open', 'succeeded')", waiting)
	fresh, twice := w.ask("usr_mallory"), w.ask("usr_grace")
	w.pay(fresh, "mallory@example.com")
	w.pay(twice, "older@example.com") // an address of somebody else's customer: Polar drops the user's id
	if err := w.fake.DeleteCustomer(leavesID); err != nil {
		t.Fatal(err)
	}
	w.until("select count(*) = 3 from polar.checkout_request where id = any ($1::uuid[]) and state = 'succeeded'", []uuid.UUID{waiting[0], fresh, twice})
	w.until("select deleted_at is not null from polar.customer where id = $1", leavesID)
	late := w.newKey("late")
	w.must("keys", "revoke", "early")
	w.until("select exists (select from polar.change where kind = 'linked' and local_user_id = 'usr_mallory')")
	cursor := one[int64](w, "select max(id) from polar.change")
	flow.settle()

	for _, unit := range units {
		w.stop(unit)
	}
	w.pay(waiting[1], "usr_grace@example.com") // nobody is told
	calls := w.fake.Requests()[postCheckout]
	w.connectTo(b.restore())
	if n := one[int64](w, "select count(*) from polar.checkout_request where id = any ($1::uuid[]) and state = 'queued'", waiting); n != 2 {
		t.Errorf("%d of the requests are queued in the backup, want 2: it proves less than it should", n)
	}
	if n := one[int64](w, "select count(*) from polar.checkout_request where id = any ($1::uuid[])", []uuid.UUID{fresh, twice}); n != 0 {
		t.Errorf("%d requests are in the backup, and were asked for after it", n)
	}
	t.Logf("restored %s", w.must("migrate", "--restored"))
	w.services.start("truenorth-worker")
	w.services.start("truenorth-ingest")

	w.until("select count(*) = 3 from polar.checkout_request where id = any ($1::uuid[]) and state in ('open', 'succeeded')", waiting)
	w.until("select not exists (select from polar.checkout_request where state in ('queued', 'creating'))")
	w.must("endpoint", "fill", "--since", "72h")
	w.must("reconcile")
	if out, code := w.truenorth("reconcile", "--dry-run"); code != 0 {
		t.Errorf("a second comparison ends with %d:\n%s", code, out)
	}

	// Nothing twice.
	if now := w.fake.Requests()[postCheckout]; now != calls {
		t.Errorf("%d sessions were asked for at Polar after the restore, want none", now-calls)
	}
	for request, sessions := range sessionsByRequest(t, w.fake) {
		if len(sessions) != 1 {
			t.Errorf("request %s has %d sessions at Polar", request, len(sessions))
		}
	}
	// In step.
	for _, objectType := range polarfake.ObjectTypes {
		w.compare(objectType)
	}
	w.until("select count(*) = 2 from polar.checkout_request where id = any ($1::uuid[]) and state = 'succeeded'", waiting[:2])
	w.until("select exists (select from polar.customer_link where local_user_id = 'usr_mallory' and basis = 'external_id')")
	if reason := one[string](w, "select reason from polar.unlinked_customer where customer_id = $1", olderID); reason != "no_external_id" {
		t.Errorf("a purchase whose request is lost, on somebody's customer, is unlinked for %q", reason)
	}
	if n := one[int64](w, `select count(*) from polar."order" where customer_id = $1 and paid`, olderID); n != 1 {
		t.Errorf("of the purchase whose request is lost %d orders are here", n)
	}
	w.until("select not exists (select from polar.event where state <> 'applied') and not exists (select from polar.river_job where state in ('discarded', 'running'))")
	// What a person has to do again, and whom the feed tells to begin anew.
	for key, want := range map[string]int{late: http.StatusUnauthorized, early: http.StatusGone} {
		if status := w.getChanges(key, cursor); status != want {
			t.Errorf("a reader is answered %d, want %d", status, want)
		}
	}
	client := truenorth.NewClient(w.pool())
	defer client.Close()
	for _, err := range client.Changes(t.Context(), cursor) {
		if !errors.Is(err, truenorth.ErrChangesRemoved) {
			t.Errorf("a follower that was told of what is lost is given %v", err)
		}
		break
	}
	begin := one[int64](w, "select removed_until from polar.change_teller")
	if begin <= cursor {
		t.Errorf("the feed goes on after %d, and told %d before", begin, cursor)
	}
	w.until("select exists (select from polar.change where id > $1 and kind = 'access_gained' and local_user_id = 'usr_mallory')", begin)
}

// newKey makes a key for apps.
func (w *world) newKey(name string) string {
	w.t.Helper()
	out := w.must("keys", "create", name)
	key := regexp.MustCompile(`truenorth_[A-Za-z0-9_-]{43}`).FindString(out)
	if key == "" {
		w.t.Fatalf("there is no key in %q", out)
	}
	return key
}

// postCheckout is the call that makes a session, as the fake counts it.
const postCheckout = "POST /v1/checkouts/"

func (w *world) getChanges(key string, after int64) (status int) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, fmt.Sprintf("http://%s/v1/changes?after=%d", w.ports["127.0.0.1:8081"], after), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// compare holds the mirror's living objects of a type against Polar's, field by field.
func (w *world) compare(objectType string) {
	w.t.Helper()
	there := w.fake.Objects(objectType)
	var documents []json.RawMessage
	if err := w.pool().QueryRow(w.t.Context(), fmt.Sprintf("select array(select doc from polar.%q where deleted_at is null)", objectType)).Scan(&documents); err != nil {
		w.t.Fatal(err)
	}
	here := map[string]json.RawMessage{}
	for _, doc := range documents {
		here[idIn(w.t, doc, nil)] = doc
	}
	if missing, gone := without(there, here), without(here, there); len(missing)+len(gone) > 0 {
		w.t.Errorf("%s: not mirrored %v; mirrored, and gone at Polar %v", objectType, missing, gone)
	}
	for id, doc := range here {
		var got, want map[string]any
		if there[id] == nil {
			continue
		}
		if err := errors.Join(json.Unmarshal(doc, &got), json.Unmarshal(there[id], &want)); err != nil {
			w.t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			w.t.Errorf("%s %s is %s here, and %s at Polar", objectType, id, doc, there[id])
		}
	}
}

// without lists the keys of one that another has not.
func without(one, another map[string]json.RawMessage) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(one)), func(id string) bool { return another[id] != nil })
}
