package jobs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// mirrored lists the types of objects that have a table of the mirror, in the order in which transactions write them.
var mirrored = func() []string {
	resources := polar.Resources()
	types := make([]string, len(resources))
	for i, r := range resources {
		types[i] = r.Type
	}
	return types
}()

const (
	typeCustomer     = "customer"
	typeCheckout     = "checkout"
	typeOrganization = "organization"
	typeSeat         = "customer_seat"
	eventState       = "customer.state_changed"
)

// mostTogether is how many events one transaction applies: more take longer than they save.
const mostTogether = 512

type applyEventsWorker struct {
	river.WorkerDefaults[ApplyEventsArgs]
	runner *Runner
}

// Work applies the events of one batch, and with them what waits beside it. Where that cannot be done as a whole, the
// batch is applied alone.
func (w *applyEventsWorker) Work(ctx context.Context, job *river.Job[ApplyEventsArgs]) error {
	started := time.Now()
	r := w.runner
	crashpoint.Here("apply.taken")
	events, failed, err := r.applyBatch(ctx, job.Args, job.Attempt)
	if err != nil || events == 0 {
		return err
	}
	crashpoint.Here("apply.committed")
	r.logger.InfoContext(ctx, "events applied", slog.Int64("job", job.ID), slog.Int("events", events), slog.Int("failed", len(failed)),
		slog.Duration("took", time.Since(started)), slog.Duration("waited", started.Sub(job.CreatedAt)))
	return nil
}

// applyBatch tells how many events there were to apply, and which of them failed. What failed before is tried alone: what
// waits beside it may be why.
func (r *Runner) applyBatch(ctx context.Context, args ApplyEventsArgs, attempt int) (events int, failed []EventFailure, err error) {
	var alone []store.Event
	switch {
	case len(args.Events) > 0:
		alone, err = r.store.ListEvents(ctx, args.Events)
	case attempt > 1:
		alone, err = r.store.ListEventsByBatch(ctx, args.Batch)
	default:
		var c *change
		var readAt time.Time
		var beside []string
		err = r.store.InBoundedTx(ctx, r.timing.deadAfter, jobTimeout, func(tx *store.Tx) error {
			taken, err := tx.TakeEvents(ctx, args.Batch, args.Size, r.id, mostTogether)
			if err != nil {
				return err
			}
			readAt, c = time.Now(), decodeEvents(taken)
			crashpoint.Here("apply.read")
			if beside, err = r.tracing.taken(ctx, tx, r.id); err != nil {
				return err
			}
			return r.applyChange(ctx, tx, c)
		})
		if !errors.Is(err, store.ErrRefused) {
			if err != nil {
				return 0, nil, err
			}
			r.observeLag(c.events, readAt)
			r.tracing.applied(ctx, readAt, beside)
			return len(c.events), c.failures(), nil
		}
		alone, err = r.store.ListEventsByBatch(ctx, args.Batch)
	}
	if err != nil || len(alone) == 0 {
		return 0, nil, err
	}
	readAt := time.Now()
	if failed, err = r.applyEvents(ctx, alone); err == nil {
		r.observeLag(alone, readAt)
	}
	return len(alone), failed, err
}

// applyEvents brings events into the mirror in one transaction. What Postgres refuses fails alone, with its reason, and the
// rest applies. It returns those that failed, in order.
func (r *Runner) applyEvents(ctx context.Context, events []store.Event) (failed []EventFailure, err error) {
	err = store.Isolate(events, func(events []store.Event) error {
		c := decodeEvents(events)
		if err := r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyChange(ctx, tx, c) }); err != nil {
			return err
		}
		failed = append(failed, c.failures()...)
		crashpoint.Here("apply.part_committed")
		return nil
	}, func(event store.Event, refused error) error {
		r.logger.WarnContext(ctx, "event refused", slog.String("webhook_id", event.WebhookID), slog.String("type", event.Type), slog.String("error", refused.Error()))
		c := refusedChange(event, refused)
		failed = append(failed, c.failures()...)
		return r.settleRefused(ctx, c)
	})
	return failed, err
}

