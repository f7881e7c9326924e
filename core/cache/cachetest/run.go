// Package cachetest holds the cases that anything must pass that answers reads in
// the API server's place: each asks upstream and the answerer alike, and what they
// say must be equal, byte for byte where both speak of one resourceVersion.
package cachetest

import (
	"testing"

	"k8s.io/client-go/rest"
)

// Subjects are the two that are compared.
type Subjects struct {
	// Upstream is the API server itself. Its configuration must allow
	// everything: cases make namespaces and a CustomResourceDefinition.
	Upstream *rest.Config
	// Answerer is what answers in its place.
	Answerer *rest.Config
	// Memory says that Answerer must answer from memory what it can. It must
	// then let ConfigMaps into memory.
	Memory bool
}

// Run runs all cases. Each uses namespaces of its own; one control plane serves
// for one Run.
func Run(t *testing.T, s Subjects) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *Door, *answerer)
	}{
		{"lists-equal-upstreams", listsEqual},
		{"pages-continue-anywhere", pagesContinueAnywhere},
		{"old-pages-show-the-old-state", oldPagesShowOldState},
		{"gets-equal-upstreams", getsEqual},
		{"newest-lists-have-every-write", newestListsHaveEveryWrite},
		{"future-versions-are-refused", futureVersionsAreRefused},
		{"metadata-alone-equals-upstreams", metadataEqual},
		{"custom-metadata-alone-equals-upstreams", customMetadataEqual},
		{"watch-frames-equal-upstreams", watchFramesEqual},
		{"initial-events-equal-upstreams", initialEventsEqual},
		{"odd-watches-equal-upstreams", oddWatchesEqual},
		{"future-watches-wait-in-silence", futureWatchesWait},
		{"watches-end-cleanly-in-time", watchesEndCleanly},
		{"watch-lists-have-every-write", watchListsHaveEveryWrite},
		{"bytes-equal-upstreams-under-writes", bytesEqualUnderWrites},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, NewDoor(t, s.Upstream), &answerer{Door: *NewDoor(t, s.Answerer), memory: s.Memory})
		})
	}
}

// answerer is the door to the answerer.
type answerer struct {
	Door
	memory bool
}

// warm makes sure that the answerer holds path's collection in accept's format.
// Large ones take longer than it may let a request wait.
func (p *answerer) warm(t testing.TB, path, accept string) {
	t.Helper()
	for range 20 {
		if got := p.Get(path+"?resourceVersion=0", accept); got.ServedBy() == "cache" || !p.memory {
			return
		}
	}
	t.Fatalf("%s is not answered from memory", path)
}

// checkServedBy reports an answer that did not come from memory though it
// should have.
func (p *answerer) checkServedBy(t testing.TB, what, servedBy string) {
	t.Helper()
	if p.memory && servedBy != "cache" {
		t.Errorf("%s was served by %q", what, servedBy)
	}
}
