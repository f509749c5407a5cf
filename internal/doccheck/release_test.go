package doccheck_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/releasetest"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// beforeUpgrade is a shop of the release before: its schema, its programs.
func beforeUpgrade(t *testing.T) (w *world, before string) {
	t.Helper()
	before = releasetest.Programs(t, root)
	w = newWorld(t, "docs/upgrade.md")
	for _, unit := range units {
		w.stop(unit)
	}
	w.programs = before
	w.connectTo(storetest.EmptyURL(t))
	w.must("migrate")
	w.wantSchema(releasetest.BeforeSchema)
	w.addUsers()
	return w, before
}

func (w *world) wantSchema(version int64) {
	w.t.Helper()
	var is int64
	if err := storetest.Open(w.t, w.databaseURL).Pool().QueryRow(w.t.Context(), "select max(version_id) from polar.schema_version").Scan(&is); err != nil {
		w.t.Fatal(err)
	}
	if is != version {
		w.t.Fatalf("the schema is at %d, want %d", is, version)
	}
}

// worksAsAWhole proves that all that both releases know works: receive, apply, link, create, pay, sweep, replay.
func (w *world) worksAsAWhole(user string) {
	w.t.Helper()
	flow := w.flow()
	w.sellsAndApplies(user)
	flow.more(20, 2)
	flow.settle()
	if flow.refused > 0 {
		w.t.Errorf("%d deliveries were refused, with nothing going on but them", flow.refused)
	}
	w.must("replay", "--all")
	// What flowed is not at Polar, so the sweep of customers finds them gone; of all else it finds nothing.
	w.must("reconcile", "checkout", "order", "product", "--json")
	if out, code := w.truenorth("reconcile", "checkout", "order", "product", "--dry-run"); code != 0 {
		w.t.Errorf("a second sweep ends with %d and says\n%s", code, out)
	}
	w.must("status")
}

func TestTheProgramsOfTheReleaseBeforeWorkOnThisSchema(t *testing.T) {
	t.Parallel()
	before := releasetest.Programs(t, root)
	w := newWorld(t, "docs/upgrade.md")
	w.restart(before)
	w.worksAsAWhole("usr_ada")
	w.must("migrate") // as containers do at each start
	newest, _ := newestMigration(t)
	w.wantSchema(newest)
	w.worksAsAWhole("usr_mallory")
	w.keepsWhatItDoesNotKnow()

	// The feed misses nothing of what they did.
	w.restart(builtPrograms(t))
	w.tells("usr_ada", "usr_mallory")
}

// tells proves that the change feed tells of the links of these users, and of their access.
func (w *world) tells(users ...string) {
	w.t.Helper()
	pool := storetest.Open(w.t, w.databaseURL).Pool()
	waittest.Eventually(w.t, func() error {
		for _, user := range users {
			var kinds []string
			if err := pool.QueryRow(w.t.Context(), "select array(select distinct kind from polar.change where local_user_id = $1 order by kind)", user).Scan(&kinds); err != nil {
				return err
			}
			if !slices.Equal(kinds, []string{"access_gained", "checkout_succeeded", "linked"}) {
				return fmt.Errorf("of %s the feed has told %q", user, kinds)
			}
		}
		return nil
	})
}

// keepsWhatItDoesNotKnow proves that a job of a kind that the worker does not know waits for one that does.
func (w *world) keepsWhatItDoesNotKnow() {
	w.t.Helper()
	pool := storetest.Open(w.t, w.databaseURL).Pool()
	var job int64
	if err := pool.QueryRow(w.t.Context(), "insert into polar.river_job (kind, args, max_attempts) values ('of_a_newer_release', '{}', 1000) returning id").Scan(&job); err != nil {
		w.t.Fatal(err)
	}
	waittest.Eventually(w.t, func() error {
		var state string
		var attempt int
		err := pool.QueryRow(w.t.Context(), "select state, attempt from polar.river_job where id = $1", job).Scan(&state, &attempt)
		if err == nil && (attempt == 0 || state == "running") {
			err = fmt.Errorf("the job is %s after %d attempts", state, attempt)
		}
		if err == nil && state != "retryable" && state != "available" && state != "scheduled" {
			w.t.Fatalf("a job of an unknown kind becomes %s", state)
		}
		return err
	})
}

func TestTheseProgramsWorkOnTheSchemaOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	w, _ := beforeUpgrade(t)
	w.restart(builtPrograms(t))
	if out, code := w.truenorth("doctor"); code != exitFault || !strings.Contains(out, "run `truenorth migrate`") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	w.worksAsAWhole("usr_ada")
	if out, code := w.truenorth("link", uuid.NewString(), "usr_ada", "--reason", "a test", "--by", "grace"); code == 0 {
		t.Errorf("what nobody can note was done:\n%s", out)
	}

	flow := w.flow()
	flow.more(10, 1)
	w.must("migrate")
	flow.more(10, 1)
	flow.settle()
	w.sellsAndApplies("usr_mallory")
	w.tells("usr_mallory")
	pool := storetest.Open(t, w.databaseURL).Pool()
	waittest.Eventually(t, func() error { // without a restart
		var unlisted int
		err := pool.QueryRow(t.Context(), `select count(*) from polar.customer c where c.deleted_at is null and not exists (select from polar.customer_link l where l.customer_id = c.id)
			and not exists (select from polar.link_waiting w where w.customer_id = c.id)`).Scan(&unlisted)
		if err == nil && unlisted > 0 {
			err = fmt.Errorf("%d customers who are linked to nobody are not listed", unlisted)
		}
		return err
	})
}

// TestAReleaseIsRolledOutAndBackWithTrafficOn goes as docs/upgrade.md says, and back: nothing that was acknowledged is lost, and no
// checkout is created twice.
func TestAReleaseIsRolledOutAndBackWithTrafficOn(t *testing.T) {
	t.Parallel()
	w, before := beforeUpgrade(t)
	w.restart(before)
	flow := w.flow()
	flow.more(20, 2)

	w.programs = builtPrograms(t)
	w.must("migrate")
	flow.more(20, 2)
	beside := w.program("truenorth-worker") // on another host
	beside.Env = append(beside.Env, "WORKER_ADDR="+machinetest.Address(t))
	second, err := startProcess(beside, filepath.Join(w.home, "second-worker.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.stop() })
	flow.more(30, 3) // the worker of the release before is beside it
	w.restart(builtPrograms(t))
	flow.more(20, 2)
	w.sellsAndApplies("usr_ada")

	if err := second.stop(); err != nil { // and back
		t.Error(err)
	}
	w.restart(before)
	flow.more(20, 2)
	w.sellsAndApplies("usr_mallory")
	flow.settle()

	w.restart(builtPrograms(t))
	w.tells("usr_ada", "usr_mallory")
}
