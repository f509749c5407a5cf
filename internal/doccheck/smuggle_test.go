package doccheck_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// smuggles hides a request for what the proxy keeps from the internet in requests whose end proxy and ingest might see in
// different places. Nobody gets ingest's answer to it, neither who sent it nor who comes after on the same connection.
func (w *world) smuggles(client *http.Client, base string) {
	w.t.Helper()
	t := w.t
	scheme, address, _ := strings.Cut(base, "://")
	hidden := "GET /readyz HTTP/1.1\r\nHost: " + address + "\r\n\r\n"
	length := func(text string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(text)) }
	chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)
	const nothing, chunked = "0\r\n\r\n", "Transfer-Encoding: chunked\r\n"
	for name, request := range map[string]string{
		"a length over chunks":            length(nothing+hidden) + chunked + "\r\n" + nothing + hidden,
		"chunks over a length":            chunked + "Content-Length: 4\r\n\r\n" + chunk,
		"two lengths":                     length("") + length(hidden) + "\r\n" + hidden,
		"two lengths the other way":       length(hidden) + length("") + "\r\n" + hidden,
		"an unknown coding":               length(nothing+hidden) + "Transfer-Encoding: xchunked\r\n\r\n" + nothing + hidden,
		"a coding after a space":          length(nothing+hidden) + "Transfer-Encoding : chunked\r\n\r\n" + nothing + hidden,
		"a coding after a tab":            length(nothing+hidden) + "Transfer-Encoding:\tchunked\r\n\r\n" + nothing + hidden,
		"a folded coding":                 length(nothing+hidden) + "Transfer-Encoding:\r\n chunked\r\n\r\n" + nothing + hidden,
		"a coding behind a bare newline":  length(nothing+hidden) + "X: y\nTransfer-Encoding: chunked\r\n\r\n" + nothing + hidden,
		"an extension with a newline":     chunked + "\r\n0;\n" + hidden + "\r\n0\r\n\r\n",
		"chunks ended by a bare newline":  chunked + "\r\n0\n\n" + hidden,
		"a length in a line of the body":  length(hidden) + "Expect: 100-continue\r\n\r\n" + hidden,
		"a host in the address of others": "Host: other.example\r\n" + length(hidden) + "\r\n" + hidden,
	} {
		var conn net.Conn
		var err error
		if scheme == "https" {
			transport, ok := client.Transport.(*http.Transport)
			if !ok {
				t.Fatalf("the client's transport is %T", client.Transport)
			}
			conn, err = tls.Dial("tcp", address, transport.TLSClientConfig)
		} else {
			conn, err = net.Dial("tcp", address)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "POST /webhooks/polar HTTP/1.1\r\nHost: "+address+"\r\n"+request) // it may be cut off
		for in := bufio.NewReader(conn); ; {
			response, err := http.ReadResponse(in, nil)
			if err != nil {
				break
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK || strings.Contains(string(body), `"status"`) {
				t.Errorf("%s: the hidden request is answered %d %s", name, response.StatusCode, body)
			}
			if err != nil {
				break
			}
		}
		_ = conn.Close()
		// Whoever is next on the proxy's connections to ingest gets an answer to what they asked.
		for range 3 {
			if status := deliver(t, client, base+"/webhooks/polar", uuid.NewString(), `{"type": "customer.updated", "data": {}}`); status != http.StatusAccepted {
				t.Errorf("%s: the next delivery is answered %d, want 202", name, status)
			}
		}
	}
}

func TestNothingIsSmuggledThroughAProxy(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) (*world, *http.Client, string){"nginx": startNginx, "caddy": startCaddy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, client, base := start(t)
			w.smuggles(client, base)
		})
	}
}
