package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// TestRestoredEtcdIsNoticed puts back what etcd had stored, as after a disaster, and
// expects replicas to believe it: in sessions, too, which ask upstream for nothing.
func TestRestoredEtcdIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	dir, policies := t.TempDir(), t.TempDir()
	if err := os.WriteFile(policies+"/policy.yaml", []byte(sessionReads), 0o600); err != nil {
		t.Fatal(err)
	}
	plane := controlplane.New(t, controlplane.Options{Dir: dir, Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}}})
	w := &world{t: t, plane: plane, direct: newDoor(t, plane.ConfigFor(plane.Token("admin")))}
	for _, own := range proxy.ReplicaFlags(t, 2) {
		p := proxy.New(t, proxy.Options{Kubeconfig: plane.KubeconfigPath(), Flags: append(own, "--policy-dir="+policies)})
		w.proxies, w.doors = append(w.proxies, p), append(w.doors, newDoor(t, p.Config(plane.Token("admin"))))
	}
	const path = "/api/v1/namespaces/default/configmaps"
	create := func(name string) {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q}}`, name)
		if _, code := w.doors[0].do(t.Context(), http.MethodPost, path, cachetest.JSON, body); code != http.StatusCreated {
			t.Fatalf("create %s: %d", name, code)
		}
	}
	create("before")
	w.awaitNames(t, path, "before")
	// What follows shall not be there any more.
	kept := filepath.Join(t.TempDir(), "etcd")
	w.withoutEtcd(t, func() error { return os.CopyFS(kept, os.DirFS(filepath.Join(dir, "etcd"))) })
	for i := range 20 {
		create(fmt.Sprintf("lost-%02d", i))
	}
	w.awaitNames(t, path, "lost-19")
	watched := w.endOfWatch(t, path)

	w.withoutEtcd(t, func() error {
		if err := os.RemoveAll(filepath.Join(dir, "etcd")); err != nil {
			return err
		}
		return os.CopyFS(filepath.Join(dir, "etcd"), os.DirFS(kept))
	})
	for i, d := range w.doors {
		until(t, fmt.Sprintf("replica %d to believe what etcd says now", i), func() bool { return names(t, d, path) == names(t, w.direct, path) })
		until(t, "metrics to tell", func() bool { return strings.Contains(w.metrics(t, i), `streams_ended_total{reason="restored"} `) })
	}
	<-watched
	create("after")
	w.awaitNames(t, path, "after")
	for i, d := range w.doors {
		until(t, fmt.Sprintf("replica %d to answer from memory again", i), func() bool {
			res, err := d.open(t.Context(), http.MethodGet, path, "", "")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			return res.Header.Get("Portico-Served-By") == "cache"
		})
	}
}

// withoutEtcd does something while nothing runs that uses it. API servers are
// started anew, as they have to be when etcd was restored.
func (w *world) withoutEtcd(t *testing.T, do func() error) {
	t.Helper()
	for _, part := range []controlplane.Part{controlplane.APIServer, controlplane.Etcd} {
		if err := w.plane.Kill(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := do(); err != nil {
		t.Fatal(err)
	}
	for _, part := range []controlplane.Part{controlplane.Etcd, controlplane.APIServer} {
		if err := w.plane.Restart(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range w.proxies {
		until(t, "the proxies to be ready", p.Ready)
	}
}

// names are those that a list shows, nothing if it cannot be had.
func names(t *testing.T, d door, path string) string {
	t.Helper()
	a, code := d.do(t.Context(), http.MethodGet, path, "", "")
	if code != http.StatusOK {
		return ""
	}
	var all []string
	for _, o := range a.Items {
		all = append(all, o.Metadata.Name)
	}
	return strings.Join(all, " ")
}

// awaitNames waits until every replica shows name.
func (w *world) awaitNames(t *testing.T, path, name string) {
	t.Helper()
	for _, d := range w.doors {
		until(t, name, func() bool { return strings.Contains(names(t, d, path), name) })
	}
}

// endOfWatch watches through the last replica and closes what it returns when that
// is over.
func (w *world) endOfWatch(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	a, _ := w.doors[1].do(t.Context(), http.MethodGet, path, "", "")
	go func() {
		defer close(ended)
		w.doors[1].watch(ctx, path+"?watch=true&resourceVersion="+a.Metadata.ResourceVersion, func(string, answer) bool { return true })
	}()
	return ended
}

func (w *world) metrics(t *testing.T, n int) string {
	t.Helper()
	res, err := http.Get(w.proxies[n].Metrics)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}
