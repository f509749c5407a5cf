package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Saturation is how the programs bear as much as they can take, and three times as much.
type Saturation struct {
	Capacity  float64 `json:"events_per_second"` // acknowledged over 256 connections, with the worker at work
	BodyBytes int     `json:"body_bytes"`
	Over      int     `json:"connections"` // that three times as much is sent over
	Phases    []Phase `json:"phases"`
	Stored    int     `json:"stored"`
	Accepted  int     `json:"accepted"`
	Lost      int     `json:"lost"`         // accepted, and not stored
	Unapplied int     `json:"not_applied"`  // accepted, and not applied in the end
	DrainTook float64 `json:"drain_took_s"` // from the end of the load until all was applied

	NormalP99    float64 `json:"normal_p99_ms"`   // at half of the capacity, before: the median second
	NormalLimit  float64 `json:"normal_limit_ms"` // under which a second counts as normal
	RecoveryTook float64 `json:"recovery_took_s"` // from the end of three times as much until it is normal again

	Held []Held `json:"held"`
}

// Phase is a time of one load.
type Phase struct {
	Name     string   `json:"name"`
	Seconds  float64  `json:"seconds"`
	Target   float64  `json:"target_per_second"` // 0: as many as are answered
	Sent     int      `json:"sent"`
	Unsent   int      `json:"unsent"` // due, when none of the connections was free
	Accepted int      `json:"accepted"`
	Refused  int      `json:"refused"` // 503 with Retry-After
	Wrong    int      `json:"wrong"`   // any other answer, or none
	WrongBy  string   `json:"wrong_by,omitempty"`
	Latency  Latency  `json:"latency_of_accepted"`
	Refusals Latency  `json:"latency_of_refused"`
	Slowest  float64  `json:"p99_of_the_slowest_second_ms"`
	Windows  []Window `json:"-"` // hundreds, of which the rest is made

	IngestRSS Halves `json:"ingest_rss_mib"`
	WorkerRSS Halves `json:"worker_rss_mib"`

	from float64 // by the observer's clock
}

// Halves are the greatest of the first and of the second half of a time.
type Halves struct {
	First  float64 `json:"first"`
	Second float64 `json:"second"`
}

// hold takes what was held in the time of the phase.
func (p *Phase) hold(held []Held) {
	middle, end := p.from+p.Seconds/2, p.from+p.Seconds
	halves := func(number func(Held) float64) Halves {
		return Halves{greatestOf(between(held, p.from, middle), number), greatestOf(between(held, middle, end), number)}
	}
	p.IngestRSS = halves(func(h Held) float64 { return h.IngestRSS })
	p.WorkerRSS = halves(func(h Held) float64 { return h.WorkerRSS })
}

// Window is a second of it, by when it was answered.
type Window struct {
	Accepted, Refused int
	P99               float64 // of what was accepted, in milliseconds
}

// Names of the phases.
const (
	phaseBefore    = "half, before"
	phaseSaturated = "saturation"
	phaseOverload  = "three times as much"
	phaseAfter     = "half, after"
)

// What is done and wanted. Each number has its reason here, and none is nearer to what was measured than to what hurts.
const (
	overloadTimes = 3
	looksAPhase   = 30
	recoverWithin = 10 * time.Second
	// Polar waits this long; a later answer is none, and the delivery comes again.
	acceptedAtMost = 10 * time.Second
	// A turn comes within 2 s or not at all, and then Postgres has 5: with a second for all else, what ingest is built for.
	acceptedP99 = 8 * time.Second
	// A quarter of a second is nothing to a buyer and to Polar, whose limit is 10 s.
	normalAtLeast = 250 // ms
	// 64 MiB are what it may take at 256 connections (docs/performance.md), 32 MiB may wait, and as much be garbage.
	ingestMost = 128 // MiB
	// And for each connection the buffers of net/http, a goroutine, a body of up to 16 KiB.
	connectionMost = 64.0 / 1024 // MiB
	workerMost     = 128         // MiB, as docs/performance.md has it
	// A heap breathes: memory has grown if it has by over a fifth of what it may be.
	breath = 5
)

// stream are deliveries without an end, each with an id and a time of its own. Those of one object are ever newer, so all are applied.
type stream struct {
	webhook *standardwebhooks.Webhook
	events  []event
	times   []int // where in a body its timestamp stands
	next    atomic.Uint64
	acked   []atomic.Uint64 // a bit for each
	epoch   time.Time
}

