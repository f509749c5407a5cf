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
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// sight is one look at an object: an event, or a read of the API.
type sight struct {
	kind    string // one of the sight… constants
	version int    // what it shows
	at      time.Duration
}

const (
	sightEvent = "event"
	sightState = "state_changed" // of customers
	sightByID  = "read by id"
	sightList  = "read of a list"
	sightGone  = "deleted"
)

// biography is what becomes of one object at Polar, and all that is ever seen of it, in no order.
type biography struct {
	objectType string
	changes    []time.Duration // when each version began; the first one is the creation
	sights     []sight
}

// drawBiography draws a life as Polar leads one: every look shows the version of its time.
func drawBiography(t *rapid.T) biography {
	l := biography{objectType: rapid.SampledFrom([]string{"customer", "checkout", "product"}).Draw(t, "type")}
	// Steps of a few milliseconds and of seconds: a read tells its second only.
	step := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.OneOf(rapid.IntRange(2, 40), rapid.IntRange(500, 2500)).Draw(t, "ms")) * time.Millisecond
	})
	at := step.Draw(t, "birth")
	for range rapid.IntRange(1, 5).Draw(t, "versions") {
		l.changes = append(l.changes, at)
		at += step.Draw(t, "lasts")
	}
	kinds := []string{sightEvent, sightEvent, sightByID, sightList}
	if l.objectType == "customer" {
		kinds = append(kinds, sightState)
	}
	for range rapid.IntRange(1, 8).Draw(t, "sights") {
		s := sight{kind: rapid.SampledFrom(kinds).Draw(t, "kind"), version: rapid.IntRange(0, len(l.changes)-1).Draw(t, "version")}
		until := at
		if s.version+1 < len(l.changes) {
			until = l.changes[s.version+1]
		}
		s.at = time.Duration(rapid.Int64Range(int64(l.changes[s.version]), int64(until)-1).Draw(t, "at")).Truncate(time.Microsecond)
		l.sights = append(l.sights, s)
	}
	if l.objectType == "customer" && rapid.IntRange(0, 3).Draw(t, "deleted") == 0 {
		l.sights = append(l.sights, sight{kind: sightGone, version: len(l.changes) - 1, at: at})
	}
	return l
}

// document is the object as it was in a version.
func (l biography) document(id uuid.UUID, version int) doc {
	fields := doc{"name": fmt.Sprintf("version %d", version)}
	if version > 0 {
		fields["modified_at"] = moment(l.changes[version].Seconds())
	}
	created := l.changes[0].Seconds()
	switch l.objectType {
	case "customer":
		return customerDoc(id, created, fields)
	case "checkout":
		fields["status"] = []string{"open", "confirmed", "open", "confirmed", "succeeded"}[version]
		return checkoutDoc(id, created, fields)
	default:
		return with(doc{"id": id, "created_at": moment(created), "modified_at": nil, "organization_id": customerDoc(id, 0, nil)["organization_id"]}, fields)
	}
}

// newest is the version that has to be seen in the end, and whether the object is gone.
func (l biography) newest() (version int, gone bool) {
	for _, s := range l.sights {
		version = max(version, s.version)
		gone = gone || s.kind == sightGone
	}
	return version, gone
}

