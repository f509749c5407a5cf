package layering

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	linkPattern   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	makePattern   = regexp.MustCompile("`make ([a-z-]+)")
	targetPattern = regexp.MustCompile(`(?m)^([a-z-]+):`)
)

func TestDocumentationLinksToWhatIsThere(t *testing.T) {
	t.Parallel()

	for name, text := range documents(t) {
		for _, match := range linkPattern.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(match[1], "#")
			if target == "" || strings.Contains(target, ":") {
				continue // a place in the same document, or another host's
			}

			if _, err := os.Stat(filepath.Join(filepath.Dir(name), target)); err != nil {
				t.Errorf("%s links to %s: %v", name, match[1], err)
			}
		}
	}
}

func TestDocumentationNamesMakeTargetsThatExist(t *testing.T) {
	t.Parallel()

	targets := map[string]bool{}
	for _, match := range targetPattern.FindAllStringSubmatch(readFile(t, "Makefile"), -1) {
		targets[match[1]] = true
	}

	for name, text := range documents(t) {
		for _, match := range makePattern.FindAllStringSubmatch(text, -1) {
			if !targets[match[1]] {
				t.Errorf("%s speaks of make %s, which is no target", name, match[1])
			}
		}
	}
}

// documents reads every Markdown file of the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()

	texts := map[string]string{}
	root := filepath.Join("..", "..")

	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if entry.IsDir() && name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}

		if filepath.Ext(name) == ".md" {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}

			texts[name] = string(text)
		}

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return texts
}
