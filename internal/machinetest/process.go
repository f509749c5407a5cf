package machinetest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that a test starts, kills without warning and starts again.
type Process struct {
	tb      testing.TB
	env     []string
	command []string

	mu     sync.Mutex
	run    *exec.Cmd
	output *output
	ended  chan struct{} // closed once run has ended
}

// output may be read while the program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p) //nolint:wrapcheck // it never fails
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// NewProcess is a program that is not started yet, with its environment. The end of the test kills it; where the test failed, the
// last of what it said is logged.
func NewProcess(tb testing.TB, env []string, program string, args ...string) *Process {
	tb.Helper()
	p := &Process{tb: tb, env: env, command: append([]string{program}, args...)}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			text := p.Output()
			const most = 4000
			tb.Logf("%s, the last of what it said:\n%s", filepath.Base(program), text[max(0, len(text)-most):])
		}
	})
	return p
}

// Start starts the program, with more in its environment. Of the test's own, nothing that is set for truenorth goes into it.
func (p *Process) Start(more ...string) {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	run := exec.Command(p.command[0], p.command[1:]...) //nolint:noctx // the test kills it
	run.Env = slices.Concat(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "DATABASE_URL") || strings.HasPrefix(v, "POLAR_") || strings.HasPrefix(v, "TRUENORTH_")
	}), p.env, more)
	said, ended := &output{}, make(chan struct{})
	run.Stdout, run.Stderr = said, said
	if err := run.Start(); err != nil {
		p.tb.Errorf("starting %s: %v", p.command[0], err)
		return
	}
	p.run, p.output, p.ended = run, said, ended
	go func() {
		defer close(ended)
		_ = run.Wait() // how it ended is asked for by others
	}()
}

// Kill ends the program as a power cut does.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return
	}
	_ = p.run.Process.Kill()
	<-p.ended
}

// Wait waits for the program's own end. Errors: it does not end within the limit, or ends otherwise than by exit code 0.
func (p *Process) Wait(limit time.Duration) error {
	state, err := p.end(limit)
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s ended with %s:\n%s", filepath.Base(p.command[0]), state, p.Output())
	}
	return err
}

// WaitKilled waits until somebody kills the program. Errors: it goes on for longer than the limit, or ends otherwise.
func (p *Process) WaitKilled(limit time.Duration) error {
	state, err := p.end(limit)
	if err != nil {
		return err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s ended with %s, not by a kill:\n%s", filepath.Base(p.command[0]), state, p.Output())
	}
	return nil
}

func (p *Process) end(limit time.Duration) (*os.ProcessState, error) {
	p.mu.Lock()
	run, ended := p.run, p.ended
	p.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
		return run.ProcessState, nil
	case <-timer.C:
		return nil, fmt.Errorf("%s goes on after %s", filepath.Base(p.command[0]), limit)
	}
}

// Output is what the program has said since it was last started.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.output == nil {
		return ""
	}
	return p.output.String()
}