// deliveriesAtMost is far over what one machine makes in hours.
const deliveriesAtMost = 1 << 28

func newStream(size int) (*stream, error) {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	const objects = 32_000
	s := &stream{
		webhook: webhook, events: newAuthor(size).purchases(objects), acked: make([]atomic.Uint64, deliveriesAtMost/64),
		epoch: time.Now().Add(-time.Minute).UTC(),
	}
	for _, e := range s.events {
		at := strings.LastIndex(string(e.body), `"timestamp":"`)
		if at < 0 {
			return nil, fmt.Errorf("no timestamp in %s", e.body)
		}
		s.times = append(s.times, at+len(`"timestamp":"`))
	}
	return s, nil
}

// An id is the number times an odd constant, so ids are as scattered in an index as Polar's are, and give the number back.
const (
	idFactor  = 0x9E3779B97F4A7C15
	idPrefix  = "load_"
	idInverse = 0xF1DE83E19937733D
)

func idOf(number uint64) string { return fmt.Sprintf(idPrefix+"%016x", number*idFactor) }

func numberOf(id string) (uint64, error) {
	scattered, err := strconv.ParseUint(strings.TrimPrefix(id, idPrefix), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("event %q is none of those sent: %w", id, err)
	}
	return scattered * idInverse, nil
}

// write makes the delivery of a number in the memory of another.
func (s *stream) write(number uint64, into *request) error {
	i := int(number % uint64(len(s.events))) //nolint:gosec // below the number of events
	into.body = append(into.body[:0], s.events[i].body...)
	copy(into.body[s.times[i]:], stamp(s.epoch.Add(time.Duration(number)*time.Microsecond))) //nolint:gosec // below deliveriesAtMost
	now := time.Now()
	id := idOf(number)
	signature, err := s.webhook.Sign(id, now, into.body)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	into.head = appendHead(into.head[:0], id, now, signature, len(into.body))
	return nil
}

func (s *stream) acknowledge(number uint64) { s.acked[number/64].Or(1 << (number % 64)) }

func (s *stream) acknowledged(number uint64) bool {
	return number < deliveriesAtMost && s.acked[number/64].Load()&(1<<(number%64)) != 0
}

// tally counts answers.
type tally struct {
	mu       sync.Mutex
	phase    Phase
	began    time.Time
	accepted *hdr.Histogram
	refused  *hdr.Histogram
	window   *hdr.Histogram
	current  Window
}

func newHistogram() *hdr.Histogram { return hdr.New(1, time.Minute.Microseconds(), 3) }

func newTally(name string, rate float64) *tally {
	return &tally{phase: Phase{Name: name, Target: rate}, began: time.Now(), accepted: newHistogram(), refused: newHistogram(), window: newHistogram()}
}

func (t *tally) skip() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase.Unsent++
}

func (t *tally) count(a answer, err error, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for int(time.Since(t.began)/time.Second) > len(t.phase.Windows) {
		t.closeWindow()
	}
	t.phase.Sent++
	micros := max(took.Microseconds(), 1)
	switch {
	case err == nil && a.accepted():
		t.phase.Accepted++
		t.current.Accepted++
		_ = t.accepted.RecordValue(micros)
		_ = t.window.RecordValue(micros)
	case err == nil && a.status == http.StatusServiceUnavailable && a.retryAfter != "":
		t.phase.Refused++
		t.current.Refused++
		_ = t.refused.RecordValue(micros)
	default:
		t.phase.Wrong++
		t.phase.WrongBy = cmp.Or(t.phase.WrongBy, fmt.Sprintf("%d %s (%v)", a.status, a.body, err))
	}
}

// closeWindow ends the present second. The caller holds t.mu.
func (t *tally) closeWindow() {
	t.current.P99 = float64(t.window.ValueAtPercentile(99)) / 1000
	t.phase.Windows = append(t.phase.Windows, t.current)
	t.current = Window{}
	t.window.Reset()
}

func (t *tally) end() Phase {
	t.phase.Seconds = time.Since(t.began).Seconds()
	t.phase.Latency, t.phase.Refusals = latencyOf(t.accepted), latencyOf(t.refused)
	t.phase.Slowest = greatestOf(t.phase.Windows, func(w Window) float64 { return w.P99 })
	return t.phase
}

