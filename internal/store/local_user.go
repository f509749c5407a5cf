package store

import (
	"context"
	"encoding/json"
	"fmt"
)

// LocalUser is a user of the product.
type LocalUser struct {
	ID    string
	Email string
}

// AddLocalUsers adds users where truenorth keeps them itself; one that is there stays as it is.
func (s *Store) AddLocalUsers(ctx context.Context, users []LocalUser) error {
	ids, emails := make([]string, len(users)), make([]string, len(users))
	for i, u := range users {
		ids[i], emails[i] = u.ID, u.Email
	}
	if err := s.q.LocalUserRowInsertMany(ctx, s.pool, ids, emails); err != nil {
		return fmt.Errorf("adding %d local users: %w", len(users), interpret(err))
	}
	return nil
}

// ReadAccess gives what a user may use now: a JSON array with an object for each row of user_access, named as its columns.
// Errors: ErrNotFound where no live local user has the id.
func (s *Store) ReadAccess(ctx context.Context, userID string) (json.RawMessage, error) {
	row, err := s.q.LocalUserAccess(ctx, s.pool, userID)
	if err != nil {
		return nil, fmt.Errorf("reading what a user may use: %w", interpret(err))
	}
	if !row.IsLive {
		return nil, fmt.Errorf("reading what a user may use: %w", ErrNotFound)
	}
	return row.Access, nil
}
