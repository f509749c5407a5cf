package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/truenorth-dev/truenorth/migrations"
)

// Roles that Migrate makes, none of which can log in: grant them to the users that the programs connect as.
const (
	RoleIngest = "polar_ingest" // stores events with their jobs
	RoleWorker = "polar_worker" // reads and writes everything, and owns nothing
	RoleApp    = "polar_app"    // enqueues checkouts, and reads all but events and keys
	RoleRead   = "polar_read"   // reads all but documents, bodies and keys
)

// makeRoles makes the roles that are not there, and gives all of them what they may do. Roles belong to the whole server, so
// another database's migration may make one at the same time. missing are those that this user may not make.
func makeRoles(ctx context.Context, conn *pgx.Conn) (missing []string, err error) {
	for _, role := range []string{RoleIngest, RoleWorker, RoleApp, RoleRead} {
		var known bool
		if err := conn.QueryRow(ctx, "select to_regrole($1) is not null", role).Scan(&known); err != nil {
			return nil, fmt.Errorf("looking for role %s: %w", role, interpret(err))
		}
		if known {
			continue
		}
		_, err := conn.Exec(ctx, "create role "+pgx.Identifier{role}.Sanitize()+" nologin")
		const duplicateObject, uniqueViolation, insufficientPrivilege = "42710", "23505", "42501"
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		switch {
		case err == nil, ok && slices.Contains([]string{duplicateObject, uniqueViolation}, pgErr.Code):
		case ok && pgErr.Code == insufficientPrivilege:
			missing = append(missing, role)
		default:
			return nil, fmt.Errorf("creating role %s: %w", role, interpret(err))
		}
	}
	if _, err := conn.Exec(ctx, migrations.Grants); err != nil {
		return nil, fmt.Errorf("granting to the roles: %w", interpret(err))
	}
	return missing, nil
}

// OwnsRiver tells whether this user may rebuild River's indexes.
func (s *Store) OwnsRiver(ctx context.Context) (bool, error) {
	owns, err := s.q.RiverIsOwned(ctx, s.pool)
	if err != nil {
		return false, fmt.Errorf("asking who owns River's tables: %w", interpret(err))
	}
	return owns, nil
}
