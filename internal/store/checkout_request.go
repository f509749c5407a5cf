package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// States of a checkout request.
const (
	RequestQueued    = "queued"
	RequestCreating  = "creating"
	RequestOpen      = "open"
	RequestConfirmed = "confirmed"
	RequestSucceeded = "succeeded"
	RequestExpired   = "expired"
	RequestFailed    = "failed"
)

// CheckoutRequest is a row of checkout_request; in JSON it has the table's column names.
type CheckoutRequest struct {
	ID                 uuid.UUID       `json:"id"`
	Key                *string         `json:"key"`
	ExternalCustomerID *string         `json:"external_customer_id"`
	Params             json.RawMessage `json:"params"`
	State              string          `json:"state"`
	CheckoutID         *uuid.UUID      `json:"checkout_id"`
	URL                *string         `json:"url"`
	ExpiresAt          *time.Time      `json:"expires_at"`
	Error              *string         `json:"error"`
	CreatedAt          time.Time       `json:"created_at"`
	UpdatedAt          time.Time       `json:"updated_at"`
}

// GetCheckoutRequest reads a request. Errors: ErrNotFound.
func (s *Store) GetCheckoutRequest(ctx context.Context, id uuid.UUID) (CheckoutRequest, error) {
	row, err := s.q.CheckoutRequestGet(ctx, s.pool, id)
	if err != nil {
		return CheckoutRequest{}, fmt.Errorf("reading checkout request %s: %w", id, interpret(err))
	}
	return CheckoutRequest(row), nil
}

// AskForCheckout writes a request and its job; an empty key is none. isNew is false where a live request has the key: that one
// is given. Errors: ErrRefused where params cannot be right.
func (s *Store) AskForCheckout(ctx context.Context, params json.RawMessage, key string) (request CheckoutRequest, isNew bool, err error) {
	err = s.InTx(ctx, func(t *Tx) error {
		id, err := t.CreateCheckoutRequest(ctx, params, key)
		if err != nil {
			return err
		}
		row, err := t.q.CheckoutRequestGet(ctx, t.tx, id)
		if err != nil {
			return fmt.Errorf("reading checkout request %s: %w", id, interpret(err))
		}
		request = CheckoutRequest(row)
		if isNew, err = t.q.CheckoutRequestIsNew(ctx, t.tx, id); err != nil {
			return fmt.Errorf("reading checkout request %s: %w", id, interpret(err))
		}
		return nil
	})
	return request, isNew, err
}

// CreateCheckoutRequest asks for a checkout in this transaction, as polar.create_checkout does. Errors: ErrRefused.
func (t *Tx) CreateCheckoutRequest(ctx context.Context, params json.RawMessage, key string) (uuid.UUID, error) {
	if err := t.carryTrace(ctx); err != nil {
		return uuid.Nil, err
	}
	row, err := t.q.CheckoutRequestCreate(ctx, t.tx, params, orNil(key))
	if err != nil {
		return uuid.Nil, fmt.Errorf("creating a checkout request: %w", interpret(err))
	}
	return row.ID, nil
}

// LockRetried holds a request, and gives the live one that a person asked for in its place; zero where there is none.
func (t *Tx) LockRetried(ctx context.Context, id uuid.UUID) (uuid.UUID, error) {
	again, err := t.q.CheckoutRequestLockRetried(ctx, t.tx, id)
	if err != nil {
		return uuid.Nil, fmt.Errorf("looking for who took the place of checkout request %s: %w", id, interpret(err))
	}
	return again, nil
}

