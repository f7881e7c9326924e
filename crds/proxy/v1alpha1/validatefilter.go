package v1alpha1

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	ociPattern    = regexp.MustCompile(`^[^@]+@sha256:[0-9a-f]{64}$`)

	groupPattern   = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`)
	versionPattern = regexp.MustCompile(`^(v[a-z0-9]+)?$`)
	namePattern    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
)

// maxWallClock bounds how long a request may be held up by one call.
const maxWallClock = 10 * time.Second

// Validate says what the API server would say of f, for filters that come from
// files and have not passed it. Empty fields have their defaults.
func (f *WasmFilter) Validate() error {
	spec := field.NewPath("spec")
	all := f.Spec.Source.validate(spec.Child("source"))
	if c := f.Spec.Config; c != nil && len(c.Raw) > 0 && !json.Valid(c.Raw) {
		all = append(all, field.Invalid(spec.Child("config"), "", "is no JSON"))
	}
	all = append(all, f.Spec.validateABI(spec)...)
	for i, c := range f.Spec.Capabilities {
		all = append(all, oneOf(spec.Child("capabilities").Index(i), c, WasmKV, WasmClock, WasmLookup)...)
	}
	all = append(all, f.Spec.validateContext(spec)...)
	l, at := f.Spec.Limits, spec.Child("limits")
	all = append(all, within(at.Child("memoryMiB"), l.MemoryMiB, 1024)...)
	all = append(all, within(at.Child("instances"), l.Instances, 64)...)
	if l.WallClock != nil && (l.WallClock.Duration <= 0 || l.WallClock.Duration > maxWallClock) {
		all = append(all, field.Invalid(at.Child("wallClock"), l.WallClock.Duration.String(), "must be more than 0 and at most "+maxWallClock.String()))
	}
	return all.ToAggregate()
}

func (s *WasmFilterSpec) validateABI(at *field.Path) field.ErrorList {
	all := oneOf(at.Child("abi"), s.ABI, "", WasmPorticoV1, WasmHTTPWasmV1)
	if s.ABI == WasmHTTPWasmV1 && len(s.Capabilities) > 0 {
		all = append(all, field.Forbidden(at.Child("capabilities"), "a module of HTTPWasmV1 cannot be granted capabilities"))
	}
	return all
}

// maxContextResources bounds what one module may look up.
const maxContextResources = 16

func (s *WasmFilterSpec) validateContext(spec *field.Path) (all field.ErrorList) {
	at := spec.Child("contextResources")
	if slices.Contains(s.Capabilities, WasmLookup) != (len(s.ContextResources) > 0) {
		all = append(all, field.Invalid(at, len(s.ContextResources), "the capability lookup and contextResources need each other"))
	}
	if len(s.ContextResources) > maxContextResources {
		all = append(all, field.TooMany(at, len(s.ContextResources), maxContextResources))
	}
	for i, r := range s.ContextResources {
		all = append(all, matches(at.Index(i).Child("group"), r.Group, groupPattern)...)
		all = append(all, matches(at.Index(i).Child("version"), r.Version, versionPattern)...)
		all = append(all, matches(at.Index(i).Child("resource"), r.Resource, namePattern)...)
		if r.Namespace != "" {
			all = append(all, matches(at.Index(i).Child("namespace"), r.Namespace, namePattern)...)
		}
	}
	return all
}

func matches(at *field.Path, got string, pattern *regexp.Regexp) field.ErrorList {
	if pattern.MatchString(got) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, got, "must match "+pattern.String())}
}

// within accepts 0, which means the default, to most.
func within(at *field.Path, got, most int32) field.ErrorList {
	if got >= 0 && got <= most {
		return nil
	}
	return field.ErrorList{field.Invalid(at, got, "is out of bounds")}
}

// InlineCode is the module that is inline, if one is.
func (s *WasmSource) InlineCode() ([]byte, error) { return base64.StdEncoding.DecodeString(s.Inline) }

func (s *WasmSource) validate(at *field.Path) (all field.ErrorList) {
	if set := []bool{s.File != "", s.URL != "", s.OCI != "", s.ConfigMap != nil, s.Inline != ""}; count(set) != 1 {
		all = append(all, field.Required(at, "set exactly one of file, url, oci, configMap and inline"))
	}
	if _, err := s.InlineCode(); err != nil {
		all = append(all, field.Invalid(at.Child("inline"), "", "is no base64"))
	}
	all = append(all, pinned(at, s.URL, s.OCI, s.SHA256)...)
	if s.SHA256 == "" && (s.URL != "" || s.ConfigMap != nil) {
		all = append(all, field.Required(at.Child("sha256"), "a module from a url or a configMap needs its digest, as sha256sum prints it"))
	}
	if c := s.ConfigMap; c != nil && (c.Namespace == "" || c.Name == "" || c.Key == "") {
		all = append(all, field.Required(at.Child("configMap"), "set namespace, name and key"))
	}
	return all
}

// count is how many of a set are true.
func count(set []bool) (n int) {
	for _, is := range set {
		if is {
			n++
		}
	}
	return n
}

// pinned says what is wrong with what is fetched from afar, and its digest.
func pinned(at *field.Path, url, oci, sha256 string) (all field.ErrorList) {
	if url != "" && !strings.HasPrefix(url, "https://") {
		all = append(all, field.Invalid(at.Child("url"), url, "must begin with https://"))
	}
	if oci != "" && !ociPattern.MatchString(oci) {
		all = append(all, field.Invalid(at.Child("oci"), oci, "must end in the artifact's digest: registry/name@sha256:…"))
	}
	if sha256 != "" && !sha256Pattern.MatchString(sha256) {
		all = append(all, field.Invalid(at.Child("sha256"), sha256, "must be 64 hexadecimal digits, as sha256sum prints them"))
	}
	return all
}

// Signature is the algorithm by which a bundle is signed.
func (s *RegoSigner) Signature() string { return cmp.Or(s.Algorithm, "RS256") }

var signatures = []string{"ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

func (s *RegoSource) validate(at *field.Path) (all field.ErrorList) {
	if set := []bool{s.File != "", s.URL != "", s.OCI != ""}; count(set) != 1 {
		all = append(all, field.Required(at, "set exactly one of file, url and oci"))
	}
	all = append(all, pinned(at, s.URL, s.OCI, s.SHA256)...)
	if s.SHA256 == "" && s.URL != "" {
		all = append(all, field.Required(at.Child("sha256"), "a bundle from a url needs its digest, as sha256sum prints it"))
	}
	if k := s.SignedBy; k != nil {
		if k.PublicKey == "" {
			all = append(all, field.Required(at.Child("signedBy", "publicKey"), "the key in PEM"))
		}
		all = append(all, oneOf(at.Child("signedBy", "algorithm"), k.Signature(), signatures...)...)
	}
	return all
}

// Validate says what the API server would say of b, for bindings that come from
// files and have not passed it. Empty fields have their defaults.
func (b *FilterBinding) Validate() error {
	spec := field.NewPath("spec")
	all := oneOf(spec.Child("filterRef", "kind"), b.Spec.FilterRef.Kind, FilterKindWasm, FilterKindRego)
	if b.Spec.FilterRef.Name == "" {
		all = append(all, field.Required(spec.Child("filterRef", "name"), "name the filter that runs"))
	}
	all = append(all, oneOf(spec.Child("phase"), b.Spec.Phase, "", PhaseRestrict, PhaseThrottle, PhaseView)...)
	if b.Spec.Phase == PhaseThrottle && b.Spec.FilterRef.Kind != FilterKindRego {
		all = append(all, field.Invalid(spec.Child("phase"), b.Spec.Phase, "only a RegoPolicy can throttle"))
	}
	if b.Spec.Phase == PhaseView && b.Spec.FilterRef.Kind == FilterKindRego {
		all = append(all, b.Spec.Match.validateSubjects(spec.Child("match"))...)
	}
	all = append(all, oneOf(spec.Child("failurePolicy"), b.Spec.FailurePolicy, "", FailurePolicyFail, FailurePolicyIgnore)...)
	all = append(all, oneOf(spec.Child("mode"), b.Spec.Mode, "", ModeEnforce, ModeAudit)...)
	return append(all, b.Spec.Match.validate(spec.Child("match"))...).ToAggregate()
}

// verbs are those that a request may have: of the API and, where it is about no
// resource, its method's.
var verbs = []string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy", "head", "post", "put", "options", "*",
}

func (m *RequestMatch) validate(at *field.Path) (all field.ErrorList) {
	for i, v := range m.Verbs {
		all = append(all, oneOf(at.Child("verbs").Index(i), v, verbs...)...)
	}
	for i, r := range m.Resources {
		all = append(all, plural(at.Child("resources").Index(i).Child("resource"), r.Resource, `a plural name, or "*"`)...)
	}
	return all
}

// validateSubjects refuses what is not about callers alone, or about all of them.
func (m *RequestMatch) validateSubjects(at *field.Path) (all field.ErrorList) {
	if len(m.Users)+len(m.Groups) == 0 {
		all = append(all, field.Required(at, "where a RegoPolicy says what exists, match says for whom: name users or groups"))
	}
	if len(m.UserAgents)+len(m.Verbs)+len(m.Resources)+len(m.Namespaces) > 0 {
		all = append(all, field.Forbidden(at, "what exists for a caller is the same in all that he asks for: match users and groups only, and have the policy's selectors name resources and namespaces"))
	}
	return all
}

// Validate says what the API server would say of p, for policies that come from
// files and have not passed it. Empty fields have their defaults.
func (p *RegoPolicy) Validate() error {
	spec := field.NewPath("spec")
	var all field.ErrorList
	if (p.Spec.Rego == "") == (p.Spec.Source == nil) {
		all = append(all, field.Required(spec.Child("rego"), "set one of rego and source"))
	}
	if p.Spec.Source != nil {
		all = append(all, p.Spec.Source.validate(spec.Child("source"))...)
	}
	if s := p.Spec.Settings; s != nil && len(s.Raw) > 0 && !json.Valid(s.Raw) {
		all = append(all, field.Invalid(spec.Child("settings"), "", "is no JSON"))
	}
	if d := p.Spec.Deadline; d != nil && (d.Duration <= 0 || d.Duration > maxWallClock) {
		all = append(all, field.Invalid(spec.Child("deadline"), d.Duration.String(), "must be more than 0 and at most "+maxWallClock.String()))
	}
	return all.ToAggregate()
}
