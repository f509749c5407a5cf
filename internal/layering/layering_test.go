package layering

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/truenorth-dev/truenorth"

// layer says what one package, and the packages below it, may import.
type layer struct {
	// ours lists our packages, by folder; "." is the root package. A layer may always import itself.
	ours []string
	// libraries lists the module paths of what else may be imported besides the standard library; nil is anything.
	libraries []string
}

var (
	pgx      = "github.com/jackc/pgx/v5"
	river    = "github.com/riverqueue/river"
	uuid     = "github.com/google/uuid"
	hooks    = "github.com/standard-webhooks/standard-webhooks/libraries"
	chromedp = "github.com/chromedp/chromedp"
	spans    = []string{"go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/propagation"} // OpenTelemetry's API, without its SDK
)

// layers are the arrows of the design. The longest folder that fits a package counts.
var layers = map[string]layer{
	".":                        {libraries: append([]string{pgx, river, uuid}, spans...)},
	"migrations":               {libraries: []string{}},
	"internal/polar":           {libraries: []string{hooks, uuid}},
	"internal/polarfake":       {libraries: []string{hooks, uuid}},
	"internal/polartest":       {libraries: []string{}},
	"internal/chromiumtest":    {ours: []string{"internal/machinetest"}, libraries: []string{chromedp}},
	"internal/waittest":        {libraries: []string{}},
	"internal/machinetest":     {libraries: []string{}},
	"internal/releasetest":     {libraries: []string{}},
	"internal/mirrorcheck":     {libraries: []string{}},
	"internal/testbuild":       {libraries: []string{}},
	"internal/embeddedpg":      {libraries: []string{"github.com/fergusstrange/embedded-postgres"}},
	"internal/crashpoint":      {libraries: []string{pgx}},
	"internal/store":           {ours: []string{"migrations", "internal/crashpoint"}},
	"internal/store/storetest": {ours: []string{"internal/store", "migrations", "internal/embeddedpg"}},
	"internal/ingest":          {ours: []string{"internal/store", "internal/polar", "internal/crashpoint"}},
	"internal/jobs":            {ours: []string{"internal/store", "internal/polar", "internal/crashpoint", "."}},
	"internal/console":         {ours: []string{"internal/store", "internal/jobs", "."}},
	"internal/httpapi":         {ours: []string{"internal/store", "."}},
	"internal/layering":        {libraries: []string{}},
	"internal/doccheck":        {libraries: []string{}},
	"cmd": {ours: []string{
		".", "migrations", "internal/ingest", "internal/jobs", "internal/console", "internal/httpapi", "internal/store", "internal/polar",
		"internal/embeddedpg", "internal/polarfake",
	}},
	"bench": {ours: []string{
		".", "migrations", "cmd", "internal/ingest", "internal/jobs", "internal/console", "internal/httpapi", "internal/store",
		"internal/store/storetest", "internal/polar", "internal/embeddedpg", "internal/polarfake",
	}},
	"tools":    {},
	"chaos":    {ours: []string{"internal/polarfake", "internal/mirrorcheck"}}, // it judges from outside
	"examples": {ours: []string{"."}, libraries: []string{pgx, uuid}},
}

// operatorOnly are the packages that only the operator's program may hold, directly or through others.
var operatorOnly = []string{"internal/polarfake", "internal/embeddedpg"}

// source is one Go file of production code.
type source struct {
	dir  string // from the root, with slashes; "." is the root
	file *ast.File
	pos  func(token.Pos) string
}

func TestImportsFollowTheLayers(t *testing.T) {
	t.Parallel()

	for _, fault := range faults(productionSources(t)) {
		t.Error(fault)
	}
}

// faults lists every breach of the rules.
func faults(sources []source) []string {
	var list []string

	for _, s := range sources {
		list = append(list, nameFaults(s)...)
		list = append(list, importFaults(s)...)
		list = append(list, referenceFaults(s)...)
	}

	return append(list, programFaults(sources)...)
}

