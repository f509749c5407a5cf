package polar

import (
	"path/filepath"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

// samples returns the sample events by file name.
func samples(tb testing.TB) map[string][]byte {
	tb.Helper()
	paths, err := filepath.Glob(polartest.Path(tb, "samples/*.synthetic.json"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("finding sample events: %v, %d found", err, len(paths))
	}
	events := make(map[string][]byte, len(paths))
	for _, path := range paths {
		events[filepath.Base(path)] = polartest.Read(tb, filepath.Join("samples", filepath.Base(path)))
	}
	return events
}
