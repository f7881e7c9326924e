package noderestriction

import (
	"context"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/watches"
)

// followedKey marks the context of a watch that the library follows.
type followedKey struct{}

// A kept is how policies let a watch pass that they do not leave as it is.
type kept string

// refused is that of a watch that they would not let pass.
const refused kept = ""

// Sees says how a watch is let pass that nobody judged when it began, if not as it
// is. It follows it, so that what changes of its node later ends it in time.
func (f *Filter) Sees(w *watches.Watch) []any {
	ctx := w.Request.Context()
	info, ok := request.RequestInfoFrom(ctx)
	followed, _ := ctx.Value(followedKey{}).(bool)
	if !ok || followed || !f.Binds() || f.isOpen(w.Request, info) {
		return nil
	}
	q, _, err := f.concerns(w.Request, info)
	if err != nil {
		return []any{refused}
	}
	if q == nil {
		return nil
	}
	key := f.library.keyOf(q, f.rules)
	if key != nobodys {
		return []any{kept(key)}
	}
	w.Request = w.Request.WithContext(context.WithValue(ctx, followedKey{}, true))
	context.AfterFunc(w.Context(), f.library.enter(&openWatch{question: *q, key: key, end: w.End}))
	return nil
}
