package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// decision is what every command that changes a link records.
type decision struct {
	Reason string `required:"" help:"Why; it stands in the history." placeholder:"TEXT"`
	Actor  string `help:"Who decides; the user of this machine by default." placeholder:"NAME"`
}

func (d decision) word() store.Word {
	return store.Word{Actor: cmp.Or(d.Actor, whoami()), Reason: d.Reason}
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

// typedCustomer is a customer as a person types it.
type typedCustomer struct {
	id                uuid.UUID
	externalID, email string
}

// UnmarshalText is how kong reads it.
func (c *typedCustomer) UnmarshalText(text []byte) error {
	typed := string(text)
	id, err := uuid.Parse(typed)
	externalID, external := strings.CutPrefix(typed, "external:")
	switch {
	case err == nil:
		c.id = id
	case external && externalID != "":
		c.externalID = externalID
	case strings.Contains(typed, "@"):
		c.email = typed
	default:
		return fmt.Errorf("%q is no customer: give Polar's id of it, external:ID, or its e-mail address", typed)
	}
	return nil
}

// find gives the id of the one customer meant. An address is only a way to type: it is no evidence of anything.
func (c *typedCustomer) find(ctx context.Context, s *store.Store) (uuid.UUID, error) {
	var found []store.FoundCustomer
	what := "bears this external id"
	switch {
	case c.externalID != "":
		ids, err := s.ListCustomersByExternalID(ctx, c.externalID)
		if err != nil {
			return uuid.Nil, err
		}
		for _, id := range ids {
			found = append(found, store.FoundCustomer{ID: id, ExternalID: c.externalID})
		}
	case c.email != "":
		var err error
		what = "has this e-mail address"
		if found, err = s.ListCustomersByEmail(ctx, c.email); err != nil {
			return uuid.Nil, err
		}
	default:
		return c.id, nil
	}
	switch len(found) {
	case 0:
		return uuid.Nil, failure("check it, or give Polar's id of the customer", "no living customer of the mirror %s", what)
	case 1:
		return found[0].ID, nil
	}
	var list strings.Builder
	for _, f := range found {
		fmt.Fprintf(&list, "\n  %s  external id %s", f.ID, quotedOr(f.ExternalID, "none"))
	}
	return uuid.Nil, failure("give the id of one", "%d customers are meant, as each %s:%s", len(found), what, list.String())
}

type linkCommand struct {
	Customer typedCustomer `arg:"" help:"Polar's id of the customer, external:ID, or its e-mail address (a way to type, no evidence)."`
	User     string        `arg:"" help:"Id of the local user."`
	Also     bool          `help:"The local user is linked to another customer, and shall have this one too."`
	Replace  bool          `help:"The customer is linked to another local user: end that link."`
	decision
}

func (linkCommand) about() about {
	return about{
		text: `The link stands on your word (basis manual): whatever is heard of the customer later leaves it. Where the customer bears
no external id at Polar, and no other customer bears the user's, the user's id is written there too, for good.`,
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth link ada@example.com usr_ada --reason 'she wrote from this address'", ""},
			{"truenorth link external:old_id usr_ada --also --reason 'two accounts, one person'", "beside another customer"},
		},
		prints: []document{{value: jobs.Linked{}}},
	}
}

func (c linkCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	customer, err := c.Customer.find(ctx, s)
	if err != nil {
		return err
	}
	linked, err := jobs.LinkCustomer(ctx, s, jobs.LinkOrder{CustomerID: customer, LocalUserID: c.User, Also: c.Also, Replace: c.Replace}, c.word())
	if err != nil {
		return err
	}
	return e.print(linked, func(w io.Writer) error {
		printLinked(w, linked)
		return nil
	})
}

func printLinked(w io.Writer, l jobs.Linked) {
	if !l.Changed {
		fmt.Fprintf(w, "customer %s is linked to %q by a person's word already\n", l.CustomerID, l.LocalUserID)
		return
	}
	fmt.Fprintf(w, "customer %s is linked to %q\n", l.CustomerID, l.LocalUserID)
	if l.ReplacedUserID != "" {
		fmt.Fprintf(w, "  its link to %q ended\n", l.ReplacedUserID)
	}
	for _, other := range l.OtherCustomerIDs {
		fmt.Fprintf(w, "  %q keeps customer %s too\n", l.LocalUserID, other)
	}
	fmt.Fprintf(w, "  %s\n", map[string]string{
		jobs.ExternalIDQueued: "a worker writes the user's id to Polar as the customer's external id",
		jobs.ExternalIDBorne:  "at Polar the customer bears the user's id already",
		jobs.ExternalIDOther:  "at Polar the customer bears another external id, which can never be changed; the link does not need it",
		jobs.ExternalIDTaken:  "nothing is written to Polar: another customer bears the user's id",
	}[l.ExternalID])
	printSettled(w, l.SettledConflicts)
}

func printSettled(w io.Writer, conflicts []int64) {
	for _, id := range conflicts {
		fmt.Fprintf(w, "  conflict %d is settled\n", id)
	}
}

type unlinkCommand struct {
	Customer typedCustomer `arg:"" help:"Polar's id of the customer, external:ID, or its e-mail address (a way to type, no evidence)."`
	decision
}

func (unlinkCommand) about() about {
	return about{
		text: `The link stays ended: the evidence that spoke for it does not make it again. Only a person does (truenorth link), or, where
an external id alone had spoken for it, a checkout of the user's own with this customer.`,
		needs:    "DATABASE_URL",
		examples: []example{{"truenorth unlink ada@example.com --reason 'not her card'", ""}},
		prints:   []document{{value: jobs.Unlinked{}}},
	}
}

