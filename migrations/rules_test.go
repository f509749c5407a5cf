package migrations_test

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/migrations"
)

// Steps up to this one are of before anybody had rows that a lock could keep from others.
const lastUnruled = "00010"

// TestNoMigrationKeepsOthersWaiting holds every step against what makes traffic wait on a large database, or fail while programs of
// the release before are at work. bench -only migrate measures what these rules promise.
func TestNoMigrationKeepsOthersWaiting(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.FS, "0*.sql")
	if err != nil {
		t.Fatal(err)
	}
	existing := map[string]bool{"river_job": true, "river_queue": true, "river_leader": true, "river_client": true, "river_client_queue": true}
	ruled := 0
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		number, _, _ := strings.Cut(name, "_")
		step := string(text)
		if number > lastUnruled {
			ruled++
			for _, fault := range migrationFaults(step, existing) {
				t.Errorf("%s: %s", name, fault)
			}
		}
		for _, statement := range statements(step) {
			if m := createsTable.FindStringSubmatch(statement); m != nil {
				existing[m[1]] = true
			}
		}
	}
	if ruled == 0 {
		t.Error("no step was held against the rules")
	}
}

const tableName = `(?:only )?polar\.("?\w+"?)`

var (
	createsTable = regexp.MustCompile(`^create (?:unlogged )?table (?:if not exists )?` + tableName)
	createsIndex = regexp.MustCompile(`^create (?:unique )?index .* on ` + tableName)
	dropsIndex   = regexp.MustCompile(`^drop index`)
	altersTable  = regexp.MustCompile(`^alter table (?:if exists )?` + tableName + ` (.*)$`)
	onTable      = regexp.MustCompile(`^(?:create (?:or replace )?(?:constraint )?trigger .* on|drop trigger .* on|lock table|truncate(?: table)?) ` + tableName)
	writesTable  = regexp.MustCompile(`^(?:with .* )?(update|delete from) ` + tableName)
	dropsWhole   = regexp.MustCompile(`^drop (table|view|function|type|sequence|schema) `)
	giveUpSoon   = regexp.MustCompile(`^set local lock_timeout = '[12]s'$`)
	volatileCall = regexp.MustCompile(`default [^,]*\b(clock_timestamp|random|gen_random_uuid|nextval|timeofday|statement_timestamp)\(|\bserial\b|\bbigserial\b|generated .*(identity|stored)`)
)

// allowed are the changes of a table that take no longer with many rows.
var allowed = []*regexp.Regexp{
	regexp.MustCompile(`^add column (?:if not exists )?\w+ [\w\[\]() ]+?(?: default [^,]+)?(?: not null)?(?: default [^,]+)?$`),
	regexp.MustCompile(`^add constraint \w+ .* not valid$`),
	regexp.MustCompile(`^add constraint \w+ (?:unique|primary key) using index \w+$`),
	regexp.MustCompile(`^validate constraint \w+$`),
	regexp.MustCompile(`^alter column \w+ (?:set|drop) default\b.*$`),
	regexp.MustCompile(`^alter column \w+ set (?:statistics|compression|storage) \w+$`),
	regexp.MustCompile(`^alter column \w+ drop not null$`),
	regexp.MustCompile(`^(?:set|reset) \(.*\)$`),
}

// migrationFaults lists what a step does, on its way up, to tables that were there before it, and should not.
func migrationFaults(step string, existing map[string]bool) (faults []string) {
	fault := func(statement, format string, args ...any) {
		short := statement
		if len(short) > 80 {
			short = short[:80] + "…"
		}
		faults = append(faults, fmt.Sprintf(format, args...)+": "+short)
	}
	var impatient bool
	var validated []string
	for _, s := range statements(step) {
		table, alters := "", ""
		if m := altersTable.FindStringSubmatch(s); m != nil {
			table, alters = m[1], m[2]
		} else if m := onTable.FindStringSubmatch(s); m != nil {
			table = m[1]
		}
		if existing[table] && !impatient {
			fault(s, "everybody waits behind this while somebody holds %s: say first set local lock_timeout = '2s'", table)
		}
		switch m, w := createsIndex.FindStringSubmatch(s), writesTable.FindStringSubmatch(s); {
		case giveUpSoon.MatchString(s):
			impatient = true
		case m != nil && existing[m[1]] && !strings.Contains(s, " index concurrently "):
			fault(s, "writers of %s wait until this index is made: make it concurrently, in a step with NO TRANSACTION", m[1])
		case dropsIndex.MatchString(s) && !strings.HasPrefix(s, "drop index concurrently "):
			fault(s, "drop it concurrently, in a step with NO TRANSACTION")
		case dropsWhole.MatchString(s):
			fault(s, "the release before still uses it, and is at work: drop it a release later, under a name that this test is told of")
		case w != nil && existing[w[2]]:
			fault(s, "every row that this changes stays locked until the step ends: let the worker do it, some rows at a time")
		case alters == "" || !existing[table]:
		case volatileCall.MatchString(alters):
			fault(s, "this writes all of %s anew: add the column without, then a default for new rows, and fill it some rows at a time", table)
		case strings.HasPrefix(alters, "validate constraint "):
			validated = append(validated, table)
		case regexp.MustCompile(`^alter column \w+ set not null$`).MatchString(alters):
			if !slices.Contains(validated, table) {
				fault(s, "this reads all of %s under its lock: add constraint … check (… is not null) not valid and validate it first, in an earlier statement", table)
			}
		case regexp.MustCompile(`^add column .* not null$`).MatchString(alters) && !strings.Contains(alters, " default "):
			fault(s, "the release before writes rows without it: give it a default")
		case !slices.ContainsFunc(allowed, func(r *regexp.Regexp) bool { return r.MatchString(alters) }):
			fault(s, "this may write or read all of %s under its lock, or take from the release before what it uses; if it does neither, add its form to what is allowed here", table)
		}
	}
	return faults
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	quoted  = regexp.MustCompile(`(?s)\$(\w*)\$.*?\$\w*\$`)
	blanks  = regexp.MustCompile(`\s+`)
)

