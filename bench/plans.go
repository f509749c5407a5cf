package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Plan is what one statement cost on the large database.
type Plan struct {
	Name    string   `json:"name"`
	Group   string   `json:"group"`
	Millis  float64  `json:"ms"`
	First   float64  `json:"first_ms"` // of a connection, when little is cached
	Hit     int64    `json:"shared_hit"`
	Read    int64    `json:"shared_read"`
	Scanned []string `json:"scanned_whole"` // tables of more than manyRows
	Failed  string   `json:"failed"`
	Text    string   `json:"-"`
	Inside  []string `json:"-"` // of the statements in the functions it calls
}

const (
	queriesDir   = "../queries" // from the module of the benchmarks, where it is run
	manyRows     = 10_000
	planLimit    = "60s"
	longestLine  = 220
	mostInside   = 4
	untilSettled = 5 // after so many a connection keeps a plan for all values, where that is as good
)

// planCase is a statement with the values that it is asked with: expressions of SQL on the large database.
type planCase struct {
	group  string
	query  string // of queries/*.sql
	name   string // else; or of a variant of the query
	sql    string // else
	values map[string]string
	before string // what has happened before, in the transaction that is rolled back
	inside bool   // that functions are called whose statements are of interest
}

func (c planCase) title() string {
	if c.name != "" && c.query != "" {
		return c.query + ", " + c.name
	}
	return c.query + c.name
}

var (
	queryName = regexp.MustCompile(`(?m)^-- name: (\w+) :\w+\n`)
	comment   = regexp.MustCompile(`(?m)[ ]*-- .*$`)
	embedded  = regexp.MustCompile(`sqlc\.embed\((\w+)\)`)
	parameter = regexp.MustCompile(`sqlc\.n?arg\('?(\w+)'?\)|@(\w+)`)
)

// readQueries are the statements of the programs by their names, as sqlc reads them.
func readQueries(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.sql"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(fmt.Errorf("no queries are in %s: run this in the folder bench of the sources", dir), err)
	}
	queries := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading the queries: %w", err)
		}
		names := queryName.FindAllSubmatchIndex(text, -1)
		for i, at := range names {
			end := len(text)
			if i+1 < len(names) {
				end = names[i+1][0]
			}
			queries[string(text[at[2]:at[3]])] = string(text[at[1]:end])
		}
	}
	return queries, nil
}

// prepared turns a statement of sqlc's into one of PostgreSQL's, with the names of its parameters in order.
func prepared(sql string) (statement string, names []string) {
	sql = comment.ReplaceAllString(sql, "")
	sql = embedded.ReplaceAllString(sql, "$1.*")
	sql = parameter.ReplaceAllStringFunc(sql, func(found string) string {
		m := parameter.FindStringSubmatch(found)
		name := m[1] + m[2]
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return "$" + strconv.Itoa(slices.Index(names, name)+1)
	})
	return strings.TrimSuffix(strings.TrimSpace(sql), ";"), names
}

