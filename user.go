package truenorth

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// LinkUserTx links a new local user to the Polar customer that is theirs, in the caller's transaction, which has written
// the user: whoever paid before signing up has what they paid for the moment that the sign-up commits. It returns how
// many customers were linked at once.
//
// It never waits and needs no Polar. It links only where the worker's rule leaves no doubt; all else is left to the
// worker, which decides within a second or so of the commit, and finds new users within 30 s without being called at
// all. Until the transaction ends, the worker waits with what it hears of that customer, so call it last. The
// transaction's user needs usage on schema polar and execute on polar.link_user.
func (c *Client) LinkUserTx(ctx context.Context, tx pgx.Tx, userID string) (linked int, err error) {
	return linkUser(ctx, tx, userID)
}

// LinkUser is LinkUserTx in a transaction of its own, for a user whose sign-up has committed.
func (c *Client) LinkUser(ctx context.Context, userID string) (linked int, err error) {
	return linkUser(ctx, c.pool, userID)
}

func linkUser(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, userID string,
) (linked int, err error) {
	sql, args := withinTrace(ctx, "-- name: LinkUser :one\nselect polar.link_user($1::text)", userID)
	if err := db.QueryRow(ctx, sql, args...).Scan(&linked); err != nil {
		return 0, fmt.Errorf("linking local user %q: %w", userID, err)
	}
	return linked, nil
}
