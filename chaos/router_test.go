package main

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wire is a router between hosts whose devices are sockets that keep packets apart: what a host sends and gets is at the test.
type wire struct {
	t      *testing.T
	router *router
	hosts  map[string]*host
	ends   map[string]*os.File // the test's side of each device
}

func newWire(t *testing.T, names ...string) *wire {
	t.Helper()
	w := &wire{t: t, hosts: map[string]*host{}, ends: map[string]*os.File{}}
	var hosts []*host
	for _, name := range names {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		h := &host{name: name, addr: addresses[name], tun: os.NewFile(uintptr(pair[0]), name)}
		w.hosts[name], w.ends[name] = h, os.NewFile(uintptr(pair[1]), name+"'s end")
		hosts = append(hosts, h)
	}
	w.router = newRouter(hosts, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.router.run(ctx) })
	t.Cleanup(func() {
		cancel()
		for _, end := range w.ends {
			_ = end.Close()
		}
		running.Wait()
	})
	return w
}

// send sends a packet of so many bytes that bears a number.
func (w *wire) send(from, to string, number byte, size int) {
	w.t.Helper()
	data := make([]byte, size)
	data[0] = 4 << 4
	binary.BigEndian.PutUint16(data[2:], uint16(size))
	source, target := addresses[from].As4(), addresses[to].As4()
	copy(data[12:], source[:])
	copy(data[16:], target[:])
	data[size-1] = number
	if _, err := w.ends[from].Write(data); err != nil {
		w.t.Fatal(err)
	}
}

// next is the number of the next packet that a host gets; false where none comes in time.
func (w *wire) next(at string, limit time.Duration) (number byte, came bool) {
	w.t.Helper()
	if err := w.ends[at].SetReadDeadline(time.Now().Add(limit)); err != nil {
		w.t.Fatal(err)
	}
	data := make([]byte, tunMTU)
	n, err := w.ends[at].Read(data)
	if err != nil {
		return 0, false
	}
	return data[n-1], true
}

const soon, never = 5 * time.Second, 100 * time.Millisecond

func (w *wire) passes(from, to string) bool {
	w.t.Helper()
	w.send(from, to, 1, 100)
	_, came := w.next(to, never)
	return came
}

func TestPacketsGoWhereTheyAreSentAndNowhereElse(t *testing.T) {
	t.Parallel()

	w := newWire(t, "ingest1", "db1", "db2")
	w.send("ingest1", "db1", 7, 1000)
	if number, came := w.next("db1", soon); !came || number != 7 {
		t.Errorf("db1 got %d, %t", number, came)
	}
	if _, came := w.next("db2", never); came {
		t.Error("db2 got a packet for db1")
	}
	if _, err := w.ends["ingest1"].Write([]byte{0x60, 0, 0, 0}); err != nil { // an IPv6 packet, cut short
		t.Fatal(err)
	}
	if !w.passes("ingest1", "db2") {
		t.Error("after a packet that nobody can carry, nothing passes")
	}
}

func TestACutHoldsInBothDirectionsUntilItIsLiftedAndDeafnessInOne(t *testing.T) {
	t.Parallel()

	w := newWire(t, "ingest1", "db1", "db2")
	r := &run{router: w.router}
	heal := r.impair(1, faultCut, []string{"ingest1", bothServers})
	if w.passes("ingest1", "db1") || w.passes("db2", "ingest1") {
		t.Error("a packet passes a cut")
	}
	if !w.passes("db1", "db2") {
		t.Error("a cut meets those that it does not name")
	}
	healOther := r.impair(2, faultDeafen, []string{"db1", "ingest1"})
	if err := heal(); err != nil {
		t.Fatal(err)
	}
	if !w.passes("ingest1", "db1") || w.passes("db1", "ingest1") {
		t.Error("deafness is to hold in one direction, though another fault has ended")
	}
	if err := healOther(); err != nil {
		t.Fatal(err)
	}
	if !w.passes("db1", "ingest1") {
		t.Error("nothing passes after all faults")
	}
}

func TestASlowLineDelaysAndKeepsTheOrder(t *testing.T) {
	t.Parallel()

	w := newWire(t, "ingest1", "db1")
	w.router.impose(1, impairment{func(string, string) bool { return true }, conditions{Delay: 50 * time.Millisecond, Jitter: 50 * time.Millisecond}})
	began := time.Now()
	for n := range byte(20) {
		w.send("ingest1", "db1", n, 100)
	}
	for n := range byte(20) {
		if got, came := w.next("db1", soon); !came || got != n {
			t.Fatalf("packet %d, %t, comes in place of %d", got, came, n)
		}
		if took := time.Since(began); n == 0 && took < 50*time.Millisecond {
			t.Errorf("the first packet took %s, want 50 ms at least", took)
		}
	}
	w.router.lift(1)
	w.send("ingest1", "db1", 99, 100)
	if got, came := w.next("db1", soon); !came || got != 99 {
		t.Errorf("after the line is well again, %d, %t comes", got, came)
	}
}

func TestBandwidthBoundsWhatPasses(t *testing.T) {
	t.Parallel()

	w := newWire(t, "ingest1", "db1")
	w.router.impose(1, impairment{func(string, string) bool { return true }, conditions{Rate: 100_000}})
	began := time.Now()
	for range 10 {
		w.send("ingest1", "db1", 1, 5000)
	}
	for range 10 {
		if _, came := w.next("db1", soon); !came {
			t.Fatal("a packet is lost")
		}
	}
	if took := time.Since(began); took < 450*time.Millisecond {
		t.Errorf("50 kB at 100 kB/s took %s", took)
	}
}

func TestLossLosesItsShare(t *testing.T) {
	t.Parallel()

	w := newWire(t, "ingest1", "db1")
	w.router.impose(1, impairment{func(string, string) bool { return true }, conditions{Loss: 0.5}})
	const sent = 400
	came := make(chan int)
	go func() {
		n := 0
		for {
			if _, ok := w.next("db1", 500*time.Millisecond); !ok {
				came <- n
				return
			}
			n++
		}
	}()
	for range sent {
		w.send("ingest1", "db1", 1, 100)
	}
	if n := <-came; n < sent/4 || n > sent*3/4 {
		t.Errorf("%d of %d packets pass a line that loses half", n, sent)
	}
}

func TestConditionsAddUp(t *testing.T) {
	t.Parallel()

	got := conditions{Delay: 1, Loss: 0.5, Rate: 10}.and(conditions{Delay: 2, Jitter: 3, Loss: 0.5, Rate: 5}).and(conditions{Cut: true})
	if want := (conditions{Cut: true, Delay: 3, Jitter: 3, Loss: 0.75, Rate: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestEveryHostHasAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()

	seen := map[netip.Addr]string{}
	for _, name := range sortedKeys(addresses) {
		if other, taken := seen[addresses[name]]; taken {
			t.Errorf("%s and %s have the address %s", name, other, addresses[name])
		}
		seen[addresses[name]] = name
	}
	if len(seen) != 11 {
		t.Errorf("%d hosts", len(seen))
	}
}
