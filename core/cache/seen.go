package cache

import (
	"bytes"
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
)

// see is what of o the caller gets: its bytes, others where its views change them, or
// nil where it has not asked for o or o does not exist for it.
func (a *answer) see(ctx context.Context, o *wire.Object) ([]byte, error) {
	if !a.selects(o) {
		return nil, nil
	}
	if a.views == nil {
		return o.Raw, nil
	}
	return a.views.See(ctx, view.Object{
		Resource: a.gvr, Namespace: o.Namespace(), Name: o.Name(), UID: o.UID, ResourceVersion: o.ResourceVersion, Labels: o.Labels(), JSON: o.Raw,
	})
}

// seesAll reports whether a names no condition but the namespace and its caller has
// no views.
func (a *answer) seesAll() bool { return a.views == nil && a.selectsAll() }

// coalesceSeen answers with what the caller sees of a small collection that upstream
// lists to the proxy, together with all who ask the same at the same time. It is told
// whole: a page of upstream's could end with what does not exist for the caller, and
// say so.
func (a *answer) coalesceSeen() (bool, error) {
	p, err := a.pageSeen()
	if p == nil {
		return false, err
	}
	return a.sendAs(p, servedByCoalesced, 0)
}

// pageSeen returns nil, and perhaps an error, if there is nothing to send.
func (a *answer) pageSeen() (*page, error) {
	query := a.r.URL.Query()
	query.Del("limit")
	got, done, err := a.entry.shared(a.r.Context(), a.r.URL.Path, query, a.entry.Format.MediaType())
	defer done()
	if err != nil {
		a.entry.counts.proofs.add(telemetry.ProofFailed)
		return nil, nil
	}
	p := &page{}
	p.meta, err = a.entry.Schema.ReadList(a.entry.Format, bytes.NewReader(got.body), func(o *wire.Object) error {
		a.turn(p, o)
		return p.err
	})
	if err != nil {
		return nil, err
	}
	p.meta.RemainingItemCount = nil
	a.entry.counts.proofs.add(telemetry.ProofCoalesced)
	a.tell(got)
	return p, nil
}

// left is what a watcher is sent of what it saw last, when that is gone.
func (f *follower) left(e *stream.Event, seen []byte) ([]byte, error) {
	if f.views == nil {
		return e.Left(f.entry.Format)
	}
	return (&wire.Object{Raw: seen}).WithResourceVersion(f.entry.Format, e.ResourceVersion)
}

// sendUnseen ends a watch where it cannot be told what exists: nothing is hidden for
// that. It always reports false.
func (f *follower) sendUnseen(err error) bool {
	if f.ctx.Err() != nil {
		return false // the client is gone, or the view
	}
	klog.FromContext(f.ctx).Error(err, "watch ended: views could not be applied")
	return f.sendStatus(apierrors.NewInternalError(view.ErrUnseen))
}

// lasting is how long a watch may go on: its time, and as long as its caller is shown
// what he would be shown now.
func (a *answer) lasting() (context.Context, context.CancelFunc) {
	var views view.Views
	if a.views != nil {
		views = a.views.Views
	}
	ctx, end := views.Until(a.r.Context())
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	return ctx, func() { cancel(); end() }
}
