package truenorth

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// listener shares one LISTEN connection among all who wait. It opens with the first and closes some time after the last.
type listener struct {
	pool    *pgxpool.Pool
	running sync.WaitGroup // those in run; one at a time but where one is still closing its connection

	mu      sync.Mutex
	closed  bool
	waiting map[uuid.UUID][]chan struct{}
	cancel  context.CancelFunc // nil while nothing listens
	idle    *time.Timer
}

const listenerIdle = 30 * time.Second

func newListener(pool *pgxpool.Pool) *listener {
	return &listener{pool: pool, waiting: map[uuid.UUID][]chan struct{}{}}
}

// wait returns a channel that gets a value whenever the request may have changed; stop ends the waiting. Once closed,
// the listener tells nothing.
func (l *listener) wait(id uuid.UUID) (notified <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[id] = append(l.waiting[id], c)
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	if l.cancel == nil && !l.closed {
		ctx, cancel := context.WithCancel(context.Background())
		l.cancel = cancel
		l.running.Go(func() { l.run(ctx) })
	}
	return c, func() { l.forget(id, c) }
}

func (l *listener) forget(id uuid.UUID, c chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.waiting[id][:0]
	for _, other := range l.waiting[id] {
		if other != c {
			kept = append(kept, other)
		}
	}
	if len(kept) > 0 {
		l.waiting[id] = kept
		return
	}
	delete(l.waiting, id)
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
	if _, err := conn.Exec(ctx, "listen polar_checkout"); err != nil {
		return
	}
	l.wakeAll() // what was notified before we listened
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return
		}
		if id, err := uuid.Parse(notification.Payload); err == nil {
			l.wake(id)
		}
	}
}

func (l *listener) wake(id uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.waiting[id] {
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
