package wire

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPackedObjectsAreAsTheyWere(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		var p Packer
		var want, got []*Object
		inPacks := 0
		for i := range 500 {
			o, err := podSchema.ReadObject(f, encode(t, f, pod("pod-"+strconv.Itoa(i))))
			if err != nil {
				t.Fatal(err)
			}
			moved := p.Add(o)
			if moved.Pack() != nil {
				inPacks++
			}
			if cap(moved.Raw) != len(moved.Raw) && moved != o {
				t.Fatal("an append to one object would write into the next")
			}
			want, got = append(want, o), append(got, moved)
		}
		if inPacks < 400 {
			t.Errorf("only %d of 500 lie in packs", inPacks)
		}
		if d := cmp.Diff(list(t, f, want), list(t, f, got)); d != "" {
			t.Error(d)
		}
		for i, o := range got {
			if o.Key != want[i].Key || o.UID != want[i].UID || o.Labels().Get("app") != "web" || o.Fields().Get("spec.nodeName") != "n1" {
				t.Errorf("%s is found by other words: %+v", want[i].Key, o)
			}
		}
	})
}

func list(t *testing.T, f Format, items []*Object) string {
	t.Helper()
	var b bytes.Buffer
	if err := podSchema.NewWriter(f).List(&b, metav1.ListMeta{ResourceVersion: "1"}, items); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFewObjectsArePackedInLittle(t *testing.T) {
	var p Packer
	raw := bytes.Repeat([]byte("x"), 1000)
	o := p.Add(&Object{Key: "a", Raw: raw})
	if o.Pack() == nil || cap(p.room) > smallestPack {
		t.Errorf("one object of 1000 bytes takes %d more", cap(p.room))
	}
	if large := (&Object{Key: "b", Raw: bytes.Repeat([]byte("x"), smallestPack)}); p.Add(large) != large {
		t.Error("what a pack could not hold several of should stay where it is")
	}
}

func TestPackIsLeftOnce(t *testing.T) {
	var p Packer
	var all []*Object
	for i := range 6 {
		all = append(all, p.Add(&Object{Key: strconv.Itoa(i), Raw: bytes.Repeat([]byte("x"), 1000)}))
	}
	unread := 0
	for i, wantSparse := range []bool{false, false, true, false, false, false} {
		gone, sparse := all[i].Leave()
		unread += gone
		if (sparse != nil) != wantSparse {
			t.Errorf("after %d of 6: sparse is %v", i+1, sparse)
		}
		if want := []int{1000, 2000, 0, 0, 0, 0}[i]; unread != want {
			t.Errorf("after %d of 6: %d bytes are unread, want %d", i+1, unread, want)
		}
	}
	alone := all[5].Unpacked()
	if _, sparse := alone.Leave(); sparse != nil || alone.Pack() != nil || !bytes.Equal(alone.Raw, all[5].Raw) {
		t.Errorf("got %+v", alone)
	}
}
