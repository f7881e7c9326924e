package names

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/document"
)

// sample is a value of a sort as the cluster has it, and as the tenant has it.
var samples = map[sort][2]string{
	name:       {`"tenant-a-x"`, `"x"`},
	generated:  {`"tenant-a-team-"`, `"team-"`},
	account:    {`"system:serviceaccount:tenant-a-x:web"`, `"system:serviceaccount:x:web"`},
	reference:  {`{"kind":"Namespace","namespace":"tenant-a-x","name":"tenant-a-x"}`, `{"kind":"Namespace","namespace":"x","name":"x"}`},
	attributes: {`{"resource":"namespaces","namespace":"tenant-a-x","name":"tenant-a-x"}`, `{"resource":"namespaces","namespace":"x","name":"x"}`},
	expression: {`{"key":"kubernetes.io/metadata.name","operator":"In","values":["tenant-a-x","tenant-a-y"]}`, `{"key":"kubernetes.io/metadata.name","operator":"In","values":["x","y"]}`},
	text:       {`"in tenant-a-x"`, `"in x"`},
	texts:      {`["tenant-a-x"]`, `["x"]`},
	applied:    {`"{\"metadata\":{\"namespace\":\"tenant-a-x\"}}"`, `"{\"metadata\":{\"namespace\":\"x\"}}"`},
}

// documentWith is an object that has a value at a path, in which * is an array.
func documentWith(path, value string) string {
	first, rest, _ := strings.Cut(path[1:], "/")
	below := value
	if rest != "" {
		below = documentWith("/"+rest, value)
	}
	if first == "*" {
		return "[" + below + "]"
	}
	return fmt.Sprintf(`{"a":"any","%s":%s}`, document.Name(first), below)
}

// Every place that is told of is tried, both ways.
func TestNamesAreExchangedInEveryPlace(t *testing.T) {
	for _, p := range places {
		for r := range strings.FieldsSeq(p.resources + " /configmaps") {
			group, resource, _ := strings.Cut(r, "/")
			gr := schema.GroupResource{Group: group, Resource: resource}
			if resource == "configmaps" && p.resources != "" {
				continue
			}
			for path := range strings.FieldsSeq(p.paths) {
				if p.sort == managers {
					continue
				}
				cluster, own := documentWith(path, samples[p.sort][0]), documentWith(path, samples[p.sort][1])
				if got, err := tenant.Object(gr, []byte(cluster)); err != nil || string(got) != own {
					t.Errorf("%s %s: shown as %s, %v", r, path, got, err)
				}
				want := cluster
				if p.sort == text || p.sort == texts {
					want = own
				}
				if got, err := tenant.Written(gr, []byte(own)); err != nil || string(got) != want {
					t.Errorf("%s %s: written as %s, %v", r, path, got, err)
				}
				if hides := tenant.MayHide(gr); hides != (p.resources != "" && gr != namespaceResource) {
					t.Errorf("%s may be hidden by what is at %s: %v", r, path, hides)
				}
				foreign := strings.ReplaceAll(cluster, "tenant-a-x", "kube-system")
				if got, err := tenant.Object(gr, []byte(foreign)); !errors.Is(err, ErrForeign) && strings.Contains(string(got), "kube-system") && p.sort != text && p.sort != generated && p.sort != texts {
					t.Errorf("%s %s: a name that the tenant does not have is shown: %s", r, path, got)
				}
			}
		}
	}
}

func TestWhatTellsOnlyHalfIsLeftOut(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	for object, want := range map[string]string{
		`{"metadata":{"managedFields":[{"fieldsV1":{"k:{\"namespace\":\"tenant-a-x\"}":{}}}]}}`:                                    `{"metadata":{}}`,
		`{"metadata":{"managedFields":[{"fieldsV1":{"f:data":{}}}]}}`:                                                              `{"metadata":{"managedFields":[{"fieldsV1":{"f:data":{}}}]}}`,
		`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"tenant-a-x: {"}}}`:                        `{"metadata":{"annotations":{}}}`,
		`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"metadata\":{\"namespace\":\"y\"}}"}}}`: `{"metadata":{"annotations":{}}}`,
		`{"metadata":{"namespace":7}}`: `{"metadata":{"namespace":7}}`,
		`{"data":{"a":"tenant-a-x"}}`:  `{"data":{"a":"tenant-a-x"}}`, // the caller's own affair
	} {
		if got, err := tenant.Object(configMaps, []byte(object)); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v", object, got, err)
		}
	}
	pods := schema.GroupResource{Resource: "pods"}
	other := `{"involvedObject":{"kind":"Pod","namespace":"tenant-a-x","name":"tenant-a-x"},"subjects":[{"namespace":"y"}],"key":"x"}`
	if got, err := tenant.Object(pods, []byte(other)); err != nil || string(got) != other {
		t.Errorf("another resource's places are exchanged: %s, %v", got, err)
	}
	event := `{"involvedObject":{"kind":"Pod","namespace":"tenant-a-x","name":"tenant-a-x"}}`
	if got, err := tenant.Object(schema.GroupResource{Resource: "events"}, []byte(event)); err != nil || string(got) != `{"involvedObject":{"kind":"Pod","namespace":"x","name":"tenant-a-x"}}` {
		t.Errorf("a pod's name is a namespace's: %s, %v", got, err)
	}
}

