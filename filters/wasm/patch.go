package wasm

import (
	"encoding/json"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
)

// judgePatch asks about the object that a patch would leave behind. A module
// cannot change a patch: if it wants another object, the patch is refused.
func (f *Filter) judgePatch(w http.ResponseWriter, b *binding, facts Facts, next pipeline.Handler) (*http.Request, error) {
	began := time.Now()
	unlimited := f.rooms.Limit(w)
	r, raw, err := body.Read(facts.Request)
	unlimited()
	if err != nil {
		return r, f.unjudged(b, err, began)
	}
	object, err := tryOut(body.With(facts.Request, raw), next)
	if err != nil {
		if b.audits() || b.ignores() {
			return r, nil // it will be refused, or it cannot be tried
		}
		return nil, err
	}
	v, err := b.module.Object(r.Context(), facts, Pair{Current: object})
	if err != nil {
		return r, f.failed(b, err, began)
	}
	switch {
	case v.Dropped && v.Denial == nil:
		v.Denial = &Denial{Code: http.StatusForbidden, Message: "refused by a policy"}
	case v.Patched != nil:
		v.Denial = &Denial{Code: http.StatusForbidden, Message: "a policy wants another object than this patch makes: send the whole object, or apply it"}
	}
	return r, f.decide(w, b, Verdict{Denial: v.Denial, Warnings: v.Warnings}, began)
}

// tryOut returns the object that a request would leave behind: only the API
// server knows how to patch, so it is asked to do all but keep the result.
func tryOut(r *http.Request, next pipeline.Handler) ([]byte, error) {
	u := *r.URL
	if u.Query().Get("dryRun") != "All" {
		u.RawQuery = "dryRun=All&" + u.RawQuery
	}
	r.URL = &u
	r.Header.Set("Accept", "application/json")
	r.Header.Del("Accept-Encoding")
	w := &body.Answer{}
	if err := next.ServeHTTP(w, r); err != nil {
		return nil, err
	}
	if w.Code == http.StatusOK && !w.TooLong && json.Valid(w.Body.Bytes()) {
		return w.Body.Bytes(), nil
	}
	if status := w.Status(); status != nil {
		return nil, &apierrors.StatusError{ErrStatus: *status}
	}
	return nil, apierrors.NewInternalError(errTried)
}
