package lens

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/view"
)

// form is what a caller wants of objects.
type form struct {
	// partial objects are their metadata alone.
	partial bool
	// table says that objects come as rows; include is what of each is wanted.
	table   bool
	include metav1.IncludeObjectPolicy
	// version is that of metadata alone, and of tables.
	version string
}

// formOf reads what r asks for, once it has been narrowed.
func formOf(r *http.Request, verb string) form {
	chosen, ok := view.Agree(r.Header.Get("Accept"))
	if !ok || chosen.Convert == nil {
		return form{}
	}
	partial := wire.PartialKind
	if verb == "list" || verb == "deletecollection" {
		partial += "List"
	}
	version := chosen.Convert.GroupVersion().String()
	switch chosen.Convert.Kind {
	case "Table":
		return form{table: true, version: version, include: metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject"))}
	case partial:
		return form{partial: true, version: version}
	}
	return form{} // which the API server refuses
}

// ask makes r ask for whole objects.
func (f form) ask(r *http.Request, verb string) *http.Request {
	r.Header = r.Header.Clone()
	r.Header.Set("Accept-Encoding", "identity")
	if f.partial {
		r.Header.Set("Accept", "application/json")
	}
	query, changed := r.URL.Query(), false
	if f.table && slices.Contains(included, f.include) {
		query.Set("includeObject", string(metav1.IncludeObject))
		changed = true
	}
	if verb == "list" && askWholeList(query) || changed {
		to := *r.URL
		to.RawQuery = query.Encode()
		r.URL = &to
	}
	return r
}

var included = []metav1.IncludeObjectPolicy{"", metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject}

// askWholeList takes the limit from a list, which any server may do. The token that
// ends a page names the page's last object, and that may not exist for the caller. It
// reports whether there was one.
func askWholeList(query url.Values) bool {
	limit, err := strconv.ParseInt(query.Get("limit"), 10, 64)
	if err != nil || limit <= 0 {
		return false
	}
	query.Del("limit")
	rv := query.Get("resourceVersion")
	if rv != "" && rv != "0" && !query.Has("resourceVersionMatch") {
		query.Set("resourceVersionMatch", string(metav1.ResourceVersionMatchExact)) // which the limit has meant
	}
	return true
}

// render is how a caller gets a whole object.
func (f form) render(raw []byte) []byte {
	if !f.partial {
		return raw
	}
	return f.metadataOf(raw)
}

// metadataOf is the metadata of raw alone.
func (f form) metadataOf(raw []byte) []byte {
	return slices.Concat([]byte(`{"kind":"`+wire.PartialKind+`","apiVersion":"`+f.version+`","metadata":`), wire.Member(raw, "metadata"), []byte("}"))
}

// inRow is how an object stands in a row of a table.
func (f form) inRow(raw []byte) []byte {
	switch {
	case f.include == metav1.IncludeObject:
		return raw
	case f.include == metav1.IncludeNone && !wire.EndsInitialEvents(raw):
		return []byte("null")
	}
	return f.metadataOf(raw)
}

// masked stands for what a cell says that may come from what was masked.
var masked = []byte(`"<masked>"`)

// cellsOf are a row's cells for an object of which seen is left. They are made by the
// API server of the whole object: where that has been changed only those are told
// that come from the metadata that nobody may change.
func cellsOf(columns, cells, whole, seen []byte) ([]byte, error) {
	if isSameToColumns(whole, seen) {
		return cells, nil
	}
	var names []string
	err := wire.EachElement(columns, func(column []byte) { names = append(names, wire.Text(wire.Member(column, "name"))) })
	if err != nil {
		return nil, err
	}
	out := []byte("[")
	i := 0
	err = wire.EachElement(cells, func(cell []byte) {
		if i > 0 {
			out = append(out, ',')
		}
		if i < len(names) && isOfMetadata(names[i]) {
			out = append(out, cell...)
		} else {
			out = append(out, masked...)
		}
		i++
	})
	return append(out, ']'), err
}

// isOfMetadata reports the columns that every resource has.
func isOfMetadata(column string) bool { return column == "Name" || column == "Age" }

// isSameToColumns reports whether nothing was changed that a column can show:
// none shows who manages which field.
func isSameToColumns(whole, seen []byte) bool {
	return bytes.Equal(whole, seen) || bytes.Equal(withoutManaged(whole), withoutManaged(seen))
}

func withoutManaged(raw []byte) []byte {
	metadata := wire.Member(raw, "metadata")
	if metadata == nil {
		return raw
	}
	out, err := wire.WithMember(raw, "metadata", wire.WithoutMember(metadata, "managedFields"))
	if err != nil {
		return raw
	}
	return out
}
