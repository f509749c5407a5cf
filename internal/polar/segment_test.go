package polar

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestNoExternalIDLeavesItsSegmentOfThePath asks for ids that are made to lead elsewhere. What Polar is asked is one segment,
// escaped, that decodes to the very id; or it is a search, with the id in its query.
func TestNoExternalIDLeavesItsSegmentOfThePath(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, reply{status: http.StatusNotFound, body: `{"error":"ResourceNotFound","detail":"Not found"}`})
	api := newTestAPI(t, server.URL, Config{})
	pieces := rapid.SampledFrom([]string{
		"..", ".", "/", "\\", "%2f", "%2F", "%2e%2e", "%00", "%", "?", "#", ";", ";x=1", "&", "=", "@", ":", "//", "http://evil.example/", "usr", "é", " ", "\t", "\n",
		"\r\nX-Evil: 1", "\x00", "\u2025", "\uff0f", "{external_id}", "customers", "+", "*", "~", "\xff", "'", "\"", "<", "|",
	})
	rapid.Check(t, func(t *rapid.T) {
		id := strings.Join(rapid.SliceOfN(pieces, 0, 6).Draw(t, "pieces"), "")
		before := server.count()
		_, err := api.GetCustomerByExternalID(t.Context(), id)
		if err == nil {
			t.Fatalf("%q is found, though there is nobody", id)
		}
		server.mu.Lock()
		asked := server.requests[before:]
		server.mu.Unlock()
		for _, r := range asked {
			if r.Header.Get("X-Evil") != "" || r.Host != strings.TrimPrefix(server.URL, "http://") {
				t.Fatalf("%q reaches the headers, or another host: %v %s", id, r.Header, r.Host)
			}
			target, query, _ := strings.Cut(r.RequestURI, "?")
			if target == "/v1/customers/" {
				values, err := url.ParseQuery(query)
				if err != nil || !strings.HasPrefix(strings.ToValidUTF8(id, "\ufffd"), strings.ToValidUTF8(values.Get("query"), "\ufffd")) {
					t.Fatalf("%q is searched for by %s (%v)", id, query, err)
				}
				continue
			}
			segment, ok := strings.CutPrefix(target, "/v1/customers/external/")
			decoded, err := url.PathUnescape(segment)
			if !ok || query != "" || strings.ContainsAny(segment, "/\\;?#") || segment == "." || segment == ".." || err != nil || decoded != id {
				t.Fatalf("%q asks for %s", id, r.RequestURI)
			}
		}
		if id == "" && len(asked) != 0 {
			t.Fatal("no id is asked for")
		}
	})
}
