//go:build linux

package redirect_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/controlplane"
)

// What an agent reads of Services, which is most of it, comes by the proxy next door
// while there is one, and otherwise from the API server.
func TestAgentsReadServicesByTheProxyNextDoor(t *testing.T) {
	c := newCluster(t)
	container := c.pod(t, "default", "proxy", proxyIP, map[string]string{"app": "proxy-redirect"})
	backend := c.proxy(t, container)
	c.kubectl(t, "apply", "-f", talk)
	first := c.agent(t, "--kubeconfig="+c.kubeconfig, "--resolve-services")
	client := c.play(t, c.mkCgroup(t, "client"), "get", "https://10.96.0.1:443/api/v1/namespaces/default", c.cp.CAFile(), c.token)
	client.until(t, "proxy")

	// As in a cluster, the agent knows the Service's address only. Somebody resolves
	// it before: here an agent that goes.
	agent := c.agent(t, "--kubeconfig="+c.byService(t), "--resolve-services")
	first.signal(t, syscall.SIGTERM)
	c.untilSteering(t, agent)
	t.Logf("found the proxy after %v", c.untilConnected(t, agent, proxyIP+":443"))

	backend.kill(t)
	t.Logf("fell back after %v", client.until(t, "API server"))
	c.addAddress(t, 2, "10.244.2.6")
	c.play(t, c.mkCgroup(t, "elsewhere"), "name", "10.244.2.6:80", "service")
	another := c.play(t, c.mkCgroup(t, "another"), "ask", c.service(t, "http-server", 8080, "10.244.2.6", 80))
	t.Logf("saw a new Service after %v", another.until(t, "service"))

	c.proxy(t, container)
	client.until(t, "proxy")
	t.Logf("found the proxy after %v", c.untilConnected(t, agent, proxyIP+":443"))
}

// byService is a kubeconfig for the kubernetes Service's address, with a token.
func (c *cluster) byService(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.kubeconfigOf(t, controlplane.Credential{Token: c.token}))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), c.server, "https://10.96.0.1:443")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// untilConnected waits until a process has a connection to an address, whatever it
// calls that itself.
func (c *cluster) untilConnected(t *testing.T, p *process, to string) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !p.connected(t, netip.MustParseAddrPort(to)) {
		if ctx.Err() != nil {
			t.Fatalf("the process does not connect to %s", to)
		}
		p.pause(t)
	}
	return time.Since(began)
}

// connected reads what the kernel says of the process's sockets and of those of its
// network namespace.
func (p *process) connected(t *testing.T, to netip.AddrPort) bool {
	t.Helper()
	own := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	fds, err := filepath.Glob(dir + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil { // it may be closed by now
			own[target] = true
		}
	}
	table, err := os.ReadFile(dir + "/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	a := to.Addr().As4()
	remote := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a[:]), to.Port())
	const established = "01"
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[2] == remote && f[3] == established && own["socket:["+f[9]+"]"] {
			return true
		}
	}
	return false
}
