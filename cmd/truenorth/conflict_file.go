package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type conflictsShowCommand struct {
	ID int64 `arg:"" help:"Number of the conflict."`
}

func (conflictsShowCommand) about() about {
	return about{
		needs:    "DATABASE_URL",
		examples: []example{{"truenorth conflicts show 17", "the customer, its checkouts and links, and what each verdict would do"}},
		prints:   []document{{value: jobs.ConflictFile{}}},
	}
}

func (c conflictsShowCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	file, err := jobs.ReadConflict(ctx, s, c.ID)
	if errors.Is(err, store.ErrNotFound) {
		return noConflict(c.ID)
	}
	if err != nil {
		return err
	}
	return e.print(file, func(w io.Writer) error { return printConflictFile(w, file) })
}

func printConflictFile(out io.Writer, file jobs.ConflictFile) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	f := file.Conflict
	fmt.Fprintf(w, "conflict %d: %s, about %q\n", f.ID, f.Kind, f.LocalUserID)
	fmt.Fprintf(w, "  %s\n", oneLine(f.Detail))
	fmt.Fprintf(w, "  found\t%s\n", shownTime(&f.DetectedAt))
	if !f.Open {
		fmt.Fprintf(w, "  settled\t%s by %s: %s%s\n", shownTime(f.ResolvedAt), oneLine(f.ResolvedBy), f.Resolution, because(f.Note))
	}
	if f.LiftedAt != nil {
		fmt.Fprintf(w, "  lifted\t%s: a person linked the two after all\n", shownTime(f.LiftedAt))
	}
	printFiledCustomer(w, file.Customer)

	fmt.Fprintln(w, "\nlocal users")
	for _, u := range file.Users {
		state := "alive"
		switch {
		case !u.Known:
			state = "does not exist"
		case !u.Alive:
			state = "deleted " + shownTime(u.DeletedAt)
		}
		customers := make([]string, len(u.Customers))
		for i, id := range u.Customers {
			customers[i] = id.String()
		}
		fmt.Fprintf(w, "  %q\t%s\te-mail %s\tlinked to %s\n", u.ID, state, textOr(u.Email, "unknown"), textOr(strings.Join(customers, ", "), "nobody"))
	}
	fmt.Fprintln(w, "\ncheckouts of the customer, by Polar's clock")
	if len(file.Checkouts) == 0 {
		fmt.Fprintln(w, "  none")
	} else {
		fmt.Fprintln(w, "  CHECKOUT\tSTATUS\tFOR\tSESSION CREATED\tCUSTOMER CREATED\tWITH THE CUSTOMER\tPROVES")
		for _, k := range file.Checkouts {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.CheckoutID, k.Status, quotedOr(k.LocalUserID, "a guest"),
				shownTime(k.SessionCreatedAt), shownTime(k.CustomerCreatedAt), yesOrNo(k.ByCustomer), yesOrNo(k.Proves))
		}
	}
	if len(file.Conflicts) > 0 {
		fmt.Fprintln(w, "\nother conflicts of the customer")
		printConflicts(w, file.Conflicts)
	}
	if len(file.History) > 0 {
		fmt.Fprintln(w, "\nlinks of the customer")
		for _, h := range file.History {
			fmt.Fprintf(w, "  %s\t%q\t%s\tby %s%s\n", shownTime(&h.LinkedAt), h.LocalUserID, h.Basis, oneLine(h.Actor), because(h.Note))
			if h.EndedAt != nil {
				fmt.Fprintf(w, "  %s\t%q\tended: %s\tby %s%s\n", shownTime(h.EndedAt), h.LocalUserID, h.EndReason, textOr(h.EndedBy, "truenorth"), because(h.EndNote))
			}
		}
	}
	for _, verdict := range []struct {
		flag string
		does []string
	}{{"--link", file.IfLinked}, {"--dismiss", file.IfDismissed}} {
		if len(verdict.does) > 0 {
			fmt.Fprintf(w, "\ntruenorth conflicts resolve %d %s --reason ...\n", f.ID, verdict.flag)
		}
		for _, does := range verdict.does {
			fmt.Fprintf(w, "  - %s\n", does)
		}
	}
	return w.Flush()
}

func printFiledCustomer(w io.Writer, c store.FiledCustomer) {
	fmt.Fprintf(w, "\ncustomer %s\n", c.ID)
	fmt.Fprintf(w, "  e-mail\t%s\n", textOr(c.Email, "none"))
	if c.Name != "" {
		fmt.Fprintf(w, "  name\t%s\n", oneLine(c.Name))
	}
	fmt.Fprintf(w, "  external id\t%s\n", quotedOr(c.ExternalID, "none"))
	age := ""
	if c.CreatedAt != nil {
		const day = 24 * time.Hour
		age = ", less than a day ago"
		if days := int64(time.Since(*c.CreatedAt) / day); days > 0 {
			age = ", " + numbered(days, "day", "days") + " ago"
		}
	}
	fmt.Fprintf(w, "  created\t%s%s\n", shownTime(c.CreatedAt), age)
	if c.DeletedAt != nil {
		fmt.Fprintf(w, "  deleted\t%s\n", shownTime(c.DeletedAt))
	}
	if c.LinkedUserID == "" {
		fmt.Fprintln(w, "  linked\tno")
	} else {
		fmt.Fprintf(w, "  linked\tto %q since %s, basis %s\n", c.LinkedUserID, shownTime(c.LinkedAt), c.LinkedBasis)
	}
}

// printConflicts prints a table of conflicts, settled or not.
func printConflicts(w io.Writer, conflicts []store.Conflict) {
	fmt.Fprintln(w, "  ID\tKIND\tCUSTOMER\tLOCAL USER\tFOUND\tSETTLED")
	for _, f := range conflicts {
		settled := "open"
		if !f.Open {
			settled = fmt.Sprintf("%s: %s by %s%s", shownTime(f.ResolvedAt), f.Resolution, oneLine(f.ResolvedBy), because(f.Note))
		}
		fmt.Fprintf(w, "  %d\t%s\t%s\t%q\t%s\t%s\n", f.ID, f.Kind, f.CustomerID, f.LocalUserID, shownTime(&f.DetectedAt), settled)
	}
}

func because(note string) string {
	if note == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", oneLine(note))
}

func textOr(text, none string) string {
	if text == "" {
		return none
	}
	return oneLine(text)
}

func yesOrNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
