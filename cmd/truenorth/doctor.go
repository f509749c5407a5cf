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
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/store"
)

type doctorCommand struct{}

func (doctorCommand) about() about {
	return about{
		text: `Looks at the database, its schema and rights, the secrets, the token and what it may read, Polar's endpoint, the clocks and the
users, and says what to do about each. It changes nothing, here or at Polar. Give it the environment of the program that is ill:
what is not set is said to be so.`,
		reads:    "all that truenorth reads",
		examples: []example{{"truenorth doctor", "with the environment of the program that it is about"}},
		finds:    "something is at fault",
		prints:   []document{{value: []diagnosis{}}},
	}
}

// States of a diagnosis.
const (
	wellState    = "ok"
	warningState = "warning" // works, and may not be meant so
	faultState   = "fault"   // does not work
)

// diagnosis is what doctor says of one thing.
type diagnosis struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do
}

// doctor collects diagnoses.
type doctor struct {
	list   []diagnosis
	schema bool               // that there is one to ask
	polar  polar.ResponseInfo // Polar's last answer
	heard  time.Time          // and when it came
}

func (d *doctor) wellf(check, format string, args ...any) {
	d.list = append(d.list, diagnosis{check, wellState, fmt.Sprintf(format, args...), ""})
}

func (d *doctor) warn(check, detail, advice string) {
	d.list = append(d.list, diagnosis{check, warningState, detail, advice})
}

func (d *doctor) fault(check, detail, advice string) {
	d.list = append(d.list, diagnosis{check, faultState, detail, advice})
}

func (doctorCommand) Run(ctx context.Context, e *environment) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var d doctor
	d.database(ctx, e)
	d.secrets(e)
	d.polarSide(ctx, e)
	if err := e.print(d.list, func(w io.Writer) error { return d.print(w, e.style) }); err != nil {
		return err
	}
	for _, found := range d.list {
		if found.State == faultState {
			return &exitError{code: exitFound}
		}
	}
	return nil
}

func (d *doctor) print(w io.Writer, style style) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	paint := map[string]func(string) string{wellState: style.good, warningState: style.warn, faultState: style.bad}
	for _, found := range d.list {
		fmt.Fprintf(table, "%s\t%s\t%s\n", paint[found.State](found.State), found.Check, oneLine(found.Detail))
		if found.Advice != "" {
			fmt.Fprintf(table, "%s\t\t-> %s\n", style.none(""), found.Advice)
		}
	}
	return table.Flush()
}

// Names of what is looked at.
const (
	checkDatabase = "database"
	checkSchema   = "schema"
	checkRights   = "rights"
	checkUsers    = "users"
	checkWorker   = "worker"
	checkSecrets  = "webhook secrets"
	checkToken    = "token"
	checkEndpoint = "endpoint"
	checkClocks   = "clocks"
)

// Clocks that differ by more are worth a word, and by as much as a signature may be old, events are refused.
const (
	oddSkew   = 30 * time.Second
	worstSkew = polar.SignatureTolerance - time.Minute
)

const oldestPostgres = 140000

