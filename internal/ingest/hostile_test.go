package ingest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
)

// delivery is a signed delivery as it goes over the wire, its headers given by lines, which may lie.
func (e *edge) delivery(id, body string, lines ...string) string {
	e.t.Helper()
	var text strings.Builder
	text.WriteString("POST /webhooks/polar HTTP/1.1\r\nHost: x\r\n")
	if err := sign(e.t, standardSecret, id, body, polar.DerivationAuto).Write(&text); err != nil {
		e.t.Fatal(err)
	}
	for _, line := range lines {
		text.WriteString(line + "\r\n")
	}
	return text.String() + "\r\n"
}

// statuses reads answers until the connection ends, be it in the middle of one, and returns their codes.
func (c *rawConn) statuses() (codes []string) {
	for {
		response, err := http.ReadResponse(c.in, nil)
		if err != nil {
			return codes
		}
		codes = append(codes, strconv.Itoa(response.StatusCode))
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err != nil {
			return codes
		}
	}
}

// TestASmuggledDeliveryIsNeverStored sends requests whose end a proxy and we might see in different places, each with a
// second delivery, validly signed, hidden where the other side may take it for a body. Either the request is refused, or all of
// it is one request with the length that it says; and where that length is in doubt, the connection ends after it.
func TestASmuggledDeliveryIsNeverStored(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	hidden := func(id string) string {
		return e.delivery(id, order, fmt.Sprintf("Content-Length: %d", len(order))) + order
	}
	chunk := func(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }
	length := fmt.Sprintf("Content-Length: %d", len(order))
	for name, attack := range map[string]struct {
		lines  []string
		body   string // of the first request, before the hidden one
		stored bool   // the first one is a request like any other
		then   bool   // and the hidden one begins where it ends, for every reader: it is the next request
	}{
		"a length and chunks":                {lines: []string{length, "Transfer-Encoding: chunked"}, body: chunk(order), stored: true},
		"a length of nothing and chunks":     {lines: []string{"Content-Length: 0", "Transfer-Encoding: chunked"}, body: chunk(order), stored: true},
		"chunks and a length":                {lines: []string{"Transfer-Encoding: chunked", length}, body: chunk(order), stored: true},
		"two lengths that differ":            {lines: []string{length, "Content-Length: 5"}, body: order},
		"two lengths in one line":            {lines: []string{length + ", 5"}, body: order},
		"two lengths that agree":             {lines: []string{length, length}, body: order, stored: true, then: true},
		"a length with a plus":               {lines: []string{fmt.Sprintf("Content-Length: +%d", len(order))}, body: order},
		"a length in hexadecimal":            {lines: []string{fmt.Sprintf("Content-Length: 0x%x", len(order))}, body: order},
		"a length below zero":                {lines: []string{"Content-Length: -1"}, body: order},
		"a space before the colon":           {lines: []string{fmt.Sprintf("Content-Length : %d", len(order))}, body: order},
		"a coding of another name":           {lines: []string{"Transfer-Encoding: xchunked"}, body: chunk(order)},
		"a coding with a vertical tab":       {lines: []string{"Transfer-Encoding: \x0bchunked"}, body: chunk(order)},
		"a coding twice":                     {lines: []string{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked"}, body: chunk(order)},
		"two codings":                        {lines: []string{"Transfer-Encoding: gzip, chunked"}, body: chunk(order)},
		"a coding of identity":               {lines: []string{length, "Transfer-Encoding: identity"}, body: order},
		"a folded header":                    {lines: []string{"Transfer-Encoding:", " chunked"}, body: chunk(order), stored: true},
		"a folded length":                    {lines: []string{"X: y", " Content-Length: 0", length}, body: order, stored: true, then: true},
		"a header cut by a bare newline":     {lines: []string{"X: y\nContent-Length: 0", length}, body: order},
		"a header cut by a bare return":      {lines: []string{"X: y\rContent-Length: 0", length}, body: order},
		"a header with NUL":                  {lines: []string{"X: y\x00z", length}, body: order},
		"a header without a name":            {lines: []string{": y", length}, body: order},
		"a header without a colon":           {lines: []string{"Transfer-Encoding chunked", length}, body: order},
		"no length at all":                   {body: order},
		"chunks with an extension":           {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x;a=b\r\n%s\r\n0\r\n\r\n", len(order), order), stored: true},
		"an extension with a bare newline":   {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x;\n\r\n%s\r\n0\r\n\r\n", len(order), order)},
		"an extension of a megabyte":         {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x;%s\r\n%s\r\n0\r\n\r\n", len(order), strings.Repeat("a", 1<<20), order)},
		"chunks ended by bare newlines":      {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x\n%s\n0\n\n", len(order), order)},
		"a chunk of a size below zero":       {lines: []string{"Transfer-Encoding: chunked"}, body: "-1\r\n" + order + "\r\n0\r\n\r\n"},
		"a chunk with a sign":                {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("+%x\r\n%s\r\n0\r\n\r\n", len(order), order)},
		"a chunk of a size beyond 64 bits":   {lines: []string{"Transfer-Encoding: chunked"}, body: "fffffffffffffffff\r\n" + order + "\r\n0\r\n\r\n"},
		"a chunk with more than its size":    {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(order)-1, order)},
		"a trailer that tells another id":    {lines: []string{"Transfer-Encoding: chunked", "Trailer: Webhook-Id"}, body: fmt.Sprintf("%x\r\n%s\r\n0\r\nWebhook-Id: other\r\n\r\n", len(order), order), stored: true},
		"a trailer that was not spoken of":   {lines: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x\r\n%s\r\n0\r\nWebhook-Signature: v1,x\r\n\r\n", len(order), order), stored: true},
		"a length that is less than is sent": {lines: []string{fmt.Sprintf("Content-Length: %d", len(order)-1)}, body: order},
	} {
		first, second := newID(), newID()
		conn := e.dial()
		_, _ = io.WriteString(conn.conn, e.delivery(first, order, attack.lines...)+attack.body+hidden(second)) // the other side may hang up
		if tcp, ok := conn.conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		codes := conn.statuses()
		var want []string
		if attack.stored {
			want = append(want, "202")
		}
		if attack.then {
			want = append(want, "202")
		}
		if accepted := count(codes, "202"); accepted != len(want) || len(codes) > 2 {
			t.Errorf("%s: answers %v, want %v", name, codes, want)
		}
		for id, stored := range map[string]bool{first: attack.stored, second: attack.then} {
			if got := e.count("select count(*) from polar.event_log where webhook_id = $1", id) == 1; got != stored {
				t.Errorf("%s: a delivery of two is stored: %t, want %t", name, got, stored)
			}
		}
	}
	if n := e.count("select count(*) from polar.event_log where body <> $1", order); n != 0 {
		t.Errorf("%d deliveries are stored with a body that nobody signed", n)
	}
	for line := range strings.Lines(e.log.String()) {
		checkLine(t, line)
	}
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func TestAHundredDeliveriesInOnePipeAreEachStoredAndAnsweredInOrder(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	const deliveries = 100
	var pipe strings.Builder
	for n := range deliveries {
		body := order
		if n%10 == 3 {
			body = "no JSON" // its answer has its place, too
		}
		pipe.WriteString(e.delivery(fmt.Sprintf("msg_%d", n), body, fmt.Sprintf("Content-Length: %d", len(body))) + body)
	}
	conn := e.dial()
	go func() { _, _ = io.WriteString(conn.conn, pipe.String()) }()
	for n := range deliveries {
		want := "202"
		if n%10 == 3 {
			want = "400"
		}
		if got := conn.status(); got != want {
			t.Fatalf("delivery %d of the pipe gets %q, want %s", n, got, want)
		}
	}
	e.wantCount(countEvents, deliveries*9/10)
}

// endless gives bytes for as long as somebody takes them.
type endless struct {
	pattern string
	sent    int64
}

func (r *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], r.pattern[(int(r.sent)+n)%len(r.pattern):])
	}
	r.sent += int64(n)
	return n, nil
}

func TestABodyWithoutEndIsCutOffAtTheLimit(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	chunks := "1000\r\n" + strings.Repeat(" ", 0x1000) + "\r\n"
	for name, attack := range map[string]struct {
		line, pattern string
		want          string
	}{
		"in chunks":            {"Transfer-Encoding: chunked", chunks, "413"},
		"in chunks of a byte":  {"Transfer-Encoding: chunked", "1\r\n \r\n", "413"},
		"of a terabyte":        {"Content-Length: 1099511627776", " ", "413"},
		"in one endless chunk": {"Transfer-Encoding: chunked", "7fffffffffffffff\r\n" + strings.Repeat(" ", 64<<10), "413"},
		"in an endless line":   {"Transfer-Encoding: chunked", "a", "400"},
	} {
		conn := e.dial()
		conn.write(e.delivery(newID(), order, attack.line))
		source := &endless{pattern: attack.pattern}
		sent := make(chan int64, 1)
		go func() {
			_, _ = io.Copy(conn.conn, source) // ends once the other side hangs up
			sent <- source.sent
		}()
		if got := conn.status(); got != attack.want && got != "" { // a reset may overtake the answer
			t.Errorf("a body %s gets %s, want %s", name, got, attack.want)
		}
		conn.wantEnd("a body " + name)
		if n := <-sent; n > 64<<20 {
			t.Errorf("%d bytes of a body %s were taken", n, name)
		}
	}
	if n := e.events.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the database", n)
	}
}

// TestOthersAreServedWhileManyStall holds hundreds of connections half-way, in every way in which one can stall, delivers
// beside them, and waits until all of them are cut off, by the limits of production.
func TestOthersAreServedWhileManyStall(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	began := time.Now()
	starts := []string{
		"", "P", "POST /webhooks/polar HTTP/1.1\r\n", "POST /webhooks/polar HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		head(t, sign(t, standardSecret, newID(), order, polar.DerivationAuto), len(order)) + order[:10],
		e.delivery(newID(), order, "Transfer-Encoding: chunked") + "5\r\n{",
		head(t, http.Header{}, 1<<20),
	}
	const stalled = 350
	conns := make([]*rawConn, stalled)
	for n := range conns {
		conns[n] = e.dial()
		if err := conns[n].conn.SetDeadline(began.Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		conns[n].write(starts[n%len(starts)])
	}
	for range 50 {
		e.post(newID(), order).want(t, http.StatusAccepted)
	}
	if took := time.Since(began); took > 9*time.Second { // before the first of them is cut off
		t.Errorf("50 deliveries beside %d stalled connections took %s", stalled, took)
	}
	e.wantCount(countEvents, 50)
	var ends sync.WaitGroup
	for _, conn := range conns {
		ends.Go(func() { conn.wantEnd("a stalled connection") })
	}
	ends.Wait()
	e.wantCount(countEvents, 50)
}

func TestHeadersWithoutMeasureAreRefusedAndCostLittle(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	many := make([]string, 20_000)
	for n := range many {
		many[n] = fmt.Sprintf("X-%d: y", n)
	}
	for name, lines := range map[string][]string{
		"20,000 headers":           many,
		"a header of a megabyte":   {"X: " + strings.Repeat("y", 1<<20)},
		"a name of a megabyte":     {strings.Repeat("x", 1<<20) + ": y"},
		"one name 20,000 times":    {strings.TrimSuffix(strings.Repeat("Webhook-Id: a\r\n", 20_000), "\r\n")},
		"signatures of a megabyte": {"Webhook-Signature: " + strings.Repeat("v1,AAAA ", 1<<17)},
	} {
		conn := e.dial()
		_, _ = io.WriteString(conn.conn, e.delivery(newID(), order, append(lines, fmt.Sprintf("Content-Length: %d", len(order)))...)+order)
		if got := conn.status(); got != "431" && got != "" {
			t.Errorf("%s: %s, want 431", name, got)
		}
		conn.wantEnd(name)
	}
	// What fits is no reason to refuse.
	conn := e.dial()
	conn.write(e.delivery(newID(), order, append(many[:500:500], fmt.Sprintf("Content-Length: %d", len(order)))...) + order)
	if got := conn.status(); got != "202" {
		t.Errorf("500 headers of no meaning: %s, want 202", got)
	}
	e.wantCount(countEvents, 1)
}

// TestAReplayHasNoSecondEffect plays what somebody could who has seen a delivery, and what Polar does when it sends again.
func TestAReplayHasNoSecondEffect(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	id := newID()
	seen := sign(t, standardSecret, id, order, polar.DerivationAuto)
	send := func(h http.Header, body string) answer { return e.send(e.request(h.Clone(), strings.NewReader(body))) }

	for range 3 { // the very same bytes, within five minutes
		send(seen, order).want(t, http.StatusAccepted)
	}
	// Polar's own retry: the same id, signed anew.
	e.post(id, order).want(t, http.StatusAccepted)
	// The same id with other content, validly signed: the first one stands, as Polar's ids are of one event each.
	other := strings.Replace(order, "order.paid", "order.refunded", 1)
	e.post(id, other).want(t, http.StatusAccepted)
	// An old delivery, with its own old signature, or with a new time put over it.
	old := signAt(t, standardSecret, newID(), order, polar.DerivationAuto, time.Now().Add(-6*time.Minute))
	send(old, order).want(t, http.StatusUnauthorized)
	old.Set("Webhook-Timestamp", seen.Get("Webhook-Timestamp"))
	send(old, order).want(t, http.StatusUnauthorized)
	// A part of one delivery in another.
	renamed := seen.Clone()
	renamed.Set("Webhook-Id", newID())
	send(renamed, order).want(t, http.StatusUnauthorized)
	send(seen, other).want(t, http.StatusUnauthorized)

	if stored := e.wantStored(id); stored.Body != order || stored.Jobs != 1 {
		t.Errorf("stored %+v, want the first body and one job", stored)
	}
	e.wantCount(countEvents, 1)
	e.wantCount(countJobs, 1)
}

// TestAnIDThatPolarWouldNeverGiveIsRefusedOrJustAText sends ids that are validly signed: the secret's holder may be careless.
func TestAnIDThatPolarWouldNeverGiveIsRefusedOrJustAText(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	key := rawSigner(t)
	for name, tt := range map[string]struct{ id, want string }{
		"empty":               {"", "401"},
		"blank":               {" ", "401"},
		"of ten kilobytes":    {strings.Repeat("a", 10_000), "401"},
		"of 257 bytes":        {strings.Repeat("a", 257), "401"},
		"with NUL":            {"a\x00b", "400"},
		"with a newline":      {"a\nb", "400"},
		"with a return":       {"a\rb", "400"},
		"with an escape":      {"a\x1b[31mb", "400"},
		"with a tab":          {"a\tb", "401"},
		"with DEL":            {"a\x7fb", "400"},
		"that is no UTF-8":    {"\xff\xfe", "401"},
		"with umlauts":        {"ä", "401"},
		"with a space":        {"a b", "401"},
		"of 256 bytes":        {strings.Repeat("a", 256), "202"},
		"of SQL":              {"');drop/**/table/**/polar.event_log;--", "202"},
		"of a pattern":        {"%_%", "202"},
		"of a path":           {"../../etc/passwd", "202"},
		"of markup":           {"<script>alert(1)</script>", "202"},
		"of a template":       {"{{.}}${7*7}%{x}", "202"},
		"that a array begins": {"{a,b}", "202"},
		"with a backslash":    {`\x00\'`, "202"},
	} {
		body := []byte(order)
		now := time.Now()
		signature := key(tt.id, now, body)
		conn := e.dial()
		conn.write(fmt.Sprintf("POST /webhooks/polar HTTP/1.1\r\nHost: x\r\nWebhook-Id: %s\r\nWebhook-Timestamp: %d\r\nWebhook-Signature: %s\r\nContent-Length: %d\r\n\r\n%s",
			tt.id, now.Unix(), signature, len(body), body))
		if got := conn.status(); got != tt.want {
			t.Errorf("an id %s gets %s, want %s", name, got, tt.want)
			continue
		}
		if tt.want == "202" {
			if stored := e.wantStored(tt.id); !bytes.Equal([]byte(stored.Body), body) {
				t.Errorf("an id %s: stored %q", name, stored.Body)
			}
		}
	}
	e.wantCount(countEvents, 8)
}

// TestAPanicIsOneLineOfTheLogThatHoldsNothingOfTheRequest sends a delivery to a handler that has a fault.
func TestAPanicIsOneLineOfTheLogThatHoldsNothingOfTheRequest(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	server := ingest.Server(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		panic("a fault of ours")
	}), slog.New(slog.NewJSONHandler(log, nil)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+listener.Addr().String()+ingest.Route+"?hidden_query", strings.NewReader(`{"hidden":"body"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer hidden_token")
	request.Header.Set("Webhook-Id", "hidden_id")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err == nil {
		_ = response.Body.Close()
		t.Errorf("answered with %s, want the connection to end", response.Status)
	}
	lines := log.lines(t, 1)
	var line struct{ Level, Msg string }
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || len(lines) != 1 || line.Level != "ERROR" || !strings.Contains(line.Msg, "a fault of ours") || !strings.Contains(line.Msg, "goroutine ") {
		t.Errorf("logged %q (%v), want one line with the stack", lines, err)
	}
	if strings.Contains(log.String(), "hidden") {
		t.Errorf("the log holds something of the request: %s", log.String())
	}
}

// rawSigner signs with standardSecret, whatever the id.
func rawSigner(t *testing.T) func(id string, at time.Time, body []byte) string {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(standardSecret)
	if err != nil {
		t.Fatal(err)
	}
	return func(id string, at time.Time, body []byte) string {
		signature, err := webhook.Sign(id, at, body)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
}
