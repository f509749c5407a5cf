// Package releasetest builds the programs of the release before this one from the repository's history, for tests of upgrades.
package releasetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Before is the commit that stands for the release before while no release has a tag: the last one whose newest migration is
// 00010, before the change feed, the console's lists and the traces came with 00011 to 00016. Each of these migrations is
// thus crossed with programs that know nothing of it. Move it to the tag of a release once there is one, and from then on
// with each.
const (
	Before       = "44d7d45df47d242ccf71b31d934103d38625ee0b"
	BeforeSchema = 10 // its newest migration
)

// ErrNoHistory is what Build answers where the commit is not here: in a shallow clone, or in a copy without its history.
var ErrNoHistory = errors.New("commit " + Before + ", which stands for the release before, is not here: get the whole history (git fetch --unshallow)")

// Git is git in a folder, which may belong to another user: git else refuses that, and would seem to have no history.
func Git(ctx context.Context, folder string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", folder}, args...)...)
}

// Here tells whether the history is.
func Here(ctx context.Context, root string) bool {
	return Git(ctx, root, "cat-file", "-e", Before+"^{commit}").Run() == nil
}

// Build puts ingest, worker and truenorth of the release before into the folder bin. root is any folder of the repository.
// Errors: ErrNoHistory.
func Build(ctx context.Context, root, bin string) error {
	if !Here(ctx, root) {
		return ErrNoHistory
	}
	top, err := Git(ctx, root, "rev-parse", "--show-toplevel").Output() // an archive is of the folder alone
	if err != nil {
		return fmt.Errorf("finding the repository of %s: %w", root, err)
	}
	source, err := os.MkdirTemp("", "truenorth-before-")
	if err != nil {
		return fmt.Errorf("making a folder for the release before: %w", err)
	}
	defer os.RemoveAll(source)
	bin, err = filepath.Abs(bin)
	if err != nil {
		return fmt.Errorf("finding %s: %w", bin, err)
	}
	archive := filepath.Join(source, "source.tar")
	for _, step := range []*exec.Cmd{
		Git(ctx, strings.TrimSpace(string(top)), "archive", "--output", archive, Before),
		exec.CommandContext(ctx, "tar", "-xf", archive, "-C", source),
		exec.CommandContext(ctx, "go", "build", "-C", source, "-buildvcs=false", "-o", bin+string(filepath.Separator), "./cmd/ingest", "./cmd/worker", "./cmd/truenorth"),
	} {
		if out, err := step.CombinedOutput(); err != nil {
			return fmt.Errorf("building the release before, %s: %w\n%s", step.Args[0], err, out)
		}
	}
	return nil
}

var built struct {
	once sync.Once
	bin  string
	err  error
}

// Programs is the folder with the programs of the release before, built once; Remove removes it. Where the history is not
// here it skips the test, and says so.
func Programs(tb testing.TB, root string) string {
	tb.Helper()
	built.once.Do(func() {
		if built.bin, built.err = os.MkdirTemp("", "truenorth-before-bin-"); built.err == nil {
			built.err = Build(context.Background(), root, built.bin)
		}
	})
	if errors.Is(built.err, ErrNoHistory) {
		tb.Skipf("NOT tested beside the release before: %v", built.err)
	}
	if built.err != nil {
		tb.Fatal(built.err)
	}
	return built.bin
}

// Remove removes what Programs built. A package calls it at the end of its TestMain.
func Remove() { _ = os.RemoveAll(built.bin) }
