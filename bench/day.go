package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Day is how the programs bear 24 hours of a shop that go by in little time.
type Day struct {
	Events   int     `json:"events"`
	Seconds  float64 `json:"seconds"`
	Objects  int     `json:"objects_before"`
	Busiest  float64 `json:"busiest_hour_events"`
	Quietest float64 `json:"quietest_hour_events"`

	Applied    int            `json:"applied"`
	Failed     int            `json:"failed"`
	AppliedIn  float64        `json:"applied_after_s"` // after the last event was sent
	Kinds      map[string]int `json:"kinds"`           // events, by type
	Sweeps     int            `json:"full_sweeps_of_customers"`
	Differing  int            `json:"differing_in_the_end"` // objects that the mirror has otherwise than Polar
	FirstHour  Hour           `json:"first_hour"`
	LastHour   Hour           `json:"last_hour"`
	DeadMost   float64        `json:"dead_tuples_most"`
	DeadAfter  float64        `json:"dead_tuples_after"` // once autovacuum has had its turn
	DeadShare  float64        `json:"dead_share_after"`
	JobsMost   float64        `json:"river_job_mib_most"`
	PeakIngest float64        `json:"peak_ingest_rss_mib"`
	PeakWorker float64        `json:"peak_worker_rss_mib"`
	Held       []Held         `json:"held"`
}

// Hour is what was held in one hour: medians.
type Hour struct {
	IngestRSS        float64 `json:"ingest_rss_mib"`
	WorkerRSS        float64 `json:"worker_rss_mib"`
	IngestGoroutines float64 `json:"ingest_goroutines"`
	WorkerGoroutines float64 `json:"worker_goroutines"`
	Connections      float64 `json:"connections"`
	DeadTuples       float64 `json:"dead_tuples"`
	JobsMiB          float64 `json:"jobs_mib"`
}

// What a day is.
const (
	hours       = 24
	daySweeps   = 5
	busiestOver = 10 // times the quietest hour
	looksAnHour = 6
)

// busy is how busy a moment of the day is, beside the quietest: busiest at its beginning and its end, so that both can be compared.
func busy(ofDay float64) float64 {
	return math.Pow(busiestOver, (1+math.Cos(2*math.Pi*ofDay))/2)
}

// busyUntil is the share of the day's events that happened by a moment of it.
func busyUntil(ofDay float64) float64 {
	const steps = 2400
	var until, all float64
	for i := range steps {
		at := (float64(i) + 0.5) / steps
		all += busy(at)
		if at < ofDay {
			until += busy(at)
		}
	}
	return until / all
}

// shop is what happens at the fake Polar in a day. What it does is drawn, the same in every run.
type shop struct {
	fake   *polarfake.Fake
	random *rand.Rand

	customers, orders, subscriptions []string
	refunded                         int
	buyers                           int
	abandoned                        []string // sessions that are left to expire
}

// newShop is one that Polar has known for a while.
func newShop(fake *polarfake.Fake, objects int) *shop {
	return &shop{
		fake: fake, random: rand.New(rand.NewPCG(2026, 11)), //nolint:gosec // it has to be the same in every run
		customers: fake.SeedCustomers(objects/2, "old_"), orders: fake.SeedOrders(objects / 4), subscriptions: fake.SeedSubscriptions(objects / 4),
	}
}

// happen has one thing happen, of which several events come. Renewals are the most of what a shop with subscriptions sees.
func (s *shop) happen() error {
	switch n := s.random.IntN(100); {
	case n < 40:
		return s.fake.CycleSubscription(s.one(s.subscriptions))
	case n < 65:
		return s.buy()
	case n < 80:
		return s.look()
	case n < 90:
		_, err := s.fake.UpdateCustomer(s.one(s.customers), fmt.Sprintf(`{"name": "Grace %d"}`, s.random.IntN(1_000_000)))
		return err
	case n < 95:
		id := s.one(s.subscriptions)
		return errors.Join(s.fake.CancelSubscription(id), s.fake.UncancelSubscription(id))
	case s.refunded < len(s.orders):
		s.refunded++
		_, err := s.fake.RefundOrder(s.orders[s.refunded-1], polarfake.RefundOptions{Amount: 100})
		return err
	}
	return s.fake.CycleSubscription(s.one(s.subscriptions))
}

func (s *shop) one(ids []string) string { return ids[s.random.IntN(len(ids))] }

