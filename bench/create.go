package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// polarAnswer is how long the fake takes to answer where checkouts are created, about as long as Polar.
const polarAnswer = 30 * time.Millisecond

// Created is what truenorth adds to Polar's own time when a buyer waits for a checkout's URL.
type Created struct {
	Checkouts   int     `json:"checkouts"`
	PolarAnswer float64 `json:"polar_answer_ms"`
	Bare        Latency `json:"bare_call"`
	Whole       Latency `json:"commit_to_url"`
	OverheadP50 float64 `json:"overhead_p50_ms"` // of Whole over the median of Bare
	OverheadP99 float64 `json:"overhead_p99_ms"`
}

// create asks for checkouts and waits for their URLs, in turn with the bare call that does the same.
func (b *bench) create(ctx context.Context) (err error) {
	fake, err := startFake(ctx, polarfake.Options{AnswerDelay: polarAnswer})
	if err != nil {
		return err
	}
	defer fake.stop()
	db, err := b.postgres.fresh(ctx, product)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	worker, err := startSubject(ctx, orders{Subject: "worker", Database: db.url, API: fake.api, Profile: b.profiles != ""})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	pool, err := pgxpool.New(ctx, db.url)
	if err != nil {
		return fmt.Errorf("opening the app's pool: %w", err)
	}
	defer pool.Close()
	client := truenorth.NewClient(pool)
	defer client.Close()
	params := truenorth.CheckoutParams{Products: []uuid.UUID{uuid.MustParse(polarfake.OneTimeProductID)}, ExternalCustomerID: user(0)}
	body, err := params.JSON()
	if err != nil {
		return err
	}
	var bares, wholes []time.Duration
	err = profiled(ctx, b.profiles, "create", func() error {
		const warm = 3 // the first pay for connections
		for i := range warm + b.checkouts {
			bare, err := bareCheckout(ctx, fake.api, string(body))
			if err != nil {
				return err
			}
			whole, err := wholeCheckout(ctx, client, params)
			if err != nil {
				return err
			}
			if i >= warm {
				bares, wholes = append(bares, bare), append(wholes, whole)
			}
		}
		return nil
	}, worker)
	if err != nil {
		return err
	}
	c := &Created{
		Checkouts: len(wholes), PolarAnswer: milliseconds(polarAnswer), Bare: summarize(bares), Whole: summarize(wholes),
	}
	c.OverheadP50, c.OverheadP99 = c.Whole.P50-c.Bare.P50, c.Whole.P99-c.Bare.P50
	b.results.Create = c
	return nil
}

// bareCheckout is how long Polar's answer alone takes.
func bareCheckout(ctx context.Context, api, body string) (time.Duration, error) {
	began := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/checkouts/", strings.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("creating a checkout by the bare call: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+fakeToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("creating a checkout by the bare call: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusCreated {
		return 0, errors.Join(fmt.Errorf("creating a checkout by the bare call: %s: %s", response.Status, answer), err)
	}
	return time.Since(began), nil
}

// wholeCheckout is how long it takes from the commit of a request to its URL.
func wholeCheckout(ctx context.Context, client *truenorth.Client, params truenorth.CheckoutParams) (time.Duration, error) {
	id, err := client.CreateCheckout(ctx, params)
	if err != nil {
		return 0, err
	}
	committed := time.Now()
	if _, err := client.AwaitURL(ctx, id); err != nil {
		return 0, err
	}
	return time.Since(committed), nil
}
