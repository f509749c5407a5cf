package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/truenorth-dev/truenorth/migrations"
)

// Health is what there is to say of a database before anything works on it.
type Health struct {
	Version       string // of Postgres, such as 17.2
	VersionNumber int    // as server_version_num: 170002
	ReadOnly      bool   // a standby, or set so
	Now           time.Time
	Schema        int64  // the last of our migrations that it has had; 0: none
	NewestSchema  int64  // the last that this program knows
	River         string // what River's tables lack; empty: nothing
	User          string
	OwnsTables    bool
	Roles         []string // of ours, that the user has
	UsersKnown    bool     // that the user may read polar.local_user
	UsersMapped   bool     // that polar.local_user shows a table of the product's own
	HasUsers      bool
}

// ReadHealth looks at everything that the programs need. What needs our schema is left out where that is missing. Errors:
// ErrUnavailable.
func (s *Store) ReadHealth(ctx context.Context) (h Health, err error) {
	err = s.pool.QueryRow(ctx, `
		select current_setting('server_version'), current_setting('server_version_num')::int, current_setting('transaction_read_only')::boolean, clock_timestamp(), current_user::text,
		       array(select r.rolname::text from pg_roles r where r.rolname in ('polar_ingest', 'polar_worker', 'polar_app', 'polar_read') and pg_has_role(r.oid, 'usage') order by 1),
		       coalesce((select pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = to_regclass('polar.event_log')), false)`,
	).Scan(&h.Version, &h.VersionNumber, &h.ReadOnly, &h.Now, &h.User, &h.Roles, &h.OwnsTables)
	if err != nil {
		return h, fmt.Errorf("asking Postgres: %w", interpret(err))
	}
	if h.NewestSchema, err = newestMigration(); err != nil {
		return h, err
	}
	var migrated bool
	if err := s.pool.QueryRow(ctx, "select to_regclass($1) is not null", versionTable).Scan(&migrated); err != nil {
		return h, fmt.Errorf("looking for the schema: %w", interpret(err))
	}
	if !migrated {
		return h, nil
	}
	err = s.pool.QueryRow(ctx, "select coalesce(max(version_id) filter (where is_applied), 0) from "+versionTable).Scan(&h.Schema)
	if err != nil {
		return h, fmt.Errorf("reading %s: %w", versionTable, interpret(err))
	}
	river, err := rivermigrate.New(riverpgxv5.New(s.pool), &rivermigrate.Config{Schema: Schema})
	if err != nil {
		return h, fmt.Errorf("preparing River's migrations: %w", err)
	}
	valid, err := river.Validate(ctx, nil)
	if err != nil {
		return h, fmt.Errorf("looking at River's tables: %w", interpret(err))
	}
	h.River = strings.Join(valid.Messages, "; ")
	if h.Schema == 0 {
		return h, nil
	}
	err = s.pool.QueryRow(ctx, `select has_any_column_privilege('polar.local_user', 'select'), pg_get_viewdef('polar.local_user'::regclass) !~ '\mlocal_user_row\M'`).Scan(&h.UsersKnown, &h.UsersMapped)
	if err != nil || !h.UsersKnown {
		return h, interpret(err)
	}
	err = s.pool.QueryRow(ctx, "select exists (select from polar.local_user)").Scan(&h.HasUsers)
	if err != nil {
		return h, fmt.Errorf("looking for users: %w", interpret(err))
	}
	return h, nil
}

// newestMigration is the number of the last of our steps.
func newestMigration() (newest int64, err error) {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("listing migrations: %w", err)
	}
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("migration %s has no number", name), err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}
