package server

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
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

// A crowd is the open connections, by the address they come from. There are no
// more than most of them: then whoever has the most loses one to whoever has
// fewer, so that nobody keeps others out.
type crowd struct {
	most int
	log  logr.Logger

	mu    sync.Mutex // guards following
	total int
	from  map[string][]*counted // the oldest first
	told  time.Time             // when the log was
	lost  int                   // connections, since then
}

func newCrowd(most int, log logr.Logger) *crowd {
	return &crowd{most: most, log: log, from: map[string][]*counted{}}
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
	crowd *crowd
	host  string
	once  sync.Once
}

// Close takes c out of the crowd.
func (c *counted) Close() error {
	c.once.Do(func() { c.crowd.leave(c) })
	return c.Conn.Close()
}

// enter counts c, and reports false if there is no room for it.
func (s *crowd) enter(c net.Conn) (net.Conn, bool) {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		host = c.RemoteAddr().String()
	}
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
	s.from[host] = append(s.from[host], one)
	s.total++
	s.mu.Unlock()
	if out != nil {
		_ = out.Close()
	}
	return one, true
}

// displaced is the connection that is to go for one from host: the newest of
// the address that has the most, if that is more than host would have then. The
// caller holds mu.
func (s *crowd) displaced(host string) *counted {
	var most []*counted
	for _, these := range s.from {
		if len(these) > len(most) {
			most = these
		}
	}
	if len(most) <= len(s.from[host])+1 {
		return nil
	}
	return most[len(most)-1]
}

func (s *crowd) leave(c *counted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	these := s.from[c.host]
	// Those that go are mostly new: servers keep old connections.
	for i, one := range slices.Backward(these) {
		if one == c {
			these = slices.Delete(these, i, i+1)
			break
		}
	}
	if s.from[c.host] = these; len(these) == 0 {
		delete(s.from, c.host)
	}
}
