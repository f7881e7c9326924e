package view

import (
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// maxMade is how much room lenses made by policies take before the older ones are
// forgotten, in bytes; at most twice as much at a time. A lens that is forgotten and
// made again does not know since when it is in force, so its callers list anew.
const maxMade = 16 << 20

// lensOverhead is about what a lens takes besides what it is made of.
const lensOverhead = 1 << 10

// madeLenses are those that policies made for callers: one for all to whom a policy
// says the same.
type madeLenses struct {
	mu         sync.Mutex // guards following
	young, old map[madeKey]*lens
	taken      int // by young
}

// madeKey names a lens. A policy that changes has another channel.
type madeKey struct {
	by  chan struct{}
	key string
}

// lensOf returns the lens that n asks for.
func (l *Library) lensOf(n *view.Narrowing) (*lens, error) {
	m, key := &l.made, madeKey{n.Changed, n.Key}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.young[key]; known != nil {
		return known, nil
	}
	made := m.old[key]
	if made == nil {
		var err error
		made, err = newLens(&v1alpha1.VirtualView{ObjectMeta: metav1.ObjectMeta{Name: n.Policy}, Spec: *n.Spec}, n.Key)
		if err != nil {
			status := apierrors.NewInternalError(err)
			status.ErrStatus.Message = "filter " + n.Policy + ": " + err.Error()
			return nil, status
		}
		made.audits, made.made, made.changed = n.Audits, true, n.Changed
	}
	if m.young == nil || m.taken > maxMade {
		m.young, m.old, m.taken = map[madeKey]*lens{}, m.young, 0
	}
	m.young[key] = made
	m.taken += lensOverhead + n.Size
	return made, nil
}
