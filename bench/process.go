package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// process is a subject in a process of its own, so that what it uses is its own.
type process struct {
	places

	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// startSubject starts this very program again as a subject and returns once it works.
func startSubject(ctx context.Context, o orders) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	p := &process{name: o.Subject, cmd: exec.CommandContext(ctx, self, "serve")}
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Subject, err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Subject, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Subject, err)
	}
	if err := json.NewEncoder(p.stdin).Encode(o); err != nil {
		return nil, errors.Join(fmt.Errorf("telling %s what to do: %w", o.Subject, err), p.stop())
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.places)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("waiting for %s to work: %w", o.Subject, err), p.stop())
	}
	return p, nil
}

// stop ends the process and waits for its end.
func (p *process) stop() error {
	_ = p.stdin.Close()
	kill := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s ended badly: %w", p.name, err)
	}
	return nil
}

// ask sends a request to the control port.
func (p *process) ask(ctx context.Context, method, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.Control+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", p.name, path, err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", p.name, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("asking %s for %s: %s: %s", p.name, path, response.Status, body), err)
	}
	return body, nil
}

func (p *process) askJSON(ctx context.Context, method, path string, into any) error {
	body, err := p.ask(ctx, method, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading what %s answers to %s: %w", p.name, path, err)
	}
	return nil
}

func (p *process) usage(ctx context.Context) (u usage, err error) {
	err = p.askJSON(ctx, http.MethodGet, "/usage", &u)
	return u, err
}

// profiled does something while the processes' CPU profiles are taken, and writes these and their profiles of allocations
// and of locks as dir/name-process.kind.pprof. Without dir it only does it.
func profiled(ctx context.Context, dir, name string, do func() error, processes ...*process) error {
	if dir == "" {
		return do()
	}
	for _, p := range processes {
		if _, err := p.ask(ctx, http.MethodPost, "/profile/start"); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	for _, p := range processes {
		for kind, fetch := range map[string]struct{ method, path string }{
			"cpu": {http.MethodPost, "/profile/stop"}, "allocs": {http.MethodGet, "/debug/pprof/allocs"}, "mutex": {http.MethodGet, "/debug/pprof/mutex"},
		} {
			profile, err := p.ask(ctx, fetch.method, fetch.path)
			if err != nil {
				return err
			}
			file := filepath.Join(dir, fmt.Sprintf("%s-%s.%s.pprof", strings.ReplaceAll(name, "/", "-per-"), p.name, kind))
			if err := os.WriteFile(file, profile, 0o600); err != nil {
				return fmt.Errorf("writing a profile: %w", err)
			}
		}
	}
	return nil
}