// refusedChange is the change of one event that Postgres refuses.
func refusedChange(event store.Event, refused error) *change {
	c := decodeEvents([]store.Event{event})
	c.outcomes[0].Error = refused.Error()
	return c
}

// EventFailure is an event that could not be applied.
type EventFailure struct {
	Seq       int64  `json:"seq"`
	WebhookID string `json:"webhook_id"`
	Type      string `json:"type"`
	Error     string `json:"error"`
}

// version is one version of an object, out of one event.
type version struct {
	store.Object
	seq          int64
	changedAt    time.Time
	organization uuid.UUID
	checkout     polar.Checkout // of type checkout only
}

// newerThan orders versions as polar.is_newer does.
func (v *version) newerThan(o *version) bool {
	if v.Deleted != o.Deleted {
		return v.Deleted
	}
	if c := v.VersionAt.Compare(o.VersionAt); c != 0 {
		return c > 0
	}
	if c := v.changedAt.Compare(o.changedAt); c != 0 {
		return c > 0
	}
	if c := cmp.Compare(tieRank(v.checkout.Status), tieRank(o.checkout.Status)); c != 0 {
		return c > 0
	}
	return v.WebhookID > o.WebhookID
}

// ties tells whether no time says which of two versions is the newer.
func (v *version) ties(o *version) bool {
	return v.Deleted == o.Deleted && v.VersionAt.Equal(o.VersionAt) && v.changedAt.Equal(o.changedAt)
}

// tieRank is polar.tie_rank.
func tieRank(status polar.CheckoutStatus) int {
	return 1 + slices.Index([]polar.CheckoutStatus{
		polar.CheckoutStatusOpen, polar.CheckoutStatusConfirmed, polar.CheckoutStatusExpired,
		polar.CheckoutStatusFailed, polar.CheckoutStatusSucceeded,
	}, status)
}

// change is what a batch of events asks of the mirror.
type change struct {
	events   []store.Event
	objects  map[string][]*version // by type
	states   []*version            // customer.state_changed
	outcomes []store.Outcome
}

func (c *change) failures() []EventFailure {
	var failed []EventFailure
	for i, o := range c.outcomes {
		if o.Error != "" {
			failed = append(failed, EventFailure{Seq: o.Seq, WebhookID: c.events[i].WebhookID, Type: c.events[i].Type, Error: o.Error})
		}
	}
	return failed
}

// decodeEvents sorts events by what they speak of. What can never succeed gets its outcome here.
func decodeEvents(events []store.Event) *change {
	c := &change{events: events, objects: map[string][]*version{}}
	for _, e := range events {
		outcome := store.Outcome{Seq: e.Seq}
		if err := c.add(e); err != nil {
			outcome.Error = err.Error()
		}
		c.outcomes = append(c.outcomes, outcome)
	}
	return c
}

func (c *change) add(e store.Event) error {
	objectType, action, _ := strings.Cut(e.Type, ".")
	if !slices.Contains(mirrored, objectType) {
		return nil // stored and acknowledged: there is no table for it
	}
	_, data, err := polar.ScanEvent([]byte(e.Body))
	if err != nil {
		return fmt.Errorf("reading the event: %w", err)
	}
	v := &version{seq: e.Seq}
	var meta polar.Meta
	if objectType == typeCheckout {
		v.checkout, err = polar.DecodeCheckout(data)
		meta = v.checkout.Meta
	} else {
		meta, err = polar.DecodeMeta(data)
	}
	if err != nil {
		return fmt.Errorf("data of %s cannot be mirrored: %w", e.Type, err)
	}
	v.Object = store.Object{
		ID: meta.ID, Doc: polar.StorableJSON(data), VersionAt: e.OccurredAt, WebhookID: e.WebhookID,
		Deleted: action == "deleted" || !meta.DeletedAt.IsZero(),
	}
	v.changedAt = meta.ChangedAt()
	v.organization = organizationOf(meta.OrganizationID)
	if objectType == typeOrganization {
		v.organization = organizationOf(meta.ID.String())
	}
	if e.Type == eventState {
		v.Deleted = false // the overlay carries deleted_at; only the customer itself bears a tombstone
		c.states = append(c.states, v)
		return nil
	}
	c.objects[objectType] = append(c.objects[objectType], v)
	return nil
}

