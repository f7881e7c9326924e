package cache_test

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache"
)

// nothingRefused lets everything into memory.
func nothingRefused(o *cache.Options) {
	o.Refuse = func(schema.GroupResource) bool { return false }
}

// listed is what tests read of a list.
type listed struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
		Remaining       *int64 `json:"remainingItemCount"`
	} `json:"metadata"`
	Items []struct {
		Metadata struct {
			Name            string `json:"name"`
			Namespace       string `json:"namespace"`
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	} `json:"items"`
}

func listOf(t testing.TB, a answer) listed {
	t.Helper()
	var l listed
	if err := json.Unmarshal(a.body, &l); err != nil || a.status != 200 {
		t.Fatalf("%d %v: %.300s", a.status, err, a.body)
	}
	return l
}

func itemNames(t testing.TB, a answer) []string {
	t.Helper()
	var names []string
	for _, i := range listOf(t, a).Items {
		names = append(names, i.Metadata.Namespace+"/"+i.Metadata.Name)
	}
	return names
}

// read gets one object.
func (d *door) read(path string) object {
	d.t.Helper()
	a := d.get(path, jsonType)
	var o object
	if err := json.Unmarshal(a.body, &o); err != nil || a.status != 200 {
		d.t.Fatalf("get %s: %d %v", path, a.status, err)
	}
	return o
}
