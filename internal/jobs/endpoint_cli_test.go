package jobs_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

// cli builds truenorth and returns how to make it a command with the environment of this world.
func (e *endpointWorld) cli() func(args ...string) *exec.Cmd {
	e.t.Helper()
	program := filepath.Join(e.t.TempDir(), "truenorth")
	build := exec.CommandContext(e.t.Context(), "go", "build", "-o", program, "./cmd/truenorth")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		e.t.Fatalf("building truenorth: %v\n%s", err, out)
	}
	return func(args ...string) *exec.Cmd {
		command := exec.CommandContext(e.t.Context(), program, args...)
		command.Env = []string{
			"DATABASE_URL=" + e.store.Pool().Config().ConnString(), "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + e.api.URL + "/v1",
			"INGEST_PUBLIC_URL=" + e.url, "POLAR_RATE_LIMIT=0",
		}
		return command
	}
}

// ran is how a command ended.
type ran struct {
	code           int
	stdout, stderr string
}

func runToEnd(t *testing.T, command *exec.Cmd) ran {
	t.Helper()
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return ran{command.ProcessState.ExitCode(), strings.TrimSpace(out.String()), errs.String()}
}

// ends runs a command, expects its exit code, and these words in what it prints.
func ends(t *testing.T, command *exec.Cmd, code int, words ...string) ran {
	t.Helper()
	got := runToEnd(t, command)
	if got.code != code {
		t.Errorf("%v: exit code %d, want %d: %s%s", command.Args[1:], got.code, code, got.stdout, got.stderr)
	}
	for _, word := range words {
		if !strings.Contains(got.stdout+got.stderr, word) {
			t.Errorf("%v printed %q and %q, want %q in it", command.Args[1:], got.stdout, got.stderr, word)
		}
	}
	return got
}

// secrets are those of all endpoints that Polar has now.
func (e *endpointWorld) secrets() []string {
	e.t.Helper()
	var secrets []string
	for _, raw := range e.fake.Endpoints() {
		secrets = append(secrets, fieldOf(e.t, raw, "secret"))
	}
	return secrets
}

func TestTheCommandLineMakesAndChecksTheEndpoint(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	truenorth := e.cli()
	var printed strings.Builder // all but the secrets that are meant to be printed
	keep := func(r ran) ran {
		printed.WriteString(r.stdout + r.stderr)
		return r
	}

	keep(ends(t, truenorth("endpoint", "check"), 3, "missing", "endpoint create"))
	created := ends(t, truenorth("endpoint", "create"), 0, "POLAR_WEBHOOK_SECRETS")
	if secrets := e.secrets(); len(secrets) != 1 || created.stdout != secrets[0] || strings.Contains(created.stderr, secrets[0]) {
		t.Fatalf("create printed %q and %q, want the secret alone on standard output", created.stdout, created.stderr)
	}
	keep(ends(t, truenorth("endpoint", "create"), 1, "already", "rotate"))
	keep(ends(t, truenorth("endpoint", "check"), 0, "ok", "enabled, format raw, 42 types"))
	keep(ends(t, truenorth("endpoint", "check", "--probe"), 3, "secret_refused", "POLAR_WEBHOOK_SECRETS", "probe", "refused"))
	keep(ends(t, truenorth("endpoint", "check", "--probe", "--json"), 3, `"probe_accepted": false`))
	e.ingestHas(created.stdout)
	keep(ends(t, truenorth("endpoint", "check", "--probe"), 0, "ok", "probe", "accepts the secret"))
	keep(ends(t, truenorth("endpoint", "check", "--probe", "--json"), 0, `"probe_accepted": true`))
	if unasked := keep(ends(t, truenorth("endpoint", "check", "--json"), 0)); strings.Contains(unasked.stdout, "probe_accepted") {
		t.Errorf("nobody asked for a probe, and it tells of one: %s", unasked.stdout)
	}

	endpoints, _, err := e.polar.ListEndpoints(t.Context())
	if err != nil || len(endpoints) != 1 || endpoints[0].Name != "truenorth" || endpoints[0].URL != e.url {
		t.Fatalf("Polar has %+v, %v", endpoints, err)
	}
	e.change(endpoints[0].ID, polar.EndpointUpdate{Enabled: new(false)})
	checked := keep(ends(t, truenorth("endpoint", "check", "--json"), 3))
	var report struct {
		State     string
		URL       string
		Findings  []struct{ Finding, Detail, Advice string }
		Endpoints []struct {
			ID      uuid.UUID
			Enabled bool
			Events  []string
		}
	}
	if err := json.Unmarshal([]byte(checked.stdout), &report); err != nil || report.State != "dark" || report.URL != e.url ||
		len(report.Findings) != 1 || report.Findings[0].Finding != "disabled" || report.Findings[0].Advice == "" ||
		len(report.Endpoints) != 1 || report.Endpoints[0].ID != endpoints[0].ID || report.Endpoints[0].Enabled || len(report.Endpoints[0].Events) != 42 {
		t.Errorf("check --json printed %s, %v", checked.stdout, err)
	}
	keep(ends(t, truenorth("status"), 0, "not looked at yet"))
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	e.look()
	keep(ends(t, truenorth("status"), 0, "dark (disabled) since", "endpoint check"))
	keep(ends(t, truenorth("status", "--json"), 0, `"finding": "disabled"`, `"gaps": null`))

	other := ends(t, truenorth("endpoint", "create", "--url", "https://two.example", "--json"), 0, `"url": "https://two.example/webhooks/polar"`)
	var made struct {
		ID     uuid.UUID
		Secret string
	}
	if err := json.Unmarshal([]byte(other.stdout), &made); err != nil || made.ID == uuid.Nil || !slices.Contains(e.secrets(), made.Secret) {
		t.Errorf("create --json printed %s, %v", other.stdout, err)
	}
	keep(ends(t, truenorth("endpoint", "create", "--url", "two.example"), 2, "--url"))
	keep(ends(t, truenorth("endpoint", "rotate", "--start", "--finish"), 2))
	for _, s := range append(e.secrets(), "polar_oat_test") {
		if strings.Contains(printed.String(), s) {
			t.Error("a secret was printed by a command that is not to print it")
		}
	}
}

