package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
)

// Rotation is the change of an endpoint's secret without losing an event. Polar's own reset cuts at once, so a second
// endpoint is made at the same URL: Polar sends every event to both, and only when the new one's arrive does the old
// one go.
type Rotation struct {
	URL string
	New polar.Endpoint   // the newest
	Old []polar.Endpoint // those before it, oldest first
}

// RotationUnderWayError tells that there are two endpoints already.
type RotationUnderWayError struct{ Rotation Rotation }

func (e *RotationUnderWayError) Error() string {
	return fmt.Sprintf("a rotation is under way: endpoint %s was made at %s; give its secret, as Polar's settings show it, to ingest beside the old one, and finish it",
		e.Rotation.New.ID, e.Rotation.New.CreatedAt.UTC().Format(time.RFC3339))
}

// FindRotation reads the endpoints of format raw at our URL. Without Old none is under way.
func FindRotation(ctx context.Context, api *polar.API, endpointURL string) (Rotation, error) {
	all, readAt, err := api.ListEndpoints(ctx)
	if err != nil {
		return Rotation{}, fmt.Errorf("listing Polar's endpoints: %w", err)
	}
	report := judgeEndpoints(all, endpointURL, readAt)
	if report.URL == "" {
		return Rotation{}, fmt.Errorf("%s: %s", report.Findings[0].Detail, report.Findings[0].Advice)
	}
	raw := slices.DeleteFunc(report.Endpoints, func(e polar.Endpoint) bool { return e.Format != polar.FormatRaw })
	if len(raw) == 0 {
		return Rotation{}, fmt.Errorf("Polar has no endpoint of format raw with the URL %s: make one with truenorth endpoint create", shownURL(report.URL)) //nolint:staticcheck // a name begins it
	}
	last := len(raw) - 1
	return Rotation{URL: report.URL, New: raw[last], Old: raw[:last]}, nil
}

// StartRotation makes the second endpoint. Errors: *RotationUnderWayError.
func StartRotation(ctx context.Context, api *polar.API, endpointURL string) (Rotation, error) {
	found, err := FindRotation(ctx, api, endpointURL)
	if err != nil {
		return Rotation{}, err
	}
	if len(found.Old) > 0 {
		return Rotation{}, &RotationUnderWayError{found}
	}
	// What the old one is sent and this release does not know is kept.
	events := distinctTexts(slices.Concat(polar.EventTypes(), found.New.Events))
	created, err := api.CreateEndpoint(ctx, polar.EndpointCreate{URL: found.New.URL, Name: found.New.Name, Events: events})
	if err != nil {
		return Rotation{}, unclearWrite("creating the second endpoint", err)
	}
	return Rotation{URL: found.URL, New: created, Old: []polar.Endpoint{found.New}}, nil
}

// CreateEndpoint makes the first endpoint at our URL.
func CreateEndpoint(ctx context.Context, api *polar.API, endpointURL, name string) (polar.Endpoint, error) {
	all, _, err := api.ListEndpoints(ctx)
	if err != nil {
		return polar.Endpoint{}, fmt.Errorf("listing Polar's endpoints: %w", err)
	}
	if there := endpointsAt(all, endpointURL); len(there) > 0 {
		return polar.Endpoint{}, fmt.Errorf("endpoint %s has the URL %s already: see truenorth endpoint check, or change its secret with truenorth endpoint rotate", there[0].ID, shownURL(endpointURL))
	}
	created, err := api.CreateEndpoint(ctx, polar.EndpointCreate{URL: endpointURL, Name: name, Events: polar.EventTypes()})
	if err != nil {
		return polar.Endpoint{}, unclearWrite("creating the endpoint", err)
	}
	return created, nil
}

