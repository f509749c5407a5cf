package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// applyLimit is how long applying may take before it counts as stuck.
const applyLimit = 10 * time.Minute

// Applied is how fast one subject brings stored events into its tables.
type Applied struct {
	Subject string  `json:"subject"`
	Events  int     `json:"events"`
	Rounds  int     `json:"rounds"`
	Rate    float64 `json:"events_per_second"`
	CPU     float64 `json:"cpu_seconds_per_1000_events"`
	PeakRSS float64 `json:"peak_rss_mib"`
}

// Names of what is compared in applying.
const (
	appliedInBatches = "truenorth, events stored in batches"
	appliedOneByOne  = "truenorth, events stored one by one"
	appliedPlainly   = "baseline, a transaction for each event"
)

// fakePolar is a Polar for the workers, in this process.
type fakePolar struct {
	*polarfake.Fake

	api    string // base URL of the API
	server *http.Server
}

func startFake(ctx context.Context, o polarfake.Options) (*fakePolar, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the fake Polar: %w", err)
	}
	o.PublicURL = "http://" + listener.Addr().String()
	f := &fakePolar{Fake: polarfake.New(o), api: o.PublicURL + "/v1"}
	f.server = &http.Server{Handler: f.Fake, ReadHeaderTimeout: time.Minute}
	go func() { _ = f.server.Serve(listener) }() // until stop
	return f, nil
}

func (f *fakePolar) stop() {
	_ = f.server.Close()
	f.Close()
}

// apply stores events, then starts a worker, and waits until all are applied.
func (b *bench) apply(ctx context.Context) error {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	events := newAuthor(usualSize).purchases(b.events)
	type applier struct {
		name, subject string
		tables        tables
		fill          func(context.Context, *database) error
	}
	appliers := []applier{
		{appliedPlainly, "baseline-worker", plain, func(ctx context.Context, db *database) error {
			return storeBaseline(ctx, db.relaxed(), events)
		}},
		{appliedInBatches, "worker", product, func(ctx context.Context, db *database) error {
			return storeProduct(ctx, db.relaxed(), events, b.batch)
		}},
		{appliedOneByOne, "worker", product, func(ctx context.Context, db *database) error {
			return storeProduct(ctx, db.relaxed(), events, 1)
		}},
	}
	samples := map[string][]Applied{}
	for round := range b.longRounds {
		err := inTurn(round, appliers, func(a applier) (err error) {
			b.sayf("apply: round %d, %s", round+1, a.name)
			db, err := b.postgres.fresh(ctx, a.tables)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, db.drop(ctx)) }()
			if a.subject == "worker" {
				err = addUsers(ctx, db, 0, len(events)/eventsPerBuyer+1)
			}
			if err := errors.Join(err, a.fill(ctx, db), db.settle(ctx)); err != nil {
				return err
			}
			sample, err := b.applyOnce(ctx, orders{Subject: a.subject, API: fake.api}, db, len(events))
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			samples[a.name] = append(samples[a.name], sample)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, a := range appliers {
		of := samples[a.name]
		b.results.Apply = append(b.results.Apply, Applied{
			Subject: a.name, Events: len(events), Rounds: len(of),
			Rate:    medianOf(of, func(s Applied) float64 { return s.Rate }),
			CPU:     medianOf(of, func(s Applied) float64 { return s.CPU }),
			PeakRSS: greatestOf(of, func(s Applied) float64 { return s.PeakRSS }),
		})
	}
	return nil
}

// applyOnce measures from the start of the worker's process until every event is applied.
func (b *bench) applyOnce(ctx context.Context, o orders, db *database, events int) (sample Applied, err error) {
	o.Database, o.Profile = db.url, b.profiles != ""
	began := time.Now()
	p, err := startSubject(ctx, o)
	if err != nil {
		return sample, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	err = profiled(ctx, b.profiles, "apply", func() error { return db.waitApplied(ctx, events, applyLimit) }, p)
	if err != nil {
		return sample, err
	}
	took := time.Since(began)
	used, err := p.usage(ctx)
	if err != nil {
		return sample, err
	}
	n := float64(events)
	return Applied{Rate: n / took.Seconds(), CPU: used.CPU / n * 1000, PeakRSS: used.peakMiB()}, nil
}

// addUsers makes n local users from first on.
func addUsers(ctx context.Context, db *database, first, n int) error {
	return db.exec(ctx, "insert into polar.local_user (id, email) select 'usr_' || i, 'usr_' || i || '@example.com' from generate_series($1::int, $2::int) i",
		first, first+n-1)
}