// late is after how much a due delivery is left out: what makes the load has fallen behind then, and must not slow down by queueing.
const late = 100 * time.Millisecond

// play sends for a time, at a rate whatever the answers, or with rate 0 as fast as they come.
func (s *stream) play(ctx context.Context, name string, l *load, d time.Duration, rate float64) (Phase, error) {
	t := newTally(name, rate)
	end := t.began.Add(d)
	var due atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range l.connections {
		group.Go(func() error {
			var r request
			timer := time.NewTimer(time.Hour)
			defer timer.Stop()
			for ctx.Err() == nil {
				at := time.Now()
				if rate > 0 {
					at = t.began.Add(time.Duration(float64(due.Add(1)-1) / rate * float64(time.Second)))
				}
				if !at.Before(end) {
					return nil
				}
				switch wait := time.Until(at); {
				case wait < -late:
					t.skip()
					continue
				case wait > 0:
					timer.Reset(wait)
					select {
					case <-timer.C:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				if err := s.send(ctx, c, t, &r); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	err := group.Wait()
	return t.end(), err
}

// send sends the next delivery, and counts what became of it. Only what this program cannot do is an error.
func (s *stream) send(ctx context.Context, c *connection, t *tally, r *request) error {
	number := s.next.Add(1) - 1
	if number >= deliveriesAtMost {
		return fmt.Errorf("over %d deliveries: say a shorter time", deliveriesAtMost)
	}
	if err := s.write(number, r); err != nil {
		return err
	}
	began := time.Now()
	a, err := c.exchange(ctx, *r)
	t.count(a, err, time.Since(began))
	switch {
	case err != nil:
		return c.redial(ctx)
	case a.accepted():
		s.acknowledge(number)
	}
	return nil
}

// saturate takes one ingest and one worker through all loads.
func (b *bench) saturate(ctx context.Context, o endureOptions, r *Endured) error {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	s, err := newStream(o.size)
	if err != nil {
		return err
	}
	r.Saturation, err = onReceiver(ctx, b, "truenorth", &product, o.connections, func(ingest *process, db *database, l *load) (_ *Saturation, err error) {
		if err := addUsers(ctx, db, 0, len(s.events)/eventsPerBuyer+1); err != nil {
			return nil, err
		}
		worker, err := startSubject(ctx, orders{Subject: "worker", Database: db.url, API: fake.api})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, worker.stop()) }()
		watch, err := observe(ctx, ingest, worker, db.url, o.phase/looksAPhase)
		if err != nil {
			return nil, err
		}
		result, err := b.saturateWith(ctx, o, s, l, watch)
		held, watchErr := watch.stop(ctx)
		if err := errors.Join(err, watchErr); err != nil {
			return nil, err
		}
		result.Held, result.BodyBytes, result.Over = held, o.size, o.connections
		for i := range result.Phases {
			result.Phases[i].hold(held)
		}
		ended := time.Now()
		if err := db.read(ctx, db.events, &result.Stored); err != nil {
			return nil, err
		}
		b.sayf("saturation: %d stored, and being applied", result.Stored)
		if err := db.waitApplied(ctx, result.Stored, 2*time.Duration(result.Stored)*time.Millisecond+applyLimit); err != nil {
			return nil, err
		}
		result.DrainTook = time.Since(ended).Seconds()
		return result, s.verify(ctx, db, result)
	})
	return err
}

// saturateWith plays the phases.
func (b *bench) saturateWith(ctx context.Context, o endureOptions, s *stream, l *load, watch *observer) (*Saturation, error) {
	few := &load{connections: l.connections[:manyConnections]}
	measured, err := s.play(ctx, "", few, o.warm, 0)
	if err != nil {
		return nil, err
	}
	half := float64(measured.Accepted) / measured.Seconds / 2
	result := &Saturation{}
	for _, p := range []struct {
		name string
		over *load
		d    time.Duration
		rate func() float64
	}{
		{phaseBefore, few, o.calm, func() float64 { return half }},
		{phaseSaturated, few, o.phase, func() float64 { return 0 }},
		{phaseOverload, l, o.phase, func() float64 { return overloadTimes * result.Capacity }},
		{phaseAfter, few, o.calm, func() float64 { return half }},
	} {
		from := time.Since(watch.began).Seconds()
		phase, err := s.play(ctx, p.name, p.over, p.d, p.rate())
		if err != nil {
			return nil, err
		}
		phase.from = from
		if p.name == phaseSaturated {
			result.Capacity = float64(phase.Accepted) / phase.Seconds
		}
		b.sayf("saturation: %s: %d sent, %d accepted, %d refused, p99 %.0f ms", p.name, phase.Sent, phase.Accepted, phase.Refused, phase.Latency.P99)
		result.Phases = append(result.Phases, phase)
	}
	before, after := result.phase(phaseBefore), result.phase(phaseAfter)
	result.NormalP99 = medianOf(before.Windows, func(w Window) float64 { return w.P99 })
	result.NormalLimit = max(2*result.NormalP99, normalAtLeast)
	result.RecoveryTook = recovery(after.Windows, result.NormalLimit)
	return result, nil
}

func (s *Saturation) phase(name string) *Phase {
	return first(s.Phases, func(p Phase) bool { return p.Name == name })
}

// recovery is after how many seconds three in a row are normal: nothing refused, and a p99 under the limit. None: as long as it was
// looked at, and over what is wanted.
func recovery(windows []Window, limit float64) float64 {
	const inARow = 3
	normal := 0
	for i, w := range windows {
		if w.Accepted > 0 && w.Refused == 0 && w.P99 <= limit {
			normal++
		} else {
			normal = 0
		}
		if normal == inARow {
			return float64(i + 1 - inARow)
		}
	}
	return max(float64(len(windows)), recoverWithin.Seconds()+1)
}

// verify compares what is stored and applied with what was acknowledged, one by one.
func (s *stream) verify(ctx context.Context, db *database, result *Saturation) error {
	rows, err := db.conn.Query(ctx, "select webhook_id, state from polar.event")
	if err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	defer rows.Close()
	var id, state string
	stored, applied := 0, 0
	for rows.Next() {
		if err := rows.Scan(&id, &state); err != nil {
			return fmt.Errorf("reading the events: %w", err)
		}
		number, err := numberOf(id)
		if err != nil {
			return err
		}
		if s.acknowledged(number) {
			stored++
			if state == "applied" {
				applied++
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	for number := range s.next.Load() {
		if s.acknowledged(number) {
			result.Accepted++
		}
	}
	result.Lost, result.Unapplied = result.Accepted-stored, result.Accepted-applied
	return nil
}

// goals judges.
func (s *Saturation) goals() []Goal {
	if s == nil {
		return nil
	}
	var l goalList
	l.atMost("acknowledged and not stored", "events", 0, float64(s.Lost))
	l.atMost("acknowledged and not applied in the end", "events", 0, float64(s.Unapplied))
	over := s.phase(phaseOverload)
	wrong := 0
	for _, p := range s.Phases {
		wrong += p.Wrong
	}
	l.atMost("answers that are neither a 2xx nor a 503 with Retry-After", "answers", 0, float64(wrong))
	l.atLeast("at three times as much: sent / accepted, or it was no overload", "×", 1.2, 0, float64(over.Sent)/float64(over.Accepted))
	l.atLeast("at three times as much: accepted, of what is taken at saturation", "×", 0.2, 0, float64(over.Accepted)/over.Seconds/s.Capacity)
	for _, p := range []*Phase{s.phase(phaseSaturated), over} {
		l.atMost(p.Name+": p99 of what is accepted", "ms", milliseconds(acceptedP99), p.Latency.P99)
		l.atMost(p.Name+": the slowest of what is accepted", "ms", milliseconds(acceptedAtMost), p.Latency.Max)
	}
	l.atMost("until all is normal again after three times as much", "s", recoverWithin.Seconds(), s.RecoveryTook)
	for _, p := range []*Phase{s.phase(phaseSaturated), over} {
		for _, of := range []struct {
			program string
			most    float64
			rss     Halves
		}{{"ingest", ingestMost + connectionMost*float64(s.Over), p.IngestRSS}, {"the worker", workerMost, p.WorkerRSS}} {
			l.atMost(p.Name+": memory of "+of.program, "MiB", of.most, max(of.rss.First, of.rss.Second))
			l.atMost(p.Name+": growth of "+of.program+" from the first half to the second", "MiB", of.most/breath, of.rss.Second-of.rss.First)
		}
	}
	return l
}
