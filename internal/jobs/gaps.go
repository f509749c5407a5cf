package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/truenorth-dev/truenorth/internal/crashpoint"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// FillGapsArgs are the arguments of the job that looks for events which never arrived.
type FillGapsArgs struct{}

// Kind is the job's kind as River stores it.
func (FillGapsArgs) Kind() string { return "fill_gaps" }

// InsertOpts keeps one such job. The next one comes by itself, so this one need not try for long.
func (FillGapsArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 3, MaxAttempts: 5, UniqueOpts: uniqueWhileAlive}
}

const (
	firstGaps     = 7 * 24 * time.Hour // how far back the first search goes
	gapOverlap    = time.Hour          // that is searched again each time: deliveries may show late
	gapShift      = 2 * time.Minute    // after which a job makes room for others
	gapJobTimeout = 4 * time.Minute
)

type fillGapsWorker struct {
	river.WorkerDefaults[FillGapsArgs]
	runner *Runner
}

// Timeout lets a page be waited for at the end of a shift.
func (w *fillGapsWorker) Timeout(*river.Job[FillGapsArgs]) time.Duration { return gapJobTimeout }

// Work searches for gaps from where the last search ended. A run that fails leaves that mark where it is.
func (w *fillGapsWorker) Work(ctx context.Context, job *river.Job[FillGapsArgs]) error {
	r := w.runner
	run := &gapRun{runner: r, shiftEnds: time.Now().Add(gapShift)}
	err := run.fill(ctx, time.Time{})
	if run.gaps.Stored > 0 || run.gaps.Redelivered > 0 || run.gaps.Unusable > 0 {
		r.logger.WarnContext(ctx, "events that never arrived were found at Polar", slog.Int("stored", run.gaps.Stored),
			slog.Int("redelivered", run.gaps.Redelivered), slog.Int("unusable", run.gaps.Unusable))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errShiftOver):
		return river.JobSnooze(time.Second)
	}
	_, wait := waitFor(err)
	if wait || !isFinal(err) && job.Attempt < job.MaxAttempts {
		return r.later(err)
	}
	return r.giveUpGaps(ctx, err)
}

// isFinal tells whether the same search fails again until a person does something.
func isFinal(err error) bool {
	_, isOther := errors.AsType[*OtherOrganizationError](err)
	return isOther || polar.IsForbidden(err) || polar.IsUnauthorized(err) || errors.Is(err, errNoEndpoint)
}

var (
	errShiftOver  = errors.New("the rest is for the next shift")
	errNoEndpoint = errors.New("it is not known which of Polar's endpoints is ours (see truenorth endpoint check)")
)

// giveUpGaps keeps why a search failed, and tells the log when that is new. The next search comes by itself.
func (r *Runner) giveUpGaps(ctx context.Context, err error) error {
	reason := err.Error()
	if polar.IsForbidden(err) {
		reason = "the token of POLAR_ACCESS_TOKEN lacks the scope webhooks:read or webhooks:write: " + reason
	}
	before, getErr := r.store.GetGapFill(ctx)
	if getErr != nil && !errors.Is(getErr, store.ErrNotFound) {
		return getErr
	}
	if before.Error == nil || *before.Error != reason {
		r.logger.WarnContext(ctx, "searching Polar's failed deliveries failed", slog.String("error", reason))
	}
	return r.store.PutGapFill(ctx, time.Time{}, reason)
}

// Gaps is what a search found.
type Gaps struct {
	From        time.Time `json:"from"`  // by Polar's clock
	Until       time.Time `json:"until"` // by Polar's clock
	Deliveries  int       `json:"failed_deliveries"`
	Stored      int       `json:"stored"`      // events that never arrived, stored now
	Redelivered int       `json:"redelivered"` // events that Polar was asked to send again
	Unusable    int       `json:"unusable"`    // events of which Polar has nothing that can be read
}

// FillGaps searches Polar's failed deliveries since then for events that never arrived, and stores them as if they had.
// A zero time means from where the last search ended. It waits where Polar or the budget asks it to. progress, which may
// be nil, is told what was found so far.
func (r *Runner) FillGaps(ctx context.Context, since time.Time, progress func(Gaps)) (Gaps, error) {
	run := &gapRun{runner: r, patient: true, progress: progress}
	err := run.fill(ctx, since)
	return run.gaps, err
}

// gapRun is one search.
type gapRun struct {
	runner    *Runner
	patient   bool       // waits in place
	progress  func(Gaps) // nil: nobody looks
	shiftEnds time.Time  // zero: never

	endpoints []uuid.UUID
	enabled   bool // whether Polar would redeliver
	seen      map[uuid.UUID]bool
	left      bool  // something is to be tried again
	refused   error // why something could not be tried
	gaps      Gaps
}

