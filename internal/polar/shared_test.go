package polar

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// sharedPolar returns the path of a file in the folder of Polar's published
// material, which is not part of the repository. It skips the test only where
// the whole folder is absent.
func sharedPolar(tb testing.TB, name string) string {
	tb.Helper()
	folder := os.Getenv("TRUENORTH_SHARED")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", "shared") // beside the repository
	}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		tb.Skipf("no folder %s with Polar's published material: set TRUENORTH_SHARED to run this test", folder)
	}
	return filepath.Join(folder, "polar", name)
}

func readSharedPolar(tb testing.TB, name string) []byte {
	tb.Helper()
	content, err := os.ReadFile(sharedPolar(tb, name))
	if err != nil {
		tb.Fatalf("reading Polar's published material: %v", err)
	}
	return content
}

// samples returns the sample events by file name.
func samples(tb testing.TB) map[string][]byte {
	tb.Helper()
	paths, err := filepath.Glob(sharedPolar(tb, "samples/*.synthetic.json"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("finding sample events: %v, %d found", err, len(paths))
	}
	events := make(map[string][]byte, len(paths))
	for _, path := range paths {
		events[filepath.Base(path)] = readSharedPolar(tb, filepath.Join("samples", filepath.Base(path)))
	}
	return events
}