// see lets the sights of a life arrive in an order, a few events at a time, and returns the row that they leave.
func (l *ledger) see(t *rapid.T, life biography, order []int, together int) string {
	id, run := uuid.New(), uuid.NewString()
	var waiting []store.Delivery
	flush := func() {
		if len(waiting) > 0 {
			if err := l.applyEvents(waiting); err != nil {
				t.Fatal(err)
			}
			waiting = nil
		}
	}
	tell := func(n int, eventType string, at time.Duration, data doc) {
		body := event(eventType, at.Seconds(), data)
		envelope, err := polar.ScanEnvelope([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, store.Delivery{
			WebhookID: fmt.Sprintf("%s-%03d", run, n), Type: envelope.Type, ObjectID: envelope.ObjectID, OccurredAt: envelope.Timestamp, Body: []byte(body),
		})
		if len(waiting) == together {
			flush()
		}
	}
	for _, n := range order {
		s := life.sights[n]
		document := life.document(id, s.version)
		switch s.kind {
		case sightEvent:
			tell(n, life.objectType+".updated", s.at, document)
		case sightState:
			tell(n, "customer.state_changed", s.at, with(document, doc{"active_subscriptions": []any{}, "granted_benefits": []any{}, "active_meters": []any{}}))
		case sightGone:
			tell(n, "customer.deleted", s.at, with(document, doc{"deleted_at": moment(s.at.Seconds())}))
		default:
			flush()
			raw, err := json.Marshal(document)
			if err != nil {
				t.Fatal(err)
			}
			// The answer's Date header has whole seconds.
			if err := l.runner.ApplyRead(context.Background(), life.objectType, raw, epoch.Add(s.at).Truncate(time.Second), s.kind == sightByID); err != nil {
				t.Fatal(err)
			}
		}
	}
	flush()
	return l.rowOf(t, life.objectType, id)
}

// applyEvents stores events as one batch and works it.
func (l *ledger) applyEvents(events []store.Delivery) error {
	if _, err := l.store.InsertEvents(context.Background(), events, false); err != nil {
		return err
	}
	var batch int64
	if err := l.store.Pool().QueryRow(context.Background(), "select batch from polar.event_log where webhook_id = $1", events[0].WebhookID).Scan(&batch); err != nil {
		return err
	}
	return l.runner.WorkBatch(context.Background(), batch, true)
}

// rowOf is what others may rely on of a mirrored row, its id left out.
func (l *ledger) rowOf(t *rapid.T, objectType string, id uuid.UUID) string {
	columns := "doc::text, modified_at::text, deleted_at::text"
	switch objectType {
	case "customer":
		columns += ", name, email, tombstone::text"
	case "checkout":
		columns += ", status, url"
	}
	rows, err := l.store.Pool().Query(context.Background(), fmt.Sprintf("select to_jsonb(r)::text from (select %s from polar.%q where id = $1) r", columns, objectType), id)
	if err != nil {
		t.Fatal(err)
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("the %s has no row: %v", objectType, err)
	}
	return strings.ReplaceAll(strings.ReplaceAll(row, id.String(), "ID"), id.String()[:8], "ID")
}

// newestWins is the law: whatever is seen of an object, in whatever order, leaves the newest version of all that was seen,
// and a deletion stays.
func newestWins(l *ledger) func(*rapid.T) {
	return func(t *rapid.T) {
		life := drawBiography(t)
		inOrder := make([]int, len(life.sights))
		for i := range inOrder {
			inOrder[i] = i
		}
		slices.SortStableFunc(inOrder, func(a, b int) int { return int(life.sights[a].at - life.sights[b].at) })
		want := l.see(t, life, inOrder, 1)
		version, gone := life.newest()
		if !strings.Contains(want, fmt.Sprintf("version %d", version)) {
			t.Fatalf("in order, version %d was to be seen: %s", version, want)
		}
		if gone == strings.Contains(want, `"deleted_at": null`) {
			t.Fatalf("in order, that it is gone was to be seen (%t): %s", gone, want)
		}
		order := rapid.Permutation(inOrder).Draw(t, "order")
		if got := l.see(t, life, order, rapid.IntRange(1, 4).Draw(t, "together")); got != want {
			t.Fatalf("another order of arrival leaves another row:\n%s\n%s", got, want)
		}
	}
}

func TestTheNewestVersionWinsInWhateverOrderEventsAndReadsArrive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, newestWins(openLedger(t)))
}

// FuzzVersionOrder lets the fuzzer look for a life that breaks the law. A life is drawn from bytes; too few make none.
func FuzzVersionOrder(f *testing.F) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		drawn := make([]byte, 4096)
		for i := range drawn {
			drawn[i] = byte(random.IntN(256))
		}
		f.Add(drawn)
	}
	f.Fuzz(rapid.MakeFuzz(newestWins(openLedger(f))))
}