func (d *doctor) database(ctx context.Context, e *environment) {
	s, err := e.openStore()
	if err != nil {
		d.fault(checkDatabase, err.Error(), "set DATABASE_URL to the product's Postgres")
		return
	}
	defer s.Close()
	asked := time.Now()
	h, err := s.ReadHealth(ctx)
	switch {
	case errors.Is(err, store.ErrUnavailable):
		d.fault(checkDatabase, err.Error(), "see that Postgres runs, and that DATABASE_URL leads to it from here")
		return
	case errors.Is(err, store.ErrDenied):
		d.fault(checkDatabase, err.Error(), adviceDenied)
		return
	case err != nil:
		d.fault(checkDatabase, err.Error(), "see that the user of DATABASE_URL may use schema polar: docs/roles.md")
		return
	case h.VersionNumber < oldestPostgres:
		d.fault(checkDatabase, "PostgreSQL "+h.Version+" is too old", "use PostgreSQL 14 or newer")
	case h.ReadOnly:
		d.fault(checkDatabase, "PostgreSQL "+h.Version+" is read-only, as a standby is", "let DATABASE_URL lead to the primary: several hosts with target_session_attrs=read-write")
	default:
		d.wellf(checkDatabase, "PostgreSQL %s, user %s", h.Version, h.User)
	}
	if skew := h.Now.Sub(asked); skew.Abs() > oddSkew {
		d.warn(checkClocks, fmt.Sprintf("Postgres's clock is %s from this machine's", skew.Round(time.Second)), "let both keep time (NTP)")
	}
	switch {
	case h.Schema == 0:
		d.fault(checkSchema, "schema polar is missing", "run `truenorth migrate` as a user who may create it")
		return
	case h.Schema < h.NewestSchema:
		d.fault(checkSchema, fmt.Sprintf("schema polar is at version %d, and this release needs %d", h.Schema, h.NewestSchema), "run `truenorth migrate`")
	case h.Schema > h.NewestSchema:
		d.warn(checkSchema, fmt.Sprintf("schema polar is at version %d, and this release knows %d", h.Schema, h.NewestSchema), "bring the programs to the release that migrated it")
	case h.River != "":
		d.fault(checkSchema, "River's tables: "+h.River, "run `truenorth migrate`")
	default:
		d.wellf(checkSchema, "version %d, River's tables are the newest", h.Schema)
	}
	d.schema = true
	switch {
	case h.OwnsTables:
		d.wellf(checkRights, "%s owns the tables", h.User)
	case len(h.Roles) > 0:
		d.wellf(checkRights, "%s is %s", h.User, strings.Join(h.Roles, ", "))
	default:
		d.warn(checkRights, h.User+" neither owns the tables nor has one of the roles", "grant it the role of its program: docs/roles.md")
	}
	switch {
	case !h.UsersKnown:
		d.warn(checkUsers, "whether there are any is not known: "+h.User+" may not read polar.local_user", "ask again as the worker's user, or as the owner")
	case h.UsersMapped && h.HasUsers:
		d.wellf(checkUsers, "polar.local_user shows a table of the product's")
	case h.UsersMapped:
		d.warn(checkUsers, "polar.local_user shows a table of the product's, which is empty", "see that `truenorth users map` names the right one")
	case h.HasUsers:
		d.wellf(checkUsers, "the product keeps its users in polar.local_user")
	default:
		d.warn(checkUsers, "there are no users, so that no customer is linked", "`truenorth users map --table public.users --id id --email email` shows where they are")
	}
	status, err := s.ReadStatus(ctx)
	switch {
	case err != nil:
		d.warn(checkWorker, "whether one is alive is not known: "+err.Error(), "ask as a user with the role polar_worker, or as the owner")
	case status.WorkersAlive == 0:
		d.warn(checkWorker, "none is alive", "start cmd/worker; if it runs, its log says why it does not work")
	default:
		d.wellf(checkWorker, "%d alive", status.WorkersAlive)
	}
}

func (d *doctor) secrets(e *environment) {
	secrets := make([]string, len(e.config.WebhookSecrets))
	for i, secret := range e.config.WebhookSecrets {
		secrets[i] = secret.Reveal()
	}
	if len(secrets) == 0 {
		d.warn(checkSecrets, "POLAR_WEBHOOK_SECRETS is not set here", "ingest does not start without it; `truenorth endpoint create` makes an endpoint and prints its secret")
		return
	}
	if _, err := polar.NewVerifier(secrets); err != nil {
		d.fault(checkSecrets, err.Error(), "copy the secret again from Polar's settings, Webhooks")
		return
	}
	d.wellf(checkSecrets, "%d, well formed; `truenorth endpoint check --probe` sees whether ingest has the right one", len(secrets))
}