func (c unlinkCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	customer, err := c.Customer.find(ctx, s)
	if err != nil {
		return err
	}
	u, err := jobs.UnlinkCustomer(ctx, s, customer, c.word())
	if err != nil {
		return err
	}
	return e.print(u, func(w io.Writer) error {
		fmt.Fprintf(w, "customer %s is no longer linked to %q (%s)\n", u.CustomerID, u.LocalUserID, u.Basis)
		if u.NowLinkedTo != "" {
			fmt.Fprintf(w, "  other evidence links it to %q now\n", u.NowLinkedTo)
		}
		for _, other := range u.OtherCustomerIDs {
			fmt.Fprintf(w, "  %q is linked to customer %s\n", u.LocalUserID, other)
		}
		printSettled(w, u.SettledConflicts)
		return nil
	})
}

type conflictsCommand struct {
	List    conflictsListCommand    `cmd:"" help:"List open conflicts, oldest first."`
	Show    conflictsShowCommand    `cmd:"" help:"Show all that bears on a conflict, and what settling it would do."`
	Resolve conflictsResolveCommand `cmd:"" help:"Settle a conflict, with a record of who did and why."`
}

type conflictsListCommand struct {
	All      bool `help:"List settled ones too, newest first."`
	Limit    int  `default:"100" help:"List so many at most."`
	ExitCode bool `help:"End with exit code 3 if a conflict is open."`
}

func (conflictsCommand) about() about {
	return about{text: `A conflict is evidence that contradicts other evidence, or a link: nothing is overwritten, and a person decides. docs/linking.md
tells which kinds there are.`}
}

func (conflictsListCommand) about() about {
	return about{
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth conflicts list", ""},
			{"truenorth conflicts list --all --json", "with how each was settled"},
			{"truenorth conflicts list --exit-code", "for a script: is a person needed?"},
		},
		finds:  "a conflict is open (--exit-code)",
		prints: []document{{value: []store.Conflict{}, rows: "polar.link_conflict", beside: []string{"open"}}},
	}
}

// Validate is called by kong.
func (c conflictsListCommand) Validate() error {
	if c.Limit < 1 {
		return fmt.Errorf("--limit is %d; give 1 or more", c.Limit)
	}
	return nil
}

func (c conflictsListCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	conflicts, err := s.ListConflictPage(ctx, !c.All, 0, c.Limit)
	if err != nil {
		return err
	}
	if err := e.print(conflicts, func(w io.Writer) error { return c.printList(w, conflicts) }); err != nil {
		return err
	}
	if !c.ExitCode {
		return nil
	}
	open, err := s.ListConflictPage(ctx, true, 0, 1) // the page may not reach back to it
	if err == nil && len(open) > 0 {
		err = &exitError{code: exitFound}
	}
	return err
}

func (c conflictsListCommand) printList(out io.Writer, conflicts []store.Conflict) error {
	if len(conflicts) == 0 {
		return linef("%s", map[bool]string{false: "no open conflicts", true: "no conflicts"}[c.All])(out)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if c.All {
		printConflicts(w, conflicts)
		return w.Flush()
	}
	fmt.Fprintln(w, "ID\tKIND\tCUSTOMER\tLOCAL USER\tSINCE\tDETAIL")
	for _, f := range conflicts {
		fmt.Fprintf(w, "%d\t%s\t%s\t%q\t%s\t%s\n", f.ID, f.Kind, f.CustomerID, f.LocalUserID, shownTime(&f.DetectedAt), oneLine(f.Detail))
	}
	return w.Flush()
}

type conflictsResolveCommand struct {
	ID      int64 `arg:"" help:"Number of the conflict."`
	Link    bool  `xor:"verdict" required:"" help:"Link the customer to the local user that the conflict names."`
	Dismiss bool  `xor:"verdict" required:"" help:"There is nothing in it: follow this claim no more."`
	Also    bool  `help:"With --link: the local user is linked to another customer, and shall have this one too."`
	decision
}

func (conflictsResolveCommand) about() about {
	return about{
		needs: "DATABASE_URL",
		examples: []example{
			{"truenorth conflicts resolve 17 --link --reason 'she sent the receipt'", ""},
			{"truenorth conflicts resolve 17 --dismiss --reason 'somebody typed her address'", ""},
		},
		prints: []document{{value: jobs.Settled{}}},
	}
}

func (c conflictsResolveCommand) Run(ctx context.Context, e *environment) error {
	s, err := e.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	word := c.word()
	settled, err := jobs.ResolveConflict(ctx, s, c.ID, jobs.Verdict{Link: c.Link, Also: c.Also}, word)
	if errors.Is(err, store.ErrNotFound) {
		return noConflict(c.ID)
	}
	if err != nil {
		return err
	}
	return e.print(settled, func(w io.Writer) error {
		fmt.Fprintf(w, "conflict %d settled by %s: %s\n", c.ID, word.Actor, settled.Resolution)
		switch {
		case settled.Linked != nil:
			printLinked(w, *settled.Linked)
		case settled.NowLinkedTo != "":
			fmt.Fprintf(w, "  the customer is linked to %q\n", settled.NowLinkedTo)
		default:
			fmt.Fprintln(w, "  the customer is not linked")
		}
		return nil
	})
}

func noConflict(id int64) error {
	return failure("see truenorth conflicts list --all", "there is no conflict %d", id)
}

// shownTime is a time as a person at this machine reads it.
func shownTime(t *time.Time) string {
	return timeOr(t, "unknown")
}

func timeOr(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Local().Format(time.RFC3339)
}

// quotedOr quotes an id, so that odd ones can be told apart.
func quotedOr(id, none string) string {
	if id == "" {
		return none
	}
	return fmt.Sprintf("%q", id)
}
