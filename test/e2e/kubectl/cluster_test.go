package kubectl

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestCluster compares commands on what has no namespace, one after another:
// what they print depends on all that is in the cluster.
func TestCluster(t *testing.T) {
	compareInTurn(t,
		"api-resources", "api-resources -o wide --sort-by=name", "api-resources --verbs=list,watch --namespaced=false -o name", "api-resources --categories=all",
		"api-versions", "version", "version -o json", "cluster-info",
		"explain pods", "explain deployments.spec --recursive", "explain pods.spec.containers.image", "explain cronjobs --api-version=batch/v1",
		"explain pods --output=plaintext-openapiv2",
		"get nodes", "get node node-a -o wide --show-labels", "get nodes -o json", "describe node node-a", "get namespaces default kube-system", "get apiservices",
		"get priorityclasses,flowschemas", "get customresourcedefinitions", "get clusterroles -o name", "get pods -A -o name",
		"get --raw /", "get --raw /api", "get --raw /apis", "get --raw /apis/apps/v1", "get --raw /version",
		"get --raw /openapi/v2", "get --raw /openapi/v3", "get --raw /openapi/v3/apis/apps/v1", "get --raw /openapi/v3/api/v1",
		"get --raw /healthz", "get --raw /healthz?verbose", "get --raw /livez?verbose", "get --raw /readyz?verbose&exclude=etcd",
		"get --raw /.well-known/openid-configuration", "get --raw /openid/v1/jwks",
		"auth can-i get nodes", "auth can-i get /metrics",
	)
}

func TestNode(t *testing.T) {
	compare(t, newProxy(t), func(s *side) {
		s.works("cordon node-a")
		s.works("get nodes")
		s.works("uncordon node-a")
		s.works("taint node node-a a=b:PreferNoSchedule")
		s.fails("already has", "taint node node-a a=b:PreferNoSchedule")
		s.works("taint node node-a a-")
		s.works("drain node-a --dry-run=server --ignore-daemonsets --force")
	})
}

// compareInTurn runs each command directly and then through the proxy.
func compareInTurn(t *testing.T, lines ...string) {
	t.Helper()
	direct, proxied := newSide(t, nil), newSide(t, newProxy(t))
	for _, line := range lines {
		direct.works(line)
		proxied.works(line)
	}
	same(t, direct, proxied)
}

// TestMetrics compares the API server's metrics by what they are: their values
// differ from moment to moment, and some appear only once they have one.
func TestMetrics(t *testing.T) {
	direct, proxied := newSide(t, nil), newSide(t, newProxy(t))
	const line = "get --raw /metrics"
	before, through, after := described(direct.works(line)), described(proxied.works(line)), described(direct.works(line))
	for _, metric := range before {
		if !slices.Contains(through, metric) {
			t.Errorf("lost in the proxy: %s", metric)
		}
	}
	for _, metric := range through {
		if !slices.Contains(after, metric) {
			t.Errorf("added by the proxy: %s", metric)
		}
	}
	if len(before) < 100 {
		t.Errorf("the API server has %d metrics, want hundreds", len(before))
	}
}

func described(metrics string) (help []string) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "# HELP ") {
			help = append(help, line)
		}
	}
	return help
}

// TestKubectlProxy puts kubectl's own proxy in front of both ways.
func TestKubectlProxy(t *testing.T) {
	compare(t, newProxy(t), func(s *side) {
		s.direct().in(configMap).works("create -f -")
		p := s.start("proxy --port=0")
		p.expect("Starting to serve on")
		_, address, _ := strings.Cut(strings.TrimSpace(p.out.String()), "Starting to serve on ")
		for _, path := range []string{"/api/v1/namespaces/" + s.namespace + "/configmaps/web", "/version", "/nonsense", "/openapi/v3"} {
			res, err := http.Get("http://" + address + path)
			if err != nil {
				s.t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil {
				s.t.Errorf("GET %s through kubectl proxy: %v", path, err)
			}
			s.ended("proxy: GET "+path, res.Status+"\n"+string(body), "", nil)
		}
		http.DefaultClient.CloseIdleConnections()
		p.interrupt()
	})
}
