package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
)

// A change of a CustomResourceDefinition may change the bytes of objects that
// nobody wrote to: defaults, pruning, conversion. Collections that were read
// under another definition are dropped.

// errRedefined ends the streams of a resource whose definition has changed.
var errRedefined = errors.New("the definition of the resource has changed")

var definitionsResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// follow learns of changes from a collection of all definitions. It returns
// once that is loaded, or an error if it cannot be.
func (s *streams) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	s.mu.Lock()
	if s.definitions == nil || s.definitions.Err() != nil {
		s.watchDefinitions()
	}
	definitions := s.definitions
	s.mu.Unlock()
	if definitions.Loaded(ctx) == nil {
		return errors.New("definitions of custom resources cannot be followed")
	}
	return nil
}

// watchDefinitions begins to follow definitions. The caller holds s.mu.
func (s *streams) watchDefinitions() {
	known := wire.Builtin(definitionsResource, "CustomResourceDefinition", false)
	definitions := stream.New(s.ctx, stream.Options{Schema: known, Format: wire.JSON, Source: s.source, Budget: s.budget, Log: s.log})
	s.definitions = definitions
	s.wg.Go(definitions.Run)
	s.wg.Go(func() {
		s.compareDefinitions(s.ctx, definitions)
		// It may have been listed anew: nobody compares it any more, and the next one
		// who asks begins with another.
		definitions.Fail(errRedefined)
		s.dropCustom()
	})
}

// compareDefinitions drops what was read under another definition, until
// definitions can no longer be followed.
func (s *streams) compareDefinitions(ctx context.Context, definitions *stream.Stream) {
	st := definitions.Loaded(ctx)
	if st == nil {
		return
	}
	for at := st.End(); ; {
		st := definitions.State()
		e, on := st.Event(at)
		switch {
		case !on:
			return
		case e != nil:
			s.redefine(e.Object, e.Deleted)
			at++
			continue
		}
		select {
		case <-st.Changed():
		case <-definitions.Done():
			return
		}
	}
}

// redefine drops what was read under another definition than crd.
func (s *streams) redefine(crd *wire.Object, deleted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for gvr, r := range s.resources {
		if r.definition != nil && gvr.GroupResource().String() == crd.Name() && (deleted || !r.definition.equal(crd)) {
			s.drop(gvr)
		}
	}
}

// dropCustom drops everything that depends on a definition.
func (s *streams) dropCustom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for gvr, r := range s.resources {
		if r.definition != nil {
			s.drop(gvr)
		}
	}
}

// drop forgets a resource. The caller holds s.mu.
func (s *streams) drop(gvr schema.GroupVersionResource) {
	delete(s.resources, gvr)
	for k, e := range s.open {
		if k.gvr == gvr {
			e.Fail(errRedefined)
		}
	}
}

// isCurrent reports whether nothing newer than d is known. The caller holds s.mu.
func (s *streams) isCurrent(name string, d *definition) bool {
	st := s.definitions.State()
	if st == nil || s.definitions.Err() != nil {
		return false // changes would be missed
	}
	crd := st.Here().Get(name)
	// The collection may lie behind what has just been read.
	return crd == nil || crd.ResourceVersion <= d.resourceVersion() || d.equal(crd)
}

// staleAge is how long a collection may hear nothing from upstream, which sends
// a bookmark about every minute.
const staleAge = 90 * time.Second

// checkStale asks how new the newest state is where upstream has fallen silent:
// a watch from a resourceVersion that a restored etcd has yet to reach is.
func (s *streams) checkStale() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.open {
		if e.State() != nil && e.Age() > staleAge && e.Asking() == 0 {
			s.wg.Go(func() { _, _ = e.Current(s.ctx) })
		}
	}
}

// definition is what matters here of a CustomResourceDefinition.
type definition struct {
	Metadata struct {
		UID             string `json:"uid"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Spec json.RawMessage `json:"spec"`
}

func (d *definition) resourceVersion() uint64 {
	rv, _ := wire.ParseResourceVersion(d.Metadata.ResourceVersion)
	return rv
}

func (d *definition) equal(crd *wire.Object) bool {
	var other definition
	return json.Unmarshal(crd.Raw, &other) == nil && d.Metadata.UID == other.Metadata.UID && bytes.Equal(d.Spec, other.Spec)
}
