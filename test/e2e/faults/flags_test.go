package faults

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/proxy"
)

func TestBadFlagsAreNamedInOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	tests := map[string]struct {
		flags []string
		want  []string // what the line names
	}{
		"missing-kubeconfig":   {[]string{"--kubeconfig=/nowhere/kubeconfig"}, []string{"--kubeconfig", "/nowhere/kubeconfig"}},
		"empty-kubeconfig":     {[]string{"--kubeconfig=" + file("empty", "")}, []string{"--kubeconfig"}},
		"server-without-port":  {[]string{"--server=api.example.org"}, []string{"--server", "api.example.org", "host:port"}},
		"server-is-a-url":      {[]string{"--server=https://api.example.org:6443"}, []string{"--server", "host:port"}},
		"half-a-certificate":   {[]string{"--tls-cert-file=" + file("tls.crt", "")}, []string{"--tls-cert-file", "--tls-private-key-file"}},
		"no-certificate":       {[]string{"--tls-cert-file=/nowhere/crt", "--tls-private-key-file=/nowhere/key"}, []string{"--tls-cert-file", "/nowhere/crt"}},
		"no-client-authority":  {[]string{"--client-ca-file=/nowhere/ca"}, []string{"--client-ca-file", "/nowhere/ca"}},
		"bad-client-authority": {[]string{"--client-ca-file=" + file("ca", "x")}, []string{"--client-ca-file", dir}},
		"port-taken":           {[]string{"--secure-port=" + port}, []string{"--secure-port", port}},
		"metrics-port-taken":   {[]string{"--metrics-bind-address=127.0.0.1:" + port}, []string{"--metrics-bind-address", port}},
		"health-port-taken":    {[]string{"--health-probe-bind-address=127.0.0.1:" + port}, []string{"health", port}},
		"bad-tracing-config":   {[]string{"--tracing-config-file=" + file("tracing", "x: 1\n")}, []string{"tracing", dir}},
		"no-tracing-config":    {[]string{"--tracing-config-file=/nowhere/tracing"}, []string{"tracing", "/nowhere/tracing"}},
		"no-policy-directory":  {[]string{"--policy-dir=/nowhere"}, []string{"--policy-dir", "/nowhere"}},
		"bad-policy":           {[]string{"--policy-dir=" + filepath.Dir(file("policies/a.yaml", "kind: Nonsense\n"))}, []string{"a.yaml", "document 1"}},
		"bad-quantity":         {[]string{"--cache-memory-limit=lots"}, []string{"--cache-memory-limit", "lots"}},
		"unknown-flag":         {[]string{"--nonsense"}, []string{"--nonsense"}},
		"unknown-argument":     {[]string{"nonsense"}, []string{"nonsense"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, line := fail(t, append([]string{"--kubeconfig=" + world.KubeconfigPath(), "--cert-dir=" + t.TempDir()}, tt.flags...))
			if code != 1 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "portico: ") {
				t.Errorf("exit code %d and not one line:\n%s", code, line)
			}
			for _, want := range tt.want {
				if !strings.Contains(line, want) {
					t.Errorf("%q does not name %s", line, want)
				}
			}
		})
	}
}

// fail runs a proxy that cannot and returns what it says.
func fail(t *testing.T, flags []string) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{"proxy", "--bind-address=127.0.0.1", "--secure-port=0", "--metrics-bind-address=0", "--health-probe-bind-address=0"}
	cmd := exec.CommandContext(ctx, proxy.Binary(t), append(args, flags...)...)
	var out bytes.Buffer
	cmd.Stderr = &out
	_ = cmd.Run() // its exit code is what counts
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestProfilesAreServedOnlyIfAskedFor(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]int{"--profiling": http.StatusOK, "--profiling=false": http.StatusNotFound} {
		p := before(t, flag)
		res, err := http.Get(strings.TrimSuffix(p.Metrics, "/metrics") + "/debug/pprof/heap")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s", flag, res.Status)
		}
	}
}
