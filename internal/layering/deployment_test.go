package layering

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/go-yaml"
)

// variable is one of the programs' environment variables.
type variable struct {
	services []string // of docker-compose.yml
	byHand   bool     // has no default that serves, so .env must name it
	value    string   // the default as .env.example shows it
}

// environment is the programs' contract.
var environment = map[string]variable{
	"DATABASE_URL":          {services: []string{"ingest", "migrate", "worker"}},
	"POLAR_WEBHOOK_SECRETS": {services: []string{"ingest"}, byHand: true},
	"INGEST_ADDR":           {services: []string{"ingest"}},
	"INGEST_METRICS_ADDR":   {services: []string{"ingest"}},
	"POLAR_ACCESS_TOKEN":    {services: []string{"worker"}, byHand: true},
	"POLAR_API_URL":         {services: []string{"worker"}, value: "https://api.polar.sh/v1"},
	"POLAR_VERSION":         {services: []string{"worker"}, value: "2026-10"},
	"POLAR_RATE_LIMIT":      {services: []string{"worker"}, value: "500"},
	"POLAR_TIMEOUT":         {services: []string{"worker"}, value: "15s"},
	"RECOVERY_TIME":         {services: []string{"worker"}, value: "15s"},
	"RECONCILE_INTERVAL":    {services: []string{"worker"}, value: "15m"},
	"EVENT_RETENTION":       {services: []string{"worker"}, value: "2160h"},
	"INGEST_PUBLIC_URL":     {services: []string{"worker"}},

	"POLAR_REENABLE_ENDPOINT": {services: []string{"worker"}, value: "false"},
	"CHECKOUT_EXTRA_FIELDS":   {services: []string{"worker"}},
	"CONSOLE_PASSWORD":        {services: []string{"worker"}, byHand: true},
	"CONSOLE_READER_PASSWORD": {services: []string{"worker"}},
	"CONSOLE_TRUSTED_PROXIES": {services: []string{"worker"}},
	"WORKER_ADDR":             {services: []string{"worker"}},

	"OTEL_EXPORTER_OTLP_ENDPOINT": {services: []string{"ingest", "worker"}},
	"OTEL_EXPORTER_OTLP_HEADERS":  {services: []string{"ingest", "worker"}},
	"OTEL_EXPORTER_OTLP_PROTOCOL": {services: []string{"ingest", "worker"}, value: "http/protobuf"},
	"OTEL_RESOURCE_ATTRIBUTES":    {services: []string{"ingest", "worker"}},
	"OTEL_TRACES_SAMPLER":         {services: []string{"ingest", "worker"}, value: "parentbased_always_on"},
	"OTEL_TRACES_SAMPLER_ARG":     {services: []string{"ingest", "worker"}},
}

// setByCompose are the variables whose value is fixed in docker-compose.yml.
var setByCompose = []string{"DATABASE_URL", "INGEST_ADDR", "INGEST_METRICS_ADDR", "WORKER_ADDR"}

type composeFile struct {
	Services map[string]composeService
	Volumes  map[string]any
}

type composeService struct {
	Image       string
	Build       string
	Command     []string
	Environment map[string]*string
	Ports       []string
	Volumes     []string
	Restart     string
	ReadOnly    bool     `yaml:"read_only"`
	SecurityOpt []string `yaml:"security_opt"`
	CapDrop     []string `yaml:"cap_drop"`
	DependsOn   map[string]struct {
		Condition string
	} `yaml:"depends_on"`
	Healthcheck *struct {
		Test []string
	}
}

func readCompose(t *testing.T) composeFile {
	t.Helper()

	var file composeFile
	if err := yaml.Unmarshal([]byte(readFile(t, "docker-compose.yml")), &file); err != nil {
		t.Fatal(err)
	}

	return file
}

func TestComposeRunsEachProgramInItsOrder(t *testing.T) {
	t.Parallel()

	services := readCompose(t).Services
	if got, want := slices.Sorted(maps.Keys(services)), []string{"ingest", "migrate", "postgres", "worker"}; !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}

	for name, want := range map[string]struct{ command, after, condition string }{
		"migrate": {"/usr/local/bin/truenorth migrate", "postgres", "service_healthy"},
		"ingest":  {"/usr/local/bin/ingest", "migrate", "service_completed_successfully"},
		"worker":  {"/usr/local/bin/worker", "migrate", "service_completed_successfully"},
	} {
		service := services[name]
		if got := strings.Join(service.Command, " "); got != want.command {
			t.Errorf("%s runs %q, want %q", name, got, want.command)
		}

		if got := service.DependsOn[want.after].Condition; got != want.condition {
			t.Errorf("%s waits for %s to be %q, want %q", name, want.after, got, want.condition)
		}

		if service.Build != "." {
			t.Errorf("%s is built from %q, want this repository", name, service.Build)
		}
	}

	postgres := services["postgres"]
	if postgres.Healthcheck == nil || !slices.Contains(postgres.Healthcheck.Test, "pg_isready") {
		t.Error("postgres has no check of its health, which migrate waits for")
	}

	for _, name := range []string{"ingest", "worker"} {
		command := "/usr/local/bin/" + name
		if check := services[name].Healthcheck; check == nil || !slices.Equal(check.Test, []string{"CMD", command, "--healthy"}) {
			t.Errorf("%s is not asked whether it lives, without a shell: %v", name, check)
		}
	}

	volume, _, _ := strings.Cut(strings.Join(postgres.Volumes, ""), ":")
	if _, declared := readCompose(t).Volumes[volume]; !declared {
		t.Errorf("postgres keeps its data in %q, which is no volume", volume)
	}
}