// plans reads how the server goes about each case, and how long that takes. Nothing that a statement writes stays.
func plans(ctx context.Context, db *database, sayf func(string, ...any)) ([]Plan, error) {
	queries, err := readQueries(queriesDir)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(db.url)
	if err != nil {
		return nil, fmt.Errorf("reading the database's URL: %w", err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // the statements are prepared here
	var notices []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to read plans: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range []string{
		"set statement_timeout = '" + planLimit + "'",
		"load 'auto_explain'", // its plans come as notices
		"set auto_explain.log_level = notice; set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on; set auto_explain.log_buffers = on",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("%s: %w", sql, err)
		}
	}
	var many []string
	if err := db.read(ctx, "select coalesce(array_agg(relname::text), '{}') from pg_class where relnamespace = 'polar'::regnamespace and relkind = 'r' and reltuples > "+strconv.Itoa(manyRows), &many); err != nil {
		return nil, err
	}
	list := make([]Plan, 0, len(planCases))
	for _, c := range planCases {
		sql := c.sql
		if c.query != "" {
			var known bool
			if sql, known = queries[c.query]; !known {
				return nil, fmt.Errorf("there is no query %s in %s", c.query, queriesDir)
			}
		}
		notices = nil
		p, err := explain(ctx, conn, c, sql)
		if err != nil {
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "57014" { // only taking too long is a finding
				return nil, fmt.Errorf("the plan of %s: %w", c.title(), err)
			}
			p.Failed = "over " + planLimit
		}
		p.Name, p.Group = c.title(), c.group
		if c.inside {
			p.Inside = insidePlans(notices)
		}
		p.Scanned = scannedWhole(p, many)
		if p.Millis > 50 || len(p.Scanned) > 0 || p.Failed != "" {
			sayf("large: %s: %.1f ms (first %.1f), %d hit, %d read, scans %v %s", p.Name, p.Millis, p.First, p.Hit, p.Read, p.Scanned, p.Failed)
		}
		list = append(list, p)
	}
	return list, nil
}

// explain runs a statement twice in a transaction that is rolled back: at first, and as a connection that is long at it does.
func explain(ctx context.Context, conn *pgx.Conn, c planCase, sql string) (p Plan, err error) {
	if _, err := conn.Exec(ctx, "begin"); err != nil {
		return p, fmt.Errorf("beginning: %w", err)
	}
	defer func() {
		_, rollbackErr := conn.Exec(ctx, "rollback; deallocate all; set auto_explain.log_min_duration = -1")
		if rollbackErr != nil {
			err = errors.Join(err, fmt.Errorf("rolling back: %w", rollbackErr))
		}
	}()
	if c.group != views {
		if _, err := conn.Exec(ctx, "set local jit = off"); err != nil { // as the store has it
			return p, fmt.Errorf("beginning: %w", err)
		}
	}
	if c.before != "" {
		if _, err := conn.Exec(ctx, c.before); err != nil {
			return p, fmt.Errorf("preparing: %w", err)
		}
	}
	statement, names := prepared(sql)
	if _, err := conn.Exec(ctx, "prepare asked as "+statement); err != nil {
		return p, fmt.Errorf("preparing: %w", err)
	}
	values := make([]string, len(names))
	for i, name := range names {
		expression, given := c.values[name]
		if !given {
			return p, fmt.Errorf("the parameter %s has no value", name)
		}
		var value *string
		if err := conn.QueryRow(ctx, "select ("+expression+")::text").Scan(&value); err != nil {
			return p, fmt.Errorf("the value of %s: %w", name, err)
		}
		values[i] = "null"
		if value != nil {
			values[i] = "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(*value) + "'"
		}
	}
	execute := "execute asked"
	if len(values) > 0 {
		execute += "(" + strings.Join(values, ", ") + ")"
	}
	explained := func(how string) (string, error) {
		rows, err := conn.Query(ctx, "explain "+how+execute)
		if err != nil {
			return "", fmt.Errorf("explaining: %w", err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return "", fmt.Errorf("explaining: %w", err)
		}
		return strings.Join(lines, "\n"), nil
	}
	if _, err := conn.Exec(ctx, "savepoint first"); err != nil {
		return p, fmt.Errorf("setting a savepoint: %w", err)
	}
	const analyze = "(analyze, buffers) "
	text, err := explained(analyze)
	if err != nil {
		return p, err
	}
	p.First = plannedMillis(text)
	if _, err := conn.Exec(ctx, "rollback to savepoint first"); err != nil {
		return p, fmt.Errorf("rolling back: %w", err)
	}
	for range untilSettled {
		if _, err := explained(""); err != nil {
			return p, err
		}
	}
	if c.inside {
		if _, err := conn.Exec(ctx, "set auto_explain.log_min_duration = 0"); err != nil {
			return p, fmt.Errorf("asking for the plans within: %w", err)
		}
	}
	if text, err = explained(analyze); err != nil {
		return p, err
	}
	p.Text, p.Millis = shortened(text), plannedMillis(text)
	if m := topBuffers.FindStringSubmatch(text); m != nil {
		p.Hit, p.Read = readCount(m[1]), readCount(m[2])
	}
	return p, nil
}

var (
	executionTime = regexp.MustCompile(`Execution Time: ([0-9.]+) ms`)
	planningTime  = regexp.MustCompile(`Planning Time: ([0-9.]+) ms`)
	topBuffers    = regexp.MustCompile(`Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?`)
	wholeScan     = regexp.MustCompile(`Seq Scan on (?:polar\.)?"?(\w+)"?`)
	queryText     = regexp.MustCompile(`(?s)^duration: ([0-9.]+) ms\s+plan:\n(Query Text: .*)$`)
)

// plannedMillis is the time of planning and of execution.
func plannedMillis(text string) (sum float64) {
	for _, line := range []*regexp.Regexp{executionTime, planningTime} {
		if m := line.FindStringSubmatch(text); m != nil {
			ms, _ := strconv.ParseFloat(m[1], 64) // it matched
			sum += ms
		}
	}
	return sum
}

func readCount(digits string) int64 {
	n, _ := strconv.ParseInt(digits, 10, 64) // none is none
	return n
}

// shortened keeps lists of many values from making lines that nobody reads.
func shortened(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if runes := []rune(line); len(runes) > longestLine {
			lines[i] = string(runes[:longestLine]) + " …"
		}
	}
	return strings.Join(lines, "\n")
}

// insidePlans are the costliest of the statements that functions ran.
func insidePlans(notices []string) []string {
	type inside struct {
		ms   float64
		text string
	}
	var found []inside
	for _, n := range notices {
		m := queryText.FindStringSubmatch(n)
		if m == nil || strings.HasPrefix(m[2], "Query Text: prepare asked") || strings.HasPrefix(m[2], "Query Text: explain") {
			continue
		}
		ms, _ := strconv.ParseFloat(m[1], 64) // it matched
		found = append(found, inside{ms, shortened(fmt.Sprintf("-- %s ms\n%s", m[1], m[2]))})
	}
	slices.SortStableFunc(found, func(a, b inside) int { return int(1000 * (b.ms - a.ms)) })
	var texts []string
	for _, i := range found[:min(len(found), mostInside)] {
		texts = append(texts, i.text)
	}
	return texts
}

// scannedWhole are the tables of many rows that a statement reads from end to end.
func scannedWhole(p Plan, many []string) []string {
	var tables []string
	for _, m := range wholeScan.FindAllStringSubmatch(p.Text+"\n"+strings.Join(p.Inside, "\n"), -1) {
		if slices.Contains(many, m[1]) && !slices.Contains(tables, m[1]) {
			tables = append(tables, m[1])
		}
	}
	return tables
}
