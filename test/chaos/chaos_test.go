// Package chaos kills, freezes and starves API servers, their etcd and the
// proxies in front of them while clients read and write through all of the
// proxies, and checks that what the clients saw can have happened.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	// roundTime is how long clients work on one set of keys: long enough for
	// several faults, and short enough to be checked.
	roundTime = 12 * time.Second
	shortTime = 2 * roundTime
	// checkTime bounds how long a round may take to check.
	checkTime = 30 * time.Second
	// breath is what a client takes that got no answer.
	breath = 50 * time.Millisecond

	clients   = 12
	followers = 6
)

// lengthOf is how long PORTICO_CHAOS asks to go on, or a short time.
func lengthOf(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PORTICO_CHAOS")
	if text == "" {
		return shortTime
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PORTICO_CHAOS: %v", err)
	}
	return length
}

// seedOf is the seed that PORTICO_CHAOS_SEED asks for, or a new one. It decides
// on the faults and on what clients do; how the two fall together it does not.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("PORTICO_CHAOS_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("PORTICO_CHAOS_SEED: %v", err)
	}
	return seed
}

func TestNothingIsLostAndNothingGoesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; -short was given")
	}
	seed, length := seedOf(t), lengthOf(t)
	t.Logf("PORTICO_CHAOS_SEED=%d, %s", seed, length)
	w := newWorld(t, keep, make([][]string, replicas))
	end := time.Now().Add(length)
	var crowd []*follower
	for id := range followers {
		crowd = append(crowd, w.follow(rand.New(rand.NewPCG(seed, uint64(1000+id)))))
	}
	for round := 0; !t.Failed() && (round == 0 || time.Now().Before(end)); round++ {
		t.Run(fmt.Sprintf("round-%d", round), func(t *testing.T) {
			h := w.newHistory(t, round)
			faults := rand.New(rand.NewPCG(seed, uint64(round)))
			h.run(seed, func(until time.Time) { w.disturb(t, faults, until) })
			w.calm(t)
			h.check()
		})
	}
	w.settle(t, crowd)
	for _, complaint := range compare(crowd) {
		t.Error(complaint)
	}
}

// run has clients work while disturb does its own.
func (h *history) run(seed uint64, disturb func(until time.Time)) {
	end := time.Now().Add(roundTime)
	var wg sync.WaitGroup
	for id := range clients {
		c := &client{history: h, id: id, r: rand.New(rand.NewPCG(seed, uint64(id)))}
		wg.Go(func() {
			for time.Now().Before(end) {
				c.act()
			}
		})
	}
	disturb(end)
	wg.Wait()
}
