package controlplane

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/csv"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A Credential is how a client says who it is: by a bearer token or by a
// certificate. The zero value is nobody, whom the API servers call
// system:anonymous.
type Credential struct {
	Token           string
	CertPEM, KeyPEM []byte
}

// Admin returns a client certificate that may do everything.
func (c *ControlPlane) Admin() Credential { return c.admin }

// ClientCert returns a client certificate for a user in some groups.
func (c *ControlPlane) ClientCert(user string, groups ...string) (Credential, error) {
	cert, key, err := c.pki.clientCA.client(user, groups...)
	return Credential{CertPEM: cert, KeyPEM: key}, err
}

// FrontProxyCert returns a client certificate whose holder may speak for
// others by X-Remote headers.
func (c *ControlPlane) FrontProxyCert() (Credential, error) {
	cert, key, err := c.pki.frontProxy.client(frontProxyUser)
	return Credential{CertPEM: cert, KeyPEM: key}, err
}

// adminUser is the user of the static token that may do everything.
const adminUser = "admin"

// Token returns the static token of a user named in Options.Users, or of
// "admin", who may do everything. A user that does not exist is a mistake in
// the test, so it panics.
func (c *ControlPlane) Token(user string) Credential {
	i := slices.IndexFunc(c.users, func(u User) bool { return u.Name == user })
	if i < 0 {
		panic(fmt.Sprintf("controlplane: no user %q in Options.Users", user))
	}
	return Credential{Token: c.users[i].Token}
}

// writeTokens writes the file of static tokens that the API servers read at
// their start.
func (c *ControlPlane) writeTokens() error {
	c.users = append(slices.Clone(c.opts.Users), User{Name: adminUser, UID: "admin", Groups: []string{"system:masters"}})
	var b strings.Builder
	w := csv.NewWriter(&b)
	for i, u := range c.users {
		c.users[i].Token = cmp.Or(u.Token, rand.Text())
		_ = w.Write([]string{c.users[i].Token, u.Name, cmp.Or(u.UID, u.Name), strings.Join(u.Groups, ",")})
	}
	w.Flush()
	if err := os.WriteFile(c.path("tokens.csv"), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write tokens: %w", err)
	}
	return nil
}

// ServiceAccountToken asks the API server for a token of a ServiceAccount that
// exists. The API grants no lifetime under ten minutes; see SignToken.
func (c *ControlPlane) ServiceAccountToken(ctx context.Context, namespace, name string, lifetime time.Duration) (Credential, error) {
	seconds := int64(lifetime.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return Credential{}, fmt.Errorf("request token of %s/%s: %w", namespace, name, err)
	}
	return Credential{Token: answer.Status.Token}, nil
}

// Config returns a client configuration for the first API server that may do
// everything and has no rate limit. The caller owns it.
func (c *ControlPlane) Config() *rest.Config { return c.ConfigFor(c.admin) }

// ConfigFor returns a client configuration like Config for somebody else.
func (c *ControlPlane) ConfigFor(cred Credential) *rest.Config {
	return &rest.Config{
		Host:        c.URL(),
		BearerToken: cred.Token,
		QPS:         -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.pki.serverCA.certPEM, CertData: cred.CertPEM, KeyData: cred.KeyPEM,
		},
	}
}

// A Kubeconfig is a kubeconfig with one server and one user.
type Kubeconfig struct {
	Server     string // URL
	CA         []byte // PEM of what vouches for the server
	Credential Credential
}

// Kubeconfig returns the kubeconfig of the first API server for a credential.
// Another server may be put in its place.
func (c *ControlPlane) Kubeconfig(cred Credential) Kubeconfig {
	return Kubeconfig{Server: c.URL(), CA: c.pki.serverCA.certPEM, Credential: cred}
}

// ServingPair returns the files of the certificate that API servers show, and of its
// key: for what stands in their place. Whoever trusts a Kubeconfig's CA trusts it.
func (c *ControlPlane) ServingPair() (certFile, keyFile string) {
	return c.pki.cert("server"), c.pki.key("server")
}

// KubeconfigPath returns the path of a kubeconfig that may do everything.
func (c *ControlPlane) KubeconfigPath() string { return c.path("admin.kubeconfig") }

// WriteFile writes the kubeconfig to a file that only its owner may read.
func (k Kubeconfig) WriteFile(path string) error {
	const name = "controlplane"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: k.Server, CertificateAuthorityData: k.CA}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{
		Token: k.Credential.Token, ClientCertificateData: k.Credential.CertPEM, ClientKeyData: k.Credential.KeyPEM,
	}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// partKubeconfig writes the kubeconfig of a part's own user.
func (c *ControlPlane) partKubeconfig(part Part) (string, error) {
	user, groups := "system:"+string(part), []string(nil)
	if part == Kwok {
		// It plays kubelets and impersonates them.
		groups = []string{"system:masters"}
	}
	cred, err := c.ClientCert(user, groups...)
	if err != nil {
		return "", err
	}
	path := c.path(string(part) + ".kubeconfig")
	return path, c.Kubeconfig(cred).WriteFile(path)
}
