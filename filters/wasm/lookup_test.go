package wasm

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/tck"
)

// declared are what the guests of the cases may look up.
var declared = []v1alpha1.ContextResource{{Resource: "namespaces"}, {Group: "apps", Resource: "deployments", Namespace: "shop"}}

// looking is a module that may look up the objects of the cases.
func looking(t testing.TB, language string) (*Module, *Known) {
	t.Helper()
	s := spec(tck.LookupGuest(t, language))
	s.Capabilities, s.Known = []abi.Capability{abi.CapabilityLookup}, NewKnown(declared)
	if err := s.Known.Set(raw(tck.Known)); err != nil {
		t.Fatal(err)
	}
	return load(t, s), s.Known
}

func raw(objects map[string][]string) map[string][]json.RawMessage {
	all := map[string][]json.RawMessage{}
	for name, texts := range objects {
		for _, text := range texts {
			all[name] = append(all[name], json.RawMessage(text))
		}
	}
	return all
}

func TestGuestsLookUp(t *testing.T) {
	for _, language := range tck.Languages {
		t.Run(language, func(t *testing.T) {
			m, _ := looking(t, language)
			tck.RunLookup(t, func(c tck.Case) (tck.Answer, error) { return answer(t, m, c) })
			for _, what := range []string{"undeclared", "elsewhere"} {
				for range 3 { // more often than there are instances
					if _, err := m.Request(t.Context(), facts("X-Case", what)); !errors.Is(err, errNotDeclared) {
						t.Errorf("%s: got %v", what, err)
					}
				}
			}
		})
	}
}

func TestNobodyLooksUpWhoWasNotGranted(t *testing.T) {
	code := tck.LookupGuest(t, "c")
	if _, err := engine(t).Load(t.Context(), spec(code)); err == nil || !strings.Contains(err.Error(), "lookup") {
		t.Errorf("got %v", err)
	}
	s := spec(code)
	s.Capabilities = []abi.Capability{abi.CapabilityLookup} // and nothing declared
	if _, err := load(t, s).Request(t.Context(), facts("X-Case", "label")); !errors.Is(err, errNotDeclared) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNotKnownIsNoAnswer(t *testing.T) {
	m, known := looking(t, "c")
	f := bound(t, m, nil)
	namespaces := known.of["namespaces"][0]
	const pod = `{"kind":"Pod","metadata":{"name":"web"}}`
	for step, tt := range map[string]struct {
		lost error
		what string
		want int32
	}{
		"known":               {nil, "missing", 0},
		"lost":                {errNotKnown, "missing", 503},
		"lost, but not asked": {errNotKnown, "nested", 503}, // for the object
	} {
		if err := known.Set(raw(tck.Known)); err != nil {
			t.Fatal(err)
		}
		if tt.lost != nil {
			namespaces.lose(tt.lost)
		}
		got := post(t, f, pod, "X-Case", tt.what)
		if got.Code != tt.want {
			t.Errorf("%s: got %+v", step, got)
		}
		if _, err := m.Request(t.Context(), facts("X-Case", "nested")); err != nil {
			t.Errorf("%s: who asks for something else got %v", step, err)
		}
	}
	namespaces.lose(errNotKnown)
	ignoring := bound(t, m, func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore })
	if got := post(t, ignoring, pod, "X-Case", "missing"); got.Code != 0 || got.Warning != "" || got.Body != pod {
		t.Errorf("where failures are ignored: got %+v", got)
	}
}

