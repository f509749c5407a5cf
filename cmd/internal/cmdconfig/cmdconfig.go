// Package cmdconfig reads the environment: the one place where truenorth's programs do.
package cmdconfig

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Secret is a value that shows nowhere: not in a log, an error, a dump or JSON. Reveal gives it.
type Secret string

const hidden = "[hidden]"

// Reveal is the value itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string { return hidden }

// Format hides the value from every verb; without it, %d and the like would show it as a complaint.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the value from JSON and other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Database is what every program needs.
type Database struct {
	// URL is the connection URL of the product's Postgres: DATABASE_URL or DATABASE_URL_FILE.
	URL Secret `env:"DATABASE_URL"`
}

// Polar is how to reach Polar's API.
type Polar struct {
	// AccessToken is an organization access token: POLAR_ACCESS_TOKEN or POLAR_ACCESS_TOKEN_FILE.
	AccessToken Secret `env:"POLAR_ACCESS_TOKEN"`
	// APIURL is the base of the API.
	APIURL string `env:"POLAR_API_URL" envDefault:"https://api.polar.sh/v1"`
	// Version is sent as Polar-Version.
	Version string `env:"POLAR_VERSION" envDefault:"2026-10"`
	// RateLimit is requests a minute for all processes together; 0: none; unset: Polar's own, by APIURL.
	RateLimit *int `env:"POLAR_RATE_LIMIT" form:"requests a minute, or 0 for no limit"`
	// Timeout bounds one request, its answer included.
	Timeout time.Duration `env:"POLAR_TIMEOUT" envDefault:"15s" form:"a duration such as 15s"`
}

// RequestsPerMinute is RateLimit, or what Polar allows: 500 in production, 100 in the sandbox.
func (p Polar) RequestsPerMinute() int {
	switch {
	case p.RateLimit != nil:
		return *p.RateLimit
	case strings.Contains(p.APIURL, "sandbox"):
		return 100
	}
	return 500
}

func (p Polar) checkPolar() error {
	var faults []error
	if p.RateLimit != nil && *p.RateLimit < 0 {
		faults = append(faults, fmt.Errorf("POLAR_RATE_LIMIT is %d: give requests a minute, or 0 for no limit", *p.RateLimit))
	}
	if p.Timeout <= 0 {
		faults = append(faults, fmt.Errorf("POLAR_TIMEOUT is %s: give a duration above zero, such as 15s", p.Timeout))
	}
	return errors.Join(faults...)
}

func (c Worker) checkRecoveryTime() error {
	const shortest = 100 * time.Millisecond // signs of life come five times as often
	if c.RecoveryTime < shortest {
		return fmt.Errorf("RECOVERY_TIME is %s: give %s at least, such as 15s", c.RecoveryTime, shortest)
	}
	return nil
}

// Ingest is the environment of cmd/ingest.
type Ingest struct {
	Database
	// WebhookSecrets are the secrets of Polar's endpoint, old and new while one is rotated: POLAR_WEBHOOK_SECRETS,
	// comma separated, or POLAR_WEBHOOK_SECRETS_FILE, one a line.
	WebhookSecrets []Secret `env:"-"`
	// Addr is where to listen.
	Addr string `env:"INGEST_ADDR" envDefault:":8080"`
	// MetricsAddr is where /metrics listens, which has no place beside what the internet reaches; empty: nowhere.
	MetricsAddr string `env:"INGEST_METRICS_ADDR"`
	Tracing
	Log
}

// RevealWebhookSecrets gives the secrets themselves.
func (c Ingest) RevealWebhookSecrets() []string {
	secrets := make([]string, len(c.WebhookSecrets))
	for i, s := range c.WebhookSecrets {
		secrets[i] = s.Reveal()
	}
	return secrets
}

// Worker is the environment of cmd/worker.
type Worker struct {
	Database
	Polar
	// Addr is where the console and the probes listen.
	Addr string `env:"WORKER_ADDR" envDefault:"127.0.0.1:8081"`
	// ConsolePassword opens the console to others than loopback: CONSOLE_PASSWORD or CONSOLE_PASSWORD_FILE.
	ConsolePassword Secret `env:"CONSOLE_PASSWORD"`
	// ReaderPassword opens it for reading only: CONSOLE_READER_PASSWORD or CONSOLE_READER_PASSWORD_FILE.
	ReaderPassword Secret `env:"CONSOLE_READER_PASSWORD"`
	// TrustedProxies are the proxies in front of the console whose X-Forwarded-For and X-Forwarded-Host count.
	TrustedProxies []netip.Prefix `env:"-"`
	// ExtraFields are top-level fields of a checkout that pass though this release does not know them.
	ExtraFields []string `env:"CHECKOUT_EXTRA_FIELDS"`
	// RecoveryTime is after how long without a sign of life a worker counts as dead, so that others take up its work.
	RecoveryTime time.Duration `env:"RECOVERY_TIME" envDefault:"15s" form:"a duration such as 15s"`
	Reconcile
	Retention
	Tracing
	Log
}

// Log is how to log.
type Log struct {
	// Level is debug, info, warn or error.
	Level slog.Level `env:"LOG_LEVEL" envDefault:"info" form:"debug, info, warn or error"`
}

// Operator is the environment of cmd/truenorth: everything, and nothing required.
type Operator struct {
	Database
	Polar
	WebhookSecrets []Secret `env:"-"`
	IngestAddr     string   `env:"INGEST_ADDR"           envDefault:"127.0.0.1:8080"`
	WorkerAddr     string   `env:"WORKER_ADDR"           envDefault:"127.0.0.1:8081"`
	ExtraFields    []string `env:"CHECKOUT_EXTRA_FIELDS"`
	Reconcile
	Retention
	Tracing
	Log
}

