package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// ProbeError tells that what Polar sends to an endpoint would not be taken.
type ProbeError struct {
	Finding string // FindingUnreachable or FindingSecretRefused
	Detail  string
}

func (e *ProbeError) Error() string { return e.Detail }

// finding is what it means for the endpoint.
func (e *ProbeError) finding() store.EndpointFinding {
	advice := "see that INGEST_PUBLIC_URL leads to a running ingest, from here too"
	if e.Finding == FindingSecretRefused {
		advice = "add the endpoint's secret to POLAR_WEBHOOK_SECRETS and restart ingest"
	}
	return store.EndpointFinding{Finding: e.Finding, Detail: e.Detail, Advice: advice}
}

// probeBody is JSON that is no event: ingest takes it for a bad request once it believes the signature, so that
// nothing is stored.
const probeBody = "{}"

// ProbeEndpoint posts to the endpoint's URL what Polar would, once without a signature and once signed with the
// endpoint's secret, and tells whether it is ingest that answers, and whether it accepts the secret. Nothing is stored.
// Each call is a connection of its own: behind one URL there may be several ingests. Errors: *ProbeError.
func ProbeEndpoint(ctx context.Context, e polar.Endpoint) error {
	status, err := post(ctx, e.URL, nil)
	switch {
	case err != nil:
		return &ProbeError{FindingUnreachable, fmt.Sprintf("%s does not answer: %v", shownURL(e.URL), err)}
	case status != http.StatusUnauthorized:
		return &ProbeError{FindingUnreachable, fmt.Sprintf("%s answers a delivery without a signature with %d, where ingest answers 401", shownURL(e.URL), status)}
	}
	headers, err := polar.Sign(e.Secret.Reveal(), "probe-"+uuid.NewString(), time.Now(), []byte(probeBody), e.Derivation())
	if err != nil {
		return &ProbeError{FindingSecretRefused, fmt.Sprintf("Polar does not show a usable secret of endpoint %s", e.ID)}
	}
	status, err = post(ctx, e.URL, headers)
	switch {
	case err != nil:
		return &ProbeError{FindingUnreachable, fmt.Sprintf("%s does not answer: %v", shownURL(e.URL), err)}
	case status == http.StatusUnauthorized:
		return &ProbeError{FindingSecretRefused, fmt.Sprintf("%s answers, but does not accept the secret of endpoint %s", shownURL(e.URL), e.ID)}
	case status != http.StatusBadRequest:
		return &ProbeError{FindingUnreachable, fmt.Sprintf("%s answers a signed delivery that is no event with %d, where ingest answers 400", shownURL(e.URL), status)}
	}
	return nil
}

// post is a delivery as Polar makes it.
func post(ctx context.Context, endpointURL string, headers http.Header) (status int, err error) {
	const patience = 10 * time.Second // as long as Polar's
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpointURL, strings.NewReader(probeBody))
	if err != nil {
		return 0, errors.New("no request can be made of the URL") // err would show it
	}
	if headers != nil {
		request.Header = headers
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "truenorth probe")
	request.Close = true
	poster := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := poster.Do(request)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err
		}
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<10)) // what it says does not matter
	return response.StatusCode, nil
}
