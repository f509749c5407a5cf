package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The kinds of fault.
const (
	faultKill    = "kill"    // SIGKILL; it is started again after the fault's time
	faultLose    = "lose"    // a host's power goes: its processes and its network, at once
	faultCut     = "cut"     // no packet passes between two hosts
	faultDeafen  = "deafen"  // no packet passes from the first host to the second
	faultSlow    = "slow"    // delay, jitter, loss and little bandwidth between two hosts
	faultFill    = "fill"    // the disk of a database is full
	faultStep    = "step"    // a host's clock is wrong, by the third word
	faultRestart = "restart" // all programs and both databases are killed at once, and started
	faultUpgrade = "upgrade" // from the release before to this one, schema first, then one program after the other
)

// slowLine is what slow does: a bad line across a continent.
var slowLine = conditions{Delay: 60 * time.Millisecond, Jitter: 40 * time.Millisecond, Loss: 0.01, Rate: 1 << 20}

// Names that stand for hosts. Who is the primary is decided when a fault begins.
const (
	thePrimary  = "primary"
	theStandby  = "standby"
	bothServers = "databases"
	everything  = "everything"
)

// fault is one thing that goes wrong. In a schedule it is a line: when, for how long, what, and where.
type fault struct {
	Number  int           `json:"number"` // its place in the schedule, from 1
	At      time.Duration `json:"at"`     // from the beginning of the load
	For     time.Duration `json:"for"`
	Kind    string        `json:"kind"`
	Targets []string      `json:"targets"`
}

func (f fault) String() string {
	return strings.TrimSpace(fmt.Sprintf("%-8s %-5s %s", f.At, f.For, f.words()))
}

// words are what it does and where.
func (f fault) words() string { return strings.TrimSpace(f.Kind + " " + strings.Join(f.Targets, " ")) }

// targetsOf says how many targets a kind has, and which they may be.
var targetsOf = map[string][][]string{
	faultKill:    {slices.Concat(programNames, []string{"postgres@primary", "postgres@standby", "patroni@primary", "patroni@standby"})},
	faultLose:    {{thePrimary, theStandby}},
	faultCut:     {hostWords, hostWords},
	faultDeafen:  {hostWords, hostWords},
	faultSlow:    {hostWords, hostWords},
	faultFill:    {{thePrimary, theStandby}},
	faultStep:    {slices.Concat(programNames, []string{thePrimary, theStandby}), {"+1h", "-1h"}},
	faultRestart: {{everything}},
	faultUpgrade: {},
}

// hostWords are the hosts as a schedule may name them.
var hostWords = slices.Concat(programNames, databaseNames, []string{thePrimary, theStandby, bothServers, namePolar, nameEtcd})

// check tells what is wrong with a fault.
func (f fault) check() error {
	allowed, known := targetsOf[f.Kind]
	if !known {
		kinds := make([]string, 0, len(targetsOf))
		for kind := range targetsOf {
			kinds = append(kinds, kind)
		}
		slices.Sort(kinds)
		return fmt.Errorf("fault %q is not known: use one of %s", f.Kind, strings.Join(kinds, ", "))
	}
	if len(f.Targets) != len(allowed) {
		return fmt.Errorf("%s takes %d targets and has %d: %q", f.Kind, len(allowed), len(f.Targets), f.Targets)
	}
	for i, target := range f.Targets {
		if !slices.Contains(allowed[i], target) {
			return fmt.Errorf("%s cannot be done to %q: use one of %s", f.Kind, target, strings.Join(allowed[i], ", "))
		}
	}
	return nil
}

// schedule is what goes wrong in a run.
type schedule []fault

// write prints a schedule so that readSchedule reads the same.
func (s schedule) write(w io.Writer) {
	fmt.Fprintln(w, "# when, for how long, what and where")
	for _, f := range s {
		fmt.Fprintln(w, f)
	}
}

// readSchedule reads what write printed, or a person wrote.
func readSchedule(r io.Reader) (schedule, error) {
	var s schedule
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if len(words) < 3 {
			return nil, fmt.Errorf("line %d of the schedule is %q: give when, for how long and what, such as: 12s 5s kill ingest1", number, lines.Text())
		}
		f := fault{Number: len(s) + 1, Kind: words[2], Targets: words[3:]}
		var err error
		if f.At, err = time.ParseDuration(words[0]); err == nil {
			f.For, err = time.ParseDuration(words[1])
		}
		if err == nil {
			err = f.check()
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of the schedule: %w", number, err)
		}
		s = append(s, f)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the schedule: %w", err)
	}
	slices.SortStableFunc(s, func(a, b fault) int { return int(a.At - b.At) })
	for i := range s {
		s[i].Number = i + 1
	}
	return s, nil
}

// ends is when the last fault is over.
func (s schedule) ends() time.Duration {
	var last time.Duration
	for _, f := range s {
		last = max(last, f.At+f.For)
	}
	return last
}

// has tells whether a kind of fault is in it.
func (s schedule) has(kind string, targets ...string) bool {
	return slices.ContainsFunc(s, func(f fault) bool {
		return f.Kind == kind && (len(targets) == 0 || slices.Contains(targets, f.Targets[0]))
	})
}

// abilities are what this machine can do.
type abilities struct {
	upgrade      bool // the release before is there
	serverClocks bool // libfaketime is there
	clocks       bool // the programs are of a build whose clock can be stepped
}

// act is what a generated schedule is made of: faults that belong together, with times from its own beginning.
type act struct {
	needs  func(abilities) bool
	faults func(random *rand.Rand) []fault
}

func always(abilities) bool { return true }

// seconds is a random span.
func seconds(random *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+random.IntN(to-from+1)) * time.Second
}

