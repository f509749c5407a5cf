// Command truenorth is the operator's tool: it migrates, tells the status, maps users, settles conflicts, links, asks
// for checkouts, checks webhook secrets, and runs everything for development.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type commands struct {
	Dev       devCommand       `cmd:"" help:"Run everything on this machine: Postgres, a fake Polar, ingest, worker, and a first page."`
	Migrate   migrateCommand   `cmd:"" help:"Bring the database to the newest schema. Safe twice, and from two hosts at once."`
	Doctor    doctorCommand    `cmd:"" help:"Look whether everything is set up, and say what to do about what is not."`
	Status    statusCommand    `cmd:"" help:"Tell at a glance whether users and payments agree."`
	Reconcile reconcileCommand `cmd:"" help:"Compare Polar's lists with the mirror, and repair what differs."`
	Users     usersCommand     `cmd:"" help:"Say where the product's users are."`
	Conflicts conflictsCommand `cmd:"" help:"List, show and settle link conflicts."`
	Link      linkCommand      `cmd:"" help:"Link a Polar customer to a local user, by a person's word."`
	Unlink    unlinkCommand    `cmd:"" help:"End a Polar customer's link to its local user, for good."`
	Checkout  checkoutCommand  `cmd:"" help:"Ask for checkouts."`
	Keys      keysCommand      `cmd:"" help:"Make, list and revoke the keys of apps that come by HTTP."`
	Endpoint  endpointCommand  `cmd:"" help:"Look after Polar's webhook endpoint: set it up, check it, rotate its secret, fetch what it missed."`
	Replay    replayCommand    `cmd:"" help:"Apply stored events again, or compare the mirror with what they say."`
	Forget    forgetCommand    `cmd:"" help:"Take a customer's personal data out of everything that is kept."`
	FakePolar fakePolarCommand `cmd:"" help:"Run a fake Polar: its API, a checkout page to pay on, and its webhooks."`
	Webhook   webhookCommand   `cmd:"" help:"Sign a webhook, or send one: how to check a secret."`

	Completion completionCommand `cmd:"" help:"Print the script that completes truenorth's commands in a shell."`
	Version    versionCommand    `cmd:"" help:"Print the version, the commit and the version of Go."`

	JSON         bool             `name:"json" help:"Print JSON; errors too, to standard error."`
	PrintVersion kong.VersionFlag `name:"version" help:"Print the version and exit."`
}

const description = `truenorth keeps a product's own users and its Polar customers and checkouts in agreement.

It reads the same environment as ingest and worker: DATABASE_URL, POLAR_ACCESS_TOKEN, POLAR_API_URL, POLAR_VERSION,
POLAR_RATE_LIMIT, POLAR_TIMEOUT, POLAR_WEBHOOK_SECRETS, INGEST_PUBLIC_URL, CHECKOUT_EXTRA_FIELDS; each secret may come from a file, NAME_FILE.

Results go to standard output, all else to standard error. Colours and progress are for terminals; NO_COLOR turns colours off.

truenorth help COMMAND is truenorth COMMAND --help.

` + exitCodes

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

// environment is what every command gets.
type environment struct {
	config cmdconfig.Operator
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	json   bool  // --json
	style  style // of what is printed to stdout
}

// exited carries an exit code out of kong, which wants to end the program by itself.
type exited int

// newParser makes the parser of the command line. What commands tell of themselves is part of their help.
func newParser(c *commands, stdout, stderr io.Writer) *kong.Kong {
	parser, err := kong.New(c, kong.Name("truenorth"), kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}), kong.Help(printHelp),
		kong.TypeMapper(reflect.TypeFor[uuid.UUID](), kong.MapperFunc(readUUID)),
		kong.Vars{"version": "truenorth " + program.ReadBuild().String()}, kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }))
	if err != nil {
		panic(fmt.Sprintf("truenorth: the commands are wrong: %v", err)) // our own mistake, seen by any run
	}
	describe(parser.Model.Node)
	return parser
}

func run(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	var c commands
	parser := newParser(&c, stdout, stderr)
	if completes(environ) {
		complete(parser)
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(args[1:len(args):len(args)], "--help")
	}
	e := &environment{stdin: stdin, stdout: stdout, stderr: stderr, json: asksForJSON(args)}
	parsed, err := parser.Parse(args)
	if err != nil {
		return e.fail(misused(parser, err))
	}
	told := aboutOf(parsed.Selected())
	if e.json && told.noJSON != "" {
		return e.fail(usage("give it without --json", "%s prints no JSON: %s", parsed.Command(), told.noJSON))
	}
	if told.needs+told.reads != "" {
		if e.config, err = cmdconfig.ReadOperator(environ); err != nil {
			return e.fail(err)
		}
	}
	e.style = styleOf(stdout, environ, e.json)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(e, parser); err != nil {
		return e.fail(err)
	}
	return exitDone
}

// asksForJSON looks for --json, since what cannot be parsed is an error in JSON, too.
func asksForJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

// openStore opens the database of DATABASE_URL.
func (e *environment) openStore() (*store.Store, error) {
	if e.config.URL.Reveal() == "" {
		return nil, failure("set it, or DATABASE_URL_FILE to a file that holds it", "DATABASE_URL is not set")
	}
	return store.Open(e.config.URL.Reveal(), "truenorth")
}

// print prints a result: as JSON where that is asked for, or as text, for a person.
func (e *environment) print(result any, text func(io.Writer) error) error {
	if e.json {
		return printJSON(e.stdout, result)
	}
	return text(e.stdout)
}

// notef tells a person more than the result, on standard error. With --json it is an object of its own.
func (e *environment) notef(format string, args ...any) {
	if e.json {
		e.tellJSON(note{fmt.Sprintf(format, args...)})
		return
	}
	fmt.Fprintf(e.stderr, format+"\n", args...)
}

// note is a line on standard error that is no error, with --json.
type note struct {
	Note string `json:"note"`
}

// tellJSON writes a line of JSON to standard error.
func (e *environment) tellJSON(value any) {
	encoder := json.NewEncoder(e.stderr)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) //nolint:errchkjson // whoever cannot read it has the exit code still
}

// printJSON prints a value as a person reads it.
func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// numbered is a number with its noun.
func numbered[N int | int64](n N, one, more string) string {
	if n != 1 {
		one = more
	}
	return fmt.Sprintf("%d %s", n, one)
}

// linef prints one line of text.
func linef(format string, args ...any) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, fmt.Sprintf(format, args...)+"\n")
		return err //nolint:wrapcheck // it says itself what could not be written
	}
}