// open opens a session for a new user of the product's, who may not come to pay.
func (s *shop) open() (string, error) {
	product := polarfake.OneTimeProductID
	if s.random.IntN(2) == 0 {
		product = polarfake.MonthlyProductID
	}
	s.buyers++
	document, err := s.fake.CreateCheckout(fmt.Sprintf(`{"products": [%q], "external_customer_id": %q, "customer_email": %q}`,
		product, user(s.buyers), user(s.buyers)+"@example.com"))
	if err != nil {
		return "", err
	}
	var session struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(document, &session); err != nil {
		return "", fmt.Errorf("reading a session: %w", err)
	}
	return session.ID, nil
}

// buy is a purchase; one in five pays only at the second try.
func (s *shop) buy() error {
	id, err := s.open()
	if err != nil {
		return err
	}
	if s.random.IntN(5) == 0 {
		if err := s.fake.Pay(id, polarfake.PayOptions{Outcome: polarfake.PaymentFailsLater}); err != nil {
			return err
		}
	}
	return s.fake.Pay(id, polarfake.PayOptions{})
}

// look is somebody who does not buy, whose session expires when others have come.
func (s *shop) look() error {
	id, err := s.open()
	if err != nil {
		return err
	}
	s.abandoned = append(s.abandoned, id)
	const patient = 50
	if len(s.abandoned) <= patient {
		return nil
	}
	id, s.abandoned = s.abandoned[0], s.abandoned[1:]
	return s.fake.Expire(id)
}

// emitted is how many events there are so far, by type.
func emitted(fake *polarfake.Fake) int {
	n := 0
	for _, of := range fake.State().Events {
		n += of
	}
	return n
}

// day plays a day against one ingest and one worker.
func (b *bench) day(ctx context.Context, o endureOptions, r *Endured) (err error) {
	db, err := b.postgres.fresh(ctx, product)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	ingest, err := startSubject(ctx, orders{Subject: "truenorth", Database: db.url})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ingest.stop()) }()
	fake, err := startFake(ctx, polarfake.Options{
		WebhookURL: "http://" + ingest.Addr + route, WebhookSecret: secret, Seed: 2026, Parallel: true,
	})
	if err != nil {
		return err
	}
	defer fake.stop()
	if err := addUsers(ctx, db, 0, o.events/5); err != nil { // more than come
		return err
	}
	s := newShop(fake.Fake, o.objects)
	worker, err := startSubject(ctx, orders{Subject: "worker", Database: db.url, API: fake.api})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	watch, err := observe(ctx, ingest, worker, db.url, o.day/hours/looksAnHour)
	if err != nil {
		return err
	}
	r.Day, err = b.dayOf(ctx, o, s, db, watch)
	held, watchErr := watch.stop(ctx)
	if err := errors.Join(err, watchErr); err != nil {
		return err
	}
	r.Day.hold(held, r.Day.Seconds)
	r.Day.Differing, err = differing(ctx, fake.Fake, db)
	return err
}

// askSweep asks for a sweep of all there is, as the worker does after an outage.
const askSweep = `insert into polar.river_job (kind, args, priority, max_attempts) values ('reconcile', '{"types": null, "full": true}', 4, 1000)`

// waitSwept waits until all sweeps that were asked for are over, and tells how many there were.
func waitSwept(ctx context.Context, db *database, limit time.Duration) (sweeps int, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var underWay int
		if err := db.read(ctx, `select (select count(*) from polar.river_job where kind = 'reconcile' and finalized_at is null),
		                               (select count(*) from polar.reconcile_run where object_type = 'customer' and state = 'finished' and full_sweep)`,
			&underWay, &sweeps); err != nil {
			return 0, err
		}
		if underWay == 0 {
			return sweeps, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%d sweeps are over and %d jobs of sweeps are not: %w", sweeps, underWay, ctx.Err())
		}
	}
}

