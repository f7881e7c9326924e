// Package throttle keeps requests within the limits that policies set for them.
package throttle

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
)

// Filter keeps what clients send within the limits that the request's context
// has (see [limit.From]).
type Filter struct {
	Limiter *Limiter
	// Ask makes r one that memory may answer, if it can; nil means that there is
	// no memory. It is asked about requests that are to be answered from there.
	Ask func(r *http.Request) (*http.Request, bool)
}

// Name is "throttle".
func (f *Filter) Name() string { return "throttle" }

// ServeHTTP lets r in, lets it wait, or refuses it.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	limits := that(limit.From(r.Context()), limit.Client)
	if len(limits) == 0 {
		return next.ServeHTTP(w, r)
	}
	return f.Limiter.serve(w, r, limits, func(p *pass, w http.ResponseWriter, r *http.Request) error {
		if p.fromMemory != nil {
			var ok bool
			if r, ok = f.fromMemory(r, p.fromMemory); !ok {
				return f.Limiter.refuseNow(p.fromMemory)
			}
		}
		return next.ServeHTTP(w, r)
	})
}

// Upstream stands last before the API server: it keeps what the API server has
// to answer within its limits.
func (f *Filter) Upstream(next pipeline.Handler) pipeline.Handler {
	return pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if l, ok := r.Context().Value(onlyMemoryKey{}).(*limit.Limit); ok {
			return f.Limiter.refuseNow(l)
		}
		limits := that(limit.From(r.Context()), limit.Upstream)
		if len(limits) == 0 {
			return next.ServeHTTP(w, r)
		}
		return f.Limiter.serve(w, r, limits, func(p *pass, w http.ResponseWriter, r *http.Request) error {
			if p.fromMemory != nil {
				return f.Limiter.refuseNow(p.fromMemory) // memory had no answer
			}
			return next.ServeHTTP(w, r)
		})
	})
}

// serve answers r by next once limits let it in, and charges what it cost.
func (l *Limiter) serve(w http.ResponseWriter, r *http.Request, limits []limit.Limit, next func(*pass, http.ResponseWriter, *http.Request) error) error {
	p, err := l.enter(r.Context(), limits, flowOf(r))
	if err != nil {
		warn(w, messageOf(err))
		return err
	}
	for _, text := range p.warnings {
		warn(w, text)
	}
	if !p.measures(limit.ResponseBytes, limit.ResponseObjects, limit.Duration) {
		defer p.leave(usage{})
		return next(p, w, r)
	}
	m := &meter{ResponseWriter: w, pass: p, since: time.Now()}
	defer m.end()
	if p.measures(limit.ResponseObjects) {
		r = m.countObjects(r)
	}
	return next(p, m, r)
}

// that are the limits that apply at a place.
func that(limits []limit.Limit, applies limit.Applies) []limit.Limit {
	var these []limit.Limit
	for i := range limits {
		if limits[i].Applies == applies {
			these = append(these, limits[i])
		}
	}
	return these
}

// flowOf is who waits its turn.
func flowOf(r *http.Request) string {
	if caller, ok := request.UserFrom(r.Context()); ok {
		return caller.GetName()
	}
	return user.Anonymous
}

type onlyMemoryKey struct{}

// fromMemory makes r one that memory may answer as it is now, and nobody else.
// It reports false for what memory has no answer to.
func (f *Filter) fromMemory(r *http.Request, l *limit.Limit) (*http.Request, bool) {
	if f.Ask == nil || r.Method != http.MethodGet {
		return r, false
	}
	r = r.WithContext(context.WithValue(r.Context(), onlyMemoryKey{}, l))
	query := r.URL.Query()
	if query.Get("resourceVersion") == "" && query.Get("continue") == "" {
		// Any state will do: what a client may ask for itself.
		query.Set("resourceVersion", "0")
		url := *r.URL
		url.RawQuery = query.Encode()
		r.URL = &url
	}
	return f.Ask(r)
}

// refuseNow is what a client is told whom memory was to answer, and cannot.
func (l *Limiter) refuseNow(of *limit.Limit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(of)
	wait, _ := b.wait(of)
	return l.refuse(&claim{limit: of, bucket: b, wait: wait})
}

// tooMany is what a client is told that is refused.
func tooMany(l *limit.Limit, seconds int) error {
	err := apierrors.NewTooManyRequests(say(l), seconds)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: "RateLimit", Message: "limit " + l.ID + " of policy " + l.Policy}}
	return err
}

// messageOf is what a refused client is told; nothing if it is gone.
func messageOf(err error) string {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return status.Status().Message
	}
	return ""
}

// say is what l tells a client, fit for a header.
func say(l *limit.Limit) string {
	text := cmp.Or(l.Message, "there are too many requests like this one") + " (limit " + l.ID + ")"
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return ' '
		}
		return c
	}, text)
}

// warn adds the header that client-go logs and kubectl prints.
func warn(w http.ResponseWriter, text string) {
	if header, err := utilnet.NewWarningHeader(299, "-", text); err == nil && text != "" {
		w.Header().Add("Warning", header)
	}
}

var _ pipeline.Filter = (*Filter)(nil)
