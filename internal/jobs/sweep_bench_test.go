package jobs_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
)

// BenchmarkSweepInStep is a sweep of customers that finds nothing, as nearly all do. objects/s is of the whole, the
// fake Polar and Postgres on the same machine; baseline-objects/s is what reading the same lists alone takes, in the
// same run; heap-MiB is what the process holds after it, the fake's objects included.
func BenchmarkSweepInStep(b *testing.B) {
	const customers = 20_000
	w := newWorld(b, worldOptions{offline: true, idle: true})
	w.fake.SeedCustomers(customers, "usr_")
	w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}})
	sweeper := w.sweeper()
	var swept, read time.Duration
	for b.Loop() {
		began := time.Now()
		if err := sweeper.ReadLists(b.Context(), "customer"); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if drifted, _ := w.reconcile(jobs.ReconcileOptions{Types: []string{"customer"}}); drifted > 0 {
			b.Fatalf("%d differences", drifted)
		}
		read += middle.Sub(began)
		swept += time.Since(middle)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(b.N)*customers/swept.Seconds(), "objects/s")
	b.ReportMetric(float64(b.N)*customers/read.Seconds(), "baseline-objects/s")
	b.ReportMetric(float64(memory.HeapAlloc)/(1<<20), "heap-MiB")
}
