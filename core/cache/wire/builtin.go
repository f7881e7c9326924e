package wire

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Builtin returns the schema of a resource that kube-apiserver itself defines.
//
// Which fields can be selected by is what its registries' GetAttrs and
// AddFieldLabelConversionFunc say, at v1.37. A field that is missing here costs
// nothing but speed: requests that select by it go upstream.
func Builtin(gvr schema.GroupVersionResource, kind string, namespaced bool) *Schema {
	s := &Schema{Resource: gvr, Kind: kind, ListKind: kind + "List", Namespaced: namespaced}
	if of, ok := builtinFields[gvr.GroupResource()]; ok {
		s.Fields, s.Renamed, s.NoNamespaceField = of.fields, of.renamed, of.noNamespace
	}
	return s
}

type builtin struct {
	fields      []Field
	renamed     map[string]string
	noNamespace bool
}

func at(name string, zero string, proto ...protowire.Number) Field {
	return Field{Name: name, JSON: dotted(name), Proto: proto, Zero: zero}
}

func flag(name string, proto ...protowire.Number) Field {
	return Field{Name: name, JSON: dotted(name), Proto: proto, Zero: "false", Bool: true}
}

// Numbers are those of k8s.io/api's generated.proto files. Messages have
// metadata 1, spec 2 and status 3 unless their author thought otherwise.
var builtinFields = map[schema.GroupResource]builtin{
	{Resource: "pods"}: {
		fields: []Field{
			at("spec.nodeName", "", 2, 10),
			at("spec.restartPolicy", "", 2, 3),
			at("spec.schedulerName", "", 2, 19),
			at("spec.serviceAccountName", "", 2, 8),
			flag("spec.hostNetwork", 2, 11),
			at("status.phase", "", 3, 1),
			at("status.podIP", "", 3, 6),
			at("status.nominatedNodeName", "", 3, 11),
		},
		renamed: map[string]string{"spec.host": "spec.nodeName"},
	},
	{Resource: "nodes"}:                  {fields: []Field{flag("spec.unschedulable", 2, 4)}, noNamespace: true},
	{Resource: "namespaces"}:             {fields: []Field{at("status.phase", "", 3, 1)}, noNamespace: true},
	{Resource: "secrets"}:                {fields: []Field{at("type", "", 3)}},
	{Resource: "services"}:               {fields: []Field{at("spec.clusterIP", "", 2, 3), at("spec.type", "", 2, 4)}},
	{Resource: "replicationcontrollers"}: {fields: []Field{at("status.replicas", "0", 3, 1)}},
	{Group: "batch", Resource: "jobs"}: {fields: []Field{
		{Name: "status.successful", JSON: []string{"status", "succeeded"}, Proto: []protowire.Number{3, 5}, Zero: "0"},
	}},
	{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}: {
		fields: []Field{at("spec.signerName", "", 2, 7)}, noNamespace: true,
	},
	{Group: "resource.k8s.io", Resource: "resourceslices"}: {
		fields: []Field{at("spec.nodeName", "", 2, 3), at("spec.driver", "", 2, 1), at("spec.pool.name", "", 2, 2, 1)}, noNamespace: true,
	},
	{Resource: "events"}: {fields: []Field{
		at("involvedObject.kind", "", 2, 1), at("involvedObject.namespace", "", 2, 2), at("involvedObject.name", "", 2, 3),
		at("involvedObject.uid", "", 2, 4), at("involvedObject.apiVersion", "", 2, 5), at("involvedObject.resourceVersion", "", 2, 6),
		at("involvedObject.fieldPath", "", 2, 7), at("reason", "", 3), at("type", "", 9),
	}},
}

// PartField returns the field by which the API server indexes r's objects (the
// Indexers of its registry), so that asking for those that have one value in it
// costs it little; nothing if there is none.
func PartField(r schema.GroupResource) string {
	switch r {
	case schema.GroupResource{Resource: "pods"}, schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
		return "spec.nodeName"
	}
	return ""
}

// CustomField is a field that a CustomResourceDefinition makes selectable. path
// is its jsonPath; only plain ones (".spec.color") are understood.
func CustomField(path string) (Field, bool) {
	if len(path) < 2 || path[0] != '.' {
		return Field{}, false
	}
	for _, step := range dotted(path[1:]) {
		if step == "" || !isIdentifier(step) {
			return Field{}, false
		}
	}
	return Field{Name: path[1:], JSON: dotted(path[1:])}, true
}

func isIdentifier(v string) bool {
	for i := range len(v) {
		c := v[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func dotted(path string) []string { return strings.Split(path, ".") }
