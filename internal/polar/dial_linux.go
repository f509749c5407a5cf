package polar

import (
	"syscall"
	"time"
)

// giveUpAfter has the kernel drop a connection on which nothing it sent was acknowledged for so long.
func giveUpAfter(timeout time.Duration) func(network, address string, conn syscall.RawConn) error {
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, in milliseconds, which package syscall does not name
	return func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(timeout.Milliseconds())) // best effort
		})
	}
}
