package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/document"
)

// A mask is what is hidden of a value: fields as a tree of the parts of their
// JSON pointers.
type mask struct {
	hidden  bool             // the value itself is
	instead []byte           // JSON that stands in its place; nil is nothing
	members map[string]*mask // of members and elements; * is any
}

// anyPart stands for any member or element.
const anyPart = "*"

// partsOf splits a JSON pointer.
func partsOf(pointer string) []string {
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, p := range parts {
		parts[i] = document.Name(p)
	}
	return parts
}

// add hides the field that parts lead to.
func (m *mask) add(parts []string, instead []byte) {
	if len(parts) == 0 {
		m.hidden, m.instead = true, instead
		return
	}
	if m.members == nil {
		m.members = map[string]*mask{}
	}
	if m.members[parts[0]] == nil {
		m.members[parts[0]] = &mask{}
	}
	m.members[parts[0]].add(parts[1:], instead)
}

// written are the fields of Secrets that end up in the data that m hides.
func (m *mask) written() *mask {
	data := m.members["data"]
	if data == nil {
		return nil
	}
	return &mask{members: map[string]*mask{"stringData": data.bare()}}
}

// bare hides what m does, with nothing in its place.
func (m *mask) bare() *mask {
	out := &mask{hidden: m.hidden, members: map[string]*mask{}}
	for part, below := range m.members {
		out.members[part] = below.bare()
	}
	return out
}

// masks are those that hold for one value at once.
type masks []*mask

// of returns what holds for a member or an element.
func (s masks) of(part string) masks {
	var all masks
	for _, m := range s {
		if below := m.members[part]; below != nil {
			all = append(all, below)
		}
		if below := m.members[anyPart]; below != nil && part != anyPart {
			all = append(all, below)
		}
	}
	return all
}

// hide reports whether the value itself is hidden, and behind what.
func (s masks) hide() (hidden bool, instead []byte) {
	for _, m := range s {
		if m.hidden {
			return true, m.instead
		}
	}
	return false, nil
}

// touch reports whether a field is hidden, is below one, or has one below it.
func (s masks) touch(parts []string) bool {
	for _, part := range parts {
		if hidden, _ := s.hide(); hidden {
			return true
		}
		s = s.of(part)
	}
	return len(s) > 0
}

// hides reports whether a field is hidden, or is below one.
func (s masks) hides(parts []string) bool {
	for _, part := range parts {
		s = s.of(part)
		if hidden, _ := s.hide(); hidden {
			return true
		}
	}
	return false
}

// touchScale reports whether something is hidden of what the subresource scale shows
// of objects of a resource. Custom resources say themselves where that lies.
func (s masks) touchScale(r schema.GroupResource) bool {
	shown := [][]string{{"metadata", "creationTimestamp"}, {"spec", "replicas"}, {"spec", "selector"}, {"status", "replicas"}}
	if r.Group != "" && r.Group != "apps" {
		shown = append(shown, []string{"spec"}, []string{"status"})
	}
	return slices.ContainsFunc(shown, s.touch)
}

// apply returns raw without what is hidden, in the order and with the bytes that
// it has, and whether anything was.
func (s masks) apply(raw []byte) (seen []byte, changed bool, err error) {
	if len(s) == 0 || len(raw) == 0 || raw[0] != '{' && raw[0] != '[' {
		return raw, false, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	open, err := d.Token()
	if err != nil {
		return nil, false, err
	}
	isObject := open == json.Delim('{')
	out := append(make([]byte, 0, len(raw)), raw[0])
	for d.More() {
		part, value, err := next(d, isObject)
		if err != nil {
			return nil, false, err
		}
		left, edited, err := s.of(part).edit(value)
		if err != nil {
			return nil, false, err
		}
		changed = changed || edited
		if left == nil {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		if isObject {
			name, _ := json.Marshal(part) // a string always can be
			out = append(append(out, name...), ':')
		}
		out = append(out, left...)
	}
	if !changed {
		return raw, false, nil
	}
	return append(out, raw[len(raw)-1]), true, nil
}

// anyElement is the part of an element, wherever it is in its array: masks name
// none by its place.
const anyElement = "-"

// next reads a member or an element.
func next(d *json.Decoder, isObject bool) (part string, value json.RawMessage, err error) {
	part = anyElement
	if isObject {
		name, err := d.Token()
		if err != nil {
			return "", nil, err
		}
		part, _ = name.(string)
	}
	return part, value, d.Decode(&value)
}

// edit returns what is left of a member or an element: nil if it is not there.
func (s masks) edit(value []byte) (left []byte, changed bool, err error) {
	if hidden, instead := s.hide(); hidden {
		return instead, !bytes.Equal(instead, value), nil
	}
	return s.apply(value)
}

var (
	withoutManagers    = masks{maskOf("metadata", "managedFields")}
	withoutLastApplied = masks{maskOf("metadata", "annotations", corev1.LastAppliedConfigAnnotation)}
)

func maskOf(parts ...string) *mask {
	m := &mask{}
	m.add(parts, nil)
	return m
}

// echoes tell once more of fields and what they held.
var echoes = slices.Concat(withoutManagers, withoutLastApplied)

// applyToObject also hides what else of an object of some version tells of hidden
// fields: who has set which, and what was applied last.
func (s masks) applyToObject(raw []byte, of schema.GroupVersion) (seen []byte, changed bool, err error) {
	if len(s) == 0 {
		return raw, false, nil
	}
	raw = bytes.TrimSpace(raw)
	seen, changed, err = s.apply(raw)
	if err == nil && !changed {
		changed, err = s.areApplied(raw, of)
	}
	if err == nil && changed {
		seen, _, err = echoes.apply(seen)
	}
	if err != nil {
		return nil, false, fmt.Errorf("mask fields: %w", err)
	}
	return seen, changed, nil
}

// areApplied reports whether kubectl's note of what it applied has something that
// is hidden, or cannot be read. In other versions fields may be called otherwise.
func (s masks) areApplied(raw []byte, of schema.GroupVersion) (bool, error) {
	if !bytes.Contains(raw, []byte(corev1.LastAppliedConfigAnnotation)) {
		return false, nil
	}
	var o struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return false, err
	}
	note, is := o.Metadata.Annotations[corev1.LastAppliedConfigAnnotation]
	if !is {
		return false, nil
	}
	applied := []byte(strings.TrimSpace(note))
	var head metav1.TypeMeta
	if json.Unmarshal(applied, &head) != nil || head.APIVersion != of.String() {
		return true, nil
	}
	_, changed, err := s.apply(applied)
	return changed || err != nil, nil
}
