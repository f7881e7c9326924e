package throttle

import "github.com/portico-proxy/portico/core/limit"

// Replay says what would have become of a request that came now, and because of
// which limit, if one had something to say. Nobody waits: a request that would
// have been delayed leaves a debt behind, so that the next one would wait for
// longer. How many were in flight is not known.
func (l *Limiter) Replay(limits []limit.Limit) (outcome string, by *limit.Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &waiter{claims: l.claims(limits)}
	blocked := l.try(w, nil)
	if blocked != nil && (blocked.limit.OnExceed != limit.Delay || blocked.wait > blocked.limit.MaxDelay) {
		return rejected, blocked.limit
	}
	outcome = admitted
	if blocked != nil {
		outcome, by = delayed, blocked.limit
	}
	for i := range w.claims {
		c := &w.claims[i]
		waits := !c.room && rank(c) == 1
		if !c.room && !waits && outcome == admitted {
			outcome, by = (&pass{}).note(c, admitted), c.limit
		}
		c.bucket.enter(c.limit, c.room || waits)
		c.bucket.running--
	}
	return outcome, by
}
