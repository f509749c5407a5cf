package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type endpointCommand struct {
	Check     endpointCheckCommand     `cmd:"" help:"Ask Polar whether its webhook endpoint sends everything."`
	Create    endpointCreateCommand    `cmd:"" help:"Make Polar's webhook endpoint, and print its secret once."`
	Rotate    endpointRotateCommand    `cmd:"" help:"Change the secret without losing an event."`
	Fill      endpointFillCommand      `cmd:"" help:"Store the events that never arrived, from Polar's list of failed deliveries."`
	Redeliver endpointRedeliverCommand `cmd:"" help:"Have Polar send events again."`
}

// at is the URL that a command is about.
type at struct {
	URL string `help:"Where Polar sends to: the URL of ingest's route, or https://host; INGEST_PUBLIC_URL by default." placeholder:"URL"`
}

func (a at) endpointURL(e *environment) (string, error) {
	if a.URL == "" {
		return e.config.EndpointURL(), nil
	}
	full, err := cmdconfig.EndpointURL(a.URL)
	if err != nil {
		return "", usage("give one such as https://shop.example/webhooks/polar", "--url is %w", err)
	}
	return full, nil
}

// openPolar makes a client of Polar's API for a few calls that a person asks for.
func (e *environment) openPolar() (*polar.API, error) {
	if e.config.AccessToken.Reveal() == "" {
		return nil, errNoToken
	}
	return polar.New(e.polarConfig())
}

var errNoToken = failure("set it, or POLAR_ACCESS_TOKEN_FILE to a file that holds it; truenorth dev prints what its fake Polar needs", "POLAR_ACCESS_TOKEN is not set")

func (e *environment) polarConfig() polar.Config {
	return polar.Config{
		BaseURL: e.config.APIURL, Token: e.config.AccessToken.Reveal(), Version: e.config.Version, UserAgent: "truenorth/" + program.Version(), Timeout: e.config.Timeout,
	}
}

type endpointCheckCommand struct {
	at
	Probe bool `help:"Also post to the URL, signed with the endpoint's secret, and see that ingest accepts it. Nothing is stored."`
}

func (endpointCommand) about() about {
	return about{text: `docs/endpoint.md tells what can be wrong with Polar's webhook endpoint, and how its secret is changed.`}
}

func (endpointCheckCommand) about() about {
	return about{
		needs:    "POLAR_ACCESS_TOKEN",
		reads:    "INGEST_PUBLIC_URL, POLAR_API_URL, POLAR_VERSION, POLAR_TIMEOUT",
		examples: []example{{"truenorth endpoint check", ""}, {"truenorth endpoint check --probe", "also see that ingest accepts the secret"}},
		finds:    "something is wrong",
		prints:   []document{{value: shownReport{}}},
	}
}

// shownReport is what is known of the endpoint, as JSON.
type shownReport struct {
	State     string                  `json:"state"`
	URL       string                  `json:"url"`
	Findings  []store.EndpointFinding `json:"findings"`
	Endpoints []shownEndpoint         `json:"endpoints"`
}

// shownEndpoint is an endpoint without its secret.
type shownEndpoint struct {
	ID            uuid.UUID  `json:"id"`
	URL           string     `json:"url"`
	Enabled       bool       `json:"enabled"`
	Format        string     `json:"format"`
	Events        []string   `json:"events"`
	LegacySigning bool       `json:"legacy_signing"`
	CreatedAt     time.Time  `json:"created_at"`
	ModifiedAt    *time.Time `json:"modified_at"`
	ProbeAccepted *bool      `json:"probe_accepted,omitempty"` // with --probe: whether ingest took what was signed with its secret
}

func (c endpointCheckCommand) Run(ctx context.Context, e *environment) error {
	endpointURL, err := c.endpointURL(e)
	if err != nil {
		return err
	}
	api, err := e.openPolar()
	if err != nil {
		return err
	}
	report, err := jobs.CheckEndpoint(ctx, api, endpointURL)
	if err != nil {
		return err
	}
	if c.Probe {
		report = report.Probe(ctx)
	}
	if err := e.print(showReport(report), func(w io.Writer) error { return printReport(w, e.style, report) }); err != nil {
		return err
	}
	if !report.IsFine() {
		return &exitError{code: exitFound}
	}
	return nil
}

func showReport(report jobs.EndpointReport) shownReport {
	endpoints := make([]shownEndpoint, 0, len(report.Endpoints))
	for _, p := range report.Endpoints {
		shown := shownEndpoint{
			ID: p.ID, URL: p.URL, Enabled: p.Enabled, Format: p.Format, Events: p.Events, LegacySigning: p.LegacySigning, CreatedAt: p.CreatedAt,
		}
		if !p.ModifiedAt.IsZero() {
			shown.ModifiedAt = &p.ModifiedAt
		}
		if accepted, probed := report.Probes[p.ID]; probed {
			shown.ProbeAccepted = &accepted
		}
		endpoints = append(endpoints, shown)
	}
	return shownReport{report.State, report.URL, append([]store.EndpointFinding{}, report.Findings...), endpoints}
}

