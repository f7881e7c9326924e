package cache

import (
	"errors"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
)

// A proxy that has this one for its API server need not wait for a bookmark. It
// asks by a short watch from where it is and is told at once: see
// [stream.ProgressHeader].
//
// Whoever may watch may ask. All who ask at a time share one question to upstream,
// as consistent lists do, so it costs upstream no more than those.

// errBarren ends an answer to who asks for progress: he would wait in vain.
var errBarren = errors.New("bookmarks of the API server stay away")

// provesProgress reports whether progress of what a watches is proven on demand. A
// session hears of what it need know, not of the newest there is.
func (a *answer) provesProgress() bool {
	return a.bookmarks && !a.session && a.entry.Bookmark() != nil
}

// asksProgress reports whether a asks how far upstream has come.
func (a *answer) asksProgress() bool {
	return a.r.Header.Get(stream.ProgressHeader) == stream.ProgressNow && a.provesProgress() && a.isShort() && a.rv > 0
}

// vain returns an error if f asks for what it will not get in time: who asks has other
// ways.
func (f *follower) vain() error {
	if f.asks && f.entry.IsBarren() {
		return errBarren
	}
	return nil
}

// isAnswerable reports whether a bookmark can answer who asks for progress: a proof
// has been found, and of a revision that is not before what is known to who asks,
// as it is after etcd was restored.
func (f *follower) isAnswerable() bool { return f.proof.err == nil && f.proof.rv >= f.begun }

// tellSame has the one who asks told that at rv the objects are those of st, of which
// everything has been sent: those that he has, unless he has come further.
func (f *follower) tellSame(st *stream.State, rv uint64) {
	if st.Applied >= f.begun {
		f.same = rv
	}
}

// tellProgress answers who asks for progress. It always reports false: that ends
// the watch.
func (f *follower) tellProgress() bool {
	f.entry.counts.proofs.add(f.proof.how)
	_ = f.sendBookmark(f.reached, false) && f.sendBookmark(max(f.reached, f.same), false)
	return false
}
