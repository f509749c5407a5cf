package main

import (
	"fmt"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// secret is an endpoint's, of the kind that Polar generates today.
const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" //nolint:gosec // of this benchmark only

// request is a delivery as it goes over the wire.
type request struct{ head, body []byte }

// signed writes n deliveries of the events, each with an id of its own: with n above their number, bodies come again.
// They are good for the five minutes that a signature is.
func (a *author) signed(events []event, n int) ([]request, error) {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	now := time.Now()
	requests := make([]request, n)
	for i := range requests {
		e := events[i%len(events)]
		id := e.webhookID
		if i >= len(events) {
			id = a.id()
		}
		signature, err := webhook.Sign(id, now, e.body)
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		requests[i] = request{body: e.body, head: appendHead(nil, id, now, signature, len(e.body))}
	}
	return requests, nil
}

// appendHead writes what stands before the body of a delivery.
func appendHead(head []byte, id string, at time.Time, signature string, length int) []byte {
	return fmt.Appendf(head, "POST %s HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: polar.sh webhooks\r\n"+
		"Content-Type: application/json\r\nwebhook-id: %s\r\nwebhook-timestamp: %d\r\nwebhook-signature: %s\r\nContent-Length: %d\r\n\r\n",
		route, id, at.Unix(), signature, length)
}
