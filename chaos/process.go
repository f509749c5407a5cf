package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// restartPause is after how long a program that ended by itself is started again, as systemd would.
const restartPause = time.Second

// account is whom a program runs as.
type account struct{ uid, gid uint32 }

// process is a program of the run: what a host's service manager keeps running, until a fault takes it down.
type process struct {
	name string
	host *host
	argv []string
	env  []string
	as   *account // nil: who runs this
	log  string   // path of the file that its output goes to

	ended func(p *process, why string) // told where it ended by itself

	mu     sync.Mutex
	cmd    *exec.Cmd
	gone   chan struct{} // closed when cmd has ended
	wanted bool
	starts int
}

// start starts the program, and from then on keeps it running.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		return nil
	}
	p.wanted = true
	return p.launch()
}

// launch starts the program. The caller holds p.mu.
func (p *process) launch() error {
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.name, err)
	}
	defer output.Close()
	p.starts++
	_, _ = fmt.Fprintf(output, "--- %s: start %d of %s\n", time.Now().UTC().Format(time.RFC3339Nano), p.starts, p.argv[0])
	cmd := exec.Command(p.argv[0], p.argv[1:]...) //nolint:noctx // faults end it, and the end of the run
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.as.uid, Gid: p.as.gid}
	}
	if err := p.host.start(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	gone := make(chan struct{})
	p.cmd, p.gone = cmd, gone
	go func() {
		err := cmd.Wait()
		close(gone)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cmd != cmd || !p.wanted {
			return
		}
		p.ended(p, fmt.Sprint(err))
		time.AfterFunc(restartPause, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.wanted && p.cmd == cmd {
				if err := p.launch(); err != nil {
					p.ended(p, err.Error())
				}
			}
		})
	}()
	return nil
}

// kill ends the program as a power cut would, and leaves it down until it is started.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// stop asks the program to end, waits, and leaves it down.
func (p *process) stop() { p.end(syscall.SIGTERM) }

func (p *process) end(how syscall.Signal) {
	p.mu.Lock()
	cmd, gone := p.cmd, p.gone
	p.wanted = false
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(how) // gone already: as wanted
	late := time.AfterFunc(leaveTime, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	<-gone
}

// pid is the process's number; 0 where it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	select {
	case <-p.gone:
		return 0
	default:
		return p.cmd.Process.Pid
	}
}
