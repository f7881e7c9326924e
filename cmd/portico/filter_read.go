package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/filters/wasm"
)

// readCases reads the cases of a filter. An error says in which, and what there
// may be in one.
func readCases(text []byte) ([]filterCase, error) {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(asJSON, &raw); err != nil {
		return nil, fmt.Errorf("it must be a list of cases: %w", err)
	}
	cases := make([]filterCase, len(raw))
	for i := range raw {
		if err := yaml.UnmarshalStrict(raw[i], &cases[i]); err != nil {
			var named struct{ Name string }
			_ = json.Unmarshal(raw[i], &named) // it may have none
			return nil, fmt.Errorf("case %d (%q): %w; %s", i+1, named.Name, err, whatCasesHave())
		}
	}
	return cases, nil
}

func whatCasesHave() string {
	return fmt.Sprintf("a case has %s; its request has %s; what it wants has %s, and refused has %s",
		fieldsOf[filterCase](), fieldsOf[wasm.Described](), fieldsOf[filterAnswer](), fieldsOf[wasm.Denial]())
}

// fieldsOf are the names of T's fields in JSON.
func fieldsOf[T any]() string {
	var names []string
	for f := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
