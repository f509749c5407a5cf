package embeddedpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// shutdownLimit is how long a server may take for an orderly shutdown, its checkpoint included.
	shutdownLimit = 30 * time.Second

	// abortLimit is how long a server may take for an immediate shutdown. PostgreSQL gives its own processes 5 s.
	abortLimit = 10 * time.Second

	// tailLines is how much of the server's log is kept for an error's text.
	tailLines = 20
)

// process is a running postmaster, PostgreSQL's first process.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	ending atomic.Bool   // an end was asked for
	log    *logTail
}

// startError is a server that ended while it was starting.
type startError struct {
	state string
	log   string
}

func (e *startError) Error() string {
	return fmt.Sprintf("starting PostgreSQL: it ended with %s and said: %s", e.state, e.log)
}

func (e *startError) portTaken() bool { return strings.Contains(e.log, "Address already in use") }

func (e *startError) stillInUse() bool {
	return strings.Contains(e.log, "pre-existing shared memory block")
}

// startPostmaster starts the server process and waits until it takes connections.
func startPostmaster(ctx context.Context, s *Server, port int) (*process, error) {
	// The server outlives ctx, which bounds the start only.
	cmd := command(context.WithoutCancel(ctx), s.acct, s.home.dir, s.inst.path("postgres"), s.arguments(port)...)
	dieWithParent(cmd.SysProcAttr)

	p := &process{cmd: cmd, done: make(chan struct{}), log: &logTail{log: s.log}}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.WaitDelay = abortLimit

	started := make(chan error, 1)

	go func() {
		// The kernel takes the end of the thread that started the process for the end of the parent, so the thread
		// has to live as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)

		err := cmd.Start()
		started <- err

		if err != nil {
			return
		}

		if err := cmd.Wait(); !p.ending.Load() {
			s.log.ErrorContext(ctx, "PostgreSQL ended unasked", slog.Any("error", err), slog.String("said", p.log.String()))
		}
	}()

	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting PostgreSQL%s: %w", s.acct.suffix(), err)
	}

	if err := p.awaitReady(ctx, s.home.cluster()); err != nil {
		return nil, err
	}

	return p, nil
}

// awaitReady waits until the postmaster has written into its pid file that it takes connections.
func (p *process) awaitReady(ctx context.Context, cluster string) error {
	for {
		if f, err := readPIDFile(cluster); err == nil && f.pid == p.cmd.Process.Pid && f.ready {
			return nil
		}

		select {
		case <-p.done:
			return &startError{state: p.cmd.ProcessState.String(), log: p.log.String()}
		case <-ctx.Done():
			err := fmt.Errorf("waiting for PostgreSQL to take connections: %w; its log: %s", ctx.Err(), p.log)

			return errors.Join(err, p.end(syscall.SIGQUIT))
		case <-time.After(pollInterval):
		}
	}
}

// end sends a signal of PostgreSQL's shutdown modes and waits for the end, with harder means when it is late.
func (p *process) end(sig syscall.Signal) error {
	p.ending.Store(true)

	if !p.signal(sig, shutdownLimit) && !p.signal(syscall.SIGQUIT, abortLimit) && !p.signal(syscall.SIGKILL, abortLimit) {
		return fmt.Errorf("stopping PostgreSQL: process %d does not end", p.cmd.Process.Pid)
	}

	return nil
}

// signal reports whether the process ended within the limit.
func (p *process) signal(sig syscall.Signal, limit time.Duration) bool {
	// An error means that the process has ended already; done says so too.
	_ = p.cmd.Process.Signal(sig)

	select {
	case <-p.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// pidFile is what this package reads of postmaster.pid.
type pidFile struct {
	pid   int
	ready bool
}

func readPIDFile(cluster string) (pidFile, error) {
	const pidLine, statusLine = 0, 7

	text, err := os.ReadFile(filepath.Join(cluster, "postmaster.pid"))
	if err != nil {
		return pidFile{}, fmt.Errorf("reading the server's pid file: %w", err)
	}

	lines := strings.Split(string(text), "\n")

	pid, err := strconv.Atoi(strings.TrimSpace(lines[pidLine]))
	if err != nil {
		return pidFile{}, fmt.Errorf("reading postmaster.pid: %w", err)
	}

	return pidFile{pid: pid, ready: len(lines) > statusLine && strings.TrimSpace(lines[statusLine]) == "ready"}, nil
}

// endLeftover shuts down the server that an earlier run left in the data folder, if any. The caller holds the folder's
// lock, so nobody watches over that server any more.
func endLeftover(ctx context.Context, cluster string, log *slog.Logger) error {
	f, err := readPIDFile(cluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	if err != nil {
		return err
	}

	if !runsOn(ctx, f.pid, cluster) {
		if syscall.Kill(f.pid, 0) == nil {
			// The system gave the number to another process. PostgreSQL would take that for a server that runs.
			if err := os.Remove(filepath.Join(cluster, "postmaster.pid")); err != nil {
				return fmt.Errorf("removing a stale pid file: %w", err)
			}
		}

		return nil // PostgreSQL knows that the file is stale, and checks for survivors before it removes it
	}

	log.WarnContext(ctx, "stopping a PostgreSQL server that an earlier run left behind",
		slog.Int("pid", f.pid), slog.String("data", cluster))

	for _, step := range []struct {
		sig   syscall.Signal
		limit time.Duration
	}{{syscall.SIGINT, shutdownLimit}, {syscall.SIGQUIT, abortLimit}} {
		if err := syscall.Kill(f.pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping the PostgreSQL server left as process %d: %w", f.pid, err)
		}

		for deadline := time.Now().Add(step.limit); time.Now().Before(deadline); {
			if !runsOn(ctx, f.pid, cluster) {
				return nil
			}

			if err := pause(ctx); err != nil {
				return err
			}
		}
	}

	return fmt.Errorf("the PostgreSQL server left as process %d does not end: stop it by hand", f.pid)
}

// runsOn reports whether the process is a postmaster of this data folder. An ended process that nobody collected has
// no command line, and counts as gone.
func runsOn(ctx context.Context, pid int, cluster string) bool {
	if _, err := os.Stat("/proc/self/cmdline"); err == nil {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))

		return err == nil && slices.Contains(strings.Split(string(line), "\x00"), cluster)
	}

	line, err := exec.CommandContext(ctx, "ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()

	return err == nil && strings.Contains(string(line), " -D "+cluster)
}

// logTail passes the server's log on, line by line, and keeps its end for an error's text.
type logTail struct {
	log *slog.Logger

	mu      sync.Mutex
	partial []byte
	lines   []string
}

func (t *logTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.partial = append(t.partial, b...)

	for {
		line, rest, found := bytes.Cut(t.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}

		text := string(line)
		t.partial = bytes.Clone(rest)
		t.lines = append(t.lines, text)
		t.lines = t.lines[max(0, len(t.lines)-tailLines):]
		t.log.Debug(text)
	}
}

// String is the end of the log in one line.
func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()

	return strings.Join(t.lines, "; ")
}
