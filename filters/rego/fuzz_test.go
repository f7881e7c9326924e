package rego

import (
	"encoding/json"
	"testing"
)

// FuzzAnswer reads what a policy may have said. Sets come as arrays; what is in them
// is the policy's.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"deny":["no"],"warn":["well"],"limits":[{"id":"a","key":["u"],"inFlight":{"max":1}}]}`))
	f.Add([]byte(`{"deny":[""],"warn":[7,{}],"limits":[null]}`))
	f.Add([]byte(`{"selectors":[{"namespaces":["a"]},{"resources":[{"resource":"pods"}],"names":[],"selector":{"matchExpressions":[{"key":"k","operator":"In","values":[]}]}}]}`))
	f.Add([]byte(`{"selectors":[{"resources":[{"group":"*","resource":"*"}],"fields":[{"path":"/a","value":"b"}],"owners":[{"kind":"K","name":"n*"}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var sets map[string]any
		if json.Unmarshal(raw, &sets) != nil {
			return
		}
		said := 0
		for _, set := range sets {
			elements, ok := set.([]any)
			if !ok {
				return // which no compiled policy says
			}
			said += len(elements)
		}
		a, err := read("p", sets)
		if err != nil {
			return
		}
		if got := len(a.Deny) + len(a.Warn) + len(a.Limits) + len(a.Selectors); got != said {
			t.Fatalf("%s says %d things, and %d were heard", raw, said, got)
		}
	})
}
