package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Person is local users and customers of Polar that are the same by their links, with what there is on them. Each list is
// the newest of its kind.
type Person struct {
	Users         []FiledUser
	Customers     []FiledCustomer
	Conflicts     []Conflict // there ever were of the customers
	History       []PersonLink
	Access        []PersonAccess
	Subscriptions []PersonSubscription
	Orders        []PersonOrder
	Requests      []ListedRequest
	Deeds         []AuditedDeed
}

// PersonLink is a row of customer_link_history.
type PersonLink struct {
	ID          int64
	CustomerID  uuid.UUID
	LocalUserID string
	Basis       string
	LinkedAt    time.Time
	Actor       string
	Note        string
	EndedAt     *time.Time
	EndReason   string
	EndedBy     string
	EndNote     string
}

// PersonAccess is a row of user_access.
type PersonAccess struct {
	Kind     string
	ObjectID uuid.UUID
	Name     string
	Status   string
	Via      string
	Until    time.Time // zero: while it is to go on
	RenewsAt time.Time // zero: never
	Reason   string
}

// PersonSubscription is a subscription of the person's customers, or one bought in their own checkout; amounts are in the currency's smallest unit.
type PersonSubscription struct {
	ID                uuid.UUID
	Status            string
	ProductName       string
	Amount            int64
	Currency          string
	RecurringInterval string
	CurrentPeriodEnd  *time.Time
	CancelAtPeriodEnd bool
	EndedAt           *time.Time
	CreatedAt         *time.Time
	Buyer             string // the local user in whose checkout it was bought, and whose it is; empty: in none's
}

// PersonOrder is an order of the person's customers, or one made in their own checkout; amounts are in the currency's smallest unit.
type PersonOrder struct {
	ID             uuid.UUID
	Status         string
	ProductName    string
	TotalAmount    int64
	RefundedAmount int64 // with tax
	Currency       string
	InvoiceNumber  string
	CreatedAt      *time.Time
	Buyer          string // as of a subscription
}

// PersonEvent is an event of one of the person's objects.
type PersonEvent struct {
	Seq      int64
	Type     string
	ObjectID string
	State    string
	At       time.Time
}

// ReadPerson reads the person who is this customer, or this local user where the customer is nil. limit bounds each list.
// Errors: ErrNotFound where nobody knows of either.
func (s *Store) ReadPerson(ctx context.Context, customer *uuid.UUID, user string, limit int) (p Person, err error) {
	err = s.InTx(ctx, func(t *Tx) error {
		p, err = t.readPerson(ctx, customer, user, limit)
		return err
	})
	if err != nil {
		return Person{}, err
	}
	return p, nil
}

// mostOfAPerson bounds how many customers are shown as one person.
const mostOfAPerson = 20

