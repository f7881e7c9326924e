package server

import (
	"runtime"
	"sync"
	"time"

	"github.com/portico-proxy/portico/core/telemetry"
)

const (
	// connectionGrace is what one connection may owe, and addressGrace what those of
	// an address may that have ended or have had nothing answered.
	connectionGrace = 50 * time.Millisecond
	addressGrace    = 200 * time.Millisecond
	// connectionPardon is how much of that is forgiven in a second, and addressPardon.
	connectionPardon = 2 * time.Millisecond
	addressPardon    = 20 * time.Millisecond
	// mostOwed bounds what anybody owes: nobody is punished for long.
	mostOwed = 4 * addressGrace
	// mostPaid is paid at a time, and mostWait how long that takes at most, however
	// many others pay: a client is slowed, and never locked out. leastPaid is what
	// that wait is worth at least.
	mostPaid  = 50 * time.Millisecond
	leastPaid = 2 * time.Millisecond
	mostWait  = time.Second
	// mostTurn is what looking at what was read at once counts for at most, and
	// mostGreeting what a handshake does: other work may have been done meanwhile.
	mostTurn     = 200 * time.Microsecond
	mostGreeting = 3 * time.Millisecond
	// payShare is which part of the processors those who owe have, all together: a
	// twenty-fifth.
	payShare = 25
	// mostAddresses is of how many it is remembered what they owe.
	mostAddresses = 4096
)

// debts are the processor time that clients have cost for nothing: by handshakes
// without requests, frames without answers, requests that they gave up, bodies
// that are too large. Who owes too much is read from as slowly as he pays, and all
// who owe share a small part of the processors. A request that is answered earns
// more than reading it costs, so who works owes nothing.
type debts struct {
	part  int64 // how many nanoseconds it takes all together to pay one
	count func(by string, waited time.Duration)

	mu    sync.Mutex // guards following
	paid  time.Time  // when those who pay now have
	of    map[string]*debt
	swept time.Time
}

// A debt is what somebody owes.
type debt struct {
	owed time.Duration
	at   time.Time // when that was so
}

// newDebts tells count, which may be nil, whom it delays for how long.
func newDebts(count func(by string, waited time.Duration)) *debts {
	if count == nil {
		count = func(string, time.Duration) {}
	}
	return &debts{part: max(1, payShare/int64(runtime.GOMAXPROCS(0))), count: count, of: map[string]*debt{}}
}

// add has d grow, or become less, after what was forgiven meanwhile.
func (d *debt) add(more time.Duration, pardon time.Duration, now time.Time) {
	forgiven := time.Duration(now.Sub(d.at).Seconds() * float64(pardon))
	d.owed, d.at = min(max(max(d.owed-forgiven, 0)+more, 0), mostOwed), now
}

// collect has d be paid, if it is more than grace, and returns how long that takes
// after those who pay already. No more than most is paid at a time, and where so
// many pay that their wait would be longer than mostWait, only what its time is
// worth: who opens many connections pays no faster. The caller holds mu.
func (s *debts) collect(d *debt, grace, most time.Duration, now time.Time) time.Duration {
	if d.owed <= grace {
		return 0
	}
	if s.paid.Before(now) {
		s.paid = now
	}
	amount := min(d.owed-grace/2, most)
	if room := now.Add(mostWait).Sub(s.paid); int64(amount)*s.part > int64(room) {
		amount = max(min(amount, leastPaid), room/time.Duration(s.part))
	}
	s.paid = s.paid.Add(time.Duration(int64(amount) * s.part))
	if latest := now.Add(mostWait); s.paid.After(latest) {
		s.paid = latest
	}
	d.owed -= amount
	return s.paid.Sub(now)
}

// pay is how long the connection that owes d has to wait.
func (s *debts) pay(d *debt, now time.Time) time.Duration {
	if d.owed <= connectionGrace {
		return 0
	}
	s.mu.Lock()
	wait := s.collect(d, connectionGrace, mostPaid, now)
	s.mu.Unlock()
	s.count(telemetry.DelayedConnection, wait)
	return wait
}

// payFor is how long a new connection from address has to wait.
func (s *debts) payFor(address string, now time.Time) time.Duration {
	wait := time.Duration(0)
	s.mu.Lock()
	if d := s.of[address]; d != nil {
		d.add(0, addressPardon, now)
		wait = s.collect(d, addressGrace, mostGreeting, now)
	}
	s.mu.Unlock()
	if wait > 0 {
		s.count(telemetry.DelayedAddress, wait)
	}
	return wait
}

// charge has connections of an address owe more, or less.
func (s *debts) charge(address string, more time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.of[address]
	if d == nil {
		if more <= 0 || !s.hasRoom(now) {
			return
		}
		d = &debt{at: now}
		s.of[address] = d
	}
	d.add(more, addressPardon, now)
}

// hasRoom forgets who owes nothing any more, where there are too many. The caller
// holds mu.
func (s *debts) hasRoom(now time.Time) bool {
	if len(s.of) >= mostAddresses && now.Sub(s.swept) > time.Second {
		s.swept = now
		for address, d := range s.of {
			if d.add(0, addressPardon, now); d.owed == 0 {
				delete(s.of, address)
			}
		}
	}
	return len(s.of) < mostAddresses
}