// dayOf has all happen, waits until it is applied, and then until autovacuum has been there.
func (b *bench) dayOf(ctx context.Context, o endureOptions, s *shop, db *database, watch *observer) (*Day, error) {
	result := &Day{Objects: o.objects}
	if err := b.play(ctx, o, s, db, watch.began); err != nil {
		return nil, err
	}
	if err := s.fake.WaitIdle(ctx); err != nil {
		return nil, fmt.Errorf("waiting until all is delivered: %w", err)
	}
	result.Seconds = time.Since(watch.began).Seconds()
	result.Events = emitted(s.fake)
	b.sayf("day: over, with %d events", result.Events)
	ended := time.Now()
	if err := db.waitApplied(ctx, result.Events, time.Duration(result.Events)*time.Millisecond+applyLimit); err != nil {
		return nil, err
	}
	result.AppliedIn = time.Since(ended).Seconds()
	var err error
	if result.Sweeps, err = waitSwept(ctx, db, applyLimit); err != nil {
		return nil, err
	}
	if err := db.read(ctx, db.applied, &result.Applied, &result.Failed); err != nil {
		return nil, err
	}
	if err := result.count(ctx, db); err != nil {
		return nil, err
	}
	perHour := func(hour float64) float64 {
		return float64(o.events) * (busyUntil((hour+1)/hours) - busyUntil(hour/hours))
	}
	result.Busiest, result.Quietest = perHour(0), perHour(hours/2)
	return result, b.awaitVacuum(ctx, db, result)
}

