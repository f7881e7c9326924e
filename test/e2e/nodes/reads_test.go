package nodes

import (
	"net/http"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
)

// byLabel means edge, as it is labelled.
const byLabel = "  nodes: {selector: {matchLabels: {trust: low}}}\n"

// with says how each test is run: from upstream alone, and with memory.
var ways = map[string][]string{"upstream": {"--watch-cache=false"}, "memory": nil}

// callers are those of edge.
func callers(t *testing.T) map[string]controlplane.Credential {
	t.Helper()
	return map[string]controlplane.Credential{"kubelet": kubeletOf(t, edge), "token": tokenOf(t, "web")}
}

// Forms in which clients ask for objects.
const (
	table    = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	partial  = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	partials = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

const ofHome = "/api/v1/namespaces/" + home

// seen are reads that pass, with what is to be among the answer's names. Nothing of
// others may be there: every byte is searched.
var seen = map[string]string{
	ofHome + "/pods/web":                                             "web",
	ofHome + "/pods":                                                 "web",
	"/api/v1/pods":                                                   "web",
	"/api/v1/pods?resourceVersion=0":                                 "web",
	"/api/v1/pods?limit=1":                                           "web",
	"/api/v1/pods?labelSelector=app":                                 "web",
	"/api/v1/pods?fieldSelector=spec.nodeName%3D" + edge:             "web",
	"/api/v1/nodes/" + edge:                                          edge,
	"/api/v1/nodes":                                                  edge,
	"/api/v1/nodes/" + edge + "/status":                              edge,
	ofHome + "/secrets/web":                                          "web",
	ofHome + "/secrets":                                              "web",
	ofHome + "/secrets?resourceVersion=0":                            "web",
	"/api/v1/secrets":                                                "web",
	"/api/v1/secrets?fieldSelector=metadata.name%3Dweb":              "web",
	ofHome + "/configmaps/web":                                       "web",
	ofHome + "/configmaps":                                           "web",
	ofHome + "/serviceaccounts/web":                                  "web",
	"/api/v1/serviceaccounts":                                        "web",
	"/api/v1/namespaces/" + home:                                     home,
	"/api/v1/namespaces":                                             home,
	ofHome + "/services":                                             "front",
	"/api/v1/services":                                               "kubernetes",
	"/apis/discovery.k8s.io/v1/endpointslices":                       "kubernetes",
	"/apis/storage.k8s.io/v1/csidrivers":                             "",
	"/apis/node.k8s.io/v1/runtimeclasses":                            "",
	"/apis/storage.k8s.io/v1/volumeattachments":                      "",
	"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": "",
	"/api": "v1", "/apis": "apps", "/api/v1": "pods", "/version": "major", "/readyz": "ok", "/openapi/v3": "paths",
}

// unseen are reads that are refused.
var unseen = []string{
	ofHome + "/pods/vault", ofHome + "/pods/vault/log", ofHome + "/pods/nobody", ofHome + "/pods/vault/status",
	"/api/v1/pods?fieldSelector=spec.nodeName%3D" + vault,
	"/api/v1/nodes/" + vault, "/api/v1/nodes?fieldSelector=metadata.name%3D" + vault, "/api/v1/nodes/" + edge + "/proxy/pods", "/api/v1/nodes/" + vault + "/status",
	ofHome + "/secrets/vault", ofHome + "/secrets/stray", ofHome + "/secrets/nobody", ofHome + "/secrets?fieldSelector=metadata.name%3Dvault",
	ofHome + "/configmaps/vault", ofHome + "/serviceaccounts/vault", "/api/v1/namespaces/kube-system",
	"/api/v1/watch/namespaces/" + home + "/secrets/vault",
	"/apis/apps/v1/deployments", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/proxy.elf.io/v1alpha1/nodepolicies",
	ofHome + "/pods/web/exec?command=sh", ofHome + "/pods/web/attach", ofHome + "/pods/web/portforward", ofHome + "/pods/web/proxy/", ofHome + "/services/front/proxy/",
	"/metrics", "/logs", "/debug/pprof/", "/api/v1//secrets", ofHome + "/events",
}

// TestNodeReadsWhatItsPodsNeed asks for everything, as somebody whom the API server
// would give it.
func TestNodeReadsWhatItsPodsNeed(t *testing.T) {
	for way, flags := range ways {
		t.Run(way, func(t *testing.T) {
			p := start(t, flags...)
			apply(t, byLabel+"  reads:\n  - {resource: services, namespaces: ["+home+"], selector: {matchLabels: {app: front}}}\n")
			for who, cred := range callers(t) {
				c := newClient(t, p, cred)
				for path, want := range seen {
					for _, accept := range []string{"application/json", table, partial, partials} {
						a := c.get(path, "Accept", accept)
						if a.code == http.StatusNotAcceptable && (accept == partial || accept == partials) {
							continue // it is a list, or is none
						}
						if a.code != http.StatusOK || !strings.Contains(a.body, want) || strings.Contains(a.body, vault) || strings.Contains(a.body, "stray") {
							t.Errorf("%s: %s as %s: %d by %s: %.300s", who, path, accept, a.code, a.servedBy, a.body)
						}
					}
				}
				for _, path := range unseen {
					if way != "memory" {
						break // it is refused before anybody is asked; each takes a second
					}
					if a := c.get(path); !a.refused() {
						t.Errorf("%s: %s: %d by %s: %.300s", who, path, a.code, a.servedBy, a.body)
					}
				}
				if a := c.get(ofHome + "/services/back"); a.code != http.StatusNotFound {
					t.Errorf("%s: what only the object itself says is not for it: %d: %s", who, a.code, a.body)
				}
				if a := c.get("/api/v1/secrets", "Accept", "application/vnd.kubernetes.protobuf"); a.code != http.StatusNotAcceptable {
					t.Errorf("%s: in protobuf: %d", who, a.code)
				}
				if a := c.get(ofHome+"/pods/web", "Impersonate-User", "admin"); who == "token" && !a.refused() {
					t.Errorf("as somebody else: %d", a.code)
				}
			}
			// Others see it all.
			for who, cred := range map[string]controlplane.Credential{"jane": world.Token("jane"), "vault": tokenOf(t, "vault"), "vault-kubelet": kubeletOf(t, vault)} {
				o := newClient(t, p, cred)
				if a := o.get(ofHome + "/secrets/vault"); a.code != http.StatusOK || !strings.Contains(a.body, hidden) {
					t.Errorf("%s: %d: %s", who, a.code, a.body)
				}
				o.got.Reset()
			}
		})
	}
}
