package jobs

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// atWork knows the jobs that this process works. One that the database says it works and that it does not know was lost
// on the way: the connection broke when River had taken it and before it heard of that.
type atWork struct {
	mu   sync.Mutex
	jobs map[int64]bool
}

// middleware keeps the books.
func (a *atWork) middleware() rivertype.Middleware {
	return river.WorkerMiddlewareFunc(func(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) error {
		a.set(job.ID, true)
		defer a.set(job.ID, false)
		return doInner(ctx)
	})
}

func (a *atWork) set(id int64, working bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !working {
		delete(a.jobs, id)
		return
	}
	if a.jobs == nil {
		a.jobs = map[int64]bool{}
	}
	a.jobs[id] = true
}

func (a *atWork) ids() []int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.jobs))
}
