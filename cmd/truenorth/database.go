package main

import (
	"context"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type migrateCommand struct{}

func (migrateCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	steps, err := s.Migrate(ctx, program.NewLogger(e.stderr, slog.LevelWarn, "truenorth"))
	if err != nil {
		return err
	}
	for _, step := range steps {
		fmt.Fprintf(e.stdout, "migrated %s to version %d\n", step.Line, step.Version)
	}
	if len(steps) == 0 {
		fmt.Fprintln(e.stdout, "the schema is the newest already")
	}
	return nil
}

type statusCommand struct {
	JSON bool `help:"Print JSON."`
}

func (c statusCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := s.Ping(ctx); err != nil {
		return err
	}
	status, err := s.ReadStatus(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e.stdout, status)
	}
	lastEvent, oldestEvent := "never", "none"
	if status.LastEventAt != nil && status.OldestEventAt != nil {
		lastEvent, oldestEvent = status.LastEventAt.Local().Format(time.RFC3339), status.OldestEventAt.Local().Format(time.RFC3339)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		name  string
		value any
	}{
		{"customers", status.Customers},
		{"  linked", status.Linked},
		{"  unlinked", status.Unlinked},
		{"  conflicts open", status.OpenConflicts},
		{"checkout requests waiting", status.RequestsWaiting},
		{"  open", status.RequestsOpen},
		{"  succeeded", status.RequestsSucceeded},
		{"  failed", status.RequestsFailed},
		{"events waiting", status.Events["received"]},
		{"  failed", status.Events["failed"]},
		{"  last received", lastEvent},
		{"  oldest kept", oldestEvent},
		{"drift open", status.OpenDrift},
		{"last sweeps", sweepsLine(status.LastRuns)},
		{"endpoint", endpointLine(status.Endpoint)},
		{"gaps filled", gapsLine(status.Gaps)},
		{"workers alive", status.WorkersAlive},
	} {
		fmt.Fprintf(w, "%s\t%v\n", line.name, line.value)
	}
	return w.Flush()
}

type usersCommand struct {
	Map usersMapCommand `cmd:"" help:"Put the product's own users table behind the view polar.local_user."`
}

type usersMapCommand struct {
	Table     string `required:"" help:"Table of the users, such as public.users."`
	ID        string `default:"id" help:"Column of the id that Polar's external_id bears."`
	Email     string `default:"email" help:"Column of the e-mail address; empty for none."`
	CreatedAt string `help:"Column of the time of creation, if there is one."`
	DeletedAt string `help:"Column of the time of a soft deletion, if there is one."`
}

func (c usersMapCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	indexed, err := s.MapLocalUsers(ctx, store.MapUsers{Table: c.Table, ID: c.ID, Email: c.Email, CreatedAt: c.CreatedAt, DeletedAt: c.DeletedAt})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "polar.local_user now shows %s\n", c.Table)
	if !indexed {
		fmt.Fprintf(e.stderr, "warning: no index serves look-ups by %s as text, so links will read the whole table; create one:\n  create index concurrently on %s ((%s::text));\n", c.ID, c.Table, c.ID)
	}
	return nil
}
