// Package truenorth is what a product imports to sell through Polar: it asks for checkouts in the product's own
// transaction, and waits for their URLs.
//
//	client := truenorth.NewClient(pool)
//	id, err := client.CreateCheckoutTx(ctx, tx, truenorth.CheckoutParams{
//		Products:           []uuid.UUID{product},
//		ExternalCustomerID: user.ID,
//	})
//	// after the transaction's commit
//	url, err := client.AwaitURL(ctx, id)
//
// The worker (cmd/worker) creates the session at Polar and stores its URL in polar.checkout_request. The same may be
// asked from SQL (select polar.create_checkout(params)), from the command line (truenorth checkout create), or by
// inserting CreateCheckoutArgs with a River client of the product's own whose Schema is "polar".
package truenorth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
)

// Names that stand in stored data: the kind and the queue of the jobs that create checkouts.
const (
	KindCreateCheckout = "create_checkout"
	QueueCheckouts     = "checkouts"
)

// CreateCheckoutArgs are the arguments of the River job that creates a checkout session at Polar. Make them with
// NewCreateCheckoutArgs, which validates.
type CreateCheckoutArgs struct {
	// RequestID is the id that the row of polar.checkout_request gets; zero: a UUIDv5 of the job's id, see RequestIDOfJob.
	RequestID uuid.UUID `json:"request_id,omitzero"`
	// Key is the idempotency key, up to 255 characters; empty: none.
	Key string `json:"key,omitempty"`
	// Params is Polar's own checkout-create document.
	Params json.RawMessage `json:"params,omitempty"`
}

// Kind is the job's kind as River stores it.
func (CreateCheckoutArgs) Kind() string { return KindCreateCheckout }

// InsertOpts sends the job to the queue that buyers wait for.
func (CreateCheckoutArgs) InsertOpts() river.InsertOpts {
	// The worker counts time, not tries, before it gives a request up.
	return river.InsertOpts{Queue: QueueCheckouts, MaxAttempts: 1000}
}

// NewCreateCheckoutArgs validates params and makes job arguments with a fresh request id, for an app with a River
// client of its own. The request's row is written when a worker takes the job; where another live request has the key
// by then, the job does nothing, and no row of this id appears. Errors: *ParamsError.
func NewCreateCheckoutArgs(params CheckoutParams, options ...CheckoutOption) (CreateCheckoutArgs, error) {
	o := newCheckoutOptions(options)
	raw, err := o.validated(params)
	if err != nil {
		return CreateCheckoutArgs{}, err
	}
	args := CreateCheckoutArgs{RequestID: uuid.New(), Params: raw}
	if o.key != nil {
		args.Key = *o.key
	}
	return args, nil
}

// requestSpace is the UUIDv5 name space of request ids that are made of job ids.
var requestSpace = uuid.MustParse("0d7dbb0c-6f5c-5d3e-9c55-6a1e1f5c2f0a")

// RequestIDOfJob is the request id of a create_checkout job that was inserted with a zero RequestID.
func RequestIDOfJob(jobID int64) uuid.UUID {
	return uuid.NewSHA1(requestSpace, fmt.Appendf(nil, "%d", jobID))
}

// CheckoutOption changes how a checkout is asked for.
type CheckoutOption func(*checkoutOptions)

type checkoutOptions struct {
	key   *string // nil: none
	extra []string
}

// WithKey makes asking idempotent: the same key gives the same request while that is neither failed nor expired,
// whatever the params. 1 to 255 characters; an empty key is an error, for it would make asking not idempotent unseen.
func WithKey(key string) CheckoutOption {
	return func(o *checkoutOptions) { o.key = &key }
}

// WithExtraFields lets top-level fields of CheckoutParams.Extra pass that this release does not know. The worker and
// the SQL function must let them pass too: CHECKOUT_EXTRA_FIELDS of the worker.
func WithExtraFields(names ...string) CheckoutOption {
	return func(o *checkoutOptions) { o.extra = append(o.extra, names...) }
}

func newCheckoutOptions(options []CheckoutOption) checkoutOptions {
	var o checkoutOptions
	for _, option := range options {
		option(&o)
	}
	return o
}

