package cache_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// slowTiers hear of what happens late, the node's from the area's even later.
func slowTiers(t *testing.T) (area, node *proxy) {
	t.Helper()
	return newTiers(t, func(o *cache.Options) { nothingRefused(o); o.Upstream.(*counter).slow.Store(true) })
}

func TestReadsThroughTwoTiersAreLinearizable(t *testing.T) {
	area, node := slowTiers(t)
	endure(t, node, node.open, area.open, direct)
	if asks(node) == 0 {
		t.Error("nobody asked for progress")
	}
}

// TestBookmarksBeforeEventsAreFoundOut has proofs of progress come without what
// they prove.
func TestBookmarksBeforeEventsAreFoundOut(t *testing.T) {
	_, node := slowTiers(t)
	node.upstream.hasty.Store(true)
	// On a machine that is busy, what is lost may have come another way before.
	for range 10 {
		h := newHistory(t, node, true)
		h.run(load{clients: 6, each: 40}, node.open, []opener{direct})
		if got := h.verdict(); got == porcupine.Illegal {
			return
		}
		t.Logf("%d operations: nothing is wrong", len(h.ops))
	}
	t.Error("nothing was found out")
}

// asks is how often p has asked for progress.
func asks(p *proxy) (n int64) {
	for _, c := range p.cache.Figures().Collections {
		n += c.Upstream["progress"]
	}
	return n
}

// TestProgressTakesOneRequest reads the newest state of a collection in which
// nothing happens, while the API server moves on.
func TestProgressTakesOneRequest(t *testing.T) {
	d := direct(t)
	d.AddNamespace("tiers-asked")
	d.AddNamespace("tiers-asked-b")
	area, node := newTiers(t, nothingRefused)
	const path, other = "/api/v1/namespaces/tiers-asked/configmaps", "/api/v1/namespaces/tiers-asked-b/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	node.warm(path, cachetest.JSON)
	const reads = 5
	for i := range reads {
		d.Write(http.MethodPost, other, object{"metadata": object{"name": fmt.Sprintf("c-%d", i)}})
		atNode, atArea := node.upstream.requests.Load(), area.upstream.requests.Load()+area.passed.Load()
		if got := node.Get(path, cachetest.JSON); got.ServedBy() != "cache" || len(got.List(t).Items) != 1 {
			t.Errorf("by %q: %s", got.ServedBy(), got.Body)
		}
		atNode, atArea = node.upstream.requests.Load()-atNode, area.upstream.requests.Load()+area.passed.Load()-atArea
		if atNode != 1 || atArea != 1 {
			t.Errorf("%d requests to the area's proxy and %d to the API server", atNode, atArea)
		}
	}
	if n := asks(node); n != reads {
		t.Errorf("asked %d times", n)
	}
}

// ask asks for progress since rv and returns what comes.
func ask(t *testing.T, d *cachetest.Door, path, rv, timeout string) (header http.Header, events []string) {
	t.Helper()
	res := d.Open(t.Context(), http.MethodGet, path+"?watch=true&allowWatchBookmarks=true&timeoutSeconds="+timeout+"&resourceVersion="+rv,
		http.Header{"Accept": {cachetest.JSON}, "Portico-Progress": {"now"}}, nil)
	defer func() { _ = res.Body.Close() }()
	for in := json.NewDecoder(res.Body); ; {
		var e struct {
			Type   string `json:"type"`
			Object answer `json:"object"`
		}
		if err := in.Decode(&e); err == io.EOF {
			return res.Header, events
		} else if err != nil {
			t.Fatal(err)
		}
		events = append(events, strings.TrimSpace(e.Type+" "+e.Object.Metadata.Name))
	}
}

// TestWhoAsksHearsAllBeforehand asks a proxy that is behind who asks, and then one
// that has not yet heard what it is asked for.
func TestWhoAsksHearsAllBeforehand(t *testing.T) {
	d := direct(t)
	d.AddNamespace("tiers-hears")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/tiers-hears/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "first"}})
	p.warm(path, cachetest.JSON)
	start := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	gate := make(chan struct{})
	p.upstream.held.Store(&gate)
	came := d.Write(http.MethodPost, path, object{"metadata": object{"name": "fleeting"}})
	d.Write(http.MethodDelete, path+"/fleeting", nil)

	type heard struct {
		header http.Header
		events []string
	}
	replies := make([]chan heard, 2)
	for i, since := range []string{start, cachetest.ResourceVersion(came)} {
		replies[i] = make(chan heard, 1)
		before := p.upstream.requests.Load()
		go func() {
			header, events := ask(t, p.Door, path, since, "3")
			replies[i] <- heard{header, events}
		}()
		until(t, func() bool { return p.upstream.requests.Load() > before })
	}
	p.upstream.held.Store(nil)
	close(gate)
	for i, want := range []string{"ADDED fleeting, DELETED fleeting, BOOKMARK, BOOKMARK", "DELETED fleeting, BOOKMARK, BOOKMARK"} {
		h := <-replies[i]
		// While nothing was heard, the objects are the same, whatever came and went.
		if got := strings.Join(h.events, ", "); got != want && (i > 0 || got != "BOOKMARK, BOOKMARK") || h.header.Get("Portico-Progress") != "on-demand" {
			t.Errorf("got %s after %v", got, h.header)
		}
	}
}

