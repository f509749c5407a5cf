package jobs

import (
	"sync"
	"time"
)

// databaseClock shows the time of Postgres, by which River fetches what is due: a job that waits, waits as long as it should,
// whatever this host's clock shows. Between two looks at Postgres it goes on by the monotonic clock, which no step moves.
//
// It is River's rivertype.TimeGenerator.
type databaseClock struct {
	mu   sync.Mutex
	seen time.Time // what Postgres said last, where that was news
	at   time.Time // when, by the monotonic clock
}

// clockTolerance is how far the clock may be off before it is set, so that what is measured while it is set is not disturbed.
const clockTolerance = time.Second

// set tells the clock what Postgres says now.
func (c *databaseClock) set(now time.Time) {
	if off := c.Now().Sub(now); off > -clockTolerance && off < clockTolerance {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.at = now, time.Now()
}

// Now is this host's time until Postgres was asked.
func (c *databaseClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen.IsZero() {
		return time.Now()
	}
	return c.seen.Add(time.Since(c.at))
}

// NowOrNil leaves the time to Postgres where River can.
func (*databaseClock) NowOrNil() *time.Time { return nil }