// probeWords tell what came of a probe.
var probeWords = map[bool]string{true: "ingest answered, and accepts the secret", false: "refused"}

func printReport(stdout io.Writer, style style, report jobs.EndpointReport) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	state := style.good(report.State)
	if report.State != store.EndpointOK {
		state = style.bad(report.State)
	}
	fmt.Fprintf(w, "state\t%s\n", state)
	if report.URL != "" {
		fmt.Fprintf(w, "URL\t%s\n", report.URL)
	}
	for _, p := range report.Endpoints {
		state := "enabled"
		if !p.Enabled {
			state = "disabled"
		}
		fmt.Fprintf(w, "endpoint %s\t%s, format %s, %s of events, made %s\n", p.ID, state, p.Format, numbered(len(p.Events), "type", "types"), p.CreatedAt.Local().Format(time.RFC3339))
		if accepted, probed := report.Probes[p.ID]; probed {
			fmt.Fprintf(w, "probe %s\t%s\n", p.ID, probeWords[accepted])
		}
	}
	for _, f := range report.Findings {
		fmt.Fprintf(w, "%s\t%s\n\t-> %s\n", f.Finding, oneLine(f.Detail), f.Advice)
	}
	return w.Flush()
}

type endpointCreateCommand struct {
	at
	Name string `default:"truenorth" help:"Name of the endpoint in Polar's settings."`
}

func (endpointCreateCommand) about() about {
	return about{
		text:     "The secret is printed alone on standard output, and kept nowhere.",
		needs:    "POLAR_ACCESS_TOKEN",
		reads:    "INGEST_PUBLIC_URL, POLAR_API_URL, POLAR_VERSION, POLAR_TIMEOUT",
		examples: []example{{"truenorth endpoint create --url https://shop.example/webhooks/polar", ""}},
		prints:   []document{{value: newEndpoint{}}},
	}
}

func (c endpointCreateCommand) Run(ctx context.Context, e *environment) error {
	endpointURL, err := c.endpointURL(e)
	if err != nil {
		return err
	}
	if endpointURL == "" {
		return failure("set INGEST_PUBLIC_URL, or give --url", "it is not known where Polar reaches ingest")
	}
	api, err := e.openPolar()
	if err != nil {
		return err
	}
	created, err := jobs.CreateEndpoint(ctx, api, endpointURL, c.Name)
	if err != nil {
		return err
	}
	if !e.json {
		e.notef("made endpoint %s, which is sent %s of events. Its secret is shown this once: set POLAR_WEBHOOK_SECRETS to it and start ingest.", created.ID, numbered(len(created.Events), "type", "types"))
	}
	return e.print(newEndpoint{created.ID, created.URL, created.Secret.Reveal()}, linef("%s", created.Secret.Reveal()))
}

// newEndpoint is the one place where a secret is printed.
type newEndpoint struct {
	ID     uuid.UUID `json:"id"`
	URL    string    `json:"url"`
	Secret string    `json:"secret"`
}

type endpointFillCommand struct {
	Since sinceTime `help:"From when on: a time such as 2026-11-01T00:00:00Z, or how long ago, such as 48h. From where the last search ended by default, at first a week." placeholder:"WHEN"`
}

func (endpointFillCommand) about() about {
	return about{
		text:  "A worker does so by itself every few minutes.",
		needs: "DATABASE_URL, POLAR_ACCESS_TOKEN",
		reads: "INGEST_PUBLIC_URL, POLAR_API_URL, POLAR_VERSION, POLAR_RATE_LIMIT, POLAR_TIMEOUT, LOG_LEVEL",
		examples: []example{
			{"truenorth endpoint fill", "from where the last search ended"},
			{"truenorth endpoint fill --since 48h", ""},
		},
		prints: []document{{value: jobs.Gaps{}}},
	}
}

func (c endpointFillCommand) Run(ctx context.Context, e *environment) error {
	if err := c.Since.mustBePast(); err != nil {
		return err
	}
	runner, s, err := e.openRunner(e.config.EndpointURL())
	if err != nil {
		return err
	}
	defer s.Close()
	gaps, err := e.fillGaps(ctx, runner, c.Since.Time)
	if err != nil {
		return err
	}
	return e.print(gaps, func(w io.Writer) error { return printGaps(w, gaps) })
}

