package rego

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// An inputPlan makes the input of a policy that reads only some fields: what it
// does not read costs nothing, and does not tell decisions apart.
type inputPlan struct {
	top     []*field            // fields of input itself
	objects map[string][]*field // fields of the objects in input
	names   map[string]*ast.Term
	used    []*field // all of them
}

// planInput is a plan for the fields that refs, as in user.name, name: those that
// they are, or are a part of, or have as a part. No parts at all are everything.
func planInput(refs []string) *inputPlan {
	p := &inputPlan{objects: map[string][]*field{}, names: map[string]*ast.Term{}}
	for i := range fields {
		f := &fields[i]
		if !slices.ContainsFunc(refs, func(ref string) bool { return touches(ref, f.path) }) {
			continue
		}
		p.used = append(p.used, f)
		object, name := f.parent()
		p.names[name] = ast.StringTerm(name)
		if object == "" {
			p.top = append(p.top, f)
			continue
		}
		p.names[object] = ast.StringTerm(object)
		p.objects[object] = append(p.objects[object], f)
	}
	return p
}

func touches(ref, path string) bool {
	return ref == "" || ref == path || strings.HasPrefix(path, ref+".") || strings.HasPrefix(ref, path+".")
}

// key tells inputs apart that may be decided differently. It appends to to.
func (p *inputPlan) key(to []byte, facts *Facts) []byte {
	for _, f := range p.used {
		switch {
		case f.text != nil:
			to = appendText(to, f.text(facts))
		case f.number != nil:
			to = binary.AppendVarint(to, f.number(facts))
		case f.flag != nil && f.flag(facts):
			to = append(to, 1)
		case f.flag != nil:
			to = append(to, 0)
		case f.list != nil:
			to = appendTexts(to, f.list(facts))
		default:
			to = appendLists(to, f.lists(facts))
		}
	}
	return to
}

// appendText puts the length before the text, so that no two lists of texts read
// the same.
func appendText(to []byte, s string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

func appendTexts(to []byte, list []string) []byte {
	to = binary.AppendUvarint(to, uint64(len(list)))
	for _, s := range list {
		to = appendText(to, s)
	}
	return to
}

func appendLists(to []byte, lists map[string][]string) []byte {
	to = binary.AppendUvarint(to, uint64(len(lists)))
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		to = appendTexts(appendText(to, name), lists[name])
	}
	return to
}

// value is the input itself.
func (p *inputPlan) value(facts *Facts) ast.Value {
	pairs := make([][2]*ast.Term, 0, len(p.top)+len(p.objects))
	for _, f := range p.top {
		pairs = append(pairs, [2]*ast.Term{p.names[f.path], f.term(facts)})
	}
	for object, inside := range p.objects {
		of := make([][2]*ast.Term, len(inside))
		for i, f := range inside {
			_, name := f.parent()
			of[i] = [2]*ast.Term{p.names[name], f.term(facts)}
		}
		pairs = append(pairs, [2]*ast.Term{p.names[object], ast.ObjectTerm(of...)})
	}
	return ast.NewObject(pairs...)
}

func (f *field) term(facts *Facts) *ast.Term {
	switch {
	case f.text != nil:
		return ast.StringTerm(f.text(facts))
	case f.number != nil:
		return ast.NewTerm(ast.Number(numberText(f.number(facts))))
	case f.flag != nil:
		return ast.BooleanTerm(f.flag(facts))
	case f.list != nil:
		return textTerms(f.list(facts))
	}
	var pairs [][2]*ast.Term
	for name, list := range f.lists(facts) {
		pairs = append(pairs, [2]*ast.Term{ast.StringTerm(name), textTerms(list)})
	}
	return ast.ObjectTerm(pairs...)
}

func textTerms(list []string) *ast.Term {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = ast.StringTerm(s)
	}
	return ast.ArrayTerm(terms...)
}
