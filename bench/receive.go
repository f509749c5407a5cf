package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Received is how fast one subject acknowledges deliveries: medians over the rounds, and of the memory the greatest.
type Received struct {
	Subject     string  `json:"subject"`
	Connections int     `json:"connections"`
	BodyBytes   int     `json:"body_bytes"`
	Rounds      int     `json:"rounds"`
	Rate        float64 `json:"events_per_second"`
	SlowestRate float64 `json:"events_per_second_slowest_round"`
	FastestRate float64 `json:"events_per_second_fastest_round"`
	Latency     Latency `json:"latency"`
	CPU         float64 `json:"cpu_seconds_per_1000_events"`
	Allocs      float64 `json:"allocs_per_event"`
	AllocBytes  float64 `json:"alloc_bytes_per_event"`
	WALBytes    float64 `json:"wal_bytes_per_event"`
	PeakRSS     float64 `json:"peak_rss_mib"`
}

// receiving is a subject that receives. Without tables it stores nothing.
type receiving struct {
	name   string
	tables *tables
}

var receivers = []receiving{{"baseline", &plain}, {"verify", nil}, {"truenorth", &product}}

// receive measures every subject in each case, in turn.
func (b *bench) receive(ctx context.Context) error {
	type at struct{ connections, size int }
	samples := map[string]map[at][]Received{}
	var cases []at
	most := 0
	for _, size := range b.sizes {
		for _, connections := range b.connections {
			cases = append(cases, at{connections, size})
			most = max(most, b.roundsAt(connections, size))
		}
	}
	for round := range most {
		for k, c := range cases {
			if round >= b.roundsAt(c.connections, c.size) {
				continue
			}
			b.sayf("receive: round %d, %d connections, %d bytes", round+1, c.connections, c.size)
			author := newAuthor(c.size)
			// Enough for any subject; one that uses them up has ended earlier, and is as well measured.
			fastest := min(30_000, 12_000*c.connections)
			requests, err := author.signed(author.newCustomers(0, 2000), int(float64(fastest)*(b.warm+b.duration).Seconds())+c.connections)
			if err != nil {
				return err
			}
			err = inTurn(round+k, receivers, func(r receiving) error {
				sample, err := b.receiveOnce(ctx, r.name, r.tables, c.connections, requests)
				if err != nil {
					return fmt.Errorf("%s at %d connections with %d bytes: %w", r.name, c.connections, c.size, err)
				}
				if samples[r.name] == nil {
					samples[r.name] = map[at][]Received{}
				}
				samples[r.name][c] = append(samples[r.name][c], sample)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	for _, c := range cases {
		for _, r := range receivers {
			b.results.Receive = append(b.results.Receive, summarizeReceived(r.name, c.connections, c.size, samples[r.name][c]))
		}
	}
	return nil
}

func summarizeReceived(subject string, connections, size int, samples []Received) Received {
	median := func(number func(Received) float64) float64 { return medianOf(samples, number) }
	rate := func(r Received) float64 { return r.Rate }
	return Received{
		Subject: subject, Connections: connections, BodyBytes: size, Rounds: len(samples),
		Rate: median(rate), FastestRate: greatestOf(samples, rate),
		SlowestRate: leastOf(samples, rate),
		Latency:     medianLatency(samples, func(r Received) Latency { return r.Latency }),
		CPU:         median(func(r Received) float64 { return r.CPU }), Allocs: median(func(r Received) float64 { return r.Allocs }),
		AllocBytes: median(func(r Received) float64 { return r.AllocBytes }), WALBytes: median(func(r Received) float64 { return r.WALBytes }),
		PeakRSS: greatestOf(samples, func(r Received) float64 { return r.PeakRSS }),
	}
}

// receiveOnce measures one subject in one case, in a process and on a database of its own.
func (b *bench) receiveOnce(ctx context.Context, subject string, t *tables, connections int, requests []request) (sample Received, err error) {
	return onReceiver(ctx, b, subject, t, connections, func(p *process, db *database, l *load) (Received, error) {
		return b.receiveFor(ctx, p, db, l, requests, b.duration)
	})
}

// receiveFor posts as fast as answers come, for so long after a warm-up.
func (b *bench) receiveFor(ctx context.Context, p *process, db *database, l *load, requests []request, duration time.Duration) (sample Received, err error) {
	warm, err := l.closed(ctx, requests, b.warm, hooks{})
	if err != nil {
		return sample, err
	}
	name := fmt.Sprintf("receive-%dc-%db", len(l.connections), len(requests[0].body))
	err = profiled(ctx, b.profiles, name, func() error {
		sample, err = measureReceiver(ctx, p, db, func() (outcome, error) {
			return l.closed(ctx, requests[warm.acknowledged:], duration, hooks{})
		})
		return err
	}, p)
	if err == nil && db != nil {
		err = db.mustHold(ctx, warm.acknowledged+int(sample.Latency.Count))
	}
	return sample, err
}

// onReceiver serves a subject, with a database if it has tables, and connects to it.
func onReceiver[T any](ctx context.Context, b *bench, subject string, t *tables, connections int,
	measure func(*process, *database, *load) (T, error),
) (result T, err error) {
	var db *database
	if t != nil {
		if db, err = b.postgres.fresh(ctx, *t); err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, db.drop(ctx)) }()
	}
	return receiveOn(ctx, b, subject, db, connections, measure)
}

// receiveOn serves a subject on a database that is there already, or on none, and connects to it.
func receiveOn[T any](ctx context.Context, b *bench, subject string, db *database, connections int,
	measure func(*process, *database, *load) (T, error),
) (result T, err error) {
	o := orders{Subject: subject, Profile: b.profiles != ""}
	if db != nil {
		o.Database = db.url
	}
	p, err := startSubject(ctx, o)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	l, err := dial(ctx, p.Addr, connections)
	if err != nil {
		return result, err
	}
	defer l.close()
	return measure(p, db, l)
}

// measureReceiver tells what a subject and the database used while it was posted to.
func measureReceiver(ctx context.Context, p *process, db *database, post func() (outcome, error)) (Received, error) {
	wal := func() (float64, error) {
		if db == nil {
			return 0, nil
		}
		n, err := db.wal(ctx)
		return float64(n), err
	}
	walBefore, err := wal()
	if err != nil {
		return Received{}, err
	}
	before, err := p.usage(ctx)
	if err != nil {
		return Received{}, err
	}
	o, err := post()
	if err != nil {
		return Received{}, err
	}
	after, err := p.usage(ctx)
	if err != nil {
		return Received{}, err
	}
	walAfter, err := wal()
	if err != nil {
		return Received{}, err
	}
	n := float64(max(o.acknowledged, 1))
	return Received{
		Rate: o.rate(), Latency: summarize(o.latencies), CPU: (after.CPU - before.CPU) / n * 1000,
		Allocs: float64(after.Allocs-before.Allocs) / n, AllocBytes: float64(after.AllocBytes-before.AllocBytes) / n,
		WALBytes: (walAfter - walBefore) / n, PeakRSS: after.peakMiB(),
	}, nil
}

// AtHalf is the latency of truenorth's receiving at half of what saturates it.
type AtHalf struct {
	Connections int     `json:"connections"`
	BodyBytes   int     `json:"body_bytes"`
	Rounds      int     `json:"rounds"`
	Rate        float64 `json:"events_per_second"`
	Latency     Latency `json:"latency"`
}

// half posts at half of the rate that receive measured, whatever the answers.
func (b *bench) half(ctx context.Context) error {
	saturation := b.results.received("truenorth", manyConnections, usualSize)
	if saturation == nil {
		b.sayf("half: left out, as receive had not %d connections with %d bytes", manyConnections, usualSize)
		return nil
	}
	rate := saturation.Rate / 2
	var samples []Latency
	for range b.rounds {
		warm := int(rate * b.warm.Seconds())
		author := newAuthor(usualSize)
		requests, err := author.signed(author.newCustomers(0, 2000), warm+int(rate*2*b.duration.Seconds()))
		if err != nil {
			return err
		}
		sample, err := onReceiver(ctx, b, "truenorth", &product, manyConnections, func(_ *process, db *database, l *load) (Latency, error) {
			if _, err := l.open(ctx, requests[:warm], rate, hooks{}); err != nil {
				return Latency{}, err
			}
			o, err := l.open(ctx, requests[warm:], rate, hooks{})
			if err != nil {
				return Latency{}, err
			}
			return summarize(o.latencies), db.mustHold(ctx, len(requests))
		})
		if err != nil {
			return err
		}
		samples = append(samples, sample)
	}
	b.results.Half = &AtHalf{
		Connections: manyConnections, BodyBytes: usualSize, Rounds: len(samples), Rate: rate,
		Latency: medianLatency(samples, func(l Latency) Latency { return l }),
	}
	return nil
}

// milliseconds is a duration as a number.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
