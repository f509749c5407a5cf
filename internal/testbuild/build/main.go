// Build builds the programs as tests that break them need them, with a clock that steps and points to be killed at:
//
//	go run ./internal/testbuild/build FOLDER PACKAGE…
//
// It runs in the root of the module; the packages are those of its programs. See internal/testbuild.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/truenorth-dev/truenorth/internal/testbuild"
)

func main() {
	const least = 3 // itself, a folder, a package
	if len(os.Args) < least {
		fmt.Fprintln(os.Stderr, "usage: build FOLDER PACKAGE…")
		os.Exit(2)
	}
	if err := testbuild.Build(context.Background(), ".", os.Args[1], os.Args[2:]...); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}
