package doccheck_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	linkPattern     = regexp.MustCompile(`\]\(([^)\s]+)\)|<(?:img|source) [^>]*(?:src|srcset)="([^"]+)"`)
	codePattern     = regexp.MustCompile("`([^`\n]+)`")
	makePattern     = regexp.MustCompile(`^make ([a-z-]+)`)
	targetPattern   = regexp.MustCompile(`(?m)^([a-z-]+):`)
	variablePattern = regexp.MustCompile(`\b[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]\b`)
)

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	t.Parallel()
	pages := map[string]page{}
	for _, p := range allPages(t) {
		pages[p.name] = p
	}
	for _, p := range pages {
		for _, m := range linkPattern.FindAllStringSubmatch(p.prose, -1) {
			link := m[1] + m[2]
			if strings.Contains(link, ":") {
				continue // another host's
			}
			target, anchor, _ := strings.Cut(link, "#")
			name := p.name
			if target != "" {
				name = path.Join(path.Dir(p.name), target)
				if _, err := os.Stat(filepath.Join(root, name)); err != nil {
					t.Errorf("%s links to %s: %v", p.name, link, err)
					continue
				}
			}
			if anchor != "" && path.Ext(name) == ".md" && !pages[name].anchors[anchor] {
				t.Errorf("%s links to %s, and %s has no such heading", p.name, link, name)
			}
		}
	}
}

func TestEveryPageIsFoundFromTheIndex(t *testing.T) {
	t.Parallel()
	pages := map[string]page{}
	for _, p := range allPages(t) {
		pages[p.name] = p
	}
	const index = "docs/README.md"
	found := map[string]bool{index: true}
	for queue := []string{index}; len(queue) > 0; queue = queue[1:] {
		for _, m := range linkPattern.FindAllStringSubmatch(pages[queue[0]].prose, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			name := path.Join(path.Dir(queue[0]), target)
			for _, name := range []string{name, path.Join(name, "README.md")} { // as of a folder
				if _, ok := pages[name]; ok && !found[name] {
					found[name] = true
					queue = append(queue, name)
				}
			}
		}
	}
	for _, p := range pagesToRun(t) {
		if !found[p.name] {
			t.Errorf("no way of links leads from %s to %s: add it there, or to README.md", index, p.name)
		}
	}
}

func TestEveryMakeTargetThatPagesNameIsOne(t *testing.T) {
	t.Parallel()
	targets := map[string]bool{}
	for _, m := range targetPattern.FindAllStringSubmatch(readFile(t, "Makefile"), -1) {
		targets[m[1]] = true
	}
	named := 0
	for _, p := range allPages(t) {
		for _, code := range codeOf(p) {
			if m := makePattern.FindStringSubmatch(code); m != nil {
				named++
				if !targets[m[1]] {
					t.Errorf("%s speaks of make %s, which is no target", p.name, m[1])
				}
			}
		}
	}
	if named < 10 {
		t.Errorf("found %d make targets in all pages, so this test does not see them", named)
	}
}

// codeOf is what a page has as code: spans of its prose, and the lines of its blocks.
func codeOf(p page) []string {
	var list []string
	for _, m := range codePattern.FindAllStringSubmatch(p.prose, -1) {
		list = append(list, m[1])
	}
	for _, b := range p.blocks {
		if b.language == "text" || b.language == "" {
			continue // what a program prints
		}
		for line := range strings.Lines(b.text) {
			line, typed := strings.CutPrefix(strings.TrimSpace(line), "$ ")
			if typed || b.language != "console" {
				list = append(list, line)
			}
		}
	}
	return list
}

