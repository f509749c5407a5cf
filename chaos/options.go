package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// options say what to run.
type options struct {
	seed     uint64
	length   time.Duration
	short    bool
	schedule string
	write    bool
	upgrade  bool
	dir      string
	judge    string // the folder of a run to judge again
	root     string // of the repository
}

const help = `chaos runs truenorth on ten hosts (network namespaces of this machine), breaks them by a schedule
that a seed decides, and judges from outside what truenorth promises. See docs/chaos.md.

  make chaos                                 ten minutes, seed 1
  make chaos CHAOS="--seed 7 --for 30m"      half an hour of another seed
  make chaos CHAOS=--short                   two minutes with what matters most, as CI runs it
  make chaos CHAOS="--schedule FILE"         a schedule of your own, or that of a run before
  make chaos CHAOS="--for 30m --write"       and publish it as docs/chaos.md

A schedule has a line for each fault: when, for how long, what and where. Faults:

  kill WHAT          kill -9 of ingest1, ingest2, worker1, worker2, worker3, postgres@primary,
                     postgres@standby, patroni@primary or patroni@standby; started again afterwards
  lose SERVER        the power of primary or standby goes: its processes and its network, at once
  cut A B            no packet passes between two hosts
  deafen A B         no packet passes from A to B
  slow A B           60-100 ms, 1 % loss and 1 MiB/s between two hosts
  fill SERVER        the disk of primary or standby is full
  step HOST +1h      a host's clock is an hour wrong, or -1h
  restart everything all programs and both servers are killed at once, and started
  upgrade            from the release before to this one, with traffic on

Hosts: ingest1, ingest2, worker1, worker2, worker3, db1, db2, primary, standby, databases, polar, etcd.

It needs root, namespaces and TUN devices, and Debian's postgresql, patroni, etcd-server and iproute2; for clock steps
of Postgres libfaketime. Where those are missing it says so, does nothing and exits with 0. Exit codes: 0 every promise
was kept (or left out), 1 one was not, or the run failed, 2 wrong usage.

Flags:
`

func readOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, help)
		flags.PrintDefaults()
	}
	flags.Uint64Var(&o.seed, "seed", 1, "decides the schedule and the load")
	flags.DurationVar(&o.length, "for", 10*time.Minute, "how long faults go on; a few minutes are needed besides")
	flags.BoolVar(&o.short, "short", false, "two minutes: kills, a fail-over, a cut and a restart of everything")
	flags.StringVar(&o.schedule, "schedule", "", "file of a schedule to play instead of the seed's")
	flags.BoolVar(&o.write, "write", false, "write docs/chaos.md")
	flags.BoolVar(&o.upgrade, "upgrade", true, "begin with the release before and upgrade it under load (not with -short)")
	flags.StringVar(&o.dir, "dir", "", "folder for logs, schedule and evidence (default a temporary one)")
	flags.StringVar(&o.judge, "judge", "", "judge and report the run of this folder again, and run nothing")
	flags.StringVar(&o.root, "root", "..", "folder of the repository")
	err := flags.Parse(args)
	switch {
	case err != nil:
		return options{}, fmt.Errorf("reading the flags: %w", err)
	case flags.NArg() > 0:
		err = fmt.Errorf("what is %q? only flags are known", flags.Arg(0))
	case o.length <= 0:
		err = errors.New("-for has to be above zero")
	case o.short && o.write:
		err = errors.New("-short is no run to publish: leave out -write, or -short")
	}
	if err == nil {
		if o.root, err = filepath.Abs(o.root); err != nil {
			err = fmt.Errorf("finding the repository: %w", err)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return options{}, err
	}
	return o, nil
}

// inside are the arguments of the same run within its namespaces.
func (o options) inside() []string {
	return []string{
		fmt.Sprintf("-seed=%d", o.seed), "-schedule=" + o.scheduleFile(), "-dir=" + o.dir, "-root=" + o.root, "-for=" + o.length.String(), fmt.Sprintf("-write=%t", o.write),
	}
}

// scheduleFile is where the schedule of a run stands in its folder.
func (o options) scheduleFile() string { return filepath.Join(o.dir, "schedule") }

// chooseSchedule reads or makes the schedule, and builds the release before where it begins with that.
func (o options) chooseSchedule(ctx context.Context) (schedule, error) {
	able := abilities{serverClocks: findFaketime() != "", clocks: clocksCanBeStepped(o.root)}
	if !able.serverClocks {
		fmt.Println("clock steps of Postgres are left out: apt-get install libfaketime")
	}
	r := &run{options: o}
	var asked schedule
	if o.schedule != "" {
		file, err := os.Open(o.schedule)
		if err != nil {
			return nil, fmt.Errorf("opening the schedule: %w", err)
		}
		defer file.Close()
		if asked, err = readSchedule(file); err != nil {
			return nil, err
		}
	}
	if asked.has(faultUpgrade) || asked == nil && o.upgrade && !o.short {
		err := buildReleaseBefore(ctx, o.root, string(r.before()))
		if err != nil && (asked != nil || !errors.Is(err, errNoHistory)) {
			return nil, err
		}
		if able.upgrade = err == nil; !able.upgrade {
			fmt.Printf("the upgrade is left out: %v\n", err)
		}
	}
	if asked != nil {
		return asked, nil
	}
	return generate(o.seed, o.length, o.short, able), nil
}
