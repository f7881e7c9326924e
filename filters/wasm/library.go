package wasm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/plugins/abi"
)

// Defaults of a WasmFilter's limits.
const (
	defaultMemoryMiB = 16
	defaultInstances = 2
	defaultWallClock = 100 * time.Millisecond
)

// Options says what modules are made of.
type Options struct {
	// CacheDir keeps what was fetched and what was compiled; without one, both
	// are lost with the process.
	CacheDir string
	Sources  fetch.Sources
	Observe  Observer
	// Rooms is where objects are judged. Nil makes some.
	Rooms *body.Rooms
	// Client reads what modules may look up, under the proxy's own identity. Without
	// one nothing of that is known.
	Client dynamic.Interface
	// LookupLimit is how much memory that may take, in bytes; 0 means no bound.
	LookupLimit int64
	Log         logr.Logger
}

// Library has the modules of the configuration that is in force. It outlives
// every configuration, and closes a module when no request uses it any more.
type Library struct {
	options Options
	engine  *Engine
	fetcher *fetch.Fetcher
	rooms   *body.Rooms
	follows *follower

	mu      sync.Mutex // guards following
	shelves map[string]*shelf
	filter  *Filter
}

// A shelf is what is known of one WasmFilter.
type shelf struct {
	key    string
	module *Module // the last good one, which has key; nil if there was none
	bad    string  // the key of what was not good, if that is newer
	err    error   // of bad, or why there is nothing to be bad
	took   time.Duration
	// looksUp is what the module may.
	looksUp []v1alpha1.ContextResource
}

// NewLibrary returns an empty library.
func NewLibrary(o Options) (*Library, error) {
	engine, err := NewEngine(o.CacheDir, o.Log)
	if err != nil {
		return nil, err
	}
	if o.Observe == nil {
		o.Observe = unobserved
	}
	if o.Rooms == nil {
		o.Rooms = body.NewRooms()
	}
	kept := ""
	if o.CacheDir != "" {
		kept = filepath.Join(o.CacheDir, "modules")
	}
	l := &Library{
		options: o, engine: engine, fetcher: fetch.New(o.Sources, kept, o.Log), rooms: o.Rooms,
		follows: newFollower(o.Client, o.LookupLimit, o.Log), shelves: map[string]*shelf{},
	}
	l.filter = newFilter(nil, nil, l.rooms, o.Observe, o.Log)
	return l, nil
}

func unobserved(*v1alpha1.FilterBindingSpec, string, string, time.Duration) {}

// Start fetches modules, and follows what they may look up, until ctx ends, and
// calls again whenever Compile may come to something else. Then it closes all
// modules: no request may be on its way.
func (l *Library) Start(ctx context.Context, again func() error) error {
	anew := func() {
		if err := again(); err != nil {
			l.options.Log.Error(err, "policies refused; the ones before stay in force")
		}
	}
	l.follows.start(ctx, anew)
	err := l.fetcher.Run(ctx, anew)
	l.follows.wait()
	l.close(context.WithoutCancel(ctx))
	return err
}

func (l *Library) close(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.filter.retire(ctx, nil)
	for _, s := range l.shelves {
		s.drop(ctx)
	}
	clear(l.shelves)
	if err := l.engine.Close(ctx); err != nil {
		l.options.Log.Error(err, "close the engine")
	}
}

func (s *shelf) drop(ctx context.Context) {
	if s.module != nil {
		s.module.release(ctx)
	}
}

