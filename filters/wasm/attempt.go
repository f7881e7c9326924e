package wasm

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// So many objects are read at a time: a list that does not fit shall not be in
// memory before that is known. There are at least as many that a list which nearly
// fits is not read one by one.
const (
	maxPage = 100
	minPage = 10
	// largest is about as large as the API server lets an object become, in bytes.
	largest = 3 << 19
)

// attempt is one to keep a collection true, which ends when that does not fit. It
// is what a reflector reads from, and writes to.
type attempt struct {
	*followed
	ctx    context.Context
	stop   context.CancelFunc
	silent atomic.Bool // it was said that objects cannot be read

	mu      sync.Mutex // guards following
	reading int64      // bytes of the list that is being read
	taken   int64      // of them, those that are counted
}

// forgetRead counts the bytes of a list no longer.
func (a *attempt) forgetRead() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.memory.take(-a.taken)
	a.reading, a.taken = 0, 0
}

// read counts the bytes of a page.
func (a *attempt) read(page *heldList) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.ctx.Err(); err != nil {
		return err // whoever ended it has forgotten what was read
	}
	for _, o := range page.Items {
		h := o.(*held)
		a.reading += sizeOf(h.key(), h.json)
	}
	// What is known already makes room for what is read instead.
	more := max(0, a.reading-a.size()) - a.taken
	if more <= 0 {
		return nil
	}
	if !a.memory.take(more) {
		return errNoMemory
	}
	a.taken += more
	return nil
}

// pageSize is how many objects there is room for, however large they are.
func (a *attempt) pageSize() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.memory.limit == 0 {
		return maxPage
	}
	room := a.memory.limit - a.memory.taken.Load() + max(0, a.size()-a.reading)
	return min(max(room/largest, minPage), maxPage)
}

// source reads lists in pages.
type source struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported has the reflector list.
func (source) IsWatchListSemanticsUnSupported() bool { return true }

func (a *attempt) source() source {
	return source{&cache.ListWatch{ListWithContextFunc: a.list, WatchFuncWithContext: a.watch}}
}

func (a *attempt) objects() dynamic.ResourceInterface {
	r := a.resource
	all := a.follower.client.Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Resource})
	if r.Namespace == "" {
		return all
	}
	return all.Namespace(r.Namespace)
}

// list reads one page. The reflector asks for pages of its own size, or
// for none, and does not wait for them when it ends.
func (a *attempt) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	a.follower.mu.Lock()
	if !a.follower.running() {
		a.follower.mu.Unlock()
		return nil, errClosed
	}
	a.follower.run.Add(1)
	a.follower.mu.Unlock()
	defer a.follower.run.Done()
	if o.Continue == "" {
		a.forgetRead() // of one that broke off
	}
	page, err := a.page(ctx, o)
	if err != nil {
		a.failed(err)
		return nil, err
	}
	if err := a.fits(a.read(page)); err != nil {
		return nil, err
	}
	return page, nil
}

func (a *attempt) page(ctx context.Context, o metav1.ListOptions) (*heldList, error) {
	o.Limit = a.pageSize()
	if o.ResourceVersion == "0" { // which the API server answers whole
		o.ResourceVersion = ""
	}
	l, err := a.objects().List(ctx, o)
	if err != nil {
		return nil, err
	}
	page := &heldList{ListMeta: metav1.ListMeta{ResourceVersion: l.GetResourceVersion(), Continue: l.GetContinue()}}
	for i := range l.Items {
		h, err := hold(&l.Items[i])
		if err != nil {
			return nil, err
		}
		page.Items = append(page.Items, h)
	}
	return page, nil
}

// watch is told of each object's bytes.
func (a *attempt) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	w, err := a.objects().Watch(ctx, o)
	if err != nil {
		a.failed(err)
		return nil, err
	}
	a.silent.Store(false)
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok || e.Type == watch.Error {
			return e, true
		}
		h, err := hold(u)
		if err != nil { // never: it was JSON
			return e, false
		}
		e.Object = h
		return e, true
	}), nil
}

// Add keeps an object, as the reflector was told of it.
func (a *attempt) Add(o any) error {
	h := o.(*held)
	return a.fits(a.put(h.key(), h.json))
}

// Update is Add.
func (a *attempt) Update(o any) error { return a.Add(o) }

// Delete forgets an object.
func (a *attempt) Delete(o any) error { return a.put(o.(*held).key(), nil) }

// Replace makes a list all that is known.
func (a *attempt) Replace(all []any, _ string) error {
	objects := make(map[objectKey][]byte, len(all))
	for _, o := range all {
		h := o.(*held)
		objects[h.key()] = h.json
	}
	was := a.err()
	a.forgetRead()
	if err := a.fits(a.replace(objects)); err != nil {
		return err
	}
	if was != nil {
		a.follower.news()
	}
	return nil
}

// Resync does nothing.
func (*attempt) Resync() error { return nil }

// fits ends the attempt if there is no room.
func (a *attempt) fits(err error) error {
	if err != nil {
		a.failed(err)
		a.stop()
	}
	return err
}

// held is an object of which the bytes are left, and what the reflector reads.
type held struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	json []byte
}

// DeepCopyObject returns h: nobody changes one.
func (h *held) DeepCopyObject() runtime.Object { return h }

func (h *held) key() objectKey { return objectKey{h.Namespace, h.Name} }

// hold leaves out who has written which field, which is most of some objects.
func hold(u *unstructured.Unstructured) (*held, error) {
	unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
	text, err := u.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write object: %w", err)
	}
	h := &held{json: bytes.Clone(bytes.TrimSpace(text))}
	h.Namespace, h.Name, h.ResourceVersion = u.GetNamespace(), u.GetName(), u.GetResourceVersion()
	return h, nil
}

// heldList is a page of them.
type heldList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject returns l: nobody changes one.
func (l *heldList) DeepCopyObject() runtime.Object { return l }
