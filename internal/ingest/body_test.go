package ingest_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polar"
)

const maxBody = 1 << 20

// padded is an event of exactly size bytes.
func padded(size int) string {
	const head, tail = `{"type":"order.paid","data":{"id":"x"},"pad":"`, `"}`
	return head + strings.Repeat("a", size-len(head)-len(tail)) + tail
}

// unsized hides the length of a reader, so that the client sends chunks.
type unsized struct{ io.Reader }

func TestOneMebibyteIsTheLimitOfABody(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	for name, wrap := range map[string]func(string) io.Reader{
		"with a length": func(body string) io.Reader { return strings.NewReader(body) },
		"in chunks":     func(body string) io.Reader { return unsized{strings.NewReader(body)} },
	} {
		full, over := padded(maxBody), padded(maxBody+1)
		id := newID()
		if got := e.send(e.request(sign(t, standardSecret, id, full, polar.DerivationAuto), wrap(full))); got.status != http.StatusAccepted {
			t.Errorf("1 MiB %s: %d %s, want 202", name, got.status, got.body)
		}
		if got := e.wantStored(id); got.Body != full {
			t.Errorf("1 MiB %s: stored %d bytes, want all %d as they were", name, len(got.Body), len(full))
		}
		calls := e.events.calls.Load()
		got := e.send(e.request(sign(t, standardSecret, newID(), over, polar.DerivationAuto), wrap(over)))
		if got.status != http.StatusRequestEntityTooLarge {
			t.Errorf("1 MiB and a byte %s: %d %s, want 413", name, got.status, got.body)
		}
		if e.events.calls.Load() != calls {
			t.Errorf("1 MiB and a byte %s reached the database", name)
		}
	}
}

func TestNoLengthThatAClientClaimsIsBelieved(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{events: discard{}})
	for claim, want := range map[string]string{
		"1048577":              "413",
		"9223372036854775807":  "413",
		"99999999999999999999": "400", // net/http's own answer
		"-1":                   "400",
		"5, 6":                 "400",
	} {
		conn := e.dial()
		conn.write("POST /webhooks/polar HTTP/1.1\r\nHost: x\r\nContent-Length: " + claim + "\r\n\r\n")
		if got := conn.status(); got != want {
			t.Errorf("Content-Length: %s gets %s, want %s", claim, got, want)
		}
	}
}

func TestSignedBodiesThatAreNoEventsGet400AndAHint(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	for name, c := range map[string]struct{ body, says string }{
		"empty":             {"", "empty"},
		"blank":             {" \r\n\t", "empty"},
		"no JSON":           {"hello", "not JSON"},
		"form":              {"type=order.paid&data=1", "not JSON"},
		"cut off":           {order[:40], "not JSON"},
		"two documents":     {order + order, "not JSON"},
		"byte order mark":   {"\uFEFF" + order, "not JSON"},
		"raw NUL":           {"{\"type\":\"order.paid\",\"data\":\"\x00\"}", "not JSON"},
		"NUL after":         {order + "\x00", "not JSON"},
		"trailing comma":    {`{"type":"order.paid",}`, "not JSON"},
		"comment":           {`{"type":"order.paid"/**/}`, "not JSON"},
		"NaN":               {`{"type":"order.paid","data":NaN}`, "not JSON"},
		"unclosed brackets": {strings.Repeat("[", 500_000), "not JSON"},
		"array":             {`[` + order + `]`, "not an object"},
		"string":            {`"order.paid"`, "not an object"},
		"number":            {`1`, "not an object"},
		"null":              {`null`, "not an object"},
		"nested brackets":   {strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000), "not an object"},
		"no type":           {`{"data":{"id":"x"}}`, "no field"},
		"type of data":      {`{"data":{"type":"order.paid"}}`, "no field"},
		"capital Type":      {`{"Type":"order.paid"}`, "no field"},
		"type a number":     {`{"type":1}`, "not a string"},
		"type null":         {`{"type":null}`, "not a string"},
		"type an object":    {`{"type":{"a":"b"}}`, "not a string"},
		"type an array":     {`{"type":["order.paid"]}`, "not a string"},
		"type empty":        {`{"type":""}`, "is empty"},
		"last of two types": {`{"type":"order.paid","type":7}`, "not a string"},
		"Discord":           {`{"content":"New order","embeds":[{"title":"Order"}]}`, "raw"},
		"Slack":             {`{"text":"New order","blocks":[{"type":"section"}]}`, "raw"},
	} {
		got := e.post(newID(), c.body)
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, c.says) {
			t.Errorf("%s: %d %s, want 400 that says %q", name, got.status, got.body, c.says)
		}
	}
	if n := e.events.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the database, want none", n)
	}
}

