package jobs

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// Findings: what can be wrong with Polar's endpoint. They are labels of metrics and stand in the database.
const (
	FindingMissing       = "missing"        // no endpoint has our URL
	FindingDisabled      = "disabled"       // Polar or a person has switched it off
	FindingWrongFormat   = "wrong_format"   // it sends chat messages
	FindingEventsMissing = "events_missing" // some types of events are not sent
	FindingUnreachable   = "unreachable"    // our URL does not lead to ingest
	FindingSecretRefused = "secret_refused" // it does, and ingest does not have the endpoint's secret
	FindingUnreadable    = "unreadable"     // Polar could not be asked
	FindingAmbiguous     = "ambiguous"      // it cannot be told which endpoint is ours
	FindingLegacySigning = "legacy_signing" // all is well, but the secret is of the old kind
)

// FindingKinds lists all findings.
func FindingKinds() []string {
	return []string{
		FindingMissing, FindingDisabled, FindingWrongFormat, FindingEventsMissing, FindingUnreachable,
		FindingSecretRefused, FindingUnreadable, FindingAmbiguous, FindingLegacySigning,
	}
}

// EndpointReport is what there is to say of Polar's endpoint now.
type EndpointReport struct {
	State     string                  // store.EndpointOK, EndpointDark or EndpointUnknown
	Findings  []store.EndpointFinding // worst first
	URL       string                  // what the endpoint's has to be; "" if that is not known
	Endpoints []polar.Endpoint        // at this URL, oldest first
	ReadAt    time.Time               // by Polar's clock; zero if Polar could not be asked
	Probes    map[uuid.UUID]bool      // by endpoint, whether ingest took what was signed with its secret; nil: nobody tried
}

// CheckEndpoint asks Polar. An error tells that it is away; that it refuses to say is a finding.
func CheckEndpoint(ctx context.Context, api *polar.API, endpointURL string) (EndpointReport, error) {
	all, readAt, err := api.ListEndpoints(ctx)
	switch {
	case polar.IsForbidden(err):
		return unreadable(endpointURL, "Polar refuses to list its endpoints", "give the token of POLAR_ACCESS_TOKEN the scope webhooks:read"), nil
	case polar.IsUnauthorized(err):
		return unreadable(endpointURL, "Polar does not know the token", "set POLAR_ACCESS_TOKEN to a valid organization access token"), nil
	case err != nil:
		return EndpointReport{}, fmt.Errorf("listing Polar's endpoints: %w", err)
	}
	return judgeEndpoints(all, endpointURL, readAt), nil
}

func unreadable(endpointURL, detail, advice string) EndpointReport {
	return EndpointReport{
		State: store.EndpointUnknown, URL: endpointURL,
		Findings: []store.EndpointFinding{{Finding: FindingUnreadable, Detail: detail, Advice: advice}},
	}
}

// judgeEndpoints says what is wrong. Several endpoints may have our URL while a secret is rotated: it is well when
// each type of event is sent by one of them.
func judgeEndpoints(all []polar.Endpoint, endpointURL string, readAt time.Time) EndpointReport {
	if readAt.IsZero() {
		readAt = time.Now() // Polar always tells; if not, this is the best there is
	}
	report := EndpointReport{State: store.EndpointOK, ReadAt: readAt}
	find := func(kind, detail, advice string) {
		report.Findings = append(report.Findings, store.EndpointFinding{Finding: kind, Detail: detail, Advice: advice})
	}
	if report.URL = theURL(all, endpointURL); report.URL == "" {
		report.State = store.EndpointUnknown
		find(FindingAmbiguous, fmt.Sprintf("Polar has %d endpoints, and it is not known which is ours", len(all)),
			"set INGEST_PUBLIC_URL to the URL at which Polar reaches ingest")
		return report
	}
	report.Endpoints = endpointsAt(all, report.URL)
	live := liveEndpoints(report.Endpoints)
	missing := eventsMissing(live)
	if len(missing) > 0 {
		report.State = store.EndpointDark
	}
	switch {
	case len(report.Endpoints) == 0:
		find(FindingMissing, fmt.Sprintf("no endpoint of Polar's has the URL %s%s", shownURL(report.URL), otherURLs(all)),
			"correct INGEST_PUBLIC_URL, or the endpoint's URL in Polar's settings, or make one with truenorth endpoint create")
	case len(missing) > 0:
		for _, e := range report.Endpoints {
			if !e.Enabled {
				find(FindingDisabled, fmt.Sprintf("endpoint %s is disabled: Polar sends nothing, and what happens now it never will", e.ID),
					"see that ingest answers and has its secret, then enable it in Polar's settings (POLAR_REENABLE_ENDPOINT=true does so by itself, with the scope webhooks:write)")
			}
		}
		for _, e := range report.Endpoints {
			if e.Format != polar.FormatRaw {
				find(FindingWrongFormat, fmt.Sprintf("endpoint %s is of format %s, which cannot be read", e.ID, quoted(e.Format)), "set its format to raw in Polar's settings")
			}
		}
		if len(live) > 0 {
			find(FindingEventsMissing, "these are not sent: "+strings.Join(missing, ", "), "check all events of the endpoint in Polar's settings")
		}
	}
	for _, e := range live {
		if e.LegacySigning {
			find(FindingLegacySigning, fmt.Sprintf("endpoint %s has a secret from before 2026-09-08, which Polar uses in its old way", e.ID),
				"nothing is wrong; truenorth endpoint rotate makes a new one")
			break
		}
	}
	return report
}

