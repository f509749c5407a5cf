package main

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// bench is a database and a fake Polar for the commands to work on.
type bench struct {
	t       *testing.T
	fake    *polarfake.Fake
	environ []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	fake := polarfake.New(polarfake.Options{})
	t.Cleanup(fake.Close)
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	return &bench{t: t, fake: fake, environ: []string{
		"DATABASE_URL=" + storetest.URL(t), "POLAR_ACCESS_TOKEN=polar_oat_test", "POLAR_API_URL=" + api.URL + "/v1", "POLAR_RATE_LIMIT=0",
	}}
}

// run runs the program and checks its exit code.
func (b *bench) run(want int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	var out, errOut bytes.Buffer
	if code := run(args, b.environ, strings.NewReader(""), &out, &errOut); code != want {
		b.t.Fatalf("truenorth %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &errOut)
	}
	return out.String(), errOut.String()
}

func TestReconcileSaysByItsExitCodeWhetherUsersAndPolarAgree(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ids := b.fake.SeedCustomers(3, "usr_")
	out, errOut := b.run(exitFound, "reconcile", "customers", "--dry-run")
	for _, want := range []string{"customers  finished  3", "missed_create", ids[0], "polar.drift where run_id = 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run does not say %q:\n%s", want, out)
		}
	}
	if !strings.Contains(errOut, "3 differences; without --dry-run, all that is found is repaired") {
		t.Errorf("the dry run ends with %q", errOut)
	}
	b.run(0, "reconcile")
	out, _ = b.run(0, "reconcile", "--json")
	var runs []struct {
		ObjectType string `json:"object_type"`
		State      string
		Seen       int64
		Drifted    int64
		Drift      []any
	}
	if err := json.Unmarshal([]byte(out), &runs); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(runs) != 12 {
		t.Errorf("%d types were compared, want 12", len(runs))
	}
	for _, r := range runs {
		if r.State != "finished" || r.Drifted != 0 || r.Drift == nil {
			t.Errorf("the second run: %+v", r)
		}
	}
	if _, err := b.fake.UpdateCustomer(ids[2], `{"name": "Ada Lovelace"}`); err != nil {
		t.Fatal(err)
	}
	out, _ = b.run(exitFound, "reconcile", "customer", "--dry-run", "--json")
	if strings.Contains(out, "Lovelace") {
		t.Errorf("a personal value stands in the output:\n%s", out)
	}
	b.run(0, "reconcile", "Customers", "members", "benefit-grants", "--since", "36h")
}

func TestASweepOfAPartDoesNotCallItselfFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, c := range []struct {
		args []string
		full bool
	}{{[]string{"reconcile", "orders", "--json"}, true}, {[]string{"reconcile", "orders", "--since", "36h", "--json"}, false}} {
		out, _ := b.run(0, c.args...)
		var runs []store.ReconcileRun
		if err := json.Unmarshal([]byte(out), &runs); err != nil || len(runs) != 1 {
			t.Fatalf("%v: %d runs, %v", c.args, len(runs), err)
		}
		if runs[0].Full != c.full || (runs[0].Since == nil) != c.full {
			t.Errorf("%v: full_sweep is %t, since is %v", c.args, runs[0].Full, runs[0].Since)
		}
	}
}

func TestReconcileFailsClearly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, wrong := range [][]string{{"reconcile", "invoices"}, {"reconcile", "--since", "yesterday"}, {"reconcile", "--nonsense"}} {
		if _, errOut := b.run(exitUsage, wrong...); !strings.Contains(errOut, strings.Trim(wrong[len(wrong)-1], "-")) {
			t.Errorf("%v: it does not name what is wrong: %s", wrong, errOut)
		}
	}
	if err := b.fake.Inject(polarfake.Fault{Kind: polarfake.FaultStatus, Status: 403, Path: "/v1/discounts/", Count: -1}); err != nil {
		t.Fatal(err)
	}
	out, errOut := b.run(1, "reconcile")
	if !strings.Contains(errOut, "discounts:read") || !strings.Contains(errOut, "/v1/discounts/") {
		t.Errorf("it does not say which scope is missing: %s", errOut)
	}
	if !strings.Contains(out, "discounts       failed") || !strings.Contains(out, "customers       finished") {
		t.Errorf("one type that failed kept others from being compared:\n%s", out)
	}
	b.environ = append(b.environ, "POLAR_ACCESS_TOKEN=")
	if _, errOut := b.run(1, "reconcile"); !strings.Contains(errOut, "POLAR_ACCESS_TOKEN is not set") {
		t.Errorf("without a token: %s", errOut)
	}
}
