package config

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func objects(names ...string) (all []runtime.Object) {
	for _, name := range names {
		all = append(all, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return all
}

func TestSourcesAreJoined(t *testing.T) {
	var inForce *Snapshot
	var refusal error
	s := NewSources(true, func(next *Snapshot) (Findings, error) {
		if refusal == nil {
			inForce = next
		}
		return nil, refusal
	})
	check := func(step string, partial bool, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, names(inForce)); diff != "" || inForce.Partial != partial {
			t.Errorf("%s: partial %v, (-want +got):\n%s", step, inForce.Partial, diff)
		}
	}
	file := func(digest string, names ...string) error {
		return s.Files(&Snapshot{Objects: objects(names...), Digest: digest})
	}
	if err := file("1", "f"); err != nil {
		t.Fatal(err)
	}
	check("files alone", true, "f")
	before := inForce.Digest
	if err := s.API(nil, ""); err != nil {
		t.Fatal(err)
	}
	check("nothing in the API", false, "f")
	if inForce.Digest == before {
		t.Error("that the API is known is another state")
	}
	if err := s.API(objects("a", "b"), "ab"); err != nil {
		t.Fatal(err)
	}
	check("both", false, "f", "a", "b")

	refusal = errors.New("bad")
	if err := s.API(objects("c"), "c"); !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	if err := file("2", "g"); !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	refusal = nil
	if err := file("3", "h"); err != nil {
		t.Fatal(err)
	}
	check("after refusals of both", false, "h", "a", "b")
}

func TestTheAPIWaitsForFiles(t *testing.T) {
	var inForce *Snapshot
	s := NewSources(true, func(next *Snapshot) (Findings, error) { inForce = next; return nil, nil })
	if err := s.API(objects("a"), "a"); err != nil || inForce != nil {
		t.Fatalf("in force without files: %v, %v", inForce, err)
	}
	if err := s.Files(&Snapshot{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a"}, names(inForce)); diff != "" || inForce.Partial {
		t.Error(diff)
	}
}

func TestFilesMayBeAllThereIs(t *testing.T) {
	var inForce *Snapshot
	s := NewSources(false, func(next *Snapshot) (Findings, error) { inForce = next; return nil, nil })
	if err := s.Files(&Snapshot{Objects: objects("f")}); err != nil || inForce.Partial {
		t.Errorf("got %+v, %v", inForce, err)
	}
}

func TestFindingsAreToldAndLookedForAgain(t *testing.T) {
	ready := false
	s := NewSources(false, func(next *Snapshot) (Findings, error) {
		if ready {
			return nil, nil
		}
		return Findings{next.Objects[0]: {NotInForce("Missing", "there is none")}}, nil
	})
	policies := objects("a", "b")
	if err := s.Files(&Snapshot{Objects: policies}); err != nil {
		t.Fatal(err)
	}
	<-s.News()
	if got := s.Found(policies[0]); len(got) != 1 || got[0].Type != Programmed || got[0].Message != "there is none" {
		t.Errorf("got %+v", got)
	}
	if got := s.Found(policies[1]); got != nil {
		t.Errorf("got %+v", got)
	}
	ready = true
	if err := s.Again(); err != nil {
		t.Fatal(err)
	}
	<-s.News()
	if got := s.Found(policies[0]); got != nil {
		t.Errorf("got %+v", got)
	}
}
