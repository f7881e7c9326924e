// Package names gives a tenant's namespaces the names that his view has for them:
// everybody below asks and answers by the cluster's.
package names

import (
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// Filter exchanges names in the requests of callers whose view has others, and in
// what they are answered. It fails closed.
type Filter struct {
	worlds []world
	rooms  *body.Rooms
}

// A world is a view that has names of its own.
type world struct {
	view     *v1alpha1.VirtualView
	subjects v1alpha1.RequestMatch
	mapping  *names.Mapping
}

// Compile returns the filter for the views of a snapshot, and says which of them
// contradict each other, or show namespaces to each other's callers. What is written is
// read in rooms; nil makes some.
func Compile(s *config.Snapshot, rooms *body.Rooms) (*Filter, config.Findings) {
	if rooms == nil {
		rooms = body.NewRooms()
	}
	f, found := &Filter{rooms: rooms}, config.Findings{}
	overlaps := map[*v1alpha1.VirtualView][]string{}
	for _, o := range s.Objects {
		v, ok := o.(*v1alpha1.VirtualView)
		if !ok || v.Spec.Mode == v1alpha1.ModeAudit {
			continue
		}
		m := names.Of(v.Spec.Namespaces)
		if m == nil {
			continue
		}
		w := world{v, v1alpha1.RequestMatch{Users: v.Spec.Subjects.Users, Groups: v.Spec.Subjects.Groups}, m}
		for _, other := range f.worlds {
			if why := w.contradicts(other); why != "" {
				found.Add(v, config.NotInForce("Contradiction", why))
			}
			if w.overlaps(other) {
				later, earlier := w.order(other)
				overlaps[later] = append(overlaps[later], "spec.namespaces.prefix: namespaces of VirtualView "+earlier.Name+", whose prefix is "+earlier.Spec.Namespaces.Prefix+
					", can have names in both views, and then exist for the callers of both: let no prefix begin with another")
			}
		}
		f.worlds = append(f.worlds, w)
	}
	for v, said := range overlaps {
		// A contradiction refuses callers everything, and is told by the same condition.
		if len(found[v]) == 0 {
			found.Add(v, config.NotInForce("Overlap", strings.Join(said, "; ")))
		}
	}
	return f, found
}

// contradicts says how one view keeps another from being in force, as far as their
// subjects tell.
func (w *world) contradicts(other world) string {
	if w.mapping.Key() == other.mapping.Key() {
		return ""
	}
	for _, all := range [][2][]string{{w.subjects.Users, other.subjects.Users}, {w.subjects.Groups, other.subjects.Groups}} {
		for _, one := range all[0] {
			if slices.Contains(all[1], one) {
				return "spec.namespaces: VirtualView " + other.view.Name + " has other names for the namespaces of " + one + ", who is refused everything: let one view name them"
			}
		}
	}
	return ""
}

// overlaps reports whether what begins with the prefix of one view begins with that of
// another, which has other names for it.
func (w *world) overlaps(other world) bool {
	one, two := w.view.Spec.Namespaces.Prefix, other.view.Spec.Namespaces.Prefix
	return one != "" && two != "" && w.mapping.Key() != other.mapping.Key() && (strings.HasPrefix(one, two) || strings.HasPrefix(two, one))
}

// order tells the view that was made later from the one before it: who came first is not
// told to make room.
func (w *world) order(other world) (later, earlier *v1alpha1.VirtualView) {
	if w.view.CreationTimestamp.Before(&other.view.CreationTimestamp) {
		return other.view, w.view
	}
	return w.view, other.view
}

// Binds reports whether there is anything to do for any request.
func (f *Filter) Binds() bool { return len(f.worlds) > 0 }

// Name is "names".
func (f *Filter) Name() string { return "names" }

// Needs reports whether names may have to be exchanged in r, so that its caller must
// be known.
func (f *Filter) Needs(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && info.IsResourceRequest
}

// ServeHTTP has r meet the rest of the chain by the cluster's names.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if !f.Needs(r) {
		return next.ServeHTTP(w, r)
	}
	callers, err := config.CallersOf(r)
	if err != nil {
		return err
	}
	m, err := f.mappingOf(callers)
	if err != nil {
		return err
	}
	if m == nil {
		return next.ServeHTTP(w, r)
	}
	asked, err := f.ask(w, r, m)
	if err != nil {
		return err
	}
	// Who acts as a tenant names him as the cluster does, unless he is one himself.
	if own, err := f.mappingOf(callers[:1]); err == nil && own != nil {
		m.Impersonate(asked.Header)
	}
	out := names.NewAnswer(w, asked, m)
	return out.Finish(next.ServeHTTP(out, asked))
}

// mappingOf returns what callers call namespaces; nil is as the cluster does.
func (f *Filter) mappingOf(callers []user.Info) (*names.Mapping, error) {
	var m *names.Mapping
	for _, w := range f.worlds {
		if !w.isOf(callers) {
			continue
		}
		if m != nil && m.Key() != w.mapping.Key() {
			return nil, apierrors.NewForbidden(schema.GroupResource{}, "", errContradiction)
		}
		m = w.mapping
	}
	return m, nil
}

func (w *world) isOf(callers []user.Info) bool {
	for _, c := range callers {
		if config.SentBy(&w.subjects, c) {
			return true
		}
	}
	return false
}

var _ pipeline.Filter = (*Filter)(nil)
