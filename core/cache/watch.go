package cache

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
)

const (
	// bookmarkEvery and bookmarkBefore a watch's deadline are kube-apiserver's
	// (k8s.io/apiserver/pkg/storage/cacher: defaultBookmarkFrequency,
	// nextBookmarkTime).
	bookmarkEvery  = time.Minute
	bookmarkBefore = 2 * time.Second
	// proofPatience is how long the end of initial events may take to prove.
	proofPatience = 10 * time.Second
	// stallPatience is how long after its watch has ended a client that takes
	// nothing may keep us.
	stallPatience = time.Minute
)

// watch answers a WATCH.
func (a *answer) watch() (bool, error) {
	a.newest = a.newest && !a.session
	if !a.initial {
		return a.watchFrom(a.entry.State())
	}
	if a.bookmarks && !a.knowsBookmarks() {
		return a.decline(telemetry.PassedLoading)
	}
	st := a.entry.State()
	switch {
	case a.newest && a.bookmarks:
		// The state goes out at once; its end is told once it is proven.
		return a.watchState(st, 0)
	case a.newest:
		// Nothing will tell the client when it is current, so it must be.
		now, err := a.cache.newest(a.r.Context(), a.entry)
		if err != nil {
			return false, nil
		}
		a.rv = now
	}
	st, ok := a.reach(a.rv)
	if !ok {
		return false, nil
	}
	return a.watchState(st, a.rv)
}

func (a *answer) knowsBookmarks() bool {
	b := a.entry.Bookmark()
	return b != nil && b.HasInitial()
}

// watchFrom replays what happened after a.rv and follows. Without initial
// events, resourceVersions "" and "0" mean now.
func (a *answer) watchFrom(st *stream.State) (bool, error) {
	from := a.rv
	if from == 0 {
		from = st.Applied
		if a.newest {
			now, err := a.cache.newest(a.r.Context(), a.entry)
			if err != nil {
				return false, nil
			}
			from = now
		}
	}
	at, ok := st.From(from)
	if !ok {
		return a.splice(from) // upstream may remember more, or says 410
	}
	f := a.follow(at, from)
	f.since = from
	defer f.stop()
	if f.asks = a.asksProgress(); f.asks {
		f.owes = lastBookmark
	}
	if f.isShort() {
		f.prove()
	}
	f.run()
	return true, nil
}

// watchState sends st's objects and follows. Where the client asked for
// bookmarks, one tells it that it has all of a state no older than need; need 0
// is the newest there is.
func (a *answer) watchState(st *stream.State, need uint64) (bool, error) {
	now := st.Now()
	f := a.follow(st.End(), now.ResourceVersion)
	f.since = now.ResourceVersion // memory may yet hear of what led there
	defer f.stop()
	if a.bookmarks {
		f.owes, f.need = endOfInitial, max(need, now.ResourceVersion)
		if a.newest {
			f.overdue = time.After(proofPatience)
			f.prove()
		}
	}
	if f.sendState(now) {
		f.run()
	}
	return true, nil
}

// follower is one watch on its way.
type follower struct {
	*answer
	ctx     context.Context
	cancel  context.CancelFunc
	out     *bufio.Writer // nil while nothing waits to be flushed
	to      io.Writer     // where that goes
	until   time.Time     // when the connection is done with
	rc      *http.ResponseController
	scratch []byte

	at      stream.Cursor
	since   uint64 // events up to here are not sent
	begun   uint64 // where the watch began
	reached uint64 // everything up to here has been sent

	asks    bool          // how far upstream has come, see progress.go
	same    uint64        // what it is told of that, if not reached
	owes    owed          // the bookmark that is still to come
	need    uint64        // from where on it may
	proof   proof         // how new the newest state is
	proven  chan struct{} // closed once proof is there; nil if nobody asks
	proving sync.WaitGroup
	overdue <-chan time.Time // when to give up on it
	unequal <-chan time.Time // when to prove it otherwise than by a listing
	pulse   *time.Timer      // the next bookmark
}

// owed is a bookmark that waits for the stream to have come far enough.
type owed uint8

const (
	nothing      owed = iota
	endOfInitial      // events
	lastBookmark      // of a short watch
)

// proof is the outcome of asking how new the newest state is.
type proof struct {
	rv      uint64
	err     error
	how     string
	listing *listing // of the newest state, if that could be had
}

// follow begins the answer: headers go out before the first event does.
func (a *answer) follow(at stream.Cursor, begun uint64) *follower {
	contentType := a.form.MediaType()
	if a.form.Format == wire.Protobuf {
		contentType += ";stream=watch"
	}
	a.head(contentType, servedByCache, a.entry.Age())
	if a.provesProgress() {
		a.w.Header().Set(stream.ProgressHeader, stream.ProgressOnDemand)
	}
	f := &follower{answer: a, to: a.w, at: at, begun: begun, reached: begun, rc: http.NewResponseController(a.w)}
	f.ctx, f.cancel = a.lasting()
	f.pulse = time.NewTimer(time.Hour)
	f.schedule()
	deadline, _ := f.ctx.Deadline()
	f.until = deadline.Add(stallPatience)
	_ = f.rc.SetWriteDeadline(f.until)
	a.w.WriteHeader(http.StatusOK)
	_ = f.rc.Flush()
	a.entry.watchers.Add(1)
	return f
}

