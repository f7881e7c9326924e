// Package controller keeps the policies in force true to the custom resources
// of the API, and says in their status what has become of them.
package controller

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// DefaultSpread is how long proxies take to report a change.
const DefaultSpread = 5 * time.Second

// Options says what to follow. Client, Resources, Scheme, Apply and By are
// required.
type Options struct {
	// Client carries requests under the proxy's own identity.
	Client dynamic.Interface
	// Resources are what is followed, cluster-scoped. Their kinds are in Scheme.
	Resources []schema.GroupVersionResource
	Scheme    *runtime.Scheme
	// Apply puts policies in force, or refuses them: all that there are, resource
	// by resource. It is called first when it is known what there is, be it
	// nothing. digest is equal for equal ones.
	Apply func(objects []runtime.Object, digest string) error
	// Found returns conditions of a policy that was handed to Apply, which count
	// more than that Apply took it. Nil finds none.
	Found func(policy runtime.Object) []metav1.Condition
	// News has something when Found may find something else.
	News <-chan struct{}
	// Started reports whether the API server has started, and knows who may what.
	// Nil takes that for granted.
	Started func(context.Context) bool
	// By names this proxy where it has something of its own to say.
	By string
	// Spread is how long a change may go unreported, see [Controller]; 0 means
	// [DefaultSpread].
	Spread time.Duration
	// Proxies is the resource in which proxies tell of themselves, so that policies
	// say on how many of them they are in force. Empty tells nothing. By has to name
	// this proxy alone.
	Proxies schema.GroupVersionResource
	// Counted is told how many proxies there are, when that changes. It may be nil.
	Counted func(proxies int)
	// Version is this proxy's.
	Version string
	// Renewal is how often it tells that it is there, and Counting how often all
	// proxies together are counted; 0 means [DefaultRenewal] and [DefaultCounting].
	Renewal, Counting time.Duration
	Log               logr.Logger
}

// Controller follows policies. Where a custom resource is not installed, or the
// proxy's identity may not read it, there are none of its kind; what was known
// before that stays.
//
// All proxies of a cluster come to the same verdict, so one of them has to write
// it down. There is no leader, which would cost the API server more than the
// writes: each proxy waits for a random part of the spread and then writes what
// nobody has written by then.
type Controller struct {
	Options

	kinds   []*kind
	changed chan struct{} // has room for one
	due     *time.Timer   // the next report

	mu sync.Mutex // guards what kinds say of it

	// Of the goroutine that runs Start.
	applied *string // what was put in force last
	refusal error   // of what is not in force
	waiting bool    // due is set
	census  census
}

// kind is one resource that is followed.
type kind struct {
	resource    schema.GroupVersionResource
	informer    cache.SharedIndexInformer
	unavailable string // why policies cannot be read; guarded by the controller's mu
	lost        atomic.Bool

	// Of the goroutine that reads it.
	refused time.Time // for the first time
	started bool      // refusals are believed

	// Of the goroutine that runs Start.
	policies map[string]*policy
	silent   bool // status may not be written
}

// policy is what is known of one object.
type policy struct {
	tried      string // identity of what was read last
	generation int64
	err        error          // why this generation was not understood
	good       runtime.Object // the last generation that was
	identity   string         // of good
}

// Start follows until ctx ends, and returns when nothing of it runs any more.
func (c *Controller) Start(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	defer c.due.Stop()
	defer c.census.tell.Stop()
	defer c.census.count.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, k := range c.kinds {
		wg.Go(func() { k.informer.RunWithContext(ctx) })
		wg.Go(func() {
			// A collection may be complete without any event.
			if cache.WaitFor(ctx, "", k.informer.HasSyncedChecker()) {
				c.say(k, "")
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			c.leave(ctx)
			return nil
		case <-c.census.tell.C:
			c.tell(ctx)
		case <-c.census.count.C:
			c.countAll(ctx)
		case <-c.changed:
			c.sync()
		case <-c.News:
			c.plan()
		case <-c.due.C:
			c.waiting = false
			c.report(ctx)
		}
	}
}

// NeedLeaderElection tells controller-runtime that every replica follows.
func (c *Controller) NeedLeaderElection() bool { return false }

func (c *Controller) prepare() error {
	if c.Spread <= 0 {
		c.Spread = DefaultSpread
	}
	if c.Found == nil {
		c.Found = func(runtime.Object) []metav1.Condition { return nil }
	}
	c.changed = make(chan struct{}, 1)
	c.due = time.NewTimer(time.Hour)
	c.due.Stop()
	c.prepareCensus()
	for _, r := range c.Resources {
		k := &kind{resource: r, policies: map[string]*policy{}}
		k.informer = c.inform(k)
		if err := c.listen(k); err != nil {
			return fmt.Errorf("follow %s: %w", r.GroupResource(), err)
		}
		c.kinds = append(c.kinds, k)
	}
	return nil
}

func (c *Controller) listen(k *kind) error {
	_, err := k.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.say(k, "") },
		UpdateFunc: func(any, any) { c.say(k, "") },
		DeleteFunc: func(any) { c.say(k, "") },
	})
	if err != nil {
		return err
	}
	return k.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { c.missed(k, err) })
}

