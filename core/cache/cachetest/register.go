package cachetest

import "github.com/anishathalye/porcupine"

// Kind is what an operation does with its key.
type Kind uint8

// What operations do.
const (
	Read   Kind = iota
	Put         // whether or not it is there
	Create      // unless it is there
	Change      // if it is there
	Remove      // if it is there
)

// An Operation is one read or write of one key; a list reads every key.
type Operation struct {
	Key  string
	Kind Kind
	// Value is what is written; "" is absence.
	Value string
}

// What may become of a write. A read says what it saw.
const (
	Done     = "done"
	Refused  = "refused"  // it is there, or is not
	Conflict = "conflict" // somebody else was quicker
	Unknown  = "unknown"  // there was no answer: it may have happened, or may yet
)

// Register is what each key has to be like for reads and writes to be
// linearizable.
var Register = porcupine.Model{
	Partition: byKey,
	Init:      func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in, there := input.(Operation), state != ""
		if in.Kind == Read {
			return output == state, state
		}
		fits := in.Kind == Put || there == (in.Kind != Create)
		switch {
		case output == Conflict, output == Unknown && !fits:
			return true, state
		case output == Refused:
			return !fits, state
		}
		return fits, in.Value
	},
}

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	keys := map[string][]porcupine.Operation{}
	for _, o := range history {
		key := o.Input.(Operation).Key
		keys[key] = append(keys[key], o)
	}
	var parts [][]porcupine.Operation
	for _, part := range keys {
		parts = append(parts, part)
	}
	return parts
}
