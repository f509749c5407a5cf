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
	FaultRateLimit, FaultStatus, FaultDelay, FaultHang, FaultReset, FaultHangAfter, FaultCutAfter,
}

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
}

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

func (f *Fake) matchFault(r *http.Request) *Fault {
	return f.strike(func(fault *Fault) bool {
		return slices.Contains(requestFaults, fault.Kind) && (fault.Method == "" || fault.Method == r.Method) &&
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
		seconds := int64((wait + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
		w.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusTooManyRequests)
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

// after strikes after the work and reports whether the answer is lost.
func (fault *Fault) after(f *Fake, w http.ResponseWriter, r *http.Request) bool {
	switch fault.Kind {
	case FaultHangAfter:
		f.hang(r)
	case FaultCutAfter:
	default:
		return false
	}
	cut(w)
	return true
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
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(fault.Status)
		_, _ = fmt.Fprintf(w, "<html><head><title>%d</title></head><body>%s</body></html>\n",
			fault.Status, http.StatusText(fault.Status))
	}
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
