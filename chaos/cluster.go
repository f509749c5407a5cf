package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The cluster: two Postgres servers under Patroni, which keeps its word in etcd.
//
// A 2xx has to be durable on two servers, so replication is synchronous, and strictly: with the standby away, commits wait for it
// instead of going on alone, and ingest answers 503. Without "strict", Patroni turns replication off then, and what is
// acknowledged meanwhile is on one disk only.
//
// etcd has one member, on a host that no fault meets but a cut to the primary. Three would test etcd's own quorum, which is not
// ours to prove, and their heartbeats would compete for this machine's disk and processors with what is.
const (
	leaderTTL   = 10 // seconds after which a primary that is not heard of is replaced
	loopWait    = 2
	retryPeriod = 3
	// walTimeout is after how long either server gives up the other; Postgres's own 60 s would hold every commit for a minute.
	walTimeout = "5s"
	// diskSize is of a server's file system, in memory: small enough to be filled, large enough for a long run.
	diskSize = 1 << 30
)

// cluster is etcd and the servers.
type cluster struct {
	r       *run
	etcd    *process
	servers map[string]*server

	mu      sync.Mutex
	primary string // who was it last
}

// server is a Postgres with its Patroni.
type server struct {
	host    *host
	patroni *process
	dir     string // its file system
	data    string
	clock   string // the file that libfaketime reads; empty: the clock cannot be stepped
}

// patroniState is what Patroni tells of a server.
type patroniState struct {
	State       string `json:"state"`
	Role        string `json:"role"`
	Timeline    int    `json:"timeline"`
	Replication []struct {
		SyncState string `json:"sync_state"`
		State     string `json:"state"`
	} `json:"replication"`
}

// newCluster lays out files. The caller starts it.
func newCluster(r *run, pgBin, faketime string) (*cluster, error) {
	postgres, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("finding the user postgres: %w", err)
	}
	uid, err := strconv.ParseUint(postgres.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("reading the user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(postgres.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("reading the user postgres: %w", err)
	}
	as := &account{uint32(uid), uint32(gid)}
	c := &cluster{r: r, servers: map[string]*server{}}
	etcdDir := filepath.Join(r.dir, nameEtcd)
	if err := mountMemory(etcdDir, diskSize, as); err != nil {
		return nil, err
	}
	etcdURL := "http://" + r.hosts[nameEtcd].at(portEtcd)
	c.etcd = r.newProcess("etcd", r.hosts[nameEtcd], []string{
		"/usr/bin/etcd", "--name", nameEtcd, "--data-dir", filepath.Join(etcdDir, "data"), "--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", nameEtcd + "=http://127.0.0.1:2380", "--log-level", "warn",
	}, nil)
	c.etcd.as = as
	for _, name := range databaseNames {
		s := &server{host: r.hosts[name], dir: filepath.Join(r.dir, name)}
		s.data = filepath.Join(s.dir, "data")
		if err := mountMemory(s.dir, diskSize, as); err != nil {
			return nil, err
		}
		bin := pgBin
		if faketime != "" {
			s.clock = filepath.Join(r.dir, name+".clock")
			if bin, err = fakedPrograms(s, pgBin, faketime); err != nil {
				return nil, err
			}
		}
		config := filepath.Join(r.dir, name+".json")
		if err := writeJSON(config, patroniConfig(s, bin, etcdURL)); err != nil {
			return nil, err
		}
		s.patroni = r.newProcess("patroni@"+name, s.host, []string{"/usr/bin/patroni", config}, []string{
			"PATH=" + pgBin + ":/usr/bin:/bin", "HOME=" + s.dir, "LC_ALL=C.UTF-8", "PYTHONUNBUFFERED=1",
		})
		s.patroni.as = as
		c.servers[name] = s
	}
	return c, nil
}

// mountMemory makes a small file system for an account.
func mountMemory(dir string, size int, as *account) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // another user passes through
		return fmt.Errorf("making a folder: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,uid=%d,gid=%d,mode=700", size, as.uid, as.gid)); err != nil {
		return fmt.Errorf("mounting a file system at %s: %w", dir, err)
	}
	return nil
}

