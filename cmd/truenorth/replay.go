package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type replayCommand struct {
	Failed bool      `help:"Events whose last try failed."`
	Since  sinceTime `help:"Events received since: a time (RFC 3339) or a duration, such as 24h." placeholder:"TIME"`
	Type   []string  `help:"Events of this type; * stands for any text. May be given several times." placeholder:"PATTERN"`
	All    bool      `help:"All events."`
	Verify bool      `help:"Change nothing: rebuild the mirror beside the real one and compare."`
	After  int64     `help:"Go on after this event, where an earlier replay was interrupted." placeholder:"SEQ"`
	DryRun bool      `help:"Only count."`
}

// sinceTime is a moment, given as such or as how long ago it was.
type sinceTime struct{ time.Time }

// UnmarshalText reads an RFC 3339 time or a duration.
func (t *sinceTime) UnmarshalText(text []byte) error {
	if d, err := time.ParseDuration(string(text)); err == nil && d > 0 {
		t.Time = time.Now().Add(-d)
		return nil
	}
	at, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return fmt.Errorf("%q is neither a time such as 2026-10-30T12:00:00Z nor a duration such as 24h", text)
	}
	t.Time = at
	return nil
}

// mustBePast refuses a moment that has not been yet, where that can only be a mistake.
func (t sinceTime) mustBePast() error {
	if t.After(time.Now()) {
		return usage("give a time in the past, or how long ago it was", "--since is %s, which has not been yet", t.Format(time.RFC3339))
	}
	return nil
}

func (*replayCommand) about() about {
	return about{
		text: `Stored events are applied again in this process, as the worker does it. Newest wins, so it does no harm to apply an event
twice, nor while workers run.`,
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth replay --failed", "after the cause is gone"},
			{"truenorth replay --since 24h", "what came in the last day"},
			{"truenorth replay --type 'checkout.*'", "all events of checkouts"},
			{"truenorth replay --verify", "does the mirror say what the events say?"},
		},
		finds: "rows differ (--verify)",
		prints: []document{
			{value: replayed{}},
			{when: "--dry-run", value: counted{}},
			{when: "--verify", value: verification{}},
		},
	}
}

// Validate makes sure that it is clear what is meant.
func (c *replayCommand) Validate() error {
	narrowed := c.Failed || !c.Since.IsZero() || len(c.Type) > 0
	switch {
	case c.Verify && (narrowed || c.All || c.DryRun || c.After != 0):
		return errors.New("--verify compares everything: give it alone")
	case c.All && narrowed:
		return errors.New("--all is all events: give it, or --failed, --since and --type, alone or together")
	case !c.Verify && !c.All && !narrowed:
		return errors.New("say which events: --failed, --since, --type or --all; or --verify")
	}
	return nil
}

// again is the command that goes on after an event.
func (c *replayCommand) again(after int64) string {
	parts := []string{"truenorth", "replay"}
	if c.All {
		parts = append(parts, "--all")
	}
	if c.Failed {
		parts = append(parts, "--failed")
	}
	if !c.Since.IsZero() {
		parts = append(parts, "--since", c.Since.UTC().Format(time.RFC3339))
	}
	for _, t := range c.Type {
		parts = append(parts, "--type", "'"+t+"'")
	}
	return strings.Join(append(parts, "--after", strconv.FormatInt(after, 10)), " ")
}

// Run replays, or verifies.
func (c *replayCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Ping(ctx); err != nil {
		return err
	}
	if c.Verify {
		return c.verify(ctx, e, s)
	}
	replay := store.Replay{Failed: c.Failed, Since: c.Since.Time, Types: c.Type, After: c.After}
	if c.DryRun {
		fits, err := s.CountReplay(ctx, replay)
		if err != nil {
			return err
		}
		return e.print(counted{fits.Events, fits.NotKept}, func(w io.Writer) error {
			fmt.Fprintf(w, "%s would be applied again\n", numbered(fits.Events, "event", "events"))
			printNotKept(w, fits.NotKept)
			return nil
		})
	}
	bar := newProgress(e)
	report, err := jobs.Replay(ctx, s, program.NewLogger(e.stderr, slog.LevelError, "truenorth"), replay, func(done, total int64) { bar.show("replaying", done, total) })
	bar.close()
	if printErr := e.print(shownReplay(report, err == nil), func(w io.Writer) error { return printReplayed(w, report) }); printErr != nil {
		return errors.Join(err, printErr)
	}
	switch {
	case ctx.Err() != nil:
		return failure("go on with: "+c.again(report.LastSeq), "interrupted after %d of %s", report.Events, numbered(report.Total, "event", "events"))
	case err != nil:
		return failure("go on with: "+c.again(report.LastSeq), "%w (done: %d of %s)", err, report.Events, numbered(report.Total, "event", "events"))
	case report.Failed > 0:
		return errors.New(numbered(report.Failed, "event", "events") + " failed")
	}
	return nil
}

// counted is what --dry-run finds, as JSON.
type counted struct {
	Events  int64 `json:"events"`
	NotKept int64 `json:"not_kept"`
}

// replayed is Replayed as JSON.
type replayed struct {
	Matching int64               `json:"matching"`
	NotKept  int64               `json:"not_kept"`
	Events   int64               `json:"events"`
	Applied  int64               `json:"applied"`
	Failed   int64               `json:"failed"`
	LastSeq  int64               `json:"last_seq"`
	Complete bool                `json:"complete"`
	Failures []jobs.EventFailure `json:"failures"`
}