func oneOf[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

// single is an act of one fault.
func single(kind string, from, to int, targets ...[]string) act {
	return act{always, func(random *rand.Rand) []fault {
		f := fault{For: seconds(random, from, to), Kind: kind}
		for _, choices := range targets {
			f.Targets = append(f.Targets, oneOf(random, choices...))
		}
		return []fault{f}
	}}
}

func only(name string) []string { return []string{name} }

// essentials are what every run has, the shortest too.
var essentials = []act{
	single(faultKill, 3, 6, ingestNames),
	single(faultKill, 3, 6, workerNames),
	single(faultLose, 12, 15, only(thePrimary)),
	single(faultCut, 6, 9, ingestNames, only(bothServers)),
	single(faultRestart, 0, 0, only(everything)),
}

// acts are all that a run is made of.
var acts = slices.Concat(essentials, []act{
	single(faultKill, 0, 0, only("postgres@primary")),
	single(faultKill, 0, 0, only("postgres@standby")),
	single(faultKill, 20, 30, only("patroni@primary")), // its Postgres goes on without it, while another is promoted
	single(faultKill, 5, 20, only("patroni@standby")),
	single(faultLose, 15, 40, only(theStandby)), // nothing is acknowledged until it is back
	single(faultLose, 30, 60, only(thePrimary)), // and comes back far behind
	single(faultCut, 10, 25, workerNames, only(namePolar)),
	single(faultCut, 10, 20, workerNames, only(bothServers)),
	single(faultCut, 10, 25, only(thePrimary), only(theStandby)),
	single(faultCut, 20, 30, only(thePrimary), only(nameEtcd)), // it is healthy, and must give way all the same
	single(faultDeafen, 8, 15, only(thePrimary), ingestNames),  // what it answers is lost: every outcome is unknown
	single(faultDeafen, 8, 15, only(namePolar), workerNames),   // as of every checkout that is created
	single(faultSlow, 15, 30, only(bothServers), ingestNames),
	single(faultSlow, 15, 30, only(thePrimary), only(theStandby)),
	single(faultSlow, 15, 30, only(namePolar), workerNames),
	single(faultFill, 10, 20, only(thePrimary)),
	{always, func(random *rand.Rand) []fault { // a primary that loses one line after the other, and then its power
		apart := seconds(random, 8, 12)
		return []fault{
			{For: apart + 20*time.Second, Kind: faultCut, Targets: []string{thePrimary, theStandby}},
			{At: apart, For: seconds(random, 15, 25), Kind: faultLose, Targets: only(thePrimary)},
		}
	}},
	{always, func(random *rand.Rand) []fault { // a fail-over while the programs die
		return []fault{
			{For: seconds(random, 15, 20), Kind: faultLose, Targets: only(thePrimary)},
			{At: seconds(random, 1, 4), For: seconds(random, 2, 5), Kind: faultKill, Targets: only(oneOf(random, ingestNames...))},
			{At: seconds(random, 5, 9), For: seconds(random, 2, 5), Kind: faultKill, Targets: only(oneOf(random, workerNames...))},
			{At: seconds(random, 10, 12), For: seconds(random, 2, 5), Kind: faultKill, Targets: only(oneOf(random, workerNames...))},
		}
	}},
	{func(a abilities) bool { return a.serverClocks }, func(random *rand.Rand) []fault {
		return []fault{{For: seconds(random, 15, 30), Kind: faultStep, Targets: []string{thePrimary, oneOf(random, "+1h", "-1h")}}}
	}},
	{func(a abilities) bool { return a.clocks }, func(random *rand.Rand) []fault {
		return []fault{{For: seconds(random, 15, 30), Kind: faultStep, Targets: []string{oneOf(random, ingestNames...), oneOf(random, "+1h", "-1h")}}}
	}},
	{func(a abilities) bool { return a.clocks }, func(random *rand.Rand) []fault {
		return []fault{{For: seconds(random, 15, 30), Kind: faultStep, Targets: []string{oneOf(random, workerNames...), oneOf(random, "+1h", "-1h")}}}
	}},
})

// upgradeAct comes first where it comes at all: the run begins with the release before.
var upgradeAct = fault{Kind: faultUpgrade}

// A generated schedule leaves the system alone for a while before the first fault and between acts, or nobody could tell what
// an outage came from; a shorter while in a short run.
const (
	firstRest = 8 * time.Second
	shortRest = 10 * time.Second
	leastRest = 15
	mostRest  = 25
)

// generate makes the schedule of a seed. The acts are dealt like cards: each comes before any comes again.
func generate(seed uint64, length time.Duration, short bool, able abilities) schedule {
	random := rand.New(rand.NewPCG(seed, 6)) //nolint:gosec // no secret
	at := firstRest
	var s schedule
	add := func(faults []fault) {
		var took time.Duration
		for _, f := range faults {
			took = max(took, f.At+f.For)
			f.At += at
			s = append(s, f)
		}
		at += took
		if short {
			at += shortRest
		} else {
			at += seconds(random, leastRest, mostRest)
		}
	}
	if able.upgrade {
		add([]fault{upgradeAct})
	}
	deck := acts
	if short {
		deck = essentials
	}
	deck = slices.DeleteFunc(slices.Clone(deck), func(a act) bool { return !a.needs(able) })
	for dealt := 0; at < length || short && dealt < len(deck); dealt++ {
		if dealt%len(deck) == 0 {
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		if short && dealt == len(deck) {
			break
		}
		add(deck[dealt%len(deck)].faults(random))
	}
	slices.SortStableFunc(s, func(a, b fault) int { return int(a.At - b.At) })
	for i := range s {
		s[i].Number = i + 1
	}
	return s
}
