package embeddedpg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// ownerVariable makes the test program a process that starts a server, tells about it, and waits to be killed.
const ownerVariable = "EMBEDDEDPG_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) != "" {
		runOwner()
	}

	goleak.VerifyTestMain(m)
}

func runOwner() {
	s, err := Start(context.Background(), Options{})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}

	fmt.Println(s.proc.cmd.Process.Pid, s.DataDir())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it or kills this process
	_ = s.Stop()

	os.Exit(0)
}

func TestTemporaryServerIsGoneAfterStop(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{})

	if got := queryText(t, s.URL(), "select current_database() || ' ' || current_setting('fsync')"); got != "postgres off" {
		t.Errorf("database and fsync = %q, want %q", got, "postgres off")
	}

	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatalf("Stop: %v", err)
		}
	}

	if _, err := os.Stat(s.DataDir()); !os.IsNotExist(err) {
		t.Errorf("data folder after Stop: %v, want it gone", err)
	}

	if err := checkPort(t.Context(), s.port); err != nil {
		t.Errorf("port after Stop: %v", err)
	}

	if err := s.Restart(t.Context()); err == nil {
		t.Error("Restart after Stop succeeded, want an error")
	}
}

func TestServerAsksForItsPassword(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{})

	conn, err := pgx.Connect(t.Context(), strings.Replace(s.URL(), s.password, "wrong", 1))
	if err == nil {
		_ = conn.Close(t.Context())
		t.Error("connected with a wrong password")
	}
}

func TestKeptDataSurviveStopAndStart(t *testing.T) {
	t.Parallel()

	o := Options{DataDir: filepath.Join(openDir(t), "a", "b"), Durable: true}

	s := startServer(t, o)
	if got := queryText(t, s.URL(), "select current_database() || ' ' || current_setting('fsync')"); got != "truenorth on" {
		t.Errorf("database and fsync = %q, want %q", got, "truenorth on")
	}

	execSQL(t, s.URL(), "create table kept as select 'still here' as text")
	stopServer(t, s)

	s = startServer(t, o)
	if got := queryText(t, s.URL(), "select text from kept"); got != "still here" {
		t.Errorf("kept row = %q", got)
	}

	execSQL(t, strings.Replace(s.URL(), "/truenorth?", "/postgres?", 1), "drop database truenorth with (force)")
	stopServer(t, s)

	s = startServer(t, o)
	if got := queryText(t, s.URL(), "select current_database()"); got != "truenorth" {
		t.Errorf("database after it was dropped = %q, want it made again", got)
	}
}

func TestRestartAndKillKeepDataAndPort(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{})
	url := s.URL()

	execSQL(t, url, "create table kept (text text)")

	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"restart", func() error { return s.Restart(t.Context()) }},
		{"kill and restart", func() error {
			if err := s.Kill(); err != nil {
				return err
			}

			return s.Restart(t.Context())
		}},
	} {
		execSQL(t, url, "insert into kept values ('"+step.name+"')")

		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}

		if s.URL() != url {
			t.Errorf("%s: URL changed from %s to %s", step.name, url, s.URL())
		}

		if got := queryText(t, url, "select text from kept where text = '"+step.name+"'"); got != step.name {
			t.Errorf("%s: row = %q", step.name, got)
		}
	}
}

func TestKilledServerRefusesConnections(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}

	if conn, err := pgx.Connect(t.Context(), s.URL()); err == nil {
		_ = conn.Close(t.Context())
		t.Error("connected to a killed server")
	}
}

func TestTwoServersRunAtOnce(t *testing.T) {
	t.Parallel()

	a, b := startServer(t, Options{}), startServer(t, Options{})
	if a.port == b.port {
		t.Fatalf("both servers have port %d", a.port)
	}

	execSQL(t, a.URL(), "create table only_in_a ()")

	if got := queryText(t, b.URL(), "select coalesce(to_regclass('only_in_a')::text, 'absent')"); got != "absent" {
		t.Errorf("table of the first server in the second: %s", got)
	}
}

