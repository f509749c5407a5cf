package polarfake

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The kinds of fault. Those of requests end the request unless said otherwise; those of events meet an event when it
// is recorded.
const (
	// FaultRateLimit answers 429 with an empty body and Retry-After.
	FaultRateLimit FaultKind = "rate_limit"
	// FaultStatus answers Status: 5xx with a page that is no JSON, else Body or Polar's own words.
	FaultStatus FaultKind = "status"
	// FaultDelay waits for Delay before the request is served.
	FaultDelay FaultKind = "delay"
	// FaultHang does nothing and answers nothing: the caller times out.
	FaultHang FaultKind = "hang"
	// FaultReset cuts the connection before anything is done.
	FaultReset FaultKind = "reset"
	// FaultHangAfter does the work and answers nothing: the caller times out and cannot know.
	FaultHangAfter FaultKind = "hang_after"
	// FaultCutAfter does the work and cuts the connection.
	FaultCutAfter FaultKind = "cut_after"
	// FaultTruncate does the work and answers with the status, but with half of the body. See [Fault.ContentLength].
	FaultTruncate FaultKind = "truncate"
	// FaultShortPage leaves every second item out of a page of a list, though the counts stay. It meets lists only.
	FaultShortPage FaultKind = "short_page"
	// FaultEmptyList answers a list as if there were nothing. It meets lists only.
	FaultEmptyList FaultKind = "empty_list"

	// FaultEventDrop never sends an event. It can be redelivered.
	FaultEventDrop FaultKind = "event_drop"
	// FaultEventDuplicate sends the first delivery of an event twice.
	FaultEventDuplicate FaultKind = "event_duplicate"
	// FaultEventReorder holds an event back until a later one of its endpoint was sent, at most for Delay (0: 1 s).
	FaultEventReorder FaultKind = "event_reorder"
	// FaultEventDelay sends an event after Delay, and those behind it before.
	FaultEventDelay FaultKind = "event_delay"
)

var requestFaults = []FaultKind{
	FaultRateLimit, FaultStatus, FaultDelay, FaultHang, FaultReset, FaultHangAfter, FaultCutAfter, FaultTruncate,
	FaultShortPage, FaultEmptyList,
}

var listFaults = []FaultKind{FaultShortPage, FaultEmptyList}

var eventFaults = []FaultKind{FaultEventDrop, FaultEventDuplicate, FaultEventReorder, FaultEventDelay}

// Fault is something to go wrong, with the next Count requests or events that match.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Method of the requests; "" matches all.
	Method string `json:"method,omitempty"`
	// Path of the requests, a pattern of [path.Match]: "/v1/checkouts/", "/v1/customers/*". "" matches all.
	Path string `json:"path,omitempty"`
	// EventType of the events, a pattern of [path.Match]: "customer.*". "" matches all.
	EventType string `json:"event_type,omitempty"`
	// Count is how often it strikes. 0 means once, -1 for ever.
	Count int `json:"count,omitempty"`
	// Status of the answer, for FaultStatus.
	Status int `json:"status,omitempty"`
	// Body of the answer, for FaultStatus. Empty means what Polar would say.
	Body json.RawMessage `json:"body,omitempty"`
	// RetryAfter is for FaultRateLimit. 0 means 1 s.
	RetryAfter Duration `json:"retry_after,omitempty"`
	// Delay is for the kinds that wait.
	Delay Duration `json:"delay,omitempty"`
	// ContentLength of a truncated answer: "" is that of what is sent, so that only the JSON tells; "whole" is that of
	// all, so that the connection ends too early; "none" sends in chunks without a length.
	ContentLength string `json:"content_length,omitempty"`
}

// The values of [Fault.ContentLength] beside "".
const (
	ContentLengthWhole = "whole"
	ContentLengthNone  = "none"
)

// Duration is a duration that JSON writes as "1.5s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("reading a duration such as 1.5s: %w", err)
	}
	*d = Duration(parsed)
	return nil
}

// Inject makes something go wrong from now on. Faults are tried in the order of their injection.
func (f *Fake) Inject(fault Fault) error {
	if !slices.Contains(requestFaults, fault.Kind) && !slices.Contains(eventFaults, fault.Kind) {
		return fmt.Errorf("fault kind %q is not known, use one of %v or %v", fault.Kind, requestFaults, eventFaults)
	}
	for _, pattern := range []string{fault.Path, fault.EventType} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("fault pattern %q: %w", pattern, err)
		}
	}
	if fault.Kind == FaultStatus && (fault.Status < 400 || fault.Status > 599) {
		return fmt.Errorf("fault status %d is not an error, use 400 to 599", fault.Status)
	}
	if !slices.Contains([]string{"", ContentLengthWhole, ContentLengthNone}, fault.ContentLength) {
		return fmt.Errorf("fault content_length %q is not known, use %s, %s or nothing", fault.ContentLength, ContentLengthWhole, ContentLengthNone)
	}
	if fault.Count == 0 {
		fault.Count = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()

	f.faults = append(f.faults, &fault)
	return nil
}

// ClearFaults takes back all faults that have not struck.
func (f *Fake) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.faults = nil
}

