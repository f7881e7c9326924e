package lens

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/view"
)

// applyToWatch shows what events mean to the caller.
func (l *Lens) applyToWatch(res *http.Response) {
	ctx, cancel := l.views.Until(l.ctx)
	under := res.Body
	stop := context.AfterFunc(ctx, func() { _ = under.Close() }) // wakes who reads
	frames := (&wire.Schema{Custom: true}).NewFrameReader(wire.JSON, under)
	res.Body = newBody(closer(func() error { stop(); cancel(); l.shown.giveUp(); return under.Close() }), func(yield func([]byte, error) bool) {
		for {
			e, err := frames.Next()
			if errors.Is(context.Cause(ctx), view.ErrChanged) {
				yield(errorEvent(view.Expired()), nil)
				return
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			frame, err := l.event(e)
			if err != nil {
				yield(l.lastEvent(err), nil)
				return
			}
			if frame != nil && !yield(frame, nil) {
				return
			}
		}
	})
}

type closer func() error

func (c closer) Close() error { return c() }

func errorEvent(err apierrors.APIStatus) []byte {
	status, _ := statusOf(err) // always marshals
	return wire.ErrorEvent(wire.JSON, status[:len(status)-1])
}

// lastEvent ends a watch. Only that there is no room is told as it is.
func (l *Lens) lastEvent(err error) []byte {
	if full, ok := errors.AsType[*apierrors.StatusError](err); ok && apierrors.IsTooManyRequests(full) {
		return errorEvent(full)
	}
	l.log(err)
	return errorEvent(apierrors.NewInternalError(view.ErrUnseen))
}

// event is the frame that a caller gets for e, nil for none
// (cacheWatcher.convertToWatchEvent).
func (l *Lens) event(e wire.Event) ([]byte, error) {
	switch e.Type {
	case kwatch.Error:
		if wire.Text(wire.Member(e.Raw, "kind")) != "Status" {
			return nil, errUnreadable
		}
		return frame(e.Type, e.Raw), nil
	case kwatch.Bookmark:
		return l.bookmark(e)
	}
	row, err := l.rowIn(e.Raw)
	if err != nil {
		return nil, err
	}
	whole := e.Raw
	if row != nil {
		whole = row
	}
	now, err := l.judge(whole, row != nil)
	if err != nil {
		return nil, err
	}
	before, was := l.shown.of(now.key)
	is := now.seen != nil && e.Type != kwatch.Deleted
	switch {
	case is:
		if err := l.shown.keep(now); err != nil {
			return nil, err
		}
		if was {
			return l.show(kwatch.Modified, now, e.Raw)
		}
		return l.show(kwatch.Added, now, e.Raw)
	case was:
		l.shown.drop(now.key)
		return l.leave(before, now.rv, e.Raw)
	}
	return nil, nil
}

// show is the frame that shows one, which came in the document raw.
func (l *Lens) show(t kwatch.EventType, one shown, raw []byte) ([]byte, error) {
	if !l.form.table {
		return frame(t, l.form.render(one.seen)), nil
	}
	row, err := l.rowIn(raw)
	if err != nil {
		return nil, err
	}
	if row, err = l.rowOf(one, row); err != nil {
		return nil, err
	}
	table, err := l.tableOf(row, raw)
	return frame(t, table), err
}

// leave is the frame that tells that before is gone: what was shown last, at the
// resourceVersion of the event in raw.
func (l *Lens) leave(before shown, rv uint64, raw []byte) ([]byte, error) {
	var err error
	before.seen, err = (&wire.Object{Raw: before.seen}).WithResourceVersion(wire.JSON, rv)
	if err != nil {
		return nil, err
	}
	return l.show(kwatch.Deleted, before, raw)
}

// bookmark passes one on: it tells of no object.
func (l *Lens) bookmark(e wire.Event) ([]byte, error) {
	row, err := l.rowIn(e.Raw)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return frame(e.Type, l.form.render(e.Raw)), nil
	}
	return l.show(e.Type, shown{seen: wire.Member(row, "object"), cells: wire.Member(row, "cells")}, e.Raw)
}

// rowIn is the only row of the table in raw, nil if objects do not come in tables and
// raw is one.
func (l *Lens) rowIn(raw []byte) (row []byte, err error) {
	if !l.form.table {
		return nil, l.expects(raw)
	}
	rows := 0
	err = wire.EachElement(wire.Member(raw, "rows"), func(r []byte) { row, rows = r, rows+1 })
	if err != nil || rows != 1 {
		return nil, errUnreadable
	}
	if columns := wire.Member(raw, "columnDefinitions"); string(columns) != "null" && columns != nil {
		l.columns = columns
	}
	return row, nil
}

// tableOf makes of the table in raw one of row. The first that is sent has the
// columns, though they may have come with one that is not.
func (l *Lens) tableOf(row, raw []byte) ([]byte, error) {
	table, err := wire.WithMember(raw, "rows", slices.Concat([]byte("["), row, []byte("]")))
	if err != nil || l.told || l.columns == nil {
		return table, err
	}
	l.told = true
	return wire.WithMember(table, "columnDefinitions", l.columns)
}

func frame(t kwatch.EventType, object []byte) []byte {
	return slices.Concat([]byte(`{"type":"`), []byte(t), []byte(`","object":`), object, []byte("}\n"))
}