func TestNothingIsLookedUpWhileAGuestIsConfigured(t *testing.T) {
	s := spec(hostile(t, `HOST(lookup) long long lookup(void*, int, void*, int, void*, int, void*, int, void*, int);
EXPORT(configure) int f(void) { lookup("namespaces", 10, 0, 0, "shop", 4, 0, 0, 0, 0); return 0; }
EXPORT(on_end) void g(void) {}`))
	s.Capabilities, s.Known = []abi.Capability{abi.CapabilityLookup}, NewKnown(declared)
	if err := s.Known.Set(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := engine(t).Load(t.Context(), s); !errors.Is(err, errTooEarly) {
		t.Errorf("got %v", err)
	}
}

func TestGuestsThatLookUpBadlyFailAlone(t *testing.T) {
	const declaration = `HOST(lookup) long long lookup(void*, unsigned, void*, unsigned, void*, unsigned, void*, unsigned, void*, unsigned);
`
	for name, source := range map[string]string{
		"points-out":   `lookup((void *)0x7fffffff, 9, 0, 0, 0, 0, 0, 0, 0, 0)`,
		"pointer-out":  `lookup("namespaces", 10, 0, 0, "shop", 4, (void *)0xfffffff0, 0xff, 0, 0)`,
		"buffer-out":   `lookup("namespaces", 10, 0, 0, "shop", 4, 0, 0, (void *)0xfffffff0, 0xffffffff)`,
		"name-without": `lookup("namespaces", 10, 0, 0, 0, 5000, 0, 0, 0, 0)`,
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(hostile(t, declaration+`EXPORT(on_request) int f(void) { `+source+`; return 0; }`))
			s.Capabilities, s.Known = []abi.Capability{abi.CapabilityLookup}, NewKnown(declared)
			if err := s.Known.Set(raw(tck.Known)); err != nil {
				t.Fatal(err)
			}
			m := load(t, s)
			for range 3 {
				if _, err := m.Request(t.Context(), facts()); !errors.Is(err, errFailed) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestWhatIsKnownTakesNoMoreMemoryThanItMay(t *testing.T) {
	shared := &memory{limit: 1000}
	a, b := newCollection(declared[0], shared), newCollection(declared[1], shared)
	object := func(n int) []byte { return make([]byte, n) }
	steps := []struct {
		name string
		do   func() error
		want error
	}{
		{"first", func() error { return a.replace(map[objectKey][]byte{{"", "x"}: object(300)}) }, nil},
		{"second", func() error { return b.replace(map[objectKey][]byte{{"shop", "y"}: object(700)}) }, errNoMemory},
		{"grows", func() error { return a.put(objectKey{"", "x"}, object(800)) }, nil},
		{"too-large", func() error { return a.put(objectKey{"", "x"}, object(900)) }, errNoMemory},
		{"another", func() error { return a.put(objectKey{"", "z"}, nil) }, nil},
		{"shrinks", func() error { return a.put(objectKey{"", "x"}, object(1)) }, nil},
		{"second again", func() error { return b.replace(map[objectKey][]byte{{"shop", "y"}: object(600)}) }, nil},
		{"gone", func() error { return b.put(objectKey{"shop", "y"}, nil) }, nil},
		{"removed", func() error { return a.put(objectKey{"", "x"}, nil) }, nil},
	}
	for _, s := range steps {
		if err := s.do(); !errors.Is(err, s.want) {
			t.Errorf("%s: got %v", s.name, err)
		}
		if got, want := shared.taken.Load(), a.size()+b.size(); got != want || got > shared.limit {
			t.Errorf("%s: %d bytes are taken for %d", s.name, got, want)
		}
	}
	b.lose(errNotKnown)
	if err := b.put(objectKey{"shop", "y"}, object(1)); err != nil || b.objects[objectKey{"shop", "y"}] != nil {
		t.Error("what is not known any more is kept")
	}
	if shared.taken.Load() != 0 {
		t.Errorf("%d bytes are taken for nothing", shared.taken.Load())
	}
}

func TestViewsLookNothingUp(t *testing.T) {
	m, _ := looking(t, "c")
	b := &binding{name: "test", spec: &v1alpha1.FilterBindingSpec{Phase: v1alpha1.PhaseView}, module: m}
	if b.becomeView(); b.module != nil || !errors.Is(b.err, errImpure) {
		t.Errorf("got %v", b.err)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, language := range tck.Languages {
		b.Run(language, func(b *testing.B) {
			m, _ := looking(b, language)
			f := facts("X-Case", "label")
			b.ReportAllocs()
			for b.Loop() {
				if v, err := m.Request(b.Context(), f); err != nil || len(v.Warnings) != 1 {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAServerThatRefusesIsBelieved(t *testing.T) {
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, "", errFailed)
	for name, tt := range map[string]struct {
		err     error
		unknown bool // what was known
	}{
		"away":      {io.ErrUnexpectedEOF, false},
		"busy":      {apierrors.NewTooManyRequests("busy", 1), false},
		"forbidden": {refused, true},
		"no-such":   {apierrors.NewNotFound(schema.GroupResource{}, ""), true},
		"too-much":  {errNoMemory, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(nil, 0, logr.Discard())
			again := 0
			f.start(t.Context(), func() { again++ })
			known := f.know(declared[:1])
			a := &attempt{followed: f.all[declared[0]], ctx: t.Context()}
			if a.failed(tt.err); known.err() == nil || again != 1 {
				t.Errorf("before it is known: %v, said %d times", known.err(), again)
			}
			if a.failed(tt.err); again != 1 {
				t.Errorf("the same was said %d times", again)
			}
			if err := a.Replace([]any{&held{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, json: []byte(`{}`)}}, ""); err != nil || known.err() != nil || again != 2 {
				t.Errorf("known: %v, %v, said %d times", err, known.err(), again)
			}
			a.failed(tt.err)
			object, err := known.find("namespaces", "", "shop")
			if (err != nil) != tt.unknown || (object == nil) != tt.unknown {
				t.Errorf("afterwards: %s, %v", object, err)
			}
		})
	}
}

// TestNoMoreIsReadAtATimeThanThereIsRoomFor asks a server of objects that may be as
// large as objects become.
func TestNoMoreIsReadAtATimeThanThereIsRoomFor(t *testing.T) {
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("limit")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}`)
	}))
	defer server.Close()
	client, err := dynamic.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		limit, others, known, read int64
		want                       string
	}{
		"no-bound":       {0, 0, 0, 0, "100"},
		"much-room":      {1 << 30, 0, 0, 0, "100"},
		"as-it-comes":    {64 * mib, 0, 0, 0, "42"},
		"others":         {64 * mib, 32 * mib, 0, 0, "21"},
		"little-room":    {64 * mib, 60 * mib, 0, 0, "10"},
		"no-room":        {mib, mib, 0, 0, "10"},
		"half-is-read":   {64 * mib, 0, 0, 32 * mib, "21"},
		"known-before":   {64 * mib, 0, 64 * mib, 0, "42"},
		"and-read-again": {64 * mib, 0, 64 * mib, 32 * mib, "21"},
	} {
		f := newFollower(client, tt.limit, logr.Discard())
		c := newCollection(declared[0], f.memory)
		f.memory.take(tt.others)
		if tt.known > 0 {
			if err := c.replace(map[objectKey][]byte{{"", "x"}: make([]byte, tt.known-overhead-1)}); err != nil {
				t.Fatal(err)
			}
		}
		a := &attempt{followed: &followed{collection: c, follower: f}, ctx: t.Context()}
		if tt.read > 0 {
			if err := a.read(&heldList{Items: []runtime.Object{&held{json: make([]byte, tt.read-overhead)}}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.page(t.Context(), metav1.ListOptions{Limit: 500}); err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != tt.want {
			t.Errorf("%s: asks for %s objects, want %s", name, got, tt.want)
		}
	}
}
