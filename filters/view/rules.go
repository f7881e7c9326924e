package view

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A rule says which objects of some resources exist.
type rule struct {
	resources []v1alpha1.ViewResource
	names     []string
	selector  labels.Selector // nil is any
	owners    []v1alpha1.ViewOwner
	fields    []field
}

// A field has to have a value.
type field struct {
	parts []string
	value string
}

func newRule(r *v1alpha1.ViewRule) (*rule, error) {
	out := &rule{resources: r.Resources, names: r.Names, owners: r.Owners}
	if r.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(r.Selector)
		if err != nil {
			return nil, fmt.Errorf("read selector: %w", err)
		}
		out.selector = selector
	}
	for _, f := range r.Fields {
		out.fields = append(out.fields, field{partsOf(f.Path), f.Value})
	}
	return out, nil
}

// isAbout reports whether one of all means a resource.
func isAbout(all []v1alpha1.ViewResource, r schema.GroupResource) bool {
	return slices.ContainsFunc(all, func(of v1alpha1.ViewResource) bool {
		return (of.Group == "*" || of.Group == r.Group) && (of.Resource == "*" || of.Resource == r.Resource)
	})
}

// fits compares text with patterns, of which a * at the end stands for anything.
func fits(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(text, prefix)
		}
		return pattern == text
	})
}

// mayBe reports whether an object of this name may fit.
func (r *rule) mayBe(name string) bool { return len(r.names) == 0 || fits(r.names, name) }

// looks reports whether an object's name does not tell whether it fits.
func (r *rule) looks() bool { return r.selector != nil || len(r.owners)+len(r.fields) > 0 }

// selects returns the rule's selector, if it has nothing else to say.
func (r *rule) selects() labels.Selector {
	if len(r.names)+len(r.owners)+len(r.fields) > 0 {
		return nil
	}
	return r.selector
}

func (r *rule) fits(name string, set labels.Labels, content *content) (bool, error) {
	if !r.mayBe(name) || r.selector != nil && !r.selector.Matches(set) {
		return false, nil
	}
	if len(r.owners)+len(r.fields) == 0 {
		return true, nil
	}
	object, err := content.read()
	if err != nil {
		return false, err
	}
	if len(r.owners) > 0 && !isOwned(object, r.owners) {
		return false, nil
	}
	for _, f := range r.fields {
		if textAt(object, f.parts) != f.value {
			return false, nil
		}
	}
	return true, nil
}

// content is an object that is read once, if at all.
type content struct {
	raw    []byte
	object map[string]any
}

func (c *content) read() (map[string]any, error) {
	if c.object != nil {
		return c.object, nil
	}
	object, err := decode(c.raw)
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	c.object = object
	return object, nil
}

// shown reports whether the object names no namespace that has no name for its
// caller.
func (c *content) shown(m *names.Mapping, r schema.GroupResource) (bool, error) {
	raw := c.raw
	if raw == nil {
		var err error
		if raw, err = json.Marshal(c.object); err != nil {
			return false, fmt.Errorf("write object: %w", err)
		}
	}
	return m.Shows(r, raw)
}

func isOwned(object map[string]any, by []v1alpha1.ViewOwner) bool {
	owners, _ := at(object, []string{"metadata", "ownerReferences"}).([]any)
	return slices.ContainsFunc(owners, func(o any) bool {
		owner, _ := o.(map[string]any)
		kind, _ := owner["kind"].(string)
		name, _ := owner["name"].(string)
		return slices.ContainsFunc(by, func(of v1alpha1.ViewOwner) bool { return of.Kind == kind && fits([]string{of.Name}, name) })
	})
}

// at returns what is at a path; nil if nothing is.
func at(value any, path []string) any {
	for _, part := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[part]
		default:
			return nil
		}
	}
	return value
}

// textAt is a scalar's text, as JSON has it; empty for anything else.
func textAt(object map[string]any, path []string) string {
	switch v := at(object, path).(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return fmt.Sprint(v)
	}
	return ""
}
