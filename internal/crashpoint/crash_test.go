package crashpoint_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
)

// crash is one way to die, and what must be so once the program runs again.
type crash struct {
	name    string
	dies    []string     // the points, in turn: the program is started again after each
	program string       // ingest, worker (also if empty), or truenorth with args
	args    []string     // of truenorth
	options worldOptions //
	before  func(*world) // all is well yet
	play    func(*world) // what happens while the program runs that is to die; may be nil
	after   func(*world) // what must be so at the end, besides what is always so
	judge   func(*world) // instead of what is always so; nil: that
}

// TestAProgramKilledAtAnyPointIsTakenUpWhereItStopped has real processes die by SIGKILL at every point of the sources, starts
// them again, and judges from outside.
func TestAProgramKilledAtAnyPointIsTakenUpWhereItStopped(t *testing.T) {
	t.Parallel()
	for _, c := range crashes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func (c crash) run(t *testing.T) {
	t.Helper()
	w := newWorld(t, c.options)
	if c.before != nil {
		c.before(w)
	}
	var start func(env ...string)
	var victim *machinetest.Process
	switch c.program {
	case "ingest":
		victim, start = w.ingest, w.startIngest
		w.worker.Start()
	case "truenorth":
		victim = w.command(c.args...)
		start = victim.Start
	default:
		victim, start = w.worker, w.worker.Start
		w.startIngest()
	}
	var died time.Time
	for i, point := range c.dies {
		start("TRUENORTH_CRASH_AT=" + point)
		if i == 0 && c.play != nil {
			c.play(w)
		}
		if err := victim.WaitKilled(within); err != nil {
			t.Fatalf("it never came to %s: %v", point, err)
		}
		died = time.Now()
		if name, _, _ := strings.Cut(point, ":"); !strings.Contains(victim.Output(), "crash point "+name+"\n") {
			t.Fatalf("it was killed elsewhere than at %s", point)
		}
	}
	start()
	if c.program == "truenorth" {
		if err := victim.Wait(within); err != nil {
			t.Fatal(err)
		}
	}
	w.calm()
	if c.after != nil {
		c.after(w)
		w.calm() // what goes without a job may just have begun when it was calm before
	}
	t.Logf("all was done %s after the last kill", time.Since(died).Round(100*time.Millisecond))
	if c.judge != nil {
		c.judge(w)
	} else {
		w.keepsItsPromises()
	}
}

// TestEveryPointOfTheSourcesHasACase reads the sources: a point that nobody dies at proves nothing.
func TestEveryPointOfTheSourcesHasACase(t *testing.T) {
	t.Parallel()
	points := pointsInTheSources(t)
	if len(points) < 50 {
		t.Errorf("%d points were found; are the sources where this test looks for them?", len(points))
	}
	tried := map[string]bool{"migrate.statement": true} // by TestAMigrationKilledAfterAnyStatementGoesOn
	for _, c := range crashes {
		for _, point := range c.dies {
			name, _, _ := strings.Cut(point, ":")
			tried[name] = true
			if points[name] == 0 {
				t.Errorf("%s: there is no point %s in the sources", c.name, name)
			}
		}
	}
	for name, marks := range points {
		if marks > 1 {
			t.Errorf("point %s is marked at %d places: each needs a name of its own", name, marks)
		}
		if !tried[name] {
			t.Errorf("no case dies at point %s", name)
		}
	}
}

// pointsInTheSources counts the marks of each name.
func pointsInTheSources(t *testing.T) map[string]int {
	t.Helper()
	points := map[string]int{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", ".tools", "node_modules", "testdata", "crashpoint"}, d.Name()) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if from, ok := selector.X.(*ast.Ident); !ok || from.Name != "crashpoint" {
				return true
			}
			name, ok := call.Args[len(call.Args)-1].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the name of a point is to stand there in so many letters", files.Position(call.Pos()))
				return true
			}
			text, err := strconv.Unquote(name.Value)
			if err != nil {
				t.Error(err)
			}
			points[text]++
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return points
}

// TestAMigrationKilledAfterAnyStatementGoesOn kills one migration after another of the same database, each a few statements
// further, within a step as well as between two.
func TestAMigrationKilledAfterAnyStatementGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{empty: true})
	const pace = 5
	for kills := 0; ; kills++ {
		migrate := w.command("migrate")
		migrate.Start(fmt.Sprintf("TRUENORTH_CRASH_AT=migrate.statement:%d", 1+pace*kills))
		if migrate.WaitKilled(within) == nil {
			continue
		}
		// It came to its end before so many statements.
		if err := migrate.Wait(within); err != nil {
			t.Fatal(err)
		}
		const few = 10
		if kills < few {
			t.Errorf("it was killed %d times only", kills)
		}
		t.Logf("killed %d times", kills)
		break
	}
	w.wantMigrated()
}
