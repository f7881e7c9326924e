package config

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The loader is told its kinds; a ConfigMap is as good a policy as any.
func loader(t *testing.T, files map[string]string) Loader {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	l := Loader{Dir: t.TempDir(), Scheme: scheme}
	for name, text := range files {
		write(t, l, name, text)
	}
	return l
}

// write puts a file in place whole, as operators' tools do.
func write(t *testing.T, l Loader, name, text string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(l.Dir, name)); err != nil {
		t.Fatal(err)
	}
}

func policy(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n"
}

func names(s *Snapshot) (got []string) {
	for _, o := range s.Objects {
		got = append(got, o.(*corev1.ConfigMap).Name)
	}
	return got
}

func TestPoliciesAreReadInTheOrderOfTheirFiles(t *testing.T) {
	l := loader(t, map[string]string{
		"b.yaml": policy("b1") + "---\n" + policy("b2"), "a.json": `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`,
		"c.txt": "no policy", ".hidden.yaml": "nor this", "d.yml": "---\n# nothing\n---\n" + policy("d"),
	})
	s, err := l.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b1", "b2", "d"}, names(s)); diff != "" {
		t.Error(diff)
	}
}

func TestBadPoliciesAreNamed(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"unknown-kind":  {policy("a") + "---\napiVersion: proxy.elf.io/v1\nkind: Wish\n", "document 2"},
		"unknown-field": {policy("a") + "dta: {}\n", "dta"},
		"no-yaml":       {"a: [", "p.yaml"},
		"no-kind":       {"a: 1", "document 1"},
		"too-large":     {strings.Repeat("#", maxFile+1), "split it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := loader(t, map[string]string{"p.yaml": tt.text}).Load()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to name %q", err, tt.want)
			}
		})
	}
	if _, err := (Loader{Dir: "/does/not/exist"}).Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if s, err := (Loader{}).Load(); err != nil || len(s.Objects) != 0 {
		t.Errorf("no directory: got %v, %v", s, err)
	}
}

func TestChangesAreFollowedAndBadOnesRefused(t *testing.T) {
	l := loader(t, map[string]string{"a.yaml": policy("a")})
	ctx, cancel := context.WithCancel(t.Context())
	applied, refused, ended := make(chan *Snapshot), make(chan struct{}, 100), make(chan error)
	log := funcr.New(func(string, string) { refused <- struct{}{} }, funcr.Options{})
	go func() {
		ended <- l.Follow(ctx, log, func(s *Snapshot) error { applied <- s; return nil })
	}()
	if got := names(<-applied); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("at first: %v", got)
	}
	write(t, l, "b.yaml", "kind: Nonsense")
	<-refused
	write(t, l, "b.yaml", policy("b"))
	if got := names(<-applied); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("after a change: %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFirstPoliciesMustBeGood(t *testing.T) {
	bad := errors.New("bad")
	apply := func(*Snapshot) error { return bad }
	if err := loader(t, nil).Follow(t.Context(), logr.Discard(), apply); !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
	if err := (Loader{Dir: "/does/not/exist"}).Follow(t.Context(), logr.Discard(), apply); err == nil {
		t.Error("no error")
	}
}

// FuzzDecode holds the reader of policy files to objects that mean the same once they
// are written and read again, or to an error that says where.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(policy("a") + "---\n" + policy("b")))
	f.Add([]byte(`{"kind":"ConfigMap","apiVersion":"v1"}`))
	f.Add([]byte("---\n---"))
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("kind: CachePolicy\napiVersion: proxy.elf.io/v1alpha1\nmetadata: {name: a}\nspec: {resources: [{resource: pods}], reads: Session, callers: [{kind: User, name: u}]}"))
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := Loader{Scheme: scheme}
		objects, err := l.decode("fuzz.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "policy file fuzz.yaml, document ") {
				t.Fatalf("%v: it does not say where", err)
			}
			return
		}
		for _, o := range objects {
			again, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			same, err := l.decode("fuzz.yaml", again)
			if err != nil || len(same) != 1 {
				t.Fatalf("%q was read as %s, which is read as %v: %v", data, again, same, err)
			}
			if back, _ := json.Marshal(same[0]); string(back) != string(again) {
				t.Fatalf("%s is read as %s", again, back)
			}
		}
	})
}
