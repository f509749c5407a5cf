package store_test

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

var quiet = slog.New(slog.DiscardHandler)

func TestMigrationsAndSchemaFileGiveTheSameSchema(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	migrated := storetest.New(t)

	fromFile := storetest.Open(t, storetest.EmptyURL(t))
	if _, err := fromFile.Migrate(ctx, quiet); err != nil { // for River's tables
		t.Fatal(err)
	}
	if err := fromFile.MigrateDown(ctx, quiet); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fromFile.Pool().Exec(ctx, string(file)); err != nil {
		t.Fatalf("applying schema.sql: %v", err)
	}
	if diff := cmp.Diff(storetest.Describe(t, fromFile), storetest.Describe(t, migrated)); diff != "" {
		t.Errorf("schema.sql and migrations/ differ (-schema.sql +migrations):\n%s", diff)
	}
}

func TestMigrationsGoUpDownAndUpAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := storetest.Open(t, storetest.EmptyURL(t))
	var told []store.Migration
	steps, err := s.MigrateTelling(ctx, quiet, func(next store.Migration) { told = append(told, next) })
	if err != nil || len(told) == 0 {
		t.Fatalf("migrating up made steps %v, %v", steps, err)
	}
	ours := slices.DeleteFunc(slices.Clone(steps), func(m store.Migration) bool { return m.Line != "truenorth" })
	if diff := cmp.Diff(ours, told); diff != "" {
		t.Errorf("other steps were told of than were made (-made +told):\n%s", diff)
	}
	first := storetest.Describe(t, s)
	// An event whose body is no longer kept is no reason to stay.
	if _, err := s.Pool().Exec(ctx, "insert into polar.event_log (webhook_id, type, batch) values ('bodiless', 'order.paid', 0)"); err != nil {
		t.Fatal(err)
	}
	if err := s.MigrateDown(ctx, quiet); err != nil {
		t.Fatalf("migrating down: %v", err)
	}
	for _, line := range storetest.Describe(t, s) {
		if !strings.Contains(line, "river_") && !strings.Contains(line, "schema_version") {
			t.Errorf("left behind by the way down: %s", line)
		}
	}
	if _, err := s.Migrate(ctx, quiet); err != nil {
		t.Fatalf("migrating up again: %v", err)
	}
	if diff := cmp.Diff(first, storetest.Describe(t, s)); diff != "" {
		t.Errorf("the second way up gave another schema:\n%s", diff)
	}
	steps, err = s.Migrate(ctx, quiet)
	if err != nil || len(steps) != 0 {
		t.Errorf("migrating a database that is up to date made steps %v, %v; want none", steps, err)
	}
}

func TestMigrateFromSeveralHostsAtOnceMigratesOnce(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	results := make(chan error, 4)
	counts := make(chan int, 4)
	for range 4 {
		s := storetest.Open(t, url)
		go func() {
			steps, err := s.Migrate(context.Background(), quiet)
			counts <- len(steps)
			results <- err
		}()
	}
	working := 0
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
		if <-counts > 0 {
			working++
		}
	}
	if working != 1 {
		t.Errorf("%d of 4 migrations made steps, want 1", working)
	}
}

func TestEveryTableViewAndColumnThatPeopleQueryIsCommented(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	missing := column[string](t, s, `
		select format('%s.%s', c.relname, coalesce(a.attname, '')) from pg_class c
		  join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'polar'
		  cross join lateral (select null::name as attname, 0 as attnum union all
		                      select attname, attnum from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a
		 where c.relkind in ('r', 'v') and c.relname not like 'river%' and c.relname <> 'schema_version'
		   and a.attname is distinct from 'only_row'
		   and case when a.attnum = 0 then obj_description(c.oid, 'pg_class') else col_description(c.oid, a.attnum) end is null
		 order by 1`)
	if len(missing) > 0 {
		t.Errorf("no comment on: %s", strings.Join(missing, ", "))
	}
}

func TestConstraintsAreNamed(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	// A name that Postgres made up ends in a number or repeats the column of a check.
	odd := column[string](t, s, `
		select conrelid::regclass || '.' || conname from pg_constraint k
		  join pg_namespace n on n.oid = k.connamespace and n.nspname = 'polar'
		  join pg_class c on c.oid = k.conrelid
		 where c.relname not like 'river%' and c.relname <> 'schema_version'
		   and (conname ~ '\d$' or position(c.relname in conname) <> 1)`)
	if len(odd) > 0 {
		t.Errorf("constraints without a name of ours: %v", odd)
	}
}

func TestSqlcSeesRiversTablesAsTheyAre(t *testing.T) {
	t.Parallel()
	const columns = `select a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
		from pg_attribute a where a.attrelid in ('polar.river_job'::regclass, 'polar.river_leader'::regclass) and a.attnum > 0 and not a.attisdropped order by 1`
	migrated := storetest.New(t)
	described := storetest.Open(t, storetest.EmptyURL(t))
	file, err := os.ReadFile("../../queries/river/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := described.Pool().Exec(t.Context(), string(file)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(column[string](t, described, columns), column[string](t, migrated, columns)); diff != "" {
		t.Errorf("queries/river/schema.sql and River's migrations differ (-file +River):\n%s", diff)
	}
}

// column reads the first column of a query.
func column[T any](t *testing.T, s *store.Store, sql string, args ...any) []T {
	t.Helper()
	rows, err := s.Pool().Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// TestAMigrationThatWaitsForATableHoldsUpNobodyElse runs a step that changes River's table of jobs beside a backup, which reads
// that table for long: ingest goes on writing jobs, and the step is made once the backup is over.
func TestAMigrationThatWaitsForATableHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := s.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("delete from polar.schema_version where version_id >= 14") // the steps from there on can be made twice
	backup, err := s.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Exec(t.Context(), "lock table polar.river_job in access share mode"); err != nil {
		t.Fatal(err)
	}
	migrated := make(chan error, 1)
	go func() {
		_, err := s.Migrate(t.Context(), quiet)
		migrated <- err
	}()
	for waits := false; !waits; {
		if err := s.Pool().QueryRow(t.Context(), "select exists (select from pg_locks where relation = 'polar.river_job'::regclass and not granted)").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	exec("insert into polar.river_job (kind, args, queue, max_attempts) values ('none', '{}', 'none', 1)")
	select {
	case err := <-migrated:
		t.Fatalf("the step was made, or given up, while the table was held: %v", err)
	default:
	}
	if err := backup.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Error(err)
	}
}
