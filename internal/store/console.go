package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Place is where a page of a list that is ordered by time begins: after the row with this time and id. The zero Place is the
// list's beginning, its newest row.
type Place struct {
	At time.Time
	ID uuid.UUID
}

// or is the place itself, or one before everything.
func (p Place) or() Place {
	if p == (Place{}) {
		return Place{At: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), ID: uuid.Max}
	}
	return p
}

// before is a number itself, or the greatest where it is 0: a list by number begins with the greatest.
func before(n int64) int64 {
	if n <= 0 {
		return math.MaxInt64
	}
	return n
}

// ListedRequest is a checkout request as a list shows it: without its params.
type ListedRequest struct {
	ID                 uuid.UUID
	ExternalCustomerID string // the local user it is for; empty: none
	Key                string
	State              string
	URL                string     // empty until there is a session; good only while State is open and before ExpiresAt
	ExpiresAt          *time.Time // nil until there is a session
	Error              string
	Attempt            int32 // how often it was tried
	CreatedAt          time.Time
}

// RequestFilter chooses among checkout requests; the zero filter takes all. One field counts, the first that is set.
type RequestFilter struct {
	Text  string // the request's id or key, Polar's checkout, or the local user
	Stuck bool   // those of the view stuck_checkout
	State string
}

// ListRequests reads a page of the checkout requests that the filter takes, newest first.
func (s *Store) ListRequests(ctx context.Context, filter RequestFilter, after Place, limit int) ([]ListedRequest, error) {
	at, most := after.or(), rowLimit(limit)
	var requests []ListedRequest
	var err error
	switch {
	case filter.Text != "":
		requests, err = each(func(r dbsqlc.CheckoutRequestFindRow) ListedRequest { return ListedRequest(r) })(s.q.CheckoutRequestFind(ctx, s.pool, dbsqlc.CheckoutRequestFindParams{
			ID: asID(filter.Text), Text: storableText(filter.Text), BeforeAt: at.At, BeforeID: at.ID, MaxRows: most,
		}))
	case filter.Stuck:
		requests, err = each(func(r dbsqlc.CheckoutRequestPageStuckRow) ListedRequest { return ListedRequest(r) })(s.q.CheckoutRequestPageStuck(ctx, s.pool, dbsqlc.CheckoutRequestPageStuckParams{BeforeAt: at.At, BeforeID: at.ID, MaxRows: most}))
	case filter.State != "":
		requests, err = each(func(r dbsqlc.CheckoutRequestPageOfStateRow) ListedRequest { return ListedRequest(r) })(s.q.CheckoutRequestPageOfState(ctx, s.pool, dbsqlc.CheckoutRequestPageOfStateParams{
			State: filter.State, BeforeAt: at.At, BeforeID: at.ID, MaxRows: most,
		}))
	default:
		requests, err = each(func(r dbsqlc.CheckoutRequestPageRow) ListedRequest { return ListedRequest(r) })(s.q.CheckoutRequestPage(ctx, s.pool, dbsqlc.CheckoutRequestPageParams{BeforeAt: at.At, BeforeID: at.ID, MaxRows: most}))
	}
	if err != nil {
		return nil, fmt.Errorf("reading checkout requests: %w", interpret(err))
	}
	return requests, nil
}

// asID is the text as an id, or nil where it is none.
func asID(text string) *uuid.UUID {
	id, err := uuid.Parse(text)
	if err != nil {
		return nil
	}
	return &id
}

// RecentLink is a link as a list shows it, with the customer's e-mail.
type RecentLink struct {
	CustomerID  uuid.UUID
	Email       string // empty where Polar has none, or the customer is not mirrored
	LocalUserID string
	Basis       string
	LinkedAt    time.Time
}

// ListRecentLinks reads up to limit links, newest first.
func (s *Store) ListRecentLinks(ctx context.Context, limit int32) ([]RecentLink, error) {
	rows, err := s.q.CustomerLinkListRecent(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading recent links: %w", interpret(err))
	}
	links := make([]RecentLink, len(rows))
	for i, r := range rows {
		links[i] = RecentLink(r)
	}
	return links, nil
}

