package polarfake

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// rateLimit lets at most so many requests pass within any span of time.
type rateLimit struct {
	most   int
	span   time.Duration
	passed []time.Time // within the last span, in order
}

func newRateLimits(options Options) []*rateLimit {
	var limits []*rateLimit
	for _, limit := range []rateLimit{{most: options.RateLimit, span: time.Minute}, {most: options.BurstLimit, span: time.Second}} {
		if limit.most > 0 {
			limits = append(limits, &limit)
		}
	}
	return limits
}

// wait is how long it takes until a request may pass; 0 when it may now.
func (l *rateLimit) wait(now time.Time) time.Duration {
	isOver := func(at time.Time) bool { return now.Sub(at) >= l.span || at.After(now) } // the latter if the clock was set back
	l.passed = slices.DeleteFunc(l.passed, isOver)
	if len(l.passed) < l.most {
		return 0
	}
	return l.span - now.Sub(l.passed[len(l.passed)-l.most])
}

// throttle counts an API request that may pass, or tells how long it has to wait. The caller holds f.mu.
func (f *Fake) throttle() time.Duration {
	if len(f.limits) == 0 {
		return 0
	}
	now := f.options.SignatureClock()
	var longest time.Duration
	for _, limit := range f.limits {
		longest = max(longest, limit.wait(now))
	}
	if longest == 0 {
		for _, limit := range f.limits {
			limit.passed = append(limit.passed, now)
		}
	}
	return longest
}

// writeRateLimit answers 429 as Polar does, with whole seconds to wait.
func (f *Fake) writeRateLimit(w http.ResponseWriter, wait time.Duration) {
	seconds := int64((wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	w.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
	w.WriteHeader(http.StatusTooManyRequests)
}
