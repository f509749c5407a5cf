package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// OtherOrganizationError tells that a token or a document is of another organization than the one mirrored:
// sandbox and production, or two shops, must not mix.
type OtherOrganizationError struct {
	What     string    // what is of the other organization
	Other    uuid.UUID // its organization
	Mirrored uuid.UUID // the database's
}

func (e *OtherOrganizationError) Error() string {
	return fmt.Sprintf("%s is of Polar's organization %s, but this database mirrors %s: use the right token and secret, or another database", e.What, e.Other, e.Mirrored)
}

// guard keeps organizations apart. The first document mirrored decides which one the database mirrors.
type guard struct {
	api   *polar.API
	store *store.Store

	mu       sync.Mutex
	proven   bool      // that the token is of the pinned organization
	pinned   uuid.UUID // zero until known
	tokenOK  bool
	askAgain time.Time // while nothing tells the token's organization
}

// organizationOf reads the organization that a document names. The id that stands in Polar's documentation examples
// names none.
func organizationOf(id string) uuid.UUID {
	if id == polar.ExampleID {
		return uuid.Nil
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return uuid.Nil
	}
	return parsed
}

// admit tells whether a document of this organization may be mirrored; the first one pins the database to it.
func (g *guard) admit(ctx context.Context, tx *store.Tx, organization uuid.UUID, what string) error {
	if organization == uuid.Nil {
		return nil
	}
	g.mu.Lock()
	pinned := g.pinned
	g.mu.Unlock()
	if pinned == uuid.Nil {
		var fresh bool
		var err error
		if pinned, fresh, err = tx.PinOrganization(ctx, organization); err != nil {
			return err
		}
		if !fresh { // a fresh one is not remembered: this transaction may be rolled back
			g.mu.Lock()
			g.pinned = pinned
			g.mu.Unlock()
		}
	}
	if pinned != organization {
		return &OtherOrganizationError{What: what, Other: organization, Mirrored: pinned}
	}
	return nil
}

// CompareOrganization asks Polar whose token api has, and compares. Errors: *OtherOrganizationError; others where Polar or
// Postgres could not be asked.
func CompareOrganization(ctx context.Context, s *store.Store, api *polar.API) error {
	return (&guard{api: api, store: s}).check(ctx)
}

// check asks Polar once whose token this is, and compares.
func (g *guard) check(ctx context.Context) error {
	g.mu.Lock()
	done := g.tokenOK || time.Now().Before(g.askAgain)
	g.mu.Unlock()
	if done {
		return nil
	}
	pinned, err := g.store.PinnedOrganization(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil // nothing is mirrored, so nothing can mix
	}
	if err != nil {
		return err
	}
	name, err := g.api.OrganizationOf(ctx)
	if err != nil {
		return fmt.Errorf("asking Polar whose POLAR_ACCESS_TOKEN this is: %w", err)
	}
	organization := organizationOf(name)
	if organization != uuid.Nil && organization != pinned {
		return &OtherOrganizationError{What: "POLAR_ACCESS_TOKEN", Other: organization, Mirrored: pinned}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pinned = pinned
	if g.tokenOK = organization != uuid.Nil; !g.tokenOK {
		g.askAgain = time.Now().Add(time.Minute)
	}
	return nil
}

// prove makes sure that the token is of the organization that is mirrored, before absence at Polar counts for anything:
// an empty organization knows none of the mirror's objects either.
func (g *guard) prove(ctx context.Context) error {
	if err := g.check(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	done := g.proven || g.tokenOK
	g.mu.Unlock()
	if done {
		return nil
	}
	pinned, err := g.store.PinnedOrganization(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil // nothing is mirrored that could be taken for gone
	}
	if err != nil {
		return err
	}
	organizations, _ := polar.ResourceOf(typeOrganization)
	switch _, err := g.api.GetObject(ctx, organizations, pinned); {
	case polar.IsNotFound(err), polar.IsForbidden(err):
		return fmt.Errorf("this database mirrors Polar's organization %s, and nothing that POLAR_ACCESS_TOKEN can read is of it: use a token of that organization (with the scope %s): %w",
			pinned, organizations.Scope(), err)
	case err != nil:
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.proven = true
	return nil
}

// agrees is admit for somebody who only looks: it pins nothing.
func (g *guard) agrees(ctx context.Context, organization uuid.UUID, what string) error {
	if organization == uuid.Nil {
		return nil
	}
	pinned, err := g.store.PinnedOrganization(ctx)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case pinned != organization:
		return &OtherOrganizationError{What: what, Other: organization, Mirrored: pinned}
	}
	return nil
}
