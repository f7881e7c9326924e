package v1alpha1

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxStale bounds how old an answer may be while the API server is gone.
const maxStale = time.Hour

// Validate says what the API server would say of p, for policies that come from
// files and have not passed it. Empty fields have their defaults.
func (p *CachePolicy) Validate() error {
	spec := field.NewPath("spec")
	all := oneOf(spec.Child("memory"), p.Spec.Memory, "", MemoryKeep, MemoryParts, MemoryRefuse)
	all = append(all, oneOf(spec.Child("reads"), p.Spec.Reads, "", ReadsLinearizable, ReadsSession)...)
	if len(p.Spec.Resources) == 0 {
		all = append(all, field.Required(spec.Child("resources"), "name the resources that the policy is about"))
	}
	for i, r := range p.Spec.Resources {
		all = append(all, plural(spec.Child("resources").Index(i).Child("resource"), r.Resource, `a plural name, or "*"`)...)
	}
	session := p.Spec.Reads == ReadsSession
	if session && p.Spec.Memory == MemoryRefuse {
		all = append(all, field.Invalid(spec.Child("reads"), p.Spec.Reads, "resources that are refused have no session reads"))
	}
	if d := p.Spec.StaleIfError; d != nil && (d.Duration <= 0 || d.Duration > maxStale) {
		all = append(all, field.Invalid(spec.Child("staleIfError"), d.Duration.String(), "must be more than 0 and at most 1h"))
	}
	if p.Spec.StaleIfError != nil && p.Spec.Memory == MemoryRefuse {
		all = append(all, field.Invalid(spec.Child("staleIfError"), p.Spec.StaleIfError.Duration.String(), "resources that are refused are not in memory to be stale"))
	}
	if !session && len(p.Spec.Callers) > 0 {
		all = append(all, field.Forbidden(spec.Child("callers"), "callers are those who get session reads; set reads to Session"))
	}
	for i, c := range p.Spec.Callers {
		at := spec.Child("callers").Index(i)
		all = append(all, oneOf(at.Child("kind"), c.Kind, CallerUser, CallerGroup)...)
		if c.Name == "" {
			all = append(all, field.Required(at.Child("name"), "a user's or group's name"))
		}
	}
	return all.ToAggregate()
}

// plural says what is wrong with a resource's name, which may have a subresource.
// what says what it is to be.
func plural(at *field.Path, name, what string) field.ErrorList {
	resource, _, _ := strings.Cut(name, "/")
	switch {
	case name == "":
		return field.ErrorList{field.Required(at, what)}
	case resource != strings.ToLower(resource):
		return field.ErrorList{field.Invalid(at, name, "write the plural name, in lower case, as in secrets: it is not the kind that is meant")}
	}
	return nil
}

func oneOf[T ~string](at *field.Path, got T, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, got) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, got, allowed)}
}
