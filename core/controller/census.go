package controller

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

const (
	// DefaultRenewal is how often a proxy tells that it is still there. One that has
	// not told for three times as long is gone.
	DefaultRenewal = 5 * time.Minute
	// DefaultCounting is how often all proxies together count themselves.
	DefaultCounting = 15 * time.Second

	// perProxy is how much longer news takes to be told for each proxy that there
	// is, and recount how much longer counts stand: a thousand proxies tell within
	// twenty seconds, and when they come and go they change a status every five minutes.
	perProxy = 20 * time.Millisecond
	recount  = 300 * time.Millisecond

	// maxSkew is how much later than here it may be where somebody has counted.
	maxSkew = 5 * time.Minute

	maxRefused        = 20
	maxRefusedMessage = 512
	maxDigests        = 4096
	lastWord          = 3 * time.Second
)

// A census counts on how many proxies policies are in force. Each proxy tells of
// itself in an object of its own, when it has news and then every few minutes, so
// no two of them write the same object. Each lists these objects now and then, the
// more seldom the more proxies there are, so that together they do so as often as a
// single one would; it writes down what it has counted where that has changed.
// Nobody leads, and nobody watches.
type census struct {
	tell, count *time.Timer
	soon        bool      // tell is due because there is news
	told        string    // what was told last
	total       int       // proxies that were there when this one counted
	at          time.Time // when it did
	counted     int       // what Counted was told
	silent      bool      // it has been said why nothing is told
	seen        map[string]sighting
}

// A sighting is a proxy's object as it was found first.
type sighting struct {
	version string
	at      time.Time
}

// see notes what a proxy has told last, and reports whether that is longer ago than
// it may be. Its clock may be wrong, so it is asked when it was heard of and not when
// it says that it spoke.
func (c *census) see(to map[string]sighting, u *unstructured.Unstructured, now time.Time, longest time.Duration) (gone bool) {
	is := sighting{u.GetResourceVersion(), now}
	if was, known := c.seen[u.GetName()]; known && was.version == is.version {
		is = was
	}
	to[u.GetName()] = is
	return now.Sub(is.at) > longest
}

func (c *Controller) prepareCensus() {
	if c.Renewal <= 0 {
		c.Renewal = DefaultRenewal
	}
	if c.Counting <= 0 {
		c.Counting = DefaultCounting
	}
	c.census.tell, c.census.count = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	c.census.tell.Stop()
	c.census.count.Stop()
}

// counts reports whether there is anything to count in.
func (c *Controller) counts() bool { return !c.Proxies.Empty() }

// planTelling sets the time to tell what is new of this proxy.
func (c *Controller) planTelling() {
	if !c.counts() || c.census.soon || !c.isKnown() {
		return
	}
	if own := c.own(); textOf(&own) == c.census.told {
		return
	}
	if c.census.told == "" {
		c.census.count.Reset(c.nextCount())
	}
	c.census.soon = true
	c.census.tell.Reset(rand.N(c.Spread + time.Duration(c.known())*perProxy))
}

// known is how many proxies there were when one has counted last; 0 if that is not
// known.
func (c *Controller) known() int {
	n, at := min(c.census.total, limit.MaxProxies), c.census.at
	latest := time.Now().Add(maxSkew)
	for _, k := range c.kinds {
		for _, u := range k.objects() {
			if p := proxiesOf(u); isCount(p, latest) && p.Time.After(at) {
				n, at = int(p.Total), p.Time.Time
			}
		}
	}
	return n
}

// isCount reports whether what others have counted can be: limits are shared out by
// it. One of the future would be believed for ever.
func isCount(p *v1alpha1.PolicyProxies, latest time.Time) bool {
	return p != nil && p.Total >= 1 && p.Total <= limit.MaxProxies && !p.Time.After(latest)
}

// sayCounted tells how many proxies there are.
func (c *Controller) sayCounted() {
	if !c.counts() || c.Counted == nil {
		return
	}
	if n := c.known(); n != c.census.counted {
		c.census.counted = n
		c.Counted(n)
	}
}

// nextCount is when this proxy counts again: they all do so at random, and together
// about once in Counting.
func (c *Controller) nextCount() time.Duration {
	return rand.N(2 * c.Counting * time.Duration(max(1, c.known())))
}

func textOf(s *v1alpha1.ProxyStatus) string {
	text, _ := json.Marshal(s) // it always can be
	return string(text)
}

// own is what there is to tell of this proxy, but for the time.
func (c *Controller) own() v1alpha1.ProxyStatus {
	s := v1alpha1.ProxyStatus{Version: c.Version}
	for _, k := range c.kinds {
		for _, name := range slices.Sorted(maps.Keys(k.policies)) {
			p := k.policies[name]
			s.Policies++
			why := meta.FindStatusCondition(c.verdict(p), config.Programmed)
			if why.Status == metav1.ConditionTrue {
				s.InForce++
				s.Digests = appendDigest(s.Digests, p.tried)
				continue
			}
			s.RefusedDigests = appendDigest(s.RefusedDigests, p.tried)
			if len(s.Refused) < maxRefused {
				message := strings.ToValidUTF8(why.Message[:min(len(why.Message), maxRefusedMessage)], "")
				s.Refused = append(s.Refused, v1alpha1.RefusedPolicy{Resource: k.resource.Resource, Name: name, Message: message})
			}
		}
	}
	return s
}

// digestOf is of what was read of a policy, and of which generation.
func digestOf(identity string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(identity)) // it never fails
	return h.Sum32()
}

func appendDigest(to []byte, identity string) []byte {
	if len(to) >= 4*maxDigests {
		return to
	}
	return binary.BigEndian.AppendUint32(to, digestOf(identity))
}

