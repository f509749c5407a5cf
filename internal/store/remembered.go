package store

import (
	"context"
	"time"
)

// How long something is remembered that took longer than negligible to find out: so many times as long, but not for ever.
const (
	negligible       = 50 * time.Millisecond
	rememberedTimes  = 50
	rememberedAtMost = 2 * time.Minute
)

// remembered is something that is found out anew each time, unless that takes long: then it is remembered for a while, so
// that however often somebody asks, the database spends a small part of its time on it.
type remembered[T any] struct {
	turn  chan struct{} // holds one token, for whoever looks or finds out
	value T
	at    time.Time
	until time.Time
}

func newRemembered[T any]() *remembered[T] {
	return &remembered[T]{turn: make(chan struct{}, 1)}
}

// get gives the value and when it was found out. Who asks while another finds out waits for that.
func (r *remembered[T]) get(ctx context.Context, find func(context.Context) (T, error)) (value T, at time.Time, err error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return value, at, ctx.Err()
	}
	defer func() { <-r.turn }()
	began := time.Now()
	if began.Before(r.until) {
		return r.value, r.at, nil
	}
	if value, err = find(ctx); err != nil {
		return value, at, err
	}
	r.value, r.at, r.until = value, began, time.Time{}
	if took := time.Since(began); took > negligible {
		r.until = began.Add(took + min(rememberedTimes*took, rememberedAtMost))
	}
	return r.value, r.at, nil
}
