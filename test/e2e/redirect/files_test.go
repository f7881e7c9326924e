//go:build linux

package redirect_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A policy for a machine that is in no cluster.
const bareMetal = `
apiVersion: balancing.elf.io/v1beta1
kind: BalancingPolicy
metadata:
  name: echo
spec:
  frontend:
    addressMatcher:
      ip: 198.51.100.7
      toPorts: [{port: "7000"}]
  backend:
    addressEndpoint:
      addresses: [10.244.1.7, 10.244.1.8]
      probe: true
      toPorts: [{port: "7000"}]
`

func writePolicy(t *testing.T, dir, text string) {
	t.Helper()
	next := filepath.Join(dir, ".next")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
}

// Without a cluster, policies come from files. The address itself is there too:
// it is what connections reach without the policy.
func TestWithoutACluster(t *testing.T) {
	l := newLab(t)
	whole := t // what a step starts is there for the next one
	for i, ip := range []string{"198.51.100.7", "10.244.1.7", "10.244.1.8"} {
		l.addAddress(t, i, ip)
	}
	l.play(t, l.mkCgroup(t, "origin"), "name", "198.51.100.7:7000", "origin")
	backend := l.mkCgroup(t, "backend")
	one := l.play(t, backend, "name", "10.244.1.7:7000", "one")
	client := l.play(t, l.mkCgroup(t, "client"), "ask", "198.51.100.7:7000")
	client.until(t, "origin")

	dir := t.TempDir()
	writePolicy(t, dir, bareMetal)
	agent := l.agent(t, "--policy-dir="+dir)
	t.Logf("redirected after %v", client.until(t, "one"))

	t.Run("inspected", func(t *testing.T) {
		out := l.portico(t, "inspect", "redirect", "198.51.100.7:7000", "--pin-path="+l.pins)
		if !strings.Contains(out, "-> 10.244.1.7:7000, because of BalancingPolicy echo") {
			t.Errorf("the explanation is:\n%s", out)
		}
		out = l.portico(t, "inspect", "redirect", "--pin-path="+l.pins)
		if !strings.Contains(out, "connect4") || !strings.Contains(out, "198.51.100.7:7000/TCP") {
			t.Errorf("the report is:\n%s", out)
		}
	})
	t.Run("backend-killed", func(t *testing.T) {
		one.kill(t)
		t.Logf("fell back after %v", client.until(t, "origin"))
		one = l.play(whole, backend, "name", "10.244.1.7:7000", "one")
		t.Logf("came back after %v", client.until(t, "one"))
	})
	t.Run("agent-killed", func(t *testing.T) {
		agent.kill(t)
		t.Logf("fell back after %v", client.until(t, "origin"))
		agent = l.agent(whole, "--policy-dir="+dir)
		t.Logf("came back after %v", client.until(t, "one"))
	})
	t.Run("both-killed", func(t *testing.T) {
		agent.kill(t)
		one.kill(t)
		t.Logf("fell back after %v", client.until(t, "origin"))
		one = l.play(whole, backend, "name", "10.244.1.7:7000", "one")
		agent = l.agent(whole, "--policy-dir="+dir)
		t.Logf("came back after %v", client.until(t, "one"))
	})
	t.Run("agent-stopped", func(t *testing.T) {
		agent.signal(t, syscall.SIGTERM)
		for range 20 {
			if got := client.say(t); got != "one" {
				t.Errorf("%s answered while the agent hands over", got)
			}
		}
		agent = l.agent(whole, "--policy-dir="+dir)
		client.until(t, "one")
	})
	t.Run("nobody-takes-over", func(t *testing.T) {
		agent.signal(t, syscall.SIGTERM)
		agent = l.agent(t, "--policy-dir="+dir, "--handover=500ms")
		l.untilSteering(t, agent)
		agent.signal(t, syscall.SIGTERM)
		t.Logf("what the agent left behind ended after %v", client.until(t, "origin"))
		agent = l.agent(whole, "--policy-dir="+dir)
		client.until(t, "one")
	})
	t.Run("policy-deleted-and-made-again", func(t *testing.T) {
		writePolicy(t, dir, "")
		client.until(t, "origin")
		writePolicy(t, dir, bareMetal)
		client.until(t, "one")
	})
	t.Run("policy-refuses", func(t *testing.T) {
		writePolicy(t, dir, strings.Replace(bareMetal, "spec:", "spec:\n  config: {fallback: Refuse}", 1))
		one.kill(t)
		for explained := ""; !strings.Contains(explained, "now: refused"); {
			client.pause(t)
			explained = l.portico(t, "inspect", "redirect", "198.51.100.7:7000", "--pin-path="+l.pins)
		}
		if got := client.say(t); !strings.Contains(got, "connection refused") {
			t.Errorf("%s answered, want a refusal", got)
		}
	})
	t.Run("uninstalled", func(t *testing.T) {
		agent.kill(t)
		l.portico(t, "redirect", "--uninstall", "--pin-path="+l.pins)
		client.until(t, "origin")
		if _, err := os.Stat(l.pins); !os.IsNotExist(err) {
			t.Errorf("the pins are still there: %v", err)
		}
		l.portico(t, "redirect", "--uninstall", "--pin-path="+l.pins) // nothing to do is no error
	})
}

// A resolver that connected once hears of it when its server is no more.
func TestConnectedSocketsHearOfDeadBackends(t *testing.T) {
	l := newLab(t)
	for i, ip := range []string{"10.244.1.7", "10.244.1.8"} {
		l.addAddress(t, i, ip)
	}
	backend := l.mkCgroup(t, "backend")
	l.play(t, backend, "echo", "10.244.1.7:7000", "one")
	l.play(t, backend, "echo", "10.244.1.8:7000", "two")
	both := strings.ReplaceAll(strings.Replace(bareMetal, "      probe: true\n", "", 1), `[{port: "7000"}]`, `[{port: "7000", protocol: UDP}]`)
	dir := t.TempDir()
	writePolicy(t, dir, strings.Replace(both, ", 10.244.1.8", "", 1))
	agent := l.agent(t, "--policy-dir="+dir, "--end-stale-sockets=UDP")
	for !strings.Contains(l.inspect(), "198.51.100.7:7000/UDP") {
		agent.pause(t)
	}
	client := l.play(t, l.mkCgroup(t, "client"), "talk", "198.51.100.7:7000")
	client.until(t, "one")
	writePolicy(t, dir, both) // "one" stays, and so does its client
	for !strings.Contains(l.inspect(), "10.244.1.8:7000") {
		agent.pause(t)
	}
	client.until(t, "one")
	writePolicy(t, dir, strings.Replace(both, "10.244.1.7, ", "", 1))
	client.until(t, "cannot write")
	l.play(t, l.mkCgroup(t, "next"), "talk", "198.51.100.7:7000").until(t, "two")
}