// ListedCustomer is a customer of Polar as a list shows it.
type ListedCustomer struct {
	ID          uuid.UUID
	Email       string
	Name        string
	ExternalID  string
	At          time.Time // when Polar created it; of the unlinked, since when they are known to be
	DeletedAt   *time.Time
	LocalUserID string // empty: not linked
	Basis       string
	Reason      string // of the unlinked: why
}

// ListCustomers reads a page of the customers, newest first.
func (s *Store) ListCustomers(ctx context.Context, after Place, limit int) ([]ListedCustomer, error) {
	at := after.or()
	list, err := each(func(r dbsqlc.CustomerPageRow) ListedCustomer { return ListedCustomer(r) })(s.q.CustomerPage(ctx, s.pool, dbsqlc.CustomerPageParams{BeforeAt: at.At, BeforeID: at.ID, MaxRows: rowLimit(limit)}))
	if err != nil {
		return nil, fmt.Errorf("reading customers: %w", interpret(err))
	}
	return list, nil
}

// ListUnlinkedCustomers reads a page of the customers who are linked to nobody, those known last first.
func (s *Store) ListUnlinkedCustomers(ctx context.Context, after Place, limit int) ([]ListedCustomer, error) {
	at := after.or()
	list, err := each(func(r dbsqlc.CustomerPageUnlinkedRow) ListedCustomer { return ListedCustomer(r) })(s.q.CustomerPageUnlinked(ctx, s.pool, dbsqlc.CustomerPageUnlinkedParams{BeforeAt: at.At, BeforeID: at.ID, MaxRows: rowLimit(limit)}))
	if err != nil {
		return nil, fmt.Errorf("reading unlinked customers: %w", interpret(err))
	}
	return list, nil
}

// FindCustomers looks for customers by their id, external id or e-mail address, by their local user, or by the id of a
// subscription, order or checkout of theirs.
func (s *Store) FindCustomers(ctx context.Context, text string, limit int) ([]ListedCustomer, error) {
	list, err := each(func(r dbsqlc.CustomerFindRow) ListedCustomer { return ListedCustomer(r) })(s.q.CustomerFind(ctx, s.pool, dbsqlc.CustomerFindParams{ID: asID(text), Text: storableText(text), MaxRows: rowLimit(limit)}))
	if err != nil {
		return nil, fmt.Errorf("reading customers: %w", interpret(err))
	}
	return list, nil
}

// ListedUser is a local user as a list shows it.
type ListedUser struct {
	ID        string
	Email     string
	DeletedAt *time.Time
	Customers []uuid.UUID // linked to it; three at most
}

// ListUsers reads a page of the local users, by their ids.
func (s *Store) ListUsers(ctx context.Context, after string, limit int) ([]ListedUser, error) {
	list, err := each(func(r dbsqlc.LocalUserPageRow) ListedUser { return ListedUser(r) })(s.q.LocalUserPage(ctx, s.pool, storableText(after), rowLimit(limit)))
	if err != nil {
		return nil, fmt.Errorf("reading local users: %w", interpret(err))
	}
	return list, nil
}

// FindUsers looks for local users by their id, by their customers, and by their e-mail address. The last depends on an
// index of the product's own table, where users are mapped: slow tells that it took too long and was left.
func (s *Store) FindUsers(ctx context.Context, text string, limit int) (users []ListedUser, slow bool, err error) {
	text = storableText(text)
	users, err = each(func(r dbsqlc.LocalUserFindRow) ListedUser { return ListedUser(r) })(
		s.q.LocalUserFind(ctx, s.pool, dbsqlc.LocalUserFindParams{ID: asID(text), Text: text, MaxRows: rowLimit(limit)}))
	if err != nil {
		return nil, false, fmt.Errorf("looking for local users: %w", interpret(err))
	}
	mailCtx, cancel := context.WithTimeout(ctx, mailPatience)
	defer cancel()
	found, err := each(func(r dbsqlc.LocalUserFindByEmailRow) ListedUser { return ListedUser(r) })(s.q.LocalUserFindByEmail(mailCtx, s.pool, text, rowLimit(limit)))
	switch {
	case err != nil && mailCtx.Err() != nil && ctx.Err() == nil:
		return users, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("looking for local users by e-mail: %w", interpret(err))
	}
	known := map[string]bool{}
	for _, u := range users {
		known[u.ID] = true
	}
	for _, u := range found {
		if !known[u.ID] {
			users = append(users, u)
		}
	}
	return users, false, nil
}

