package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Flat is what the programs hold in memory while events go through them, after each of so many equal parts.
type Flat struct {
	Events  int             `json:"events"`
	Samples []MemorySample  `json:"samples"`
	Growth  map[string]Step `json:"growth"` // by program
}

// MemorySample is what is held once so many events are applied, and the most that was held until then.
type MemorySample struct {
	Events     int     `json:"events"`
	Ingest     float64 `json:"ingest_rss_mib"`
	IngestPeak float64 `json:"ingest_peak_rss_mib"`
	Worker     float64 `json:"worker_rss_mib"`
	WorkerPeak float64 `json:"worker_peak_rss_mib"`
}

// Step is from the most that was held during the first fifth of the events to the most during all of them.
type Step struct {
	First float64 `json:"peak_of_first_fifth_mib"`
	All   float64 `json:"peak_of_all_mib"`
}

const flatParts = 10

// flat posts many events to one ingest while one worker applies them, and watches the memory of both.
func (b *bench) flat(ctx context.Context) error {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	result, err := onReceiver(ctx, b, "truenorth", &product, manyConnections, func(ingest *process, db *database, l *load) (_ *Flat, err error) {
		worker, err := startSubject(ctx, orders{Subject: "worker", Database: db.url, API: fake.api, Profile: b.profiles != ""})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, worker.stop()) }()
		var result Flat
		for part := range flatParts {
			author := newAuthorOf(usualSize, part)
			events := author.purchases(b.flatEvents / flatParts)
			if err := addUsers(ctx, db, author.users, len(events)/eventsPerBuyer+1); err != nil {
				return nil, err
			}
			requests, err := author.signed(events, len(events))
			if err != nil {
				return nil, err
			}
			if _, err := l.closed(ctx, requests, 0, hooks{}); err != nil {
				return nil, err
			}
			result.Events += len(events)
			if err := db.waitApplied(ctx, result.Events, applyLimit); err != nil {
				return nil, err
			}
			received, err := ingest.usage(ctx)
			if err != nil {
				return nil, err
			}
			worked, err := worker.usage(ctx)
			if err != nil {
				return nil, err
			}
			b.sayf("flat: %d events applied", result.Events)
			result.Samples = append(result.Samples, MemorySample{
				Events: result.Events, Ingest: mib(received.RSS), IngestPeak: received.peakMiB(), Worker: mib(worked.RSS), WorkerPeak: worked.peakMiB(),
			})
		}
		first, last := result.Samples[flatParts/5-1], result.Samples[flatParts-1]
		result.Growth = map[string]Step{"ingest": {first.IngestPeak, last.IngestPeak}, "worker": {first.WorkerPeak, last.WorkerPeak}}
		return &result, nil
	})
	if err != nil {
		return fmt.Errorf("flat: %w", err)
	}
	b.results.Flat = result
	return nil
}
