// Package authn finds out who is calling, where a filter below asks.
package authn

import (
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	certauthn "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// Options says which credentials the filter understands.
type Options struct {
	// Tokens reviews bearer tokens; see [Reviewer].
	Tokens authenticator.Token
	// Needed reports whether a filter below asks who sent a request, and returns
	// the request as it is to go on to that filter. Where none does, no token is
	// reviewed: the API server will judge it anyway, and a review would double its
	// work. Nil means that none ever does.
	Needed func(*http.Request) (*http.Request, bool)
	// Stale is how old an answer to a request, and what is known of its caller, may
	// be while the API server is gone; 0 is not at all, and nil never. It is asked
	// after Needed.
	Stale func(*http.Request) time.Duration
	// Before remembers callers for Stale.
	Before *Before
	// ClientCA returns how client certificates are verified, and false while
	// there is no authority. Nil means never.
	ClientCA func() (x509.VerifyOptions, bool)
	// ImpersonateX509 lets callers with a certificate act upstream by
	// impersonation, as their own credential cannot be passed on.
	ImpersonateX509 bool
}

// Filter establishes identity. It refuses nobody for their token: what goes
// upstream is judged there, in the API server's own words.
type Filter struct {
	options      Options
	certificates authenticator.Request
	now          func() time.Time
}

// New returns the filter.
func New(o Options) *Filter {
	f := &Filter{options: o, now: time.Now}
	if o.Needed == nil {
		f.options.Needed = func(r *http.Request) (*http.Request, bool) { return r, false }
	}
	if o.ClientCA != nil {
		f.certificates = certauthn.NewDynamic(o.ClientCA, certauthn.CommonNameUserConversion)
	}
	return f
}

// Name is "authn".
func (f *Filter) Name() string { return "authn" }

// ServeHTTP puts the caller into the request's context, if it is known.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if token := upstream.TokenOf(r); token != "" {
		return next.ServeHTTP(w, f.byToken(r, token))
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		// Anonymous, or a scheme that only upstream knows.
		return next.ServeHTTP(w, r)
	}
	r, err := f.byCertificate(r)
	if err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// Who returns r with the name of its caller, if a filter asks for it and it can be
// found out by a token.
func (f *Filter) Who(r *http.Request) *http.Request {
	if token := upstream.TokenOf(r); token != "" {
		return f.byToken(r, token)
	}
	return r
}

// byToken names the caller of a good token. All other tokens pass without a
// name, which no answer from memory is given to.
func (f *Filter) byToken(r *http.Request, token string) *http.Request {
	r, needed := f.options.Needed(r)
	if !needed || expired(token, f.now()) {
		return r
	}
	res, ok, err := f.options.Tokens.AuthenticateToken(r.Context(), token)
	within := time.Duration(0)
	if f.options.Stale != nil {
		within = f.options.Stale(r)
	}
	switch {
	case within == 0:
	case err == nil && ok:
		f.options.Before.note(token, res.User, f.now())
	case err == nil:
		f.options.Before.note(token, nil, f.now())
	case upstream.IsGone(err) && !errors.Is(err, errForbidden):
		if u, known := f.options.Before.of(token, f.now(), within); known {
			return withUser(r.WithContext(upstream.WithDoubt(r.Context())), u)
		}
	}
	if err != nil || !ok {
		return r
	}
	return withUser(r, res.User)
}

func (f *Filter) byCertificate(r *http.Request) (*http.Request, error) {
	if !f.options.ImpersonateX509 || f.certificates == nil {
		return nil, apierrors.NewUnauthorized("this proxy cannot pass client certificates on: use a bearer token, or start the proxy with --client-ca-file and --impersonate-x509")
	}
	res, ok, err := f.certificates.AuthenticateRequest(r)
	if err != nil || !ok {
		return nil, apierrors.NewUnauthorized("Unauthorized")
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			return nil, apierrors.NewForbidden(schema.GroupResource{Resource: "users"}, r.Header.Get("Impersonate-User"),
				errImpersonation)
		}
	}
	r, _ = f.options.Needed(r)
	r = withUser(r, res.User)
	return r.WithContext(upstream.WithImpersonation(r.Context(), res.User)), nil
}

// withUser names the caller as the API server would, system:authenticated included.
func withUser(r *http.Request, u user.Info) *http.Request {
	return r.WithContext(request.WithUser(r.Context(), authenticated(u)))
}

// authenticated adds the group that every known caller is in.
func authenticated(u user.Info) user.Info {
	adder := group.NewAuthenticatedGroupAdder(authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: u}, true, nil
	}))
	res, _, _ := adder.AuthenticateRequest(nil)
	return res.User
}

var _ pipeline.Filter = (*Filter)(nil)