// mailPatience is how long a search by e-mail address may take in a table that may have no index for it.
const mailPatience = 2 * time.Second

// ListedEvent is an event as a list shows it: nothing of its content.
type ListedEvent struct {
	Seq        int64
	WebhookID  string
	Type       string
	ObjectID   string
	State      string // received, failed or applied
	Tries      int32
	ReceivedAt time.Time
}

// EventFilter chooses among events; the zero filter takes all.
type EventFilter struct {
	Text        string    // a webhook-id, or the id of an object; then nothing else counts
	Type        string    // such as order.paid
	State       string    // received, failed or applied
	From, Until time.Time // received within these; zero: no bound
}

// ListEventPage reads a page of the events that the filter takes, the last received first; after is the seq of the row before.
func (s *Store) ListEventPage(ctx context.Context, filter EventFilter, after int64, limit int) ([]ListedEvent, error) {
	events, err := s.eventPage(ctx, filter, before(after), limit)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", interpret(err))
	}
	return events, nil
}

func (s *Store) eventPage(ctx context.Context, filter EventFilter, before int64, limit int) ([]ListedEvent, error) {
	most := rowLimit(limit)
	var from int64
	if !filter.From.IsZero() {
		seq, err := s.q.EventSeqSince(ctx, s.pool, filter.From)
		if err != nil {
			return nil, err
		}
		from = seq
	}
	if !filter.Until.IsZero() {
		seq, err := s.q.EventSeqSince(ctx, s.pool, filter.Until)
		if err != nil {
			return nil, err
		}
		before = min(before, seq)
	}
	switch {
	case filter.Text != "":
		return each(func(r dbsqlc.EventFindRow) ListedEvent { return ListedEvent(r) })(s.q.EventFind(ctx, s.pool, dbsqlc.EventFindParams{Text: storableText(filter.Text), BeforeSeq: before, MaxRows: most}))
	case filter.State == EventFailed:
		return each(func(r dbsqlc.EventPageFailedRow) ListedEvent { return ListedEvent(r) })(s.q.EventPageFailed(ctx, s.pool, dbsqlc.EventPageFailedParams{BeforeSeq: before, FromSeq: from, Type: storableText(filter.Type), MaxRows: most}))
	case filter.State == EventReceived:
		return each(func(r dbsqlc.EventPageReceivedRow) ListedEvent { return ListedEvent(r) })(s.q.EventPageReceived(ctx, s.pool, dbsqlc.EventPageReceivedParams{BeforeSeq: before, FromSeq: from, Type: storableText(filter.Type), MaxRows: most}))
	case filter.Type != "":
		return each(func(r dbsqlc.EventPageOfTypeRow) ListedEvent { return ListedEvent(r) })(s.q.EventPageOfType(ctx, s.pool, dbsqlc.EventPageOfTypeParams{Type: storableText(filter.Type), BeforeSeq: before, FromSeq: from, MaxRows: most}))
	default:
		return each(func(r dbsqlc.EventPageRow) ListedEvent { return ListedEvent(r) })(s.q.EventPage(ctx, s.pool, dbsqlc.EventPageParams{BeforeSeq: before, FromSeq: from, MaxRows: most}))
	}
}

// What has become of an event.
const (
	EventReceived = "received" // not tried yet
	EventFailed   = "failed"   // the last try failed
	EventApplied  = "applied"
)

