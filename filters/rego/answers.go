package rego

import "sync"

// generation is how many answers are kept before the older ones are forgotten,
// at most twice as many at a time.
const generation = 2048

// answers remembers what a policy has said. What has not been asked for lately
// is forgotten. A policy is a function of its input, so nothing grows old.
type answers struct {
	mu         sync.RWMutex // guards following
	young, old map[string]Answer
}

// get does not allocate.
func (a *answers) get(key []byte) (Answer, bool) {
	a.mu.RLock()
	answer, ok := a.young[string(key)]
	if ok {
		a.mu.RUnlock()
		return answer, true
	}
	answer, ok = a.old[string(key)]
	a.mu.RUnlock()
	if ok {
		a.put(string(key), answer)
	}
	return answer, ok
}

func (a *answers) put(key string, answer Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.young == nil || len(a.young) >= generation {
		a.young, a.old = map[string]Answer{}, a.young
	}
	a.young[key] = answer
}

// size is how many answers are remembered.
func (a *answers) size() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.young) + len(a.old)
}
