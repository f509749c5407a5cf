package doccheck_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// surroundings are what a page's Go may take for granted: an app with a pool, in the middle of a transaction.
const surroundings = `package page

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
)

var (
	_ = errors.New
	_ = fmt.Sprint
	_ = slog.New
	_ = http.StatusOK
	_ time.Duration
)

type appUser struct{ ID, Email string }

func page(ctx context.Context, pool *pgxpool.Pool, tx pgx.Tx, client *truenorth.Client, user appUser, product uuid.UUID, cursor int64) error {
	{
%s
	}
	return nil
}
`

// compiles builds a block: a whole file if it begins with package, otherwise statements in the surroundings.
func compiles(t *testing.T, b block) {
	t.Helper()
	source := b.text
	if !regexp.MustCompile(`(?m)^package `).MatchString(source) {
		source = fmt.Sprintf(surroundings, b.text)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "page.go")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	// The file is laid over the repository, so that it may import what an app may.
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	folder := fmt.Sprintf("internal/doccheck/line%d", b.line)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(repository, folder, "page.go"): file}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-e", "-overlay", list, "-o", os.DevNull, "./"+folder)
	build.Dir = root
	out, err := build.CombinedOutput()
	if err == nil {
		return
	}
	for line := range strings.Lines(string(out)) {
		// An example shows less than a program does with its variables.
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "declared and not used") {
			t.Errorf("%s does not compile: %s", b.place(), line)
		}
	}
}
