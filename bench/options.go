package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options say what to measure, and how long.
type options struct {
	out      string // "": a temporary folder
	only     []string
	short    bool
	profiles string

	rounds      int
	focusRounds int
	longRounds  int
	duration    time.Duration
	warm        time.Duration
	connections []int
	sizes       []int

	events     int
	batch      int
	rates      []int
	seconds    int
	checkouts  int
	customers  []int
	flatEvents int

	rows       int
	largeApply int
	plansOnly  bool
	soak       time.Duration
	calm       time.Duration
	migrated   int // rows that migrate migrates
}

// What the goals speak of.
const (
	manyConnections = 256
	usualSize       = 2000
)

func readOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var only, connections, sizes, rates string
	var large bool
	var customers string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "bench measures what truenorth does and publishes it.\n\nParts:")
		for _, p := range parts {
			fmt.Fprintf(stderr, "  %-8s %s\n", p.name, p.about)
		}
		fmt.Fprintln(stderr, "\nFlags:")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.out, "out", "", "folder of performance.md, performance.json and performance/*.svg (default ../docs; with -short or -only a temporary one, but for -only large)")
	flags.StringVar(&only, "only", "", "parts to run, comma separated (default all; half needs receive)")
	flags.BoolVar(&o.short, "short", false, "a smoke run of a minute: every part with tiny numbers, which mean nothing")
	flags.BoolVar(&large, "large", false, "sweep 1,000,000 customers too, and let 1,000,000 events through flat; ten minutes more")
	flags.StringVar(&o.profiles, "cpuprofile", "", "folder for CPU, allocation and mutex profiles of the subjects; they cost some speed")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds, of which medians are published")
	flags.IntVar(&o.focusRounds, "focus-rounds", 5, "rounds at 64 and 256 connections with 2 kB")
	flags.IntVar(&o.longRounds, "long-rounds", 2, "rounds of apply, both and linked; the sweep has one")
	flags.DurationVar(&o.duration, "duration", 1500*time.Millisecond, "of one measurement of receiving")
	flags.DurationVar(&o.warm, "warm", 300*time.Millisecond, "of the same load before it, which does not count")
	flags.StringVar(&connections, "connections", "1,8,64,256", "numbers of keep-alive connections")
	flags.StringVar(&sizes, "sizes", "700,2000,8000", "sizes of bodies in bytes")
	flags.IntVar(&o.events, "events", 60_000, "events that are applied, and deliveries posted while a worker runs")
	flags.IntVar(&o.batch, "batch", 64, "events that one group commit stores, for apply")
	flags.StringVar(&rates, "rates", "1,100,1000", "events a second for linked")
	flags.IntVar(&o.seconds, "seconds", 10, "of each of these rates")
	flags.IntVar(&o.checkouts, "checkouts", 200, "checkouts that are created")
	flags.StringVar(&customers, "customers", "100000", "numbers of customers that are swept")
	flags.IntVar(&o.flatEvents, "flat-events", 200_000, "events that go through while memory is watched")
	flags.IntVar(&o.rows, "rows", 10_000_000, "stored events of large and of migrate; ten million take 20 GB of disk")
	flags.BoolVar(&o.plansOnly, "plans", false, "of large only the plans, for work on a query")
	flags.DurationVar(&o.soak, "soak", 20*time.Second, "of large: of receiving, before it is measured for the second time")
	flags.DurationVar(&o.calm, "calm", 20*time.Second, "of migrate: of traffic before it")
	flags.IntVar(&o.largeApply, "large-apply", 40_000, "events that large applies")
	if err := flags.Parse(args); err != nil {
		return options{}, fmt.Errorf("reading the flags: %w", err)
	}
	o.migrated = o.rows
	if o.short {
		connections, sizes, rates = "1,256", "2000", "20,100"
		o.rounds, o.focusRounds, o.longRounds, o.duration, o.warm = 1, 1, 1, 300*time.Millisecond, 50*time.Millisecond
		o.events, o.flatEvents, o.seconds, o.checkouts, customers = 800, 2560, 1, 5, "500"
		o.rows, o.largeApply, o.soak, o.calm, o.migrated = 4800, 320, 100*time.Millisecond, time.Second, 100_000
	}
	if large {
		customers, o.flatEvents = customers+",1000000", 1_000_000
	}
	var errs []error
	numbers := func(name, text string) []int {
		list, err := readNumbers(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("-%s %q: %w", name, text, err))
		}
		return list
	}
	o.connections, o.sizes, o.rates = numbers("connections", connections), numbers("sizes", sizes), numbers("rates", rates)
	o.customers = numbers("customers", customers)
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			errs = append(errs, fmt.Errorf("-only %q: there is no such part; --help lists them", name))
		}
	}
	if slices.Contains(o.only, "half") && !slices.Contains(o.only, "receive") {
		errs = append(errs, errors.New("-only half: say receive too, which finds out what saturation is"))
	}
	for _, n := range []int{o.rounds, o.focusRounds, o.longRounds, o.events, o.batch, o.seconds, o.checkouts, o.flatEvents, o.rows, o.largeApply, int(o.duration)} {
		if n <= 0 {
			errs = append(errs, errors.New("numbers have to be above zero"))
			break
		}
	}
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("what is %q? only flags are known", flags.Arg(0)))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(stderr, err)
		return options{}, err
	}
	if o.out == "" && !o.short && (len(o.only) == 0 || o.onlyLarge()) && !o.plansOnly {
		o.out = "../docs"
	}
	return o, nil
}

// onlyLarge tells that nothing is measured but what has a report of its own.
func (o options) onlyLarge() bool { return len(o.only) == 1 && o.only[0] == partLarge }

func readNumbers(text string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n <= 0 {
			return nil, errors.New("give whole numbers above zero, comma separated")
		}
		list = append(list, n)
	}
	return list, nil
}

// roundsAt is how many rounds are measured of one case of receiving.
func (o options) roundsAt(connections, size int) int {
	if size == usualSize && connections >= 64 {
		return max(o.rounds, o.focusRounds)
	}
	return o.rounds
}
