package cache

import (
	"context"
	"io"
	"time"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/telemetry"
)

// A client of the API server cannot ask how far a watch has come; it is told
// about once a minute. So on a quiet resource nobody knows that a collection is
// current, and on a busy cluster the revision R moves on without it. We learn R
// by a probe (the smallest consistent LIST) and then take whichever comes first:
//
//   - the stream passes R by itself, because something happened to it;
//   - a small collection is fetched, once for all who wait, as their answer or to
//     see that memory has the same;
//   - a catch-up watch from where the stream is: what it delivers and the
//     bookmark it ends with prove the rest, in about a second.
const (
	// naturally is how long a stream is given to pass R by itself.
	naturally = 50 * time.Millisecond
	// catchUpPatience is how long requests wait; kube-apiserver's own bound for
	// its cache is 3 s.
	catchUpPatience = 3 * time.Second
	// smallCollection is the size in bytes up to which fetching a collection is
	// cheaper for everybody than proving that it is current.
	smallCollection = 256 << 10
	// affordableCollection is the size in bytes up to which one is fetched, once for
	// all who wait, where bookmarks stay away.
	affordableCollection = maxRecorded / 2
)

// newest returns a resourceVersion that upstream had reached after the call.
func newest(ctx context.Context, e *entry) (uint64, error) { return e.Current(ctx) }

// reach waits for the collection to reach rv, and makes it if it does not come
// by itself. It reports false if that takes too long, or if there is no such
// resourceVersion yet: what to say to that is upstream's business. A session may
// be shown the state.
func (a *answer) reach(rv uint64) (*stream.State, bool) {
	st, ok := a.attain(rv)
	if ok {
		a.show(st.Altered)
	}
	return st, ok
}

func (a *answer) attain(rv uint64) (*stream.State, bool) {
	st := a.entry.State()
	if st.Reached() >= rv {
		return st, true
	}
	if st, ok := a.wait(rv, naturally); ok {
		return st, true
	}
	if now, err := a.entry.Current(a.r.Context()); err != nil || now < rv {
		return nil, false
	}
	a.entry.CatchUp(rv)
	return a.wait(rv, catchUpPatience)
}

func (a *answer) wait(rv uint64, patience time.Duration) (*stream.State, bool) {
	ctx, cancel := context.WithTimeout(a.r.Context(), patience)
	defer cancel()
	st, err := a.entry.Reach(ctx, rv)
	return st, err == nil
}

// coalesce answers by what upstream answers to the proxy, together with all who
// ask the same at the same time. Every one of them has been granted the answer.
func (a *answer) coalesce() (bool, error) {
	if a.views != nil {
		return a.coalesceSeen()
	}
	got, done, err := a.entry.shared(a.r.Context(), a.r.URL.Path, a.r.URL.Query(), a.form.accept())
	defer done()
	if err != nil {
		a.entry.counts.proofs.add(telemetry.ProofFailed)
		return false, nil
	}
	a.entry.counts.proofs.add(telemetry.ProofCoalesced)
	a.tell(got)
	a.head(got.header.Get("Content-Type"), servedByCoalesced, 0)
	return true, a.write(len(got.body), func(w io.Writer) error { _, err := w.Write(got.body); return err })
}
