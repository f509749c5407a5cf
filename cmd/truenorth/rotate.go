package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
)

type endpointRotateCommand struct {
	at
	Start   bool          `xor:"step" help:"Make the second endpoint and print its secret. This is what happens without a flag, too."`
	Finish  bool          `xor:"step" help:"Once ingest has both secrets: see that it accepts the new one, that no event is left, and delete the old endpoint."`
	Wait    bool          `xor:"step" help:"All in one: start, or go on with what was started, wait until ingest accepts the new secret, and finish."`
	NoProbe bool          `help:"With --finish: do not post to the URL, which cannot be reached from here; a delivery of Polar's own is the proof then."`
	Force   bool          `help:"Delete the old endpoint even if some events cannot be delivered."`
	Timeout time.Duration `default:"1h" help:"With --wait: wait so long for ingest to accept the new secret."`
	Settle  time.Duration `default:"75s" help:"Where Polar had disabled the new endpoint: how long the old one has for what only it was to be sent. Polar makes every event's first delivery within a minute."`
}

func (endpointRotateCommand) about() about {
	return about{
		text: `Polar's own reset of a secret cuts at once: whatever is on the way is refused. Instead, Polar gets a second endpoint at
the same URL and sends everything to both. What the new one sends is refused, and tried again by Polar, until ingest
has both secrets; the old one delivers all the while. Each step may be repeated. The token needs the scopes
webhooks:read and webhooks:write.`,
		needs: "POLAR_ACCESS_TOKEN",
		reads: "DATABASE_URL, INGEST_PUBLIC_URL, POLAR_API_URL, POLAR_VERSION, POLAR_RATE_LIMIT, POLAR_TIMEOUT, LOG_LEVEL",
		examples: []example{
			{"truenorth endpoint rotate", "prints the new secret"},
			{"POLAR_WEBHOOK_SECRETS=new,old", "for every ingest, and restart them"},
			{"truenorth endpoint rotate --finish", "tries the new secret, and deletes the old endpoint"},
			{"POLAR_WEBHOOK_SECRETS=new", "whenever it suits"},
		},
		prints: []document{
			{value: newEndpoint{}},
			{when: "--finish", value: jobs.Finished{}},
			{when: "--wait, after the document of the start", value: jobs.Finished{}},
		},
	}
}

// redeliveryPatience is how long events that are sent again may take to arrive.
const redeliveryPatience = time.Minute

// Run prints secrets and results to standard output, and what to do to standard error.
func (c endpointRotateCommand) Run(ctx context.Context, e *environment) error {
	endpointURL, err := c.endpointURL(e)
	if err != nil {
		return err
	}
	api, err := e.openPolar()
	if err != nil {
		return err
	}
	switch {
	case c.Finish:
		return c.finish(ctx, e, api, endpointURL)
	case c.Wait:
		return c.wait(ctx, e, api, endpointURL)
	}
	return c.start(ctx, e, api, endpointURL)
}

func (c endpointRotateCommand) start(ctx context.Context, e *environment, api *polar.API, endpointURL string) error {
	begun, err := jobs.StartRotation(ctx, api, endpointURL)
	if err != nil {
		return err
	}
	if !e.json {
		e.notef(`made endpoint %s beside %s. Its secret is shown this once. Now:
  1. set POLAR_WEBHOOK_SECRETS to the new secret and the old one, with a comma between them, and restart every ingest
  2. truenorth endpoint rotate --finish`, begun.New.ID, begun.Old[0].ID)
	}
	return e.print(newEndpoint{begun.New.ID, begun.New.URL, begun.New.Secret.Reveal()}, linef("%s", begun.New.Secret.Reveal()))
}

func (c endpointRotateCommand) finish(ctx context.Context, e *environment, api *polar.API, endpointURL string) error {
	options := jobs.FinishOptions{
		NoProbe: c.NoProbe, Force: c.Force, Patience: redeliveryPatience, Settle: c.Settle,
		Progress: func(step string) { e.notef("%s ...", step) },
	}
	if e.config.URL.Reveal() != "" {
		runner, s, err := e.openRunner(endpointURL)
		if err != nil {
			return err
		}
		defer s.Close()
		// Once the old endpoint is gone, so may be Polar's list of what it could not deliver.
		if _, err := e.fillGaps(ctx, runner, time.Now().Add(-rotationGaps)); err != nil {
			return fmt.Errorf("storing what the old endpoint could not deliver: %w", err)
		}
		options.Unknown = s.ListUnknownEvents
	}
	done, err := jobs.FinishRotation(ctx, api, endpointURL, options)
	if err != nil {
		return err
	}
	if len(done.Deleted) == 0 {
		return e.print(done, linef("no rotation is under way: endpoint %s is the only one", done.EndpointID))
	}
	if !e.json {
		e.notef("Take the old secret out of POLAR_WEBHOOK_SECRETS whenever ingest is restarted next.")
	}
	return e.print(done, linef("endpoint %s has taken over; %s", done.EndpointID, deletedWords(done)))
}

// rotationGaps is how far back events are looked for that the old endpoint could not deliver.
const rotationGaps = 7 * 24 * time.Hour

func deletedWords(done jobs.Finished) string {
	deleted := make([]string, len(done.Deleted))
	for i, id := range done.Deleted {
		deleted[i] = id.String()
	}
	words := "deleted " + strings.Join(deleted, ", ")
	if done.Redelivered > 0 {
		words += "; sent again: " + numbered(done.Redelivered, "event", "events")
	}
	if done.Undelivered > 0 {
		words += fmt.Sprintf("; %d could not be delivered and are left to sweeps", done.Undelivered)
	}
	return words
}

func (c endpointRotateCommand) wait(ctx context.Context, e *environment, api *polar.API, endpointURL string) error {
	err := c.start(ctx, e, api, endpointURL)
	if underWay, ok := errors.AsType[*jobs.RotationUnderWayError](err); ok {
		e.notef("%s", underWay)
	} else if err != nil {
		return err
	}
	x, err := jobs.FindRotation(ctx, api, endpointURL)
	if err != nil {
		return err
	}
	e.notef("waiting until ingest accepts the new secret ...")
	waitCtx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		err := x.CheckAccepted(waitCtx)
		if err == nil {
			return c.finish(ctx, e, api, endpointURL)
		}
		select {
		case <-waitCtx.Done():
			return failure("go on with truenorth endpoint rotate --finish", "ingest does not accept the new secret yet (%w)", err)
		case <-ticker.C:
		}
	}
}
