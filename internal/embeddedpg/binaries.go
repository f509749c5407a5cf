package embeddedpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// oldestMajor is the oldest PostgreSQL that is used: River is tested from this version on.
const oldestMajor = 14

// fetchedVersion is the PostgreSQL that is fetched where the machine has none.
const fetchedVersion = embeddedpostgres.V18

// installHint ends every error about missing binaries.
const installHint = "install the PostgreSQL server (Debian, Ubuntu: apt-get install postgresql; " +
	"Fedora: dnf install postgresql-server; macOS: brew install postgresql), " +
	"or set TRUENORTH_PG_BIN to the folder that holds initdb and postgres"

// installation is one set of PostgreSQL's server programs.
type installation struct {
	binDir  string
	version string // as the server tells it, such as "17.5"
	major   int
}

func (i installation) path(program string) string { return filepath.Join(i.binDir, program) }

// finder knows where to look for installations.
type finder struct {
	binDir        string   // the only place, if set
	globs         []string // patterns of folders, besides what PATH leads to
	lookPath      func(program string) (string, error)
	cacheDir      string
	repositoryURL string // where missing binaries are fetched from; "" is the library's own choice
}

func newFinder(o Options) finder {
	return finder{
		binDir:   o.BinDir,
		lookPath: exec.LookPath,
		cacheDir: o.CacheDir,
		globs: []string{
			"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
			"/usr/pgsql-*/bin",                  // PostgreSQL's own packages for Red Hat's systems
			"/usr/libexec/postgresql*",          // Alpine
			"/opt/homebrew/opt/postgresql*/bin", // Homebrew on Apple's processors
			"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel's
			"/Applications/Postgres.app/Contents/Versions/*/bin",
			"/usr/local/pgsql/bin", // built from source
		},
	}
}

// installation finds the newest PostgreSQL on the machine, or fetches one. major is the version that existing data
// ask for, 0 for any.
func (f finder) installation(ctx context.Context, acct *account, major int, log *slog.Logger) (installation, error) {
	var (
		found  []installation
		misses []error
	)

	for _, dir := range f.folders(ctx) {
		inst, err := probe(ctx, dir, acct)
		if err != nil {
			misses = append(misses, err)
			continue
		}

		found = append(found, inst)
	}

	slices.SortStableFunc(found, func(a, b installation) int { return cmp.Compare(b.major, a.major) })

	for _, inst := range found {
		if major == 0 || inst.major == major {
			return inst, nil
		}
	}

	fetchedMajor, _, _ := strings.Cut(string(fetchedVersion), ".")

	switch canFetch := f.binDir == "" && (major == 0 || strconv.Itoa(major) == fetchedMajor); {
	case canFetch:
		inst, err := f.fetch(ctx, acct, log)
		if err != nil {
			return installation{}, fmt.Errorf("no PostgreSQL server on this machine, and fetching one failed: %w; %s",
				errors.Join(append(misses, err)...), installHint)
		}

		return inst, nil
	case len(found) > 0:
		return installation{}, fmt.Errorf("the data folder was made by PostgreSQL %d, and this machine has %s: "+
			"install PostgreSQL %d, or give another data folder", major, found[0].version, major)
	default:
		return installation{}, fmt.Errorf("no usable PostgreSQL server: %w; %s", errors.Join(misses...), installHint)
	}
}

// folders lists the folders that may hold the server's programs. Links are resolved, since the programs find their
// other files from where they really are.
func (f finder) folders(ctx context.Context) []string {
	if f.binDir != "" {
		return []string{f.binDir}
	}

	var dirs []string

	for _, program := range []string{"postgres", "initdb", "pg_ctl"} {
		if path, err := f.lookPath(program); err == nil {
			if target, err := filepath.EvalSymlinks(path); err == nil {
				dirs = append(dirs, filepath.Dir(target))
			}
		}
	}

	if path, err := f.lookPath("pg_config"); err == nil {
		if out, err := exec.CommandContext(ctx, path, "--bindir").Output(); err == nil {
			dirs = append(dirs, strings.TrimSpace(string(out)))
		}
	}

	for _, pattern := range f.globs {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // only a malformed pattern has an error
		}

		dirs = append(dirs, matches...)
	}

	// Each once, the first stays: what PATH leads to wins among equals.
	var each []string

	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && !slices.Contains(each, dir) {
			each = append(each, dir)
		}
	}

	return each
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// probe looks whether a folder holds a PostgreSQL server that the account may run.
func probe(ctx context.Context, dir string, acct *account) (installation, error) {
	inst := installation{binDir: dir}

	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(inst.path(program)); err != nil {
			return installation{}, fmt.Errorf("no program %s in %s: %w", program, dir, err)
		}
	}

	if !acct.reaches(dir) {
		return installation{}, fmt.Errorf("user %s, who would run it, cannot enter %s", acct.name, dir)
	}

	out, err := exec.CommandContext(ctx, inst.path("postgres"), "--version").Output()
	if err != nil {
		return installation{}, fmt.Errorf("asking %s for its version: %w", inst.path("postgres"), err)
	}

	match := versionPattern.FindStringSubmatch(string(out))
	if match == nil {
		return installation{}, fmt.Errorf("%s tells no version: %q", inst.path("postgres"), out)
	}

	inst.version = match[1]
	if inst.major, err = strconv.Atoi(match[2]); err != nil {
		return installation{}, fmt.Errorf("reading the version of %s: %w", inst.path("postgres"), err)
	}

	if inst.major < oldestMajor {
		return installation{}, fmt.Errorf("%s has PostgreSQL %s, and %d is the oldest that works",
			dir, inst.version, oldestMajor)
	}

	return inst, nil
}