func (f *Fake) matchFault(r *http.Request, isList bool) *Fault {
	return f.strike(func(fault *Fault) bool {
		return slices.Contains(requestFaults, fault.Kind) && (isList || !slices.Contains(listFaults, fault.Kind)) && (fault.Method == "" || fault.Method == r.Method) &&
			matchPattern(fault.Path, r.URL.Path)
	})
}

func (f *Fake) matchEventFault(eventType string) *Fault {
	return f.strike(func(fault *Fault) bool {
		return slices.Contains(eventFaults, fault.Kind) && matchPattern(fault.EventType, eventType)
	})
}

func (f *Fake) strike(matches func(*Fault) bool) *Fault {
	at := slices.IndexFunc(f.faults, matches)
	if at < 0 {
		return nil
	}
	fault := f.faults[at]
	if fault.Count > 0 {
		fault.Count--
		if fault.Count == 0 {
			f.faults = slices.Delete(f.faults, at, at+1)
		}
	}
	return fault
}

func matchPattern(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	matched, _ := path.Match(pattern, name) // checked when injected
	return matched
}

// before strikes before the work and reports whether that was all.
func (fault *Fault) before(f *Fake, w http.ResponseWriter, r *http.Request) bool {
	switch fault.Kind {
	case FaultRateLimit:
		wait := time.Duration(fault.RetryAfter)
		if wait == 0 {
			wait = time.Second
		}
		f.writeRateLimit(w, wait)
	case FaultStatus:
		w.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
		fault.writeStatus(w)
	case FaultDelay:
		return !f.pause(r, time.Duration(fault.Delay))
	case FaultHang:
		f.hang(r)
		cut(w)
	case FaultReset:
		cut(w)
	default:
		return false
	}
	return true
}

// after strikes after the work and reports whether that was the end of the answer.
func (fault *Fault) after(f *Fake, w http.ResponseWriter, r *http.Request, answer *recorder) bool {
	switch fault.Kind {
	case FaultHangAfter:
		f.hang(r)
		cut(w)
	case FaultCutAfter:
		cut(w)
	case FaultTruncate:
		w.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
		fault.truncate(w, answer)
	case FaultShortPage, FaultEmptyList:
		if answer.status == http.StatusOK {
			answer.replace(thinned(answer.body.Bytes(), fault.Kind))
		}
		return false
	default:
		return false
	}
	return true
}

// truncate sends half of the answer.
func (fault *Fault) truncate(w http.ResponseWriter, answer *recorder) {
	whole := answer.body.Bytes()
	half := whole[:len(whole)/2]
	switch {
	case fault.ContentLength == ContentLengthWhole && len(whole) > 0:
		w.Header().Set("Content-Length", strconv.Itoa(len(whole))) // the server ends the connection over what is missing
	case fault.ContentLength != ContentLengthNone && len(whole) > 0:
		w.Header().Set("Content-Length", strconv.Itoa(len(half)))
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(half)                      // the caller may be gone
	_ = http.NewResponseController(w).Flush() // without a length, what is flushed goes in chunks
}

// thinned takes from a page every second item, or all and the counts too.
func thinned(page []byte, how FaultKind) []byte {
	var document map[string]json.RawMessage
	if json.Unmarshal(page, &document) != nil {
		return page
	}
	for _, name := range []string{"items", "seats"} {
		var items, kept []json.RawMessage
		if json.Unmarshal(document[name], &items) != nil {
			continue
		}
		for i, item := range items {
			if how == FaultShortPage && i%2 == 1 {
				kept = append(kept, item)
			}
		}
		document[name] = encode(append([]json.RawMessage{}, kept...))
	}
	if _, isPaged := document["pagination"]; isPaged && how == FaultEmptyList {
		document["pagination"] = encode(pagination{})
	}
	return encode(document)
}

func (fault *Fault) writeStatus(w http.ResponseWriter) {
	if len(fault.Body) > 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(fault.Status)
		_, _ = w.Write(fault.Body) // the caller may be gone
		return
	}
	switch fault.Status {
	case http.StatusUnauthorized:
		writeError(w, errUnauthorized())
	case http.StatusForbidden:
		writeError(w, &APIError{Status: fault.Status, Name: "NotPermitted", Detail: "Not permitted"})
	case http.StatusNotFound:
		writeError(w, errNotFound())
	case http.StatusUnprocessableEntity:
		writeError(w, errRefused([]Problem{{
			Type: "value_error", Loc: []any{"body"}, Msg: "Refused by a fault.",
		}}))
	default:
		writePage(w, fault.Status)
	}
}

// writePage answers with a page that is no JSON, as the gateway before Polar does.
func writePage(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<html><head><title>%d</title></head><body>%s</body></html>\n", status, http.StatusText(status))
}

// pause waits and reports whether the request is still wanted.
func (f *Fake) pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-f.background.Done():
	}
	return false
}

// hang waits for the caller to give up.
func (f *Fake) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-f.background.Done():
	}
}

// cut resets the connection, so that the caller gets no answer at all.
func cut(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the other way to end a request without an answer
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset instead of an orderly end; best effort
	}
	_ = connection.Close()
}
