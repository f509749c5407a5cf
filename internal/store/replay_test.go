package store_test

import (
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// logged are events of 100 days, one every hour, in an order that is a little off, with gaps where some were removed.
const logged = `
	insert into polar.event_log (seq, webhook_id, type, received_at, batch, body) overriding system value
		select n, n::text, 'order.paid', timestamptz '2026-01-01 00:00Z' + n * interval '1 hour' + (n * 7919 % 11) * interval '1 minute' * case when n % 2 = 0 then 1 else -1 end, 1, '{}'
		  from generate_series(1, 2400) n
		 where n > 200 and n % 100 not between 30 and 60;`

func TestEventsReceivedSinceATimeAreFoundWithoutReadingThoseBefore(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	if _, err := s.Pool().Exec(t.Context(), logged); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	for hours := -10; hours < 2420; hours += 13 {
		since := began.Add(time.Duration(hours)*time.Hour + 5*time.Minute)
		var want, first int64
		if err := s.Pool().QueryRow(t.Context(), "select count(*), coalesce(min(seq), 0) from polar.event_log where received_at >= $1", since).Scan(&want, &first); err != nil {
			t.Fatal(err)
		}
		fits, err := s.CountReplay(t.Context(), store.Replay{Since: since})
		if err != nil {
			t.Fatal(err)
		}
		if fits.Events != want {
			t.Errorf("since hour %d: %d events, want %d", hours, fits.Events, want)
		}
		var inVain int
		if err := s.Pool().QueryRow(t.Context(), "select count(*) from polar.event_log where seq >= $1 and seq < $2", fits.FirstSeq, first).Scan(&inVain); err != nil {
			t.Fatal(err)
		}
		if inVain > 3 {
			t.Errorf("since hour %d: %d events are read that were received before", hours, inVain)
		}
	}
}

func TestAnEmptyLogHasNothingToReplaySinceAnyTime(t *testing.T) {
	t.Parallel()
	fits, err := storetest.New(t).CountReplay(t.Context(), store.Replay{Since: time.Now().Add(-time.Hour)})
	if err != nil || fits.Events != 0 || fits.LastSeq != 0 {
		t.Errorf("got %+v (%v), want nothing", fits, err)
	}
}
