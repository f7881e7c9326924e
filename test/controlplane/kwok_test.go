package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestKwokServesPods follows a pod from its scheduling to what its kubelet
// would serve, with kubectl as a person would.
func TestKwokServesPods(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "this is web")
	}))
	defer web.Close()
	cp := New(t, Options{
		ControllerManager: true, Scheduler: true, Kwok: true,
		Forwards: map[int]string{80: web.Listener.Addr().String()},
	})
	for _, err := range []error{cp.AddNode(t.Context(), "node-a"), cp.AddNamespace(t.Context(), "shop")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	k := kubectl{cp: cp}
	k.run(t, "run", "web", "--image=example.org/web")
	k.run(t, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")

	t.Run("pod-runs-on-node", func(t *testing.T) {
		got := k.run(t, "get", "pod", "web", "-o", "jsonpath={.status.phase} on {.spec.nodeName}")
		if want := "Running on node-a"; got != want {
			t.Errorf("pod is %q, want %q", got, want)
		}
	})
	t.Run("node-has-a-lease", func(t *testing.T) {
		got := k.run(t, "get", "lease", "node-a", "--namespace=kube-node-lease", "-o", "jsonpath={.spec.leaseDurationSeconds}")
		if got != "40" {
			t.Errorf("lease holds for %q s, want 40", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		if got := k.run(t, "exec", "web", "--", "sh", "-c", "echo to stdout"); got != "to stdout\n" {
			t.Errorf("exec printed %q", got)
		}
	})
	t.Run("exec-reads-stdin", func(t *testing.T) {
		cmd := k.command(t.Context(), "exec", "-i", "web", "--", "head", "-n1")
		cmd.Stdin = strings.NewReader("through the wire\n")
		if got, err := cmd.Output(); string(got) != "through the wire\n" || err != nil {
			t.Errorf("exec head printed %q, %v", got, err)
		}
	})
	t.Run("logs", func(t *testing.T) {
		if got := k.run(t, "logs", "web"); !strings.HasPrefix(got, "hello from a pod") {
			t.Errorf("logs printed %q", got)
		}
	})
	t.Run("logs-follow", func(t *testing.T) {
		lines := k.stream(t, "logs", "-f", "web")
		lines.expect(t, "hello from a pod that kwok plays")
		if err := cp.WritePodLog("something new"); err != nil {
			t.Fatal(err)
		}
		lines.expect(t, "something new")
	})
	t.Run("attach", func(t *testing.T) {
		lines := k.stream(t, "attach", "web", "-v=0")
		// Attach shows only what is written after it began, which nothing
		// tells; so write until it shows.
		go writeUntil(lines.ctx, cp, "hello, attached")
		lines.expect(t, "hello, attached")
	})
	t.Run("port-forward", func(t *testing.T) {
		address := k.forward(t, "80")
		resp, err := http.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		if body, err := io.ReadAll(resp.Body); string(body) != "this is web" || err != nil {
			t.Errorf("port 80 answered %q, %v", body, err)
		}
	})
	t.Run("port-forward-echoes", func(t *testing.T) {
		conn, err := net.Dial("tcp", k.forward(t, "7"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "anybody there?\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := bufio.NewReader(conn).ReadString('\n'); got != "anybody there?\n" || err != nil {
			t.Errorf("echo was %q, %v", got, err)
		}
	})
}

func writeUntil(ctx context.Context, cp *ControlPlane, line string) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = cp.WritePodLog(line)
		}
	}
}

// kubectl runs kubectl commands as the administrator in namespace shop.
type kubectl struct{ cp *ControlPlane }

func (k kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	return k.cp.Kubectl(ctx, k.cp.KubeconfigPath(), append([]string{"--namespace=shop"}, args...)...)
}

func (k kubectl) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := k.command(t.Context(), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// stream starts a command that goes on until the test is over.
func (k kubectl) stream(t *testing.T, args ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := k.command(ctx, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	return &stream{ctx: ctx, lines: bufio.NewScanner(out)}
}

// forward starts a port-forward to a port of the pod and returns its near end.
func (k kubectl) forward(t *testing.T, port string) string {
	t.Helper()
	lines := k.stream(t, "port-forward", "pod/web", ":"+port, "--address=127.0.0.1")
	line := lines.expect(t, "Forwarding from")
	return strings.Fields(line)[2]
}

// A stream is the output of a command that has not ended.
type stream struct {
	ctx   context.Context
	lines *bufio.Scanner
}

// expect reads until a line holds text and returns the line.
func (s *stream) expect(t *testing.T, text string) string {
	t.Helper()
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), text) {
			return s.lines.Text()
		}
	}
	t.Fatalf("the command ended before it printed %q", text)
	return ""
}
