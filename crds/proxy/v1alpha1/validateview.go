package v1alpha1

import (
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	pointerPattern = regexp.MustCompile(`^(/[^/]+)+$`)
	sacredPattern  = regexp.MustCompile(`^/(apiVersion|kind|metadata|[*])$|^/[*]/|^/metadata/(name|namespace|uid|resourceVersion|[*])(/|$)`)
	prefixPattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*-$`)
	viewedPattern  = regexp.MustCompile(`^([^/*]+|[*])$`)
)

// Validate says what the API server would say of v, for views that come from
// files and have not passed it. Empty fields have their defaults.
func (v *VirtualView) Validate() error {
	spec := field.NewPath("spec")
	all := oneOf(spec.Child("mode"), v.Spec.Mode, "", ModeEnforce, ModeAudit)
	subjects := spec.Child("subjects")
	if len(v.Spec.Subjects.Users)+len(v.Spec.Subjects.Groups) == 0 {
		all = append(all, field.Required(subjects, "name users or groups"))
	}
	all = append(all, noneEmpty(subjects.Child("users"), v.Spec.Subjects.Users)...)
	all = append(all, noneEmpty(subjects.Child("groups"), v.Spec.Subjects.Groups)...)
	if n := v.Spec.Namespaces; n != nil {
		all = append(all, n.validate(spec.Child("namespaces"))...)
	}
	all = append(all, validateViewed(spec.Child("hidden"), v.Spec.Hidden)...)
	for i := range v.Spec.Objects {
		all = append(all, v.Spec.Objects[i].Validate(spec.Child("objects").Index(i))...)
	}
	for i := range v.Spec.Masks {
		all = append(all, v.Spec.Masks[i].validate(spec.Child("masks").Index(i))...)
	}
	return all.ToAggregate()
}

func (n *ViewNamespaces) validate(at *field.Path) field.ErrorList {
	var all field.ErrorList
	if n.Names == nil && n.Selector == nil && !n.Renames() {
		all = append(all, field.Required(at, "set names, selector, prefix or renamed"))
	}
	if n.Prefix != "" && (!prefixPattern.MatchString(n.Prefix) || len(n.Prefix) > maxPrefix) {
		all = append(all, field.Invalid(at.Child("prefix"), n.Prefix, "must be at most 50 small letters, digits and dashes, the last of which is a dash"))
	}
	all = append(all, n.validateRenamed(at.Child("renamed"))...)
	all = append(all, noneEmpty(at.Child("names"), n.Names)...)
	return append(all, validateSelector(at.Child("selector"), n.Selector)...)
}

// maxPrefix is in bytes.
const maxPrefix = 50

func (n *ViewNamespaces) validateRenamed(at *field.Path) (bad field.ErrorList) {
	names, clusters := map[string]bool{}, map[string]bool{}
	for i, r := range n.Renamed {
		bad = append(bad, validateNamespace(at.Index(i).Child("name"), r.Name)...)
		bad = append(bad, validateNamespace(at.Index(i).Child("cluster"), r.Cluster)...)
		if names[r.Name] {
			bad = append(bad, field.Duplicate(at.Index(i).Child("name"), r.Name))
		}
		if clusters[r.Cluster] {
			bad = append(bad, field.Invalid(at.Index(i).Child("cluster"), r.Cluster, "renamed gives one namespace of the cluster two names"))
		}
		names[r.Name], clusters[r.Cluster] = true, true
	}
	return bad
}

func validateNamespace(at *field.Path, name string) (bad field.ErrorList) {
	for _, problem := range validation.IsDNS1123Label(name) {
		bad = append(bad, field.Invalid(at, name, problem))
	}
	return bad
}

// Validate says what the API server would say of a rule at a path.
func (r *ViewRule) Validate(at *field.Path) field.ErrorList {
	all := someViewed(at.Child("resources"), r.Resources)
	if len(r.Names)+len(r.Owners)+len(r.Fields) == 0 && r.Selector == nil {
		all = append(all, field.Required(at, "set names, selector, owners or fields"))
	}
	all = append(all, noneEmpty(at.Child("names"), r.Names)...)
	all = append(all, validateSelector(at.Child("selector"), r.Selector)...)
	for i, o := range r.Owners {
		if o.Kind == "" || o.Name == "" {
			all = append(all, field.Required(at.Child("owners").Index(i), "set kind and name"))
		}
	}
	for i, f := range r.Fields {
		all = append(all, validatePointer(at.Child("fields").Index(i).Child("path"), f.Path)...)
	}
	return all
}

func (m *ViewMask) validate(at *field.Path) field.ErrorList {
	all := someViewed(at.Child("resources"), m.Resources)
	if len(m.Paths) == 0 {
		all = append(all, field.Required(at.Child("paths"), "name the fields"))
	}
	for i, p := range m.Paths {
		where := at.Child("paths").Index(i)
		all = append(all, validatePointer(where, p)...)
		if sacredPattern.MatchString(p) {
			all = append(all, field.Invalid(where, p, "what an object is cannot be masked: apiVersion, kind, all of metadata, its name, namespace, uid and resourceVersion, and /*"))
		}
	}
	return all
}

func someViewed(at *field.Path, all []ViewResource) field.ErrorList {
	if len(all) == 0 {
		return field.ErrorList{field.Required(at, "name the resources")}
	}
	return validateViewed(at, all)
}

func validateViewed(at *field.Path, all []ViewResource) (bad field.ErrorList) {
	for i, r := range all {
		if !viewedPattern.MatchString(r.Resource) {
			bad = append(bad, field.Invalid(at.Index(i).Child("resource"), r.Resource, `must be a plural name without a subresource, or "*"`))
			continue
		}
		bad = append(bad, plural(at.Index(i).Child("resource"), r.Resource, "")...)
	}
	return bad
}

func validatePointer(at *field.Path, p string) field.ErrorList {
	if pointerPattern.MatchString(p) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, p, "must be a JSON pointer, as in /spec/nodeName")}
}

func validateSelector(at *field.Path, s *metav1.LabelSelector) field.ErrorList {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return field.ErrorList{field.Invalid(at, "", err.Error())}
	}
	return nil
}

func noneEmpty(at *field.Path, all []string) (bad field.ErrorList) {
	for i, s := range all {
		if s == "" {
			bad = append(bad, field.Required(at.Index(i), "must not be empty"))
		}
	}
	return bad
}
