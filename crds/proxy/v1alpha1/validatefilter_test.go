package v1alpha1

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestValidateKeepsTheRulesOfWasmFilters(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	from := func(s WasmSource) WasmFilterSpec { return WasmFilterSpec{Source: s} }
	limited := func(l WasmLimits) WasmFilterSpec {
		return WasmFilterSpec{Source: WasmSource{File: "f.wasm"}, Limits: l}
	}
	looking := func(at ...ContextResource) WasmFilterSpec {
		return WasmFilterSpec{Source: WasmSource{File: "f"}, Capabilities: []WasmCapability{WasmLookup}, ContextResources: at}
	}
	tests := map[string]struct {
		spec WasmFilterSpec
		want string // "" if it is good
	}{
		"file":              {from(WasmSource{File: "f.wasm"}), ""},
		"url":               {from(WasmSource{URL: "https://example.org/f.wasm", SHA256: digest}), ""},
		"oci":               {from(WasmSource{OCI: "example.org/f@sha256:" + digest}), ""},
		"configmap":         {from(WasmSource{ConfigMap: &WasmConfigMap{"shop", "f", "f.wasm"}, SHA256: digest}), ""},
		"inline":            {from(WasmSource{Inline: "AA=="}), ""},
		"inline-is-none":    {from(WasmSource{Inline: "%"}), "spec.source.inline"},
		"none":              {from(WasmSource{}), "spec.source"},
		"two":               {from(WasmSource{File: "f.wasm", Inline: "AA=="}), "spec.source"},
		"plain-http":        {from(WasmSource{URL: "http://example.org/f.wasm", SHA256: digest}), "spec.source.url"},
		"url-unpinned":      {from(WasmSource{URL: "https://example.org/f.wasm"}), "spec.source.sha256"},
		"oci-unpinned":      {from(WasmSource{OCI: "example.org/f:v1"}), "spec.source.oci"},
		"no-digest":         {from(WasmSource{File: "f.wasm", SHA256: "latest"}), "spec.source.sha256"},
		"nameless-map":      {from(WasmSource{ConfigMap: &WasmConfigMap{}, SHA256: digest}), "spec.source.configMap"},
		"no-json":           {WasmFilterSpec{Source: WasmSource{File: "f"}, Config: &runtime.RawExtension{Raw: []byte("{")}}, "spec.config"},
		"http-wasm":         {WasmFilterSpec{Source: WasmSource{File: "f"}, ABI: WasmHTTPWasmV1}, ""},
		"unknown-abi":       {WasmFilterSpec{Source: WasmSource{File: "f"}, ABI: "ProxyWasm"}, "spec.abi"},
		"http-wasm-power":   {WasmFilterSpec{Source: WasmSource{File: "f"}, ABI: WasmHTTPWasmV1, Capabilities: []WasmCapability{WasmKV}}, "spec.capabilities"},
		"unknown-power":     {WasmFilterSpec{Source: WasmSource{File: "f"}, Capabilities: []WasmCapability{"files"}}, "spec.capabilities[0]"},
		"lookup":            {looking(ContextResource{Resource: "namespaces"}, ContextResource{Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop"}), ""},
		"lookup-nothing":    {looking(), "spec.contextResources"},
		"lookup-ungranted":  {WasmFilterSpec{Source: WasmSource{File: "f"}, ContextResources: []ContextResource{{Resource: "pods"}}}, "spec.contextResources"},
		"lookup-everything": {looking(ContextResource{Resource: "*"}), "spec.contextResources[0].resource"},
		"lookup-part":       {looking(ContextResource{Resource: "pods/log"}), "spec.contextResources[0].resource"},
		"lookup-group":      {looking(ContextResource{Group: "apps/v1", Resource: "deployments"}), "spec.contextResources[0].group"},
		"lookup-version":    {looking(ContextResource{Version: "1", Resource: "pods"}), "spec.contextResources[0].version"},
		"lookup-namespace":  {looking(ContextResource{Resource: "pods", Namespace: "../x"}), "spec.contextResources[0].namespace"},
		"lookup-much":       {looking(make([]ContextResource, 17)...), "spec.contextResources"},
		"too-much-memory":   {limited(WasmLimits{MemoryMiB: 4096}), "spec.limits.memoryMiB"},
		"less-than-nothing": {limited(WasmLimits{Instances: -1}), "spec.limits.instances"},
		"too-long":          {limited(WasmLimits{WallClock: &metav1.Duration{Duration: time.Hour}}), "spec.limits.wallClock"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := (&WasmFilter{Spec: tt.spec}).Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}

func TestValidateKeepsTheRulesOfFilterBindings(t *testing.T) {
	ref := FilterRef{Kind: FilterKindWasm, Name: "labels"}
	tests := map[string]struct {
		spec FilterBindingSpec
		want string // "" if it is good
	}{
		"defaults":          {FilterBindingSpec{FilterRef: ref}, ""},
		"kind":              {FilterBindingSpec{FilterRef: FilterRef{Kind: "Wasm", Name: "labels"}}, "spec.filterRef.kind"},
		"nameless":          {FilterBindingSpec{FilterRef: FilterRef{Kind: FilterKindWasm}}, "spec.filterRef.name"},
		"phase":             {FilterBindingSpec{FilterRef: ref, Phase: "Early"}, "spec.phase"},
		"throttle":          {FilterBindingSpec{FilterRef: FilterRef{Kind: FilterKindRego, Name: "lists"}, Phase: PhaseThrottle}, ""},
		"throttle-by-wasm":  {FilterBindingSpec{FilterRef: ref, Phase: PhaseThrottle}, "spec.phase"},
		"failure":           {FilterBindingSpec{FilterRef: ref, FailurePolicy: "Pass"}, "spec.failurePolicy"},
		"mode":              {FilterBindingSpec{FilterRef: ref, Mode: "DryRun"}, "spec.mode"},
		"verbs":             {FilterBindingSpec{FilterRef: ref, Match: RequestMatch{Verbs: []string{"get", "*", "post"}}}, ""},
		"misspelt-verb":     {FilterBindingSpec{FilterRef: ref, Match: RequestMatch{Verbs: []string{"get", "creates"}}}, "spec.match.verbs[1]"},
		"kind-resource":     {FilterBindingSpec{FilterRef: ref, Match: RequestMatch{Resources: []MatchedResource{{Resource: "Deployment/scale"}}}}, "spec.match.resources[0].resource"},
		"subresource":       {FilterBindingSpec{FilterRef: ref, Match: RequestMatch{Resources: []MatchedResource{{Resource: "pods/Metric"}}}}, ""},
		"nameless-resource": {FilterBindingSpec{FilterRef: ref, Match: RequestMatch{Resources: []MatchedResource{{}}}}, "spec.match.resources[0].resource"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := (&FilterBinding{Spec: tt.spec}).Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}

func TestValidateKeepsTheRulesOfRegoPolicies(t *testing.T) {
	tests := map[string]struct {
		spec RegoPolicySpec
		want string // "" if it is good
	}{
		"good":     {RegoPolicySpec{Rego: "package a", Settings: &runtime.RawExtension{Raw: []byte("{}")}, Deadline: &metav1.Duration{Duration: time.Second}}, ""},
		"empty":    {RegoPolicySpec{}, "spec.rego"},
		"both":     {RegoPolicySpec{Rego: "package a", Source: &RegoSource{File: "/a"}}, "spec.rego"},
		"bundle":   {RegoPolicySpec{Source: &RegoSource{File: "/a", SignedBy: &RegoSigner{PublicKey: "key"}}}, ""},
		"unpinned": {RegoPolicySpec{Source: &RegoSource{URL: "https://example.org/a"}}, "spec.source.sha256"},
		"tagged":   {RegoPolicySpec{Source: &RegoSource{OCI: "example.org/a:v1"}}, "spec.source.oci"},
		"nowhere":  {RegoPolicySpec{Source: &RegoSource{}}, "spec.source"},
		"unsigned": {RegoPolicySpec{Source: &RegoSource{File: "/a", SignedBy: &RegoSigner{}}}, "spec.source.signedBy.publicKey"},
		"secret":   {RegoPolicySpec{Source: &RegoSource{File: "/a", SignedBy: &RegoSigner{PublicKey: "key", Algorithm: "HS256"}}}, "spec.source.signedBy.algorithm"},
		"settings": {RegoPolicySpec{Rego: "package a", Settings: &runtime.RawExtension{Raw: []byte("{")}}, "spec.settings"},
		"deadline": {RegoPolicySpec{Rego: "package a", Deadline: &metav1.Duration{Duration: time.Hour}}, "spec.deadline"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := (&RegoPolicy{Spec: tt.spec}).Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}