// TestWhatCameAndWentIsHeardOf has a node's proxy know the newest objects before it
// hears of one that came and went.
func TestWhatCameAndWentIsHeardOf(t *testing.T) {
	d := direct(t)
	d.AddNamespace("tiers-came-and-went")
	area, node := newTiers(t, nothingRefused)
	const path = "/api/v1/namespaces/tiers-came-and-went/configmaps"
	first := d.Write(http.MethodPost, path, object{"metadata": object{"name": "first"}})
	node.warm(path, cachetest.JSON)
	watch := node.Watch(path+"?watch=true&resourceVersion="+cachetest.ResourceVersion(first), cachetest.JSON)
	gate := make(chan struct{})
	area.upstream.held.Store(&gate)
	came := d.Write(http.MethodPost, path, object{"metadata": object{"name": "came"}})
	gone := d.Write(http.MethodDelete, path+"/came", nil)
	for _, p := range []*proxy{node, area} {
		got := p.Get(path, cachetest.JSON)
		list := got.List(t)
		if rv := list.Metadata.ResourceVersion; len(list.Items) != 1 || rv < cachetest.ResourceVersion(came) {
			t.Errorf("by %q: %d objects at %s, after %v", got.ServedBy(), len(list.Items), rv, gone)
		}
		if again := p.Get(path+"?resourceVersionMatch=Exact&resourceVersion="+list.Metadata.ResourceVersion, cachetest.JSON); again.ServedBy() != "cache" || len(again.List(t).Items) != 1 {
			t.Errorf("by %q: %s", again.ServedBy(), again.Body)
		}
	}
	area.upstream.held.Store(nil)
	close(gate)
	for _, want := range []string{"ADDED", "DELETED"} {
		if e := watch.Event(); e.Type != want || e.Object.Metadata.Name != "came" {
			t.Errorf("heard %+v, want %s", e, want)
		}
		// Who has seen that it is not there does not see it again.
		if got := node.Get(path+"?resourceVersion=0", cachetest.JSON); len(got.List(t).Items) != 1 {
			t.Errorf("by %q: %s", got.ServedBy(), got.Body)
		}
	}
}

// TestNobodyIsToldOfWhatIsNotThere asks from resourceVersions that the API server
// has yet to reach, as who asks has after etcd was restored.
func TestNobodyIsToldOfWhatIsNotThere(t *testing.T) {
	d := direct(t)
	d.AddNamespace("tiers-future")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/tiers-future/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p.warm(path, cachetest.JSON)
	if header, events := ask(t, p.Door, path, "999999999", "3"); len(events) > 0 || header.Get("Portico-Progress") != "on-demand" {
		t.Errorf("%v after %v", events, header)
	}
}

// TestTheAPIServerIsNotAsked has a proxy stand directly before it.
func TestTheAPIServerIsNotAsked(t *testing.T) {
	d := direct(t)
	d.AddNamespace("tiers-plain")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/tiers-plain/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p.warm(path, cachetest.JSON)
	p.Get(path, cachetest.JSON)
	if n := asks(p); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// TestSessionsDoNotProveProgress has them hear of no more than they need.
func TestSessionsDoNotProveProgress(t *testing.T) {
	d := direct(t)
	d.AddNamespace("tiers-modest")
	p := newProxy(t, sessions)
	const path = "/api/v1/namespaces/tiers-modest/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p.warm(path, cachetest.JSON)
	rv := p.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	if header, _ := ask(t, p.Door, path, rv, "1"); header.Get("Portico-Progress") != "" {
		t.Errorf("it says that it does: %v", header)
	}
}

// TestReadsDoNotWaitForBookmarksThatStayAway reads large collections in which nothing
// happens behind an API server that sends no bookmark: one that can be fetched for all
// who wait, and one that is too large for that.
func TestReadsDoNotWaitForBookmarksThatStayAway(t *testing.T) {
	for name, c := range map[string]struct {
		objects          int
		atArea, atNode   string
		failedByTheNodes int64
	}{
		"affordable": {1, "coalesced", "cache", 0},
		"too-large":  {8, "", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := direct(t)
			namespace := "tiers-barren-" + name
			path, other := "/api/v1/namespaces/"+namespace+"/configmaps", "/api/v1/namespaces/"+namespace+"-b/configmaps"
			d.AddNamespace(namespace)
			d.AddNamespace(namespace + "-b")
			for n := range c.objects {
				d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%d", n)}, "data": object{"k": strings.Repeat("x", 300<<10)}})
			}
			area, node := newTiers(t, nothingRefused)
			area.upstream.starved.Store(true)
			area.upstream.brief.Store(true)
			// The node's watch is to be answered from the area's memory, however busy the
			// machine is: a watch that went past it would never ask.
			area.warm(path, cachetest.JSON)
			node.warm(path, cachetest.JSON)
			read := func(p *proxy, want string) {
				d.Write(http.MethodPost, other, object{"metadata": object{"generateName": "c-"}})
				if got := p.Get(path, cachetest.JSON); got.ServedBy() != want || len(got.List(t).Items) != c.objects {
					t.Errorf("by %q, want %q: %d objects", got.ServedBy(), want, len(got.List(t).Items))
				}
			}
			// The first one finds out, and others need not.
			read(area, c.atArea)
			for range 3 {
				asked, failed := asks(node), node.passed.Load()
				read(node, c.atNode)
				if n := asks(node) - asked; n != 1 {
					t.Errorf("the node's proxy asked %d times", n)
				}
				if n := node.passed.Load() - failed; n != c.failedByTheNodes {
					t.Errorf("%d reads went past the node's memory", n)
				}
			}
		})
	}
}
