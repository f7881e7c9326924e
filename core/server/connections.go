package server

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/portico-proxy/portico/core/limit"
)

// mostConnections is how many there may be at a time.
func (o Options) mostConnections() int {
	const most = 20000
	if o.MaxConnections > 0 {
		return o.MaxConnections
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return most
	}
	// The other half is for connections to the API server.
	return int(min(most, max(files.Cur/2, 1)))
}

// A crowd is the open connections, by the address they come from (of IPv6, its
// network). There are no more than most of them: then whoever has the most loses one
// to whoever has fewer, so that nobody keeps others out. Where many share an address,
// those that have had something answered are kept.
type crowd struct {
	most int
	log  logr.Logger

	mu    sync.Mutex // guards following
	total int
	from  map[string]*party
	told  time.Time // when the log was
	lost  int       // connections, since then
}

// A party is the connections from one address, the oldest first: fresh ones have had
// nothing answered.
type party struct{ fresh, settled []*counted }

func (p *party) size() int { return len(p.fresh) + len(p.settled) }

// of is the connections of p that are as c is.
func (p *party) of(c *counted) *[]*counted {
	if c.settled {
		return &p.settled
	}
	return &p.fresh
}

// remove takes c out. Those that go are mostly new: servers keep old connections.
func (p *party) remove(c *counted) {
	these := p.of(c)
	for i, one := range slices.Backward(*these) {
		if one == c {
			*these = slices.Delete(*these, i, i+1)
			return
		}
	}
}

func newCrowd(most int, log logr.Logger) *crowd {
	return &crowd{most: most, log: log, from: map[string]*party{}}
}

// tellEvery is how often the log is told that connections are closed.
const tellEvery = time.Minute

// tell says that a connection from host is closed, or not let in. The caller holds mu.
func (s *crowd) tell(host string) {
	s.lost++
	if now := time.Now(); now.Sub(s.told) >= tellEvery {
		s.log.Info("connections are at their limit (--max-connections): some are closed", "limit", s.most, "address", host, "closed", s.lost)
		s.told, s.lost = now, 0
	}
}

// counted is a connection that a crowd knows of.
type counted struct {
	net.Conn
	crowd    *crowd
	host     string
	settling sync.Once
	once     sync.Once

	// crowd.mu guards following.
	settled bool
	gone    bool
}

// settle is called when something was answered on c that is no refusal.
func (c *counted) settle() {
	c.settling.Do(func() {
		c.crowd.mu.Lock()
		defer c.crowd.mu.Unlock()
		if c.gone {
			return
		}
		p := c.crowd.from[c.host]
		p.remove(c)
		c.settled = true
		p.settled = append(p.settled, c)
	})
}

// Close takes c out of the crowd.
func (c *counted) Close() error {
	c.once.Do(func() { c.crowd.leave(c) })
	return c.Conn.Close()
}

// enter counts c, and reports false if there is no room for it.
func (s *crowd) enter(c net.Conn) (net.Conn, bool) {
	host := limit.AddressOf(c.RemoteAddr().String())
	one := &counted{Conn: c, crowd: s, host: host}
	s.mu.Lock()
	var out *counted
	if s.total >= s.most {
		if out = s.displaced(host); out == nil {
			s.tell(host)
			s.mu.Unlock()
			return nil, false
		}
		s.tell(out.host)
	}
	p := s.from[host]
	if p == nil {
		p = &party{}
		s.from[host] = p
	}
	p.fresh = append(p.fresh, one)
	s.total++
	s.mu.Unlock()
	if out != nil {
		_ = out.Close()
	}
	return one, true
}

// displaced is the connection that is to go for one from host, or nil: one of the
// address that has the most, if that is more than host would have then, or else one
// of host's own that has had nothing answered. The caller holds mu.
func (s *crowd) displaced(host string) *counted {
	own, most := s.from[host], &party{}
	if own == nil {
		own = &party{}
	}
	for _, p := range s.from {
		if p.size() > most.size() {
			most = p
		}
	}
	switch {
	case most.size() <= own.size()+1:
		most = own
	case len(most.fresh) == 0:
		return most.settled[len(most.settled)-1]
	}
	if len(most.fresh) == 0 {
		return nil
	}
	// The oldest: who means well is soon answered.
	return most.fresh[0]
}

func (s *crowd) leave(c *counted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	c.gone = true
	p := s.from[c.host]
	if p.remove(c); p.size() == 0 {
		delete(s.from, c.host)
	}
}
