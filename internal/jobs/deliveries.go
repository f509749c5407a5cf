package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
)

const (
	deliveryWindow   = 24 * time.Hour   // of one list: Polar's list of everything times out
	shortestWindow   = 10 * time.Minute // below which a time-out is no matter of size
	deliveryPatience = 20 * time.Second // with one page, retries included
)

// deliveryList reads Polar's list of deliveries, always between two times.
type deliveryList struct {
	api       *polar.API
	endpoints []uuid.UUID
	succeeded bool
	call      func(context.Context, func() error) error // makes a call, waiting as its caller would
}

// patiently calls, and again after a wait where Polar or the budget asks for no more than that.
func patiently(ctx context.Context, call func() error) error {
	for {
		err := call()
		wait, ok := waitFor(err)
		if !ok {
			return err
		}
		if pause(ctx, wait) != nil {
			return err
		}
	}
}

// walk reads the deliveries of a period, one shorter period after another, oldest first, and calls searched after each,
// so that what is done may stay done. Where Polar cannot answer for a long period, it is asked for shorter ones. The
// end stands still while pages are read, newest first: what is new does not shift them.
func (l deliveryList) walk(ctx context.Context, from, until time.Time, take func([]polar.Delivery) error, searched func(until time.Time) error) error {
	window := deliveryWindow
	for from.Before(until) {
		end := from.Add(window)
		if end.After(until) {
			end = until
		}
		err := l.period(ctx, from, end, take)
		switch {
		case polar.OutcomeUnknown(err) && end.Sub(from)/2 >= shortestWindow && ctx.Err() == nil:
			window = end.Sub(from) / 2
			continue
		case err != nil:
			return err
		}
		if err := searched(end); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (l deliveryList) period(ctx context.Context, from, until time.Time, take func([]polar.Delivery) error) error {
	const edge = time.Second // each end may or may not be part of the period
	for number := 1; ; number++ {
		var page polar.Page[polar.Delivery]
		err := l.call(ctx, func() (err error) {
			pageCtx, cancel := context.WithTimeout(ctx, deliveryPatience)
			defer cancel()
			page, err = l.api.ListDeliveries(pageCtx, polar.DeliveryFilter{
				From: from.Add(-edge), Until: until.Add(edge), Endpoints: l.endpoints, Succeeded: &l.succeeded, Page: number,
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("listing deliveries from %s until %s: %w", from.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339), err)
		}
		if err := take(page.Items); err != nil {
			return err
		}
		if number >= page.MaxPage || len(page.Items) == 0 {
			return nil
		}
	}
}
