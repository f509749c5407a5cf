package store

import (
	"context"
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
