package wasm

import (
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxCounters bounds how many counters a module may have.
const maxCounters = 4096

// counters are what a module with the capability kv remembers between calls.
type counters struct {
	mu     sync.Mutex
	values map[string]counter
	now    func() time.Time
}

type counter struct {
	value   int64
	expires time.Time
}

func newCounters() *counters { return &counters{values: map[string]counter{}, now: time.Now} }

// add returns the counter's new value. It lives for ttl from its first add.
func (c *counters) add(key string, delta int64, ttl time.Duration) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	v, ok := c.values[key]
	if !ok || !v.expires.After(now) {
		if !ok && len(c.values) >= maxCounters {
			c.evict(now)
		}
		v = counter{expires: now.Add(ttl)}
	}
	v.value += delta
	c.values[key] = v
	return v.value
}

// evict drops what has expired, or else what expires first.
func (c *counters) evict(now time.Time) {
	first, when := "", time.Time{}
	for key, v := range c.values {
		if !v.expires.After(now) {
			delete(c.values, key)
			continue
		}
		if when.IsZero() || v.expires.Before(when) {
			first, when = key, v.expires
		}
	}
	if len(c.values) >= maxCounters {
		delete(c.values, first)
	}
}

func (c *counters) get(key string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.values[key]; ok && v.expires.After(c.now()) {
		return v.value
	}
	return 0
}

// clean makes what a guest says fit for headers, logs and errors.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
