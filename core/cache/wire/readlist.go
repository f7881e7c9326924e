package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// envelope precedes every protobuf message of the API server
// (k8s.io/apimachinery/pkg/runtime/serializer/protobuf).
var envelope = []byte("k8s\x00")

// Field numbers of k8s.io/apimachinery/pkg/runtime/generated.proto, message
// Unknown, and of every list.
const (
	unknownTypeMeta = 1
	unknownRaw      = 2

	typeMetaAPIVersion = 1
	typeMetaKind       = 2

	listMetadata = 1
	listItems    = 2
)

// ReadList reads a list from r and calls add for each item as it arrives, so
// that never more than one item is buffered.
func (s *Schema) ReadList(f Format, r io.Reader, add func(*Object) error) (metav1.ListMeta, error) {
	if f == Protobuf {
		return s.readProtoList(bufio.NewReaderSize(r, 64<<10), add)
	}
	return s.readJSONList(r, add)
}

func (s *Schema) readProtoList(r *bufio.Reader, add func(*Object) error) (metav1.ListMeta, error) {
	var meta metav1.ListMeta
	prefix := make([]byte, len(envelope))
	if _, err := io.ReadFull(r, prefix); err != nil || !bytes.Equal(prefix, envelope) {
		return meta, malformed("list without envelope", err)
	}
	outer := &protoStream{r: r, left: -1}
	for {
		num, size, err := outer.next()
		switch {
		case err == io.EOF:
			return meta, nil
		case err != nil:
			return meta, err
		case num == unknownRaw:
			err = s.readProtoItems(&protoStream{r: r, left: size}, &meta, add)
		default:
			err = outer.skip(size)
		}
		if err != nil {
			return meta, err
		}
	}
}

func (s *Schema) readProtoItems(in *protoStream, meta *metav1.ListMeta, add func(*Object) error) error {
	for {
		num, size, err := in.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		value, err := in.bytes(size)
		if err != nil {
			return err
		}
		switch num {
		case listMetadata:
			if err := meta.Unmarshal(value); err != nil {
				return malformed("list metadata", err)
			}
		case listItems:
			o, err := s.parseProto(value)
			if err != nil {
				return err
			}
			if err := add(o); err != nil {
				return err
			}
		}
	}
}

// protoStream reads length-delimited fields, which lists consist of.
type protoStream struct {
	r    *bufio.Reader
	left int64 // bytes of this message still to come; -1 is all there are
}

// next returns the number and the size of the next field. It ends with io.EOF.
func (p *protoStream) next() (protowire.Number, int64, error) {
	if p.left == 0 {
		return 0, 0, io.EOF
	}
	tag, err := p.varint()
	if err == io.EOF && p.left < 0 {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, malformed("tag", err)
	}
	num, typ := protowire.DecodeTag(tag)
	if typ != protowire.BytesType {
		return 0, 0, fmt.Errorf("field %d of a list: %w", num, ErrMalformed)
	}
	size, err := p.varint()
	if err != nil || size > 1<<40 || (p.left >= 0 && int64(size) > p.left) {
		return 0, 0, malformed("length", err)
	}
	if p.left >= 0 {
		p.left -= int64(size)
	}
	return num, int64(size), nil
}

func (p *protoStream) varint() (uint64, error) {
	v, err := binary.ReadUvarint(p.r)
	if err == nil && p.left >= 0 {
		if p.left -= int64(protowire.SizeVarint(v)); p.left < 0 {
			return 0, ErrMalformed
		}
	}
	return v, err
}

func (p *protoStream) skip(size int64) error {
	if _, err := io.CopyN(io.Discard, p.r, size); err != nil {
		return malformed("field", err)
	}
	return nil
}

func (p *protoStream) bytes(size int64) ([]byte, error) { return readN(p.r, size) }

// readN reads n bytes into memory of their own. What is claimed to be large is
// believed as it arrives.
func readN(r io.Reader, n int64) ([]byte, error) {
	if n > MaxObject {
		return nil, ErrTooLarge
	}
	const trusted = 1 << 20
	if n <= trusted {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, malformed("value", err)
		}
		return b, nil
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil {
		return nil, malformed("value", err)
	}
	return b.Bytes(), nil
}

// malformed keeps errors of the connection apart from bad bytes.
func malformed(what string, err error) error {
	if err == nil || errors.Is(err, ErrMalformed) {
		return fmt.Errorf("%s: %w", what, ErrMalformed)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s: %w", what, err)
}

func (s *Schema) readJSONList(r io.Reader, add func(*Object) error) (metav1.ListMeta, error) {
	var meta metav1.ListMeta
	dec := json.NewDecoder(r)
	if err := expect(dec, json.Delim('{')); err != nil {
		return meta, err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return meta, malformed("list", err)
		}
		switch name {
		case "metadata":
			err = dec.Decode(&meta)
		case "items":
			err = s.readJSONItems(dec, add)
		default:
			err = dec.Decode(new(json.RawMessage))
		}
		if err != nil {
			return meta, err
		}
	}
	return meta, expect(dec, json.Delim('}'))
}

func (s *Schema) readJSONItems(dec *json.Decoder, add func(*Object) error) error {
	token, err := dec.Token()
	if err != nil {
		return malformed("items", err)
	}
	if token == nil {
		return nil
	}
	if token != json.Delim('[') {
		return fmt.Errorf("items: %w", ErrMalformed)
	}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return malformed("item", err)
		}
		if len(raw) > MaxObject {
			return ErrTooLarge
		}
		o, err := s.parseJSON(bytes.Clone(raw))
		if err != nil {
			return err
		}
		if err := add(o); err != nil {
			return err
		}
	}
	return expect(dec, json.Delim(']'))
}

func expect(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err != nil || token != want {
		return malformed(want.String(), err)
	}
	return nil
}
