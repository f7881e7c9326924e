//go:build linux

package redirect_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// metricsAddress is on the node: it has a network of its own.
const metricsAddress = "127.0.0.1:8082"

// metrics are those of an agent that serves them at metricsAddress.
func (l *lab) metrics(t *testing.T) string {
	t.Helper()
	var text []byte
	var err error
	l.do(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", metricsAddress, patience); err != nil {
			return
		}
		defer c.Close()
		if _, err = io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n"); err == nil {
			text, err = io.ReadAll(c)
		}
	})
	if err != nil {
		t.Fatal("read metrics: ", err)
	}
	return string(text)
}

// Endpoints come and go without everything else being decided again.
func TestEndpointsAreFollowed(t *testing.T) {
	c := newCluster(t)
	names := map[string]string{"10.244.2.6": "first", "10.244.2.7": "second"}
	for ip, name := range names {
		c.addAddress(t, 1+len(name), ip)
		c.play(t, c.mkCgroup(t, name), "name", ip+":80", name)
	}
	address := c.service(t, "http-server", 8080, "10.244.2.6", 80)
	c.agent(t, "--kubeconfig="+c.kubeconfig, "--resolve-services", "--metrics-bind-address="+metricsAddress)
	client := c.play(t, c.mkCgroup(t, "client"), "ask", address)
	client.until(t, "first")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// From time to time the agent decides on everything, and sees the change so.
	for !strings.Contains(c.metrics(t), `portico_redirect_sync_duration_seconds_count{of="endpoints"}`) {
		if ctx.Err() != nil {
			t.Fatal("changes of endpoints alone are never decided on alone")
		}
		for _, ip := range []string{"10.244.2.7", "10.244.2.6"} {
			c.kubectl(t, "patch", "endpointslice", "http-server", "--type=merge", "-p", `{"endpoints":[{"addresses":["`+ip+`"]}]}`)
			client.until(t, names[ip])
		}
	}
	if counted := `portico_redirect_verdicts_total{frontend="` + address + `/TCP",verdict="service"}`; !strings.Contains(c.metrics(t), counted) {
		t.Errorf("connections are not counted: no %s in\n%s", counted, c.metrics(t))
	}
	// Without one, connections are refused.
	c.kubectl(t, "delete", "endpointslice", "http-server")
	client.until(t, "error: dial tcp "+address+": connect: connection refused")
	if again := client.say(t); !strings.Contains(again, "refused") {
		t.Errorf("nobody is there, and %s answers", again)
	}
}

// What becomes of connections can be watched.
func TestEventsAreShown(t *testing.T) {
	c := newLab(t)
	dir := t.TempDir()
	writePolicy(t, dir, `
apiVersion: balancing.elf.io/v1beta1
kind: BalancingPolicy
metadata: {name: p}
spec:
  frontend:
    addressMatcher: {ip: 10.96.0.9}
    toPorts: [{port: "80"}]
  backend:
    addressEndpoint: {addresses: [127.0.0.1], toPorts: [{port: "8000"}]}
`)
	c.play(t, c.mkCgroup(t, "server"), "name", "127.0.0.1:8000", "server")
	c.agent(t, "--policy-dir="+dir, "--sample-events=1")
	client := c.play(t, c.mkCgroup(t, "client"), "ask", "10.96.0.9:80")
	client.until(t, "server")
	events := c.spawn(t, c.mkCgroup(t, "watcher"), nil, c.binary, "inspect", "redirect", "--events", "10.96.0.9:80", "--pin-path="+c.pins)
	if !events.out.Scan() {
		t.Fatal("no events are shown")
	}
	if got := events.out.Text(); !strings.Contains(got, "10.96.0.9:80/TCP  by policy to 127.0.0.1:8000, for ") {
		t.Errorf("the event is shown as %q", got)
	}
}
