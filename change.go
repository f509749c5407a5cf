package truenorth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ChangeKind says what a Change tells.
type ChangeKind string

// The kinds of changes.
const (
	// ChangeLinked: a customer of Polar's is the user's now.
	ChangeLinked ChangeKind = "linked"
	// ChangeAccessGained: the user may use this, as the Change says. Where Again is true the user had it already, and its
	// end, its product or what it comes from has changed.
	ChangeAccessGained ChangeKind = "access_gained"
	// ChangeAccessLost: the user may use this no longer.
	ChangeAccessLost ChangeKind = "access_lost"
	// ChangeCheckoutSucceeded: a checkout that was asked for has been paid.
	ChangeCheckoutSucceeded ChangeKind = "checkout_succeeded"
)

// AccessKind says what a user may use, as the column kind of polar.user_access does.
type AccessKind string

// The kinds of access.
const (
	AccessSubscription AccessKind = "subscription" // of ObjectID, the subscription
	AccessProduct      AccessKind = "product"      // bought once, with ObjectID, the order
	AccessBenefit      AccessKind = "benefit"      // BenefitID, by ObjectID, the grant
)

// Change is a row of polar.change. What does not belong to its kind is zero.
type Change struct {
	ID          int64 // the cursor: store it in the transaction in which you act on the change
	Kind        ChangeKind
	LocalUserID string    // the product's own user; empty for a checkout that was asked for without one
	CustomerID  uuid.UUID // Polar's customer
	At          time.Time // when it was told, by the database's clock

	// Of access gained and lost. LocalUserID, Access and ObjectID together say which access it is.
	Access         AccessKind
	ObjectID       uuid.UUID // Polar's subscription, order or benefit grant
	ProductID      uuid.UUID // also of a checkout
	BenefitID      uuid.UUID
	SubscriptionID uuid.UUID // that it comes from, if any
	OrderID        uuid.UUID // that it comes from, if any
	Until          time.Time // when it ends as matters stand, or ended; zero while it is to go on
	Again          bool      // gained: the user had it already, and what is said here has changed
	Reason         string    // why, in words; of a link its basis: external_id, checkout or manual

	// Of a checkout that succeeded.
	RequestID  uuid.UUID // as CreateCheckout gave it
	CheckoutID uuid.UUID // Polar's session
	Key        string    // as WithKey gave it; empty: none
}

// What ends Changes besides the database's own errors.
var (
	// ErrChangesRemoved: changes after the cursor have been removed, for they were older than EVENT_RETENTION of the worker,
	// and than seven days; or the database was restored to a time before the cursor. Read what all users may use (polar.told_access) anew, and go on from the newest change of before.
	ErrChangesRemoved = errors.New("changes after the cursor have been removed: read NewestChange, then polar.told_access, and go on from there")
)

const (
	changesPage = 500         // read at once
	changesPoll = time.Second // only the net: notifications wake
)

// Changes gives what happened after a cursor, the ID of the last change that was acted on, and then whatever happens next,
// for ever, in the order of ID. From 0 on it gives all there ever was, as long as that is kept. Any number of readers may follow, each with a cursor of
// its own, and each is told everything: at least once, as who acts on a change and does not get to store its cursor is given
// it again. So store the cursor in the transaction in which you act:
//
//	for change, err := range client.Changes(ctx, cursor) {
//		if err != nil {
//			return err
//		}
//		// begin; act on change; update feed_cursor set id = change.ID; commit
//	}
//
// A lost connection is waited for, and no reason to end. It ends with an error: ctx's own, ErrChangesRemoved, or that of a
// database that refuses to show the feed. Between changes it holds no connection but the one that all who wait on this
// Client listen on. The pool's user needs usage on schema polar and select on polar.change and polar.change_teller, as the
// role polar_app has.
func (c *Client) Changes(ctx context.Context, cursor int64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		notified, stop := c.listener.wait(topic{channel: channelChange}) //nolint:contextcheck // the connection is shared: it outlives this call
		defer stop()
		timer := time.NewTimer(changesPoll)
		defer timer.Stop()
		for {
			page, err := c.readChanges(ctx, cursor)
			if err != nil && ctx.Err() == nil && !passes(err) {
				yield(Change{}, err)
				return
			}
			for _, change := range page {
				if !yield(change, nil) {
					return
				}
				cursor = change.ID
			}
			if len(page) == changesPage {
				continue
			}
			timer.Reset(changesPoll)
			select {
			case <-ctx.Done():
				yield(Change{}, fmt.Errorf("following changes after %d: %w", cursor, ctx.Err()))
				return
			case <-notified:
			case <-timer.C:
			}
		}
	}
}

