package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type createCheckoutWorker struct {
	river.WorkerDefaults[createCheckoutArgs]
	runner *Runner
}

// Timeout leaves room for a look through Polar's list.
func (w *createCheckoutWorker) Timeout(*river.Job[createCheckoutArgs]) time.Duration {
	return 2 * time.Minute
}

// Work makes one try at creating a checkout session. How the request ends stands on its row; the job is only what
// drives it, so it is snoozed rather than failed.
func (w *createCheckoutWorker) Work(ctx context.Context, job *river.Job[createCheckoutArgs]) error {
	r := w.runner
	ctx = withPriority(ctx, priorityBuyer)
	id, err := r.ensureRequest(ctx, job)
	if err != nil || id == uuid.Nil {
		return err
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.Stringer("truenorth.checkout_request", id))
	crashpoint.Here("checkout.taken")
	claim, err := r.store.ClaimCheckoutRequest(ctx, id, job.ID, r.timing.checkoutLease, r.config.Patience)
	if errors.Is(err, store.ErrNotFound) {
		return r.whyNotClaimed(ctx, id)
	}
	if err != nil {
		return err
	}
	crashpoint.Here("checkout.claimed")
	started := time.Now()
	wait, err := r.try(ctx, claim)
	if err != nil {
		return err
	}
	crashpoint.Here("checkout.tried")
	if wait > 0 {
		return river.JobSnooze(wait)
	}
	r.logger.InfoContext(ctx, "checkout request worked", slog.String("request", id.String()), slog.Int("attempt", int(claim.Attempt)), slog.Duration("took", time.Since(started)))
	return nil
}

// UnmarshalJSON takes any JSON: a job whose args cannot be read would be tried again and again, with nobody told why.
func (a *createCheckoutArgs) UnmarshalJSON(raw []byte) error {
	type plain createCheckoutArgs
	if json.Unmarshal(raw, (*plain)(a)) != nil {
		*a = createCheckoutArgs{}
	}
	return nil
}

// ensureRequest finds the request of a job, or writes the row where an app enqueued the job by River itself. A zero
// id without an error means that there is nothing to do.
func (r *Runner) ensureRequest(ctx context.Context, job *river.Job[createCheckoutArgs]) (uuid.UUID, error) {
	id, bad := uuid.Nil, ""
	if text := optionalText(job.Args.RequestID); text != "" {
		var err error
		if id, err = uuid.Parse(text); err != nil {
			bad = "request_id is not a UUID"
		}
	}
	if id == uuid.Nil {
		id = truenorth.RequestIDOfJob(job.ID)
	}
	key := optionalText(job.Args.Key)
	if len([]rune(key)) > 255 {
		bad = "key is longer than 255 characters"
	}
	params := job.Args.Params
	if bad != "" {
		if len(params) == 0 {
			params = json.RawMessage("{}")
		}
		return uuid.Nil, r.store.InsertFailedCheckoutRequest(ctx, id, params, bad, job.ID)
	}
	if len(params) == 0 || string(params) == "null" {
		if _, _, err := r.store.HeldFor(ctx, id); !errors.Is(err, store.ErrNotFound) {
			return id, err
		}
		return uuid.Nil, r.store.InsertFailedCheckoutRequest(ctx, id, json.RawMessage("{}"), "the job has no params, and there is no such request", job.ID)
	}
	if _, err := r.store.EnsureCheckoutRequest(ctx, id, key, params, job.ID); err != nil {
		return uuid.Nil, err
	}
	return id, nil
}

// optionalText reads a JSON string; anything else reads as its own text, null as none.
func optionalText(raw json.RawMessage) string {
	var text string
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	return text
}

// whyNotClaimed waits for the try that holds the request; a request that is over, or that another with the same key
// stands for, needs nothing.
func (r *Runner) whyNotClaimed(ctx context.Context, id uuid.UUID) error {
	state, remaining, err := r.store.HeldFor(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		r.logger.InfoContext(ctx, "another live request has this key", slog.String("request", id.String()))
		return nil
	}
	if err != nil {
		return err
	}
	if state != store.RequestQueued && state != store.RequestCreating {
		return nil
	}
	return river.JobSnooze(remaining + time.Duration(rand.Int64N(int64(500*time.Millisecond)))) //nolint:gosec // jitter needs no secrecy
}

