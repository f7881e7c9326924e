package replicas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"

	"github.com/portico-proxy/portico/test/authority"
)

// book is a ledger of one resource: what was noted here, and what was heard.
type book struct {
	mu           sync.Mutex // guards following
	noted, heard uint64
	others       []Floor // are told before noted
}

func (b *book) Since(version uint64) ([]Floor, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if version >= b.noted {
		return nil, b.noted
	}
	return append(slices.Clone(b.others), Floor{Resource: "pods", ResourceVersion: b.noted}), b.noted
}

func (b *book) Hear(floors []Floor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range floors {
		b.heard = max(b.heard, f.ResourceVersion)
	}
}

// note notes v, which is the version as well.
func (b *book) note(v uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noted = max(b.noted, v)
}

func (b *book) has(v uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard >= v
}

var errCut = errors.New("the line is cut")

// line is how one replica reaches others; a test cuts it.
type line struct {
	http.RoundTripper
	mu  sync.Mutex // guards following
	cut map[string]bool
	// hangs has requests over a line that is cut wait for their time to be over.
	hangs bool
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	cut, hangs := l.cut[r.URL.Host], l.hangs
	l.mu.Unlock()
	if !cut {
		return l.RoundTripper.RoundTrip(r)
	}
	if hangs {
		<-r.Context().Done()
	}
	return nil, errCut
}

func (l *line) set(address string, cut, hangs bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[address], l.hangs = cut, hangs
}

// replica is one proxy's part.
type replica struct {
	*Replicas
	book  *book
	line  *line
	later *atomic.Int64 // how much its clock is ahead, in nanoseconds
	stop  func()        // in order
}

// ours is long enough for a loaded machine to keep leases fresh.
const ours = 800 * time.Millisecond

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func start(t *testing.T, a *authority.Authority, address string, peers ...string) *replica {
	t.Helper()
	cert, key := a.Pair("127.0.0.1")
	r, err := New(Options{Address: address, Identity: Identity{CertFile: cert, KeyFile: key, CAFile: a.File}, Log: logr.Discard(), Lease: ours})
	if err != nil {
		t.Fatal(err)
	}
	p := &replica{Replicas: r, book: &book{}, later: &atomic.Int64{}, line: &line{RoundTripper: r.client.Transport, cut: map[string]bool{}}}
	r.now = func() time.Time { return time.Now().Add(time.Duration(p.later.Load())) }
	r.client.Transport = p.line
	r.Keep(p.book)
	r.List(peers)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Start(ctx); err != nil {
			t.Error(err)
		}
	}()
	p.stop = func() {
		cancel()
		<-ended
		p.line.RoundTripper.(*http.Transport).CloseIdleConnections()
	}
	t.Cleanup(p.stop)
	return p
}

// crowd starts n replicas that know of each other.
func crowd(t *testing.T, n int) []*replica {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	a := authority.New(t)
	var addresses []string
	for range n {
		addresses = append(addresses, freeAddress(t))
	}
	var all []*replica
	for _, address := range addresses {
		all = append(all, start(t, a, address, addresses...))
	}
	for _, r := range all {
		r.awaitTouch(t, true)
	}
	return all
}

