package rego

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// shop is what bundles of these tests are made of.
var shop = map[string]string{
	"shop/shop.rego": `package shop

import data.lib

deny contains sprintf("%s is closed until %s", [input.namespace, data.hours[input.namespace]]) if lib.closed(input.namespace)

limits contains {"id": "all", "key": [input.user.name], "tokens": {"rate": data.settings.rate}}
`,
	"lib/lib.rego":        "package lib\n\nclosed(namespace) if data.hours[namespace]\n",
	"shop/shop_test.rego": "package shop_test\n\nimport data.shop\n\ntest_it if count(shop.deny) == 0 with input as {\"namespace\": \"x\"}\n",
}

// packed is a bundle that OPA's own writer has written.
func packed(t *testing.T, modules map[string]string, key string) []byte {
	t.Helper()
	b := bundle.Bundle{
		Manifest: bundle.Manifest{Revision: "r7"},
		Data:     map[string]any{"hours": map[string]any{"shop": "9:00"}, "settings": map[string]any{"rate": json.Number("3")}},
	}
	b.Manifest.Init()
	for name, text := range modules {
		m, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatal(err)
		}
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: name, Path: name, Raw: []byte(text), Parsed: m})
	}
	if key != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(key, "RS256", ""), "somebody", false); err != nil {
			t.Fatal(err)
		}
	}
	var to bytes.Buffer
	if err := bundle.NewWriter(&to).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return to.Bytes()
}

func fromSource(s v1alpha1.RegoSource) *v1alpha1.RegoPolicy {
	p := policy("p", "")
	p.Spec.Settings, p.Spec.Source = nil, &s
	return p
}

