package wire

import (
	"bytes"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WithResourceVersion returns o's bytes under another resourceVersion, as the
// API server sends the object that has left a watcher's selector: the previous
// object under the event's resourceVersion.
func (o *Object) WithResourceVersion(f Format, rv uint64) ([]byte, error) {
	return setResourceVersion(f, o.Raw, rv)
}

func setResourceVersion(f Format, raw []byte, rv uint64) ([]byte, error) {
	value := strconv.FormatUint(rv, 10)
	if f == Protobuf {
		return editProtoMeta(raw, func(meta []byte) []byte {
			return setProtoString(meta, metaResourceVersion, value)
		})
	}
	return editJSONMeta(raw, func(meta []byte) ([]byte, error) {
		return setJSONString(meta, "resourceVersion", value)
	})
}

// A Bookmark is made once of one that the API server sent, and says any
// resourceVersion: what an empty object looks like is the API server's business.
type Bookmark struct {
	format  Format
	plain   []byte
	initial []byte // with the annotation that ends initial events; nil if unknown
}

// NewBookmark makes a Bookmark of one object that came in a BOOKMARK event.
func NewBookmark(f Format, raw []byte) (*Bookmark, error) {
	b := &Bookmark{format: f, plain: raw}
	if !EndsInitialEvents(raw) {
		return b, nil
	}
	b.initial = raw
	var err error
	if f == Protobuf {
		b.plain, err = editProtoMeta(raw, func(meta []byte) []byte { return dropProto(meta, metaAnnotations) })
	} else {
		b.plain, err = editJSONMeta(raw, func(meta []byte) ([]byte, error) { return dropJSON(meta, "annotations"), nil })
	}
	if err != nil {
		return nil, fmt.Errorf("read bookmark: %w", err)
	}
	return b, nil
}

// HasInitial reports whether the bookmark that ends initial events is known.
func (b *Bookmark) HasInitial() bool { return b.initial != nil }

// At returns the object of a bookmark at rv.
func (b *Bookmark) At(rv uint64, endsInitial bool) ([]byte, error) {
	if endsInitial {
		return setResourceVersion(b.format, b.initial, rv)
	}
	return setResourceVersion(b.format, b.plain, rv)
}

// BookmarkResourceVersion returns the resourceVersion that a BOOKMARK event's
// object says.
func BookmarkResourceVersion(f Format, raw []byte) (uint64, error) {
	var m meta
	if f == Protobuf {
		field, ok := find(raw, objectMetadata)
		if !ok || field.typ != protowire.BytesType || m.readProto(raw[field.value:field.end]) != nil {
			return 0, ErrMalformed
		}
	} else {
		j, ok := member(raw, "metadata")
		if !ok || m.readJSON(raw[j.value:j.end]) != nil {
			return 0, ErrMalformed
		}
	}
	return ParseResourceVersion(m.resourceVersion)
}

// EndsInitialEvents reports whether a BOOKMARK event's object carries the
// annotation that ends a stream's initial events. Nothing else in a bookmark
// can hold these bytes: it is an otherwise empty object.
func EndsInitialEvents(raw []byte) bool {
	return bytes.Contains(raw, []byte(metav1.InitialEventsAnnotationKey))
}

// ResponseVersion returns the resourceVersion of the object that a write was
// answered with, in either format, or 0 if there is none: a Status has none,
// and a list's, or a Table's, is not that of its items.
func ResponseVersion(body []byte) uint64 {
	f, raw := JSON, body
	if bytes.HasPrefix(body, envelope) {
		inner, err := unwrap(body)
		if err != nil {
			return 0
		}
		f, raw = Protobuf, inner
	} else if _, isList := member(body, "items"); isList {
		return 0
	} else if _, isTable := member(body, "rows"); isTable {
		return 0 // and may be a list's
	}
	rv, err := BookmarkResourceVersion(f, raw)
	if err != nil {
		return 0
	}
	return rv
}
