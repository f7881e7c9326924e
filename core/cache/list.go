package cache

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
)

// list answers a LIST. The cases are those of kube-apiserver's watch cache
// (k8s.io/apiserver/pkg/storage/cacher: delegator.go, watch_cache.go).
func (a *answer) list() (bool, error) {
	_, single := a.single(a.entry.Schema)
	switch {
	case a.token != "":
		return a.listPage()
	case single && a.isLegacyExact():
		// Of one object the API server answers the newest version there is: it
		// takes resourceVersion for a minimum and does not ask its watch cache.
		return a.decline(telemetry.PassedUnsupported)
	case a.match == metav1.ResourceVersionMatchExact, a.isLegacyExact():
		return a.listExactly(a.rv, "")
	case a.resourceVersion == "" && !a.session:
		return a.listNewest()
	}
	st, ok := a.reach(a.rv)
	if !ok {
		return false, nil // upstream says that rv is too large, if it is
	}
	return a.page(st.Now(), "", a.indexed(), a.entry.Age())
}

// listNewest answers with a state no older than the request.
func (a *answer) listNewest() (bool, error) {
	now, err := a.probe()
	if err != nil {
		return false, nil // upstream's own error is the better one
	}
	st, ok := a.wait(now, naturally)
	how := telemetry.ProofNatural
	if !ok {
		objects, _ := a.entry.State().Bytes()
		if objects < smallCollection {
			return a.coalesce()
		}
		how = telemetry.ProofCatchUp
		a.entry.CatchUp(now)
		if !a.entry.IsBarren() {
			st, ok = a.wait(now, catchUpPatience)
		}
		switch {
		case !ok && objects < affordableCollection:
			return a.coalesce()
		case !ok:
			a.entry.counts.proofs.add(telemetry.ProofFailed)
			return false, nil
		}
	}
	a.entry.counts.proofs.add(how)
	return a.page(st.Now(), "", a.indexed(), 0)
}

// listPage continues where another page ended, here or upstream.
func (a *answer) listPage() (bool, error) {
	from, rv, ok := a.place()
	if !ok {
		return a.decline(telemetry.PassedUnsupported)
	}
	return a.listExactly(rv, from)
}

// place is the key and the resourceVersion that the token says to go on from. -1
// asks for the rest of the newest state after a 410, which is upstream's to tell.
func (q *question) place() (from string, rv uint64, ok bool) {
	from, at, err := storage.DecodeContinue(q.token, "/")
	if err != nil || at <= 0 {
		return "", 0, false
	}
	from = strings.TrimPrefix(from, "/")
	if q.namespace != "" {
		from = q.namespace + "/" + from
	}
	return from, uint64(at), true
}

func (a *answer) listExactly(rv uint64, from string) (bool, error) {
	st, ok := a.reach(rv)
	if !ok {
		return false, nil
	}
	at, ok := st.At(rv)
	if !ok {
		return a.decline(telemetry.PassedHistory) // upstream may remember more
	}
	return a.page(at, from, stream.Scope{}, a.entry.Age())
}

// page is what a list answers.
type page struct {
	meta  metav1.ListMeta
	items []*wire.Object
	bytes int
	// open says that it is not known whether there are more: that depends on
	// what lies beside the part of the collection that is kept.
	open bool

	last string // key of the last item
	left int64  // objects behind it
	err  error  // it cannot be told what exists
}

// add adds what is seen of o.
func (p *page) add(o *wire.Object, seen []byte) {
	p.last = o.Key
	if !view.Unchanged(o.Raw, seen) {
		o = &wire.Object{Raw: seen}
	}
	p.items = append(p.items, o)
	p.bytes += len(seen)
}