// fetch makes sure that the cache folder holds the server's programs, and downloads them once.
func (f finder) fetch(ctx context.Context, acct *account, log *slog.Logger) (installation, error) {
	cache, err := f.cache()
	if err != nil {
		return installation{}, err
	}

	if !acct.reaches(cache) {
		return installation{}, fmt.Errorf("user %s, who would run PostgreSQL, cannot enter the cache folder %s: "+
			"give another one", acct.name, cache)
	}

	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // another user runs what is in it
		return installation{}, fmt.Errorf("making the cache folder: %w", err)
	}

	// One process fetches, others that start at the same time wait for it.
	unlock, err := awaitLock(ctx, filepath.Join(cache, "fetch.lock"))
	if err != nil {
		return installation{}, err
	}
	defer unlock()

	dir := filepath.Join(cache, fmt.Sprintf("postgresql-%s-%s-%s", fetchedVersion, runtime.GOOS, runtime.GOARCH))
	if inst, err := probe(ctx, filepath.Join(dir, "bin"), acct); err == nil {
		return inst, nil
	}

	log.InfoContext(ctx, "fetching PostgreSQL, since this machine has none",
		slog.String("version", string(fetchedVersion)), slog.String("folder", dir))

	if err := f.download(ctx, cache, dir); err != nil {
		return installation{}, err
	}

	return probe(ctx, filepath.Join(dir, "bin"), acct)
}

func (f finder) cache() (string, error) {
	if f.cacheDir != "" {
		return absolute(f.cacheDir)
	}

	if os.Geteuid() == 0 {
		return "/var/cache/truenorth", nil // root's own cache folder is closed to the user who runs PostgreSQL
	}

	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the user's cache folder: %w", err)
	}

	return filepath.Join(dir, "truenorth"), nil
}

// download unpacks the server's programs into dir. The library cannot fetch without starting a server, and cannot
// start one as root; so it is given a data folder that holds nothing but a version, which makes it give up at the
// first step after unpacking. Whether the programs are there then tells how it went.
func (f finder) download(ctx context.Context, cache, dir string) error {
	scratch, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return fmt.Errorf("making a folder for the download: %w", err)
	}
	defer os.RemoveAll(scratch)

	data := filepath.Join(scratch, "data")
	major, _, _ := strings.Cut(string(fetchedVersion), ".")

	err = errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major), 0o600))
	if err != nil {
		return fmt.Errorf("preparing the download: %w", err)
	}

	port, err := freePort(ctx)
	if err != nil {
		return err
	}

	unpacked := filepath.Join(scratch, "unpacked")

	config := embeddedpostgres.DefaultConfig().Version(fetchedVersion).
		Port(uint32(port)). //nolint:gosec // a port fits
		CachePath(filepath.Join(scratch, "archive")).RuntimePath(filepath.Join(scratch, "runtime")).
		DataPath(data).BinariesPath(unpacked).Logger(io.Discard)
	if f.repositoryURL != "" {
		config = config.BinaryRepositoryURL(f.repositoryURL)
	}

	result := make(chan error, 1)

	go func() { result <- embeddedpostgres.NewDatabase(config).Start() }() // it takes no context

	select {
	case <-ctx.Done():
		return fmt.Errorf("fetching PostgreSQL: %w", ctx.Err())
	case err = <-result:
	}

	if _, statErr := os.Stat(filepath.Join(unpacked, "bin", "postgres")); statErr != nil {
		return fmt.Errorf("fetching PostgreSQL %s: %w", fetchedVersion, err)
	}

	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing an incomplete download: %w", err)
	}

	if err := os.Rename(unpacked, dir); err != nil {
		return fmt.Errorf("keeping the download: %w", err)
	}

	return nil
}

// awaitLock locks a file, waiting for whoever holds it, and returns what unlocks it.
func awaitLock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the cache folder: %w", err)
	}

	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}

		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = pause(ctx)
		}

		if err != nil {
			return nil, errors.Join(fmt.Errorf("waiting for %s: %w", path, err), f.Close())
		}
	}
}
