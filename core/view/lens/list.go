package lens

import (
	"bytes"
	"net/http"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// applyToList leaves the items of a list that exist for the caller.
func (l *Lens) applyToList(res *http.Response) error {
	from := wire.NewScanner(res.Body)
	b := newBody(res.Body, l.parts(func(to *sink) error { return l.list(to, from) }))
	res.Body = b
	return b.begin()
}

// list writes a list. An answer that is none is a Status, or nothing that is known.
func (l *Lens) list(to *sink, from *wire.Scanner) error {
	if err := from.Take('{'); err != nil {
		return err
	}
	to.WriteByte('{')
	known := false
	for first := true; ; first = false {
		more, err := from.More('}', first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if !first {
			to.WriteByte(',')
		}
		name, err := from.Name()
		if err != nil {
			return err
		}
		itemsOrStatus, err := l.listMember(to, from, name)
		if err != nil {
			return err
		}
		known = known || itemsOrStatus
	}
	to.WriteString("}\n")
	if !known {
		return errUnreadable
	}
	return nil
}

// listMember writes one member of a list. It reports whether that says that the
// document is one whose objects have all been looked at.
func (l *Lens) listMember(to *sink, from *wire.Scanner, name string) (bool, error) {
	writeName(to, name)
	switch {
	case name == "items", name == "rows" && l.form.table:
		return true, l.items(to, from, name == "rows")
	}
	value, err := from.Value()
	if err != nil {
		return false, err
	}
	status := false
	switch {
	case name == "kind":
		status = string(value) == `"Status"`
		if wire.Text(value) == wire.PartialKind+"List" {
			return false, errUnreadable
		}
		if l.form.partial && !status {
			value = []byte(`"` + wire.PartialKind + `List"`)
		}
	case name == "apiVersion":
		if !l.form.table && isMeta(wire.Text(value)) {
			return false, errUnreadable
		}
		if l.form.partial {
			value = []byte(`"` + l.form.version + `"`)
		}
	case name == "metadata":
		l.version = wire.Text(wire.Member(value, "resourceVersion"))
		value = wire.WithoutMember(value, "remainingItemCount")
	case name == "columnDefinitions":
		l.columns = bytes.Clone(value)
	}
	to.Write(value)
	return status, nil
}

func writeName(to *sink, name string) {
	to.WriteByte('"')
	to.WriteString(name)
	to.WriteString(`":`)
}

// items writes the elements of a list, or the rows of a table, that exist.
func (l *Lens) items(to *sink, from *wire.Scanner, rows bool) error {
	c, err := from.Next()
	if err != nil {
		return err
	}
	if c != '[' {
		_, err := from.Value()
		to.WriteString("[]") // for null
		return err
	}
	if err := from.Take('['); err != nil {
		return err
	}
	to.WriteByte('[')
	some := false
	for first := true; ; first = false {
		more, err := from.More(']', first)
		if err != nil {
			return err
		}
		if !more {
			to.WriteByte(']')
			return nil
		}
		item, err := from.Value()
		if err != nil {
			return err
		}
		if item, err = l.element(item, rows); err != nil {
			return err
		}
		if item == nil {
			continue
		}
		l.left++
		if some {
			to.WriteByte(',')
		}
		some = true
		to.Write(item)
		if err := to.pass(); err != nil {
			return err
		}
	}
}

// element is what a caller gets of an item or of a row, nil for nothing.
func (l *Lens) element(raw []byte, row bool) ([]byte, error) {
	one, err := l.judge(raw, row)
	if err != nil || one.seen == nil {
		return nil, err
	}
	if l.keep {
		one.seen, one.cells = bytes.Clone(one.seen), bytes.Clone(one.cells)
		return nil, l.shown.keep(one)
	}
	if row {
		return l.rowOf(one, raw)
	}
	return l.form.render(one.seen), nil
}

// shown is what of an object is shown.
type shown struct {
	key   string
	rv    uint64
	seen  []byte // nil for nothing
	cells []byte // of its row
}

// judge says what is to be shown of an object, or of a row by the object in it.
func (l *Lens) judge(raw []byte, row bool) (shown, error) {
	object := raw
	if row {
		if object = wire.Member(raw, "object"); len(object) == 0 || object[0] != '{' {
			return shown{}, errUnreadable
		}
		if err := l.expects(object); err != nil {
			return shown{}, err
		}
	}
	o, seen, err := l.see(object)
	if err != nil {
		return shown{}, err
	}
	one := shown{key: o.Key, rv: o.ResourceVersion, seen: seen}
	if row && seen != nil {
		one.cells, err = cellsOf(l.columns, wire.Member(raw, "cells"), object, seen)
	}
	return one, err
}

// rowOf makes of the row raw that of one.
func (l *Lens) rowOf(one shown, raw []byte) ([]byte, error) {
	row, err := wire.WithMember(raw, "object", l.form.inRow(one.seen))
	if err != nil {
		return nil, err
	}
	return wire.WithMember(row, "cells", one.cells)
}