// fakedPrograms is a folder of Postgres's programs in which postgres itself sees a clock that can be stepped. Patroni passes no
// environment on to it, and would go by the wrong clock with it.
func fakedPrograms(s *server, pgBin, faketime string) (string, error) {
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil { //nolint:gosec // another user runs what is in it
		return "", fmt.Errorf("making a folder for programs: %w", err)
	}
	programs, err := os.ReadDir(pgBin)
	if err != nil {
		return "", fmt.Errorf("listing Postgres's programs: %w", err)
	}
	for _, program := range programs {
		if err := os.Symlink(filepath.Join(pgBin, program.Name()), filepath.Join(bin, program.Name())); err != nil {
			return "", fmt.Errorf("linking Postgres's programs: %w", err)
		}
	}
	script := fmt.Sprintf(`#!/bin/sh
export LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
exec %s "$@"
`, faketime, s.clock, filepath.Join(pgBin, "postgres"))
	path := filepath.Join(bin, "postgres")
	if err := os.Remove(path); err != nil {
		return "", fmt.Errorf("replacing a link: %w", err)
	}
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil { //nolint:gosec // another user runs it
		return "", fmt.Errorf("writing the program: %w", err)
	}
	return bin, s.setClock("+0")
}

// setClock sets by how much the server's clock is wrong, in libfaketime's words.
func (s *server) setClock(offset string) error {
	// In place of the file, as it may be read at this very moment.
	if err := os.WriteFile(s.clock+".new", []byte(offset+"\n"), 0o644); err != nil { //nolint:gosec // another user reads it
		return fmt.Errorf("setting the clock of %s: %w", s.host.name, err)
	}
	if err := os.Rename(s.clock+".new", s.clock); err != nil {
		return fmt.Errorf("setting the clock of %s: %w", s.host.name, err)
	}
	return nil
}

// patroniConfig is a server's. YAML, which Patroni reads, includes JSON.
func patroniConfig(s *server, bin, etcdURL string) any {
	type object = map[string]any
	return object{
		"scope": "shop", "name": s.host.name,
		"restapi": object{"listen": s.host.at(portPatroni), "connect_address": s.host.at(portPatroni)},
		"etcd3":   object{"url": etcdURL},
		"log":     object{"level": "INFO"},
		"bootstrap": object{
			"dcs": object{
				"ttl": leaderTTL, "loop_wait": loopWait, "retry_timeout": retryPeriod, "maximum_lag_on_failover": 1 << 20, "primary_start_timeout": 10,
				"master_start_timeout": 10, // its name until Patroni 3
				"synchronous_mode":     true, "synchronous_mode_strict": true,
				"postgresql": object{"use_pg_rewind": true, "use_slots": true, "parameters": object{
					"max_connections": 200, "shared_buffers": "64MB", "max_wal_size": "160MB", "wal_keep_size": "64MB", "wal_log_hints": "on",
					"wal_sender_timeout": walTimeout, "wal_receiver_timeout": walTimeout, "max_slot_wal_keep_size": "400MB",
					"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": "10s",
					"log_checkpoints": "off", "log_min_duration_statement": "2s", "log_line_prefix": "%m [%p] %a ",
				}},
			},
			"initdb": []any{object{"encoding": "UTF8"}, object{"locale": "C.UTF-8"}, "data-checksums"},
			"pg_hba": []string{
				"local all postgres trust", "host all postgres " + network + ".0/24 trust", "host replication replicator " + network + ".0/24 trust",
			},
		},
		"postgresql": object{
			"listen": s.host.at(portPostgres), "connect_address": s.host.at(portPostgres), "data_dir": s.data, "bin_dir": bin,
			"pgpass":         filepath.Join(s.dir, "pgpass"),
			"authentication": object{"superuser": object{"username": "postgres"}, "replication": object{"username": "replicator"}},
			"parameters":     object{"unix_socket_directories": s.dir, "logging_collector": "off"},
			// A server that cannot be rewound is made anew: no person watches here.
			"remove_data_directory_on_rewind_failure": true, "remove_data_directory_on_diverged_timelines": true,
		},
		"watchdog": object{"mode": "off"}, // no machine here can be switched off by one: a lost host stands for it
	}
}

// start starts everything and waits until it is whole.
func (c *cluster) start(ctx context.Context) error {
	if err := c.etcd.start(); err != nil {
		return err
	}
	for _, name := range databaseNames {
		if err := c.servers[name].patroni.start(); err != nil {
			return err
		}
	}
	return c.awaitWhole(ctx, startLimitOfRun)
}

// awaitWhole waits until there is a primary with a synchronous standby.
func (c *cluster) awaitWhole(ctx context.Context, limit time.Duration) error {
	return within(ctx, limit, func(ctx context.Context) error {
		var told []string
		for _, name := range databaseNames {
			state, err := c.ask(ctx, name)
			if err != nil {
				told = append(told, err.Error())
				continue
			}
			if state.isWhole() {
				return nil
			}
			told = append(told, fmt.Sprintf("%s is %s and %s with %v", name, state.Role, state.State, state.Replication))
		}
		return fmt.Errorf("no primary with a synchronous standby: %s", strings.Join(told, "; "))
	})
}

