package storage

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"

	"github.com/portico-proxy/portico/core/cache"
)

// options are the values that a query parameter is given in turn. Nothing
// leaves it out.
type options struct {
	name   string
	values []string
}

// product calls f with every combination of options that is not skipped.
func product(all []options, skip func(url.Values) bool, f func(url.Values)) {
	if len(all) == 0 {
		f(url.Values{})
		return
	}
	product(all[1:], nil, func(rest url.Values) {
		for _, v := range all[0].values {
			q := url.Values{}
			for name := range rest {
				q.Set(name, rest.Get(name))
			}
			if v != "" {
				q.Set(all[0].name, v)
			}
			if skip == nil || !skip(q) {
				f(q)
			}
		}
	})
}

// history is what happened before anybody reads. The proxy begins after a few
// writes, so there is also what only the API server remembers.
type history struct {
	*store
	t     *testing.T
	doors [2]door // the API server's and the proxy's
	// versions are resourceVersions, the first older than the proxy.
	versions []string
}

func newHistory(t *testing.T) *history {
	h := &history{t: t, store: way{mediaType: asJSON, proxies: 1}.open(t, true, 2)}
	h.knock()
	h.create("a", "x", "", "0")
	h.create("a", "y", "n1", "1")
	h.create("b", "x", "n1", "1")
	h.remember()
	h.update("a", "x", func(p *example.Pod) { p.Spec.NodeName = "n1" })
	h.update("a", "y", func(p *example.Pod) { p.Labels["l"] = "0" })
	h.update("b", "x", func(p *example.Pod) { p.Spec.NodeName, p.Labels["l"] = "n2", "2" })
	h.delete("a", "x")
	h.remember()
	h.create("a", "x", "n1", "1")
	h.create("a-b", "x", "n1", "1")
	h.update("b", "x", func(p *example.Pod) { p.Status.Phase = "Running" })
	h.update("b", "x", func(p *example.Pod) { p.Labels = nil })
	h.delete("a", "y")
	h.create("a", "z", "n2", "0")
	h.create("c", "x", "n1", "1")
	h.remember()
	return h
}

// remember notes the newest resourceVersion, once everybody has come so far.
func (h *history) remember() {
	h.t.Helper()
	rv, err := h.GetCurrentResourceVersion(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	version := fmt.Sprint(rv)
	h.versions = append(h.versions, version)
	for _, accept := range []string{asJSON, asProtobuf} {
		until(h.t, func() error {
			for _, d := range h.doors {
				if a := d.get("/api/v1/pods?resourceVersion="+version, accept); a.code != http.StatusOK || (d.proxied && a.servedBy != fromMemory) {
					return fmt.Errorf("%d from %q", a.code, a.servedBy)
				}
			}
			return nil
		})
	}
}

func (h *history) create(namespace, name, node, label string) {
	h.t.Helper()
	pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"l": label}}, Spec: example.PodSpec{NodeName: node}}
	h.check(h.Create(h.t.Context(), keyOf(namespace, name), pod, nil, 0))
}

func (h *history) update(namespace, name string, change func(*example.Pod)) {
	h.t.Helper()
	h.check(h.GuaranteedUpdate(h.t.Context(), keyOf(namespace, name), &example.Pod{}, false, nil, storage.SimpleUpdate(func(o runtime.Object) (runtime.Object, error) {
		change(o.(*example.Pod))
		return o, nil
	}), nil))
}

func (h *history) delete(namespace, name string) {
	h.t.Helper()
	h.check(h.Delete(h.t.Context(), keyOf(namespace, name), &example.Pod{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}))
}

func (h *history) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func keyOf(namespace, name string) string { return prefix + "/" + namespace + "/" + name }

// knock opens the API server's door and the proxy's.
func (h *history) knock() {
	h.doors = [2]door{newDoor(h.t, h.api.server), newDoor(h.t, h.proxies[0].server)}
	h.doors[1].proxied = true
}

// door is where requests are sent.
type door struct {
	t       *testing.T
	url     string
	client  *http.Client
	proxied bool
}

// newDoor speaks HTTP/1.1: connections of HTTP/2 hold but a few hundred watches.
func newDoor(t *testing.T, server *httptest.Server) door {
	trusted := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return door{t: t, url: server.URL, client: &http.Client{Transport: transport}}
}

// answer is a response read to its end.
type answer struct {
	code     int
	body     string
	servedBy string
}

func (d door) get(path, accept string) answer {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, d.url+path, nil)
	if err != nil {
		d.t.Error(err)
		return answer{}
	}
	r.Header.Set("Accept", accept)
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Error(err)
		return answer{}
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Error(err)
	}
	return answer{res.StatusCode, string(body), res.Header.Get(cache.ServedBy)}
}

func (a answer) equal(b answer) bool { return a.code == b.code && a.body == b.body }

// next is the token by which a list in JSON goes on.
func (a answer) next() string {
	var list metav1.PartialObjectMetadataList
	if json.Unmarshal([]byte(a.body), &list) != nil {
		return ""
	}
	return list.Continue
}

// comparison asks both doors many things at once.
type comparison struct {
	*history
	accept string
	busy   sync.WaitGroup
	places chan struct{}
	asked  atomic.Int64
	memory atomic.Int64

	mu    sync.Mutex // guards later
	later []string   // paths to ask again
}

