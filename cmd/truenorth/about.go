package main

import (
	"cmp"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
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