func TestServerNeverRunsAsRoot(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{})

	info, err := os.Stat(filepath.Join(s.home.cluster(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}

	// PostgreSQL wrote the file itself, so it belongs to whoever runs it.
	if owner := ownerOf(info); owner == 0 || owner != s.acct.uidOrOwn() {
		t.Errorf("PostgreSQL runs as user id %d, want %d", owner, s.acct.uidOrOwn())
	}
}

func TestUnreachableDataDirGetsAStandIn(t *testing.T) {
	t.Parallel()

	closed := filepath.Join(openDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}

	o := Options{DataDir: filepath.Join(closed, "data")}
	s := startServer(t, o)
	first := s.DataDir()

	t.Cleanup(func() { _ = os.RemoveAll(first) })

	// Only root hands the server to a user who cannot enter; anybody else enters what is theirs.
	if moved := first != o.DataDir; moved != (os.Geteuid() == 0) {
		t.Fatalf("data folder %s was asked for, %s is used, as user id %d", o.DataDir, first, os.Geteuid())
	}

	stopServer(t, s)

	if s = startServer(t, o); s.DataDir() != first {
		t.Errorf("second start uses %s, the first used %s", s.DataDir(), first)
	}
}

func TestDataDirInUseIsRefused(t *testing.T) {
	t.Parallel()

	o := Options{DataDir: openDir(t)}
	startServer(t, o)

	wantError(t, o, "in use by process "+strconv.Itoa(os.Getpid()))
}

func TestFolderOfSomethingElseIsRefused(t *testing.T) {
	t.Parallel()

	dir := openDir(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	wantError(t, Options{DataDir: dir}, "holds something else already")
}

func TestDataOfAnotherMajorVersionAreRefused(t *testing.T) {
	t.Parallel()

	o := Options{DataDir: openDir(t)}
	s := startServer(t, o)
	stopServer(t, s)

	if err := os.WriteFile(filepath.Join(s.home.cluster(), "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	wantError(t, o, "made by PostgreSQL 9", "this machine has "+s.inst.version)
}

func TestTakenPortIsRefused(t *testing.T) {
	t.Parallel()

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}

	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}

	wantError(t, Options{Port: number}, "port "+port+" is not free", "give another port")
}

func TestBadSettingIsToldInTheServersWords(t *testing.T) {
	t.Parallel()

	wantError(t, Options{Settings: map[string]string{"no_such_setting": "1"}}, "no_such_setting")
}

func TestSettingsWin(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{Settings: map[string]string{"max_connections": "17", "fsync": "on"}})
	if got := queryText(t, s.URL(), "select current_setting('max_connections') || ' ' || current_setting('fsync')"); got != "17 on" {
		t.Errorf("settings = %q, want %q", got, "17 on")
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	dir := filepath.Join(openDir(t), "data")
	if s, err := Start(ctx, Options{DataDir: dir}); err == nil {
		t.Fatal("Start succeeded, want an error", s.Stop())
	}

	startServer(t, Options{DataDir: dir}) // neither a lock nor half-made data stand in the way
}

func TestCrashedServersPIDFileIsNoObstacle(t *testing.T) {
	t.Parallel()

	o := Options{DataDir: openDir(t)}
	s := startServer(t, o)
	p := s.proc

	p.ending.Store(true)

	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	<-p.done

	if _, err := readPIDFile(s.home.cluster()); err != nil {
		t.Fatalf("pid file after a crash: %v, want it there", err)
	}

	stopServer(t, s)

	s = startServer(t, o)
	stopServer(t, s)

	// The number may meanwhile belong to a process that is no PostgreSQL: here, to this one.
	text := strconv.Itoa(os.Getpid()) + "\n" + s.home.cluster() + "\n"
	if err := os.WriteFile(filepath.Join(s.home.cluster(), "postmaster.pid"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	startServer(t, o)
}

func TestServerLeftRunningIsStoppedByTheNextStart(t *testing.T) {
	t.Parallel()

	o := Options{DataDir: openDir(t)}
	left := startServer(t, o)
	left.proc.ending.Store(true)

	execSQL(t, left.URL(), "create table kept as select 'still here' as text")

	// Without its lock, the server looks like one whose process was killed.
	if err := left.home.lock.Close(); err != nil {
		t.Fatal(err)
	}

	left.home.lock = nil

	s := startServer(t, o)

	<-left.proc.done

	if got := queryText(t, s.URL(), "select text from kept"); got != "still here" {
		t.Errorf("kept row = %q", got)
	}
}

func TestServerEndsWithItsKilledProcess(t *testing.T) {
	t.Parallel()

	owner := exec.CommandContext(t.Context(), os.Args[0])
	owner.Env = append(os.Environ(), ownerVariable+"=1")

	stdin, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()

	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}

	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}

	var (
		pid int
		dir string
	)
	if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
		t.Fatalf("owner said %q: %v", line, err)
	}

	cluster := filepath.Join(dir, "cluster")
	if !runsOn(t.Context(), pid, cluster) {
		t.Fatalf("no server on %s as process %d", cluster, pid)
	}

	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = owner.Wait()

	if runtime.GOOS == "linux" {
		ctx, cancel := context.WithTimeout(t.Context(), shutdownLimit)
		defer cancel()

		for runsOn(ctx, pid, cluster) {
			if err := pause(ctx); err != nil {
				t.Fatalf("server still runs after its process was killed: %v", err)
			}
		}
	}

	// The next run removes the folder, and on other systems the server, once the folder is old enough.
	old := time.Now().Add(-2 * sweepAge)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}

	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}

	sweep(t.Context(), acct, slog.New(slog.DiscardHandler))

	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("folder of the killed process: %v, want it gone", err)
	}
}