func (f *follower) stop() {
	f.entry.watchers.Add(-1)
	if errors.Is(context.Cause(f.ctx), view.ErrChanged) {
		f.sendStatus(view.Expired())
	}
	f.cancel()
	f.pulse.Stop()
	f.flush() // never half an event
	f.release()
	_ = f.rc.SetWriteDeadline(time.Time{})
	f.proving.Wait()
}

// schedule sets the next bookmark: every minute, and shortly before the end. It
// reports false if there is no next one.
func (f *follower) schedule() bool {
	deadline, _ := f.ctx.Deadline()
	wait := min(bookmarkEvery, time.Until(deadline)-bookmarkBefore)
	if !f.bookmarks || wait < 0 {
		f.pulse.Stop()
		return false
	}
	f.pulse.Reset(wait)
	return true
}

// prove asks how new the newest state is, while the watch goes on.
func (f *follower) prove() {
	proven := make(chan struct{})
	f.proven, f.unequal = proven, nil
	f.need = 1<<64 - 1
	f.proving.Go(func() {
		f.proof = f.ask()
		close(proven)
	})
}

// ask finds out how new the newest state is, and sees to it that it is reached.
func (f *follower) ask() proof {
	if !f.entry.IsAsked() { // else that is as cheap, and proves it of memory itself
		if l := f.entry.list(f.ctx, f.question); l != nil {
			return proof{rv: l.rv, how: telemetry.ProofNatural, listing: l}
		}
	}
	rv, err := f.cache.newest(f.ctx, f.entry)
	p := proof{rv: rv, err: err, how: telemetry.ProofNatural}
	if err != nil {
		return p
	}
	if _, ok := f.wait(rv, naturally); !ok {
		f.catchUp(&p)
		p.err = f.vain()
	}
	return p
}

func (f *follower) catchUp(p *proof) {
	p.how = telemetry.ProofCatchUp
	f.entry.CatchUp(p.rv)
}

// sendState sends every object that is asked for. It reports false if the
// client is gone. One that stopped reading would keep all that was there then: it has
// as long as for a list.
func (f *follower) sendState(at stream.Snapshot) bool {
	slow := newTimely(f.w)
	f.to = slow
	defer func() {
		f.to = f.w
		slow.end(f.until)
	}()
	if key, ok := f.single(f.entry.Schema); ok {
		return f.sendAdded(at.Get(key))
	}
	ok := true
	at.Ascend(f.namespace, "", func(o *wire.Object) bool {
		ok = f.sendAdded(o)
		return ok && f.ctx.Err() == nil
	})
	return ok
}

// sendAdded sends o if it exists for the watcher.
func (f *follower) sendAdded(o *wire.Object) bool {
	seen, err := f.see(f.ctx, o)
	if err != nil {
		return f.sendUnseen(err)
	}
	return seen == nil || f.send(kwatch.Added, seen)
}

// run sends what happens until somebody has had enough.
func (f *follower) run() {
	for f.ctx.Err() == nil && f.takeProof() {
		st := f.entry.State()
		e, on := st.Event(f.at)
		switch {
		case !on:
			f.entry.counts.slow.Add(1)
			return // too slow for the history
		case e == nil:
			f.reached = max(f.reached, st.Applied)
			f.compare(st)
			if !f.settle() || !f.flush() || !f.rest(st) {
				return
			}
		default:
			// A revision may have several events: its end is where the next begins.
			rv := e.ResourceVersion // e, and all that was there then, may go while it is sent
			if rv > f.reached && !f.settle() || !f.sendEvent(e) {
				return
			}
			f.reached = max(f.reached, rv)
			f.at++
		}
	}
}

// compare sees whether st, of which everything has been sent, is known to be what
// there is. Then a client that wants the state has it, and what memory still hears of
// up to there (an object that came and went) is not for it.
func (f *follower) compare(st *stream.State) {
	if f.owes == nothing || f.proven != nil || f.reached >= f.need {
		return
	}
	same := st.Same()
	if l := f.proof.listing; l != nil && l.rv >= f.need && l.is(st.Here()) {
		if same = l.rv; l.key == "" {
			f.entry.Confirm(st, l.rv, l.at)
		}
	}
	switch {
	case same < f.need:
	case f.asks:
		f.tellSame(st, same)
	case f.owes == endOfInitial:
		f.since, f.reached, f.proof.how = same, same, telemetry.ProofCoalesced
	}
}