// fillGaps stores what never arrived, and shows how far it is.
func (e *environment) fillGaps(ctx context.Context, runner *jobs.Runner, since time.Time) (jobs.Gaps, error) {
	bar := newProgress(e)
	defer bar.close()
	return runner.FillGaps(ctx, since, func(gaps jobs.Gaps) { bar.show("reading failed deliveries", int64(gaps.Deliveries), 0) })
}

func printGaps(w io.Writer, gaps jobs.Gaps) error {
	unusable := ""
	if gaps.Unusable > 0 {
		unusable = fmt.Sprintf(", %d cannot be had from Polar", gaps.Unusable)
	}
	return linef("searched %s from %s until %s: %s that had not arrived, %d on the way again%s", numbered(gaps.Deliveries, "failed delivery", "failed deliveries"),
		shownTime(&gaps.From), shownTime(&gaps.Until), numbered(gaps.Stored, "event stored", "events stored"), gaps.Redelivered, unusable)(w)
}

// openRunner makes a Runner that works no jobs: for its methods, within the budget that all processes share.
func (e *environment) openRunner(endpointURL string) (*jobs.Runner, *store.Store, error) {
	if e.config.AccessToken.Reveal() == "" {
		return nil, nil, errNoToken
	}
	s, err := e.openStore()
	if err != nil {
		return nil, nil, err
	}
	runner, err := jobs.New(s, jobs.Config{
		API: e.polarConfig(), RateLimit: e.config.RequestsPerMinute(), EndpointURL: endpointURL,
		ExtraFields: e.config.ExtraFields, Logger: program.NewLogger(e.stderr, e.config.Level, "truenorth"),
	})
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return runner, s, nil
}

type endpointRedeliverCommand struct {
	ID []uuid.UUID `arg:"" name:"webhook-id" help:"Ids of events, as webhook_id of polar.event."`
}

func (endpointRedeliverCommand) about() about {
	return about{
		text:     "It fails where one of them is not sent again; the others are.",
		needs:    "POLAR_ACCESS_TOKEN",
		reads:    "POLAR_API_URL, POLAR_VERSION, POLAR_TIMEOUT",
		examples: []example{{"truenorth endpoint redeliver 0b1c9d4e-6f1a-4c58-9d59-4d8e1a6b2c3d", ""}},
		prints:   []document{{value: []redelivery{}}},
	}
}

// redelivery is what Polar said of one event.
type redelivery struct {
	WebhookID uuid.UUID `json:"webhook_id"`
	Asked     bool      `json:"asked"` // Polar sends it again
	Error     string    `json:"error,omitempty"`
}

// Run asks for one event after the other.
func (c endpointRedeliverCommand) Run(ctx context.Context, e *environment) error {
	api, err := e.openPolar()
	if err != nil {
		return err
	}
	bar := newProgress(e)
	results := make([]redelivery, len(c.ID))
	failed := 0
	for i, id := range c.ID {
		bar.show("asking Polar for events", int64(i), int64(len(c.ID)))
		results[i] = redelivery{WebhookID: id, Asked: true}
		if err := api.RedeliverEvent(ctx, id); err != nil {
			failed++
			results[i].Asked, results[i].Error = false, err.Error()
			if polar.IsNotFound(err) {
				results[i].Error = "Polar has no such event, or no longer"
			}
		}
	}
	bar.close()
	err = e.print(results, func(w io.Writer) error {
		for _, r := range results {
			fmt.Fprintf(w, "%s\t%s\n", r.WebhookID, cmp.Or(oneLine(r.Error), "Polar sends it again")) // for cut
		}
		return nil
	})
	if err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("not sent again: %d of %s", failed, numbered(len(c.ID), "event", "events"))
	}
	return nil
}

// endpointLine is the endpoint's state for `truenorth status`.
func endpointLine(watch *store.EndpointWatch) string {
	if watch == nil {
		return "not looked at yet"
	}
	line := watch.State
	if len(watch.Findings) > 0 {
		kinds := make([]string, len(watch.Findings))
		for i, f := range watch.Findings {
			kinds[i] = f.Finding
		}
		line += " (" + strings.Join(kinds, ", ") + ")"
	}
	line += " since " + watch.Since.Local().Format(time.RFC3339) + ", looked at " + watch.CheckedAt.Local().Format(time.RFC3339)
	if watch.State != store.EndpointOK {
		line += "; see truenorth endpoint check"
	}
	return line
}

// gapsLine is how far gaps are filled for `truenorth status`.
func gapsLine(gaps *store.GapFill) string {
	switch {
	case gaps == nil:
		return "never"
	case gaps.Error != nil:
		return "failed: " + *gaps.Error
	case gaps.FilledUntil == nil:
		return "never"
	}
	return "until " + shownTime(gaps.FilledUntil) + ", looked at " + shownTime(&gaps.RanAt) + "; the hour before is always searched again"
}
