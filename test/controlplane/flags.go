package controlplane

import (
	"fmt"
	"slices"
	"strings"
)

// frontProxyUser is the common name by which the API servers' aggregation
// layer is known to aggregated API servers.
const frontProxyUser = "front-proxy-client"

// issuer names the API servers in ServiceAccount tokens.
const issuer = "https://kubernetes.default.svc"

// serverHosts are the names and addresses an API server's certificate holds:
// how clients outside and inside a cluster call it.
func serverHosts(apiServers int) []string {
	hosts := []string{
		"127.0.0.1", "::1", "localhost", "10.96.0.1",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	for n := range apiServers {
		hosts = append(hosts, advertiseAddress(n))
	}
	return hosts
}

// advertiseAddress is what an API server puts into the endpoints of the
// kubernetes Service, where loopback addresses are not valid. Nothing listens
// there: 192.0.2.0/24 is for documentation (RFC 5737).
func advertiseAddress(n int) string { return fmt.Sprintf("192.0.2.%d", n+1) }

func etcdFlags(data string, client, peer int) []string {
	clientURL, peerURL := loopbackURL("http", client), loopbackURL("http", peer)
	return []string{
		"--data-dir=" + data,
		"--listen-client-urls=" + clientURL,
		"--advertise-client-urls=" + clientURL,
		"--listen-peer-urls=" + peerURL,
		"--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster=default=" + peerURL,
		"--unsafe-no-fsync",
		"--quota-backend-bytes=8589934592",
		// There is nobody to wait for in the election.
		"--heartbeat-interval=20",
		"--election-timeout=200",
		"--log-level=warn",
	}
}

func (c *ControlPlane) apiServerFlags(n, port int) []string {
	return []string{
		"--etcd-servers=" + c.EtcdURL(),
		"--bind-address=127.0.0.1",
		"--advertise-address=" + advertiseAddress(n),
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + c.pki.cert("server"),
		"--tls-private-key-file=" + c.pki.key("server"),
		"--client-ca-file=" + c.pki.cert("client-ca"),
		"--token-auth-file=" + c.path("tokens.csv"),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + c.pki.key("service-account"),
		"--service-account-signing-key-file=" + c.pki.key("service-account"),
		"--service-cluster-ip-range=10.96.0.0/12",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--kubelet-client-certificate=" + c.pki.cert("kubelet-client"),
		"--kubelet-client-key=" + c.pki.key("kubelet-client"),
		"--kubelet-certificate-authority=" + c.pki.cert("server-ca"),
		"--kubelet-preferred-address-types=InternalIP",
		"--proxy-client-cert-file=" + c.pki.cert("front-proxy-client"),
		"--proxy-client-key-file=" + c.pki.key("front-proxy-client"),
		"--requestheader-client-ca-file=" + c.pki.cert("front-proxy-ca"),
		"--requestheader-allowed-names=" + frontProxyUser,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-uid-headers=X-Remote-Uid",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
	}
}

func (c *ControlPlane) controllerManagerFlags(port int, kubeconfig string) []string {
	return append(c.controllerFlags(port, kubeconfig),
		"--use-service-account-credentials=true",
		"--root-ca-file="+c.pki.cert("server-ca"),
		"--service-account-private-key-file="+c.pki.key("service-account"),
		"--cluster-signing-cert-file="+c.pki.cert("client-ca"),
		"--cluster-signing-key-file="+c.pki.key("client-ca"),
	)
}

// controllerFlags are those that controller-manager and scheduler share.
func (c *ControlPlane) controllerFlags(port int, kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + c.pki.cert("server"),
		"--tls-private-key-file=" + c.pki.key("server"),
		"--leader-elect=false",
		// At its start the controller-manager asks for a token for each
		// controller; the default rate spreads that over seconds.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	}
}

// replaceFlags puts extra in the place of the flags they name, the rest after.
func replaceFlags(flags, extra []string) []string {
	name := func(flag string) string {
		name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
		return name
	}
	kept := slices.DeleteFunc(slices.Clone(flags), func(flag string) bool {
		return slices.ContainsFunc(extra, func(e string) bool { return name(e) == name(flag) })
	})
	return append(kept, extra...)
}

func loopbackURL(scheme string, port int) string {
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
}