// missed takes note of why policies could not be read. That the API server did
// not answer says nothing about them.
func (c *Controller) missed(k *kind, err error) {
	switch {
	case apierrors.IsNotFound(err):
		k.lost.Store(false)
		c.say(k, "their CustomResourceDefinition is not installed")
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		k.lost.Store(false)
		c.say(k, "the proxy's identity may not list and watch them")
	default:
		c.lost(k, err)
	}
}

// say wakes the controller. Each reason not to have policies is logged once.
func (c *Controller) say(k *kind, unavailable string) {
	c.mu.Lock()
	news := unavailable != k.unavailable
	k.unavailable = unavailable
	c.mu.Unlock()
	if news && unavailable != "" {
		c.Log.Info("Policies are not read from the API", "resource", k.resource.GroupResource().String(), "reason", unavailable)
	}
	select {
	case c.changed <- struct{}{}:
	default: // it has been said
	}
}

// isKnown reports whether it is known of every kind what there is.
func (c *Controller) isKnown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(c.kinds, func(k *kind) bool { return k.unavailable == "" && !k.informer.HasSynced() })
}

// objects are what the API has, by name.
func (k *kind) objects() map[string]*unstructured.Unstructured {
	all := map[string]*unstructured.Unstructured{}
	for _, o := range k.informer.GetStore().List() {
		u := o.(*unstructured.Unstructured)
		all[u.GetName()] = u
	}
	return all
}

// sync puts in force what the API has.
func (c *Controller) sync() {
	if !c.isKnown() {
		return
	}
	for _, k := range c.kinds {
		objects := k.objects()
		for name := range k.policies {
			if objects[name] == nil {
				delete(k.policies, name)
			}
		}
		for name, u := range objects {
			c.read(k, name, u)
		}
	}
	c.apply()
	c.plan()
}

// read decodes u, unless that has been done.
func (c *Controller) read(k *kind, name string, u *unstructured.Unstructured) {
	p := k.policies[name]
	if p == nil {
		p = &policy{}
		k.policies[name] = p
	}
	identity := fmt.Sprintf("%s %s %s %d", k.resource.Resource, name, u.GetUID(), u.GetGeneration())
	if p.tried == identity {
		return
	}
	p.tried, p.generation = identity, u.GetGeneration()
	good, err := c.decode(u)
	if p.err = err; err != nil {
		c.Log.Error(err, "policies refused; what this one said before stays in force", "resource", k.resource.Resource, "name", name)
		return
	}
	p.good, p.identity = good, identity
}

// validated are the kinds whose rules the API server keeps, if the definition
// that is installed has them.
type validated interface{ Validate() error }

func (c *Controller) decode(u *unstructured.Unstructured) (runtime.Object, error) {
	data, err := u.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	o, _, err := serializer.NewCodecFactory(c.Scheme, serializer.EnableStrict).UniversalDeserializer().Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	if v, ok := o.(validated); ok {
		return o, v.Validate()
	}
	return o, nil
}

// apply puts the good policies in force, in the order of their names.
func (c *Controller) apply() {
	var objects []runtime.Object
	var digest strings.Builder
	for _, k := range c.kinds {
		for _, p := range k.good() {
			objects = append(objects, p.good)
			digest.WriteString(p.identity + "\n")
		}
	}
	state := digest.String()
	if c.applied != nil && *c.applied == state {
		return
	}
	if c.refusal = c.Apply(objects, state); c.refusal != nil {
		c.Log.Error(c.refusal, "policies refused; the ones before stay in force")
		return
	}
	c.applied = &state
}

func (k *kind) good() (all []*policy) {
	for _, p := range k.policies {
		if p.good != nil {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *policy) int { return strings.Compare(a.identity, b.identity) })
	return all
}

// plan sets the time of the next report, if there is something to report.
func (c *Controller) plan() {
	c.planTelling()
	c.sayCounted()
	if c.waiting || !slices.ContainsFunc(c.kinds, func(k *kind) bool { return len(c.unreported(k)) > 0 }) {
		return
	}
	c.waiting = true
	c.due.Reset(rand.N(c.Spread))
}

var (
	_ manager.Runnable               = (*Controller)(nil)
	_ manager.LeaderElectionRunnable = (*Controller)(nil)
)
