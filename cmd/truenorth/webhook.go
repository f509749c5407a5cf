package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polar"
)

type webhookCommand struct {
	Sign webhookSignCommand `cmd:"" help:"Print the headers that sign a body."`
	Send webhookSendCommand `cmd:"" help:"Sign a body and post it."`
}

// signing is what both commands take.
type signing struct {
	File       string `arg:"" predictor:"files" help:"File that holds the body; '-' reads standard input."`
	Secret     string `help:"Secret to sign with; the first of POLAR_WEBHOOK_SECRETS by default." placeholder:"SECRET"`
	ID         string `help:"webhook-id; a new one by default." placeholder:"ID"`
	Derivation string `enum:"auto,standard,legacy" default:"auto" help:"How the key is made of the secret: standard (generated since 2026-09-08), legacy, or auto, by the secret's form."`
}

func (s signing) sign(e *environment) (body []byte, headers http.Header, err error) {
	secret := s.Secret
	if secret == "" && len(e.config.WebhookSecrets) > 0 {
		secret = e.config.WebhookSecrets[0].Reveal()
	}
	if secret == "" {
		return nil, nil, failure("give --secret, or set POLAR_WEBHOOK_SECRETS", "no secret to sign with")
	}
	if s.File == "-" {
		body, err = io.ReadAll(e.stdin)
	} else {
		body, err = os.ReadFile(s.File)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the body: %w", err)
	}
	id := s.ID
	if id == "" {
		id = uuid.NewString()
	}
	derivation := map[string]polar.Derivation{"auto": polar.DerivationAuto, "standard": polar.DerivationStandard, "legacy": polar.DerivationLegacy}[s.Derivation]
	headers, err = polar.Sign(secret, id, time.Now(), body, derivation)
	return body, headers, err
}

func (webhookCommand) about() about {
	return about{text: "What is sent is a real event to whoever knows the secret: ingest stores it."}
}

type webhookSignCommand struct{ signing }

func (webhookSignCommand) about() about {
	return about{
		reads:    "POLAR_WEBHOOK_SECRETS",
		examples: []example{{"truenorth webhook sign event.json", ""}, {"truenorth webhook sign - < event.json", ""}},
		prints:   []document{{value: signature{}}},
	}
}

// signature is the headers as JSON.
type signature struct {
	ID        string `json:"webhook_id"`
	Timestamp string `json:"webhook_timestamp"`
	Signature string `json:"webhook_signature"`
}

func (c webhookSignCommand) Run(e *environment) error {
	_, headers, err := c.sign(e)
	if err != nil {
		return err
	}
	s := signature{headers.Get("webhook-id"), headers.Get("webhook-timestamp"), headers.Get("webhook-signature")}
	return e.print(s, linef("webhook-id: %s\nwebhook-timestamp: %s\nwebhook-signature: %s", s.ID, s.Timestamp, s.Signature))
}

type webhookSendCommand struct {
	signing
	URL string `help:"Where to post; ingest on this machine by default." default:"http://127.0.0.1:8080/webhooks/polar"`
}

func (webhookSendCommand) about() about {
	return about{
		reads:    "POLAR_WEBHOOK_SECRETS",
		examples: []example{{"truenorth webhook send event.json --url https://shop.example/webhooks/polar", "does ingest have the right secret?"}},
		prints:   []document{{value: answer{}}},
	}
}

// answer is what the receiver said.
type answer struct {
	WebhookID string `json:"webhook_id"`
	Status    int    `json:"status"`
	Answer    string `json:"answer"`
}

func (c webhookSendCommand) Run(ctx context.Context, e *environment) error {
	body, headers, err := c.sign(e)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("posting to %s: %w", c.URL, err)
	}
	request.Header = headers
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("posting: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(response.Body, 2048))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	words := strings.TrimSpace(string(said))
	if err := e.print(answer{headers.Get("webhook-id"), response.StatusCode, words}, linef("%s %s", response.Status, words)); err != nil {
		return err
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return errors.New("the delivery was refused; Polar would call this a failure")
	}
	return nil
}
