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

// Where a version of an object came from.
const (
	FromEvent = "event"
	FromRead  = "read"
)

// Object is one version of one of Polar's objects.
type Object struct {
	ID        uuid.UUID
	Doc       json.RawMessage // must be text that jsonb takes
	Deleted   bool            // a tombstone
	VersionAt time.Time       // Polar's clock: an event's timestamp, a read's Date; zero where unknown
	WebhookID string          // the event it came from; empty for a read
}

// Mirrored says what MirrorObjects did.
type Mirrored struct {
	Written []uuid.UUID // inserted or changed
	Tied    []uuid.UUID // as new as what is stored, yet different: only Polar can say
}

// MirrorObjects writes objects of one type (a table of the mirror) where they are newer than what is stored. Each
// id stands at most once. lift lets a read by id that shows an object alive take a tombstone away. Errors: ErrRefused
// where Postgres cannot hold a document, ErrUnavailable.
func (t *Tx) MirrorObjects(ctx context.Context, objectType, from string, objects []Object, lift bool) (Mirrored, error) {
	params := dbsqlc.MirrorObjectsParams{ObjectType: objectType, VersionFrom: from, Lift: lift, Target: t.mirror}
	for _, o := range objects {
		params.Ids = append(params.Ids, o.ID)
		params.Docs = append(params.Docs, o.Doc)
		params.Tombstones = append(params.Tombstones, o.Deleted)
		params.VersionAts = append(params.VersionAts, storable(o.VersionAt))
		params.WebhookIds = append(params.WebhookIds, o.WebhookID)
	}
	row, err := t.q.MirrorObjects(ctx, t.tx, params)
	if err != nil {
		return Mirrored{}, fmt.Errorf("mirroring %d objects of type %s: %w", len(objects), objectType, interpret(err))
	}
	return Mirrored(row), nil
}

// UpsertCustomerStates keeps the newest state of each customer; each id stands at most once.
func (t *Tx) UpsertCustomerStates(ctx context.Context, states []Object) error {
	params := dbsqlc.MirrorCustomerStatesParams{Target: t.mirror}
	for _, s := range states {
		params.Ids = append(params.Ids, s.ID)
		params.Docs = append(params.Docs, s.Doc)
		params.VersionAts = append(params.VersionAts, storable(s.VersionAt))
		params.WebhookIds = append(params.WebhookIds, s.WebhookID)
	}
	if err := t.q.MirrorCustomerStates(ctx, t.tx, params); err != nil {
		return fmt.Errorf("writing %d customer states: %w", len(states), interpret(err))
	}
	return nil
}

// OverlayCustomerStates lays states over the full documents of these customers, where the state is the newer.
func (t *Tx) OverlayCustomerStates(ctx context.Context, ids []uuid.UUID) error {
	if err := t.q.OverlayCustomerStates(ctx, t.tx, ids, t.mirror); err != nil {
		return fmt.Errorf("laying states over %d customers: %w", len(ids), interpret(err))
	}
	return nil
}

// ListMissingCustomers tells which of these customers the mirror does not have.
func (t *Tx) ListMissingCustomers(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	have, err := t.q.CustomerListExisting(ctx, t.tx, ids)
	if err != nil {
		return nil, fmt.Errorf("looking for %d customers: %w", len(ids), interpret(err))
	}
	present := make(map[uuid.UUID]bool, len(have))
	for _, id := range have {
		present[id] = true
	}
	var missing []uuid.UUID
	for _, id := range ids {
		if !present[id] {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// Customer is what the jobs need of a mirrored customer.
type Customer struct {
	ID         uuid.UUID
	ExternalID string // empty where Polar has none
	Deleted    bool
}

// GetCustomer reads a customer of the mirror. Errors: ErrNotFound.
func (s *Store) GetCustomer(ctx context.Context, id uuid.UUID) (Customer, error) {
	row, err := s.q.CustomerGet(ctx, s.pool, id)
	if err != nil {
		return Customer{}, fmt.Errorf("reading customer %s: %w", id, interpret(err))
	}
	c := Customer{ID: row.ID, Deleted: row.DeletedAt != nil}
	if row.ExternalID != nil {
		c.ExternalID = *row.ExternalID
	}
	return c, nil
}

// ListCustomersByExternalID gives the living customers of the mirror that bear an external id, compared exactly.
func (s *Store) ListCustomersByExternalID(ctx context.Context, externalID string) ([]uuid.UUID, error) {
	ids, err := s.q.CustomerListByExternalID(ctx, s.pool, &externalID)
	if err != nil {
		return nil, fmt.Errorf("looking for customers by external id: %w", interpret(err))
	}
	return ids, nil
}

// PinOrganization says which organization this database mirrors: the one given, if none was before. fresh tells that
// this transaction may have decided it, so that the answer holds only once it commits.
func (t *Tx) PinOrganization(ctx context.Context, id uuid.UUID) (pinned uuid.UUID, fresh bool, err error) {
	pinned, err = t.q.OrganizationPinned(ctx, t.tx)
	if err = interpret(err); errors.Is(err, ErrNotFound) {
		t.pins = true
		pinned, err = t.q.OrganizationPin(ctx, t.tx, id)
		err = interpret(err)
	}
	if err != nil {
		return uuid.Nil, false, fmt.Errorf("pinning the organization: %w", err)
	}
	return pinned, t.pins, nil
}

// PinnedOrganization says which organization this database mirrors. Errors: ErrNotFound while it mirrors none.
func (s *Store) PinnedOrganization(ctx context.Context) (uuid.UUID, error) {
	id, err := s.q.OrganizationPinned(ctx, s.pool)
	if err != nil {
		return uuid.Nil, fmt.Errorf("reading the mirrored organization: %w", interpret(err))
	}
	return id, nil
}
