package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth"
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
	JSON               bool          `help:"Print the request as JSON."`
}

// Run validates before it queues, as every door does.
func (c checkoutCreateCommand) Run(ctx context.Context, e *environment) error {
	params, err := c.params(e.stdin)
	if err != nil {
		return err
	}
	if err := truenorth.ValidateParams(params, e.config.ExtraFields...); err != nil {
		return err
	}
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	request, _, err := s.AskForCheckout(ctx, params, c.Key)
	if err != nil {
		return err
	}
	id := request.ID
	if c.Wait == 0 && !c.JSON {
		fmt.Fprintln(e.stdout, id)
		return nil
	}
	if c.Wait > 0 {
		client := truenorth.NewClient(s.Pool())
		defer client.Close()
		waitCtx, cancel := context.WithTimeout(ctx, c.Wait)
		defer cancel()
		url, err := client.AwaitURL(waitCtx, id)
		if err != nil {
			return err
		}
		if !c.JSON {
			fmt.Fprintln(e.stdout, url)
			return nil
		}
	}
	return printRequest(ctx, e, id)
}

func (c checkoutCreateCommand) params(stdin io.Reader) (json.RawMessage, error) {
	if c.Params != "" {
		if len(c.Product) > 0 || c.ExternalCustomerID != "" || c.Email != "" || c.SuccessURL != "" {
			return nil, errors.New("--params is the whole document: give it, or the other flags")
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
		return nil, &exitError{code: exitUsage, err: errors.New("nothing to sell: give --product, or the whole document as --params")}
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

func (c checkoutGetCommand) Run(ctx context.Context, e *environment) error {
	return printRequest(ctx, e, c.ID)
}

func printRequest(ctx context.Context, e *environment, id uuid.UUID) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	request, err := s.GetCheckoutRequest(ctx, id)
	if err != nil {
		return err
	}
	return printJSON(e.stdout, request)
}
