package main

import (
	"context"
	"strings"
	"testing"
)

func TestALostEventAndALostJobAreFound(t *testing.T) { //nolint:tparallel // its cases share a connection
	t.Parallel()

	p, _, err := startPostgres(t.Context(), settings, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	const stored = 24
	events := newAuthor(700).purchases(stored)
	for name, test := range map[string]struct {
		tables  tables
		fill    func(ctx context.Context, db *database) error
		loseJob string
	}{
		"truenorth": {
			product, func(ctx context.Context, db *database) error { return storeProduct(ctx, db.relaxed(), events, 10) },
			"delete from polar.river_job where id = (select max(id) from polar.river_job)",
		},
		"baseline": {
			plain, func(ctx context.Context, db *database) error { return storeBaseline(ctx, db.relaxed(), events) },
			"delete from river_job where id = (select max(id) from river_job)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := p.fresh(t.Context(), test.tables)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.fill(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if err := db.mustHold(t.Context(), stored); err != nil {
				t.Errorf("nothing is lost: %v", err)
			}
			if err := db.mustHold(t.Context(), stored+1); err == nil {
				t.Error("an acknowledged event that is not stored is not found")
			}
			if err := db.exec(t.Context(), test.loseJob); err != nil {
				t.Fatal(err)
			}
			if err := db.mustHold(t.Context(), stored); err == nil || !strings.Contains(err.Error(), "without a job") {
				t.Errorf("an event without a job: %v", err)
			}
			if err := db.drop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