// refuse takes out what is of another organization than the mirror's and gives it its outcome.
func (c *change) refuse(ctx context.Context, tx *store.Tx, g *guard) error {
	sift := func(versions []*version) ([]*version, error) {
		kept := versions[:0]
		for _, v := range versions {
			var other *OtherOrganizationError
			switch err := g.admit(ctx, tx, v.organization, "this event"); {
			case errors.As(err, &other):
				i := slices.IndexFunc(c.outcomes, func(o store.Outcome) bool { return o.Seq == v.seq })
				c.outcomes[i].Error = other.Error()
			case err != nil:
				return nil, err
			default:
				kept = append(kept, v)
			}
		}
		return kept, nil
	}
	var err error
	for _, objectType := range mirrored {
		if c.objects[objectType], err = sift(c.objects[objectType]); err != nil {
			return err
		}
	}
	c.states, err = sift(c.states)
	return err
}

// newest finds the newest version of each object, and those that tie with it but say something else.
func newest(versions []*version) (best []*version, tied []*version) {
	at := map[uuid.UUID]int{}
	for _, v := range versions {
		i, ok := at[v.ID]
		switch {
		case !ok:
			at[v.ID] = len(best)
			best = append(best, v)
		case v.newerThan(best[i]):
			best[i] = v
		}
	}
	for _, v := range versions {
		if b := best[at[v.ID]]; v.ties(b) && !bytes.Equal(v.Doc, b.Doc) {
			tied = append(tied, v)
		}
	}
	return best, tied
}

func objectsOf(versions []*version) []store.Object {
	objects := make([]store.Object, len(versions))
	for i, v := range versions {
		objects[i] = v.Object
	}
	return objects
}

func idsOf(versions []*version) []uuid.UUID {
	ids := make([]uuid.UUID, len(versions))
	for i, v := range versions {
		ids[i] = v.ID
	}
	return ids
}

// applyChange writes a change: the mirror, the requests that follow it, the links that follow from both, the outcomes.
func (r *Runner) applyChange(ctx context.Context, tx *store.Tx, c *change) error {
	if err := c.refuse(ctx, tx, r.guard); err != nil {
		return err
	}
	if err := lockCustomers(ctx, tx, c.objects[typeCustomer], c.states, c.objects[typeCheckout]); err != nil {
		return err
	}
	var toLink []uuid.UUID
	for _, objectType := range mirrored {
		if err := r.mirrorChange(ctx, tx, c, objectType); err != nil {
			return err
		}
		versions := c.objects[objectType]
		switch {
		case objectType == typeCustomer:
			toLink = append(append(toLink, idsOf(versions)...), idsOf(c.states)...)
		case objectType == typeCheckout && len(versions) > 0:
			ids, err := r.followCheckouts(ctx, tx, versions)
			if err != nil {
				return err
			}
			toLink = append(toLink, ids...)
		}
	}
	crashpoint.Here("apply.mirrored")
	if err := r.linkCustomers(ctx, tx, toLink); err != nil {
		return err
	}
	crashpoint.Here("apply.linked")
	if err := r.settle(ctx, tx, c); err != nil {
		return err
	}
	crashpoint.Here("apply.settled")
	return nil
}

// mirrorChange brings into the mirror what a change says of one type of objects.
func (r *Runner) mirrorChange(ctx context.Context, tx *store.Tx, c *change, objectType string) error {
	if objectType == typeCustomer {
		return r.mirrorCustomers(ctx, tx, c.objects[objectType], c.states)
	}
	return r.mirror(ctx, tx, objectType, c.objects[objectType])
}

// lockCustomers takes all customers that versions speak of, in one order and before any row: a customer is written at
// several places, and transactions that meet at two of them would wait for each other in a circle.
func lockCustomers(ctx context.Context, tx *store.Tx, versions ...[]*version) error {
	var keys []string
	for _, v := range slices.Concat(versions...) {
		id := v.ID
		if v.checkout.ID != uuid.Nil {
			id = v.checkout.CustomerID
		}
		if id != uuid.Nil {
			keys = append(keys, customerLock(id))
		}
	}
	return tx.Lock(ctx, keys)
}