// polarSide looks at what Polar says. It only reads.
func (d *doctor) polarSide(ctx context.Context, e *environment) {
	if e.config.AccessToken.Reveal() == "" {
		d.warn(checkToken, "POLAR_ACCESS_TOKEN is not set here", "the worker does not start without it; make an organization access token in Polar's settings")
		return
	}
	config := e.polarConfig()
	config.OnResponse = func(info polar.ResponseInfo) { d.polar, d.heard = info, time.Now() }
	api, err := polar.New(config)
	if err != nil {
		d.fault(checkToken, err.Error(), "correct POLAR_API_URL, POLAR_VERSION and POLAR_ACCESS_TOKEN")
		return
	}
	if !d.token(ctx, api, e.config.APIURL) {
		return
	}
	d.clocks()
	d.organization(ctx, api, e)
	endpointURL := e.config.EndpointURL()
	report, err := jobs.CheckEndpoint(ctx, api, endpointURL)
	if err != nil {
		d.fault(checkEndpoint, err.Error(), "try again; Polar answered other questions just now")
		return
	}
	for _, f := range report.Findings {
		if f.Finding == jobs.FindingLegacySigning {
			d.warn(checkEndpoint, f.Detail, f.Advice)
		} else {
			d.fault(checkEndpoint, f.Detail, f.Advice)
		}
	}
	if len(report.Findings) == 0 {
		d.wellf(checkEndpoint, "%s is enabled and sent everything", report.URL)
	}
}

// token asks for one object of each type, and reports whether Polar knows the token at all.
func (d *doctor) token(ctx context.Context, api *polar.API, url string) bool {
	var missing, unlisted []string
	asked := 0
	for _, r := range polar.Resources() {
		if r.SortKey == "" {
			unlisted = append(unlisted, strings.ReplaceAll(r.Type, "_", " ")+"s")
			continue
		}
		_, err := api.ListObjects(ctx, r, 1, 1)
		switch {
		case polar.IsUnauthorized(err):
			d.fault(checkToken, "Polar does not know the token", "set POLAR_ACCESS_TOKEN to a valid organization access token of "+url+": the sandbox has tokens of its own")
			return false
		case polar.IsForbidden(err):
			missing = append(missing, r.Scope())
		case err != nil:
			d.fault(checkToken, err.Error(), "see that this machine reaches POLAR_API_URL ("+url+")")
			return false
		default:
			asked++
		}
	}
	if len(missing) > 0 {
		d.fault(checkToken, "the token may not read all that is mirrored", "give it the scopes "+strings.Join(missing, ", "))
		return true
	}
	d.wellf(checkToken, "reads all %d lists (Polar has none of %s); whether it may write (checkouts:write, customers:write, webhooks:write) shows only when it does", asked, strings.Join(unlisted, ", "))
	return true
}

func (d *doctor) clocks() {
	if d.polar.Date.IsZero() {
		d.warn(checkClocks, "Polar does not say what time it is", "nothing to do but to keep time (NTP)")
		return
	}
	skew := d.heard.Sub(d.polar.Date)
	detail := fmt.Sprintf("this machine's clock is %s from Polar's", skew.Round(time.Second))
	switch {
	case skew.Abs() > worstSkew:
		d.fault(checkClocks, detail+": ingest refuses signatures that are over "+polar.SignatureTolerance.String()+" old, or so far ahead", "let this machine keep time (NTP)")
	case skew.Abs() > oddSkew:
		d.warn(checkClocks, detail, "let this machine keep time (NTP)")
	default:
		d.wellf(checkClocks, "within %s of Polar's", oddSkew)
	}
}

// organization sees that the token is of the organization that the database mirrors.
func (d *doctor) organization(ctx context.Context, api *polar.API, e *environment) {
	if !d.schema {
		return
	}
	s, err := e.openStore()
	if err != nil {
		return // said already
	}
	defer s.Close()
	err = jobs.CompareOrganization(ctx, s, api)
	if other, ok := errors.AsType[*jobs.OtherOrganizationError](err); ok {
		d.fault(checkToken, other.Error(), "sandbox and production never share a database")
	} else if err != nil {
		d.warn(checkToken, "whether it is of the organization that the database mirrors is not known: "+err.Error(), "ask again as a user with the role polar_worker, or as the owner")
	}
}