// play has things happen, as many by each moment as are due.
func (b *bench) play(ctx context.Context, o endureOptions, s *shop, db *database, began time.Time) error {
	const often = 100 * time.Millisecond
	ticker := time.NewTicker(often)
	defer ticker.Stop()
	var counted, since int // events, and what happened since they were counted
	var next time.Time     // when they are to be counted again: that takes a while where there are a million
	perThing, things, hour, sweeps := 4.0, 0, -1, 0
	for {
		ofDay := min(float64(time.Since(began))/float64(o.day), 1)
		if time.Now().After(next) || ofDay == 1 {
			counted, since, next = emitted(s.fake), 0, time.Now().Add(max(10*often, o.day/hours/10))
			if things > 0 {
				perThing = float64(counted) / float64(things)
			}
		}
		if now := int(ofDay * hours); now != hour {
			b.sayf("day: hour %d, %d events", now, counted)
			hour = now
		}
		// One in the middle of each fifth of the day, so that some meet the busy hours and one the quietest.
		if sweeps < daySweeps && ofDay*daySweeps >= float64(sweeps)+0.5 {
			if err := db.exec(ctx, askSweep); err != nil {
				return err
			}
			sweeps++
		}
		missing := float64(o.events)*busyUntil(ofDay) - float64(counted) - float64(since)*perThing
		for due := int(math.Ceil(missing / perThing)); due > 0; due-- {
			if err := s.happen(); err != nil {
				return fmt.Errorf("having something happen at the fake Polar: %w", err)
			}
			things++
			since++
		}
		if ofDay == 1 && counted >= o.events {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// count tells of which types the events are.
func (d *Day) count(ctx context.Context, db *database) error {
	rows, err := db.conn.Query(ctx, "select type, count(*) from polar.event group by type")
	if err != nil {
		return fmt.Errorf("counting events by type: %w", err)
	}
	defer rows.Close()
	d.Kinds = map[string]int{}
	for rows.Next() {
		var kind string
		var n int
		if err := rows.Scan(&kind, &n); err != nil {
			return fmt.Errorf("counting events by type: %w", err)
		}
		d.Kinds[kind] = n
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("counting events by type: %w", err)
	}
	return nil
}

// vacuumPatience is how long autovacuum gets: it looks at a database once a minute by default, and its work takes a while.
const vacuumPatience = 5 * time.Minute

// awaitVacuum waits until few tuples are dead, or as long as autovacuum may take.
func (b *bench) awaitVacuum(ctx context.Context, db *database, result *Day) error {
	b.sayf("day: waiting for autovacuum")
	deadline := time.Now().Add(vacuumPatience)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		const sql = `select coalesce(sum(n_dead_tup), 0)::float8, coalesce(sum(n_dead_tup)::float8 / nullif(sum(n_dead_tup + n_live_tup), 0), 0)
		               from pg_stat_user_tables where schemaname = 'polar'`
		if err := db.read(ctx, sql, &result.DeadAfter, &result.DeadShare); err != nil {
			return err
		}
		if result.DeadShare <= deadShareAfter || time.Now().After(deadline) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hold takes what was held in the day.
func (d *Day) hold(held []Held, seconds float64) {
	hour := func(from, to float64) Hour {
		in := between(held, from*seconds/hours, to*seconds/hours)
		median := func(number func(Held) float64) float64 { return medianOf(in, number) }
		return Hour{
			IngestRSS: median(func(h Held) float64 { return h.IngestRSS }), WorkerRSS: median(func(h Held) float64 { return h.WorkerRSS }),
			IngestGoroutines: median(func(h Held) float64 { return h.IngestGoroutines }), WorkerGoroutines: median(func(h Held) float64 { return h.WorkerGoroutines }),
			Connections: median(func(h Held) float64 { return h.Connections }), DeadTuples: median(func(h Held) float64 { return h.DeadTuples }),
			JobsMiB: median(func(h Held) float64 { return h.JobsMiB }),
		}
	}
	d.Held, d.FirstHour, d.LastHour = held, hour(0, 1), hour(hours-1, hours)
	d.DeadMost = greatestOf(held, func(h Held) float64 { return h.DeadTuples })
	d.JobsMost = greatestOf(held, func(h Held) float64 { return h.JobsMiB })
	d.PeakIngest = greatestOf(held, func(h Held) float64 { return h.IngestRSS })
	d.PeakWorker = greatestOf(held, func(h Held) float64 { return h.WorkerRSS })
}

// differing counts objects that the mirror lacks, has in excess, or has in another state than Polar.
func differing(ctx context.Context, fake *polarfake.Fake, db *database) (int, error) {
	n := 0
	for objectType, sql := range map[string]string{
		"customer":     `select id::text, '' from polar.customer where deleted_at is null`,
		"order":        `select id::text, status from polar."order" where deleted_at is null`,
		"subscription": `select id::text, status from polar.subscription where deleted_at is null`,
		"checkout":     `select id::text, status from polar.checkout`,
	} {
		want := fake.Objects(objectType)
		rows, err := db.conn.Query(ctx, sql)
		if err != nil {
			return 0, fmt.Errorf("reading each %s: %w", objectType, err)
		}
		for rows.Next() {
			var id, status string
			if err := rows.Scan(&id, &status); err != nil {
				return 0, fmt.Errorf("reading each %s: %w", objectType, err)
			}
			var document struct {
				Status string `json:"status"`
			}
			text, exists := want[id]
			if exists {
				if err := json.Unmarshal(text, &document); err != nil {
					return 0, fmt.Errorf("reading Polar's %s: %w", objectType, err)
				}
			}
			if !exists || document.Status != status {
				n++
			}
			delete(want, id)
		}
		if err := rows.Err(); err != nil {
			return 0, fmt.Errorf("reading each %s: %w", objectType, err)
		}
		n += len(want)
	}
	return n, nil
}

// What is wanted of the day, with the reasons.
const (
	// Each program holds 16 connections at most, and one that listens; the sweeps' own.
	connectionsMost = 2*16 + 2
	// Goroutines come and go with requests and jobs: tens, never thousands.
	goroutinesBreath = 50
	// Autovacuum's own threshold is a fifth, and large tables have a lower one.
	deadShareAfter = 0.2
	// River's table holds what is to be done and, for a while, what is done: less than a job an event, and its room is used again.
	jobsBytesAnEvent = 500
)

func (d *Day) goals() []Goal {
	if d == nil {
		return nil
	}
	var l goalList
	l.atMost("day: not applied in the end", "events", 0, float64(d.Events-d.Applied))
	l.atMost("day: otherwise in the mirror than at Polar in the end", "objects", 0, float64(d.Differing))
	l.atLeast("day: all customers were compared", "times", daySweeps, 0, float64(d.Sweeps))
	l.atMost("day: memory of ingest", "MiB", ingestMost, d.PeakIngest)
	l.atMost("day: memory of the worker", "MiB", workerMost, d.PeakWorker)
	l.atMost("day: growth of ingest from the first hour to the last", "MiB", ingestMost/breath, d.LastHour.IngestRSS-d.FirstHour.IngestRSS)
	l.atMost("day: growth of the worker from the first hour to the last", "MiB", workerMost/breath, d.LastHour.WorkerRSS-d.FirstHour.WorkerRSS)
	l.atMost("day: ingest, in the last hour more than in the first", "goroutines", goroutinesBreath, d.LastHour.IngestGoroutines-d.FirstHour.IngestGoroutines)
	l.atMost("day: the worker, in the last hour more than in the first", "goroutines", goroutinesBreath, d.LastHour.WorkerGoroutines-d.FirstHour.WorkerGoroutines)
	l.atMost("day: to Postgres, at most", "connections", connectionsMost, greatestOf(d.Held, func(h Held) float64 { return h.Connections }))
	l.atMost("day: dead tuples of all, once autovacuum has been there", "%", 100*deadShareAfter, 100*d.DeadShare)
	l.atMost("day: River's table and its indexes, of each event of the day", "B", jobsBytesAnEvent, d.JobsMost*(1<<20)/float64(d.Events))
	return l
}
