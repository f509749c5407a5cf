package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// play does what the schedule says, and returns when the last fault is over.
func (r *run) play(ctx context.Context) error {
	began := time.Now()
	var faults sync.WaitGroup
	var mu sync.Mutex
	var failures []error
	for _, f := range r.plan {
		pause(ctx, time.Until(began.Add(f.At)))
		if ctx.Err() != nil {
			break
		}
		faults.Go(func() {
			if err := r.inflict(ctx, f); err != nil {
				r.sayf("fault %d FAILED: %v", f.Number, err)
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, fmt.Errorf("fault %d (%s): %w", f.Number, f.words(), err))
			}
		})
	}
	faults.Wait()
	pause(ctx, lastRest)
	return errors.Join(failures...)
}

// lastRest is how long the load goes on after the last fault.
const lastRest = 5 * time.Second

// inflict is one fault, from its beginning to its end.
func (r *run) inflict(ctx context.Context, f fault) error {
	targets := make([]string, len(f.Targets))
	for i, word := range f.Targets {
		program, on, isOn := strings.Cut(word, "@")
		if targets[i] = r.cluster.named(word); isOn {
			targets[i] = program + "@" + r.cluster.named(on)
		}
	}
	what := strings.TrimSpace(f.Kind + " " + strings.Join(targets, " "))
	r.history.note(entry{Kind: kindFault, Fault: f.Number, What: what})
	r.sayf("FAULT %d: %s, for %s", f.Number, what, f.For)
	heal, err := r.begin(ctx, f, targets)
	if heal != nil {
		pause(ctx, f.For)
		err = errors.Join(err, heal())
	}
	r.history.note(entry{Kind: kindHealed, Fault: f.Number, What: what})
	if f.For > 0 {
		r.sayf("end of fault %d: %s", f.Number, what)
	}
	return err
}

// begin makes a fault happen and returns what ends it.
func (r *run) begin(ctx context.Context, f fault, targets []string) (heal func() error, err error) {
	switch f.Kind {
	case faultKill:
		return r.killOne(targets[0])
	case faultLose:
		return r.lose(f.Number, targets[0]), nil
	case faultCut, faultSlow, faultDeafen:
		return r.impair(f.Number, f.Kind, targets), nil
	case faultFill:
		s := r.cluster.servers[targets[0]]
		return func() error { return os.Remove(s.ballast()) }, s.fill()
	case faultStep:
		return r.step(targets[0], targets[1])
	case faultRestart:
		return nil, r.restart()
	case faultUpgrade:
		return nil, r.upgrade(ctx)
	}
	return nil, f.check()
}

func (r *run) killOne(target string) (heal func() error, err error) {
	program, name, onServer := strings.Cut(target, "@")
	switch {
	case onServer && program == "postgres":
		return nil, r.cluster.servers[name].killPostmaster() // Patroni starts it again, or another takes its place
	case onServer:
		p := r.cluster.servers[name].patroni
		p.kill()
		return p.start, nil
	}
	p := r.programs[target]
	p.kill()
	return p.start, nil
}

// lose takes a server's power: nobody hears its processes die.
func (r *run) lose(number int, name string) (heal func() error) {
	r.router.impose(number, impairment{
		meets: func(from, to string) bool { return from == name || to == name }, conditions: conditions{Cut: true},
	})
	s := r.cluster.servers[name]
	s.killAll()
	return func() error {
		r.router.lift(number)
		return s.patroni.start()
	}
}

// impair makes the lines between two hosts bad.
func (r *run) impair(number int, kind string, targets []string) (heal func() error) {
	hosts := func(word string) []string {
		if word == bothServers {
			return databaseNames
		}
		return []string{word}
	}
	here, there := hosts(targets[0]), hosts(targets[1])
	between := func(from, to string) bool { return slices.Contains(here, from) && slices.Contains(there, to) }
	i := impairment{meets: func(from, to string) bool { return between(from, to) || kind != faultDeafen && between(to, from) }, conditions: conditions{Cut: true}}
	if kind == faultSlow {
		i.conditions = slowLine
	}
	r.router.impose(number, i)
	return func() error {
		r.router.lift(number)
		return nil
	}
}

// step makes a host's clock wrong.
func (r *run) step(name, offset string) (heal func() error, err error) {
	set := func(offset string) error { return r.setClock(name, offset) }
	if s, isServer := r.cluster.servers[name]; isServer {
		if s.clock == "" {
			return nil, errors.New("the clock of a server is stepped by libfaketime: apt-get install libfaketime")
		}
		set = func(offset string) error {
			if offset == "0s" {
				offset = "+0"
			}
			return s.setClock(offset)
		}
	}
	return func() error { return set("0s") }, set(offset)
}

// clockFile is where the programs of a host read by how much their clock is wrong.
func (r *run) clockFile(name string) string { return filepath.Join(r.dir, name+".clock") }

// setClock sets it, whole: it may be read at this very moment.
func (r *run) setClock(name, offset string) error {
	path := r.clockFile(name)
	if err := os.WriteFile(path+".new", []byte(strings.TrimPrefix(offset, "+")), 0o600); err != nil {
		return fmt.Errorf("setting the clock of %s: %w", name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("setting the clock of %s: %w", name, err)
	}
	return nil
}

// restart kills everything at once and starts it, as after a power cut of the whole site.
func (r *run) restart() error {
	var kills sync.WaitGroup
	for _, p := range r.programs {
		kills.Go(p.kill)
	}
	for _, s := range r.cluster.servers {
		kills.Go(s.killAll)
	}
	kills.Wait()
	var failures []error
	for _, s := range r.cluster.servers {
		failures = append(failures, s.patroni.start())
	}
	for _, p := range r.programs {
		failures = append(failures, p.start())
	}
	return errors.Join(failures...)
}

// upgrade goes from the release before to this one with traffic on, as docs/upgrade.md says: first the schema, then program
// after program.
func (r *run) upgrade(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := r.operate(ctx, r.current(), "migrate"); err != nil {
		return err
	}
	r.sayf("the schema is this release's; the programs follow")
	for _, name := range sortedKeys(r.programs) {
		p := r.programs[name]
		p.stop()
		p.argv[0] = r.current().program(strings.TrimRight(name, "0123456789"))
		if err := p.start(); err != nil {
			return err
		}
		if err := r.awaitReady(ctx, 30*time.Second); err != nil {
			return fmt.Errorf("after the upgrade of %s: %w", name, err)
		}
	}
	r.sayf("every program is this release's")
	return nil
}
