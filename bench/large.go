package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Large is what truenorth does with a large database, beside an empty one on the same server.
type Large struct {
	Rows          int64       `json:"events"`
	Objects       int64       `json:"objects"`
	Users         int64       `json:"users"`
	FillSeconds   float64     `json:"fill_seconds"`
	VacuumSeconds float64     `json:"vacuum_seconds"`
	Bytes         int64       `json:"database_bytes"`
	Tables        []TableSize `json:"tables"`
	Rounds        int         `json:"rounds"`
	Soak          string      `json:"soak"` // of receiving before it is measured again
	ApplyEvents   int         `json:"apply_events"`
	On            []LargeOn   `json:"on"` // the empty one and the large one
	Pruned        LargePruned `json:"pruned"`
	Goals         []Goal      `json:"goals"`
	Plans         []Plan      `json:"plans"`
}

// TableSize is one of the greatest tables.
type TableSize struct {
	Table      string `json:"table"`
	Rows       int64  `json:"rows"`
	Bytes      int64  `json:"bytes"`
	IndexBytes int64  `json:"index_bytes"`
}

// LargeOn is what was measured on one of the databases.
type LargeOn struct {
	Database string   `json:"database"`
	Receive  Received `json:"receive"`       // right after a checkpoint
	Later    Received `json:"receive_later"` // after a while of this load
	Apply    Applied  `json:"apply"`
	Linked   Linked   `json:"linked"`
}

// LargePruned is how fast old events go, and what that does to receiving.
type LargePruned struct {
	Alone       float64  `json:"rows_per_second"`
	AtOnce      float64  `json:"rows_per_second_while_receiving"`
	Receive     Received `json:"receive_while_pruning"`
	Retention   string   `json:"retention"`
	RoundsEnded int      `json:"rounds_ended_early"` // nothing old was left
}

// Names of the databases.
const (
	onEmpty = "empty"
	onLarge = "large"
)

const (
	linkRate  = 100
	pruneTime = time.Second // of a round in which only that goes on
)

// largeRun is a run of this part.
type largeRun struct {
	*bench

	fake    *fakePolar
	db      *database // the large one
	authors int
}

// large fills a database, reads the plans of what the programs ask of it, and measures on it and on empty ones in turn.
func (b *bench) large(ctx context.Context) (err error) {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	r := &largeRun{bench: b, fake: fake}
	if r.db, err = b.postgres.fresh(ctx, product); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.db.drop(ctx)) }()
	l := &Large{Rows: int64(b.rows), Rounds: b.rounds, Soak: b.soak.String(), ApplyEvents: b.largeApply}
	began := time.Now()
	if err := b.fill(ctx, r.db, b.rows); err != nil {
		return err
	}
	l.FillSeconds = time.Since(began).Seconds()
	b.sayf("large: filled in %.0f s; vacuum and statistics", l.FillSeconds)
	began = time.Now()
	if err := errors.Join(vacuumed(ctx, r.db), b.postgres.exec(ctx, "checkpoint")); err != nil {
		return err
	}
	l.VacuumSeconds = time.Since(began).Seconds()
	if err := l.measureSize(ctx, r.db); err != nil {
		return err
	}
	b.sayf("large: vacuumed in %.0f s; %s MiB; plans", l.VacuumSeconds, count(l.Bytes>>20))
	if l.Plans, err = plans(ctx, r.db, b.sayf); err != nil {
		return err
	}
	b.results.Large = l
	if b.plansOnly {
		return nil
	}
	if err := r.measure(ctx, l); err != nil {
		return err
	}
	l.Goals = largeGoals(l)
	return nil
}

