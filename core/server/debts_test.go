package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/telemetry"
)

// endless is a connection of which there is always more to read.
type endless struct {
	net.Conn
	from net.IP
}

func (e endless) Read(p []byte) (int, error)  { return len(p), nil }
func (e endless) Write(p []byte) (int, error) { return len(p), nil }
func (e endless) Close() error                { return nil }
func (e endless) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: e.from, Port: 1} }

var here, there = net.IPv4(10, 0, 0, 1), net.IPv4(10, 0, 0, 2)

// newcomer is a connection that has not yet said anything.
func newcomer(s *debts, from net.IP) *debtor { return s.admit(endless{from: from}) }

// known is a connection after its handshake.
func known(t *testing.T, s *debts, from net.IP) *debtor {
	t.Helper()
	c := newcomer(s, from)
	read(t, c)
	_, _ = c.Write(make([]byte, helloRetry+1))
	return c
}

// read has something be read, and returns how long that took.
func read(t *testing.T, c *debtor) time.Duration {
	t.Helper()
	begun := time.Now()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	return time.Since(begun)
}

// look is what it takes to look at what was read.
func look(d time.Duration) { <-time.After(d) }

// ask is a request that is answered once a body of some bytes has been read.
func ask(c *debtor, code int, body int64) {
	o := &outcome{begun: time.Now(), code: code, body: &arriving{}}
	o.body.bytes.Store(body)
	c.answered(httptest.NewRequest(http.MethodPost, "/", nil), o)
}

func TestWhoAsksForNothingIsReadAsSlowlyAsHePays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDebts(nil)
		c, begun := known(t, s, here), time.Now()
		const turns = 5000
		for range turns {
			read(t, c)
			look(mostTurn)
		}
		worked := turns * mostTurn
		if took, least := time.Since(begun), time.Duration(int64(worked-2*connectionGrace)*s.part); took < least {
			t.Errorf("%v of work took %v, want %v at least", worked, took, least)
		}
	})
}

func TestWhoIsAnsweredNeverWaits(t *testing.T) {
	for name, asks := range map[string]func(c *debtor){
		"requests": func(c *debtor) { ask(c, http.StatusOK, 0) },
		"mistakes": func(c *debtor) { ask(c, http.StatusNotFound, 0) },
		"bodies": func(c *debtor) {
			for range 99 {
				read(t, c)
				look(mostTurn / 2)
			}
			ask(c, http.StatusCreated, 1<<20)
		},
		"long-answers": func(c *debtor) { _, _ = c.Write(make([]byte, 64<<10)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDebts(func(by string, d time.Duration) { t.Errorf("the %s waits for %v", by, d) })
				c := known(t, s, here)
				for range 1000 {
					for range 3 {
						read(t, c)
						look(mostTurn)
					}
					asks(c)
				}
			})
		})
	}
}

// TestBodiesEarnWhatHasCome has clients say how long bodies are that nobody reads.
func TestBodiesEarnWhatHasCome(t *testing.T) {
	const size = 1 << 20
	for name, tt := range map[string]struct {
		says  int64
		reads bool
		earns time.Duration
	}{
		"said":         {says: 1 << 30, earns: earned},
		"read":         {says: size, reads: true, earns: earned + size*earnedByte},
		"never-said":   {says: -1, reads: true, earns: earned + size*earnedByte},
		"without-body": {reads: true, earns: earned},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := known(t, newDebts(nil), here)
				c.own.add(time.Hour, 0, time.Now())
				var body io.Reader
				if tt.says != 0 {
					body = strings.NewReader(strings.Repeat("x", size))
				}
				r := httptest.NewRequest(http.MethodPost, "/", body)
				r.ContentLength = tt.says
				counting(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if tt.reads {
						_, _ = io.Copy(io.Discard, r.Body)
					}
					w.WriteHeader(http.StatusNotFound)
				})).ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithValue(r.Context(), debtorKey{}, c)))
				if got := mostOwed - c.own.owed; got != tt.earns {
					t.Errorf("it earns %v, want %v", got, tt.earns)
				}
			})
		})
	}
}

