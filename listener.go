package truenorth

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// The channels that are listened on. A checkout request is notified by its id; of changes, that there are any.
const (
	channelCheckout = "polar_checkout"
	channelChange   = "polar_change"
)

// topic is what somebody waits for.
type topic struct {
	channel string
	id      string // of the request; empty for changes
}

// listener shares one LISTEN connection among all who wait. It opens with the first and closes some time after the last.
type listener struct {
	pool    *pgxpool.Pool
	running sync.WaitGroup // those in run; one at a time but where one is still closing its connection

	mu      sync.Mutex
	closed  bool
	waiting map[topic][]chan struct{}
	cancel  context.CancelFunc // nil while nothing listens
	idle    *time.Timer
}

const listenerIdle = 30 * time.Second

func newListener(pool *pgxpool.Pool) *listener {
	return &listener{pool: pool, waiting: map[topic][]chan struct{}{}}
}

// wait returns a channel that gets a value whenever there may be news of a topic; stop ends the waiting. Once closed,
// the listener tells nothing.
func (l *listener) wait(of topic) (notified <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[of] = append(l.waiting[of], c)
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	if l.cancel == nil && !l.closed {
		ctx, cancel := context.WithCancel(context.Background())
		l.cancel = cancel
		l.running.Go(func() { l.run(ctx) })
	}
	return c, func() { l.forget(of, c) }
}

func (l *listener) forget(of topic, c chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.waiting[of][:0]
	for _, other := range l.waiting[of] {
		if other != c {
			kept = append(kept, other)
		}
	}
	if len(kept) > 0 {
		l.waiting[of] = kept
		return
	}
	delete(l.waiting, of)
	if len(l.waiting) == 0 && l.cancel != nil && l.idle == nil {
		l.idle = time.AfterFunc(listenerIdle, l.closeIfIdle)
	}
}

func (l *listener) closeIfIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 && l.cancel != nil {
		l.cancel()
		l.cancel, l.idle = nil, nil
	}
}

func (l *listener) close() {
	l.mu.Lock()
	l.closed = true
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	if l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
	l.mu.Unlock()
	l.running.Wait()
}

// run listens until ctx ends, again and again where the connection is lost; meanwhile those who wait poll.
func (l *listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		l.listen(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (l *listener) listen(ctx context.Context) {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return
	}
	// Taken out of the pool: a connection that listens must not serve anybody else.
	conn := pooled.Hijack()
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	if _, err := conn.Exec(ctx, "listen "+channelCheckout+"; listen "+channelChange); err != nil {
		return
	}
	l.wakeAll() // what was notified before we listened
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return
		}
		of := topic{channel: notification.Channel}
		if of.channel == channelCheckout {
			of.id = notification.Payload
		}
		l.wake(of)
	}
}

func (l *listener) wake(of topic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.waiting[of] {
		signal(c)
	}
}

func (l *listener) wakeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, waiting := range l.waiting {
		for _, c := range waiting {
			signal(c)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is there already
	}
}
