package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/truenorth-dev/truenorth/internal/embeddedpg"
)

// The databases that each measurement gets a copy of.
const (
	templateProduct  = "bench_truenorth"
	templateBaseline = "bench_baseline"
)

// settings keep checkpoints, which come by the clock, out of the measurements; each begins after one. All else that costs
// or saves time is as PostgreSQL has it.
var settings = map[string]string{
	"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
}

// loadSettings leave checkpoints and autovacuum as they are in production: what they cost, and what they clean up, is part of what
// load comes to.
var loadSettings = map[string]string{"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}

// shownSettings are those whose values are published.
var shownSettings = []string{
	"fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_sync_method", "shared_buffers", "max_wal_size",
	"checkpoint_timeout", "max_connections", "autovacuum", "autovacuum_naptime", "data_directory",
}

// postgres is the one server on which everything is measured.
type postgres struct {
	server *embeddedpg.Server
	admin  *pgx.Conn
	made   int // databases
}

// PostgresFacts say what the server is.
type PostgresFacts struct {
	Version  string            `json:"version"`
	Settings map[string]string `json:"settings"`
	Storage  string            `json:"storage"`
}

// startPostgres starts a server that keeps what it commits, with a template for each subject.
func startPostgres(ctx context.Context, settings map[string]string, allowMemory bool) (_ *postgres, facts PostgresFacts, err error) {
	server, err := embeddedpg.Start(ctx, embeddedpg.Options{Durable: true, Settings: settings})
	if err != nil {
		return nil, facts, err
	}
	p := &postgres{server: server}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop(ctx))
		}
	}()
	if facts.Storage, err = storage(server.DataDir()); err != nil {
		return nil, facts, err
	}
	if facts.Storage == "memory" && !allowMemory {
		return nil, facts, fmt.Errorf("%s is in memory, where a commit costs nothing: set TMPDIR to a folder on a disk", server.DataDir())
	}
	if p.admin, err = pgx.Connect(ctx, server.URL()); err != nil {
		return nil, facts, fmt.Errorf("connecting: %w", err)
	}
	if err := p.admin.QueryRow(ctx, "show server_version").Scan(&facts.Version); err != nil {
		return nil, facts, fmt.Errorf("asking for the version: %w", err)
	}
	facts.Settings = map[string]string{}
	for _, name := range shownSettings {
		var value string
		if err := p.admin.QueryRow(ctx, "select current_setting($1)", name).Scan(&value); err != nil {
			return nil, facts, fmt.Errorf("asking for %s: %w", name, err)
		}
		facts.Settings[name] = value
	}
	delete(facts.Settings, "data_directory") // of this run only
	for name, migrate := range map[string]func(context.Context, string) error{
		templateProduct: migrateProduct, templateBaseline: migrateBaseline,
	} {
		if err := p.exec(ctx, "create database "+name); err != nil {
			return nil, facts, err
		}
		if err := migrate(ctx, p.url(name)); err != nil {
			return nil, facts, fmt.Errorf("preparing %s: %w", name, err)
		}
	}
	return p, facts, nil
}

// storage tells whether a folder is on a disk or in memory.
func storage(dir string) (string, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return "", fmt.Errorf("looking where %s is: %w", dir, err)
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	if stat.Type == tmpfs || stat.Type == ramfs {
		return "memory", nil
	}
	return "disk", nil
}

func (p *postgres) stop(ctx context.Context) error {
	if p.admin != nil {
		_ = p.admin.Close(context.WithoutCancel(ctx))
	}
	return p.server.Stop()
}

func (p *postgres) exec(ctx context.Context, sql string) error {
	if _, err := p.admin.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func (p *postgres) url(name string) string {
	u, err := url.Parse(p.server.URL())
	if err != nil {
		panic(err) // the server wrote it
	}
	u.Path = "/" + name
	return u.String()
}

// tables are the questions that are put to a subject's tables.
type tables struct {
	template  string
	events    string // how many are stored
	uncovered string // how many of them have no job
	working   string // whether any job is still to be done
	applied   string // how many events are applied, and how many failed
}

// database is a subject's for one measurement.
type database struct {
	tables
	name string
	url  string
	conn *pgx.Conn
	p    *postgres
}

// fresh copies a template. Drop it.
func (p *postgres) fresh(ctx context.Context, t tables) (*database, error) {
	p.made++
	d := &database{tables: t, name: fmt.Sprintf("bench_%d", p.made), p: p}
	if err := p.exec(ctx, "create database "+d.name+" template "+t.template); err != nil {
		return nil, err
	}
	d.url = p.url(d.name)
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", d.name, err), d.drop(ctx))
	}
	d.conn = conn
	if err := p.exec(ctx, "checkpoint"); err != nil {
		return nil, errors.Join(err, d.drop(ctx))
	}
	return d, nil
}

func (d *database) drop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if d.conn != nil {
		_ = d.conn.Close(ctx)
	}
	return d.p.exec(ctx, "drop database "+d.name+" with (force)")
}

// relaxed is the database's URL for filling it: what is lost in a crash there, the measurement would not miss.
func (d *database) relaxed() string { return d.url + "&options=-csynchronous_commit%3Doff" }

// settle ends filling: fresh statistics, and nothing left to be written.
func (d *database) settle(ctx context.Context) error {
	if err := d.exec(ctx, "analyze"); err != nil {
		return err
	}
	return d.exec(ctx, "checkpoint")
}

func (d *database) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := d.conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func (d *database) read(ctx context.Context, sql string, into ...any) error {
	if err := d.conn.QueryRow(ctx, sql).Scan(into...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// wal is how many bytes of write-ahead log there ever were.
func (d *database) wal(ctx context.Context) (int64, error) {
	var bytes int64
	err := d.read(ctx, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", &bytes)
	return bytes, err
}

// mustHold fails unless exactly so many events are stored, each with a job.
func (d *database) mustHold(ctx context.Context, acknowledged int) error {
	var stored, uncovered int
	if err := errors.Join(d.read(ctx, d.events, &stored), d.read(ctx, d.uncovered, &uncovered)); err != nil {
		return err
	}
	if stored != acknowledged || uncovered > 0 {
		return fmt.Errorf("%d deliveries were acknowledged and %d events are stored, %d of them without a job", acknowledged, stored, uncovered)
	}
	return nil
}

// waitApplied waits until so many events are applied and no job is left.
func (d *database) waitApplied(ctx context.Context, events int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	var applied, failed int
	for {
		var working bool
		if err := d.read(ctx, d.working, &working); err != nil {
			return fmt.Errorf("after %d of %d events were applied: %w", applied, events, err)
		}
		// Counting is dear; a job is looked for by an index.
		if !working {
			if err := d.read(ctx, d.applied, &applied, &failed); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("%d events failed to apply", failed)
			}
			if applied == events {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d events applied: %w", applied, events, ctx.Err())
		case <-ticker.C:
		}
	}
}

// inChunks does something to chunks of events, several at a time.
func inChunks(ctx context.Context, events []event, size int, do func(context.Context, []event) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for len(events) > 0 && ctx.Err() == nil {
		n := min(size, len(events))
		chunk := events[:n]
		events = events[n:]
		group.Go(func() error { return do(ctx, chunk) })
	}
	return group.Wait()
}
