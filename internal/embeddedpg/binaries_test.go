package embeddedpg

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMissingServerIsToldWithWhatToInstall(t *testing.T) {
	t.Parallel()

	repository := httptest.NewServer(http.NotFoundHandler())
	unreachable := repository.URL
	repository.Close()

	find := emptyMachine(t, unreachable)

	s, err := start(t.Context(), Options{Logger: slog.New(slog.DiscardHandler)}, find)
	if err == nil {
		t.Fatal("start succeeded without a server's programs", s.Stop())
	}

	for _, part := range []string{
		"no PostgreSQL server on this machine", "unable to connect", unreachable,
		"apt-get install postgresql", "TRUENORTH_PG_BIN",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestBinDirIsTheOnlyPlace(t *testing.T) {
	t.Parallel()

	empty := t.TempDir()
	wantError(t, Options{BinDir: empty}, "no program initdb in "+empty, "apt-get install postgresql")
}

func TestProgramsAreFetchedOnce(t *testing.T) {
	t.Parallel()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	requests := make(chan string, 10)
	repository := httptest.NewServer(archiveHandler(t, requests, nil))
	find := emptyMachine(t, repository.URL)

	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}

	first, err := find.installation(t.Context(), acct, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	if first.major != 18 || !strings.HasPrefix(first.binDir, find.cacheDir) {
		t.Errorf("fetched %+v, want version 18 in %s", first, find.cacheDir)
	}

	repository.Close()

	if got := len(requests); got != 2 {
		t.Errorf("%d requests for the archive and its checksum, want 2", got)
	}

	again, err := find.installation(t.Context(), acct, 18, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("second time, without a repository: %v", err)
	}

	if again != first {
		t.Errorf("second time %+v, want %+v", again, first)
	}

	if left, err := filepath.Glob(filepath.Join(find.cacheDir, "fetch-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind by the download: %v %v", left, err)
	}
}

func TestDamagedDownloadIsRefused(t *testing.T) {
	t.Parallel()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	repository := httptest.NewServer(archiveHandler(t, make(chan string, 10), []byte("of another file")))
	defer repository.Close()

	find := emptyMachine(t, repository.URL)

	_, err := find.installation(t.Context(), nil, 0, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "checksums do not match") {
		t.Errorf("error %v, want one about checksums", err)
	}
}

func TestFetchIsNotTriedForDataOfAnotherVersion(t *testing.T) {
	t.Parallel()

	find := emptyMachine(t, "http://127.0.0.1:1")

	_, err := find.installation(t.Context(), nil, 15, slog.New(slog.DiscardHandler))
	if err == nil || strings.Contains(err.Error(), "fetching") {
		t.Errorf("error %v, want one that says nothing of fetching", err)
	}
}

func TestNewestInstallationWins(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	for _, version := range []string{"9.6", "14.9", "17.5", "16.1"} {
		writeStub(t, filepath.Join(root, version, "bin"), version)
	}

	find := emptyMachine(t, "http://127.0.0.1:1")
	find.globs = []string{filepath.Join(root, "*", "bin")}

	for _, test := range []struct {
		major int
		want  string
	}{{0, "17.5"}, {14, "14.9"}} {
		inst, err := find.installation(t.Context(), nil, test.major, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}

		if inst.version != test.want {
			t.Errorf("for version %d: found %s, want %s", test.major, inst.version, test.want)
		}
	}
}

func TestProgramsBehindLinksInPATHAreFound(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	writeStub(t, filepath.Join(root, "real"), "16.2")

	find := emptyMachine(t, "http://127.0.0.1:1")
	find.lookPath = func(program string) (string, error) {
		link := filepath.Join(root, "link-to-"+program)
		if err := os.Symlink(filepath.Join(root, "real", program), link); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}

		return link, nil
	}

	inst, err := find.installation(t.Context(), nil, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	if want, err := absolute(filepath.Join(root, "real")); err != nil || inst.binDir != want {
		t.Errorf("found %s, want %s (%v)", inst.binDir, want, err)
	}
}

// emptyMachine is a finder that finds nothing on the machine and fetches from the given place.
func emptyMachine(t *testing.T, repositoryURL string) finder {
	t.Helper()

	return finder{
		lookPath:      func(string) (string, error) { return "", exec.ErrNotFound },
		cacheDir:      openDir(t),
		repositoryURL: repositoryURL,
	}
}

func writeStub(t *testing.T, dir, version string) {
	t.Helper()

	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	for _, program := range []string{"initdb", "postgres", "pg_ctl"} {
		script := "#!/bin/sh\necho '" + program + " (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// archiveHandler serves an archive as the repository of PostgreSQL's programs does. The programs in it are shell
// scripts that only tell a version. checksum, if not nil, stands in for the right one.
func archiveHandler(t *testing.T, requests chan<- string, checksum []byte) http.Handler {
	t.Helper()

	stub, err := os.ReadFile(filepath.Join("testdata", "postgres-stub.txz"))
	if err != nil {
		t.Fatal(err)
	}

	var archive bytes.Buffer

	w := zip.NewWriter(&archive)

	f, err := w.Create("postgres-linux.txz")
	if err != nil {
		t.Fatal(err)
	}

	if _, err := f.Write(stub); err != nil {
		t.Fatal(err)
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	if checksum == nil {
		checksum = fmt.Appendf(nil, "%x", sha256.Sum256(archive.Bytes()))
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.URL.Path

		if strings.HasSuffix(r.URL.Path, ".sha256") {
			_, _ = w.Write(checksum)

			return
		}

		_, _ = w.Write(archive.Bytes())
	})
}
