package main

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// conditions are what a packet meets on its way from one host to another. The zero value is a perfect line.
type conditions struct {
	Cut    bool
	Delay  time.Duration
	Jitter time.Duration // on top of Delay, evenly spread; packets keep their order, as on one line
	Loss   float64       // of packets, from 0 to 1
	Rate   int           // bytes a second; 0: no limit
}

// and is a line with both conditions.
func (c conditions) and(other conditions) conditions {
	c.Cut = c.Cut || other.Cut
	c.Delay += other.Delay
	c.Jitter += other.Jitter
	c.Loss = 1 - (1-c.Loss)*(1-other.Loss)
	if other.Rate > 0 && (c.Rate == 0 || other.Rate < c.Rate) {
		c.Rate = other.Rate
	}
	return c
}

// impairment is what one fault does to some of the lines.
type impairment struct {
	meets func(from, to string) bool
	conditions
}

// router carries packets between hosts. It is a program, because what the kernel has for this (tc's netem) is a module that
// many machines lack, while TUN devices are wherever namespaces are.
type router struct {
	hosts map[netip.Addr]*host
	lines map[line]*way

	mu          sync.Mutex
	impairments map[int]impairment // by the fault's number
	dropped     atomic.Int64
	carried     atomic.Int64
}

// line is a direction between two hosts.
type line struct{ from, to *host }

// queueLength is how many packets a slow line holds; what comes beyond is lost, as in any router.
const queueLength = 1000

// way carries the packets of one line.
type way struct {
	to    *host
	state atomic.Pointer[conditions]
	queue chan packet
	held  atomic.Int64 // packets of the queue that are not delivered

	// Of the goroutine that reads the sender's device.
	random *rand.Rand
	busy   time.Time // until then the line is sending
	last   time.Time // when the packet before arrives
}

type packet struct {
	at   time.Time
	data []byte
}

func newRouter(hosts []*host, seed uint64) *router {
	r := &router{hosts: map[netip.Addr]*host{}, lines: map[line]*way{}, impairments: map[int]impairment{}}
	for i, from := range hosts {
		r.hosts[from.addr] = from
		for j, to := range hosts {
			if i != j {
				w := &way{to: to, queue: make(chan packet, queueLength), random: rand.New(rand.NewPCG(seed, uint64(i*len(hosts)+j)))} //nolint:gosec // no secret
				w.state.Store(&conditions{})
				r.lines[line{from, to}] = w
			}
		}
	}
	return r
}

// run carries packets until ctx ends.
func (r *router) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, h := range r.hosts {
		all.Go(func() { r.read(h) })
	}
	for _, w := range r.lines {
		all.Go(func() { r.deliver(ctx, w) })
	}
	<-ctx.Done()
	for _, h := range r.hosts {
		_ = h.tun.Close() // ends who reads it
	}
	all.Wait()
}

// read takes what a host sends, until its device is closed.
func (r *router) read(h *host) {
	buffer := make([]byte, tunMTU+100)
	for {
		n, err := h.tun.Read(buffer)
		if err != nil {
			return
		}
		if to, ok := destination(buffer[:n]); ok {
			if w, ok := r.lines[line{h, r.hosts[to]}]; ok {
				r.send(w, buffer[:n])
			}
		}
	}
}

// destination is where an IPv4 packet goes.
func destination(data []byte) (netip.Addr, bool) {
	const headerLength, version, at = 20, 4, 16
	if len(data) < headerLength || data[0]>>4 != version || int(binary.BigEndian.Uint16(data[2:])) > len(data) {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(data[at : at+4])), true
}

func (r *router) send(w *way, data []byte) {
	c := w.state.Load()
	if c.Cut || c.Loss > 0 && w.random.Float64() < c.Loss {
		r.dropped.Add(1)
		return
	}
	if c.Delay == 0 && c.Jitter == 0 && c.Rate == 0 && w.held.Load() == 0 {
		r.write(w, data)
		return
	}
	now := time.Now()
	sent := now
	if c.Rate > 0 {
		if w.busy.Before(now) {
			w.busy = now
		}
		w.busy = w.busy.Add(time.Duration(float64(len(data)) / float64(c.Rate) * float64(time.Second)))
		sent = w.busy
	}
	at := sent.Add(c.Delay)
	if c.Jitter > 0 {
		at = at.Add(time.Duration(w.random.Int64N(int64(c.Jitter))))
	}
	if at.Before(w.last) {
		at = w.last
	}
	w.held.Add(1)
	select {
	case w.queue <- packet{at, append([]byte(nil), data...)}:
		w.last = at
	default:
		w.held.Add(-1)
		r.dropped.Add(1)
	}
}

// deliver hands on what a slow line holds, each packet at its time.
func (r *router) deliver(ctx context.Context, w *way) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var p packet
		select {
		case p = <-w.queue:
		case <-ctx.Done():
			return
		}
		timer.Reset(time.Until(p.at))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if w.state.Load().Cut {
			r.dropped.Add(1)
		} else {
			r.write(w, p.data)
		}
		w.held.Add(-1)
	}
}

func (r *router) write(w *way, data []byte) {
	if _, err := w.to.tun.Write(data); err != nil {
		r.dropped.Add(1) // a full device: the sender's TCP tries again
		return
	}
	r.carried.Add(1)
}

// impose makes lines worse, until the same number is lifted.
func (r *router) impose(number int, what impairment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.impairments[number] = what
	r.settle()
}

// lift takes back what was imposed under a number.
func (r *router) lift(number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.impairments, number)
	r.settle()
}

// settle works out what all impairments together make of each line. The caller holds r.mu.
func (r *router) settle() {
	for l, w := range r.lines {
		var c conditions
		for _, i := range r.impairments {
			if i.meets(l.from.name, l.to.name) {
				c = c.and(i.conditions)
			}
		}
		w.state.Store(&c)
	}
}