// settle sends the bookmark that is owed, once it is true. It reports false if
// the client is gone.
func (f *follower) settle() bool {
	if f.owes == nothing || f.reached < f.need && f.same == 0 {
		return true
	}
	if f.asks {
		return f.tellProgress()
	}
	ends := f.owes == endOfInitial
	f.owes, f.overdue, f.unequal, f.proof.listing = nothing, nil, nil, nil
	if ends && f.newest {
		f.entry.counts.proofs.add(f.proof.how)
	}
	return (!ends && f.reached == f.begun) || f.sendBookmark(f.reached, ends)
}

// takeProof learns from when on the bookmark that is owed is true. It reports
// false if the watch is over.
func (f *follower) takeProof() bool {
	select {
	case <-f.proven:
		f.proven = nil
		f.need = max(f.proof.rv, f.begun)
		if f.proof.listing != nil {
			f.unequal = time.After(naturally)
		}
		if f.asks && !f.isAnswerable() {
			return false
		}
		return f.proof.err == nil || f.owes != endOfInitial || f.sendError()
	default:
		return true
	}
}

// rest waits for something to do. It reports false if the watch is over.
func (f *follower) rest(st *stream.State) bool {
	select {
	case <-st.Changed():
		return true
	case <-f.ctx.Done():
		return false
	case <-f.entry.Done():
		return false
	case <-f.proven:
		return true
	case <-f.unequal:
		f.unequal = nil
		f.catchUp(&f.proof)
		return true
	case <-f.overdue:
		return f.sendError()
	case <-f.pulse.C:
		return f.mark(st)
	}
}

// isShort reports a watch that wants to know what happens up to its end rather
// than to go on, such as that of a proxy behind this one that catches up. A
// quiet collection must be asked for that.
func (a *answer) isShort() bool { return a.bookmarks && a.timeout < bookmarkEvery && !a.session }

// mark sends a bookmark, or sees to it that one is sent before the end. It
// reports false if the client is gone.
func (f *follower) mark(st *stream.State) bool {
	more := f.schedule()
	switch {
	case f.owes != nothing, f.entry.Bookmark() == nil:
		return true
	case more || !f.isShort():
		return st.Applied <= max(f.begun, f.since) || f.sendBookmark(st.Applied, false)
	case f.proven == nil && st.Applied <= f.begun:
		f.prove() // once more
	}
	f.owes = lastBookmark
	return true
}

// sendEvent sends what e means to this watcher (cacheWatcher.convertToWatchEvent).
func (f *follower) sendEvent(e *stream.Event) bool {
	if e.ResourceVersion <= f.since {
		return true
	}
	f.show(e.ResourceVersion)
	var now []byte
	before, err := f.see(f.ctx, e.Previous)
	if err == nil && !e.Deleted {
		now, err = f.see(f.ctx, e.Object)
	}
	switch {
	case err != nil:
		return f.sendUnseen(err)
	case now != nil && before != nil:
		return f.send(kwatch.Modified, now)
	case now != nil:
		return f.send(kwatch.Added, now)
	case before != nil:
		raw, err := f.left(e, before)
		return err == nil && f.send(kwatch.Deleted, raw)
	}
	return true
}

func (f *follower) sendBookmark(rv uint64, ends bool) bool {
	raw, err := f.entry.Bookmark().At(rv, ends)
	return err == nil && f.send(kwatch.Bookmark, raw) && f.flush()
}

// sendError tells a client that has its initial events already that we cannot
// say whether they are the newest, as the API server does where its own cache
// stays behind. It always reports false: that ends the watch.
func (f *follower) sendError() bool {
	f.entry.counts.proofs.add(telemetry.ProofFailed)
	return f.sendStatus(apierrors.NewTimeoutError("the cache could not be proven current in time", 1))
}

// sendStatus sends an ERROR event. It always reports false: that ends the watch.
func (f *follower) sendStatus(why *apierrors.StatusError) bool {
	event, err := wire.StatusEvent(f.form.Format, why)
	if err != nil {
		return false
	}
	f.hold()
	_, err = f.out.Write(event)
	return err == nil && f.flush() && false
}

// watchBuffers are held only between an event and its flush: watches idle.
var watchBuffers = newWriterPool(32 << 10)

func (f *follower) hold() {
	if f.out == nil {
		f.out = watchBuffers.get(f.to)
	}
}

func (f *follower) release() {
	if f.out != nil {
		watchBuffers.put(f.out)
		f.out = nil
	}
}

func (f *follower) send(t kwatch.EventType, raw []byte) bool {
	f.hold()
	var err error
	f.scratch, err = f.writer.Event(f.out, f.scratch, t, raw)
	return err == nil
}

// flush sends what waits. It reports false if the client is gone.
func (f *follower) flush() bool {
	if f.out == nil {
		return true
	}
	err := f.out.Flush()
	f.release()
	return err == nil && f.rc.Flush() == nil
}
