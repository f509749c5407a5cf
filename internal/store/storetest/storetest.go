// Package storetest gives each test a migrated database of its own on a real Postgres.
package storetest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx", which pgtestdb uses
	"github.com/peterldowns/pgtestdb"

	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/migrations"
)

// EnvURL names the variable with the URL of a running Postgres whose user may create databases. Without it, the
// first test of a package starts one.
const EnvURL = "TRUENORTH_TEST_DATABASE_URL"

var server struct {
	once sync.Once
	url  string
	err  error
	stop func() error
}

// Main runs a package's tests and stops the Postgres that they started, if any. For TestMain.
func Main(m *testing.M) int {
	code := m.Run()
	if server.stop != nil {
		if err := server.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "storetest:", err)
			return max(code, 1)
		}
	}
	return code
}

// ServerURL is the URL of the Postgres that this package's tests use. A test without Postgres fails; it never skips.
func ServerURL(tb testing.TB) string {
	tb.Helper()
	server.once.Do(func() {
		if server.url = os.Getenv(EnvURL); server.url != "" {
			return
		}
		var pg *embeddedpg.Server
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if pg, server.err = embeddedpg.Start(ctx, embeddedpg.Options{Settings: map[string]string{"max_connections": "300"}}); server.err == nil {
			server.url, server.stop = pg.URL(), pg.Stop
		}
	})
	if server.err != nil {
		tb.Fatalf("these tests need Postgres: set %s, or install its server programs: %v", EnvURL, server.err)
	}
	return server.url
}

// URL is the connection URL of a new migrated database, dropped when the test succeeds.
func URL(tb testing.TB) string {
	tb.Helper()
	return custom(tb, migrator{}).URL()
}

// EmptyURL is the connection URL of a new database with nothing in it.
func EmptyURL(tb testing.TB) string {
	tb.Helper()
	return custom(tb, pgtestdb.NoopMigrator{}).URL()
}

// New is a Store on a new migrated database.
func New(tb testing.TB) *store.Store {
	tb.Helper()
	return Open(tb, URL(tb))
}

// Open is a Store on the database of a URL, closed when the test ends.
func Open(tb testing.TB, databaseURL string) *store.Store {
	tb.Helper()
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		tb.Fatalf("parsing %s: %v", databaseURL, err)
	}
	config.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		tb.Fatalf("opening the pool: %v", err)
	}
	s := store.New(pool)
	tb.Cleanup(s.Close)
	return s
}

func custom(tb testing.TB, m pgtestdb.Migrator) *pgtestdb.Config {
	tb.Helper()
	u, err := url.Parse(ServerURL(tb))
	if err != nil {
		tb.Fatalf("parsing %s: %v", EnvURL, err)
	}
	password, _ := u.User.Password()
	return pgtestdb.Custom(tb, pgtestdb.Config{
		DriverName: "pgx", Host: u.Hostname(), Port: u.Port(), User: u.User.Username(), Password: password,
		Database: strings.TrimPrefix(u.Path, "/"), Options: "sslmode=disable", ForceTerminateConnections: true,
	}, m)
}

// migrator makes the template that each test's database is a copy of.
type migrator struct{}

// Hash changes with the migrations, so that a changed schema makes a new template.
func (migrator) Hash() (string, error) {
	h := sha256.New()
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\n%s\n", name, text)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

func (migrator) Migrate(ctx context.Context, _ *sql.DB, config pgtestdb.Config) error {
	s, err := store.Open(config.URL(), "storetest")
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Migrate(ctx, slog.New(slog.DiscardHandler))
	return err
}
