package jobs_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// bigHistory is one of at least n events, a fifth of which come twice and all in any order.
func bigHistory(t *testing.T, n int) (h history, disturbed []store.Delivery) {
	t.Helper()
	random := rand.New(rand.NewPCG(42, 42))
	h = playHistory(t, random, n*2/3, false)
	if len(h.events) < n {
		t.Fatalf("the history has %d events, want %d: play more steps", len(h.events), n)
	}
	return h, disturb(h.events, random)
}

func TestThousandsOfShuffledAndDoubledEventsEndInTheTablesOfTheInOrderRun(t *testing.T) {
	t.Parallel()
	h, disturbed := bigHistory(t, 4200)
	if len(disturbed) < 5000 {
		t.Fatalf("%d deliveries, want 5000", len(disturbed))
	}
	l := newLedger(t)
	random := rand.New(rand.NewPCG(7, 7))
	l.prepare(h)
	l.apply(h.events, 100, 1, random)
	want := outcome(t, l.store)
	l.prepare(h)
	l.apply(disturbed, 200, 4, random)
	sameOutcome(t, fmt.Sprintf("%d deliveries", len(disturbed)), outcome(t, l.store), want)
}

// programs are ingest and worker, built once, as this test was built, into a folder that TestMain removes.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func buildPrograms(t *testing.T) (ingestPath, workerPath string) {
	t.Helper()
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "truenorth-programs-"); programs.err != nil {
			return
		}
		args := []string{"build", "-o", programs.dir + string(filepath.Separator)}
		if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
			args = append(args, "-race") // then the packages below are built already
		}
		command := exec.Command("go", append(args, "./cmd/ingest", "./cmd/worker")...)
		command.Dir = "../.."
		if out, err := command.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("building the programs: %w\n%s", err, out)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return filepath.Join(programs.dir, "ingest"), filepath.Join(programs.dir, "worker")
}

// TestKilledProcessesLoseNothingThatWasAcknowledged kills real ingest and worker processes while a sender delivers a
// shuffled history as Polar would: again and again until an answer of 2xx.
func TestKilledProcessesLoseNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	h, deliveries := bigHistory(t, 4200)
	l := newLedger(t)
	random := rand.New(rand.NewPCG(3, 3))
	l.prepare(h)
	l.apply(h.events, 100, 1, random)
	want := outcome(t, l.store)

	ingestPath, workerPath := buildPrograms(t)
	fake := polarfake.New(polarfake.Options{}) // knows nothing of the history: what it is asked about is not there
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	url := storetest.URL(t)
	s := storetest.Open(t, url)
	h.seed(t, s)

	var processes []*machinetest.Process
	var addrs []string
	for range 2 {
		addr := machinetest.Address(t)
		addrs = append(addrs, addr)
		processes = append(processes,
			machinetest.NewProcess(t, []string{"DATABASE_URL=" + url, "POLAR_WEBHOOK_SECRETS=" + secret, "INGEST_ADDR=" + addr}, ingestPath),
			machinetest.NewProcess(t, []string{
				"DATABASE_URL=" + url, "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + api.URL + "/v1", "POLAR_RATE_LIMIT=0", "WORKER_ADDR=127.0.0.1:0",
				"RECONCILE_INTERVAL=0", // the fake knows nothing of the history
			}, workerPath))
	}
	for _, p := range processes {
		p.Start()
	}

	// At each of these counts of acknowledged deliveries a process, now this, now that, dies.
	const kills = 8
	progress := make(chan int, len(deliveries))
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		next := 0
		for acknowledged := range progress {
			if next < kills && acknowledged >= (next+1)*len(deliveries)/(kills+1) {
				victim := processes[next%len(processes)]
				victim.Kill()
				victim.Start()
				next++
			}
		}
		for _, p := range processes { // all at once, with the queue as full as it is
			p.Kill()
		}
		for _, p := range processes {
			p.Start()
		}
	}()
	var acknowledged atomic.Int64
	queue := make(chan store.Delivery)
	var senders sync.WaitGroup
	client := &http.Client{Timeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // on a machine where all else is tested at the same time
	defer cancel()
	for range 8 {
		senders.Go(func() {
			for d := range queue {
				if err := deliver(ctx, client, addrs, d); err != nil {
					t.Error(err)
					continue
				}
				progress <- int(acknowledged.Add(1))
			}
		})
	}
	for _, d := range deliveries {
		queue <- d
	}
	close(queue)
	senders.Wait()
	close(progress)
	<-killed

	applied := func() error {
		var missing int
		err := s.Pool().QueryRow(t.Context(), "select count(*) from polar.event where state <> 'applied'").Scan(&missing)
		if err == nil && missing > 0 {
			return fmt.Errorf("%d events are not applied", missing)
		}
		return err
	}
	waittest.Within(t, time.Minute, applied)
	sameOutcome(t, "after all kills", outcome(t, s), want)
}

// deliver posts an event until an ingest takes it.
func deliver(ctx context.Context, client *http.Client, addrs []string, d store.Delivery) error {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for try := 0; ; try++ {
		headers, err := polar.Sign(secret, d.WebhookID, time.Now(), d.Body, polar.DerivationAuto)
		if err != nil {
			return err
		}
		target := "http://" + addrs[(try+len(d.WebhookID)+int(d.WebhookID[0]))%len(addrs)] + ingest.Route
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(d.Body))
		if err != nil {
			return err
		}
		request.Header = headers
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			switch response.StatusCode / 100 {
			case 2:
				return nil
			case 4:
				return fmt.Errorf("event %s was refused with %d", d.WebhookID, response.StatusCode)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("event %s was never taken: %w", d.WebhookID, ctx.Err())
		case <-pause.C:
		}
	}
}
