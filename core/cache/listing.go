package cache

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
)

// A listing is what upstream says that objects are at one resourceVersion. Where
// memory has the very same it has come as far: what happened in between, if
// anything, has undone itself. So one small LIST proves a quiet collection current,
// or one object of it, without waiting for a bookmark.
type listing struct {
	key      string            // of the one object that was asked for, or empty
	rv       uint64            // of the list
	at       time.Time         // before it was asked for
	versions map[string]uint64 // resourceVersions by key
}

// is reports whether at holds the very objects that were listed.
func (l *listing) is(at stream.Snapshot) bool {
	if l.key != "" {
		return l.has(l.key, at.Get(l.key))
	}
	same := at.Len() == len(l.versions)
	if same {
		at.Ascend("", "", func(o *wire.Object) bool {
			same = l.has(o.Key, o)
			return same
		})
	}
	return same
}

// has reports whether o, nil for none, is what was listed under key.
func (l *listing) has(key string, o *wire.Object) bool {
	rv, listed := l.versions[key]
	if o == nil {
		return !listed
	}
	return listed && o.ResourceVersion == rv
}

// list fetches what q selects of e as it is now: the object, if it can be but one,
// or else all that is kept, if that is small, or bookmarks stay away and it is not too
// large. It returns nil if neither can be had.
func (e *entry) list(ctx context.Context, q *question) *listing {
	key, single := q.single(e.Schema)
	st := e.State()
	limit := int64(smallCollection)
	if e.IsBarren() {
		limit = affordableCollection
	}
	if objects, _ := st.Bytes(); !single && objects >= limit {
		return nil
	}
	namespace, name := e.Scope.Namespace, ""
	if single {
		namespace, name = wire.SplitKey(key)
	}
	query := url.Values{}
	if selector := e.Scope.Selector(name); selector != "" {
		query.Set("fieldSelector", selector)
	}
	at := time.Now()
	got, done, err := e.shared(ctx, stream.CollectionPath(e.Schema.Resource, namespace), query, e.Format.MediaType())
	defer done()
	if err != nil {
		return nil
	}
	l, err := got.listing(e)
	if err != nil {
		return nil
	}
	if l.rv < st.Reached() { // as a probe finds out
		e.Fail(stream.ErrRestored)
		return nil
	}
	return &listing{key: key, rv: l.rv, at: at, versions: l.versions}
}

// listing reads the list that r is, once for all who share it.
func (r *recorded) listing(e *entry) (*listing, error) {
	r.once.Do(func() { r.list, r.err = readListing(e, r.body) })
	return r.list, r.err
}

func readListing(e *entry, body []byte) (*listing, error) {
	l := &listing{versions: map[string]uint64{}}
	meta, err := e.Schema.ReadList(e.Format, bytes.NewReader(body), func(o *wire.Object) error {
		l.versions[o.Key] = o.ResourceVersion
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read listing: %w", err)
	}
	if l.rv, err = wire.ParseResourceVersion(meta.ResourceVersion); err != nil {
		return nil, fmt.Errorf("read listing: %w", err)
	}
	return l, nil
}
