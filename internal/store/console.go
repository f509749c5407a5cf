package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// RecentEvent is an event as a list shows it: never its body.
type RecentEvent struct {
	WebhookID  string
	Type       string
	State      string
	ReceivedAt time.Time
	Error      string
}

// ListRecentEvents reads the newest events.
func (s *Store) ListRecentEvents(ctx context.Context, limit int32) ([]RecentEvent, error) {
	rows, err := s.q.ConsoleRecentEvents(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent events: %w", interpret(err))
	}
	events := make([]RecentEvent, len(rows))
	for i, r := range rows {
		events[i] = RecentEvent(r)
	}
	return events, nil
}

// RecentLink is a link as a list shows it.
type RecentLink struct {
	CustomerID  uuid.UUID
	Email       string
	LocalUserID string
	Basis       string
	LinkedAt    time.Time
}

// ListRecentLinks reads the newest links.
func (s *Store) ListRecentLinks(ctx context.Context, limit int32) ([]RecentLink, error) {
	rows, err := s.q.ConsoleRecentLinks(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent links: %w", interpret(err))
	}
	links := make([]RecentLink, len(rows))
	for i, r := range rows {
		links[i] = RecentLink(r)
	}
	return links, nil
}

// ListRecentRequests reads the newest checkout requests.
func (s *Store) ListRecentRequests(ctx context.Context, limit int32) ([]CheckoutRequest, error) {
	rows, err := s.q.ConsoleRecentRequests(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent checkout requests: %w", interpret(err))
	}
	requests := make([]CheckoutRequest, len(rows))
	for i, r := range rows {
		requests[i] = CheckoutRequest(r)
	}
	return requests, nil
}

// ListLocalUsers reads living local users by their ids.
func (s *Store) ListLocalUsers(ctx context.Context, limit int32) ([]LocalUser, error) {
	rows, err := s.q.ConsoleLocalUsers(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading local users: %w", interpret(err))
	}
	users := make([]LocalUser, len(rows))
	for i, r := range rows {
		users[i] = LocalUser(r)
	}
	return users, nil
}
