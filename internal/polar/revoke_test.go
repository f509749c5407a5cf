package polar

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestACallThatIsGivenUpIsNotDeliveredLater: what the kernel has not delivered when a call's time is over would reach Polar once
// the network is well again, and be done after somebody else has had it done. So the connection is reset, not closed.
func TestACallThatIsGivenUpIsNotDeliveredLater(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	conns := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			conns <- conn
		}
	}()
	api, err := New(Config{BaseURL: "http://" + listener.Addr().String() + "/v1", Token: "x", Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateCheckout(t.Context(), []byte(`{}`)); err == nil {
		t.Fatal("nobody answered, and the call succeeded")
	}
	conn := <-conns
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of a call that was given up ends with %v, want it reset", err)
	}
}