// hijackable is a ResponseWriter whose connection can be had.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

func TestUpgradedConnectionsNeverWait(t *testing.T) {
	for name, tt := range map[string]struct {
		w     http.ResponseWriter
		waits bool
	}{
		"upgraded": {w: hijackable{httptest.NewRecorder()}},
		"refused":  {w: httptest.NewRecorder(), waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				waited := false
				c := known(t, newDebts(func(string, time.Duration) { waited = true }), here)
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				counting(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					if _, _, err := http.NewResponseController(w).Hijack(); (err != nil) != tt.waits {
						t.Error(err)
					}
					for range 1000 {
						read(t, c)
						look(mostTurn)
					}
				})).ServeHTTP(tt.w, r.WithContext(context.WithValue(r.Context(), debtorKey{}, c)))
				if waited != tt.waits {
					t.Errorf("waited: %v, want %v", waited, tt.waits)
				}
			})
		})
	}
}

func TestListsThatAreGivenUpEarnNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := known(t, newDebts(nil), here)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		const size = 1 << 20
		_, _ = c.Write(make([]byte, size))
		c.answered(httptest.NewRequestWithContext(gone, http.MethodGet, "/", nil), &outcome{begun: time.Now(), bytes: size})
		if _, _ = c.Write(make([]byte, size)); c.own.owed < givenUp {
			t.Errorf("after one list that was given up and one that was read %v is owed", c.own.owed)
		}
	})
}

func TestHandshakesThatBeginAgainCostAsMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDebts(nil)
		c := newcomer(s, here)
		for _, flight := range []int{93, 1000} { // the first has the client try again
			read(t, c)
			look(mostGreeting)
			_, _ = c.Write(make([]byte, flight))
		}
		if owed := s.of[here.String()].owed; owed < mostGreeting {
			t.Errorf("%v is owed", owed)
		}
	})
}

func TestRequestsThatComeToNothingCost(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx     context.Context
		outcome outcome
		ago     time.Duration
		costs   bool
	}{
		"given-up":       {ctx: gone, costs: true},
		"given-up-late":  {ctx: gone, ago: time.Minute},
		"body-too-large": {ctx: t.Context(), outcome: outcome{code: http.StatusRequestEntityTooLarge}, costs: true},
		"refused":        {ctx: t.Context(), outcome: outcome{code: http.StatusTooManyRequests}},
		"stranger":       {ctx: t.Context(), outcome: outcome{code: http.StatusUnauthorized}, costs: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newcomer(newDebts(nil), here)
			tt.outcome.begun = time.Now().Add(-tt.ago)
			c.answered(httptest.NewRequestWithContext(tt.ctx, http.MethodGet, "/", nil), &tt.outcome)
			if (c.own.owed > 0) != tt.costs {
				t.Errorf("%v is owed", c.own.owed)
			}
		})
	}
}

func TestLongHeadsCostWhateverIsAnswered(t *testing.T) {
	for size, owes := range map[int]bool{limit.LargeHead / 2: false, 2 * limit.LargeHead: true, 10 * limit.LargeHead: true} {
		c := newcomer(newDebts(nil), here)
		r := httptest.NewRequest(http.MethodGet, "/?"+strings.Repeat("x", size), nil)
		c.answered(r, &outcome{begun: time.Now(), code: http.StatusTooManyRequests})
		if (c.own.owed > 0) != owes {
			t.Errorf("of %d bytes, %v is owed", size, c.own.owed)
		}
	}
}

func TestHandshakesForNothingDelayTheirAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDebts(nil)
		greet := func(from net.IP, asks bool) (waited time.Duration) {
			c := newcomer(s, from)
			waited = read(t, c)
			look(time.Millisecond)
			_, _ = c.Write(make([]byte, helloRetry+1))
			if asks {
				ask(c, http.StatusOK, 0)
			}
			_ = c.Close()
			return waited
		}
		most := time.Duration(0)
		for range 1000 {
			most = max(most, greet(here, false))
		}
		if most == 0 || most > mostWait {
			t.Errorf("a handshake waits for %v, want at most %v", most, mostWait)
		}
		for range 1000 {
			if waited := greet(there, true); waited > 0 {
				t.Fatalf("somebody else, who asks for something, waits for %v", waited)
			}
		}
	})
}

func TestNobodyWaitsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDebts(func(by string, d time.Duration) {
			if d > mostWait {
				t.Errorf("a %s waits for %v", by, d)
			}
		})
		var wg sync.WaitGroup
		for range 100 {
			c := known(t, s, here)
			c.own.add(time.Hour, 0, time.Now())
			wg.Go(func() { read(t, c) })
		}
		wg.Wait()
		c := known(t, s, here)
		c.own.add(time.Hour, 0, time.Now())
		begun := time.Now()
		for range 2 * mostOwed / leastPaid {
			read(t, c)
		}
		if took := time.Since(begun); took.Seconds() > float64(mostOwed)/float64(time.Second)*float64(s.part)+mostWait.Seconds() {
			t.Errorf("an old debt takes %v", took)
		}
	})
}

func TestWhoOpensManyConnectionsPaysNoFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, each = 200, 50
		s := newDebts(nil)
		var wg sync.WaitGroup
		begun := time.Now()
		for range many {
			c := known(t, s, here)
			c.own.add(time.Hour, 0, time.Now())
			wg.Go(func() {
				for range each {
					read(t, c)
					look(mostTurn)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took < each/2*mostWait {
			t.Errorf("%d connections had %d turns each in %v", many, each, took)
		}
	})
}

func TestDebtsOutliveTheirConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDebts(nil)
		c := known(t, s, here)
		c.own.add(time.Hour, 0, time.Now())
		_ = c.Close()
		if waits := read(t, newcomer(s, here)); waits == 0 {
			t.Error("whoever comes back owes nothing")
		}
		look(time.Hour)
		if waits := read(t, newcomer(s, here)); waits > 0 {
			t.Errorf("an hour later he waits for %v", waits)
		}
	})
}

func TestWhoWaitsIsWokenByTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := known(t, newDebts(nil), here)
		c.own.add(time.Hour, 0, time.Now())
		done := make(chan time.Duration)
		go func() { done <- read(t, c) }()
		synctest.Wait()
		_ = c.Close()
		if took := <-done; took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAddressesThatOweAreBounded(t *testing.T) {
	s, now := newDebts(nil), time.Now()
	for n := range 2 * mostAddresses {
		s.charge(fmt.Sprint(n), addressGrace, now)
	}
	if len(s.of) != mostAddresses {
		t.Errorf("%d are remembered, want %d", len(s.of), mostAddresses)
	}
	s.charge("late", addressGrace, now.Add(time.Hour))
	if len(s.of) != 1 {
		t.Errorf("%d are remembered who owe nothing any more", len(s.of)-1)
	}
}

// told is whom a server delays.
func told(o *Options) <-chan string {
	by := make(chan string, 1)
	o.Delayed = func(who string, _ time.Duration) {
		select {
		case by <- who:
		default:
		}
	}
	return by
}

func TestFloodsAreReadSlowly(t *testing.T) { eachServer(t, testFloods) }

func testFloods(t *testing.T, o Options) {
	o.Handler = say("ok")
	by := told(&o)
	s, client, _ := running(t, o)
	roots := client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := http2.NewFramer(c, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case who := <-by:
			if who != telemetry.DelayedConnection {
				t.Errorf("the %s is delayed", who)
			}
			res, err := client.Get(url(s))
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			return
		default:
		}
		if err := f.WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
		for answered := false; !answered; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			_, answered = frame.(*http2.PingFrame)
		}
	}
}