func TestSweepSparesServersInUse(t *testing.T) {
	t.Parallel()

	s := startServer(t, Options{})

	old := time.Now().Add(-2 * sweepAge)
	if err := os.Chtimes(s.DataDir(), old, old); err != nil {
		t.Fatal(err)
	}

	sweep(t.Context(), s.acct, slog.New(slog.DiscardHandler))

	if got := queryText(t, s.URL(), "select 'alive'"); got != "alive" {
		t.Errorf("server after the sweep: %q", got)
	}
}

func TestServerThatEndsUnaskedIsReported(t *testing.T) {
	t.Parallel()

	reported := make(chan string, 1)
	s := startServer(t, Options{Logger: slog.New(errorHandler{reported})})

	if err := s.proc.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}

	select {
	case got := <-reported:
		if got != "PostgreSQL ended unasked" {
			t.Errorf("reported %q", got)
		}
	case <-time.After(shutdownLimit):
		t.Error("nothing reported")
	}
}

// errorHandler hands on the messages of level error.
type errorHandler struct{ messages chan<- string }

func (h errorHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}
func (h errorHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h errorHandler) WithGroup(string) slog.Handler      { return h }

func (h errorHandler) Handle(_ context.Context, r slog.Record) error {
	h.messages <- r.Message

	return nil
}

// openDir is a temporary folder that every user may pass through, which testing's own is not.
func openDir(t *testing.T) string {
	t.Helper()

	dir, err := os.MkdirTemp("", "embeddedpg-test-")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})

	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	if dir, err = absolute(dir); err != nil {
		t.Fatal(err)
	}

	return dir
}

// startServer starts a server and stops it when the test ends.
func startServer(t *testing.T, o Options) *Server {
	t.Helper()

	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}

	t.Cleanup(func() { stopServer(t, s) })

	return s
}

func stopServer(t *testing.T, s *Server) {
	t.Helper()

	if err := s.Stop(); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

func wantError(t *testing.T, o Options, parts ...string) {
	t.Helper()

	s, err := Start(t.Context(), o)
	if err == nil {
		stopServer(t, s)
		t.Fatal("Start succeeded, want an error")
	}

	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func execSQL(t *testing.T, url, sql string) {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))

	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func queryText(t *testing.T, url, sql string) string {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))

	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}

	return text
}
