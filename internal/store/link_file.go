package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// LinkFile is what a person reads before deciding who a customer is.
type LinkFile struct {
	Customer  FiledCustomer   `json:"customer"`
	Conflicts []Conflict      `json:"conflicts"` // there ever were of the customer, oldest first
	History   []PastLink      `json:"history"`
	Checkouts []FiledCheckout `json:"checkouts"` // that speak for or against a link, oldest first
}

// FiledCustomer is a customer of Polar as a person sees it.
type FiledCustomer struct {
	ID           uuid.UUID  `json:"id"`
	ExternalID   string     `json:"external_id,omitempty"` // empty where Polar has none
	Email        string     `json:"email,omitempty"`
	Name         string     `json:"name,omitempty"`
	CreatedAt    *time.Time `json:"created_at"` // by Polar's clock
	DeletedAt    *time.Time `json:"deleted_at,omitempty"`
	LinkedUserID string     `json:"linked_user_id,omitempty"` // empty: not linked
	LinkedBasis  string     `json:"linked_basis,omitempty"`
	LinkedAt     *time.Time `json:"linked_at,omitempty"`
}

// PastLink is a row of customer_link_history.
type PastLink struct {
	LocalUserID string     `json:"local_user_id"`
	Basis       string     `json:"basis"`
	LinkedAt    time.Time  `json:"linked_at"`
	Actor       string     `json:"actor"`
	Note        string     `json:"note,omitempty"`
	EndedAt     *time.Time `json:"ended_at,omitempty"` // nil: in force
	EndReason   string     `json:"end_reason,omitempty"`
	EndedBy     string     `json:"ended_by,omitempty"`
	EndNote     string     `json:"end_note,omitempty"`
}

// FiledCheckout is a checkout that a customer paid, or began.
type FiledCheckout struct {
	CheckoutID        uuid.UUID  `json:"checkout_id"`
	Status            string     `json:"status"`
	LocalUserID       string     `json:"local_user_id,omitempty"` // whom truenorth created it for; empty: a guest
	SessionCreatedAt  *time.Time `json:"session_created_at"`      // by Polar's clock
	CustomerCreatedAt *time.Time `json:"customer_created_at"`     // by Polar's clock
	ByCustomer        bool       `json:"by_customer"`             // the session was created with the customer
	Proves            bool       `json:"proves"`                  // that the customer is the local user
}

// FiledUser is a local user whom something names, whether or not it exists.
type FiledUser struct {
	ID        string     `json:"id"`
	Known     bool       `json:"known"`
	Email     string     `json:"email,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	DeletedAt *time.Time `json:"deleted_at,omitempty"`
}

// filedCheckouts bounds the checkouts of a file.
const filedCheckouts = 100

// ReadLinkFile reads what there is on a customer. Errors: ErrNotFound where the mirror has no such customer.
func (t *Tx) ReadLinkFile(ctx context.Context, customer uuid.UUID) (LinkFile, error) {
	wrap := func(err error) (LinkFile, error) {
		return LinkFile{}, fmt.Errorf("reading what there is on customer %s: %w", customer, interpret(err))
	}
	f := LinkFile{Conflicts: []Conflict{}, History: []PastLink{}, Checkouts: []FiledCheckout{}}
	c, err := t.q.CustomerGetForPeople(ctx, t.tx, customer)
	if err != nil {
		return wrap(err)
	}
	f.Customer = FiledCustomer(c)
	conflicts, err := t.q.LinkConflictListByCustomer(ctx, t.tx, customer)
	if err != nil {
		return wrap(err)
	}
	for _, r := range conflicts {
		f.Conflicts = append(f.Conflicts, conflictOf(dbsqlc.LinkConflictGetRow(r)))
	}
	history, err := t.q.CustomerLinkHistoryListByCustomer(ctx, t.tx, customer)
	if err != nil {
		return wrap(err)
	}
	for _, r := range history {
		f.History = append(f.History, PastLink(r))
	}
	checkouts, err := t.q.CheckoutListForPeople(ctx, t.tx, customer, filedCheckouts)
	if err != nil {
		return wrap(err)
	}
	for _, r := range checkouts {
		f.Checkouts = append(f.Checkouts, FiledCheckout(r))
	}
	return f, nil
}

// ListFiledUsers reads each of the local users, whether or not it exists.
func (t *Tx) ListFiledUsers(ctx context.Context, ids []string) ([]FiledUser, error) {
	rows, err := t.q.LocalUserListForPeople(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("looking for %d local users: %w", len(ids), interpret(err))
	}
	users := make([]FiledUser, len(rows))
	for i, r := range rows {
		users[i] = FiledUser(r)
	}
	return users, nil
}

// FoundCustomer is a living customer of the mirror.
type FoundCustomer struct {
	ID         uuid.UUID
	ExternalID string // empty where Polar has none
}

// ListCustomersByEmail finds living customers by their address, whatever its case: a help for who types, no evidence.
func (s *Store) ListCustomersByEmail(ctx context.Context, email string) ([]FoundCustomer, error) {
	rows, err := s.q.CustomerListByEmail(ctx, s.pool, email)
	if err != nil {
		return nil, fmt.Errorf("looking for the customers of an e-mail address: %w", interpret(err))
	}
	customers := make([]FoundCustomer, len(rows))
	for i, r := range rows {
		customers[i] = FoundCustomer(r)
	}
	return customers, nil
}
