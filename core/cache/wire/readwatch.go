package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/watch"
)

// Field numbers of metav1.WatchEvent and runtime.RawExtension.
const (
	eventType    = 1
	eventObject  = 2
	extensionRaw = 1
)

// maxFrame bounds a watch event: an object and its wrapping.
const maxFrame = MaxObject + 4<<10

// An Event is one event of an upstream watch.
type Event struct {
	Type watch.EventType
	// Raw is the object as a list's item, but for errors: those are kept as
	// whole as they came.
	Raw []byte
}

// A FrameReader takes a watch's bytes apart into events.
type FrameReader struct {
	r      *bufio.Reader
	format Format
	head   []byte // what built-in JSON objects carry and list items do not
}

// NewFrameReader reads events of s's objects from r.
func (s *Schema) NewFrameReader(f Format, r io.Reader) *FrameReader {
	fr := &FrameReader{r: bufio.NewReaderSize(r, 64<<10), format: f}
	if !s.Custom {
		fr.head = []byte("{" + s.jsonHead())
	}
	return fr
}

// Next returns the next event, or io.EOF where the watch has ended.
func (fr *FrameReader) Next() (Event, error) {
	if fr.format == Protobuf {
		return fr.nextProto()
	}
	return fr.nextJSON()
}

func (fr *FrameReader) nextProto() (Event, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(fr.r, prefix[:]); err == io.EOF {
		return Event{}, io.EOF
	} else if err != nil {
		return Event{}, malformed("frame", err)
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if size > maxFrame {
		return Event{}, ErrTooLarge
	}
	frame, err := readN(fr.r, int64(size))
	if err != nil {
		return Event{}, err
	}
	return splitProtoEvent(frame)
}

func splitProtoEvent(frame []byte) (Event, error) {
	kind, ok := find(frame, eventType)
	object, ok2 := find(frame, eventObject)
	if !ok || !ok2 || kind.typ != protowire.BytesType || object.typ != protowire.BytesType {
		return Event{}, fmt.Errorf("watch event: %w", ErrMalformed)
	}
	e := Event{Type: watch.EventType(frame[kind.value:kind.end])}
	extension := frame[object.value:object.end]
	raw, ok := find(extension, extensionRaw)
	if !ok || raw.typ != protowire.BytesType {
		return Event{}, fmt.Errorf("watch event without object: %w", ErrMalformed)
	}
	e.Raw = extension[raw.value:raw.end]
	if e.Type == watch.Error {
		return e, nil
	}
	inner, err := unwrap(e.Raw)
	e.Raw = inner
	return e, err
}

// unwrap returns the message inside the API server's envelope.
func unwrap(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, envelope) {
		return nil, fmt.Errorf("object without envelope: %w", ErrMalformed)
	}
	b = b[len(envelope):]
	raw, ok := find(b, unknownRaw)
	if !ok || raw.typ != protowire.BytesType {
		return nil, fmt.Errorf("empty envelope: %w", ErrMalformed)
	}
	return b[raw.value:raw.end:raw.end], nil
}

func (fr *FrameReader) nextJSON() (Event, error) {
	line, err := fr.readLine()
	if err != nil {
		return Event{}, err
	}
	var e Event
	err = eachMember(line, func(m jsonMember) bool {
		switch string(m.name) {
		case "type":
			e.Type = watch.EventType(text(line[m.value:m.end]))
		case "object":
			e.Raw = line[m.value:m.end:m.end]
		}
		return true
	})
	if err != nil || e.Type == "" || len(e.Raw) == 0 {
		return Event{}, fmt.Errorf("watch event: %w", ErrMalformed)
	}
	if e.Type != watch.Error && len(fr.head) > 0 && bytes.HasPrefix(e.Raw, fr.head) {
		// The line is ours alone: a brace over the comma makes it a list's item.
		e.Raw = e.Raw[len(fr.head)-1:]
		e.Raw[0] = '{'
	}
	return e, nil
}

// readLine returns one line in memory of its own.
func (fr *FrameReader) readLine() ([]byte, error) {
	var line []byte
	for {
		part, err := fr.r.ReadSlice('\n')
		if len(line)+len(part) > maxFrame {
			return nil, ErrTooLarge
		}
		switch {
		case err == bufio.ErrBufferFull:
			line = append(line, part...)
			continue
		case err == io.EOF && len(line)+len(part) == 0:
			return nil, io.EOF
		case err != nil:
			return nil, malformed("frame", err)
		case line == nil:
			return bytes.Clone(part), nil
		}
		return bytes.Clone(append(line, part...)), nil
	}
}

// ReadObject reads a whole single object, as GET answers it, in the form of a
// list's item.
func (s *Schema) ReadObject(f Format, body []byte) (*Object, error) {
	if f == Protobuf {
		raw, err := unwrap(body)
		if err != nil {
			return nil, err
		}
		return s.Parse(f, raw)
	}
	raw := bytes.TrimRight(body, "\n")
	head := []byte("{" + s.jsonHead())
	if !s.Custom && bytes.HasPrefix(raw, head) {
		raw = append([]byte("{"), raw[len(head):]...)
	}
	if !json.Valid(raw) {
		return nil, fmt.Errorf("object: %w", ErrMalformed)
	}
	return s.Parse(f, raw)
}
