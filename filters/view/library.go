package view

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// Options says what a library is made of.
type Options struct {
	// Client reads namespaces under the proxy's own identity.
	Client metadata.Interface
	// Observe is told what was decided of a request for a view. Nil tells nobody.
	Observe func(view string, mode v1alpha1.FilterMode, decision string, took time.Duration)
	// Rooms is where what is written is looked at. Nil makes some.
	Rooms *body.Rooms
	// News is told that views choose other namespaces now. Nil is told nothing.
	News func()
	Log  logr.Logger
}

// Library has the views of the configuration that is in force. It outlives every
// configuration, so that only those views end that have changed.
type Library struct {
	options Options
	needed  chan struct{} // has room for one
	current atomic.Pointer[[]*world]
	made    madeLenses

	mu         sync.Mutex // guards following, and the order in which views change
	worlds     map[string]*world
	namespaces map[string]labels.Set // nil while unknown
}

// A world is a VirtualView as it is now.
type world struct{ lens atomic.Pointer[lens] }

// NewLibrary returns an empty library.
func NewLibrary(o Options) *Library {
	if o.Observe == nil {
		o.Observe = func(string, v1alpha1.FilterMode, string, time.Duration) {}
	}
	if o.Rooms == nil {
		o.Rooms = body.NewRooms()
	}
	if o.News == nil {
		o.News = func() {}
	}
	l := &Library{options: o, needed: make(chan struct{}, 1), worlds: map[string]*world{}}
	l.current.Store(&[]*world{})
	return l
}

// Compile puts the views of a snapshot in force and returns the filter that does,
// with what is to be said of its policies. Views that are not there any more are
// over before it returns. A nil library has no views, and a snapshot with some is
// refused to all of their subjects.
func (l *Library) Compile(s *config.Snapshot) (*Filter, config.Findings) {
	found := config.Findings{}
	if l == nil {
		l = NewLibrary(Options{Log: logr.Discard()})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*world
	kept := map[string]*world{}
	for _, o := range s.Objects {
		v, ok := o.(*v1alpha1.VirtualView)
		if !ok {
			continue
		}
		w, digest, err := l.worldOf(v)
		if err != nil {
			found.Add(v, config.NotInForce("Invalid", err.Error()))
			continue
		}
		if w.lens.Load().unknown {
			found.Add(v, config.NotInForce("NamespacesUnknown",
				"spec.namespaces.selector: the proxy does not know the labels of namespaces; its identity has to list and watch them. Until then the view's subjects are refused."))
		}
		kept[digest] = w
		all = append(all, w)
	}
	l.current.Store(&all)
	for digest, w := range l.worlds {
		if kept[digest] == nil {
			close(w.lens.Load().changed)
		}
	}
	l.worlds = kept
	return &Filter{library: l}, found
}

// worldOf returns the world of v: the one that there is, if it has not changed.
func (l *Library) worldOf(v *v1alpha1.VirtualView) (_ *world, digest string, err error) {
	text, err := json.Marshal(v.Spec)
	if err != nil {
		return nil, "", fmt.Errorf("read view: %w", err)
	}
	sum := sha256.Sum256(append(text, v.Name...))
	digest = hex.EncodeToString(sum[:])
	if w := l.worlds[digest]; w != nil {
		return w, digest, nil
	}
	lens, err := newLens(v, digest)
	if err != nil {
		return nil, "", err
	}
	if lens.unknown {
		select {
		case l.needed <- struct{}{}:
		default: // it has been said
		}
		if l.namespaces != nil {
			lens = lens.over(lens.chosen(l.namespaces))
		}
	}
	w := &world{}
	w.lens.Store(lens)
	return w, digest, nil
}

// Start follows namespaces, once a view needs to know them, until ctx ends. It
// calls again when they are known, so that views that wait are reported to be in
// force.
func (l *Library) Start(ctx context.Context, again func() error) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.needed:
	}
	informers := metadatainformer.NewSharedInformerFactory(l.options.Client, 0)
	informer := informers.ForResource(corev1.SchemeGroupVersion.WithResource("namespaces")).Informer()
	changed, err := l.attach(informer)
	if err != nil {
		return fmt.Errorf("follow namespaces: %w", err)
	}
	informers.Start(ctx.Done())
	defer informers.Shutdown()
	if !cache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
		return nil
	}
	l.know(labelsOf(informer.GetStore()))
	if err := again(); err != nil {
		l.options.Log.Error(err, "policies refused; the ones before stay in force")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			l.know(labelsOf(informer.GetStore()))
		}
	}
}

// attach makes an informer say that something has changed, whatever it is.
func (l *Library) attach(informer cache.SharedIndexInformer) (<-chan struct{}, error) {
	changed := make(chan struct{}, 1)
	say := func() {
		select {
		case changed <- struct{}{}:
		default: // it has been said
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { say() },
		UpdateFunc: func(any, any) { say() },
		DeleteFunc: func(any) { say() },
	}); err != nil {
		return nil, err
	}
	return changed, informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		l.options.Log.Info("namespaces are not followed for now; views keep those they know", "reason", err.Error())
	})
}

func labelsOf(namespaces cache.Store) map[string]labels.Set {
	all := map[string]labels.Set{}
	for _, o := range namespaces.List() {
		if m, ok := o.(*metav1.PartialObjectMetadata); ok {
			all[m.Name] = m.Labels
		}
	}
	return all
}

// know takes what namespaces there are. Views that choose others now are over,
// and what comes after them is in force before that is said.
func (l *Library) know(namespaces map[string]labels.Set) {
	if l.choose(namespaces) {
		l.options.News()
	}
}

// choose reports whether there is a view that chooses others.
func (l *Library) choose(namespaces map[string]labels.Set) (others bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.namespaces = namespaces
	for _, w := range l.worlds {
		was := w.lens.Load()
		if was.selector == nil {
			continue
		}
		chosen := was.chosen(namespaces)
		if !was.unknown && maps.Equal(chosen, was.namespaces) {
			continue
		}
		w.lens.Store(was.over(chosen))
		close(was.changed)
		others = true
	}
	return others
}
