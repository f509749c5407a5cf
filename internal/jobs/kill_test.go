package jobs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func TestAWorkerKilledInTheMiddleOfACreateLeavesExactlyOneSessionWithinAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true, idle: true}) // no event tells: Polar's list must be asked
	_, program := buildPrograms(t)
	worker := func() *machinetest.Process {
		p := machinetest.NewProcess(t, []string{
			"DATABASE_URL=" + w.store.Pool().Config().ConnString(), "POLAR_ACCESS_TOKEN=polar_oat_test",
			"POLAR_API_URL=" + w.api.URL + "/v1", "POLAR_RATE_LIMIT=0", "WORKER_ADDR=127.0.0.1:0",
		}, program)
		p.Start()
		return p
	}
	w.inject(onCheckouts(polarfake.FaultHangAfter))
	first := worker()
	id := w.ask("usr_ada")
	waittest.Within(t, 30*time.Second, func() error {
		if len(w.fake.Checkouts()) == 0 {
			return errors.New("the call has not arrived")
		}
		return nil
	})
	first.Kill()
	killed := time.Now()
	worker()
	waittest.Within(t, time.Minute, func() error {
		request, err := w.client.Request(t.Context(), id)
		if err == nil && request.State != "open" {
			err = errors.New("the request is " + request.State)
		}
		return err
	})
	t.Logf("taken up and open %s after the kill", time.Since(killed).Round(time.Second))
	w.wantSessions(1)
	if n := w.fake.Requests()[postCheckout]; n != 1 {
		t.Errorf("%d calls created sessions, want 1", n)
	}
}
