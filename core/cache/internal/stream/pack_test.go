package stream

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// configMaps have no fields to select by, so that nothing but bytes weighs.
var configMaps = wire.Builtin(corev1.SchemeGroupVersion.WithResource("configmaps"), "ConfigMap", true)

const padding = 4 << 10

func padded(t *testing.T, n int, rv uint64) *wire.Object {
	t.Helper()
	o, err := configMaps.Parse(wire.JSON, fmt.Appendf(nil, `{"metadata":{"name":"c-%03d","namespace":"shop","resourceVersion":"%d"},"data":{"x":%q}}`,
		n, rv, strings.Repeat(fmt.Sprint(n%10), padding)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// packed is a stream of which n objects were loaded together.
func packed(t *testing.T, n int) (*Stream, *wire.Pack) {
	t.Helper()
	var p wire.Packer
	objects := make([]*wire.Object, n)
	for i := range objects {
		objects[i] = p.Add(padded(t, i, 1))
	}
	s := newStream(t)
	s.reset(objects, 1)
	return s, objects[n-1].Pack()
}

// forget pushes everything else out of the history.
func forget(s *Stream, t *testing.T, rv uint64) uint64 {
	t.Helper()
	for range historyBytes/padding + 1 {
		rv++
		s.apply(padded(t, 999, rv), false)
	}
	return rv
}

func TestObjectsMoveOutOfSparsePacks(t *testing.T) {
	const n = 400
	s, pack := packed(t, n)
	if pack == nil {
		t.Fatal("the last object lies in no pack")
	}
	first, _ := s.State().At(1)
	want := contents(first, "", "")
	rv := uint64(1)
	inPack := len(pack.Keys())
	for i := range inPack/3 + 1 {
		rv++
		s.apply(padded(t, n-1-i, rv), i%2 == 0)
	}
	if d := cmp.Diff(want, contents(first, "", "")); d != "" {
		t.Error(d)
	}
	if s.holes != 0 {
		t.Errorf("%d bytes count as unread that history can still replay", s.holes)
	}
	before := s.State().Now()
	rv = forget(s, t, rv)
	s.State().Now().Ascend("", "", func(o *wire.Object) bool {
		if o.Pack() == pack {
			t.Errorf("%s keeps a pack alive of which a third is gone", o.Key)
		}
		if was := before.Get(o.Key); was != nil && o.Name() != "c-999" && string(was.Raw) != string(o.Raw) {
			t.Errorf("%s has changed on its way out", o.Key)
		}
		return true
	})
	if s.holes != 0 {
		t.Errorf("%d bytes count as unread in packs that nobody needs", s.holes)
	}
	s.apply(padded(t, 0, rv+1), false)
	if got := s.State().Now().Get("shop/c-000"); got.ResourceVersion != rv+1 {
		t.Errorf("got %d, want %d", got.ResourceVersion, rv+1)
	}
}

func TestUnreadBytesOfPacksAreInTheBudget(t *testing.T) {
	s, pack := packed(t, 400)
	gone := s.State().Now().Get(pack.Keys()[0])
	s.apply(padded(t, 399, 2), false)
	s.apply(padded(t, 398, 3), true)
	forget(s, t, 3)
	objects, history := s.State().Bytes()
	if want := int64(2 * len(gone.Raw)); s.holes != want {
		t.Errorf("%d bytes are unread, want %d", s.holes, want)
	}
	if got := s.budget.Used(); got != objects+history+s.holes {
		t.Errorf("budget has %d, want %d", got, objects+history+s.holes)
	}
	s.reset(nil, 1<<30)
	if s.holes != 0 || s.budget.Used() != 0 {
		t.Errorf("after a new list %d are unread and %d in the budget", s.holes, s.budget.Used())
	}
}