// fetching is a library that fetches until the test ends, and a channel that tells
// that Compile may come to something else.
func fetching(t *testing.T, o Options) (*Library, <-chan struct{}) {
	t.Helper()
	o.Log = logr.Discard()
	l := NewLibrary(o)
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

const isCompiled = "Compiled=True: It was compiled in "

// inForce compiles until a policy is, and returns what is said of it.
func inForce(t *testing.T, l *Library, again <-chan struct{}, p *v1alpha1.RegoPolicy, want string) string {
	t.Helper()
	for {
		_, found := l.Compile(&config.Snapshot{Objects: []runtime.Object{p}})
		if got := conditions(found, p); strings.Contains(got, want) {
			return got
		}
		<-again
	}
}

// TestBundlesDecide has one from a file: its modules, its data, its settings, and
// those of the policy that take their place.
func TestBundlesDecide(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if err := os.WriteFile(file, packed(t, shop, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	l := NewLibrary(Options{Log: logr.Discard()})
	p := fromSource(v1alpha1.RegoSource{File: file, Package: "shop"})
	got, found := ask(t, l, asking{"GET", "/api/v1/namespaces/shop/pods", jane}, p, bind("p", v1alpha1.PhaseRestrict, nil))
	if want := "shop is closed until 9:00 (filter b)"; got.code != 403 || got.text != want {
		t.Errorf("got %+v, want %s; found %s", got, want, conditions(found, p))
	}
	if got, _ := ask(t, l, asking{"GET", "/api/v1/namespaces/other/pods", jane}, p, bind("p", v1alpha1.PhaseRestrict, nil)); got.code != 0 {
		t.Errorf("elsewhere: got %+v", got)
	}
	rate := func() float64 {
		a, err := l.shelves["p"].policy.Limits(t.Context(), sent(t, "GET", "/api/v1/pods", jane))
		if err != nil || len(a.Limits) != 1 {
			t.Fatalf("got %+v, %v", a, err)
		}
		return a.Limits[0].Tokens.Rate
	}
	if got := rate(); got != 3 {
		t.Errorf("the bundle's setting is 3, and the rate %v", got)
	}
	p.Spec.Settings = policy("", "").Spec.Settings
	p.Spec.Settings.Raw = []byte(`{"rate": 5}`)
	l.Compile(&config.Snapshot{Objects: []runtime.Object{p}})
	if got := rate(); got != 5 {
		t.Errorf("the policy's setting is 5, and the rate %v", got)
	}
}

func TestDecisionsNameTheRevisionOfTheirBundle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if err := os.WriteFile(file, packed(t, shop, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	text := logged(t, LogOptions{Sample: 1}, func(d *DecisionLog) {
		p := fromSource(v1alpha1.RegoSource{File: file, Package: "shop"})
		ask(t, NewLibrary(Options{Log: logr.Discard(), Decisions: d}), asking{"GET", "/api/v1/pods", jane}, p, bind("p", v1alpha1.PhaseRestrict, nil))
	})
	if !strings.Contains(text, `"bundles":{"p":{"revision":"r7"}}`) || !strings.Contains(text, `"path":"shop"`) {
		t.Errorf("logged %s", text)
	}
}

// TestBundlesComeFromAfar has one behind https and one in a registry, and a cache
// that has both when neither answers any more.
func TestBundlesComeFromAfar(t *testing.T) {
	code := packed(t, shop, "")
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(code) }))
	host, pinned := registry(t, code)
	client := web.Client()
	t.Cleanup(client.CloseIdleConnections)
	o := Options{CacheDir: t.TempDir(), Sources: fetch.Sources{URL: fetch.FromURL(client), OCI: fetch.FromOCI(client, nil)}}
	all := map[string]v1alpha1.RegoSource{
		"url": {URL: web.URL + "/bundle.tar.gz", SHA256: fetch.DigestOf(code), Package: "shop"},
		"oci": {OCI: host.Listener.Addr().String() + "/policies/shop@" + pinned, Package: "shop"},
	}
	for name, source := range all {
		t.Run(name, func(t *testing.T) {
			l, again := fetching(t, o)
			inForce(t, l, again, fromSource(source), isCompiled)
		})
	}
	web.Close()
	host.Close()
	for name, source := range all {
		t.Run("kept-"+name, func(t *testing.T) {
			l, again := fetching(t, o)
			inForce(t, l, again, fromSource(source), isCompiled)
		})
	}
	other := fromSource(v1alpha1.RegoSource{URL: web.URL, SHA256: fetch.DigestOf(nil), Package: "shop"})
	l, again := fetching(t, o)
	if got := inForce(t, l, again, other, "fetch: "); !strings.Contains(got, "There is no policy") {
		t.Errorf("said %s", got)
	}
}

// registry serves one artifact of one layer.
func registry(t *testing.T, code []byte) (*httptest.Server, string) {
	t.Helper()
	store := memory.New()
	layer, err := oras.PushBytes(t.Context(), store, ocispec.MediaTypeImageLayerGzip, code)
	if err != nil {
		t.Fatal(err)
	}
	root, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.opa.bundle", oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, one := range []ocispec.Descriptor{layer, root} {
			if digest.Digest(path.Base(r.URL.Path)) != one.Digest {
				continue
			}
			blob, err := content.FetchAll(r.Context(), store, one)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", one.MediaType)
			w.Header().Set("Docker-Content-Digest", one.Digest.String())
			_, _ = w.Write(blob)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(s.Close)
	return s, root.Digest.String()
}

// TestBadBundlesLeaveTheOneBefore replaces a good bundle's file, and says why each
// is refused.
func TestBadBundlesLeaveTheOneBefore(t *testing.T) {
	large := map[string]string{"shop/shop.rego": "package shop\n\n# " + strings.Repeat("a", maxBundle) + "\ndeny contains \"x\"\n"}
	good := packed(t, shop, "")
	for name, tt := range map[string]struct {
		code []byte
		want string
	}{
		"no-gzip":    {[]byte("no bundle"), "unpack the bundle: "},
		"cut":        {good[:len(good)/2], "unpack the bundle: "},
		"large":      {packed(t, large, ""), errBundleSize.Error()},
		"empty":      {packed(t, nil, ""), errNoRego.Error()},
		"package":    {packed(t, map[string]string{"a.rego": "package a\n\ndeny contains \"x\"\n"}, ""), "package must be one of those of the bundle: a"},
		"misspelt":   {packed(t, map[string]string{"shop/a.rego": "package shop\n\ndeny contains \"x\" if input.verbb\n"}, ""), "shop/a.rego, line 3, column 22: undefined ref: input.verbb"},
		"no-data":    {packed(t, map[string]string{"shop/a.rego": "package shop\n\ndeny contains \"x\" if data.our == 1\n"}, ""), "shop/a.rego, line 3, column 22: there is no data.our"},
		"hides-data": {packed(t, map[string]string{"shop/a.rego": "package shop\n\ndeny contains \"x\"\n", "b.rego": "package hours\n\nshop := 1\n"}, ""), "conflict"},
		"world":      {packed(t, map[string]string{"shop/a.rego": "package shop\n\ndeny contains \"x\" if time.now_ns() > 1\n"}, ""), "undefined function time.now_ns"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bundle.tar.gz")
			write := func(code []byte) {
				if err := os.WriteFile(file, code, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(good)
			l := NewLibrary(Options{Log: logr.Discard()})
			p, b := fromSource(v1alpha1.RegoSource{File: file, Package: "shop"}), bind("p", v1alpha1.PhaseRestrict, nil)
			ask(t, l, asking{"GET", "/api/v1/pods", jane}, p, b)
			write(tt.code)
			got, found := ask(t, l, asking{"GET", "/api/v1/namespaces/shop/pods", jane}, p, b)
			if got.text != "shop is closed until 9:00 (filter b)" {
				t.Errorf("got %+v", got)
			}
			said := conditions(found, p)
			if !strings.Contains(said, "spec.source, ") || !strings.Contains(said, tt.want) || !strings.Contains(said, "The policy before this one stays in force.") {
				t.Errorf("said %s, want %s", said, tt.want)
			}
		})
	}
}

// TestChangedFilesAreNoticed has a bundle replaced while nobody asks.
func TestChangedFilesAreNoticed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	l, again := fetching(t, Options{})
	p := fromSource(v1alpha1.RegoSource{File: file, Package: "shop"})
	inForce(t, l, again, p, "file does not exist")
	if err := os.WriteFile(file+".new", packed(t, shop, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	inForce(t, l, again, p, isCompiled)
}

// TestBundlesAreSignedByWhomTheyShouldBe has three bundles of the same contents.
func TestBundlesAreSignedByWhomTheyShouldBe(t *testing.T) {
	private, public := keys(t)
	stranger, _ := keys(t)
	signed := &v1alpha1.RegoSource{Package: "shop", SignedBy: &v1alpha1.RegoSigner{PublicKey: public}}
	for name, tt := range map[string]struct {
		key  string
		from *v1alpha1.RegoSource
		good bool
	}{
		"signed":           {private, signed, true},
		"by-somebody-else": {stranger, signed, false},
		"unsigned":         {"", signed, false},
		"nobody-asks":      {stranger, &v1alpha1.RegoSource{Package: "shop"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := ReadBundle(packed(t, shop, tt.key), tt.from)
			if (err == nil) != tt.good {
				t.Errorf("got %v", err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(map[string]string{"shop/shop.rego": shop["shop/shop.rego"], "lib/lib.rego": shop["lib/lib.rego"]}, b.modules); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func keys(t *testing.T) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
