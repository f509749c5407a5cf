package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	tunDevice = "/dev/net/tun"
	tunName   = "tn0"
	// tunMTU is large, as each packet costs a turn through this program.
	tunMTU = 9000
)

// host is a network namespace with one way out: a TUN device, whose other end the router holds.
type host struct {
	name  string
	addr  netip.Addr
	space *os.File // the namespace; nil: this process's own
	inode uint64
	tun   *os.File
}

// newHost makes a host. An own one is the namespace that this process is in already.
func newHost(ctx context.Context, name string, addr netip.Addr, own bool) (*host, error) {
	h := &host{name: name, addr: addr}
	in := []string{}
	path := "/proc/self/ns/net"
	if !own {
		if err := ip(ctx, "netns", "add", name); err != nil {
			return nil, err
		}
		in = []string{"-n", name}
		path = "/run/netns/" + name
		space, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("opening the network of %s: %w", name, err)
		}
		h.space = space
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return nil, fmt.Errorf("looking at the network of %s: %w", name, err)
	}
	h.inode = stat.Ino
	if err := h.within(func() (err error) { h.tun, err = openTUN(); return err }); err != nil {
		return nil, fmt.Errorf("making the device of %s: %w", name, err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", addr.String() + "/24", "dev", tunName},
		{"link", "set", tunName, "mtu", strconv.Itoa(tunMTU), "txqueuelen", "1000", "up"},
	} {
		if err := ip(ctx, append(in, args...)...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// openTUN makes the device in the namespace of the calling thread.
func openTUN() (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", tunDevice, err)
	}
	request, err := unix.NewIfreq(tunName)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("asking for a TUN device: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), tunDevice), nil // only now: before, there is nothing to poll
}

// within does something on a thread in the host's namespace. What it opens stays there.
func (h *host) within(do func() error) error {
	if h.space == nil {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(h.space.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering the network of %s: %w", h.name, err)
			return
		}
		done <- do()
	}()
	return <-done
}

// start starts a program on the host.
func (h *host) start(program *exec.Cmd) error { return h.within(program.Start) }

// listen listens on a port of the host.
func (h *host) listen(ctx context.Context, port int) (listener net.Listener, err error) {
	err = h.within(func() (err error) {
		var lc net.ListenConfig
		if listener, err = lc.Listen(ctx, "tcp4", h.at(port)); err != nil {
			return fmt.Errorf("listening on %s: %w", h.name, err)
		}
		return nil
	})
	return listener, err
}

// dial connects from the host to an address in numbers.
func (h *host) dial(ctx context.Context, _, address string) (conn net.Conn, err error) {
	err = h.within(func() (err error) {
		var dialer net.Dialer
		if conn, err = dialer.DialContext(ctx, "tcp4", address); err != nil {
			return fmt.Errorf("connecting from %s: %w", h.name, err)
		}
		return nil
	})
	return conn, err
}

// at is an address of the host.
func (h *host) at(port int) string { return netip.AddrPortFrom(h.addr, uint16(port)).String() } //nolint:gosec // a port

// killAll ends every process of the host at once.
func (h *host) killAll() {
	if h.space == nil {
		return // this program's own
	}
	for _, pid := range processesIn(h.inode) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: as wanted
	}
}

// ip calls iproute2, which knows the kernel's interface better than a copy of it would.
func ip(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