func nameFaults(s source) []string {
	name := s.file.Name.Name
	if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "client", "server", "db"}, name) {
		return []string{fmt.Sprintf("%s: package %s: name it after what it does", s.pos(s.file.Name.Pos()), name)}
	}

	return nil
}

func importFaults(s source) []string {
	var list []string

	fault := func(spec *ast.ImportSpec, format string, args ...any) {
		list = append(list, s.pos(spec.Pos())+": "+fmt.Sprintf(format, args...))
	}

	home, rule, known := layerOf(s.dir)
	if !known {
		return []string{fmt.Sprintf("%s: package %s is in no layer: say in the table of layers what it may import",
			s.pos(s.file.Package), s.dir)}
	}

	for _, spec := range s.file.Imports {
		imported := importPath(spec)
		dir, ours := ourDir(imported)

		switch {
		case ours && testOnly(dir) && !testOnly(s.dir) && home != "bench":
			fault(spec, "production code imports the test package %s", dir)
		case ours && path.Base(dir) == "dbsqlc" && s.dir != "internal/store":
			fault(spec, "%s imports the generated queries: only internal/store does", s.dir)
		case ours:
			target, _, _ := layerOf(dir)
			if target != home && !slices.Contains(rule.ours, target) {
				fault(spec, "%s may not import %s", s.dir, dir)
			}
		case isTestLibrary(imported) && !testOnly(s.dir):
			fault(spec, "production code imports %s", imported)
		case rule.libraries != nil && !isStandard(imported) && !within(imported, rule.libraries):
			fault(spec, "%s may not import %s", s.dir, imported)
		}
	}

	return list
}

// referenceFaults looks for names that only some packages may use.
func referenceFaults(s source) []string {
	imports := map[string]string{}

	for _, spec := range s.file.Imports {
		imported := importPath(spec)

		name := path.Base(imported)
		if imported == pgx {
			name = "pgx"
		}

		if spec.Name != nil {
			name = spec.Name.Name
		}

		imports[name] = imported
	}

	home, _, _ := layerOf(s.dir)
	seesDatabaseErrors := strings.HasPrefix(s.dir, "internal/store") || home == "examples" // an app's database is its own
	readsEnvironment := home == "cmd" || home == "bench" || home == "chaos" || home == "examples" || testOnly(s.dir) ||
		s.dir == "internal/embeddedpg/withpg" || s.dir == "internal/crashpoint" // whose test build a test tells where to die

	var list []string

	ast.Inspect(s.file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}

		pkg, ok := selector.X.(*ast.Ident)
		if !ok {
			return true
		}

		name := selector.Sel.Name

		switch imported := imports[pkg.Name]; {
		case !seesDatabaseErrors && isDatabaseError(imported, name):
			list = append(list, fmt.Sprintf("%s: %s.%s: only internal/store sees the database's errors",
				s.pos(selector.Pos()), pkg.Name, name))
		case !readsEnvironment && isEnvironment(imported, name):
			list = append(list, fmt.Sprintf("%s: %s.%s: only the programs read the environment",
				s.pos(selector.Pos()), pkg.Name, name))
		}

		return true
	})

	return list
}

func isDatabaseError(imported, name string) bool {
	switch imported {
	case pgx, "database/sql":
		return strings.HasPrefix(name, "Err")
	case pgx + "/pgconn":
		return strings.HasSuffix(name, "Error")
	case "github.com/jackc/pgerrcode":
		return true
	}

	return false
}

func isEnvironment(imported, name string) bool {
	switch imported {
	case "os":
		return slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv"}, name)
	case "syscall":
		return slices.Contains([]string{"Getenv", "Environ", "Setenv"}, name)
	}

	return false
}

