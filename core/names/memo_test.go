package names

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// readerOf is one watcher's.
func readerOf(m *Mapping, resource, name string) *reader {
	return newReader(m, &request.RequestInfo{IsResourceRequest: true, Verb: "watch", APIVersion: "v1", Resource: resource, Name: name})
}

// TestEventsAreExchangedOnceForAllWatchers tells many of the same objects at once, each
// from a buffer of its own that is used again.
func TestEventsAreExchangedOnceForAllWatchers(t *testing.T) {
	m := New("tenant-a-", nil)
	event := func(n int, namespace string) []byte {
		return fmt.Appendf(nil, `{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"p%d","namespace":"%s"}}}`, n, namespace)
	}
	var watchers sync.WaitGroup
	for range 20 {
		watchers.Go(func() {
			r, buffer := readerOf(m, "pods", ""), []byte(nil)
			for n := range 100 {
				buffer = append(buffer[:0], event(n, "tenant-a-team")...)
				if got, err := r.frame(buffer); err != nil || !bytes.Equal(got, event(n, "team")) {
					t.Errorf("got %s, %v", got, err)
				}
			}
		})
	}
	watchers.Wait()
	if len(m.memo.young) != 100 {
		t.Errorf("%d are remembered", len(m.memo.young))
	}
	first, _ := readerOf(m, "pods", "").frame(event(0, "tenant-a-team"))
	again, _ := readerOf(m, "pods", "p0").frame(event(0, "tenant-a-team"))
	if &first[0] != &again[0] {
		t.Error("it was made twice")
	}
	if _, err := readerOf(m, "namespaces", "").frame(event(0, "tenant-a-team")); !errors.Is(err, ErrForeign) {
		t.Errorf("of another resource, whose name is a namespace's: %v", err)
	}
	const status = `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","message":"tenant-a-x is gone"}}`
	before := len(m.memo.young)
	if _, err := readerOf(m, "pods", "").frame([]byte(status)); err != nil || len(m.memo.young) != before {
		t.Errorf("what depends on who asked is remembered, or %v", err)
	}
}

// TestWhatWasToldIsForgotten tells of more than is remembered.
func TestWhatWasToldIsForgotten(t *testing.T) {
	m := New("tenant-a-", nil)
	r := readerOf(m, "pods", "")
	large := bytes.Repeat([]byte("x"), 64<<10)
	for n := range 200 {
		if _, err := r.frame(fmt.Appendf(nil, `{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"p%d"},"data":"%s"}}`, n, large)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.memo.young) + len(m.memo.old); n > 2*(maxTold/len(large)+2) {
		t.Errorf("%d are remembered", n)
	}
}
