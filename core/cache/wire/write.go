package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A Writer puts objects of one resource and format together to answers. It
// copies nothing but what it adds.
type Writer struct {
	schema *Schema
	format Format
	proto  []byte // envelope and TypeMeta of one object
	json   string // what follows the opening brace of one object
	// partial objects are their metadata alone. In JSON their lists' items
	// carry kind and apiVersion.
	partial bool
	// custom objects are partial ones that cannot be cut out of bytes.
	custom bool
}

// unknownTail is what generated marshalling writes for empty contentEncoding
// and contentType.
var unknownTail = []byte{0x1a, 0, 0x22, 0}

// NewWriter returns a Writer for s's objects in f.
func (s *Schema) NewWriter(f Format) *Writer {
	w := &Writer{schema: s, format: f, proto: openEnvelope(s.APIVersion(), s.Kind)}
	if !s.Custom {
		w.json = s.jsonHead()
	}
	return w
}

// openEnvelope is what precedes the message's length in the API server's envelope.
func openEnvelope(apiVersion, kind string) []byte {
	var typeMeta []byte
	typeMeta = protowire.AppendTag(typeMeta, typeMetaAPIVersion, protowire.BytesType)
	typeMeta = protowire.AppendString(typeMeta, apiVersion)
	typeMeta = protowire.AppendTag(typeMeta, typeMetaKind, protowire.BytesType)
	typeMeta = protowire.AppendString(typeMeta, kind)
	out := append([]byte(nil), envelope...)
	out = protowire.AppendTag(out, unknownTypeMeta, protowire.BytesType)
	out = protowire.AppendBytes(out, typeMeta)
	return protowire.AppendTag(out, unknownRaw, protowire.BytesType)
}

// Object writes one object as GET answers it.
func (w *Writer) Object(to io.Writer, raw []byte) error {
	raw, err := w.recode(raw)
	if err != nil {
		return err
	}
	body, end := w.cut(raw)
	if w.format == JSON {
		return writeAll(to, []byte("{"+w.json), body[1:], []byte(end+"\n"))
	}
	head := protowire.AppendVarint(append([]byte(nil), w.proto...), uint64(len(body)))
	return writeAll(to, head, body, unknownTail)
}

// Event writes one watch event. scratch saves an allocation; the one to use
// next is returned.
func (w *Writer) Event(to io.Writer, scratch []byte, t watch.EventType, raw []byte) ([]byte, error) {
	raw, err := w.recode(raw)
	if err != nil {
		return scratch, err
	}
	raw, end := w.cut(raw)
	if w.format == JSON {
		scratch = append(scratch[:0], `{"type":"`...)
		scratch = append(scratch, t...)
		scratch = append(scratch, `","object":{`...)
		scratch = append(scratch, w.json...)
		return scratch, writeAll(to, scratch, raw[1:], []byte(end+"}\n"))
	}
	object := len(w.proto) + protowire.SizeBytes(len(raw)) + len(unknownTail)
	scratch = appendEventHead(scratch[:0], t, object)
	scratch = append(scratch, w.proto...)
	scratch = protowire.AppendVarint(scratch, uint64(len(raw)))
	return scratch, writeAll(to, scratch, raw, unknownTail)
}

