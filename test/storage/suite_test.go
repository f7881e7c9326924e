// Package storage runs the API server's own suite for storages through the
// proxy: k8s.io/apiserver/pkg/storage/testing, which says what a watch cache
// must answer to every combination of options.
//
// Writes go to etcd. Reads go over HTTP to a small API server, made of
// kube-apiserver's handlers, registry and watch cache, or through a proxy in
// front of it. Both must pass, so what only one of them fails is the proxy's.
package storage

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/test/controlplane"
)

// programs is where etcd is.
var programs string

func TestMain(m *testing.M) {
	flag.Parse()
	klog.SetLogger(logr.Discard()) // the API server's code says much while it is stopped
	// The suite mostly waits.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	var err error
	if programs, err = controlplane.Programs(context.Background(), controlplane.ProgramsOptions{Progress: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The API server's watch cache looks after three seconds whether anybody still waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("k8s.io/apiserver/pkg/storage/cacher.(*watchCache).waitUntilFreshLocked.func2"))
}

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
)

// A way is how reads get to the API server.
type way struct {
	name      string
	mediaType string
	// proxies is how many stand in the way, one in front of the other.
	proxies int
	// cold proxies have nothing in memory yet when the suite begins.
	cold bool
	// lag is by how much what upstream watches deliver is late.
	lag time.Duration
}

var ways = []way{
	{name: "direct-json", mediaType: asJSON},
	{name: "direct-protobuf", mediaType: asProtobuf},
	{name: "proxied-json", mediaType: asJSON, proxies: 1},
	{name: "proxied-protobuf", mediaType: asProtobuf, proxies: 1},
	{name: "proxied-late", mediaType: asProtobuf, proxies: 1, lag: 100 * time.Millisecond},
	{name: "proxied-twice-cold", mediaType: asJSON, proxies: 2, cold: true},
}

func TestSuite(t *testing.T) {
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			if !c.alone {
				t.Parallel()
			}
			for _, w := range ways {
				if c.newest && (w.cold || w.lag > 0 || w.mediaType == asProtobuf) {
					continue
				}
				t.Run(w.name, func(t *testing.T) {
					if !c.alone {
						t.Parallel()
					}
					w.run(t, c)
				})
			}
		})
	}
}

func (w way) run(t *testing.T, c suiteCase) {
	if w.cold && c.stale {
		t.Skip("the case wants answers older than what a proxy begins with")
	}
	if w.cold && c.whole {
		t.Skip("a cold proxy begins with the part that it is asked for")
	}
	s := w.open(t, !c.clusterScoped, c.coldWrites)
	s.hasty = c.hasty
	for _, p := range s.proxies {
		p.frozen.Store(c.stale)
	}
	t.Cleanup(func() {
		if got := len(s.beyond); got != c.beyond {
			t.Errorf("%d reads have no URL, want %d: %q", got, c.beyond, s.beyond)
		}
		if w.proxies > 0 && !w.cold && w.lag == 0 && !c.newest && s.from(fromMemory) < 2 {
			t.Error("nothing was answered from memory")
		}
		t.Logf("from memory %d, shared %d, from upstream %d", s.from(fromMemory), s.from(fromFlight), s.from(fromUpstream))
	})
	c.run(t.Context(), t, s)
}

// open makes an API server and the proxies in front of it, which have the
// collection in memory after coldWrites writes.
func (w way) open(t *testing.T, namespaced bool, coldWrites int) *store {
	t.Helper()
	a := newAPIServer(t, namespaced)
	s := &store{Interface: a.raw, api: a, served: map[string]int{}, coldWrites: coldWrites, cold: w.cold}
	server := a.server
	for range w.proxies {
		p := newProxy(t, server, w.lag)
		s.proxies = append(s.proxies, p)
		server = p.server
	}
	s.dial(t, server, w.mediaType)
	if coldWrites == 0 {
		s.warm(t)
	}
	return s
}
