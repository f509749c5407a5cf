package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type reconcileCommand struct {
	Objects []string  `arg:"" optional:"" name:"object" predictor:"objects" help:"Types of objects to compare, such as customers; all by default."`
	DryRun  bool      `help:"Only look: differences go to polar.drift, the mirror stays as it is."`
	Since   sinceTime `help:"Leave out what was created (subscriptions: started) before this time, RFC 3339 or so long ago, such as 36h." placeholder:"TIME"`
	Fresh   bool      `help:"Begin anew, even if a long run was interrupted within the last hour."`
	Accept  bool      `name:"accept-deletions" help:"Believe Polar's lists even where they lack most members, refunds or grants."`
	Verbose bool      `short:"v" help:"Log every step."`
}

func (reconcileCommand) about() about {
	return about{
		text: `Compares every page of Polar's lists with the mirror and repairs what differs; every difference is a row of
polar.drift, with its cause. It needs no worker; it shares the API budget with all workers, and waits while another reconciles. A long run that was interrupted is gone on with when the same is asked
for within an hour; it does not see what changed since in what lies behind it. --fresh begins anew.

Objects: ` + strings.Join(plurals(), ", ") + `.

--accept-deletions believes Polar's lists even where they lack most members, refunds or grants: they cannot be read by id.`,
		needs: "DATABASE_URL, POLAR_ACCESS_TOKEN",
		reads: "POLAR_API_URL, POLAR_VERSION, POLAR_RATE_LIMIT, POLAR_TIMEOUT, LOG_LEVEL",
		examples: []example{
			{"truenorth reconcile --dry-run", "only look"},
			{"truenorth reconcile customers subscriptions", "these types alone"},
			{"truenorth reconcile orders --since 36h", "what is no older"},
		},
		finds:  "a dry run found drift (abandoned checkouts are none)",
		prints: []document{{value: []reportedRun{}, rows: "polar.reconcile_run", beside: []string{"drift"}}},
	}
}

// plurals are the names of the types as people say them.
func plurals() []string {
	names := jobs.ReconcileTypes()
	for i, name := range names {
		names[i] = name + "s"
	}
	return names
}

// typesOf finds the types that people named, in singular or plural, with dashes or underscores.
func typesOf(names []string) ([]string, error) {
	known := jobs.ReconcileTypes()
	wanted := make([]string, len(names))
	for i, name := range names {
		wanted[i] = strings.TrimSuffix(strings.ReplaceAll(strings.ToLower(name), "-", "_"), "s")
		if !slices.Contains(known, wanted[i]) {
			return nil, usage("these are: "+strings.Join(plurals(), ", "), "no objects are called %q", name)
		}
	}
	slices.SortStableFunc(wanted, func(a, b string) int { return slices.Index(known, a) - slices.Index(known, b) })
	return slices.Compact(wanted), nil
}

func (c reconcileCommand) Run(ctx context.Context, e *environment) error {
	types, err := typesOf(c.Objects)
	if err != nil {
		return err
	}
	if err := c.Since.mustBePast(); err != nil {
		return err
	}
	if c.Verbose {
		e.config.Level = slog.LevelDebug
	} else {
		e.config.Level = max(e.config.Level, slog.LevelError) // what is wrong is said at the end, once
	}
	runner, s, err := e.openRunner(e.config.EndpointURL())
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Ping(ctx); err != nil {
		return err
	}
	bar := newProgress(e)
	runs, failed := runner.Reconcile(ctx, jobs.ReconcileOptions{Types: types, DryRun: c.DryRun, Since: c.Since.Time, Fresh: c.Fresh, AcceptDeletions: c.Accept, Progress: func(p jobs.Progress) {
		if p.Waiting {
			bar.step("waiting for another that reconciles")
			return
		}
		if p.WaitFor > time.Second {
			bar.step("waiting " + p.WaitFor.Round(time.Second).String() + " for Polar, or for the budget of calls to it (POLAR_RATE_LIMIT)")
			return
		}
		bar.show(p.ObjectType+"s", p.Seen, p.Total)
	}})
	bar.close()
	if err := printRuns(context.WithoutCancel(ctx), e, s, runs); err != nil {
		return errors.Join(failed, err)
	}
	if ctx.Err() != nil {
		return failure("run the same again: within an hour, a long run is gone on with", "interrupted")
	}
	if failed != nil {
		return failed
	}
	if drifted(runs) > 0 && c.DryRun {
		return &exitError{exitFound, errors.New(numbered(drifted(runs), "difference", "differences") + "; without --dry-run, all that is found is repaired"), ""}
	}
	return nil
}

