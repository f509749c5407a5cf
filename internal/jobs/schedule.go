package jobs

import (
	"time"

	"github.com/riverqueue/river"
)

// watchAtLeastEvery bounds how long nobody notices that Polar sends nothing: what happens meanwhile is lost.
const watchAtLeastEvery = 5 * time.Minute

// periodicJobs is what the leader asks for unasked. River keeps it in memory and starts anew with each leader, so all
// of it runs at the start, and is unique while alive.
func (r *Runner) periodicJobs() []*river.PeriodicJob {
	every := func(pause time.Duration, args river.JobArgs) *river.PeriodicJob {
		return river.NewPeriodicJob(river.PeriodicInterval(pause), func() (river.JobArgs, *river.InsertOpts) { return args, nil },
			&river.PeriodicJobOpts{RunOnStart: true})
	}
	var jobs []*river.PeriodicJob
	if r.config.EventRetention > 0 {
		jobs = append(jobs, every(pruneEvery, PruneEventsArgs{}))
	}
	interval := r.config.ReconcileInterval
	if interval == 0 {
		return jobs
	}
	jobs = append(jobs, every(min(interval, watchAtLeastEvery), WatchEndpointArgs{}), every(interval, FillGapsArgs{}))
	for _, types := range sweepGroups() {
		jobs = append(jobs, every(interval, ReconcileArgs{Types: types}))
	}
	return jobs
}
