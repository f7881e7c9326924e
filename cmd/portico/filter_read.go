package main

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/wasm"
)

var errNoCases = errors.New("it must be a list of cases, and has none")

// readCases reads the cases of a filter.
func readCases(name string) ([]filterCase, error) {
	p, err := readPage(name)
	if err != nil {
		return nil, err
	}
	var cases []filterCase
	if err := p.into(&cases); err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%s: %w; %s", name, errNoCases, whatCasesHave())
	}
	for i := range cases {
		if err := cases[i].check(); err != nil {
			return nil, fmt.Errorf("%s, case %q: %w", p.place(p.root.Content[i]), cases[i].Name, err)
		}
	}
	return cases, nil
}

var (
	errCasePhase    = errors.New("phase must be Restrict or View")
	errCaseRestrict = errors.New("previous, and dropped and event of what is wanted, are for phase: View")
	errCaseView     = errors.New("phase View is asked about an object: give object or previous")
	errCaseAnswer   = errors.New("a module of phase View neither refuses nor warns: its answer is dropped, event, object or fields")
)

// check says what a case cannot be about.
func (c *filterCase) check() error {
	w := &c.Want
	switch {
	case c.Phase != "" && c.Phase != v1alpha1.PhaseRestrict && c.Phase != v1alpha1.PhaseView:
		return errCasePhase
	case c.Phase != v1alpha1.PhaseView && (c.Previous != nil || w.Dropped || w.Event != ""):
		return errCaseRestrict
	case c.Phase == v1alpha1.PhaseView && c.Object == nil && c.Previous == nil:
		return errCaseView
	case c.Phase == v1alpha1.PhaseView && (w.Refused != nil || len(w.Warnings) > 0):
		return errCaseAnswer
	}
	for pointer := range w.Fields {
		if !document.IsPointer(pointer) {
			return fmt.Errorf("%q is no JSON pointer: begin it with /, as in /metadata/name", pointer)
		}
	}
	return nil
}

func whatCasesHave() string {
	return fmt.Sprintf("a case has %s; its request has %s; what it wants has %s, and refused has %s",
		fieldsOf[filterCase](), fieldsOf[wasm.Described](), fieldsOf[filterAnswer](), fieldsOf[wasm.Denial]())
}

// fieldsOf are the names of T's fields in JSON.
func fieldsOf[T any]() string { return namesOf(jsonFields(reflect.TypeFor[T]())) }