// WakeCheckoutJob makes the job of a request due now. It reports false where no job of it waits.
func (t *Tx) WakeCheckoutJob(ctx context.Context, id uuid.UUID) (bool, error) {
	n, err := t.q.CheckoutRequestWakeJob(ctx, t.tx, id)
	if err != nil {
		return false, fmt.Errorf("waking the job of checkout request %s: %w", id, interpret(err))
	}
	return n > 0, nil
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// EnsureCheckoutRequest writes the row of a request that an app enqueued by River itself. It reports false where
// another live request has the key: then this one is that one.
func (s *Store) EnsureCheckoutRequest(ctx context.Context, id uuid.UUID, key string, params json.RawMessage, jobID int64) (bool, error) {
	n, err := s.q.CheckoutRequestInsert(ctx, s.pool, dbsqlc.CheckoutRequestInsertParams{ID: id, Key: orNil(key), Params: params, JobID: jobID})
	if err != nil {
		return false, fmt.Errorf("inserting checkout request %s: %w", id, interpret(err))
	}
	return n == 1, nil
}

// InsertFailedCheckoutRequest records a request that could not be taken at all.
func (s *Store) InsertFailedCheckoutRequest(ctx context.Context, id uuid.UUID, params json.RawMessage, reason string, jobID int64) error {
	err := s.q.CheckoutRequestInsertFailed(ctx, s.pool, dbsqlc.CheckoutRequestInsertFailedParams{ID: id, Params: params, Error: storableText(reason), JobID: jobID})
	if err != nil {
		return fmt.Errorf("recording failed checkout request %s: %w", id, interpret(err))
	}
	return nil
}

// Claim is one try's hold on a request.
type Claim struct {
	ID           uuid.UUID
	Attempt      int32 // the fence
	Params       json.RawMessage
	SentCustomer uuid.UUID     // the customer an earlier try's call was made with; zero if none
	Unresolved   bool          // an earlier try's call to create the session has no known outcome
	PostedAgo    time.Duration // how long ago that call began
	Overdue      bool          // first tried longer ago than our patience
	LastError    string        // what the try before said; empty if there was none
}

// ClaimCheckoutRequest takes a request for one try. Errors: ErrNotFound where it is not there, over, or held by another.
func (s *Store) ClaimCheckoutRequest(ctx context.Context, id uuid.UUID, jobID int64, lease, patience time.Duration) (Claim, error) {
	row, err := s.q.CheckoutRequestClaim(ctx, s.pool, dbsqlc.CheckoutRequestClaimParams{ID: id, JobID: jobID, Lease: lease, Patience: patience})
	if err != nil {
		return Claim{}, fmt.Errorf("claiming checkout request %s: %w", id, interpret(err))
	}
	claim := Claim{
		ID: id, Attempt: row.Attempt, Params: row.Params, Overdue: row.Overdue, LastError: row.LastError,
		Unresolved: row.PostedAt != nil, PostedAgo: time.Duration(row.PostedSecondsAgo * float64(time.Second)),
	}
	if row.CustomerID != nil {
		claim.SentCustomer = *row.CustomerID
	}
	return claim, nil
}

// HeldFor tells what keeps a request from being claimed: its state, and how long another try may still hold it.
func (s *Store) HeldFor(ctx context.Context, id uuid.UUID) (state string, remaining time.Duration, err error) {
	row, err := s.q.CheckoutRequestHeldFor(ctx, s.pool, id)
	if err != nil {
		return "", 0, fmt.Errorf("reading checkout request %s: %w", id, interpret(err))
	}
	return row.State, time.Duration(row.Seconds * float64(time.Second)), nil
}

// RenewClaim lengthens a try's lease. It reports false where the try does not hold the request any more.
func (s *Store) RenewClaim(ctx context.Context, c Claim, lease time.Duration) (bool, error) {
	n, err := s.q.CheckoutRequestRenew(ctx, s.pool, dbsqlc.CheckoutRequestRenewParams{ID: c.ID, Attempt: c.Attempt, Lease: lease})
	if err != nil {
		return false, fmt.Errorf("renewing the lease of checkout request %s: %w", c.ID, interpret(err))
	}
	return n == 1, nil
}

// MarkPosting records, before the call that creates the session, that one may come to be, and the customer it is
// created with (zero: none). It reports false where the try does not hold the request any more.
func (s *Store) MarkPosting(ctx context.Context, c Claim, customerID uuid.UUID, lease time.Duration) (bool, error) {
	params := dbsqlc.CheckoutRequestPostingParams{ID: c.ID, Attempt: c.Attempt, Lease: lease}
	if customerID != uuid.Nil {
		params.CustomerID = &customerID
	}
	n, err := s.q.CheckoutRequestPosting(ctx, s.pool, params)
	if err != nil {
		return false, fmt.Errorf("marking checkout request %s: %w", c.ID, interpret(err))
	}
	return n == 1, nil
}

// RetryLater gives the request back after a try that failed; the mark of MarkPosting stays where the claim is unresolved.
func (s *Store) RetryLater(ctx context.Context, c Claim, reason string) error {
	_, err := s.q.CheckoutRequestRetryLater(ctx, s.pool, dbsqlc.CheckoutRequestRetryLaterParams{
		ID: c.ID, Attempt: c.Attempt, Error: storableText(reason), OutcomeUnknown: c.Unresolved,
	})
	if err != nil {
		return fmt.Errorf("giving back checkout request %s: %w", c.ID, interpret(err))
	}
	return nil
}

// FailCheckoutRequest ends a request that the try holds, and tells those who wait for it.
func (s *Store) FailCheckoutRequest(ctx context.Context, c Claim, reason string) error {
	return s.InTx(ctx, func(tx *Tx) error {
		n, err := tx.q.CheckoutRequestFail(ctx, tx.tx, dbsqlc.CheckoutRequestFailParams{ID: c.ID, Attempt: c.Attempt, Error: storableText(reason)})
		if err != nil {
			return fmt.Errorf("failing checkout request %s: %w", c.ID, interpret(err))
		}
		if n == 0 {
			return nil
		}
		return tx.notifyRequests(ctx, []uuid.UUID{c.ID})
	})
}

// SetSessionCustomer records the customer that a fresh session was created with by Polar's own account.
func (t *Tx) SetSessionCustomer(ctx context.Context, requestID, customerID uuid.UUID) error {
	if err := t.q.CheckoutRequestSessionCustomer(ctx, t.tx, customerID, requestID); err != nil {
		return fmt.Errorf("recording the customer of checkout request %s: %w", requestID, interpret(err))
	}
	return nil
}

const codeUniqueViolation = "23505"

// FollowCheckouts brings the requests of these sessions to what the mirror says, records second sessions as drift,
// and tells those who wait.
func (t *Tx) FollowCheckouts(ctx context.Context, checkoutIDs []uuid.UUID) error {
	changed, err := t.q.CheckoutRequestFollow(ctx, t.tx, checkoutIDs)
	err = interpret(err)
	if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Code == codeUniqueViolation {
		// A request came back to life while another took its key. The next try sees that one, and gives it the key.
		err = fmt.Errorf("%w: %s", ErrUnavailable, refused.Message)
	}
	if err != nil {
		return fmt.Errorf("following %d checkouts: %w", len(checkoutIDs), err)
	}
	if err := t.q.CheckoutRequestDuplicateSessions(ctx, t.tx, checkoutIDs); err != nil {
		return fmt.Errorf("looking for second sessions: %w", interpret(err))
	}
	if err := t.q.DriftEndDuplicates(ctx, t.tx, checkoutIDs); err != nil {
		return fmt.Errorf("looking for second sessions that are over: %w", interpret(err))
	}
	return t.notifyRequests(ctx, changed)
}

// notifyRequests wakes those who wait for these requests. A notification takes a lock on the whole server at commit,
// so a great batch sends none: AwaitURL polls behind it.
func (t *Tx) notifyRequests(ctx context.Context, ids []uuid.UUID) error {
	const most = 16
	if len(ids) > most {
		return nil
	}
	for _, id := range ids {
		if err := t.q.Notify(ctx, t.tx, ChannelCheckout, id.String()); err != nil {
			return fmt.Errorf("notifying: %w", interpret(err))
		}
	}
	return nil
}

// FindSessionOfRequest gives the session that the mirror has of a request. Errors: ErrNotFound.
func (t *Tx) FindSessionOfRequest(ctx context.Context, requestID uuid.UUID) (uuid.UUID, error) {
	id, err := t.q.CheckoutGetByRequest(ctx, t.tx, &requestID)
	if err != nil {
		return uuid.Nil, fmt.Errorf("looking for the session of checkout request %s: %w", requestID, interpret(err))
	}
	return id, nil
}

// SweepCheckoutRequests gives a new job to requests older than grace that have lost theirs.
func (t *Tx) SweepCheckoutRequests(ctx context.Context, grace time.Duration) (requeued int64, err error) {
	requeued, err = t.q.CheckoutRequestSweep(ctx, t.tx, grace)
	if err != nil {
		return 0, fmt.Errorf("sweeping checkout requests: %w", interpret(err))
	}
	return requeued, nil
}

// ListDueCheckouts gives sessions of ours that should have ended grace ago, of which nothing was heard.
func (s *Store) ListDueCheckouts(ctx context.Context, grace time.Duration, limit int32) ([]uuid.UUID, error) {
	ids, err := s.q.CheckoutListDue(ctx, s.pool, grace, limit)
	if err != nil {
		return nil, fmt.Errorf("looking for checkouts that should be over: %w", interpret(err))
	}
	return ids, nil
}

// NewestCheckout is when the newest session of the mirror was created, by Polar's clock; zero: there is none.
func (s *Store) NewestCheckout(ctx context.Context) (time.Time, error) {
	at, err := s.q.CheckoutNewest(ctx, s.pool)
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for the newest checkout: %w", interpret(err))
	}
	return known(at), nil
}

// AllowCheckoutFields makes create_checkout let exactly these fields pass besides those it knows.
func (s *Store) AllowCheckoutFields(ctx context.Context, names []string) error {
	if names == nil {
		names = []string{} // a nil slice is SQL's null, which would forget none
	}
	return s.InTx(ctx, func(tx *Tx) error {
		if err := tx.q.CheckoutFieldForget(ctx, tx.tx, names); err != nil {
			return fmt.Errorf("forgetting extra checkout fields: %w", interpret(err))
		}
		if err := tx.q.CheckoutFieldAllow(ctx, tx.tx, names); err != nil {
			return fmt.Errorf("allowing extra checkout fields: %w", interpret(err))
		}
		return nil
	})
}
