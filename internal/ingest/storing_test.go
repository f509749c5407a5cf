package ingest_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestDuplicateGets202AndNoSecondJob(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	id := newID()
	e.post(id, order).want(t, http.StatusAccepted)
	first := e.wantStored(id)
	for range 3 {
		e.post(id, order).want(t, http.StatusAccepted)
	}
	// Polar signs every try anew; what it sends stays the same, and if it did not, what came first counts.
	e.post(id, `{"type":"order.refunded"}`).want(t, http.StatusAccepted)
	if again := e.wantStored(id); again.Body != first.Body || again.Type != first.Type {
		t.Errorf("stored %+v, want it as it came first: %+v", again, first)
	}
	e.wantCount(countEvents, 1)
	e.wantCount(countJobs, 1)
	if last := e.log.lines(t, 5)[4]; !strings.Contains(last, `"reason":"duplicate"`) {
		t.Errorf("logged %s, want the reason duplicate", last)
	}
}

func TestSameContentUnderAnotherIDIsAnotherEvent(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	e.post(newID(), order).want(t, http.StatusAccepted)
	e.post(newID(), order).want(t, http.StatusAccepted)
	e.wantCount(countEvents, 2)
	e.wantCount(countJobs, 2)
}

func TestWebhookIDsAreComparedExactly(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	longest := strings.Repeat("~", 256)
	for _, id := range []string{"a", "A", "msg_1", "msg_1'", `"`, `\`, longest} {
		e.post(id, order).want(t, http.StatusAccepted)
		e.wantStored(id)
	}
	e.wantCount(countEvents, 7)
}

func TestRedeliveryOfAFailedEventMakesANewJob(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	failed, applied := newID(), newID()
	for _, id := range []string{failed, applied} {
		e.post(id, order).want(t, http.StatusAccepted)
	}
	e.exec("insert into polar.event_outcome (seq, state, error) select seq, 'failed', 'no such organization' from polar.event_log where webhook_id = $1", failed)
	e.exec("insert into polar.event_outcome (seq, state, applied_at) select seq, 'applied', now() from polar.event_log where webhook_id = $1", applied)
	e.exec("delete from polar.river_job")

	e.post(applied, order).want(t, http.StatusAccepted)
	e.wantCount(countJobs, 0)

	e.post(failed, order).want(t, http.StatusAccepted)
	e.wantCount(countEvents, 2)
	e.wantCount(countJobs, 1)
	if n := e.count(`
		select count(*)
		  from polar.river_job j
		  join polar.event_log l on l.webhook_id = $1
		 where j.kind = 'apply_events' and j.queue = 'events' and j.state = 'available'
		   and j.args = jsonb_build_object('events', jsonb_build_array(l.seq))`, failed); n != 1 {
		t.Errorf("%d jobs apply the failed event again, want 1", n)
	}
}

func TestEventIsNotStoredWithoutItsJob(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	e.exec("alter table polar.river_job add constraint no_jobs check (kind <> 'apply_events') not valid")
	id := newID()
	got := e.post(id, order)
	got.want(t, http.StatusServiceUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	e.wantCount(countEvents, 0)

	e.exec("alter table polar.river_job drop constraint no_jobs")
	e.post(id, order).want(t, http.StatusAccepted)
	if got := e.wantStored(id); got.Jobs != 1 {
		t.Errorf("%d jobs, want 1", got.Jobs)
	}
}

func TestJobIsNotInsertedWithoutItsEvent(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	e.exec("alter table polar.event_log add constraint no_events check (type <> 'order.paid')")
	e.post(newID(), order).want(t, http.StatusServiceUnavailable)
	e.wantCount(countJobs, 0)
}

func TestAnswerComesAfterTheCommit(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	// A deferred constraint fails at the commit, when the statement itself has long succeeded.
	e.exec(`create function polar.refuse() returns trigger language plpgsql as $$ begin raise exception 'refused at the commit'; end $$`)
	e.exec(`create constraint trigger refuse after insert on polar.event_log deferrable initially deferred for each row execute function polar.refuse()`)
	e.post(newID(), order).want(t, http.StatusServiceUnavailable)
	e.wantCount(countEvents, 0)
	e.wantCount(countJobs, 0)
}

func TestFiftyDeliveriesOfOneEventAtOnceMakeOneRow(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	id := newID()
	const deliveries = 50
	requests := make([]*http.Request, deliveries)
	for i := range requests {
		requests[i] = e.request(sign(t, standardSecret, id, order, polar.DerivationAuto), strings.NewReader(order))
	}
	statuses := make([]int, deliveries)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, request := range requests {
		all.Go(func() {
			<-start
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Error(err)
				return
			}
			_ = response.Body.Close()
			statuses[i] = response.StatusCode
		})
	}
	close(start)
	all.Wait()
	for i, status := range statuses {
		if status != http.StatusAccepted {
			t.Errorf("delivery %d gets %d, want 202", i, status)
		}
	}
	e.wantCount(countEvents, 1)
	e.wantCount(countJobs, 1)
}

func TestDuplicateWaitsForTheFirstOneToCommit(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	id := newID()
	// Another process is storing the same event, and then dies.
	tx := e.begin()
	if _, err := tx.Exec(t.Context(), "insert into polar.event_log (webhook_id, type, batch, body) values ($1, 'order.paid', 0, 'x')", id); err != nil {
		t.Fatal(err)
	}
	answered := make(chan answer, 1)
	go func() { answered <- e.post(id, order) }()
	waittest.Within(t, 5*time.Second, func() error {
		if e.count("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 0 {
			return errNotWaiting
		}
		return nil
	})
	select {
	case got := <-answered:
		t.Fatalf("answer %d while the event may still be lost", got.status)
	default:
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	(<-answered).want(t, http.StatusAccepted)
	if got := e.wantStored(id); got.Body != order || got.Jobs != 1 {
		t.Errorf("stored %+v, want the event with a job", got)
	}
}

func TestJobsWakeTheWorkersButNotForEachEvent(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	conn, err := e.store.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `listen "polar.river_insert"`); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	const events = 40
	for range events {
		e.post(newID(), order).want(t, http.StatusAccepted)
	}
	took := time.Since(started)
	if _, err := conn.Exec(t.Context(), "select pg_notify('polar.river_insert', 'end')"); err != nil {
		t.Fatal(err)
	}
	var notified int
	for {
		n, err := conn.Conn().WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == "end" {
			break
		}
		if want := `{"queue":"events"}`; n.Payload != want {
			t.Errorf("notified %s, want %s", n.Payload, want)
		}
		notified++
	}
	if most := int(took/ingest.WakeAtMostEach) + 1; notified < 1 || notified > most {
		t.Errorf("%d events within %s notify %d times, want 1 to %d", events, took, notified, most)
	}
}
