package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A ControlPlane is a running control plane. Its methods may be called from
// several goroutines at once.
type ControlPlane struct {
	opts   Options
	dir    string
	pki    *pki
	admin  Credential
	users  []User
	client *kubernetes.Clientset
	spawn  *spawner
	etcd   *port
	apis   []*port

	mu    sync.Mutex // guards following
	parts map[Part]*process
	ports []*port // all that Stop gives back

	stop sync.Once
}

// New starts a control plane for a test, with the programs built if need be,
// and stops it when the test and its subtests are over. If the test failed, the
// ends of the parts' logs are in its output.
func New(tb testing.TB, o Options) *ControlPlane {
	tb.Helper()
	if o.Log == nil {
		o.Log = tb.Output()
	}
	c, err := Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log(c.LogTails(60))
		}
		c.Stop()
	})
	return c
}

// Start starts a control plane and returns when all its parts are ready. If it
// returns an error, everything has been stopped again, and the error holds the
// end of the log of the part that failed. The caller must call Stop.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	o = o.withDefaults()
	if o.Programs == "" {
		dir, err := Programs(ctx, ProgramsOptions{Progress: o.Log})
		if err != nil {
			return nil, err
		}
		o.Programs = dir
	}
	c := &ControlPlane{opts: o, spawn: newSpawner(), parts: map[Part]*process{}}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	// The API servers wait for etcd by themselves.
	first, firstCtx := errgroup.WithContext(ctx)
	first.Go(func() error { return c.startEtcd(firstCtx) })
	for n := range c.apis {
		first.Go(func() error { return c.startAPIServer(firstCtx, n) })
	}
	if err := first.Wait(); err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	then, thenCtx := errgroup.WithContext(ctx)
	for _, part := range []struct {
		wanted bool
		part   Part
	}{{c.opts.ControllerManager, ControllerManager}, {c.opts.Scheduler, Scheduler}, {c.opts.Kwok, Kwok}} {
		if part.wanted {
			then.Go(func() error { return c.Add(thenCtx, part.part, "") })
		}
	}
	return then.Wait()
}

// settle waits for what the API servers make once they are ready.
func (c *ControlPlane) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	r, err := c.running(APIServer)
	if err != nil {
		return err
	}
	return r.await(ctx, c.systemObjects)
}

// prepare makes everything that must exist before the first process.
func (c *ControlPlane) prepare() error {
	dir, err := makeDir(c.opts.Dir)
	if err != nil {
		return err
	}
	c.dir = dir
	for range c.opts.APIServers {
		p, err := c.reserve()
		if err != nil {
			return err
		}
		c.apis = append(c.apis, p)
	}
	if c.etcd, err = c.reserve(); err != nil {
		return err
	}
	if c.pki, err = newPKI(c.path("pki"), serverHosts(len(c.apis))); err != nil {
		return err
	}
	if c.admin, err = c.ClientCert("admin", "system:masters"); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfigAndClient(c.Config(), c.httpClient()); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if err := c.Kubeconfig(c.admin).WriteFile(c.KubeconfigPath()); err != nil {
		return err
	}
	return c.writeTokens()
}

// makeDir returns an absolute directory with room for a control plane.
func makeDir(given string) (string, error) {
	dir, err := filepath.Abs(given)
	if given == "" {
		dir, err = os.MkdirTemp("", "controlplane-")
	}
	if err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	for _, sub := range []string{"pki", "logs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return "", fmt.Errorf("make directory: %w", err)
		}
	}
	return dir, nil
}

func (c *ControlPlane) startEtcd(ctx context.Context) error {
	peer, err := c.reserve()
	if err != nil {
		return err
	}
	return c.run(ctx, &process{
		part:  Etcd,
		args:  etcdFlags(c.path("etcd"), c.etcd.number, peer.number),
		ready: c.probe(c.EtcdURL() + "/health"),
	})
}

func (c *ControlPlane) startAPIServer(ctx context.Context, n int) error {
	return c.run(ctx, &process{
		part:  APIServerN(n),
		args:  c.apiServerFlags(n, c.apis[n].number),
		ready: c.probe(c.URLs()[n] + "/readyz"),
	})
}

// Add starts another part beside those that run: ControllerManager, Scheduler
// or Kwok. The kubeconfig says which server it talks to and as whom; empty
// means the first API server and the part's own user.
func (c *ControlPlane) Add(ctx context.Context, part Part, kubeconfig string) error {
	port, err := c.reserve()
	if err != nil {
		return err
	}
	if kubeconfig == "" {
		if kubeconfig, err = c.partKubeconfig(part); err != nil {
			return err
		}
	}
	p := &process{}
	ready := c.probe(loopbackURL("https", port.number) + "/healthz")
	switch part {
	case ControllerManager:
		p.args = c.controllerManagerFlags(port.number, kubeconfig)
		ready = both(ready, func(ctx context.Context) error { return c.podsAllowed(ctx, metav1.NamespaceDefault) })
	case Scheduler:
		p.args = c.controllerFlags(port.number, kubeconfig)
	case Kwok:
		if p, err = c.kwokProcess(port.number, kubeconfig); err != nil {
			return err
		}
	default:
		return fmt.Errorf("add %s: %w", part, ErrNoPart)
	}
	p.part, p.ready = part, ready
	return c.run(ctx, p)
}

// run fills in what all parts share, starts the part and waits for it.
func (c *ControlPlane) run(ctx context.Context, p *process) error {
	kind := p.part
	if isAPIServer(p.part) {
		kind = APIServer
	}
	extra, env := c.opts.Flags[kind], c.opts.Env[kind]
	if kind != p.part {
		extra, env = slices.Concat(extra, c.opts.Flags[p.part]), slices.Concat(env, c.opts.Env[p.part])
	}
	p.path = filepath.Join(c.opts.Programs, string(kind))
	p.args = replaceFlags(p.args, extra)
	p.env = append(p.env, env...)
	p.log = c.path("logs", string(p.part)+".log")
	p.timeout, p.spawn = c.opts.Timeout, c.spawn

	if err := c.own(p); err != nil {
		return err
	}
	began := time.Now()
	if err := p.start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.opts.Log, "%s ready after %s\n", p.part, time.Since(began).Round(100*time.Millisecond))
	return nil
}
