package main

import (
	"context"
	"errors"
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
	Check     endpointCheckCommand     `cmd:"" help:"Ask Polar whether its webhook endpoint sends everything. Exits with 3 if something is wrong."`
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
		return "", fmt.Errorf("--url is %w: give one such as https://shop.example/webhooks/polar", err)
	}
	return full, nil
}

// openPolar makes a client of Polar's API for a few calls that a person asks for.
func (e *environment) openPolar() (*polar.API, error) {
	return polar.New(e.polarConfig())
}

func (e *environment) polarConfig() polar.Config {
	return polar.Config{
		BaseURL: e.config.APIURL, Token: e.config.AccessToken.Reveal(), Version: e.config.Version, UserAgent: "truenorth/" + program.Version(), Timeout: e.config.Timeout,
	}
}

type endpointCheckCommand struct {
	at
	Probe bool `help:"Also post to the URL, signed with the endpoint's secret, and see that ingest accepts it. Nothing is stored."`
	JSON  bool `help:"Print JSON."`
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
	if c.JSON {
		err = printJSON(e.stdout, shownReport(report))
	} else {
		err = c.print(e.stdout, report)
	}
	if err == nil && !report.IsFine() {
		err = &exitError{code: exitDrift}
	}
	return err
}

func shownReport(report jobs.EndpointReport) any {
	endpoints := make([]shownEndpoint, 0, len(report.Endpoints))
	for _, p := range report.Endpoints {
		shown := shownEndpoint{
			ID: p.ID, URL: p.URL, Enabled: p.Enabled, Format: p.Format, Events: p.Events, LegacySigning: p.LegacySigning, CreatedAt: p.CreatedAt,
		}
		if !p.ModifiedAt.IsZero() {
			shown.ModifiedAt = &p.ModifiedAt
		}
		endpoints = append(endpoints, shown)
	}
	return struct {
		State     string                  `json:"state"`
		URL       string                  `json:"url"`
		Findings  []store.EndpointFinding `json:"findings"`
		Endpoints []shownEndpoint         `json:"endpoints"`
	}{report.State, report.URL, append([]store.EndpointFinding{}, report.Findings...), endpoints}
}

func (c endpointCheckCommand) print(stdout io.Writer, report jobs.EndpointReport) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "state\t%s\n", report.State)
	if report.URL != "" {
		fmt.Fprintf(w, "URL\t%s\n", report.URL)
	}
	for _, p := range report.Endpoints {
		state := "enabled"
		if !p.Enabled {
			state = "disabled"
		}
		fmt.Fprintf(w, "endpoint %s\t%s, format %s, %d types of events, made %s\n", p.ID, state, p.Format, len(p.Events), p.CreatedAt.Local().Format(time.RFC3339))
	}
	for _, f := range report.Findings {
		fmt.Fprintf(w, "%s\t%s\n\t-> %s\n", f.Finding, f.Detail, f.Advice)
	}
	return w.Flush()
}

type endpointCreateCommand struct {
	at
	Name string `default:"truenorth" help:"Name of the endpoint in Polar's settings."`
	JSON bool   `help:"Print JSON."`
}

func (c endpointCreateCommand) Run(ctx context.Context, e *environment) error {
	endpointURL, err := c.endpointURL(e)
	if err != nil {
		return err
	}
	if endpointURL == "" {
		return errors.New("it is not known where Polar reaches ingest: set INGEST_PUBLIC_URL, or give --url")
	}
	api, err := e.openPolar()
	if err != nil {
		return err
	}
	created, err := jobs.CreateEndpoint(ctx, api, endpointURL, c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e.stdout, newEndpoint{created.ID, created.URL, created.Secret.Reveal()})
	}
	fmt.Fprintf(e.stderr, "made endpoint %s, which is sent %d types of events. Its secret is shown this once: set POLAR_WEBHOOK_SECRETS to it and start ingest.\n", created.ID, len(created.Events))
	fmt.Fprintln(e.stdout, created.Secret.Reveal())
	return nil
}

// newEndpoint is the one place where a secret is printed.
type newEndpoint struct {
	ID     uuid.UUID `json:"id"`
	URL    string    `json:"url"`
	Secret string    `json:"secret"`
}

type endpointFillCommand struct {
	Since sinceTime `help:"From when on: a time such as 2026-11-01T00:00:00Z, or how long ago, such as 48h. From where the last search ended by default, at first a week." placeholder:"WHEN"`
	JSON  bool      `help:"Print JSON."`
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
	gaps, err := runner.FillGaps(ctx, c.Since.Time)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e.stdout, gaps)
	}
	fmt.Fprintf(e.stdout, "searched %d failed deliveries from %s until %s: %d events that had not arrived are stored, %d are on their way again",
		gaps.Deliveries, gaps.From.Local().Format(time.RFC3339), gaps.Until.Local().Format(time.RFC3339), gaps.Stored, gaps.Redelivered)
	if gaps.Unusable > 0 {
		fmt.Fprintf(e.stdout, ", %d cannot be had from Polar", gaps.Unusable)
	}
	fmt.Fprintln(e.stdout)
	return nil
}

// openRunner makes a Runner that works no jobs: for its methods, within the budget that all processes share.
func (e *environment) openRunner(endpointURL string) (*jobs.Runner, *store.Store, error) {
	if e.config.AccessToken.Reveal() == "" {
		return nil, nil, errors.New("POLAR_ACCESS_TOKEN is not set: set it, or POLAR_ACCESS_TOKEN_FILE to a file that holds it")
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
	ID   []uuid.UUID `arg:"" name:"webhook-id" help:"Ids of events, as webhook_id of polar.event."`
	JSON bool        `help:"Print JSON."`
}

func (c endpointRedeliverCommand) Run(ctx context.Context, e *environment) error {
	api, err := e.openPolar()
	if err != nil {
		return err
	}
	type result struct {
		WebhookID uuid.UUID `json:"webhook_id"`
		Asked     bool      `json:"asked"` // Polar sends it again
		Error     string    `json:"error,omitempty"`
	}
	var results []result
	failed := 0
	for _, id := range c.ID {
		one := result{WebhookID: id, Asked: true}
		if err := api.RedeliverEvent(ctx, id); err != nil {
			failed++
			one.Asked, one.Error = false, err.Error()
			if polar.IsNotFound(err) {
				one.Error = "Polar has no such event, or no longer"
			}
		}
		results = append(results, one)
		if c.JSON {
			continue
		}
		if one.Asked {
			fmt.Fprintf(e.stdout, "%s\tPolar sends it again\n", id)
		} else {
			fmt.Fprintf(e.stdout, "%s\t%s\n", id, one.Error)
		}
	}
	if c.JSON {
		if err := printJSON(e.stdout, results); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d events are not sent again", failed, len(c.ID))
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
	return "until " + gaps.FilledUntil.Local().Format(time.RFC3339)
}