// theURL is the one that our endpoint has to have. Where it is not given, an organization whose endpoints of format raw
// all have one URL is understood.
func theURL(all []polar.Endpoint, given string) string {
	if given != "" {
		return given
	}
	var urls []string
	for _, e := range all {
		if at, err := polar.EndpointURL(e.URL); err == nil && e.Format == polar.FormatRaw {
			urls = append(urls, at)
		}
	}
	if urls = distinctTexts(urls); len(urls) != 1 {
		return ""
	}
	return urls[0]
}

func distinctTexts(texts []string) []string {
	slices.Sort(texts)
	return slices.Compact(texts)
}

// endpointsAt are those at a URL, oldest first.
func endpointsAt(all []polar.Endpoint, endpointURL string) []polar.Endpoint {
	var ours []polar.Endpoint
	for _, e := range all {
		if at, err := polar.EndpointURL(e.URL); err == nil && at == endpointURL {
			ours = append(ours, e)
		}
	}
	slices.SortStableFunc(ours, func(a, b polar.Endpoint) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return ours
}

// liveEndpoints are those that send what can be read.
func liveEndpoints(endpoints []polar.Endpoint) []polar.Endpoint {
	var live []polar.Endpoint
	for _, e := range endpoints {
		if e.Enabled && e.Format == polar.FormatRaw {
			live = append(live, e)
		}
	}
	return live
}

// eventsMissing are the types that none of these endpoints sends.
func eventsMissing(live []polar.Endpoint) []string {
	return slices.DeleteFunc(polar.EventTypes(), func(eventType string) bool {
		return slices.ContainsFunc(live, func(e polar.Endpoint) bool { return slices.Contains(e.Events, eventType) })
	})
}

// clockSlack is how far the Date of Polar's answers, which is of whole seconds, may be behind the times in its documents.
const clockSlack = 5 * time.Second

// untouchedSince tells whether endpoints that nobody has changed since then send every type of event: if so, they did
// all the time.
func (report EndpointReport) untouchedSince(then time.Time) bool {
	untouched := slices.DeleteFunc(liveEndpoints(report.Endpoints), func(e polar.Endpoint) bool { return e.ChangedAt().After(then.Add(clockSlack)) })
	return len(eventsMissing(untouched)) == 0
}

// darkSince is when it went dark at the earliest, where it was never seen to be well: an endpoint was not disabled
// before it was made. Of one that is not there Polar tells nothing, and keeps nothing for longer than retention.
func (report EndpointReport) darkSince() time.Time {
	if len(report.Endpoints) > 0 && !report.Endpoints[0].CreatedAt.IsZero() {
		return report.Endpoints[0].CreatedAt
	}
	return report.ReadAt.Add(-retention)
}

// retention is how long Polar keeps events, and can redeliver them.
const retention = 90 * 24 * time.Hour

// id is the endpoint to name: the newest that sends, else the newest.
func (report EndpointReport) id() uuid.UUID {
	for _, endpoints := range [][]polar.Endpoint{liveEndpoints(report.Endpoints), report.Endpoints} {
		if len(endpoints) > 0 {
			return endpoints[len(endpoints)-1].ID
		}
	}
	return uuid.Nil
}

// IsFine tells whether nothing is to be done.
func (report EndpointReport) IsFine() bool {
	return report.State == store.EndpointOK && !slices.ContainsFunc(report.Findings, func(f store.EndpointFinding) bool { return f.Finding != FindingLegacySigning })
}

// Probe adds what a probe of each endpoint that could send finds.
func (report EndpointReport) Probe(ctx context.Context) EndpointReport {
	report.Probes = map[uuid.UUID]bool{}
	for _, e := range report.Endpoints {
		if e.Format != polar.FormatRaw {
			continue // which ingest does not take
		}
		refusal, refused := errors.AsType[*ProbeError](ProbeEndpoint(ctx, e))
		if report.Probes[e.ID] = !refused; refused {
			report.Findings = append(report.Findings, refusal.finding())
		}
	}
	return report
}

// has tells whether something was found.
func (report EndpointReport) has(kind string) bool {
	return slices.ContainsFunc(report.Findings, func(f store.EndpointFinding) bool { return f.Finding == kind })
}

// otherURLs tells where Polar sends to instead.
func otherURLs(all []polar.Endpoint) string {
	const most = 3
	var urls []string
	for _, e := range all[:min(len(all), most)] {
		urls = append(urls, shownURL(e.URL))
	}
	if len(urls) == 0 {
		return ", nor any other"
	}
	if len(all) > most {
		urls = append(urls, "...")
	}
	return "; it sends to " + strings.Join(urls, ", ")
}

// shownURL leaves out what may be a secret.
func shownURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "an unreadable URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func quoted(text string) string {
	const longest = 40
	return fmt.Sprintf("%.*q", longest, text)
}
