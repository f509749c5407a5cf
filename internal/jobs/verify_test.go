package jobs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

func verify(t *testing.T, s *store.Store) jobs.Verified {
	t.Helper()
	v, err := jobs.Verify(t.Context(), s, quiet, nil)
	if err != nil {
		t.Fatalf("verifying: %v", err)
	}
	if left := scratchSchemas(t, s); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return v
}

// verifyEqual expects that every row can be compared and is equal.
func verifyEqual(t *testing.T, s *store.Store) {
	t.Helper()
	v := verify(t, s)
	if !v.Equal() {
		t.Fatalf("not equal: %+v\nrefused: %+v", v.Differences, v.Refused)
	}
	rows := int64(0)
	for _, table := range v.Tables {
		rows += table.Equal
		if other := table.FromReads + table.NotKept + table.Lifted; other > 0 {
			t.Errorf("%s: %d rows were not compared: %+v", table.Table, other, table)
		}
	}
	if rows == 0 {
		t.Error("nothing was compared")
	}
}

func scratchSchemas(t *testing.T, s *store.Store) []string {
	t.Helper()
	return value[[]string](t, s, `select coalesce(array_agg(nspname::text), '{}') from pg_namespace where nspname ~ '^polar_'`)
}

func differences(v jobs.Verified) []string {
	var lines []string
	for _, d := range v.Differences {
		lines = append(lines, fmt.Sprintf("%s %s: %s", d.Table, d.ID, strings.Join(d.Fields, ",")))
	}
	slices.Sort(lines)
	return lines
}

// TestTheMirrorIsWhatThousandsOfShuffledEventsSay verifies random histories, shuffled and doubled, applied by several
// hands.
func TestTheMirrorIsWhatThousandsOfShuffledEventsSay(t *testing.T) {
	t.Parallel()
	for _, ties := range []bool{false, true} {
		t.Run(fmt.Sprintf("ties=%t", ties), func(t *testing.T) {
			t.Parallel()
			l := newLedger(t)
			random := rand.New(rand.NewPCG(11, 11))
			h := playHistory(t, random, 1300, ties)
			if len(h.events) < 2000 {
				t.Fatalf("the history has %d events only", len(h.events))
			}
			l.prepare(h)
			l.apply(disturb(h.events, random), 200, 3, random)
			verifyEqual(t, l.store)
		})
	}
}

