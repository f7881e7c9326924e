package rego

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// An InputError is what is wrong with a field of an input as an author writes it.
// A request of the proxy's has no such fields, so a policy would be tried with what
// it never meets.
type InputError struct {
	// Path leads to the field, from input on.
	Path []string
	what string
}

// Error names the field, and what to do.
func (e *InputError) Error() string { return e.what }

func wrong(path, format string, a ...any) error {
	return &InputError{strings.Split(path, "."), fmt.Sprintf(format, a...)}
}

// checkInput refuses what requests have not, or have of another type. What an input
// leaves out is not its business.
func checkInput(input map[string]any) error {
	known := map[string]*field{}
	for i := range fields {
		known[fields[i].path] = &fields[i]
		if parent, _ := fields[i].parent(); parent != "" {
			known[parent] = nil
		}
	}
	return checkObject("", input, known)
}

func checkObject(at string, object map[string]any, known map[string]*field) error {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		path := at + name
		f, isKnown := known[path]
		if !isKnown {
			return wrong(path, "there is no input.%s: did you mean input.%s?", path, nearestField(path, known))
		}
		if f != nil {
			if err := f.check(object[name]); err != nil {
				return err
			}
			continue
		}
		inside, isObject := object[name].(map[string]any)
		if !isObject {
			return wrong(path, "input.%s is no object", path)
		}
		if err := checkObject(path+".", inside, known); err != nil {
			return err
		}
	}
	return nil
}

// nearestField is the field that takes the fewest changes to make of a path.
func nearestField(path string, known map[string]*field) string {
	return slices.MinFunc(slices.Sorted(maps.Keys(known)), func(a, b string) int {
		return levenshtein.ComputeDistance(path, a) - levenshtein.ComputeDistance(path, b)
	})
}

// check refuses a value of another type than requests have.
func (f *field) check(v any) error {
	switch {
	case f.text != nil:
		if _, ok := v.(string); !ok {
			return wrong(f.path, "input.%s is a string: put it in quotes", f.path)
		}
	case f.number != nil && !isNumber(v):
		return wrong(f.path, "input.%s is a number", f.path)
	case f.flag != nil:
		if _, ok := v.(bool); !ok {
			return wrong(f.path, "input.%s is true or false", f.path)
		}
	case f.list != nil && !isTexts(v):
		return wrong(f.path, "input.%s is a list of strings", f.path)
	case f.lists != nil:
		lists, ok := v.(map[string]any)
		for _, of := range lists {
			ok = ok && isTexts(of)
		}
		if !ok {
			return wrong(f.path, "input.%s is an object of lists of strings", f.path)
		}
	}
	return nil
}

func isNumber(v any) bool {
	switch v.(type) {
	case json.Number, float64, int64, int:
		return true
	}
	return false
}

func isTexts(v any) bool {
	list, ok := v.([]any)
	return ok && !slices.ContainsFunc(list, func(one any) bool { _, isText := one.(string); return !isText })
}
