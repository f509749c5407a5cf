package polar

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/truenorth-dev/truenorth/internal/polartest"
)

func TestEnvelopeIsReadWhateverElseTheEventHolds(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 22, 9, 0, 0, 123456000, time.UTC)
	tests := map[string]struct {
		body string
		want Envelope
		data string
	}{
		"type alone":            {`{"type":"x"}`, Envelope{Type: "x"}, ""},
		"white space":           {"\r\n\t {\t\"type\"\n:\r\"x\" } \n", Envelope{Type: "x"}, ""},
		"all":                   {`{"type":"a.b","timestamp":"2026-08-22T09:00:00.123456Z","data":{"id":"1","x":[]}}`, Envelope{"a.b", at, "1"}, `{"id":"1","x":[]}`},
		"other order":           {`{"data":{"id":"1"},"timestamp":"2026-08-22T09:00:00.123456Z","type":"a.b"}`, Envelope{"a.b", at, "1"}, `{"id":"1"}`},
		"offset zero":           {`{"type":"x","timestamp":"2026-08-22T09:00:00.123456+00:00"}`, Envelope{"x", at, ""}, ""},
		"another offset":        {`{"type":"x","timestamp":"2026-08-22T11:00:00.123456+02:00"}`, Envelope{"x", at, ""}, ""},
		"no fraction":           {`{"type":"x","timestamp":"2026-08-22T09:00:00Z"}`, Envelope{"x", at.Truncate(time.Second), ""}, ""},
		"escaped time":          {`{"type":"x","timestamp":"2026-08-22T09\u003a00:00.123456Z"}`, Envelope{"x", at, ""}, ""},
		"time a number":         {`{"type":"x","timestamp":1787389200}`, Envelope{Type: "x"}, ""},
		"time without zone":     {`{"type":"x","timestamp":"2026-08-22T09:00:00"}`, Envelope{Type: "x"}, ""},
		"time in year 10000":    {`{"type":"x","timestamp":"10000-01-01T00:00:00Z"}`, Envelope{Type: "x"}, ""},
		"time past year 9999":   {`{"type":"x","timestamp":"9999-12-31T23:59:59-01:00"}`, Envelope{Type: "x"}, ""},
		"time before year 1":    {`{"type":"x","timestamp":"0000-12-31T23:59:59Z"}`, Envelope{Type: "x"}, ""},
		"time very long":        {`{"type":"x","timestamp":"` + strings.Repeat("2", 9999) + `"}`, Envelope{Type: "x"}, ""},
		"escaped names":         {`{"t\u0079pe":"x","d\u0061ta":{"\u0069\u0064":"1"}}`, Envelope{Type: "x", ObjectID: "1"}, `{"\u0069\u0064":"1"}`},
		"names in other case":   {`{"Type":"y","TYPE":"z","type":"x","Data":{"id":"1"},"data":{"ID":"2"}}`, Envelope{Type: "x"}, `{"ID":"2"}`},
		"name with an escape":   {`{"type\u0000":"y","\u0074ype2":"y","type":"x","\\type":"y"}`, Envelope{Type: "x"}, ""},
		"last type":             {`{"type":1,"type":"x"}`, Envelope{Type: "x"}, ""},
		"last type, escaped":    {`{"type":"x","t\u0079pe":"y"}`, Envelope{Type: "y"}, ""},
		"last id":               {`{"type":"x","data":{"id":"1","id":"2"}}`, Envelope{Type: "x", ObjectID: "2"}, `{"id":"1","id":"2"}`},
		"last id no string":     {`{"type":"x","data":{"id":"1","id":2}}`, Envelope{Type: "x"}, `{"id":"1","id":2}`},
		"last data":             {`{"type":"x","data":{"id":"1"},"data":{"y":2}}`, Envelope{Type: "x"}, `{"y":2}`},
		"last data null":        {`{"type":"x","data":{"id":"1"},"data":null}`, Envelope{Type: "x"}, `null`},
		"last time":             {`{"type":"x","timestamp":"2026-08-22T09:00:00.123456Z","timestamp":null}`, Envelope{Type: "x"}, ""},
		"data null":             {`{"type":"x","data": null }`, Envelope{Type: "x"}, `null`},
		"data a list":           {`{"type":"x","data":[{"id":"1"}]}`, Envelope{Type: "x"}, `[{"id":"1"}]`},
		"data a string":         {`{"type":"x","data":"id"}`, Envelope{Type: "x"}, `"id"`},
		"data a number":         {`{"type":"x","data":-1.5e+3}`, Envelope{Type: "x"}, `-1.5e+3`},
		"data empty":            {`{"type":"x","data":{}}`, Envelope{Type: "x"}, `{}`},
		"id a number":           {`{"type":"x","data":{"id":1}}`, Envelope{Type: "x"}, `{"id":1}`},
		"id an object":          {`{"type":"x","data":{"id":{"id":"1"}}}`, Envelope{Type: "x"}, `{"id":{"id":"1"}}`},
		"id deeper only":        {`{"type":"x","data":{"a":{"id":"1"},"b":[{"id":"2"}]}}`, Envelope{Type: "x"}, `{"a":{"id":"1"},"b":[{"id":"2"}]}`},
		"id elsewhere":          {`{"type":"x","id":"1","other":{"id":"2"},"data":{}}`, Envelope{Type: "x"}, `{}`},
		"type elsewhere":        {`{"other":{"type":"y"},"type":"x","data":{"type":"z"}}`, Envelope{Type: "x"}, `{"type":"z"}`},
		"more at the top":       {`{"api_version":"2026-10","provider":"stripe","type":"x","new":[true,false,null,{}]}`, Envelope{Type: "x"}, ""},
		"huge numbers":          {`{"type":"x","a":1e999999,"b":-` + strings.Repeat("9", 5000) + `}`, Envelope{Type: "x"}, ""},
		"NUL":                   {`{"type":"a\u0000b","data":{"id":"\u0000"}}`, Envelope{Type: "a\ufffdb", ObjectID: "\ufffd"}, `{"id":"\u0000"}`},
		"lone surrogates":       {`{"type":"a\ud800b\udc00\ud800\ud801\udc01"}`, Envelope{Type: "a\ufffdb\ufffd\ufffd\U00010401"}, ""},
		"no UTF-8":              {"{\"type\":\"a\xff\xed\xa0\x80b\",\"\xfe\":1}", Envelope{Type: "a\ufffd\ufffd\ufffd\ufffdb"}, ""},
		"all escapes":           {`{"type":"\"\\\/\b\f\n\r\tA\u00e9\uD83D\uDE00"}`, Envelope{Type: "\"\\/\b\f\n\r\tAé😀"}, ""},
		"long type":             {`{"type":"` + strings.Repeat("é", 150) + `"}`, Envelope{Type: strings.Repeat("é", 100)}, ""},
		"long type, odd edge":   {`{"type":"a` + strings.Repeat("é", 150) + `"}`, Envelope{Type: "a" + strings.Repeat("é", 99)}, ""},
		"long type of escapes":  {`{"type":"a` + strings.Repeat(`\u00e9`, 150) + `"}`, Envelope{Type: "a" + strings.Repeat("é", 99)}, ""},
		"long id":               {`{"type":"x","data":{"id":"` + strings.Repeat("i", 300) + `"}}`, Envelope{Type: "x", ObjectID: strings.Repeat("i", 200)}, `{"id":"` + strings.Repeat("i", 300) + `"}`},
		"chat names and a type": {`{"type":"x","content":1,"embeds":[]}`, Envelope{Type: "x"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, data, err := ScanEvent([]byte(test.body))
			if err != nil || got != test.want || string(data) != test.data {
				t.Errorf("ScanEvent: %+v, %s, %v; want %+v, %s", got, data, err, test.want, test.data)
			}
			if alone, err := ScanEnvelope([]byte(test.body)); err != nil || alone != test.want {
				t.Errorf("ScanEnvelope: %+v, %v; want %+v", alone, err, test.want)
			}
		})
	}
}

func TestBodiesThatAreNoEventAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body   string
		reason string
		offset int
	}{
		"empty":                  {"", EnvelopeEmpty, 0},
		"blank":                  {" \r\n\t", EnvelopeEmpty, 0},
		"text":                   {"hello", EnvelopeNotJSON, 0},
		"form":                   {"type=x", EnvelopeNotJSON, 1},
		"byte order mark":        {"\ufeff{}", EnvelopeNotJSON, 0},
		"cut off":                {`{"type":"x"`, EnvelopeNotJSON, 11},
		"cut off in a string":    {`{"type":"x`, EnvelopeNotJSON, 10},
		"cut off in an escape":   {`{"type":"\`, EnvelopeNotJSON, 10},
		"cut off in hex":         {`{"type":"\u00`, EnvelopeNotJSON, 13},
		"two values":             {`{"type":"x"}{}`, EnvelopeNotJSON, 12},
		"comma at the end":       {`{"type":"x",}`, EnvelopeNotJSON, 12},
		"comma after the value":  {`{"type":"x"},`, EnvelopeNotJSON, 12},
		"comma at the end, list": {`{"a":[1,]}`, EnvelopeNotJSON, 8},
		"only a comma":           {`[,]`, EnvelopeNotJSON, 1},
		"no colon":               {`{"type" "x"}`, EnvelopeNotJSON, 8},
		"no value":               {`{"type":}`, EnvelopeNotJSON, 8},
		"name no string":         {`{type:"x"}`, EnvelopeNotJSON, 1},
		"single quotes":          {`{'type':'x'}`, EnvelopeNotJSON, 1},
		"wrong bracket":          {`{"a":[1}}`, EnvelopeNotJSON, 7},
		"wrong brace":            {`[{"a":1]`, EnvelopeNotJSON, 7},
		"closed twice":           {`{"type":"x"}}`, EnvelopeNotJSON, 12},
		"brace alone":            {`}`, EnvelopeNotJSON, 0},
		"raw line break":         {"{\"type\":\"a\nb\"}", EnvelopeNotJSON, 10},
		"raw NUL":                {"{\"type\":\"a\x00b\"}", EnvelopeNotJSON, 10},
		"NUL outside":            {"{\"type\":\"a\"\x00}", EnvelopeNotJSON, 11},
		"unknown escape":         {`{"type":"\x41"}`, EnvelopeNotJSON, 10},
		"bad hex":                {`{"type":"\u12g4"}`, EnvelopeNotJSON, 13},
		"leading zero":           {`{"a":01}`, EnvelopeNotJSON, 6},
		"leading plus":           {`{"a":+1}`, EnvelopeNotJSON, 5},
		"no digit after point":   {`{"a":1.}`, EnvelopeNotJSON, 7},
		"no digit before point":  {`{"a":.5}`, EnvelopeNotJSON, 5},
		"no exponent":            {`{"a":1e+}`, EnvelopeNotJSON, 8},
		"minus alone":            {`{"a":-}`, EnvelopeNotJSON, 6},
		"NaN":                    {`{"a":NaN}`, EnvelopeNotJSON, 5},
		"half a word":            {`{"a":nul}`, EnvelopeNotJSON, 8},
		"word in capitals":       {`{"a":True}`, EnvelopeNotJSON, 5},
		"comment":                {`{"type":"x"} // c`, EnvelopeNotJSON, 13},
		"no-break space":         {"{\u00a0}", EnvelopeNotJSON, 1},
		"list":                   {`[{"type":"x"}]`, EnvelopeNotObject, 0},
		"string":                 {`"type"`, EnvelopeNotObject, 0},
		"number":                 {` 12 `, EnvelopeNotObject, 0},
		"null":                   {`null`, EnvelopeNotObject, 0},
		"list, broken":           {`[{"type":"x"}`, EnvelopeNotJSON, 13},
		"empty object":           {`{}`, EnvelopeNoType, 0},
		"type in data":           {`{"data":{"type":"x"}}`, EnvelopeNoType, 0},
		"type in another case":   {`{"Type":"x"}`, EnvelopeNoType, 0},
		"type empty":             {`{"type":""}`, EnvelopeBadType, 0},
		"type null":              {`{"type":null}`, EnvelopeBadType, 0},
		"type a number":          {`{"type":1}`, EnvelopeBadType, 0},
		"type an object":         {`{"type":{"type":"x"}}`, EnvelopeBadType, 0},
		"type a list":            {`{"type":["x"]}`, EnvelopeBadType, 0},
		"last type no string":    {`{"type":"x","type":1}`, EnvelopeBadType, 0},
		"Discord":                {`{"content":"","embeds":[{"title":"t","type":"rich"}]}`, EnvelopeChatFormat, 0},
		"Slack":                  {`{"text":"t","blocks":[{"type":"section"}]}`, EnvelopeChatFormat, 0},
		"Discord, broken":        {`{"content":"","embeds":[}`, EnvelopeNotJSON, 24},
		"half of a Slack":        {`{"text":"t"}`, EnvelopeNoType, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ScanEnvelope([]byte(test.body))
			envelopeErr, ok := errors.AsType[*EnvelopeError](err)
			if !ok || envelopeErr.Reason != test.reason || envelopeErr.Offset != test.offset {
				t.Fatalf("ScanEnvelope: %+v, %#v; want reason %s at %d", got, err, test.reason, test.offset)
			}
			if got != (Envelope{}) {
				t.Errorf("an envelope beside the error: %+v", got)
			}
			if text := err.Error(); text == "" || strings.Contains(text, "\n") {
				t.Errorf("text of the error: %q", text)
			}
		})
	}
}

