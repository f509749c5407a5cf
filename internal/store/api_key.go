package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// APIKey is a key of an app's, without the key.
type APIKey struct {
	Name       string     `json:"name"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"` // to the minute; null if never
	RevokedAt  *time.Time `json:"revoked_at"`   // null while it opens the door
}

// InsertAPIKey stores the SHA-256 of a key, and notes who made it. It reports false where a live key has the name. Errors:
// ErrRefused for a name that is empty or of over 100 characters.
func (s *Store) InsertAPIKey(ctx context.Context, name string, hash [32]byte, word Word) (stored bool, err error) {
	err = s.InTx(ctx, func(t *Tx) error {
		n, err := t.q.APIKeyInsert(ctx, t.tx, name, hash[:])
		if err != nil {
			return fmt.Errorf("storing a key for %q: %w", name, interpret(err))
		}
		if stored = n == 1; !stored {
			return nil
		}
		return t.Audit(ctx, word.Deed("create_key", keySubject(name), nil))
	})
	return stored, err
}

func keySubject(name string) string { return "key " + name }

// ListAPIKeys reads all keys, those that are revoked last.
func (s *Store) ListAPIKeys(ctx context.Context) ([]APIKey, error) {
	rows, err := s.q.APIKeyList(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", interpret(err))
	}
	keys := make([]APIKey, len(rows))
	for i, row := range rows {
		keys[i] = APIKey(row)
	}
	return keys, nil
}

// RevokeAPIKey makes the live key of this name open nothing, from the next request on, and notes who did. Errors: ErrNotFound.
func (s *Store) RevokeAPIKey(ctx context.Context, name string, word Word) error {
	return s.InTx(ctx, func(t *Tx) error {
		n, err := t.q.APIKeyRevoke(ctx, t.tx, name)
		if err != nil {
			return fmt.Errorf("revoking the key of %q: %w", name, interpret(err))
		}
		if n == 0 {
			return fmt.Errorf("no live key is named %q: %w", name, ErrNotFound)
		}
		return t.Audit(ctx, word.Deed("revoke_key", keySubject(name), nil))
	})
}

// UseAPIKey gives the name of the live key with this SHA-256, and notes its use. It reports false where there is none.
func (s *Store) UseAPIKey(ctx context.Context, hash [32]byte) (name string, live bool, err error) {
	name, err = s.q.APIKeyUse(ctx, s.pool, hash[:])
	switch err = interpret(err); {
	case errors.Is(err, ErrNotFound):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("looking for a key: %w", err)
	}
	return name, true, nil
}
