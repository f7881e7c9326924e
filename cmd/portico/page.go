package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// A page is a file of YAML, or of JSON, which is YAML too, that an author writes for
// commands that try things.
type page struct {
	name    string
	text    []byte
	root    *yamlv3.Node   // nil if there is nothing
	merging []*yamlv3.Node // what is being checked that others are merged with
}

// readPage reads one. No name is an empty page.
func readPage(name string) (*page, error) {
	if name == "" {
		return &page{}, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p, decoder := &page{name: name, text: text}, yamlv3.NewDecoder(bytes.NewReader(text))
	var document, more yamlv3.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s, line %d: there is a second document, and only the first would be read", name, more.Line)
	}
	p.root = document.Content[0]
	return p, nil
}

// into decodes the page. Fields that there are none for, or that are said twice, are
// errors that name their line.
func (p *page) into(v any) error {
	if p.root == nil {
		return nil
	}
	if err := p.check(p.root, reflect.TypeOf(v).Elem()); err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(p.text, v); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

var raw = reflect.TypeFor[json.RawMessage]()

// check looks for fields that a type has not.
func (p *page) check(n *yamlv3.Node, t reflect.Type) error {
	for n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == raw || n.ShortTag() == "!!null" {
		return nil // whatever it is
	}
	switch {
	case t.Kind() == reflect.Struct && n.Kind == yamlv3.MappingNode:
		return p.checkFields(n, t)
	case t.Kind() == reflect.Map && n.Kind == yamlv3.MappingNode:
		return p.checkMap(n, t)
	case t.Kind() == reflect.Slice && n.Kind == yamlv3.SequenceNode:
		return p.checkAll(n.Content, t.Elem())
	}
	wanted := map[reflect.Kind]string{reflect.Struct: "an object", reflect.Map: "an object", reflect.Slice: "a list"}[t.Kind()]
	if wanted != "" {
		return fmt.Errorf("%s: here must be %s", p.place(n), wanted)
	}
	return nil
}

func (p *page) checkAll(all []*yamlv3.Node, t reflect.Type) error {
	for _, n := range all {
		if err := p.check(n, t); err != nil {
			return err
		}
	}
	return nil
}

func (p *page) checkMap(n *yamlv3.Node, t reflect.Type) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		check, of := p.check, t.Elem()
		if merges(n.Content[i]) {
			check, of = p.checkMerged, t
		}
		if err := check(n.Content[i+1], of); err != nil {
			return err
		}
	}
	return nil
}

// merges reports whether a key says that what behind it stands in the mapping as well.
func merges(key *yamlv3.Node) bool { return key.Value == "<<" && key.ShortTag() == "!!merge" }

// checkMerged checks a mapping, or a list of them, that one of a type is merged with.
func (p *page) checkMerged(n *yamlv3.Node, t reflect.Type) error {
	for n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if slices.Contains(p.merging, n) {
		return fmt.Errorf("%s: it would be merged with itself", p.place(n))
	}
	p.merging = append(p.merging, n)
	defer func() { p.merging = p.merging[:len(p.merging)-1] }()
	if n.Kind != yamlv3.SequenceNode {
		return p.check(n, t)
	}
	for _, one := range n.Content {
		if err := p.checkMerged(one, t); err != nil {
			return err
		}
	}
	return nil
}

func (p *page) checkFields(n *yamlv3.Node, t reflect.Type) error {
	fields := jsonFields(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if merges(key) {
			if err := p.checkMerged(n.Content[i+1], t); err != nil {
				return err
			}
			continue
		}
		at := slices.IndexFunc(fields, func(f jsonField) bool { return f.name == key.Value })
		if at < 0 {
			return fmt.Errorf("%s: there is no field %s: did you mean %s? There are %s", p.place(key), key.Value, nearestOf(key.Value, fields), namesOf(fields))
		}
		if err := p.check(n.Content[i+1], fields[at].of); err != nil {
			return err
		}
	}
	return nil
}

// place is where a node is.
func (p *page) place(n *yamlv3.Node) string { return fmt.Sprintf("%s, line %d", p.name, n.Line) }

// at is where the field is that a path leads to, or as far as it leads.
func (p *page) at(path []string) string {
	n := p.root
	if n == nil {
		return p.name
	}
	line := n.Line
	for _, name := range path {
		key, value := field(n, name)
		if key == nil {
			break
		}
		line, n = key.Line, value
	}
	return fmt.Sprintf("%s, line %d", p.name, line)
}

// field is one of a mapping, or nil if there is none.
func field(n *yamlv3.Node, name string) (key, value *yamlv3.Node) {
	if n.Kind != yamlv3.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// A jsonField is one of a struct.
type jsonField struct {
	name string
	of   reflect.Type
}

func jsonFields(t reflect.Type) (all []jsonField) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, jsonField{name, f.Type})
	}
	return all
}

func namesOf(fields []jsonField) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

// nearestOf is the field whose name takes the fewest changes to make of another.
func nearestOf(name string, fields []jsonField) string {
	return slices.MinFunc(fields, func(a, b jsonField) int {
		return levenshtein.ComputeDistance(name, a.name) - levenshtein.ComputeDistance(name, b.name)
	}).name
}