// mirror writes the newest versions, and has Polar asked about those that nothing here can tell apart.
func (r *Runner) mirror(ctx context.Context, tx *store.Tx, objectType string, versions []*version) error {
	for len(versions) > 0 {
		best, tied := newest(versions)
		result, err := tx.MirrorObjects(ctx, objectType, store.FromEvent, objectsOf(best), false)
		if err != nil {
			return err
		}
		if err := r.refresh(ctx, tx, objectType, result.Tied); err != nil {
			return err
		}
		versions = tied // each is compared with what is stored now
	}
	return nil
}

func (r *Runner) mirrorCustomers(ctx context.Context, tx *store.Tx, versions, states []*version) error {
	if err := r.mirror(ctx, tx, typeCustomer, versions); err != nil {
		return err
	}
	if len(states) > 0 {
		best, _ := newest(states)
		if err := tx.UpsertCustomerStates(ctx, objectsOf(best)); err != nil {
			return err
		}
	}
	if ids := append(idsOf(versions), idsOf(states)...); len(ids) > 0 {
		return tx.OverlayCustomerStates(ctx, ids)
	}
	return nil
}

// followCheckouts brings requests to what their checkouts say. It returns the customers whose links may follow.
func (r *Runner) followCheckouts(ctx context.Context, tx *store.Tx, versions []*version) ([]uuid.UUID, error) {
	if err := tx.FollowCheckouts(ctx, idsOf(versions)); err != nil {
		return nil, err
	}
	var customers, paid []uuid.UUID
	for _, v := range versions {
		if v.checkout.CustomerID == uuid.Nil {
			continue
		}
		customers = append(customers, v.checkout.CustomerID) // a guest's checkout may speak against a link
		if v.checkout.Status == polar.CheckoutStatusSucceeded && v.checkout.RequestID != uuid.Nil {
			paid = append(paid, v.checkout.CustomerID)
		}
	}
	if len(paid) == 0 {
		return customers, nil
	}
	missing, err := tx.ListMissingCustomers(ctx, paid)
	if err != nil {
		return nil, err
	}
	// Its event is most likely on the way; if it is lost, the link must not wait for a sweep.
	return customers, r.refresh(ctx, tx, typeCustomer, missing)
}

// refresh has objects read from Polar, outside the transaction. Only what Polar has a read for is asked about, and only
// by who can enqueue: a mirror that is rebuilt to be compared asks nothing.
func (r *Runner) refresh(ctx context.Context, tx *store.Tx, objectType string, ids []uuid.UUID) error {
	if r.client == nil || len(ids) == 0 || (objectType != typeCustomer && objectType != typeCheckout) {
		return nil
	}
	var params []river.InsertManyParams
	for _, id := range distinct(ids) { // in one order: equal jobs of two transactions wait for each other
		params = append(params, river.InsertManyParams{
			Args:       RefreshObjectArgs{ObjectType: objectType, ObjectID: id},
			InsertOpts: &river.InsertOpts{ScheduledAt: r.clock.Now().Add(r.timing.refreshDelay)},
		})
	}
	if _, err := r.client.InsertManyTx(ctx, tx.Pgx(), params); err != nil {
		return fmt.Errorf("enqueueing %d reads from Polar: %w", len(params), store.Interpret(err))
	}
	return nil
}

type refreshObjectWorker struct {
	river.WorkerDefaults[RefreshObjectArgs]
	runner *Runner
}

