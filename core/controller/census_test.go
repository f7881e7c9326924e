package controller

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

var proxies = v1alpha1.GroupVersion.WithResource("proxies")

// installProxies lets proxies tell of themselves until the test ends.
func installProxies(t *testing.T) {
	t.Helper()
	manifest, err := os.ReadFile("../../crds/manifests/proxy.elf.io_proxies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifest, &crd.Object); err != nil {
		t.Fatal(err)
	}
	all := client(t, plane.Config()).Resource(definitions)
	if _, err := all.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		_ = all.Delete(ctx, crd.GetName(), metav1.DeleteOptions{})
		until(t, func() bool {
			_, err := all.Get(ctx, crd.GetName(), metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
	until(t, func() bool {
		_, err := client(t, plane.Config()).Resource(proxies).List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
}

// one is a proxy that is counted.
type one struct {
	*policies
	end func()
}

// join runs one that puts policies in force, or refuses all.
func join(t *testing.T, c dynamic.Interface, by, refuses string) *one {
	t.Helper()
	p := &one{policies: &policies{t: t, applied: make(chan []string, 1000)}}
	if refuses != "" {
		p.refuse.Store(&refuses)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	controller := &Controller{Options: Options{
		Client: c, Resources: []schema.GroupVersionResource{resource}, Scheme: scheme, By: by, Log: logr.Discard(), Apply: p.apply,
		Spread: 100 * time.Millisecond, Proxies: proxies, Version: "v7", Counting: 50 * time.Millisecond,
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- controller.Start(ctx) }()
	over := false
	p.end = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(p.end)
	return p
}

// counts waits until a policy says on how many proxies its generation is.
func counts(t *testing.T, c dynamic.Interface, name, summary string, refused int32) {
	t.Helper()
	var last *v1alpha1.PolicyProxies
	defer func() {
		if t.Failed() {
			t.Logf("%s: it said %+v", name, last)
		}
	}()
	until(t, func() bool {
		u, err := c.Resource(resource).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		last = proxiesOf(u)
		return last != nil && last.ObservedGeneration == u.GetGeneration() && last.Summary == summary && last.Refused == refused
	})
}

// TestPoliciesSayOnHowManyProxiesTheyAre has proxies come, refuse, leave and vanish.
func TestPoliciesSayOnHowManyProxiesTheyAre(t *testing.T) {
	install(t, nil)
	installProxies(t)
	c := client(t, plane.Config())
	put(t, c, asking("a", "Keep"))
	var all []*one
	for n := range 3 {
		all = append(all, join(t, c, fmt.Sprintf("node-%d", n), ""))
	}
	counts(t, c, "a", "3/3", 0)
	join(t, c, "Node_4", "no room")
	counts(t, c, "a", "3/4", 1)
	put(t, c, asking("a", "Refuse"))
	put(t, c, asking("b", "Keep"))
	counts(t, c, "a", "3/4", 1)
	counts(t, c, "b", "3/4", 1)
	u, err := c.Resource(proxies).Get(t.Context(), "node-4", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var told v1alpha1.Proxy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &told); err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.RefusedPolicy{{Resource: "cachepolicies", Name: "a", Message: "no room (Node_4)"}, {Resource: "cachepolicies", Name: "b", Message: "no room (Node_4)"}}
	if diff := cmp.Diff(want, told.Status.Refused); diff != "" || told.Status.Policies != 2 || told.Status.InForce != 0 || told.Status.Version != "v7" {
		t.Errorf("it tells %+v: %s", told.Status, diff)
	}
	all[0].end() // it says that it goes
	counts(t, c, "a", "2/3", 1)
	// One that is gone without a word, and one that tells nothing that can be read.
	for name, seen := range map[string]time.Time{"vanished": time.Now().Add(time.Hour), "new": time.Now()} {
		o := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"renewTime": seen.UTC().Format(time.RFC3339), "digests": "AAAA"}}}
		o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Proxy"))
		o.SetName(name)
		if _, err := c.Resource(proxies).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	counts(t, c, "b", "2/5", 1)
	vanished, err := c.Resource(proxies).Get(t.Context(), "vanished", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	counter := &Controller{Options: Options{Client: c, Proxies: proxies, Renewal: DefaultRenewal}}
	for _, later := range []time.Duration{0, time.Hour} {
		counter.tally(t.Context(), []unstructured.Unstructured{*vanished}, time.Now().Add(later))
	}
	if _, err := c.Resource(proxies).Get(t.Context(), "vanished", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what a proxy that is gone has left behind: %v", err)
	}
	counts(t, c, "b", "2/4", 1)
}

// TestProxiesAreGoneWhenNothingIsHeardOfThem has clocks be wrong, those of proxies and
// that of who counts.
func TestProxiesAreGoneWhenNothingIsHeardOfThem(t *testing.T) {
	c := &Controller{Options: Options{Renewal: DefaultRenewal}}
	proxy := func(name, version string, says time.Time) unstructured.Unstructured {
		u := unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"renewTime": says.UTC().Format(time.RFC3339)}}}
		u.SetName(name)
		u.SetResourceVersion(version)
		return u
	}
	start := time.Now()
	past, future := start.Add(-24*time.Hour), start.Add(24*time.Hour)
	gone := func(at time.Duration, all ...unstructured.Unstructured) (names []string) {
		seen := map[string]sighting{}
		for i := range all {
			if c.census.see(seen, &all[i], start.Add(at), 3*c.Renewal) {
				names = append(names, all[i].GetName())
			}
		}
		c.census.seen = seen
		return names
	}
	if got := gone(0, proxy("slow", "1", past), proxy("fast", "2", future), proxy("crashed", "3", future)); got != nil {
		t.Errorf("%v are gone at once", got)
	}
	if got := gone(10*time.Minute, proxy("slow", "1", past), proxy("fast", "4", future), proxy("crashed", "3", future), proxy("new", "5", past)); got != nil {
		t.Errorf("%v are gone too early", got)
	}
	all := []unstructured.Unstructured{proxy("slow", "6", past), proxy("fast", "4", future), proxy("crashed", "3", future), proxy("new", "7", past)}
	if diff := cmp.Diff([]string{"crashed"}, gone(16*time.Minute, all...)); diff != "" {
		t.Error(diff)
	}
	// Who could not tell does not know what others would have.
	c.census.seen = nil
	if got := gone(48*time.Hour, all...); got != nil {
		t.Errorf("%v are gone after nobody could tell", got)
	}
}

// traffic counts what proxies ask for.
type traffic struct {
	http.RoundTripper
	told, counted, written *atomic.Int64
}

func (c traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.RoundTripper.RoundTrip(r)
	isProxies := strings.Contains(r.URL.Path, "/proxies")
	switch {
	case err != nil || res.StatusCode >= http.StatusBadRequest: // what nobody wrote is no write
	case isProxies && r.Method == http.MethodPatch:
		c.told.Add(1)
	case isProxies && r.Method == http.MethodGet:
		c.counted.Add(1)
	case r.Method == http.MethodPut:
		c.written.Add(1)
	}
	return res, err
}

// TestManyProxiesWriteLittle has as many as a test can have, and nobody write a status
// once it says what there is.
func TestManyProxiesWriteLittle(t *testing.T) {
	install(t, nil)
	installProxies(t)
	cfg := plane.Config()
	cfg.QPS = -1
	asked := traffic{nil, &atomic.Int64{}, &atomic.Int64{}, &atomic.Int64{}}
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { asked.RoundTripper = rt; return asked })
	many, c := client(t, cfg), client(t, plane.Config())
	put(t, c, asking("a", "Keep"))
	const proxies = 20
	for n := range proxies {
		join(t, many, fmt.Sprintf("n%d", n), "")
	}
	counts(t, c, "a", "20/20", 0)
	put(t, c, asking("a", "Refuse"))
	counts(t, c, "a", "20/20", 0)
	condition(t, c, "a", config.Programmed, metav1.ConditionTrue)
	// Who was counted last may have been counted by several at once.
	before := asked.counted.Load()
	until(t, func() bool { return asked.counted.Load() > before+proxies })
	settled, told, from := asked.written.Load(), asked.told.Load(), asked.counted.Load()
	until(t, func() bool { return asked.counted.Load() > from+2*proxies })
	if now := asked.written.Load(); now != settled {
		t.Errorf("%d writes of a status that says what there is", now-settled)
	}
	if now := asked.told.Load(); now != told || told > 4*proxies {
		t.Errorf("%d proxies told %d times, and then %d times without news", proxies, told, now-told)
	}
}

func TestProxiesThatMayNotTellSaySoOnce(t *testing.T) {
	install(t, nil)
	said := make(chan string, 100)
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := &Controller{Options: Options{
		Client: client(t, plane.Config()), Resources: []schema.GroupVersionResource{resource}, Scheme: scheme, By: "n1", Proxies: proxies,
		Log: funcr.New(func(_, args string) { said <- args }, funcr.Options{}),
	}}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.tell(t.Context())
	}
	if line := <-said; !strings.Contains(line, "not told on how many proxies") || len(said) > 0 {
		t.Errorf("said %s, and %d more", line, len(said))
	}
	if c.leave(t.Context()); len(said) > 0 {
		t.Errorf("said %s", <-said)
	}
}

func TestWhatIsToldIsBounded(t *testing.T) {
	c := &Controller{Options: Options{By: "n1"}}
	k := &kind{resource: resource, policies: map[string]*policy{}}
	for n := range 10000 {
		name := fmt.Sprintf("policy-%d", n)
		k.policies[name] = &policy{tried: name}
		if n%2 == 0 {
			k.policies[name].err = fmt.Errorf("%s", strings.Repeat("wrong ", 1000))
		}
	}
	c.kinds = []*kind{k}
	c.Found = func(runtime.Object) []metav1.Condition { return nil }
	own := c.own()
	if text := textOf(&own); len(text) > 64<<10 || own.InForce != 5000 || own.Policies != 10000 || len(own.Refused) != maxRefused {
		t.Errorf("%d bytes tell of %d of %d policies in force, and why %d are not", len(text), own.InForce, own.Policies, len(own.Refused))
	}
	for by, want := range map[string]string{"n1.example.org": "n1.example.org", "Node_1": "node-1", "-": "proxy-280c9438", "": "proxy-811c9dc5"} {
		if got := (&Controller{Options: Options{By: by}}).proxyName(); got != want {
			t.Errorf("%q is called %s, want %s", by, got, want)
		}
	}
}

func TestCountsAreWrittenWhenTheyAreNews(t *testing.T) {
	now := time.Now()
	say := func(generation int64, inForce, refused, total int32, ago time.Duration) v1alpha1.PolicyProxies {
		return v1alpha1.PolicyProxies{ObservedGeneration: generation, InForce: inForce, Refused: refused, Total: total, Time: metav1.NewTime(now.Add(-ago))}
	}
	is := say(2, 900, 1, 1000, time.Minute)
	for name, tt := range map[string]struct {
		want v1alpha1.PolicyProxies
		news bool
	}{
		"same":             {say(2, 900, 1, 1000, 0), false},
		"newer":            {say(3, 0, 0, 1000, 0), true},
		"older":            {say(1, 1000, 0, 1000, 0), false},
		"one-more-refuses": {say(2, 900, 2, 1000, 0), true},
		"one-has-come":     {say(2, 901, 1, 1001, 0), false},
		"nobody-can-tell":  {say(3, 0, 0, 0, 0), false},
	} {
		n := tallied{tt.want}
		if got := n.isNews(&is, now); got != tt.news {
			t.Errorf("%s: %v", name, got)
		}
	}
	after := tallied{say(2, 901, 1, 1001, 0)}
	ahead := say(2, 900, 1, 1000, -time.Hour) // its clock was
	if !after.isNews(&ahead, now) {
		t.Error("what a clock that is ahead has written stays")
	}
	if !after.isNews(&is, now.Add(10*time.Minute)) || !after.isNews(nil, now) {
		t.Error("it is never written")
	}
}

// TestCountsThatCannotBeAreNotBelieved has somebody write nonsense into a status.
func TestCountsThatCannotBeAreNotBelieved(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		total int32
		at    time.Duration
		want  bool
	}{
		"good": {4, -time.Hour, true}, "one": {1, 0, true}, "clock-ahead": {4, maxSkew - time.Second, true},
		"none": {0, 0, false}, "fewer-than-none": {-4, 0, false}, "all-there-could-be": {limit.MaxProxies, 0, true}, "more": {limit.MaxProxies + 1, 0, false}, "future": {4, time.Hour, false},
	} {
		if got := isCount(&v1alpha1.PolicyProxies{Total: tt.total, Time: metav1.NewTime(now.Add(tt.at))}, now.Add(maxSkew)); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if isCount(nil, now) {
		t.Error("what nobody has counted is believed")
	}
	c := &Controller{census: census{total: 1 << 30}}
	if n := c.known(); n != limit.MaxProxies {
		t.Errorf("%d are known", n)
	}
}

// TestMoreProxiesThanThereCanBeAreBelieved has what one writes be read by others.
func TestMoreProxiesThanThereCanBeAreBelieved(t *testing.T) {
	now := time.Now()
	many := tally{total: limit.MaxProxies + 1}
	if n := many.of(&policy{}, now); n.Total != limit.MaxProxies || !isCount(&n.PolicyProxies, now) {
		t.Errorf("it says %d", n.Total)
	}
}
