package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	goosedb "github.com/pressly/goose/v3/database"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/migrations"
)

// versionTable holds which of our migrations a database has had.
const versionTable = Schema + ".schema_version"

// Migration is one step that Migrate made.
type Migration struct {
	Line    string `json:"line"` // river or truenorth
	Version int64  `json:"version"`
}

// Migrate brings the database to the newest schema: the schema polar, River's tables, then ours. Safe twice, and from
// several hosts at once: one does it while the others wait.
//
// Then it makes the roles, and gives them what they may do. A user who may not make roles is warned, and goes without.
func (s *Store) Migrate(ctx context.Context, logger *slog.Logger) ([]Migration, error) {
	return s.MigrateTelling(ctx, logger, func(Migration) {})
}

// MigrateTelling is Migrate, and tells of each of our steps before it begins: with many rows one may take minutes.
func (s *Store) MigrateTelling(ctx context.Context, logger *slog.Logger, begins func(Migration)) ([]Migration, error) {
	var done []Migration
	err := s.holdingMigrationLock(ctx, func(ctx context.Context, m migrators) error {
		result, err := m.river.Migrate(ctx, rivermigrate.DirectionUp, nil)
		if err != nil {
			return fmt.Errorf("migrating River's tables: %w", interpret(err))
		}
		for _, v := range result.Versions {
			done = append(done, Migration{Line: "river", Version: int64(v.Version)})
		}
		pending, err := m.ours.Status(ctx)
		if err != nil {
			return fmt.Errorf("reading what is migrated: %w", interpret(err))
		}
		for _, p := range pending {
			if p.State != goose.StatePending {
				continue
			}
			step := Migration{Line: "truenorth", Version: p.Source.Version}
			begins(step)
			crashpoint.Here("migrate.step")
			if err := upPatiently(ctx, m.ours, logger); err != nil {
				return fmt.Errorf("migrating schema %s to version %d: %w", Schema, step.Version, interpret(err))
			}
			done = append(done, step)
		}
		crashpoint.Here("migrate.unroled")
		missing, err := makeRoles(ctx, m.conn)
		if len(missing) > 0 {
			logger.WarnContext(ctx, "roles are missing, as this user has no CREATEROLE: create them and migrate again, or let the programs connect as the owner",
				slog.Any("roles", missing))
		}
		return err
	}, logger)
	return done, err
}

// How a step that could not have its locks is tried again: it gives up soon each time, so that nobody waits behind it for long.
const (
	lockPause    = time.Second
	lockPatience = 10 * time.Minute
)

func upPatiently(ctx context.Context, ours *goose.Provider, logger *slog.Logger) error {
	for began := time.Now(); ; {
		_, err := ours.UpByOne(ctx)
		var pgErr *pgconn.PgError
		const lockNotAvailable = "55P03"
		if !errors.As(err, &pgErr) || pgErr.Code != lockNotAvailable || time.Since(began) > lockPatience {
			return err //nolint:wrapcheck // the caller says which step
		}
		logger.WarnContext(ctx, "somebody holds a table that this step needs, such as a backup or a long transaction; trying again", slog.String("error", pgErr.Message))
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return err //nolint:wrapcheck // as above
		}
	}
}

// MigrateDown takes all of our migrations back; River's tables stay. What they held is lost.
func (s *Store) MigrateDown(ctx context.Context, logger *slog.Logger) error {
	return s.holdingMigrationLock(ctx, func(ctx context.Context, m migrators) error {
		if _, err := m.ours.DownTo(ctx, 0); err != nil {
			return fmt.Errorf("taking migrations back: %w", interpret(err))
		}
		return nil
	}, logger)
}

// migrators are what migrates, and the connection that holds the lock.
type migrators struct {
	conn  *pgx.Conn
	river *rivermigrate.Migrator[pgx.Tx]
	ours  *goose.Provider
}

func (s *Store) holdingMigrationLock(ctx context.Context, do func(context.Context, migrators) error, logger *slog.Logger) error {
	// A connection of its own holds the lock: it must not be one that the migrations need.
	holder, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("connecting: %w", interpret(err))
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = holder.Close(closeCtx) // gives the lock back
	}()
	if err := takeMigrationLock(ctx, holder); err != nil {
		return err
	}
	if _, err := holder.Exec(ctx, "create schema if not exists polar"); err != nil {
		return fmt.Errorf("creating schema %s: %w", Schema, interpret(err))
	}

	config := s.pool.Config()
	crashpoint.AfterStatements(config.ConnConfig, "migrate.statement")
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("opening the pool: %w", interpret(err))
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	gooseStore, err := goosedb.NewStore(goosedb.DialectPostgres, versionTable)
	if err != nil {
		return fmt.Errorf("preparing migrations: %w", err)
	}
	provider, err := goose.NewProvider("", db, migrations.FS, goose.WithStore(gooseStore), goose.WithSlog(logger))
	if err != nil {
		return fmt.Errorf("preparing migrations: %w", err)
	}
	river, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: Schema, Logger: logger})
	if err != nil {
		return fmt.Errorf("preparing River's migrations: %w", err)
	}
	return do(ctx, migrators{holder, river, provider})
}

