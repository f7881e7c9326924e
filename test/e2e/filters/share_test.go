package filters

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSharesFollowTheNumberOfProxies has a limit that ever lets twelve requests pass,
// and three more proxies after two of them.
func TestSharesFollowTheNumberOfProxies(t *testing.T) {
	p := &proxied{newProxy(t, "--node-name=share-0")}
	apply(t, `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: shared}
spec:
  deadline: 10s
  rego: |
    package shared

    limits contains {
      "id": "configmaps", "key": ["all"], "scope": "ClusterShare", "tokens": {"rate": 0, "burst": 12},
    } if input.resource == "configmaps"
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: shared}
spec:
  filterRef: {kind: RegoPolicy, name: shared}
  phase: Throttle
  match: {users: [joe]}
`)
	inForce(t, "regopolicy/shared", "filterbinding/shared")
	joe := p.as(t, "joe")
	passes := func(of int) (n int) {
		t.Helper()
		for range of {
			res, status := joe.get(t, "/api/v1/namespaces/default/configmaps")
			switch res.StatusCode {
			case http.StatusOK:
				n++
			case http.StatusTooManyRequests:
			default:
				t.Fatalf("got %d %s", res.StatusCode, status.Message)
			}
		}
		return n
	}
	counted := func(want string) {
		t.Helper()
		until(t, "there are "+want+" proxies", func() bool {
			return must(t, world.KubeconfigPath(), "", "get", "regopolicy", "shared", "-o", "jsonpath={.status.proxies.total}") == want
		})
	}
	counted("1")
	if n := passes(2); n != 2 {
		t.Errorf("%d of 2 pass", n)
	}
	others := ""
	for n := range 3 {
		others += fmt.Sprintf("---\napiVersion: proxy.elf.io/v1alpha1\nkind: Proxy\nmetadata: {name: share-%d}\nstatus: {renewTime: %q}\n", n+1, time.Now().UTC().Format(time.RFC3339))
	}
	apply(t, others)
	counted("4")
	if n := passes(9); n != 3 {
		t.Errorf("%d pass of what is left of a quarter of twelve, want 3", n)
	}
	if out := must(t, world.KubeconfigPath(), "", "get", "regopolicies,proxies"); !strings.Contains(out, "1/4") || !strings.Contains(out, "share-0") {
		t.Errorf("kubectl shows\n%s", out)
	}
}
