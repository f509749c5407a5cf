// Package embeddedpg runs a PostgreSQL server of the program's own, for development and for tests.
//
// It looks for the server's binaries on the machine and fetches them when there are none. PostgreSQL refuses to run as
// root, so for root everything runs as the user postgres, or nobody. The server listens on loopback only, and asks for
// a password made for it.
package embeddedpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	loopback  = "127.0.0.1"
	superuser = "postgres"

	// ownDatabase is made in every server that keeps its data; a temporary server has only the database postgres.
	ownDatabase = "truenorth"

	// startLimit bounds the whole of Start and Restart, recovery after a crash included.
	startLimit = 2 * time.Minute

	// portTries is how often another free port is tried, when someone takes the chosen one before PostgreSQL does.
	portTries = 5
)

// Options say which server to run. The zero value is a temporary server on a free port.
type Options struct {
	// DataDir is the folder of the server's data and password; it is made if missing. "" is a temporary one, which Stop
	// removes. Where another user has to run the server (see the package) and cannot reach DataDir, a private folder
	// of the same purpose under the system's temporary folder takes its place, and a warning names it.
	DataDir string

	// Port is the TCP port on 127.0.0.1; 0 is any free one.
	Port int

	// Durable keeps committed data through a crash of the machine. Without it fsync is off, which is faster and right
	// for tests: what was committed then survives a crash of PostgreSQL, but not of the machine.
	Durable bool

	// Settings are further settings of PostgreSQL by name, such as max_connections. They win over this package's.
	Settings map[string]string

	// Logger gets the server's own log at level debug, and what this package does. Nil discards both.
	Logger *slog.Logger

	// BinDir is the folder of initdb and postgres. "" looks for them on the machine, then fetches them.
	BinDir string

	// CacheDir is where fetched binaries are kept. "" is a folder in the user's cache folder, for root in /var/cache.
	CacheDir string
}

// Server is a running PostgreSQL server. Its methods may be called from any goroutine.
type Server struct {
	log       *slog.Logger
	inst      installation
	acct      *account
	home      *home
	password  string
	database  string
	temporary bool
	settings  map[string]string

	mu      sync.Mutex
	port    int
	proc    *process // nil while no server runs
	stopped bool
}

// Start starts a server and returns once it takes connections. ctx bounds the start only, not the server's life.
//
// A server that an earlier, killed run left in the same data folder is shut down first. On Linux PostgreSQL is told to
// shut down when this process dies, however it dies.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}

	return start(ctx, o, newFinder(o))
}

func start(ctx context.Context, o Options, find finder) (_ *Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	acct, err := serverAccount()
	if err != nil {
		return nil, err
	}

	if o.Port < 0 || o.Port > 65535 {
		return nil, fmt.Errorf("port %d is out of range: give 1 to 65535, or 0 for any free one", o.Port)
	}

	if o.Port != 0 {
		if err := checkPort(ctx, o.Port); err != nil {
			return nil, err
		}
	}

	h, err := openHome(ctx, o.DataDir, o.Durable, acct, o.Logger)
	if err != nil {
		return nil, err
	}

	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()

	major, err := h.major()
	if err != nil {
		return nil, err
	}

	inst, err := find.installation(ctx, acct, major, o.Logger)
	if err != nil {
		return nil, err
	}

	s := &Server{
		log:       o.Logger,
		inst:      inst,
		acct:      acct,
		home:      h,
		database:  superuser,
		temporary: o.DataDir == "",
		settings:  settingsOf(o),
		port:      o.Port,
	}

	if major == 0 {
		if err := s.makeCluster(ctx); err != nil {
			return nil, err
		}
	}

	if s.password, err = h.readPassword(); err != nil {
		return nil, err
	}

	if err := endLeftover(ctx, h.cluster(), o.Logger); err != nil {
		return nil, err
	}

	if !s.temporary {
		s.database = ownDatabase
		if err := s.makeDatabase(ctx); err != nil {
			return nil, err
		}
	}

	if err := s.launch(ctx); err != nil {
		return nil, err
	}

	return s, nil
}

// URL is the superuser's connection string, sslmode=disable. It holds the password. Its database is truenorth where
// the data are kept, and postgres on a temporary server.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()

	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     net.JoinHostPort(loopback, strconv.Itoa(s.port)),
		Path:     "/" + s.database,
		RawQuery: "sslmode=disable",
	}

	return u.String()
}

// DataDir is the folder that holds the server's data: the one asked for, or the one that took its place.
func (s *Server) DataDir() string { return s.home.dir }

// Stop shuts the server down, waits for its end, and removes a temporary data folder. Open connections are cut. A
// second call does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.stopped {
		return nil
	}

	s.stopped = true

	sig := syscall.SIGINT // fast shutdown
	if s.temporary {
		sig = syscall.SIGQUIT // immediate: a checkpoint of data about to be removed would be wasted
	}

	return errors.Join(s.end(sig), s.home.close())
}