func (s patroniState) isPrimary() bool {
	return (s.Role == "primary" || s.Role == "master") && s.State == "running"
}

// isWhole tells whether what the server commits is on two servers.
func (s patroniState) isWhole() bool {
	return s.isPrimary() && len(s.Replication) > 0 && s.Replication[0].SyncState == "sync" && s.Replication[0].State == "streaming"
}

// ask asks a server's Patroni how it is.
func (c *cluster) ask(ctx context.Context, name string) (state patroniState, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.servers[name].host.at(portPatroni)+"/patroni", nil)
	if err != nil {
		return state, fmt.Errorf("asking %s: %w", name, err)
	}
	response, err := c.r.client.Do(request)
	if err != nil {
		return state, fmt.Errorf("asking %s: %w", name, err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&state); err != nil {
		return state, fmt.Errorf("reading what %s tells: %w", name, err)
	}
	return state, nil
}

// watch notes who is the primary and whether it has a standby, until ctx ends.
func (c *cluster) watch(ctx context.Context) {
	timelines, wasWhole := map[int]bool{}, true
	every(ctx, 500*time.Millisecond, func() {
		whole, primaries := false, map[string]int{}
		for _, name := range databaseNames {
			state, err := c.ask(ctx, name)
			if err != nil {
				continue
			}
			whole = whole || state.isWhole()
			if state.isPrimary() && !timelines[state.Timeline] {
				timelines[state.Timeline] = true
				primaries[name] = state.Timeline
			}
		}
		if ctx.Err() != nil {
			return
		}
		if whole != wasWhole {
			wasWhole = whole
			kind := kindAlone
			if whole {
				kind = kindWhole
			}
			c.r.history.note(entry{Kind: kind})
		}
		for name, timeline := range primaries {
			c.mu.Lock()
			c.primary = name
			c.mu.Unlock()
			c.r.history.note(entry{Kind: kindPrimary, Host: name, Timeline: timeline})
			c.r.sayf("%s is the primary, on timeline %d", name, timeline)
		}
	})
}

// named is the server that a word of a schedule means now.
func (c *cluster) named(word string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case word == thePrimary:
		return c.primary
	case word == theStandby && c.primary == databaseNames[0]:
		return databaseNames[1]
	case word == theStandby:
		return databaseNames[0]
	}
	return word
}

// killPostmaster kills a server's first process, whose number stands in its data folder.
func (s *server) killPostmaster() error {
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return fmt.Errorf("finding the postmaster of %s: %w", s.host.name, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		return fmt.Errorf("reading the postmaster's number of %s: %w", s.host.name, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing the postmaster of %s: %w", s.host.name, err)
	}
	return nil
}

// killAll takes the server down with all of its processes.
func (s *server) killAll() {
	s.patroni.mu.Lock()
	s.patroni.wanted = false
	s.patroni.mu.Unlock()
	s.host.killAll()
	s.patroni.kill()
	s.host.killAll() // what was born meanwhile
}

// ballast is the file that fills a server's disk.
func (s *server) ballast() string { return filepath.Join(s.dir, "ballast") }

// fill leaves no page of the disk.
func (s *server) fill() error {
	file, err := os.Create(s.ballast())
	if err != nil {
		return fmt.Errorf("filling the disk of %s: %w", s.host.name, err)
	}
	defer file.Close()
	for _, size := range []int{1 << 20, os.Getpagesize()} {
		chunk := make([]byte, size)
		for err == nil {
			_, err = file.Write(chunk)
		}
		if !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("filling the disk of %s: %w", s.host.name, err)
		}
		err = nil
	}
	return nil
}

// databaseURL is what every program is given.
func databaseURL(database string) string {
	var hosts []string
	for _, name := range databaseNames {
		hosts = append(hosts, fmt.Sprintf("%s:%d", addresses[name], portPostgres))
	}
	return fmt.Sprintf("postgres://postgres@%s/%s?target_session_attrs=read-write&sslmode=disable", strings.Join(hosts, ","), database)
}

// findPostgres is the newest of Debian's.
func findPostgres() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("no PostgreSQL in /usr/lib/postgresql: apt-get install postgresql")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// findFaketime is the library that steps a server's clock; empty where there is none.
func findFaketime() string {
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(found) == 0 {
		return ""
	}
	return found[0]
}

// missingTools are the packages that a run needs and the machine lacks.
func missingTools() (missing []string) {
	for program, pkg := range map[string]string{"patroni": "patroni", "etcd": "etcd-server", "ip": "iproute2"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	return missing
}