// appendEventHead begins a frame whose object has size bytes.
func appendEventHead(b []byte, t watch.EventType, size int) []byte {
	extension := protowire.SizeTag(extensionRaw) + protowire.SizeBytes(size)
	frame := protowire.SizeTag(eventType) + protowire.SizeBytes(len(t)) + protowire.SizeTag(eventObject) + protowire.SizeBytes(extension)
	b = binary.BigEndian.AppendUint32(b, uint32(frame))
	b = protowire.AppendTag(b, eventType, protowire.BytesType)
	b = protowire.AppendString(b, string(t))
	b = protowire.AppendTag(b, eventObject, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(extension))
	b = protowire.AppendTag(b, extensionRaw, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// ErrorEvent is the frame of an ERROR event that carries status, which is
// encoded in f.
func ErrorEvent(f Format, status []byte) []byte {
	if f == JSON {
		return fmt.Appendf(nil, `{"type":"ERROR","object":%s}`+"\n", status)
	}
	return append(appendEventHead(nil, watch.Error, len(status)), status...)
}

// List writes a list. Its items' bytes go out as they are.
func (w *Writer) List(to io.Writer, meta metav1.ListMeta, items []*Object) error {
	items, err := w.recodeAll(items)
	if err != nil {
		return err
	}
	if w.format == Protobuf {
		return w.protoList(to, meta, items)
	}
	return w.jsonList(to, meta, items)
}

func (w *Writer) protoList(to io.Writer, meta metav1.ListMeta, items []*Object) error {
	listMeta, err := meta.Marshal()
	if err != nil {
		return fmt.Errorf("marshal list metadata: %w", err)
	}
	size := protowire.SizeTag(listMetadata) + protowire.SizeBytes(len(listMeta))
	for _, o := range items {
		body, _ := w.cut(o.Raw)
		size += protowire.SizeTag(listItems) + protowire.SizeBytes(len(body))
	}
	head := openEnvelope(w.schema.APIVersion(), w.schema.ListKind)
	head = protowire.AppendVarint(head, uint64(size))
	head = protowire.AppendTag(head, listMetadata, protowire.BytesType)
	head = protowire.AppendBytes(head, listMeta)
	if _, err := to.Write(head); err != nil {
		return err
	}
	for _, o := range items {
		body, _ := w.cut(o.Raw)
		head = protowire.AppendTag(head[:0], listItems, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(body)))
		if err := writeAll(to, head, body); err != nil {
			return err
		}
	}
	_, err = to.Write(unknownTail)
	return err
}

func (w *Writer) jsonList(to io.Writer, meta metav1.ListMeta, items []*Object) error {
	head, tail, err := w.aroundJSONItems(meta)
	if err != nil {
		return err
	}
	if w.partial && len(items) == 0 {
		// The API server makes such lists of nothing rather than of none.
		head, tail = append(bytes.TrimSuffix(head, []byte("[")), "null"...), []byte("}\n")
	}
	if _, err := to.Write(head); err != nil {
		return err
	}
	open := []byte("{")
	if w.partial {
		open = []byte("{" + w.json)
	}
	for i, o := range items {
		if i == 1 {
			open = append([]byte(","), open...)
		}
		body, end := w.cut(o.Raw)
		if err := writeAll(to, open, body[1:], []byte(end)); err != nil {
			return err
		}
	}
	_, err = to.Write(tail)
	return err
}

// aroundJSONItems follows the two encoders of the API server: built-in lists
// are structs, lists of custom resources are maps with sorted keys
// (k8s.io/apimachinery/pkg/runtime/serializer/json/collections.go).
func (w *Writer) aroundJSONItems(meta metav1.ListMeta) (head, tail []byte, err error) {
	kind, version := quote(w.schema.ListKind), quote(w.schema.APIVersion())
	if w.schema.Custom {
		head = fmt.Appendf(nil, `{"apiVersion":%s,"items":[`, version)
		tail = fmt.Appendf(nil, `],"kind":%s,"metadata":%s}`+"\n", kind, customListMeta(meta))
		return head, tail, nil
	}
	listMeta, err := json.Marshal(meta)
	if err != nil {
		return nil, nil, fmt.Errorf("marshal list metadata: %w", err)
	}
	head = fmt.Appendf(nil, `{"kind":%s,"apiVersion":%s,"metadata":%s,"items":[`, kind, version, listMeta)
	return head, []byte("]}\n"), nil
}

func customListMeta(meta metav1.ListMeta) string {
	out := `{"continue":` + quote(meta.Continue)
	if meta.RemainingItemCount != nil {
		out += `,"remainingItemCount":` + strconv.FormatInt(*meta.RemainingItemCount, 10)
	}
	return out + `,"resourceVersion":` + quote(meta.ResourceVersion) + `}`
}

func writeAll(to io.Writer, parts ...[]byte) error {
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		if _, err := to.Write(p); err != nil {
			return err
		}
	}
	return nil
}
