package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

const forgetHelp = `
Blanks the personal data of one customer in events, mirror and ledgers; ids, times, states, amounts and the names of what
was bought stay. Whatever Polar says of the customer later is stored without it. It cannot be undone, and is safe twice.

It never deletes anything at Polar: do that there, with anonymize. The product's own users table is not touched either.`

type forgetCommand struct {
	Customer string `arg:"" help:"The customer's id, or external:ID for the one who bears this external id."`
	Reason   string `help:"Why: kept with the customer's id." placeholder:"TEXT"`
	Actor    string `help:"Who asks for it; the user of this machine by default." placeholder:"NAME"`
}

func (forgetCommand) about() about {
	return about{
		text:  forgetHelp,
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth forget 0f6f3b0c-6d0e-4f0b-9f6e-2f1f3c1d2b3a --reason 'erasure request 4711'", ""},
			{"truenorth forget external:usr_ada --reason 'account deleted'", "by the external id that Polar knows"},
		},
		prints: []document{{value: forgottenCustomer{}}},
	}
}

// Run forgets a customer.
func (c forgetCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Ping(ctx); err != nil {
		return err
	}
	id, err := c.find(ctx, s)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("nothing is known of customer %s: nothing was changed", c.Customer)
	}
	if err != nil {
		return err
	}
	bar := newProgress(e)
	forgotten, err := jobs.Forget(ctx, s, id, store.Word{Actor: cmp.Or(c.Actor, whoami()), Reason: c.Reason}, func(done int64) { bar.show("blanking events", done, 0) })
	bar.close()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("nothing is known of customer %s: nothing was changed", c.Customer)
	case ctx.Err() != nil:
		return errors.New("interrupted: run it again, it goes on where this one ended")
	case err != nil:
		return fmt.Errorf("%w: run it again, it goes on where this one ended", err)
	}
	return e.print(shownForgotten(forgotten), func(w io.Writer) error { return printForgotten(w, forgotten) })
}

func (c forgetCommand) find(ctx context.Context, s *store.Store) (uuid.UUID, error) {
	if external, ok := strings.CutPrefix(c.Customer, "external:"); ok {
		return jobs.FindCustomer(ctx, s, external)
	}
	id, err := uuid.Parse(c.Customer)
	if err != nil {
		return uuid.Nil, usage("give Polar's id (a UUID), or external: and the customer's external id", "%q is no customer's id", c.Customer)
	}
	return id, nil
}

func printForgotten(out io.Writer, f jobs.Forgotten) error {
	fmt.Fprintf(out, "customer %s is forgotten\n", f.Customer)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tROWS BLANKED")
	for _, table := range slices.Sorted(maps.Keys(f.Blanked)) {
		fmt.Fprintf(w, "%s\t%d\n", table, f.Blanked[table])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if f.DeletedAt.IsZero() {
		fmt.Fprintf(out, "Polar still has this customer and the personal data: truenorth deletes nothing there. Delete it at Polar, with anonymize:\n"+
			"  DELETE /v1/customers/%s?anonymize=true\n", f.Customer)
	} else {
		fmt.Fprintf(out, "Polar deleted this customer at %s. If that was without anonymize, Polar still has the personal data.\n", f.DeletedAt.Local().Format(time.RFC3339))
	}
	return nil
}

// forgottenCustomer is Forgotten as JSON.
type forgottenCustomer struct {
	Customer  uuid.UUID        `json:"customer_id"`
	Before    bool             `json:"forgotten_before"`
	AtPolar   bool             `json:"still_at_polar"`
	DeletedAt *time.Time       `json:"deleted_at_polar"`
	Blanked   map[string]int64 `json:"blanked"` // rows by table
}

func shownForgotten(f jobs.Forgotten) forgottenCustomer {
	shown := forgottenCustomer{Customer: f.Customer, Before: f.Before, AtPolar: f.DeletedAt.IsZero(), Blanked: f.Blanked}
	if !shown.AtPolar {
		shown.DeletedAt = &f.DeletedAt
	}
	return shown
}
