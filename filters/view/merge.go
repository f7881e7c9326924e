package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/portico-proxy/portico/core/view"
)

// A merge puts what is hidden of an object back into one that its caller sends.
// The caller has to leave alone what stands in its place: whoever sees no field
// cannot mean to change it.
type merge struct{ at []string }

// errHidden says which field a caller would change without seeing it.
type errHidden struct{ field string }

func (e errHidden) Error() string {
	return fmt.Sprintf("%s: parts of it do not exist for you, so it cannot be changed this way", e.field)
}

// value merges what the caller sent into full, of which he sees seen. is tells
// whether each is there at all.
func (m *merge) value(full, seen, sent any, seenIs, sentIs bool) (any, error) {
	switch {
	case seenIs && reflect.DeepEqual(full, seen):
		return sent, nil
	case !seenIs && !sentIs, seenIs && sentIs && reflect.DeepEqual(seen, sent), !sentIs && isEmpty(seen):
		return full, nil
	case !seenIs || !sentIs:
		return nil, m.refused()
	}
	switch full := full.(type) {
	case map[string]any:
		seen, ok := seen.(map[string]any)
		sent, alsoOK := sent.(map[string]any)
		if ok && alsoOK {
			return m.object(full, seen, sent)
		}
	case []any:
		seen, ok := seen.([]any)
		sent, alsoOK := sent.([]any)
		if ok && alsoOK {
			return m.array(full, seen, sent)
		}
	}
	return nil, m.refused()
}

// isEmpty reports whether clients may leave v out as well.
func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, member := range v {
			if !isEmpty(member) {
				return false
			}
		}
		return true
	}
	return false
}

func (m *merge) refused() error { return errHidden{"/" + strings.Join(m.at, "/")} }

func (m *merge) below(part string, do func() (any, error)) (any, error) {
	m.at = append(m.at, part)
	defer func() { m.at = m.at[:len(m.at)-1] }()
	return do()
}

func (m *merge) object(full, seen, sent map[string]any) (any, error) {
	out := make(map[string]any, len(sent))
	for name, value := range sent {
		if _, known := full[name]; !known {
			out[name] = value
		}
	}
	for name, value := range full {
		saw, seenIs := seen[name]
		wants, sentIs := sent[name]
		if !sentIs && seenIs && reflect.DeepEqual(value, saw) {
			continue // the caller takes away what he sees
		}
		merged, err := m.below(name, func() (any, error) { return m.value(value, saw, wants, seenIs, sentIs) })
		if err != nil {
			return nil, err
		}
		out[name] = merged
	}
	return out, nil
}

// array merges elements by their names, where each has one. Those of other arrays
// cannot be told apart.
func (m *merge) array(full, seen, sent []any) (any, error) {
	fulls, ok := byName(full)
	seens, alsoOK := byName(seen)
	sents, thirdOK := byName(sent)
	if !ok || !alsoOK || !thirdOK {
		return nil, m.refused()
	}
	out := make([]any, 0, len(sent))
	for _, element := range sent {
		name := nameOf(element)
		was, known := fulls[name]
		if !known {
			out = append(out, element)
			continue
		}
		saw, seenIs := seens[name]
		merged, err := m.below(name, func() (any, error) { return m.value(was, saw, element, seenIs, true) })
		if err != nil {
			return nil, err
		}
		out = append(out, merged)
	}
	for _, element := range full {
		name := nameOf(element)
		if _, stays := sents[name]; stays {
			continue
		}
		if saw, seenIs := seens[name]; !seenIs || !reflect.DeepEqual(element, saw) {
			return nil, m.refused() // it would go, with what the caller does not see of it
		}
	}
	return out, nil
}

func nameOf(element any) string {
	object, _ := element.(map[string]any)
	name, _ := object["name"].(string)
	return name
}

// byName returns elements by their names, if each has one of its own.
func byName(all []any) (map[string]any, bool) {
	named := make(map[string]any, len(all))
	for _, element := range all {
		name := nameOf(element)
		if _, twice := named[name]; name == "" || twice {
			return nil, false
		}
		named[name] = element
	}
	return named, true
}

// decode reads JSON, numbers as they are written.
func decode(raw []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, errors.New("is no object")
	}
	return object, nil
}

// restore returns what a caller sent with what is hidden of full put back. Where
// there is nothing to be put back it is what he sent.
func (s masks) restore(full view.Object, sent map[string]any) (map[string]any, error) {
	if err := s.permit(sent); err != nil {
		return nil, err
	}
	seenRaw, changed, err := s.applyToObject(full.JSON, full.Resource.GroupVersion())
	if err != nil || !changed {
		return sent, err
	}
	was, err := decode(full.JSON)
	if err != nil {
		return nil, err
	}
	seen, err := decode(seenRaw)
	if err != nil {
		return nil, err
	}
	// Who has set what is upstream's to say.
	for _, o := range []map[string]any{was, seen, sent} {
		dropManagers(o)
	}
	merged, err := (&merge{}).value(was, seen, sent, true, true)
	if err != nil {
		return nil, err
	}
	object, _ := merged.(map[string]any)
	return object, nil
}

// permit refuses what has a hidden field, but for the text in its place.
func (s masks) permit(sent map[string]any) error {
	raw, err := json.Marshal(sent)
	if err != nil {
		return err
	}
	if _, changed, err := s.apply(raw); err != nil || !changed {
		return err
	}
	return errHidden{"the object"}
}

func dropManagers(o map[string]any) {
	if metadata, ok := o["metadata"].(map[string]any); ok {
		delete(metadata, "managedFields")
	}
}