// unclearWrite says what to do where it is not known what Polar did.
func unclearWrite(what string, err error) error {
	if polar.OutcomeUnknown(err) {
		return fmt.Errorf("%s: Polar may have done it, so look with truenorth endpoint check before doing it again: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// probes is how often a URL is probed: behind it there may be several ingests, and each has to have the secret.
const probes = 8

// CheckAccepted tells whether ingest accepts the new endpoint's secret. Errors: *ProbeError.
func (x Rotation) CheckAccepted(ctx context.Context) error {
	for range probes {
		if err := ProbeEndpoint(ctx, x.New); err != nil {
			return err
		}
	}
	return nil
}

// FinishOptions say how to finish a rotation.
type FinishOptions struct {
	NoProbe  bool          // the URL cannot be reached from here: a delivery of Polar's alone is the proof
	Force    bool          // the old endpoint goes even if some events cannot be delivered
	Patience time.Duration // how long to wait until redelivered events have arrived
	Settle   time.Duration // how long the old endpoint has for what only it was to be sent, where the new one had to be enabled
	Progress func(string)  // is told what is being done

	// Unknown, if set, tells which of these events are not in the database: those that are need not arrive any more.
	Unknown func(ctx context.Context, webhookIDs []string) ([]string, error)
}

// Finished is what finishing a rotation did.
type Finished struct {
	EndpointID  uuid.UUID   `json:"endpoint_id"` // the one that stays
	Deleted     []uuid.UUID `json:"deleted"`
	Redelivered int         `json:"redelivered"` // events that had not arrived
	Undelivered int         `json:"undelivered"` // of those, never did: only with Force
}

// FinishRotation deletes the old endpoint once the new one does all that it did: it is sent every type of event, ingest
// accepts its secret, and no event that either was to be sent is left. Without a second endpoint it does nothing.
func FinishRotation(ctx context.Context, api *polar.API, endpointURL string, options FinishOptions) (Finished, error) {
	x, err := FindRotation(ctx, api, endpointURL)
	if err != nil {
		return Finished{}, err
	}
	done := Finished{EndpointID: x.New.ID, Deleted: []uuid.UUID{}}
	if len(x.Old) == 0 {
		return done, nil
	}
	if missing := eventsMissing([]polar.Endpoint{x.New}); len(missing) > 0 {
		return done, fmt.Errorf("the new endpoint %s is not sent %v: check all its events in Polar's settings", x.New.ID, missing)
	}
	if !options.NoProbe {
		options.Progress("trying the new secret at " + shownURL(x.URL))
		if err := x.CheckAccepted(ctx); err != nil {
			return done, fmt.Errorf("the new secret is not in use yet: %w (set POLAR_WEBHOOK_SECRETS to both secrets and restart every ingest; if only this machine cannot reach it, give --no-probe)", err)
		}
	}
	if !x.New.Enabled {
		// Polar gave up on it while ingest did not have its secret.
		options.Progress("enabling the new endpoint, which Polar has disabled")
		if _, err := api.UpdateEndpoint(ctx, x.New.ID, polar.EndpointUpdate{Enabled: new(true)}); err != nil {
			return done, fmt.Errorf("enabling endpoint %s: %w", x.New.ID, err)
		}
		x.New.Enabled = true
		// What happened before is on its way to the old endpoint alone, and in no list until its first delivery.
		options.Progress(fmt.Sprintf("giving the old endpoint %s for what only it was to be sent", options.Settle))
		if err := pause(ctx, options.Settle); err != nil {
			return done, err
		}
	}
	if err := x.redeliver(ctx, api, options, &done); err != nil {
		return done, err
	}
	if options.NoProbe {
		if err := x.requireDelivery(ctx, api); err != nil {
			return done, err
		}
	}
	for _, old := range x.Old {
		options.Progress(fmt.Sprintf("deleting the old endpoint %s", old.ID))
		if err := api.DeleteEndpoint(ctx, old.ID); err != nil && !polar.IsNotFound(err) {
			return done, fmt.Errorf("deleting the old endpoint %s: %w", old.ID, err)
		}
		done.Deleted = append(done.Deleted, old.ID)
	}
	return done, nil
}

// rotationLookBack is for what only the old one was to be sent, and is still on the way.
const rotationLookBack = 24 * time.Hour

// redeliver has Polar send again what has not arrived from either endpoint, and waits until it has.
func (x Rotation) redeliver(ctx context.Context, api *polar.API, options FinishOptions, done *Finished) error {
	giveUp := time.Now().Add(options.Patience)
	asked := map[uuid.UUID]bool{}
	const firstPause, longestPause = 250 * time.Millisecond, 8 * time.Second // each look is several calls
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		left, stuck, err := x.undelivered(ctx, api)
		if err != nil {
			return err
		}
		for _, event := range left {
			if asked[event.ID] {
				continue
			}
			if len(asked) == 0 {
				options.Progress("having Polar send again what has not arrived")
			}
			asked[event.ID] = true
			if err := patiently(ctx, func() error { return api.RedeliverEvent(ctx, event.ID) }); err != nil {
				return fmt.Errorf("redelivering event %s: %w", event.ID, err)
			}
			done.Redelivered++
		}
		if len(left) == 0 || time.Now().After(giveUp) {
			return options.leave(ctx, append(left, stuck...), done)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// leave decides whether events that have not arrived may be left behind.
func (o FinishOptions) leave(ctx context.Context, events []polar.DeliveredEvent, done *Finished) error {
	if len(events) > 0 && o.Unknown != nil {
		ids := make([]string, len(events))
		for i, event := range events {
			ids[i] = event.ID.String()
		}
		unknown, err := o.Unknown(ctx, ids)
		if err != nil {
			return err
		}
		events = slices.DeleteFunc(events, func(event polar.DeliveredEvent) bool { return !slices.Contains(unknown, event.ID.String()) })
	}
	if done.Undelivered = len(events); len(events) == 0 || o.Force {
		return nil
	}
	return fmt.Errorf("%d events have not arrived yet, such as %s of type %s: see why in Polar's settings and finish again (with DATABASE_URL set they are taken from Polar's list), or give --force to leave them to sweeps",
		len(events), events[0].ID, events[0].Type)
}

// undelivered are the events that Polar tried to deliver, and none of whose deliveries succeeded; stuck are those of
// endpoints that are disabled, to which Polar sends nothing again.
func (x Rotation) undelivered(ctx context.Context, api *polar.API) (left, stuck []polar.DeliveredEvent, err error) {
	for _, e := range append(slices.Clone(x.Old), x.New) {
		seen := map[uuid.UUID]bool{}
		err := x.walkDeliveries(ctx, api, e.ID, x.New.CreatedAt.Add(-rotationLookBack), false, func(deliveries []polar.Delivery) error {
			for _, d := range deliveries {
				switch {
				case seen[d.Event.ID], d.Event.Succeeded, d.Event.Archived:
				case e.Enabled:
					left = append(left, d.Event)
				default:
					stuck = append(stuck, d.Event)
				}
				seen[d.Event.ID] = true
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return left, stuck, nil
}

var errEnough = errors.New("seen enough")

// requireDelivery makes sure that Polar has delivered something with the new secret.
func (x Rotation) requireDelivery(ctx context.Context, api *polar.API) error {
	err := x.walkDeliveries(ctx, api, x.New.ID, x.New.CreatedAt.Add(-clockSlack), true, func(deliveries []polar.Delivery) error {
		if len(deliveries) > 0 {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err != nil:
		return err
	}
	return errors.New("Polar has not delivered anything to the new endpoint yet, so nothing shows that ingest accepts its secret: finish later, or without --no-probe") //nolint:staticcheck // a name begins it
}

func (x Rotation) walkDeliveries(ctx context.Context, api *polar.API, endpoint uuid.UUID, from time.Time, succeeded bool, take func([]polar.Delivery) error) error {
	var now time.Time // by Polar's clock
	err := patiently(ctx, func() (err error) {
		_, now, err = api.ListEndpoints(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("asking for Polar's time: %w", err)
	}
	if oldest := now.Add(-retention); from.Before(oldest) {
		from = oldest
	}
	list := deliveryList{api: api, endpoints: []uuid.UUID{endpoint}, succeeded: succeeded, call: patiently}
	return list.walk(ctx, from, now, take, func(time.Time) error { return nil })
}
