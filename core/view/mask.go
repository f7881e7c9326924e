package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portico-proxy/portico/core/document"
)

// A Mask is what is taken out of objects: paths are RFC 6901 pointers, in which
// * stands for every element or member, as in /spec/containers/*/env.
type Mask []string

// needed is what clients cannot do without, and what tells objects apart.
var needed = []string{"/kind", "/apiVersion", "/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/resourceVersion"}

// traces are where fields and their values are told of once more.
var traces = Mask{
	"/metadata/managedFields",
	"/metadata/annotations/" + document.Token("kubectl.kubernetes.io/last-applied-configuration"),
}

// CheckMask says what is wrong with one path of a mask.
func CheckMask(path string) error {
	steps := strings.Split(path, "/")
	switch {
	case steps[0] != "" || len(steps) < 2 || slices.Contains(steps[1:], ""):
		return fmt.Errorf("%q is no path: begin it with /, as in /spec/containers/*/env", path)
	case slices.ContainsFunc(needed, func(n string) bool { return covers(steps, strings.Split(n, "/")) }):
		return fmt.Errorf("%q would take away what clients need of every object", path)
	}
	return nil
}

// Covers reports whether the mask takes out the field at a pointer, or something
// of it.
func (m Mask) Covers(pointer string) bool {
	field := strings.Split(pointer, "/")
	return slices.ContainsFunc(m, func(path string) bool {
		steps := strings.Split(path, "/")
		return covers(steps, field) || covers(field, steps)
	})
}

// covers reports whether what steps lead to is, or holds, what field leads to.
func covers(steps, field []string) bool {
	if len(steps) > len(field) {
		return false
	}
	for i, step := range steps {
		if step != field[i] && step != "*" && field[i] != "*" {
			return false
		}
	}
	return true
}

// Apply returns an object without what the mask takes out, and without what would
// tell of that. The object itself is left alone.
func (m Mask) Apply(object []byte) ([]byte, error) {
	if len(m) == 0 {
		return object, nil
	}
	return slices.Concat(m, traces).takeOut(object)
}

func (m Mask) takeOut(object []byte) ([]byte, error) {
	for _, path := range m {
		steps := strings.Split(path, "/")[1:]
		for i := range steps {
			steps[i] = document.Name(steps[i])
		}
		var err error
		if object, err = strip(object, steps); err != nil {
			return nil, fmt.Errorf("mask %s: %w", path, err)
		}
	}
	return object, nil
}

// MetadataOnly returns an object without all but its metadata, which no longer
// tells of the rest.
func MetadataOnly(object []byte) ([]byte, error) {
	left, err := document.Edit(object, func(name, value []byte) ([]byte, error) {
		if n := string(name); n == "kind" || n == "apiVersion" || n == "metadata" {
			return value, nil
		}
		return nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("leave metadata: %w", err)
	}
	return traces.takeOut(left)
}

// strip takes out what steps lead to from a value; nil is left of what they lead to
// themselves. However many members a * stands for, all are taken out in one pass.
func strip(value []byte, steps []string) ([]byte, error) {
	if len(steps) == 0 {
		return nil, nil
	}
	return document.Edit(value, func(name, below []byte) ([]byte, error) {
		if steps[0] != "*" && steps[0] != string(name) {
			return below, nil
		}
		return strip(below, steps[1:])
	})
}
