// Package relay is lines that tests slow down, hold or cut, or rob of what watches tell.
package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Direction is which way bytes go.
type Direction int

// Toward whoever is dialled, and back.
const (
	There Direction = iota
	Back
)

// A Relay passes connections on to one address.
type Relay struct {
	Address string

	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards following
	open   map[net.Conn]bool
	cut    bool
	ended  bool
	delays [2]time.Duration
	held   [2]chan struct{} // closed once bytes may go on; nil while they may
}

// New relays to target (host:port) until the test ends.
func New(tb testing.TB, target string) *Relay {
	tb.Helper()
	return At(tb, "127.0.0.1:0", target)
}

// At does so from an address (host:port) that is given.
func At(tb testing.TB, address, target string) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{Address: l.Addr().String(), target: target, listener: l, open: map[net.Conn]bool{}}
	r.running.Go(r.accept)
	tb.Cleanup(r.end)
	return r
}

// Delay has bytes take d longer from now on.
func (r *Relay) Delay(way Direction, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delays[way] = d
}

// Hold keeps bytes back, as a network does that loses every packet.
func (r *Relay) Hold(way Direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[way] == nil {
		r.held[way] = make(chan struct{})
	}
}

// Release lets bytes go on.
func (r *Relay) Release(way Direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[way] != nil {
		close(r.held[way])
		r.held[way] = nil
	}
}

// Cut closes all connections and takes no more, until Mend.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.open {
		_ = c.Close()
	}
}

// Mend takes connections again.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

func (r *Relay) end() {
	_ = r.listener.Close()
	r.Release(There)
	r.Release(Back)
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.Cut()
	r.running.Wait()
}

func (r *Relay) accept() {
	for {
		from, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.relay(from) })
	}
}

// relay passes one connection on.
func (r *Relay) relay(from net.Conn) {
	defer r.drop(from)
	if !r.keep(from) {
		return
	}
	to, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer r.drop(to)
	if !r.keep(to) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.pass(There, from, to) })
	r.pass(Back, to, from)
	both.Wait()
}

// keep reports whether c may be used, and remembers it.
func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return false
	}
	r.open[c] = true
	return true
}

func (r *Relay) drop(c net.Conn) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

// chunk is what was read, and when it may be written.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pass copies one way until either end is closed, and then closes both.
func (r *Relay) pass(way Direction, from, to net.Conn) {
	chunks := make(chan chunk, 256)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(chunks)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				chunks <- chunk{b[:n], time.Now().Add(r.delay(way))}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range chunks {
		if err := r.write(way, to, c); err != nil && !errors.Is(err, io.EOF) {
			_ = from.Close()
		}
	}
	_, _ = from.Close(), to.Close()
	reading.Wait()
}

func (r *Relay) delay(way Direction) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.delays[way]
}

func (r *Relay) write(way Direction, to net.Conn, c chunk) error {
	<-time.After(time.Until(c.due))
	for held := r.holds(way); held != nil; held = r.holds(way) {
		<-held
	}
	_, err := to.Write(c.bytes)
	return err
}

// holds returns what to wait for, if anything.
func (r *Relay) holds(way Direction) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return nil
	}
	return r.held[way]
}
