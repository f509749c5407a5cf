package main

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
)

// wantFault fails unless err tells of what.
func wantFault(t *testing.T, err error, what string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), what) {
		t.Errorf("error is %v, want one with %q", err, what)
	}
}

func TestAProgramThatNeedsTheMachineIsFound(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	err = checkStatic(shell)
	wantFault(t, err, "asks for an interpreter")
	wantFault(t, err, "of the machine, so it is not static")
	wantFault(t, err, "reading what it was built of")
}

func TestAProgramThatTellsWhereItWasBuiltIsFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() {}\n")
	write(t, filepath.Join(dir, "go.mod"), "module example.test/none\n")
	build := func(args ...string) string {
		file := filepath.Join(t.TempDir(), "none")
		command := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", file}, args...)...)
		command.Dir = dir
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return file
	}
	wantFault(t, checkStatic(build()), "was not built with -trimpath=true")
	if err := checkStatic(build("-trimpath")); err != nil {
		t.Error(err)
	}
}

func TestProgramsThatDifferAreFound(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	wantFault(t, checkEqual(a, b), "one at least")
	write(t, filepath.Join(a, "ingest"), "12")
	wantFault(t, checkEqual(a, b), "want the same programs")
	write(t, filepath.Join(b, "ingest"), "13")
	wantFault(t, checkEqual(a, b), "they differ")
	write(t, filepath.Join(b, "ingest"), "12")
	if err := checkEqual(a, b); err != nil {
		t.Error(err)
	}
}

func TestABillThatIsNotTheProgramsIsFound(t *testing.T) {
	t.Parallel()
	hash := []byte("a hash of thirty-two bytes, such")
	in := map[string]*debug.Module{"example.test/a": {Path: "example.test/a", Version: "v1.0.0", Sum: "h1:" + base64.StdEncoding.EncodeToString(hash)}}
	component := func(name, version string, hash []byte) cyclonedx.Component {
		hashes := []cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(hash)}}
		return cyclonedx.Component{Name: name, Version: version, Hashes: &hashes}
	}
	bill := func(components ...cyclonedx.Component) cyclonedx.BOM { return cyclonedx.BOM{Components: &components} }
	std := component("std", "go1.26.8", nil)
	if err := checkBill(bill(component("example.test/a", "v1.0.0", hash), std), "go1.26.8", in); err != nil {
		t.Error(err)
	}
	for what, other := range map[string]cyclonedx.BOM{
		"it lists no components":                           {},
		"does not name example.test/a":                     bill(std),
		"does not name Go's standard library":              bill(component("example.test/a", "v1.0.0", hash)),
		"is go1.25.0 there and go1.26.8 in the program":    bill(component("std", "go1.25.0", nil)),
		"example.test/a is v1.0.1 there and v1.0.0 in the": bill(component("example.test/a", "v1.0.1", hash), std),
		"example.test/a v1.0.0 has not the hash h1:":       bill(component("example.test/a", "v1.0.0", hash[1:]), std),
		"example.test/b is not in the program":             bill(component("example.test/a", "v1.0.0", hash), component("example.test/b", "v1.0.0", hash), std),
	} {
		wantFault(t, checkBill(other, "go1.26.8", in), what)
	}
}

func TestAProgramOfAnOlderGoModIsFound(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "go.mod")
	write(t, file, "module example.test/m\n\ngo 1.26.0\n\nrequire example.test/a v1.0.1\n")
	required, err := requirements(file)
	if err != nil || !maps.Equal(required, map[string]string{"example.test/a": "v1.0.1"}) {
		t.Fatalf("requirements are %v (%v)", required, err)
	}
	in := map[string]*debug.Module{"example.test/a": {Path: "example.test/a", Version: "v1.0.0"}}
	wantFault(t, checkRequired(in, required), `has example.test/a v1.0.0, and go.mod asks for "v1.0.1"`)
	in["example.test/a"].Version = "v1.0.1"
	if err := checkRequired(in, required); err != nil {
		t.Error(err)
	}
}

func TestALicenceThatWasNotFoundToFitIsRefused(t *testing.T) {
	t.Parallel()
	of := func(names ...string) []license {
		return []license{{module: &debug.Module{Path: "example.test/a", Version: "v1.0.0"}, packages: "example.test/a", names: names}}
	}
	wantFault(t, judge(of("MIT", "AGPL-3.0")), "example.test/a v1.0.0 is under AGPL-3.0")
	wantFault(t, judge(of()), "no licence that is known")
	if err := judge(of("MIT", "MPL-2.0")); err != nil {
		t.Error(err)
	}
}

func TestAPackageBelongsToTheDeepestModule(t *testing.T) {
	t.Parallel()
	in := map[string]*debug.Module{"example.test/a": {Path: "example.test/a"}, "example.test/a/b": {Path: "example.test/a/b"}}
	for pkg, want := range map[string]string{"example.test/a/b/c": "example.test/a/b", "example.test/a/bc": "example.test/a", "example.test/a": "example.test/a"} {
		if module := moduleOf(in, pkg); module == nil || module.Path != want {
			t.Errorf("%s belongs to %v, want %s", pkg, module, want)
		}
	}
	if module := moduleOf(in, "example.test/other"); module != nil {
		t.Errorf("a package of no module belongs to %v", module)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