func (h *history) compare(accept string, atOnce int, each func(*comparison)) {
	c := &comparison{history: h, accept: accept, places: make(chan struct{}, atOnce)}
	each(c)
	c.busy.Wait()
	for _, path := range c.later {
		c.again(path)
	}
	h.t.Logf("%d reads, %d from memory", c.asked.Load(), c.memory.Load())
	if c.memory.Load()*2 < c.asked.Load() {
		h.t.Error("less than half of it came from memory")
	}
}

func (c *comparison) ask(path string, q url.Values) {
	c.places <- struct{}{}
	c.busy.Go(func() {
		defer func() { <-c.places }()
		token := c.both(path + "?" + q.Encode()).next()
		q.Del("resourceVersion")
		q.Del("resourceVersionMatch")
		for ; token != ""; token = c.both(path + "?" + q.Encode()).next() {
			q.Set("continue", token)
		}
	})
}

// both asks both doors and returns the API server's answer. Where they differ it
// is asked again when nobody else asks: on a busy machine a watch may have ended
// before it had said all.
func (c *comparison) both(path string) answer {
	want, got := c.once(path)
	c.asked.Add(1)
	if got.servedBy != fromUpstream {
		c.memory.Add(1)
	}
	if !want.equal(got) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.later = append(c.later, path)
	}
	return want
}

// again reports how the two doors differ, the second time as well.
func (c *comparison) again(path string) {
	want, got := c.once(path)
	if !want.equal(got) {
		want, got = c.once(path)
	}
	if !want.equal(got) {
		c.t.Errorf("%s (%q): %d, want %d\n%s", path, got.servedBy, got.code, want.code, cmp.Diff(want.body, got.body))
	}
}

func (c *comparison) once(path string) (want, got answer) {
	var reads sync.WaitGroup
	reads.Go(func() { want = c.doors[0].get(path, c.accept) })
	reads.Go(func() { got = c.doors[1].get(path, c.accept) })
	reads.Wait()
	return want, got
}

var (
	paths    = []string{"/api/v1/pods", "/api/v1/namespaces/a/pods", "/api/v1/namespaces/none/pods"}
	labelled = options{"labelSelector", []string{"", "l!=1"}}
)

// widened are field selectors whose pages differ, though nothing is lost or
// shown twice.
//
// An index on the field tells the API server that there is no further page
// where others find out by asking for it. And what it says itself of how to go
// on within a namespace named by a field it later takes for a place among all
// namespaces, and shows objects twice or not at all. The proxy does not.
func widened(q url.Values) bool {
	f := q.Get("fieldSelector")
	return q.Get("limit") != "" && (strings.Contains(f, "spec.nodeName=") || strings.HasPrefix(f, "metadata.namespace=") && !strings.Contains(f, "metadata.name="))
}

func TestListsEqualTheAPIServers(t *testing.T) {
	h := newHistory(t)
	versions := append([]string{"", "0", "1"}, h.versions...)
	for name, accept := range map[string]string{"json": asJSON, "protobuf": asProtobuf} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &history{store: h.store, t: t, versions: h.versions}
			h.knock()
			h.compare(accept, 16, func(c *comparison) {
				for _, path := range paths {
					product([]options{
						{"resourceVersion", versions},
						{"resourceVersionMatch", []string{"", "Exact", "NotOlderThan"}},
						{"limit", []string{"", "1", "2"}},
						{"fieldSelector", []string{
							"", "metadata.name=x", "metadata.name!=x", "spec.nodeName=n1", "spec.nodeName!=n1", "status.phase=", "spec.none=1",
							"metadata.namespace=a", "metadata.namespace=a,metadata.name=x", "metadata.namespace!=a",
						}},
						labelled,
					}, widened, func(q url.Values) { c.ask(path, q) })
				}
				for _, name := range []string{"x", "y", "none"} {
					product([]options{{"resourceVersion", versions}}, nil, func(q url.Values) { c.ask("/api/v1/namespaces/a/pods/"+name, q) })
				}
			})
		})
	}
}

func TestWatchesEqualTheAPIServers(t *testing.T) {
	h := newHistory(t)
	for name, accept := range map[string]string{"json": asJSON, "protobuf": asProtobuf + ";stream=watch"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &history{store: h.store, t: t, versions: h.versions}
			h.knock()
			h.compare(accept, 300, func(c *comparison) {
				for _, path := range paths {
					product([]options{
						{"watch", []string{"true"}},
						{"timeoutSeconds", []string{"2"}}, // too short for bookmarks but the first
						{"resourceVersion", append([]string{"", "0", "1", future}, h.versions...)},
						{"sendInitialEvents", []string{"", "true", "false"}},
						{"resourceVersionMatch", []string{"", "NotOlderThan"}},
						{"allowWatchBookmarks", []string{"", "true"}},
						{"fieldSelector", []string{"", "metadata.name=x", "spec.nodeName=n1", "metadata.namespace=a,metadata.name=x"}},
						labelled,
					}, rare, func(q url.Values) { c.ask(path, q) })
				}
			})
		})
	}
}

// rare are watches of which a few will do: those that say only half of what a
// watch with initial events must say, and those of a future that does not come.
func rare(q url.Values) bool {
	odd := q.Get("resourceVersion") == future || (q.Get("sendInitialEvents") == "") != (q.Get("resourceVersionMatch") == "")
	return odd && (q.Has("fieldSelector") || q.Has("labelSelector"))
}

// future is a resourceVersion that is not reached.
const future = "1000000"

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
