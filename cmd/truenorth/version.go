package main

import (
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
)

type versionCommand struct{}

func (versionCommand) about() about {
	return about{
		text:     "ingest and worker tell theirs with --version, too.",
		examples: []example{{"truenorth version", "for a person"}, {"truenorth version --json", "for a program"}},
		prints:   []document{{value: program.Build{}}},
	}
}

// Run tells what this program was made of.
func (versionCommand) Run(e *environment) error {
	build := program.ReadBuild()
	return e.print(build, linef("truenorth %s", build))
}