// webhookSecretsName is the only list of secrets: commas divide it in a variable, lines in a file.
const webhookSecretsName = "POLAR_WEBHOOK_SECRETS" //nolint:gosec // the name of a variable, not a secret

// secretNames are the variables that may come from a file instead.
var secretNames = []string{"DATABASE_URL", "POLAR_ACCESS_TOKEN", "CONSOLE_PASSWORD", "CONSOLE_READER_PASSWORD"}

// ReadIngest reads the environment of cmd/ingest. Errors name the variable.
func ReadIngest(environ []string) (Ingest, error) {
	var c Ingest
	secrets, err := read(environ, &c)
	if err != nil {
		return Ingest{}, err
	}
	c.WebhookSecrets = secrets
	return c, errors.Join(required("DATABASE_URL", c.URL), c.CheckTracing())
}

// ReadWorker reads the environment of cmd/worker. Errors name the variable.
func ReadWorker(environ []string) (Worker, error) {
	var c Worker
	if _, err := read(environ, &c); err != nil {
		return Worker{}, err
	}
	var err error
	c.TrustedProxies, err = trustedProxies(env.ToMap(environ)[trustedProxiesName])
	return c, errors.Join(required("DATABASE_URL", c.URL), required("POLAR_ACCESS_TOKEN", c.AccessToken), c.checkPolar(), c.checkRecoveryTime(),
		c.checkReconcile(), c.checkRetention(), c.checkConsole(), c.CheckTracing(), err)
}

func (c Worker) checkConsole() error {
	switch {
	case len(c.TrustedProxies) > 0 && c.ConsolePassword == "":
		return errors.New("CONSOLE_TRUSTED_PROXIES is set without CONSOLE_PASSWORD: set both, or come from this machine without a proxy")
	case c.ReaderPassword == "":
		return nil
	case c.ConsolePassword == "":
		return errors.New("CONSOLE_READER_PASSWORD is set without CONSOLE_PASSWORD: set both, or the console answers on loopback only")
	case c.ReaderPassword == c.ConsolePassword:
		return errors.New("CONSOLE_READER_PASSWORD and CONSOLE_PASSWORD are the same: readers would be operators")
	}
	return nil
}

const trustedProxiesName = "CONSOLE_TRUSTED_PROXIES"

// trustedProxies reads addresses and networks, comma separated.
func trustedProxies(text string) (proxies []netip.Prefix, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if addr, err := netip.ParseAddr(part); err == nil {
			addr = addr.Unmap()
			proxies = append(proxies, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		network, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("%s has %q: give addresses or networks such as 10.0.0.0/8, comma separated", trustedProxiesName, part)
		}
		proxies = append(proxies, network.Masked())
	}
	return proxies, nil
}

// ReadOperator reads the environment of cmd/truenorth. Errors name the variable.
func ReadOperator(environ []string) (Operator, error) {
	var c Operator
	secrets, err := read(environ, &c)
	if err != nil {
		return Operator{}, err
	}
	c.WebhookSecrets = secrets
	return c, errors.Join(c.checkPolar(), c.checkReconcile(), c.checkRetention())
}

func required(name string, value Secret) error {
	if strings.TrimSpace(value.Reveal()) == "" {
		return fmt.Errorf("%s is not set: set it, or %s_FILE to a file that holds it", name, name)
	}
	return nil
}

func read(environ []string, into any) (webhookSecrets []Secret, err error) {
	environment := env.ToMap(environ)
	for _, name := range secretNames {
		text, found, err := fromFile(environment, name)
		if err != nil {
			return nil, err
		}
		if !found {
			text = environment[name]
		}
		environment[name] = strings.TrimSpace(text)
	}
	text, found, err := fromFile(environment, webhookSecretsName)
	switch {
	case err != nil:
		return nil, err
	case found:
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				webhookSecrets = append(webhookSecrets, Secret(line))
			}
		}
	case environment[webhookSecretsName] != "":
		for part := range strings.SplitSeq(environment[webhookSecretsName], ",") {
			webhookSecrets = append(webhookSecrets, Secret(strings.TrimSpace(part)))
		}
	}
	if err := env.ParseWithOptions(into, env.Options{Environment: environment}); err != nil {
		return nil, namingVariables(err, reflect.TypeOf(into).Elem(), environment)
	}
	return webhookSecrets, nil
}

// namingVariables says which variable is wrong, and what it should be, where the library names a field of ours.
func namingVariables(err error, config reflect.Type, environment map[string]string) error {
	all, ok := errors.AsType[env.AggregateError](err)
	if !ok {
		return fmt.Errorf("reading the environment: %w", err)
	}
	var named []error
	for _, err := range all.Errors {
		if fault, ok := errors.AsType[env.ParseError](err); ok {
			if field, ok := config.FieldByName(fault.Name); ok {
				name := field.Tag.Get("env")
				err = fmt.Errorf("%s is %q: give %s", name, environment[name], field.Tag.Get("form"))
			}
		}
		named = append(named, err)
	}
	return errors.Join(named...)
}

// fromFile reads the file that NAME_FILE names, if it does.
func fromFile(environment map[string]string, name string) (text string, found bool, err error) {
	path := environment[name+"_FILE"]
	if path == "" {
		return "", false, nil
	}
	if environment[name] != "" {
		return "", false, fmt.Errorf("%s and %s_FILE are both set: set one of them", name, name)
	}
	content, err := os.ReadFile(path) //nolint:gosec // the operator names it, as with any secret that is mounted
	if err != nil {
		return "", false, fmt.Errorf("%s_FILE: %w", name, err)
	}
	return string(content), true, nil
}
