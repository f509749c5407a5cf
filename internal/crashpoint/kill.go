//go:build crashpoints

package crashpoint

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// where is the point that this process dies at, after passing it left-1 times; empty: nowhere.
var (
	where string
	left  atomic.Int64
)

func init() {
	var times string
	where, times, _ = strings.Cut(os.Getenv("TRUENORTH_CRASH_AT"), ":")
	left.Store(1)
	if times == "" {
		return
	}
	n, err := strconv.ParseInt(times, 10, 64)
	if err != nil || n < 1 {
		panic("TRUENORTH_CRASH_AT: " + times + " is no number of times")
	}
	left.Store(n)
}

// Here is a point.
func Here(point string) {
	if point != where || left.Add(-1) != 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "crash point %s\n", point)
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // nothing goes on until the signal is there
}

// WhenSent gives a context for a call over HTTP. The point is where the request is sent and no answer read.
func WhenSent(ctx context.Context, point string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		if info.Err == nil {
			Here(point)
		}
	}})
}

// AfterStatements makes the end of every statement on connections of this configuration a point.
func AfterStatements(config *pgx.ConnConfig, point string) { config.Tracer = statements(point) }

type statements string

func (statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (s statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { Here(string(s)) }
