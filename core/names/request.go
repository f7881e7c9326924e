package names

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/endpoints/request"
)

var namespaceResource = schema.GroupResource{Resource: "namespaces"}

// errPath says that a path means something else once it has been read twice.
var errPath = apierrors.NewBadRequest("the path cannot be read: write the namespace without slashes and escapes")

// Request returns r with the cluster's names for the tenant's in its path and its
// query, and what it then asks for. Its body is left alone, and so is its header.
func (m *Mapping) Request(r *http.Request) (*http.Request, error) {
	info, _ := request.RequestInfoFrom(r.Context())
	to := *r.URL
	if err := m.path(&to, info); err != nil {
		return nil, err
	}
	to.RawQuery = m.query(r.URL, info)
	named := *info
	named.Path, named.Namespace = to.Path, m.Cluster(info.Namespace)
	if resourceOf(info) == namespaceResource {
		named.Name = m.Cluster(info.Name)
		named.Parts = slices.Clone(info.Parts)
		if len(named.Parts) > 1 {
			named.Parts[1] = named.Name
		}
	}
	if info.FieldSelector != "" || info.LabelSelector != "" {
		query := to.Query()
		named.FieldSelector, named.LabelSelector = query.Get("fieldSelector"), query.Get("labelSelector")
	}
	r = r.WithContext(request.WithRequestInfo(With(r.Context(), m), &named))
	r.URL, r.RequestURI, r.Header = &to, to.RequestURI(), r.Header.Clone()
	return r, nil
}

func resourceOf(info *request.RequestInfo) schema.GroupResource {
	return schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
}

// path exchanges the namespace in a path: what comes after /namespaces/.
func (m *Mapping) path(u *url.URL, info *request.RequestInfo) error {
	own := info.Namespace
	if own == "" {
		return nil
	}
	steps := strings.Split(u.EscapedPath(), "/")
	const first = 3 // that can be it: of /api/v1/namespaces
	at := slices.Index(steps[min(first, len(steps)):], "namespaces") + first + 1
	if at == first || at == len(steps) || steps[at] != url.PathEscape(own) {
		return errPath
	}
	// Who reads the path unescaped must find the namespace at the same step.
	if read := strings.Split(u.Path, "/"); len(read) <= at || !slices.Equal(read[:at], steps[:at]) {
		return errPath
	}
	steps[at] = url.PathEscape(m.Cluster(own))
	escaped := strings.Join(steps, "/")
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return errPath
	}
	u.Path, u.RawPath = path, escaped
	if u.EscapedPath() != escaped {
		return errPath
	}
	return nil
}

// query exchanges the names in selectors and in the token of a page.
func (m *Mapping) query(u *url.URL, info *request.RequestInfo) string {
	all, changed := u.Query(), false
	for name, exchange := range map[string]func(string) string{
		"fieldSelector": func(v string) string { return m.fields(v, resourceOf(info)) },
		"labelSelector": m.labels,
		"continue": func(v string) string {
			return exchangeStart(v, info, func(n string) (string, bool) { return m.Cluster(n), true })
		},
	} {
		for i, was := range all[name] {
			all[name][i] = exchange(was)
			changed = changed || all[name][i] != was
		}
	}
	if !changed {
		return u.RawQuery
	}
	return all.Encode()
}

// fields exchanges names in a field selector. One that cannot be read is the API
// server's to refuse.
func (m *Mapping) fields(was string, r schema.GroupResource) string {
	selector, err := fields.ParseSelector(was)
	if err != nil {
		return was
	}
	requirements := selector.Requirements()
	toNamespace := slices.ContainsFunc(requirements, func(q fields.Requirement) bool {
		return strings.HasSuffix(q.Field, ".kind") && q.Value == "Namespace"
	})
	is, err := selector.Transform(func(field, value string) (string, string, error) {
		switch {
		case field == "metadata.namespace", strings.HasSuffix(field, ".namespace"), field == "metadata.name" && r == namespaceResource,
			toNamespace && (field == "involvedObject.name" || field == "regarding.name"):
			value = m.Cluster(value)
		}
		return field, value, nil
	})
	if err != nil || is.String() == selector.String() {
		return was
	}
	return is.String()
}

// noNamespaceLabel is the label of no namespace, as their names have no _.
const noNamespaceLabel = "no_namespace"

// labels exchanges names in a label selector that names namespaces by their label. One
// that cannot be read is the API server's to refuse; no other may go on as it came.
func (m *Mapping) labels(was string) string {
	requirements, err := labels.ParseToRequirements(was)
	if err != nil || !strings.Contains(was, nameLabelKey) {
		return was
	}
	out := labels.NewSelector()
	for _, q := range requirements {
		if q.Key() == nameLabelKey {
			named, err := labels.NewRequirement(q.Key(), q.Operator(), m.labelValues(q.ValuesUnsorted()))
			if err != nil || q.Operator() == selection.GreaterThan || q.Operator() == selection.LessThan {
				// Names that are compared as numbers would be the cluster's.
				return nameLabelKey + "=" + noNamespaceLabel
			}
			q = *named
		}
		out = out.Add(q)
	}
	return out.String()
}

// labelValues are the cluster's names as values of a label, which what stands for no
// namespace and what is too long cannot be.
func (m *Mapping) labelValues(own []string) []string {
	all := make([]string, len(own))
	for i := range own {
		if all[i] = m.Cluster(own[i]); len(validation.IsValidLabelValue(all[i])) > 0 {
			all[i] = noNamespaceLabel
		}
	}
	return all
}

// Impersonate exchanges names of ServiceAccounts that a tenant would act as.
func (m *Mapping) Impersonate(header http.Header) {
	e := edit{Mapping: m}
	for _, name := range []string{"Impersonate-User", "Impersonate-Group"} {
		for i, v := range header[name] {
			header[name][i], _ = e.account(v) // toward the cluster all can be
		}
	}
}

// exchangeStart exchanges the namespace that a page continues at, in the token that
// says so (k8s.io/apiserver/pkg/storage/continue.go). What cannot be read is left
// alone: the API server refuses it. Toward the tenant, what has no name is empty.
func exchangeStart(token string, info *request.RequestInfo, exchange func(string) (string, bool)) string {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return token
	}
	var page map[string]json.RawMessage
	var start string
	if json.Unmarshal(raw, &page) != nil || json.Unmarshal(page["start"], &start) != nil {
		return token
	}
	slash, key := "", start
	if rest, ok := strings.CutPrefix(start, "/"); ok {
		slash, key = "/", rest
	}
	namespace, rest, all := strings.Cut(key, "/")
	rest = "/" + rest
	if resourceOf(info) == namespaceResource {
		namespace, rest, all = strings.TrimSuffix(key, "\x00"), key[len(strings.TrimSuffix(key, "\x00")):], true
	} else if info.Namespace != "" {
		all = false
	}
	if !all {
		return token
	}
	named, ok := exchange(namespace)
	if !ok {
		return ""
	}
	page["start"], err = json.Marshal(slash + named + rest)
	if err != nil {
		return token
	}
	out, err := json.Marshal(page)
	if err != nil {
		return token
	}
	return base64.RawURLEncoding.EncodeToString(out)
}
