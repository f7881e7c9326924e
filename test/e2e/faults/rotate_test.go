package faults

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// place puts a file where another was, whole, as operators' tools do.
func place(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestServingCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	crt, key := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	install := func(name string) {
		certPEM, keyPEM, err := world.ServerCert(name, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		place(t, crt, certPEM)
		place(t, key, keyPEM)
	}
	install("old")
	p := before(t, "--tls-cert-file="+crt, "--tls-private-key-file="+key)
	if got := presented(t, p); got != "old" {
		t.Fatalf("serves as %s", got)
	}
	install("new")
	eventually(t, "the new certificate", func() bool { return presented(t, p) == "new" })
}

// presented is the name in the certificate that a new connection sees.
func presented(t *testing.T, p *proxy.Proxy) string {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// asks returns the code of a request by somebody with a client certificate, on
// a new connection.
func asks(t *testing.T, p *proxy.Proxy, cred controlplane.Credential) int {
	t.Helper()
	pair, err := tls.X509KeyPair(cred.CertPEM, cred.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}
	res, err := (&http.Client{Transport: tr}).Get(p.URL + "/apis") // which everybody may, but nobody without a name
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

func certificate(t *testing.T, user string, groups ...string) controlplane.Credential {
	t.Helper()
	cred, err := world.ClientCert(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func TestClientAuthorityIsReadAgain(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	place(t, ca, read(t, world.FrontProxyCAFile()))
	p := before(t, "--client-ca-file="+ca, "--impersonate-x509")
	former, err := world.FrontProxyCert()
	if err != nil {
		t.Fatal(err)
	}
	jane := certificate(t, "jane")
	if old, later := asks(t, p, former), asks(t, p, jane); old != http.StatusOK || later == http.StatusOK {
		t.Fatalf("at first: got %d and %d", old, later)
	}
	place(t, ca, read(t, world.ClientCAFile()))
	eventually(t, "the new authority", func() bool { return asks(t, p, jane) == http.StatusOK })
	if code := asks(t, p, former); code == http.StatusOK {
		t.Errorf("callers of the former authority get %d", code)
	}
}

// mayImpersonate lets a user pass callers on, which a proxy without rights may not.
func mayImpersonate(t *testing.T, name string, subject rbacv1.Subject) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(world.Config())
	meta := metav1.ObjectMeta{Name: name}
	role := &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"impersonate"}},
	}}
	if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{subject}}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestOwnCredentialIsReadAgain gives the proxy the credential of somebody
// without rights and puts another's in its place.
func TestOwnCredentialIsReadAgain(t *testing.T) {
	t.Parallel()
	user := func(name string) rbacv1.Subject {
		return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
	}
	mayImpersonate(t, "new-proxy", user("new-proxy"))
	dir := t.TempDir()
	token, crt, key := filepath.Join(dir, "token"), filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	tests := map[string]struct {
		auth  *clientcmdapi.AuthInfo
		place func(t *testing.T, name string)
	}{
		"token": {
			&clientcmdapi.AuthInfo{TokenFile: token},
			func(t *testing.T, name string) { place(t, token, []byte(world.Token(name).Token)) },
		},
		"certificate": {
			&clientcmdapi.AuthInfo{ClientCertificate: crt, ClientKey: key},
			func(t *testing.T, name string) {
				cred := certificate(t, name)
				place(t, crt, cred.CertPEM)
				place(t, key, cred.KeyPEM)
			},
		},
	}
	jane := certificate(t, "jane")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.place(t, "old-proxy")
			p := proxy.New(t, proxy.Options{Kubeconfig: kubeconfigOf(t, tt.auth), Flags: []string{"--client-ca-file=" + world.ClientCAFile(), "--impersonate-x509"}})
			if code := asks(t, p, jane); code != http.StatusForbidden {
				t.Fatalf("at first: got %d", code)
			}
			tt.place(t, "new-proxy")
			eventually(t, "the new credential", func() bool { return asks(t, p, jane) == http.StatusOK })
		})
	}
}

func kubeconfigOf(t *testing.T, auth *clientcmdapi.AuthInfo) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["world"] = &clientcmdapi.Cluster{Server: world.URL(), CertificateAuthority: world.CAFile()}
	c.AuthInfos["proxy"] = auth
	c.Contexts["world"] = &clientcmdapi.Context{Cluster: "world", AuthInfo: "proxy"}
	c.CurrentContext = "world"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}