// takeMigrationLock waits for other migrations by asking: a statement that waits holds a snapshot, for which an index that the
// other makes concurrently would wait in turn.
func takeMigrationLock(ctx context.Context, holder *pgx.Conn) error {
	for {
		var taken bool
		if err := holder.QueryRow(ctx, "select pg_try_advisory_lock(hashtextextended('polar:migrate', 0))").Scan(&taken); err != nil {
			return fmt.Errorf("asking whether another migration is at work: %w", interpret(err))
		}
		if taken {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for another migration: %w", ctx.Err())
		}
	}
}

// MapUsers says where the product's users are.
type MapUsers struct {
	Table     string // schema.table, or a name alone: then of schema public
	ID        string // column of the id, which Polar's external_id bears
	Email     string // column of the e-mail address; may be empty
	CreatedAt string // column of the time of creation; may be empty
	DeletedAt string // column of the time of a soft deletion; may be empty
}

// ErrNoSuchColumn is what MapLocalUsers answers where the table or a column is not there.
var ErrNoSuchColumn = errors.New("no such table or column")

// MapLocalUsers puts the product's own table behind polar.local_user. indexed tells whether an index serves look-ups
// by the id as text. The transaction notes who did. Errors: ErrNoSuchColumn, naming it.
func (s *Store) MapLocalUsers(ctx context.Context, m MapUsers, word Word) (indexed bool, err error) {
	table := tableName(m.Table)
	columns := map[string]string{}
	rows, err := s.pool.Query(ctx, `select a.attname::text, format_type(a.atttypid, null) from pg_attribute a
		where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped`, table.Sanitize())
	if err != nil {
		return false, fmt.Errorf("reading the columns of %s: %w", m.Table, interpret(err))
	}
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			rows.Close()
			return false, fmt.Errorf("reading the columns of %s: %w", m.Table, interpret(err))
		}
		columns[name] = typ
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("reading the columns of %s: %w", m.Table, interpret(err))
	}
	if len(columns) == 0 {
		return false, fmt.Errorf("%w: table %s (give --table schema.table)", ErrNoSuchColumn, m.Table)
	}
	column := func(name, cast, missing string) (string, error) {
		if name == "" {
			return missing, nil
		}
		if _, ok := columns[name]; !ok {
			return "", fmt.Errorf("%w: column %s of table %s", ErrNoSuchColumn, name, m.Table)
		}
		return pgx.Identifier{name}.Sanitize() + "::" + cast, nil
	}
	var selected [4]string
	for i, c := range []struct{ name, cast, missing string }{
		{m.ID, "text", ""},
		{m.Email, "text", "null::text"},
		{m.CreatedAt, "timestamptz", "null::timestamptz"},
		{m.DeletedAt, "timestamptz", "null::timestamptz"},
	} {
		if selected[i], err = column(c.name, c.cast, c.missing); err != nil {
			return false, err
		}
	}
	if m.ID == "" {
		return false, fmt.Errorf("%w: the id column has no name (give --id)", ErrNoSuchColumn)
	}
	view := fmt.Sprintf(`create or replace view polar.local_user as
		select %s as id, %s as email, %s as created_at, %s as deleted_at from %s`,
		selected[0], selected[1], selected[2], selected[3], table.Sanitize())
	deed := word.Deed("map_users", "table "+m.Table, map[string]any{"id": m.ID, "email": m.Email, "created_at": m.CreatedAt, "deleted_at": m.DeletedAt})
	err = s.InTx(ctx, func(t *Tx) error {
		if _, err := t.tx.Exec(ctx, view); err != nil {
			return fmt.Errorf("replacing view polar.local_user: %w", interpret(err))
		}
		return t.Audit(ctx, deed)
	})
	if err != nil {
		return false, err
	}

	// Links look users up by the id as text: of a text column any index on it serves, of another type only one on the cast.
	pattern := pgx.Identifier{m.ID}.Sanitize()
	err = s.pool.QueryRow(ctx, `select exists (
		select from pg_index i
		 where i.indrelid = to_regclass($1) and i.indpred is null
		   and case when $3 in ('text', 'character varying')
		            then (select a.attname from pg_attribute a where a.attrelid = i.indrelid and a.attnum = i.indkey[0]) = $2
		            else pg_get_indexdef(i.indexrelid, 1, false) in ('(' || $2 || ')::text', '((' || $2 || ')::text)', '(' || $4 || ')::text', '((' || $4 || ')::text)') end)`,
		table.Sanitize(), m.ID, columns[m.ID], pattern).Scan(&indexed)
	if err != nil {
		return false, fmt.Errorf("looking for an index on %s: %w", m.Table, interpret(err))
	}
	return indexed, nil
}

// tableName splits schema.table; a name alone is of schema public.
func tableName(name string) pgx.Identifier {
	for i := range len(name) {
		if name[i] == '.' {
			return pgx.Identifier{name[:i], name[i+1:]}
		}
	}
	return pgx.Identifier{"public", name}
}