// Compile returns the filter that does what a snapshot asks for, and what is to
// be said of its policies. The filter before it judges nothing from now on.
// A module that cannot be had leaves the one before it, if there was one; where
// there was none, its bindings' requests fare as their failure policy says.
func (l *Library) Compile(s *config.Snapshot) (*Filter, config.Findings) {
	ctx := context.Background() //nolint:forbidigo // modules outlive whoever asks for them
	found, kept := config.Findings{}, map[string]*shelf{}
	if l == nil {
		return newFilter(bindings(s, v1alpha1.PhaseRestrict, nil, found), bindings(s, v1alpha1.PhaseView, nil, found), nil, unobserved, logr.Discard()), found
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fetcher.Begin()
	wanted := map[v1alpha1.ContextResource]bool{}
	for _, o := range s.Objects {
		if w, ok := o.(*v1alpha1.WasmFilter); ok {
			l.put(ctx, w, kept, found)
			kept[w.Name].want(w, wanted)
		}
	}
	l.fetcher.End()
	l.follows.keep(wanted)
	views := bindings(s, v1alpha1.PhaseView, kept, found)
	keepViews(l.filter.views, views)
	next := newFilter(bindings(s, v1alpha1.PhaseRestrict, kept, found), views, l.rooms, l.options.Observe, l.options.Log)
	l.filter.retire(ctx, next)
	l.filter = next
	for name, old := range l.shelves {
		if kept[name] == nil {
			old.drop(ctx)
		}
	}
	l.shelves = kept
	return next, found
}

// want adds what a module looks up, be it in force or about to be.
func (s *shelf) want(w *v1alpha1.WasmFilter, wanted map[v1alpha1.ContextResource]bool) {
	for _, r := range slices.Concat(s.looksUp, w.Spec.ContextResources) {
		wanted[r] = true
	}
}

// put compiles w, unless that has been done, and puts it among those kept.
func (l *Library) put(ctx context.Context, w *v1alpha1.WasmFilter, kept map[string]*shelf, found config.Findings) {
	if kept[w.Name] != nil {
		found.Add(w, config.NotInForce("NameTaken", "A WasmFilter of a file of this proxy has the same name and is used instead."))
		return
	}
	shelf := cmp.Or(l.shelves[w.Name], &shelf{})
	kept[w.Name] = shelf
	switch err := l.update(ctx, w, shelf); {
	case err == nil:
		found.Add(w, config.IsCompiled(fmt.Sprintf("It was compiled in %d ms.", shelf.took.Milliseconds())))
		return
	case errors.Is(err, errNotKnown):
		shelf.wait(w, err, found)
		return
	case errors.Is(err, fetch.ErrFetching):
		found.Add(w, config.NotCompiled("Fetching", err.Error()))
	default:
		found.Add(w, config.NotCompiled("Refused", err.Error()))
	}
	if shelf.module == nil {
		found.Add(w, config.NotInForce("NoModule", "There is no module: requests that it is bound to fare as failurePolicy says."))
		return
	}
	found.Add(w, config.NotInForce("NoModule", "The module before this one stays in force."))
}

// wait says why w is not in force although nothing is wrong with its module.
func (s *shelf) wait(w *v1alpha1.WasmFilter, why error, found config.Findings) {
	s.bad, s.err = "", why
	found.Add(w, config.NotInForce("LookupUnknown", why.Error()))
}

// update makes the shelf hold what w asks for, or leaves what it holds.
func (l *Library) update(ctx context.Context, w *v1alpha1.WasmFilter, s *shelf) error {
	content, err := l.contentOf(w)
	if err != nil {
		return s.lacks(err)
	}
	key := keyOf(w, content.Identity)
	if s.module != nil && s.key == key {
		s.bad, s.err = "", nil
		return s.module.spec.Known.err()
	}
	if s.err != nil && s.bad == key {
		return s.err
	}
	known := l.known(w)
	if err := known.err(); err != nil {
		return err
	}
	code, err := content.Read()
	if err != nil {
		return s.lacks(err)
	}
	began := time.Now()
	spec := SpecOf(w, code)
	spec.Known = known
	m, err := l.engine.Load(ctx, spec)
	if err != nil {
		l.options.Log.Error(err, "WasmFilter refused", "name", w.Name)
		s.bad, s.err = key, err
		return err
	}
	m.hold()
	s.drop(ctx)
	*s = shelf{key: key, module: m, took: time.Since(began), looksUp: w.Spec.ContextResources}
	return nil
}

// lacks notes why there is no code, which may come by itself.
func (s *shelf) lacks(err error) error {
	s.bad, s.err = "", err
	return err
}

func (l *Library) contentOf(w *v1alpha1.WasmFilter) (fetch.Content, error) {
	source, err := sourceOf(&w.Spec.Source)
	if err != nil {
		return fetch.Content{}, err
	}
	return l.fetcher.Content(source)
}

// known is what w may look up; nil is nothing.
func (l *Library) known(w *v1alpha1.WasmFilter) *Known {
	if !slices.Contains(w.Spec.Capabilities, v1alpha1.WasmLookup) {
		return nil
	}
	return l.follows.know(w.Spec.ContextResources)
}

// sourceOf is where a module is to be had from.
func sourceOf(s *v1alpha1.WasmSource) (*fetch.Source, error) {
	to := &fetch.Source{File: s.File, URL: s.URL, OCI: s.OCI, SHA256: s.SHA256}
	if c := s.ConfigMap; c != nil {
		to.ConfigMap = &fetch.Key{Namespace: c.Namespace, Name: c.Name, Key: c.Key}
	}
	if s.Inline == "" {
		return to, nil
	}
	var err error
	to.Inline, err = s.InlineCode()
	return to, err
}

// keyOf is equal for equal modules with equal configuration.
func keyOf(w *v1alpha1.WasmFilter, identity string) string {
	spec := w.Spec
	spec.Source = v1alpha1.WasmSource{}
	// Nothing in it cannot be marshalled: it came from JSON.
	text, _ := json.Marshal(spec)
	sum := sha256.Sum256(append(text, identity...))
	return hex.EncodeToString(sum[:])
}

// SpecOf is the module that a WasmFilter describes, once its code is there.
func SpecOf(w *v1alpha1.WasmFilter, code []byte) Spec {
	s := Spec{
		Name: w.Name, ABI: w.Spec.ABI, Code: code,
		MemoryMiB: cmp.Or(w.Spec.Limits.MemoryMiB, defaultMemoryMiB),
		Instances: int(cmp.Or(w.Spec.Limits.Instances, defaultInstances)),
		WallClock: defaultWallClock,
	}
	if w.Spec.Config != nil {
		s.Config = w.Spec.Config.Raw
	}
	if w.Spec.Limits.WallClock != nil {
		s.WallClock = w.Spec.Limits.WallClock.Duration
	}
	for _, c := range w.Spec.Capabilities {
		s.Capabilities = append(s.Capabilities, abi.Capability(c))
	}
	return s
}

// fails is why no request can be judged.
func (b *binding) fails() error {
	if b.module == nil {
		return b.err
	}
	return b.module.spec.Known.err()
}

// bindings joins the FilterBindings of a phase with their modules.
func bindings(s *config.Snapshot, phase v1alpha1.FilterPhase, shelves map[string]*shelf, found config.Findings) []*binding {
	var all []*binding
	for _, b := range s.BindingsOf(v1alpha1.FilterKindWasm, phase) {
		bound := &binding{name: b.Name, spec: &b.Spec, err: errMissing}
		if shelf := shelves[b.Spec.FilterRef.Name]; shelf != nil {
			bound.module, bound.err, bound.key = shelf.module, cmp.Or(shelf.err, fetch.ErrFetching), shelf.key
		}
		if phase == v1alpha1.PhaseView {
			bound.becomeView()
		}
		if why := bound.fails(); why != nil {
			found.Add(runtime.Object(b), config.NotInForce("NoModule", fmt.Sprintf(
				"WasmFilter %s: %v. Requests that the binding matches fare as failurePolicy says.", b.Spec.FilterRef.Name, why)))
		}
		all = append(all, bound)
	}
	return all
}
