package limit

import (
	"encoding/json"
	"math"
	"testing"
)

// FuzzDecode holds what is taken for a limit to the bounds that limits have.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"a","key":["u"],"tokens":{"rate":1,"burst":2},"cost":{"from":"response_bytes","per":10},"onExceed":"delay","maxDelay":"500ms"}`))
	f.Add([]byte(`{"id":"a","key":["u"],"inFlight":{"max":1e99},"mode":"Audit","message":"no"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var v any
		if json.Unmarshal(raw, &v) != nil {
			return
		}
		l, err := Decode(v)
		if err != nil {
			return
		}
		if !idPattern.MatchString(l.ID) || len(l.Key) == 0 || len(l.Key) > maxKeyParts || len(l.Message) > maxMessage || l.MaxDelay <= 0 || l.MaxDelay > longest {
			t.Fatalf("%s is taken for %+v", raw, l)
		}
		if l.Tokens == nil && l.InFlight == nil || l.InFlight != nil && l.InFlight.Max < 0 {
			t.Fatalf("%s is taken for a limit of nothing", raw)
		}
		for _, n := range numbersOf(&l) {
			if math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
				t.Fatalf("%s has the number %v", raw, n)
			}
		}
	})
}

func numbersOf(l *Limit) []float64 {
	all := []float64{l.Cost.Fixed, l.Cost.Per}
	if l.Tokens != nil {
		all = append(all, l.Tokens.Rate, l.Tokens.Burst)
	}
	return all
}
