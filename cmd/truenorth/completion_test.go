package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
)

// shell runs a script in a shell with no start-up files, in a folder of its own. CI has all three shells.
func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := machinetest.Program(t, name, name)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	command.Dir = t.TempDir()
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + command.Dir, "TERM=dumb", "TRUENORTH=" + program(t)}
	if err := os.WriteFile(filepath.Join(command.Dir, "event.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output)
	}
	return string(output)
}

// completions are lines, and what must be and must not be among what they may go on with.
var completions = []struct {
	line    string
	with    []string
	without string
}{
	{"truenorth end", []string{"endpoint"}, "status"},
	{"truenorth endpoint ", []string{"check", "create", "rotate", "fill", "redeliver"}, "status"},
	{"truenorth endpoint rotate --", []string{"--start", "--finish", "--wait", "--json"}, "--probe"},
	{"truenorth reconcile cus", []string{"customers", "customer_seats"}, "orders"},
	{"truenorth reconcile customers or", []string{"orders", "organizations"}, "customers"},
	{"truenorth webhook sign --derivation st", []string{"standard"}, "legacy"},
	{"truenorth completion ", []string{"bash", "zsh", "fish"}, "status"},
	{"truenorth webhook sign ev", []string{"event.json"}, "status"},
}

// TestBashCompletes asks bash as a Tab does: by the command that `complete` was given, with the line so far.
func TestBashCompletes(t *testing.T) {
	t.Parallel()

	const tab = `
line=$1
source <("$TRUENORTH" completion bash)
eval "set -- $(complete -p truenorth)"
[[ ${*: -3:1} == -C && ${*: -1} == truenorth ]] || { complete -p truenorth; exit 1; }
export COMP_LINE=$line COMP_POINT=${#line}
eval "${*: -2:1} truenorth \"\${line##* }\" truenorth"
`
	for _, c := range completions {
		check(t, "bash", c.line, strings.Fields(shell(t, "bash", "--norc", "--noprofile", "-c", tab, "bash", c.line)), c.with, c.without)
	}
}

// TestFishCompletes asks fish itself what it would offer.
func TestFishCompletes(t *testing.T) {
	t.Parallel()

	for _, c := range completions {
		offered := shell(t, "fish", "--no-config", "-c", `"$TRUENORTH" completion fish | source; complete -C "$argv[1]"`, c.line)
		check(t, "fish", c.line, strings.Fields(offered), c.with, c.without)
	}
}

// TestZshTakesTheScript has zsh read it, since Tab itself needs a person's zsh.
func TestZshTakesTheScript(t *testing.T) {
	t.Parallel()

	const script = `
autoload -U compinit && compinit -u -D
source <("$TRUENORTH" completion zsh)
print -r -- "$_comps[truenorth]"
`
	if got := shell(t, "zsh", "-f", "-c", script); !strings.Contains(got, "_bash_complete") || !strings.Contains(got, program(t)) {
		t.Errorf("zsh completes truenorth by %q", got)
	}
}

func check(t *testing.T, shell, line string, offered, with []string, without string) {
	t.Helper()
	for _, word := range with {
		if !slices.Contains(offered, word) {
			t.Errorf("%s does not go on with %s after %q: %q", shell, word, line, offered)
		}
	}
	if slices.Contains(offered, without) {
		t.Errorf("%s goes on with %s after %q: %q", shell, without, line, offered)
	}
}

func TestServersSayInJSONWhereTheyAre(t *testing.T) {
	t.Parallel()

	d := newDesk(t)
	// As after an earlier run, of which dev has something to say.
	if _, err := d.store.Pool().Exec(t.Context(), `insert into polar.customer (id, doc, version_from) values (gen_random_uuid(), '{}', 'event')`); err != nil {
		t.Fatal(err)
	}
	ports := []string{machinetest.Address(t), machinetest.Address(t), machinetest.Address(t)}
	for _, c := range []struct {
		args    []string
		environ []string
		want    map[string]string
	}{
		{
			[]string{"fake-polar", "--addr", ports[0]},
			nil,
			map[string]string{"polar_api_url": "http://" + ports[0] + "/v1"},
		},
		{
			[]string{"dev", "--fake-addr", ports[0]},
			[]string{"INGEST_ADDR=" + ports[1], "WORKER_ADDR=" + ports[2]},
			map[string]string{
				"console_url": "http://" + ports[2] + "/", "openapi_url": "http://" + ports[2] + "/v1/openapi.json",
				"webhook_url": "http://" + ports[1] + "/webhooks/polar", "polar_api_url": "http://" + ports[0] + "/v1", "database_url": d.url,
			},
		},
	} {
		command := exec.CommandContext(t.Context(), program(t), append(c.args, "--json")...)
		command.Env = append(withoutOurs(os.Environ()), append(c.environ, "DATABASE_URL="+d.url)...)
		stdout, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		decoder := json.NewDecoder(bufio.NewReader(stdout))
		if err := decoder.Decode(&got); err != nil {
			t.Errorf("%s: %v", c.args[0], err)
		}
		for name, value := range c.want {
			if got[name] != value {
				t.Errorf("%s says that %s is %q, want %q", c.args[0], name, got[name], value)
			}
		}
		if secret, isFake := got["polar_webhook_secret"]; isFake {
			if !strings.HasPrefix(secret, "whsec_") {
				t.Errorf("%s says that the secret is %q", c.args[0], secret)
			}
			delete(got, "polar_webhook_secret")
		}
		if len(got) != len(c.want) {
			t.Errorf("%s says %v, want %v", c.args[0], got, c.want)
		}
		if err := command.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if decoder.More() {
			t.Errorf("%s prints more than one document", c.args[0])
		}
		if err := command.Wait(); err != nil {
			t.Errorf("%s ended with %v", c.args[0], err)
		}
	}
}
