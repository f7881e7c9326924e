package callers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/e2e/wire"
	"github.com/portico-proxy/portico/test/proxy"
)

// byCertificate lets callers pass by impersonation.
func byCertificate() []string {
	return []string{"--client-ca-file=" + world.ClientCAFile(), "--impersonate-x509"}
}

// A way is how a proxy that may do everything is run.
type way struct {
	certified bool // callers with certificates pass by impersonation
	memory    bool // memory answers what it can
}

// checks hold, or say what should, on every way.
var checks = map[string]func(*testing.T, wire.Server, way){
	"tokens":                     callersGetWhatTheyWouldDirectly,
	"web-socket":                 webSocketTokenOpensAWatch,
	"memory":                     memoryAnswersThoseItKnows,
	"certificates":               certificatesPassOnlyByImpersonation,
	"token-over-certificate":     tokenDecidesOverCertificate,
	"impersonate-by-certificate": certifiedCallersCannotImpersonate,
	"connection":                 connectionMayNotNameIdentity,
	"front-proxy":                frontProxyIsNobodySpecial,
}

func TestEveryWay(t *testing.T) {
	for name, w := range map[string]way{
		"upstream": {}, "memory": {memory: true}, "certified": {certified: true}, "certified-memory": {certified: true, memory: true},
	} {
		t.Run(name, func(t *testing.T) {
			flags := []string{fmt.Sprintf("--watch-cache=%t", w.memory)}
			if w.certified {
				flags = append(flags, byCertificate()...)
			}
			p := start(t, cert(t, self, "system:masters"), flags...)
			if w.memory {
				warm(t, p)
			}
			for name, check := range checks {
				t.Run(name, func(t *testing.T) { check(t, p, w) })
			}
		})
	}
}

// start runs a proxy under an identity. At its end, what it has said about
// itself is searched for panics and for what is nobody's business.
func start(t *testing.T, identity controlplane.Credential, flags ...string) wire.Server {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := world.Kubeconfig(identity).WriteFile(kubeconfig); err != nil {
		t.Fatal(err)
	}
	p := proxy.New(t, proxy.Options{Kubeconfig: kubeconfig, Flags: append(flags, "--v=8")})
	t.Cleanup(func() {
		onlyOwnBusiness(t)
		metrics := fetch(t, p.Metrics)
		p.Stop()
		if strings.Contains(p.Log(), "panic") {
			t.Error("the proxy panicked")
		}
		for name, secret := range secrets() {
			for place, text := range map[string]string{"log": p.Log(), "metrics": metrics} {
				if strings.Contains(text, secret) {
					t.Errorf("%s is in the proxy's %s", name, place)
				}
			}
		}
	})
	return wire.At(p.URL, p.CA)
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// secrets are all tokens sent by these tests, in every form.
func secrets() map[string]string {
	all := map[string]string{}
	for name, token := range map[string]string{
		"admin": world.Token("admin").Token, "jane": world.Token("jane").Token, "joe": world.Token("joe").Token,
		"robot": robot.Token, "expired": expired.Token, "wrong": wrong,
	} {
		all[name] = token
		all[name+"-base64"] = base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	return all
}

// warm returns once memory answers.
func warm(t *testing.T, p wire.Server) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for servedBy(send(t, p, pods.Bearer(world.Token("admin").Token), http1)) != "cache" {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("memory never answered")
		}
	}
}

func servedBy(r wire.Response) string { return r.Header.Get("Portico-Served-By") }

func direct() wire.Server { return wire.At(world.URL(), world.Config().CAData) }

// protocol is a way to send a request.
type protocol string

const (
	http1 protocol = "http1"
	http2 protocol = "http2"
)

func send(t *testing.T, to wire.Server, r wire.Request, over protocol) wire.Response {
	t.Helper()
	exchange := to.HTTP1
	if over == http2 {
		exchange = to.HTTP2
	}
	res, err := exchange(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func cert(t *testing.T, user string, groups ...string) controlplane.Credential {
	t.Helper()
	cred, err := world.ClientCert(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// version is what two answers of the same state may differ in.
var version = regexp.MustCompile(`"metadata":\{"resourceVersion":"\d+"\}`)

// same fails the test unless the answer through the proxy is the direct one.
func same(t *testing.T, r wire.Request, want, got wire.Response) {
	t.Helper()
	if r.Target == whoAmI.Target && want.Code == http.StatusCreated {
		if diff := cmp.Diff(who(t, want), who(t, got)); diff != "" {
			t.Errorf("who the caller is (-direct +proxied): %s", diff)
		}
		return
	}
	for _, res := range []*wire.Response{&want, &got} {
		res.Body = version.ReplaceAll(res.Body, nil)
		res.Header.Del("Content-Length")
		if servedBy(got) == "cache" { // nobody had to wait in a queue
			maps.DeleteFunc(res.Header, func(name string, _ []string) bool {
				return name == "Age" || strings.HasPrefix(name, "X-Kubernetes-Pf-")
			})
		}
	}
	if diff := wire.Diff(r, want, got); diff != "" {
		t.Errorf("%s\n%s", r, diff)
	}
}

// who is the caller of whoAmI in the API server's eyes.
func who(t *testing.T, r wire.Response) authenticationv1.UserInfo {
	t.Helper()
	var review authenticationv1.SelfSubjectReview
	if err := json.Unmarshal(r.Body, &review); err != nil || r.Code != http.StatusCreated {
		t.Errorf("no answer to who am I: %s", r)
	}
	return review.Status.UserInfo
}
