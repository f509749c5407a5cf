package jobs

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// timing is how fast work is taken up again. Everything follows from two settings: the recovery time, after which a
// worker without a sign of life counts as dead, and how long a call to Polar may take.
type timing struct {
	deadAfter      time.Duration // without a sign of life
	beatEvery      time.Duration // a worker's signs of life
	upkeepEvery    time.Duration
	forgottenAfter time.Duration // age from which work without a job is given a new one
	refreshDelay   time.Duration // lets the events that are on the way arrive before Polar is asked
	sweepRetry     time.Duration // before a step of a sweep that failed is tried again, times the failures
	leaseFor       time.Duration // that a sweep holds its place without a word
	leaseEvery     time.Duration // a sweep's word
	dueGrace       time.Duration // after a session's end by the local clock; Polar's list is later, a read tells at once
	firstBackoff   time.Duration
	longestBackoff time.Duration

	// checkoutLease is how long a try owns its request without renewing. It is longer than any one call to Polar
	// takes, so that when it is over, the call of a try that died is over too.
	checkoutLease time.Duration
}

const (
	defaultRecovery = 15 * time.Second
	defaultTimeout  = 15 * time.Second // of a call to Polar, as polar.Config has it
)

func newTiming(recovery, timeout time.Duration) timing {
	recovery, timeout = cmp.Or(recovery, defaultRecovery), cmp.Or(timeout, defaultTimeout)
	return timing{
		deadAfter: recovery, beatEvery: recovery / 5, upkeepEvery: recovery / 3, forgottenAfter: 3 * recovery,
		refreshDelay: recovery / 5, sweepRetry: recovery / 15, leaseFor: max(recovery*2/5, 3*time.Second), leaseEvery: max(recovery*2/15, time.Second),
		dueGrace: 2 * recovery, firstBackoff: recovery / 15, longestBackoff: 2 * recovery, checkoutLease: timeout + recovery/3,
	}
}

// backoff grows from a second to half a minute (of the default recovery time), with jitter.
func (t timing) backoff(tries int) time.Duration {
	d := t.longestBackoff
	if tries < 6 {
		d = min(t.firstBackoff<<max(tries-1, 0), t.longestBackoff)
	}
	return time.Duration(float64(d) * (0.75 + 0.5*rand.Float64())) //nolint:gosec // jitter needs no secrecy
}