// OneEvent is an event with all but its body.
type OneEvent struct {
	Seq        int64
	WebhookID  string
	Type       string
	ObjectID   string
	State      string
	Tries      int32
	Error      string
	OccurredAt *time.Time
	ReceivedAt time.Time
	AppliedAt  *time.Time
	HasBody    bool // false once the body is older than EVENT_RETENTION
}

// GetEvent reads an event. Errors: ErrNotFound.
func (s *Store) GetEvent(ctx context.Context, seq int64) (OneEvent, error) {
	row, err := s.q.EventGet(ctx, s.pool, seq)
	if err != nil {
		return OneEvent{}, fmt.Errorf("reading event %d: %w", seq, interpret(err))
	}
	return OneEvent(row), nil
}

// GetMaskedEvent reads an event's body as JSON without what is personal. Errors: ErrNotFound where no body is kept; ErrRefused
// where Postgres cannot read it as jsonb.
func (s *Store) GetMaskedEvent(ctx context.Context, seq int64) (string, error) {
	body, err := s.q.EventGetMasked(ctx, s.pool, seq)
	if err != nil {
		return "", fmt.Errorf("reading the body of event %d: %w", seq, interpret(err))
	}
	return body, nil
}

// GetEventBody reads an event's body as Polar sent it, and notes who has seen it. Errors: ErrNotFound where none is kept.
func (s *Store) GetEventBody(ctx context.Context, seq int64, deed Deed) (body string, err error) {
	err = s.InTx(ctx, func(t *Tx) error {
		if body, err = t.q.EventGetBody(ctx, t.tx, seq); err != nil {
			return fmt.Errorf("reading the body of event %d: %w", seq, interpret(err))
		}
		return t.Audit(ctx, deed)
	})
	return body, err
}

// ListEventsOfAnyState reads those of the events whose bodies are kept, applied or not, in order.
func (s *Store) ListEventsOfAnyState(ctx context.Context, seqs []int64) ([]Event, error) {
	rows, err := s.q.EventListOfAnyState(ctx, s.pool, seqs)
	if err != nil {
		return nil, fmt.Errorf("reading %d events: %w", len(seqs), interpret(err))
	}
	events := make([]Event, len(rows))
	for i, r := range rows {
		events[i] = eventOf(dbsqlc.EventReplayListRow(r))
	}
	return events, nil
}

// ListFailedSeqs gives failed events of a type, empty for any, whose bodies are kept: those tried least come first.
func (t *Tx) ListFailedSeqs(ctx context.Context, eventType string, limit int) ([]int64, error) {
	seqs, err := t.q.EventListFailedSeqs(ctx, t.tx, storableText(eventType), rowLimit(limit))
	if err != nil {
		return nil, fmt.Errorf("reading failed events: %w", interpret(err))
	}
	return seqs, nil
}

// ListConflictPage reads a page of the conflicts: of the open ones, which wait longest first, or of all, newest first. after
// is the id of the row before.
func (s *Store) ListConflictPage(ctx context.Context, open bool, after int64, limit int) ([]Conflict, error) {
	var conflicts []Conflict
	var err error
	if open {
		conflicts, err = each(func(r dbsqlc.LinkConflictPageOpenRow) Conflict { return conflictOf(dbsqlc.LinkConflictGetRow(r)) })(s.q.LinkConflictPageOpen(ctx, s.pool, after, rowLimit(limit)))
	} else {
		conflicts, err = each(func(r dbsqlc.LinkConflictPageRow) Conflict { return conflictOf(dbsqlc.LinkConflictGetRow(r)) })(s.q.LinkConflictPage(ctx, s.pool, before(after), rowLimit(limit)))
	}
	if err != nil {
		return nil, fmt.Errorf("reading conflicts: %w", interpret(err))
	}
	return conflicts, nil
}

