// Package toolstest finds the programs that some tests need besides Go.
package toolstest

import (
	"os"
	"os/exec"
	"testing"
)

// Find is the path of the first of these programs that is on this machine. Where none is, CI fails, as .ci/run installs the Debian
// package that has it; a person's run skips the test, and `make test` has said so before.
func Find(tb testing.TB, debianPackage string, names ...string) string {
	tb.Helper()
	for _, name := range names {
		// Servers are where only root looks.
		for _, path := range []string{name, "/usr/sbin/" + name} {
			if found, err := exec.LookPath(path); err == nil {
				return found
			}
		}
	}
	const missing = "no %s on this machine, so what needs it is NOT tested: apt install %s"
	if os.Getenv("CI") != "" {
		tb.Fatalf(missing, names[0], debianPackage)
	}
	tb.Skipf(missing, names[0], debianPackage)
	return ""
}
