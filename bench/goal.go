package main

import "fmt"

// Results are all that a run found out. A part that was not run is empty.
type Results struct {
	Run      RunFacts      `json:"run"`
	Machine  MachineFacts  `json:"machine"`
	Postgres PostgresFacts `json:"postgres"`
	Goals    []Goal        `json:"goals"`
	Receive  []Received    `json:"receive"`
	Half     *AtHalf       `json:"receive_at_half_of_saturation"`
	Apply    []Applied     `json:"apply"`
	Both     []Both        `json:"both"`
	Flat     *Flat         `json:"flat"`
	Linked   []Linked      `json:"linked"`
	Create   *Created      `json:"create"`
	Sweep    []Swept       `json:"sweep"`

	LinkedWorkerRSS float64 `json:"linked_worker_peak_rss_mib"`

	Large    *Large    `json:"-"` // has a file of its own
	Migrated *Migrated `json:"-"` // is told as it goes
}

func (r *Results) received(subject string, connections, size int) *Received {
	return first(r.Receive, func(s Received) bool {
		return s.Subject == subject && s.Connections == connections && s.BodyBytes == size
	})
}

func (r *Results) applied(subject string) *Applied {
	return first(r.Apply, func(s Applied) bool { return s.Subject == subject })
}

func first[T any](list []T, is func(T) bool) *T {
	for i := range list {
		if is(list[i]) {
			return &list[i]
		}
	}
	return nil
}

// Goal is what a number shall be, and is.
type Goal struct {
	What    string  `json:"what"`
	Want    float64 `json:"want"`
	Aim     float64 `json:"aim,omitempty"` // better than wanted; 0: none
	AtMost  bool    `json:"at_most"`       // rather than at least
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"`
	Reached bool    `json:"reached"`
}

// goalList collects the goals whose parts were run.
type goalList []Goal

func (l *goalList) atLeast(what, unit string, want, aim, value float64) {
	*l = append(*l, Goal{What: what, Unit: unit, Want: want, Aim: aim, Value: value, Reached: value >= want})
}

func (l *goalList) atMost(what, unit string, want, value float64) {
	*l = append(*l, Goal{What: what, Unit: unit, Want: want, AtMost: true, Value: value, Reached: value <= want})
}

// goals compares what was measured with what was wanted.
func goals(r *Results) []Goal {
	var l goalList
	l.receiving(r)
	l.applying(r)
	l.waiting(r)
	l.memory(r)
	l.sweeping(r)
	return l
}

func (l *goalList) sweeping(r *Results) {
	var inStep []Swept
	for _, s := range r.Sweep {
		if s.Sweep == sweepInStep {
			inStep = append(inStep, s)
			l.atLeast("sweep of "+count(s.Objects)+" customers, the mirror agrees", "objects/s", 5000, 0, s.Rate)
		}
	}
	if n := len(inStep); n > 1 {
		l.atMost("peak memory of the sweep of "+count(inStep[n-1].Objects)+" / of "+count(inStep[0].Objects), "×", 1.2, inStep[n-1].PeakRSS/inStep[0].PeakRSS)
	}
}

func (l *goalList) receiving(r *Results) {
	const kilobytes = "2 kB"
	ours, plain, verify := r.received("truenorth", manyConnections, usualSize), r.received("baseline", manyConnections, usualSize), r.received("verify", manyConnections, usualSize)
	if ours != nil && plain != nil && verify != nil {
		at := fmt.Sprintf("%d connections, %s", manyConnections, kilobytes)
		l.atLeast("receive, "+at+": truenorth / baseline", "×", 4, 5, ours.Rate/plain.Rate)
		l.atLeast("receive, "+at+": truenorth / verify", "×", 0.5, 0.6, ours.Rate/verify.Rate)
	}
	if ours, plain := r.received("truenorth", 1, usualSize), r.received("baseline", 1, usualSize); ours != nil && plain != nil {
		l.atLeast("receive, 1 connection, "+kilobytes+": truenorth / baseline", "×", 1.5, 0, ours.Rate/plain.Rate)
	}
	if r.Half != nil {
		l.atMost("receive at half of saturation: p99", "ms", 25, r.Half.Latency.P99)
	}
	ours2 := first(r.Both, func(s Both) bool { return s.Subject == bothAtOnce })
	plain2 := first(r.Both, func(s Both) bool { return s.Subject == onlyReceiving })
	if ours2 != nil && plain2 != nil {
		l.atLeast("receive while applying: truenorth / baseline that only receives", "×", 1.5, 0, ours2.Rate/plain2.Rate)
	}
}

func (l *goalList) applying(r *Results) {
	if ours, plain := r.applied(appliedInBatches), r.applied(appliedPlainly); ours != nil && plain != nil {
		l.atLeast("apply, stored in batches", "events/s", 8000, 0, ours.Rate)
		l.atLeast("apply, stored in batches: truenorth / baseline", "×", 2, 0, ours.Rate/plain.Rate)
	}
}

func (l *goalList) waiting(r *Results) {
	if s := first(r.Linked, func(s Linked) bool { return s.Load == "1000/s" }); s != nil {
		l.atMost("from delivery to link at 1,000/s: p50", "ms", 20, s.Latency.P50)
		l.atMost("from delivery to link at 1,000/s: p99", "ms", 150, s.Latency.P99)
	}
	if c := r.Create; c != nil {
		l.atMost("from commit to URL beyond Polar's time: p50", "ms", 10, c.OverheadP50)
		l.atMost("from commit to URL beyond Polar's time: p99", "ms", 50, c.OverheadP99)
	}
}

func (l *goalList) memory(r *Results) {
	var ingest, worker float64
	for _, s := range r.Receive {
		if s.Subject == "truenorth" && s.Connections == manyConnections {
			ingest = max(ingest, s.PeakRSS)
		}
	}
	for _, s := range r.Both {
		if s.Subject == bothAtOnce {
			ingest, worker = max(ingest, s.IngestRSS), max(worker, s.WorkerRSS)
		}
	}
	for _, s := range r.Apply {
		if s.Subject != appliedPlainly {
			worker = max(worker, s.PeakRSS)
		}
	}
	if f := r.Flat; f != nil {
		of := " after " + count(f.Events) + " events: of all / of the first fifth"
		for _, program := range []string{"ingest", "worker"} {
			l.atMost("peak memory of "+program+of, "×", 1.2, f.Growth[program].All/f.Growth[program].First)
		}
		ingest, worker = max(ingest, f.Growth["ingest"].All), max(worker, f.Growth["worker"].All)
	}
	if worker = max(worker, r.LinkedWorkerRSS); worker > 0 {
		l.atMost("peak memory of the worker", "MiB", 128, worker)
	}
	if ingest > 0 {
		l.atMost(fmt.Sprintf("peak memory of ingest at %d connections", manyConnections), "MiB", 64, ingest)
	}
}
