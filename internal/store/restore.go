package store

import (
	"context"
	"fmt"
)

// changeLeap is by how much ids of changes leap after a restore: more than can have been told since the backup.
const changeLeap = 1_000_000_000

// Doubt notes, of a database that was restored from a backup, what others may know that it does not: Polar may have sessions for
// the requests that wait, which are many, and whoever follows the change feed may have a cursor that is still to come.
func (t *Tx) Doubt(ctx context.Context, word Word) (requests int64, err error) {
	if requests, err = t.q.CheckoutRequestDoubt(ctx, t.tx); err != nil {
		return 0, fmt.Errorf("marking the requests that wait: %w", interpret(err))
	}
	if _, err := t.q.ChangeLeap(ctx, t.tx, changeLeap); err != nil {
		return 0, fmt.Errorf("ending the cursors of the change feed: %w", interpret(err))
	}
	return requests, t.Audit(ctx, word.Deed("mark_restored", "database", map[string]any{"requests": requests}))
}
