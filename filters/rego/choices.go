package rego

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// maxSelected bounds how many resources are remembered that a policy has named.
const maxSelected = 64

// choices are the resources that a policy has named in selectors so far. They are
// computed, so that nobody knows them before.
type choices struct {
	news atomic.Bool // there are some of which nobody has told

	mu  sync.Mutex // guards following
	all []schema.GroupResource
}

// add takes note of what selectors name.
func (s *choices) add(selectors []Selector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range selectors {
		for _, r := range selectors[i].Resources {
			is := schema.GroupResource{Group: r.Group, Resource: r.Resource}
			if len(s.all) < maxSelected && !slices.Contains(s.all, is) {
				s.all = append(s.all, is)
				s.news.Store(true)
			}
		}
	}
}

// list is in an order that does not depend on who asked first.
func (s *choices) list() []schema.GroupResource {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.all)
	slices.SortFunc(all, func(a, b schema.GroupResource) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// Selected are the resources that the selectors of a policy in force have named.
func (l *Library) Selected(policy string) []schema.GroupResource {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.shelves[policy]; s != nil && s.policy != nil {
		return s.policy.chosen.list()
	}
	return nil
}

// tell has the policies reported on anew, as one has named what it had not.
func (f *Filter) tell(p *Policy) {
	if p != nil && p.chosen.news.Load() && p.chosen.news.Swap(false) {
		f.wake()
	}
}

// wake has the policies reported on anew.
func (f *Filter) wake() {
	select {
	case f.faulted <- struct{}{}:
	default: // it has been said, or there is nobody to hear it
	}
}
