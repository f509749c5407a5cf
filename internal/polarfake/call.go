package polarfake

import (
	"encoding/json"
	"net/http"
)

// call runs a handler of the API for a caller in this process.
func (f *Fake) call(handle handler, body string, path map[string]string) (json.RawMessage, error) {
	r := &request{Request: new(http.Request), body: []byte(body)}
	for name, value := range path {
		r.SetPathValue(name, value)
	}
	f.mu.Lock()
	defer f.mu.Unlock()

	document, err := handle(r)
	if err != nil {
		return nil, err
	}
	return encode(document), nil
}
