package chaos

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// heard is a follower of a and b that listed at 1 and heard the rest.
func heard(events ...answer) *follower {
	f := &follower{state: map[string]uint64{}, segments: []*segment{{from: 1, to: 1}}, r: rand.New(rand.NewPCG(0, 0))}
	for _, e := range events {
		f.hear(e.Reason, e)
	}
	return f
}

func event(kind, name, rv string) answer {
	a := answer{Reason: kind}
	a.Metadata.Name, a.Metadata.ResourceVersion = name, rv
	return a
}

func TestLostDoubledAndMisplacedEventsAreFoundOut(t *testing.T) {
	whole := []answer{event("ADDED", "a", "2"), event("MODIFIED", "a", "3"), event("DELETED", "a", "4"), event("ADDED", "b", "5"), event("BOOKMARK", "", "6")}
	if wrong := compare([]*follower{heard(whole...), heard(whole...), heard(whole[:2]...)}); len(wrong) != 0 {
		t.Errorf("nothing is wrong, and %v", wrong)
	}
	for name, c := range map[string]struct {
		events []answer
		want   string
	}{
		"lost":      {[]answer{whole[0], whole[2], whole[3]}, "missed the event at 3"},
		"doubled":   {[]answer{whole[0], whole[1], whole[1]}, "after 3"},
		"misplaced": {[]answer{whole[0], whole[2], whole[1]}, "after 4"},
		"unmade":    {[]answer{whole[1]}, "there before: false"},
		"past":      {[]answer{whole[4], whole[3]}, "after 6"},
	} {
		wrong := strings.Join(compare([]*follower{heard(whole...), heard(c.events...)}), "\n")
		if !strings.Contains(wrong, c.want) {
			t.Errorf("%s: found %q, want %q", name, wrong, c.want)
		}
	}
}

func TestStaleReadsAndLostWritesAreFoundOut(t *testing.T) {
	create := cachetest.Operation{Key: "a", Kind: cachetest.Create, Value: "1"}
	read := cachetest.Operation{Key: "a"}
	at := func(from, to int64, o cachetest.Operation, outcome string) porcupine.Operation {
		return porcupine.Operation{Call: from, Return: to, Input: o, Output: outcome}
	}
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"current":            {[]porcupine.Operation{at(1, 2, create, cachetest.Done), at(3, 4, read, "1")}, true},
		"stale":              {[]porcupine.Operation{at(1, 2, create, cachetest.Done), at(3, 4, read, "")}, false},
		"back":               {[]porcupine.Operation{at(1, 9, create, cachetest.Unknown), at(2, 3, read, "1"), at(4, 5, read, "")}, false},
		"written in the end": {[]porcupine.Operation{at(1, 9, create, cachetest.Unknown), at(2, 3, read, ""), at(4, 5, read, "1")}, true},
		"never written":      {[]porcupine.Operation{at(1, 9, create, cachetest.Unknown), at(2, 3, read, "")}, true},
		"sent twice":         {[]porcupine.Operation{at(1, 2, create, cachetest.Refused)}, false},
	} {
		if got := porcupine.CheckOperations(cachetest.Register, c.ops); got != c.want {
			t.Errorf("%s: can have happened: %t", name, got)
		}
	}
}
