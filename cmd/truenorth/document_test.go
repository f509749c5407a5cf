package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

var update = flag.Bool("update", false, "write docs/cli.md")

// compareDocument sees that docs/cli.md is what the commands tell of themselves, and what the tour saw.
func compareDocument(t *testing.T, want string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/cli.md is not what the commands are; `make docs` writes it (-document +commands):\n%s", diff)
	}
}

const documentHead = "# The command line\n\n" +
	"`truenorth` is the operator's tool; `ingest` and `worker` serve, and take no flags but `--help` and `--version`. This page is\n" +
	"written by `make docs` from the commands themselves: every line of output was printed by the command above it, with ids, times,\n" +
	"keys and versions made the same; that of `dev` and `fake-polar` has their default addresses.\n\n" +
	"`truenorth COMMAND --help` tells the same of one command. `truenorth completion` makes a shell complete them.\n\n" +
	"## What all commands have in common\n\n" +
	"**Exit codes.**\n\n| code | meaning |\n|---|---|\n%s\n" +
	"Commands that examine end with 3 by themselves: `doctor`, `endpoint check`, `reconcile --dry-run`, `replay --verify`. Those that\n" +
	"list do so with `--exit-code`: `status`, `conflicts list`.\n\n" +
	"**Output.** The result goes to standard output, all else to standard error, so that a pipe gets the result alone. Progress is a\n" +
	"bar at a terminal and a line every ten seconds elsewhere. Colours are for terminals: `NO_COLOR`, `TERM=dumb` and `--json` turn them off.\n\n" +
	"**JSON.** `--json` prints one document (`endpoint rotate --wait` two: the new secret at once, and how it ended), whose fields are named as the columns of the table where it shows rows. Times are RFC 3339.\n" +
	"Fields may be added; none is renamed or removed. Below, `name?` is left out where there is nothing to say. Standard error is JSON\n" +
	"then, too, an object a line: `{\"note\": …}`, and where it failed\n\n```text\n%s```\n\n" +
	"without `what_to_do` where the error says so itself.\n\n" +
	"**At a fake Polar.** `truenorth dev` (`make run`) prints the variables that lead other commands to what it runs, such as\n" +
	"`POLAR_API_URL=http://127.0.0.1:8082/v1 POLAR_ACCESS_TOKEN=any`; its webhook secret is a new one at each start.\n\n" +
	"## Commands\n\n"

// writeDocument makes docs/cli.md.
func writeDocument(parser *kong.Kong, samples map[string][]sample) string {
	var codes strings.Builder
	for l := range strings.Lines(exitCodes) {
		if number, meaning, ok := strings.Cut(strings.TrimSpace(l), "  "); ok {
			fmt.Fprintf(&codes, "| %s | %s |\n", number, meaning)
		}
	}
	var failed strings.Builder
	e := &environment{stderr: &failed, json: true}
	e.fail(errNoToken)

	var b strings.Builder
	fmt.Fprintf(&b, documentHead, codes.String(), failed.String())
	leaves := parser.Model.Leaves(true)
	for _, leaf := range leaves {
		name := commandName(leaf)
		fmt.Fprintf(&b, "- [`%s`](#%s): %s\n", name, strings.ReplaceAll("truenorth "+name, " ", "-"), leaf.Help)
	}
	var group *kong.Node
	for _, leaf := range leaves {
		if leaf.Parent != group {
			group = leaf.Parent
			if text := aboutOf(group).text; text != "" && group.Type == kong.CommandNode {
				fmt.Fprintf(&b, "\n## `%s`\n\n%s %s\n", group.FullPath(), group.Help, reflowed(text))
			}
		}
		writeCommand(&b, leaf, samples[commandName(leaf)])
	}
	return b.String()
}

func commandName(node *kong.Node) string { return strings.TrimPrefix(node.FullPath(), "truenorth ") }

// reflowed joins the lines of each paragraph, as they stand in the code.
func reflowed(text string) string {
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.ReplaceAll(p, "\n", " ")
	}
	return strings.Join(paragraphs, "\n\n")
}

