package v1alpha1

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestValidateKeepsTheRulesOfNodePolicies(t *testing.T) {
	edge := MeantNodes{Names: []string{"edge-1"}}
	masked := func(m NodeMask) NodePolicySpec { return NodePolicySpec{Nodes: edge, Masks: []NodeMask{m}} }
	wrong := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
	tests := map[string]struct {
		spec NodePolicySpec
		want string // "" if it is good
	}{
		"names":           {NodePolicySpec{Nodes: edge}, ""},
		"all":             {NodePolicySpec{Nodes: MeantNodes{Selector: &metav1.LabelSelector{}}}, ""},
		"none":            {NodePolicySpec{}, "spec.nodes"},
		"selector":        {NodePolicySpec{Nodes: MeantNodes{Selector: wrong}}, "spec.nodes.selector"},
		"mode":            {NodePolicySpec{Nodes: edge, Mode: "Try"}, "spec.mode"},
		"placement":       {NodePolicySpec{Nodes: edge, Placement: "Moon"}, "spec.placement"},
		"nameless-read":   {NodePolicySpec{Nodes: edge, Reads: []NodeRead{{}}}, "spec.reads[0].resource"},
		"read-selector":   {NodePolicySpec{Nodes: edge, Reads: []NodeRead{{Resource: "pods", Selector: wrong}}}, "spec.reads[0].selector"},
		"mask":            {masked(NodeMask{Resource: "pods", Fields: []string{"/spec/containers/*/env", "/metadata/labels/a~1b"}, Callers: []NodeCaller{CallerPods}}), ""},
		"metadata-only":   {masked(NodeMask{Resource: "secrets", MetadataOnly: true}), ""},
		"mask-of-nothing": {masked(NodeMask{Resource: "pods"}), "spec.masks[0]"},
		"mask-both":       {masked(NodeMask{Resource: "pods", Fields: []string{"/spec"}, MetadataOnly: true}), "spec.masks[0]"},
		"mask-no-pointer": {masked(NodeMask{Resource: "pods", Fields: []string{"spec"}}), "spec.masks[0].fields[0]"},
		"mask-needed":     {masked(NodeMask{Resource: "pods", Fields: []string{"/spec", "/metadata/uid"}}), "spec.masks[0].fields[1]"},
		"mask-star":       {masked(NodeMask{Resource: "pods", Fields: []string{"/*/name"}}), "spec.masks[0].fields[0]"},
		"mask-caller":     {masked(NodeMask{Resource: "pods", Fields: []string{"/spec"}, Callers: []NodeCaller{"Root"}}), "spec.masks[0].callers[0]"},
		"write":           {NodePolicySpec{Nodes: edge, Writes: []NodeWrite{{Resource: "leases", Verbs: []string{"update"}}}}, ""},
		"read-kind":       {NodePolicySpec{Nodes: edge, Reads: []NodeRead{{Resource: "Service"}}}, "spec.reads[0].resource"},
		"mask-kind":       {masked(NodeMask{Resource: "Secret", MetadataOnly: true}), "spec.masks[0].resource"},
		"write-kind":      {NodePolicySpec{Nodes: edge, Writes: []NodeWrite{{Resource: "Deployment/scale", Verbs: []string{"update"}}}}, "spec.writes[0].resource"},
		"write-verb":      {NodePolicySpec{Nodes: edge, Writes: []NodeWrite{{Resource: "leases", Verbs: []string{"get"}}}}, "spec.writes[0].verbs[0]"},
		"write-nothing":   {NodePolicySpec{Nodes: edge, Writes: []NodeWrite{{Resource: "leases"}}}, "spec.writes[0].verbs"},
		"all-labels":      {NodePolicySpec{Nodes: edge, OwnNode: OwnNodeWrites{LabelPrefixes: []string{""}}}, "spec.ownNode.labelPrefixes[0]"},
		"no-budget":       {NodePolicySpec{Nodes: edge, Events: &EventBudget{}}, "spec.events"},
		"no-rate":         {NodePolicySpec{Nodes: edge, Events: &EventBudget{PerNode: &EventRate{Burst: 1}}}, "spec.events.perNode"},
		"max-list":        {NodePolicySpec{Nodes: edge, MaxList: -1}, "spec.maxList"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := (&NodePolicy{Spec: tt.spec}).Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}
