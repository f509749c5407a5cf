package cmdconfig_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
)

const (
	databaseURL = "postgres://app:pg_password_1@db/app"
	token       = "polar_oat_token_2"
	password    = "console_password_3"
	oldSecret   = "whsec_old_secret_4"
	newSecret   = "whsec_new_secret_5,with_a_comma"
)

// file writes a file of a secret.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func reveal(secrets []cmdconfig.Secret) []string {
	var all []string
	for _, s := range secrets {
		all = append(all, s.Reveal())
	}
	return all
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	t.Parallel()

	ingest, err := cmdconfig.ReadIngest([]string{"DATABASE_URL=" + databaseURL})
	if err != nil {
		t.Fatal(err)
	}
	if ingest.Addr != ":8080" || ingest.Level != slog.LevelInfo || len(ingest.WebhookSecrets) != 0 {
		t.Errorf("ingest: %+v", ingest)
	}

	worker, err := cmdconfig.ReadWorker([]string{"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token})
	if err != nil {
		t.Fatal(err)
	}
	if worker.Addr != "127.0.0.1:8081" || worker.APIURL != "https://api.polar.sh/v1" || worker.Version != "2026-10" ||
		worker.RateLimit != nil || worker.ConsolePassword.Reveal() != "" || worker.ExtraFields != nil || worker.Level != slog.LevelInfo {
		t.Errorf("worker: %+v", worker)
	}

	operator, err := cmdconfig.ReadOperator(nil)
	if err != nil {
		t.Fatal(err)
	}
	if operator.URL.Reveal() != "" || operator.APIURL != "https://api.polar.sh/v1" || operator.Version != "2026-10" {
		t.Errorf("operator: %+v", operator)
	}
}

func TestAnEmptyVariableIsOneThatIsNotSet(t *testing.T) {
	t.Parallel()

	environ := []string{
		"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token, "POLAR_API_URL=", "POLAR_VERSION=", "POLAR_RATE_LIMIT=",
		"WORKER_ADDR=", "LOG_LEVEL=", "CHECKOUT_EXTRA_FIELDS=", "CONSOLE_PASSWORD=", "DATABASE_URL_FILE=", "POLAR_ACCESS_TOKEN_FILE=",
	}
	got, err := cmdconfig.ReadWorker(environ)
	if err != nil {
		t.Fatal(err)
	}
	want, err := cmdconfig.ReadWorker(environ[:2])
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with empty variables: %+v, want as without them: %+v", got, want)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	t.Parallel()

	environ := []string{
		"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token, "POLAR_API_URL=https://sandbox-api.polar.sh/v1",
		"POLAR_VERSION=2027-01", "POLAR_RATE_LIMIT=42", "CONSOLE_PASSWORD=" + password, "CHECKOUT_EXTRA_FIELDS=a,b",
		"POLAR_WEBHOOK_SECRETS=" + oldSecret + " , b", "INGEST_ADDR=:1", "WORKER_ADDR=:2", "LOG_LEVEL=debug", "PATH=/bin", "ODD",
	}
	ingest, err := cmdconfig.ReadIngest(environ)
	if err != nil {
		t.Fatal(err)
	}
	if ingest.URL.Reveal() != databaseURL || ingest.Addr != ":1" || ingest.Level != slog.LevelDebug ||
		!reflect.DeepEqual(ingest.RevealWebhookSecrets(), []string{oldSecret, "b"}) {
		t.Errorf("ingest: %+v with secrets %q", ingest, ingest.RevealWebhookSecrets())
	}
	worker, err := cmdconfig.ReadWorker(environ)
	if err != nil {
		t.Fatal(err)
	}
	if worker.URL.Reveal() != databaseURL || worker.AccessToken.Reveal() != token || worker.APIURL != "https://sandbox-api.polar.sh/v1" ||
		worker.Version != "2027-01" || worker.RequestsPerMinute() != 42 || worker.ConsolePassword.Reveal() != password ||
		!reflect.DeepEqual(worker.ExtraFields, []string{"a", "b"}) || worker.Addr != ":2" || worker.Level != slog.LevelDebug {
		t.Errorf("worker: %+v", worker)
	}
	operator, err := cmdconfig.ReadOperator(environ)
	if err != nil {
		t.Fatal(err)
	}
	if operator.URL.Reveal() != databaseURL || operator.AccessToken.Reveal() != token || operator.IngestAddr != ":1" || operator.WorkerAddr != ":2" ||
		!reflect.DeepEqual(reveal(operator.WebhookSecrets), []string{oldSecret, "b"}) || !reflect.DeepEqual(operator.ExtraFields, []string{"a", "b"}) {
		t.Errorf("operator: %+v", operator)
	}
}

func TestRateLimitDefaultsToWhatPolarAllows(t *testing.T) {
	t.Parallel()

	zero, some := 0, 7
	for _, c := range []struct {
		polar cmdconfig.Polar
		want  int
	}{
		{cmdconfig.Polar{APIURL: "https://api.polar.sh/v1"}, 500},
		{cmdconfig.Polar{APIURL: "https://sandbox-api.polar.sh/v1"}, 100},
		{cmdconfig.Polar{APIURL: "https://sandbox-api.polar.sh/v1", RateLimit: &zero}, 0},
		{cmdconfig.Polar{APIURL: "https://api.polar.sh/v1", RateLimit: &some}, 7},
	} {
		if got := c.polar.RequestsPerMinute(); got != c.want {
			t.Errorf("%s allows %d requests a minute, want %d", c.polar.APIURL, got, c.want)
		}
	}
}

func TestSecretsMayComeFromFiles(t *testing.T) {
	t.Parallel()

	environ := []string{
		"DATABASE_URL_FILE=" + file(t, databaseURL+"\n"), "POLAR_ACCESS_TOKEN_FILE=" + file(t, " "+token+"\r\n"),
		"CONSOLE_PASSWORD_FILE=" + file(t, password), "POLAR_WEBHOOK_SECRETS_FILE=" + file(t, "\n"+oldSecret+"\r\n\n  "+newSecret+"  "),
		"POLAR_WEBHOOK_SECRETS=",
	}
	worker, err := cmdconfig.ReadWorker(environ)
	if err != nil {
		t.Fatal(err)
	}
	if worker.URL.Reveal() != databaseURL || worker.AccessToken.Reveal() != token || worker.ConsolePassword.Reveal() != password {
		t.Errorf("worker reads %q, %q and %q", worker.URL.Reveal(), worker.AccessToken.Reveal(), worker.ConsolePassword.Reveal())
	}
	ingest, err := cmdconfig.ReadIngest(environ)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{oldSecret, newSecret}; !reflect.DeepEqual(ingest.RevealWebhookSecrets(), want) {
		t.Errorf("secrets of a file with one a line: %q, want %q", ingest.RevealWebhookSecrets(), want)
	}
}

// read is one of the three readers.
func read(program string, environ []string) error {
	var err error
	switch program {
	case "ingest":
		_, err = cmdconfig.ReadIngest(environ)
	case "worker":
		_, err = cmdconfig.ReadWorker(environ)
	default:
		_, err = cmdconfig.ReadOperator(environ)
	}
	return err
}

func TestErrorsNameTheVariable(t *testing.T) {
	t.Parallel()

	full := []string{"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token}
	with := func(more ...string) []string { return append(append([]string{}, full...), more...) }
	absent := filepath.Join(t.TempDir(), "absent")
	for _, c := range []struct {
		program string
		environ []string
		names   []string
	}{
		{"ingest", nil, []string{"DATABASE_URL is not set", "DATABASE_URL_FILE"}},
		{"ingest", []string{"DATABASE_URL= "}, []string{"DATABASE_URL is not set"}},
		{"ingest", []string{"DATABASE_URL_FILE=" + file(t, "\n")}, []string{"DATABASE_URL is not set"}},
		{"worker", nil, []string{"DATABASE_URL is not set", "POLAR_ACCESS_TOKEN is not set", "POLAR_ACCESS_TOKEN_FILE"}},
		{"worker", full[:1], []string{"POLAR_ACCESS_TOKEN is not set"}},
		{"worker", full[1:], []string{"DATABASE_URL is not set"}},
		{"worker", with("POLAR_RATE_LIMIT=many"), []string{"POLAR_RATE_LIMIT", `"many"`, "requests a minute"}},
		{"worker", with("POLAR_RATE_LIMIT=-1"), []string{"POLAR_RATE_LIMIT", "-1"}},
		{"worker", with("POLAR_RATE_LIMIT=1e3", "LOG_LEVEL=loud"), []string{"POLAR_RATE_LIMIT", "LOG_LEVEL", `"loud"`, "debug, info, warn or error"}},
		{"truenorth", with("POLAR_RATE_LIMIT=-1"), []string{"POLAR_RATE_LIMIT"}},
		{"ingest", with("LOG_LEVEL=loud"), []string{"LOG_LEVEL"}},
		{"ingest", []string{"DATABASE_URL_FILE=" + absent}, []string{"DATABASE_URL_FILE", absent}},
		{"worker", append(full[:1:1], "POLAR_ACCESS_TOKEN_FILE="+absent), []string{"POLAR_ACCESS_TOKEN_FILE", absent}},
		{"ingest", with("POLAR_WEBHOOK_SECRETS_FILE=" + absent), []string{"POLAR_WEBHOOK_SECRETS_FILE", absent}},
		{"ingest", with("DATABASE_URL_FILE=" + absent), []string{"DATABASE_URL and DATABASE_URL_FILE"}},
		{"worker", with("POLAR_ACCESS_TOKEN_FILE=" + absent), []string{"POLAR_ACCESS_TOKEN and POLAR_ACCESS_TOKEN_FILE"}},
		{"worker", with("CONSOLE_PASSWORD="+password, "CONSOLE_PASSWORD_FILE="+absent), []string{"CONSOLE_PASSWORD and CONSOLE_PASSWORD_FILE"}},
		{"ingest", with("POLAR_WEBHOOK_SECRETS="+oldSecret, "POLAR_WEBHOOK_SECRETS_FILE="+absent), []string{"POLAR_WEBHOOK_SECRETS and POLAR_WEBHOOK_SECRETS_FILE"}},
	} {
		err := read(c.program, c.environ)
		if err == nil {
			t.Errorf("%s takes %q, want an error that names %q", c.program, c.environ, c.names)
			continue
		}
		for _, name := range c.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s says %q of %q, want it to name %s", c.program, err, c.environ, name)
			}
		}
		for _, secret := range []string{"pg_password_1", token, password, oldSecret} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s shows a secret in its error %q", c.program, err)
			}
		}
	}
}

