package program

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// healthy asks the program that listens at addr on this machine whether it lives, for a container that has no other program to ask
// with. While Postgres is away it does: a restart would mend nothing.
func healthy(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("the address to ask: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost" // it listens everywhere
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/livez", nil)
	if err != nil {
		return fmt.Errorf("the address to ask: %w", err)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request) // as it is: no proxy, no redirect
	if err != nil {
		return fmt.Errorf("asking whether it lives: %w", err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: something else listens there", request.URL, response.Status)
	}
	return nil
}
