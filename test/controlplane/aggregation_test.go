package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// TestAggregatedAPIServerIsToldTheUser stands a server behind the aggregation
// layer and checks that the API server shows it a certificate that it can
// verify, and the caller.
func TestAggregatedAPIServerIsToldTheUser(t *testing.T) {
	cp := New(t, Options{})
	backend := startBackend(t, cp)
	client := newClient(t, cp.Config())
	registerAPI(t, cp, client, backend)

	var body []byte
	var last error
	// The aggregation layer takes a moment to learn of a new APIService.
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		body, last = client.RESTClient().Get().AbsPath("/apis/shop.example.org/v1").DoRaw(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatal(err, last)
	}
	if want := "admin via " + frontProxyUser; string(body) != want {
		t.Errorf("the aggregated API server was called by %q, want %q", body, want)
	}
}

// startBackend starts a server that answers with its caller and returns its
// port.
func startBackend(t *testing.T, cp *ControlPlane) int {
	t.Helper()
	certPEM, keyPEM, err := cp.ServerCert("api", "api.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	frontProxyCA, err := os.ReadFile(cp.FrontProxyCAFile())
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(frontProxyCA)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s via %s", r.Header.Get("X-Remote-User"), r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func registerAPI(t *testing.T, cp *ControlPlane, client *kubernetes.Clientset, port int) {
	t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "api"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
	}
	if _, err := client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(cp.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	api, err := json.Marshal(object{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": object{"name": "v1.shop.example.org"},
		"spec": object{
			"group": "shop.example.org", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
			"service": object{"namespace": "default", "name": "api", "port": port}, "caBundle": ca,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = client.RESTClient().Post().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices").
		SetHeader("Content-Type", "application/json").Body(api).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}
