package view

import (
	"encoding/json"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/body"
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
	if status == nil {
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
