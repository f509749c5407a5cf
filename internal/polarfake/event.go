package polarfake

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// EventState is what became of an event.
type EventState string

// The states of an event.
const (
	EventPending   EventState = "pending"   // deliveries are under way, or due
	EventSucceeded EventState = "succeeded" // an answer of 2xx came
	EventFailed    EventState = "failed"    // all ten deliveries failed
	EventSkipped   EventState = "skipped"   // the endpoint was disabled before
	EventDropped   EventState = "dropped"   // a fault kept it back
)

// Event is an event as it was recorded for one endpoint.
type Event struct {
	ID         string          `json:"id"` // webhook-id of each of its deliveries
	EndpointID string          `json:"endpoint_id"`
	Type       string          `json:"type"`
	ObjectID   string          `json:"object_id"` // data.id
	CreatedAt  time.Time       `json:"created_at"`
	State      EventState      `json:"state"`
	Deliveries int             `json:"deliveries"`
	Payload    json.RawMessage `json:"payload"` // the body, byte for byte
}

type event struct {
	id         string
	eventType  string
	objectID   string
	apiVersion string
	endpoint   *endpoint
	payload    []byte
	createdAt  timestamp
	modifiedAt *timestamp
	succeeded  *bool
	skipped    bool
	lastCode   *int
	deliveries int

	order      int64     // of recording
	fault      FaultKind // what a fault does to the first delivery
	held       bool      // overtaken by those behind it, until released
	chains     int       // runs of deliveries under way
	generation int       // counts the times that its chains were called off
}

// Events returns all events that were recorded, oldest first. None is while an endpoint is disabled.
func (f *Fake) Events() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()

	recorded := make([]Event, len(f.events))
	for i, ev := range f.events {
		recorded[i] = ev.snapshot()
	}
	return recorded
}

// WaitIdle returns once no event is waiting for a delivery.
func (f *Fake) WaitIdle(ctx context.Context) error {
	if err := f.await(ctx, func() bool { return f.pending == 0 }); err != nil {
		return fmt.Errorf("waiting for the sender to be idle: %w", err)
	}
	return nil
}

// WaitEvent returns the first event, in the order of recording, that the predicate is true of, when there is one.
// The predicate must not call the fake.
func (f *Fake) WaitEvent(ctx context.Context, predicate func(Event) bool) (Event, error) {
	var match Event
	err := f.await(ctx, func() bool {
		for _, ev := range f.events {
			if snapshot := ev.snapshot(); predicate(snapshot) {
				match = snapshot
				return true
			}
		}
		return false
	})
	if err != nil {
		return Event{}, fmt.Errorf("waiting for an event: %w", err)
	}
	return match, nil
}

func (ev *event) snapshot() Event {
	return Event{
		ID: ev.id, EndpointID: ev.endpoint.ID, Type: ev.eventType, ObjectID: ev.objectID, CreatedAt: ev.createdAt.Time,
		State: ev.state(), Deliveries: ev.deliveries, Payload: ev.payload,
	}
}

func (ev *event) state() EventState {
	switch {
	case ev.succeeded != nil && *ev.succeeded:
		return EventSucceeded
	case ev.succeeded != nil:
		return EventFailed
	case ev.skipped:
		return EventSkipped
	case ev.fault == FaultEventDrop:
		return EventDropped
	}
	return EventPending
}
