package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Linked is how long it takes from a delivery until the customer's link can be read by anyone.
type Linked struct {
	Load    string  `json:"load"`
	Rate    float64 `json:"events_per_second"`
	Rounds  int     `json:"rounds"`
	Latency Latency `json:"latency"`
}

const (
	linkLimit  = time.Minute
	saturation = "saturation"
)

// announceLinks tells of each link, at its commit, to whoever listens: a poll that is as exact would cost more.
const announceLinks = `
create function bench_linked() returns trigger language plpgsql as
$$ begin perform pg_notify('bench_linked', new.customer_id::text); return null; end $$;
create trigger bench_linked after insert on polar.customer_link for each row execute function bench_linked()`

// links are the links that are waited for.
type links struct {
	mu        sync.Mutex
	waiting   map[string]awaited // by customer
	latencies []time.Duration
	empty     chan struct{} // closed while nothing is waited for
}

type awaited struct {
	since time.Time
	there chan struct{}
}

func newLinks() *links {
	l := &links{waiting: map[string]awaited{}, empty: make(chan struct{})}
	close(l.empty)
	return l
}

// expect begins to wait for a customer's link; the channel is closed once it is there.
func (l *links) expect(customer string, since time.Time) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.empty = make(chan struct{})
	}
	a := awaited{since: since, there: make(chan struct{})}
	l.waiting[customer] = a
	return a.there
}

func (l *links) arrived(customer string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	a, found := l.waiting[customer]
	if !found {
		return
	}
	l.latencies = append(l.latencies, now.Sub(a.since))
	close(a.there)
	delete(l.waiting, customer)
	if len(l.waiting) == 0 {
		close(l.empty)
	}
}

// taken waits until nothing is waited for and gives the latencies since it was last called.
func (l *links) taken(ctx context.Context) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, linkLimit)
	defer cancel()
	l.mu.Lock()
	empty := l.empty
	l.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		return nil, fmt.Errorf("%d links never came: %w", len(l.waiting), ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	latencies := l.latencies
	l.latencies = nil
	return latencies, nil
}

// listen hears of links until ctx ends.
func (l *links) listen(ctx context.Context, url string, ready chan<- struct{}) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to listen: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "listen bench_linked"); err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	close(ready)
	for {
		n, err := conn.WaitForNotification(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		l.arrived(n.Payload)
	}
}

// linked posts events of new customers at several rates, and then as fast as links come.
func (b *bench) linked(ctx context.Context) error {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	samples := map[string][]Linked{}
	var loads []string
	for round := range b.longRounds {
		b.sayf("linked: round %d", round+1)
		of, err := b.linkedOnce(ctx, fake.api)
		if err != nil {
			return err
		}
		loads = loads[:0]
		for _, s := range of {
			loads = append(loads, s.Load)
			samples[s.Load] = append(samples[s.Load], s)
		}
	}
	for _, name := range loads {
		of := samples[name]
		b.results.Linked = append(b.results.Linked, Linked{
			Load: name, Rounds: len(of), Rate: medianOf(of, func(s Linked) float64 { return s.Rate }),
			Latency: medianLatency(of, func(s Linked) Latency { return s.Latency }),
		})
	}
	return nil
}

// linkedOnce takes one database through all loads.
func (b *bench) linkedOnce(ctx context.Context, api string) ([]Linked, error) {
	loads := linkLoads{author: newAuthor(0), rates: b.rates, saturation: true}
	return onReceiver(ctx, b, "truenorth", &product, manyConnections, func(p *process, db *database, l *load) ([]Linked, error) {
		return b.linkedOn(ctx, api, loads, p, db, l)
	})
}

// linkLoads are what links are measured under.
type linkLoads struct {
	author     *author
	rates      []int
	saturation bool // in the end
}

// linkedOn takes a database with its receiver through some loads.
func (b *bench) linkedOn(ctx context.Context, api string, loads linkLoads, p *process, db *database, l *load) (list []Linked, err error) {
	if err := db.exec(ctx, announceLinks); err != nil {
		return nil, err
	}
	worker, err := startSubject(ctx, orders{Subject: "worker", Database: db.url, API: api, Profile: b.profiles != ""})
	if err != nil {
		return nil, err
	}
	defer func() {
		used, usageErr := worker.usage(ctx)
		b.results.LinkedWorkerRSS = max(b.results.LinkedWorkerRSS, used.peakMiB())
		err = errors.Join(err, usageErr, worker.stop())
	}()
	watch, ready := newLinks(), make(chan struct{})
	group, groupCtx := errgroup.WithContext(ctx)
	listenCtx, stopListening := context.WithCancel(groupCtx)
	group.Go(func() error { return watch.listen(listenCtx, db.url, ready) })
	group.Go(func() error {
		defer stopListening()
		select {
		case <-ready:
		case <-groupCtx.Done():
			return groupCtx.Err()
		}
		var err error
		list, err = b.linkedLoads(groupCtx, db, l, loads, watch, p, worker)
		return err
	})
	err = group.Wait()
	return list, err
}

func (b *bench) linkedLoads(ctx context.Context, db *database, l *load, loads linkLoads, watch *links, processes ...*process) ([]Linked, error) {
	author, users := loads.author, 0
	// prepare writes deliveries of new customers, whose users are there before them.
	prepare := func(n int) ([]event, []request, error) {
		events := author.newCustomers(users, n)
		requests, err := author.signed(events, n)
		err = errors.Join(err, addUsers(ctx, db, author.users+users, n))
		users += n
		return events, requests, err
	}
	_, requests, err := prepare(20) // the first pays for connections and plans
	if err != nil {
		return nil, err
	}
	if _, err := l.closed(ctx, requests, 0, hooks{}); err != nil {
		return nil, err
	}
	if err := db.waitApplied(ctx, users, linkLimit); err != nil {
		return nil, err
	}
	var list []Linked
	add := func(name string, n int, post func([]request, hooks) (outcome, error)) error {
		events, requests, err := prepare(n)
		if err != nil {
			return err
		}
		there := make([]<-chan struct{}, n)
		var o outcome
		err = profiled(ctx, b.profiles, "linked-"+name, func() error {
			o, err = post(requests, hooks{
				before: func(i int, intended time.Time) { there[i] = watch.expect(events[i].objectID, intended) },
				after: func(ctx context.Context, i int) error {
					if name != saturation {
						return nil
					}
					select {
					case <-there[i]:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				},
			})
			return err
		}, processes...)
		if err != nil {
			return err
		}
		latencies, err := watch.taken(ctx)
		if err != nil {
			return err
		}
		if len(latencies) != o.acknowledged {
			return fmt.Errorf("%d customers were sent and %d links came", o.acknowledged, len(latencies))
		}
		list = append(list, Linked{Load: name, Rate: o.rate(), Latency: summarize(latencies)})
		return nil
	}
	for _, rate := range loads.rates {
		err := add(fmt.Sprintf("%d/s", rate), rate*b.seconds, func(requests []request, h hooks) (outcome, error) {
			return l.open(ctx, requests, float64(rate), h)
		})
		if err != nil {
			return nil, fmt.Errorf("at %d events a second: %w", rate, err)
		}
	}
	if !loads.saturation {
		return list, nil
	}
	// 256 buyers at once, each of whom comes back as soon as the last link is there.
	limit := time.Duration(b.seconds) * time.Second / 2
	err = add(saturation, int(10_000*limit.Seconds()), func(requests []request, h hooks) (outcome, error) {
		return l.closed(ctx, requests, limit, h)
	})
	if err != nil {
		return nil, fmt.Errorf("at saturation: %w", err)
	}
	return list, nil
}
