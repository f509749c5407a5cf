// Command bench measures what truenorth does, beside the plain way to do the same, and publishes it: docs/performance.md,
// docs/performance.json and plots. `make bench` runs all of it; --help lists the parts and the flags. `bench load`, which `make load`
// runs, puts the programs under load for long, and judges how they bear it: docs/load.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

func main() { os.Exit(mainCode(os.Args[1:])) }

// errUsage is that of flags that make no sense.
var errUsage = errors.New("wrong usage")

// mainCode runs the program and returns its exit code.
func mainCode(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	var err error
	switch {
	case len(args) > 0 && args[0] == "serve":
		err = serve(ctx, os.Stdin, os.Stdout)
	case len(args) > 0 && args[0] == "load":
		var o endureOptions
		if o, err = readEndureOptions(args[1:], os.Stderr); err == nil {
			_, err = endure(ctx, o, os.Stderr)
		} else {
			err = errors.Join(errUsage, err)
		}
	default:
		var o options
		if o, err = readOptions(args, os.Stderr); err == nil {
			_, err = run(ctx, o, os.Stderr)
		} else {
			err = errors.Join(errUsage, err)
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage): // what was wrong has been said
		return 2
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// bench is one run.
type bench struct {
	options

	postgres *postgres
	results  *Results
	progress io.Writer
	began    time.Time
}

// part is one of the things measured.
type part struct {
	name, about string
	measure     func(b *bench, ctx context.Context) error
	asked       bool // runs only if it is asked for, or in a smoke run
}

// parts are all of them, in their order.
var parts = []part{
	{name: "receive", about: "deliveries acknowledged, by connections and size", measure: (*bench).receive},
	{name: "half", about: "latency of receiving at half of its saturation", measure: (*bench).half},
	{name: "apply", about: "stored events brought into the mirror", measure: (*bench).apply},
	{name: "both", about: "receiving while the worker applies", measure: (*bench).both},
	{name: "flat", about: "memory while many events go through", measure: (*bench).flat},
	{name: "linked", about: "from a delivery to the customer's link", measure: (*bench).linked},
	{name: "create", about: "from the commit of a checkout request to its URL", measure: (*bench).create},
	{name: "sweep", about: "the mirror compared with Polar's lists", measure: (*bench).sweep},
	{name: partLarge, about: "with ten million stored events, beside an empty database; and the plans of the queries (only if asked for)", measure: (*bench).large, asked: true},
	{name: "migrate", about: "how long anybody waits while the schema of the release before is migrated (only if asked for)", measure: (*bench).migrate, asked: true},
}

// partLarge has a report of its own.
const partLarge = "large"

// run measures the parts asked for and writes the report.
func run(ctx context.Context, o options, progress io.Writer) (_ *Results, err error) {
	debug.SetGCPercent(400) // the load generator shall take as little as it can from those that it loads
	if o.out == "" {
		if o.out, err = os.MkdirTemp("", "truenorth-bench-"); err != nil {
			return nil, fmt.Errorf("making a folder for the report: %w", err)
		}
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o750); err != nil {
			return nil, fmt.Errorf("making the folder for profiles: %w", err)
		}
	}
	b := &bench{options: o, results: &Results{Run: o.facts()}, progress: progress, began: time.Now()}
	if b.results.Machine, err = machine(); err != nil {
		return nil, err
	}
	if b.postgres, b.results.Postgres, err = startPostgres(ctx, settings, o.short); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.postgres.stop(ctx)) }()
	for _, p := range parts {
		if len(o.only) > 0 && !slices.Contains(o.only, p.name) || len(o.only) == 0 && p.asked && !o.short {
			continue
		}
		b.sayf("%s: %s", p.name, p.about)
		if err := p.measure(b, ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.results.Run.TookSeconds = time.Since(b.began).Round(time.Second).Seconds()
	b.results.Goals = goals(b.results)
	if !o.onlyLarge() {
		if err := publish(o.out, b.results); err != nil {
			return nil, err
		}
	}
	if b.results.Large != nil {
		if err := publishLarge(o.out, b.results); err != nil {
			return nil, err
		}
	}
	b.sayf("written to %s", o.out)
	return b.results, nil
}

// sayf tells how far the run is.
func (b *bench) sayf(format string, args ...any) {
	fmt.Fprintf(b.progress, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// inTurn calls each of some measurements once, beginning with another one each time, so that none is always the first or
// always after the same.
func inTurn[T any](round int, subjects []T, measure func(T) error) error {
	for i := range subjects {
		if err := measure(subjects[(i+round)%len(subjects)]); err != nil {
			return err
		}
	}
	return nil
}
