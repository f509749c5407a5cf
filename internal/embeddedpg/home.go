package embeddedpg

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// temporaryPrefix starts the names of temporary data folders, by which later runs find what a killed one left.
	temporaryPrefix = "truenorth-pg-tmp-"

	// sweepAge is how old a temporary folder without an owner must be before it is removed: its maker creates it
	// first and locks it then.
	sweepAge = time.Minute

	// memoryDir is where Linux keeps files in memory. A new database is a thousand small files, which takes a disk
	// several times as long as the queries of most tests.
	memoryDir = "/dev/shm"

	// memoryRoom is what must be free there, in bytes.
	memoryRoom = 6 << 30
)

// home is the folder of one server:
//
//	lock       held by the process that runs the server
//	password   the superuser's
//	cluster    PostgreSQL's data
type home struct {
	dir       string
	temporary bool
	lock      *os.File
}

// openHome makes or opens the data folder, and locks it.
func openHome(ctx context.Context, dataDir string, durable bool, acct *account, log *slog.Logger) (*home, error) {
	if dataDir == "" {
		sweep(ctx, acct, log)

		root := temporaryRoot(acct)
		if memory := memoryRoot(); !durable && memory != "" && root == "/tmp" && acct.reaches(memory) { // TMPDIR names no other
			root = memory
		}

		dir, err := os.MkdirTemp(root, temporaryPrefix)
		if err != nil {
			return nil, fmt.Errorf("making a temporary data folder: %w", err)
		}

		if dir, err = absolute(dir); err != nil {
			return nil, err
		}

		h := &home{dir: dir, temporary: true}
		if err := h.take(acct); err != nil {
			return nil, errors.Join(err, h.close())
		}

		return h, nil
	}

	dir, err := reachableDir(ctx, dataDir, acct, log)
	if err != nil {
		return nil, err
	}

	h := &home{dir: dir}
	if err := h.take(acct); err != nil {
		return nil, err
	}

	return h, nil
}

// reachableDir makes the wanted folder, or one in its place where the account cannot reach the wanted one.
func reachableDir(ctx context.Context, wanted string, acct *account, log *slog.Logger) (string, error) {
	dir, err := absolute(wanted)
	if err != nil {
		return "", err
	}

	if !acct.reaches(filepath.Dir(dir)) {
		return standIn(ctx, dir, acct, log)
	}

	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // another user passes through it
		return "", fmt.Errorf("making the folder above the data folder: %w", err)
	}

	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making the data folder: %w", err)
	}

	// Once more, now that it exists and links in its path can be followed.
	return absolute(dir)
}

// standIn makes the folder that takes the place of one that the account cannot reach. Its name follows from the wanted
// one's, so that the data are found again.
func standIn(ctx context.Context, wanted string, acct *account, log *slog.Logger) (string, error) {
	root, err := absolute(temporaryRoot(acct))
	if err != nil {
		return "", err
	}

	sum := sha256.Sum256([]byte(wanted))
	dir := filepath.Join(root, fmt.Sprintf("truenorth-pg-%x", sum[:8]))

	log.WarnContext(ctx, "PostgreSQL's data go to another folder, since the user who runs it cannot enter the wanted one",
		slog.String("user", acct.name), slog.String("wanted", wanted), slog.String("folder", dir))

	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making the data folder: %w", err)
	}

	return dir, nil // links are not followed: anybody may make one in the temporary folder
}

// temporaryRoot is where temporary folders are made: the system's folder, unless the account cannot reach that.
func temporaryRoot(acct *account) string {
	if dir := os.TempDir(); acct.reaches(dir) {
		return dir
	}

	return "/tmp"
}

