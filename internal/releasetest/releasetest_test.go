package releasetest_test

import (
	"errors"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/releasetest"
)

const root = "../.."

func TestTheReleaseBeforeHasTheSchemaThatItIsSaidToHave(t *testing.T) {
	t.Parallel()
	if !releasetest.Here(t.Context(), root) {
		t.Skipf("NOT tested: %v", releasetest.ErrNoHistory)
	}
	out, err := releasetest.Git(t.Context(), root, "ls-tree", "--full-tree", "--name-only", releasetest.Before, "migrations/").Output()
	if err != nil {
		t.Fatalf("listing the migrations of the release before: %v", err)
	}
	var versions []int
	for name := range strings.FieldsSeq(string(out)) {
		number, _, _ := strings.Cut(path.Base(name), "_")
		if version, err := strconv.Atoi(number); err == nil {
			versions = append(versions, version)
		}
	}
	if newest := slices.Max(versions); newest != releasetest.BeforeSchema {
		t.Errorf("the newest migration of the release before is %d, not %d", newest, releasetest.BeforeSchema)
	}
}

func TestWithoutTheHistoryNothingIsBuilt(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "git", "init", "--quiet", empty).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := releasetest.Build(t.Context(), empty, t.TempDir()); !errors.Is(err, releasetest.ErrNoHistory) {
		t.Errorf("Build answers %v, want ErrNoHistory", err)
	}
}