func (l *Large) measureSize(ctx context.Context, db *database) error {
	if err := errors.Join(
		db.read(ctx, "select pg_database_size(current_database())", &l.Bytes),
		db.read(ctx, "select count(*) from polar.local_user_row", &l.Users),
		db.read(ctx, `select sum(greatest(c.reltuples, 0))::bigint from pg_class c where c.relnamespace = 'polar'::regnamespace
			and c.relname in ('customer', 'member', 'checkout', 'order', 'subscription', 'benefit_grant', 'refund', 'product', 'benefit')`, &l.Objects),
	); err != nil {
		return err
	}
	var names []string
	var rows, bytes, indexes []int64
	err := db.read(ctx, `select array_agg(t.relname), array_agg(t.rows), array_agg(t.bytes), array_agg(t.index_bytes)
		from (select c.relname::text, greatest(c.reltuples, 0)::bigint as rows, pg_table_size(c.oid) as bytes, pg_indexes_size(c.oid) as index_bytes
		        from pg_class c where c.relnamespace = 'polar'::regnamespace and c.relkind = 'r'
		       order by pg_total_relation_size(c.oid) desc limit 8) t`, &names, &rows, &bytes, &indexes)
	for i := range names {
		l.Tables = append(l.Tables, TableSize{Table: names[i], Rows: rows[i], Bytes: bytes[i], IndexBytes: indexes[i]})
	}
	return err
}

func (r *largeRun) measure(ctx context.Context, l *Large) error {
	received, later, applied, linked := map[string][]Received{}, map[string][]Received{}, map[string][]Applied{}, map[string][]Linked{}
	names := []string{onEmpty, onLarge}
	for round := range r.rounds {
		if err := inTurn(round, names, func(name string) error {
			r.sayf("large: round %d, receive, %s", round+1, name)
			atFirst, after, err := r.receiveOnce(ctx, name)
			received[name], later[name] = append(received[name], atFirst), append(later[name], after)
			return err
		}); err != nil {
			return err
		}
		if err := inTurn(round, names, func(name string) error {
			r.sayf("large: round %d, apply, %s", round+1, name)
			sample, err := r.applyOnce(ctx, name)
			applied[name] = append(applied[name], sample)
			return err
		}); err != nil {
			return err
		}
		if err := inTurn(round, names, func(name string) error {
			r.sayf("large: round %d, link, %s", round+1, name)
			sample, err := r.linkedOnce(ctx, name)
			linked[name] = append(linked[name], sample)
			return err
		}); err != nil {
			return err
		}
	}
	for _, name := range names {
		l.On = append(l.On, LargeOn{
			Database: name, Receive: summarizeReceived(name, manyConnections, usualSize, received[name]),
			Later: summarizeReceived(name, manyConnections, usualSize, later[name]),
			Apply: Applied{
				Subject: name, Events: r.largeApply, Rounds: r.rounds, Rate: medianOf(applied[name], func(s Applied) float64 { return s.Rate }),
				CPU:     medianOf(applied[name], func(s Applied) float64 { return s.CPU }),
				PeakRSS: greatestOf(applied[name], func(s Applied) float64 { return s.PeakRSS }),
			},
			Linked: Linked{
				Load: fmt.Sprintf("%d/s", linkRate), Rounds: r.rounds, Rate: medianOf(linked[name], func(s Linked) float64 { return s.Rate }),
				Latency: medianLatency(linked[name], func(s Linked) Latency { return s.Latency }),
			},
		})
	}
	var err error
	l.Pruned, err = r.prune(ctx)
	return err
}

// author is one whose ids and users no other measurement of this run has.
func (r *largeRun) author(size int) *author {
	r.authors++
	return newAuthorOf(size, r.authors)
}