func TestComposeServicesAreConfined(t *testing.T) {
	t.Parallel()

	for name, service := range readCompose(t).Services {
		if !service.ReadOnly {
			t.Errorf("%s may write its own files", name)
		}

		if !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges", name)
		}

		if name != "postgres" && !slices.Contains(service.CapDrop, "ALL") {
			t.Errorf("%s keeps capabilities", name)
		}

		for _, port := range service.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s to other hosts", name, port)
			}
		}
	}
}

func TestComposeGivesEachServiceItsVariables(t *testing.T) {
	t.Parallel()

	services := readCompose(t).Services

	for _, service := range []string{"ingest", "migrate", "worker"} {
		var want []string

		for name, v := range environment {
			if slices.Contains(v.services, service) {
				want = append(want, name)
			}
		}

		slices.Sort(want)

		if got := slices.Sorted(maps.Keys(services[service].Environment)); !slices.Equal(got, want) {
			t.Errorf("%s gets %v, want %v", service, got, want)
		}

		for name, value := range services[service].Environment {
			fixed := slices.Contains(setByCompose, name)

			switch {
			case fixed && value == nil:
				t.Errorf("%s: %s has no value", service, name)
			case !fixed && environment[name].byHand && (value == nil || !strings.HasPrefix(*value, "${"+name+":?")):
				t.Errorf("%s: %s is not demanded from .env", service, name)
			case !fixed && !environment[name].byHand && value != nil:
				t.Errorf("%s: %s has a value here, so .env cannot leave it out", service, name)
			}
		}
	}
}

func TestEnvExampleNamesEveryVariableWithItsDefault(t *testing.T) {
	t.Parallel()

	shown := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`).FindAllStringSubmatch(readFile(t, ".env.example"), -1) {
		shown[match[1]] = match[2]
	}

	want := map[string]string{"POSTGRES_PASSWORD": ""}

	for name, v := range environment {
		if !slices.Contains(setByCompose, name) {
			want[name] = v.value
		}
	}

	if !maps.Equal(shown, want) {
		t.Errorf(".env.example shows %v, want %v", shown, want)
	}
}

func TestImageHoldsTheProgramsThatComposeRuns(t *testing.T) {
	t.Parallel()

	dockerfile := readFile(t, "Dockerfile")

	build, final, _ := strings.Cut(dockerfile, "\nFROM scratch\n")
	for _, part := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "\nUSER 65532:65532\n", "/src/bin/ingest /src/bin/worker /src/bin/truenorth /usr/local/bin/",
		"/src/LICENSE /src/bin/NOTICES.txt",
	} {
		if !strings.Contains(final, part) {
			t.Errorf("the image has no %q", part)
		}
	}

	if strings.Contains(final, "\nRUN ") {
		t.Error("the image has something to run commands with")
	}

	// One place says how the programs are built, and it is no second one here.
	if !strings.Contains(build, "\nRUN make sbom ") || strings.Contains(build, "go build") {
		t.Error("the Dockerfile does not build as make does")
	}

	if makefile := readFile(t, "Makefile"); !strings.Contains(makefile, "sbom: build ") || !strings.Contains(makefile, "CGO_ENABLED=0 go build -trimpath -ldflags='$(LDFLAGS)' -o bin/") {
		t.Error("make does not build static programs into bin/")
	}
}

// TestWhatNpmFetchesIsPinned reads the lock files of the tests and examples.
func TestWhatNpmFetchesIsPinned(t *testing.T) {
	t.Parallel()

	locks := 0

	err := filepath.WalkDir(filepath.Join("..", ".."), func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if name := entry.Name(); entry.IsDir() && (name == "node_modules" || name != ".." && strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}

		if entry.Name() != "package.json" {
			return nil
		}

		locks++

		text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "package-lock.json"))
		if err != nil {
			return err
		}

		var lock struct {
			Packages map[string]struct{ Version, Resolved, Integrity string }
		}
		if err := json.Unmarshal(text, &lock); err != nil {
			return err
		}

		for name, p := range lock.Packages {
			if name == "" {
				continue // the project itself
			}

			if p.Version == "" || !strings.HasPrefix(p.Integrity, "sha512-") {
				t.Errorf("%s: %s has no version or no sha512", file, name)
			}

			if p.Resolved != "" {
				t.Errorf("%s: %s comes from %s, and not from whichever registry the machine has", file, name, p.Resolved)
			}
		}

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	if locks == 0 {
		t.Error("no package.json was found")
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()

	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}

	return string(text)
}
