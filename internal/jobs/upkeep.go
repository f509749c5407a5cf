package jobs

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// keepHouse shows that this worker is alive and, in one worker at a time, proves that nothing is forgotten. It runs
// beside River, not in it: it must not depend on what it checks, nor wait for a new leader to be elected.
func (r *Runner) keepHouse(ctx context.Context) {
	beat, upkeep := time.NewTicker(r.timing.beatEvery), time.NewTicker(r.timing.upkeepEvery)
	defer beat.Stop()
	defer upkeep.Stop()
	beating := make(chan struct{})
	go func() { // a slow upkeep must not make this worker look dead
		defer close(beating)
		for {
			select {
			case <-ctx.Done():
				return
			case <-beat.C:
				r.attempt(ctx, "showing a sign of life", r.beat)
			}
		}
	}()
	var healed time.Time
	for {
		if time.Since(healed) > healEvery {
			r.attempt(ctx, "listing unlinked customers", func(ctx context.Context) error {
				there, err := r.store.HealWaiting(ctx)
				if there || err != nil {
					healed = time.Now()
				}
				return err
			})
		}
		r.attempt(ctx, "looking for lost jobs", r.returnLost)
		r.attempt(ctx, "upkeep", r.Upkeep)
		select {
		case <-ctx.Done():
			<-beating
			return
		case <-upkeep.C:
		}
	}
}

// beat shows that this worker is alive, and looks at the database's clock. Whether that has gone back is seen first: signs of life that are yet to come tell that
// it has gone back, and then everything that was to be done by it would wait until it is there again. Once another worker has
// mended that, they tell no more; what this one dated since, by the clock that it had, is mended by its own count.
func (r *Runner) beat(ctx context.Context) error {
	asked := time.Now()
	look, err := r.store.LookAtClock(ctx)
	if err != nil {
		return err
	}
	r.clock.set(asked, look.Now)
	ownCount := r.clock.wentBack()
	wentBack, mended, err := r.store.MendClock(ctx, look, ownCount, store.Leases{
		Checkout: r.timing.checkoutLease, Reconcile: r.timing.leaseFor, Block: defaultBlock, Beat: r.timing.beatEvery,
	})
	if err != nil {
		return err
	}
	r.clock.mended(ownCount)
	if wentBack > 0 {
		r.logger.WarnContext(ctx, "the database's clock has gone back; what waited is due now", slog.Duration("by", wentBack), slog.Int64("mended", mended))
	}
	return r.store.Beat(ctx, r.id)
}

// healEvery is how often the list of the unlinked is looked over; also when a worker starts, as after an upgrade.
const healEvery = 24 * time.Hour

func (r *Runner) attempt(ctx context.Context, what string, do func(context.Context) error) {
	doCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := do(doCtx); err != nil && ctx.Err() == nil {
		r.logger.WarnContext(ctx, what+" failed", slog.String("error", err.Error()))
	}
}

// Upkeep makes one round, unless another worker is at it: jobs of dead workers go to the living; events and checkout
// requests without an outcome or a live job get a new one; customers whose user has appeared are linked, links to
// users who are gone end; sessions that should be over are read.
func (r *Runner) Upkeep(ctx context.Context) error {
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		locked, err := tx.LockUpkeep(ctx)
		if err != nil || !locked {
			return err
		}
		// The rounds below are transactions of their own; this one only holds the place.
		if err := r.returnWork(ctx); err != nil {
			return err
		}
		if err := r.relinkDue(ctx); err != nil {
			return err
		}
		return r.readDue(ctx)
	})
}

// returnLost gives back the jobs that the database says this worker works, and that it never heard of.
func (r *Runner) returnLost(ctx context.Context) error {
	returned, err := r.store.ReturnLostJobs(ctx, r.id, r.atWork.ids(), r.timing.deadAfter)
	if err == nil && returned > 0 {
		r.logger.WarnContext(ctx, "jobs that were lost on the way to this worker were given back", slog.Int64("jobs", returned))
	}
	return err
}

