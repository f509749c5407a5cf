package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What a caller may branch on.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: Postgres cannot do it now (away, starting, full, deadlock, time-out); the same call may succeed later.
	ErrUnavailable = errors.New("database unavailable")
	// ErrDenied: Postgres is there and lets this user not in: another password, no such user or database, no right to connect.
	ErrDenied = errors.New("the database does not let us in")
	// ErrRefused: Postgres refuses this content, and will again.
	ErrRefused = errors.New("refused by the database")
)

// RefusedError is what Postgres said of content that it refuses. It is an ErrRefused.
type RefusedError struct {
	Code    string // SQLSTATE
	Message string // Postgres's own words
	Hint    string // what to do, where the schema says so
}

func (e *RefusedError) Error() string {
	if e.Hint != "" {
		return fmt.Sprintf("%s (SQLSTATE %s): %s", e.Message, e.Code, e.Hint)
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code)
}

// Is makes a RefusedError an ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Interpret turns a driver's error that came through a library on the same pool, such as River, into one of this
// package's.
func Interpret(err error) error { return interpret(err) }

// interpret turns the driver's error into one of this package's; the only place that knows SQLSTATEs.
func interpret(err error) error {
	var pgErr *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case errors.As(err, &pgErr):
		if _, connecting := errors.AsType[*pgconn.ConnectError](err); connecting && slices.Contains([]string{"28P01", "28000", "3D000", "42501"}, pgErr.Code) {
			return fmt.Errorf("%w: %s (SQLSTATE %s)", ErrDenied, pgErr.Message, pgErr.Code)
		}
		switch pgErr.Code[:2] {
		case "22", "23", "54": // data exception, integrity constraint, program limit
			return &RefusedError{Code: pgErr.Code, Message: pgErr.Message, Hint: pgErr.Hint}
		case "08", "25", "40", "53", "55", "57", "58": // connection, transaction state, rollback, resources, lock, operator, system
			return fmt.Errorf("%w: %s (SQLSTATE %s)", ErrUnavailable, pgErr.Message, pgErr.Code)
		}
		switch pgErr.Code {
		case "3F000", "42P01", "42883": // schema, table or function missing
			return fmt.Errorf("schema polar is missing or older than this program: run `truenorth migrate`: %w", err)
		}
		return err
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var netErr net.Error
	var connectErr *pgconn.ConnectError
	if errors.As(err, &connectErr) || errors.As(err, &netErr) || pgconn.SafeToRetry(err) {
		return fmt.Errorf("%w: %s", ErrUnavailable, connectWords(err))
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// connectWords leaves out the driver's account of the connection string, but for who could not be reached.
func connectWords(err error) string {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok {
		return err.Error()
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		return "cannot connect: " + name.Error()
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok {
		return "cannot connect: " + dial.Error()
	}
	return "cannot connect"
}
