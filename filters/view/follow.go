package view

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// referrers are resources whose objects tell of others and exist with them, and
// where they name them.
var referrers = map[schema.GroupResource][][]string{
	{Resource: "events"}:                         {{"involvedObject"}, {"related"}},
	{Group: "events.k8s.io", Resource: "events"}: {{"regarding"}, {"related"}},
	{Resource: "persistentvolumes"}:              {{"spec", "claimRef"}},
}

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
	for _, path := range referrers[r] {
		reference, is := at(object, path).(map[string]any)
		if is && !l.tells(reference) {
			return false, nil
		}
	}
	return true, nil
}

// tells reports whether the names of a reference tell that its object exists.
func (l *lens) tells(reference map[string]any) bool {
	text := func(name string) string { s, _ := reference[name].(string); return s }
	kind := text("kind")
	if kind == "" && text("name") == "" {
		return true // of nothing
	}
	of, err := schema.ParseGroupVersion(text("apiVersion"))
	if err != nil {
		return false
	}
	plural, _ := meta.UnsafeGuessKindToResource(of.WithKind(kind))
	k := key{plural.GroupResource(), text("namespace"), text("name")}
	if k.resource == namespaceResource {
		k.namespace = k.name
	}
	if !l.mayBe(k) {
		return false
	}
	rules := l.rulesOf(k.resource)
	return len(rules) == 0 || slices.ContainsFunc(rules, func(r *rule) bool { return !r.looks() && r.mayBe(k.name) })
}
