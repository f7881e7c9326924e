package wasm

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

var (
	errNotDeclared = errors.New("the guest looks up what its contextResources do not have")
	errTooEarly    = errors.New("a guest cannot look anything up while it is configured")
	errNotKnown    = errors.New("what the guest looks up is not known")
	errNoObject    = errors.New("an object to be looked up has no name")
	errNoMemory    = errors.New("the objects to be looked up take more memory than they may (--lookup-memory-limit)")
)

// Known is what a module may look up.
type Known struct {
	of map[string][]*collection // by the name that guests have for the resource
}

// nameOf is what guests call a resource.
func nameOf(r v1alpha1.ContextResource) string {
	return schema.GroupResource{Group: r.Group, Resource: r.Resource}.String()
}

// NewKnown returns one that knows no object of the resources, for whoever tries
// a module without a proxy.
func NewKnown(resources []v1alpha1.ContextResource) *Known {
	memory := &memory{}
	return knownOf(resources, func(r v1alpha1.ContextResource) *collection { return newCollection(r, memory) })
}

func knownOf(resources []v1alpha1.ContextResource, collect func(v1alpha1.ContextResource) *collection) *Known {
	k := &Known{of: map[string][]*collection{}}
	for _, r := range resources {
		k.of[nameOf(r)] = append(k.of[nameOf(r)], collect(r))
	}
	return k
}

// Set makes these all objects, as JSON, by the names that guests have for their
// resources.
func (k *Known) Set(objects map[string][]json.RawMessage) error {
	for name := range objects {
		if k.of[name] == nil {
			return fmt.Errorf("%s: %w", name, errNotDeclared)
		}
	}
	for name, all := range k.of {
		for _, c := range all {
			if err := c.set(objects[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// err is why not all is known; nil if it is.
func (k *Known) err() error {
	if k == nil {
		return nil
	}
	for _, all := range k.of {
		for _, c := range all {
			if err := c.err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// find returns an object, nil if there is none. The strings are not kept.
func (k *Known) find(resource, namespace, name string) ([]byte, error) {
	if k == nil {
		return nil, errNotDeclared
	}
	for _, c := range k.of[resource] {
		if c.resource.Namespace == "" || c.resource.Namespace == namespace {
			return c.find(objectKey{namespace, name})
		}
	}
	return nil, errNotDeclared
}

// objectKey names an object of a collection.
type objectKey struct{ namespace, name string }

// collection are the objects of one resource.
type collection struct {
	resource v1alpha1.ContextResource
	memory   *memory

	mu      sync.RWMutex // guards following
	objects map[objectKey][]byte
	bytes   int64
	unknown error // why not all objects are known; nil if they are
}

func newCollection(r v1alpha1.ContextResource, m *memory) *collection {
	r.Version = cmp.Or(r.Version, "v1")
	return &collection{resource: r, memory: m, objects: map[objectKey][]byte{}, unknown: fmt.Errorf("%w yet: %s", errNotKnown, nameOf(r))}
}

func (c *collection) err() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.unknown
}

func (c *collection) find(k objectKey) ([]byte, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.objects[k], c.unknown
}

func (c *collection) size() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bytes
}

func (c *collection) set(objects []json.RawMessage) error {
	all := map[objectKey][]byte{}
	for _, o := range objects {
		var named metav1.PartialObjectMetadata
		if err := json.Unmarshal(o, &named); err != nil {
			return fmt.Errorf("read object: %w", err)
		}
		if named.Name == "" {
			return errNoObject
		}
		all[objectKey{named.Namespace, named.Name}] = o
	}
	return c.replace(all)
}

// replace makes these all objects.
func (c *collection) replace(all map[objectKey][]byte) error {
	size := int64(0)
	for k, o := range all {
		size += sizeOf(k, o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.memory.take(size - c.bytes) {
		return errNoMemory
	}
	c.objects, c.bytes, c.unknown = all, size, nil
	return nil
}

// put keeps an object instead of the one of its name; nil removes that.
func (c *collection) put(k objectKey, o []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unknown != nil {
		return nil // it was lost in between
	}
	more := int64(0)
	if was := c.objects[k]; was != nil {
		more -= sizeOf(k, was)
	}
	if o != nil {
		more += sizeOf(k, o)
	}
	if !c.memory.take(more) {
		return errNoMemory
	}
	c.bytes += more
	delete(c.objects, k)
	if o != nil {
		c.objects[k] = o
	}
	return nil
}

// lose forgets all objects.
func (c *collection) lose(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.take(-c.bytes)
	c.objects, c.bytes, c.unknown = map[objectKey][]byte{}, 0, why
}

// overhead is about what a map takes for an entry.
const overhead = 128

func sizeOf(k objectKey, o []byte) int64 {
	return int64(len(k.namespace)+len(k.name)+len(o)) + overhead
}

// memory is what all collections take together.
type memory struct {
	limit int64 // 0 is none
	taken atomic.Int64
}

// take reports whether there are as many bytes, and takes them. Fewer than none
// are always there.
func (m *memory) take(bytes int64) bool {
	if now := m.taken.Add(bytes); bytes > 0 && m.limit > 0 && now > m.limit {
		m.taken.Add(-bytes)
		return false
	}
	return true
}
