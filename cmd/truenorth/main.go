// Command truenorth is the operator's tool: it migrates, tells the status, maps users, settles conflicts, links, asks
// for checkouts, checks webhook secrets, and runs everything for development.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

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

	Version kong.VersionFlag `help:"Print the version and exit."`
}

const description = `truenorth keeps a product's own users and its Polar customers and checkouts in agreement.

It reads the same environment as ingest and worker: DATABASE_URL, POLAR_ACCESS_TOKEN, POLAR_API_URL, POLAR_VERSION,
POLAR_RATE_LIMIT, POLAR_TIMEOUT, POLAR_WEBHOOK_SECRETS, INGEST_PUBLIC_URL, CHECKOUT_EXTRA_FIELDS; each secret may come from a file, NAME_FILE.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 looked and found a difference.`

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

// environment is what every command gets.
type environment struct {
	config cmdconfig.Operator
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// Exit codes besides 0 and 1.
const (
	exitUsage = 2
	exitDrift = 3 // what was looked at differs
)

// exitError is an error with an exit code of its own. Without err, all has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exited carries an exit code out of kong, which wants to end the program by itself.
type exited int

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
	parser, err := kong.New(&c, kong.Name("truenorth"), kong.Description(description), kong.UsageOnError(),
		kong.Vars{"version": "truenorth " + program.Version()}, kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }))
	if err != nil {
		panic(fmt.Sprintf("truenorth: the commands are wrong: %v", err)) // our own mistake, seen by any run
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "truenorth: %v; see truenorth --help\n", err)
		return 2
	}
	config, err := cmdconfig.ReadOperator(environ)
	if err != nil {
		fmt.Fprintf(stderr, "truenorth: %v\n", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(&environment{config: config, stdin: stdin, stdout: stdout, stderr: stderr}); err != nil {
		with, ok := errors.AsType[*exitError](err)
		if !ok || with.err != nil {
			fmt.Fprintf(stderr, "truenorth: %v\n", err)
		}
		if ok {
			return with.code
		}
		return 1
	}
	return 0
}

// openStore opens the database of DATABASE_URL.
func (e *environment) openStore() (*store.Store, error) {
	if e.config.URL.Reveal() == "" {
		return nil, errors.New("DATABASE_URL is not set: set it, or DATABASE_URL_FILE to a file that holds it")
	}
	return store.Open(e.config.URL.Reveal(), "truenorth")
}

// printJSON prints a value as a person reads it.
func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