// proxyName is this proxy's own object's.
func (c *Controller) proxyName() string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(c.By))
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		name = fmt.Sprintf("proxy-%08x", digestOf(c.By))
	}
	return name
}

// tell says what has become of this proxy's policies.
func (c *Controller) tell(ctx context.Context) {
	status := c.own()
	text := textOf(&status)
	status.RenewTime = metav1.Now()
	c.census.soon = false
	err := c.applyOwn(ctx, &status)
	if err != nil {
		c.census.seen = nil // nor may others have been able to tell
	}
	switch {
	case err == nil:
		c.census.told, c.census.silent = text, false
	case ctx.Err() != nil:
		return
	case !c.census.silent:
		c.census.silent = true
		c.Log.Info("It is not told on how many proxies policies are in force", "reason", err.Error())
	}
	c.census.tell.Reset(c.Renewal - rand.N(c.Renewal/5))
}

func (c *Controller) applyOwn(ctx context.Context, status *v1alpha1.ProxyStatus) error {
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": raw}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Proxy"))
	u.SetName(c.proxyName())
	_, err = c.Client.Resource(c.Proxies).Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "portico", Force: true})
	return err
}

// leave takes this proxy's object away.
func (c *Controller) leave(ctx context.Context) {
	if c.census.told == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	if err := c.Client.Resource(c.Proxies).Delete(ctx, c.proxyName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		c.Log.V(1).Info("this proxy is counted for a while yet", "reason", err.Error())
	}
}

// tally is how many proxies there are, and what they say of policies.
type tally struct {
	total            int
	inForce, refused map[uint32]int
}

// countAll writes down what proxies have told, where it has changed.
func (c *Controller) countAll(ctx context.Context) {
	defer func() { c.census.count.Reset(c.nextCount()) }()
	list, err := c.Client.Resource(c.Proxies).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		c.census.seen = nil
		c.Log.V(1).Info("proxies are not counted for now", "reason", err.Error())
		return
	}
	now := time.Now()
	t := c.tally(ctx, list.Items, now)
	c.census.total, c.census.at = t.total, now
	c.sayCounted()
	for _, k := range c.kinds {
		for name, u := range k.objects() {
			p := k.policies[name]
			if k.silent || p == nil || p.generation != u.GetGeneration() {
				continue
			}
			want := t.of(p, now)
			if want.isNews(proxiesOf(u), now) {
				c.handle(ctx, k, u, c.writeProxies(ctx, k, u, &want))
			}
		}
	}
}

// tally counts proxies, and takes away what those that are gone have left behind.
func (c *Controller) tally(ctx context.Context, all []unstructured.Unstructured, now time.Time) tally {
	t := tally{inForce: map[uint32]int{}, refused: map[uint32]int{}}
	seen := make(map[string]sighting, len(all))
	for i := range all {
		u := &all[i]
		if !c.census.see(seen, u, now, 3*c.Renewal) {
			t.add(u)
			continue
		}
		uid, rv := u.GetUID(), u.GetResourceVersion()
		_ = c.Client.Resource(c.Proxies).Delete(ctx, u.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}}) // another time
	}
	c.census.seen = seen
	return t
}

// add counts one proxy.
func (t *tally) add(u *unstructured.Unstructured) {
	var p v1alpha1.Proxy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return // what cannot be read tells of no proxy
	}
	t.total++
	addAll(t.inForce, p.Status.Digests)
	addAll(t.refused, p.Status.RefusedDigests)
}

func addAll(to map[uint32]int, digests []byte) {
	for one := range slices.Chunk(digests, 4) {
		if len(one) == 4 {
			to[binary.BigEndian.Uint32(one)]++
		}
	}
}

// tallied is what is to be said of a policy's proxies.
type tallied struct{ v1alpha1.PolicyProxies }

func (t *tally) of(p *policy, now time.Time) tallied {
	digest := digestOf(p.tried)
	n := tallied{v1alpha1.PolicyProxies{
		ObservedGeneration: p.generation, InForce: int32(t.inForce[digest]), Refused: int32(t.refused[digest]), Total: int32(min(t.total, limit.MaxProxies)), Time: metav1.NewTime(now),
	}}
	n.Summary = fmt.Sprintf("%d/%d", n.InForce, n.Total)
	return n
}

// isNews reports whether it has to be written. That proxies come and go is, after
// a while; that they refuse is at once.
func (n *tallied) isNews(is *v1alpha1.PolicyProxies, now time.Time) bool {
	switch {
	case n.Total == 0:
		return false // nobody can tell
	case is == nil || is.ObservedGeneration < n.ObservedGeneration:
		return true
	case is.ObservedGeneration > n.ObservedGeneration:
		return false
	case is.Refused != n.Refused:
		return true
	}
	return (is.InForce != n.InForce || is.Total != n.Total) && now.Sub(is.Time.Time).Abs() >= time.Duration(n.Total)*recount
}

func (c *Controller) writeProxies(ctx context.Context, k *kind, u *unstructured.Unstructured, n *tallied) error {
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&n.PolicyProxies)
	if err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	u = u.DeepCopy()
	if err := unstructured.SetNestedMap(u.Object, raw, "status", "proxies"); err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	_, err = c.Client.Resource(k.resource).UpdateStatus(ctx, u, metav1.UpdateOptions{FieldManager: "portico"})
	return err
}

// proxiesOf reads u's counts; nil if there are none.
func proxiesOf(u *unstructured.Unstructured) *v1alpha1.PolicyProxies {
	raw, found, _ := unstructured.NestedMap(u.Object, "status", "proxies")
	if !found {
		return nil
	}
	var p v1alpha1.PolicyProxies
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &p); err != nil {
		return nil
	}
	return &p
}
