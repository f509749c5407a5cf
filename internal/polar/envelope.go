package polar

import (
	"encoding/json"
	"fmt"
	"time"
)

// maxEnvelopeText bounds the texts of an [Envelope], in bytes. Polar's types
// have under 40 and its ids 36.
const maxEnvelopeText = 200

// Envelope is what truenorth has to know of a delivery before it is stored.
// Its texts can be stored as text in Postgres: they are valid UTF-8 without
// NUL, and of at most 200 bytes.
type Envelope struct {
	Type      string    // such as "checkout.updated"; never empty
	Timestamp time.Time // when Polar built the payload, in UTC; zero if missing or unreadable
	ObjectID  string    // data.id if that is a string, else ""
}

// Reasons of an [EnvelopeError]. They are stable, and short enough to be a
// metric's label.
const (
	EnvelopeEmpty      = "empty_body"
	EnvelopeNotJSON    = "not_json"
	EnvelopeNotObject  = "not_object"
	EnvelopeChatFormat = "chat_format"
	EnvelopeNoType     = "no_type"
	EnvelopeBadType    = "bad_type"
)

// EnvelopeError says why a body is no event. Its text tells the sender what is
// wrong and quotes nothing of the body.
type EnvelopeError struct {
	Reason string // one of the Envelope… constants
	Offset int    // of the first byte that is not JSON, from 0; 0 for the other reasons
}

func (e *EnvelopeError) Error() string {
	switch e.Reason {
	case EnvelopeEmpty:
		return "the body is empty"
	case EnvelopeNotJSON:
		return fmt.Sprintf("the body is not JSON: it goes wrong at byte %d", e.Offset)
	case EnvelopeNotObject:
		return "the body is JSON, but not an object"
	case EnvelopeChatFormat:
		return "the body is a Discord or Slack message: set the format of Polar's webhook endpoint to raw"
	case EnvelopeNoType:
		return `the body has no field "type"`
	default:
		return `the field "type" is not a string, or is empty`
	}
}

// ScanEnvelope reads the envelope of an event. It accepts every JSON object
// with a non-empty string "type", whatever else is in it, and requires the
// whole body to be JSON (RFC 8259). Of repeated names the last counts, as it
// does in Postgres's jsonb. Depth of nesting costs no stack. An error is
// always an *[EnvelopeError].
func ScanEnvelope(body []byte) (Envelope, error) {
	envelope, _, err := ScanEvent(body)
	return envelope, err
}

// ScanEvent is [ScanEnvelope] that returns the value of "data" too, as a part
// of body: nil if there is none.
func ScanEvent(body []byte) (Envelope, json.RawMessage, error) {
	s := scanner{body: body}
	s.skipSpace()
	if s.pos == len(body) {
		return Envelope{}, nil, &EnvelopeError{Reason: EnvelopeEmpty}
	}
	isObject := body[s.pos] == '{'
	if !s.scan() {
		return Envelope{}, nil, &EnvelopeError{Reason: EnvelopeNotJSON, Offset: s.pos}
	}
	switch {
	case !isObject:
		return Envelope{}, nil, &EnvelopeError{Reason: EnvelopeNotObject}
	case !s.hasType && (s.hasContent && s.hasEmbeds || s.hasText && s.hasBlocks):
		return Envelope{}, nil, &EnvelopeError{Reason: EnvelopeChatFormat}
	case !s.hasType:
		return Envelope{}, nil, &EnvelopeError{Reason: EnvelopeNoType}
	case len(s.typ) == 0:
		return Envelope{}, nil, &EnvelopeError{Reason: EnvelopeBadType}
	}
	return Envelope{
		Type:      decodeText(s.typ, maxEnvelopeText),
		Timestamp: decodeTime(s.timestamp),
		ObjectID:  decodeText(s.id, maxEnvelopeText),
	}, s.data, nil
}
