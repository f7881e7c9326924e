package callers

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/e2e/wire"
)

// wrong is a token that nobody has.
const wrong = "nobody-has-this-token"

// claims are header lines by which callers say who they are.
type claims []wire.Field

func bearer(token string) claims { return claims{{Name: "Authorization", Value: "Bearer " + token}} }

func (c claims) with(name, value string) claims {
	return append(append(claims(nil), c...), wire.Field{Name: name, Value: value})
}

func (c claims) on(r wire.Request) wire.Request {
	for _, f := range c {
		r = r.With(f.Name, f.Value)
	}
	return r
}

// subprotocol is how a browser sends a token.
func subprotocol(token string) claims {
	return claims{{Name: "Sec-WebSocket-Protocol", Value: "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))}}
}

func upgrade(c claims) claims {
	return c.with("Connection", "Upgrade").with("Upgrade", "websocket").with("Origin", "http://localhost").with("Sec-WebSocket-Version", "13").with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

// honest and not so honest callers, who get what they would get directly.
func tokenCallers() map[string]claims {
	admin, jane, joe := world.Token("admin").Token, world.Token("jane").Token, world.Token("joe").Token
	authorization := func(value string) claims { return claims{{Name: "Authorization", Value: value}} }
	return map[string]claims{
		"no-token":                   nil,
		"wrong":                      bearer(wrong),
		"expired":                    bearer(expired.Token),
		"admin":                      bearer(admin),
		"jane":                       bearer(jane),
		"joe-may-nothing":            bearer(joe),
		"robot":                      bearer(robot.Token),
		"no-space":                   authorization("Bearer"),
		"empty":                      authorization("Bearer "),
		"two-spaces":                 authorization("Bearer  " + jane),
		"lower-case":                 authorization("bearer " + jane),
		"tab":                        authorization("Bearer\t" + jane),
		"trailing-words":             authorization("Bearer " + jane + " and more"),
		"basic":                      authorization("Basic amFuZTpqYW5l"),
		"token-alone":                authorization(jane),
		"good-then-wrong":            append(bearer(jane), bearer(wrong)...),
		"wrong-then-good":            append(bearer(wrong), bearer(jane)...),
		"jane-then-admin":            append(bearer(jane), bearer(admin)...),
		"comma":                      bearer(jane + ", Bearer " + admin),
		"subprotocol-but-no-upgrade": subprotocol(jane),
		"header-and-subprotocol":     append(bearer(joe), subprotocol(jane)...),
		"admin-as-jane":              bearer(admin).with("Impersonate-User", "jane").with("Impersonate-Group", "devs"),
		"admin-as-group-only":        bearer(admin).with("Impersonate-Group", "devs"),
		"admin-as-extra":             bearer(admin).with("Impersonate-User", "jane").with("Impersonate-Extra-Scopes", "all").with("Impersonate-Uid", "7"),
		"admin-as-lower-case":        bearer(admin).with("impersonate-user", "joe"),
		"joe-as-admin":               bearer(joe).with("Impersonate-User", "admin").with("Impersonate-Group", "system:masters"),
		"nobody-as-admin":            claims(nil).with("Impersonate-User", "admin").with("Impersonate-Group", "system:masters"),
		"nobody-as-proxy":            claims(nil).with("Impersonate-User", self),
	}
}

func callersGetWhatTheyWouldDirectly(t *testing.T, p wire.Server, _ way) {
	for name, caller := range tokenCallers() {
		t.Run(name, func(t *testing.T) { sameForAll(t, caller, direct(), p) })
	}
}

// sameForAll sends all requests by a caller to both.
func sameForAll(t *testing.T, caller claims, direct, proxied wire.Server) {
	t.Helper()
	for _, over := range []protocol{http1, http2} {
		for _, r := range []wire.Request{whoAmI, pods, secret} {
			r = caller.on(r)
			same(t, r, send(t, direct, r, over), send(t, proxied, r, over))
		}
	}
}

// Without it, the other checks would say nothing about memory.
func memoryAnswersThoseItKnows(t *testing.T, p wire.Server, w way) {
	for name, caller := range map[string]struct {
		claims claims
		cred   controlplane.Credential
		known  bool
	}{
		"jane":                {claims: bearer(world.Token("jane").Token), known: true},
		"robot":               {claims: bearer(robot.Token), known: true},
		"jane-by-certificate": {cred: cert(t, "jane"), known: w.certified},
		"joe":                 {claims: bearer(world.Token("joe").Token)},
		"nobody":              {},
	} {
		got := servedBy(send(t, p.As(caller.cred), caller.claims.on(pods), http1))
		if (got == "cache") != (caller.known && w.memory) {
			t.Errorf("%s is served by %s", name, got)
		}
	}
}

func webSocketTokenOpensAWatch(t *testing.T, p wire.Server, _ way) {
	watch := wire.Request{Target: "/api/v1/namespaces/" + shop + "/pods?watch=1&timeoutSeconds=1"}
	for name, caller := range map[string]struct {
		claims claims
		want   int
	}{
		"jane":  {subprotocol(world.Token("jane").Token), http.StatusSwitchingProtocols},
		"joe":   {subprotocol(world.Token("joe").Token), http.StatusForbidden},
		"wrong": {subprotocol(wrong), http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r := upgrade(caller.claims).on(watch)
			want, got := send(t, direct(), r, http1), send(t, p, r, http1)
			if want.Code != caller.want {
				t.Fatalf("directly: %s", want)
			}
			same(t, r, want, got)
		})
	}
}

func certificatesPassOnlyByImpersonation(t *testing.T, p wire.Server, w way) {
	jane := cert(t, "jane", "devs")
	for name, caller := range map[string]struct {
		cred   controlplane.Credential
		claims claims
	}{
		"jane":         {cred: cert(t, "jane", "devs", "ops")},
		"joe":          {cred: cert(t, "joe")},
		"master":       {cred: cert(t, "mary", "system:masters")},
		"odd-names":    {cred: cert(t, "żółw:100% & <x>", "grüppe", "a/b c")},
		"unknown":      {cred: stranger(t)},
		"with-basic":   {jane, claims{{Name: "Authorization", Value: "Basic amFuZTpqYW5l"}}},
		"empty-bearer": {jane, claims{{Name: "Authorization", Value: "Bearer"}}},
		"remote-user":  {jane, claims{{Name: "X-Remote-User", Value: "admin"}, {Name: "X-Remote-Group", Value: "system:masters"}}},
		"subprotocol":  {jane, subprotocol("unused")},
	} {
		t.Run(name, func(t *testing.T) {
			if w.certified {
				sameForAll(t, caller.claims, direct().As(caller.cred), p.As(caller.cred))
				return
			}
			for _, over := range []protocol{http1, http2} {
				for _, r := range []wire.Request{whoAmI, pods, secret} {
					res := send(t, p.As(caller.cred), caller.claims.on(r), over)
					if res.Code != http.StatusUnauthorized || !strings.Contains(string(res.Body), "--impersonate-x509") {
						t.Errorf("got %s", res)
					}
				}
			}
		})
	}
}

func tokenDecidesOverCertificate(t *testing.T, p wire.Server, _ way) {
	for name, caller := range map[string]claims{
		"joe": bearer(world.Token("joe").Token), "robot": bearer(robot.Token), "wrong": bearer(wrong),
	} {
		t.Run(name, func(t *testing.T) { sameForAll(t, caller, direct(), p.As(world.Admin())) })
	}
}

func certifiedCallersCannotImpersonate(t *testing.T, p wire.Server, w way) {
	code := http.StatusUnauthorized
	if w.certified {
		code = http.StatusForbidden
	}
	for _, name := range []string{"Impersonate-User", "impersonate-group", "Impersonate-Uid", "IMPERSONATE-EXTRA-scopes", "Impersonate-"} {
		for _, over := range []protocol{http1, http2} {
			res := send(t, p.As(world.Admin()), whoAmI.With(name, "system:masters"), over)
			if res.Code != code || !strings.Contains(string(res.Body), "use a bearer token") {
				t.Errorf("%s: got %s", name, res)
			}
		}
	}
}

func TestCertifiedCallersWriteAsThemselves(t *testing.T) {
	p := start(t, cert(t, self, "system:masters"), byCertificate()...)
	create := func(namespace string) wire.Request {
		body := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"by-jane"}}`
		return wire.Request{Method: http.MethodPost, Target: "/api/v1/namespaces/" + namespace + "/configmaps", Body: []byte(body)}.With("Content-Type", "application/json")
	}
	jane := cert(t, "jane", "devs")
	if res := send(t, p.As(jane), create(shop), http2); res.Code != http.StatusCreated {
		t.Errorf("where jane may: %s", res)
	}
	r := create("default")
	same(t, r, send(t, direct().As(jane), r, http2), send(t, p.As(jane), r, http2))
	written := 0
	for _, e := range audited(t) {
		if e.ObjectRef == nil || e.ObjectRef.Resource != "configmaps" || e.Verb != "create" || e.User.Username != self {
			continue
		}
		written++
		if e.As == nil || e.As.Username != "jane" {
			t.Errorf("not written as jane: %+v", e)
		}
	}
	if written != 2 {
		t.Errorf("%d writes by the proxy, want 2", written)
	}
}

func TestProxyThatMayNotImpersonateIsRefusedUpstream(t *testing.T) {
	p := start(t, world.Token("joe"), byCertificate()...)
	for _, over := range []protocol{http1, http2} {
		res := send(t, p.As(cert(t, "jane", "devs")), pods, over)
		if res.Code != http.StatusForbidden || !strings.Contains(string(res.Body), `User \"joe\" cannot impersonate`) {
			t.Errorf("got %s", res)
		}
	}
}