// take checks that the folder is empty or this package's own, locks it, and gives it to the account.
func (h *home) take(acct *account) error {
	info, err := os.Lstat(h.dir)
	if err != nil {
		return fmt.Errorf("opening the data folder: %w", err)
	}

	if !info.IsDir() {
		return fmt.Errorf("data folder %s is no folder: remove it, or give another folder", h.dir)
	}

	if owner := ownerOf(info); owner != os.Geteuid() && owner != acct.uidOrOwn() {
		return fmt.Errorf("data folder %s belongs to user id %d: run this as that user, or give another folder",
			h.dir, owner)
	}

	// Ownership of everything inside is changed below, so a folder with anything else in it must not get that far.
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return fmt.Errorf("reading the data folder: %w", err)
	}

	if len(entries) > 0 {
		if _, err := os.Lstat(h.path("lock")); err != nil {
			return fmt.Errorf("data folder %s holds something else already: give a new or empty one", h.dir)
		}
	}

	if h.lock, err = lockFile(h.path("lock")); err != nil {
		return err
	}

	if err := acct.own(h.dir); err != nil {
		return errors.Join(err, h.lock.Close())
	}

	return nil
}

func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}

	return -1
}

// flockSoon locks a file, and waits a moment for one that is being let go: a process that another goroutine forks
// shares the lock until it executes its program, even if it is given up here meanwhile.
func flockSoon(f *os.File) error {
	const tries, pause = 20, 25 * time.Millisecond

	for try := 1; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if try == tries || !errors.Is(err, syscall.EWOULDBLOCK) {
			return err //nolint:wrapcheck // the caller says what was locked
		}

		<-time.After(pause)
	}
}

// lockFile locks a file for this process and writes its id there. The system unlocks it when the process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the data folder: %w", err)
	}

	if err := flockSoon(f); err != nil {
		defer f.Close()

		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}

		holder, _ := os.ReadFile(path)

		return nil, fmt.Errorf("data folder %s is in use by process %s: stop that, or give another folder",
			filepath.Dir(path), strings.TrimSpace(string(holder)))
	}

	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid()) // the file was just opened, so this is its beginning
	}

	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}

	return f, nil
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// cluster is PostgreSQL's own data folder.
func (h *home) cluster() string { return h.path("cluster") }

// major is the major version of PostgreSQL that made the data, 0 if there are none yet.
func (h *home) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(h.cluster(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}

	if err != nil {
		return 0, fmt.Errorf("reading the version of the data: %w", err)
	}

	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("data folder %s has no readable version: %w", h.dir, err)
	}

	return major, nil
}

func (h *home) writePassword(password string, acct *account) error {
	if err := os.WriteFile(h.path("password"), []byte(password+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the password of the data folder: %w", err)
	}

	return acct.own(h.dir) // initdb reads it
}

func (h *home) readPassword() (string, error) {
	text, err := os.ReadFile(h.path("password"))
	if err != nil {
		return "", fmt.Errorf("reading the password of the data folder: %w", err)
	}

	return strings.TrimSpace(string(text)), nil
}

// close gives the folder free, and removes a temporary one.
func (h *home) close() error {
	var err error
	if h.temporary {
		err = os.RemoveAll(h.dir)
	}

	if h.lock != nil {
		err = errors.Join(err, h.lock.Close())
	}

	return err
}

// sweep removes the temporary servers that killed runs left behind. What it cannot remove now, a later run may.
func sweep(ctx context.Context, acct *account, log *slog.Logger) {
	var dirs []string

	for _, root := range []string{temporaryRoot(acct), memoryDir} {
		found, err := filepath.Glob(filepath.Join(root, temporaryPrefix+"*"))
		if err != nil {
			return
		}

		dirs = append(dirs, found...)
	}

	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || ownerOf(info) != acct.uidOrOwn() || time.Since(info.ModTime()) < sweepAge {
			continue
		}

		if err := sweepOne(ctx, dir, log); err != nil {
			log.DebugContext(ctx, "temporary data folder stays", slog.String("folder", dir), slog.Any("error", err))
		}
	}
}

func sweepOne(ctx context.Context, dir string, log *slog.Logger) error {
	h := &home{dir: dir, temporary: true}

	lock, err := lockFile(h.path("lock"))
	if err != nil {
		return err
	}

	h.lock = lock

	if err := endLeftover(ctx, h.cluster(), log); err != nil {
		return errors.Join(err, lock.Close())
	}

	log.InfoContext(ctx, "removing the data folder of a run that was killed", slog.String("folder", dir))

	return h.close()
}
