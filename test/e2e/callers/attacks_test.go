package callers

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/e2e/wire"
)

// CVE-2022-23652: a proxy that strips what it is told to strip forwards the
// request under its own identity. Spaces and case got around the first fix.
func connectionMayNotNameIdentity(t *testing.T, p wire.Server, w way) {
	connections := map[string][]string{
		"user":            {"Impersonate-User"},
		"group":           {"Impersonate-Group"},
		"extra":           {"Impersonate-Extra-Scopes"},
		"authorization":   {"authorization"},
		"remote":          {"X-Remote-User"},
		"leading-space":   {"  Impersonate-User"},
		"leading-tab":     {"\tImpersonate-User"},
		"mixed-case":      {"imPersOnate-uSer"},
		"in-a-list":       {"keep-alive, , \t authorization ,close"},
		"second-header":   {"keep-alive", "Authorization"},
		"third-header":    {"close", "te", " impersonate-user"},
		"with-an-upgrade": {"Upgrade, Impersonate-User"},
	}
	for name, values := range connections {
		t.Run(name, func(t *testing.T) {
			for who, caller := range attackers(t, w.certified) {
				for _, r := range []wire.Request{whoAmI, pods, secret} {
					for _, v := range values {
						r = r.With("Connection", v)
					}
					for _, over := range []protocol{http1, http2} {
						if res := send(t, p.As(caller.cred), caller.claims.on(r), over); res.Code != http.StatusBadRequest {
							t.Errorf("%s over %s: got %s", who, over, res)
						}
					}
				}
			}
		})
	}
}

type attacker struct {
	cred   controlplane.Credential
	claims claims
}

// attackers are callers with few rights and one with many.
func attackers(t *testing.T, certified bool) map[string]attacker {
	t.Helper()
	all := map[string]attacker{
		"nobody":        {},
		"joe":           {claims: bearer(world.Token("joe").Token)},
		"jane":          {claims: bearer(world.Token("jane").Token)},
		"admin-as-jane": {claims: bearer(world.Token("admin").Token).with("Impersonate-User", "jane")},
	}
	if certified {
		all["jane-by-certificate"] = attacker{cred: cert(t, "jane", "devs")}
	}
	return all
}

// remote is what a front proxy of the API server says of its callers.
var remote = claims{
	{Name: "X-Remote-User", Value: "admin"}, {Name: "x-remote-group", Value: "system:masters"}, {Name: "X-REMOTE-UID", Value: "7"},
	{Name: "X-Remote-Extra-Scopes", Value: "all"}, {Name: "X-Remote-User", Value: self},
}

func frontProxy(t *testing.T) controlplane.Credential {
	t.Helper()
	front, err := world.FrontProxyCert()
	if err != nil {
		t.Fatal(err)
	}
	return front
}

// A caller that is a front proxy itself is one to the API server alone.
func frontProxyIsNobodySpecial(t *testing.T, p wire.Server, _ way) {
	for _, over := range []protocol{http1, http2} {
		if res := send(t, p.As(frontProxy(t)), remote.on(whoAmI), over); res.Code != http.StatusUnauthorized {
			t.Errorf("got %s", res)
		}
	}
}

// The certificate of a front proxy would give the headers weight.
func TestRemoteHeadersSayNothing(t *testing.T) {
	for name, identity := range map[string]controlplane.Credential{"cluster-admin": cert(t, self, "system:masters"), "front-proxy": frontProxy(t)} {
		t.Run(name, func(t *testing.T) {
			p := start(t, identity, byCertificate()...)
			for who, caller := range attackers(t, false) {
				t.Run(who, func(t *testing.T) {
					for _, over := range []protocol{http1, http2} {
						for _, r := range []wire.Request{whoAmI, pods, secret} {
							r = caller.claims.on(r)
							same(t, r, send(t, direct(), r, over), send(t, p, remote.on(r), over))
						}
					}
				})
			}
			if name != "front-proxy" {
				return
			}
			if res := send(t, p.As(cert(t, "jane")), remote.on(whoAmI), http1); res.Code != http.StatusUnauthorized && res.Code != http.StatusForbidden {
				t.Errorf("by certificate: got %s", res)
			}
		})
	}
}

// smuggled is a request that hides in another. Its path is looked for in the
// API server's audit log.
const smuggled = "GET /api/v1/namespaces/smuggled/secrets HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