func TestTheCommandLineFetchesWhatNeverArrived(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	truenorth := e.cli()
	e.add(polarfake.Endpoint{})
	e.ingestIsDown()
	e.customers("lost", 2)
	e.ingestHas(secret)
	first := e.fake.Events()[0].ID
	redelivered := ends(t, truenorth("endpoint", "redeliver", first, uuid.NewString()), 1, first+"\tPolar sends it again", "Polar has no such event", "1 of 2")
	if strings.Contains(redelivered.stdout, "ResourceNotFound") {
		t.Errorf("redeliver speaks of errors of the API: %s", redelivered.stdout)
	}
	e.idle()
	expect(t, "events after a redelivery", one[string](e.world, "select string_agg(webhook_id, ' ') from polar.event_log"), first)
	ends(t, truenorth("endpoint", "redeliver", first, "--json"), 0, `"asked": true`)
	ends(t, truenorth("endpoint", "redeliver", "evt_1"), 2)

	ends(t, truenorth("endpoint", "fill", "--since", "1h"), 0, fmt.Sprintf("%d events stored that had not arrived", 2*eventsEach-1))
	filled := ends(t, truenorth("endpoint", "fill", "--json"), 0)
	var gaps jobs.Gaps
	if err := json.Unmarshal([]byte(filled.stdout), &gaps); err != nil || gaps.Stored != 0 || gaps.Deliveries != 2*eventsEach*10 || gaps.Until.Sub(gaps.From) != 7*24*time.Hour {
		t.Errorf("fill --json printed %s, %v", filled.stdout, err)
	}
	ends(t, truenorth("status"), 0, "gaps filled", "until 20")
	for _, since := range []string{"yesterday", "2126-01-01T00:00:00Z"} {
		ends(t, truenorth("endpoint", "fill", "--since", since), 2, "--since", since[:9])
	}
}

// flow makes customers all the while, until stopped; it returns how many.
func (e *endpointWorld) flow() (stop func() int) {
	var running sync.WaitGroup
	end := make(chan struct{})
	made := 0
	running.Go(func() {
		ticker := time.NewTicker(150 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-end:
				return
			case <-ticker.C:
			}
			if _, err := e.fake.CreateCustomer(fmt.Sprintf(`{"type":"individual","email":"flow%d@buyer-example.com"}`, made)); err != nil {
				e.t.Error(err)
			}
			made++
		}
	})
	return func() int {
		close(end)
		running.Wait()
		return made
	}
}

