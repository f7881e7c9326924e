package wire

import (
	"bytes"
	"strings"
)

// Memory comes in size classes: an object of 11 KB takes 12. Objects that are
// loaded together lie side by side instead, in packs.
const (
	smallestPack = 8 << 10
	largestPack  = 256 << 10
	// perPack is how many objects a pack should hold at least, so that what is
	// left over at its end is small.
	perPack = 8
)

// A Packer moves objects into memory that they share. The zero Packer is ready.
type Packer struct {
	moved  int // bytes
	room   []byte
	pack   *Pack
	labels map[string][]string // sets of labels, which replicas have in common
	words  map[string]string   // values of fields
}

// A Pack is memory that objects share. As long as one of them is kept, all of it
// is. It is not safe for use by several goroutines.
type Pack struct {
	keys       []string
	size, gone int
}

// Add returns o in memory that it shares with those that came before it, or o
// itself if it is too large for that.
func (p *Packer) Add(o *Object) *Object {
	// Packs grow with what is loaded: a collection of three objects has no use for
	// the largest.
	size := smallestPack
	for size < largestPack && size < p.moved/perPack {
		size *= 2
	}
	p.moved += len(o.Raw)
	if len(o.Raw) > size/perPack {
		return o
	}
	if p.pack == nil || len(o.Raw) > len(p.room) {
		p.room, p.pack = make([]byte, size), &Pack{}
	}
	n := copy(p.room, o.Raw)
	moved := *o
	moved.Raw, p.room = p.room[:n:n], p.room[n:]
	moved.pack = p.pack
	p.share(&moved)
	p.pack.keys = append(p.pack.keys, o.Key)
	p.pack.size += n
	return &moved
}

// share makes o say what others say too in their words.
func (p *Packer) share(o *Object) {
	if p.labels == nil {
		p.labels, p.words = map[string][]string{}, map[string]string{}
	}
	set := strings.Join(o.labels, "\x00")
	if known, ok := p.labels[set]; ok {
		o.labels = known
	} else {
		p.labels[set] = o.labels
	}
	for i, v := range o.fields {
		if known, ok := p.words[v]; ok {
			o.fields[i] = known
		} else {
			p.words[v] = v
		}
	}
}

// Leave notes that o is kept no longer. It returns how many bytes that nobody
// reads any more are kept for others in its pack, and the pack itself once it
// holds so little that the rest had better have memory of its own: then nothing
// is counted for it any more.
func (o *Object) Leave() (gone int, sparse *Pack) {
	p := o.pack
	if p == nil || p.isSparse() {
		return 0, nil
	}
	if p.gone += len(o.Raw); p.isSparse() {
		return len(o.Raw) - p.gone, p
	}
	return len(o.Raw), nil
}

// isSparse reports whether nobody reads a third of p.
func (p *Pack) isSparse() bool { return p.gone*3 > p.size }

// Keys are those of all objects that p was made of.
func (p *Pack) Keys() []string { return p.keys }

// Pack is where o's bytes lie, nil if they have memory of their own.
func (o *Object) Pack() *Pack { return o.pack }

// Unpacked returns o in memory of its own.
func (o *Object) Unpacked() *Object {
	alone := *o
	alone.Raw, alone.pack = bytes.Clone(o.Raw), nil
	return &alone
}