func TestVerifyTellsTheRowsThatAreNotWhatTheirEventsSay(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	ids := make([]uuid.UUID, 8)
	for i := range ids {
		ids[i] = uuid.New()
		l.insert(event("customer.created", float64(i), customerDoc(ids[i], float64(i), doc{"name": "Ada"})))
	}
	edited, deleted, undead, killed, missing, made, dropped, state := ids[0], ids[1], ids[2], ids[3], ids[4], uuid.New(), ids[6], ids[7]
	l.insert(event("customer.deleted", 20, customerDoc(deleted, 1, nil)), event("customer.deleted", 21, customerDoc(undead, 2, nil)),
		event("customer.state_changed", 22, customerDoc(state, 7, doc{"name": "Grace", "active_subscriptions": []any{}, "granted_benefits": []any{}, "active_meters": []any{}})))
	replay(t, l.store, store.Replay{})
	verifyEqual(t, l.store)

	l.exec(`update polar.customer set doc = doc || '{"name": "Eve"}' where id = $1`, edited)
	l.exec("update polar.customer set tombstone = false where id = $1", undead)
	l.exec("update polar.customer set tombstone = true, deleted_at = now() where id = $1", killed)
	l.exec("delete from polar.customer where id = $1", missing)
	l.exec("insert into polar.customer (id, doc, version_at, version_from, version_webhook_id) select $1, doc, version_at, version_from, version_webhook_id from polar.customer where id = $2", made, edited)
	l.exec("update polar.customer_state set granted_benefits = '[{}]' where customer_id = $1", state)
	// An event that counts as applied though it never was.
	l.insert(event("customer.updated", 30, customerDoc(dropped, 6, doc{"name": "Ada Lovelace", "modified_at": moment(30)})))
	l.exec("insert into polar.event_outcome (seq, state, applied_at) select max(seq), 'applied', now() from polar.event_log")

	v := verify(t, l.store)
	want := []string{
		"customer " + edited.String() + ": doc",
		"customer " + undead.String() + ": tombstone",
		"customer " + killed.String() + ": deleted_at,tombstone",
		"customer " + missing.String() + ": missing",
		"customer " + made.String() + ": unfounded",
		"customer " + dropped.String() + ": doc,version_at,version_modified_at,version_webhook_id",
		"customer_state " + state.String() + ": granted_benefits",
	}
	slices.Sort(want)
	if got := differences(v); !slices.Equal(got, want) {
		t.Errorf("the differences are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if v.Equal() {
		t.Error("it calls that equal")
	}
	for _, table := range v.Tables {
		if table.Table == "customer" && (table.Equal != 3 || table.Different != 6) {
			t.Errorf("counted %+v, want 3 equal and 6 different", table)
		}
	}
	replay(t, l.store, store.Replay{Types: []string{"customer.updated"}})
	if got := differences(verify(t, l.store)); slices.ContainsFunc(got, func(d string) bool { return strings.Contains(d, dropped.String()) }) {
		t.Errorf("a replay of the dropped event leaves %q", got)
	}
}

func TestVerifyCountsWhatEventsCannotTell(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	read, pruned, lifted, outdated, plain := uuid.New(), uuid.New(), uuid.New(), uuid.New(), uuid.New()
	for i, id := range []uuid.UUID{read, pruned, lifted, outdated, plain} {
		l.insert(event("customer.created", float64(i), customerDoc(id, float64(i), nil)))
	}
	l.insert(event("customer.deleted", 10, customerDoc(lifted, 2, nil)), event("customer.updated", 11, customerDoc(pruned, 1, doc{"name": "Ada", "modified_at": moment(11)})))
	l.insert(event("customer.created", 12, doc{"id": "none"})) // fails, and reaches no mirror
	replay(t, l.store, store.Replay{})
	l.insert(event("customer.created", 13, customerDoc(uuid.New(), 13, nil))) // not tried yet
	l.read(read, 20, doc{"name": "Read", "modified_at": moment(20)})
	l.read(lifted, 21, doc{"name": "Alive", "modified_at": moment(21)})
	l.read(outdated, 5, doc{"name": "Old", "modified_at": moment(5)})
	l.exec("delete from polar.event_log where object_id = $1 and type = 'customer.updated'", pruned.String())
	// The read was the newest, until this event; that it did nothing shows.
	l.insert(event("customer.updated", 30, customerDoc(outdated, 3, doc{"name": "New", "modified_at": moment(30)})))
	l.exec("insert into polar.event_outcome (seq, state, applied_at) select max(seq), 'applied', now() from polar.event_log")

	v := verify(t, l.store)
	if got, want := differences(v), []string{"customer " + outdated.String() + ": outdated"}; !slices.Equal(got, want) {
		t.Errorf("the differences are %q, want %q", got, want)
	}
	for _, table := range v.Tables {
		if table.Table == "customer" && table != (store.Comparison{Table: "customer", Equal: 1, Different: 1, FromReads: 1, NotKept: 1, Lifted: 1}) {
			t.Errorf("the customers were counted as %+v", table)
		}
	}
	expect(t, "failed events", v.Kept.Failed, 1)
	expect(t, "events not tried yet", v.Kept.Received, 1)
}

// read writes a customer as Polar's API would show it by its id, at a moment.
func (l *ledger) read(id uuid.UUID, at float64, fields doc) {
	l.t.Helper()
	created := value[string](l.t, l.store, "select doc ->> 'created_at' from polar.customer where id = $1", id)
	object := store.Object{ID: id, Doc: raw(customerDoc(id, 0, with(doc{"created_at": created}, fields))), VersionAt: parseMoment(at)}
	err := l.store.InTx(l.t.Context(), func(tx *store.Tx) error {
		_, err := tx.MirrorObjects(l.t.Context(), "customer", store.FromRead, []store.Object{object}, true)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func TestAnEventThatCannotBeAppliedAnyMoreIsADifference(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.crowd(20)
	replay(t, l.store, store.Replay{})
	// As if this release read documents more strictly than the one that applied them.
	l.exec(`update polar.event_log set body = replace(body, '"id":', '"idea":') where seq = 7`)
	v := verify(t, l.store)
	if v.Equal() || v.Unbuilt != 1 || len(v.Refused) != 1 || v.Refused[0].Seq != 7 || v.Refused[0].Error == "" {
		t.Errorf("got equal %t with %d refused: %+v", v.Equal(), v.Unbuilt, v.Refused)
	}
}

// TestVerifyIsNotMisledByWorkers verifies again and again while events are being applied.
func TestVerifyIsNotMisledByWorkers(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	random := rand.New(rand.NewPCG(12, 12))
	h := playHistory(t, random, 250, true)
	l.prepare(h)
	done := make(chan struct{})
	verdict := make(chan error, 1)
	go func() {
		for rounds := 0; ; rounds++ {
			v, err := jobs.Verify(context.Background(), l.store, quiet, nil)
			if err == nil && !v.Equal() {
				err = fmt.Errorf("round %d: %q, refused %+v", rounds, differences(v), v.Refused)
			}
			select {
			case <-done:
				verdict <- err
				return
			default:
			}
			if err != nil {
				verdict <- err
				return
			}
		}
	}()
	l.apply(disturb(h.events, random), 3, 3, random)
	close(done)
	if err := <-verdict; err != nil {
		t.Error(err)
	}
	verifyEqual(t, l.store)
}

func TestVerifyLeavesNoSchemaBehindAndRemovesThoseOfDeadRuns(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.crowd(1500)
	replay(t, l.store, store.Replay{})
	const dead, living = "polar_verify_00000000deadbeef", "polar_verify_0000000011111111"
	for _, name := range []string{dead, living, "polar_verify_of_the_product"} {
		l.exec("create schema " + name)
		l.exec("create table " + name + ".customer (id uuid)")
	}
	holder, err := l.store.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Release()
	if _, err := holder.Exec(t.Context(), "select pg_advisory_lock(hashtextextended('polar:verify:' || $1, 0))", living); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	during := 0
	_, err = jobs.Verify(ctx, l.store, quiet, func(int64, int64) {
		if during == 0 {
			during = len(scratchSchemas(t, l.store))
		}
		cancel()
	})
	if err == nil {
		t.Fatal("an interrupted run ended without an error")
	}
	expect(t, "schemas during the run", during, 3) // its own, the living one and the product's
	left := scratchSchemas(t, l.store)
	slices.Sort(left)
	if want := []string{living, "polar_verify_of_the_product"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

// raw is a document as JSON.
func raw(d doc) json.RawMessage {
	encoded, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return encoded
}

func parseMoment(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}