// try makes one try. It returns how long to wait before the next, 0 when the request needs none.
func (r *Runner) try(ctx context.Context, c store.Claim) (time.Duration, error) {
	if err := truenorth.ValidateParams(c.Params, r.config.ExtraFields...); err != nil {
		return 0, r.store.FailCheckoutRequest(ctx, c, err.Error())
	}
	done, err := r.adopt(ctx, c)
	if done {
		return 0, err
	}
	if c.Overdue && (err == nil || refusesToAnswer(ctx, err)) {
		reason := fmt.Sprintf("given up after %s; the last error: %s", r.config.Patience, c.LastError)
		if err != nil {
			reason += "; a last look whether there is a session failed: " + err.Error()
		}
		return 0, r.store.FailCheckoutRequest(ctx, c, reason)
	}
	if err != nil {
		return r.outcome(ctx, c, err)
	}
	if err := r.guard.check(ctx); err != nil {
		return r.outcome(ctx, c, err)
	}
	customerID, err := r.ensureCustomer(ctx, c)
	if err != nil {
		return r.outcome(ctx, c, err)
	}
	body, err := sessionParams(c, customerID)
	if err != nil {
		return 0, r.store.FailCheckoutRequest(ctx, c, err.Error())
	}
	crashpoint.Here("customer.ensured")
	if held, err := r.store.MarkPosting(ctx, c, customerID, r.timing.checkoutLease); err != nil || !held {
		return 0, err
	}
	crashpoint.Here("checkout.unsent")
	session, err := r.api.CreateCheckout(crashpoint.WhenSent(ctx, "checkout.sent"), body)
	if err != nil {
		if polar.IsValidation(err) {
			crashpoint.Here("checkout.refused")
			return 0, r.store.FailCheckoutRequest(ctx, c, err.Error())
		}
		// What an earlier call left open stays open: the look before this one may have come too early to see its session.
		c.Unresolved = c.Unresolved || polar.OutcomeUnknown(err)
		return r.outcome(ctx, c, err)
	}
	crashpoint.Here("checkout.answered")
	return 0, r.record(ctx, c, session, true)
}

// refusesToAnswer tells whether Polar, asked in time, gave no answer of use and did not ask to wait.
func refusesToAnswer(ctx context.Context, err error) bool {
	_, ok := errors.AsType[*polar.APIError](err)
	return ok && ctx.Err() == nil && !polar.IsRateLimited(err)
}

// outcome gives the request back after a try that failed, and says when the next is due. The claim says whether a
// session may have come to be.
func (r *Runner) outcome(ctx context.Context, c store.Claim, cause error) (time.Duration, error) {
	wait := r.timing.backoff(int(c.Attempt))
	var used *budgetError
	var api *polar.APIError
	switch {
	case errors.As(cause, &used):
		wait = used.wait
	case errors.As(cause, &api) && polar.IsRateLimited(cause):
		wait = max(api.RetryAfter, time.Second)
	case errors.Is(cause, errUnread):
		wait = unreadWait
	}
	r.logger.WarnContext(ctx, "creating a checkout failed; it will be tried again", slog.String("request", c.ID.String()),
		slog.Int("attempt", int(c.Attempt)), slog.Duration("wait", wait), slog.Bool("outcome_unknown", c.Unresolved), slog.String("error", cause.Error()))
	// The job may be stopping: the row must say so all the same, or the next try waits for the lease.
	rowCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return wait, r.store.RetryLater(rowCtx, c, cause.Error())
}

// adopt looks for a session that an earlier try may have created: in the mirror first, as its event may have arrived,
// then in Polar's list, newest first.
func (r *Runner) adopt(ctx context.Context, c store.Claim) (bool, error) {
	adopted := false
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		id, err := tx.FindSessionOfRequest(ctx, c.ID)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		adopted = true
		return tx.FollowCheckouts(ctx, []uuid.UUID{id})
	})
	if err != nil || adopted || !c.Unresolved {
		return adopted && err == nil, err
	}
	crashpoint.Here("adopt.looking")
	session, found, err := r.findSession(ctx, c)
	if err != nil {
		return false, err
	}
	crashpoint.Here("adopt.looked")
	if !found {
		return false, nil
	}
	r.logger.InfoContext(ctx, "adopting the session of an earlier try", slog.String("request", c.ID.String()), slog.String("checkout", session.ID.String()))
	return true, r.record(ctx, c, session, false)
}

