package wire

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PartialKind is what an object's metadata alone is called.
const PartialKind = "PartialObjectMetadata"

// NewPartialWriter returns a Writer that writes s's objects in f as
// PartialObjectMetadata of meta.k8s.io/v1.
//
// Built-in types' metadata is cut out of their bytes. That of custom resources,
// which are kept in JSON, has its members in another order than the API server
// writes them in here, and here it writes protobuf too: they are decoded and
// encoded, as it does itself.
func (s *Schema) NewPartialWriter(f Format) *Writer {
	as := &Schema{Resource: metav1.SchemeGroupVersion.WithResource(s.Resource.Resource), Kind: PartialKind, ListKind: PartialKind + "List"}
	w := as.NewWriter(f)
	w.partial, w.custom = true, s.Custom
	return w
}

// cut returns what of an object is written, and what closes it.
func (w *Writer) cut(raw []byte) (body []byte, end string) {
	if !w.partial {
		return raw, ""
	}
	if w.format == JSON {
		m, _ := member(raw, "metadata")
		if m.start == 1 { // where built-in types have it
			return raw[:m.end], "}"
		}
		return splice(raw[m.start:m.end], 0, 0, []byte("{")), "}"
	}
	_ = eachField(raw, func(f protoField) bool {
		if f.num == objectMetadata {
			body = raw[f.start:f.end]
		}
		return f.num != objectMetadata
	})
	return body, ""
}

// recode returns raw in w's format if it is a custom resource's, with nothing
// but metadata.
func (w *Writer) recode(raw []byte) ([]byte, error) {
	if !w.custom {
		return raw, nil
	}
	var o struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	m, ok := member(raw, "metadata")
	if !ok {
		return nil, ErrMalformed
	}
	if err := json.Unmarshal(raw[m.value:m.end], &o.Metadata); err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	if w.format == JSON {
		return json.Marshal(&o)
	}
	encoded, err := o.Metadata.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write metadata: %w", err)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, objectMetadata, protowire.BytesType), encoded), nil
}

func (w *Writer) recodeAll(items []*Object) ([]*Object, error) {
	if !w.custom {
		return items, nil
	}
	recoded := make([]*Object, len(items))
	for i, o := range items {
		raw, err := w.recode(o.Raw)
		if err != nil {
			return nil, err
		}
		recoded[i] = &Object{Raw: raw}
	}
	return recoded, nil
}
