package cache_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// vans is a definition whose only version gives wheels a default, unless that is 0.
func vans(wheels int) object {
	property := object{"type": "integer"}
	if wheels != 0 {
		property["default"] = wheels
	}
	return object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": object{"name": "vans.definitions.example.org"},
		"spec": object{
			"group": "definitions.example.org", "scope": "Namespaced", "names": object{"plural": "vans", "kind": "Van"},
			"versions": []any{object{"name": "v1", "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{
				"type": "object", "properties": object{"wheels": property, "color": object{"type": "string"}},
			}}}},
		},
	}
}

func TestRedefinedResourcesAreReadAnew(t *testing.T) {
	d := direct(t)
	d.AddNamespace("definitions")
	const definitions, path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/definitions.example.org/v1/namespaces/definitions/vans"
	d.Write(http.MethodPost, definitions, vans(0))
	until(t, func() bool { return d.Get(path, cachetest.JSON).Status == http.StatusOK })
	d.Write(http.MethodPost, path, object{"apiVersion": "definitions.example.org/v1", "kind": "Van", "metadata": object{"name": "a"}})
	p := newProxy(t, nil)
	p.warm(path, cachetest.JSON)

	// Defaults show in objects that nobody has written to.
	d.Patch(definitions+"/vans.definitions.example.org", string(marshal(t, object{"spec": vans(6)["spec"]})))
	same := func() bool {
		want, got := d.Get(path+"?resourceVersion=0", cachetest.JSON), p.Get(path+"?resourceVersion=0", cachetest.JSON)
		return wheels(t, want) == 6 && wheels(t, got) == 6 && got.ServedBy() == "cache"
	}
	until(t, same)

	// Another resource of the same name.
	d.Write(http.MethodDelete, definitions+"/vans.definitions.example.org", nil)
	until(t, func() bool {
		return p.Get(path+"?resourceVersion=0", cachetest.JSON).Status == http.StatusNotFound
	})
	d.Write(http.MethodPost, definitions, vans(8))
	until(t, func() bool { return d.Get(path, cachetest.JSON).Status == http.StatusOK })
	until(t, func() bool {
		got := p.Get(path+"?resourceVersion=0", cachetest.JSON)
		return got.Status == http.StatusOK && len(got.List(t).Items) == 0
	})
}

// wheels is how many the first item has, 0 if there is none.
func wheels(t testing.TB, a cachetest.Answer) int {
	t.Helper()
	var l struct {
		Items []struct {
			Wheels int `json:"wheels"`
		} `json:"items"`
	}
	if err := json.Unmarshal(a.Body, &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Items) == 0 {
		return 0
	}
	return l.Items[0].Wheels
}
