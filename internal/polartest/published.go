// Package polartest finds what Polar has published of its API, for tests: the OpenAPI document, sample events,
// signature vectors. None of it is part of the repository.
package polartest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Folder is the folder that holds "polar" with all of it: TRUENORTH_SHARED, or "shared" beside the repository.
// Whether it is there is for the caller to ask.
func Folder() string {
	if folder := os.Getenv("TRUENORTH_SHARED"); folder != "" {
		return folder
	}
	root, err := os.Getwd() // of a test, the folder of its package
	for err == nil && root != filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Dir(root)
	}
	return filepath.Join(root, "..", "shared")
}

// Absent tells whether the whole folder is absent, the one reason to skip a test that needs it.
func Absent() bool {
	_, err := os.Stat(Folder())
	return errors.Is(err, fs.ErrNotExist)
}

// Path is where a file is, named from the "polar" folder. It skips the test only where the whole folder is absent.
func Path(tb testing.TB, name string) string {
	tb.Helper()
	if Absent() {
		tb.Skipf("no folder %s with Polar's published material, so this is NOT tested: TRUENORTH_SHARED names another folder", Folder())
	}
	return filepath.Join(Folder(), "polar", filepath.FromSlash(name))
}

// Read is the content of a file, named from the "polar" folder. A file that is missing while the folder is there
// fails the test.
func Read(tb testing.TB, name string) []byte {
	tb.Helper()
	content, err := os.ReadFile(Path(tb, name))
	if err != nil {
		tb.Fatalf("reading Polar's published material: %v", err)
	}
	return content
}