// LedgerDrift is a row of drift with its number.
type LedgerDrift struct {
	ID         int64
	RunID      *int64
	ObjectType string
	ObjectID   string
	Field      string
	Local      *string
	Remote     *string
	Cause      string
	DetectedAt time.Time
	ResolvedAt *time.Time
	Resolution string
}

// DriftFilter chooses among differences; the zero filter takes those that are open.
type DriftFilter struct {
	All   bool   // also what is resolved
	Cause string // of the open ones
}

// ListDriftPage reads a page of the ledger of drift, newest first; after is the id of the row before.
func (s *Store) ListDriftPage(ctx context.Context, filter DriftFilter, after int64, limit int) ([]LedgerDrift, error) {
	var drifts []LedgerDrift
	var err error
	switch {
	case filter.All:
		drifts, err = each(func(r dbsqlc.DriftPageRow) LedgerDrift { return LedgerDrift(r) })(s.q.DriftPage(ctx, s.pool, before(after), rowLimit(limit)))
	case filter.Cause != "":
		drifts, err = each(func(r dbsqlc.DriftPageOpenOfCauseRow) LedgerDrift { return LedgerDrift(r) })(s.q.DriftPageOpenOfCause(ctx, s.pool, dbsqlc.DriftPageOpenOfCauseParams{Cause: storableText(filter.Cause), BeforeID: before(after), MaxRows: rowLimit(limit)}))
	default:
		drifts, err = each(func(r dbsqlc.DriftPageOpenRow) LedgerDrift { return LedgerDrift(r) })(s.q.DriftPageOpen(ctx, s.pool, before(after), rowLimit(limit)))
	}
	if err != nil {
		return nil, fmt.Errorf("reading drift: %w", interpret(err))
	}
	return drifts, nil
}

// GetDrift reads a difference, and up to limit others of the same object, the open ones first. Errors: ErrNotFound.
func (s *Store) GetDrift(ctx context.Context, id int64, limit int) (drift LedgerDrift, ofObject []LedgerDrift, err error) {
	row, err := s.q.DriftGet(ctx, s.pool, id)
	if err != nil {
		return LedgerDrift{}, nil, fmt.Errorf("reading drift %d: %w", id, interpret(err))
	}
	ofObject, err = each(func(r dbsqlc.DriftOfObjectRow) LedgerDrift { return LedgerDrift(r) })(s.q.DriftOfObject(ctx, s.pool, dbsqlc.DriftOfObjectParams{ObjectID: row.ObjectID, ObjectType: row.ObjectType, MaxRows: rowLimit(limit)}))
	if err != nil {
		return LedgerDrift{}, nil, fmt.Errorf("reading the drift of %s %s: %w", row.ObjectType, row.ObjectID, interpret(err))
	}
	return LedgerDrift(row), ofObject, nil
}

// ErrNothingOpen is what ResolveDrift answers where nothing is open any more.
var ErrNothingOpen = errors.New("nothing of it is open any more")

// ResolveDrift closes what is open of the object of a difference, in a person's words, and notes who did. A sweep that finds
// it again opens it anew. Errors: ErrNothingOpen.
func (s *Store) ResolveDrift(ctx context.Context, id int64, deed Deed) error {
	return s.InTx(ctx, func(t *Tx) error {
		n, err := t.q.DriftResolve(ctx, t.tx, storableText(deed.Reason), id)
		if err != nil {
			return fmt.Errorf("resolving drift %d: %w", id, interpret(err))
		}
		if n == 0 {
			return fmt.Errorf("drift %d: %w", id, ErrNothingOpen)
		}
		return t.Audit(ctx, deed)
	})
}

// Lag is how far the mirror is behind what was received.
type Lag struct {
	Waiting        int64   // events not tried yet; where there are thousands, at least so many
	WaitingSeconds float64 // how long the oldest of them waits; -1: there is none
	ApplyP50       float64 // seconds from receiving to applying, of the last 1,000 events; -1: there were none
	ApplyP99       float64
}

