package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Exit codes. Commands that examine end with exitFound by themselves, those that list do so with --exit-code.
const (
	exitDone   = 0
	exitFailed = 1 // it is not done, or not wholly
	exitUsage  = 2 // nothing was tried
	exitFound  = 3 // it is done, and what was looked at needs a person
)

// exitCodes is the table that help and docs/cli.md show.
const exitCodes = `Exit codes:

  0  done
  1  failed: it is not done, or not wholly
  2  wrong usage: nothing was tried
  3  done, and what was found needs a person: drift, conflicts, faults`

// exitError is an error with an exit code of its own, and what to do about it. Without err, all has been said already.
type exitError struct {
	code int
	err  error
	todo string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// failure is an error, and what to do about it.
func failure(todo, format string, args ...any) error {
	return &exitError{exitFailed, fmt.Errorf(format, args...), todo}
}

// usage is a wrong use of a command, and how to use it.
func usage(todo, format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...), todo}
}

// misused is an error of kong's, with the help that tells how to do it right.
func misused(parser *kong.Kong, err error) error {
	help := parser.Model.Name
	if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context.Selected() != nil {
		help = parse.Context.Selected().FullPath()
	}
	return &exitError{exitUsage, err, "see " + help + " --help"}
}

// toldFailure is an error with --json.
type toldFailure struct {
	Error    string `json:"error"`
	ToDo     string `json:"what_to_do,omitempty"` // where the error does not say so itself
	ExitCode int    `json:"exit_code"`
}

// fail tells of an error on standard error, and gives the exit code.
func (e *environment) fail(err error) int {
	told := toldFailure{Error: err.Error(), ToDo: advice(err), ExitCode: exitFailed}
	if with, ok := errors.AsType[*exitError](err); ok {
		told.ExitCode = with.code
		if with.err == nil {
			return told.ExitCode
		}
	}
	if e.json {
		e.tellJSON(told)
		return told.ExitCode
	}
	fmt.Fprintf(e.stderr, "truenorth: %s\n", shown(oneLine(strings.ReplaceAll(told.Error, "\n", "; "))))
	if told.ToDo != "" {
		fmt.Fprintf(e.stderr, "  -> %s\n", shown(told.ToDo))
	}
	return told.ExitCode
}

// adviceDenied is for store.ErrDenied, whose words say which it is.
const adviceDenied = "correct the user, the password or the name of the database in DATABASE_URL"

// advice is what to do about an error that does not say so itself.
func advice(err error) string {
	with, ok := errors.AsType[*exitError](err)
	switch {
	case ok && with.todo != "":
		return with.todo
	case errors.Is(err, store.ErrUnavailable):
		return "see that Postgres runs, and that DATABASE_URL leads to it from here; truenorth doctor looks at the rest"
	case errors.Is(err, store.ErrDenied):
		return adviceDenied
	case errors.Is(err, jobs.ErrCustomerLinked):
		return "--replace ends that link"
	case errors.Is(err, jobs.ErrUserLinked):
		return "with --also it gets this customer too"
	case polar.IsUnauthorized(err):
		return "set POLAR_ACCESS_TOKEN to a valid token of the organization, of the Polar that POLAR_API_URL names"
	}
	return ""
}
