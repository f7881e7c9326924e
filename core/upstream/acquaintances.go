package upstream

import (
	"hash/maphash"
	"net/http"
	"sync"
)

// acquaintances are credentials that the API server has let in. It closes the HTTP/2
// connection to whom it does not let in, and to whoever says not who he is (see
// UnauthenticatedHTTP2DOSMitigation in k8s.io/apiserver): on one that all callers
// share, a few such requests would have everybody's connection made anew all the time.
// So whoever is not known travels with others who are not.
type acquaintances struct {
	seed maphash.Seed

	mu            sync.RWMutex // guards following
	young, others map[uint64]struct{}
}

// mostAcquaintances is how many are kept in each of two generations: those in use
// when one is full are taken on into the next.
const mostAcquaintances = 8192

func newAcquaintances() *acquaintances {
	return &acquaintances{seed: maphash.MakeSeed(), young: map[uint64]struct{}{}}
}

// of is the credential that r bears, or 0. What the API server does not take for one
// leaves a caller as unknown as nothing.
func (a *acquaintances) of(r *http.Request) uint64 {
	token := TokenOf(r)
	if token == "" {
		return 0
	}
	return maphash.String(a.seed, token)
}

func (a *acquaintances) know(credential uint64) bool {
	if credential == 0 {
		return false
	}
	a.mu.RLock()
	_, young := a.young[credential]
	_, other := a.others[credential]
	a.mu.RUnlock()
	if other && !young {
		a.add(credential)
	}
	return young || other
}

// learn takes note of what the API server said to r, whose credential that is. Some
// answers say nothing: it refuses what it cannot read, or has no time for, before it
// looks who asks, and lets browsers ask without (WithCORS, OPTIONS).
func (a *acquaintances) learn(r *http.Request, credential uint64, status int) {
	switch {
	case credential == 0:
	case status == http.StatusUnauthorized:
		a.mu.Lock()
		delete(a.young, credential)
		delete(a.others, credential)
		a.mu.Unlock()
	case r.Method != http.MethodOptions && (status/100 == 2 || status == http.StatusForbidden) && !a.know(credential):
		a.add(credential)
	}
}

func (a *acquaintances) add(credential uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.young) >= mostAcquaintances {
		a.young, a.others = map[uint64]struct{}{}, a.young
	}
	a.young[credential] = struct{}{}
}