// on does something with an empty database, or with the large one, of which only what is stored from now on counts.
func (r *largeRun) on(ctx context.Context, name string, do func(db *database) error) (err error) {
	db := r.db
	if name == onEmpty {
		if db, err = r.postgres.fresh(ctx, product); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.drop(ctx)) }()
		return do(db)
	}
	var last int64
	if err := db.read(ctx, "select max(seq) from polar.event_log", &last); err != nil {
		return err
	}
	after := fmt.Sprintf("where seq > %d", last)
	db.tables = product
	db.events += " " + after
	db.uncovered = "select count(*) from polar.event_log l " + after + ` and not exists (
		select from polar.river_job j where j.kind = 'apply_events' and (j.args ->> 'batch')::bigint = l.batch)`
	db.applied += " " + after
	// A database as it is long after: what was received is applied, and its jobs are gone.
	defer func() {
		err = errors.Join(err,
			db.exec(ctx, `insert into polar.event_outcome (seq, state, applied_at) select l.seq, 'applied', now() from polar.event_log l
				`+after+` and not exists (select from polar.event_outcome o where o.seq = l.seq)`),
			db.exec(ctx, "truncate polar.river_job"),
			db.exec(ctx, "update polar.event_sweep set swept_seq = (select max(seq) from polar.event_log)"))
	}()
	if err := r.postgres.exec(ctx, "checkpoint"); err != nil {
		return err
	}
	return do(db)
}

// requests are more deliveries than anyone takes in so much time: of as many objects as purchases would speak of.
func (r *largeRun) requests(duration time.Duration) ([]request, error) {
	const fastest = 25_000
	n := int(fastest*duration.Seconds()) + manyConnections
	author := r.author(usualSize)
	return author.signed(author.newCustomers(0, n/eventsPerBuyer), n)
}

// receiveOnce measures right after a checkpoint, and again after a while of the same load.
func (r *largeRun) receiveOnce(ctx context.Context, name string) (atFirst, later Received, err error) {
	requests, err := r.requests(r.warm + 2*r.duration + r.soak)
	if err != nil {
		return atFirst, later, err
	}
	err = r.on(ctx, name, func(db *database) error {
		_, err := receiveOn(ctx, r.bench, "truenorth", db, manyConnections, func(p *process, db *database, l *load) (stored int, err error) {
			post := func(limit time.Duration) (outcome, error) {
				o, err := l.closed(ctx, requests[stored:], limit, hooks{})
				stored += o.acknowledged
				return o, err
			}
			measured := func() (Received, error) {
				return measureReceiver(ctx, p, db, func() (outcome, error) { return post(r.duration) })
			}
			if _, err = post(r.warm); err != nil {
				return stored, err
			}
			if atFirst, err = measured(); err != nil {
				return stored, err
			}
			if _, err = post(r.soak); err != nil {
				return stored, err
			}
			if later, err = measured(); err != nil {
				return stored, err
			}
			return stored, db.mustHold(ctx, stored)
		})
		return err
	})
	return atFirst, later, err
}

func (r *largeRun) applyOnce(ctx context.Context, name string) (sample Applied, err error) {
	author := r.author(usualSize)
	events := author.purchases(r.largeApply)
	err = r.on(ctx, name, func(db *database) (err error) {
		settled := "analyze"
		if name == onLarge {
			settled = "analyze polar.river_job" // of the rest there are statistics
		}
		if err := errors.Join(addUsers(ctx, db, author.users, len(events)/eventsPerBuyer+1), storeProduct(ctx, db.relaxed(), events, r.batch),
			db.exec(ctx, settled), db.exec(ctx, "checkpoint")); err != nil {
			return err
		}
		sample, err = r.bench.applyOnce(ctx, orders{Subject: "worker", API: r.fake.api}, db, len(events))
		return err
	})
	return sample, err
}

func (r *largeRun) linkedOnce(ctx context.Context, name string) (sample Linked, err error) {
	loads := linkLoads{author: r.author(0), rates: []int{linkRate}}
	err = r.on(ctx, name, func(db *database) error {
		list, err := receiveOn(ctx, r.bench, "truenorth", db, manyConnections, func(p *process, db *database, l *load) ([]Linked, error) {
			return r.linkedOn(ctx, r.fake.api, loads, p, db, l)
		})
		if err != nil {
			return err
		}
		sample = list[0]
		return db.exec(ctx, "drop trigger bench_linked on polar.customer_link; drop function bench_linked()")
	})
	return sample, err
}

