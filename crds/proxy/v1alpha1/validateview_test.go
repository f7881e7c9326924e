package v1alpha1

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestValidateKeepsTheRulesOfViews(t *testing.T) {
	jane, pods := ViewSubjects{Users: []string{"jane"}}, []ViewResource{{Resource: "pods"}}
	bad := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is"}}}
	mask := func(path string) VirtualViewSpec {
		return VirtualViewSpec{Subjects: jane, Masks: []ViewMask{{Resources: pods, Paths: []string{path}}}}
	}
	rule := func(r ViewRule) VirtualViewSpec { return VirtualViewSpec{Subjects: jane, Objects: []ViewRule{r}} }
	for name, tt := range map[string]struct {
		spec VirtualViewSpec
		want string // "" if it is good
	}{
		"subjects-only":   {VirtualViewSpec{Subjects: jane}, ""},
		"everything":      {VirtualViewSpec{Subjects: jane, Mode: ModeAudit, Namespaces: &ViewNamespaces{Names: []string{"a*"}}, Hidden: []ViewResource{{Group: "*", Resource: "*"}}}, ""},
		"good-mask":       {mask("/metadata/annotations/a~1b"), ""},
		"good-rule":       {rule(ViewRule{Resources: pods, Fields: []ViewField{{Path: "/spec/nodeName"}}}), ""},
		"nobody":          {VirtualViewSpec{}, "spec.subjects"},
		"nameless":        {VirtualViewSpec{Subjects: ViewSubjects{Groups: []string{""}}}, "spec.subjects.groups[0]"},
		"mode":            {VirtualViewSpec{Subjects: jane, Mode: "Off"}, "spec.mode"},
		"no-namespaces":   {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{}}, "spec.namespaces"},
		"prefix":          {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{Prefix: "tenant-a-", Renamed: []ViewRenaming{{"default", "a"}, {"b", "default"}}}}, ""},
		"bad-prefix":      {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{Prefix: "tenant"}}, "spec.namespaces.prefix"},
		"bad-name":        {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{Renamed: []ViewRenaming{{"default", "A"}}}}, "spec.namespaces.renamed[0].cluster"},
		"one-name-twice":  {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{Renamed: []ViewRenaming{{"a", "x"}, {"a", "y"}}}}, "spec.namespaces.renamed[1].name"},
		"two-names":       {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{Renamed: []ViewRenaming{{"a", "x"}, {"b", "x"}}}}, "spec.namespaces.renamed[1].cluster"},
		"bad-namespaces":  {VirtualViewSpec{Subjects: jane, Namespaces: &ViewNamespaces{Selector: bad}}, "spec.namespaces.selector"},
		"subresource":     {VirtualViewSpec{Subjects: jane, Hidden: []ViewResource{{Resource: "pods/log"}}}, "spec.hidden[0].resource"},
		"empty-rule":      {rule(ViewRule{Resources: pods}), "spec.objects[0]"},
		"rule-of-nothing": {rule(ViewRule{Names: []string{"a"}}), "spec.objects[0].resources"},
		"bad-selector":    {rule(ViewRule{Resources: pods, Selector: bad}), "spec.objects[0].selector"},
		"nameless-owner":  {rule(ViewRule{Resources: pods, Owners: []ViewOwner{{Kind: "Job"}}}), "spec.objects[0].owners[0]"},
		"bad-field":       {rule(ViewRule{Resources: pods, Fields: []ViewField{{Path: "spec"}}}), "spec.objects[0].fields[0].path"},
		"no-pointer":      {mask("data"), "spec.masks[0].paths[0]"},
		"all":             {mask("/*"), "spec.masks[0].paths[0]"},
		"all-below":       {mask("/*/name"), "spec.masks[0].paths[0]"},
		"metadata":        {mask("/metadata"), "spec.masks[0].paths[0]"},
		"version":         {mask("/metadata/resourceVersion"), "spec.masks[0].paths[0]"},
		"name":            {mask("/metadata/*"), "spec.masks[0].paths[0]"},
		"kind":            {mask("/kind"), "spec.masks[0].paths[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			err := (&VirtualView{Spec: tt.spec}).Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}
