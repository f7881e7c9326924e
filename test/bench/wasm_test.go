package bench

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/filters/wasm"
	"github.com/portico-proxy/portico/plugins/tck"
)

// manyAnswers is how often a guest is asked for one figure: a single answer is
// over before a clock has ticked often enough.
const manyAnswers = 20000

// guestPod is what the guest looks at three fields of, all of which are before
// its end.
const guestPod = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"shop","labels":{"app":"shop","team":"web"}},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}]},"status":{"phase":"Running"}}`

// BenchmarkWasm is the time of one answer of a filter that reads three fields
// of an object, or two of a request, and decides. Its limits are enforced.
func BenchmarkWasm(b *testing.B) {
	for _, language := range tck.Languages {
		b.Run(language, func(b *testing.B) {
			code := tck.Guest(b, language)
			engine, err := wasm.NewEngine("", logr.Discard())
			if err != nil {
				b.Fatal(err)
			}
			m, err := engine.Load(b.Context(), wasm.Spec{
				Name: "bench", Code: code, Config: []byte(tck.Config), MemoryMiB: 16, Instances: 2, WallClock: time.Second,
			})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				ctx := context.WithoutCancel(b.Context())
				m.Close(ctx)
				if err := engine.Close(ctx); err != nil {
					b.Error(err)
				}
			})
			facts := (&wasm.Described{User: "jane", Verb: "create", Resource: "pods", Headers: map[string]string{"X-Case": "warn"}}).Facts()
			pair := wasm.Pair{Current: []byte(guestPod)}
			b.Run("request", answers(func() error { _, err := m.Request(b.Context(), facts); return err }))
			b.Run("object", answers(func() error { _, err := m.Object(b.Context(), facts, pair); return err }))
		})
	}
}

// answers measures one of many.
func answers(ask func() error) func(*testing.B) {
	return func(b *testing.B) {
		var took time.Duration
		for b.Loop() {
			began := time.Now()
			for range manyAnswers {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
			took += time.Since(began)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(took.Microseconds())/float64(b.N*manyAnswers), "µs/answer")
	}
}