// page answers with what is selected of at, beginning at key from. Whether there are
// more pages depends on what is left of the objects in index, selected or not.
func (a *answer) page(at stream.Snapshot, from string, index stream.Scope, age time.Duration) (bool, error) {
	p := &page{meta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(at.ResourceVersion, 10)}}
	if key, ok := a.single(a.entry.Schema); ok {
		a.turn(p, at.Get(key))
		return a.send(p, age)
	}
	limit := int(a.limit)
	if a.resourceVersion == "0" {
		limit = 0 // the API server ignores it there
	}
	all := a.seesAll()
	at.Ascend(a.within(a.entry.Schema), from, func(o *wire.Object) bool {
		if limit > 0 && len(p.items) == limit {
			if index.Field != "" && o.Fields().Get(index.Field) != index.Value {
				return true
			}
			return a.isLeft(p, o, all)
		}
		return a.turn(p, o)
	})
	p.open = p.left == 0 && limit > 0 && len(p.items) == limit && a.entry.Scope.Field != "" && a.entry.Scope != index
	if p.left > 0 {
		p.meta.Continue = a.continueAfter(p.last, at.ResourceVersion)
		if all {
			p.meta.RemainingItemCount = &p.left
		}
	}
	return a.send(p, age)
}

// turn adds o to p if it exists for the caller. It reports whether to go on.
func (a *answer) turn(p *page, o *wire.Object) bool {
	seen, err := a.see(a.r.Context(), o)
	if p.err = err; seen != nil {
		p.add(o, seen)
	}
	return err == nil
}

// isLeft counts what comes behind p, and reports whether to go on. How many there
// are is told only where all of them are seen. What does not exist for the caller is
// not there to come.
func (a *answer) isLeft(p *page, o *wire.Object, all bool) bool {
	if a.views != nil {
		seen, err := a.see(a.r.Context(), o)
		if p.err = err; seen == nil {
			return err == nil
		}
	}
	p.left++
	return all
}

// continueAfter makes a token that any API server can continue by. Keys in it
// are relative to what is listed (k8s.io/apiserver/pkg/storage/continue.go):
// to the path, also where a field selector names a namespace. There the API
// server's own are relative to that namespace, though it reads them relative to
// the path and so shows objects twice or not at all.
func (q *question) continueAfter(key string, rv uint64) string {
	if q.namespace != "" {
		key = strings.TrimPrefix(key, q.namespace+"/")
	}
	token, err := json.Marshal(struct {
		Version         string `json:"v"`
		ResourceVersion uint64 `json:"rv"`
		Start           string `json:"start"`
	}{"meta.k8s.io/v1", rv, "/" + key + "\x00"})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(token)
}

func (a *answer) send(p *page, age time.Duration) (bool, error) {
	switch {
	case p.err != nil:
		return false, p.err
	case p.open:
		return a.decline(telemetry.PassedUnsupported)
	}
	return a.sendAs(p, servedByCache, age)
}

func (a *answer) sendAs(p *page, servedBy string, age time.Duration) (bool, error) {
	a.head(a.form.MediaType(), servedBy, age)
	return true, a.write(p.bytes, func(w io.Writer) error { return a.writer.List(w, p.meta, p.items) })
}

var bodyBuffers = newWriterPool(64 << 10)

// write sends an answer of about size bytes, compressed if that is wanted. An
// error after the first byte cuts the connection.
func (a *answer) write(size int, body func(io.Writer) error) error {
	zip := size > gzipThreshold && acceptsGzip(a.r) && a.cache.compress(a.r)
	if zip {
		a.w.Header().Set("Content-Encoding", "gzip")
		a.w.Header().Add("Vary", "Accept-Encoding")
	}
	a.w.WriteHeader(http.StatusOK)
	var to io.Writer = a.w
	var slow *timely
	if size > timelyThreshold {
		slow = newTimely(a.w)
		to = slow
	}
	buf := bodyBuffers.get(to)
	defer bodyBuffers.put(buf)
	var err error
	if zip {
		err = compressed(buf, body)
	} else {
		err = body(buf)
	}
	if err == nil {
		err = buf.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone: half an answer is none
	}
	slow.done()
	return nil
}
