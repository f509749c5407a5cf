package polar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// APIError is a call that did not succeed. It holds neither the token nor the
// values that were sent, so it can be logged and stored.
type APIError struct {
	Method string
	Path   string // the route, such as "/v1/checkouts/{id}", without the values

	// Status is the HTTP status; 0 if there was no answer. It is 2xx if Polar
	// did the work but its answer could not be read; then Err says why.
	Status int

	Code       string        // Polar's name of the error, such as "ResourceNotFound"; "" if it gave none
	Message    string        // Polar's own words, in one line; "" if there were none
	Fields     []FieldError  // what is wrong with which field, if Polar told
	RetryAfter time.Duration // how long Polar asks to wait; 0 if it does not say
	Date       time.Time     // of the answer, by Polar's clock; zero if there is none

	// NotSent says that the request surely did not reach Polar, so that
	// nothing can have happened there.
	NotSent bool

	Err error // why there is no answer that can be read; nil if there is one
}

// FieldError is one finding of Polar's validation.
type FieldError struct {
	Loc  []string // the path to the value, such as "body", "products", "0"
	Msg  string
	Type string
}

func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)
	switch {
	case e.Status == 0 && e.NotSent:
		b.WriteString("nothing was sent")
	case e.Status == 0:
		b.WriteString("no answer")
	default:
		fmt.Fprintf(&b, "status %d", e.Status)
		if text := http.StatusText(e.Status); text != "" {
			b.WriteString(" " + text)
		}
	}
	if e.Code != "" {
		b.WriteString(": " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %v)", e.RetryAfter)
	}
	return b.String()
}

func (e *APIError) Unwrap() error { return e.Err }

// IsNotFound tells whether Polar said that there is no such object. It is also
// what an unsupported Polar-Version is answered with.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsRateLimited tells whether Polar refused the call for being one too many.
func IsRateLimited(err error) bool { return hasStatus(err, http.StatusTooManyRequests) }

// IsValidation tells whether Polar refused what was sent, for good.
func IsValidation(err error) bool { return hasStatus(err, http.StatusUnprocessableEntity) }

// IsUnauthorized tells whether Polar does not know the token.
func IsUnauthorized(err error) bool { return hasStatus(err, http.StatusUnauthorized) }

// IsForbidden tells whether the token lacks the scope for the call.
func IsForbidden(err error) bool { return hasStatus(err, http.StatusForbidden) }

func hasStatus(err error, status int) bool {
	apiErr, ok := errors.AsType[*APIError](err)
	return ok && apiErr.Status == status
}

// OutcomeUnknown tells whether a call that failed may still have done its work
// at Polar: it timed out, was cut off after it was sent, was answered with a
// 5xx, or its success could not be read. Such a call must not be made again
// before a look at what it did. Errors that are no [*APIError] are known: they
// come from before the call.
func OutcomeUnknown(err error) bool {
	apiErr, ok := errors.AsType[*APIError](err)
	if !ok || apiErr.NotSent {
		return false
	}
	status := apiErr.Status
	return status < 300 || // no answer, or a success that could not be read
		status == http.StatusRequestTimeout || // said by a proxy, which cannot know
		status >= 500
}

const (
	maxMessageLen  = 2000 // bytes, of all that Polar says of one error
	maxForeignText = 200  // bytes, of an answer that is not Polar's JSON
	maxFieldErrors = 50
	maxRetryAfter  = 24 * time.Hour
)

// answerError is the error that a response stands for.
func (c call) answerError(response *http.Response, body []byte) *APIError {
	apiErr := &APIError{
		Method:     c.method,
		Path:       c.route,
		Status:     response.StatusCode,
		RetryAfter: retryAfter(response.Header),
	}
	apiErr.Date, _ = http.ParseTime(response.Header.Get("Date")) // zero if Polar does not say
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		apiErr.Message = "redirected, which is not followed: check POLAR_API_URL"
		return apiErr
	}
	var answer struct {
		Error  json.RawMessage `json:"error"`
		Detail json.RawMessage `json:"detail"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		apiErr.Message = oneLine(string(body), maxForeignText)
		return apiErr
	}
	apiErr.Code = oneLine(jsonText(answer.Error), maxForeignText)
	apiErr.Message, apiErr.Fields = decodeDetail(answer.Detail)
	return apiErr
}

// decodeDetail reads the two shapes of an error's detail: a sentence, or a
// list of findings. What a finding says of the value that was sent, "input"
// and "ctx", is left out.
func decodeDetail(detail json.RawMessage) (string, []FieldError) {
	var findings []json.RawMessage
	if err := json.Unmarshal(detail, &findings); err != nil {
		return oneLine(jsonText(detail), maxMessageLen), nil
	}
	var (
		fields   []FieldError
		messages []string
	)
	for _, finding := range findings[:min(len(findings), maxFieldErrors)] {
		var parts members
		if err := json.Unmarshal(finding, &parts); err != nil {
			continue
		}
		field := FieldError{
			Msg:  oneLine(parts.text("msg"), maxMessageLen),
			Type: oneLine(parts.text("type"), maxForeignText),
		}
		var loc []json.RawMessage
		_ = json.Unmarshal(parts["loc"], &loc) // not a list: no location
		for _, step := range loc {
			field.Loc = append(field.Loc, oneLine(jsonText(step), maxForeignText))
		}
		if field.Msg == "" && len(field.Loc) == 0 {
			continue
		}
		fields = append(fields, field)
		messages = append(messages, strings.TrimPrefix(strings.Join(field.Loc, ".")+": "+field.Msg, ": "))
	}
	return oneLine(strings.Join(messages, "; "), maxMessageLen), fields
}

// jsonText returns the meaning of a JSON string, the digits of a number, and
// "" for any other value.
func jsonText(value json.RawMessage) string {
	value = bytes.TrimSpace(value)
	switch {
	case len(value) == 0:
		return ""
	case value[0] == '"':
		return decodeText(unquote(value), maxMessageLen)
	case value[0] == '-' || '0' <= value[0] && value[0] <= '9':
		return string(value)
	}
	return ""
}

// oneLine makes foreign text fit for a log and for Postgres: one line of
// printable characters, of at most limit bytes.
func oneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= limit {
		return text
	}
	const ellipsis = "…"
	end := limit - len(ellipsis)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

// retryAfter reads the Retry-After header, in seconds or as a date. A date is
// compared with the Date of the same answer, which is the same clock.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case !(seconds > 0):
			return 0
		case seconds > maxRetryAfter.Seconds():
			return maxRetryAfter
		}
		return time.Duration(seconds * float64(time.Second))
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(until.Sub(now), 0), maxRetryAfter)
}
