package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/mirrorcheck"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

var (
	seeds     = flag.Uint64("seeds", 8, "how many random histories TestConvergence plays")
	firstSeed = flag.Uint64("seed", 1, "the first of them")
)

// TestConvergence is the promise of the whole: whatever is lost, delayed, doubled, refused or killed, once that ends and
// Polar's lists have been compared, the mirror equals Polar, object by object and field by field.
//
// Each seed plays a random history at a fake Polar, under random faults. In every twentieth, ingest, worker and Postgres are
// processes that are killed; in the others their contexts and connections are cut.
func TestConvergence(t *testing.T) {
	t.Parallel()
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("play this again: make converge SEED=%d SEEDS=1", seed)
				}
			}()
			converge(t, seed)
		})
	}
}

// retrySpeed has the half hour of Polar's retries pass in a blink.
const retrySpeed = 36_000

// stage is where one history is played.
type stage struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand // of the history and of the faults
	hosts  hosts
	w      *world // the database, read and written directly, and the fake
	clock  *polarClock
	users  []string
	log    []string // what was done, for a failure's report
	ending []ending // faults that last
}

func converge(t *testing.T, seed uint64) {
	t.Helper()
	s := newStage(t, seed)
	defer func() {
		if t.Failed() || testing.Verbose() {
			t.Logf("what happened:\n%s", strings.Join(s.log, "\n"))
			t.Logf("jobs and workers:\n%s", lines(all[string](s.w, `
				select concat_ws(' ', id, kind, state, attempt, now() - attempted_at, scheduled_at - now(), attempted_by[array_upper(attempted_by, 1)], left(errors[1]::text, 150))
				  from polar.river_job where state not in ('completed', 'scheduled', 'cancelled')
				 union all select concat_ws(' ', 'worker', id, now() - seen_at) from polar.worker_process order by 1 limit 40`)))
			t.Logf("what Postgres is at:\n%s", lines(all[string](s.w.asAdmin(), `
				select concat_ws(' ', a.pid, a.state, a.wait_event_type, a.wait_event, now() - a.state_change, pg_blocking_pids(a.pid)::text, left(regexp_replace(a.query, '\s+', ' ', 'g'), 150))
				  from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid() and a.state <> 'idle'`)))
		}
	}()
	s.witnessLinks()
	s.open()
	steps := 30 + s.random.IntN(40)
	for range steps {
		s.act()
		if s.random.IntN(3) == 0 {
			s.disturb()
		}
		s.endSome(false)
		s.pause(time.Duration(s.random.IntN(8)) * time.Millisecond)
		if s.random.IntN(10) == 0 { // so that the workers meet the faults
			s.pause(time.Duration(s.random.IntN(200)) * time.Millisecond)
		}
	}
	s.endFaults()
	s.quiesce()
	s.clock.skip(5 * time.Minute)
	s.notef("quiet; now the first sweep")
	s.reconcile()
	s.quiesce()
	late := s.redeliverLost()
	s.notef("quiet; now what was lost comes all the same, %d events", late)
	s.quiesce()
	s.clock.skip(2 * time.Second) // Polar's Date has whole seconds: two reads within one cannot be told apart
	s.notef("quiet; now the second sweep")
	if drifted, benign := s.reconcile(); drifted+benign > 0 {
		t.Errorf("the second sweep found %d differences and %d benign ones:\n%s", drifted, benign, lines(all[string](s.w,
			`select concat_ws(' ', d.run_id, object_type, object_id, field, local, remote, cause) from polar.drift d where d.run_id > (select max(id) - 12 from polar.reconcile_run) order by d.id`)))
	}
	for _, objectType := range polarfake.ObjectTypes {
		s.compare(objectType)
	}
	waittest.Within(t, 5*time.Second, s.everyPaidCheckoutIsTied)
	waittest.Within(t, 10*time.Second, s.theFeedTellsWhatIsSo)
	waittest.Within(t, 5*time.Second, s.theUnlinkedAreListed)
	s.noRequestHasTwoLiveSessions()
	s.requestsAgree()
	s.everyLinkHasEvidence()
	s.noLinkChangedInSilence()
}

// redeliverLost has Polar send what never arrived, as an operator may: each shows its object as it was long ago, and must
// change nothing that the sweep has brought in step.
func (s *stage) redeliverLost() int {
	s.t.Helper()
	late := 0
	for _, event := range s.w.fake.Events() {
		// What was gone before the mirror ever heard of it would be news: only the next sweep can tell.
		objectType, _, _ := strings.Cut(event.Type, ".")
		if event.State == polarfake.EventSucceeded || one[int64](s.w, fmt.Sprintf("select count(*) from polar.%q where id = $1", objectType), event.ObjectID) == 0 {
			continue
		}
		if err := s.w.fake.Redeliver(event.ID); err != nil {
			s.t.Errorf("redelivering %s: %v", event.ID, err)
		}
		late++
	}
	return late
}

// reconcile compares all types and repairs.
func (s *stage) reconcile() (drifted, benign int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	runs, err := s.w.sweeper().Reconcile(ctx, jobs.ReconcileOptions{})
	for errors.Is(err, store.ErrLeaseLost) && ctx.Err() == nil { // a worker came first: a person would run it again
		runs, err = s.w.sweeper().Reconcile(ctx, jobs.ReconcileOptions{})
	}
	if err != nil {
		s.t.Fatalf("reconciling after the faults: %v", err)
	}
	for _, run := range runs {
		if run.State != store.RunFinished {
			s.t.Errorf("the run for %s is %s", run.ObjectType, run.State)
		}
		drifted, benign = drifted+run.Drifted, benign+run.Benign
	}
	return drifted, benign
}

