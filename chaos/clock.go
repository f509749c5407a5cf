package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// clockVariable names the file from which a program of the test build reads by how much its clock is wrong.
const clockVariable = "TRUENORTH_CLOCK_FILE"

// testBuild builds the programs with a clock that a file steps: a static program asks no library for the time, so libfaketime
// cannot.
const testBuild = "internal/testbuild/build"

// clocksCanBeStepped tells whether this tree has the test build.
func clocksCanBeStepped(root string) bool {
	_, err := os.Stat(filepath.Join(root, testBuild))
	return err == nil
}

// buildSteppedRelease is buildRelease with such a clock.
func buildSteppedRelease(ctx context.Context, source, target string) error {
	command := exec.CommandContext(ctx, "go", append([]string{"run", "./" + testBuild, target}, programs...)...)
	command.Dir = source
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs of %s with a clock that can be stepped: %w\n%s", source, err, out)
	}
	return nil
}
