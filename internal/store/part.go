package store

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// part is what a step of the schema brought that a program may meet a schema without: it came before its migration, or at
// work there has not been given its rights yet. What needs the part waits for it, and all else goes on. A new step that what
// receives, applies, links, creates or sweeps is to use gets one here, until the release after.
type part struct {
	name  string
	asks  string      // select a boolean
	there atomic.Bool // once it is, it stays, so nobody asks again
}

type parts struct{ waiting, audit, feed part }

func newParts() *parts {
	return &parts{
		waiting: part{name: "the list of unlinked customers", asks: "select coalesce(has_table_privilege(to_regclass('polar.link_waiting'), 'insert'), false)"},
		audit:   part{name: "the audit trail", asks: "select coalesce(has_table_privilege(to_regclass('polar.audit'), 'select'), false)"},
		feed: part{name: "the change feed", asks: `select coalesce(has_table_privilege(to_regclass('polar.change_due'), 'select'), false)
			and coalesce(has_table_privilege(to_regclass('polar.change_due'), 'insert'), false)
			and to_regprocedure('polar.tell_changes(integer, interval)') is not null`},
	}
}

// isThere asks, in the transaction of who is about to use it.
func (p *part) isThere(ctx context.Context, db dbsqlc.DBTX) (bool, error) {
	if p.there.Load() {
		return true, nil
	}
	var there bool
	if err := db.QueryRow(ctx, p.asks).Scan(&there); err != nil {
		return false, fmt.Errorf("looking for %s: %w", p.name, interpret(err))
	}
	if there {
		p.there.Store(true)
	}
	return there, nil
}