func (r *replica) awaitTouch(t *testing.T, want bool) {
	t.Helper()
	until(t, fmt.Sprintf("%s in touch: %t", r.options.Address, want), func() bool {
		_, ok := r.Touch()
		return ok == want
	})
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// show does what a proxy does before a response leaves.
func (r *replica) show(v uint64) {
	r.book.note(v)
	r.Await(v)
}

func TestPeersKnowWhatIsAcknowledged(t *testing.T) {
	all := crowd(t, 3)
	for v := uint64(1); v <= 100; v++ {
		all[v%3].show(v)
		for i, r := range all {
			if _, ok := r.Touch(); ok && uint64(i) != v%3 && !r.book.has(v) {
				t.Fatalf("replica %d does not know of %d", i, v)
			}
		}
	}
}

// TestPeersHearOfManyResources has a proxy acknowledge more at once than fits into one
// message.
func TestPeersHearOfManyResources(t *testing.T) {
	all := crowd(t, 2)
	teller, hearer := all[0].book, all[1].book
	teller.mu.Lock()
	for i := range 10 * maxFloors {
		teller.others = append(teller.others, Floor{Group: strings.Repeat("<", 253), Resource: fmt.Sprintf("%0253d", i), Unknown: true})
	}
	teller.mu.Unlock()
	v := uint64(0)
	until(t, "a peer to hear of all", func() bool {
		v++ // a lease may have run out meanwhile
		all[0].show(v)
		return hearer.has(v) // which comes last
	})
}

// TestWhoCannotBeToldIsOutOfTouch cuts the lines to one replica, both ways or one,
// at once or so that nothing comes back.
func TestWhoCannotBeToldIsOutOfTouch(t *testing.T) {
	for name, how := range map[string]struct{ to, from, hangs bool }{
		"refused": {to: true, from: true}, "silent": {to: true, from: true, hangs: true},
		"deaf": {to: true, hangs: true}, "mute": {from: true, hangs: true},
	} {
		t.Run(name, func(t *testing.T) {
			all := crowd(t, 3)
			writer, other := all[0], all[2]
			writer.line.set(other.options.Address, how.to, how.hangs)
			other.line.set(writer.options.Address, how.from, how.hangs)
			before, _ := other.Touch()
			writer.show(7)
			since, ok := other.Touch()
			if ok && since == before && !other.book.has(7) {
				t.Fatal("it answers without knowing")
			}
			if !all[1].book.has(7) {
				t.Error("who can be told was not")
			}
			writer.line.set(other.options.Address, false, false)
			other.line.set(writer.options.Address, false, false)
			other.awaitTouch(t, true)
			writer.awaitTouch(t, true)
			if since, _ := other.Touch(); since == before && !other.book.has(7) {
				t.Error("it is back without having lost anything")
			}
			writer.show(8)
			if _, ok := other.Touch(); ok && !other.book.has(8) {
				t.Error("it does not know what was acknowledged after it was back")
			}
		})
	}
}

// TestChangedLines cuts and mends lines at random while all replicas acknowledge.
func TestChangedLines(t *testing.T) {
	all := crowd(t, 3)
	var last atomic.Uint64
	end := make(chan struct{})
	var wg sync.WaitGroup
	for i, writer := range all {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				v := last.Add(1)
				before := touches(all)
				writer.show(v)
				for j, r := range all {
					// Who was in touch all along has been told.
					since, ok := r.Touch()
					if i != j && ok && before[j] == since && !r.book.has(v) {
						t.Errorf("replica %d does not know of %d of %d", j, v, i)
					}
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		from, to := all[r.IntN(3)], all[r.IntN(3)]
		from.line.set(to.options.Address, r.IntN(2) == 0, r.IntN(2) == 0)
		pause(t.Context(), time.Duration(r.IntN(100))*time.Millisecond)
	}
	close(end)
	for _, from := range all {
		for _, to := range all {
			from.line.set(to.options.Address, false, false)
		}
	}
	wg.Wait()
	for _, r := range all {
		r.awaitTouch(t, true)
	}
}

// touches are since when each has been in touch, and a number that is none for who
// is not.
func touches(all []*replica) (since []uint64) {
	for _, r := range all {
		n, ok := r.Touch()
		if !ok {
			n = 1<<64 - 1
		}
		since = append(since, n)
	}
	return since
}

func TestWhoEndsInOrderIsNotMissed(t *testing.T) {
	all := crowd(t, 3)
	before, _ := all[0].Touch()
	all[2].stop()
	for _, r := range all[:2] {
		r.awaitTouch(t, true)
		if f := r.Figures(); f.Peers != 1 || f.Held != 1 {
			t.Errorf("it needs %d peers and has %d", f.Peers, f.Held)
		}
	}
	// What it acknowledged last may have been unheard of.
	if since, _ := all[0].Touch(); since == before {
		t.Error("a peer that ended has left no doubt")
	}
}

// TestStrangerIsIntroduced has a replica come that only one of the others is told of.
func TestStrangerIsIntroduced(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	a := authority.New(t)
	one, two, three := freeAddress(t), freeAddress(t), freeAddress(t)
	first, second := start(t, a, one, one, two), start(t, a, two, one, two)
	first.awaitTouch(t, true)
	second.awaitTouch(t, true)
	third := start(t, a, three, one)
	second.line.set(three, true, false)
	third.line.set(two, true, false)
	third.show(5) // it waits until all who hold a lease have heard of it
	if _, ok := second.Touch(); ok {
		t.Error("it answers without knowing of a replica that acknowledges")
	}
	second.line.set(three, false, false)
	third.line.set(two, false, false)
	for _, r := range []*replica{first, second, third} {
		r.awaitTouch(t, true)
	}
}

func TestStrangersTellNothing(t *testing.T) {
	all := crowd(t, 2)
	message := fmt.Sprintf(`{"from":%q,"floors":[{"resource":"pods","resourceVersion":99}]}`, all[1].options.Address)
	trusted := all[0].options.Identity
	stranger := Identity{CAFile: trusted.CAFile}
	stranger.CertFile, stranger.KeyFile = authority.New(t).Pair("127.0.0.1")
	if code := knock(t, stranger, all[0].options.Address, message); code != 0 {
		t.Errorf("another authority's certificate is answered: %d", code)
	}
	if all[0].book.has(99) {
		t.Error("a stranger has written a floor")
	}
	if code := knock(t, trusted, all[0].options.Address, message); code != http.StatusOK || !all[0].book.has(99) {
		t.Errorf("a peer is refused: %d", code)
	}
	elsewhere := strings.ReplaceAll(message, "127.0.0.1", "127.0.0.2")
	if code := knock(t, trusted, all[0].options.Address, elsewhere); code != http.StatusForbidden {
		t.Errorf("a peer speaks for another: %d", code)
	}
}

// knock sends a message as i and returns the code, 0 for no answer.
func knock(t *testing.T, i Identity, address, message string) int {
	t.Helper()
	transport := &http.Transport{DialTLSContext: i.dial}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Post("https://"+address+floorsPath, "application/json", strings.NewReader(message))
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// TestFrozenPeerCostsNoConnections asks a peer whose kernel still accepts, and that
// says nothing any more.
func TestFrozenPeerCostsNoConnections(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	r := start(t, authority.New(t), freeAddress(t), frozen.Addr().String())
	for range 3 {
		conn, err := frozen.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * ours)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatalf("a connection is kept that nobody waits for: %v", err)
		}
	}
	if _, ok := r.Touch(); ok {
		t.Error("it is in touch with who says nothing")
	}
}

func TestUnlistedPeersAreForgotten(t *testing.T) {
	all := crowd(t, 3)
	kept := []string{all[0].options.Address, all[1].options.Address}
	all[2].stop()
	for _, r := range all[:2] {
		r.List(kept)
	}
	r := all[0]
	r.later.Store(int64(2 * oblivion * ours))
	until(t, "a peer to be forgotten", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.peers) == 1
	})
	r.awaitTouch(t, true)
}
