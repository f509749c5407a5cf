package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/truenorth-dev/truenorth/internal/store"
)

func newLag() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "truenorth_apply_lag_seconds", Help: "From the arrival of an event until this process had applied it.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300, 3600},
	})
}

// observeLag notes how long events waited that are applied by now; they were read at readAt.
func (r *Runner) observeLag(events []store.Event, readAt time.Time) {
	since := time.Since(readAt)
	for i := range events {
		r.lag.Observe((events[i].Waited + since).Seconds())
	}
}

// Describe and Collect make a Runner a collector of what this process alone knows.
func (r *Runner) Describe(descriptions chan<- *prometheus.Desc) { r.lag.Describe(descriptions) }

// Collect gives what was counted until now.
func (r *Runner) Collect(values chan<- prometheus.Metric) { r.lag.Collect(values) }

// BudgetLeft is how many calls to Polar all processes together have left now, of how many; both are 0 where there is no limit.
func (r *Runner) BudgetLeft(ctx context.Context) (left, capacity float64, err error) {
	if r.budget.limits == (store.Budget{}) {
		return 0, 0, nil
	}
	left, err = r.store.BudgetLeft(ctx, r.budget.limits)
	return left, r.budget.limits.Capacity, err
}

// ReconcileInterval is how often Polar's lists are read; 0: only when asked.
func (r *Runner) ReconcileInterval() time.Duration { return r.config.ReconcileInterval }

// DriftCauses lists all causes of drift.
func DriftCauses() []string {
	return []string{
		causeMissedCreate, causeMissedUpdate, causeMissedDelete, causeEndpointDisabled, causeStaleApply, causeLocalOnly, causeAltered,
		causeRefused, causeWrongTombstone, causeBenignAbandoned, causeDuplicateSession,
	}
}
