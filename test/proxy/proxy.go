// Package proxy runs the portico binary for tests, as an operator would.
package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/controlplane"
)

// Options says how to run a proxy. Kubeconfig is required.
type Options struct {
	// Kubeconfig names the API server and holds the proxy's own identity.
	Kubeconfig string
	// Flags are further flags of `portico proxy`.
	Flags []string
	// Env are further environment variables ("NAME=value").
	Env []string
	// Unready lets New and Start return before the proxy is ready, once it
	// says so: its API server may not be there.
	Unready bool
}

// A Proxy is a running proxy.
type Proxy struct {
	URL       string // of the API
	HealthURL string
	Metrics   string // URL of /metrics
	CA        []byte // PEM of what vouches for the proxy

	tb      testing.TB
	args    []string
	env     []string
	unready bool
	log     *output

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the process; after exited is closed
}

// startTimeout bounds how long a proxy may take to become ready.
const startTimeout = time.Minute

// New runs a proxy until the test ends and returns when it is ready. If the
// test failed, the proxy's log is in its output.
func New(tb testing.TB, o Options) *Proxy {
	tb.Helper()
	dir := tb.TempDir()
	health, metrics, api := controlplane.FreeAddress(tb), controlplane.FreeAddress(tb), controlplane.FreeAddress(tb)
	_, port, _ := net.SplitHostPort(api)
	p := &Proxy{
		tb: tb, URL: "https://" + api, HealthURL: "http://" + health, Metrics: "http://" + metrics + "/metrics",
		args: append([]string{"proxy", "--kubeconfig=" + o.Kubeconfig, "--bind-address=127.0.0.1", "--secure-port=" + port,
			"--cert-dir=" + dir, "--health-probe-bind-address=" + health, "--metrics-bind-address=" + metrics}, o.Flags...),
		env:     append(os.Environ(), o.Env...),
		unready: o.Unready, log: &output{},
	}
	tb.Cleanup(func() {
		p.Stop()
		if tb.Failed() {
			tb.Logf("log of the proxy:\n%s", p.Log())
		}
	})
	p.Start()
	ca, err := os.ReadFile(filepath.Join(dir, "portico.crt"))
	if err == nil {
		p.CA = ca
	}
	return p
}

// Start runs the proxy again, at the same addresses, after Stop or Kill.
func (p *Proxy) Start() {
	p.tb.Helper()
	p.cmd = exec.Command(Binary(p.tb), p.args...)
	p.cmd.Env = p.env
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = attributes()
	p.exited = make(chan struct{})
	started := make(chan error)
	go p.own(p.cmd, started, p.exited)
	if err := <-started; err != nil {
		p.tb.Fatalf("start the proxy: %v", err)
	}
	p.awaitReady()
}

// own starts cmd and waits for it. The thread that starts a process is the one
// whose death ends it, so it is kept.
func (p *Proxy) own(cmd *exec.Cmd, started chan<- error, exited chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(exited)
	err := cmd.Start()
	started <- err
	if err == nil {
		p.err = cmd.Wait()
	}
}

func (p *Proxy) awaitReady() {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !p.Ready() && !(p.unready && p.answers()) {
		select {
		case <-p.exited:
			p.tb.Fatalf("the proxy ended while starting: %v\n%s", p.err, p.Log())
		case <-ctx.Done():
			p.tb.Fatalf("the proxy is not ready after %v\n%s", startTimeout, p.Log())
		case <-tick.C:
		}
	}
}

// Ready reports what /readyz says.
func (p *Proxy) Ready() bool { return p.ReadyBut("") }

// ReadyBut reports what /readyz says where a check is left out.
func (p *Proxy) ReadyBut(check string) bool {
	path := "/readyz"
	if check != "" {
		path += "?exclude=" + check
	}
	res, err := http.Get(p.HealthURL + path)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// answers reports whether the API's port does, with whatever.
func (p *Proxy) answers() bool {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(p.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Config returns a client configuration for the proxy. The caller owns it.
func (p *Proxy) Config(cred controlplane.Credential) *rest.Config {
	return &rest.Config{
		Host: p.URL, BearerToken: cred.Token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: p.CA, CertData: cred.CertPEM, KeyData: cred.KeyPEM},
	}
}

// Kubeconfig writes a kubeconfig for the proxy and returns its path.
func (p *Proxy) Kubeconfig(cred controlplane.Credential) string {
	p.tb.Helper()
	path := filepath.Join(p.tb.TempDir(), "proxied.kubeconfig")
	if err := (controlplane.Kubeconfig{Server: p.URL, CA: p.CA, Credential: cred}).WriteFile(path); err != nil {
		p.tb.Fatal(err)
	}
	return path
}

// Pid is the process's.
func (p *Proxy) Pid() int { return p.cmd.Process.Pid }

// Signal sends the process a signal.
func (p *Proxy) Signal(s syscall.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.tb.Errorf("signal the proxy: %v", err)
	}
}

// Exited is closed when the process has ended.
func (p *Proxy) Exited() <-chan struct{} { return p.exited }

// Err is what the process ended with, once it has; nil means exit code 0.
func (p *Proxy) Err() error {
	<-p.exited
	return p.err
}

// Stop ends the proxy as an operator does, and by force if it drains for long.
func (p *Proxy) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(startTimeout):
		p.tb.Errorf("the proxy did not end on SIGTERM")
		p.Kill()
	}
}

// Kill ends the proxy without warning and waits until it is gone.
func (p *Proxy) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Log is what the proxy has logged so far.
func (p *Proxy) Log() string { return p.log.String() }

// Gauge returns the sum of the metric's series whose text, as /metrics shows
// it, matches series; 0 if there is none.
func (p *Proxy) Gauge(series string) float64 {
	p.tb.Helper()
	res, err := http.Get(p.Metrics)
	if err != nil {
		p.tb.Fatalf("read metrics: %v", err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		p.tb.Fatalf("read metrics: %v", err)
	}
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+series+`(?:\{[^}]*\})? (\S+)`).FindAllSubmatch(body.Bytes(), -1) {
		var value float64
		if _, err := fmt.Sscan(string(m[1]), &value); err == nil {
			sum += value
		}
	}
	return sum
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex // guards following
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
