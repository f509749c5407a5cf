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
	"maps"
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

// As opens the database of s again, as one of the roles that Migrate makes; as s itself where the server's user could make none.
func As(tb testing.TB, s *store.Store, role string) *store.Store {
	tb.Helper()
	var there bool
	if err := s.Pool().QueryRow(context.Background(), "select to_regrole($1) is not null", role).Scan(&there); err != nil {
		tb.Fatal(err)
	}
	if !there && os.Getenv("CI") != "" {
		tb.Fatalf("there is no role %s: the tests' Postgres has to let them make roles", role)
	}
	if !there {
		tb.Logf("there is no role %s: nothing is proved of what it may do", role)
		return s
	}
	return asServerUser(tb, s, map[string]string{"role": role}) // who may take any role
}

// Admin opens the database of s again as the server's user, who sees what everybody does in pg_stat_activity.
func Admin(tb testing.TB, s *store.Store) *store.Store {
	tb.Helper()
	return asServerUser(tb, s, nil)
}

func asServerUser(tb testing.TB, s *store.Store, parameters map[string]string) *store.Store {
	tb.Helper()
	config := s.Pool().Config()
	admin, err := pgxpool.ParseConfig(ServerURL(tb))
	if err != nil {
		tb.Fatal(err)
	}
	config.ConnConfig.User, config.ConnConfig.Password = admin.ConnConfig.User, admin.ConnConfig.Password
	maps.Copy(config.ConnConfig.RuntimeParams, parameters)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		tb.Fatal(err)
	}
	as := store.New(pool)
	tb.Cleanup(as.Close)
	return as
}

// Open is a Store on the database of a URL, as the programs open it, closed when the test ends.
func Open(tb testing.TB, databaseURL string) *store.Store {
	tb.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatalf("parsing %s: %v", databaseURL, err)
	}
	query := u.Query()
	query.Set("pool_max_conns", "10")
	u.RawQuery = query.Encode()
	s, err := store.Open(u.String(), "storetest")
	if err != nil {
		tb.Fatalf("opening the pool: %v", err)
	}
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
		// As whoever migrates a product's database; the roles are the server's, and outlive the test.
		TestRole: &pgtestdb.Role{Username: "truenorth_test", Password: "truenorth_test", Capabilities: "NOSUPERUSER NOCREATEDB CREATEROLE"},
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
	fmt.Fprintln(h, migrations.Grants)
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