// programFaults follows the imports of the servers' programs to what only the operator's program may hold.
func programFaults(sources []source) []string {
	imports := map[string][]string{}

	for _, s := range sources {
		for _, spec := range s.file.Imports {
			if dir, ours := ourDir(importPath(spec)); ours {
				imports[s.dir] = append(imports[s.dir], dir)
			}
		}
	}

	var list []string

	for _, program := range []string{"cmd/ingest", "cmd/worker"} {
		reached := map[string]bool{}
		queue := []string{program}

		for len(queue) > 0 {
			dir := queue[0]
			queue = queue[1:]

			if reached[dir] {
				continue
			}

			reached[dir] = true
			queue = append(queue, imports[dir]...)
		}

		for _, dir := range operatorOnly {
			if reached[dir] {
				list = append(list, fmt.Sprintf("%s holds %s, directly or through others: only cmd/truenorth may", program, dir))
			}
		}
	}

	return list
}

// layerOf finds the layer of a package.
func layerOf(dir string) (home string, rule layer, known bool) {
	for at := dir; ; at = path.Dir(at) {
		if rule, ok := layers[at]; ok && (at != "." || dir == ".") {
			return at, rule, true
		}

		if at == "." {
			return "", layer{}, false
		}
	}
}

// testOnly reports whether a package is a helper of tests, by its name as Go's own httptest has it.
func testOnly(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }

func isTestLibrary(imported string) bool {
	return within(imported, []string{
		"testing", "net/http/httptest", "go.uber.org/goleak", "github.com/google/go-cmp", "pgregory.net/rapid",
		"github.com/peterldowns/pgtestdb", chromedp, "github.com/pb33f/libopenapi",
		"github.com/pb33f/libopenapi-validator", river + "/rivertest",
	})
}

func within(imported string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return imported == m || strings.HasPrefix(imported, m+"/")
	})
}

func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")

	return !strings.Contains(first, ".")
}

func ourDir(imported string) (dir string, ours bool) {
	if imported == module {
		return ".", true
	}

	return strings.CutPrefix(imported, module+"/")
}

func importPath(spec *ast.ImportSpec) string {
	unquoted, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser accepted it as a string
	}

	return unquoted
}

// productionSources parses every Go file of the module that is no test.
func productionSources(t *testing.T) []source {
	t.Helper()

	var sources []source

	root := filepath.Join("..", "..")

	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if entry.IsDir() {
			if name != root && skippedDir(name, entry.Name()) {
				return filepath.SkipDir
			}

			return nil
		}

		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}

		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}

		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}

		sources = append(sources, parseSource(t, filepath.ToSlash(rel), string(text)))

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	if len(sources) == 0 {
		t.Fatal("no Go files found")
	}

	return sources
}

// skippedDir reports whether a folder is no part of the module.
func skippedDir(name, base string) bool {
	if strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules" {
		return true
	}

	_, err := os.Stat(filepath.Join(name, "go.mod"))

	return err == nil
}

func parseSource(t *testing.T, name, text string) source {
	t.Helper()

	set := token.NewFileSet()

	file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}

	return source{dir: path.Dir(name), file: file, pos: func(p token.Pos) string { return set.Position(p).String() }}
}