// errUnread: Polar's list is longer than is read while a buyer waits. To read so far again and again would take the budget from
// the other buyers.
var errUnread = fmt.Errorf("none of the newest %d sessions is of this request, and it may have an older one: run `truenorth reconcile checkout`", mostSessions)

const (
	mostSessions = 10_000
	unreadWait   = 4 * time.Minute // below longestPutOff
)

// findSession pages through Polar's sessions, newest first, back to when the first call may have made one. Only
// spans of time are compared across clocks.
func (r *Runner) findSession(ctx context.Context, c store.Claim) (session polar.Checkout, found bool, err error) {
	const margin, mostPages = 2 * time.Minute, mostSessions / polar.MaxPageSize
	newest, err := r.store.NewestCheckout(ctx)
	if err != nil {
		return polar.Checkout{}, false, err
	}
	for page := 1; page <= mostPages; page++ {
		if held, err := r.store.RenewClaim(ctx, c, r.timing.checkoutLease); err != nil || !held {
			return polar.Checkout{}, false, errors.Join(err, errLostClaim(held))
		}
		list, err := r.api.ListCheckouts(ctx, polar.CheckoutFilter{Sorting: "-created_at", Page: page, Limit: polar.MaxPageSize})
		if err != nil {
			return polar.Checkout{}, false, err
		}
		if page == 1 && (len(list.Items) == 0 || list.Items[0].CreatedAt.Before(newest)) && !newest.IsZero() {
			// A list that lags behind, or is empty, must not pass for one that does not have the session.
			return polar.Checkout{}, false, &polar.APIError{
				Method: http.MethodGet, Path: "/v1/checkouts/", Status: http.StatusOK,
				Err: fmt.Errorf("the list does not show the newest session that is known, of %s", newest.UTC().Format(time.RFC3339)),
			}
		}
		for _, k := range list.Items {
			if k.RequestID == c.ID {
				return k, true, nil
			}
			if !k.CreatedAt.IsZero() && !list.ReadAt.IsZero() && list.ReadAt.Sub(k.CreatedAt) > c.PostedAgo+margin {
				return polar.Checkout{}, false, nil
			}
		}
		if page >= list.MaxPage {
			return polar.Checkout{}, false, nil
		}
	}
	// Nor must a list that was not read to its end.
	return polar.Checkout{}, false, &polar.APIError{Method: http.MethodGet, Path: "/v1/checkouts/", Status: http.StatusOK, Err: errUnread}
}

func errLostClaim(held bool) error {
	if held {
		return nil
	}
	return errors.New("another try holds the request by now")
}

