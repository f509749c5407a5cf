package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// answerLimit is how long an answer may take. It is over what any subject gives its database.
const answerLimit = 30 * time.Second

// connection is one keep-alive connection. It costs little: requests are ready bytes, and of an answer only its status
// and length are read.
type connection struct {
	net.Conn

	addr   string
	used   time.Time
	reader *bufio.Reader
	out    []byte
	in     []byte
}

// longestIdle is under the 10 seconds that ingest gives a new connection for its first request.
const longestIdle = 5 * time.Second

// load posts requests over connections of its own.
type load struct{ connections []*connection }

func dial(ctx context.Context, addr string, n int) (*load, error) {
	l := &load{}
	for range n {
		c := &connection{addr: addr}
		if err := c.dial(ctx); err != nil {
			l.close()
			return nil, err
		}
		l.connections = append(l.connections, c)
	}
	return l, nil
}

func (c *connection) dial(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", c.addr, err)
	}
	c.Conn, c.reader, c.used = conn, bufio.NewReaderSize(conn, 1<<10), time.Now()
	return nil
}

func (l *load) close() {
	for _, c := range l.connections {
		_ = c.Close()
	}
}

// answer is what a request came to. Its body is good until the connection's next request.
type answer struct {
	status     int
	retryAfter string
	body       []byte
}

// accepted tells that a 2xx was answered.
func (a answer) accepted() bool { return a.status/100 == 2 }

// post sends a request and fails unless the answer is a 2xx.
func (c *connection) post(ctx context.Context, r request) error {
	a, err := c.exchange(ctx, r)
	if err != nil {
		return err
	}
	if !a.accepted() {
		return fmt.Errorf("answered %d %s: %s", a.status, http.StatusText(a.status), bytes.TrimSpace(a.body))
	}
	return nil
}

// exchange sends a request, over a new connection where the old one rested for long, and reads the answer, whatever it is.
func (c *connection) exchange(ctx context.Context, r request) (a answer, err error) {
	if time.Since(c.used) > longestIdle {
		if err := c.redial(ctx); err != nil {
			return a, err
		}
	}
	defer func() { c.used = time.Now() }()
	c.out = append(append(c.out[:0], r.head...), r.body...)
	if err := c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return a, fmt.Errorf("setting a deadline: %w", err)
	}
	if _, err := c.Write(c.out); err != nil {
		return a, fmt.Errorf("sending: %w", err)
	}
	line, err := c.reader.ReadSlice('\n')
	const begin, status = "HTTP/1.1 ", "HTTP/1.1 202"
	if err != nil || len(line) < len(status) {
		return a, fmt.Errorf("reading the answer %q: %w", line, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	if a.status, err = strconv.Atoi(string(line[len(begin):len(status)])); err != nil {
		return a, fmt.Errorf("reading the answer %q: %w", line, err)
	}
	length := 0
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return a, fmt.Errorf("reading the answer's header: %w", err)
		}
		if len(line) <= len("\r\n") {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return a, fmt.Errorf("reading the answer's length: %w", err)
			}
		case bytes.EqualFold(name, []byte("Retry-After")):
			a.retryAfter = string(bytes.TrimSpace(value))
		}
	}
	a.body = slices.Grow(c.in[:0], length)[:length]
	c.in = a.body
	if _, err := io.ReadFull(c.reader, a.body); err != nil {
		return a, fmt.Errorf("reading the answer's body: %w", err)
	}
	return a, nil
}

// redial takes a new connection for the old.
func (c *connection) redial(ctx context.Context) error {
	_ = c.Close()
	return c.dial(ctx)
}

// outcome is what posting came to. Every request was acknowledged.
type outcome struct {
	acknowledged int
	latencies    []time.Duration
	took         time.Duration
}

func (o outcome) rate() float64 { return float64(o.acknowledged) / o.took.Seconds() }

// hooks run around each request, by its number; either may be nil.
type hooks struct {
	before func(i int, intended time.Time)
	after  func(ctx context.Context, i int) error
}

// closed posts as fast as answers come, until limit (zero: none) is over or the requests are used up.
func (l *load) closed(ctx context.Context, requests []request, limit time.Duration, h hooks) (outcome, error) {
	began := time.Now()
	return l.run(ctx, len(requests), h, began, func(context.Context, int) (time.Time, bool) {
		now := time.Now()
		return now, limit == 0 || now.Sub(began) < limit
	}, requests)
}

// open posts at a fixed rate, whatever the answers. A latency counts from when the request should have been sent, so a
// subject that stalls is charged for all that it kept waiting.
func (l *load) open(ctx context.Context, requests []request, rate float64, h hooks) (outcome, error) {
	began := time.Now().Add(10 * time.Millisecond)
	o, err := l.run(ctx, len(requests), h, began, func(ctx context.Context, i int) (time.Time, bool) {
		intended := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if wait := time.Until(intended); wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return intended, false
			}
		}
		return intended, true
	}, requests)
	o.took = max(o.took, time.Duration(float64(len(requests))/rate*float64(time.Second))) // the last has its share of time too
	return o, err
}

// run gives each connection the next request in turn. due waits until it may be sent.
func (l *load) run(ctx context.Context, n int, h hooks, began time.Time,
	due func(ctx context.Context, i int) (intended time.Time, ok bool), requests []request,
) (outcome, error) {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	latencies := make([][]time.Duration, len(l.connections))
	for k, c := range l.connections {
		group.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				intended, ok := due(ctx, i)
				if !ok {
					return nil
				}
				if h.before != nil {
					h.before(i, intended)
				}
				if err := c.post(ctx, requests[i]); err != nil {
					return fmt.Errorf("delivery %d: %w", i, err)
				}
				latencies[k] = append(latencies[k], time.Since(intended))
				if h.after != nil {
					if err := h.after(ctx, i); err != nil {
						return err
					}
				}
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return outcome{}, err
	}
	o := outcome{took: time.Since(began)}
	for _, part := range latencies {
		o.acknowledged += len(part)
		o.latencies = append(o.latencies, part...)
	}
	return o, nil
}
