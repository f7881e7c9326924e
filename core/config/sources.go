package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Sources joins the policies of files and of the API into one snapshot: files
// come first. Each source moves alone; what one of them cannot be followed in
// leaves what it said last.
type Sources struct {
	apply func(*Snapshot) (Findings, error)
	news  chan struct{} // has room for one
	found atomic.Pointer[Findings]

	mu    sync.Mutex // guards following, and the order of snapshots
	files *Snapshot  // nil before they have been read
	api   fromAPI
}

// fromAPI are the API's policies.
type fromAPI struct {
	known   bool
	objects []runtime.Object
	digest  string
}

// NewSources returns sources that put each snapshot in force by apply. Without
// an API to wait for, files are all there is.
func NewSources(awaitAPI bool, apply func(*Snapshot) (Findings, error)) *Sources {
	return &Sources{apply: apply, news: make(chan struct{}, 1), api: fromAPI{known: !awaitAPI}}
}

// News has something whenever there may be other findings than before.
func (s *Sources) News() <-chan struct{} { return s.news }

// Found returns what is known of a policy besides what it says itself.
func (s *Sources) Found(policy runtime.Object) []metav1.Condition {
	found := s.found.Load()
	if found == nil {
		return nil
	}
	return (*found)[policy]
}

// Tell says that something else may be known of policies than before.
func (s *Sources) Tell() {
	select {
	case s.news <- struct{}{}:
	default: // it has been said
	}
}

// Again puts the same policies in force anew: what they name may be there by
// now, or be another.
func (s *Sources) Again() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(s.files, s.api)
}

// Files takes the policies of files. If they are refused, nothing changes.
func (s *Sources) Files(files *Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(files, s.api)
}

// API takes the policies of the API, of which digest is equal for equal ones.
// If they are refused, nothing changes.
func (s *Sources) API(objects []runtime.Object, digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(s.files, fromAPI{known: true, objects: objects, digest: digest})
}

// change moves to another state of the sources, if it is accepted. Nothing is in
// force before the files have been read. The caller holds s.mu.
func (s *Sources) change(files *Snapshot, api fromAPI) error {
	if files != nil {
		found, err := s.apply(join(files, api))
		if err != nil {
			return err
		}
		s.found.Store(&found)
		s.Tell()
	}
	s.files, s.api = files, api
	return nil
}

func join(files *Snapshot, api fromAPI) *Snapshot {
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %t", files.Digest, api.digest, api.known))
	return &Snapshot{
		Objects: slices.Concat(files.Objects, api.objects), Digest: hex.EncodeToString(digest[:]), Partial: !api.known,
	}
}
