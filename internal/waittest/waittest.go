// Package waittest waits in tests for what comes by itself: it looks again and again, with a limit.
package waittest

import (
	"testing"
	"time"
)

// Within returns as soon as check gives no error; the test fails with its last one where that takes longer than limit.
func Within(tb testing.TB, limit time.Duration, check func() error) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %v", limit, err)
		}
		<-ticker.C
	}
}

// Eventually is Within twenty seconds, far more than anything here takes.
func Eventually(tb testing.TB, check func() error) {
	tb.Helper()
	Within(tb, 20*time.Second, check)
}
