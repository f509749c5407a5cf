package ingest_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
)

// rawConn is a connection on which a test writes what it likes.
type rawConn struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (e *edge) dial() *rawConn {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	return &rawConn{t: e.t, conn: conn, in: bufio.NewReader(conn)}
}

func (c *rawConn) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// status reads one answer and returns its code; "" where the connection ended without one.
func (c *rawConn) status() string {
	c.t.Helper()
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		c.t.Error(err)
	}
	return strconv.Itoa(response.StatusCode)
}

// wantEnd reads until the other side ends the connection.
func (c *rawConn) wantEnd(what string) {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.in); err != nil {
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // Copy wraps nothing
			c.t.Errorf("%s: the connection is still open", what)
		}
	}
}

// head is the start of a signed delivery's request, up to its body.
func head(t *testing.T, h http.Header, length int) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("POST /webhooks/polar HTTP/1.1\r\nHost: x\r\n")
	if err := h.Write(&text); err != nil {
		t.Fatal(err)
	}
	text.WriteString("Content-Length: " + strconv.Itoa(length) + "\r\n\r\n")
	return text.String()
}

func TestNoClientMayStallForOver30Seconds(t *testing.T) {
	t.Parallel()

	const longest = 30 * time.Second
	server := ingest.Server(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	for name, limit := range map[string]time.Duration{
		"ReadHeaderTimeout": server.ReadHeaderTimeout,
		"ReadTimeout":       server.ReadTimeout,
		"WriteTimeout":      server.WriteTimeout,
		"IdleTimeout":       server.IdleTimeout,
	} {
		if limit <= 0 || limit > longest {
			t.Errorf("%s is %s, want over 0 and at most %s", name, limit, longest)
		}
	}
	// The answer may wait for Postgres after the last byte was read.
	if server.WriteTimeout < 10*time.Second {
		t.Errorf("WriteTimeout is %s, too short for an answer that waits for Postgres", server.WriteTimeout)
	}
	if server.MaxHeaderBytes <= 0 || server.MaxHeaderBytes > 64<<10 {
		t.Errorf("MaxHeaderBytes is %d, want at most 64 KiB", server.MaxHeaderBytes)
	}
}

func TestClientsThatStallAreCutOff(t *testing.T) {
	t.Parallel()

	// The production limits in seconds, a fortieth of them here.
	short := func(s *http.Server) {
		s.ReadHeaderTimeout /= 40
		s.ReadTimeout /= 40
		s.WriteTimeout /= 40
		s.IdleTimeout /= 40
	}
	e := newEdge(t, edgeOptions{events: discard{}, tune: short})
	whole := head(t, sign(t, standardSecret, newID(), order, polar.DerivationAuto), len(order))

	for name, stall := range map[string]struct{ before, sends, answer string }{
		"silent from the start":    {sends: ""},
		"within the request line":  {sends: "POST /webh"},
		"within the headers":       {sends: whole[:len(whole)/2]},
		"before the body":          {sends: whole, answer: "408"},
		"within the body":          {sends: whole + order[:len(order)/2], answer: "408"},
		"within a chunk":           {sends: "POST /webhooks/polar HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc", answer: "408"},
		"with a body it announced": {sends: "GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", answer: "404"},
		"between two requests":     {before: whole + order, sends: ""},
		"within a second request":  {before: whole + order, sends: "POS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := e.dial()
			if stall.before != "" {
				conn.write(stall.before)
				if got := conn.status(); got != "202" {
					t.Errorf("the request before: %q, want 202", got)
				}
			}
			started := time.Now()
			conn.write(stall.sends)
			if stall.answer != "" {
				if got := conn.status(); got != stall.answer {
					t.Errorf("answer %q, want %s", got, stall.answer)
				}
			}
			conn.wantEnd(name)
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("cut off after %s, want under a second or so", took)
			}
		})
	}
}

func TestClientThatDripsItsBodyIsCutOff(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}, tune: func(s *http.Server) {
		s.ReadHeaderTimeout, s.ReadTimeout = 200*time.Millisecond, 400*time.Millisecond
	}})
	conn := e.dial()
	conn.write(head(t, sign(t, standardSecret, newID(), order, polar.DerivationAuto), 10_000))
	ended := make(chan string, 1)
	go func() { ended <- conn.status() }()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(10 * time.Second)
	for {
		select {
		case got := <-ended:
			if got != "408" {
				t.Errorf("answer %q, want 408", got)
			}
			return
		case <-ticker.C:
			_, _ = io.WriteString(conn.conn, " ") // each byte would renew a limit on pauses alone
		case <-limit:
			t.Fatal("a body of a byte each 20 ms is still read after 10 s, with a limit of 0.4 s")
		}
	}
}

func TestFloodOfHeadersGets431(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	for name, flood := range map[string]string{
		"one long header": "X-Flood: " + strings.Repeat("a", 64<<10) + "\r\n",
		"many headers":    strings.Repeat("X-Flood: a\r\n", 8<<10),
		"many signatures": "Webhook-Signature: " + strings.Repeat("v1,AAAA ", 8<<10) + "\r\n",
	} {
		conn := e.dial()
		// The server may hang up before it has read everything.
		_, _ = io.WriteString(conn.conn, "POST /webhooks/polar HTTP/1.1\r\nHost: x\r\n"+flood+"\r\n")
		if got := conn.status(); got != "431" {
			t.Errorf("%s: %q, want 431", name, got)
		}
	}
	if n := e.events.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the database, want none", n)
	}
}

func TestClientThatHangsUpWithinItsBodyStoresNothing(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	conn := e.dial()
	conn.write(head(t, sign(t, standardSecret, newID(), order, polar.DerivationAuto), len(order)) + order[:20])
	if err := conn.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if line := e.log.lines(t, 1)[0]; !strings.Contains(line, `"reason":"body_cut_off"`) {
		t.Errorf("logged %s, want the reason body_cut_off", line)
	}
	if n := e.events.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the database, want none", n)
	}
}
