package program

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthyAsksLivezWhereverItListens(t *testing.T) {
	t.Parallel()
	answering := func(status int) (address string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/livez" {
				t.Errorf("asks %s", r.URL.Path)
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	address := answering(http.StatusOK)
	_, port, _ := strings.Cut(address, ":")
	for _, addr := range []string{address, ":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		if err := healthy(t.Context(), addr); err != nil {
			t.Errorf("at %s: %v", addr, err)
		}
	}
	for _, status := range []int{http.StatusNotFound, http.StatusFound, http.StatusServiceUnavailable} {
		if err := healthy(t.Context(), answering(status)); err == nil {
			t.Errorf("%d counts as living", status)
		}
	}
	if err := healthy(t.Context(), "nowhere"); err == nil {
		t.Error("an address without a port is asked")
	}
}
