package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// RecentRequest is a checkout request as a list shows it: without its params.
type RecentRequest struct {
	ID                 uuid.UUID
	ExternalCustomerID string // the local user it is for; empty: none
	State              string
	URL                string     // empty until there is a session; good only while State is open and before ExpiresAt
	ExpiresAt          *time.Time // nil until there is a session
	Error              string
	CreatedAt          time.Time
}

// ListRecentRequests reads up to limit checkout requests, newest first.
func (s *Store) ListRecentRequests(ctx context.Context, limit int32) ([]RecentRequest, error) {
	rows, err := s.q.CheckoutRequestListRecent(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent checkout requests: %w", interpret(err))
	}
	requests := make([]RecentRequest, len(rows))
	for i, r := range rows {
		requests[i] = RecentRequest(r)
	}
	return requests, nil
}

// RecentLink is a link as a list shows it, with the customer's e-mail.
type RecentLink struct {
	CustomerID  uuid.UUID
	Email       string // empty where Polar has none, or the customer is not mirrored
	LocalUserID string
	Basis       string
	LinkedAt    time.Time
}

// ListRecentLinks reads up to limit links, newest first.
func (s *Store) ListRecentLinks(ctx context.Context, limit int32) ([]RecentLink, error) {
	rows, err := s.q.CustomerLinkListRecent(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent links: %w", interpret(err))
	}
	links := make([]RecentLink, len(rows))
	for i, r := range rows {
		links[i] = RecentLink(r)
	}
	return links, nil
}

// RecentEvent is an event as a list shows it: nothing of its content.
type RecentEvent struct {
	WebhookID  string
	Type       string
	State      string // received, failed or applied
	ReceivedAt time.Time
}

// ListRecentEvents reads up to limit events, the last received first.
func (s *Store) ListRecentEvents(ctx context.Context, limit int32) ([]RecentEvent, error) {
	rows, err := s.q.EventListRecent(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent events: %w", interpret(err))
	}
	events := make([]RecentEvent, len(rows))
	for i, r := range rows {
		events[i] = RecentEvent(r)
	}
	return events, nil
}

// ListLocalUsers reads up to limit users that are not deleted, by their ids.
func (s *Store) ListLocalUsers(ctx context.Context, limit int32) ([]LocalUser, error) {
	rows, err := s.q.LocalUserList(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading local users: %w", interpret(err))
	}
	users := make([]LocalUser, len(rows))
	for i, r := range rows {
		users[i] = LocalUser(r)
	}
	return users, nil
}

// Purchase is a checkout request with what became of its buyer.
type Purchase struct {
	RequestID          uuid.UUID
	State              string     // the request's
	ExternalCustomerID string     // the local user it was made for; empty: none
	CustomerID         *uuid.UUID // who bought, once Polar has told
	LinkedUserID       string     // the local user that customer is linked to; empty: none
	LinkedBasis        string     // empty: not linked
	InConflict         bool       // an open conflict is about that customer
	UpdatedAt          time.Time  // when the request last changed
}

// GetPurchase reads the request that has this checkout session. Errors: ErrNotFound.
func (s *Store) GetPurchase(ctx context.Context, checkoutID uuid.UUID) (Purchase, error) {
	row, err := s.q.PurchaseGet(ctx, s.pool, checkoutID)
	if err != nil {
		return Purchase{}, fmt.Errorf("reading the purchase of checkout %s: %w", checkoutID, interpret(err))
	}
	return Purchase(row), nil
}
