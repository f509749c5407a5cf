package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkLarge looks at what a smoke run of large found out.
func checkLarge(t *testing.T, o options, l *Large) {
	t.Helper()

	if l == nil || l.Rows != int64(o.rows) || l.Objects < int64(o.rows)/eventsPerObjects*6 || l.Bytes == 0 || len(l.Tables) != 8 {
		t.Fatalf("large came to %+v", l)
	}
	for _, name := range []string{onEmpty, onLarge} {
		on := l.on(name)
		if on == nil || on.Receive.Rate <= 0 || on.Later.Rate <= 0 || on.Apply.Rate <= 0 || on.Apply.Events != o.largeApply || on.Linked.Latency.Count != int64(linkRate*o.seconds) {
			t.Errorf("the %s database came to %+v", name, on)
		}
	}
	if len(l.Goals) != 3 || l.Pruned.Alone <= 0 || l.Pruned.Receive.Rate <= 0 {
		t.Errorf("goals are %v, and pruning came to %+v", l.Goals, l.Pruned)
	}
	if len(l.Plans) != len(planCases) {
		t.Errorf("there are %d plans, want %d", len(l.Plans), len(planCases))
	}
	for i, p := range l.Plans {
		if p.Failed != "" || p.Millis <= 0 || !strings.Contains(p.Text, "Execution Time") {
			t.Errorf("the plan of %s came to %+v", p.Name, p)
		}
		if planCases[i].inside && len(p.Inside) == 0 {
			t.Errorf("nothing is known of what %s runs within", p.Name)
		}
	}
}

func TestQueriesBecomeStatementsOfPostgreSQL(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	file := `-- name: First :many
-- What it is for, with @no parameter.
select 'replay --failed', sqlc.embed(r) from t r -- why
 where r.a @> @ids::text[] and r.b = sqlc.narg('since')::timestamptz and r.c = any (@ids::text[]);

-- name: Second :exec
select 1;
`
	if err := os.WriteFile(filepath.Join(dir, "t.sql"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	queries, err := readQueries(dir)
	if err != nil {
		t.Fatal(err)
	}
	statement, names := prepared(queries["First"])
	if want := "select 'replay --failed', r.* from t r\n where r.a @> $1::text[] and r.b = $2::timestamptz and r.c = any ($1::text[])"; statement != want {
		t.Errorf("the statement is\n%s\nwant\n%s", statement, want)
	}
	if !slices.Equal(names, []string{"ids", "since"}) {
		t.Errorf("its parameters are %v", names)
	}
	if statement, _ := prepared(queries["Second"]); statement != "select 1" {
		t.Errorf("the second statement is %q", statement)
	}
	if _, err := readQueries(t.TempDir()); err == nil {
		t.Error("a folder without queries is taken")
	}
}

func TestTablesThatAPlanReadsWholeAreNamed(t *testing.T) {
	t.Parallel()

	p := Plan{
		Text:   "Hash Join\n  ->  Parallel Seq Scan on customer c\n  ->  Seq Scan on product p\n  ->  Index Scan using member_pkey on member m",
		Inside: []string{`Seq Scan on polar."order" o`},
	}
	if got := scannedWhole(p, []string{"customer", "order", "member"}); !slices.Equal(got, []string{"customer", "order"}) {
		t.Errorf("tables are %v", got)
	}
}

func TestHeadingsAreLinkedAsGitHubNamesThem(t *testing.T) {
	t.Parallel()

	for heading, want := range map[string]string{
		"EventPrune, 1,000": "eventprune-1000", "polar.link_user": "polarlink_user", "user_access of one user": "user_access-of-one-user",
	} {
		if got := anchor(heading); got != want {
			t.Errorf("%s is linked as %s, want %s", heading, got, want)
		}
	}
}