func TestChatMessageIsToldToUseTheRawFormat(t *testing.T) {
	t.Parallel()
	_, err := ScanEnvelope([]byte(`{"content":"","embeds":[]}`))
	if err == nil || !strings.Contains(err.Error(), "raw") {
		t.Errorf("ScanEnvelope: %v, want a word about the raw format", err)
	}
}

func TestMebibyteOfNestingIsScanned(t *testing.T) {
	t.Parallel()
	const half = 1 << 19
	for _, brackets := range []string{"[]", "[{"} {
		var nested []byte
		if brackets == "[]" {
			nested = append(bytes.Repeat([]byte("["), half), bytes.Repeat([]byte("]"), half)...)
		} else {
			nested = append(bytes.Repeat([]byte(`[{"":`), half/8), '1')
			nested = append(nested, bytes.Repeat([]byte("}]"), half/8)...)
		}
		body := append([]byte(`{"type":"x","data":`), nested...)
		got, data, err := ScanEvent(append(body, '}'))
		if err != nil || got.Type != "x" || !bytes.Equal(data, nested) {
			t.Errorf("nesting of %s: %+v, %d bytes of data, %v", brackets, got, len(data), err)
		}
		if _, err := ScanEnvelope(body); err == nil {
			t.Errorf("nesting of %s, not closed: no error", brackets)
		}
		if _, err := ScanEnvelope(body[:len(body)/2]); err == nil {
			t.Errorf("nesting of %s, cut in the middle: no error", brackets)
		}
	}
}

