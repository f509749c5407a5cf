package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatTakesLongToFindOutIsRememberedForAWhile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		takes time.Duration
		after time.Duration
		found int // how often, of two
	}{
		"quick":                        {negligible, 0, 2},
		"slow, asked again at once":    {400 * time.Millisecond, 0, 1},
		"slow, asked again soon":       {400 * time.Millisecond, 19 * time.Second, 1},
		"slow, asked again later":      {400 * time.Millisecond, 21 * time.Second, 2},
		"very slow, asked again soon":  {time.Minute, rememberedAtMost - time.Second, 1},
		"very slow, asked again later": {time.Minute, rememberedAtMost + time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, found := newRemembered[int](), 0
				find := func(context.Context) (int, error) { //nolint:unparam // as get wants it
					<-time.After(test.takes)
					found++
					return found, nil
				}
				ask := func(want int) {
					t.Helper()
					asked := time.Now()
					value, at, err := r.get(t.Context(), find)
					if err != nil || value != want {
						t.Errorf("got %d (%v), want %d", value, err, want)
					}
					if fresh := !at.Before(asked); fresh != (want == found && time.Since(asked) > 0) {
						t.Errorf("it says that it was found out %s before it was asked", asked.Sub(at))
					}
				}
				ask(1)
				<-time.After(test.after)
				ask(test.found)
				if found != test.found {
					t.Errorf("found out %d times, want %d", found, test.found)
				}
			})
		})
	}
}

func TestAFailureIsNotRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, away := newRemembered[int](), errors.New("away")
		find := func(err error) func(context.Context) (int, error) {
			return func(context.Context) (int, error) {
				<-time.After(time.Second)
				return 7, err
			}
		}
		if _, _, err := r.get(t.Context(), find(away)); !errors.Is(err, away) {
			t.Fatalf("got %v, want the failure", err)
		}
		if value, _, err := r.get(t.Context(), find(nil)); err != nil || value != 7 {
			t.Fatalf("got %d (%v), want what is found out afterwards", value, err)
		}
	})
}

func TestWhoAsksWhileAnotherFindsOutWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, release := newRemembered[int](), make(chan struct{})
		go func() {
			_, _, _ = r.get(t.Context(), func(context.Context) (int, error) {
				<-release
				return 1, nil
			})
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := r.get(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of its time", err)
		}
		close(release)
		synctest.Wait()
	})
}
