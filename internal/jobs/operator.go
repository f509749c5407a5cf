package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// MostReplayed bounds the events that a person applies again at once.
const MostReplayed = 100

// mostRetried bounds the failed events that a person gives new jobs at once, and how many one job gets.
const (
	mostRetried   = 10_000
	retriedPerJob = 500
)

// ErrTooMany is what ReplayEvents answers to more than MostReplayed.
var ErrTooMany = errors.New("too many at once")

// ReplayEvents applies these events again in this process, whatever became of them, and notes who asked. What is no longer
// kept is left out. Errors: ErrTooMany, ErrWord.
func ReplayEvents(ctx context.Context, s *store.Store, logger *slog.Logger, seqs []int64, word store.Word) (Replayed, error) {
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	if len(seqs) > MostReplayed {
		return Replayed{}, fmt.Errorf("%w: %d events, %d at most", ErrTooMany, len(seqs), MostReplayed)
	}
	deed := word.Deed("replay_events", "events", map[string]any{"events": seqs})
	if len(seqs) == 1 {
		deed.Subject = fmt.Sprintf("event %d", seqs[0])
	}
	if err := CheckWord(word); err != nil {
		return Replayed{}, err
	}
	r, err := newReplayer(s, logger)
	if err != nil {
		return Replayed{}, err
	}
	events, err := s.ListEventsOfAnyState(ctx, seqs)
	if err != nil {
		return Replayed{}, err
	}
	// Noted before: applying is a transaction of the worker's own kind.
	if err := s.Audit(ctx, deed); err != nil {
		return Replayed{}, err
	}
	report := Replayed{Events: int64(len(events)), Total: int64(len(events)), NotKept: int64(len(seqs) - len(events))}
	if len(events) == 0 {
		return report, nil
	}
	err = stubbornly(ctx, func() error {
		report.Failures, err = r.applyEvents(ctx, events)
		return err
	})
	report.Failed = int64(len(report.Failures))
	return report, err
}

// RetryFailedEvents gives failed events of a type, empty for any, new jobs, those tried least first, and notes who asked. It
// returns how many: 10,000 at most. Errors: ErrWord.
func RetryFailedEvents(ctx context.Context, s *store.Store, eventType string, word store.Word) (events int, err error) {
	subject := "failed events"
	if eventType != "" {
		subject += " of type " + eventType
	}
	err = inPersonsTx(ctx, s, word.Deed("retry_events", subject, nil), func(tx *store.Tx, l *linker) error {
		seqs, err := tx.ListFailedSeqs(ctx, eventType, mostRetried)
		if err != nil {
			return err
		}
		events = len(seqs)
		var inserts []river.InsertManyParams
		for chunk := range slices.Chunk(seqs, retriedPerJob) {
			inserts = append(inserts, river.InsertManyParams{Args: ApplyEventsArgs{Events: chunk}})
		}
		if len(inserts) == 0 {
			return nil
		}
		if _, err := l.client.InsertManyTx(ctx, tx.Pgx(), inserts); err != nil {
			return fmt.Errorf("enqueueing %d events: %w", events, store.Interpret(err))
		}
		return nil
	})
	return events, err
}

// Why a checkout request is not tried again.
var (
	ErrRequestLive = errors.New("the request is alive")
	ErrRequestOver = errors.New("the request is over")
)

// AskAgain asks anew for what a request that failed or expired asked for, under the same key, and notes who did. It returns
// the new request; where another live one has the key, that one. Errors: store.ErrNotFound, ErrRequestLive, ErrRequestOver for
// one that succeeded, ErrWord, store.ErrRefused.
func AskAgain(ctx context.Context, s *store.Store, id uuid.UUID, word store.Word) (again uuid.UUID, err error) {
	request, err := s.GetCheckoutRequest(ctx, id)
	if err != nil {
		return uuid.Nil, err
	}
	switch request.State {
	case store.RequestFailed, store.RequestExpired:
	case store.RequestSucceeded:
		return uuid.Nil, fmt.Errorf("%w: %s succeeded", ErrRequestOver, id)
	default:
		return uuid.Nil, fmt.Errorf("%w: %s is %s", ErrRequestLive, id, request.State)
	}
	key := ""
	if request.Key != nil {
		key = *request.Key
	}
	deed := word.Deed("retry_checkout", "checkout_request "+id.String(), map[string]any{})
	err = inPersonsTx(ctx, s, deed, func(tx *store.Tx, _ *linker) error {
		// Who presses twice asks once.
		if again, err = tx.LockRetried(ctx, id); err != nil || again != uuid.Nil {
			deed.Detail["request_id"] = again
			return err
		}
		again, err = tx.CreateCheckoutRequest(ctx, request.Params, key)
		deed.Detail["request_id"] = again // a map, so that the note has it
		return err
	})
	return again, err
}

// TryNow lets a worker take up a request that waits for its next try, and notes who asked. Errors: store.ErrNotFound,
// ErrRequestLive for one that has its session or whose try goes on, ErrRequestOver, ErrWord.
func TryNow(ctx context.Context, s *store.Store, id uuid.UUID, word store.Word) error {
	request, err := s.GetCheckoutRequest(ctx, id)
	if err != nil {
		return err
	}
	switch request.State {
	case store.RequestQueued, store.RequestCreating:
	case store.RequestOpen, store.RequestConfirmed:
		return fmt.Errorf("%w: %s is %s", ErrRequestLive, id, request.State)
	default:
		return fmt.Errorf("%w: %s is %s", ErrRequestOver, id, request.State)
	}
	return inPersonsTx(ctx, s, word.Deed("try_checkout", "checkout_request "+id.String(), nil), func(tx *store.Tx, _ *linker) error {
		woken, err := tx.WakeCheckoutJob(ctx, id)
		if err == nil && !woken {
			err = fmt.Errorf("%w: %s has no job that waits: a try goes on, or upkeep gives it one within a minute", ErrRequestLive, id)
		}
		return err
	})
}

// AskForSweep lets a worker compare Polar's list of a type, every page of it, and notes who asked. Errors: ErrWord, and what
// says that the type is not mirrored.
func AskForSweep(ctx context.Context, s *store.Store, objectType string, word store.Word) error {
	if !slices.Contains(mirrored, objectType) {
		return fmt.Errorf("objects of type %q are not mirrored", objectType)
	}
	return inPersonsTx(ctx, s, word.Deed("sweep", "list of type "+objectType, nil), func(tx *store.Tx, l *linker) error {
		if _, err := l.client.InsertTx(ctx, tx.Pgx(), ReconcileArgs{Types: []string{objectType}, Full: true}, nil); err != nil {
			return fmt.Errorf("enqueueing a sweep: %w", store.Interpret(err))
		}
		return nil
	})
}

// newReplayer makes what applies events in this process: it inserts jobs and works none.
func newReplayer(s *store.Store, logger *slog.Logger) (*Runner, error) {
	client, err := river.NewClient(riverpgxv5.New(s.Pool()), &river.Config{Schema: store.Schema, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("configuring River: %w", err)
	}
	return &Runner{store: s, client: client, logger: logger, guard: &guard{store: s}, timing: newTiming(0, 0)}, nil
}

// MirroredTypes lists the types of objects that are mirrored and swept.
func MirroredTypes() []string { return slices.Clone(mirrored) }

// EventTypes lists the types of Polar's events that are known; new ones appear often.
func EventTypes() []string { return polar.EventTypes() }