func TestSampleEventsHaveEnvelopes(t *testing.T) {
	t.Parallel()
	for name, body := range samples(t) {
		got, data, err := ScanEvent(body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var want struct {
			Type      string
			Timestamp time.Time
			Data      struct{ ID string }
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
		if got.Type != want.Type || !got.Timestamp.Equal(want.Timestamp) || got.ObjectID != want.Data.ID {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if got.Type != strings.Join(strings.Split(name, ".")[:2], ".") {
			t.Errorf("%s: type %s", name, got.Type)
		}
		if !json.Valid(data) {
			t.Errorf("%s: data is not JSON", name)
		}
	}
}

func TestScanAllocatesOnlyTheStringsItReturns(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts for the whole process
	body := []byte(`{"type":"checkout.updated","timestamp":"2026-08-22T09:00:00.123456Z","data":{"id":"3fa85f64-5717-4562-b3fc-2c963f66afa6","a":[[[{}]]]}}`)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := ScanEnvelope(body); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 2 {
		t.Errorf("%v allocations, want at most 2", allocs)
	}
}

// FuzzScanEnvelope compares with encoding/json.
func FuzzScanEnvelope(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `{"type":"x","data":{"id":"1"},"timestamp":"2026-08-22T09:00:00Z"}`,
		`{"t\u0079pe":"\ud800\udc00\ud800\u0000","data":[1.5e-3,{"id":true}],"data":{"id":"\u0000"}}`,
		`{"content":"","embeds":[]}`, "{\"type\":\"\xff\"}", `{"type":"x"}}`, `{"a":-0.0E+0,"type":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) >= 10_000 {
			return // beyond what encoding/json nests
		}
		got, data, err := ScanEvent(body)
		reason := ""
		if err != nil {
			envelopeErr, ok := errors.AsType[*EnvelopeError](err)
			if !ok {
				t.Fatalf("error of type %T", err)
			}
			reason = envelopeErr.Reason
		}
		wantEnvelope, wantData, wantReason := envelopeByEncodingJSON(body)
		if reason != wantReason {
			t.Fatalf("%q: reason %q (%v), want %q", body, reason, err, wantReason)
		}
		if got != wantEnvelope || !bytes.Equal(data, wantData) {
			t.Fatalf("%q: %+v, %q; want %+v, %q", body, got, data, wantEnvelope, wantData)
		}
		if !utf8.ValidString(got.Type+got.ObjectID) || strings.ContainsRune(got.Type+got.ObjectID, 0) {
			t.Fatalf("%q: not storable as text: %+v", body, got)
		}
	})
}

// envelopeByEncodingJSON does what ScanEvent does, the plain way.
func envelopeByEncodingJSON(body []byte) (Envelope, json.RawMessage, string) {
	storable := func(raw json.RawMessage) (string, bool) {
		var text any
		if raw == nil || json.Unmarshal(raw, &text) != nil {
			return "", false
		}
		s, ok := text.(string)
		s = strings.ReplaceAll(s, "\x00", "\ufffd")
		cut := 0
		for i, r := range s {
			if i+utf8.RuneLen(r) > 200 {
				break
			}
			cut = i + utf8.RuneLen(r)
		}
		return s[:cut], ok
	}
	var top map[string]json.RawMessage
	switch err := json.Unmarshal(body, &top); {
	case len(bytes.Trim(body, " \t\r\n")) == 0:
		return Envelope{}, nil, EnvelopeEmpty
	case !json.Valid(body):
		return Envelope{}, nil, EnvelopeNotJSON
	case err != nil || top == nil:
		return Envelope{}, nil, EnvelopeNotObject
	}
	has := func(names ...string) bool {
		for _, name := range names {
			if _, ok := top[name]; !ok {
				return false
			}
		}
		return true
	}
	switch {
	case !has("type") && (has("content", "embeds") || has("text", "blocks")):
		return Envelope{}, nil, EnvelopeChatFormat
	case !has("type"):
		return Envelope{}, nil, EnvelopeNoType
	}
	envelopeType, ok := storable(top["type"])
	if !ok || envelopeType == "" {
		return Envelope{}, nil, EnvelopeBadType
	}
	var data map[string]json.RawMessage
	_ = json.Unmarshal(top["data"], &data)
	id, _ := storable(data["id"])
	timestamp, _ := storable(top["timestamp"])
	var at time.Time
	if len(timestamp) > 64 || at.UnmarshalText([]byte(timestamp)) != nil || at.UTC().Year() < 1 || at.UTC().Year() > 9999 {
		at = time.Time{}
	}
	return Envelope{envelopeType, at.UTC(), id}, top["data"], ""
}

func BenchmarkScanEnvelope(b *testing.B) {
	body := polartest.Read(b, "samples/checkout.created.synthetic.json")
	b.Run("ScanEnvelope", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ScanEnvelope(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding_json", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			var envelope struct {
				Type      string
				Timestamp time.Time
				Data      struct{ ID string }
			}
			if err := json.Unmarshal(body, &envelope); err != nil {
				b.Fatal(err)
			}
		}
	})
}