// ReadLag reads the view mirror_lag.
func (s *Store) ReadLag(ctx context.Context) (Lag, error) {
	row, err := s.q.MirrorLagGet(ctx, s.pool)
	if err != nil {
		return Lag{}, fmt.Errorf("reading the lag: %w", interpret(err))
	}
	return Lag(row), nil
}

// Rates is how much went on in each of some hours, the oldest first; the last is the hour that goes on.
type Rates struct {
	FirstAt time.Time // when the first hour began
	Events  []int64   // received
	Jobs    []int64   // completed
	Failed  []int64   // jobs cancelled or discarded
}

// ReadRates counts the events and jobs of the last hours; completed jobs are kept for a day. It also tells when that was
// counted: a while ago where it takes long.
func (s *Store) ReadRates(ctx context.Context, hours int) (rates Rates, at time.Time, err error) {
	rates, at, err = s.rates.get(ctx, func(ctx context.Context) (Rates, error) {
		r := Rates{
			FirstAt: time.Now().UTC().Truncate(time.Hour).Add(-time.Duration(hours-1) * time.Hour),
			Events:  make([]int64, hours), Jobs: make([]int64, hours), Failed: make([]int64, hours),
		}
		seqs := make([]int64, hours)
		for i := range seqs {
			seq, err := s.q.EventSeqSince(ctx, s.pool, r.FirstAt.Add(time.Duration(i)*time.Hour))
			if err != nil {
				return Rates{}, err
			}
			seqs[i] = seq
		}
		events, err := s.q.EventRates(ctx, s.pool, seqs)
		if err != nil {
			return Rates{}, err
		}
		for _, e := range events {
			if e.Hour >= 0 && int(e.Hour) < hours {
				r.Events[e.Hour] = e.Events
			}
		}
		jobs, err := s.q.JobRates(ctx, s.pool, r.FirstAt)
		if err != nil {
			return Rates{}, err
		}
		for _, j := range jobs {
			switch {
			case j.Hour < 0 || int(j.Hour) >= hours:
			case j.Completed:
				r.Jobs[j.Hour] += j.Jobs
			default:
				r.Failed[j.Hour] += j.Jobs
			}
		}
		return r, nil
	})
	if err != nil {
		return Rates{}, at, fmt.Errorf("counting events and jobs by the hour: %w", interpret(err))
	}
	return rates, at, nil
}

// each makes what a caller sees of the rows of a query.
func each[R, T any](of func(R) T) func([]R, error) ([]T, error) {
	return func(rows []R, err error) ([]T, error) {
		list := make([]T, len(rows))
		for i, r := range rows {
			list[i] = of(r)
		}
		return list, err
	}
}

// ListLocalUsers reads up to limit users that are not deleted, by their ids.
func (s *Store) ListLocalUsers(ctx context.Context, limit int32) ([]LocalUser, error) {
	rows, err := s.q.LocalUserList(ctx, s.pool, limit)
	if err != nil {
		return nil, fmt.Errorf("reading local users: %w", interpret(err))
	}
	users := make([]LocalUser, len(rows))
	for i, r := range rows {
		users[i] = LocalUser(r)
	}
	return users, nil
}

// Purchase is a checkout request with what became of its buyer.
type Purchase struct {
	RequestID          uuid.UUID
	State              string     // the request's
	ExternalCustomerID string     // the local user it was made for; empty: none
	CustomerID         *uuid.UUID // who bought, once Polar has told
	LinkedUserID       string     // the local user that customer is linked to; empty: none
	LinkedBasis        string     // empty: not linked
	InConflict         bool       // an open conflict is about that customer
	UpdatedAt          time.Time  // when the request last changed
}

// GetPurchase reads the request that has this checkout session. Errors: ErrNotFound.
func (s *Store) GetPurchase(ctx context.Context, checkoutID uuid.UUID) (Purchase, error) {
	row, err := s.q.PurchaseGet(ctx, s.pool, checkoutID)
	if err != nil {
		return Purchase{}, fmt.Errorf("reading the purchase of checkout %s: %w", checkoutID, interpret(err))
	}
	return Purchase(row), nil
}