func TestSecretsShowNowhere(t *testing.T) {
	t.Parallel()

	environ := []string{
		"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token, "CONSOLE_PASSWORD=" + password,
		"POLAR_WEBHOOK_SECRETS=" + oldSecret + ",whsec_other_secret_5",
	}
	ingest, err := cmdconfig.ReadIngest(environ)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := cmdconfig.ReadWorker(environ)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := cmdconfig.ReadOperator(environ)
	if err != nil {
		t.Fatal(err)
	}

	// In plain text, in hexadecimal, and as a list of bytes.
	var hidden []string
	for _, secret := range []string{"pg_password_1", token, password, oldSecret, "whsec_other_secret_5"} {
		hidden = append(hidden, secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]"))
	}
	check := func(how, shown string) {
		for _, secret := range hidden {
			if strings.Contains(shown, secret) {
				t.Errorf("%s shows a secret: %s", how, shown)
			}
		}
	}
	for _, value := range []any{ingest, &ingest, worker, &worker, operator, &operator, ingest.WebhookSecrets, worker.AccessToken, &worker.AccessToken, map[string]any{"a": worker}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%20.5v", "%!"} {
			check(fmt.Sprintf("%T with %s", value, verb), fmt.Sprintf(verb, value))
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("JSON of %T", value), string(encoded))
		var log bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
			slog.New(handler).Info("x", slog.Any("config", value))
		}
		check(fmt.Sprintf("a log of %T", value), log.String())
	}
	check("an error", fmt.Errorf("connecting to %s: %w", worker.URL, os.ErrClosed).Error())
	if got := fmt.Sprint(worker.AccessToken); got != "[hidden]" {
		t.Errorf("a secret prints as %q, want [hidden]", got)
	}
}
