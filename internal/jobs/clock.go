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
	mu    sync.Mutex
	seen  time.Time     // what Postgres said last, where that was news
	at    time.Time     // when, by the monotonic clock
	leapt time.Time     // when it was last seen to have leapt ahead, by the monotonic clock
	back  time.Duration // by how much it was seen to have gone back, until that is mended
}

// clockTolerance is how far the clock may be off before it is set, so that what is measured while it is set is not disturbed.
const clockTolerance = time.Second

// set tells the clock what Postgres said, which was asked at a moment. An answer that takes long is no step of the clock.
func (c *databaseClock) set(asked, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered := time.Now()
	if c.seen.IsZero() {
		c.seen, c.at = now, answered
		return
	}
	earliest, latest := c.seen.Add(asked.Sub(c.at)), c.seen.Add(answered.Sub(c.at))
	switch {
	case asked.Before(c.at): // another look was later
		return
	case now.Before(earliest.Add(-clockTolerance)):
		c.back += earliest.Sub(now)
	case now.After(latest.Add(clockTolerance)):
		c.leapt = answered
	default:
		return
	}
	c.seen, c.at = now, answered
}

// wentBack is by how much Postgres was seen to have gone back, of which nothing is mended yet.
func (c *databaseClock) wentBack() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.back
}

// mended tells the clock that it needs not say wentBack again.
func (c *databaseClock) mended(wentBack time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.back -= wentBack
}

// hasLeapt tells whether Postgres was seen to have leapt ahead, less than so long ago.
func (c *databaseClock) hasLeapt(lately time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.leapt.IsZero() && time.Since(c.leapt) < lately
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
