package main

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
)

// about is what a command tells of itself beside its one line and its flags. Its help and docs/cli.md are made of it.
type about struct {
	text     string     // what else there is to know
	needs    string     // variables of the environment without which it fails
	reads    string     // variables that it looks at too
	examples []example  // how it is called
	finds    string     // what makes it end with exit code 3; empty: nothing does
	prints   []document // with --json
	noJSON   string     // why there is no --json
}

// example is a command line, and what it is for.
type example struct{ line, does string }

// document is the JSON that a command prints.
type document struct {
	when   string   // with which flags, where not always
	value  any      // of the type that is printed
	rows   string   // the table that its fields are named after, if it shows rows of one
	beside []string // fields that are no columns of it
}

// described is every command.
type described interface{ about() about }

// aboutOf is what the command of a node tells of itself.
func aboutOf(node *kong.Node) about {
	if node != nil && node.Target.CanAddr() {
		if d, ok := reflect.TypeAssert[described](node.Target.Addr()); ok {
			return d.about()
		}
	}
	return about{}
}

// describe gives every command its help.
func describe(node *kong.Node) {
	if node.Type == kong.CommandNode {
		node.Detail = aboutOf(node).help(len(node.Children) == 0)
	}
	for _, child := range node.Children {
		describe(child)
	}
}

// printHelp is kong's help, with our line of usage, and without --json where there is none.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if selected := ctx.Selected(); selected != nil {
		options.NoAppSummary = true
		fmt.Fprintf(ctx.Stdout, "Usage: %s %s\n", ctx.Model.Name, summary(selected))
		for _, f := range ctx.Model.Flags {
			f.Hidden = f.Hidden || f.Name == "json" && aboutOf(selected).noJSON != ""
		}
	}
	return kong.DefaultHelpPrinter(options, ctx) //nolint:wrapcheck // kong tells it
}

// summary is a command's line of usage. Flags of which one is required, kong shows as if all were.
func summary(node *kong.Node) string {
	alternatives := map[string][]string{} // by their group
	for _, flags := range node.AllFlags(true) {
		for _, f := range flags {
			if f.Required && len(f.Xor) > 0 {
				alternatives[f.Xor[0]] = append(alternatives[f.Xor[0]], f.Summary())
			}
		}
	}
	line := node.Summary()
	for _, flags := range alternatives {
		line = strings.Replace(line, strings.Join(flags, " "), "("+strings.Join(flags, " | ")+")", 1)
	}
	return line
}

// readUUID reads an id of Polar's, or of a request.
func readUUID(ctx *kong.DecodeContext, target reflect.Value) error {
	var typed string
	if err := ctx.Scan.PopValueInto("id", &typed); err != nil {
		return err //nolint:wrapcheck // kong says which flag or argument it is
	}
	id, err := uuid.Parse(typed)
	if err != nil {
		return fmt.Errorf("%q is no id: give one such as 5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01", typed)
	}
	target.Set(reflect.ValueOf(id))
	return nil
}

// help is what stands between a command's one line and its flags.
func (a about) help(leaf bool) string {
	var parts []string
	add := func(part string) {
		if part != "" {
			parts = append(parts, part)
		}
	}
	add(strings.TrimSpace(a.text))
	switch {
	case a.needs != "" && a.reads != "":
		add("Environment: it needs " + a.needs + ", and reads " + a.reads + ".")
	case a.needs != "":
		add("Environment: it needs " + a.needs + ".")
	case a.reads != "":
		add("Environment: it reads " + a.reads + ".")
	}
	if len(a.examples) > 0 {
		width := 0
		for _, e := range a.examples {
			width = max(width, len(e.line))
		}
		var lines strings.Builder
		lines.WriteString("Examples:\n")
		for _, e := range a.examples {
			lines.WriteString("\n  " + strings.TrimRight(e.line+strings.Repeat(" ", width-len(e.line)+2)+e.does, " "))
		}
		add(lines.String())
	}
	if leaf {
		add("Exit codes: 0 done, 1 failed, 2 wrong usage" + cmp.Or(strings.TrimSuffix(", 3 "+a.finds, ", 3 "), "") + ".")
	}
	return strings.Join(parts, "\n\n")
}
