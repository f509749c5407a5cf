package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Forgotten says what Forget did.
type Forgotten struct {
	Customer  uuid.UUID
	DeletedAt time.Time        // when Polar deleted the customer; zero while it lives there, as far as the mirror knows
	Before    bool             // it was forgotten before
	Blanked   map[string]int64 // rows by table
}

// Forget takes a customer's personal data out of events, mirror and ledgers, for good: whatever Polar says of the
// customer later is stored without it. Ids, times, states and amounts stay. It is safe twice, and where it was
// interrupted, the next goes on. blanked, which may be nil, is told how many events are done. Errors:
// store.ErrNotFound where nothing names the customer.
func Forget(ctx context.Context, s *store.Store, customer uuid.UUID, word store.Word, blanked func(events int64)) (Forgotten, error) {
	known, err := s.GetForgettable(ctx, customer)
	if err != nil {
		return Forgotten{}, err
	}
	f := Forgotten{Customer: customer, DeletedAt: known.DeletedAt, Before: !known.ForgottenAt.IsZero()}
	if f.Blanked, err = forgetRows(ctx, s, customer, word); err != nil {
		return f, err
	}
	crashpoint.Here("forget.rows")
	// From here on nothing new is stored of the customer, so what is found now is all there is. Events go a batch at a
	// time: there may be many, and each is done for good.
	count := func(n int64) {
		f.Blanked["event_log"] += n
		if blanked != nil {
			blanked(f.Blanked["event_log"])
		}
	}
	objects, err := s.ListForgottenObjects(ctx, customer)
	if err != nil {
		return f, err
	}
	// What the mirror does not tell of names the customer in so many letters.
	var stray []string
	err = blankAll(ctx, s, count, func(tx *store.Tx, after int64) (events []store.Event, err error) {
		events, ids, err := tx.ListStrayEvents(ctx, customer, after)
		stray = append(stray, ids...)
		return events, err
	})
	if err != nil {
		return f, err
	}
	objects = append(objects, stray...)
	slices.Sort(objects)
	for ids := range slices.Chunk(slices.Compact(objects), 500) {
		err := blankAll(ctx, s, count, func(tx *store.Tx, after int64) ([]store.Event, error) {
			return tx.ListEventsOfObjects(ctx, ids, after)
		})
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// blankAll blanks all events that list gives, from after on, a batch at a time.
func blankAll(ctx context.Context, s *store.Store, count func(int64), list func(tx *store.Tx, after int64) ([]store.Event, error)) error {
	for after := int64(0); ; {
		var events []store.Event
		err := stubbornly(ctx, func() error {
			return s.InTx(ctx, func(tx *store.Tx) (err error) {
				events, err = list(tx, after)
				return err
			})
		})
		if err != nil || len(events) == 0 {
			return err
		}
		n, err := blankStored(ctx, s, events)
		if err != nil {
			return err
		}
		crashpoint.Here("forget.events")
		count(n)
		after = events[len(events)-1].Seq
	}
}

// blankStored blanks events in a transaction of their own. One that Postgres cannot read as JSON loses all but its frame.
func blankStored(ctx context.Context, s *store.Store, events []store.Event) (n int64, err error) {
	blank := func(events []store.Event) error {
		var blanked int64
		err := stubbornly(ctx, func() error {
			return s.InTx(ctx, func(tx *store.Tx) (err error) {
				blanked, err = blankEvents(ctx, tx, events)
				return err
			})
		})
		if err == nil {
			n += blanked
		}
		return err
	}
	err = store.Isolate(events, blank, func(e store.Event, _ error) error {
		frame, err := json.Marshal(map[string]any{"type": e.Type, "timestamp": e.OccurredAt})
		if err != nil {
			return fmt.Errorf("blanking event %s: %w", e.WebhookID, err)
		}
		e.Body = string(frame)
		return blank([]store.Event{e})
	})
	return n, err
}

// forgetRows waits for its turn among those who write the mirror: they go first.
func forgetRows(ctx context.Context, s *store.Store, customer uuid.UUID, word store.Word) (map[string]int64, error) {
	const patience = time.Minute
	started := time.Now()
	for try := 1; ; try++ {
		counts, err := s.ForgetCustomer(ctx, customer, word)
		if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil || time.Since(started) > patience {
			return counts, err
		}
		if err := pause(ctx, time.Duration(min(try, 10))*50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// blankEventsOf blanks the next events of these objects. last is the last one looked at; 0: there are no more.
func blankEventsOf(ctx context.Context, tx *store.Tx, objectIDs []string, after int64) (blanked, last int64, err error) {
	events, err := tx.ListEventsOfObjects(ctx, objectIDs, after)
	if err != nil || len(events) == 0 {
		return 0, 0, err
	}
	blanked, err = blankEvents(ctx, tx, events)
	return blanked, events[len(events)-1].Seq, err
}

// blankEvents takes the personal data out of events; ids, times, states and amounts stay, so that they apply as before.
func blankEvents(ctx context.Context, tx *store.Tx, events []store.Event) (int64, error) {
	seqs, docs := make([]int64, len(events)), make([]json.RawMessage, len(events))
	for i, e := range events {
		seqs[i], docs[i] = e.Seq, polar.StorableJSON([]byte(e.Body))
	}
	return tx.BlankEvents(ctx, seqs, docs)
}

// settle records the outcomes of a change. Events that speak of forgotten customers lose their personal data with it.
func (r *Runner) settle(ctx context.Context, tx *store.Tx, c *change) error {
	forgotten, err := tx.SetOutcomes(ctx, c.outcomes)
	if err != nil || !forgotten {
		return err
	}
	var namings []store.Naming
	var checkouts []uuid.UUID
	for _, e := range c.events {
		for _, id := range namedBy(e) {
			namings = append(namings, store.Naming{Seq: e.Seq, ID: id})
		}
	}
	for _, v := range c.objects[typeCheckout] {
		checkouts = append(checkouts, v.ID)
	}
	seqs, err := tx.ListForgottenEvents(ctx, namings)
	if err != nil {
		return err
	}
	var events []store.Event
	for _, e := range c.events {
		if slices.Contains(seqs, e.Seq) {
			events = append(events, e)
		}
	}
	if len(events) > 0 {
		if _, err := blankEvents(ctx, tx, events); err != nil {
			return err
		}
	}
	return blankCheckouts(ctx, tx, checkouts)
}

// settleRefused records that an event was refused; what is refused here too stays as it is.
func (r *Runner) settleRefused(ctx context.Context, c *change) error {
	err := r.store.InTx(ctx, func(tx *store.Tx) error { return r.settle(ctx, tx, c) })
	if !errors.Is(err, store.ErrRefused) {
		return err
	}
	r.logger.WarnContext(ctx, "event cannot be blanked", slog.String("webhook_id", c.events[0].WebhookID), slog.String("error", err.Error()))
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.SetOutcomes(ctx, c.outcomes)
		return err
	})
}

// blankCheckouts blanks all events of those checkouts that are forgotten customers': the first of them came before the
// buyer was known.
func blankCheckouts(ctx context.Context, tx *store.Tx, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	ids, err := tx.NoteForgottenCheckouts(ctx, ids)
	if err != nil || len(ids) == 0 {
		return err
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	for after := int64(0); ; {
		_, last, err := blankEventsOf(ctx, tx, names, after)
		if err != nil || last == 0 {
			return err
		}
		after = last
	}
}

var uuidPattern = regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`)

// namedBy lists whom an event may speak of: as polar.is_forgotten has it, where the object has a table, so that the
// event and its row are blanked alike; whatever it names, where it has none.
func namedBy(e store.Event) []uuid.UUID {
	objectType, _, _ := strings.Cut(e.Type, ".")
	var named []uuid.UUID
	add := func(text string) {
		if id, err := uuid.Parse(text); err == nil {
			named = append(named, id)
		}
	}
	if !slices.Contains(mirrored, objectType) {
		for _, text := range uuidPattern.FindAllString(e.Body, -1) {
			add(text)
		}
		return named
	}
	_, data, err := polar.ScanEvent([]byte(e.Body))
	if err != nil {
		return nil
	}
	fields := membersOf(data)
	for _, value := range []json.RawMessage{fields["customer_id"], membersOf(fields["customer"])["id"], membersOf(fields["member"])["customer_id"]} {
		add(optionalText(value))
	}
	if objectType == typeCustomer || objectType == typeCheckout {
		add(optionalText(fields["id"]))
	}
	return named
}

// membersOf reads the members of a JSON object; of anything else, none.
func membersOf(raw json.RawMessage) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(raw, &fields)
	return fields
}

// FindCustomer tells which customer bears an external id, or bore it when it was deleted. Errors: store.ErrNotFound;
// where there are several, their ids.
func FindCustomer(ctx context.Context, s *store.Store, externalID string) (uuid.UUID, error) {
	ids, err := s.ListCustomersEver(ctx, externalID)
	switch {
	case err != nil:
		return uuid.Nil, err
	case len(ids) == 0:
		return uuid.Nil, fmt.Errorf("a customer with external id %q: %w", externalID, store.ErrNotFound)
	case len(ids) > 1:
		return uuid.Nil, fmt.Errorf("%d customers bear the external id %q, or did: name one by its id: %s", len(ids), externalID, joinedIDs(ids))
	}
	return ids[0], nil
}