// The API server refuses what is no string where it wants one, in its own words.
func TestWhatIsNoStringIsLeftAlone(t *testing.T) {
	for _, p := range places {
		if p.sort == managers {
			continue
		}
		group, resource, _ := strings.Cut(strings.Fields(p.resources + " /pods")[0], "/")
		for _, value := range []string{"7", "123", "[7]", "null", "{}", "true"} {
			was := documentWith(strings.Fields(p.paths)[0], value)
			for _, exchange := range []func(schema.GroupResource, []byte) ([]byte, error){tenant.Written, tenant.Object} {
				if got, err := exchange(schema.GroupResource{Group: group, Resource: resource}, []byte(was)); err != nil || string(got) != was {
					t.Errorf("%s became %s, %v", was, got, err)
				}
			}
		}
	}
}

func TestTokensAreNotShown(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for object, want := range map[string]bool{
		`{"type":"Opaque"}`: true, `{"type":"kubernetes.io/service-account-token"}`: false, `{"metadata":{"namespace":"kube-system"}}`: false,
	} {
		if got, err := tenant.Shows(secrets, []byte(object)); got != want || err != nil {
			t.Errorf("%s: %v, %v", object, got, err)
		}
	}
	if !tenant.MayHide(secrets) || (*Mapping)(nil).MayHide(secrets) {
		t.Error("Secrets may be hidden only where namespaces have other names")
	}
}

func TestPatchesOfOperationsAreMapped(t *testing.T) {
	bindings := schema.GroupResource{Group: "rbac.authorization.k8s.io", Resource: "rolebindings"}
	policies := schema.GroupResource{Group: "networking.k8s.io", Resource: "networkpolicies"}
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for _, tt := range []struct {
		resource    schema.GroupResource
		patch, want string
	}{
		{bindings, `[{"op":"add","path":"/subjects/-","value":{"kind":"ServiceAccount","name":"web","namespace":"x"}}]`, `[{"op":"add","path":"/subjects/-","value":{"kind":"ServiceAccount","name":"web","namespace":"tenant-a-x"}}]`},
		{bindings, `[{"op":"test","path":"/metadata/namespace","value":"x"}]`, `[{"op":"test","path":"/metadata/namespace","value":"tenant-a-x"}]`},
		{bindings, `[{"op":"replace","path":"","value":{"metadata":{"namespace":"x"}}}]`, `[{"op":"replace","path":"","value":{"metadata":{"namespace":"tenant-a-x"}}}]`},
		{bindings, `[{"op":"remove","path":"/metadata/labels/a"}]`, `[{"op":"remove","path":"/metadata/labels/a"}]`},
		{bindings, `[{"from":"/subjects/0","op":"move","path":"/subjects/1"}]`, `[{"from":"/subjects/0","op":"move","path":"/subjects/1"}]`},
		{bindings, `[{"from":"/metadata/namespace","op":"copy","path":"/metadata/labels/a"}]`, ""},
		{bindings, `[{"from":"/metadata","op":"copy","path":"/data"}]`, ""},
		{bindings, `[{"from":"/metadata/labels/a","op":"copy","path":"/metadata/labels/b"}]`, `[{"from":"/metadata/labels/a","op":"copy","path":"/metadata/labels/b"}]`},
		{bindings, `[{"from":"/subjects/0/name","op":"copy","path":"/subjects/1/namespace"}]`, ""},
		{bindings, `[{"from":"/metadata/annotations/x","op":"copy","path":"/metadata/namespace"}]`, ""},
		{bindings, `[{"from":"/metadata/annotations/x","op":"move","path":"/subjects/0/namespace"}]`, ""},
		{bindings, `[{"from":"/metadata/annotations/x","op":"copy","path":"/subjects/0/name"}]`, ""},
		{bindings, `[{"from":"/subjects/0/0","op":"move","path":"/subjects/1"}]`, ""},
		{bindings, `[{"from":"/roleRef","op":"copy","path":"/subjects/-"}]`, ""},
		{bindings, `[{"from":"/roleRef","op":"copy","path":"/subjects/-1"}]`, ""},
		{bindings, `[{"from":"/metadata/labels","op":"copy","path":"/metadata"}]`, ""},
		{bindings, `[{"from":"/metadata/labels","op":"copy","path":""}]`, ""},
		{deployments, `[{"op":"add","path":"/metadata/annotations/x","value":"kube-system"},{"from":"/metadata/annotations/x","op":"copy","path":"/spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaces/0"}]`, ""},
		{deployments, `[{"from":"/metadata/annotations","op":"copy","path":"/spec/template/spec/affinity"}]`, ""},
		{deployments, `[{"from":"/metadata/labels","op":"move","path":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaceSelector/matchLabels"}]`, ""},
		{deployments, `[{"from":"/spec/template/spec/affinity/podAffinity","op":"copy","path":"/spec/template/spec/affinity/podAntiAffinity"}]`, ""},
		{deployments, `[{"from":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0","op":"copy","path":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/-"}]`, `[{"from":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0","op":"copy","path":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/-"}]`},
		{deployments, `[{"from":"/spec/template/spec/containers/0","op":"copy","path":"/spec/template/spec/containers/-"}]`, `[{"from":"/spec/template/spec/containers/0","op":"copy","path":"/spec/template/spec/containers/-"}]`},
		{deployments, `[{"from":"/metadata/labels","op":"copy","path":"/spec/template/metadata/labels"}]`, `[{"from":"/metadata/labels","op":"copy","path":"/spec/template/metadata/labels"}]`},
		{policies, `[{"from":"/metadata/labels/x","op":"copy","path":"/spec/egress/0/to/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name"}]`, ""},
		{policies, `[{"from":"/spec/podSelector","op":"copy","path":"/spec/ingress/0/from/0/namespaceSelector"}]`, ""},
		{policies, `[{"op":"remove","path":"/spec/ingress/0/from/0/namespaceSelector/matchExpressions/0/key"}]`, ""},
		{policies, `[{"op":"add","path":"/spec/ingress/0/from/0/namespaceSelector/matchExpressions/0/values/0","value":"x"}]`, ""},
		{policies, `[{"op":"add","path":"/spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name","value":"x"}]`, `[{"op":"add","path":"/spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name","value":"tenant-a-x"}]`},
		{policies, `{}`, ""},
		{bindings, `[{"op":"replace","path":"x/subjects/0/namespace","value":"kube-system"}]`, ""},
		{bindings, `[{"op":"copy","from":"x/metadata/namespace","path":"/metadata/labels/a"}]`, ""},
	} {
		got, err := tenant.Operations(tt.resource, []byte(tt.patch))
		if (err == nil) != (tt.want != "") || err == nil && string(got) != tt.want {
			t.Errorf("%s: got %s, %v", tt.patch, got, err)
		}
	}
}

