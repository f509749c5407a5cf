package jobs

import (
	"github.com/riverqueue/river"
)

// ReconcileArgs are the arguments of the job that compares Polar's lists with the mirror.
type ReconcileArgs struct {
	Types []string `json:"types" river:"unique"` // types of objects, such as customer, in this order
	Full  bool     `json:"full"`                 // every page of the lists, not only what is new or unfinished
}

// Kind is the job's kind as River stores it.
func (ReconcileArgs) Kind() string { return "reconcile" }

// InsertOpts keeps one such job per list of types.
func (ReconcileArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 4, MaxAttempts: 1000, UniqueOpts: uniqueWhileAlive}
}
