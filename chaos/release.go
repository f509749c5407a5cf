package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// releaseBefore is what a rolling upgrade comes from. There is no tag yet, so it is the last commit before the change feed, the
// console's actions and tracing began: migrations 11 and later are new to it.
const releaseBefore = "44d7d45df47d242ccf71b31d934103d38625ee0b"

// release is a folder of programs.
type release string

func (r release) program(name string) string { return filepath.Join(string(r), name) }

func (r *run) current() release { return release(filepath.Join(r.dir, "bin")) }

func (r *run) before() release { return release(filepath.Join(r.dir, "bin-before")) }

// programs are what a release consists of.
var programs = []string{"./cmd/ingest", "./cmd/worker", "./cmd/truenorth"}

// buildRelease builds the programs of a source tree.
func buildRelease(ctx context.Context, source, target string) error {
	command := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false", "-o", target + string(filepath.Separator)}, programs...)...)
	command.Dir = source
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs of %s: %w\n%s", source, err, out)
	}
	return nil
}

// errNoHistory: the release before cannot be had here.
var errNoHistory = errors.New("the release before is not in this clone's history")

// buildReleaseBefore builds the programs of the release before from the repository's history.
func buildReleaseBefore(ctx context.Context, root, target string) error {
	if err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "-C", root, "cat-file", "-e", releaseBefore+"^{commit}").Run(); err != nil {
		return fmt.Errorf("%w: %s (a shallow clone, or none)", errNoHistory, releaseBefore[:7])
	}
	source, err := os.MkdirTemp("", "truenorth-before-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(source)
	archive := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "-C", root, "archive", "--output", filepath.Join(source, "source.tar"), releaseBefore)
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", source, "-f", filepath.Join(source, "source.tar"))
	for _, command := range []*exec.Cmd{archive, unpack} {
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command.Args[0], err, strings.TrimSpace(string(out)))
		}
	}
	return buildRelease(ctx, source, target)
}