// quiesce waits until nothing is under way.
func (s *stage) quiesce() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if err := s.w.fake.WaitIdle(ctx); err != nil {
		s.t.Fatalf("waiting for the fake Polar: %v", err)
	}
	calm := 0
	waittest.Within(s.t, 40*time.Second, func() error {
		busy := all[string](s.w, `
			select 'event ' || type || ' ' || state || coalesce(' ' || error, '') from polar.event where state = 'received'
			union all
			select 'job ' || kind || ' ' || state || ' ' || attempt || ' ' || coalesce(errors[1]::text, '') from polar.river_job
			 where state in ('available', 'running', 'retryable') and kind not in ('reconcile')
			union all
			select 'request ' || state || ' ' || coalesce(error, '') from polar.checkout_request where state in ('queued', 'creating')
			limit 5`)
		if len(busy) > 0 {
			calm = 0
			return fmt.Errorf("still busy: %q", busy)
		}
		if calm++; calm < 3 { // upkeep may still be at links
			return errors.New("calm, for a moment")
		}
		return nil
	})
	if err := s.w.fake.WaitIdle(ctx); err != nil {
		s.t.Fatalf("waiting for the fake Polar: %v", err)
	}
}

// compare holds the mirror's objects of a type against the fake's.
func (s *stage) compare(objectType string) {
	s.t.Helper()
	here := map[string]json.RawMessage{}
	for _, row := range all[json.RawMessage](s.w, fmt.Sprintf(`select doc from polar.%q where deleted_at is null`, objectType)) {
		here[idOf(s.t, row)] = row
	}
	differences := mirrorcheck.Objects(objectType, s.w.fake.Objects(objectType), here)
	for _, difference := range differences {
		s.t.Error(difference)
	}
	if len(differences) > 0 {
		s.t.Logf("versions of %s:\n%s", objectType, lines(all[string](s.w,
			fmt.Sprintf(`select concat_ws(' ', id, version_from, version_at, version_modified_at, tombstone) from polar.%q order by id`, objectType))))
	}
}

// everyPaidCheckoutIsTied looks for a link to the user, or for a conflict about the two.
func (s *stage) everyPaidCheckoutIsTied() error {
	loose := all[string](s.w, `
		select concat_ws(' ', r.id, r.external_customer_id, c.id, c.external_id)
		  from polar.checkout_request r
		  join polar.checkout k on k.id = r.checkout_id and k.status = 'succeeded'
		  join polar.customer c on c.id = k.customer_id and c.deleted_at is null
		  join polar.local_user u on u.id = r.external_customer_id and u.deleted_at is null
		 where not exists (select from polar.customer_link l where l.customer_id = c.id and l.local_user_id = u.id)
		   and not exists (select from polar.link_conflict f where f.customer_id = c.id and f.local_user_id = u.id and f.resolved_at is null)`)
	if len(loose) > 0 {
		return fmt.Errorf("paid, and tied to nobody: %q", loose)
	}
	return nil
}

// theFeedTellsWhatIsSo folds the change feed, and holds it against what users may use now.
func (s *stage) theFeedTellsWhatIsSo() error {
	const columns = "local_user_id, %s, object_id, product_id, benefit_id, customer_id, subscription_id, order_id, until"
	so := all[string](s.w, fmt.Sprintf("select distinct concat_ws(' ', "+columns+") from polar.user_access order by 1", "kind"))
	told := all[string](s.w, fmt.Sprintf(`select concat_ws(' ', `+columns+`)
		  from (select distinct on (local_user_id, access_kind, object_id) * from polar.change
		         where kind in ('access_gained', 'access_lost') order by local_user_id, access_kind, object_id, id desc) c
		 where kind = 'access_gained' order by 1`, "access_kind"))
	if !slices.Equal(so, told) {
		return fmt.Errorf("users may use\n%s\nand the feed tells\n%s", lines(so), lines(told))
	}
	return nil
}

// theUnlinkedAreListed holds the list that the console shows against the view.
func (s *stage) theUnlinkedAreListed() error {
	wrong := all[string](s.w, `
		select 'not listed: ' || u.customer_id from polar.unlinked_customer u where not exists (select from polar.link_waiting w where w.customer_id = u.customer_id)
		union all
		select 'listed, and not unlinked: ' || w.customer_id from polar.link_waiting w where not exists (select from polar.unlinked_customer u where u.customer_id = w.customer_id)`)
	if len(wrong) > 0 {
		return fmt.Errorf("the list of the unlinked is wrong: %q", wrong)
	}
	return nil
}

func (s *stage) sessions() []mirrorcheck.Session {
	s.t.Helper()
	sessions, err := mirrorcheck.ReadSessions(s.w.fake.Checkouts())
	if err != nil {
		s.t.Fatal(err)
	}
	return sessions
}

func (s *stage) noRequestHasTwoLiveSessions() {
	s.t.Helper()
	for _, double := range mirrorcheck.Doubles(s.sessions()) {
		s.t.Error(double)
	}
}

// requestsAgree holds every request against its session.
func (s *stage) requestsAgree() {
	s.t.Helper()
	var requests []mirrorcheck.Request
	for _, text := range all[json.RawMessage](s.w, "select to_jsonb(r) from polar.checkout_request r") {
		var r mirrorcheck.Request
		if err := json.Unmarshal(text, &r); err != nil {
			s.t.Fatal(err)
		}
		requests = append(requests, r)
	}
	for _, difference := range mirrorcheck.Requests(requests, s.sessions()) {
		s.t.Error(difference)
	}
}

// pause lets the parts of the play run for a moment.
func (s *stage) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.t.Context().Done():
	}
}

func (s *stage) notef(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%6d ms  ", time.Since(s.clock.started).Milliseconds())+fmt.Sprintf(format, args...))
}
