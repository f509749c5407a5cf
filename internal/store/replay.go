package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/store/internal/dbsqlc"
)

// Bounds of what is read at once: rows, bytes of their bodies, and of the log where few of its rows fit.
const (
	replayRows   = 1000
	replayBytes  = 16 << 20
	replayWindow = 50_000
)

// Replay says which events are applied again. The zero Replay is all of them.
type Replay struct {
	Failed bool      // only those whose last try failed
	Since  time.Time // only those received since; zero: whenever
	Types  []string  // only those of these types, in which * stands for any text; none: all
	After  int64     // only those after this event_log.seq
}

// like is Types as Postgres matches them.
func (r Replay) like() []string {
	patterns := make([]string, len(r.Types))
	for i, t := range r.Types {
		patterns[i] = strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%").Replace(t)
	}
	return patterns
}

// Replayable says how many events fit a Replay now.
type Replayable struct {
	Events   int64
	NotKept  int64 // others that would fit, whose bodies are no longer kept
	FirstSeq int64 // none before it fits
	LastSeq  int64 // the last of both
}

// CountReplay tells how many events fit now.
func (s *Store) CountReplay(ctx context.Context, r Replay) (Replayable, error) {
	if r.Failed {
		row, err := s.q.EventReplayCountFailed(ctx, s.pool, dbsqlc.EventReplayCountFailedParams{After: r.After, Since: r.Since, Types: r.like()})
		if err != nil {
			return Replayable{}, fmt.Errorf("counting failed events: %w", interpret(err))
		}
		return Replayable{Events: row.Events, NotKept: row.Bodiless, LastSeq: row.LastSeq}, nil
	}
	before, err := s.seqBefore(ctx, r.Since)
	if err != nil {
		return Replayable{}, err
	}
	r.After = max(r.After, before)
	row, err := s.q.EventReplayCount(ctx, s.pool, dbsqlc.EventReplayCountParams{After: r.After, Since: r.Since, Types: r.like()})
	if err != nil {
		return Replayable{}, fmt.Errorf("counting events: %w", interpret(err))
	}
	return Replayable{Events: row.Events, NotKept: row.Bodiless, FirstSeq: r.After + 1, LastSeq: row.LastSeq}, nil
}

// clockSlack is far more than the order of arrival and the time of arrival can disagree.
const clockSlack = time.Hour

// seqBefore gives an event_log.seq up to which nothing was received since a time; 0: whenever.
func (s *Store) seqBefore(ctx context.Context, since time.Time) (int64, error) {
	if since.IsZero() {
		return 0, nil
	}
	seq, err := s.q.EventSeqSince(ctx, s.pool, since.Add(-clockSlack))
	if err != nil {
		return 0, fmt.Errorf("looking for the first event since %s: %w", since.Format(time.RFC3339), interpret(err))
	}
	return seq - 1, nil
}

// ListReplay reads the next events after r.After and up to upTo, in order. next is where to go on: it is upTo once
// there are no more.
func (s *Store) ListReplay(ctx context.Context, r Replay, upTo int64) (events []Event, next int64, err error) {
	if r.Failed {
		rows, err := s.q.EventReplayListFailed(ctx, s.pool, dbsqlc.EventReplayListFailedParams{
			After: r.After, UpTo: upTo, Since: r.Since, Types: r.like(), MaxRows: replayRows, MaxBytes: replayBytes,
		})
		if err != nil {
			return nil, 0, fmt.Errorf("reading failed events: %w", interpret(err))
		}
		for _, row := range rows {
			events = append(events, eventOf(dbsqlc.EventReplayListRow(row)))
		}
		if len(events) == 0 {
			return nil, upTo, nil
		}
		return events, events[len(events)-1].Seq, nil
	}
	end, err := s.q.EventReplayWindow(ctx, s.pool, dbsqlc.EventReplayWindowParams{After: r.After, UpTo: upTo, WindowSize: replayWindow})
	if err != nil {
		return nil, 0, fmt.Errorf("reading events: %w", interpret(err))
	}
	if end == 0 {
		return nil, upTo, nil
	}
	rows, err := s.q.EventReplayList(ctx, s.pool, dbsqlc.EventReplayListParams{
		After: r.After, UpTo: end, Since: r.Since, Types: r.like(), MaxRows: replayRows, MaxBytes: replayBytes,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("reading events: %w", interpret(err))
	}
	for _, row := range rows {
		events = append(events, eventOf(row))
	}
	if len(events) == 0 {
		return nil, end, nil
	}
	return events, events[len(events)-1].Seq, nil
}

func eventOf(row dbsqlc.EventReplayListRow) Event {
	return Event{Seq: row.Seq, WebhookID: row.WebhookID, Type: row.Type, OccurredAt: orZero(row.OccurredAt), Body: row.Body}
}
