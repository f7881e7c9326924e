package rego

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fieldpath "k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// callerFields are the parts of input that selectors may depend on.
var callerFields = []string{"user", "workload", "node"}

func isOfCaller(path []string) bool { return len(path) > 0 && slices.Contains(callerFields, path[0]) }

const (
	// maxSelectors is how many selectors a policy may have for one caller.
	maxSelectors = 64
	// maxSelector is how long one may be, in bytes of JSON.
	maxSelector = 16 << 10
)

var errSilent = errors.New(`selectors is empty for this caller: to show all that there is, let it contain {"namespaces": ["*"]}`)

// A Selector says what exists of some resources, or in which namespaces something
// does. It is read as a VirtualView is, but for empty lists: nothing fits them.
type Selector struct {
	v1alpha1.ViewRule
	// Namespaces are those that exist, with all that is in them.
	Namespaces []string `json:"namespaces,omitempty"`
}

// A World is what exists by some selectors, which one view can say.
type World struct {
	Spec *v1alpha1.VirtualViewSpec
	Key  string // equal for equal Specs
	Size int    // about what they take in memory, in bytes
}

// readSelectors takes a policy at its word, or not at all: a selector that says
// nothing would hide nothing.
func readSelectors(elements []any) ([]Selector, []World, error) {
	if len(elements) == 0 {
		return nil, nil, errSilent
	}
	if len(elements) > maxSelectors {
		return nil, nil, fmt.Errorf("selectors has %d elements, and may have %d", len(elements), maxSelectors)
	}
	all := make([]Selector, len(elements))
	for i, element := range elements {
		if err := all[i].read(element); err != nil {
			return nil, nil, fmt.Errorf("selectors, element %d: %w", i+1, err)
		}
	}
	worlds, err := worldsOf(all)
	return all, worlds, err
}

func (s *Selector) read(element any) error {
	text, err := json.Marshal(element)
	if err != nil {
		return err
	}
	fields, ok := element.(map[string]any)
	switch {
	case !ok:
		return errors.New("it is no object")
	case len(text) > maxSelector:
		return fmt.Errorf("it is longer than %d bytes", maxSelector)
	}
	if null := nullIn(fields); null != "" {
		return fmt.Errorf("%s is null", null)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(s); err != nil {
		return err
	}
	return s.check()
}

// nullIn is where a selector has a null first, which would be read as if it were not
// there; "" if nowhere.
func nullIn(value any) string {
	at := func(name string, value any) string {
		if value == nil {
			return name
		}
		if in := nullIn(value); in != "" {
			return name + "." + in
		}
		return ""
	}
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			if null := at(name, value[name]); null != "" {
				return null
			}
		}
	case []any:
		for i, element := range value {
			if null := at(strconv.Itoa(i), element); null != "" {
				return null
			}
		}
	}
	return ""
}

// isEmpty reports whether a selector has nothing that labels have to fit, as where a
// comprehension has found nothing.
func isEmpty(s *metav1.LabelSelector) bool {
	return s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0
}

func (s *Selector) check() error {
	rule := s.ViewRule
	switch {
	case s.Namespaces != nil && (s.Resources != nil || s.Names != nil || s.Selector != nil || s.Owners != nil || s.Fields != nil):
		return errors.New("namespaces stands alone: they exist with all that is in them")
	case s.Namespaces != nil:
		return nil
	case isEmpty(s.Selector):
		return errors.New(`selector is empty, which anything fits: let it have matchLabels or matchExpressions, or write "names": ["*"] for all objects and "names": [] for none`)
	case s.fitsNothing():
		rule = v1alpha1.ViewRule{Resources: s.Resources, Names: []string{"*"}}
	case s.Fields != nil && len(s.Fields) == 0:
		return errors.New("fields is empty, which anything fits: leave it out")
	}
	return rule.Validate(fieldpath.NewPath(selectorsSet)).ToAggregate()
}

// fitsNothing reports whether one of the lists of which an object has to fit one
// element has none.
func (s *Selector) fitsNothing() bool {
	isNoValue := func(r metav1.LabelSelectorRequirement) bool {
		return r.Operator == metav1.LabelSelectorOpIn && len(r.Values) == 0
	}
	return s.Names != nil && len(s.Names) == 0 || s.Owners != nil && len(s.Owners) == 0 ||
		s.Selector != nil && slices.ContainsFunc(s.Selector.MatchExpressions, isNoValue)
}

// worldsOf says what exists by all of some selectors, in as few views as can say
// it: of a view's rules on one resource an object needs to fit only one.
func worldsOf(all []Selector) ([]World, error) {
	var specs []*v1alpha1.VirtualViewSpec
	for i := range all {
		if slices.Contains(all[i].Namespaces, "*") {
			continue // all do
		}
		at := slices.IndexFunc(specs, all[i].joins)
		if at < 0 {
			at, specs = len(specs), append(specs, &v1alpha1.VirtualViewSpec{})
		}
		all[i].join(specs[at])
	}
	var worlds []World
	for _, spec := range specs {
		text, err := json.Marshal(spec)
		if err != nil {
			return nil, fmt.Errorf("write selectors: %w", err)
		}
		sum := sha256.Sum256(text)
		worlds = append(worlds, World{spec, hex.EncodeToString(sum[:]), len(text)})
	}
	return worlds, nil
}

// joins reports whether a view can say what it says, and what s does.
func (s *Selector) joins(spec *v1alpha1.VirtualViewSpec) bool {
	if s.Namespaces != nil {
		return spec.Namespaces == nil
	}
	return s.fitsNothing() || !slices.ContainsFunc(spec.Objects, func(r v1alpha1.ViewRule) bool { return overlap(r.Resources, s.Resources) })
}

func (s *Selector) join(spec *v1alpha1.VirtualViewSpec) {
	switch {
	case s.Namespaces != nil:
		spec.Namespaces = &v1alpha1.ViewNamespaces{Names: s.Namespaces}
	case s.fitsNothing():
		spec.Hidden = append(spec.Hidden, s.Resources...)
	default:
		spec.Objects = append(spec.Objects, s.ViewRule)
	}
}

// overlap reports whether some resource may be among both.
func overlap(a, b []v1alpha1.ViewResource) bool {
	same := func(x, y string) bool { return x == y || x == "*" || y == "*" }
	return slices.ContainsFunc(a, func(x v1alpha1.ViewResource) bool {
		return slices.ContainsFunc(b, func(y v1alpha1.ViewResource) bool { return same(x.Group, y.Group) && same(x.Resource, y.Resource) })
	})
}
