package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Restored tells a database that it was restored from a backup, before a worker works on it: each checkout request that waits is
// looked for at Polar before a session is made for it, since one may have been made after the backup; and cursors of the change
// feed end, since they may be of changes that are lost. Safe twice. It returns how many requests wait.
func Restored(ctx context.Context, s *store.Store, word store.Word, logger *slog.Logger) (requests int64, err error) {
	r, err := newReplayer(s, logger)
	if err != nil {
		return 0, err
	}
	// An app that enqueues by River itself leaves the row to the first try.
	waiting := river.NewJobListParams().Kinds(truenorth.KindCreateCheckout).OrderBy(river.JobListOrderByID, river.SortOrderAsc).First(1000).States(
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled)
	for {
		page, err := r.client.JobList(ctx, waiting)
		if err != nil {
			return 0, fmt.Errorf("listing the jobs of checkout requests: %w", store.Interpret(err))
		}
		for _, row := range page.Jobs {
			job := &river.Job[createCheckoutArgs]{JobRow: row}
			if err := json.Unmarshal(row.EncodedArgs, &job.Args); err != nil {
				return 0, fmt.Errorf("reading job %d: %w", row.ID, err)
			}
			if _, err := r.ensureRequest(ctx, job); err != nil {
				return 0, err
			}
		}
		if page.LastCursor == nil {
			break
		}
		waiting = waiting.After(page.LastCursor)
	}
	err = s.InTx(ctx, func(tx *store.Tx) error {
		requests, err = tx.Doubt(ctx, word)
		return err
	})
	return requests, err
}
