package v1alpha1

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestValidateKeepsTheRulesOfTheManifest(t *testing.T) {
	pods := []CachedResource{{Resource: "pods"}}
	jane := []Caller{{Kind: CallerUser, Name: "jane"}}
	tests := map[string]struct {
		spec CachePolicySpec
		want string // "" if it is good
	}{
		"defaults":             {CachePolicySpec{Resources: pods}, ""},
		"session":              {CachePolicySpec{Resources: pods, Reads: ReadsSession, Callers: jane}, ""},
		"parts":                {CachePolicySpec{Resources: pods, Memory: MemoryParts}, ""},
		"stale":                {CachePolicySpec{Resources: pods, StaleIfError: &metav1.Duration{Duration: time.Minute}}, ""},
		"stale-never":          {CachePolicySpec{Resources: pods, StaleIfError: &metav1.Duration{}}, "spec.staleIfError"},
		"stale-for-ever":       {CachePolicySpec{Resources: pods, StaleIfError: &metav1.Duration{Duration: 2 * time.Hour}}, "spec.staleIfError"},
		"stale-and-refused":    {CachePolicySpec{Resources: pods, Memory: MemoryRefuse, StaleIfError: &metav1.Duration{Duration: time.Minute}}, "spec.staleIfError"},
		"no-resources":         {CachePolicySpec{}, "spec.resources"},
		"nameless-resource":    {CachePolicySpec{Resources: []CachedResource{{Group: "apps"}}}, "spec.resources[0].resource"},
		"kind":                 {CachePolicySpec{Resources: []CachedResource{{Resource: "Pod"}}}, "spec.resources[0].resource"},
		"misspelt-memory":      {CachePolicySpec{Resources: pods, Memory: "refuse"}, "spec.memory"},
		"misspelt-reads":       {CachePolicySpec{Resources: pods, Reads: "Sesion"}, "spec.reads"},
		"refused-and-session":  {CachePolicySpec{Resources: pods, Memory: MemoryRefuse, Reads: ReadsSession}, "spec.reads"},
		"callers-but-no-reads": {CachePolicySpec{Resources: pods, Callers: jane}, "spec.callers"},
		"caller-of-no-kind":    {CachePolicySpec{Resources: pods, Reads: ReadsSession, Callers: []Caller{{Name: "jane"}}}, "spec.callers[0].kind"},
		"caller-of-no-name":    {CachePolicySpec{Resources: pods, Reads: ReadsSession, Callers: []Caller{{Kind: CallerGroup}}}, "spec.callers[0].name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := (&CachePolicy{Spec: tt.spec}).Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}
