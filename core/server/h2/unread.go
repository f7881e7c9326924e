package h2

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// unreadTime is how long a client may take to read the end of an answer, up to
	// heldSize, whose handler has returned: nothing else bounds it then. It may be
	// twice as long.
	unreadTime = time.Minute
	// mostUnread is how many such answers there may be on all connections together.
	// Each keeps some thirty kilobytes.
	mostUnread = 1024
)

var errUnread = errors.New("the client does not read the end of the answer")

// unread counts answers whose ends wait for their clients.
type unread struct {
	waiting   atomic.Int64
	relieving sync.Mutex // held by whoever gives some up
}

// isEnding reports whether nothing but sending is left to be done for s. The caller
// holds mu.
func (s *stream) isEnding() bool { return s.offer != nil && s.offer.end }

// inspect gives up answers that were to be ended when it was last called.
func (c *conn) inspect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over != nil {
		return
	}
	var late []*stream
	for _, s := range c.streams {
		if s.isEnding() && s.seen {
			late = append(late, s)
		}
		s.seen = s.isEnding()
	}
	c.giveUp(late)
	c.look.Reset(c.unreadTime)
}

// giveUp resets streams whose client does not read. The caller holds mu.
func (c *conn) giveUp(these []*stream) {
	if len(these) == 0 {
		return
	}
	for _, s := range these {
		c.reset(s, http2.ErrCodeEnhanceYourCalm, errUnread)
	}
	c.hurry(c.stall)
	c.flushAside()
}

// endSlowly waits as s does, and counts that it does.
func (c *conn) endSlowly(s *stream) {
	c.unread.Add(1)
	if c.ends.waiting.Add(1) > c.mostUnread {
		c.relieve()
	}
	<-s.wake
	c.ends.waiting.Add(-1)
	c.unread.Add(-1)
}

// relieve gives up a quarter of the answers that clients do not read: the oldest of
// the connections that have most, of the addresses that have most.
func (s *server) relieve() {
	if !s.ends.relieving.TryLock() {
		return
	}
	defer s.ends.relieving.Unlock()
	left := max(1, int(s.mostUnread)/4)
	for _, c := range s.slowest() {
		if left -= c.giveUpOldest(left); left <= 0 {
			return
		}
	}
}

// slowest are connections with unread answers, those first that are to lose some.
func (s *server) slowest() []*conn {
	of := map[string]int32{}
	has := map[*conn]int32{}
	s.mu.Lock()
	for c := range s.conns {
		if n := c.unread.Load(); n > 0 {
			has[c] = n
			of[c.address] += n
		}
	}
	s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(has), func(a, b *conn) int {
		return cmp.Or(cmp.Compare(of[b.address], of[a.address]), cmp.Compare(a.address, b.address), cmp.Compare(has[b], has[a]))
	})
}

// giveUpOldest gives up as many as most, and returns how many it was.
func (c *conn) giveUpOldest(most int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ending []*stream
	for _, s := range c.streams {
		if s.isEnding() {
			ending = append(ending, s)
		}
	}
	slices.SortFunc(ending, func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
	ending = ending[:min(most, len(ending))]
	c.giveUp(ending)
	return len(ending)
}