// statements are those of a step's way up, each on one line in lower case, without what functions hold.
func statements(step string) (list []string) {
	up, _, _ := strings.Cut(step, "-- +goose Down")
	up = quoted.ReplaceAllString(comment.ReplaceAllString(up, ""), "''")
	for statement := range strings.SplitSeq(up, ";") {
		if s := strings.ToLower(strings.TrimSpace(blanks.ReplaceAllString(statement, " "))); s != "" {
			list = append(list, s)
		}
	}
	return list
}

func TestEachRuleOfMigrationsFindsItsBreach(t *testing.T) {
	t.Parallel()
	const patient = "set local lock_timeout = '2s'; "
	for _, test := range []struct{ step, want string }{
		{"create index a_idx on polar.customer (email)", "concurrently"},
		{"create unique index a_idx on polar.\"order\" using btree (id)", "concurrently"},
		{"drop index polar.a_idx", "concurrently"},
		{"alter table polar.customer add column note text", "lock_timeout"},
		{"create trigger a after insert on polar.customer for each row execute function polar.a()", "lock_timeout"},
		{"lock table polar.customer in share mode", "lock_timeout"},
		{patient + "alter table polar.customer add column mark uuid default gen_random_uuid()", "anew"},
		{patient + "alter table polar.customer add column n bigint generated always as identity", "anew"},
		{patient + "alter table polar.customer add column low text generated always as (lower(email)) stored", "anew"},
		{patient + "alter table polar.customer alter column name type varchar(10)", "may write or read"},
		{patient + "alter table polar.customer alter column name set not null", "is not null"},
		{patient + "alter table polar.customer add column note text not null", "default"},
		{patient + "alter table polar.customer add constraint customer_a check (name <> '')", "may write or read"},
		{patient + "alter table polar.customer add constraint customer_a unique (name)", "may write or read"},
		{patient + "alter table polar.customer drop column name", "release before"},
		{patient + "alter table polar.customer rename column name to called", "release before"},
		{"drop table polar.customer", "release before"},
		{"update polar.customer set name = lower(name)", "some rows at a time"},
		{"delete from polar.customer where deleted_at is not null", "some rows at a time"},
	} {
		found := migrationFaults("-- +goose Up\n"+test.step+";\n-- +goose Down\ndrop table polar.customer;", map[string]bool{"customer": true, `"order"`: true})
		if len(found) != 1 || !strings.Contains(found[0], test.want) {
			t.Errorf("%s: faults %q, want one that says %q", test.step, found, test.want)
		}
	}
	for _, step := range []string{
		"create table polar.fresh (id uuid); create index fresh_idx on polar.fresh (id); alter table polar.fresh alter column id type text",
		"drop index concurrently if exists polar.a_idx; create index concurrently a_idx on polar.customer (email)",
		patient + "alter table polar.customer add column note text; alter table polar.customer add column since timestamptz not null default now()",
		patient + "alter table polar.customer add constraint customer_a check (name is not null) not valid; alter table polar.customer validate constraint customer_a; alter table polar.customer alter column name set not null",
		"create function polar.a() returns trigger language plpgsql as $$ begin update polar.customer set name = ''; end $$",
		"comment on column polar.customer.name is 'drop table; all of it'",
	} {
		if found := migrationFaults("-- +goose Up\n"+step+";", map[string]bool{"customer": true}); len(found) > 0 {
			t.Errorf("%s: faults %q, want none", step, found)
		}
	}
}
