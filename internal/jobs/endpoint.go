package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// WatchEndpointArgs are the arguments of the job that looks at Polar's endpoint.
type WatchEndpointArgs struct{}

// Kind is the job's kind as River stores it.
func (WatchEndpointArgs) Kind() string { return "watch_endpoint" }

// InsertOpts keeps one such job. The next one comes by itself, so this one need not try for long.
func (WatchEndpointArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 2, MaxAttempts: 5, UniqueOpts: uniqueWhileAlive}
}

const (
	alarmEvery    = time.Hour // that the log is told again what is still wrong
	reenableEvery = time.Hour // that an endpoint which does not stay enabled is enabled again
	reasonEdited  = "edited"  // of an outage that may have been, between two looks
)

type watchEndpointWorker struct {
	river.WorkerDefaults[WatchEndpointArgs]
	runner *Runner
}

// Work looks at Polar's endpoint, keeps what it finds, and does something about it where that is allowed.
func (w *watchEndpointWorker) Work(ctx context.Context, job *river.Job[WatchEndpointArgs]) error {
	r := w.runner
	report, err := r.lookAtEndpoint(ctx)
	if err != nil {
		if _, wait := waitFor(err); wait || job.Attempt < job.MaxAttempts {
			return r.later(err)
		}
		report = unreadable(r.config.EndpointURL, err.Error(), "see that this machine reaches POLAR_API_URL")
	}
	report, toEnable, err := r.mayReenable(ctx, report)
	if err != nil {
		return err
	}
	crashpoint.Here("endpoint.looked")
	// What is lost until now is recorded before anything is changed at Polar.
	if err := r.recordLook(ctx, report); err != nil || len(toEnable) == 0 {
		return err
	}
	if err := r.reenable(ctx, toEnable); err != nil {
		return r.later(err)
	}
	crashpoint.Here("endpoint.enabled")
	if report, err = r.lookAtEndpoint(ctx); err != nil {
		return r.later(err)
	}
	return r.recordLook(ctx, report)
}

func (r *Runner) lookAtEndpoint(ctx context.Context) (EndpointReport, error) {
	if err := r.guard.check(ctx); err != nil {
		if other, ok := errors.AsType[*OtherOrganizationError](err); ok {
			return unreadable(r.config.EndpointURL, other.Error(), "use the right token, or another database"), nil
		}
		return EndpointReport{}, err
	}
	return CheckEndpoint(ctx, r.api, r.config.EndpointURL)
}

// mayReenable tells which endpoints to enable again: those that are disabled, at whose URL our ingest answers and
// accepts the secret. Enabled otherwise, Polar would only disable them once more. What speaks against it is found.
func (r *Runner) mayReenable(ctx context.Context, report EndpointReport) (EndpointReport, []polar.Endpoint, error) {
	if !r.config.ReenableEndpoint || report.State != store.EndpointDark {
		return report, nil, nil
	}
	disabled := slices.DeleteFunc(slices.Clone(report.Endpoints), func(e polar.Endpoint) bool { return e.Enabled || e.Format != polar.FormatRaw })
	if len(disabled) == 0 {
		return report, nil, nil
	}
	switch before, err := r.store.GetEndpointWatch(ctx); {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return report, nil, err
	case before.ReenabledAt != nil && before.Now().Sub(*before.ReenabledAt) < reenableEvery:
		i := slices.IndexFunc(report.Findings, func(f store.EndpointFinding) bool { return f.Finding == FindingDisabled })
		report.Findings[i].Detail += fmt.Sprintf("; enabling it was tried at %s, and is not tried again before %s",
			before.ReenabledAt.UTC().Format(time.RFC3339), before.ReenabledAt.Add(reenableEvery).UTC().Format(time.RFC3339))
		return report, nil, nil
	}
	var toEnable []polar.Endpoint
	for _, e := range disabled {
		refusal, ok := errors.AsType[*ProbeError](ProbeEndpoint(ctx, e))
		if !ok {
			toEnable = append(toEnable, e)
			continue
		}
		if !report.has(refusal.Finding) {
			report.Findings = append(report.Findings, refusal.finding())
		}
	}
	return report, toEnable, nil
}

func (r *Runner) reenable(ctx context.Context, endpoints []polar.Endpoint) error {
	for _, e := range endpoints {
		_, err := r.api.UpdateEndpoint(crashpoint.WhenSent(ctx, "endpoint.enabling"), e.ID, polar.EndpointUpdate{Enabled: new(true)})
		if err != nil && !polar.IsForbidden(err) {
			return fmt.Errorf("enabling endpoint %s again: %w", e.ID, err)
		}
		if err := r.store.NoteEndpointReenabled(ctx); err != nil {
			return err
		}
		if err != nil {
			r.logger.WarnContext(ctx, "Polar refuses to enable its endpoint again: give the token of POLAR_ACCESS_TOKEN the scope webhooks:write",
				slog.String("endpoint", e.ID.String()))
			continue
		}
		r.logger.InfoContext(ctx, "Polar's endpoint enabled again", slog.String("endpoint", e.ID.String()))
	}
	return nil
}