func (g *gapRun) fill(ctx context.Context, since time.Time) error {
	r := g.runner
	var report EndpointReport
	err := g.patiently(ctx, func() error {
		if err := r.guard.check(ctx); err != nil {
			return err
		}
		endpoints, readAt, err := r.api.ListEndpoints(ctx)
		report = judgeEndpoints(endpoints, r.config.EndpointURL, readAt)
		return err
	})
	if err != nil {
		return fmt.Errorf("listing Polar's endpoints: %w", err)
	}
	if len(report.Endpoints) == 0 {
		return errNoEndpoint
	}
	for _, e := range report.Endpoints {
		g.endpoints = append(g.endpoints, e.ID)
		g.enabled = g.enabled || e.Enabled
	}
	// Both ends are by Polar's clock.
	g.seen, g.gaps.Until = map[uuid.UUID]bool{}, report.ReadAt
	mark, err := r.store.GetGapFill(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var moves bool // whether this search joins the last one
	g.gaps.From, moves = gapsFrom(since, mark.FilledUntil, g.gaps.Until)
	return g.search(ctx, moves)
}

// gapsFrom is where a search begins, and whether no part is left out between it and the last one.
func gapsFrom(since time.Time, filled *time.Time, now time.Time) (from time.Time, moves bool) {
	switch {
	case !since.IsZero():
		from, moves = since, filled != nil && !since.After(*filled)
	case filled != nil:
		from, moves = *filled, true
	default:
		from, moves = now.Add(-firstGaps), true
	}
	if oldest := now.Add(-retention); from.Before(oldest) {
		from = oldest
	}
	return from, moves
}

// search reads the failed deliveries of the whole period, and keeps how far it got.
func (g *gapRun) search(ctx context.Context, moves bool) error {
	list := deliveryList{api: g.runner.api, endpoints: g.endpoints, call: g.patiently}
	take := func(deliveries []polar.Delivery) error {
		err := g.take(ctx, deliveries)
		if g.progress != nil {
			g.progress(g.gaps)
		}
		return err
	}
	err := list.walk(ctx, g.gaps.From, g.gaps.Until, take, func(until time.Time) error {
		if moves = moves && !g.left && g.refused == nil; moves {
			mark := until
			if young := g.gaps.Until.Add(-gapOverlap); mark.After(young) {
				mark = young
			}
			if err := g.runner.store.PutGapFill(ctx, mark, ""); err != nil {
				return err
			}
		}
		if !g.shiftEnds.IsZero() && time.Now().After(g.shiftEnds) && until.Before(g.gaps.Until) {
			return errShiftOver
		}
		return nil
	})
	if err != nil {
		return err
	}
	return g.refused
}

// take deals with those events of failed deliveries that never arrived.
func (g *gapRun) take(ctx context.Context, deliveries []polar.Delivery) error {
	events := map[string]polar.DeliveredEvent{}
	var ids []string
	for _, d := range deliveries {
		g.gaps.Deliveries++
		if g.seen[d.Event.ID] {
			continue // each of up to ten failures of an event is a delivery
		}
		g.seen[d.Event.ID] = true
		events[d.Event.ID.String()] = d.Event
		ids = append(ids, d.Event.ID.String())
	}
	if len(ids) == 0 {
		return nil
	}
	unknown, err := g.runner.store.ListUnknownEvents(ctx, ids)
	if err != nil {
		return err
	}
	var missed []store.Delivery
	var bodiless []polar.DeliveredEvent
	for _, id := range unknown {
		event := events[id]
		if len(event.Payload) == 0 {
			bodiless = append(bodiless, event)
			continue
		}
		envelope, err := polar.ScanEnvelope(event.Payload)
		if err != nil {
			// Its body is what it was when it was made, a chat message say. Redelivered it would be refused again, and
			// Polar counts failures until it disables the endpoint.
			if err := g.giveUp(ctx, event, err); err != nil {
				return err
			}
			continue
		}
		missed = append(missed, store.Delivery{
			WebhookID: id, Type: envelope.Type, ObjectID: envelope.ObjectID, OccurredAt: envelope.Timestamp, Body: event.Payload,
		})
	}
	if len(missed) > 0 {
		crashpoint.Here("gaps.found")
		stored, err := g.runner.store.StoreMissedEvents(ctx, missed)
		crashpoint.Here("gaps.stored")
		g.gaps.Stored += stored
		if err != nil {
			return err
		}
	}
	for _, event := range bodiless {
		if err := g.redeliver(ctx, event); err != nil {
			return err
		}
	}
	return nil
}

// redeliver has Polar send an event whose body it does not show, once.
func (g *gapRun) redeliver(ctx context.Context, event polar.DeliveredEvent) error {
	switch {
	case event.Archived:
		return g.giveUp(ctx, event, errors.New("it is archived"))
	case !g.enabled:
		g.left = true // Polar sends nothing to an endpoint that is disabled
		return nil
	}
	err := g.patiently(ctx, func() error { return g.runner.api.RedeliverEvent(ctx, event.ID) })
	if polar.IsNotFound(err) || polar.IsValidation(err) {
		return g.giveUp(ctx, event, err)
	}
	if err != nil {
		err = fmt.Errorf("redelivering event %s: %w", event.ID, err)
		if polar.IsForbidden(err) {
			g.refused, err = err, nil // the others need not wait for a scope
		}
		return err
	}
	g.gaps.Redelivered++
	return g.runner.store.NoteGap(ctx, event.ID.String(), store.GapRedelivered)
}

func (g *gapRun) giveUp(ctx context.Context, event polar.DeliveredEvent, why error) error {
	g.gaps.Unusable++
	g.runner.logger.WarnContext(ctx, "an event that never arrived cannot be had from Polar either; what it told is for a sweep to find",
		slog.String("webhook_id", event.ID.String()), slog.String("type", event.Type), slog.String("reason", why.Error()))
	return g.runner.store.NoteGap(ctx, event.ID.String(), store.GapUnusable)
}

// patiently waits in place where that is all that is asked for and somebody waits for the result.
func (g *gapRun) patiently(ctx context.Context, call func() error) error {
	if !g.patient {
		return call()
	}
	return patiently(ctx, call)
}