func (o checkoutOptions) validated(params CheckoutParams) (json.RawMessage, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("encoding params: %w", err)
	}
	if err := ValidateParams(raw, o.extra...); err != nil {
		return nil, err
	}
	if o.key != nil {
		if err := validateKey(*o.key); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

func validateKey(key string) error {
	const longest = 255
	var message string
	switch n := utf8.RuneCountInString(key); {
	case n == 0:
		message = "is empty; give 1 to 255 characters, or no key"
	case n > longest:
		message = fmt.Sprintf("has %d characters; at most %d are allowed", n, longest)
	case !utf8.ValidString(key) || strings.ContainsRune(key, 0):
		message = "is no text that Postgres stores: UTF-8 without NUL"
	default:
		return nil
	}
	return &ParamsError{Fields: []FieldError{{Path: "key", Message: message}}}
}

// What Client's methods return besides the database's own errors.
var (
	// ErrRequestNotFound: there is no checkout request of this id, or its transaction has not committed.
	ErrRequestNotFound = errors.New("no such checkout request")
)

// CheckoutError tells that a checkout request has no URL to give any more.
type CheckoutError struct {
	RequestID uuid.UUID
	State     string // failed, expired or succeeded
	Reason    string // Polar's own words where it has some
}

func (e *CheckoutError) Error() string {
	text := fmt.Sprintf("checkout request %s %s", e.RequestID, e.State)
	if e.Reason == "" {
		return text
	}
	return text + ": " + e.Reason
}

// Client asks for checkouts, waits for their URLs, and follows what changes. It is safe for concurrent use.
type Client struct {
	pool     *pgxpool.Pool
	listener *listener
}

// NewClient makes a Client on the product's own pool. The pool's user needs the role polar_app, or usage on schema polar, execute
// on polar.create_checkout and polar.link_user, and select on polar.checkout_request.
func NewClient(pool *pgxpool.Pool) *Client {
	return &Client{pool: pool, listener: newListener(pool)}
}

// Close ends the connection that AwaitURL and Changes listen on, if there is one, and waits for its end. The pool stays
// open; whoever still waits goes on by polling.
func (c *Client) Close() { c.listener.close() }

// CreateCheckout asks for a checkout in a transaction of its own and returns the request's id. Errors: *ParamsError,
// before anything is written.
func (c *Client) CreateCheckout(ctx context.Context, params CheckoutParams, options ...CheckoutOption) (uuid.UUID, error) {
	return createCheckout(ctx, c.pool, params, options)
}

// CreateCheckoutTx asks for a checkout in the caller's transaction: request and job are there if and only if it
// commits. It returns the request's id. Errors: *ParamsError, before anything is written.
func (c *Client) CreateCheckoutTx(ctx context.Context, tx pgx.Tx, params CheckoutParams, options ...CheckoutOption) (uuid.UUID, error) {
	return createCheckout(ctx, tx, params, options)
}

func createCheckout(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, params CheckoutParams, options []CheckoutOption,
) (uuid.UUID, error) {
	o := newCheckoutOptions(options)
	raw, err := o.validated(params)
	if err != nil {
		return uuid.Nil, err
	}
	var id uuid.UUID
	sql, args := withinTrace(ctx, "-- name: CreateCheckout :one\nselect polar.create_checkout($1::jsonb, $2::text)", string(raw), o.key)
	if err := db.QueryRow(ctx, sql, args...).Scan(&id); err != nil {
		return uuid.Nil, fmt.Errorf("creating a checkout request: %w", err)
	}
	return id, nil
}

// AwaitURL waits until the request has a URL that a buyer can pay at, and returns it. Call it after the commit.
// Errors: ErrRequestNotFound where there is no such request, nor within two seconds (a job that River inserted has its
// row only once a worker took it); *CheckoutError once the request failed, expired or is paid; ctx's own. The request
// goes on when ctx ends, so AwaitURL may be called again.
func (c *Client) AwaitURL(ctx context.Context, id uuid.UUID) (string, error) {
	notified, stop := c.listener.wait(topic{channelCheckout, id.String()}) //nolint:contextcheck // the connection is shared: it outlives this call
	defer stop()
	// The notification is only the fast way: it is lost where the connection is, and behind some poolers it never comes.
	const longestPoll, longestUnseen = time.Second, 2 * time.Second
	started, poll := time.Now(), 25*time.Millisecond
	timer := time.NewTimer(poll)
	defer timer.Stop()
	for {
		request, err := c.Request(ctx, id)
		if err != nil && (!errors.Is(err, ErrRequestNotFound) || time.Since(started) > longestUnseen) {
			return "", err
		}
		switch request.State {
		case "open", "confirmed":
			return request.URL, nil
		case "failed", "expired", "succeeded":
			return "", &CheckoutError{RequestID: id, State: request.State, Reason: request.Error}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the URL of checkout request %s: %w", id, ctx.Err())
		case <-notified:
		case <-timer.C:
			poll = min(2*poll, longestPoll)
			timer.Reset(poll)
		}
	}
}

// CheckoutRequest is a row of polar.checkout_request.
type CheckoutRequest struct {
	ID                 uuid.UUID
	Key                string // empty: none
	ExternalCustomerID string // the local user it is for; empty: none
	State              string // queued, creating, open, confirmed, succeeded, expired or failed
	CheckoutID         uuid.UUID
	URL                string    // good only while State is open and before ExpiresAt
	ExpiresAt          time.Time // by Polar's clock; zero until there is a session
	Error              string    // why it failed, or why the last try did
	CreatedAt          time.Time
	UpdatedAt          time.Time
}

// Request reads a checkout request. Errors: ErrRequestNotFound.
func (c *Client) Request(ctx context.Context, id uuid.UUID) (CheckoutRequest, error) {
	rows, err := c.pool.Query(ctx, `-- name: CheckoutRequest :one
		select r.id, coalesce(r.key, ''), coalesce(r.external_customer_id, ''), r.state,
		       coalesce(r.checkout_id, '00000000-0000-0000-0000-000000000000'), coalesce(r.url, ''),
		       coalesce(r.expires_at, '0001-01-01 00:00:00+00'), coalesce(r.error, ''), r.created_at, r.updated_at
		  from polar.checkout_request r where r.id = $1`, id)
	if err != nil {
		return CheckoutRequest{}, fmt.Errorf("reading checkout request %s: %w", id, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CheckoutRequest])
	if err != nil {
		return CheckoutRequest{}, fmt.Errorf("reading checkout request %s: %w", id, err)
	}
	if len(found) == 0 {
		return CheckoutRequest{}, fmt.Errorf("%w: %s", ErrRequestNotFound, id)
	}
	return found[0], nil
}
