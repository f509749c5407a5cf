package storetest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store"
)

// Describe lists all that the schema holds, a line each: what two schemas that are the same have in common.
func Describe(tb testing.TB, s *store.Store) []string {
	tb.Helper()
	rows, err := s.Pool().Query(context.Background(), `
		select 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		       || case when a.attnotnull then ' not null' else '' end || ' ' || a.attgenerated::text || a.attidentity::text || a.attcompression::text
		       || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
		       || coalesce(' -- ' || col_description(c.oid, a.attnum), '')
		  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
		  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
		 where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'v')
		union all
		select 'relation ' || c.relname || ' ' || c.relkind::text || ' ' || coalesce(c.reloptions::text, '') || coalesce(' -- ' || obj_description(c.oid, 'pg_class'), '')
		  from pg_class c where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'v', 'S')
		union all
		select 'view ' || c.relname || ' ' || pg_get_viewdef(c.oid) from pg_class c where c.relnamespace = 'polar'::regnamespace and c.relkind = 'v'
		union all
		select 'index ' || pg_get_indexdef(i.indexrelid) || case when i.indisvalid then '' else ' INVALID' end from pg_index i join pg_class c on c.oid = i.indexrelid where c.relnamespace = 'polar'::regnamespace
		union all
		select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint where connamespace = 'polar'::regnamespace
		union all
		select 'function ' || pg_get_functiondef(p.oid) || coalesce(' -- ' || obj_description(p.oid, 'pg_proc'), '') from pg_proc p where p.pronamespace = 'polar'::regnamespace
		order by 1`)
	if err != nil {
		tb.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatal(err)
	}
	return lines
}
