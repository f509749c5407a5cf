package polar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Delivery is one attempt of Polar's to send an event.
type Delivery struct {
	ID        uuid.UUID
	CreatedAt time.Time
	Succeeded bool
	Status    int // HTTP status of the answer; 0 if there was none
	Event     DeliveredEvent
}

// DeliveredEvent is the event of a delivery, as it is by now.
type DeliveredEvent struct {
	ID        uuid.UUID // the webhook-id of each of its deliveries
	Type      string
	CreatedAt time.Time
	Succeeded bool   // some delivery succeeded
	Exhausted bool   // all deliveries failed, and no more will be made
	Skipped   bool   // the endpoint was disabled before it could be delivered
	Archived  bool   // too old: it cannot be redelivered, and Payload is nil
	Payload   []byte // the body of each of its deliveries, byte for byte; nil if Polar does not say
}

// DeliveryFilter says which deliveries to list. Polar's list of all of them is
// known to time out, so both ends of a period are required; each may or may
// not be part of it.
type DeliveryFilter struct {
	From, Until time.Time
	Endpoints   []uuid.UUID // of any of these; empty: of all
	Succeeded   *bool       // nil: all
	Page        int         // from 1, which is the default
	Limit       int         // default and maximum: [MaxPageSize]
}

// polarTime is as exact as Polar's own times.
const polarTime = "2006-01-02T15:04:05.999999Z07:00"

// ListDeliveries reads a page of deliveries, newest first.
func (a *API) ListDeliveries(ctx context.Context, filter DeliveryFilter) (Page[Delivery], error) {
	if filter.From.IsZero() || !filter.From.Before(filter.Until) {
		return Page[Delivery]{}, errors.New("listing deliveries: a period is needed, from one time until a later one")
	}
	query := pageQuery(filter.Page, filter.Limit, "")
	query.Set("start_timestamp", filter.From.UTC().Format(polarTime))
	query.Set("end_timestamp", filter.Until.UTC().Format(polarTime))
	for _, endpoint := range filter.Endpoints {
		query.Add("endpoint_id", endpoint.String())
	}
	if filter.Succeeded != nil {
		query.Set("succeeded", strconv.FormatBool(*filter.Succeeded))
	}
	c := a.newCall(http.MethodGet, "/webhooks/deliveries")
	c.query = query
	return fetchPage(ctx, a, c, readDelivery)
}

// RedeliverEvent has Polar send an event again, with the same webhook-id. Of
// an event that Polar does not know, or has archived, the error is an
// [IsNotFound] or an [IsValidation].
func (a *API) RedeliverEvent(ctx context.Context, webhookID uuid.UUID) error {
	_, err := a.do(ctx, a.newCall(http.MethodPost, "/webhooks/events/{id}/redeliver", webhookID.String()))
	return err
}

func readDelivery(raw json.RawMessage, _ time.Time) (Delivery, error) {
	meta, fields, err := decodeObject(raw)
	if err != nil {
		return Delivery{}, fmt.Errorf("decoding delivery: %w", err)
	}
	eventMeta, event, err := decodeObject(fields["webhook_event"])
	if err != nil {
		return Delivery{}, fmt.Errorf("decoding the event of delivery %s: %w", meta.ID, err)
	}
	delivery := Delivery{
		ID:        meta.ID,
		CreatedAt: meta.CreatedAt,
		Succeeded: fields.is("succeeded", true),
		Event: DeliveredEvent{
			ID:        eventMeta.ID,
			Type:      event.text("type"),
			CreatedAt: eventMeta.CreatedAt,
			Succeeded: event.is("succeeded", true),
			Exhausted: event.is("succeeded", false),
			Skipped:   event.is("skipped", true),
			Archived:  event.is("is_archived", true),
		},
	}
	delivery.Status, _ = strconv.Atoi(string(fields["http_code"])) // no number: no answer
	var payload *string
	if err := json.Unmarshal(event["payload"], &payload); err == nil && payload != nil {
		delivery.Event.Payload = []byte(*payload)
	}
	return delivery, nil
}