func shownReplay(r jobs.Replayed, complete bool) replayed {
	return replayed{
		r.Total, r.NotKept, r.Events, r.Events - r.Failed, r.Failed, r.LastSeq, complete, append([]jobs.EventFailure{}, r.Failures...),
	}
}

func printReplayed(w io.Writer, report jobs.Replayed) error {
	fmt.Fprintf(w, "%s applied again\n", numbered(report.Events-report.Failed, "event", "events"))
	printNotKept(w, report.NotKept)
	return printFailures(w, "failed", report.Failures, report.Failed)
}

// printNotKept tells of events that cannot be applied again.
func printNotKept(w io.Writer, n int64) {
	if n > 0 {
		fmt.Fprintf(w, "%s older than EVENT_RETENTION, and no longer kept whole\n", numbered(n, "more is", "more are"))
	}
}

func printFailures(out io.Writer, what string, failures []jobs.EventFailure, total int64) error {
	if total == 0 {
		return nil
	}
	fmt.Fprintf(out, "%s %s:\n", numbered(total, "event", "events"), what)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  WEBHOOK ID\tTYPE\tERROR")
	for _, f := range failures {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", oneLine(f.WebhookID), oneLine(f.Type), oneLine(f.Error))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := total - int64(len(failures)); more > 0 {
		fmt.Fprintf(out, "  and %d more: select webhook_id, type, error from polar.event where state = 'failed'\n", more)
	}
	return nil
}

func (c *replayCommand) verify(ctx context.Context, e *environment, s *store.Store) error {
	bar := newProgress(e)
	verified, err := jobs.Verify(ctx, s, program.NewLogger(e.stderr, slog.LevelError, "truenorth"), func(done, total int64) {
		bar.show("rebuilding", done, total)
	})
	bar.close()
	if err != nil {
		if ctx.Err() != nil {
			return failure("run it again", "interrupted: nothing is left of the scratch schema, and nothing was changed")
		}
		return err
	}
	err = e.print(shownVerification(verified), func(w io.Writer) error { return printVerified(w, verified) })
	if err == nil && !verified.Equal() {
		return &exitError{exitFound, errors.New("the mirror differs from what its events say"), "truenorth reconcile compares it with Polar, and repairs it"}
	}
	return err
}

func printVerified(out io.Writer, v jobs.Verified) error {
	fmt.Fprintf(out, "rebuilt from %s", numbered(v.Kept.Applied, "event", "events"))
	if v.Kept.Failed > 0 || v.Kept.Received > 0 {
		fmt.Fprintf(out, " (not in the mirror either: %d failed, %d not tried yet)", v.Kept.Failed, v.Kept.Received)
	}
	fmt.Fprintln(out)
	printNotKept(out, v.Kept.Bodiless)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tCOMPARED\tEQUAL\tDIFFERENT\tFROM READS\tEVENT NOT KEPT\tLIFTED BY A READ")
	for _, t := range v.Tables {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\n", t.Table, t.Equal+t.Different, t.Equal, t.Different, t.FromReads, t.NotKept, t.Lifted)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(v.Differences) > 0 {
		fmt.Fprintln(out)
		fmt.Fprintln(w, "TABLE\tID\tDIFFERS IN")
		for _, d := range v.Differences {
			fmt.Fprintf(w, "%s\t%s\t%s\n", d.Table, d.ID, strings.Join(d.Fields, ", "))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return printFailures(out, "refused now, though applied before", v.Refused, v.Unbuilt)
}

// verification is Verified as JSON.
type verification struct {
	Equal       bool                 `json:"equal"`
	Events      int64                `json:"events"`
	Failed      int64                `json:"events_failed"`
	Received    int64                `json:"events_received"`
	NotKept     int64                `json:"events_not_kept"`
	Tables      []verifiedTable      `json:"tables"`
	Differences []verifiedDifference `json:"differences"`
	Unbuilt     int64                `json:"events_refused"`
	Refused     []jobs.EventFailure  `json:"refused"`
}

type verifiedTable struct {
	Table     string `json:"table"`
	Compared  int64  `json:"compared"`
	Equal     int64  `json:"equal"`
	Different int64  `json:"different"`
	FromReads int64  `json:"from_reads"`
	NotKept   int64  `json:"event_not_kept"`
	Lifted    int64  `json:"lifted_by_read"`
}

type verifiedDifference struct {
	Table  string   `json:"table"`
	ID     string   `json:"id"`
	Fields []string `json:"fields"`
}

func shownVerification(v jobs.Verified) verification {
	shown := verification{
		Equal: v.Equal(), Events: v.Kept.Applied, Failed: v.Kept.Failed, Received: v.Kept.Received, NotKept: v.Kept.Bodiless,
		Differences: []verifiedDifference{}, Unbuilt: v.Unbuilt, Refused: append([]jobs.EventFailure{}, v.Refused...),
	}
	for _, t := range v.Tables {
		shown.Tables = append(shown.Tables, verifiedTable{t.Table, t.Equal + t.Different, t.Equal, t.Different, t.FromReads, t.NotKept, t.Lifted})
	}
	for _, d := range v.Differences {
		shown.Differences = append(shown.Differences, verifiedDifference(d))
	}
	return shown
}