// prune removes old events from the large database, alone and while it receives.
func (r *largeRun) prune(ctx context.Context) (LargePruned, error) {
	const retention = keptDays * 24 * time.Hour
	result := LargePruned{Retention: retention.String()}
	var alone, atOnce []float64
	var received []Received
	for round := range r.rounds {
		r.sayf("large: round %d, prune", round+1)
		requests, err := r.requests(r.warm + r.duration)
		if err != nil {
			return result, err
		}
		err = r.on(ctx, onLarge, func(db *database) error {
			_, err := receiveOn(ctx, r.bench, "truenorth", db, manyConnections, func(p *process, db *database, l *load) (_ bool, err error) {
				pruner, err := startSubject(ctx, orders{Subject: "pruner", Database: db.url, API: r.fake.api, Retention: retention})
				if err != nil {
					return false, err
				}
				defer func() { err = errors.Join(err, pruner.stop()) }()
				rate, ended, err := pruneWhile(ctx, pruner, db, func(ctx context.Context) error {
					<-ctx.Done()
					return nil
				}, pruneTime)
				if err != nil {
					return false, err
				}
				alone = append(alone, rate)
				if ended {
					result.RoundsEnded++
				}
				var sample Received
				rate, _, err = pruneWhile(ctx, pruner, db, func(context.Context) (err error) {
					sample, err = r.receiveFor(ctx, p, db, l, requests, r.duration)
					return err
				}, 0)
				atOnce, received = append(atOnce, rate), append(received, sample)
				return true, err
			})
			return err
		})
		if err != nil {
			return result, err
		}
	}
	same := func(n float64) float64 { return n }
	result.Alone, result.AtOnce = medianOf(alone, same), medianOf(atOnce, same)
	result.Receive = summarizeReceived(onLarge, manyConnections, usualSize, received)
	return result, nil
}

// pruneWhile lets old events go until something is done, or a time is over, or none is left, which it tells. The rate is of
// rows removed a second.
func pruneWhile(ctx context.Context, pruner *process, db *database, do func(context.Context) error, limit time.Duration) (rate float64, ended bool, err error) {
	pruned := func() (seq float64, err error) {
		err = db.read(ctx, "select seq::float8 from polar.event_prune where what = 'event'", &seq)
		return seq, err
	}
	before, err := pruned()
	if err != nil {
		return 0, false, err
	}
	pruneCtx, stop := context.WithCancel(ctx)
	defer stop()
	doCtx, done := context.WithCancel(ctx)
	if limit > 0 {
		doCtx, done = context.WithTimeout(ctx, limit)
	}
	defer done()
	var group errgroup.Group
	began, endedAt := time.Now(), time.Time{}
	group.Go(func() error {
		_, err := pruner.ask(pruneCtx, http.MethodPost, "/prune")
		if errors.Is(err, context.Canceled) {
			return nil // it was told to
		}
		endedAt = time.Now()
		if limit > 0 {
			done()
		}
		return err
	})
	err = do(doCtx)
	stoppedAt := time.Now()
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return 0, ended, err
	}
	if ended = !endedAt.IsZero() && endedAt.Before(stoppedAt); ended {
		stoppedAt = endedAt
	}
	after, err := pruned()
	return (after - before) / stoppedAt.Sub(began).Seconds(), ended, err
}

func (l *Large) on(name string) *LargeOn {
	return first(l.On, func(o LargeOn) bool { return o.Database == name })
}

// largeGoals compare the databases.
func largeGoals(l *Large) []Goal {
	empty, large := l.on(onEmpty), l.on(onLarge)
	if empty == nil || large == nil {
		return nil
	}
	var list goalList
	list.atLeast("receive: large / empty", "×", 0.8, 0, large.Later.Rate/empty.Later.Rate)
	list.atLeast("receive right after a checkpoint: large / empty", "×", 0.8, 0, large.Receive.Rate/empty.Receive.Rate)
	list.atLeast("apply: large / empty", "×", 0.8, 0, large.Apply.Rate/empty.Apply.Rate)
	return list
}
