package rego

import (
	"encoding/json"
	"strconv"
	"strings"
)

func numberText(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

// Schema is the JSON Schema of a policy's input. It is made of [fields], so that
// it is always the input's.
func Schema() map[string]any {
	return schemaOf("What a policy knows of a request.", func(string) bool { return true })
}

// CallerSchema is the JSON Schema of what selectors may depend on.
func CallerSchema() map[string]any {
	return schemaOf("What a policy knows of a caller.", func(path string) bool { return isOfCaller(strings.Split(path, ".")) })
}

func schemaOf(explain string, has func(path string) bool) map[string]any {
	root := object(explain)
	properties := root["properties"].(map[string]any)
	for i := range fields {
		f := &fields[i]
		if !has(f.path) {
			continue
		}
		parent, name := f.parent()
		if parent == "" {
			properties[name] = f.schema()
			continue
		}
		if properties[parent] == nil {
			properties[parent] = object("")
		}
		properties[parent].(map[string]any)["properties"].(map[string]any)[name] = f.schema()
	}
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	return root
}

// object is the schema of one that has no fields but those that are added.
func object(explain string) map[string]any {
	o := map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
	if explain != "" {
		o["description"] = explain
	}
	return o
}

func (f *field) schema() map[string]any {
	texts := map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
	s := map[string]any{"type": "string"}
	switch {
	case f.number != nil:
		s = map[string]any{"type": "integer"}
	case f.flag != nil:
		s = map[string]any{"type": "boolean"}
	case f.list != nil:
		s = texts
	case f.lists != nil:
		s = map[string]any{"type": "object", "additionalProperties": texts}
	}
	s["description"] = f.explain
	return s
}
