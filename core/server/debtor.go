package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portico-proxy/portico/core/limit"
)

// A debtor is a connection that is read from as slowly as it pays its debts.
type debtor struct {
	net.Conn
	debts   *debts
	address string
	ended   chan struct{} // closed with the connection
	once    sync.Once

	mu       sync.Mutex // guards following
	own      debt
	since    time.Time     // when something was read that is being looked at; zero if nothing is
	shaken   bool          // the handshake was answered
	greeting time.Duration // what that cost, which its address owes until a request is answered
	exempt   bool
}

// admit has c be one who pays its debts.
func (s *debts) admit(c net.Conn) *debtor {
	return &debtor{Conn: c, debts: s, address: limit.AddressOf(c.RemoteAddr().String()), ended: make(chan struct{}), own: debt{at: time.Now()}}
}

// Read first waits until what is owed has been paid. The kernel keeps meanwhile
// what the client sends, and then has it wait.
func (c *debtor) Read(p []byte) (int, error) {
	if wait := c.due(); wait > 0 {
		c.await(wait)
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.mu.Lock()
		c.since = time.Now()
		c.mu.Unlock()
	}
	return n, err
}

// due ends the turn that the last Read began, and is how long the next has to wait.
func (c *debtor) due() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.turn(now)
	switch {
	case c.exempt:
		return 0
	case !c.shaken:
		return c.debts.payFor(c.address, now)
	}
	return c.debts.pay(&c.own, now)
}

// turn counts the time since something was read. The caller holds mu.
func (c *debtor) turn(now time.Time) {
	if c.since.IsZero() {
		return
	}
	took := now.Sub(c.since)
	c.since = time.Time{}
	if c.shaken {
		c.own.add(min(took, mostTurn), connectionPardon, now)
		return
	}
	took = min(took, mostGreeting)
	c.greeting += took
	c.debts.charge(c.address, took, now)
}

func (c *debtor) await(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ended:
	}
}

// Write ends the turn of a handshake: until its first answer it does nothing but
// compute. Later it pays for frames with which the client makes room for more:
// who reads a long list, or a busy watch, sends many of them and no requests.
func (c *debtor) Write(p []byte) (int, error) {
	c.mu.Lock()
	now := time.Now()
	switch {
	case c.shaken:
		c.own.add(-time.Duration(len(p))*earnedByte, connectionPardon, now)
	case len(p) > helloRetry:
		c.turn(now)
		c.shaken = true
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Close leaves what the connection owes to its address.
func (c *debtor) Close() error {
	c.once.Do(func() {
		close(c.ended)
		c.mu.Lock()
		defer c.mu.Unlock()
		now := time.Now()
		c.turn(now)
		if c.own.add(0, connectionPardon, now); !c.exempt {
			c.debts.charge(c.address, c.own.owed, now)
		}
	})
	return c.Conn.Close()
}

const (
	// earned is what a request that is answered is worth, and earnedByte what each
	// byte are of its body, as far as that is read, and of what is sent: more than
	// reading them, and that there is room for more, costs.
	earned     = time.Millisecond
	earnedByte = 10 * time.Nanosecond
	// givenUp is what a request costs whose client does not wait for the answer,
	// with givenUpByte for each byte that was sent, which had earned something, and
	// tooLarge one that is. A stranger's is of somebody whom the API server has looked
	// at and does not know, which takes it as long.
	givenUp     = time.Millisecond
	givenUpByte = earnedByte + time.Nanosecond
	tooLarge    = 5 * time.Millisecond
	stranger    = time.Millisecond
	// helloRetry is more than what a server says that has the client begin again,
	// which costs next to nothing, in bytes.
	helloRetry = 128
	// bulkyByte is what each byte of a large head costs: much of it is unpacked at
	// once, for which a turn is too short.
	bulkyByte = 20 * time.Nanosecond
	// lasting is how long requests last that may be given up for nothing: watches
	// are, in the end.
	lasting = 10 * time.Second
)

// answered counts what a request was worth, or has cost.
func (c *debtor) answered(r *http.Request, o *outcome) {
	now := time.Now()
	head := limit.HeadSize(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exempt {
		return
	}
	if head > limit.LargeHead {
		c.own.add(time.Duration(head)*bulkyByte, connectionPardon, now)
	}
	if r.Context().Err() != nil {
		if now.Sub(o.begun) < lasting {
			c.own.add(givenUp+time.Duration(o.bytes)*givenUpByte, connectionPardon, now)
		}
		return
	}
	switch o.code {
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		c.own.add(tooLarge, connectionPardon, now)
	case http.StatusUnauthorized:
		c.own.add(stranger, connectionPardon, now)
	case http.StatusBadRequest, http.StatusTooManyRequests:
	default:
		c.own.add(-earned-time.Duration(o.body.came())*earnedByte, connectionPardon, now)
		c.debts.charge(c.address, -c.greeting, now)
		c.greeting = 0
	}
}

// settle is called when an answer begins.
func (c *debtor) settle(code int) {
	switch code {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusTooManyRequests:
		return
	}
	if known, ok := c.Conn.(*counted); ok {
		known.settle()
	}
}

// upgraded says that what is said on c from now on is no request.
func (c *debtor) upgraded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exempt, c.own.owed, c.since = true, 0, time.Time{}
}

// arriving is a body of which it is known how much has come: a client may say any
// length, and then send nothing.
type arriving struct {
	io.ReadCloser
	bytes atomic.Int64
}

func (b *arriving) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// came is how many bytes have been read.
func (b *arriving) came() int64 {
	if b == nil {
		return 0
	}
	return b.bytes.Load()
}

// outcome is what became of a request.
type outcome struct {
	http.ResponseWriter
	of    *debtor
	body  *arriving // nil if the request has none
	begun time.Time
	code  int
	bytes int64
}

// Unwrap lets http.ResponseController reach what is not watched.
func (o *outcome) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (o *outcome) WriteHeader(code int) {
	if o.code == 0 && code >= http.StatusOK {
		o.code = code
		o.of.settle(code)
	}
	o.ResponseWriter.WriteHeader(code)
}

func (o *outcome) Write(p []byte) (int, error) {
	if o.code == 0 {
		o.code = http.StatusOK
		o.of.settle(o.code)
	}
	n, err := o.ResponseWriter.Write(p)
	o.bytes += int64(n)
	return n, err
}

// Hijack takes the connection out of what is counted.
func (o *outcome) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(o.ResponseWriter).Hijack()
	if err == nil {
		o.of.settle(http.StatusSwitchingProtocols)
		o.of.upgraded()
	}
	return conn, rw, err
}

type debtorKey struct{}

// withDebtor lets requests on c be counted.
func withDebtor(ctx context.Context, c net.Conn) context.Context {
	t, ok := c.(*tls.Conn)
	if !ok {
		return ctx
	}
	if g, ok := t.NetConn().(*gatheringConn); ok {
		if d, ok := g.Conn.(*debtor); ok {
			return context.WithValue(ctx, debtorKey{}, d)
		}
	}
	return ctx
}

// counting tells connections what becomes of their requests.
func counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(debtorKey{}).(*debtor)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		o := &outcome{ResponseWriter: w, of: c, begun: time.Now()}
		if r.ContentLength != 0 {
			o.body = &arriving{ReadCloser: r.Body}
			r = r.WithContext(r.Context()) // net/http looks at the body of its own
			r.Body = o.body
		}
		defer c.answered(r, o)
		next.ServeHTTP(o, r)
	})
}