func (t *Tx) readPerson(ctx context.Context, customer *uuid.UUID, user string, limit int) (p Person, err error) {
	var ids []uuid.UUID
	if customer != nil {
		ids = []uuid.UUID{*customer}
		subjects, err := t.ListLinkSubjects(ctx, ids)
		if err != nil {
			return Person{}, err
		}
		if len(subjects) == 0 {
			return Person{}, fmt.Errorf("customer %s: %w", customer, ErrNotFound)
		}
		user = subjects[0].LinkedUserID
	}
	user = storableText(user)
	var users []string
	if user != "" {
		users = []string{user}
		linked, err := t.ListLinkedCustomers(ctx, users)
		if err != nil {
			return Person{}, err
		}
		for _, id := range linked[user] {
			if (customer == nil || id != *customer) && len(ids) < mostOfAPerson {
				ids = append(ids, id)
			}
		}
		if p.Users, err = t.ListFiledUsers(ctx, users); err != nil {
			return Person{}, err
		}
	}
	wrap := func(err error) error { return fmt.Errorf("reading what there is on a person: %w", interpret(err)) }
	subjects := make([]string, 0, len(ids)+len(users))
	for _, id := range ids {
		c, err := t.q.CustomerGetForPeople(ctx, t.tx, id)
		if errors.Is(interpret(err), ErrNotFound) {
			continue // linked, and not in the mirror
		}
		if err != nil {
			return Person{}, wrap(err)
		}
		p.Customers = append(p.Customers, FiledCustomer(c))
		conflicts, err := each(func(r dbsqlc.LinkConflictListByCustomerRow) Conflict { return conflictOf(dbsqlc.LinkConflictGetRow(r)) })(t.q.LinkConflictListByCustomer(ctx, t.tx, id))
		if err != nil {
			return Person{}, wrap(err)
		}
		p.Conflicts = append(p.Conflicts, conflicts...)
		subjects = append(subjects, "customer "+id.String())
	}
	most := rowLimit(limit)
	if p.History, err = each(func(r dbsqlc.PersonLinkHistoryListRow) PersonLink { return PersonLink(r) })(
		t.q.PersonLinkHistoryList(ctx, t.tx, dbsqlc.PersonLinkHistoryListParams{CustomerIds: ids, LocalUserIds: users, MaxRows: most})); err != nil {
		return Person{}, wrap(err)
	}
	if p.Subscriptions, err = each(func(r dbsqlc.PersonSubscriptionListRow) PersonSubscription { return PersonSubscription(r) })(
		t.q.PersonSubscriptionList(ctx, t.tx, dbsqlc.PersonSubscriptionListParams{CustomerIds: ids, LocalUserIds: users, MaxRows: most})); err != nil {
		return Person{}, wrap(err)
	}
	if p.Orders, err = each(func(r dbsqlc.PersonOrderListRow) PersonOrder { return PersonOrder(r) })(
		t.q.PersonOrderList(ctx, t.tx, dbsqlc.PersonOrderListParams{CustomerIds: ids, LocalUserIds: users, MaxRows: most})); err != nil {
		return Person{}, wrap(err)
	}
	if user != "" {
		if p.Access, err = each(func(r dbsqlc.PersonAccessListRow) PersonAccess { return PersonAccess(r) })(t.q.PersonAccessList(ctx, t.tx, user, most)); err != nil {
			return Person{}, wrap(err)
		}
		place := Place{}.or()
		if p.Requests, err = each(func(r dbsqlc.CheckoutRequestFindRow) ListedRequest { return ListedRequest(r) })(
			t.q.CheckoutRequestFind(ctx, t.tx, dbsqlc.CheckoutRequestFindParams{Text: user, BeforeAt: place.At, BeforeID: place.ID, MaxRows: most})); err != nil {
			return Person{}, wrap(err)
		}
		subjects = append(subjects, "user "+user)
	}
	if p.Deeds, err = listAuditOf(ctx, t.q, t.tx, t.parts, limit, subjects); err != nil {
		return Person{}, err
	}
	if len(p.Customers) == 0 && len(p.Requests) == 0 && (len(p.Users) == 0 || !p.Users[0].Known) && len(p.History) == 0 {
		return Person{}, fmt.Errorf("local user %q: %w", user, ErrNotFound)
	}
	return p, nil
}

// ListPersonEvents reads a page of the events of all that is the customers' or the local user's, the last received first;
// after is the seq of the row before.
func (s *Store) ListPersonEvents(ctx context.Context, customers []uuid.UUID, users []string, after int64, limit int) ([]PersonEvent, error) {
	events, err := each(func(r dbsqlc.PersonEventListRow) PersonEvent { return PersonEvent(r) })(
		s.q.PersonEventList(ctx, s.pool, dbsqlc.PersonEventListParams{CustomerIds: customers, LocalUserIds: users, BeforeSeq: before(after), MaxRows: rowLimit(limit)}))
	if err != nil {
		return nil, fmt.Errorf("reading a person's events: %w", interpret(err))
	}
	return events, nil
}
