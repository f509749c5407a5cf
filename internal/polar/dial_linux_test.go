package polar

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// TestTheKernelGivesUpForAProcessThatIsFrozen asks the kernel what it was told: to freeze a process whose network is cut takes a host.
func TestTheKernelGivesUpForAProcessThatIsFrozen(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	conn, err := revocableDialer(7*time.Second)(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("it is a %T", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var told int
	var getErr error
	if err := raw.Control(func(fd uintptr) { told, getErr = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, 18) }); err != nil || getErr != nil {
		t.Fatal(err, getErr)
	}
	if told != 7000 {
		t.Errorf("the kernel gives up after %d ms, want 7000", told)
	}
}