// wantNothingLost compares what happened at Polar with what arrived, whatever endpoint it came by.
func (e *endpointWorld) wantNothingLost(customers int) {
	e.t.Helper()
	e.idle()
	expect(e.t, "customers at Polar", len(e.fake.Customers()), customers)
	arrived := all[string](e.world, "select object_id from polar.event_log where type = 'customer.created'")
	for _, raw := range e.fake.Customers() {
		if id := fieldOf(e.t, raw, "id"); !slices.Contains(arrived, id) {
			e.t.Errorf("customer.created of %s is lost", id)
		}
	}
	states := one[int64](e.world, "select count(distinct object_id) from polar.event_log where type = 'customer.state_changed'")
	expect(e.t, "customers whose state arrived", int(states), customers)
}

func TestTheSecretIsRotatedWithoutLosingAnEvent(t *testing.T) {
	t.Parallel()
	for name, retryScale := range map[string]float64{
		"ingest is restarted soon":  0.05,   // Polar still tries again what the new endpoint could not deliver
		"ingest is restarted later": 0.0001, // Polar has given up on it, and disabled the new endpoint
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpointWorldAt(t, jobs.Config{}, retryScale)
			truenorth := e.cli()
			old := e.add(polarfake.Endpoint{})
			stop := e.flow()
			ends(t, truenorth("endpoint", "rotate", "--finish"), 0, "no rotation is under way")

			started := ends(t, truenorth("endpoint", "rotate"), 0, "--finish")
			fresh := started.stdout
			if secrets := e.secrets(); len(secrets) != 2 || fresh != secrets[1] || strings.Contains(started.stderr, fresh) {
				t.Fatalf("rotate printed %q and %q, want the new secret alone on standard output", started.stdout, started.stderr)
			}
			again := ends(t, truenorth("endpoint", "rotate", "--start"), 1, "under way")
			early := ends(t, truenorth("endpoint", "rotate", "--finish"), 1, "POLAR_WEBHOOK_SECRETS")
			expect(t, "endpoints before ingest has the new secret", len(e.secrets()), 2)
			waittest.Eventually(t, func() error { // the first events of the new endpoint are refused
				for _, ev := range e.fake.Events() {
					if ev.EndpointID != old.String() && ev.Deliveries > 0 {
						return nil
					}
				}
				return errors.New("no delivery with the new secret")
			})
			if retryScale < 0.01 {
				waittest.Eventually(t, func() error {
					endpoints, _, err := e.polar.ListEndpoints(t.Context())
					if err == nil && endpoints[len(endpoints)-1].Enabled && endpoints[0].Enabled {
						err = errors.New("the new endpoint is not disabled yet")
					}
					return err
				})
			}

			e.ingestHas(fresh, secret)
			finished := ends(t, truenorth("endpoint", "rotate", "--finish", "--settle", "5s", "--json"), 0)
			var done jobs.Finished
			if err := json.Unmarshal([]byte(finished.stdout), &done); err != nil || len(done.Deleted) != 1 || done.Deleted[0] != old || done.EndpointID == old || done.Undelivered != 0 {
				t.Errorf("rotate --finish --json printed %s, %v", finished.stdout, err)
			}
			if retryScale < 0.01 && done.Redelivered == 0 {
				t.Error("nothing was delivered again of what Polar had given up on")
			}
			if !slices.ContainsFunc(e.fake.Events(), func(ev polarfake.Event) bool {
				return ev.EndpointID == done.EndpointID.String() && ev.State == polarfake.EventSucceeded
			}) {
				t.Error("the old endpoint is gone, and no delivery of Polar's own shows that the new secret works")
			}
			if got := e.secrets(); len(got) != 1 || got[0] != fresh {
				t.Errorf("Polar has %d endpoints, want the new one alone", len(got))
			}
			e.ingestHas(fresh)
			e.customers("after", 2)
			e.wantNothingLost(stop() + 2)
			if endpoint, err := e.polar.GetEndpoint(t.Context(), done.EndpointID); err != nil || !endpoint.Enabled {
				t.Errorf("the new endpoint is %+v, %v", endpoint, err)
			}
			e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
			e.want("after the rotation", e.look(), "ok")
			if failed := undelivered(e, done.EndpointID); len(failed) > 0 {
				t.Errorf("events of the new endpoint never arrived: %v", failed)
			}
			for _, printed := range []ran{again, early, finished} {
				if strings.Contains(printed.stdout+printed.stderr, fresh) || strings.Contains(printed.stdout+printed.stderr, secret) {
					t.Error("a secret is printed more than once")
				}
			}
		})
	}
}

