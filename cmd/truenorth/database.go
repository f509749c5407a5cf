package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/program"
	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type migrateCommand struct {
	Restored bool `help:"The database was just restored from a backup, and no program works on it yet: look for a session at Polar before one is made for a checkout request that waits, and end the cursors of the change feed."`
}

func (migrateCommand) about() about {
	return about{
		text:  "It makes the database roles of docs/roles.md too, where this user may.",
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth migrate", "before the programs of a new release start"},
			{"truenorth migrate --restored", "after a restore, see docs/backup.md"},
		},
		prints: []document{{value: migrated{}}},
	}
}

// migrated is what was done to the schema.
type migrated struct {
	Steps    []store.Migration `json:"steps"`
	Requests *int64            `json:"requests_in_doubt,omitempty"` // with --restored: requests that wait
}

// Run migrates, and names each step before it begins: one that rewrites many rows may take its time.
func (c migrateCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	bar := newProgress(e)
	logger := program.NewLogger(e.stderr, slog.LevelWarn, "truenorth")
	steps, err := s.MigrateTelling(ctx, logger, func(next store.Migration) {
		bar.step(fmt.Sprintf("migrating %s to version %d", next.Line, next.Version))
	})
	bar.close()
	if err != nil {
		return err
	}
	done := migrated{Steps: append([]store.Migration{}, steps...)}
	if c.Restored {
		requests, err := jobs.Restored(ctx, s, store.Word{Actor: whoami()}, logger)
		if err != nil {
			return err
		}
		done.Requests = &requests
	}
	return e.print(done, func(w io.Writer) error {
		for _, step := range steps {
			fmt.Fprintf(w, "migrated %s to version %d\n", step.Line, step.Version)
		}
		if len(steps) == 0 {
			fmt.Fprintln(w, "the schema is the newest already")
		}
		if done.Requests != nil {
			fmt.Fprintf(w, "%d checkout requests wait, and are looked for at Polar first; cursors of the change feed have ended\n", *done.Requests)
		}
		return nil
	})
}

type statusCommand struct {
	ExitCode bool `help:"End with exit code 3 if something needs a person."`
}

func (statusCommand) about() about {
	return about{
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth status", ""},
			{"truenorth status --exit-code", "for a script: is a person needed?"},
			{"truenorth status --json | jq .open_conflicts", ""},
		},
		finds:  "something needs a person (--exit-code)",
		prints: []document{{value: store.Status{}}},
	}
}

// Run reads the status from the database alone.
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
	if err := e.print(status, func(w io.Writer) error { return printStatus(w, e.style, status) }); err != nil {
		return err
	}
	if needs := needsPerson(status); c.ExitCode && len(needs) > 0 {
		return &exitError{exitFound, errors.New("a person is needed: " + strings.Join(needs, ", ")), ""}
	}
	return nil
}

// needsPerson lists what does not mend by itself.
func needsPerson(status store.Status) []string {
	var needs []string
	for _, n := range []struct {
		many      int64
		one, more string
	}{
		{status.OpenConflicts, "conflict open", "conflicts open"},
		{status.Events["failed"], "event failed", "events failed"},
		{status.OpenDrift, "drift open", "drift open"},
	} {
		if n.many > 0 {
			needs = append(needs, numbered(n.many, n.one, n.more))
		}
	}
	if sweepsFailed(status.LastRuns) {
		needs = append(needs, "sweeps failed")
	}
	if status.Endpoint != nil && status.Endpoint.State == store.EndpointDark {
		needs = append(needs, "Polar's endpoint does not send everything")
	}
	if status.WorkersAlive == 0 {
		needs = append(needs, "no worker is alive")
	}
	return needs
}

func sweepsFailed(runs []store.ReconcileRun) bool {
	return slices.ContainsFunc(runs, func(run store.ReconcileRun) bool { return run.State == store.RunFailed })
}

func printStatus(out io.Writer, style style, status store.Status) error {
	alarming := func(is bool, text string) string {
		if is {
			return style.bad(text)
		}
		return text
	}
	many := func(n int64) string { return alarming(n > 0, strconv.FormatInt(n, 10)) }
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		name  string
		value any
	}{
		{"customers", status.Customers},
		{"  linked", status.Linked},
		{"  unlinked", status.Unlinked},
		{"  conflicts open", many(status.OpenConflicts)},
		{"checkout requests waiting", status.RequestsWaiting},
		{"  open", status.RequestsOpen},
		{"  succeeded", status.RequestsSucceeded},
		{"  failed", status.RequestsFailed},
		{"events waiting", status.Events["received"]},
		{"  failed", many(status.Events["failed"])},
		{"  last received", timeOr(status.LastEventAt, "never")},
		{"  oldest kept", timeOr(status.OldestEventAt, "none")},
		{"drift open", many(status.OpenDrift)},
		{"last sweeps", alarming(sweepsFailed(status.LastRuns), sweepsLine(status.LastRuns))},
		{"endpoint", alarming(status.Endpoint != nil && status.Endpoint.State == store.EndpointDark, endpointLine(status.Endpoint))},
		{"gaps filled", gapsLine(status.Gaps)},
		{"workers alive", alarming(status.WorkersAlive == 0, strconv.FormatInt(status.WorkersAlive, 10))},
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

func (usersMapCommand) about() about {
	return about{
		text:  "Nothing is copied: the view reads the table. The columns must be there; a column of times may be left out.",
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth users map --table public.users --id id --email email", ""},
			{"truenorth users map --table public.users --email '' --deleted-at deleted_at", "no addresses, and soft deletion"},
		},
		prints: []document{{value: mappedUsers{}}},
	}
}

// mappedUsers is what polar.local_user shows now.
type mappedUsers struct {
	Table     string `json:"table"`
	ID        string `json:"id"`
	Email     string `json:"email"`
	CreatedAt string `json:"created_at"`
	DeletedAt string `json:"deleted_at"`
	Indexed   bool   `json:"indexed"` // that an index serves look-ups by the id as text
}

func (c usersMapCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	indexed, err := s.MapLocalUsers(ctx, store.MapUsers{Table: c.Table, ID: c.ID, Email: c.Email, CreatedAt: c.CreatedAt, DeletedAt: c.DeletedAt}, store.Word{Actor: whoami()})
	if err != nil {
		return err
	}
	if !indexed {
		e.notef("warning: no index serves look-ups by %s as text, so links will read the whole table; create one:\n  create index concurrently on %s ((%s::text));", c.ID, c.Table, c.ID)
	}
	return e.print(mappedUsers{c.Table, c.ID, c.Email, c.CreatedAt, c.DeletedAt, indexed}, linef("polar.local_user now shows %s", c.Table))
}
