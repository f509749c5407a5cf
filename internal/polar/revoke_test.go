package polar

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

func TestPolarIsSpokenToByHTTP1ThoughItOffersHTTP2(t *testing.T) {
	t.Parallel()

	// Whether somebody spoke HTTP/2 before changes what the default transport offers.
	if response, err := http.DefaultTransport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://127.0.0.1:1/", http.NoBody)); err == nil {
		_ = response.Body.Close()
		t.Fatal("port 1 answers")
	}
	spoken := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spoken <- r.Proto
		_, _ = io.WriteString(w, `{"id": "0198c0de-0000-4000-8000-0000000000a1"}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	api, err := New(Config{BaseURL: server.URL + "/v1", Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	transport, ok := api.httpClient.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("calls go by a %T", api.httpClient.Transport)
	}
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	if _, err := api.CreateCheckout(t.Context(), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if proto := <-spoken; proto != "HTTP/1.1" {
		t.Errorf("Polar was spoken to by %s", proto)
	}
}
