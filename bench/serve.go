package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	runtimepprof "runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// orders are what a subprocess is told on its standard input. Its end ends the subprocess, so that none outlives the run.
type orders struct {
	Subject  string `json:"subject"`
	Database string `json:"database"`
	API      string `json:"api"` // the fake Polar's
	Profile  bool   `json:"profile"`

	Retention time.Duration `json:"retention"` // of events; 0: for ever
}

// places are what it answers once it works.
type places struct {
	Addr    string `json:"addr"` // of its routes; empty where it has none
	Control string `json:"control"`
}

// subject is what a subprocess does.
type subject struct {
	server  *http.Server                                  // nil: it has no routes
	run     func(ctx context.Context, ready func()) error // nil: it works nothing
	control map[string]http.HandlerFunc                   // further routes of the control port
	end     func()
}

// subjects are all that can be served, by name.
var subjects = map[string]func(orders, *slog.Logger) (subject, error){
	"verify": newVerifyOnly, "baseline": newBaseline, "baseline-worker": newBaselineWorker,
	"truenorth": newIngest, "worker": newWorker, "sweeper": newSweeper, "pruner": newPruner,
}

// serve is the subprocess: `bench serve`.
func serve(ctx context.Context, stdin io.Reader, stdout io.Writer) (err error) {
	signal.Ignore(os.Interrupt) // the terminal's goes to all; the parent ends us
	var o orders
	decoder := json.NewDecoder(stdin)
	if err := decoder.Decode(&o); err != nil {
		return fmt.Errorf("reading orders: %w", err)
	}
	create, known := subjects[o.Subject]
	if !known {
		return fmt.Errorf("there is no subject %q", o.Subject)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	if o.Profile {
		runtime.SetMutexProfileFraction(10)
	}
	// A program logs as it does by default. Where the log goes is not what is measured.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer null.Close()
	s, err := create(o, slog.New(slog.NewJSONHandler(null, nil)).With(slog.String("program", o.Subject)))
	if err != nil {
		return err
	}
	defer s.end()
	return s.serve(ctx, stdout)
}

func (s subject) serve(ctx context.Context, stdout io.Writer) error {
	group, ctx := errgroup.WithContext(ctx)
	listen := func(server *http.Server) (string, error) {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("listening: %w", err)
		}
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving: %w", err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			return server.Close()
		})
		return listener.Addr().String(), nil
	}
	var p places
	var err error
	if p.Control, err = listen(&http.Server{Handler: s.controlRoutes(), ReadHeaderTimeout: time.Minute}); err != nil {
		return err
	}
	if s.server != nil {
		if p.Addr, err = listen(s.server); err != nil {
			return err
		}
	}
	ready := func() { fmt.Fprintf(stdout, "{\"addr\":%q,\"control\":%q}\n", p.Addr, p.Control) }
	if s.run == nil {
		ready()
	} else {
		group.Go(func() error { return s.run(ctx, ready) })
	}
	return group.Wait()
}

// controlRoutes are those that the parent measures by.
func (s subject) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /usage", func(w http.ResponseWriter, _ *http.Request) {
		u, err := readUsage()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answerJSON(w, u)
	})
	var profile bytes.Buffer
	mux.HandleFunc("POST /profile/start", func(w http.ResponseWriter, _ *http.Request) {
		if err := runtimepprof.StartCPUProfile(&profile); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /profile/stop", func(w http.ResponseWriter, _ *http.Request) {
		runtimepprof.StopCPUProfile()
		_, _ = w.Write(profile.Bytes())
		profile.Reset()
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	for pattern, handler := range s.control {
		mux.HandleFunc(pattern, handler)
	}
	return mux
}

func answerJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// usage is what a process has used since it began.
type usage struct {
	CPU        float64 `json:"cpu_seconds"`
	Allocs     uint64  `json:"allocs"`
	AllocBytes uint64  `json:"alloc_bytes"`
	RSS        uint64  `json:"rss_bytes"`
	PeakRSS    uint64  `json:"peak_rss_bytes"`
	Goroutines uint64  `json:"goroutines"`
}

func (u usage) peakMiB() float64 { return mib(u.PeakRSS) }

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func readUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, fmt.Errorf("asking for the CPU time: %w", err)
	}
	u := usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()}
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(samples)
	u.Allocs, u.AllocBytes = samples[0].Value.Uint64()+samples[1].Value.Uint64(), samples[2].Value.Uint64()
	u.Goroutines = samples[3].Value.Uint64()

	// The greatest of getrusage would be the parent's, from which this process was forked.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return usage{}, fmt.Errorf("asking for the memory used, which needs Linux: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		for name, into := range map[string]*uint64{"VmHWM:": &u.PeakRSS, "VmRSS:": &u.RSS} {
			rest, found := strings.CutPrefix(line, name)
			if !found {
				continue
			}
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return usage{}, fmt.Errorf("reading %q: %w", line, err)
			}
			*into = kib << 10
		}
	}
	return u, nil
}

// swept is what one sweep did.
type swept struct {
	Seconds float64 `json:"seconds"`
	Seen    int64   `json:"seen"`
	Drifted int64   `json:"drifted"`
}
