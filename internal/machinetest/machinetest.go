// Package machinetest gives tests what a machine has: the programs that some need besides Go, free addresses, and processes.
package machinetest

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
)

// Program is the path of the first of these programs that is on this machine. Where none is, CI fails, as .ci/run installs the
// Debian package that has it; a person's run skips the test, and `make test` has said so before.
func Program(tb testing.TB, debianPackage string, names ...string) string {
	tb.Helper()
	for _, name := range names {
		// Servers are where only root looks.
		for _, path := range []string{name, "/usr/sbin/" + name} {
			if found, err := exec.LookPath(path); err == nil {
				return found
			}
		}
	}
	const missing = "no %s on this machine, so what needs it is NOT tested: apt install %s"
	if os.Getenv("CI") != "" {
		tb.Fatalf(missing, names[0], debianPackage)
	}
	tb.Skipf(missing, names[0], debianPackage)
	return ""
}

// Where no machine takes ports by itself: Linux does so from 32768 on, others from 49152 on.
const (
	firstPort = 10_000
	lastPort  = 32_000
)

var given = struct {
	sync.Mutex

	ports map[int]bool
}{ports: map[int]bool{}}

// Address is one of loopback at which nothing listens, for a program that is told where to. No two of a process are the same,
// and no connection that somebody opens meanwhile gets the port.
func Address(tb testing.TB) string {
	tb.Helper()
	given.Lock()
	defer given.Unlock()
	const tries = 1000
	for range tries {
		port := firstPort + rand.N(lastPort-firstPort) //nolint:gosec // no secret
		if given.ports[port] {
			continue
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		var lc net.ListenConfig
		listener, err := lc.Listen(tb.Context(), "tcp", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			tb.Fatal(err)
		}
		given.ports[port] = true
		return address
	}
	tb.Fatalf("no free port among %d tried", tries)
	return ""
}
