package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// reviews answers for good tokens and counts what it is asked.
type reviews struct {
	asked []string
	err   error
}

func (v *reviews) AuthenticateToken(_ context.Context, token string) (*authenticator.Response, bool, error) {
	v.asked = append(v.asked, token)
	if v.err != nil || token == "bad" {
		return nil, false, v.err
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: "jane", Groups: []string{"devs"}}}, true, nil
}

// pass runs a filter and returns the caller that the next one sees.
func pass(t *testing.T, f *Filter, r *http.Request) (user.Info, error) {
	t.Helper()
	var caller user.Info
	headers := r.Header.Clone()
	err := f.ServeHTTP(httptest.NewRecorder(), r, pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		caller, _ = request.UserFrom(r.Context())
		if diff := cmp.Diff(headers, r.Header); diff != "" {
			t.Errorf("the request was changed on its way: %s", diff)
		}
		return nil
	}))
	return caller, err
}

func withHeader(name, value string) *http.Request {
	r := httptest.NewRequest("GET", "/api/v1/pods", nil)
	if name != "" {
		r.Header.Set(name, value)
	}
	if name == "Sec-Websocket-Protocol" {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
	}
	return r
}

func jwt(expiry int64) string {
	return "h." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, expiry)) + ".s"
}

// socketPrefix marks tokens among subprotocols of WebSockets.
const socketPrefix = "base64url.bearer.authorization.k8s.io."

func TestTokensNameTheirCallers(t *testing.T) {
	now := time.Unix(1000, 0)
	tests := map[string]struct {
		header, value string
		asked         []string
		known         bool
	}{
		"bearer":            {"Authorization", "Bearer t", []string{"t"}, true},
		"case-and-space":    {"Authorization", "  bEARER t extra", []string{"t"}, true},
		"websocket":         {"Sec-Websocket-Protocol", "v4.channel.k8s.io, " + socketPrefix + base64.RawURLEncoding.EncodeToString([]byte("t")), []string{"t"}, true},
		"unexpired":         {"Authorization", "Bearer " + jwt(1001), []string{jwt(1001)}, true},
		"expired":           {"Authorization", "Bearer " + jwt(1000), nil, false},
		"unknown":           {"Authorization", "Bearer bad", []string{"bad"}, false},
		"two-spaces":        {"Authorization", "Bearer  t", nil, false},
		"basic":             {"Authorization", "Basic dDp0", nil, false},
		"nobody":            {"", "", nil, false},
		"websocket-garbage": {"Sec-Websocket-Protocol", socketPrefix + "%%%", nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := &reviews{}
			f := New(Options{Tokens: v, Needed: always})
			f.now = func() time.Time { return now }
			caller, err := pass(t, f, withHeader(tt.header, tt.value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.asked, v.asked); diff != "" {
				t.Error(diff)
			}
			if (caller != nil) != tt.known {
				t.Errorf("caller is %v", caller)
			}
			if caller != nil && !cmp.Equal(caller.GetGroups(), []string{"devs", user.AllAuthenticated}) {
				t.Errorf("groups are %v", caller.GetGroups())
			}
		})
	}
}

func TestSubprotocolIsATokenInAWebSocketOnly(t *testing.T) {
	r := withHeader("Sec-Websocket-Protocol", "v4.channel.k8s.io, "+socketPrefix+"dA")
	if got := upstream.TokenOf(r); got != "t" {
		t.Errorf("of a WebSocket: %q", got)
	}
	r.Header.Del("Upgrade")
	if got := upstream.TokenOf(r); got != "" {
		t.Errorf("of another request: %q", got)
	}
}

func always(r *http.Request) (*http.Request, bool) { return r, true }

func TestNoReviewWhereNobodyAsks(t *testing.T) {
	never := func(r *http.Request) (*http.Request, bool) { return r, false }
	for name, needed := range map[string]func(*http.Request) (*http.Request, bool){"nil": nil, "no": never} {
		t.Run(name, func(t *testing.T) {
			v := &reviews{}
			if _, err := pass(t, New(Options{Tokens: v, Needed: needed}), withHeader("Authorization", "Bearer t")); err != nil || v.asked != nil {
				t.Errorf("asked %v, %v", v.asked, err)
			}
		})
	}
}

func TestFailedReviewRefusesNobody(t *testing.T) {
	f := New(Options{Tokens: &reviews{err: errors.New("down")}, Needed: always})
	if caller, err := pass(t, f, withHeader("Authorization", "Bearer t")); err != nil || caller != nil {
		t.Errorf("got %v, %v", caller, err)
	}
}

// certified is a request over TLS with a certificate of jane's.
func certified(t *testing.T) (*http.Request, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "jane", Organization: []string{"devs"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	r := withHeader("", "")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	return r, pool
}

func verify(pool *x509.CertPool) func() (x509.VerifyOptions, bool) {
	return func() (x509.VerifyOptions, bool) {
		return x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true
	}
}

func TestCertificatesPassOnlyByImpersonation(t *testing.T) {
	r, pool := certified(t)
	caller, err := pass(t, New(Options{ClientCA: verify(pool), ImpersonateX509: true}), r)
	if err != nil || caller == nil || caller.GetName() != "jane" {
		t.Errorf("with impersonation: got %v, %v", caller, err)
	}
	refusals := map[string]Options{
		"off":          {ClientCA: verify(pool)},
		"no-authority": {ImpersonateX509: true},
		"unknown":      {ClientCA: verify(x509.NewCertPool()), ImpersonateX509: true},
	}
	for name, o := range refusals {
		if _, err := pass(t, New(o), r); pipeline.StatusOf(orNil(err)).Code != http.StatusUnauthorized {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func orNil(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

func TestCertifiedCallersMayNotImpersonate(t *testing.T) {
	r, pool := certified(t)
	r.Header.Set("Impersonate-Group", "system:masters")
	if _, err := pass(t, New(Options{ClientCA: verify(pool), ImpersonateX509: true}), r); pipeline.StatusOf(orNil(err)).Code != http.StatusForbidden {
		t.Errorf("got %v", err)
	}
}

func TestTokenDecidesWhereThereIsACertificateToo(t *testing.T) {
	r, _ := certified(t)
	r.Header.Set("Authorization", "Bearer t")
	if _, err := pass(t, New(Options{}), r); err != nil {
		t.Errorf("got %v", err)
	}
}

// FuzzTokenOf looks for headers that stop the reader or name an empty token.
func FuzzTokenOf(f *testing.F) {
	f.Add("Bearer a.b.c", "base64url.bearer.authorization.k8s.io.dA, v1")
	f.Add("bearer", "")
	f.Fuzz(func(_ *testing.T, authorization, protocol string) {
		r := &http.Request{Header: http.Header{
			"Authorization": {authorization}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {protocol},
		}}
		expired(upstream.TokenOf(r), time.Unix(0, 0))
	})
}

func TestForbiddenReviewsAreLeftForAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", errors.New("no"))
	v := &reviews{err: forbidden}
	p := &permitted{Token: v, now: func() time.Time { return now }}
	ask := func() error {
		_, _, err := p.AuthenticateToken(t.Context(), "t")
		return err
	}
	if err := ask(); !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	for range 3 {
		if err := ask(); !errors.Is(err, errForbidden) || len(v.asked) != 1 {
			t.Errorf("asked %d times: %v", len(v.asked), err)
		}
	}
	now, v.err = now.Add(forbiddenPause), nil
	if err := ask(); err != nil || len(v.asked) != 2 {
		t.Errorf("asked %d times: %v", len(v.asked), err)
	}
}