// Work reads one object from Polar into the mirror.
func (w *refreshObjectWorker) Work(ctx context.Context, job *river.Job[RefreshObjectArgs]) error {
	r := w.runner
	ctx = withPriority(ctx, priorityLink)
	if err := r.guard.check(ctx); err != nil {
		return r.later(err)
	}
	var v version
	var err error
	switch id := job.Args.ObjectID; job.Args.ObjectType {
	case typeCustomer:
		var c polar.Customer
		c, err = r.api.GetCustomer(ctx, id)
		v = customerVersion(c)
	case typeCheckout:
		var k polar.Checkout
		k, err = r.api.GetCheckout(ctx, id)
		v = checkoutVersion(k)
	default:
		return river.JobCancel(fmt.Errorf("objects of type %q cannot be read one by one", job.Args.ObjectType))
	}
	if polar.IsNotFound(err) {
		// Not there is a finding, not an error; what it means is for the sweep to decide.
		r.logger.InfoContext(ctx, "object not found at Polar", slog.String("type", job.Args.ObjectType), slog.String("id", job.Args.ObjectID.String()))
		return nil
	}
	if err != nil {
		return r.later(err)
	}
	crashpoint.Here("refresh.read")
	if err := r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyRead(ctx, tx, job.Args.ObjectType, &v) }); err != nil {
		return err
	}
	crashpoint.Here("refresh.stored")
	return nil
}

// later turns an error that only means waiting into a snooze, which uses up no attempt.
func (r *Runner) later(err error) error {
	if wait, ok := waitFor(err); ok {
		return river.JobSnooze(wait)
	}
	return err
}

// waitFor tells how long to wait, where an error means no more than that.
func waitFor(err error) (time.Duration, bool) {
	if used, ok := errors.AsType[*budgetError](err); ok {
		return used.wait, true
	}
	if api, ok := errors.AsType[*polar.APIError](err); ok && polar.IsRateLimited(err) {
		return max(api.RetryAfter, time.Second), true
	}
	return 0, false
}

func customerVersion(c polar.Customer) version {
	return readVersion(c.Meta, c.Raw, c.ReadAt)
}

func checkoutVersion(k polar.Checkout) version {
	v := readVersion(k.Meta, k.Raw, k.ReadAt)
	v.checkout = k
	return v
}

func readVersion(meta polar.Meta, raw json.RawMessage, readAt time.Time) version {
	return version{
		Object:       store.Object{ID: meta.ID, Doc: polar.StorableJSON(raw), VersionAt: readAt, Deleted: !meta.DeletedAt.IsZero()},
		changedAt:    meta.ChangedAt(),
		organization: organizationOf(meta.OrganizationID),
	}
}

// applyRead writes one object as Polar's API showed it by its id, with all that follows.
func (r *Runner) applyRead(ctx context.Context, tx *store.Tx, objectType string, v *version) error {
	return r.applyReads(ctx, tx, objectType, []*version{v}, true)
}

// applyReads writes objects as Polar's API showed them, each once, with all that follows. byID: they were read by
// their ids, which proves that they are alive.
func (r *Runner) applyReads(ctx context.Context, tx *store.Tx, objectType string, versions []*version, byID bool) error {
	for _, v := range versions {
		if err := r.guard.admit(ctx, tx, v.organization, "POLAR_ACCESS_TOKEN"); err != nil {
			return err
		}
	}
	if err := lockCustomers(ctx, tx, versions); err != nil {
		return err
	}
	if _, err := tx.MirrorObjects(ctx, objectType, store.FromRead, objectsOf(versions), byID); err != nil {
		return err
	}
	return r.followReads(ctx, tx, objectType, versions)
}

// followReads brings what hangs off objects that were read to what they say: requests and links.
func (r *Runner) followReads(ctx context.Context, tx *store.Tx, objectType string, versions []*version) error {
	switch objectType {
	case typeCheckout:
		toLink, err := r.followCheckouts(ctx, tx, versions)
		if err != nil {
			return err
		}
		over := slices.DeleteFunc(slices.Clone(versions), func(v *version) bool { return !v.checkout.Status.Terminal() })
		if err := blankCheckouts(ctx, tx, idsOf(over)); err != nil {
			return err
		}
		return r.linkCustomers(ctx, tx, toLink)
	case typeCustomer:
		ids := idsOf(versions)
		if err := tx.OverlayCustomerStates(ctx, ids); err != nil {
			return err
		}
		return r.linkCustomers(ctx, tx, ids)
	}
	return nil
}
