package cache_test

import (
	"net/http"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func asked(memory v1alpha1.MemoryMode, reads v1alpha1.ReadMode, callers []v1alpha1.Caller, resources ...v1alpha1.CachedResource) runtime.Object {
	return &v1alpha1.CachePolicy{Spec: v1alpha1.CachePolicySpec{Resources: resources, Memory: memory, Reads: reads, Callers: callers}}
}

func TestPoliciesAreAddedUp(t *testing.T) {
	secrets, all := v1alpha1.CachedResource{Resource: "secrets"}, v1alpha1.CachedResource{Resource: "*"}
	nodes := []v1alpha1.Caller{{Kind: v1alpha1.CallerGroup, Name: "system:nodes"}}
	const keep, parts, refuse, linear, session = v1alpha1.MemoryKeep, v1alpha1.MemoryParts, v1alpha1.MemoryRefuse, v1alpha1.ReadsLinearizable, v1alpha1.ReadsSession
	for name, tt := range map[string]struct {
		objects  []runtime.Object
		resource schema.GroupResource
		refuse   bool
		parts    bool
		session  bool // for a node
	}{
		"secrets-by-default":    {resource: schema.GroupResource{Resource: "secrets"}, refuse: true},
		"pods-by-default":       {resource: schema.GroupResource{Resource: "pods"}},
		"named":                 {objects: []runtime.Object{asked(keep, linear, nil, secrets)}, resource: schema.GroupResource{Resource: "secrets"}},
		"not-named":             {objects: []runtime.Object{asked(keep, linear, nil, all)}, resource: schema.GroupResource{Resource: "secrets"}, refuse: true},
		"refused":               {objects: []runtime.Object{asked(keep, linear, nil, secrets), asked(refuse, linear, nil, all)}, resource: schema.GroupResource{Resource: "secrets"}, refuse: true},
		"in-parts":              {objects: []runtime.Object{asked(keep, linear, nil, all), asked(parts, linear, nil, all)}, resource: schema.GroupResource{Resource: "pods"}, parts: true},
		"parts-refused":         {objects: []runtime.Object{asked(parts, linear, nil, all), asked(refuse, linear, nil, all)}, resource: schema.GroupResource{Resource: "pods"}, refuse: true},
		"other-group":           {objects: []runtime.Object{asked(refuse, linear, nil, all)}, resource: schema.GroupResource{Group: "apps", Resource: "deployments"}},
		"session-for-everybody": {objects: []runtime.Object{asked(keep, session, nil, all)}, resource: schema.GroupResource{Resource: "pods"}, session: true},
		"session-for-nodes":     {objects: []runtime.Object{asked(keep, session, nodes, all)}, resource: schema.GroupResource{Resource: "pods"}, session: true},
		"session-for-others":    {objects: []runtime.Object{asked(keep, session, []v1alpha1.Caller{{Kind: v1alpha1.CallerUser, Name: "jane"}}, all)}, resource: schema.GroupResource{Resource: "pods"}},
		"session-lifts-nothing": {objects: []runtime.Object{asked(keep, session, nil, all)}, resource: schema.GroupResource{Resource: "configmaps"}, refuse: true, session: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := cache.PoliciesFrom(tt.objects)(tt.resource)
			node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
			if got.Refuse != tt.refuse || got.Parts != tt.parts || (got.Session != nil && got.Session(node)) != tt.session {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestTheAPIServerTakesCachePolicies(t *testing.T) {
	d := direct(t)
	manifest, err := os.ReadFile("../../crds/manifests/proxy.elf.io_cachepolicies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd object
	if err := yaml.Unmarshal(manifest, &crd); err != nil {
		t.Fatal(err)
	}
	d.Write(http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
	const path = "/apis/proxy.elf.io/v1alpha1/cachepolicies"
	until(t, func() bool { return d.Get(path, cachetest.JSON).Status == http.StatusOK })
	policy := func(spec object) string {
		return string(marshal(t, object{"apiVersion": "proxy.elf.io/v1alpha1", "kind": "CachePolicy", "metadata": object{"name": "p"}, "spec": spec}))
	}
	resources := []any{object{"resource": "pods"}}
	for spec, code := range map[string]int{
		policy(object{"resources": resources}): http.StatusCreated,
		policy(object{"resources": resources, "reads": "Session", "callers": []any{object{"kind": "Group", "name": "g"}}}): http.StatusCreated,
		policy(object{"resources": resources, "reads": "Session", "memory": "Refuse"}):                                     http.StatusUnprocessableEntity,
		policy(object{"resources": resources, "callers": []any{object{"kind": "User", "name": "u"}}}):                      http.StatusUnprocessableEntity,
		policy(object{"resources": []any{}}):                        http.StatusUnprocessableEntity,
		policy(object{"resources": resources, "reads": "Eventual"}): http.StatusUnprocessableEntity,
	} {
		res := d.Open(t.Context(), http.MethodPost, path+"?dryRun=All", http.Header{"Content-Type": {cachetest.JSON}}, []byte(spec))
		_ = res.Body.Close()
		if res.StatusCode != code {
			t.Errorf("%s: %d, want %d", spec, res.StatusCode, code)
		}
	}
}