func TestStrategicMergesAreMapped(t *testing.T) {
	got, err := tenant.Written(schema.GroupResource{Resource: "pods"}, []byte(`{"spec":{"affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"$deleteFromPrimitiveList/namespaces":["x"],"$patch":"merge"}]}}}}`))
	if want := `{"spec":{"affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"$deleteFromPrimitiveList/namespaces":["tenant-a-x"],"$patch":"merge"}]}}}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

// The page for operators has the table that the code has.
func TestEveryResourceWithPlacesIsInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/virtual-views.md")
	if err != nil {
		t.Fatal(err)
	}
	for r := range ofResource {
		if !regexp.MustCompile("`" + regexp.QuoteMeta(r.Resource) + "`").Match(page) {
			t.Errorf("docs/virtual-views.md does not say that names are exchanged in `%s`", r.Resource)
		}
	}
}

// Whatever a tenant writes he reads back, and nothing of the cluster's names with it.
func FuzzWhatIsWrittenIsReadBack(f *testing.F) {
	var all []schema.GroupResource
	for _, p := range places {
		for r := range strings.FieldsSeq(p.resources) {
			group, resource, _ := strings.Cut(r, "/")
			all = append(all, schema.GroupResource{Group: group, Resource: resource})
		}
		for path := range strings.FieldsSeq(p.paths) {
			if p.sort != managers {
				f.Add(len(all)-1, documentWith(path, samples[p.sort][1]))
			}
		}
	}
	f.Fuzz(func(t *testing.T, n int, text string) {
		var was, is any
		if n < 0 || n >= len(all) || !body.Unambiguous([]byte(text)) || json.Unmarshal([]byte(text), &was) != nil {
			return
		}
		plain, err := json.Marshal(was)
		if err != nil || strings.Contains(string(plain), tenant.prefix) || strings.Contains(string(plain), `\`) {
			return // he does not know it
		}
		written, err := tenant.Written(all[n], []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		read, err := tenant.Object(all[n], written)
		if err != nil || json.Unmarshal(read, &is) != nil || !reflect.DeepEqual(was, is) || strings.Contains(string(read), tenant.prefix) {
			t.Errorf("%s: %s\nis written as %s\nand read as %s, %v", all[n], text, written, read, err)
		}
	})
}
