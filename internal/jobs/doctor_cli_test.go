package jobs_test

import (
	"encoding/json"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestDoctorFindsWhatIsNotSetUpAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	truenorth := e.cli()
	secret := ends(t, truenorth("endpoint", "create"), 0).stdout
	e.addUser("usr_ada")
	doctor := func(environ ...string) *exec.Cmd {
		command := truenorth("doctor")
		command.Env = append(append(command.Env, "POLAR_WEBHOOK_SECRETS="+secret), environ...) // of two, the last counts
		return command
	}
	injected := func(fault polarfake.Fault) *exec.Cmd {
		if err := e.fake.Inject(fault); err != nil {
			t.Fatal(err)
		}
		return doctor()
	}

	well := ends(t, doctor(), 0, "PostgreSQL", "owns the tables", "keeps its users in polar.local_user", "1, well formed", "enabled and sent everything", "none is alive", "start cmd/worker")
	if strings.Contains(well.stdout, "fault") || strings.Contains(well.stdout, secret) || strings.Contains(well.stdout, "polar_oat_test") {
		t.Errorf("where all is well it prints %s", well.stdout)
	}
	for name, test := range map[string]struct {
		command *exec.Cmd
		code    int
		words   []string
	}{
		"no database":             {doctor("DATABASE_URL="), 3, []string{"fault", "database", "set DATABASE_URL"}},
		"a database that is away": {doctor("DATABASE_URL=postgres://u@127.0.0.1:1/none"), 3, []string{"fault", "see that Postgres runs"}},
		"no schema":               {doctor("DATABASE_URL=" + storetest.EmptyURL(t)), 3, []string{"schema polar is missing", "truenorth migrate"}},
		"no secret":               {doctor("POLAR_WEBHOOK_SECRETS="), 0, []string{"warning", "POLAR_WEBHOOK_SECRETS is not set here", "endpoint create"}},
		"an empty secret":         {doctor("POLAR_WEBHOOK_SECRETS=a,,b"), 3, []string{"fault", "webhook secrets", "secret 2 of 3"}},
		"no token":                {doctor("POLAR_ACCESS_TOKEN="), 0, []string{"warning", "POLAR_ACCESS_TOKEN is not set here"}},
		"a Polar that is away":    {doctor("POLAR_API_URL=http://127.0.0.1:1/v1", "POLAR_TIMEOUT=1s"), 3, []string{"fault", "reaches POLAR_API_URL"}},
	} {
		t.Log(name)
		ends(t, test.command, test.code, test.words...)
	}
	ends(t, injected(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 401}), 3, "does not know the token", "the sandbox has tokens of its own")
	ends(t, injected(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 403, Path: "/v1/orders/"}), 3, "give it the scopes orders:read")

	endpoints, _, err := e.polar.ListEndpoints(t.Context())
	if err != nil || len(endpoints) != 1 {
		t.Fatalf("Polar has %v, %v", endpoints, err)
	}
	e.change(endpoints[0].ID, polar.EndpointUpdate{Enabled: new(false)})
	ends(t, doctor(), 3, "endpoint", "is disabled")
	e.change(endpoints[0].ID, polar.EndpointUpdate{Enabled: new(true)})

	e.exec("update polar.local_user_row set deleted_at = now(); delete from polar.local_user_row")
	e.exec("insert into polar.worker_process (id) values ('here')")
	ends(t, doctor(), 0, "there are no users", "users map", "1 alive")

	e.clock.advance(10 * time.Minute)
	ends(t, doctor(), 3, "clocks", "from Polar's: ingest refuses signatures", "NTP")
	command := doctor()
	command.Args = append(command.Args, "--json")
	var list []struct{ Check, State, Detail, Advice string }
	if got := ends(t, command, 3); json.Unmarshal([]byte(got.stdout), &list) != nil || len(list) < 8 {
		t.Errorf("--json prints %s", got.stdout)
	}
	for _, found := range list {
		if found.Detail == "" || (found.State != "ok") != (found.Advice != "") {
			t.Errorf("%+v says nothing, or not what to do", found)
		}
	}
}

func TestDoctorRefusesATokenOfAnotherOrganization(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	truenorth := e.cli()
	e.exec("insert into polar.mirrored_organization (organization_id) values (gen_random_uuid())")
	ends(t, truenorth("doctor"), 3, "but this database mirrors", "sandbox and production never share a database")
}

func TestDoctorIsOfUseWithTheRightsOfEachProgram(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	truenorth := e.cli()
	e.addUser("usr_ada")
	for role, words := range map[string][]string{
		store.RoleIngest: {"is polar_ingest", "may not read polar.local_user", "warning  worker"},
		store.RoleWorker: {"is polar_worker", "keeps its users in polar.local_user", "none is alive"},
		store.RoleApp:    {"is polar_app", "keeps its users in polar.local_user"},
		store.RoleRead:   {"is polar_read", "keeps its users in polar.local_user"},
	} {
		u, err := url.Parse(storetest.ServerURL(t))
		if err != nil {
			t.Fatal(err)
		}
		u.Path = "/" + e.store.Pool().Config().ConnConfig.Database
		query := u.Query()
		query.Set("role", role)
		u.RawQuery = query.Encode()
		command := truenorth("doctor")
		command.Env = append(command.Env, "DATABASE_URL="+u.String(), "POLAR_ACCESS_TOKEN=", "POLAR_WEBHOOK_SECRETS="+secret)
		got := ends(t, command, 0, words...)
		if strings.Contains(got.stdout, "fault") {
			t.Errorf("as %s, where all is well, it prints %s", role, got.stdout)
		}
	}
}
