package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The run's processes live in namespaces of their own: of processes, mounts, networks and shared memory. So the kernel itself
// removes everything when the first process in them ends, however that comes about: no host, mount or server can be left over.
const runNamespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC

// Hidden first arguments of this program: the first process in the namespaces, and the run itself.
const (
	stageInit = "inside-init"
	stageRun  = "inside-run"
)

// leaveTime is how long a run that was told to end may take for it.
const leaveTime = 30 * time.Second

// allowed tells why the machine does not allow namespaces; nil where it does.
func allowed() error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and mounts are for root, and this is not root")
	}
	probe := exec.Command("true") //nolint:noctx // it ends at once
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: runNamespaces}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("this machine allows no namespaces (in a container, run it with --privileged): %w", err)
	}
	tun, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("this machine has no TUN devices: %w", err)
	}
	return tun.Close()
}

// enter runs this program again in namespaces of its own, and returns its exit code.
func enter(ctx context.Context, args []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("finding this program: %w", err)
	}
	runtime.LockOSThread()                                               // what is sent at the parent's death is sent at the death of its thread
	first := exec.Command(self, append([]string{stageInit}, args...)...) //nolint:gosec,noctx // this very program; it is ended below, and not at once
	first.Stdout, first.Stderr = os.Stdout, os.Stderr
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: runNamespaces, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := first.Start(); err != nil {
		return 0, fmt.Errorf("starting in namespaces: %w", err)
	}
	defer context.AfterFunc(ctx, func() {
		_ = first.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(leaveTime, func() { _ = first.Process.Kill() })
	})()
	err = first.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return 0, fmt.Errorf("waiting for the run: %w", err)
	}
	return max(first.ProcessState.ExitCode(), 0), killedError(first.ProcessState)
}

func killedError(state *os.ProcessState) error {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Errorf("the run was ended by the signal %s", status.Signal())
	}
	return nil
}

// beInit is the first process in the namespaces: it makes them habitable, starts the run and buries whatever dies.
func beInit(args []string) (int, error) {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE}, // what is mounted here is seen here alone
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0}, // where ip keeps its names of networks
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return 0, fmt.Errorf("mounting %s at %s: %w", m.kind, m.target, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("finding this program: %w", err)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	run, err := syscall.ForkExec(self, append([]string{self, stageRun}, args...), &syscall.ProcAttr{ //nolint:gosec // this very program
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, fmt.Errorf("starting the run: %w", err)
	}
	go func() {
		for range asked {
			_ = syscall.Kill(run, syscall.SIGTERM)
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for processes: %w", err)
		case pid == run && status.Exited():
			return status.ExitStatus(), nil
		case pid == run:
			return 0, fmt.Errorf("the run was ended by the signal %s", status.Signal())
		}
	}
}

// processesIn lists the processes whose network is that of this namespace, by inode.
func processesIn(inode uint64) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	wanted := fmt.Sprintf("net:[%d]", inode)
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if network, err := os.Readlink("/proc/" + entry.Name() + "/ns/net"); err == nil && network == wanted {
			pids = append(pids, pid)
		}
	}
	return pids
}

// residentBytes is the memory that a process holds; 0 where it is gone.
func residentBytes(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