// recordLook keeps a look, the outage that begins or ends with it and the sweep that this asks for, all at once; then
// it tells the log.
func (r *Runner) recordLook(ctx context.Context, report EndpointReport) error {
	var tell func()
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		before, err := tx.LockEndpointWatch(ctx)
		first := errors.Is(err, store.ErrNotFound)
		if err != nil && !first {
			return err
		}
		catchUp, err := recordOutage(ctx, tx, report, before.LastOKAt)
		if err != nil {
			return err
		}
		look := store.EndpointLook{State: report.State, Findings: report.Findings, EndpointID: report.id()}
		if report.State == store.EndpointOK {
			look.OKAt = report.ReadAt
		}
		if catchUp || before.CatchUp {
			if look.CatchUp, err = r.catchUp(ctx, tx); err != nil {
				return err
			}
		}
		look.Alarmed, tell = r.alarm(ctx, before, first, report)
		return tx.PutEndpointLook(ctx, look)
	})
	if err == nil {
		tell()
	}
	return err
}

// recordOutage opens or closes an outage, and tells whether something may have been missed.
func recordOutage(ctx context.Context, tx *store.Tx, report EndpointReport, lastOK *time.Time) (missed bool, err error) {
	switch report.State {
	case store.EndpointDark:
		// It went dark after it was last seen to be well. When it was changed says less: later changes count too.
		beganAt := report.darkSince()
		if lastOK != nil {
			beganAt = *lastOK
		}
		return tx.BeginOutage(ctx, report.Findings[0].Finding, beganAt)
	case store.EndpointOK:
		if missed, err = tx.EndOutage(ctx, report.ReadAt); missed || err != nil {
			return missed, err
		}
		if lastOK != nil && !report.untouchedSince(*lastOK) {
			// Somebody may have switched it off and on again.
			return true, tx.AddOutage(ctx, reasonEdited, *lastOK, report.ReadAt)
		}
	}
	return false, nil
}

// catchUp asks for a full sweep of everything. Where one is at work already, it may have read past what was missed,
// so another is still due.
func (r *Runner) catchUp(ctx context.Context, tx *store.Tx) (due bool, err error) {
	result, err := r.client.InsertTx(ctx, tx.Pgx(), ReconcileArgs{Full: true}, nil)
	if err != nil {
		return false, fmt.Errorf("asking for a sweep: %w", store.Interpret(err))
	}
	if !result.UniqueSkippedAsDuplicate {
		return false, nil
	}
	var metadata struct {
		Snoozes int `json:"snoozes"` // between two pieces of a sweep, River takes the attempt back
	}
	if err := json.Unmarshal(result.Job.Metadata, &metadata); err != nil {
		return false, fmt.Errorf("reading how far job %d is: %w", result.Job.ID, err)
	}
	return result.Job.State == rivertype.JobStateRunning || result.Job.Attempt > 0 || metadata.Snoozes > 0, nil
}

// alarm decides what the log is told: each change once, and what stays wrong from time to time.
func (r *Runner) alarm(ctx context.Context, before store.EndpointWatch, first bool, report EndpointReport) (alarmed bool, tell func()) {
	changed := first || before.State != report.State || !slices.Equal(kindsOf(before.Findings), kindsOf(report.Findings))
	level, message := slog.LevelInfo, "Polar's endpoint is well"
	switch report.State {
	case store.EndpointDark:
		level, message = slog.LevelError, "Polar does not send us all events"
	case store.EndpointUnknown:
		level, message = slog.LevelWarn, "it cannot be told whether Polar sends us all events"
	}
	stale := level > slog.LevelInfo && (before.AlarmedAt == nil || before.Now().Sub(*before.AlarmedAt) >= alarmEvery)
	if !changed && !stale {
		return false, func() {}
	}
	var details, advice []string
	for _, f := range report.Findings {
		details, advice = append(details, f.Detail), append(advice, f.Advice)
	}
	return level > slog.LevelInfo, func() {
		r.logger.Log(ctx, level, message, slog.String("state", report.State), slog.String("findings", strings.Join(kindsOf(report.Findings), ",")),
			slog.String("detail", strings.Join(details, "; ")), slog.String("advice", strings.Join(advice, "; ")))
	}
}

func kindsOf(findings []store.EndpointFinding) []string {
	kinds := make([]string, len(findings))
	for i, f := range findings {
		kinds[i] = f.Finding
	}
	return kinds
}
