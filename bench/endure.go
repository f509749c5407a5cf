package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// endureOptions say how long to load the programs, and with what.
type endureOptions struct {
	out   string // "": a temporary folder
	only  []string
	short bool

	phase       time.Duration // of saturation, and again of three times as much
	warm        time.Duration // of finding out what saturation is
	calm        time.Duration // of half of it, before and after
	connections int
	size        int

	events  int // of the day
	day     time.Duration
	objects int // that Polar has before the day begins
}

// endurePart is one of the loads.
type endurePart struct {
	name, about string
	run         func(b *bench, ctx context.Context, o endureOptions, r *Endured) error
}

// endureParts are what `bench load` consists of.
var endureParts = []endurePart{
	{"saturation", "as much as is taken, then three times as much, then little again", (*bench).saturate},
	{"day", "a day of a shop in little time: its events, its sweeps, its quiet and its busy hours", (*bench).day},
}

func readEndureOptions(args []string, stderr io.Writer) (endureOptions, error) {
	var o endureOptions
	var only string
	flags := flag.NewFlagSet("bench load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "bench load puts ingest and worker under load, judges how they bear it, and publishes that.\n"+
			"It fails where one of the limits is broken or an event is lost.\n\nParts:")
		for _, p := range endureParts {
			fmt.Fprintf(stderr, "  %-10s %s\n", p.name, p.about)
		}
		fmt.Fprintln(stderr, "\nFlags:")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.out, "out", "", "folder of load.md and load.json (default ../docs; with -short or -only a temporary one)")
	flags.StringVar(&only, "only", "", "parts to run, comma separated (default all)")
	flags.BoolVar(&o.short, "short", false, "a run of a minute, with the same judgements")
	flags.DurationVar(&o.phase, "for", 10*time.Minute, "how long saturation lasts, and then three times as much")
	flags.DurationVar(&o.warm, "warm", 15*time.Second, "how long it takes to find out what saturation is")
	flags.DurationVar(&o.calm, "calm", 30*time.Second, "how long half of it lasts, before and after")
	flags.IntVar(&o.connections, "connections", 3000, "over which three times as much is sent: more than ingest lets wait, or nothing is refused; all else goes over 256")
	flags.IntVar(&o.size, "size", 1000, "of a body in bytes, at least")
	flags.IntVar(&o.events, "events", 1_000_000, "of the day")
	flags.DurationVar(&o.day, "day", 20*time.Minute, "how long the 24 hours last")
	flags.IntVar(&o.objects, "objects", 200_000, "customers, orders and subscriptions that Polar has before the day begins")
	if err := flags.Parse(args); err != nil {
		return endureOptions{}, fmt.Errorf("reading the flags: %w", err)
	}
	if o.short {
		o.phase, o.warm, o.calm, o.connections = 8*time.Second, 2*time.Second, 12*time.Second, 2500
		o.events, o.day, o.objects = 4000, 18*time.Second, 600
	}
	var errs []error
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(endureParts, func(p endurePart) bool { return p.name == name }) {
			errs = append(errs, fmt.Errorf("-only %q: there is no such part; --help lists them", name))
		}
	}
	if o.phase < 5*time.Second || o.warm < time.Second || o.calm < recoverWithin+2*time.Second || o.day < 10*time.Second {
		errs = append(errs, fmt.Errorf("too short to judge: -for has to be 5s, -warm 1s, -calm %s and -day 10s at least", recoverWithin+2*time.Second))
	}
	if o.connections < leastConnections || o.size < 0 || o.events < 1000 || o.objects < 100 {
		errs = append(errs, fmt.Errorf("too little to judge: -connections has to be %d, -events 1000 and -objects 100 at least", leastConnections))
	}
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("what is %q? only flags are known", flags.Arg(0)))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(stderr, err)
		return endureOptions{}, err
	}
	if o.out == "" && !o.short && len(o.only) == 0 {
		o.out = "../docs"
	}
	return o, nil
}

// leastConnections is over what ingest has in hand at once: 1,024 deliveries that wait, and twice 256 that are being committed.
const leastConnections = 2000

// Endured is all that `bench load` finds out. A part that was not run is empty.
type Endured struct {
	Run        EndureFacts   `json:"run"`
	Machine    MachineFacts  `json:"machine"`
	Postgres   PostgresFacts `json:"postgres"`
	Goals      []Goal        `json:"goals"`
	Saturation *Saturation   `json:"saturation,omitempty"`
	Day        *Day          `json:"day,omitempty"`
}

// EndureFacts say how it was found out.
type EndureFacts struct {
	Date        string  `json:"date"`
	TookSeconds float64 `json:"took_seconds"`
	Short       bool    `json:"short"`
}

// endure runs the parts asked for, writes the report, and fails where a limit is broken.
func endure(ctx context.Context, o endureOptions, progress io.Writer) (_ *Endured, err error) {
	// What makes the load shall take as little as it can from those that bear it, but the fake Polar forgets none of a million events.
	const most = 10 << 30
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(most)
	if o.out == "" {
		if o.out, err = os.MkdirTemp("", "truenorth-load-"); err != nil {
			return nil, fmt.Errorf("making a folder for the report: %w", err)
		}
	}
	b := &bench{progress: progress, began: time.Now()}
	r := &Endured{Run: EndureFacts{Date: time.Now().UTC().Format(time.DateOnly), Short: o.short}}
	if r.Machine, err = machine(); err != nil {
		return nil, err
	}
	settings := loadSettings
	if o.short {
		// A day of seconds has no minute for autovacuum to wait. In a real one it looks 1,440 times.
		settings = map[string]string{"max_connections": "200", "shared_buffers": "256MB", "autovacuum_naptime": "1s"}
	}
	if b.postgres, r.Postgres, err = startPostgres(ctx, settings, o.short); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.postgres.stop(ctx)) }()
	for _, p := range endureParts {
		if len(o.only) > 0 && !slices.Contains(o.only, p.name) {
			continue
		}
		b.sayf("%s: %s", p.name, p.about)
		if err := p.run(b, ctx, o, r); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.Run.TookSeconds = time.Since(b.began).Round(time.Second).Seconds()
	r.Goals = append(r.Saturation.goals(), r.Day.goals()...)
	if err := publishEndured(o.out, r); err != nil {
		return nil, err
	}
	b.sayf("written to %s", o.out)
	var broken []error
	for _, g := range r.Goals {
		if !g.Reached {
			broken = append(broken, fmt.Errorf("%s is %s, and shall be %s", g.What, g.value(), g.want()))
		}
	}
	return r, errors.Join(broken...)
}
