package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type checkoutCommand struct {
	Create checkoutCreateCommand `cmd:"" help:"Ask for a checkout."`
	Get    checkoutGetCommand    `cmd:"" help:"Show a checkout request."`
}

type checkoutCreateCommand struct {
	Params             string        `help:"Polar's checkout-create document; '-' reads it from standard input." placeholder:"JSON"`
	Product            []uuid.UUID   `help:"Product to sell; may be given several times." placeholder:"ID"`
	ExternalCustomerID string        `help:"The local user it is for." placeholder:"ID"`
	Email              string        `help:"The buyer's e-mail address." placeholder:"ADDRESS"`
	SuccessURL         string        `help:"Where the buyer goes after paying." placeholder:"URL"`
	Key                string        `help:"Idempotency key: the same key gives the same live request."`
	Wait               time.Duration `help:"Wait so long for the URL and print it."`
}

func (checkoutCommand) about() about {
	return about{text: `A request is queued, and a worker creates the checkout at Polar; the request then has its URL.`}
}

func (checkoutCreateCommand) about() about {
	return about{
		text:  "It prints the id of the request; with --wait the URL, once a worker has created the checkout.",
		needs: "DATABASE_URL",
		reads: "CHECKOUT_EXTRA_FIELDS",
		examples: []example{
			{"truenorth checkout create --product 5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01 --external-customer-id usr_ada --wait 30s", ""},
			{"truenorth checkout create --params - < checkout.json", "Polar's own document"},
		},
		prints: []document{{value: store.CheckoutRequest{}, rows: "polar.checkout_request"}},
	}
}

// Run validates before it queues, as every door does.
func (c checkoutCreateCommand) Run(ctx context.Context, e *environment) error {
	params, err := c.params(e.stdin)
	if err != nil {
		return err
	}
	if err := truenorth.ValidateParams(params, e.config.ExtraFields...); err != nil {
		return usage("correct it: nothing was queued", "%w", err)
	}
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	request, _, err := s.AskForCheckout(ctx, params, c.Key)
	if errors.Is(err, store.ErrRefused) { // the key
		return usage("correct it: nothing was queued", "%w", err)
	}
	if err != nil {
		return err
	}
	shown := request.ID.String()
	if c.Wait > 0 {
		if shown, err = c.awaitURL(ctx, s, request.ID); err != nil {
			return err
		}
		if request, err = s.GetCheckoutRequest(ctx, request.ID); err != nil {
			return err
		}
	}
	return e.print(request, linef("%s", shown))
}

// awaitURL waits no longer than --wait. The request goes on by itself.
func (c checkoutCreateCommand) awaitURL(ctx context.Context, s *store.Store, id uuid.UUID) (string, error) {
	client := truenorth.NewClient(s.Pool())
	defer client.Close()
	waitCtx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	url, err := client.AwaitURL(waitCtx, id)
	later := "truenorth checkout get " + id.String() + " shows it later; truenorth status tells whether a worker is alive"
	switch {
	case err == nil:
		return url, nil
	case ctx.Err() != nil:
		return "", failure(later, "interrupted: checkout request %s is kept", id)
	case waitCtx.Err() != nil:
		return "", failure(later, "no URL within %s: checkout request %s is kept", c.Wait, id)
	}
	return "", err
}

func (c checkoutCreateCommand) params(stdin io.Reader) (json.RawMessage, error) {
	if c.Params != "" {
		if len(c.Product) > 0 || c.ExternalCustomerID != "" || c.Email != "" || c.SuccessURL != "" {
			return nil, usage("give it, or the other flags", "--params is the whole document")
		}
		if c.Params != "-" {
			return json.RawMessage(c.Params), nil
		}
		params, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
		if err != nil {
			return nil, fmt.Errorf("reading params from standard input: %w", err)
		}
		return params, nil
	}
	if len(c.Product) == 0 {
		return nil, usage("give --product, or the whole document as --params", "nothing to sell")
	}
	params, err := json.Marshal(truenorth.CheckoutParams{
		Products: c.Product, ExternalCustomerID: c.ExternalCustomerID, CustomerEmail: c.Email, SuccessURL: c.SuccessURL,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding params: %w", err)
	}
	return params, nil
}

type checkoutGetCommand struct {
	ID uuid.UUID `arg:"" help:"Id of the request."`
}

func (checkoutGetCommand) about() about {
	return about{
		needs:    "DATABASE_URL",
		examples: []example{{"truenorth checkout get 7f0f4e0e-4c0d-4a53-9d5e-5f7f5d1c2a11", ""}},
		prints:   []document{{value: store.CheckoutRequest{}, rows: "polar.checkout_request"}},
	}
}

// Run shows a request, and no more than the table holds.
func (c checkoutGetCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	request, err := s.GetCheckoutRequest(ctx, c.ID)
	if errors.Is(err, store.ErrNotFound) {
		return failure("checkout create prints the id of a request, and polar.checkout_request holds them all", "%w", err)
	}
	if err != nil {
		return err
	}
	return e.print(request, func(w io.Writer) error { return printRequest(w, request) })
}

func printRequest(out io.Writer, r store.CheckoutRequest) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "request\t%s\nstate\t%s\n", r.ID, r.State)
	for _, field := range []struct {
		name string
		text *string
	}{{"key", r.Key}, {"for", r.ExternalCustomerID}, {"URL", r.URL}, {"error", r.Error}} {
		if field.text != nil {
			fmt.Fprintf(w, "%s\t%s\n", field.name, oneLine(*field.text))
		}
	}
	if r.CheckoutID != nil {
		fmt.Fprintf(w, "checkout\t%s\n", r.CheckoutID)
	}
	if r.ExpiresAt != nil {
		fmt.Fprintf(w, "expires\t%s\n", shownTime(r.ExpiresAt))
	}
	fmt.Fprintf(w, "created\t%s\nupdated\t%s\nparams\t%s\n", shownTime(&r.CreatedAt), shownTime(&r.UpdatedAt), r.Params)
	return w.Flush()
}
