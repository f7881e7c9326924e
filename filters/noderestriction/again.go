package noderestriction

import (
	"context"
	"crypto/sha256"
	"net/http"
	"reflect"
	"slices"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
)

// judged is a write as it was let pass.
type judged struct {
	question *question
	rules    []*rule
	limits   []limit.Limit // to which it is kept already
	sum      bodySum
}

type judgedKey struct{}

// A bodySum is equal for bodies that the API server reads alike.
type bodySum struct {
	content        [sha256.Size]byte
	mediaType, how string // how is its encoding
}

// sumOf reads a body that has been read before.
func sumOf(r *http.Request) (*http.Request, bodySum, error) {
	r, raw, err := body.Read(r)
	return r, bodySum{sha256.Sum256(raw), r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding")}, err
}

// remember notes, for who judges again, what was let pass for what its body says.
func (e *exchange) remember(rules []*rule) error {
	if !e.looked || !e.filter.Twice {
		return nil
	}
	r, sum, err := sumOf(e.r)
	if err != nil {
		return err
	}
	e.r = r.WithContext(context.WithValue(r.Context(), judgedKey{}, &judged{e.question, rules, e.limits, sum}))
	return nil
}

// again judges once more the writes whose bodies filters in between have made
// others of. Who sends a request, its method and its address are not theirs to change.
type again struct{ *Filter }

// Again is a filter that comes after those which change bodies. See [Filter.Twice].
func (f *Filter) Again() pipeline.Filter { return &again{f} }

func (a *again) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	before, ok := r.Context().Value(judgedKey{}).(*judged)
	if !ok {
		return next.ServeHTTP(w, r)
	}
	e := &exchange{filter: a.Filter, question: before.question, next: next, w: w, r: r, room: &body.Room{}}
	defer e.room.Keep(0)
	if err := a.library.options.Rooms.Enter(e.room, r, e.caller); err != nil {
		return err
	}
	var sum bodySum
	var err error
	if e.r, sum, err = sumOf(r); err != nil {
		return err
	}
	if sum != before.sum {
		for _, rule := range before.rules {
			if err := e.keep(rule); err != nil {
				return err
			}
		}
	}
	e.room.Keep(body.SizeOf(e.r))
	more := slices.DeleteFunc(e.limits, func(l limit.Limit) bool {
		return slices.ContainsFunc(before.limits, func(b limit.Limit) bool { return reflect.DeepEqual(b, l) })
	})
	return next.ServeHTTP(w, e.r.WithContext(limit.With(e.r.Context(), more)))
}

var _ pipeline.Filter = (*again)(nil)
