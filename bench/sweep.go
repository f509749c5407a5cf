package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
)

// Swept is how fast Polar's customers are compared with the mirror.
type Swept struct {
	Sweep   string  `json:"sweep"`
	Objects int64   `json:"objects"`
	Drifted int64   `json:"drifted"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"objects_per_second"`
	PeakRSS float64 `json:"peak_rss_mib"` // of the process until its end
}

// Names of the sweeps.
const (
	sweepOfNothing = "the mirror is empty: every customer is added"
	sweepInStep    = "the mirror agrees: nothing is written"
)

// sweep compares each number of customers twice: with an empty mirror, which it fills, and then with one that agrees, as nearly
// all sweeps do.
func (b *bench) sweep(ctx context.Context) error {
	for _, customers := range b.customers {
		if err := b.sweepOf(ctx, customers); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) sweepOf(ctx context.Context, customers int) (err error) {
	fake, err := startFake(ctx, polarfake.Options{})
	if err != nil {
		return err
	}
	defer fake.stop()
	fake.SeedCustomers(customers, "usr_")
	db, err := b.postgres.fresh(ctx, product)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.drop(ctx)) }()
	sweeper, err := startSubject(ctx, orders{Subject: "sweeper", Database: db.url, API: fake.api, Profile: b.profiles != ""})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sweeper.stop()) }()
	for _, s := range []struct {
		name, profile string
		drifted       int
	}{{sweepOfNothing, "sweep-empty", customers}, {sweepInStep, "sweep-in-step", 0}} {
		var did swept
		err := profiled(ctx, b.profiles, s.profile, func() error { return sweeper.askJSON(ctx, http.MethodPost, "/sweep", &did) }, sweeper)
		if err != nil {
			return err
		}
		if did.Seen != int64(customers) || did.Drifted != int64(s.drifted) {
			return fmt.Errorf("%s: %d of %d customers were seen, with %d differences", s.name, did.Seen, customers, did.Drifted)
		}
		used, err := sweeper.usage(ctx)
		if err != nil {
			return err
		}
		b.sayf("sweep of %d: %s: %.1f s", customers, s.name, did.Seconds)
		b.results.Sweep = append(b.results.Sweep, Swept{
			Sweep: s.name, Objects: did.Seen, Drifted: did.Drifted, Seconds: did.Seconds,
			Rate: float64(did.Seen) / did.Seconds, PeakRSS: used.peakMiB(),
		})
	}
	var mirrored int
	if err := db.read(ctx, "select count(*) from polar.customer", &mirrored); err != nil {
		return err
	}
	if mirrored != customers {
		return fmt.Errorf("%d of %d customers are in the mirror", mirrored, customers)
	}
	return nil
}
