package cache

import (
	"context"
	"io"
	"net/url"
	"time"

	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
)

// After a restart every client that had a watch comes back with a resourceVersion
// that is older than what memory has just been filled with. Upstream knows what
// happened in between; it is asked for that alone, not for the rest of the watch.

const (
	// pastPatience is how long upstream may take to tell the past. It sends a
	// bookmark after about a second of a watch that is to last three.
	pastPatience = 10 * time.Second
	// maxPasts bounds how often in a row it is asked.
	maxPasts = 3
)

// splice answers a watch from a resourceVersion that is older than the history.
// What upstream refuses is upstream's to answer.
func (a *answer) splice(from uint64) (bool, error) {
	if a.timeout < pastPatience || a.views != nil { // which must know what was before, too
		return a.decline(telemetry.PassedHistory)
	}
	ctx, cancel := context.WithTimeout(a.r.Context(), maxPasts*pastPatience)
	defer cancel()
	p, err := a.past(ctx, from)
	if err != nil {
		return a.decline(telemetry.PassedHistory)
	}
	defer func() { _ = p.body.Close() }()
	if err := p.next(); err != nil || p.event.Type == kwatch.Error {
		return a.decline(telemetry.PassedHistory)
	}
	f := a.follow(0, from)
	f.since = from
	defer f.stop()
	if f.replay(ctx, p) {
		f.run()
	}
	return true, nil
}

// past is what upstream tells of the time before the history.
type past struct {
	body   io.Closer
	frames *wire.FrameReader
	event  wire.Event
}

// next reads one event.
func (p *past) next() (err error) {
	p.event, err = p.frames.Next()
	return err
}

// past asks upstream for what a's client asked for.
func (a *answer) past(ctx context.Context, since uint64) (*past, error) {
	q, asked := url.Values{}, a.r.URL.Query()
	for _, name := range []string{"labelSelector", "fieldSelector"} {
		if v := asked.Get(name); v != "" {
			q.Set(name, v)
		}
	}
	body, err := a.entry.Past(ctx, a.r.URL.Path, q, since)
	if err != nil {
		return nil, err
	}
	return &past{body: body, frames: a.entry.Schema.NewFrameReader(a.entry.Format, body)}, nil
}

// replay sends what p tells until memory knows the rest. It reports false if
// the watch is over.
func (f *follower) replay(ctx context.Context, p *past) bool {
	for range maxPasts {
		if !f.sendPast(p) {
			return false
		}
		if at, ok := f.entry.State().From(f.since); ok {
			f.at = at
			return true
		}
		again, err := f.past(ctx, f.since)
		if err != nil {
			return false
		}
		defer func() { _ = again.body.Close() }()
		if p = again; p.next() != nil {
			return false
		}
	}
	return false
}

// sendPast sends p's events from the one that has been read, up to the bookmark
// behind them. It reports false if there is none: what else there has been is not
// known then.
func (f *follower) sendPast(p *past) bool {
	for {
		switch p.event.Type {
		case kwatch.Bookmark:
			rv, err := wire.BookmarkResourceVersion(f.entry.Format, p.event.Raw)
			f.since, f.reached = max(f.since, rv), max(f.reached, rv)
			return err == nil
		case kwatch.Added, kwatch.Modified, kwatch.Deleted:
			o, err := f.entry.Schema.Parse(f.entry.Format, p.event.Raw)
			if err != nil {
				return false
			}
			if f.session { // memory may not have heard of it
				f.cache.note(f.gvr.GroupResource(), o.ResourceVersion)
			}
			if !f.send(p.event.Type, o.Raw) || !f.flush() {
				return false
			}
			f.since, f.reached = o.ResourceVersion, o.ResourceVersion
		default:
			return false
		}
		if p.next() != nil {
			return false
		}
	}
}
