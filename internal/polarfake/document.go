package polarfake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// timestamp is a moment in Polar's notation: UTC, six decimals or none.
type timestamp struct{ time.Time }

func (t timestamp) String() string {
	if t.Nanosecond() == 0 {
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// MarshalJSON implements [json.Marshaler].
func (t timestamp) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

func (t timestamp) add(d time.Duration) timestamp { return timestamp{t.Add(d)} }

// metadata is what API clients attach to an object: strings, numbers and booleans.
type metadata map[string]any

// merged returns m overlaid with other.
func (m metadata) merged(other metadata) metadata {
	result := make(metadata, len(m)+len(other))
	maps.Copy(result, m)
	maps.Copy(result, other)
	return result
}

// address is a billing address. Country is always set.
type address struct {
	Line1      *string `json:"line1"`
	Line2      *string `json:"line2"`
	PostalCode *string `json:"postal_code"`
	City       *string `json:"city"`
	State      *string `json:"state"`
	Country    string  `json:"country"`
}

// encode renders a document of the fake as Polar would. Failing is a mistake in this package.
func encode(document any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(document); err != nil {
		panic(fmt.Sprintf("polarfake: encoding %T: %v", document, err))
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
}

// revise makes a change and, if the document shows it, bumps modified_at.
func (f *Fake) revise(document func() any, modifiedAt **timestamp, change func()) {
	before := encode(document())
	change()
	if !bytes.Equal(before, encode(document())) {
		*modifiedAt = new(f.now())
	}
}

func deref[T any](value *T) T {
	if value == nil {
		var zero T
		return zero
	}
	return *value
}