func writeCommand(b *strings.Builder, leaf *kong.Node, samples []sample) {
	a := aboutOf(leaf)
	fmt.Fprintf(b, "\n### truenorth %s\n\n%s\n\n```text\ntruenorth %s\n```\n", commandName(leaf), leaf.Help, summary(leaf))
	if a.text != "" {
		fmt.Fprintf(b, "\n%s\n", reflowed(a.text))
	}
	if a.needs != "" {
		fmt.Fprintf(b, "\nNeeds %s.", variables(a.needs))
	}
	if a.reads != "" {
		if a.needs == "" {
			b.WriteString("\n")
		} else {
			b.WriteString(" ")
		}
		fmt.Fprintf(b, "Reads %s.", variables(a.reads))
	}
	if a.needs+a.reads != "" {
		b.WriteString("\n")
	}
	if a.finds != "" {
		fmt.Fprintf(b, "\nEnds with 3 where %s.\n", strings.NewReplacer("(--", "(`--", "code)", "code`)", "verify)", "verify`)").Replace(a.finds))
	}
	writeFlags(b, leaf)
	b.WriteString("\n```sh\n")
	for _, e := range a.examples {
		fmt.Fprintln(b, strings.TrimRight(e.line+"  # "+e.does, "# "))
	}
	b.WriteString("```\n")
	if at, is := serving[commandName(leaf)]; is {
		var printed strings.Builder
		_ = at.print(&printed)
		if commandName(leaf) == "dev" {
			samples = []sample{{line: "truenorth dev", printed: printed.String()}}
		} else {
			samples = []sample{{line: "truenorth fake-polar", printed: "fake Polar: POLAR_API_URL=" + at.Polar + " (any token)\n"}}
		}
	}
	for _, s := range samples {
		fmt.Fprintf(b, "\n```console\n%s```\n", settled("$ "+s.line+"\n"+s.printed))
		if s.code != exitDone {
			fmt.Fprintf(b, "\nIt ended with %d.\n", s.code)
		}
	}
	if a.noJSON != "" {
		fmt.Fprintf(b, "\nIt has no `--json`: %s.\n", a.noJSON)
	}
	for _, d := range a.prints {
		when := ""
		if d.when != "" {
			when = ", " + d.when + ","
		}
		rows := ""
		if d.rows != "" {
			rows = ", with the columns of `" + d.rows + "`"
		}
		fmt.Fprintf(b, "\n`--json`%s prints%s:\n\n```text\n%s\n```\n", when, rows, form(reflect.TypeOf(d.value), ""))
	}
}

func variables(list string) string {
	if strings.HasPrefix(list, "all") {
		first, rest, _ := strings.Cut(list, ", ")
		if rest == "" {
			return first
		}
		return first + ", " + variables(rest)
	}
	return "`" + strings.ReplaceAll(list, ", ", "`, `") + "`"
}

func writeFlags(b *strings.Builder, leaf *kong.Node) {
	if len(leaf.Positional)+len(leaf.Flags) == 0 {
		return
	}
	b.WriteString("\n| argument or flag | |\n|---|---|\n")
	cell := func(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
	for _, p := range leaf.Positional {
		fmt.Fprintf(b, "| `%s` | %s |\n", p.Summary(), cell(p.Help))
	}
	for _, f := range leaf.Flags {
		name := f.String()
		if f.Short != 0 {
			name = "-" + string(f.Short) + ", --" + f.Name
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, cell(f.Help))
	}
}

// form is a type as JSON shows it.
func form(t reflect.Type, indent string) string {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[uuid.UUID]():
		return "uuid"
	case reflect.TypeFor[json.RawMessage]():
		return "object"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return form(t.Elem(), indent) + " | null"
	case reflect.Slice:
		return "[" + form(t.Elem(), indent) + ", …]"
	case reflect.Map:
		return "{name: " + form(t.Elem(), indent) + ", …}"
	case reflect.Struct:
		var lines strings.Builder
		fieldsOf(&lines, t, indent+"  ")
		return "{\n" + lines.String() + indent + "}"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Float64:
		return "number"
	default:
		panic("no form is known of " + t.String()) // a command prints something new
	}
}

func fieldsOf(lines *strings.Builder, t reflect.Type, indent string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			fieldsOf(lines, f.Type, indent)
		case strings.Contains(options, "omit"):
			fmt.Fprintf(lines, "%s%s?: %s\n", indent, name, strings.TrimSuffix(form(f.Type, indent), " | null"))
		default:
			fmt.Fprintf(lines, "%s%s: %s\n", indent, name, form(f.Type, indent))
		}
	}
}
