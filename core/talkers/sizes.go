package talkers

import (
	"strings"
	"time"
)

// maxRemembered bounds the collections, and the objects, of which something is
// remembered, at most twice as many.
const maxRemembered = 4096

// recently remembers values by key, those that were set lately. The zero value
// is empty.
type recently[K comparable, V any] struct{ young, old map[K]V }

func (r *recently[K, V]) get(k K) (V, bool) {
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	return v, ok
}

func (r *recently[K, V]) set(k K, v V) {
	if r.young == nil || len(r.young) >= maxRemembered {
		r.young, r.old = map[K]V{}, r.young
	}
	r.young[k] = v
}

// A collection is a resource in one namespace, or in all.
type collection struct{ group, resource, namespace string }

// collectionOf is as much of a collection as is kept.
func collectionOf(group, resource, namespace string) collection {
	return collection{cut(group, maxName), cut(resource, maxName), cut(namespace, maxName)}
}

// clone does not keep alive the request that c is part of.
func (c collection) clone() collection {
	return collection{strings.Clone(c.group), strings.Clone(c.resource), strings.Clone(c.namespace)}
}

// Size is how large a whole collection was when it was last listed.
type Size struct {
	Objects, Bytes int64
	at             time.Time
}

// stale is how old a size is when it is measured anew.
const stale = time.Minute

// Size returns how large a collection is, if that is known.
func (a *Account) Size(group, resource, namespace string) (Size, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sizes.get(collectionOf(group, resource, namespace))
}

// Measures reports whether the next list of a collection is to be measured.
func (a *Account) Measures(group, resource, namespace string) bool {
	size, ok := a.Size(group, resource, namespace)
	return !ok || time.Since(size.at) > stale
}

// Measured notes how large a collection is.
func (a *Account) Measured(group, resource, namespace string, s Size) {
	s.at = time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sizes.set(collectionOf(group, resource, namespace).clone(), s)
}

// An object is one of a resource.
type object struct {
	collection
	name string
}

// Wrote notes at which version a write left an object, and reports whether the
// write before left it at the same: then this one has changed nothing.
func (a *Account) Wrote(group, resource, namespace, name string, version uint64) (noop bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := object{collectionOf(group, resource, namespace).clone(), strings.Clone(cut(name, maxName))}
	before, ok := a.versions.get(o)
	a.versions.set(o, version)
	return ok && before == version && version != 0
}
