package clients

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

type object = map[string]any

// aggregatedGroup is served by a server behind the API server.
const aggregatedGroup = "/apis/shop.example.org/v1"

// TestAggregatedAPI asks an API server behind the API server both ways: for its
// discovery, a list, a stream and errors of its own. The control plane is its
// own: others are not to see discovery change.
func TestAggregatedAPI(t *testing.T) {
	cp := controlplane.New(t, controlplane.Options{})
	p := proxy.New(t, proxy.Options{Kubeconfig: cp.KubeconfigPath()})
	both := pair{cp.ConfigFor(cp.Token("admin")), p.Config(cp.Token("admin"))}
	aggregate(t, cp)
	eventually(t, "the aggregated API", func(context.Context) bool {
		return ask(t, both.direct, aggregatedGroup, nil).Status == http.StatusOK
	})
	for _, path := range []string{
		"", "/namespaces/default/carts", "/namespaces/default/carts?limit=1&labelSelector=app%3Dweb", "/namespaces/default/carts/nothing",
		"/namespaces/default/carts/teapot", "/nonsense",
	} {
		both.ask(t, aggregatedGroup+path, nil)
	}
	if got := both.ask(t, aggregatedGroup+"/whoami", nil); got.Body != "admin" {
		t.Errorf("behind the API server the caller is %q, want admin", got.Body)
	}
	eventually(t, "the aggregated API to be discovered", func(context.Context) bool {
		return strings.Contains(ask(t, both.direct, "/apis", http.Header{"Accept": {aggregatedDiscovery}}).Body, `"carts"`)
	})
	both.ask(t, "/apis", http.Header{"Accept": {aggregatedDiscovery}})

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, both.proxied.Host+aggregatedGroup+"/namespaces/default/carts?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := httpClient(t, both.proxied).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for n, events := 0, bufio.NewScanner(res.Body); events.Scan(); n++ {
		if want := fmt.Sprintf(`{"type":"ADDED","object":{"n":%d}}`, n); events.Text() != want {
			t.Errorf("event %d is %s", n, events.Text())
		}
		if n == 2 {
			return // the server waits until we have seen it
		}
	}
	t.Error("the watch ended early")
}

// aggregate registers a server of this test's.
func aggregate(t *testing.T, cp *controlplane.ControlPlane) {
	t.Helper()
	certPEM, keyPEM, err := cp.ServerCert("api", "api.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(serveCarts))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca, err := os.ReadFile(cp.CAFile())
	if err != nil {
		t.Fatal(err)
	}

	client := clientset(t, cp.Config())
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "api"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
	}
	if _, err := client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	registration, err := json.Marshal(object{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": "v1.shop.example.org"},
		"spec": object{
			"group": "shop.example.org", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15, "caBundle": ca,
			"service": object{"namespace": "default", "name": "api", "port": s.Listener.Addr().(*net.TCPAddr).Port},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const services = "/apis/apiregistration.k8s.io/v1/apiservices"
	err = client.RESTClient().Post().AbsPath(services).SetHeader("Content-Type", "application/json").Body(registration).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

// serveCarts is the aggregated API server.
func serveCarts(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, aggregatedGroup)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Query().Get("watch") != "":
		for n := range 3 {
			fmt.Fprintf(w, `{"type":"ADDED","object":{"n":%d}}`+"\n", n)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	case path == "":
		answer(w, http.StatusOK, object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "shop.example.org/v1", "resources": []object{
			{"name": "carts", "singularName": "cart", "namespaced": true, "kind": "Cart", "verbs": []string{"get", "list", "watch"}},
		}})
	case path == "/whoami":
		_, _ = io.WriteString(w, r.Header.Get("X-Remote-User"))
	case strings.HasSuffix(path, "/carts"):
		w.Header().Set("Warning", `299 - "carts are old"`)
		w.Header().Set("X-Cart", "full")
		answer(w, http.StatusOK, object{"kind": "CartList", "apiVersion": "shop.example.org/v1", "metadata": object{"resourceVersion": "7"},
			"items": []object{{"metadata": object{"name": "web"}, "asked": r.URL.RawQuery}}})
	case strings.HasSuffix(path, "/teapot"):
		w.Header().Set("Retry-After", "7")
		answer(w, http.StatusTeapot, object{"short": "and stout"})
	default:
		answer(w, http.StatusNotFound, metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound, Message: "no such cart"})
	}
}

func answer(w http.ResponseWriter, code int, what any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(what)
}