// seemsDead tells that who lives may seem dead, and a lease over that holds: the database's clock has leapt ahead, as with a
// fail-over to a server with another. That passes with the next signs of life, and once each lease has lasted its time.
func (r *Runner) seemsDead(ctx context.Context, tx *store.Tx) (bool, error) {
	asked := time.Now()
	look, err := tx.LookAtClock(ctx)
	if err != nil {
		return false, err
	}
	r.clock.set(asked, look.Now)
	return r.clock.hasLeapt(max(r.timing.deadAfter, r.timing.checkoutLease)), nil
}

func (r *Runner) returnWork(ctx context.Context) error {
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		seemsDead, err := r.seemsDead(ctx, tx)
		if err != nil {
			return err
		}
		var returned, requests int64
		if seemsDead {
			r.logger.WarnContext(ctx, "the database's clock has leapt ahead; until all workers have shown that they live, nothing is taken from any")
		} else {
			if returned, err = tx.ReturnDeadJobs(ctx, r.timing.deadAfter); err != nil {
				return err
			}
			if requests, err = tx.SweepCheckoutRequests(ctx, r.timing.forgottenAfter); err != nil {
				return err
			}
		}
		putOff, err := tx.MakeJobsDue(ctx, longestPutOff, hurried)
		if err != nil {
			return err
		}
		if putOff > 0 {
			r.logger.WarnContext(ctx, "jobs that a clock which is ahead had put off were made due; see that the hosts keep time", slog.Int64("jobs", putOff))
		}
		var requeued int
		for {
			swept, err := tx.SweepEvents(ctx, r.timing.forgottenAfter, sweepWindow)
			if err != nil {
				return err
			}
			requeued += swept.Requeued
			if swept.Requeued == 0 && (swept.Considered < sweepWindow || swept.Pending > 0) {
				break
			}
		}
		if returned > 0 || requeued > 0 || requests > 0 {
			crashpoint.Here("upkeep.returning")
			r.logger.WarnContext(ctx, "work without a worker was given to others", slog.Int64("jobs", returned),
				slog.Int("events", requeued), slog.Int64("checkout_requests", requests))
		}
		return nil
	})
}

// longestPutOff is over any time that an event or a checkout request has to wait for its next try.
const longestPutOff = 5 * time.Minute

// hurried are the kinds of job that wait seconds by themselves. All others come by the clock.
var hurried = []string{
	ApplyEventsArgs{}.Kind(), truenorth.CreateCheckoutArgs{}.Kind(), RefreshObjectArgs{}.Kind(), LinkCustomersArgs{}.Kind(), WriteExternalIDArgs{}.Kind(),
}

const (
	relinkChunk = 1000 // bounds one round of links
	relinkTimes = 25   // so many times as long as it took, it rests
)

// relinkDue links, unless it took so long lately, in whichever worker, that it has to rest; never for longer than a worker
// counts as alive without a sign, so that whose user appears is linked within half a minute.
func (r *Runner) relinkDue(ctx context.Context) error {
	due, err := r.store.RelinkDue(ctx, relinkTimes, r.timing.deadAfter)
	if err != nil || !due {
		return err
	}
	began := time.Now()
	if err := r.relink(ctx); err != nil {
		return err
	}
	if err := r.store.TellGoneUsers(ctx, relinkChunk); err != nil {
		return err
	}
	return r.store.RelinkDone(ctx, time.Since(began))
}

func (r *Runner) relink(ctx context.Context) error {
	waiting, err := r.store.ListWaitingCustomers(ctx, relinkChunk)
	if err != nil {
		return err
	}
	orphaned, err := r.store.ListOrphanedLinks(ctx, relinkChunk)
	if err != nil {
		return err
	}
	ids := slices.Concat(waiting, orphaned)
	if len(ids) == 0 {
		return nil
	}
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		if err := r.linkCustomers(ctx, tx, ids); err != nil {
			return err
		}
		crashpoint.Here("link.due")
		return nil
	})
}

func (r *Runner) readDue(ctx context.Context) error {
	due, err := r.store.ListDueCheckouts(ctx, r.timing.dueGrace, 50)
	if err != nil || len(due) == 0 {
		return err
	}
	crashpoint.Here("expiry.due")
	if err := r.store.InTx(ctx, func(tx *store.Tx) error { return r.refresh(ctx, tx, typeCheckout, due) }); err != nil {
		return err
	}
	crashpoint.Here("expiry.asked")
	return nil
}