func drifted(runs []store.ReconcileRun) int64 {
	var n int64
	for _, run := range runs {
		n += run.Drifted
	}
	return n
}

// mostShown bounds the differences that are printed; the ledger has them all.
const mostShown = 50

// reportedRun is a run with its differences.
type reportedRun struct {
	store.ReconcileRun
	Drift []store.Drift `json:"drift"` // the first 50, as in polar.drift
}

func printRuns(ctx context.Context, e *environment, s *store.Store, runs []store.ReconcileRun) error {
	reports := make([]reportedRun, len(runs))
	for i, run := range runs {
		reports[i] = reportedRun{ReconcileRun: run, Drift: []store.Drift{}}
		if run.Drifted+run.Benign > 0 && ctx.Err() == nil {
			drift, err := s.ListDriftOfRun(ctx, run.ID, mostShown)
			if err != nil {
				return err
			}
			reports[i].Drift = drift
		}
	}
	return e.print(reports, func(w io.Writer) error { return printReports(w, e.style, reports) })
}

func printReports(w io.Writer, style style, reports []reportedRun) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "OBJECTS\t%s\tSEEN\tDRIFT\tBENIGN\tREPAIRED\tREFRESHED\tTOOK\n", style.none("STATE"))
	for _, run := range reports {
		state := style.none(run.State)
		if run.State == store.RunFailed {
			state = style.bad(run.State)
		}
		took := "-"
		if run.FinishedAt != nil {
			took = run.FinishedAt.Sub(run.StartedAt).Round(time.Millisecond).String()
		}
		fmt.Fprintf(table, "%ss\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", run.ObjectType, state, run.Seen, run.Drifted, run.Benign, run.Repaired, run.Refreshed, took)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range reports {
		if len(r.Drift) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%ss (polar.drift where run_id = %d):\n", r.ObjectType, r.ID)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "  OBJECT\tFIELD\tHERE\tAT POLAR\tCAUSE")
		for _, d := range r.Drift {
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\n", d.ObjectID, d.Field, orDash(d.Local), orDash(d.Remote), d.Cause)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if more := r.Drifted + r.Benign - int64(len(r.Drift)); more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
		}
	}
	return nil
}

func orDash(text *string) string {
	if text == nil {
		return "-"
	}
	return oneLine(*text)
}

// sweepsLine sums up the newest run of each type for `truenorth status`.
func sweepsLine(runs []store.ReconcileRun) string {
	if len(runs) == 0 {
		return "none yet"
	}
	var failed []string
	var oldest time.Time
	running := 0
	for _, run := range runs {
		switch {
		case run.State == store.RunFailed:
			failed = append(failed, run.ObjectType+"s")
		case run.State == store.RunRunning:
			running++
		case oldest.IsZero() || run.FinishedAt.Before(oldest):
			oldest = *run.FinishedAt
		}
	}
	line := "of " + numbered(len(runs), "type", "types")
	if oldest.IsZero() {
		line += ", none has ended well"
	} else {
		line += ", the oldest ended " + oldest.Local().Format(time.RFC3339)
	}
	if running > 0 {
		line += fmt.Sprintf(", %d running", running)
	}
	if len(failed) > 0 {
		line += ", FAILED: " + strings.Join(failed, ", ") + " (see polar.reconcile_run.error)"
	}
	return line
}
