package doccheck_test

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// truenorth runs the operator's command in this world, and returns what it prints and its exit code.
func (w *world) truenorth(args ...string) (output string, code int) {
	w.t.Helper()
	s := shell{world: w, t: w.t}
	w.write("state", "cd "+w.work+"\n")
	command := s.command(block{page: "upgrade_test.go", text: "truenorth " + strings.Join(args, " ")})
	out, err := command.CombinedOutput()
	if command.ProcessState == nil {
		w.t.Fatal(err)
	}
	return string(out), command.ProcessState.ExitCode()
}

// sellsAndApplies proves that a checkout is made, paid, applied and linked.
func (w *world) sellsAndApplies(user string) {
	w.t.Helper()
	hosted, code := w.truenorth("checkout", "create", "--product", polarfake.OneTimeProductID, "--external-customer-id", user, "--wait", "20s")
	if code != 0 {
		w.t.Fatalf("asking for a checkout: %s", hosted)
	}
	response, err := http.PostForm(strings.TrimSpace(hosted), map[string][]string{"action": {"pay"}, "email": {user + "@example.com"}})
	if err != nil {
		w.t.Fatal(err)
	}
	_ = response.Body.Close()
	pool := storetest.Open(w.t, w.databaseURL).Pool()
	waittest.Eventually(w.t, func() error {
		var linked int
		err := pool.QueryRow(w.t.Context(), "select count(*) from polar.customer_link where local_user_id = $1 and basis = 'checkout'", user).Scan(&linked)
		if err == nil && linked != 1 {
			err = fmt.Errorf("%s has %d links", user, linked)
		}
		return err
	})
}

func TestASchemaThatIsNewerThanTheProgramsIsNoFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "docs/upgrade.md")
	pool := storetest.Open(t, w.databaseURL).Pool()
	if _, err := pool.Exec(t.Context(), "insert into polar.schema_version (version_id, is_applied) select max(version_id) + 1, true from polar.schema_version"); err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{"truenorth-worker", "truenorth-ingest"} { // as after a rollback
		if err := w.services.tryStop(unit); err != nil {
			t.Fatal(err)
		}
		w.services.start(unit)
	}
	w.sellsAndApplies("usr_ada")
	if out, code := w.truenorth("doctor"); code != 0 || !strings.Contains(out, "this release knows") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
}

func TestAProgramThatCameBeforeItsMigrationLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "docs/upgrade.md")
	pool := storetest.Open(t, w.databaseURL).Pool()
	version, down := newestMigration(t)
	units := []string{"truenorth-worker", "truenorth-ingest"}
	for _, unit := range units {
		if err := w.services.tryStop(unit); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), down); err != nil {
		t.Fatalf("taking migration %d back: %v", version, err)
	}
	if _, err := pool.Exec(t.Context(), "delete from polar.schema_version where version_id = $1", version); err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		if err := w.services.launch(unit); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := w.truenorth("doctor"); code != exitFault || !strings.Contains(out, "run `truenorth migrate`") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	customer := uuid.NewString()
	event := `{"type": "customer.created", "timestamp": "2026-11-25T09:00:00Z", "data": {"id": "` + customer + `", "email": "early@example.com", "created_at": "2026-11-25T09:00:00Z"}}`
	route, id := "http://"+w.ports["127.0.0.1:8080"]+"/webhooks/polar", uuid.NewString()
	ingest := w.services.running["truenorth-ingest"]
	if err := ingest.until(func() bool { return answers(http.DefaultClient, "http://"+w.ports["127.0.0.1:8080"]+"/livez") }); err != nil {
		t.Fatal(err)
	}
	if status := deliver(t, http.DefaultClient, route, id, event); status != http.StatusAccepted && status != http.StatusServiceUnavailable {
		t.Errorf("before the migration a delivery is answered %d, want 202 or 503", status)
	}
	if out, code := w.truenorth("migrate"); code != 0 {
		t.Fatal(out)
	}
	waittest.Eventually(t, func() error { // as Polar would where the answer was 503
		if status := deliver(t, http.DefaultClient, route, id, event); status != http.StatusAccepted {
			return fmt.Errorf("after the migration a delivery is answered %d", status)
		}
		var there bool
		err := pool.QueryRow(t.Context(), "select exists (select from polar.customer where id = $1)", customer).Scan(&there)
		if err == nil && !there {
			err = fmt.Errorf("customer %s is not applied", customer)
		}
		return err
	})
	w.sellsAndApplies("usr_ada")
}

// exitFault is truenorth's exit code where it looked and found something.
const exitFault = 3

// newestMigration is the number of the last migration, and the statements that take it back.
func newestMigration(t *testing.T) (version int64, down string) {
	t.Helper()
	entries, err := os.ReadDir(path.Join(root, "migrations"))
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	for _, entry := range entries {
		if regexp.MustCompile(`^\d+_.*\.sql$`).MatchString(entry.Name()) {
			name = entry.Name() // in order
		}
	}
	number, _, _ := strings.Cut(name, "_")
	if version, err = strconv.ParseInt(number, 10, 64); err != nil {
		t.Fatal(err)
	}
	_, down, ok := strings.Cut(readFile(t, "migrations/"+name), "-- +goose Down")
	if !ok {
		t.Fatalf("%s has no way down", name)
	}
	return version, down
}