func TestHiddenRequestsAreNotFound(t *testing.T) {
	post := "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: a\r\n"
	chunked := "\r\n0\r\n\r\n" + smuggled
	long := fmt.Sprintf("Content-Length: %d\r\n", len(chunked)-2)
	attacks := map[string]string{
		"two-lengths":           post + "Content-Length: 0\r\n" + long + chunked,
		"list-of-lengths":       post + "Content-Length: 0, 99\r\n" + chunked,
		"signed-length":         post + "Content-Length: +5\r\n" + chunked,
		"negative-length":       post + "Content-Length: -1\r\n" + chunked,
		"hex-length":            post + "Content-Length: 0x5\r\n" + chunked,
		"two-encodings":         post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + long + chunked,
		"list-of-encodings":     post + "Transfer-Encoding: gzip, chunked\r\n" + long + chunked,
		"unknown-encoding":      post + "Transfer-Encoding: xchunked\r\n" + long + chunked,
		"vertical-tab":          post + "Transfer-Encoding: \vchunked\r\n" + long + chunked,
		"space-before-colon":    post + "Transfer-Encoding : chunked\r\n" + long + chunked,
		"tab-before-colon":      post + "Authorization\t: Bearer x\r\n" + chunked,
		"no-colon":              post + "Transfer-Encoding\r\n" + long + chunked,
		"nul-in-value":          post + "X-A: b\x00Authorization: c\r\n" + chunked,
		"return-in-value":       post + "X-A: b\rAuthorization: c\r\n" + chunked,
		"first-line-folded":     "GET / HTTP/1.1\r\n Host: a\r\n\r\n" + smuggled,
		"two-hosts":             post + "Host: b\r\n" + chunked,
		"no-host":               "GET / HTTP/1.1\r\n\r\n" + smuggled,
		"space-in-target":       "GET /a HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		"chunk-length-negative": post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + smuggled,
		"chunk-length-overflow": post + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + smuggled,
		"chunk-ends-elsewhere":  post + "Transfer-Encoding: chunked\r\n\r\n1\r\nAZZ0\r\n\r\n" + smuggled,
		"trailer-without-end":   post + "Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n" + smuggled,
		"old-protocol-chunked":  strings.Replace(post, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\n" + long + chunked,
	}
	p := start(t, cert(t, self, "system:masters"), byCertificate()...)
	for name, text := range attacks {
		t.Run(name, func(t *testing.T) {
			all, err := p.Raw(t.Context(), text)
			if err != nil {
				t.Fatal(err)
			}
			if len(all) > 1 || len(all) == 1 && all[0].Code < 400 {
				t.Errorf("got %v", all)
			}
		})
	}
	for _, e := range audited(t) {
		if strings.Contains(e.RequestURI, "smuggled") {
			t.Errorf("the API server was asked for %s by %s", e.RequestURI, e.User.Username)
		}
	}
}

// A folded value is one value: what it hides is not a header of its own.
func TestFoldedHeadersStayValues(t *testing.T) {
	p := start(t, cert(t, self, "system:masters"))
	text := "GET /api/v1/secrets HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: b\r\n Authorization: Bearer " + world.Token("admin").Token + "\r\n\r\n"
	want, err := direct().Raw(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Raw(t.Context(), text)
	if err != nil || len(got) != 1 || len(want) != 1 || got[0].Code != want[0].Code || got[0].Code < 400 {
		t.Errorf("got %v, %v, directly %v", got, err, want)
	}
}

// What HTTP/2 can carry and HTTP/1.1 cannot must not become something else on
// its way from one to the other.
func TestHTTP2HidesNothing(t *testing.T) {
	admin := world.Token("admin").Token
	length := 3
	attacks := map[string]wire.Request{
		"newline-in-value":  secret.With("x-a", "b\r\nAuthorization: Bearer "+admin),
		"newline-in-name":   secret.With("x-a: b\r\nauthorization", "Bearer "+admin),
		"colon-in-name":     secret.With("authorization: bearer x", "y"),
		"upper-case-name":   secret.With("=Authorization", "Bearer "+admin),
		"encoding":          whoAmI.With("Transfer-Encoding", "chunked").Bearer(admin),
		"length-too-short":  {Method: whoAmI.Method, Target: whoAmI.Target, Header: bearer(admin), Body: []byte("{}\r\n" + smuggled), Length: &length},
		"newline-in-target": {Target: "/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, Header: bearer(admin)},
		"space-in-target":   {Target: "/api/v1/secrets HTTP/1.1", Header: bearer(world.Token("joe").Token)},
		"newline-in-host":   {Target: "/api/v1/secrets", Host: "a\r\nAuthorization: Bearer " + admin},
		"newline-in-method": {Method: "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", Target: "/api/v1/secrets", Header: bearer(admin)},
	}
	p := start(t, cert(t, self, "system:masters"))
	for name, r := range attacks {
		t.Run(name, func(t *testing.T) {
			if res := send(t, p, r, http2); res.Code > 0 && res.Code < 400 {
				t.Errorf("got %s", res)
			}
		})
	}
	for _, e := range audited(t) {
		if strings.Contains(e.RequestURI, "smuggled") {
			t.Errorf("the API server was asked for %s by %s", e.RequestURI, e.User.Username)
		}
	}
}