// NewestChange is the cursor after which nothing has been told yet: for a reader who wants no history. Who reads
// polar.user_access after it misses nothing.
func (c *Client) NewestChange(ctx context.Context) (int64, error) {
	var newest int64
	err := c.pool.QueryRow(ctx, "select greatest(t.removed_until, (select max(c.id) from polar.change c)) from polar.change_teller t").Scan(&newest)
	if err != nil {
		return 0, fmt.Errorf("reading the newest change: %w", err)
	}
	return newest, nil
}

// readChanges gives the next changes after a cursor. Errors: ErrChangesRemoved.
func (c *Client) readChanges(ctx context.Context, cursor int64) ([]Change, error) {
	// One statement sees the changes and how far back they reach at one moment.
	rows, err := c.pool.Query(ctx, `
		select t.removed_until, case when pg_is_in_recovery() then $1 else greatest(t.removed_until, (select max(m.id) from polar.change m)) end,
		       coalesce(c.id, 0), coalesce(c.kind, ''), coalesce(c.local_user_id, ''), coalesce(c.customer_id, $3),
		       coalesce(c.at, '0001-01-01 00:00:00+00'), coalesce(c.access_kind, ''), coalesce(c.object_id, $3), coalesce(c.product_id, $3),
		       coalesce(c.benefit_id, $3), coalesce(c.subscription_id, $3), coalesce(c.order_id, $3),
		       coalesce(c.until, '0001-01-01 00:00:00+00'), coalesce(c.again, false), coalesce(c.reason, ''),
		       coalesce(c.request_id, $3), coalesce(c.checkout_id, $3), coalesce(c.key, '')
		  from polar.change_teller t
		  left join polar.change c on c.id = any (array(select n.id from polar.change n where n.id > $1 order by n.id limit $2))
		 order by c.id`, cursor, changesPage, uuid.Nil)
	if err != nil {
		return nil, fmt.Errorf("reading changes after %d: %w", cursor, err)
	}
	type row struct {
		RemovedUntil int64
		Newest       int64 // unless this is a standby, which lags
		Change
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return nil, fmt.Errorf("reading changes after %d: %w", cursor, err)
	}
	var changes []Change
	for _, r := range found {
		if cursor < r.RemovedUntil {
			return nil, fmt.Errorf("%w: the cursor is %d, and they are kept after %d", ErrChangesRemoved, cursor, r.RemovedUntil)
		}
		if cursor > r.Newest {
			return nil, fmt.Errorf("%w: the cursor is %d, and the newest change is %d, so the database was restored to an earlier time", ErrChangesRemoved, cursor, r.Newest)
		}
		if r.ID != 0 {
			changes = append(changes, r.Change)
		}
	}
	return changes, nil
}

// passes tells whether the same statement may succeed later: Postgres is away, starting or full. What is said neither by
// Postgres nor by the connection to it, such as that the pool is closed, stays so.
func passes(err error) bool {
	var said interface{ SQLState() string }
	if errors.As(err, &said) && len(said.SQLState()) > 2 {
		// Connection, transaction state, rollback, resources, lock, operator, system; as internal/store has it.
		return slices.Contains([]string{"08", "25", "40", "53", "55", "57", "58"}, said.SQLState()[:2])
	}
	var network net.Error
	var unsent interface{ SafeToRetry() bool }
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &unsent) && unsent.SafeToRetry()
}
