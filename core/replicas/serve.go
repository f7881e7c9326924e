package replicas

import (
	"encoding/json"
	"io"
	"log"
	"math"
	"net/http"
	"time"
)

// quiet is for strangers who knock: that they have not come in is no news.
var quiet = log.New(io.Discard, "", 0)

// handler answers peers. Who has no certificate of their authorities does not come
// so far; who has one for another name is refused here.
func (r *Replicas) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+leasePath, func(w http.ResponseWriter, q *http.Request) {
		var h hello
		if r.take(w, q, &h, &h.Address) {
			reply(w, r.lend(h))
		}
	})
	mux.HandleFunc("POST "+floorsPath, func(w http.ResponseWriter, q *http.Request) {
		var n news
		if r.take(w, q, &n, &n.From) {
			r.ledger.Hear(n.Floors)
			reply(w, struct{}{})
		}
	})
	mux.HandleFunc("POST "+leavePath, func(w http.ResponseWriter, q *http.Request) {
		var h hello
		if r.take(w, q, &h, &h.Address) {
			r.part(h.member)
			reply(w, struct{}{})
		}
	})
	return mux
}

// take reads a message and reports whether it is from whom it says. Otherwise it
// has refused it.
func (r *Replicas) take(w http.ResponseWriter, q *http.Request, message any, from *string) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, q.Body, maxMessage)).Decode(message); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return false
	}
	if *from == r.options.Address || !r.options.Identity.isPeer(q.TLS, *from) {
		r.options.Log.Info("somebody speaks for a peer whose certificate he has not", "peer", *from, "from", q.RemoteAddr)
		w.WriteHeader(http.StatusForbidden)
		return false
	}
	return true
}

func reply(w http.ResponseWriter, message any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(message) // the peer will ask again
}

// lend answers who asks for a lease, and gets to know him.
func (r *Replicas) lend(h hello) leaseAnswer {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	p := r.meet(h.Address)
	if p.left && p.instance == h.Instance {
		return leaseAnswer{Instance: r.instance} // it was on its way for long
	}
	r.recognize(p, h.Instance)
	r.learn(h.Members)
	p.heard, p.met, p.left = now, now, false
	a := leaseAnswer{Instance: r.instance, Members: r.members()}
	if a.Granted = !p.failing && now.Sub(p.reached) < r.options.Lease; a.Granted {
		r.extend(p, now)
		return a
	}
	if !now.Before(p.theirs) {
		p.failing = false // there is nothing to tell it, until it can be reached again
	}
	select {
	case p.ask <- struct{}{}:
	default:
	}
	return a
}

// extend gives p a lease from now on. One that had none is told only of what comes
// now: what was before, it asks upstream for. The caller holds r.mu.
func (r *Replicas) extend(p *peer, now time.Time) {
	if !now.Before(p.theirs) {
		_, p.confirmed = r.ledger.Since(math.MaxUint64)
	}
	p.theirs = now.Add(r.options.Lease)
}

// part notes that a peer has ended.
func (r *Replicas) part(m member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.meet(m.Address)
	if p.instance != "" && p.instance != m.Instance {
		return // another has begun there
	}
	p.instance, p.left, p.ours, p.theirs = m.Instance, true, time.Time{}, time.Time{}
	r.lose()
	r.announce()
}