// Kill ends the server at once, without a checkpoint, as a crash would, and keeps the data: Restart recovers them. It
// serves tests of what happens while PostgreSQL is away.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.end(syscall.SIGQUIT)
}

// Restart shuts the server down if it runs, and starts it again on the same port with the same data.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	s.mu.Lock()
	defer s.mu.Unlock()

	if s.stopped {
		return errors.New("restarting PostgreSQL: it was stopped for good; start a new server")
	}

	if err := s.end(syscall.SIGINT); err != nil {
		return err
	}

	return s.launch(ctx)
}

// end ends the server process, if there is one. The caller holds s.mu.
func (s *Server) end(sig syscall.Signal) error {
	if s.proc == nil {
		return nil
	}

	p := s.proc
	s.proc = nil

	return p.end(sig)
}

// makeCluster makes the data folder. It is made under another name and renamed when complete, so that a run that is
// interrupted leaves nothing that looks finished.
func (s *Server) makeCluster(ctx context.Context) error {
	making := s.home.path("cluster.new")
	if err := os.RemoveAll(making); err != nil {
		return fmt.Errorf("removing a half-made data folder: %w", err)
	}

	if err := s.home.writePassword(rand.Text(), s.acct); err != nil {
		return err
	}

	args := []string{
		"--pgdata=" + making, "--username=" + superuser, "--pwfile=" + s.home.path("password"),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
	}
	if s.settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}

	cmd := command(ctx, s.acct, s.home.dir, s.inst.path("initdb"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making the data folder %s with initdb%s: %w: %s",
			s.home.dir, s.acct.suffix(), err, strings.TrimSpace(string(out)))
	}

	if err := os.Rename(making, s.home.cluster()); err != nil {
		return fmt.Errorf("naming the data folder: %w", err)
	}

	return nil
}

// makeDatabase creates ownDatabase unless it is there. It uses PostgreSQL's single-user mode, which needs no client.
func (s *Server) makeDatabase(ctx context.Context) error {
	cmd := command(ctx, s.acct, s.home.dir, s.inst.path("postgres"), "--single", "-D", s.home.cluster(), superuser)
	cmd.Stdin = strings.NewReader("create database " + ownDatabase + "\n")

	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("creating database %s: %w: %s", ownDatabase, err, strings.TrimSpace(string(out)))
	}

	// The single-user mode ends well whatever its commands said. command fixes the language of the messages.
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "ERROR:") && !strings.Contains(line, "already exists") {
			return fmt.Errorf("creating database %s: %s", ownDatabase, strings.TrimSpace(line))
		}
	}

	return nil
}

// launch starts the server process and waits until it takes connections. The caller holds s.mu, or is the only one
// who knows s.
func (s *Server) launch(ctx context.Context) error {
	anyPort := s.port == 0

	for try := 1; ; try++ {
		port := s.port
		if anyPort {
			free, err := freePort(ctx)
			if err != nil {
				return err
			}

			port = free
		}

		p, err := startPostmaster(ctx, s, port)
		if err == nil {
			s.port, s.proc = port, p
			s.log.InfoContext(ctx, "PostgreSQL runs", slog.String("version", s.inst.version),
				slog.Int("port", port), slog.String("data", s.home.dir))

			return nil
		}

		var failed *startError

		switch retry := errors.As(err, &failed); {
		case retry && anyPort && failed.portTaken() && try < portTries:
		case retry && failed.stillInUse():
			// The processes of a killed server need a moment to notice that they are alone.
			if err := pause(ctx); err != nil {
				return errors.Join(failed, err)
			}
		default:
			return err
		}
	}
}

// arguments are the server's command line.
func (s *Server) arguments(port int) []string {
	args := []string{"-D", s.home.cluster()}
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		args = append(args, "-c", name+"="+s.settings[name])
	}

	return append(args, "-c", "port="+strconv.Itoa(port))
}

func settingsOf(o Options) map[string]string {
	settings := map[string]string{
		"listen_addresses":        loopback,
		"unix_socket_directories": "", // the packaged default is often a folder that only the packaged server may write
		"lc_messages":             "C",
		"logging_collector":       "off",
	}

	if !o.Durable {
		// Commits stay synchronous: that costs little without fsync, and they survive a crash of PostgreSQL alone.
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		settings["wal_init_zero"] = "off" // databases come and go, and zeroing is much of what they cost
	}

	maps.Copy(settings, o.Settings)

	return settings
}

func checkPort(ctx context.Context, port int) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d is not free: %w; stop what listens there, or give another port (0 is any free one)",
			port, err)
	}

	return l.Close()
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()

	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("looking for a free port: %v is no TCP address", l.Addr())
	}

	return addr.Port, nil
}

// pollInterval is the time between two looks at something that gives no signal of its own.
const pollInterval = 10 * time.Millisecond

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollInterval):
		return nil
	}
}

// absolute is path without symbolic links, as far as it exists.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding the folder %q: %w", path, err)
	}

	if target, err := filepath.EvalSymlinks(abs); err == nil {
		return target, nil
	}

	return abs, nil
}
