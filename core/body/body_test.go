package body

import (
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"
)

func TestOnlyObjectsAreReadAsSuch(t *testing.T) {
	info := func(verb, subresource string) *request.RequestInfo {
		return &request.RequestInfo{IsResourceRequest: true, Verb: verb, Resource: "pods", Subresource: subresource}
	}
	for name, tt := range map[string]struct {
		info  *request.RequestInfo
		media string
		want  bool
	}{
		"create":      {info("create", ""), "", true},
		"update":      {info("update", "status"), "application/json", true},
		"apply":       {info("patch", ""), "application/apply-patch+yaml", true},
		"apply-cbor":  {info("patch", ""), "application/apply-patch+cbor", true}, // and then refused
		"merge-patch": {info("patch", ""), "application/merge-patch+json", false},
		"delete":      {info("delete", ""), "application/json", false},
		"exec":        {info("create", "exec"), "", false},
		"forward":     {info("create", "portforward"), "", false},
		"proxy":       {info("create", "proxy"), "application/json", false},
		"no-resource": {&request.RequestInfo{Verb: "create"}, "", false},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Content-Type", tt.media)
		if got := Carries(r, tt.info); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
