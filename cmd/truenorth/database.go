package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/jobs"
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
		encoder := json.NewEncoder(e.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(status)
	}
	lastEvent := "never"
	if status.LastEventAt != nil {
		lastEvent = status.LastEventAt.Local().Format(time.RFC3339)
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
		{"drift open", status.OpenDrift},
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

type conflictsCommand struct {
	List    conflictsListCommand    `cmd:"" help:"List open conflicts."`
	Resolve conflictsResolveCommand `cmd:"" help:"Settle a conflict, with a record of who did."`
}

type conflictsListCommand struct {
	JSON  bool `help:"Print JSON."`
	Limit int  `default:"100" help:"List so many at most."`
}

func (c conflictsListCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	conflicts, err := s.ListOpenConflicts(ctx, c.Limit)
	if err != nil {
		return err
	}
	if c.JSON {
		type row struct {
			ID          int64     `json:"id"`
			CustomerID  string    `json:"customer_id"`
			LocalUserID string    `json:"local_user_id"`
			Kind        string    `json:"kind"`
			Detail      string    `json:"detail"`
			DetectedAt  time.Time `json:"detected_at"`
		}
		rows := make([]row, len(conflicts))
		for i, f := range conflicts {
			rows[i] = row{f.ID, f.CustomerID.String(), f.LocalUserID, f.Kind, f.Detail, f.DetectedAt}
		}
		encoder := json.NewEncoder(e.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(rows)
	}
	if len(conflicts) == 0 {
		fmt.Fprintln(e.stdout, "no open conflicts")
		return nil
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tKIND\tCUSTOMER\tLOCAL USER\tSINCE\tDETAIL")
	for _, f := range conflicts {
		fmt.Fprintf(w, "%d\t%s\t%s\t%q\t%s\t%s\n", f.ID, f.Kind, f.CustomerID, f.LocalUserID, f.DetectedAt.Local().Format(time.RFC3339), f.Detail)
	}
	return w.Flush()
}

type conflictsResolveCommand struct {
	ID      int64  `arg:"" help:"Number of the conflict."`
	Link    bool   `xor:"verdict" required:"" help:"Link the customer to the local user that the conflict names."`
	Dismiss bool   `xor:"verdict" required:"" help:"Leave everything as it is."`
	Actor   string `help:"Who decides; the user of this machine by default."`
}

func (c conflictsResolveCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	if c.Actor == "" {
		c.Actor = whoami()
	}
	err = jobs.ResolveConflict(ctx, s, c.ID, c.Link, c.Actor)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("conflict %d is not open (see truenorth conflicts list)", c.ID)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "conflict %d settled by %s\n", c.ID, c.Actor)
	return nil
}

func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
