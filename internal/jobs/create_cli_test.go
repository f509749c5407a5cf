package jobs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestTheCommandLineAsksForACheckoutAndWaitsForItsURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{offline: true})
	program := filepath.Join(t.TempDir(), "truenorth")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/truenorth")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building truenorth: %v\n%s", err, out)
	}
	run := func(stdin string, args ...string) (stdout, stderr string, err error) {
		t.Helper()
		var out, errs bytes.Buffer
		command := exec.CommandContext(t.Context(), program, append([]string{"checkout"}, args...)...)
		command.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
			return strings.HasPrefix(v, "DATABASE_URL") || strings.HasPrefix(v, "POLAR_")
		}), "DATABASE_URL="+w.store.Pool().Config().ConnString())
		command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &errs
		err = command.Run()
		return strings.TrimSpace(out.String()), errs.String(), err
	}

	url, stderr, err := run("", "create", "--product", oneTime.String(), "--external-customer-id", "usr_ada", "--key", "order-1", "--wait", "20s")
	if err != nil || !strings.HasPrefix(url, w.api.URL+"/checkout/") {
		t.Fatalf("got URL %q, %v: %s", url, err, stderr)
	}
	printed, stderr, err := run("", "create", "--product", oneTime.String(), "--key", "order-1")
	id, parseErr := uuid.Parse(printed)
	if err != nil || parseErr != nil || id != one[uuid.UUID](w, "select id from polar.checkout_request where key = 'order-1'") {
		t.Errorf("the same key printed %q, %v: %s", printed, err, stderr)
	}
	document, stderr, err := run(fmt.Sprintf(`{"products":[%q],"metadata":{"campaign":"autumn"}}`, oneTime), "create", "--params", "-", "--wait", "20s", "--json")
	var row map[string]any
	if err != nil || json.Unmarshal([]byte(document), &row) != nil || row["state"] != "open" || row["url"] == nil {
		t.Errorf("the request in JSON is %s, %v: %s", document, err, stderr)
	}
	columns := all[string](w, "select column_name::text from information_schema.columns where table_schema = 'polar' and table_name = 'checkout_request'")
	for name := range row {
		if !slices.Contains(columns, name) {
			t.Errorf("%s is in the JSON, and no column of the table", name)
		}
	}
	shown, stderr, err := run("", "get", id.String())
	if err != nil || !strings.Contains(shown, url) {
		t.Errorf("get shows %s, %v: %s", shown, err, stderr)
	}

	before := one[int64](w, "select count(*) from polar.checkout_request")
	for words, args := range map[string][]string{
		"--product": {"create", "--external-customer-id", "usr_ada"},
		"colour":    {"create", "--params", fmt.Sprintf(`{"products":[%q],"colour":"red"}`, oneTime)},
		"--params":  {"create", "--params", "{}", "--key", "k", "--email", "ada@buyer-example.com"},
		"not found": {"get", uuid.NewString()},
	} {
		if stdout, stderr, err := run("", args...); err == nil || stdout != "" || !strings.Contains(stderr, words) {
			t.Errorf("%q printed %q and %q with %v, want an error that names %s", args, stdout, stderr, err, words)
		}
	}
	if after := one[int64](w, "select count(*) from polar.checkout_request"); after != before {
		t.Errorf("what was refused left %d requests", after-before)
	}
}