// oddEvents are validly signed events of every odd content that must not be refused.
func oddEvents() map[string]string {
	return map[string]string{
		"only a type":         `{"type":"x"}`,
		"unknown type":        `{"type":"invoice.paid.v9","timestamp":"2026-08-22T09:00:00Z","data":{"id":"x"}}`,
		"no data":             `{"type":"order.paid","timestamp":"2026-08-22T09:00:00Z"}`,
		"data null":           `{"type":"order.paid","data":null}`,
		"data a string":       `{"type":"order.paid","data":"x"}`,
		"data an array":       `{"type":"order.paid","data":[1,2,3]}`,
		"data empty":          `{"type":"order.paid","data":{}}`,
		"id no UUID":          `{"type":"order.paid","data":{"id":"usr_1"}}`,
		"id a number":         `{"type":"order.paid","data":{"id":7}}`,
		"id null":             `{"type":"order.paid","data":{"id":null}}`,
		"id empty":            `{"type":"order.paid","data":{"id":""}}`,
		"id long":             `{"type":"order.paid","data":{"id":"` + strings.Repeat("é", 10_000) + `"}}`,
		"type long":           `{"type":"` + strings.Repeat("a", 100_000) + `","data":{}}`,
		"type with NUL":       `{"type":"a\u0000b"}`,
		"type with newline":   `{"type":"a\nlevel=ERROR msg=forged"}`,
		"type of emoji":       `{"type":"\ud83d\ude00😀"}`,
		"type escaped":        `{"\u0074ype":"\u006frder.paid"}`,
		"external id of 10k":  `{"type":"customer.created","data":{"id":"x","external_id":"` + strings.Repeat("x", 10_240) + `"}}`,
		"huge integers":       `{"type":"order.paid","data":{"amount":` + strings.Repeat("9", 400_000) + `}}`,
		"huge exponents":      `{"type":"order.paid","data":{"amount":1e999999999,"tax":-1E-99999999999}}`,
		"escaped NUL":         `{"type":"order.paid","data":{"id":"a\u0000b","name":"\u0000"}}`,
		"lone surrogates":     `{"type":"order.paid","data":{"id":"\ud800","name":"\udfff\ud800"}}`,
		"invalid UTF-8":       "{\"type\":\"order.paid\",\"data\":{\"id\":\"\xff\xfe\",\"name\":\"Jos\xe9 \xed\xa0\x80\xc0\x80\"}}",
		"UTF-8 in a name":     "{\"type\":\"order.paid\",\"\xff\":1}",
		"deep nesting":        `{"type":"order.paid","data":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + `}`,
		"deep objects":        `{"type":"order.paid","data":` + strings.Repeat(`{"a":`, 150_000) + "1" + strings.Repeat("}", 150_000) + `}`,
		"duplicate keys":      `{"type":"a","type":"order.paid","data":{"id":"1"},"data":{"id":"1","id":"2"}}`,
		"many keys":           `{"type":"order.paid","data":{` + strings.Repeat(`"k":1,`, 100_000) + `"id":"x"}}`,
		"white space":         " \r\n\t{ \"type\" : \"order.paid\" }\n\n",
		"no-break white":      "{\"type\":\"order.paid\",\"data\":\"\u00a0\u2028\"}",
		"timestamp odd":       `{"type":"order.paid","timestamp":"yesterday","data":{}}`,
		"timestamp a number":  `{"type":"order.paid","timestamp":1787389200,"data":{}}`,
		"timestamp year 0":    `{"type":"order.paid","timestamp":"0000-01-01T00:00:00Z","data":{}}`,
		"timestamp year 1":    `{"type":"order.paid","timestamp":"0001-01-01T00:00:00Z","data":{}}`,
		"timestamp year 9999": `{"type":"order.paid","timestamp":"9999-12-31T23:59:59.999999999Z","data":{}}`,
		"timestamp overflow":  `{"type":"order.paid","timestamp":"9999-12-31T23:59:59-23:59","data":{}}`,
		"type and embeds":     `{"type":"order.paid","content":"x","embeds":[]}`,
		"newer envelope":      `{"type":"subscription.migrated","api_version":"2027-01","provider":"x","data":{"id":"x"}}`,
		"backslashes":         `{"type":"order.paid","data":{"path":"\\x00\\\\","quote":"''; drop table polar.event_log; --"}}`,
	}
}

func TestNothingSignedIsRefusedForItsContent(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	events := oddEvents()
	for _, name := range polar.EventTypes() {
		events[name] = `{"type":"` + name + `","timestamp":"2026-08-22T09:00:00Z","data":{"id":"992fae2a-2a17-4b7a-8d9e-e287cf90131b"}}`
	}
	if known := len(polar.EventTypes()); known != 42 {
		t.Errorf("%d types are known, want Polar's 42", known)
	}
	for name, body := range events {
		id := newID()
		if got := e.post(id, body); got.status != http.StatusAccepted {
			t.Errorf("%s: %d %s, want 202", name, got.status, got.body)
			continue
		}
		got := e.wantStored(id)
		exact := got.Bytes
		if exact == nil {
			exact = []byte(got.Body)
		}
		if !bytes.Equal(exact, []byte(body)) {
			t.Errorf("%s: stored %d bytes that differ from the %d received", name, len(exact), len(body))
		}
		if got.Type == "" || got.Jobs != 1 {
			t.Errorf("%s: stored with type %q and %d jobs, want a type and 1 job", name, got.Type, got.Jobs)
		}
	}
	e.wantCount(countEvents, int64(len(events)))
	e.wantCount(countJobs, int64(len(events)))
	for _, name := range polar.EventTypes() {
		if n := e.count("select count(*) from polar.event where type = $1 and object_id = '992fae2a-2a17-4b7a-8d9e-e287cf90131b' and state = 'received'", name); n != 1 {
			t.Errorf("%d events of type %s are readable, want 1", n, name)
		}
	}
}

func TestBytesThatAreNoTextAreKeptBesideReadableOnes(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	const body = "{\"type\":\"order.paid\",\"data\":{\"name\":\"Jos\xe9\"}}"
	id := newID()
	e.post(id, body).want(t, http.StatusAccepted)
	got := e.wantStored(id)
	if string(got.Bytes) != body {
		t.Errorf("body_bytes is %q, want %q", got.Bytes, body)
	}
	if want := strings.ToValidUTF8(body, "\uFFFD"); got.Body != want {
		t.Errorf("body is %q, want %q", got.Body, want)
	}

	id = newID()
	e.post(id, order).want(t, http.StatusAccepted)
	if got := e.wantStored(id); got.Bytes != nil {
		t.Errorf("body_bytes of a text is %q, want null", got.Bytes)
	}
}

func TestTheLastOfDuplicateKeysCounts(t *testing.T) {
	t.Parallel()

	e := newEdge(t, edgeOptions{})
	id := newID()
	e.post(id, oddEvents()["duplicate keys"]).want(t, http.StatusAccepted)
	got := e.wantStored(id)
	if got.Type != "order.paid" || got.ObjectID == nil || *got.ObjectID != "2" {
		t.Errorf("stored as %+v, want type order.paid and object 2", got)
	}
}
