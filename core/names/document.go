package names

import (
	"bytes"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/document"
)

// reader exchanges the names in the answer to one request.
type reader struct {
	*Mapping
	info     *request.RequestInfo // as it was asked upstream
	resource schema.GroupResource // whose places an object's are
	kept     string               // a word that the caller has said, so that it tells him nothing
	columns  []string             // of a table
}

// whole are subresources whose objects are those that they belong to.
var whole = []string{"", "status", "ephemeralcontainers", "resize", "finalize", "approval"}

func newReader(m *Mapping, info *request.RequestInfo) *reader {
	r := &reader{Mapping: m, info: info, resource: resourceOf(info)}
	if r.resource != namespaceResource {
		r.kept = info.Name
	}
	if !slices.Contains(whole, info.Subresource) {
		r.resource = schema.GroupResource{} // which has the places that all have
	}
	return r
}

// read returns a document as the tenant gets it.
func (r *reader) read(raw []byte) ([]byte, error) {
	kind := document.Text(raw, "/kind")
	switch {
	case isStatus(raw):
		return r.status(raw)
	case kind == "Table", strings.HasSuffix(kind, "List") && r.isMany():
		return document.Edit(raw, func(name, value []byte) ([]byte, error) {
			switch string(name) {
			case "items", "rows":
				return document.Edit(value, func(_, element []byte) ([]byte, error) { return r.element(string(name), element) })
			}
			return r.member(string(name), value)
		})
	}
	return r.Object(r.resource, raw)
}

func isStatus(raw []byte) bool {
	return document.Text(raw, "/kind") == "Status" && document.Text(raw, "/apiVersion") == "v1"
}

// frame returns an event of a watch. That of an object is the same for all watchers;
// what else there is depends on who asked for what.
func (r *reader) frame(raw []byte) ([]byte, error) {
	switch document.Text(raw, "/object/kind") {
	case "", "Status", "Table":
		return r.event(raw)
	}
	return r.memo.told(r.resource, raw, r.event)
}

func (r *reader) event(raw []byte) ([]byte, error) {
	return document.Edit(raw, func(name, value []byte) ([]byte, error) {
		if string(name) == "object" {
			return r.read(value)
		}
		return value, nil
	})
}

func (r *reader) isMany() bool { return r.info.Verb == "list" || r.info.Verb == "deletecollection" }

// member returns what of a list, or of a table, is neither an item nor a row.
func (r *reader) member(name string, value []byte) ([]byte, error) {
	switch name {
	case "metadata":
		return r.listMeta(value)
	case "columnDefinitions":
		if string(value) == "null" {
			break
		}
		r.columns = nil
		err := wire.EachElement(value, func(column []byte) { r.columns = append(r.columns, document.Text(column, "/name")) })
		return value, err
	case "message", "details": // of a Status
		return edit{Mapping: r.Mapping, out: true}.status(value, r.said, statusDepth)
	}
	return value, nil
}

// listMeta exchanges the name in the token of the next page.
func (r *reader) listMeta(value []byte) ([]byte, error) {
	return document.Edit(value, func(name, below []byte) ([]byte, error) {
		if string(name) != "continue" {
			return below, nil
		}
		return edit{Mapping: r.Mapping, out: true}.text(below, func(token string) (string, error) {
			is := exchangeStart(token, r.info, r.Virtual)
			if is == "" && token != "" {
				return "", ErrForeign
			}
			return is, nil
		})
	})
}

// element returns an item of a list, or a row of a table.
func (r *reader) element(in string, raw []byte) ([]byte, error) {
	if in == "items" {
		return r.Object(r.resource, raw)
	}
	namespace := document.Text(raw, "/object/metadata/namespace")
	return document.Edit(raw, func(name, value []byte) ([]byte, error) {
		switch string(name) {
		case "object":
			return r.Object(r.resource, value)
		case "cells":
			return r.cells(value, namespace)
		}
		return value, nil
	})
}

// A cell of these columns says what people read of a namespace; that of a
// namespace's own name is one.
var columns = map[schema.GroupResource][]string{
	{Resource: "events"}:                                                   {"Object", "Message"},
	{Group: "events.k8s.io", Resource: "events"}:                           {"Object", "Message"},
	{Resource: "persistentvolumes"}:                                        {"Claim"},
	{Group: "rbac.authorization.k8s.io", Resource: "rolebindings"}:         {"Users", "Groups", "ServiceAccounts"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"}:  {"Users", "Groups", "ServiceAccounts"},
	{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}: {"Requestor"},
	{Group: "apiregistration.k8s.io", Resource: "apiservices"}:             {"Service"},
	{Group: "networking.k8s.io", Resource: "ingressclasses"}:               {"Parameters"},
}

// cells exchanges the names in the cells of a row, of an object in a namespace. A
// column of custom resources may show just that.
func (r *reader) cells(raw []byte, namespace string) ([]byte, error) {
	n := -1
	e := edit{Mapping: r.Mapping, out: true}
	return document.Edit(raw, func(_, cell []byte) ([]byte, error) {
		n++
		column := ""
		if n < len(r.columns) {
			column = r.columns[n]
		}
		switch {
		case column == "Name" && r.resource == namespaceResource:
			return e.text(cell, e.name)
		case slices.Contains(columns[r.resource], column):
			return e.text(cell, e.told)
		case column != "Name" && r.isNamespace(cell, namespace):
			return e.text(cell, e.name)
		}
		return cell, nil
	})
}

// isNamespace reports whether a cell is the namespace of its row, or could be where
// the row does not say what that is.
func (r *reader) isNamespace(cell []byte, namespace string) bool {
	if namespace != "" {
		return bytes.Equal(cell, []byte(`"`+namespace+`"`))
	}
	return len(cell) > 2 && cell[0] == '"' && r.Chooses(string(document.Unquote(cell)))
}

// said is [Mapping.Text], but for what the caller has said himself.
func (r *reader) said(was string) (string, error) {
	if r.kept == "" || !r.mentions(r.kept) {
		return r.Text(was), nil
	}
	if was == r.kept {
		return was, nil
	}
	parts := strings.Split(was, `"`+r.kept+`"`)
	for i := range parts {
		parts[i] = r.Text(parts[i])
	}
	return strings.Join(parts, `"`+r.kept+`"`), nil
}

// status returns a refusal.
func (r *reader) status(raw []byte) ([]byte, error) {
	e := edit{Mapping: r.Mapping, out: true}
	return document.Edit(raw, func(name, value []byte) ([]byte, error) {
		switch string(name) {
		case "metadata":
			return r.listMeta(value)
		case "message", "details":
			return e.status(value, r.said, statusDepth)
		}
		return value, nil
	})
}

// statusDepth is how deep texts lie in a member of a Status: details.causes[0].message.
const statusDepth = 3

// status exchanges what texts there are in a part of a Status. What lies deeper than
// any of a Status is left out: a container may have written it, as deep as it likes, and
// each step is a reading of all that is left.
func (e edit) status(value []byte, said func(string) (string, error), depth int) ([]byte, error) {
	switch {
	case isString(value):
		return e.text(value, said)
	case depth == 0 && len(value) > 0 && (value[0] == '{' || value[0] == '['):
		return nil, nil
	}
	return document.Edit(value, func(_, below []byte) ([]byte, error) { return e.status(below, said, depth-1) })
}