func TestEveryTruenorthCommandThatPagesNameIsOne(t *testing.T) {
	t.Parallel()
	program := filepath.Join(builtPrograms(t), "truenorth")
	where := map[string]string{}
	for _, p := range allPages(t) {
		for _, code := range codeOf(p) {
			for _, command := range truenorthCommands(code) {
				where[command] = p.name
			}
		}
	}
	if len(where) < 40 {
		t.Errorf("found %d commands in all pages, so this test does not see them", len(where))
	}
	for command, p := range where {
		// With --help the parser takes a command that lacks arguments, but no command, flag or value that is wrong.
		if last := command[strings.LastIndex(command, " ")+1:]; valueFlags[last] {
			command += " 48h"
		}
		out, err := exec.CommandContext(t.Context(), program, append(strings.Fields(command), "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("%s speaks of `truenorth %s`: %v\n%s", p, command, err, out)
		}
	}
}

// placeholders are what stands for a value in an example.
var placeholders = map[string]string{"SEQ": "7", "WHEN": "48h", "TIME": "48h", "ID": exampleID, "WEBHOOK_ID": exampleID, "CUSTOMER": "external:usr_ada"}

// valueFlags are named without their value here and there.
var valueFlags = map[string]bool{"--since": true, "--type": true, "--actor": true, "--reason": true, "--after": true}

const exampleID = "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"

var (
	commandPattern     = regexp.MustCompile(`(?:^(?:[A-Z_]+=\S* )*|\$\(|\| |&& |; |xargs (?:-r )?|/bin/)truenorth ((?:[a-z-]+(?:\|[a-z-]+)*)(?: [^;&|<>#)]*(?:\|[a-z-]+)*)?)`)
	placeholderPattern = regexp.MustCompile(`^[A-Z][A-Z_-]*$`)
	quotePattern       = regexp.MustCompile(`'[^']*'|"[^"]*"|\$\([^)]*\)`)
)

// truenorthCommands are the arguments of truenorth in a piece of code, one for each of the alternatives a|b.
func truenorthCommands(code string) []string {
	code, _, _ = strings.Cut(code, " # ")
	code = quotePattern.ReplaceAllString(code, "text")
	m := commandPattern.FindStringSubmatch(code)
	if m == nil || m[1] == "v" { // the version that it prints
		return nil
	}
	commands := []string{""}
	words := strings.Fields(m[1])
	for i, word := range words {
		afterFlag := i > 0 && strings.HasPrefix(words[i-1], "--") && !strings.Contains(words[i-1], "=")
		switch {
		case (word == "..." || word == "…") && !afterFlag, word == `\`:
			continue
		case strings.HasPrefix(word, "$"), word == "...", word == "…":
			word = exampleID
		case placeholderPattern.MatchString(word):
			if value, ok := placeholders[word]; ok {
				word = value
			}
		}
		var longer []string
		for _, c := range commands {
			for alternative := range strings.SplitSeq(word, "|") {
				longer = append(longer, strings.TrimSpace(c+" "+alternative))
			}
		}
		commands = longer
	}
	return commands
}

// notVariables are names in capitals that no program of ours reads from its environment.
var notVariables = map[string]string{
	"CHECKOUT_ID": "Polar's own placeholder in a success_url", "WEBHOOK_ID": "stands for an id", "PRODUCT_ID": "stands for an id",
	"NO_COLOR": "a custom of terminals",
}

func TestEveryVariableThatPagesNameIsRead(t *testing.T) {
	t.Parallel()
	read := variablesRead(t)
	for _, name := range []string{"DATABASE_URL", "POLAR_WEBHOOK_SECRETS_FILE", "WORKER_ADDR", "LOG_LEVEL", "TRUENORTH_PG_BIN", "POSTGRES_PASSWORD"} {
		if !read[name] {
			t.Fatalf("%s is not among the variables found in the sources, so this test does not see them", name)
		}
	}
	for _, p := range allPages(t) {
		if p.name == "CHANGELOG.md" {
			continue // speaks of what was, too
		}
		own := map[string]bool{} // set by the page for itself
		for _, b := range p.blocks {
			for _, m := range regexp.MustCompile(`(?:^|[\s;])([A-Z][A-Z0-9_]*)=`).FindAllStringSubmatch(b.text, -1) {
				own[m[1]] = b.language == "sh" || b.language == "console"
			}
		}
		for _, code := range codeOf(p) {
			for _, name := range variablePattern.FindAllString(code, -1) {
				if read[name] || own[name] && strings.Contains(p.text, "$"+name) || notVariables[name] != "" || strings.HasPrefix(name, "OTEL_") {
					continue
				}
				t.Errorf("%s speaks of %s, which nothing reads", p.name, name)
			}
		}
	}
}

// variablesRead are the environment variables that the repository's programs, tests and compose file read.
func variablesRead(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	inGo := regexp.MustCompile(`env:"([A-Z][A-Z0-9_]+)"|"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"`)
	inNode := regexp.MustCompile(`env\.([A-Z][A-Z0-9_]+)()`)
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && entry.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if err != nil || entry.IsDir() || strings.HasSuffix(file, "_test.go") {
			return err
		}
		pattern := inGo
		switch filepath.Ext(file) {
		case ".go":
		case ".js", ".mjs", ".ts":
			pattern = inNode
		default:
			return nil
		}
		text, err := os.ReadFile(file)
		for _, m := range pattern.FindAllStringSubmatch(string(text), -1) {
			names[m[1]+m[2]] = true
			names[m[1]+m[2]+"_FILE"] = names[m[1]+m[2]+"_FILE"] || secretVariables[m[1]+m[2]]
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=`).FindAllStringSubmatch(readFile(t, ".env.example"), -1) {
		names[m[1]] = true
	}
	return names
}

// secretVariables may come from a file.
var secretVariables = map[string]bool{"DATABASE_URL": true, "POLAR_WEBHOOK_SECRETS": true, "POLAR_ACCESS_TOKEN": true, "CONSOLE_PASSWORD": true, "CONSOLE_READER_PASSWORD": true}

// TestEveryTestThatPagesNameIsThere keeps a page from calling upon a proof that has gone.
func TestEveryTestThatPagesNameIsThere(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			tests[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range allPages(t) {
		for _, code := range codeOf(p) {
			if regexp.MustCompile(`^(Test|Fuzz)[A-Z0-9]\w+$`).MatchString(code) && !tests[code] {
				t.Errorf("%s names %s, which is no test", p.name, code)
			}
		}
	}
}
