package view

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/view"
)

// review answers a caller who asks what he may do. In what does not exist, that
// is nothing.
func (s *sight) review(w http.ResponseWriter, r *http.Request) error {
	raw, err := s.readReview(w, r)
	if err != nil {
		return err
	}
	review, err := objectIn(r, raw)
	if err != nil {
		return err
	}
	status := s.verdict(review)
	switch {
	case status != nil:
	case s.asked.resource.Resource == "selfsubjectrulesreviews" && len(s.lens.hidden) > 0:
		return s.rules(w, body.With(r, raw))
	default:
		return s.next.ServeHTTP(w, body.With(r, raw))
	}
	review["status"] = status
	answer, err := json.Marshal(review)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(http.StatusCreated)
	_, err = w.Write(answer)
	return err
}

// verdict is the status of a review of what does not exist; nil of all others.
func (s *sight) verdict(review map[string]any) map[string]any {
	spec, _ := review["spec"].(map[string]any)
	text := func(in map[string]any, name string) string { t, _ := in[name].(string); return t }
	if s.asked.resource.Resource == "selfsubjectrulesreviews" {
		if namespace := text(spec, "namespace"); namespace != "" && !s.lens.shows(namespace) {
			return map[string]any{"resourceRules": []any{}, "nonResourceRules": []any{}, "incomplete": false}
		}
		return nil
	}
	about, _ := spec["resourceAttributes"].(map[string]any)
	if about == nil {
		return nil
	}
	k := key{schema.GroupResource{Group: text(about, "group"), Resource: text(about, "resource")}, text(about, "namespace"), text(about, "name")}
	if k.resource == namespaceResource {
		k.namespace = k.name
	}
	asked := asked{key: k, info: s.asked.info, subresource: text(about, "subresource")}
	if s.lens.mayBe(k) && !asked.isNodeProxy() {
		return nil
	}
	return map[string]any{"allowed": false}
}

// rules answers a caller who asks for all that he may do, without what does not
// exist where that is told by its name.
func (s *sight) rules(w http.ResponseWriter, r *http.Request) error {
	r, err := view.OnlyJSON(r)
	if err != nil {
		return err
	}
	answer := newRecorded()
	if err := s.next.ServeHTTP(answer, r); err != nil {
		return err
	}
	if answer.Code != http.StatusCreated || answer.TooLong {
		return answer.send(w)
	}
	text, err := member(answer.Body.Bytes(), "status", func(status []byte) ([]byte, error) {
		return each(status, "resourceRules", s.lens.ruleLeft)
	})
	if err != nil {
		return apierrors.NewInternalError(errAnswer)
	}
	answer.Body.Reset()
	answer.Body.Write(text)
	answer.Header().Set("Content-Length", strconv.Itoa(len(text)))
	return answer.send(w)
}

// ruleLeft is what is left of a rule, nil if it was only about what does not exist.
func (l *lens) ruleLeft(rule []byte) ([]byte, error) {
	var of struct{ APIGroups, Resources []string }
	if err := json.Unmarshal(rule, &of); err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(slices.Clone(of.Resources), func(resource string) bool {
		resource, _, _ = strings.Cut(resource, "/")
		return !slices.ContainsFunc(of.APIGroups, func(group string) bool {
			return !isAbout(l.hidden, schema.GroupResource{Group: group, Resource: resource})
		})
	})
	if len(left) == len(of.Resources) {
		return rule, nil
	}
	if len(left) == 0 {
		return nil, nil
	}
	return member(rule, "resources", func([]byte) ([]byte, error) { return json.Marshal(left) })
}