// ensureCustomer makes sure of the customer where the request names both the user and an e-mail address: a session
// with a customer locks the address, so that nobody else's customer can be matched by it. It returns zero where the
// session is to be created without: a customer found by its e-mail alone is neither changed nor used.
func (r *Runner) ensureCustomer(ctx context.Context, c store.Claim) (uuid.UUID, error) {
	var p struct {
		CustomerID     *string `json:"customer_id"`
		ExternalID     string  `json:"external_customer_id"`
		Email          string  `json:"customer_email"`
		Name           string  `json:"customer_name"`
		SubscriptionID *string `json:"subscription_id"`
	}
	if err := json.Unmarshal(c.Params, &p); err != nil {
		return uuid.Nil, fmt.Errorf("reading params: %w", err)
	}
	if p.CustomerID != nil {
		id, err := uuid.Parse(*p.CustomerID)
		if err != nil {
			return uuid.Nil, fmt.Errorf("reading customer_id: %w", err)
		}
		return id, nil
	}
	if p.SubscriptionID != nil || p.ExternalID == "" || p.Email == "" {
		return uuid.Nil, nil
	}
	known, err := r.store.ListCustomersByExternalID(ctx, p.ExternalID)
	if err != nil {
		return uuid.Nil, err
	}
	if len(known) > 0 {
		found, err := r.api.GetCustomerByExternalID(ctx, p.ExternalID)
		if !polar.IsNotFound(err) {
			return r.unlessForbidden(ctx, found.ID, err)
		}
	}
	crashpoint.Here("customer.unsent")
	created, err := r.api.CreateCustomer(crashpoint.WhenSent(ctx, "customer.sent"), polar.CustomerCreate{ExternalID: p.ExternalID, Email: p.Email, Name: p.Name})
	switch {
	case err == nil:
		crashpoint.Here("customer.answered")
		v := customerVersion(created)
		return created.ID, r.store.InTx(ctx, func(tx *store.Tx) error { return r.applyRead(ctx, tx, typeCustomer, &v) })
	case !polar.IsValidation(err):
		return r.unlessForbidden(ctx, uuid.Nil, err)
	}
	found, err := r.api.GetCustomerByExternalID(ctx, p.ExternalID)
	if polar.IsNotFound(err) {
		return uuid.Nil, nil // the address is another customer's, or is refused: then Polar refuses the session too, in its own words
	}
	return r.unlessForbidden(ctx, found.ID, err)
}

// unlessForbidden is its arguments, but a token that may create checkouts only is no error: the session then names the
// user, and the rule of linking stands guard.
func (r *Runner) unlessForbidden(ctx context.Context, customerID uuid.UUID, err error) (uuid.UUID, error) {
	if polar.IsForbidden(err) {
		r.logger.WarnContext(ctx, "the token may not read or create customers (scopes customers:read, customers:write); creating the session without one",
			slog.String("error", err.Error()))
		return uuid.Nil, nil
	}
	return customerID, err
}

// sessionParams is the body of the call: the params as they are, with the request's stamp and the customer.
func sessionParams(c store.Claim, customerID uuid.UUID) (json.RawMessage, error) {
	var params map[string]json.RawMessage
	if err := json.Unmarshal(c.Params, &params); err != nil {
		return nil, fmt.Errorf("reading params: %w", err)
	}
	metadata := map[string]json.RawMessage{}
	if raw := params["metadata"]; len(raw) > 0 && string(raw) != "null" {
		if err := json.Unmarshal(raw, &metadata); err != nil {
			return nil, fmt.Errorf("reading metadata: %w", err)
		}
	}
	metadata[polar.MetadataRequest] = json.RawMessage(`"` + c.ID.String() + `"`)
	encoded, err := json.Marshal(metadata)
	if err != nil {
		return nil, fmt.Errorf("encoding metadata: %w", err)
	}
	params["metadata"] = encoded
	if customerID != uuid.Nil {
		params["customer_id"] = json.RawMessage(`"` + customerID.String() + `"`)
	}
	for name, value := range params {
		if strings.TrimSpace(string(value)) == "null" {
			delete(params, name) // null means absent; not every field of Polar's takes it
		}
	}
	body, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("encoding params: %w", err)
	}
	return body, nil
}

// record writes a session that Polar has for this request: the mirror, and the request that follows it. fresh: this
// try created it, so the customer that it has was not matched by an e-mail that a buyer typed.
func (r *Runner) record(ctx context.Context, c store.Claim, session polar.Checkout, fresh bool) error {
	// The session exists: that must be recorded even if the process is asked to stop now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	v := checkoutVersion(session)
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		// Before the request's row, as whoever applies the session's events: or the two wait for each other.
		if err := lockCustomers(ctx, tx, []*version{&v}); err != nil {
			return err
		}
		if fresh && session.CustomerID != uuid.Nil {
			if err := tx.SetSessionCustomer(ctx, c.ID, session.CustomerID); err != nil {
				return err
			}
		}
		if err := r.applyRead(ctx, tx, typeCheckout, &v); err != nil {
			return err
		}
		crashpoint.Here("checkout.storing")
		return nil
	})
	if other, ok := errors.AsType[*OtherOrganizationError](err); ok {
		return r.store.FailCheckoutRequest(ctx, c, other.Error())
	}
	return err
}
