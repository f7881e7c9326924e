package wasm

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// shelfOf runs a library until the test ends. What may come to something else is
// told by the channel.
func shelfOf(t *testing.T, o Options) (*Library, <-chan struct{}) {
	t.Helper()
	o.Log = logr.Discard()
	l, err := NewLibrary(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	again, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- l.Start(ctx, func() error { again <- struct{}{}; return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l, again
}

func wasmFilter(name string, source v1alpha1.WasmSource) *v1alpha1.WasmFilter {
	return &v1alpha1.WasmFilter{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.WasmFilterSpec{
		Source: source, Config: &runtime.RawExtension{Raw: []byte(`{}`)},
		Limits: v1alpha1.WasmLimits{WallClock: &metav1.Duration{Duration: 10 * time.Second}},
	}}
}

func bindingTo(name string) *v1alpha1.FilterBinding {
	return &v1alpha1.FilterBinding{ObjectMeta: metav1.ObjectMeta{Name: "to-" + name}, Spec: v1alpha1.FilterBindingSpec{
		FilterRef: v1alpha1.FilterRef{Kind: v1alpha1.FilterKindWasm, Name: name},
	}}
}

func snapshot(objects ...runtime.Object) *config.Snapshot { return &config.Snapshot{Objects: objects} }

// isIn returns the condition of a kind that was found, or the empty one.
func isIn(found config.Findings, policy runtime.Object, kind string) metav1.Condition {
	for _, c := range found[policy] {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}

const plainPod = `{"kind":"Pod","metadata":{"name":"web"}}`

func TestModulesAreCompiledAndBound(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	w, b := wasmFilter("labels", v1alpha1.WasmSource{Inline: base64.StdEncoding.EncodeToString(fromC(t, guestInC))}), bindingTo("labels")
	f, found := l.Compile(snapshot(w, b))
	if got := isIn(found, w, config.Compiled); got.Status != metav1.ConditionTrue {
		t.Errorf("got %+v", got)
	}
	if len(found[b]) > 0 {
		t.Errorf("of the binding: %+v", found[b])
	}
	if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 403 {
		t.Errorf("got %+v", got)
	}
	again, _ := l.Compile(snapshot(w, b))
	if again.bindings[0].module != f.bindings[0].module {
		t.Error("what did not change was compiled again")
	}
	// A request that began with the chain before is judged by what is in force.
	if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 403 {
		t.Errorf("by a chain of before: got %+v", got)
	}
	without, _ := l.Compile(snapshot())
	if without.Binds() {
		t.Error("something is left")
	}
	if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 0 {
		t.Errorf("nothing is bound: got %+v", got)
	}
}

func TestBindingsWithoutModuleFailClosed(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	ignoring := bindingTo("bad")
	ignoring.Spec.FailurePolicy = v1alpha1.FailurePolicyIgnore
	bad := wasmFilter("bad", v1alpha1.WasmSource{Inline: "AAAA"})
	for name, tt := range map[string]struct {
		binding *v1alpha1.FilterBinding
		want    int32
	}{"missing": {bindingTo("missing"), 503}, "bad": {bindingTo("bad"), 503}, "ignored": {ignoring, 0}} {
		f, found := l.Compile(snapshot(bad, tt.binding))
		if got := post(t, f, plainPod); got.Code != tt.want {
			t.Errorf("%s: got %+v", name, got)
		}
		if got := isIn(found, tt.binding, config.Programmed); got.Status != metav1.ConditionFalse {
			t.Errorf("%s: got %+v", name, got)
		}
		if got := isIn(found, bad, config.Compiled); got.Status != metav1.ConditionFalse {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	var none *Library
	if f, _ := none.Compile(snapshot(bindingTo("any"))); post(t, f, plainPod).Code != 503 {
		t.Error("without a library requests pass")
	}
}

// TestFilesThatAreNotThereAreToldOf by the filter and by what is bound to it.
func TestFilesThatAreNotThereAreToldOf(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	path := filepath.Join(t.TempDir(), "guest.wasm")
	w, b := wasmFilter("labels", v1alpha1.WasmSource{File: path}), bindingTo("labels")
	_, found := l.Compile(snapshot(w, b))
	for kind, of := range map[string]runtime.Object{config.Compiled: w, config.Programmed: b} {
		got := isIn(found, of, kind)
		if got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, "file does not exist: "+path+" was looked for where the proxy runs") {
			t.Errorf("got %+v", got)
		}
	}
	// What was bad once is not taken for what is missing now.
	bad := func() error { return os.WriteFile(path, []byte("bad"), 0o600) }
	for _, step := range []struct {
		do   func() error
		want string
	}{{bad, "compile filter"}, {func() error { return os.Remove(path) }, "file does not exist"}, {bad, "compile filter"}} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		_, found = l.Compile(snapshot(w, b))
		if got := isIn(found, b, config.Programmed); !strings.Contains(got.Message, step.want) {
			t.Errorf("want %q: got %+v", step.want, got)
		}
	}
}

func TestBadModuleLeavesTheOneBefore(t *testing.T) {
	l, again := shelfOf(t, Options{})
	path := filepath.Join(t.TempDir(), "guest.wasm")
	write := func(code []byte) {
		part := path + ".part"
		if err := os.WriteFile(part, code, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(part, path); err != nil {
			t.Fatal(err)
		}
	}
	code := fromC(t, guestInC)
	write(code)
	w, b := wasmFilter("labels", v1alpha1.WasmSource{File: path}), bindingTo("labels")
	s := snapshot(w, b)
	deny := func(step string, want metav1.ConditionStatus) {
		t.Helper()
		for ; ; <-again {
			f, found := l.Compile(s)
			if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 403 {
				t.Errorf("%s: got %+v", step, got)
			}
			if isIn(found, w, config.Compiled).Status == want {
				return
			}
		}
	}
	deny("good", metav1.ConditionTrue)
	write(code[:len(code)/2])
	deny("half", metav1.ConditionFalse)
	write(append(code, 0, 3, 1, 'x', 'y')) // a section of the author's own, so another module
	deny("another", metav1.ConditionTrue)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	deny("gone", metav1.ConditionFalse)
}

func TestModulesAreFetchedAside(t *testing.T) {
	code := fromC(t, guestInC)
	fails, dir := errors.New("the network is down"), t.TempDir()
	asked := 0
	o := Options{CacheDir: dir, Sources: fetch.Sources{ConfigMap: func(context.Context, string, string, string) ([]byte, error) {
		if asked++; asked == 1 {
			return nil, fails
		}
		return code, nil
	}}}
	source := v1alpha1.WasmSource{ConfigMap: &v1alpha1.WasmConfigMap{Namespace: "shop", Name: "f", Key: "f.wasm"}, SHA256: fetch.DigestOf(code)}
	w, b := wasmFilter("labels", source), bindingTo("labels")
	l, again := shelfOf(t, o)
	f, _ := l.Compile(snapshot(w, b))
	if got := post(t, f, plainPod); got.Code != 503 {
		t.Errorf("while it is fetched: got %+v", got)
	}
	<-again
	if _, found := l.Compile(snapshot(w, b)); isIn(found, w, config.Compiled).Message != "fetch: the network is down" {
		t.Errorf("got %+v", found)
	}
	<-again // after a second
	f, _ = l.Compile(snapshot(w, b))
	if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 403 {
		t.Errorf("got %+v", got)
	}

	// The next process has it at once.
	o.Sources.ConfigMap = nil
	next, _ := shelfOf(t, o)
	f, _ = next.Compile(snapshot(w, b))
	if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 403 {
		t.Errorf("after a restart: got %+v", got)
	}
	other := wasmFilter("other", v1alpha1.WasmSource{ConfigMap: source.ConfigMap, SHA256: fetch.DigestOf(nil)})
	third, retried := shelfOf(t, Options{Sources: fetch.Sources{ConfigMap: func(context.Context, string, string, string) ([]byte, error) { return code, nil }}})
	third.Compile(snapshot(other))
	<-retried
	if _, found := third.Compile(snapshot(other)); isIn(found, other, config.Compiled).Status != metav1.ConditionFalse {
		t.Errorf("another digest: got %+v", found)
	}
}

func TestModulesThatSpoiltOnDiskAreFetchedAnew(t *testing.T) {
	code, dir := fromC(t, guestInC), t.TempDir()
	o := Options{CacheDir: dir, Sources: fetch.Sources{OCI: func(context.Context, string) ([]byte, error) { return code, nil }}}
	source := v1alpha1.WasmSource{OCI: "example.com/f@sha256:" + fetch.DigestOf(nil)} // says nothing of the code itself
	s := snapshot(wasmFilter("labels", source), bindingTo("labels"))
	starts := func(name string, fetches bool) {
		t.Helper()
		l, again := shelfOf(t, o)
		f, _ := l.Compile(s)
		if got := post(t, f, plainPod, "X-Case", "deny"); got.Code == 503 != fetches {
			t.Errorf("%s: at first got %+v", name, got)
		}
		if !fetches {
			return
		}
		<-again
		f, _ = l.Compile(s)
		if got := post(t, f, plainPod, "X-Case", "deny"); got.Code != 403 {
			t.Errorf("%s: fetched, got %+v", name, got)
		}
	}
	starts("nothing is kept", true)
	starts("kept", false)
	file := filepath.Join(dir, "modules", fetch.Pin(&fetch.Source{OCI: source.OCI}))
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another module": append(slices.Clone(good), 0, 3, 1, 'x', 'y'), // a section of the author's own
		"no digest":      code,
		"half":           good[:len(good)/2],
		"empty":          nil,
	} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		starts(name, true)
	}
	starts("kept again", false)
}

func TestAThousandReloadsUnderLoadLeakNothing(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	code := base64.StdEncoding.EncodeToString(fromC(t, guestInC))
	policies := func(n int) *config.Snapshot {
		w := wasmFilter("labels", v1alpha1.WasmSource{Inline: code})
		w.Spec.Config.Raw = fmt.Appendf(nil, `{"n":%d}`, n)
		return snapshot(w, bindingTo("labels"))
	}
	first, _ := l.Compile(policies(0))
	stop, callers := make(chan struct{}), sync.WaitGroup{}
	for range 4 {
		callers.Go(func() {
			for asked := false; ; asked = true {
				if got := post(t, first, plainPod, "X-Case", "deny"); got.Code != 403 {
					t.Errorf("got %+v", got)
				}
				select {
				case <-stop:
					if asked {
						return
					}
				default:
				}
			}
		})
	}
	for n := range 1000 {
		if _, found := l.Compile(policies(n)); len(found) != 1 {
			t.Fatalf("got %+v", found)
		}
	}
	close(stop)
	callers.Wait()
	if n := l.engine.open.Load(); n != 1 {
		t.Errorf("%d modules are open", n)
	}
	l.Compile(snapshot())
	if n := l.engine.open.Load(); n != 0 {
		t.Errorf("%d modules are open where none is asked for", n)
	}
}

func TestModulesMayComeLater(t *testing.T) {
	l, again := shelfOf(t, Options{})
	dir := filepath.Join(t.TempDir(), "later")
	w := wasmFilter("labels", v1alpha1.WasmSource{File: filepath.Join(dir, "guest.wasm")})
	code := fromC(t, guestInC)
	if _, found := l.Compile(snapshot(w)); isIn(found, w, config.Compiled).Status != metav1.ConditionFalse {
		t.Errorf("got %+v", found)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Spec.Source.File, code, 0o600); err != nil {
		t.Fatal(err)
	}
	for {
		<-again
		if _, found := l.Compile(snapshot(w)); isIn(found, w, config.Compiled).Status == metav1.ConditionTrue {
			return
		}
	}
}
