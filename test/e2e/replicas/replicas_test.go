// Package replicas moves sessions between proxies that stand behind one address,
// and takes some of them away.
package replicas

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
	"github.com/portico-proxy/portico/test/relay"
)

// world is one control plane for all tests of the package.
var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{
		Log: os.Stderr, Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}},
	})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if code != 0 {
		_, _ = io.WriteString(os.Stderr, world.LogTails(30))
	}
	world.Stop()
	os.Exit(code)
}

// policy gives everybody session reads of ConfigMaps.
const policy = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: sessions}
spec:
  resources:
  - resource: configmaps
  reads: Session
`

// replica is one proxy, and its line to the API server.
type replica struct {
	*proxy.Proxy
	*cachetest.Door
	upstream *relay.Relay
}

const replicas = 3

// newReplicas starts proxies that tell each other, or do not.
func newReplicas(t *testing.T, tell bool) (all []*replica) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/policy.yaml", []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := make([][]string, replicas)
	if tell {
		flags = proxy.ReplicaFlags(t, replicas)
	}
	for _, own := range flags {
		r := &replica{upstream: relay.New(t, strings.TrimPrefix(world.URL(), "https://"))}
		r.Proxy = proxy.New(t, proxy.Options{
			Kubeconfig: world.KubeconfigPath(), Unready: true,
			Flags: append(own, "--server="+r.upstream.Address, "--policy-dir="+dir),
		})
		r.Door = cachetest.NewDoor(t, r.Config(world.Token("admin")))
		all = append(all, r)
	}
	for _, r := range all {
		until(t, "a proxy to be ready", r.Ready)
	}
	if tell {
		inTouch(t, all...)
	}
	return all
}

// inTouch waits until replicas have each other's leases.
func inTouch(t *testing.T, all ...*replica) {
	t.Helper()
	for _, r := range all {
		until(t, "replicas to be in touch", func() bool { return r.Gauge("portico_replicas_in_touch") == 1 })
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// fill makes a namespace with n ConfigMaps and has every replica remember them.
func fill(t *testing.T, all []*replica, namespace string, n int) (path string) {
	t.Helper()
	all[0].AddNamespace(namespace)
	path = "/api/v1/namespaces/" + namespace + "/configmaps"
	for i := range n {
		all[0].Door.Write(http.MethodPost, path, cachetest.Object{"metadata": cachetest.Object{"name": fmt.Sprintf("c-%d", i)}})
	}
	for _, r := range all {
		until(t, "memory", func() bool { return r.Get(path, cachetest.JSON).ServedBy() == "cache" })
	}
	return path
}

// late is by how much a replica hears later of the API server than others.
const late = 200 * time.Millisecond

// stale counts reads that miss what the session has just written elsewhere.
func stale(t *testing.T, all []*replica, path string) (missed, remembered int) {
	t.Helper()
	for i := range 10 {
		want := fmt.Sprintf(`"n":"%d"`, i)
		all[0].Patch(path+"/c-0", fmt.Sprintf(`{"data":{"n":"%d"}}`, i))
		for _, query := range []string{path + "/c-0", path, path + "?limit=1&resourceVersion=0"} {
			for _, r := range all[1:] {
				got := r.Get(query, cachetest.JSON)
				if !strings.Contains(string(got.Body), want) {
					missed++
				}
				if got.ServedBy() == "cache" {
					remembered++
				}
			}
		}
	}
	return missed, remembered
}

func TestSessionSeesWhatItDidElsewhere(t *testing.T) {
	all := newReplicas(t, true)
	path := fill(t, all, "elsewhere", 3)
	all[1].upstream.Delay(relay.Back, late)
	if missed, remembered := stale(t, all, path); missed > 0 || remembered == 0 {
		t.Errorf("%d reads missed a write; %d were answered from memory", missed, remembered)
	}
	all[0].Door.Write(http.MethodDelete, path+"/c-1", nil)
	if got := all[1].Get(path+"/c-1", cachetest.JSON); got.Status != http.StatusNotFound {
		t.Errorf("what was deleted is answered: %d %s", got.Status, got.Body)
	}
}

// TestUntoldReplicasAreFoundOut is a test of the test above.
func TestUntoldReplicasAreFoundOut(t *testing.T) {
	all := newReplicas(t, false)
	path := fill(t, all, "untold", 3)
	all[1].upstream.Delay(relay.Back, late)
	if missed, _ := stale(t, all, path); missed == 0 {
		t.Error("replicas that tell each other nothing miss nothing")
	}
}

// TestSessionMovesBetweenPages takes each page from another replica.
func TestSessionMovesBetweenPages(t *testing.T) {
	all := newReplicas(t, true)
	path := fill(t, all, "pages", 9)
	all[1].upstream.Delay(relay.Back, late)
	all[0].Patch(path+"/c-8", `{"data":{"n":"before"}}`)
	var names []string
	var first, token string
	for i := 0; ; i++ {
		page := all[i%replicas].Get(path+"?limit=2&continue="+url.QueryEscape(token), cachetest.JSON)
		list := page.List(t)
		if first == "" {
			first = list.Metadata.ResourceVersion
			all[0].Patch(path+"/c-8", `{"data":{"n":"after"}}`)
		}
		if list.Metadata.ResourceVersion != first || strings.Contains(string(page.Body), "after") {
			t.Errorf("a page at %s of a list at %s: %s", list.Metadata.ResourceVersion, first, page.Body)
		}
		names = append(names, page.Names(t)...)
		if token = list.Metadata.Continue; token == "" {
			if !strings.Contains(string(page.Body), "before") {
				t.Errorf("the last page misses a write: %s", page.Body)
			}
			break
		}
	}
	if len(names) < 9 {
		t.Errorf("pages have %v", names)
	}
}

// TestSessionMovesWithinAWatch hears of each change from another replica, and then
// reads from yet another.
func TestSessionMovesWithinAWatch(t *testing.T) {
	all := newReplicas(t, true)
	path := fill(t, all, "moves", 2)
	all[1].upstream.Delay(relay.Back, late)
	since := all[0].Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	for i := range 9 {
		all[i%replicas].Patch(path+"/c-1", fmt.Sprintf(`{"data":{"n":"%d"}}`, i))
		e := all[(i+2)%replicas].Watch(path+"?watch=true&resourceVersion="+since, cachetest.JSON).Event()
		if e.Type != "MODIFIED" || e.Object.Metadata.ResourceVersion == since {
			t.Fatalf("event %d after %s: %+v", i, since, e)
		}
		since = e.Object.Metadata.ResourceVersion
		got := all[(i+1)%replicas].Get(path+"/c-1", cachetest.JSON)
		if !strings.Contains(string(got.Body), fmt.Sprintf(`"n":"%d"`, i)) {
			t.Errorf("what a watch told is not read elsewhere: %s", got.Body)
		}
	}
}

// TestReplicaThatStoodStill freezes one for longer than its leases last: it must not
// answer what it remembers from before.
func TestReplicaThatStoodStill(t *testing.T) {
	all := newReplicas(t, true)
	path := fill(t, all, "still", 1)
	for i := range 3 {
		all[2].Signal(syscall.SIGSTOP)
		all[2].upstream.Hold(relay.Back) // it hears nothing of what comes
		all[0].Patch(path+"/c-0", fmt.Sprintf(`{"data":{"n":"%d"}}`, i))
		all[2].Signal(syscall.SIGCONT)
		answers := make(chan string, 1)
		go func() {
			res, err := all[2].client(t).Get(all[2].URL + path + "/c-0")
			if err != nil {
				answers <- err.Error()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			answers <- string(body)
		}()
		select {
		case got := <-answers:
			if !strings.Contains(got, fmt.Sprintf(`"n":"%d"`, i)) {
				t.Errorf("it answers what was before: %s", got)
			}
		case <-time.After(late):
		}
		all[2].upstream.Release(relay.Back)
		if got := all[2].Get(path+"/c-0", cachetest.JSON); !strings.Contains(string(got.Body), fmt.Sprintf(`"n":"%d"`, i)) {
			t.Errorf("it goes back: %s", got.Body)
		}
		inTouch(t, all...)
	}
}

// client is one that has not got a connection yet.
func (r *replica) client(t *testing.T) *http.Client {
	t.Helper()
	c, err := rest.HTTPClientFor(r.Config(world.Token("admin")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestReplicaThatIsKilled(t *testing.T) {
	all := newReplicas(t, true)
	path := fill(t, all, "killed", 1)
	all[2].Kill()
	all[0].Patch(path+"/c-0", `{"data":{"n":"first"}}`)
	// It may come back and acknowledge what others do not hear of: they ask.
	got := all[1].Get(path+"/c-0", cachetest.JSON)
	if !strings.Contains(string(got.Body), "first") {
		t.Errorf("a write was missed by %q: %s", got.ServedBy(), got.Body)
	}
	until(t, "replicas to miss one", func() bool { return all[1].Gauge("portico_replicas_in_touch") == 0 })
	if got := all[1].Get(path+"/c-0", cachetest.JSON); got.ServedBy() != "upstream" {
		t.Errorf("answered by %q though a replica is missed", got.ServedBy())
	}
	if all[1].Gauge(`portico_watch_cache_passed_total`) == 0 {
		t.Error("nothing tells why")
	}
	all[2].Start()
	until(t, "a proxy to be ready", all[2].Ready)
	inTouch(t, all...)
	all[2].Patch(path+"/c-0", `{"data":{"n":"second"}}`)
	for _, r := range all[:2] {
		if got := r.Get(path+"/c-0", cachetest.JSON); got.ServedBy() != "cache" || !strings.Contains(string(got.Body), "second") {
			t.Errorf("answered by %q: %s", got.ServedBy(), got.Body)
		}
	}
}

// TestReplicaThatEnds costs the others nothing.
func TestReplicaThatEnds(t *testing.T) {
	all := newReplicas(t, true)
	path := fill(t, all, "ends", 1)
	all[2].Stop()
	all[0].Patch(path+"/c-0", `{"data":{"n":"first"}}`)
	inTouch(t, all[:2]...)
	if got := all[1].Get(path+"/c-0", cachetest.JSON); got.ServedBy() != "cache" || !strings.Contains(string(got.Body), "first") {
		t.Errorf("answered by %q: %s", got.ServedBy(), got.Body)
	}
}
