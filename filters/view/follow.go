package view

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A referrer is where an object names another, and what that is if it does not say.
type referrer struct {
	path []string
	kind schema.GroupVersionKind
}

// referrers are resources whose objects tell of others and exist with them, and
// where they name them.
var referrers = map[schema.GroupResource][]referrer{
	{Resource: "events"}:                         {{path: []string{"involvedObject"}}, {path: []string{"related"}}},
	{Group: "events.k8s.io", Resource: "events"}: {{path: []string{"regarding"}}, {path: []string{"related"}}},
	{Resource: "persistentvolumes"}: {{
		[]string{"spec", "claimRef"}, corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
	}},
}

// coreKinds are those that may be meant where only a kind is told.
var coreKinds = func() *runtime.Scheme {
	s := runtime.NewScheme()
	_ = corev1.AddToScheme(s) // never fails
	return s
}()

// follows reports whether objects of r exist only with what they tell of.
func (l *lens) follows(r schema.GroupResource) bool {
	return referrers[r] != nil && (l.limits != nil || len(l.hidden)+len(l.rules) > 0)
}

// followed reports whether all that an object tells of exists. Where names do
// not tell, it does not: the object that is told of is not there to be looked at.
func (l *lens) followed(r schema.GroupResource, c *content) (bool, error) {
	object, err := c.read()
	if err != nil {
		return false, err
	}
	for _, from := range referrers[r] {
		reference, is := at(object, from.path).(map[string]any)
		if is && !l.tells(reference, from.kind) {
			return false, nil
		}
	}
	return true, nil
}

// tells reports whether the names of a reference tell that its object exists,
// whichever of the resources it may be of.
func (l *lens) tells(reference map[string]any, usual schema.GroupVersionKind) bool {
	text := func(name string) string { s, _ := reference[name].(string); return s }
	version, kind, name := text("apiVersion"), text("kind"), text("name")
	if kind == "" && name == "" {
		return true // of nothing
	}
	of, err := schema.ParseGroupVersion(version)
	if err != nil {
		return false
	}
	if kind == "" {
		kind = usual.Kind
	}
	groups := []string{of.Group}
	if version == "" && !coreKinds.Recognizes(corev1.SchemeGroupVersion.WithKind(kind)) {
		groups = l.named(func(of v1alpha1.ViewResource) string { return of.Group })
	}
	resources := plurals(kind)
	if kind == "" {
		resources = l.named(func(of v1alpha1.ViewResource) string { return of.Resource })
	}
	for _, group := range groups {
		for _, resource := range resources {
			if !l.tellsOf(key{schema.GroupResource{Group: group, Resource: resource}, text("namespace"), name}) {
				return false
			}
		}
	}
	return true
}

// tellsOf reports whether an object's names tell that it exists.
func (l *lens) tellsOf(k key) bool {
	if k.resource == namespaceResource {
		k.namespace = k.name
	}
	if !l.mayBe(k) {
		return false
	}
	rules := l.rulesOf(k.resource)
	return len(rules) == 0 || slices.ContainsFunc(rules, func(r *rule) bool { return !r.looks() && r.mayBe(k.name) })
}

// plurals are what the resource of a kind may be called.
func plurals(kind string) []string {
	one := strings.ToLower(kind)
	guessed, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Kind: kind})
	all := []string{one, one + "s", one + "es", guessed.Resource}
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		all = append(all, stem+"ies")
	}
	return all
}

// named is what is said of resources that do not all exist, or not with all their
// objects; one that is empty stands for all others.
func (l *lens) named(said func(v1alpha1.ViewResource) string) []string {
	all := []string{""}
	for _, of := range l.hidden {
		all = append(all, said(of))
	}
	for _, r := range l.rules {
		for _, of := range r.resources {
			all = append(all, said(of))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
