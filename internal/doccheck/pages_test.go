package doccheck_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// root is the repository, from here.
const root = "../.."

// page is a Markdown file.
type page struct {
	name    string // from the root, with slashes
	text    string
	blocks  []block
	anchors map[string]bool
	prose   string // what is outside of blocks
}

// block is a fenced part of a page.
type block struct {
	page     string
	line     int // of its first line
	heading  string
	language string
	note     string // the comment right above
	text     string
}

// place is where to look for a block.
func (b block) place() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// noted is what follows a key in the comment above the block.
func (b block) noted(key string) (value string, ok bool) {
	value, ok = strings.CutPrefix(b.note, key+":")
	return strings.TrimSpace(value), ok
}

var (
	fencePattern   = regexp.MustCompile("^([ \t]*)```([a-z]*)$")
	commentPattern = regexp.MustCompile(`^[ \t]*<!-- (.*) -->$`)
	headingPattern = regexp.MustCompile(`^#+ (.*)$`)
	anchorPattern  = regexp.MustCompile(`<a id="([^"]+)">`)
	labelPattern   = regexp.MustCompile(`\[([^]]*)]\([^)]*\)`)
)

func readPage(tb testing.TB, name string) page {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		tb.Fatal(err)
	}
	p := page{name: name, text: string(text), anchors: map[string]bool{}}
	var (
		open            *block
		indent, heading string
		above           string // the line before
		prose           strings.Builder
	)
	number := 0
	for line := range strings.Lines(p.text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		fence := fencePattern.FindStringSubmatch(line)
		switch {
		case open != nil && strings.TrimSpace(line) == "```":
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case fence != nil:
			open = &block{page: name, line: number + 1, heading: heading, language: fence[2]}
			indent = fence[1]
			if m := commentPattern.FindStringSubmatch(above); m != nil {
				open.note = m[1]
			}
		default:
			if m := headingPattern.FindStringSubmatch(line); m != nil {
				heading = m[1]
				p.anchors[p.newAnchor(heading)] = true
			}
			for _, m := range anchorPattern.FindAllStringSubmatch(line, -1) {
				p.anchors[m[1]] = true
			}
			prose.WriteString(line + "\n")
		}
		above = line
	}
	if open != nil {
		tb.Errorf("%s: this block has no end", open.place())
	}
	p.prose = prose.String()
	return p
}

// newAnchor is what GitHub makes of a heading.
func (p page) newAnchor(heading string) string {
	heading = labelPattern.ReplaceAllString(heading, "$1")
	slug := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
	unique := slug
	for n := 1; p.anchors[unique]; n++ {
		unique = fmt.Sprintf("%s-%d", slug, n)
	}
	return unique
}

// allPages are the Markdown files of the repository.
func allPages(tb testing.TB) []page {
	tb.Helper()
	var pages []page
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) == ".md" {
			pages = append(pages, readPage(tb, filepath.ToSlash(name)))
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return pages
}

// pagesToRun are the pages whose commands are run: the front page, docs/ and the examples'.
func pagesToRun(tb testing.TB) []page {
	tb.Helper()
	return slices.DeleteFunc(allPages(tb), func(p page) bool {
		return p.name != "README.md" && path.Dir(p.name) != "docs" && path.Dir(path.Dir(p.name)) != "examples"
	})
}

// readFile reads a file of the repository.
func readFile(tb testing.TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}