// TestEachRuleFindsItsBreach guards against a rule that would let everything pass.
func TestEachRuleFindsItsBreach(t *testing.T) {
	t.Parallel()

	const errors = "package x; import %s; var _ = %s"

	for _, test := range []struct{ name, file, text, want string }{
		{"package name", "internal/ingest/util/a.go", "package util", "name it after what it does"},
		{"unknown package", "internal/new/a.go", "package new", "in no layer"},
		{"ingest imports jobs", "internal/ingest/a.go", importing("internal/jobs"), "may not import internal/jobs"},
		{"console imports polar", "internal/console/a.go", importing("internal/polar"), "may not import internal/polar"},
		{"httpapi imports jobs", "internal/httpapi/a.go", importing("internal/jobs"), "may not import internal/jobs"},
		{"jobs imports ingest", "internal/jobs/a.go", importing("internal/ingest"), "may not import internal/ingest"},
		{"store imports jobs", "internal/store/a.go", importing("internal/jobs"), "may not import internal/jobs"},
		{"polar imports store", "internal/polar/a.go", importing("internal/store"), "may not import internal/store"},
		{"polar imports pgx", "internal/polar/a.go", `package x; import _ "` + pgx + `"`, "may not import " + pgx},
		{"the fake imports polar", "internal/polarfake/a.go", importing("internal/polar"), "may not import internal/polar"},
		{"root imports store", "a.go", importing("internal/store"), "may not import internal/store"},
		{"an example imports River", "examples/shop/main.go", `package x; import _ "` + river + `"`, "may not import " + river},
		{"root imports OpenTelemetry's SDK", "a.go", `package x; import _ "go.opentelemetry.io/otel/sdk/trace"`, "may not import go.opentelemetry.io/otel/sdk"},
		{"an example imports internals", "examples/shop/main.go", importing("internal/store"), "may not import internal/store"},
		{
			"generated queries", "internal/store/storetest/a.go", importing("internal/store/internal/dbsqlc"),
			"only internal/store does",
		},
		{"test package", "cmd/worker/a.go", importing("internal/store/storetest"), "imports the test package"},
		{"test library", "internal/jobs/a.go", `package x; import _ "testing"`, "production code imports testing"},
		{"no rows", "internal/jobs/a.go", fmt.Sprintf(errors, `"`+pgx+`"`, "pgx.ErrNoRows"), "only internal/store sees"},
		{
			"driver error renamed", "internal/console/a.go",
			fmt.Sprintf(errors, `c "`+pgx+`/pgconn"`, "c.PgError{}"), "only internal/store sees",
		},
		{"environment", "internal/ingest/a.go", fmt.Sprintf(errors, `"os"`, `os.Getenv("A")`), "only the programs read"},
		{"environment in root", "a.go", fmt.Sprintf(errors, `"os"`, `os.Environ()`), "only the programs read"},
		{"the fake in a server", "cmd/worker/a.go", importing("internal/polarfake"), "cmd/worker holds internal/polarfake"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			found := faults([]source{parseSource(t, test.file, test.text)})
			if len(found) != 1 || !strings.Contains(found[0], test.want) {
				t.Errorf("faults %q, want one that says %q", found, test.want)
			}
		})
	}
}

func TestWhatTheLayersAllowPasses(t *testing.T) {
	t.Parallel()

	const text = "package x; import %s; var _ = %s"

	for _, test := range []struct{ name, file, text string }{
		{"root uses pgx", "a.go", fmt.Sprintf(text, `"`+pgx+`"`, "pgx.TxOptions{}")},
		{"store sees no rows", "internal/store/a.go", fmt.Sprintf(text, `"`+pgx+`"`, "pgx.ErrNoRows")},
		{"store uses its queries", "internal/store/a.go", importing("internal/store/internal/dbsqlc")},
		{"jobs use the root package", "internal/jobs/a.go", importing("")},
		{"a program reads the environment", "cmd/internal/cmdconfig/a.go", fmt.Sprintf(text, `"os"`, `os.Getenv("A")`)},
		{"the operator's program holds the fake", "cmd/truenorth/a.go", importing("internal/polarfake")},
		{"a program uses what programs share", "cmd/worker/a.go", importing("cmd/internal/program")},
		{"an example uses the root package", "examples/shop/main.go", importing("")},
		{"an example sees no rows", "examples/shop/main.go", fmt.Sprintf(text, `"`+pgx+`"`, "pgx.ErrNoRows")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			if found := faults([]source{parseSource(t, test.file, test.text)}); len(found) > 0 {
				t.Errorf("faults %q, want none", found)
			}
		})
	}
}

func importing(dir string) string {
	return `package x; import _ "` + strings.TrimSuffix(module+"/"+dir, "/") + `"`
}
