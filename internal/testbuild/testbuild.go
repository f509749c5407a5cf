// Package testbuild builds the programs as tests that break them need them:
//
//   - Their wall clock steps while they run: the file that TRUENORTH_CLOCK_FILE names holds by how much it is off, such as 1h
//     or -1h, and is read ten times a second. The monotonic clock goes on, as it does when a real clock is stepped.
//   - They die by SIGKILL at the points that internal/crashpoint marks, where told to.
//
// The clock steps for all code of a program, the standard library, River and pgx included: package time is compiled from the
// toolchain's own source, in which time.Now adds the step. A static Go program asks no library for the time, so nothing from
// outside, such as libfaketime, could do that.
package testbuild

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Tag is the build tag of the crash points.
const Tag = "crashpoints"

// clock is the file that joins package time.
//
//go:embed clock.go.txt
var clock []byte

// What time.Now begins with, and what it begins with in a test build.
const (
	now        = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	nowStepped = now + "\tsec, nsec = stepped(sec, nsec)\n"
)

// Build builds packages of the module in the folder root into the folder out, for this machine.
func Build(ctx context.Context, root, out string, packages ...string) error {
	dir, err := os.MkdirTemp("", "truenorth-testbuild-")
	if err != nil {
		return fmt.Errorf("making a folder for the overlay: %w", err)
	}
	defer os.RemoveAll(dir)
	overlay, err := writeOverlay(ctx, root, dir)
	if err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-tags", Tag, "-overlay", overlay, "-o", filepath.Clean(out) + string(filepath.Separator)}
	command := exec.CommandContext(ctx, "go", append(args, packages...)...)
	command.Dir = root
	command.Env = append(command.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building %v: %w\n%s", packages, err, output)
	}
	return nil
}

// writeOverlay writes what differs from the toolchain of the module in root, and gives the path of the file that lists it.
func writeOverlay(ctx context.Context, root, dir string) (string, error) {
	command := exec.CommandContext(ctx, "go", "env", "GOROOT")
	command.Dir = root
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("asking go for GOROOT: %w", err)
	}
	source := filepath.Join(string(bytes.TrimSpace(output)), "src", "time")
	original := filepath.Join(source, "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("reading package time of the toolchain: %w", err)
	}
	patched, err := patch(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", original, err)
	}
	replace := map[string]string{}
	for _, file := range []struct {
		as   string
		text []byte
	}{{original, patched}, {filepath.Join(source, "truenorth_clock.go"), clock}} {
		path := filepath.Join(dir, filepath.Base(file.as))
		if err := os.WriteFile(path, file.text, 0o600); err != nil {
			return "", fmt.Errorf("writing the overlay: %w", err)
		}
		replace[file.as] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("listing the overlay: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		return "", fmt.Errorf("writing the overlay: %w", err)
	}
	return path, nil
}

// patch has time.Now of a time.go step.
func patch(text []byte) ([]byte, error) {
	if n := bytes.Count(text, []byte(now)); n != 1 {
		return nil, fmt.Errorf("time.Now begins %d times with the lines that the stepped clock was written for, want once:\n%s"+
			"This toolchain reads the clock in another way: look at time.Now there, and change internal/testbuild", n, now)
	}
	return bytes.Replace(text, []byte(now), []byte(nowStepped), 1), nil
}
