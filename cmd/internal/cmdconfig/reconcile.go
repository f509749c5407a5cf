package cmdconfig

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/ingest"
	"github.com/truenorth-dev/truenorth/internal/polar"
)

// Reconcile is what is read from Polar unasked, and what may be done about it.
type Reconcile struct {
	// ReconcileInterval is the pause between two readings of Polar's lists; 0: only when asked on the command line.
	ReconcileInterval time.Duration `env:"RECONCILE_INTERVAL" envDefault:"15m" form:"a duration such as 15m, or 0 for never"`
	// IngestPublicURL is ingest as Polar reaches it: the URL of its route, or https://host for the usual route there.
	IngestPublicURL string `env:"INGEST_PUBLIC_URL"`
	// ReenableEndpoint lets the worker enable Polar's endpoint again when it is disabled.
	ReenableEndpoint bool `env:"POLAR_REENABLE_ENDPOINT" envDefault:"false" form:"true or false"`
}

// EndpointURL is the URL that Polar's endpoint has to have, in the form of [polar.EndpointURL]; "" if it is not known.
func (c Reconcile) EndpointURL() string {
	full, _ := EndpointURL(c.IngestPublicURL) // checked when it was read
	return full
}

// EndpointURL completes a base without a path with ingest's route; "" stays.
func EndpointURL(text string) (string, error) {
	if strings.TrimSpace(text) == "" {
		return "", nil
	}
	full, err := polar.EndpointURL(text)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(full)
	if err != nil {
		return "", errors.New("not a URL")
	}
	if u.Path == "/" && u.RawQuery == "" {
		u.Path = ingest.Route
	}
	return u.String(), nil
}

func (c Reconcile) checkReconcile() error {
	var errs []error
	if c.ReconcileInterval != 0 && c.ReconcileInterval < time.Second {
		errs = append(errs, fmt.Errorf("RECONCILE_INTERVAL is %s: give a duration such as 15m, or 0 for never", c.ReconcileInterval))
	}
	if _, err := EndpointURL(c.IngestPublicURL); err != nil {
		errs = append(errs, fmt.Errorf("INGEST_PUBLIC_URL is %w: give the URL at which Polar reaches ingest, such as https://shop.example%s", err, ingest.Route))
	}
	return errors.Join(errs...)
}
