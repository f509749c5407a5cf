package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Both is how fast deliveries are acknowledged while they are applied too, and when the last is applied.
type Both struct {
	Subject    string  `json:"subject"`
	Events     int     `json:"events"`
	Rounds     int     `json:"rounds"`
	Rate       float64 `json:"events_per_second"`
	Latency    Latency `json:"latency"`
	DoneAfter  float64 `json:"applied_after_seconds"`  // from the first delivery on; 0 where nothing is applied
	Backlog    float64 `json:"backlog_gone_seconds"`   // after the last answer
	IngestRSS  float64 `json:"ingest_peak_rss_mib"`    // of the process that receives
	WorkerRSS  float64 `json:"worker_peak_rss_mib"`    // 0 where there is none
	IngestCPU  float64 `json:"ingest_cpu_per_1000_s"`  // seconds per 1000 events
	WorkerCPU  float64 `json:"worker_cpu_per_1000_s"`  // seconds per 1000 events
	WALBytes   float64 `json:"wal_bytes_per_event"`    // until the last answer
	Throughput float64 `json:"done_events_per_second"` // events by DoneAfter
}

// Names of what is compared in both.
const (
	bothAtOnce    = "truenorth, receiving and applying"
	onlyReceiving = "baseline, only receiving"
)

// both posts events as fast as they are taken, while truenorth's worker applies them; the baseline only receives.
func (b *bench) both(ctx context.Context) error {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	author := newAuthor(usualSize)
	events := author.purchases(b.events)
	samples := map[string][]Both{}
	names := []string{onlyReceiving, bothAtOnce}
	for round := range b.longRounds {
		err := inTurn(round, names, func(name string) error {
			b.sayf("both: round %d, %s", round+1, name)
			requests, err := author.signed(events, len(events))
			if err != nil {
				return err
			}
			var sample Both
			if name == bothAtOnce {
				sample, err = b.bothOnce(ctx, "truenorth", product, fake.api, requests)
			} else {
				sample, err = b.bothOnce(ctx, "baseline", plain, "", requests)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			samples[name] = append(samples[name], sample)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, name := range names {
		of := samples[name]
		median := func(number func(Both) float64) float64 { return medianOf(of, number) }
		b.results.Both = append(b.results.Both, Both{
			Subject: name, Events: len(events), Rounds: len(of),
			Rate: median(func(s Both) float64 { return s.Rate }), Latency: medianLatency(of, func(s Both) Latency { return s.Latency }),
			DoneAfter: median(func(s Both) float64 { return s.DoneAfter }), Backlog: median(func(s Both) float64 { return s.Backlog }),
			IngestCPU: median(func(s Both) float64 { return s.IngestCPU }), WorkerCPU: median(func(s Both) float64 { return s.WorkerCPU }),
			WALBytes: median(func(s Both) float64 { return s.WALBytes }), Throughput: median(func(s Both) float64 { return s.Throughput }),
			IngestRSS: greatestOf(of, func(s Both) float64 { return s.IngestRSS }), WorkerRSS: greatestOf(of, func(s Both) float64 { return s.WorkerRSS }),
		})
	}
	return nil
}

// bothOnce posts all requests; with an API of Polar's there is a worker.
func (b *bench) bothOnce(ctx context.Context, subject string, t tables, api string, requests []request) (Both, error) {
	return onReceiver(ctx, b, subject, &t, manyConnections, func(p *process, db *database, l *load) (sample Both, err error) {
		processes := []*process{p}
		if api != "" {
			if err := addUsers(ctx, db, 0, len(requests)/eventsPerBuyer+1); err != nil {
				return sample, err
			}
			worker, err := startSubject(ctx, orders{Subject: "worker", Database: db.url, API: api, Profile: b.profiles != ""})
			if err != nil {
				return sample, err
			}
			defer func() { err = errors.Join(err, worker.stop()) }()
			processes = append(processes, worker)
		}
		n := float64(len(requests))
		began := time.Now()
		err = profiled(ctx, b.profiles, "both", func() error {
			received, err := measureReceiver(ctx, p, db, func() (outcome, error) { return l.closed(ctx, requests, 0, hooks{}) })
			if err != nil {
				return err
			}
			answered := time.Now()
			sample = Both{
				Rate: received.Rate, Latency: received.Latency, IngestRSS: received.PeakRSS, IngestCPU: received.CPU,
				WALBytes: received.WALBytes,
			}
			if api == "" {
				return nil
			}
			if err := db.waitApplied(ctx, len(requests), applyLimit); err != nil {
				return err
			}
			sample.DoneAfter, sample.Backlog = time.Since(began).Seconds(), time.Since(answered).Seconds()
			sample.Throughput = n / sample.DoneAfter
			used, err := processes[1].usage(ctx)
			sample.WorkerRSS, sample.WorkerCPU = used.peakMiB(), used.CPU/n*1000
			return err
		}, processes...)
		if err != nil || api != "" { // applied is more than held
			return sample, err
		}
		return sample, db.mustHold(ctx, len(requests))
	})
}
