package bench

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// getTurns is how often in one round a client of each road has its turn, and
	// getTurn is how many requests that is.
	getTurns = 50
	getTurn  = 20
)

// get has one client fetch one object, one request at a time.
func (t *bed) get(b *testing.B) {
	for name, accept := range formats() {
		b.Run(name, func(b *testing.B) { t.getLatency(b, question{path: t.objects.one(), accept: accept}) })
	}
}

func formats() func(yield func(name, accept string) bool) {
	return func(yield func(name, accept string) bool) {
		_ = yield("json", asJSON) && yield("protobuf", asProtobuf)
	}
}

func (t *bed) getLatency(b *testing.B, q question) {
	clients := [2]*client{t.direct.client(b), t.proxied.client(b)}
	var took [2]sample
	for _, c := range clients {
		timeGets(b, c, q, 200) // connect, and fill what is filled once
	}
	for b.Loop() {
		for range getTurns {
			for i, c := range clients {
				took[i] = append(took[i], timeGets(b, c, q, getTurn)...)
			}
		}
	}
	t.table.latency(b, took, "+0.3 ms", "+2 ms")
}

func timeGets(b *testing.B, c *client, q question, n int) sample {
	b.Helper()
	var took sample
	for range n {
		start := time.Now()
		if _, err := c.read(b.Context(), q); err != nil {
			b.Fatal(err)
		}
		took.addTime(time.Since(start))
	}
	return took
}

const (
	getClients = 32
	// getPhase is how long all clients go one way before they go the other.
	getPhase = time.Second
)

// getCPU has many clients fetch one object, each over a connection of its own.
func (t *bed) getCPU(b *testing.B) {
	for name, accept := range formats() {
		b.Run(name, func(b *testing.B) { t.getCost(b, question{path: t.objects.one(), accept: accept}) })
	}
}

func (t *bed) getCost(b *testing.B, q question) {
	var direct, proxied crowd
	direct.gather(b, t.direct)
	proxied.gather(b, t.proxied)
	for b.Loop() {
		direct.get(b, q)
		proxied.get(b, q)
	}
	t.table.cost(b, costs{direct.own, proxied.own, proxied.behind}, "0.5")
}

// A crowd is many clients of one road, and what a request of theirs takes of
// each process in milliseconds, one figure a round.
type crowd struct {
	road
	clients     []*client
	own, behind sample
}

func (c *crowd) gather(b *testing.B, r road) {
	b.Helper()
	c.road = r
	for range getClients {
		c.clients = append(c.clients, r.client(b))
	}
}

func (c *crowd) get(b *testing.B, q question) {
	b.Helper()
	var requests atomic.Int64
	took := c.measure(b, func() {
		var all sync.WaitGroup
		end := time.Now().Add(getPhase)
		for _, client := range c.clients {
			all.Go(func() {
				for time.Now().Before(end) {
					if _, err := client.read(b.Context(), q); err != nil {
						b.Error(err)
						return
					}
					requests.Add(1)
				}
			})
		}
		all.Wait()
	})
	each := time.Duration(max(requests.Load(), 1))
	c.own.addTime(took.server / each)
	c.behind.addTime(took.behind / each)
}