// undelivered lists events of an endpoint that Polar tried to deliver in vain.
func undelivered(e *endpointWorld, endpoint uuid.UUID) []string {
	var ids []string
	for _, ev := range e.fake.Events() {
		if ev.EndpointID == endpoint.String() && ev.Deliveries > 0 && ev.State != polarfake.EventSucceeded {
			ids = append(ids, ev.ID)
		}
	}
	return ids
}

func TestARotationMayBeOneCommandThatWaits(t *testing.T) {
	t.Parallel()
	e := newEndpointWorldAt(t, jobs.Config{}, 0.05)
	truenorth := e.cli()
	e.add(polarfake.Endpoint{Secret: "a secret that the merchant chose, long ago", Scheme: polarfake.SchemeLegacy})
	e.ingestHas("a secret that the merchant chose, long ago")
	stop := e.flow()
	command := truenorth("endpoint", "rotate", "--wait", "--timeout", "30s")
	var progress bytes.Buffer
	command.Stderr = &progress
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatalf("nothing printed: %s", progress.String())
	}
	fresh := lines.Text()
	e.ingestHas(fresh, "a secret that the merchant chose, long ago")
	for lines.Scan() {
		if strings.Contains(lines.Text(), fresh) {
			t.Error("the secret is printed twice")
		}
	}
	if err := command.Wait(); err != nil {
		t.Fatalf("%v: %s", err, progress.String())
	}
	if got := e.secrets(); len(got) != 1 || got[0] != fresh {
		t.Errorf("Polar has %d endpoints, want the new one alone", len(got))
	}
	e.wantNothingLost(stop())

	// What was started may be waited for later.
	ends(t, truenorth("endpoint", "rotate"), 0)
	waited := ends(t, truenorth("endpoint", "rotate", "--wait", "--timeout", "1s"), 1, "under way", "rotate --finish")
	expect(t, "what is printed", waited.stdout, "")
}

func TestARotationIsNotFinishedWhileSomethingIsLeft(t *testing.T) {
	t.Parallel()
	e := newEndpointWorld(t, jobs.Config{})
	ctx := t.Context()
	old := e.add(polarfake.Endpoint{})
	e.ingestIsDown()
	e.customers("lost", 2) // exhausted at the old endpoint, before there is another
	begun, err := jobs.StartRotation(ctx, e.polar, e.url)
	if err != nil {
		t.Fatal(err)
	}
	options := jobs.FinishOptions{NoProbe: true, Patience: time.Millisecond, Progress: func(string) {}}
	finish := func(when, wants string) {
		t.Helper()
		_, err := jobs.FinishRotation(ctx, e.polar, "", options)
		if err == nil || !strings.Contains(err.Error(), wants) {
			t.Errorf("%s: %v, want an error that says %q", when, err, wants)
		}
		expect(t, when+": endpoints", len(e.secrets()), 2)
	}
	finish("while ingest is down", "6 events have not arrived")
	options.Patience = 10 * time.Second
	e.ingestHas(begun.New.Secret.Reveal(), secret)
	finish("while Polar has sent nothing with the new secret", "not delivered anything")
	expect(t, "events that had not arrived", one[int64](e.world, "select count(*) from polar.event_log"), 2*eventsEach)

	e.change(begun.New.ID, polar.EndpointUpdate{Events: []string{polar.EventOrderPaid}})
	finish("while the new one is not sent everything", "customer.created")
	e.change(begun.New.ID, polar.EndpointUpdate{Events: polar.EventTypes()})
	e.ingestIsDown()
	e.customers("stuck", 1)
	e.change(old, polar.EndpointUpdate{Enabled: new(false)})
	e.ingestHas(begun.New.Secret.Reveal(), secret)
	finish("while the old one is disabled with something left", "3 events have not arrived")

	options.Unknown = e.store.ListUnknownEvents
	finish("while it is nowhere", "3 events have not arrived")
	e.runner = e.newRunner(jobs.Config{EndpointURL: e.url})
	e.search()
	done, err := jobs.FinishRotation(ctx, e.polar, e.url, options)
	if err != nil || done.Undelivered != 0 || len(e.secrets()) != 1 {
		t.Errorf("once it is stored: %+v, %v", done, err)
	}
	e.wantNothingLost(3)
}
